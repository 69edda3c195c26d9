"""Notify of finished runs and new dead letters, at least once each and from one worker at a time, even if workers die.

Nothing is queued. The notifications to send are the difference between the ledger and the record of sent ones in Redis,
so their number is bounded. A notification is lost only if its receiver does not accept it for a day.

    docv:notify:lease  STRING  the worker that sends, for a minute
    docv:notify:runs   HASH    name of a run -> digest of its counters and time of the last notification, or ``open``
    docv:notify:dead   STRING  until when dead letters were reported, in milliseconds of Redis's clock
    docv:notify:since  STRING  a minute before notifications began, in milliseconds; earlier events are not reported
"""

from typing import Any

import structlog
from redis.asyncio import Redis

from tasks.ledger.counters import RunCounters
from tasks.ledger.entries import KEY_PREFIX
from tasks.ledger.ledger import Ledger
from tasks.ledger.serialization import read_count, read_score
from tasks.notifications.notification import Notification, counters_digest, dead_letters_appeared, run_finished
from tasks.notifications.sender import NotificationFailed, NotificationSender
from worker.metrics.worker_metrics import count_notification

INTERVAL = 10.0
"""Seconds between two rounds."""
LONGEST_PAUSE = 300.0
"""Seconds between two rounds while the receiver fails."""
_PREFIX = "docv:notify:"
_LEASE_MS = 60_000
_DAY_MS = 86_400_000
_COLLECT_MS = 60_000
# A short run may have finished before the first round of the first worker.
_BEFORE_MS = 60_000
_REPEAT_MS = 600_000
_NEWEST_RUNS = 100
_OPEN = "open"

_log = structlog.get_logger("docv.notify")


class Notifier:
    """Finds unreported events, and reports them.

    Args:
        redis: the client, with ``decode_responses``.
        sender: sends to the receiver.
        worker: name of this worker.
    """

    def __init__(self, redis: "Redis", sender: NotificationSender, worker: str) -> None:
        self._redis, self._sender, self._worker = redis, sender, worker
        self._ledger = Ledger(redis)

    async def run_round(self, *, is_last: bool = False) -> None:
        """Report new events, unless another worker does.

        Args:
            is_last: whether this worker stops, so that new dead letters are not collected for a minute first.

        Raises:
            NotificationFailed: the receiver did not accept a notification; the next round tries again.
        """
        if not await self._acquire():
            return
        seconds, micro = await self._redis.time()
        now = int(seconds) * 1000 + int(micro) // 1000
        await self._redis.set(f"{_PREFIX}since", now - _BEFORE_MS, nx=True)
        since = max(read_count(await self._redis.get(f"{_PREFIX}since")), now - _DAY_MS)
        await self._report_runs(now, since)
        await self._report_dead_letters(now, since, 0 if is_last else _COLLECT_MS)

    async def stop(self) -> None:
        """Report once more, because a worker often stops when its run has finished, and release the lease to others."""
        try:
            await self.run_round(is_last=True)
        except NotificationFailed:
            return
        if await self._redis.get(f"{_PREFIX}lease") == self._worker:
            await self._redis.delete(f"{_PREFIX}lease")

    async def _acquire(self) -> bool:
        key = f"{_PREFIX}lease"
        if await self._redis.set(key, self._worker, nx=True, px=_LEASE_MS):
            return True
        # If the lease runs out between the two commands, a notification may be sent twice.
        return await self._redis.get(key) == self._worker and bool(await self._redis.pexpire(key, _LEASE_MS))

    async def _report_runs(self, now: int, since: int) -> None:
        """Report runs without pending evaluations; a run again only if its counters changed, and after ten minutes."""
        found: Any = await self._redis.hgetall(f"{_PREFIX}runs")
        known: dict[str, str] = found
        still_open = [name for name, recorded in known.items() if recorded == _OPEN]
        names = list(dict.fromkeys([*await self._ledger.runs.list_newest(_NEWEST_RUNS), *still_open]))
        for name, counters in (await self._ledger.runs.get_many_counters(names)).items():
            if counters.pending:
                await self._redis.hsetnx(f"{_PREFIX}runs", name, _OPEN)
            elif await self._is_new(name, counters, known.get(name, _OPEN), now, since):
                await self._send(run_finished(name, counters))
                await self._redis.hset(f"{_PREFIX}runs", name, f"{counters_digest(counters)} {now}")
            elif known.get(name) == _OPEN:
                await self._redis.hdel(f"{_PREFIX}runs", name)
        if forgotten := known.keys() - set(names):
            await self._redis.hdel(f"{_PREFIX}runs", *forgotten)

    async def _is_new(self, name: str, counters: RunCounters, recorded: str, now: int, since: int) -> bool:
        digest, _, sent_at = recorded.partition(" ")
        if not counters.total or digest == counters_digest(counters) or now - read_count(sent_at) < _REPEAT_MS:
            return False
        return read_count(await self._redis.hget(f"{KEY_PREFIX}run:{name}", "changed")) >= since

    async def _report_dead_letters(self, now: int, since: int, collect: int) -> None:
        """Report new dead letters once the last report is ``collect`` milliseconds old."""
        # No further dead letter can get a time before this millisecond.
        until = now - 1
        reported = max(read_count(await self._redis.get(f"{_PREFIX}dead")), since - 1)
        causes = await self._ledger.dead_letters.count_causes()
        async with self._redis.pipeline(transaction=False) as pipe:
            for cause in causes:
                pipe.zcount(f"{KEY_PREFIX}dead:{cause}", f"({reported}", until)
            counts = await pipe.execute()
        appeared = {cause: read_score(count) for cause, count in zip(causes, counts, strict=True) if count}
        if appeared:
            if until - reported < collect:
                return
            await self._send(dead_letters_appeared(appeared, sum(causes.values()), until))
        await self._redis.set(f"{_PREFIX}dead", until)

    async def _send(self, notification: Notification) -> None:
        try:
            await self._sender.send(notification)
        except NotificationFailed as error:
            count_notification(is_sent=False)
            _log.warning("notification.failed", notification=notification.event, why=str(error))
            raise
        count_notification(is_sent=True)
        _log.info("notification.sent", notification=notification.event, id=notification.id)
