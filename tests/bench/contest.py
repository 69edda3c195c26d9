"""What an evaluation costs, ours and others' side by side: `make bench`.

All contestants are there all the time; they archive some hundred evaluations in turns, several times, so that what else
happens on the machine happens to each of them. What counts are the ratios of the medians.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tasks.model.job import Queue
from tests.bench import sample, table
from tests.bench.contestants import Contestant, Ours, ours, peer, prefork
from tests.bench.environment import BenchEnvironment, bench_environment
from tests.bench.table import Round, median
from tests.bench.usage import cpu_of, memory_of

FLOOR, BATCHES, SINGLY, PAIR, PREFORK = "floor", "batches", "singly", "pair", "prefork"
NAMES = (FLOOR, BATCHES, SINGLY, PAIR, PREFORK, "threads", "coroutines")
_SETTLED = 0.3


class Contest:
    """A contest in one environment.

    Args:
        bench: with the stand-ins.
        evaluations: of each contestant in each round.
    """

    def __init__(self, bench: BenchEnvironment, evaluations: int) -> None:
        self._bench, self._evaluations = bench, evaluations
        self._seed = 0
        self.rounds: dict[str, list[Round]] = {}

    def go(self, name: str, contestant: Contestant) -> None:
        """Have a contestant archive its evaluations; the first round is to get warm."""
        took = self._round(contestant)
        if name in self.rounds:
            self.rounds[name].append(took)
        else:
            self.rounds[name] = []

    def _round(self, contestant: Contestant) -> Round:
        self._seed += 1
        eval_ids = list(sample.eval_ids(self._evaluations, self._seed))
        leaders = [process.pid for process in contestant.processes]
        archived, requests = self._bench.archived(), self._requests()
        trips = contestant.round_trips() if isinstance(contestant, Ours) else 0
        cpu, began = sum(map(cpu_of, leaders)), time.monotonic()
        contestant.feed(eval_ids)
        self._bench.wait_until_archived(archived + len(eval_ids))
        seconds = time.monotonic() - began
        # What is written down after the manifest belongs to it.
        time.sleep(_SETTLED)
        return Round(
            cpu=(sum(map(cpu_of, leaders)) - cpu) / len(eval_ids) * 1000,
            rate=len(eval_ids) / seconds,
            memory=sum(map(memory_of, leaders)),
            redis=(contestant.round_trips() - trips) / len(eval_ids) if isinstance(contestant, Ours) else 0.0,
            requests=(self._requests() - requests - sum(map(sample.documents_of, eval_ids))) / len(eval_ids),
        )

    def _requests(self) -> int:
        return sum(self._bench.counts(self._bench.s3).values())


@contextlib.contextmanager
def _all(bench: BenchEnvironment, names: Sequence[str]) -> Iterator[dict[str, Contestant]]:
    """Have all contestants for as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Contestant] = {}
        for name in ("floor", "threads", "coroutines"):
            if name in names:
                found[name] = stack.enter_context(peer(bench, name))
        if PREFORK in names:
            found[PREFORK] = stack.enter_context(prefork(bench))
        if {BATCHES, SINGLY} & set(names):
            one = stack.enter_context(ours(bench))
            found |= {BATCHES: one[Queue.BACKFILL], SINGLY: one[Queue.LIVE]}
        if PAIR in names:
            found[PAIR] = stack.enter_context(ours(bench, 2))[Queue.BACKFILL]
        yield {name: found[name] for name in names}


def hold(folder: Path, names: Sequence[str], *, tls: bool, evaluations: int, rounds: int) -> dict[str, list[Round]]:
    """Hold a contest; return the rounds of each contestant."""
    with bench_environment(folder, tls=tls) as bench, _all(bench, names) as contestants:
        contest = Contest(bench, evaluations)
        for _ in range(rounds + 1):
            for name, contestant in contestants.items():
                contest.go(name, contestant)
        return contest.rounds


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Take part; all where none is named.")
@click.option("--tls", type=click.Choice(["no", "yes", "both"]), default="both", show_default=True)
@click.option("--evaluations", default=200, show_default=True, help="Of each contestant in each round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds that count.")
def main(only: tuple[str, ...], tls: str, evaluations: int, rounds: int) -> None:
    """Hold the contest, over HTTP and over TLS, and print what each took and the ratios."""
    for secured in [choice == "yes" for choice in (("no", "yes") if tls == "both" else (tls,))]:
        with tempfile.TemporaryDirectory(prefix="docv-bench-") as folder:
            names = [name for name in NAMES if name in (only or NAMES)]
            found = hold(Path(folder), names, tls=secured, evaluations=evaluations, rounds=rounds)
        table.show({name: median(each) for name, each in found.items()}, tls=secured)


if __name__ == "__main__":
    main()
