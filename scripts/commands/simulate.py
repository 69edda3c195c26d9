"""Be a RiskOS, for rehearsals."""

from typing import Any

import click

from scripts.console.exit_codes import OK, UNREACHABLE
from scripts.console.options import with_parent_option
from scripts.console.parameter_types import RangeType
from scripts.local.parent import end_with_parent
from scripts.simulator.expected import demo_ids
from scripts.simulator.options import RateHeaderStyle, SimulatorOptions
from scripts.simulator.server import serve


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8400, show_default=True, help="0 takes a free one.")
@click.option(
    "--key",
    default=("simulated-key",),
    show_default=True,
    multiple=True,
    help="API key it accepts; each is an account.",
)
@click.option("--one-rate", is_flag=True, help="Let all keys share rate and quota.")
@click.option("--rate", type=click.IntRange(0), help="Requests a second it grants; 0 is a key not activated yet.")
@click.option("--quota", type=click.IntRange(0), help="Requests a day it grants.")
@click.option(
    "--header-style",
    type=click.Choice([style.value for style in RateHeaderStyle]),
    default="riskos",
    show_default=True,
    help="Headers that speak of the rate: RiskOS's own, other spellings, or none.",
)
@click.option(
    "--neighbour",
    type=RangeType(),
    help="Requests per second of another client with the key, such as 0-9: a new random rate every 30 s.",
)
@click.option("--latency-ms", type=click.FloatRange(0), default=0, show_default=True)
@click.option("--jitter-ms", type=click.FloatRange(0), default=0, show_default=True)
@click.option("--image-bytes", type=click.IntRange(1_000, 20_000_000), help="About the size of each JPEG.")
@click.option("--refuse-with", type=click.IntRange(400, 599), help="Answer every request with this status.")
@click.option("--ids", type=click.IntRange(1, 1_000_000), help="Print so many IDs of every sort, and end.")
@with_parent_option
def simulate(
    ids: int | None,
    key: tuple[str, ...],
    header_style: str,
    image_bytes: int | None,
    *,
    one_rate: bool,
    with_parent: bool,
    **others: Any,
) -> int:
    """Be a RiskOS, for rehearsals: every answer and fault, chosen by the evaluation's ID.

    `docv-archive simulate --ids 300 > ids.txt` prints IDs of every sort to rehearse with.
    """
    if ids is not None:
        click.echo("\n".join(demo_ids(ids)))
        return OK
    if with_parent:
        end_with_parent()
    others |= {} if image_bytes is None else {"image_bytes": image_bytes}
    options = SimulatorOptions(header_style=RateHeaderStyle(header_style), api_key=key[0], **others)
    try:
        serve(options, lambda url: click.echo(f"RiskOS is simulated at {url}"), key[1:], one_rate=one_rate)
    except OSError as error:
        click.echo(f"docv-archive: {options.host}:{options.port} cannot be listened on: {error.strerror}", err=True)
        return UNREACHABLE
    return OK
