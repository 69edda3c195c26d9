"""Workers report finished runs and new dead letters at least once, and not once per worker."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.notifications import notifier as module
from tasks.notifications.notification import Notification
from tasks.notifications.notifier import Notifier
from tasks.notifications.sender import NotificationFailed, NotificationSender
from tests.archives import eval_ids
from tests.counting import MetricGrowth

pytestmark = pytest.mark.both_redises
BACKFILL = EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q3"))


class FakeSender(NotificationSender):
    """Keeps sent notifications, or fails."""

    def __init__(self) -> None:
        self.sent: list[Notification] = []
        self.is_down = False

    async def send(self, notification: Notification) -> None:
        if self.is_down:
            raise NotificationFailed("the receiver answered with status 500")
        self.sent.append(notification)

    def pop_events(self) -> list[str]:
        events, self.sent = [each.event for each in self.sent], []
        return events


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
async def notifier(redis: Redis, sender: FakeSender, monkeypatch: pytest.MonkeyPatch) -> Notifier:
    """Return the notifier of a running worker, which reports dead letters at once."""
    monkeypatch.setattr(module, "_COLLECT_MS", 0)
    notifier = Notifier(redis, sender, "one")
    await notifier.run_round()
    assert sender.sent == []
    return notifier


async def end(redis: Redis, ids: Sequence[str], outcome: Outcome = Outcome.ARCHIVED) -> None:
    ledger = Ledger(redis)
    for job in await ledger.lease(ids, token="a-token"):
        if outcome is Outcome.FAILED:
            await ledger.dead_letter(job, attempts=6, failure=Failure("service_failed"))
        else:
            await ledger.complete(job, outcome)
    await asyncio.sleep(0.003)  # dead letters of the current millisecond belong to the next round


async def test_a_run_is_reported_once_when_nothing_is_pending(
    redis: Redis, notifier: Notifier, sender: FakeSender
) -> None:
    ids = eval_ids(2)
    await Ledger(redis).accept(ids, BACKFILL)
    await end(redis, ids[:1])
    await notifier.run_round()
    assert sender.sent == []
    await end(redis, ids[1:])
    for _ in range(3):
        await notifier.run_round()
    [sent] = sender.sent
    assert (sent.event, sent.facts["run"], sent.facts["total"]) == ("run_finished", "q3", 2)


async def test_dead_letters_are_reported_once_and_together(
    redis: Redis, notifier: Notifier, sender: FakeSender
) -> None:
    ids = eval_ids(3)
    await Ledger(redis).accept(ids, BACKFILL)
    await end(redis, ids[:2], Outcome.FAILED)
    for _ in range(3):
        await notifier.run_round()
    [sent] = sender.sent
    assert (sent.event, sent.facts["count"], sent.facts["causes"]) == ("dead_letters", 2, {"service_failed": 2})
    await end(redis, ids[2:], Outcome.FAILED)
    await notifier.run_round()
    assert sender.sent[-1].facts["count"] == 1


async def test_dead_letters_of_a_minute_are_one_notification(
    redis: Redis, notifier: Notifier, sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_COLLECT_MS", 60_000)
    await Ledger(redis).accept(eval_ids(2), BACKFILL)
    await end(redis, eval_ids(1), Outcome.FAILED)
    await notifier.run_round()
    assert sender.sent == []
    await notifier.stop()
    assert sender.pop_events() == ["dead_letters"], "a worker that stops does not wait"


async def test_a_dead_letter_that_failed_again_is_reported_again(
    redis: Redis, notifier: Notifier, sender: FakeSender
) -> None:
    [eval_id] = eval_ids(1)
    await Ledger(redis).accept([eval_id], BACKFILL)
    for _ in range(2):
        await end(redis, [eval_id], Outcome.FAILED)
        await notifier.run_round()
        await Ledger(redis).dead_letters.redrive([eval_id])
    assert sender.pop_events().count("dead_letters") == 2


async def test_a_refused_notification_is_sent_again(redis: Redis, notifier: Notifier, sender: FakeSender) -> None:
    await Ledger(redis).accept(eval_ids(1), BACKFILL)
    await end(redis, eval_ids(1), Outcome.FAILED)
    sender.is_down = True
    for _ in range(2):
        with pytest.raises(NotificationFailed):
            await notifier.run_round()
    sender.is_down = False
    await notifier.run_round()
    assert sender.pop_events() == ["run_finished", "dead_letters"]


async def test_sent_and_failed_notifications_are_counted(redis: Redis, notifier: Notifier, sender: FakeSender) -> None:
    await Ledger(redis).accept(eval_ids(1), BACKFILL)
    await end(redis, eval_ids(1), Outcome.FAILED)
    counted, sender.is_down = MetricGrowth(), True
    with pytest.raises(NotificationFailed):
        await notifier.run_round()
    sender.is_down = False
    await notifier.run_round()
    assert counted['docv_notifications_total{result="sent"}'] == 2
    assert counted['docv_notifications_total{result="failed"}'] == 1


async def test_only_one_worker_sends_and_another_takes_over_when_it_stops(
    redis: Redis, notifier: Notifier, sender: FakeSender
) -> None:
    other = Notifier(redis, sender, "two")
    await Ledger(redis).accept(eval_ids(1), BACKFILL)
    await end(redis, eval_ids(1))
    await other.run_round()
    assert sender.sent == []
    assert await redis.pttl("docv:notify:lease") > 0, "the lease of a dead worker expires"
    await notifier.stop()
    assert sender.pop_events() == ["run_finished"]
    await Ledger(redis).accept(eval_ids(1, seed=2), EnqueueOptions(Queue.LIVE, "default", Trigger("run", run="q4")))
    await end(redis, eval_ids(1, seed=2))
    await other.run_round()
    assert sender.pop_events() == ["run_finished"]


async def test_a_finished_run_is_reported_again_if_a_redrive_changed_it_but_not_too_often(
    redis: Redis, notifier: Notifier, sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(redis)
    await ledger.accept(eval_ids(1), BACKFILL)
    await end(redis, eval_ids(1), Outcome.FAILED)
    await notifier.run_round()
    await ledger.dead_letters.redrive(eval_ids(1))
    await end(redis, eval_ids(1))
    sender.sent.clear()
    await notifier.run_round()
    assert sender.sent == []
    monkeypatch.setattr(module, "_REPEAT_MS", 0)
    await notifier.run_round()
    assert [each.facts["outcomes"] for each in sender.sent] == [{"archived": 1}]


async def test_events_before_notifications_began_are_not_reported(
    redis: Redis, sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEFORE_MS", 0)
    await Ledger(redis).accept(eval_ids(1), BACKFILL)
    await end(redis, eval_ids(1), Outcome.FAILED)
    notifier = Notifier(redis, sender, "one")
    for _ in range(2):
        await notifier.stop()
    assert sender.sent == []


async def test_a_run_that_finished_just_before_the_first_round_is_reported(redis: Redis, sender: FakeSender) -> None:
    await Ledger(redis).accept(eval_ids(1), BACKFILL)
    await end(redis, eval_ids(1))
    await Notifier(redis, sender, "one").run_round()
    assert sender.pop_events() == ["run_finished"]


async def test_events_older_than_a_day_are_not_reported(
    redis: Redis, notifier: Notifier, sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Ledger(redis).accept(eval_ids(1), BACKFILL)
    await end(redis, eval_ids(1), Outcome.FAILED)
    monkeypatch.setattr(module, "_DAY_MS", 1)
    await asyncio.sleep(0.005)
    await notifier.run_round()
    assert sender.sent == []


async def test_the_number_of_remembered_runs_is_bounded(
    redis: Redis, notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NEWEST_RUNS", 2)
    for number, eval_id in enumerate(eval_ids(5)):
        order = EnqueueOptions(Queue.LIVE, "default", Trigger("run", run=f"run-{number}"))
        await Ledger(redis).accept([eval_id], order)
        await end(redis, [eval_id])
        await notifier.run_round()
    assert len(await redis.hgetall("docv:notify:runs")) <= 3
