"""Redis has damaged and newer values: no worker, command or page fails, and all healthy evaluations end."""

import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import click
import orjson
from pydantic import SecretStr
from redis.asyncio import Redis
from rich.console import Console

from scripts.commands import dead_letters, status
from scripts.console import summary
from scripts.doctor.redis import judge_damaged
from scripts.overview.overview import read_overview
from scripts.serve.auth.roles import Caller, Role
from scripts.serve.page.assets import Assets
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.renderer import PageRenderer, templates
from tasks.consumer.system_metrics import SystemMetrics
from tasks.errors import ArchiveHeld
from tasks.ledger.cancellation import Cancellation
from tasks.ledger.damaged_entries import DamagedEntries
from tasks.ledger.entries import find_entry
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.account import Account, Allowance
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import ARCHIVE, KEY_BACKOFF, Holds, Reason, backfill_of
from tasks.resilience.permission import PermissionMonitor
from tasks.resilience.rate_headers import RateLimitHeaders, RateLimitWindow
from tasks.resilience.rate_limiter import RateLimitScript
from tests.faults.scale import Scale
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings

IDS = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(24)]
ENTRIES = "docv:ledger:entries"
ALLOWANCE = Allowance(rate=50.0)
ACCOUNT = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, ALLOWANCE)
OF_HELD = {name: {Queue.LIVE: 100, Queue.BACKFILL: 100} for name in ("default", "kyb")}
WINDOW = RateLimitHeaders((RateLimitWindow(60, limit=600, remaining=300),))
TEXTS = (
    *("", "x", "nan", "inf", "-inf", "-1", "0", "1e308", "9" * 40, "of_tomorrow", "null", "[]", "{}", "[[]]", "true"),
    *('"runs"', "{", '{"queue":', "\x00", "\x80\xff", "0b54a4d4", "é", "-5.5", " 7"),
)
VALUES: tuple[Any, ...] = (None, -1, 1e300, 0, "", "x", [], {}, True, [1], {"a": 1}, "of_tomorrow", [None], 1.5, [[]])


async def populate(redis: Redis) -> None:
    """Store something of every kind in Redis."""
    ledger, holds = Ledger(redis, lease_seconds=0), Holds(redis)
    await ledger.runs.begin("listed", total=3, fingerprint="f" * 64)
    await ledger.accept(IDS[:6], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3")))
    await ledger.accept(IDS[6:12], EnqueueOptions(Queue.BACKFILL, "kyb", Trigger("run", run="q4"), refresh=True))
    await ledger.accept(IDS[12:20], EnqueueOptions(Queue.LIVE, "default", Trigger("webhook", event_type="e")))
    await ledger.accept(IDS[20:], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue", run="q3")))
    jobs = {job.eval_id: job for job in await ledger.lease([*IDS[::3], IDS[1]], token="gone")}
    failure = Failure("service_failed", "RiskOS answered with status 500", 500, "a-request")
    await ledger.accept(IDS[3:4], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue"), refresh=True))
    await ledger.retry_later(jobs[IDS[0]], wait=0, attempts=1, failure=failure)
    await ledger.await_hold(jobs[IDS[6]], cause="account_held")
    await ledger.await_hold(jobs[IDS[12]], cause="account_held", suspect=True)
    await ledger.dead_letter(jobs[IDS[9]], attempts=6, failure=failure)
    await ledger.dead_letter(jobs[IDS[1]], attempts=6, failure=failure)
    await ledger.complete(jobs[IDS[15]], Outcome.ARCHIVED)
    await holds.place_until_probe("default", Reason.UNAUTHORIZED, "refused", KEY_BACKOFF, probe=False)
    await holds.place_for(backfill_of("default"), Reason.SLOW_DOWN, "slow", 30)
    await holds.place_manual(ARCHIVE, "by hand")
    await RejectedMessages(redis).add(cause="bad_message", why="it is not JSON", source="live")
    await WorkerRegistry(redis).heartbeat("one", list(Queue))
    await use_rate(redis)


async def use_rate(redis: Redis) -> None:
    """Send requests from both queues, and record their answers."""
    script, rate = RateLimitScript(redis), AdaptiveRate(redis, "default", ALLOWANCE, Holds(redis))
    for queue, verb in ((Queue.LIVE, "acquire"), (Queue.BACKFILL, "acquire_backfill")):
        await script.acquire(ACCOUNT, queue, verb)
    rate.on_success()
    await rate.on_headers(WINDOW, 0.0, 100.0)
    await rate.on_rate_limited(RateLimitHeaders(), 0.0, 100.0, probe=False)
    await rate.flush()
    await script.release(ACCOUNT, 0.1)
    permission = PermissionMonitor(redis, "default")
    permission.record_answered(IDS[3])
    await permission.record_forbidden(IDS[4], 1.0)


def damaged_json(text: str, dice: random.Random) -> str:
    """Return a JSON object with one of its fields changed, removed or added."""
    facts = json.loads(text)
    name = dice.choice([*facts, "of_tomorrow"])
    if dice.random() < 0.2:
        facts.pop(name, None)
    elif isinstance(facts.get(name), dict) and facts[name] and dice.random() < 0.5:
        facts[name][dice.choice([*facts[name], "of_tomorrow"])] = dice.choice(VALUES)
    else:
        facts[name] = dice.choice(VALUES)
    return json.dumps(facts)


def damaged_text(text: str, dice: random.Random) -> str | bytes:
    """Return a text that differs from the original."""
    match dice.randrange(4):
        case 0:
            return dice.choice(TEXTS)
        case 1:
            return text[: dice.randrange(len(text) + 1)]
        case 2 if text:
            flipped = bytearray(text.encode())
            flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
            return bytes(flipped)
        case _ if text.startswith("{"):
            return damaged_json(text, dice)
        case _:
            return dice.choice(TEXTS)


async def damage(redis: Redis, key: str, dice: random.Random) -> str | None:
    """Damage one value of a key; return its evaluation, or the name of its field or member."""
    match await redis.type(key):
        case "hash":
            fields = await redis.hgetall(key)
            name = dice.choice(sorted(fields))
            if dice.random() < 0.1:
                await redis.hdel(key, name)
            else:
                await redis.hset(key, name, damaged_text(fields[name], dice))  # type: ignore[arg-type]
            return name
        case "string":
            await redis.set(key, damaged_text(str(await redis.get(key)), dice))
        case "zset":
            members = await redis.zrange(key, 0, -1)
            name = str(dice.choice(members))
            score = dice.choice((0, -1, 1e15, 1e300, float("inf"), float("-inf"), 0.5))
            await redis.zadd(key, {name: score} if dice.random() < 0.5 else {str(dice.choice(TEXTS)): score})
            return name
        case "list":
            at = dice.randrange(await redis.llen(key))
            await redis.lset(key, at, damaged_text(str(await redis.lindex(key, at)), dice))
        case "stream":
            await redis.xadd(key, {str(dice.choice(TEXTS)): dice.choice(TEXTS)})
        case "set":
            await redis.sadd(key, dice.choice(TEXTS))
    return None  # a key without fields does not exist


async def read_everything(redis: Redis, accounts: Accounts) -> None:
    """Read and render everything that commands, metrics and the page show."""
    overview = await read_overview(redis, accounts)
    status._print(overview, [])
    orjson.dumps(status._as_json(overview))
    for run in await Ledger(redis).runs.list_newest():
        await status._print_run(redis, run, as_json=False)
        await status._print_run(redis, run, as_json=True)
    snapshot = await OverviewCache(redis, accounts).get()
    page = PageRenderer(accounts, Assets(), read_only=False, templates=templates())
    caller = Caller("alice", Role.OPERATOR, "a-hash")
    page.render("overview_body.html.j2", caller, snapshot=snapshot, overview=snapshot.overview).encode()
    await dead_letters._list(redis, dead_letters.make_filter((), None, None, 0.0), as_json=True)
    await dead_letters._list(redis, dead_letters.make_filter((), None, None, 0.0), as_json=False)
    judge_damaged(overview.stats.damaged, [eval_id async for eval_id in DamagedEntries(redis).iterate()])
    await SystemMetrics(redis, {"default": ALLOWANCE, "kyb": ALLOWANCE}).collect()
    for eval_id in IDS[::4]:
        await find_entry(redis, eval_id)


async def work(redis: Redis) -> None:
    """Do what workers do until nothing is due."""
    ledger, holds = Ledger(redis, lease_seconds=30), Holds(redis)
    await use_rate(redis)
    for scope in ("default", backfill_of("default"), ARCHIVE):
        try:
            await holds.enter(scope)
        except ArchiveHeld:
            await holds.place_until_probe(scope, Reason.OUTAGE, "again", KEY_BACKOFF, probe=True)
        await holds.end_after_probe(scope)
    await Cancellation(redis).find_cancelled_in_flight(IDS)
    await ledger.locate(IDS)
    for _ in range(8):
        claimed = await ledger.claim(patience=dict.fromkeys(Queue, -1.0), of_held=OF_HELD)
        some = list(dict.fromkeys(eval_id for ids in claimed.values() for eval_id in ids))
        if not some:
            return
        jobs = await ledger.lease(some, token="ours")
        assert await ledger.extend(jobs) == []
        for job, age in zip(jobs, await ledger.complete_all([(job, "archived") for job in jobs]), strict=True):
            assert age > 0, job
    raise AssertionError("something is due again and again")


async def damage_and_work(redis: Redis, accounts: Accounts, dice: random.Random) -> int:
    """Damage some values, read everything, and work; return how many values were damaged."""
    keys = sorted(key for key in await redis.keys("docv:*") if key != "docv:never")
    touched = [(key, await damage(redis, key, dice)) for key in dice.sample(keys, k=dice.randrange(1, 4))]
    try:
        await read_everything(redis, accounts)
        await work(redis)
        left = set(await redis.hkeys(ENTRIES)) - {name for _, name in touched}
        assert not left, "healthy evaluations have not ended"
        await Cancellation(redis).cancel_run("q3")
        await Ledger(redis).dead_letters.redrive(IDS)
        await Ledger(redis).accept(IDS, EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3")))
        for eval_id in IDS:
            await Ledger(redis).erase(eval_id)
        return len(touched)
    except BaseException as error:
        error.add_note(f"damaged: {touched}")
        raise


async def test_workers_commands_and_the_page_keep_working_when_values_in_redis_are_damaged(
    redis: Redis, scale: Scale, figures: Callable[[str], None], monkeypatch: Any
) -> None:
    for module in (status, dead_letters, summary):
        monkeypatch.setattr(module, "Console", lambda **_: Console(file=io.StringIO(), width=200))
    monkeypatch.setattr(click, "echo", lambda *_, **__: None)
    accounts = load_accounts(Settings(api_key=SecretStr("a-key"), daily_quota=1000))
    await populate(redis)
    kept = await snapshot(redis)
    wanted, done, number = 10_000 if scale.long else 120, 0, 0
    seed = random.randrange(1 << 32)  # noqa: S311  # the seed is printed, and is not a secret
    while done < wanted:
        await redis.flushall()
        await restore(redis, kept)
        try:
            done += await damage_and_work(redis, accounts, random.Random(f"{seed} {number}"))  # noqa: S311  # the same
        except BaseException as error:
            error.add_note(f"seed {seed} {number}")
            raise
        number += 1
    figures(f"damaged values in Redis: {done}, 1 to 3 at once; nothing died, and every healthy evaluation ended")


async def snapshot(redis: Redis) -> Sequence[tuple[str, bytes, int]]:
    """Return every key with its value and the milliseconds until it expires."""
    return [
        (key, await redis.execute_command("DUMP", key, NEVER_DECODE=True), max(0, await redis.pttl(key)))
        for key in await redis.keys("*")
    ]


async def restore(redis: Redis, kept: Sequence[tuple[str, bytes, int]]) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for key, data, left in kept:
            pipe.restore(key, left, data)  # type: ignore[arg-type]
        await pipe.execute()
