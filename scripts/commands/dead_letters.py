"""Evaluations that were tried enough: list them, try them anew, or drop them."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import click
import orjson
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.options import Function, account_option, json_option, yes_option
from scripts.console.parameter_types import DurationType
from scripts.local.processes import run_with_redis
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessage, RejectedMessages
from tasks.model.evaluation import parse_eval_id
from tasks.model.job import DeadLetter
from tasks.queueing.message import parse_run
from worker.config.settings import load_settings

_AT_ONCE = 1000
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant; all of them where nothing is said.

    Attributes:
        eval_ids: these evaluations.
        cause: those with this cause.
        run: those of this run.
        older_than: those whose last attempt was so many seconds ago, or longer.
        account: those of this account; also one that is not known here.
    """

    eval_ids: frozenset[str]
    cause: str | None
    run: str | None
    older_than: float
    account: str | None = None

    def matches_rejected(self, refusal: RejectedMessage, now: float) -> bool:
        """Return whether a refused message is meant: it is of no evaluation, run or account."""
        of_any = not self.eval_ids and self.run is None and self.account is None
        return of_any and self.cause in {None, refusal.cause} and now - refusal.at >= self.older_than

    def matches(self, letter: DeadLetter, now: float) -> bool:
        """Return whether a dead letter is meant."""
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
    """Return which dead letters are meant.

    Raises:
        InvalidInput: an ID or the name of the run is none.
    """
    ids = frozenset(map(parse_eval_id, eval_ids))
    return DeadLetterFilter(ids, cause, None if run_name is None else parse_run(run_name), older_than, account)


def filter_options(function: Function) -> Function:
    """Add the options that select dead letters."""
    options = (
        click.argument("eval_ids", metavar="[ID]...", nargs=-1),
        click.option("--cause", help="Only those with this cause, such as service_failed."),
        click.option("--run", "run_name", help="Only those of this run."),
        account_option("Only those of this account."),
        click.option(
            "--older-than",
            type=DurationType(),
            default="0s",
            help="Only those that last failed so long ago, such as 2h.",
        ),
        json_option(),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command("list")
@filter_options
def list_dead_letters(*, as_json: bool, **chosen: Any) -> int:
    """Show them, with the cause of each."""
    choice = make_filter(**chosen)
    run_with_redis(load_settings(), lambda redis: _list(redis, choice, as_json=as_json))
    return OK


@click.command()
@filter_options
def redrive(*, as_json: bool, **chosen: Any) -> int:
    """Try them anew, with all their attempts."""
    return _act("redriven", make_filter(**chosen), as_json=as_json)


@click.command()
@filter_options
@yes_option
def drop(*, yes: bool, as_json: bool, **chosen: Any) -> int:
    """Forget them: nothing will archive them any more."""
    choice = make_filter(**chosen)
    if not yes:
        click.confirm("What is dropped is in no archive and no queue any more. Go on?", abort=True, err=True)
    return _act("dropped", choice, as_json=as_json)


def _act(done: str, choice: DeadLetterFilter, *, as_json: bool) -> int:
    count = run_with_redis(load_settings(), lambda redis: _each(redis, done, choice))
    missing = len(choice.eval_ids) - count if choice.eval_ids else 0
    if as_json:
        click.echo(orjson.dumps({done: count, "missing": missing}))
    else:
        click.echo(f"{count} {done}" + (f"; {missing} of the named are no dead letters" if missing else ""))
        if count and done == "redriven":
            click.echo("a worker takes them up within seconds of running; see `docv-archive status`")
    return NOT_ALL if missing else OK


async def _each(redis: "Redis", done: str, choice: DeadLetterFilter) -> int:
    ledger, refusals, now = Ledger(redis), RejectedMessages(redis), await _now(redis)
    act = ledger.redrive_dead_letters if done == "redriven" else ledger.drop_dead_letters
    count = 0
    async for some in _thousands(letter.eval_id async for letter in _letters(ledger, choice, now)):
        count += len(await act(some))
    if done == "dropped":
        async for some in _thousands(refusal.name async for refusal in _refused(refusals, choice, now)):
            count += await refusals.delete(some)
    return count


async def _thousands(names: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    """Yield names so many at a time as are worked on at once."""
    some: list[str] = []
    async for name in names:
        some.append(name)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


async def _list(redis: "Redis", choice: DeadLetterFilter, *, as_json: bool) -> None:
    causes: Counter[str] = Counter()
    why: Counter[str] = Counter()
    table, now = _table(), await _now(redis)
    async for letter in _letters(Ledger(redis), choice, now):
        causes[letter.failure.cause] += 1
        if as_json:
            click.echo(orjson.dumps(_as_json(letter)))
        elif table.row_count < _SHOWN:
            failed = "" if letter.failure.status is None else str(letter.failure.status)
            facts = letter.failure.cause, failed, str(letter.attempts), _format_time(letter.last)
            table.add_row(letter.eval_id, *facts, " ".join(letter.runs))
    async for refusal in _refused(RejectedMessages(redis), choice, now):
        why[f"{refusal.why} ({refusal.source})"] += 1
        if as_json:
            click.echo(orjson.dumps(_rejected_as_json(refusal)))
    if not as_json:
        if causes or not why:
            _print(table, causes)
        if why:
            _print_rejected(why)


async def _now(redis: "Redis") -> float:
    seconds, micro = await redis.time()
    return float(seconds + micro / 1e6)


async def _letters(ledger: Ledger, choice: DeadLetterFilter, now: float) -> AsyncIterator[DeadLetter]:
    # Redis may show an entry twice while its table grows.
    seen: set[str] = set()
    async for letter in ledger.iterate_dead_letters():
        if choice.matches(letter, now) and letter.eval_id not in seen:
            seen.add(letter.eval_id)
            yield letter


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


def _rejected_as_json(refusal: RejectedMessage) -> dict[str, object]:
    return {
        "eval_id": None,
        "cause": refusal.cause,
        "why": refusal.why,
        "source": refusal.source,
        "message": refusal.message,
        "refused_at": _format_time(refusal.at),
    }


def _table() -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("evaluation", "cause", "status", "attempts", "last failed", "runs"):
        justify: Literal["left", "right"] = "right" if title in {"status", "attempts"} else "left"
        # An ID that is cut cannot be copied; what is in the way goes on the next line.
        table.add_column(title, justify=justify, overflow="fold", min_width=36 if title == "evaluation" else None)
    return table


def _print(table: Table, causes: Counter[str]) -> None:
    console, total = Console(highlight=False), causes.total()
    if not console.is_terminal:
        console.width = 160
    if not total:
        click.echo("there are no such dead letters")
        return
    console.print(table)
    if total > table.row_count:
        console.print(f"... and {total - table.row_count} more; --json prints them all")
    counted = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    console.print(f"{total} in all: {counted}", markup=False)


def _print_rejected(why: Counter[str]) -> None:
    click.echo(f"{why.total()} messages were refused; they can be dropped, and have to be sent anew as they should be:")
    for sentence, count in why.most_common(_SHOWN):
        click.echo(f"  {count} times: {sentence}")


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
