"""Every code that the page shows has a label and a sentence for people."""

from collections.abc import Iterable

import pytest

from scripts.serve.page.labels import label, label_text, meaning
from tasks import errors
from tasks.bundle.documents import Kind
from tasks.model.outcome import ManifestOutcome, NoDocumentsReason, Outcome
from tasks.resilience.holds import Reason


def causes() -> Iterable[str]:
    """Return the causes of errors that evaluations can have. Those of families and of refused input are not shown."""
    hidden = {"error", "bad_input", "try_again", "not_now", "needs_person", "lease_lost"}
    hidden |= {"bad_matter_name", "bad_run_name", "run_taken", "run_cancelled", "bad_bundle"}
    found = {each.cause for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "cause")}
    return sorted(each for each in found if isinstance(each, str) and each not in hidden)


CODES = {
    "outcome": [*Outcome, *ManifestOutcome, "missing"],
    "hold_reason": [*Reason],
    "reason": [*NoDocumentsReason],
    "kind": [*Kind],
    "cause": [*causes()],
}


@pytest.mark.parametrize("family", CODES)
def test_every_code_has_a_label_and_a_sentence(family: str) -> None:
    for code in CODES[family]:
        assert meaning(str(code), family), f"{family} {code} has no sentence"
        assert "_" not in label_text(str(code), family)
        assert f"({code})" in label(str(code), family), "the tooltip contains the code"


def test_a_code_of_a_newer_release_is_its_own_label() -> None:
    assert label("wrong_crc", "cause") == '<span title="wrong_crc">Wrong crc</span>'
    assert label("<img>\u202e", "cause") == r'<span title="&lt;img&gt;\u202e">&lt;img&gt;\u202e</span>'
