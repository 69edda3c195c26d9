"""Duties to keep documents: rules of the retention schedule that block a request to erase them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from scripts.console.formatting import format_count
from scripts.erase.receipt import ErasureRequest, Receipt, StoredReceipt, begin, find_all_unfinished
from tasks.model.evaluation import Evaluation
from tasks.retention.decision import Decision, decide_held
from tasks.retention.event import read_events
from tasks.retention.schedule import CAPTURED, Keep, Rule, Schedule, load_schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import format_utc, read_manifest
from worker.config.settings import Settings

_FOREVER = "forever"


@dataclass(frozen=True, slots=True)
class Duty:
    """What keeps an evaluation from being erased.

    Attributes:
        rules: names of the rules.
        not_before: first day on which it may be erased; None if no day is known.
        until: when it may be erased, in words.
        sentence: what each rule keeps, and until when.
    """

    rules: tuple[str, ...]
    not_before: date | None
    until: str
    sentence: str

    def refusal(self) -> str:
        """Return why an erasure is refused, and what to do."""
        return f"{self.sentence}; `erase --when-allowed` erases it then" if self.until != _FOREVER else self.sentence

    def wait(self) -> str:
        """Return what an erasure waits for."""
        if self.until == _FOREVER:
            return f"waits until the schedule changes: {self.sentence}"
        return f"waits {self.until}: {self.sentence}; the next `retention apply` erases it then"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The erasure waits for the end of a duty, and nothing was removed.

    Attributes:
        duty: the duty.
        receipt: the key of the open receipt; None in a dry run.
    """

    duty: Duty
    receipt: str | None


class RetentionDuties:
    """Finds the duties to keep evaluations.

    Args:
        schedule: the retention schedule.
        today: the current day, UTC.
    """

    def __init__(self, schedule: Schedule, today: date) -> None:
        self._schedule, self._today = schedule, today
        self._must_keep = any(rule.keep is Keep.MUST for rule in schedule.rule)

    async def find(self, bucket: Bucket, evaluation: Evaluation, kinds: Collection[str] = ()) -> Duty | None:
        """Return the duty that blocks the erasure of an evaluation today, or None.

        Args:
            kinds: kinds of the documents to erase; empty for all.

        Raises:
            IntegrityError: its manifest or an event is damaged, so that the rules cannot decide.
            StorageError: the bucket failed.
        """
        stored = await read_manifest(bucket, evaluation) if self._must_keep else None
        if stored is None or not stored.manifest.documents:
            return None
        manifest = stored.manifest
        documents = manifest.documents_of(kinds) if kinds else manifest.documents
        events = await read_events(bucket, evaluation) if self._schedule.events else {}
        decisions = (decide_held(self._schedule, manifest, document, events) for document in documents)
        return _make_duty(each for each in decisions if each.prevents_erasure(self._today))


def open_duties(settings: Settings) -> RetentionDuties | None:
    """Return the duties of the schedule that the settings name, or None without one.

    Raises:
        SettingsError: the schedule is not valid.
    """
    schedule = load_schedule(settings)
    return RetentionDuties(schedule, datetime.now(UTC).date()) if schedule else None


async def defer(
    bucket: Bucket,
    evaluation: Evaluation,
    request: ErasureRequest,
    duty: Duty,
    receipts: Sequence[StoredReceipt],
    requested_at: float,
    *,
    dry_run: bool,
) -> Waiting:
    """Record a request that waits for the end of a duty, unless one of the open receipts already does.

    Raises:
        StorageError: the receipt may not have been written.
    """
    known = next((each for each in receipts if each.receipt.waits_for), None)
    if known is None and not dry_run:
        receipt = Receipt.of_request(evaluation, request, format_utc(requested_at))
        waiting = receipt.model_copy(update={"waits_for": duty.rules, "not_before": duty.not_before})
        known = await begin(bucket, waiting)
    return Waiting(duty, known.key if known else None)


async def find_deferred(
    bucket: Bucket, environments: Collection[str], report_damage: Callable[[Evaluation, str], object]
) -> list[tuple[Evaluation, tuple[str, ...]]]:
    """Return the deferred requests of these environments that are not completed: evaluations, and kinds of documents.

    Args:
        report_damage: called with evaluation and key of each receipt that cannot be read.

    Raises:
        StorageError: the bucket failed.
    """
    unfinished = await find_all_unfinished(bucket, environments, report_damage)
    waiting = ((evaluation, each) for evaluation, receipts in unfinished.items() for each in receipts)
    return list(dict.fromkeys((evaluation, each.kinds) for evaluation, each in waiting if each.waits_for))


def _make_duty(decisions: Iterable[Decision]) -> Duty | None:
    by_rule = defaultdict[str, list[tuple[Rule, date | None]]](list)
    for each in decisions:
        if each.rule:
            by_rule[each.rule.name].append((each.rule, each.ends))
    if not by_rule:
        return None
    last = {name: max(found, key=_order) for name, found in by_rule.items()}
    sentences = [
        f"rule {name!r} keeps {format_count(len(found), 'document')} {_describe(*last[name])}"
        for name, found in by_rule.items()
    ]
    rule, ends = max(last.values(), key=_order)
    return Duty(tuple(by_rule), ends, _describe(rule, ends), "; ".join(sentences))


def _order(ending: tuple[Rule, date | None]) -> tuple[bool, bool, date]:
    """Sort known days first, then clocks that have not started, then rules that keep forever."""
    rule, ends = ending
    return rule.clock is None, ends is None, ends or date.max


def _describe(rule: Rule, ends: date | None) -> str:
    if rule.clock is None:
        return _FOREVER
    if ends:
        return f"until {ends}"
    if rule.clock == CAPTURED:
        return "until the day of the capture is known and its period ends"
    return f"until the event {rule.clock} is reported and its period ends"
