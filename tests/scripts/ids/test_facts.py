"""Evidence columns of a list are read in every format."""

import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.ids.errors import BadSource
from scripts.ids.facts import FactColumns
from scripts.ids.gather import Gathered, gather
from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence
from worker.config.settings import Settings

MILITARY, MINOR = Evidence.MILITARY_ID, Evidence.UNDER_AGE
IDS = [str(UUID(int=number << 64)) for number in range(1, 7)]
BY_NAME = FactColumns(by_name=True)
NOON = 1_769_860_800.0
ROWS: list[tuple[Any, Any, Any]] = [
    ("Military ID", None, "2026-01-31T12:00:00Z"),
    ("Passport", ["I100", "R844"], "2026-01-31T13:00:00+01:00"),
    ("military", ["r844"], None),
    (None, None, "yesterday"),
]
FACTS = {
    IDS[0]: EvaluationFacts((MILITARY,), NOON),
    IDS[1]: EvaluationFacts((MINOR,), NOON),
    IDS[2]: EvaluationFacts((MILITARY, MINOR)),
    IDS[3]: EvaluationFacts(),
}


def read(content: str | bytes, folder: Path, facts: FactColumns = BY_NAME, **overrides: Any) -> Gathered:
    (folder / "list").write_bytes(content if isinstance(content, bytes) else content.encode())
    options: dict[str, Any] = {"column": None, "limit": None, "sample": None} | overrides
    settings = Settings(state_dir=folder / "state")
    return gather(str(folder / "list"), rejects=folder / "rejects.csv", settings=settings, facts=facts, **options)


def facts_by_id(gathered: Gathered) -> dict[str, EvaluationFacts]:
    with gathered:
        return dict(zip(gathered.ids, gathered.ids.facts(), strict=True))


def csv_of(names: str, codes: str = ",") -> str:
    lines = [
        ";".join((eval_id, kind or "", codes.join(several or []), at or ""))
        for eval_id, (kind, several, at) in zip(IDS, ROWS, strict=False)
    ]
    return "\n".join([names, *lines]) + "\n"


@pytest.mark.parametrize("names", ["eval_id;document_type;reason_codes;at", "Eval ID;documentType;Reason Codes;at"])
@pytest.mark.parametrize("codes", [",", " ", "|", ", ", " | "])
def test_fact_columns_of_a_csv_are_found_by_name(tmp_path: Path, names: str, codes: str) -> None:
    gathered = read(csv_of(names, codes), tmp_path, FactColumns(event_at="at", by_name=True))
    assert (gathered.explained, gathered.bad_times, gathered.ids.has_facts) == (3, 1, True)
    assert facts_by_id(gathered) == FACTS


def test_reason_codes_may_be_separated_by_semicolons_or_be_an_array(tmp_path: Path) -> None:
    for codes in ("I100;R844", '["I100", "R844"]', "{I100,R844}", "I100\tR844"):
        quoted = codes.replace('"', '""')
        assert facts_by_id(read(f'eval_id,reason_codes\n{IDS[0]},"{quoted}"\n', tmp_path)) == {
            IDS[0]: EvaluationFacts((MINOR,))
        }
    assert facts_by_id(read(f"eval_id,reason_codes\n{IDS[0]},R8440 XR844\n", tmp_path)) == {IDS[0]: EvaluationFacts()}


def test_fact_columns_can_be_requested_by_name_or_number(tmp_path: Path) -> None:
    columns = FactColumns(document_type="Type of ID", reason_codes="3", event_at="4")
    assert facts_by_id(read(csv_of("id;Type of ID;c;d"), tmp_path, columns)) == FACTS
    some = facts_by_id(
        read(csv_of("id;document_type;reason_codes;d"), tmp_path, FactColumns(reason_codes="reason_codes"))
    )
    assert [facts.evidence for facts in some.values()] == [(), (MINOR,), (MINOR,), ()]


def test_fact_columns_have_numbers_in_a_csv_without_a_header(tmp_path: Path) -> None:
    without = csv_of("").lstrip()
    assert facts_by_id(read(without, tmp_path, FactColumns("2", "3", "4"))) == FACTS
    with read(without, tmp_path) as gathered:
        assert gathered.explained is None


def test_explained_is_none_without_fact_columns(tmp_path: Path) -> None:
    for content in ("\n".join(IDS), f"eval_id,name\n{IDS[0]},Military\n", f'{{"eval_id": "{IDS[0]}", "a": "R844"}}\n'):
        gathered = read(content, tmp_path)
        assert (gathered.explained, gathered.ids.has_facts) == (None, False)
        assert set(facts_by_id(gathered).values()) == {EvaluationFacts()}
    with read(csv_of("eval_id;document_type;reason_codes;at"), tmp_path, FactColumns()) as gathered:
        assert gathered.explained is None


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        (
            "eval_id;document_type;documentType;at",
            BY_NAME,
            "give --evidence-columns document_type= with one of 'eval_id'",
        ),
        ("eval_id;b;reason_code;reason_codes", BY_NAME, "give --evidence-columns reason_codes= with one of"),
        (
            "eval_id;b;c;d",
            FactColumns(document_type="e"),
            "there is no column 'e'; give --evidence-columns with one of",
        ),
        ("eval_id;b;c;d", FactColumns(event_at="e"), "there is no column 'e'; give --event-at-column with one of"),
    ],
)
def test_an_ambiguous_or_missing_fact_column_raises_bad_source(
    tmp_path: Path, names: str, columns: FactColumns, message: str
) -> None:
    with pytest.raises(BadSource, match=message):
        read(csv_of(names), tmp_path, columns)


def test_a_requested_fact_column_raises_bad_source_in_a_plain_list(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="there is no column 'codes'"):
        read("\n".join(IDS), tmp_path, FactColumns(reason_codes="codes"))
    with pytest.raises(BadSource, match="there is no column 'codes'"):
        read("\n".join(f'"{eval_id}"' for eval_id in IDS), tmp_path, FactColumns(reason_codes="codes"))


def test_facts_are_read_from_json_lines_with_optional_keys(tmp_path: Path) -> None:
    lines = []
    for eval_id, (kind, codes, at) in zip(IDS, ROWS, strict=False):
        value = {"eval_id": eval_id, "documentType": {"type": kind} if kind else None, "reasonCodes": codes, "at": at}
        lines.append(orjson.dumps({name: each for name, each in value.items() if each}).decode())
    plain = [f'{{"eval_id": "{UUID(int=number)}"}}' for number in range(200)]
    text = "\n".join([*plain, *lines, f'"{IDS[4]}"'])
    found = facts_by_id(read(text, tmp_path, FactColumns(event_at="at", by_name=True)))
    assert {eval_id: found[eval_id] for eval_id in FACTS} == FACTS
    assert found[IDS[4]] == EvaluationFacts()


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_nested_fact_columns_can_be_requested(tmp_path: Path, kind: str) -> None:
    rows = [
        {"eval_id": eval_id, "data": {"type": document, "codes": codes, "at": at}}
        for eval_id, (document, codes, at) in zip(IDS, ROWS, strict=False)
    ]
    file = io.BytesIO(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    columns = FactColumns(document_type="data.type", reason_codes="data.codes", event_at="data.at")
    assert facts_by_id(read(file.getvalue(), tmp_path, columns)) == FACTS


@pytest.mark.parametrize("value", ["R844", ["I1", "R844"], "I1, R844", '["R844"]'])
def test_reason_codes_in_json_are_a_list_or_a_text(tmp_path: Path, value: Any) -> None:
    line = orjson.dumps({"eval_id": IDS[0], "reason_codes": value, "document_type": ["Military"]})
    assert facts_by_id(read(line, tmp_path)) == {IDS[0]: EvaluationFacts((MINOR,))}


def test_facts_are_read_from_texts_lists_objects_and_times_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    moments = [datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))]
    table = {
        "document_type": [{"type": kind} for kind, _, _ in ROWS],
        "eval_id": IDS[:4],
        "reason_codes": [codes for _, codes, _ in ROWS],
        "at": pyarrow.array([*moments, None, None], pyarrow.timestamp("ms", tz="UTC")),
    }
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(table), file)
    gathered = read(file.getvalue(), tmp_path, FactColumns(event_at="at", by_name=True))
    assert gathered.bad_times == 0
    assert facts_by_id(gathered) == FACTS
    assert list(facts_by_id(read(file.getvalue(), tmp_path, FactColumns(event_at="at")))) == IDS[:4]


def test_facts_of_repeated_ids_are_merged(tmp_path: Path) -> None:
    rows = [
        f"{IDS[0]},I100,2026-01-31T12:00:00Z",
        f"{IDS[1]},,",
        f"{IDS[0].upper()},R844,2026-01-31T11:00:00Z",
        f"{IDS[1]},R844,2026-01-31T12:00:00Z",
        f"{IDS[1]},,",
    ]
    text = "\n".join(["eval_id,reason_code,at", *rows])
    gathered = read(text, tmp_path, FactColumns(event_at="at", by_name=True))
    assert (gathered.repeated, gathered.explained) == (3, 2)
    assert facts_by_id(gathered) == dict.fromkeys(IDS[:2], EvaluationFacts((MINOR,), NOON))


def test_a_limit_and_a_sample_keep_the_facts(tmp_path: Path) -> None:
    text = csv_of("eval_id;document_type;reason_codes;at")
    columns = FactColumns(event_at="at", by_name=True)
    assert facts_by_id(read(text, tmp_path, columns, limit=2)) == {eval_id: FACTS[eval_id] for eval_id in IDS[:2]}
    sample = facts_by_id(read(text, tmp_path, columns, sample=2))
    assert sample == {eval_id: FACTS[eval_id] for eval_id in sample}


def test_facts_of_a_bad_line_are_dropped(tmp_path: Path) -> None:
    with read(f"eval_id,document_type\nno-id,Military\n{IDS[0]},Passport\n", tmp_path) as gathered:
        assert (gathered.bad, gathered.explained) == (1, 0)
    assert "Military" not in (tmp_path / "rejects.csv").read_text()
