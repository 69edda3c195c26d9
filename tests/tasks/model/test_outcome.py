import pytest

from tasks.model.outcome import (
    ArchiveResult,
    Evidence,
    ManifestOutcome,
    NoDocumentsReason,
    Outcome,
    Restriction,
    reason_from,
    restriction_from,
    select_explaining,
)

OK = {"archived", "unchanged", "no_documents", "withheld", "erased", "disposed"}


@pytest.mark.parametrize("outcome", [*Outcome, *ManifestOutcome])
def test_an_outcome_is_ok_only_if_the_evaluation_needs_no_attention(outcome: Outcome | ManifestOutcome) -> None:
    assert outcome.ok is (outcome.value in OK)


@pytest.mark.parametrize("unchanged", ManifestOutcome)
def test_an_unchanged_result_is_ok_only_if_its_manifest_is(unchanged: ManifestOutcome) -> None:
    assert ArchiveResult(Outcome.UNCHANGED, unchanged).ok is unchanged.ok


@pytest.mark.parametrize("outcome", Outcome)
def test_another_result_is_ok_only_if_its_outcome_is(outcome: Outcome) -> None:
    assert ArchiveResult(outcome).ok is outcome.ok


@pytest.mark.parametrize("reason", NoDocumentsReason)
def test_a_reason_is_provisional_only_if_documents_may_follow(reason: NoDocumentsReason) -> None:
    assert reason.is_provisional is (reason.value in {"no_docv_step", "not_complete"})


@pytest.mark.parametrize(
    ("evidence", "restriction", "reason"),
    [
        ((), None, "retention_or_unknown"),
        ((Evidence.DOCV_STEP,), None, "retention_or_unknown"),
        ((Evidence.NOT_COMPLETE,), None, "not_complete"),
        ((Evidence.NOT_COMPLETE, Evidence.NO_DOCV_STEP), None, "no_docv_step"),
        ((Evidence.NO_DOCV_STEP, Evidence.UNDER_AGE), "minor", "minor"),
        ((Evidence.UNDER_AGE, Evidence.MILITARY_ID), "military", "military"),
    ],
)
def test_the_strongest_evidence_decides_restriction_and_reason(
    evidence: tuple[Evidence, ...], restriction: str | None, reason: str
) -> None:
    assert restriction_from(evidence) == (restriction and Restriction(restriction))
    assert reason_from(evidence) is NoDocumentsReason(reason)


def test_explaining_omits_duplicates_and_a_refuted_missing_step() -> None:
    missing, present, minor = Evidence.NO_DOCV_STEP, Evidence.DOCV_STEP, Evidence.UNDER_AGE
    assert select_explaining([minor, missing, minor]) == (minor, missing)
    assert select_explaining([missing, minor, present]) == (minor,)
    assert select_explaining([present]) == ()
