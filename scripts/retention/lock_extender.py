"""Extend Object Locks of documents under a duty to keep: to the end of their period, once its clock has started.

A lock is never shortened, and its mode never changes. Asking S3 for the lock of a document costs a request, and most
locks do not change. So the locks of an evaluation are checked on one day of 28, or more often if locks are short, and
on the days after an event was reported.
"""

import asyncio
from datetime import UTC, date, datetime, time, timedelta

from scripts.archive_access.s3_client import S3Archive, call_or_none
from scripts.erase.locks import locate, read_retention
from scripts.erase.stock import ObjectVersion
from scripts.retention.walk import WalkedEvaluation
from tasks.retention.decision import decide_held
from tasks.retention.schedule import Keep, Schedule

_TURNS, _SHARE_OF_LOCK = 28, 8
_REPORTED = timedelta(days=7)
_GONE = frozenset({"NoSuchKey", "NoSuchVersion"})


class LockExtender:
    """Extends the locks of the documents of evaluations.

    Args:
        archive: the archive in S3.
        schedule: the retention schedule.
        mode: mode of a lock on a document that has none.
        days: days of a lock whose end is not known yet.
        today: the current day.

    Attributes:
        extended: number of extended locks.
    """

    def __init__(self, archive: S3Archive, schedule: Schedule, mode: str, days: int, today: date) -> None:
        self._archive, self._schedule, self._mode, self._days, self._today = archive, schedule, mode, days, today
        self._turns = max(1, min(_TURNS, days // _SHARE_OF_LOCK))
        self.extended = 0

    async def extend(self, walked: WalkedEvaluation) -> None:
        """Extend the locks of an evaluation if they are checked today.

        Raises:
            ServiceUnavailable: S3 refuses it or does not answer.
        """
        manifest = walked.manifest
        # Images that must not be kept are stored without a lock, so that they can be erased.
        if manifest is None or manifest.restricted or not self._is_checked_today(walked):
            return
        for document in manifest.documents:
            decision = decide_held(self._schedule, manifest, document, walked.events)
            if decision.rule and decision.rule.keep is Keep.MUST:
                await asyncio.to_thread(self._extend, document.key, decision.ends)

    def _is_checked_today(self, walked: WalkedEvaluation) -> bool:
        is_reported = any(self._today - each.received <= _REPORTED for each in walked.events.values())
        return is_reported or (int(walked.evaluation.eval_id[:8], 16) + self._today.toordinal()) % self._turns == 0

    def _extend(self, key: str, ends: date | None) -> None:
        if ends and ends <= self._today:
            return
        item = ObjectVersion(key)
        found = read_retention(self._archive, item)
        locked_until = found.until.astimezone(UTC) if found and found.until else None
        day = ends or self._today + timedelta(days=self._days + 1)
        until = datetime.combine(day, time(), UTC)
        if locked_until and locked_until >= until:
            return
        if ends is None and locked_until and (locked_until.date() - self._today).days * 2 >= self._days:
            return
        retention = {"Mode": (found and found.mode) or self._mode, "RetainUntilDate": until}
        answer = call_or_none(
            lambda: self._archive.client.put_object_retention(**locate(self._archive, item), Retention=retention),
            "s3:PutObjectRetention",
            _GONE,
        )
        self.extended += answer is not None
