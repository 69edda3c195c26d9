"""Stop an account by hand, and start it again."""

import asyncio

import click
import orjson

from scripts.exits import OK
from scripts.local import known_redis
from scripts.resuming import end_holds
from scripts.seen import until
from tasks.account import DEFAULT_ACCOUNT
from tasks.hold import Hold, Holds, Reason
from worker.redis_client import check_redis, open_redis
from worker.settings import Settings, load_settings

_LONGEST_NOTE = 200


def hold(reason: str, *, as_json: bool) -> int:
    """Put the account on hold until somebody resumes it; return the exit code."""
    note = "".join(letter for letter in reason if letter.isprintable())[:_LONGEST_NOTE]
    with known_redis(load_settings()) as here:
        placed = asyncio.run(_hold(here, note))
    if as_json:
        click.echo(orjson.dumps({"holds": [_facts(placed)]}))
    else:
        click.echo(f"{placed.what} is on hold, {until(placed)}. Within a second no worker sends a request any more;")
        click.echo("evaluations go on being accepted, and wait.")
    return OK


def resume(*, as_json: bool) -> int:
    """End every hold, whoever placed it; return the exit code."""
    with known_redis(load_settings()) as here:
        ended = asyncio.run(_resume(here))
    if as_json:
        click.echo(orjson.dumps({"ended": [_facts(each) for each in ended]}))
    elif not ended:
        click.echo("nothing is on hold")
    for each in () if as_json else ended:
        click.echo(f"{each.what} goes on; it was on hold ({each.reason}: {each.note})")
        if each.reason is Reason.QUOTA:
            click.echo("while the quota counts as spent it will soon be so again; see DOCV_DAILY_QUOTA")
    return OK


async def _hold(settings: Settings, note: str) -> Hold:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        holds = Holds(redis)
        await holds.by_hand(DEFAULT_ACCOUNT, note)
        (placed,) = [each for each in await holds.all() if each.scope == DEFAULT_ACCOUNT]
        return placed


async def _resume(settings: Settings) -> list[Hold]:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        return await end_holds(redis)


def _facts(hold: Hold) -> dict[str, object]:
    return {"what": hold.what, "reason": hold.reason, "note": hold.note, "lasting_seconds": round(hold.lasting, 1)}
