"""Be a RiskOS, for rehearsals."""

from collections.abc import Sequence
from typing import Any

import click

from scripts.console.exit_codes import UNREACHABLE
from scripts.local.parent import end_with_parent
from scripts.simulator.expected import demo_ids
from scripts.simulator.options import RateHeaderStyle, SimulatorOptions
from scripts.simulator.server import serve


def simulate(
    header_style: str, key: Sequence[str], image_bytes: int | None, *, one_rate: bool, with_parent: bool, **others: Any
) -> None:
    """Serve until a signal ends it."""
    if with_parent:
        end_with_parent()
    others |= {} if image_bytes is None else {"image_bytes": image_bytes}
    options = SimulatorOptions(header_style=RateHeaderStyle(header_style), api_key=key[0], **others)
    try:
        serve(options, lambda url: click.echo(f"RiskOS is simulated at {url}"), key[1:], one_rate=one_rate)
    except OSError as error:
        click.echo(f"docv-archive: {options.host}:{options.port} cannot be listened on: {error.strerror}", err=True)
        raise SystemExit(UNREACHABLE) from None


def print_ids(count: int) -> None:
    """Print IDs of evaluations of every sort, one a line."""
    click.echo("\n".join(demo_ids(count)))
