"""Figures of a contest as a person reads them: what each took, and the ratios beside what they are to be."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Round:
    """What one contestant took for one round.

    Attributes:
        cpu: milliseconds of processor time an evaluation.
        rate: evaluations a second.
        memory: bytes afterwards.
        redis: round trips to Redis an evaluation, 0 for whoever has none.
        requests: requests to S3 an evaluation, beside one for each document.
    """

    cpu: float
    rate: float
    memory: int
    redis: float
    requests: float


def median(rounds: Sequence[Round]) -> Round:
    """Return the medians of some rounds."""
    return Round(
        cpu=statistics.median(each.cpu for each in rounds),
        rate=statistics.median(each.rate for each in rounds),
        memory=max(each.memory for each in rounds),
        redis=statistics.median(each.redis for each in rounds),
        requests=statistics.median(each.requests for each in rounds),
    )


# Of what, by what, of which figure; at most or at least; and what we aim at.
_RATIOS = (
    ("batches", "floor", "cpu", "<=", 1.7, 1.4),
    ("singly", "floor", "cpu", "<=", 2.2, 1.8),
    ("batches", "prefork", "cpu", "<=", 0.33, 0.25),
    ("pair", "prefork", "rate", ">=", 2.0, 3.0),
)
_COUNTS = (("batches", "redis", 2.0, 1.2), ("singly", "redis", 6.0, 4.0), ("batches", "requests", 2.0, 2.0))


def show(found: Mapping[str, Round], *, tls: bool) -> None:
    """Print the table of one contest."""
    click.echo(
        f"\n{'over TLS' if tls else 'over HTTP':12} {'CPU ms':>8} {'1/s':>7} {'MiB':>6} {'Redis':>6} {'S3 +':>6}"
    )
    for name, each in found.items():
        memory = each.memory / _MIB
        click.echo(f"{name:12} {each.cpu:8.2f} {each.rate:7.1f} {memory:6.0f} {each.redis:6.2f} {each.requests:6.2f}")
    for of, by, figure, sign, bound, aim in _RATIOS:
        if of in found and by in found:
            ratio = getattr(found[of], figure) / getattr(found[by], figure)
            click.echo(f"{figure} of {of} / {by}: {ratio:.2f} ({sign} {bound}, aim {aim})")
    for of, figure, bound, aim in _COUNTS:
        if of in found:
            click.echo(f"{figure} of {of}: {getattr(found[of], figure):.2f} (<= {bound}, aim {aim})")
