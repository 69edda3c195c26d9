"""Simulate RiskOS for rehearsals."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import click

from scripts.console.exit_codes import NOT_ALL, OK, UNREACHABLE
from scripts.console.options import with_parent_option
from scripts.console.parameter_types import RangeType
from scripts.console.program_name import path_command
from scripts.local.parent import end_with_parent
from scripts.simulator.expected import demo_ids
from scripts.simulator.options import RateHeaderStyle, SimulatorOptions
from scripts.simulator.rehearsal import rehearsal_commands, rehearsal_settings
from scripts.simulator.server import serve
from scripts.simulator.webhook import deliver_events
from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id

_OK_STATUS = 200


@click.command()
@click.argument("eval_ids", metavar="[ID...]", nargs=-1)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8400,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--key",
    default=("simulated-key",),
    show_default=True,
    multiple=True,
    help="API key to accept; each key is an account.",
)
@click.option("--one-rate", is_flag=True, help="Let all keys share the rate and the quota.")
@click.option(
    "--rate",
    type=click.IntRange(0),
    help="Requests per second to grant; 0 simulates a key that is not activated yet.",
)
@click.option("--quota", type=click.IntRange(0), help="Requests per day to grant.")
@click.option(
    "--header-style",
    type=click.Choice([style.value for style in RateHeaderStyle]),
    default="riskos",
    show_default=True,
    help="Rate-limit headers to send: RiskOS's own, other spellings, or none.",
)
@click.option(
    "--neighbour",
    type=RangeType(),
    help="Requests per second of a second client with the same key, such as 0-9: a new random rate every 30 s.",
)
@click.option("--latency-ms", type=click.FloatRange(0), default=0, show_default=True, help="Delay of each answer.")
@click.option(
    "--jitter-ms",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    help="Variation of the delay, in both directions.",
)
@click.option("--image-bytes", type=click.IntRange(1_000, 20_000_000), help="Approximate size of each JPEG.")
@click.option("--refuse-with", type=click.IntRange(400, 599), help="Answer every request with this status.")
@click.option("--ids", type=click.IntRange(1, 1_000_000), help="Print N IDs that cover every scenario, and exit.")
@click.option("--webhook", metavar="URL", help="Deliver an event to this URL for each ID, and exit.")
@click.option("--event-type", default="evaluation_completed", show_default=True, help="Type of the events.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the webhook's secret; the default is the first of DOCV_WEBHOOK_SECRETS.",
)
@with_parent_option
def simulate(
    eval_ids: tuple[str, ...],
    ids: int | None,
    key: tuple[str, ...],
    header_style: str,
    image_bytes: int | None,
    *,
    webhook: str | None,
    with_parent: bool,
    **others: Any,
) -> int:
    """Simulate RiskOS for rehearsals; the evaluation ID selects the answer or fault.

    Prints the commands for a rehearsal. `docv-archive simulate --ids 300 > ids.txt` writes IDs of every scenario.
    """
    event_type, secret_file, one_rate = (others.pop(name) for name in ("event_type", "secret_file", "one_rate"))
    if webhook is not None:
        return _deliver(webhook, eval_ids or demo_ids(ids or 1), event_type, secret_file)
    if eval_ids:
        raise click.UsageError("IDs are only used with --webhook URL")
    if ids is not None:
        click.echo("\n".join(demo_ids(ids)))
        return OK
    if with_parent:
        end_with_parent()
    others |= {} if image_bytes is None else {"image_bytes": image_bytes}
    options = SimulatorOptions(header_style=RateHeaderStyle(header_style), api_key=key[0], **others)

    def announce(url: str) -> None:
        click.echo(f"RiskOS is simulated at {url}")
        if not with_parent:
            commands = rehearsal_commands(rehearsal_settings(url, key[0], options.rate))
            steps = f"{path_command(sys.argv[0])}{commands}"
            click.echo(f"\nTo rehearse, run this in another terminal, in a folder without your .env:\n\n{steps}\n")

    try:
        serve(options, announce, key[1:], one_rate=one_rate)
    except OSError as error:
        click.echo(f"docv-archive: cannot listen on {options.host}:{options.port}: {error.strerror}", err=True)
        return UNREACHABLE
    return OK


def _deliver(url: str, eval_ids: Sequence[str], event_type: str, secret_file: Path | None) -> int:
    secret = _read_secret(secret_file)
    try:
        chosen = [parse_eval_id(eval_id) for eval_id in eval_ids]
    except BadEvalId as error:
        raise click.UsageError(str(error)) from None
    try:
        return asyncio.run(_print_answers(url, secret, event_type, chosen))
    except aiohttp.InvalidURL:
        raise click.UsageError("--webhook: expected a URL such as http://127.0.0.1:8080/webhooks/riskos") from None
    except (aiohttp.ClientError, TimeoutError) as error:
        click.echo(f"docv-archive: the webhook did not answer: {type(error).__name__}", err=True)
        return UNREACHABLE


async def _print_answers(url: str, secret: str, event_type: str, eval_ids: Sequence[str]) -> int:
    code = OK
    async for event in deliver_events(url, secret, event_type, eval_ids):
        click.echo(f"{event.eval_id}  {event.status}  {event.answer}")
        code = code if event.status == _OK_STATUS else NOT_ALL
    return code


def _read_secret(file: Path | None) -> str:
    if file is not None:
        return file.read_text("utf-8").strip()
    from worker.config.settings import load_settings  # noqa: PLC0415  # loads pydantic, which a simulator does not need

    secrets = load_settings().webhook_secrets
    if not secrets:
        raise click.UsageError("the webhook needs a secret: give --secret-file, or set DOCV_WEBHOOK_SECRETS")
    return secrets[0].get_secret_value()
