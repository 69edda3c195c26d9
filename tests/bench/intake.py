"""Measure how fast backfills, webhooks and live events are accepted: `make bench-intake`.

Each part prints what it measured, and the bound. Other work on the machine affects it, so measure again before you
trust a result that is too low.
"""

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import click
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import start_simulator
from tests.bench.manifests import fill_archive
from tests.bench.processes import CommandUsage, exit_on_sigterm, run, running
from tests.bench.rude_clients import GREEDY, SILENT, SLOW, rude_clients
from worker.clients.embedded_redis import embedded_redis
from worker.clients.redis import open_redis

_MIB = 1 << 20
_KEY = "bench-key"
_INTAKE = "bench-secret-of-a-producer"
_SECRET = "bench-secret-of-the-webhook"
_HEADERS = {"Authorization": f"Bearer {_SECRET}"}
Settings = dict[str, str]
Part = Callable[[Path, float], None]


def queueing(folder: Path, scale: float) -> None:
    """Accept a million IDs from CSV as the list of a run, then send them to workers that archive nothing."""
    count = round(1_000_000 * scale)
    _write_csv(folder / "ids.csv", _random_ids(count))
    with _redis(folder) as settings:
        accepted = run(["backfill", "ids.csv", "--run", "bench", "--detach", "--json"], settings, folder)
        _check(accepted)
        _print_result(
            "accepted as the list of a run",
            f"{count / accepted.seconds:,.0f} IDs/s",
            "20,000 IDs/s or more",
            _memory(accepted),
        )
        with contextlib.ExitStack() as workers:
            for _ in range(2):
                workers.enter_context(running("tests.bench.noop_worker", settings=settings, folder=folder))
            used = run(["backfill", "ids.csv", "--run", "bench", "--json"], settings, folder)
        _check(used)
        peak = asyncio.run(_redis_peak(settings)) / _MIB
    _print_result(
        "through the queue, two workers that archive nothing",
        f"{count / used.seconds:,.0f} IDs/s",
        "20,000 IDs/s or more",
        f"{_memory(used)}, Redis {peak:.0f} MiB (150)",
    )


def archived(folder: Path, scale: float) -> None:
    """Send a file of archived evaluations through one real worker."""
    eval_ids = list(_random_ids(round(30_000 * scale)))
    fill_archive(folder / "archive", eval_ids)
    _write_csv(folder / "ids.csv", eval_ids)
    with _redis(folder) as settings, running("scripts.cli", "worker", settings=settings, folder=folder):
        time.sleep(3)
        used = run(["backfill", "ids.csv", "--json"], settings, folder)
    _check(used)
    unchanged = json.loads(used.out)["outcomes"]["unchanged"]
    _print_result(
        "archived already, one worker",
        f"{len(eval_ids) / used.seconds:,.0f} IDs/s",
        "1,500 IDs/s or more",
        f"{unchanged:,} of {len(eval_ids):,} unchanged, without RiskOS",
    )


def lines(folder: Path, scale: float) -> None:
    """Read ten million lines, of which one in a hundred is bad."""
    count, bad = round(10_000_000 * scale), round(100_000 * scale)
    _write_csv(folder / "ids.csv", (line for line in _with_bad_lines(count)))
    with _redis(folder) as settings:
        used = run(["backfill", "ids.csv", "--run", "lines", "--detach", "--json"], settings, folder)
        peak = asyncio.run(_redis_peak(settings)) / _MIB
    with (folder / "ids.rejects.csv").open() as file:
        rejected = sum(1 for _ in file) - 1
    total = json.loads(used.out)["total"]
    _print_result(
        f"{count:,} lines",
        f"{count / used.seconds:,.0f} lines/s",
        "",
        f"{_memory(used)}, Redis {peak:.0f} MiB, {rejected:,} of {bad:,} bad lines kept, {total:,} accepted",
    )


def webhook(folder: Path, scale: float) -> None:
    """Send 200 events per second."""
    with _redis(folder) as settings, _serving(settings, folder) as url:
        latencies = asyncio.run(_post_events(f"{url}/webhooks/riskos", rate=200, seconds=30 * scale))
    _print_result(
        "webhook at 200/s",
        f"p50 {statistics.median(latencies) * 1e3:.1f} ms, p99 {_percentile(latencies, 99) * 1e3:.1f} ms",
        "p99 50 ms or less",
        f"{len(latencies):,} events, each answered 200",
    )


def rude(folder: Path, scale: float) -> None:
    """Send 50 events per second next to clients that are slow, silent or greedy."""
    with _redis(folder) as settings, _serving(settings, folder) as url:
        latencies, answered = asyncio.run(_post_events_next_to_rude_clients(url, seconds=60 * scale))
    _print_result(
        f"webhook at 50/s next to {SLOW} slow, {SILENT} silent and {GREEDY} greedy clients",
        f"p50 {statistics.median(latencies) * 1e3:.1f} ms, p99 {_percentile(latencies, 99) * 1e3:.1f} ms",
        "p99 250 ms or less",
        f"{len(latencies):,} events, each answered 200; {answered:,} requests of the greedy",
    )


def live(folder: Path, scale: float) -> None:
    """Measure the time from a live event to its manifest while the worker serves a backfill at 10 per second."""
    asyncio.run(_live(folder, scale))


async def _live(folder: Path, scale: float) -> None:
    async with await start_simulator(SimulatorOptions(api_key=_KEY, image_bytes=30_000, latency_ms=300)) as riskos:
        with _redis(folder) as settings:
            settings |= {"DOCV_RISKOS_URL": riskos.url, "DOCV_RATE": "10", "DOCV_SETTLE_SECONDS": "0"}
            old = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(5_000)]
            _write_csv(folder / "ids.csv", old)
            _check(await asyncio.to_thread(run, ["backfill", "ids.csv", "--detach", "--json"], settings, folder))
            with running("scripts.cli", "worker", settings=settings, folder=folder), _serving(settings, folder) as url:
                await asyncio.sleep(5)
                waits = [await _one_event(url, folder, number) for number in range(max(5, round(40 * scale)))]
    _print_result(
        "live during a backfill at 10/s, RiskOS takes 0.3 s",
        f"p50 {statistics.median(waits):.2f} s, p95 {_percentile(waits, 95):.2f} s",
        "p95 1.3 s or less",
        f"{len(waits)} events",
    )


async def _one_event(url: str, folder: Path, number: int) -> float:
    """Send an event; return the seconds until its manifest exists."""
    eval_id = eval_id_for(Scenario.DOCUMENTED, 100_000 + number)
    manifest = folder / "archive" / "sandbox" / eval_id / "manifest.json"
    async with aiohttp.ClientSession() as session:
        began = time.monotonic()
        async with session.post(f"{url}/webhooks/riskos", json=_event(eval_id), headers=_HEADERS) as answer:
            answer.raise_for_status()
        while not manifest.exists():  # the worker writes it
            await asyncio.sleep(0.005)
        return time.monotonic() - began


async def _post_events(url: str, rate: float, seconds: float) -> list[float]:
    """Send events at a rate without waiting for answers; return the seconds that each answer took."""
    async with aiohttp.ClientSession() as session:

        async def post() -> float:
            began = time.monotonic()
            async with session.post(url, json=_event(str(uuid4())), headers=_HEADERS) as answer:
                answer.raise_for_status()
            return time.monotonic() - began

        await post()
        began, tasks = time.monotonic(), []
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(post()))
        return await asyncio.gather(*tasks)


async def _post_events_next_to_rude_clients(url: str, seconds: float) -> tuple[list[float], int]:
    """Return the seconds that each answer to an event took, and how many answers greedy clients got meanwhile."""
    async with rude_clients(url, _INTAKE) as answers:
        await asyncio.sleep(2)
        return await _post_events(f"{url}/webhooks/riskos", rate=50, seconds=seconds), answers.total()


def _event(eval_id: str) -> dict[str, object]:
    return {
        "event_id": str(uuid4()),
        "event_at": "2026-11-23T04:00:00Z",
        "event_type": "evaluation_completed",
        "data": {"eval_id": eval_id, "environment_name": "Sandbox", "filler": "x" * 4_000},
    }


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[Settings]:
    with embedded_redis(folder / "state") as embedded:
        yield {
            "DOCV_REDIS_URL": embedded.url,
            "DOCV_ARCHIVE_URL": (folder / "archive").as_uri(),
            "DOCV_STATE_DIR": str(folder / "state"),
            "DOCV_API_KEY": _KEY,
            "DOCV_DAILY_QUOTA": "100000000",
            "DOCV_LOG_LEVEL": "WARNING",
            "DOCV_WEBHOOK_SECRETS": _SECRET,
            "DOCV_INTAKE_TOKENS": _INTAKE,
        }


@contextlib.contextmanager
def _serving(settings: Settings, folder: Path) -> Iterator[str]:
    with running("scripts.cli", "serve", "--port", "0", settings=settings, folder=folder) as process:
        log = folder / "scripts.cli.log"
        while "http://" not in (output := log.read_text()):
            assert process.poll() is None, output  # or this loop would not end
            time.sleep(0.05)
        yield "http://" + output.partition("http://")[2].split()[0].strip("/.,")


async def _redis_peak(settings: Settings) -> int:
    async with open_redis(settings["DOCV_REDIS_URL"]) as redis:
        return await _peak(redis)


async def _peak(redis: "Redis") -> int:
    return int((await redis.info("memory"))["used_memory_peak"])


def _random_ids(count: int) -> Iterator[str]:
    chance = random.Random(count)  # noqa: S311  # the same each time
    return (str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(count))


def _with_bad_lines(count: int) -> Iterator[str]:
    return ("no-id" if number % 100 == 0 else eval_id for number, eval_id in enumerate(_random_ids(count)))


def _write_csv(path: Path, eval_ids: "Iterator[str] | list[str]") -> None:
    with path.open("w") as file:
        file.write("customer,eval_id\n")
        file.writelines(f"{number},{eval_id}\n" for number, eval_id in enumerate(eval_ids))


def _percentile(figures: list[float], percent: int) -> float:
    return statistics.quantiles(figures, n=100)[percent - 1]


def _memory(used: CommandUsage) -> str:
    return f"command {used.memory / _MIB:.0f} MiB (120)"


def _check(used: CommandUsage) -> None:
    if used.code:
        sys.exit(f"the command ended with {used.code}: {used.out}")


def _print_result(what: str, measured: str, wanted: str, details: str) -> None:
    bound = f" (wanted {wanted})" if wanted else ""
    click.echo(f"{what}: {measured}{bound}; {details}")


PARTS: dict[str, Part] = {part.__name__: part for part in (queueing, archived, lines, webhook, rude, live)}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--scale", default=1.0, show_default=True, help="Part of the full size.")
def main(parts: tuple[str, ...], scale: float) -> None:
    """Run all parts, or only the PARTS."""
    for name in parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="docv-bench-") as folder:
            PARTS[name](Path(folder), scale)


if __name__ == "__main__":
    exit_on_sigterm()
    main()
