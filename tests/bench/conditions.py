"""Measure a worker under conditions such as latency and rate limits: `make bench-conditions`.

Each part prints what it measured, and the bound.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import click

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.model.job import Queue
from tests.bench import sample
from tests.bench.contestants import Ours, ours
from tests.bench.environment import BenchEnvironment, bench_environment
from tests.bench.processes import exit_on_sigterm
from tests.bench.sample import LARGE_ID, MB, SIZES
from tests.bench.simulated_riskos import SimulatedRiskos, Stats, simulated_riskos
from tests.bench.usage import measure_usage, memory_bytes, peak_bytes, reset_peak

_MIB = 1 << 20
_WARM = 200
_SLICE = 5_000
_SLOPE_OF = 20_000
_MIX_MB = 20_000
_RATE = 50
_ROUNDS = 3
_SHARED_RATE, _LATE = 10, 3
_LEAVE_DAILY, _DAY_ENDS_IN = 50, 30
_MANY = {"DOCV_CONCURRENCY": "128"}
Part = Callable[[Path, float], None]


@dataclass(frozen=True, slots=True)
class Moment:
    """One worker at one moment.

    Attributes:
        archived: evaluations so far.
        cpu: seconds of processor time so far.
        memory: bytes now.
        peak: bytes at most since the moment before.
    """

    archived: int
    cpu: float
    memory: int
    peak: int


def latency(folder: Path, scale: float) -> None:
    """Compare the speed of one process if RiskOS takes 300 ms and S3 40 ms with its speed without latency."""
    count = round(1_500 * scale)
    with contextlib.ExitStack() as stack:
        quick = _start_one(stack, folder / "quick")
        slow = _start_one(stack, folder / "slow", ["--latency", "0.3"], ["--latency", "0.04"])
        speeds = [(_speed(*quick, count, seed), _speed(*slow, count, seed)) for seed in range(_ROUNDS)]
    without, with_ = (statistics.median(some) for some in zip(*speeds, strict=True))
    click.echo(f"latency: {with_:.0f}/s, without {without:.0f}/s: {with_ / without:.2f} (>= 0.9, aim 0.97)")


def _start_one(
    stack: contextlib.ExitStack, folder: Path, of_riskos: Sequence[str] = (), of_s3: Sequence[str] = ()
) -> tuple[BenchEnvironment, Ours]:
    """Start one worker in its own environment."""
    folder.mkdir()
    bench = stack.enter_context(bench_environment(folder, tls=False, of_riskos=of_riskos, of_s3=of_s3))
    return bench, stack.enter_context(ours(bench, settings=_MANY))[Queue.BACKFILL]


def _speed(bench: BenchEnvironment, one: Ours, count: int, seed: int) -> float:
    """Return the evaluations per second, without the first and the last tenth."""
    before = bench.archived()
    one.feed(list(sample.eval_ids(count, seed)))
    bench.wait_until_archived(before + count // 10)
    began = time.monotonic()
    bench.wait_until_archived(before + count * 9 // 10)
    seconds = time.monotonic() - began
    bench.wait_until_archived(before + count)
    return count * 0.8 / seconds


def rate(folder: Path, scale: float) -> None:
    """Measure how much of a rate of 50/s two processes use if RiskOS answers after 200 ± 100 ms."""
    seconds = 60 * scale
    of_riskos = ["--latency", "0.2", "--jitter", "0.1", "--rate", str(_RATE)]
    settings = {"DOCV_RATE": str(_RATE), "DOCV_BACKFILL_SHARE": "1", "DOCV_LEAVE_RATE": "0"}
    with (
        bench_environment(folder, tls=False, of_riskos=of_riskos, of_s3=["--latency", "0.04"]) as bench,
        ours(bench, 2, settings) as found,
    ):
        found[Queue.BACKFILL].feed(list(sample.eval_ids(round(_RATE * (seconds + 15)), 1)))
        bench.wait_until_archived(_WARM)
        before, began = bench.counts(bench.riskos), time.monotonic()
        time.sleep(seconds)
        after, took = bench.counts(bench.riskos), time.monotonic() - began
    allowed, refused = (after.get(name, 0) - before.get(name, 0) for name in ("allowed", "refused"))
    click.echo(
        f"rate: {allowed / took / _RATE:.1%} of {_RATE}/s used (>= 96 %), "
        f"{refused / (allowed + refused):.2%} answered 429 (<= 0.1 %), "
        f"at most {after['worst_second']} requests in any second, the first ones included"
    )


def memory(folder: Path, scale: float) -> None:
    """Measure the peak memory of a worker with 64 in flight, and its growth over the last 20,000 of 40,000."""
    count = round(2 * _SLOPE_OF * scale)
    moments = list(_long_run(folder, sample.eval_ids(count, 1), count, ["--latency", "0.3"]))
    grown = _slope(moments) * _SLOPE_OF / _MIB
    peak = max(moment.peak for moment in moments) / _MIB
    click.echo(f"memory: {peak:.0f} MiB at most (<= 200), {grown:+.1f} MiB over {_SLOPE_OF:,} evaluations (<= 2)")


def mix(folder: Path, scale: float) -> None:
    """Print the peak memory of a worker with bundles of all sizes and one of 200 MB, and whether it stays level."""
    count = round(_MIX_MB * scale / statistics.mean(SIZES))
    others = sample.eval_ids(count, 1)
    # The large bundle is in the second quarter, so that the first and the last quarter can be compared.
    eval_ids = chain(islice(others, count * 3 // 8), [LARGE_ID], others)
    sizes = [f"--size={size}" for size in SIZES]
    peaks = [moment.peak / MB for moment in _long_run(folder, eval_ids, count, [*sizes, "--large"])]
    quarters = [max(peaks[start : start + 25]) for start in range(0, 100, 25)]
    click.echo(
        f"mix: {max(peaks):.0f} MB at most (<= 368, aim 250); in the quarters of {_MIX_MB * scale:,.0f} MB "
        f"{', '.join(f'{peak:.0f}' for peak in quarters)}: last / first {quarters[-1] / quarters[0]:.2f} (<= 1.05)"
    )


def steady(folder: Path, scale: float) -> None:
    """Compare the cost of an evaluation without documents after 1,000,000 with that in the beginning."""
    count = round(1_000_000 * scale)
    moments = list(_long_run(folder, sample.eval_ids(count, 1), count, ["--no-documents"]))
    tenth = len(moments) // 10
    first, last = _cost(moments[tenth : 3 * tenth + 1]), _cost(moments[-2 * tenth - 1 :])
    click.echo(
        f"steady: {last:.2f} ms of CPU at the end of {moments[-1].archived:,}, {first:.2f} ms in the beginning: "
        f"{last / first:.3f} (<= 1.05)"
    )


def _long_run(folder: Path, eval_ids: Iterator[str], count: int, of_riskos: Sequence[str]) -> Iterator[Moment]:
    """Let one worker archive many evaluations, fed in slices; yield a moment for each hundredth."""
    with bench_environment(folder, tls=False, of_riskos=of_riskos) as bench, ours(bench) as found:
        one = found[Queue.BACKFILL]
        fed = 0
        for hundredth in range(1, 101):
            goal = count * hundredth // 100
            while fed < goal:
                fed += _feed_some(one, eval_ids, bench, fed)
            bench.wait_until_archived(goal)
            yield _measure_moment(one, bench)


def _feed_some(one: Ours, rest: Iterator[str], bench: BenchEnvironment, fed: int) -> int:
    """Feed the next slice once most of the last one is archived; return its size."""
    bench.wait_until_archived(fed - _SLICE // 2)
    some = list(islice(rest, _SLICE))
    one.feed(some)
    return len(some)


def _measure_moment(one: Ours, bench: BenchEnvironment) -> Moment:
    leader = one.processes[0].pid
    cpu, memory, peak = measure_usage(leader).cpu_seconds, memory_bytes(leader), peak_bytes(leader)
    reset_peak(leader)
    return Moment(bench.archived(), cpu, memory, peak)


def _slope(moments: Sequence[Moment]) -> float:
    """Return by how many bytes memory grows per evaluation in the second half, after the warm-up."""
    later = moments[len(moments) // 2 :]
    return statistics.linear_regression([each.archived for each in later], [each.memory for each in later]).slope


def _cost(moments: Sequence[Moment]) -> float:
    first, last = moments[0], moments[-1]
    return (last.cpu - first.cpu) / (last.archived - first.archived) * 1000


def neighbour(folder: Path, scale: float) -> None:
    """Measure how a key is shared with a client that takes a new rate of 0 to 9 of 10 requests/s every 30 s."""
    of_riskos = ["--rate", str(_SHARED_RATE), "--neighbour", "0-9", "--latency-ms", "200", "--jitter-ms", "100"]
    settings = {"DOCV_RATE": str(_SHARED_RATE), "DOCV_BACKFILL_SHARE": "1", "DOCV_LEAVE_DAILY": str(_LEAVE_DAILY)}
    seconds = 600 * scale
    with (
        simulated_riskos(folder, *of_riskos) as riskos,
        bench_environment(folder, tls=False) as bench,
        ours(bench, 2, settings | {"DOCV_RISKOS_URL": riskos.url}) as found,
    ):
        count = round(_SHARED_RATE * (seconds + 2 * _DAY_ENDS_IN))
        found[Queue.BACKFILL].feed([eval_id_for(Scenario.DOCUMENTED, number) for number in range(count)])
        bench.wait_until_archived(_SHARED_RATE)
        before = riskos.stats()
        time.sleep(seconds)
        _show_sharing(before, riskos.stats())
        _show_end_of_day(riskos)


def _show_sharing(before: Stats, after: Stats) -> None:
    """Print the used share of what the other client leaves, and how many of its requests were refused."""
    left = _left_by(after) - _left_by(before)
    ours = after["granted"] - before["granted"]
    sent = after["neighbour"]["requests"] - before["neighbour"]["requests"]
    refused = after["neighbour"]["refused_after"][len(before["neighbour"]["refused_after"]) :]
    late = [seconds for seconds in refused if seconds > _LATE]
    click.echo(
        f"neighbour: {ours / left:.1%} of what it leaves is used (>= 85 %), {len(refused) / sent:.2%} of its requests "
        f"are answered 429 (<= 1 %), {len(late)} of them later than {_LATE} s after a change (0)"
    )


def _show_end_of_day(riskos: SimulatedRiskos) -> None:
    """Let the day of the quota end, and print how many of our requests came too late."""
    riskos.change(quota=_granted_by(riskos.stats()) + 2 * _LEAVE_DAILY)
    time.sleep(_DAY_ENDS_IN)
    refused = riskos.stats()["refused_by_quota"]
    click.echo(f"neighbour: {refused} of our requests came after the end of a day of which {_LEAVE_DAILY} are left (0)")


def _granted_by(stats: Stats) -> int:
    """Return how many requests of both clients were granted."""
    of_other = stats["neighbour"]
    granted: int = stats["granted"] + of_other["requests"] - len(of_other["refused_after"])
    return granted


def _left_by(stats: Stats) -> float:
    """Return the requests that the other client has left for us so far; it keeps one per second in reserve."""
    rates: list[tuple[int, float]] = stats["neighbour"]["rates"]
    return sum(max(0, _SHARED_RATE - 1 - rate) * seconds for rate, seconds in rates)


PARTS: dict[str, Part] = {part.__name__: part for part in (latency, rate, neighbour, memory, mix, steady)}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--scale", default=1.0, show_default=True, help="Part of the full length.")
def main(parts: tuple[str, ...], scale: float) -> None:
    """Run all parts, or only the PARTS."""
    for name in parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="docv-bench-") as folder:
            PARTS[name](Path(folder), scale)


if __name__ == "__main__":
    exit_on_sigterm()
    main()
