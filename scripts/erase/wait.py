"""Wait until every worker that has not noticed an erasure must have stopped writing."""

import asyncio
import time

import click

_STEP = 10.0


async def wait_for_workers(seconds: float) -> None:
    """Wait, and print the remaining time on standard error."""
    if not seconds:
        return
    click.echo(
        f"everything is removed; waiting {seconds:.0f} s, since a worker that lost its connection may still write "
        "until then (DOCV_LEASE_SECONDS and DOCV_PUT_SECONDS)",
        err=True,
    )
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if left < seconds - 1:
            click.echo(f"{left:.0f} s left", err=True)
        await asyncio.sleep(min(left, _STEP))
