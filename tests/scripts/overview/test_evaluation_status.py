"""The ledger gives the state of an evaluation, and the archive its contents. Neither hides the other."""

from datetime import datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.overview.evaluation_status import EvaluationState, EvaluationStatus, look_up
from tasks.errors import IntegrityError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.resilience.holds import ARCHIVE, Holds, Reason, backfill_of
from tasks.storage.local_bucket import LocalBucket
from tests.archives import archive, documents, eval_ids
from tests.holds import refused

ID = eval_ids(1)[0]


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def bucket(tmp_path: Path) -> LocalBucket:
    return LocalBucket(tmp_path / "archive")


async def accept_and_lease(
    ledger: Ledger, *, account: str = "default", queue: Queue = Queue.LIVE, refresh: bool = False
) -> Job:
    await ledger.accept([ID], EnqueueOptions(queue, account, Trigger("intake"), refresh=refresh))
    (job,) = await ledger.lease([ID], token="one")
    return job


async def read_status(redis: Redis | None, bucket: LocalBucket) -> EvaluationStatus:
    return await look_up(redis, bucket, Evaluation(ID, "sandbox"))


async def put_on_hold(ledger: Ledger, account: str, queue: Queue) -> None:
    await ledger.await_hold(await accept_and_lease(ledger, account=account, queue=queue), cause="account_held")


async def seconds_left(redis: Redis, bucket: LocalBucket) -> float | None:
    """Return the seconds until the next attempt, on Redis's clock."""
    status = await read_status(redis, bucket)
    assert (status.state, status.outcome, status.cause) == (EvaluationState.ON_HOLD, None, "account_held")
    if status.next_attempt_at is None:
        return None
    now, _ = await redis.time()
    return datetime.fromisoformat(status.next_attempt_at).timestamp() - now


@pytest.mark.parametrize("account", ["default", "kyb"])
async def test_an_evaluation_on_hold_is_tried_again_when_the_hold_ends(
    ledger: Ledger, redis: Redis, bucket: LocalBucket, account: str
) -> None:
    await put_on_hold(ledger, account, Queue.LIVE)
    assert await seconds_left(redis, bucket) is None
    await Holds(redis).place_for("another", *_hold_reason(), 9_000)
    await Holds(redis).place_for(backfill_of(account), *_hold_reason(), 9_000)
    assert await seconds_left(redis, bucket) is None
    await Holds(redis).place_for(account, *_hold_reason(), 300)
    assert await seconds_left(redis, bucket) == pytest.approx(300, abs=20)
    await Holds(redis).place_for(ARCHIVE, *_hold_reason(), 900)
    assert await seconds_left(redis, bucket) == pytest.approx(900, abs=20)


async def test_a_backfill_evaluation_also_waits_for_the_hold_on_backfills(
    ledger: Ledger, redis: Redis, bucket: LocalBucket
) -> None:
    await put_on_hold(ledger, "default", Queue.BACKFILL)
    await Holds(redis).place_for(backfill_of("default"), *_hold_reason(), 300)
    assert await seconds_left(redis, bucket) == pytest.approx(300, abs=20)


async def test_the_next_attempt_is_the_next_probe_and_unknown_during_a_manual_hold(
    ledger: Ledger, redis: Redis, bucket: LocalBucket
) -> None:
    await put_on_hold(ledger, "default", Queue.LIVE)
    wait = await refused(Holds(redis), "default", 401, probe=False)
    assert await seconds_left(redis, bucket) == pytest.approx(wait, abs=20)
    await Holds(redis).place_manual("default", "an audit")
    assert await seconds_left(redis, bucket) is None


async def test_a_refresh_has_no_outcome_yet_and_its_archived_documents_stay_visible(
    ledger: Ledger, redis: Redis, bucket: LocalBucket
) -> None:
    await archive(bucket, ID, Outcome.ARCHIVED, documents(ID, 1, 500))
    job = await accept_and_lease(ledger, refresh=True)
    status = await read_status(redis, bucket)
    assert (status.state, status.outcome, status.archived.documents) == (EvaluationState.IN_FLIGHT, None, 3)
    await ledger.dead_letter(job, attempts=6, failure=Failure("service_failed"))
    status = await read_status(redis, bucket)
    assert (status.state, status.outcome, status.cause) == (EvaluationState.DEAD_LETTER, "failed", "service_failed")
    assert status.as_json()["manifest"] == f"sandbox/{ID}/manifest.json"
    await ledger.dead_letters.drop([ID])
    status = await read_status(redis, bucket)
    assert (status.state, status.outcome, status.cause) == (EvaluationState.ENDED, "archived", None)


async def test_the_status_of_an_unreadable_bundle_has_its_cause(redis: Redis, bucket: LocalBucket) -> None:
    await archive(bucket, ID, Outcome.UNREADABLE, documents(ID, 1, 500)[:2])
    status = await read_status(redis, bucket)
    assert (status.outcome, status.cause, status.archived.documents) == ("unreadable", "wrong_crc", 2)


async def test_a_dead_letter_stays_visible_if_the_manifest_is_damaged(
    ledger: Ledger, redis: Redis, bucket: LocalBucket, tmp_path: Path
) -> None:
    await archive(bucket, ID, Outcome.NO_DOCUMENTS)
    (tmp_path / "archive" / "sandbox" / ID / "manifest.json").write_text("{")
    with pytest.raises(IntegrityError):
        await read_status(redis, bucket)
    await ledger.dead_letter(await accept_and_lease(ledger), attempts=1, failure=Failure("alarming_object"))
    status = await read_status(redis, bucket)
    assert (status.state, status.cause, status.manifest) == (EvaluationState.DEAD_LETTER, "alarming_object", None)


async def test_look_up_reads_only_the_archive_without_redis(ledger: Ledger, bucket: LocalBucket) -> None:
    await accept_and_lease(ledger)
    status = await read_status(None, bucket)
    assert (status.state, status.outcome) == (None, "missing")
    await archive(bucket, ID, Outcome.NO_DOCUMENTS)
    status = await read_status(None, bucket)
    assert (status.state, status.outcome) == (EvaluationState.ENDED, "no_documents")


def _hold_reason() -> tuple[Reason, str]:
    return Reason.QUOTA, "spent"
