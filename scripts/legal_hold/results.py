"""Print the result for each evaluation that was held or released, and count the results."""

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

import click
import orjson

from scripts.legal_hold.holder import HoldResult

AT_ONCE = 10
"""Number of concurrent evaluations: boto3's pool has as many connections."""
T = TypeVar("T")


class ResultPrinter:
    """Prints JSON lines on standard output, or a sentence on standard error for each evaluation that failed.

    Args:
        done: word for the state of an evaluation that did not fail.
        as_json: whether to print JSON lines.

    Attributes:
        ok: number of evaluations that did not fail.
        new: number of these that were not under the matter before.
        kept: number of these that are under a matter now.
        failed: number of evaluations that failed.
    """

    def __init__(self, done: str, *, as_json: bool) -> None:
        self._done, self.as_json = done, as_json
        self.ok = self.new = self.kept = self.failed = 0

    @property
    def count(self) -> int:
        """Number of all results."""
        return self.ok + self.failed

    def print(self, result: HoldResult) -> None:
        """Print and count one result."""
        is_ok = result.why is None
        self.ok += is_ok
        self.failed += not is_ok
        self.new += is_ok and result.is_new
        self.kept += is_ok and bool(result.matters)
        evaluation = result.evaluation
        if self.as_json:
            facts = {
                "eval_id": evaluation.eval_id,
                "environment": evaluation.environment,
                "state": self._done if is_ok else "refused",
                "matters": result.matters,
                "documents": result.documents,
                "versions": result.versions,
                "why": result.why,
            }
            click.echo(orjson.dumps(facts))
        elif not is_ok:
            click.echo(f"{evaluation.eval_id}: not {self._done}: {result.why}", err=True)


async def iterate(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items, for ``ordered_gather``."""
    for item in items:
        yield item
