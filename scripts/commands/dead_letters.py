"""Evaluations that are out of attempts: list them, try them again, or drop them."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import click
import orjson
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from scripts.commands.dead_letter_checks import check_cause, check_run, describe_causes
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.options import Function, account_option, json_option, yes_option
from scripts.console.parameter_types import DurationType
from scripts.local.processes import run_with_redis
from tasks.ledger.damaged_entries import DamagedEntries
from tasks.ledger.entries import DAMAGED
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessage, RejectedMessages
from tasks.model.evaluation import parse_eval_id
from tasks.model.job import DeadLetter
from tasks.model.run_name import parse_run
from worker.config.settings import load_settings

_LETTER, _DAMAGED, _REFUSED = "dead letter", "damaged entry", "rejected message"
_AT_ONCE = 1000
_SHOWN, _WIDE = 100, 120
_FIND_EVENT = (
    "find the evaluation that completed at this time in RiskOS's dashboard, or ask its support with the event_id;"
    " then `docv-archive enqueue --refresh` the evaluation:"
)
_DAMAGED_WHY = "the entry in Redis cannot be read; `docv-archive enqueue` the evaluation again, or drop it"


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """A filter of dead letters; without any condition it matches all of them.

    Attributes:
        eval_ids: match these evaluations only; empty for any.
        cause: match this cause only.
        run: match this run only.
        older_than: minimum number of seconds since the last attempt.
        account: match this account only, which may be unknown here.
    """

    eval_ids: frozenset[str]
    cause: str | None
    run: str | None
    older_than: float
    account: str | None = None

    def matches_rejected(self, refusal: RejectedMessage, now: float) -> bool:
        """Return whether a rejected message matches: it belongs to no evaluation, run or account."""
        of_any = not self.eval_ids and self.run is None and self.account is None
        return of_any and self.cause in {None, refusal.cause} and now - refusal.at >= self.older_than

    def matches_damaged(self, eval_id: str) -> bool:
        """Return whether a damaged entry matches: only its evaluation is known."""
        of_any = self.run is None and self.account is None and not self.older_than
        return of_any and self.cause in {None, DAMAGED} and (not self.eval_ids or eval_id in self.eval_ids)

    def matches(self, letter: DeadLetter, now: float) -> bool:
        """Return whether a dead letter matches."""
        return (
            (not self.eval_ids or letter.eval_id in self.eval_ids)
            and (self.cause is None or letter.failure.cause == self.cause)
            and (self.run is None or self.run in letter.runs)
            and self.account in {None, letter.account}
            and now - letter.last >= self.older_than
        )


def make_filter(
    eval_ids: Sequence[str], cause: str | None, run_name: str | None, older_than: float, account: str | None = None
) -> DeadLetterFilter:
    """Return the filter that the options describe.

    Raises:
        InvalidInput: an ID or the name of the run is not valid.
    """
    ids = frozenset(map(parse_eval_id, eval_ids))
    return DeadLetterFilter(ids, cause, None if run_name is None else parse_run(run_name), older_than, account)


def filter_options(function: Function) -> Function:
    """Add the options that select dead letters."""
    options = (
        click.argument("eval_ids", metavar="[ID]...", nargs=-1),
        click.option("--cause", help="Select dead letters with this cause, such as service_failed."),
        click.option("--run", "run_name", help="Select dead letters of this run."),
        account_option("Select dead letters of this account."),
        click.option(
            "--older-than",
            type=DurationType(),
            default="0s",
            help="Select dead letters whose last failure is at least this old, such as 2h.",
        ),
        json_option(),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command("list")
@filter_options
def list_dead_letters(*, as_json: bool, **chosen: Any) -> int:
    """List dead letters, each with its cause."""
    choice = make_filter(**chosen)
    run_with_redis(load_settings(), lambda redis: _list(redis, choice, as_json=as_json))
    return OK


@click.command()
@filter_options
def redrive(*, as_json: bool, **chosen: Any) -> int:
    """Try dead letters again, with all attempts."""
    settings, choice = load_settings(), make_filter(**chosen)
    count, others = run_with_redis(settings, lambda redis: _redrive(redis, choice))
    if others and not as_json:
        click.echo(f"not redriven: {others}; send them again", err=True)
    code = _print_done("redriven", count, choice, as_json=as_json)
    if count and not as_json:
        click.echo("a running worker starts them within seconds; see `docv-archive status`")
    return code


@click.command()
@filter_options
@yes_option
def drop(*, yes: bool, as_json: bool, **chosen: Any) -> int:
    """Drop dead letters; they are not tried again."""
    settings, choice = load_settings(), make_filter(**chosen)
    counts, now = run_with_redis(settings, lambda redis: _count(redis, choice))
    if counts and not yes:
        question = "They are not tried again; their objects in the archive stay. Continue?"
        click.confirm(f"Drop {_describe(counts)}? {question}", abort=True, err=True)
    count = run_with_redis(settings, lambda redis: _drop(redis, choice, now)) if counts else 0
    return _print_done("dropped", count, choice, as_json=as_json)


def _print_done(done: str, count: int, choice: DeadLetterFilter, *, as_json: bool) -> int:
    missing = len(choice.eval_ids) - count if choice.eval_ids else 0
    if as_json:
        click.echo(orjson.dumps({done: count, "missing": missing}))
    else:
        are = "is not a dead letter" if missing == 1 else "are not dead letters"
        click.echo(f"{count:,} {done}" + (f"; {missing:,} of the named evaluations {are}" if missing else ""))
    return NOT_ALL if missing else OK


async def _redrive(redis: "Redis", choice: DeadLetterFilter) -> tuple[int, str]:
    """Redrive dead letters; return how many, and in words what else matches and cannot be redriven."""
    await _check(redis, choice)
    ledger, now, count = Ledger(redis), await _now(redis), 0
    async for some in _thousands(letter.eval_id async for letter in _letters(ledger, choice, now)):
        count += len(await ledger.dead_letters.redrive(some))
    return count, _describe(await _count_others(redis, choice, now))


async def _drop(redis: "Redis", choice: DeadLetterFilter, now: float) -> int:
    """Drop matches that are not newer than ``now``, and damaged entries, whose age is unknown; return how many."""
    ledger, damaged, refusals, count = Ledger(redis), DamagedEntries(redis), RejectedMessages(redis), 0
    async for some in _thousands(letter.eval_id async for letter in _letters(ledger, choice, now)):
        count += len(await ledger.dead_letters.drop(some))
    async for some in _thousands(_damaged(damaged, choice)):
        count += len(await damaged.drop(some))
    async for some in _thousands(refusal.name async for refusal in _refused(refusals, choice, now)):
        count += await refusals.delete(some)
    return count


async def _count(redis: "Redis", choice: DeadLetterFilter) -> tuple[dict[str, Counter[str]], float]:
    """Count matches by kind and cause; return the counts, and the time on Redis's clock before counting."""
    await _check(redis, choice)
    now, letters = await _now(redis), Counter[str]()
    async for letter in _letters(Ledger(redis), choice, now):
        letters[letter.failure.cause] += 1
    return ({_LETTER: letters} if letters else {}) | await _count_others(redis, choice, now), now


async def _count_others(redis: "Redis", choice: DeadLetterFilter, now: float) -> dict[str, Counter[str]]:
    """Count the damaged entries and rejected messages that match."""
    counts = defaultdict[str, Counter[str]](Counter)
    async for _ in _damaged(DamagedEntries(redis), choice):
        counts[_DAMAGED][DAMAGED] += 1
    async for refusal in _refused(RejectedMessages(redis), choice, now):
        counts[_REFUSED][refusal.cause] += 1
    return counts


def _describe(counts: Mapping[str, Counter[str]]) -> str:
    parts = (f"{format_count(each.total(), kind)} ({describe_causes(each)})" for kind, each in counts.items())
    return " and ".join(parts)


async def _thousands(names: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    """Yield names in lists of at most a thousand."""
    some: list[str] = []
    async for name in names:
        some.append(name)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


async def _list(redis: "Redis", choice: DeadLetterFilter, *, as_json: bool) -> None:
    await _check(redis, choice)
    now = await _now(redis)
    causes, letters = await _list_letters(Ledger(redis), choice, now, as_json=as_json)
    damaged = [eval_id async for eval_id in _damaged(DamagedEntries(redis), choice)]
    rejected = [refusal async for refusal in _refused(RejectedMessages(redis), choice, now)]
    if as_json:
        for line in (*map(_damaged_as_json, damaged), *map(_rejected_as_json, rejected)):
            click.echo(orjson.dumps(line))
        return
    why = Counter(f"{refusal.why} ({refusal.source})" for refusal in rejected)
    if causes or not (why or damaged):
        _print(letters, causes)
    if damaged:
        _print_damaged(damaged)
    if why:
        _print_rejected(why)
        _print_events([refusal for refusal in rejected if refusal.event_type])


async def _list_letters(
    ledger: Ledger, choice: DeadLetterFilter, now: float, *, as_json: bool
) -> tuple[Counter[str], list[DeadLetter]]:
    """Count dead letters by cause; print all of them as JSON, or else return the first ones."""
    causes, first = Counter[str](), list[DeadLetter]()
    async for letter in _letters(ledger, choice, now):
        causes[letter.failure.cause] += 1
        if as_json:
            click.echo(orjson.dumps(_as_json(letter)))
        elif len(first) < _SHOWN:
            first.append(letter)
    return causes, first


async def _check(redis: "Redis", choice: DeadLetterFilter) -> None:
    await check_cause(redis, choice.cause)
    await check_run(redis, choice.run)


async def _now(redis: "Redis") -> float:
    seconds, micro = await redis.time()
    return float(seconds + micro / 1e6)


async def _letters(ledger: Ledger, choice: DeadLetterFilter, now: float) -> AsyncIterator[DeadLetter]:
    # Redis may show an entry twice while its table grows.
    seen: set[str] = set()
    async for letter in ledger.dead_letters.iterate():
        if choice.matches(letter, now) and letter.eval_id not in seen:
            seen.add(letter.eval_id)
            yield letter


def _damaged(damaged: DamagedEntries, choice: DeadLetterFilter) -> AsyncIterator[str]:
    return (eval_id async for eval_id in damaged.iterate() if choice.matches_damaged(eval_id))


def _refused(refusals: RejectedMessages, choice: DeadLetterFilter, now: float) -> AsyncIterator[RejectedMessage]:
    return (refusal async for refusal in refusals.iterate() if choice.matches_rejected(refusal, now))


def _as_json(letter: DeadLetter) -> dict[str, object]:
    return {
        "eval_id": letter.eval_id,
        "cause": letter.failure.cause,
        "why": letter.failure.why,
        "status": letter.failure.status,
        "request_id": letter.failure.request_id,
        "attempts": letter.attempts,
        "account": letter.account,
        "queue": letter.queue,
        "runs": letter.runs,
        "accepted_at": _format_time(letter.accepted),
        "first_failed_at": _format_time(letter.first),
        "last_failed_at": _format_time(letter.last),
    }


def _damaged_as_json(eval_id: str) -> dict[str, object]:
    return {"eval_id": eval_id, "cause": DAMAGED, "why": _DAMAGED_WHY}


def _rejected_as_json(refusal: RejectedMessage) -> dict[str, object]:
    return {
        "eval_id": None,
        "cause": refusal.cause,
        "why": refusal.why,
        "source": refusal.source,
        "message": refusal.message,
        "event_type": refusal.event_type,
        "refused_at": _format_time(refusal.at),
    }


def _make_table(letters: Sequence[DeadLetter], width: int) -> Table:
    """Return a table of dead letters; in a narrow one, time and runs are below the ID."""
    is_wide, table = width >= _WIDE, Table(box=None, pad_edge=False)
    titles = ("evaluation", "cause", "status", "attempts", *(("last failed", "runs") if is_wide else ()))
    for title in titles:
        justify: Literal["left", "right"] = "right" if title in {"status", "attempts"} else "left"
        # A cut ID cannot be copied, so other columns fold instead.
        table.add_column(title, justify=justify, overflow="fold", min_width=36 if title == "evaluation" else None)
    for each in letters:
        status = "" if each.failure.status is None else str(each.failure.status)
        facts, more = (each.failure.cause, status, str(each.attempts)), (_format_time(each.last), " ".join(each.runs))
        if is_wide:
            table.add_row(each.eval_id, *facts, *more)
        else:
            table.add_row(f"{each.eval_id}\n  {' '.join(more)}", *facts)
    return table


def _print(letters: Sequence[DeadLetter], causes: Counter[str]) -> None:
    console, total = Console(highlight=False), causes.total()
    if not console.is_terminal:
        console.width = 160
    if not total:
        click.echo("there are no such dead letters")
        return
    console.print(_make_table(letters, console.width))
    if total > len(letters):
        console.print(f"... and {total - len(letters):,} more; --json prints them all")
    console.print(f"{total:,} in all: {describe_causes(causes)}", markup=False)


def _print_damaged(eval_ids: Sequence[str]) -> None:
    click.echo(f"{format_count(len(eval_ids), _DAMAGED)}: {_DAMAGED_WHY}")
    for eval_id in eval_ids[:_SHOWN]:
        click.echo(f"  {eval_id}")


def _print_rejected(why: Counter[str]) -> None:
    click.echo(f"{format_count(why.total(), _REFUSED)}; correct and send them again, and drop these:")
    for sentence, count in why.most_common(_SHOWN):
        click.echo(f"  {format_count(count, 'time')}: {sentence}")


def _print_events(events: Sequence[RejectedMessage]) -> None:
    if not events:
        return
    click.echo(_FIND_EVENT)
    for event in events[:_SHOWN]:
        click.echo(f"  {event.message or 'without a usable event_id'}  {event.event_type}  {_format_time(event.at)}")


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
