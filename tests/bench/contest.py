"""Compare the cost of an evaluation in docv-archive and in other programs, by size of bundles: `make bench`.

All contestants of a size run at the same time and take turns. So other work on the machine affects each of them, and
the ratios of the medians hold even if the absolute figures do not.
"""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from tasks.model.job import Queue
from tests.bench import sample, table
from tests.bench.contestants import Contestant, Ours, ours, peer, prefork
from tests.bench.environment import BenchEnvironment, bench_environment
from tests.bench.processes import exit_on_sigterm
from tests.bench.sample import MB, SIZES
from tests.bench.table import Round, median
from tests.bench.usage import PAGE_BYTES, Usage, counts_writes, measure_usage, peak_bytes

FLOOR, BARE, BATCHES, SINGLY, PAIR, PREFORK = "floor", "bare", "batches", "singly", "pair", "prefork"
NAMES = (FLOOR, BARE, BATCHES, SINGLY, PAIR, PREFORK, "threads", "coroutines")
_PIPED = (FLOOR, BARE, "threads", "coroutines")
# A manifest is written before the worker settles the evaluation in Redis; that belongs to the round as well.
_SETTLE_SECONDS = 0.3
# The bytes of a round are bounded, but a worker works on up to 64 evaluations at a time: with fewer, the peak of memory
# would be too low.
_ROUND_MB, _FEWEST = 150, 64


class Contest:
    """A contest in one environment.

    Args:
        bench: with the stand-ins.
        megabytes: size of a bundle.
        evaluations: of each contestant in each round.
    """

    def __init__(self, bench: BenchEnvironment, megabytes: float, evaluations: int) -> None:
        self._bench, self._megabytes, self._evaluations = bench, megabytes, evaluations
        self._seed = 0
        self.rounds: dict[str, list[Round]] = {}

    def run_round(self, name: str, contestant: Contestant) -> None:
        """Let a contestant archive its evaluations; its first round is a warm-up and does not count."""
        result = self._measure_round(contestant)
        if name in self.rounds:
            self.rounds[name].append(result)
        else:
            self.rounds[name] = []

    def _measure_round(self, contestant: Contestant) -> Round:
        self._seed += 1
        count, leaders = self._evaluations, [process.pid for process in contestant.processes]
        archived, requests = self._bench.archived(), self._count_requests()
        trips, before = _count_round_trips(contestant), _measure_all(leaders)
        began = time.monotonic()
        contestant.feed(list(sample.eval_ids(count, self._seed)))
        self._bench.wait_until_archived(archived + count)
        seconds = time.monotonic() - began
        time.sleep(_SETTLE_SECONDS)
        used, total_bytes = _measure_all(leaders) - before, count * self._megabytes * MB
        return Round(
            cpu=used.cpu_seconds / count * 1000,
            rate=count / seconds,
            peak=sum(map(peak_bytes, leaders)) / MB,
            faults=used.page_faults * PAGE_BYTES / total_bytes,
            disk=used.disk_bytes / total_bytes,
            redis=(_count_round_trips(contestant) - trips) / count,
            requests=(self._count_requests() - requests) / count - sample.DOCUMENTS,
        )

    def _count_requests(self) -> int:
        return sum(self._bench.counts(self._bench.s3).values())


def _measure_all(leaders: Sequence[int]) -> Usage:
    return sum(map(measure_usage, leaders), Usage())


def _count_round_trips(contestant: Contestant) -> int:
    return contestant.count_round_trips() if isinstance(contestant, Ours) else 0


@contextlib.contextmanager
def _started(bench: BenchEnvironment, names: Sequence[str], batch: int) -> Iterator[dict[str, Contestant]]:
    """Run all contestants until the block ends."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Contestant] = {}
        for name in _PIPED:
            if name in names:
                found[name] = stack.enter_context(peer(bench, name))
        if PREFORK in names:
            found[PREFORK] = stack.enter_context(prefork(bench))
        if {BATCHES, SINGLY} & set(names):
            one = stack.enter_context(ours(bench, batch=batch))
            found |= {BATCHES: one[Queue.BACKFILL], SINGLY: one[Queue.LIVE]}
        if PAIR in names:
            found[PAIR] = stack.enter_context(ours(bench, 2, batch=batch))[Queue.BACKFILL]
        yield {name: found[name] for name in names}


def hold(
    folder: Path, names: Sequence[str], megabytes: float, *, tls: bool, evaluations: int, rounds: int
) -> dict[str, Round]:
    """Hold a contest; return the medians of each contestant."""
    # Two messages in each round: each worker of a pair gets one.
    batch = min(100, max(1, evaluations // 2))
    of_riskos = ["--size", str(megabytes)]
    with (
        bench_environment(folder, tls=tls, of_riskos=of_riskos) as bench,
        _started(bench, names, batch) as contestants,
    ):
        contest = Contest(bench, megabytes, evaluations)
        for _ in range(rounds + 1):
            for name, contestant in contestants.items():
                contest.run_round(name, contestant)
        return {name: median(each) for name, each in contest.rounds.items()}


def count_evaluations(megabytes: float) -> int:
    """Return the evaluations of a round with bundles of a size."""
    return max(_FEWEST, round(_ROUND_MB / megabytes))


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Contestants; all by default.")
@click.option("--tls", type=click.Choice(["no", "yes", "both"]), default="both", show_default=True)
@click.option("--size", "sizes", multiple=True, type=float, default=SIZES, show_default=True, help="MB of a bundle.")
@click.option("--evaluations", type=int, help="Of each contestant in each round; by default as the size needs.")
@click.option("--rounds", default=5, show_default=True, help="Rounds that count.")
def main(only: tuple[str, ...], tls: str, sizes: tuple[float, ...], evaluations: int | None, rounds: int) -> None:
    """Hold the contests over HTTP and over TLS, and print what each contestant used and the ratios."""
    names = [name for name in NAMES if name in (only or NAMES)]
    results: dict[tuple[str, float], Mapping[str, Round]] = {}
    protocols = {"no": ("HTTP",), "yes": ("TLS",), "both": ("HTTP", "TLS")}[tls]
    for protocol, size in itertools.product(protocols, sizes):
        with tempfile.TemporaryDirectory(prefix="docv-bench-") as name:
            folder, count = Path(name), evaluations or count_evaluations(size)
            if not counts_writes(folder):
                raise click.ClickException(f"{folder} is in memory: set TMPDIR to a folder on a disk")
            found = hold(folder, names, size, tls=protocol == "TLS", evaluations=count, rounds=rounds)
        results[protocol, size] = found
        table.show(found, f"{size:g} MB, {protocol}")
    for protocol in protocols if len(sizes) > 1 else ():
        table.show_growth(results[protocol, min(sizes)], results[protocol, max(sizes)], protocol)


if __name__ == "__main__":
    exit_on_sigterm()
    main()
