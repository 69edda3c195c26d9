"""Print the results of a contest: what each contestant used, and the ratios with their bounds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import click

_MB = 1_000_000
_HEAD = ("CPU ms", "/ floor", "/ prefork", "1/s", "MB peak", "faults/B", "disk/B", "Redis", "S3 +")


@dataclass(frozen=True, slots=True)
class Round:
    """The resources that one contestant used in one round, or the medians of its rounds.

    Attributes:
        cpu: milliseconds of processor time per evaluation.
        rate: evaluations per second.
        peak: megabytes of memory at most, since its processes were started.
        faults: bytes of the pages that were faulted in, per byte of a bundle.
        disk: bytes written to disk, per byte of a bundle.
        redis: round trips to Redis per evaluation; 0 for contestants without Redis.
        requests: requests to S3 per evaluation, besides one for each document.
    """

    cpu: float
    rate: float
    peak: float
    faults: float
    disk: float
    redis: float
    requests: float


def median(rounds: Sequence[Round]) -> Round:
    """Return the medians of some rounds."""
    return Round(*(statistics.median(getattr(each, field.name) for each in rounds) for field in fields(Round)))


@dataclass(frozen=True, slots=True)
class _Bound:
    """A figure of one contestant, or its ratio to that of another, and the bound and the aim for it."""

    figure: str
    of: str
    by: str | None
    sign: str
    bound: float
    aim: float

    def __str__(self) -> str:
        return f"{self.figure} of {self.of}{f' / {self.by}' if self.by else ''}"


_BOUNDS = (
    _Bound("cpu", "batches", "floor", "<=", 1.7, 1.4),
    _Bound("cpu", "singly", "floor", "<=", 2.2, 1.8),
    _Bound("cpu", "batches", "prefork", "<=", 0.5, 0.4),
    _Bound("rate", "pair", "prefork", ">=", 2.0, 3.0),
    _Bound("peak", "batches", None, "<=", 368, 250),
    _Bound("disk", "batches", None, "<=", 0.0, 0.0),
)
_GROWTH_BOUND, _GROWTH_AIM = 1.5, 1.25


def show(found: Mapping[str, Round], title: str) -> None:
    """Print the table of one contest."""
    click.echo(f"\n{title:16}" + "".join(f"{name:>10}" for name in _HEAD))
    for name, each in found.items():
        click.echo(
            f"{name:16}{each.cpu:10.2f}{_ratio_of_cpu(found, name, 'floor')}{_ratio_of_cpu(found, name, 'prefork')}"
            f"{each.rate:10.1f}{each.peak:10.0f}{each.faults:10.2f}{each.disk:10.2f}{each.redis:10.2f}{each.requests:10.2f}"
        )
    for bound in _BOUNDS:
        if bound.of in found and (bound.by or bound.of) in found:
            value = getattr(found[bound.of], bound.figure)
            value /= getattr(found[bound.by], bound.figure) if bound.by else 1
            click.echo(f"{bound}: {value:.2f} ({bound.sign} {bound.bound}, aim {bound.aim})")


def show_growth(smallest: Mapping[str, Round], largest: Mapping[str, Round], title: str) -> None:
    """Print how much the cost grows with the size of bundles, as a multiple of the floor's growth."""
    if "floor" not in smallest:
        return
    of_floor = largest["floor"].cpu - smallest["floor"].cpu
    click.echo(f"\n{title}: growth of CPU / the floor's (batches <= {_GROWTH_BOUND}, aim {_GROWTH_AIM})")
    for name in smallest:
        click.echo(f"{name:16}{(largest[name].cpu - smallest[name].cpu) / of_floor:10.2f}")


def _ratio_of_cpu(found: Mapping[str, Round], name: str, by: str) -> str:
    return f"{found[name].cpu / found[by].cpu:10.2f}" if by in found else " " * 10
