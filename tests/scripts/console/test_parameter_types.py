import click
import pytest

from scripts.console.parameter_types import (
    DurationType,
    EvidenceColumnsType,
    OutcomesType,
    RangeType,
    RateType,
    ShareType,
)


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        (RateType(), "0.5", 0.5),
        (RateType(), "10000", 10_000),
        (DurationType(), "90s", 90),
        (DurationType(), "30m", 1_800),
        (DurationType(), "2h", 7_200),
        (DurationType(), "7d", 604_800),
        (RangeType(), "0-9", (0, 9)),
        (RangeType(), "3-3", (3, 3)),
        (ShareType(), "5%", 0.05),
        (ShareType(), "0.5%", 0.005),
        (ShareType(), "100%", 1),
    ],
)
def test_a_parameter_is_converted(kind: click.ParamType[float], text: str, number: float) -> None:
    assert kind.convert(text, None, None) == number


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((RateType(), text) for text in ("0", "-1", "10001", "nan", "inf", "fast")),
        *((DurationType(), text) for text in ("", "5", "s", "1.5h", "-1h", "2w", "²h", "soon")),
        *((RangeType(), text) for text in ("", "5", "9-0", "-1-3", "0-9/s", "a-b", "0 - 9")),
        *((ShareType(), text) for text in ("", "5", "%", "0%", "101%", "-5%", "1.2.3%", "five")),
    ],
)
def test_an_invalid_parameter_is_a_usage_error(kind: click.ParamType[float], text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("no_documents", ("no_documents",)),
        ("rejected, not_found,rejected", ("not_found", "rejected")),
        ("unreadable,archived", ("archived", "unreadable")),
    ],
)
def test_outcomes_are_parsed_without_duplicates_in_a_fixed_order(text: str, outcomes: tuple[str, ...]) -> None:
    assert OutcomesType().convert(text, None, None) == outcomes


@pytest.mark.parametrize("name", ["", "none", "failed", "unchanged", "erased", "NO_DOCUMENTS"])
def test_an_outcome_that_no_manifest_records_is_refused_with_the_valid_ones(name: str) -> None:
    known = "archived, no_documents, not_found, rejected, withheld, unreadable"
    sentence = f"{name!r} is not a valid outcome: expected some of {known}"
    with pytest.raises(click.BadParameter) as refused:
        OutcomesType().convert(f"no_documents,{name}", None, None)
    assert refused.value.message == sentence


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("document_type=Document Type", {"document_type": "Document Type"}),
        (" reason_codes = a=b ,document_type=2", {"reason_codes": "a=b", "document_type": "2"}),
        ("none", {}),
    ],
)
def test_evidence_columns_are_parsed(text: str, columns: dict[str, str]) -> None:
    assert EvidenceColumnsType().convert(text, None, None) == columns


@pytest.mark.parametrize(
    "text", ["", "a", "document_type", "document_type=", "colour=red", "document_type=a,document_type=b", "none,none"]
)
def test_invalid_evidence_columns_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected document_type=COL, reason_codes=COL, or both"):
        EvidenceColumnsType().convert(text, None, None)
