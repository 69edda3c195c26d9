"""Events, legal holds and disposal certificates belong to the archive, and must be valid records."""

from datetime import UTC, date, datetime

import pytest

from scripts.verify.layout import ObjectGroup, event_place
from tasks.errors import StorageError
from tasks.model.evaluation import Evaluation
from tasks.retention.event import EVENTS, EventReport, record_event
from tests.archives import eval_ids
from tests.disposals import CERTIFICATE
from tests.scripts.verify.conftest import Target

IDS = eval_ids(2)
FIRST = Evaluation(IDS[0], "sandbox")
MATTER = "holds/acme-v-bolt/matter.json"
# The name contains the beginning of the SHA-256 of "an addition".
ADDITION = "holds/acme-v-bolt/additions/sandbox/20310201T040000.000000Z-aadfb0bd.json.gz"


@pytest.fixture
async def event_key(target: Target) -> str:
    """Record an event, and put a certificate and the records of a legal hold next to it."""
    await record_event(target.bucket, FIRST, EventReport("account_closed", date(2026, 11, 1), "b"), datetime.now(UTC))
    for key, data in ((CERTIFICATE, b'{"schema": 1}'), (MATTER, b'{"schema": 1}'), (ADDITION, b"an addition")):
        target.editor.put(key, data)
    return next(key for key in target.editor.listed() if key.startswith(EVENTS))


async def find_problems(target: Target) -> list[tuple[str, str, str]]:
    return [(each.eval_id, each.key, each.problem.value) for each in await target.verify()]


async def test_valid_records_have_no_differences(target: Target, event_key: str) -> None:
    assert await find_problems(target) == []
    assert await target.check(ObjectGroup(event_place("sandbox", FIRST.eval_id), None)) == []
    assert target.ctx
    assert target.ctx.progress.sentence().endswith("; 1 event; 2 legal-hold records; 1 disposal certificate")


async def test_a_changed_event_is_reported(target: Target, event_key: str) -> None:
    target.editor.put(event_key, target.editor.get(event_key).replace(b"2026-11-01", b"2016-11-01"))
    assert await find_problems(target) == [(FIRST.eval_id, event_key, "record_damaged")]


async def test_an_event_of_another_evaluation_is_reported(target: Target, event_key: str) -> None:
    copied = event_key.replace(*IDS)
    target.editor.put(copied, target.editor.get(event_key))
    assert await find_problems(target) == [(IDS[1], copied, "record_damaged")]


@pytest.mark.parametrize("key", [CERTIFICATE, MATTER, ADDITION])
async def test_an_unreadable_record_is_reported(target: Target, event_key: str, key: str) -> None:
    target.editor.put(key, b"{")
    assert await find_problems(target) == [("", key, "record_damaged")]


@pytest.mark.parametrize("target", ["folder"], indirect=True)
async def test_a_record_that_the_store_does_not_return_is_reported(
    target: Target, event_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("read", "denied")

    monkeypatch.setattr(target.bucket, "read", fail)
    assert (FIRST.eval_id, event_key, "not_read") in await find_problems(target)


@pytest.mark.parametrize("target", ["folder"], indirect=True)
async def test_a_link_in_place_of_a_record_is_reported(target: Target, event_key: str) -> None:
    path = target.editor.root / CERTIFICATE  # type: ignore[attr-defined]  # it is a folder
    path.unlink()
    path.symlink_to(path.parent)
    assert await find_problems(target) == [("", CERTIFICATE, "record_damaged")]


async def test_an_event_is_not_reported_when_it_is_erased_meanwhile(
    target: Target, event_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(target.bucket, "read", find_nothing)
    assert await find_problems(target) == []
