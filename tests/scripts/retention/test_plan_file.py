"""A plan is read back as it was written, and an incomplete plan or another kind of file is refused."""

import gzip
import hashlib
import io
from datetime import date

import pytest

from scripts.retention.assessment import assess
from scripts.retention.plan_file import BadPlan, PlanHeader, PlannedDocument, PlannedEvaluation, PlanWriter, read_plan
from tasks.retention.schedule import Schedule
from tests.archives import eval_ids
from tests.tasks.storage.test_manifest import manifest

HEADER = PlanHeader(
    archive="s3://kyc-archive/docv",
    environments=("production", "sandbox"),
    until=date(2027, 1, 1),
    made_at="2026-11-29T12:00:00.000Z",
    schedule="a" * 64,
    archiver="docv-archive 0.1.0",
)
SCHEDULE = Schedule.model_validate(
    {"rule": [{"name": "selfies", "kind": "selfie", "keep_for": "1d", "clock": "archived"}]}
)
DUE = assess(SCHEDULE, manifest("front"), {}, date(2027, 1, 1))
DOCUMENT = PlannedDocument(kind="selfie", sha256=DUE[0].document.sha256, rule="selfies", due=date(2026, 2, 2))
EVALUATIONS = [
    PlannedEvaluation(
        eval_id=eval_id, environment="sandbox", documents=(DOCUMENT,) * number, open=("x",) * (2 - number)
    )
    for number, eval_id in enumerate(eval_ids(3))
]


def write_plan() -> bytes:
    file = io.BytesIO()
    writer = PlanWriter(file, HEADER)
    for each in EVALUATIONS:
        writer.add(each.evaluation, DUE * len(each.documents), each.open)
    writer.finish(1_000)
    return file.getvalue()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_plan_is_read_back_as_it_was_written(pack: "type[bytes]") -> None:
    data = pack(write_plan())

    plan = read_plan(io.BytesIO(data))

    assert plan.header == HEADER
    assert plan.sha256 == hashlib.sha256(data).hexdigest()
    assert list(plan.evaluations()) == list(plan.evaluations()) == EVALUATIONS
    assert (plan.totals.evaluations, plan.totals.documents, plan.totals.bytes) == (3, 3, 1_000)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("left_out", [1, 10, 100, 300])
def test_a_plan_that_is_cut_short_is_refused(pack: "type[bytes]", left_out: int) -> None:
    data = pack(write_plan())
    if pack is bytes and left_out == 1:
        left_out = 2  # a plan without its last line end is still complete

    with pytest.raises(BadPlan):
        read_plan(io.BytesIO(data[:-left_out]))


def test_a_plan_without_one_of_its_lines_is_refused() -> None:
    first, _, *others = write_plan().splitlines(keepends=True)

    with pytest.raises(BadPlan, match="cut short"):
        read_plan(io.BytesIO(b"".join([first, *others])))


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"[]", b"{}", b"eval_id\n", b"\x1f\x8b", b"\x1f\x8bxxxx", b"\xff\xfe\n", b"PK\x03\x04"]
)
def test_a_file_that_is_not_a_plan_is_refused(data: bytes) -> None:
    with pytest.raises(BadPlan, match="not a plan"):
        read_plan(io.BytesIO(data))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"sandbox","doc', b'"elsewhere","doc'),
        (b'"eval_id":"', b'"eval_id":"../'),
        (b'"version":1', b'"version":2'),
        (b'"due":"2026', b'"due":"x'),
    ],
)
def test_a_plan_with_an_impossible_value_is_refused(before: bytes, after: bytes) -> None:
    data = write_plan()
    assert before in data

    with pytest.raises(BadPlan):
        read_plan(io.BytesIO(data.replace(before, after)))
