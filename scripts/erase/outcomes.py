"""Print the result for each evaluation, as a sentence or a JSON object."""

from typing import assert_never

import click
import orjson

from scripts.console.formatting import format_count
from scripts.erase.duties import Waiting
from scripts.erase.erasure import BegunErasure, Erased, ErasureRefused, ErasureResult, NotFound, WouldErase
from scripts.erase.receipt import Receipt
from tasks.model.evaluation import Evaluation

_OPEN = "a worker that lost its connection may still write, and `docv-archive erase --pending` completes it"


class Printer:
    """Prints results.

    Args:
        as_json: whether to print JSON objects, one per line.

    Attributes:
        all_ok: whether every evaluation so far was erased as requested, or waits as requested.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.all_ok = True

    def print(self, evaluation: Evaluation, result: ErasureResult | BegunErasure) -> None:
        """Print the result of one evaluation."""
        is_erased = isinstance(result, Erased) and result.elsewhere is None
        self.all_ok &= is_erased or isinstance(result, WouldErase | Waiting)
        if self._as_json:
            click.echo(orjson.dumps({"eval_id": evaluation.eval_id, **_as_json(result)}))
            return
        click.echo(f"{evaluation.eval_id}: {_describe(result)}")
        if isinstance(result, WouldErase) and result.why:
            click.echo(f"docv-archive: {evaluation.eval_id}: {result.why}", err=True)


def _describe(result: ErasureResult | BegunErasure) -> str:
    match result:
        case Erased(kept, elsewhere):
            more = f"; but {elsewhere}" if elsewhere else ""
            return f"erased {_format_amount(kept.receipt)}; the receipt is {kept.key}{more}"
        case BegunErasure():
            kept = result.receipts[-1]
            return f"erased {_format_amount(kept.receipt)}; the receipt {kept.key} is open: {_OPEN}"
        case WouldErase(receipt):
            return f"would erase {_format_amount(receipt)}"
        case Waiting(duty, receipt_key):
            return f"{duty.wait()}; the receipt is {receipt_key}" if receipt_key else duty.wait()
        case ErasureRefused(why) | NotFound(why):
            return f"not erased: {why}"
    assert_never(result)


def _as_json(result: ErasureResult | BegunErasure) -> dict[str, object]:
    match result:
        case Erased(kept, elsewhere):
            return {"state": "erased", **_totals(kept.receipt), "receipt": kept.key, "why": elsewhere}
        case BegunErasure():
            kept = result.receipts[-1]
            return {"state": "open", **_totals(kept.receipt), "receipt": kept.key, "why": _OPEN}
        case WouldErase(receipt, why):
            return {"state": "would_erase", **_totals(receipt), "receipt": None, "why": why}
        case Waiting(duty, receipt_key):
            nothing = {"objects": 0, "versions": 0, "bytes": 0}
            dates = {"waits_for": duty.rules, "not_before": duty.not_before}
            return {"state": "waiting", **nothing, "receipt": receipt_key, "why": duty.wait(), **dates}
        case ErasureRefused(why) | NotFound(why):
            state = "refused" if isinstance(result, ErasureRefused) else "not_found"
            return {"state": state, "objects": 0, "versions": 0, "bytes": 0, "receipt": None, "why": why}
    assert_never(result)


def _format_amount(receipt: Receipt) -> str:
    counts = ", ".join(
        format_count(count, noun)
        for count, noun in ((receipt.objects, "object"), (receipt.versions, "version"), (receipt.size, "byte"))
    )
    return f"{counts} of the kind {' and '.join(receipt.kinds)}" if receipt.kinds else counts


def _totals(receipt: Receipt) -> dict[str, object]:
    kinds = {"kinds": receipt.kinds} if receipt.kinds else {}
    return {"objects": receipt.objects, "versions": receipt.versions, "bytes": receipt.size, **kinds}
