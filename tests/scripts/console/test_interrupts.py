"""Ctrl-C and SIGTERM end a command cleanly, and only its last sentence is printed."""

import asyncio
import gc
import os
import signal

import pytest

from scripts.console.exit_codes import INTERRUPTED
from scripts.console.interrupts import interruptible


async def _open_connection(number: signal.Signals, opened: list[str]) -> None:
    try:
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        opened.append("closed")
        raise


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_connection_cancelled_by_a_signal_leaves_no_asyncio_warning(
    number: signal.Signals, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    async def work() -> None:
        await asyncio.gather(_open_connection(number, opened), asyncio.sleep(60))

    before = signal.getsignal(signal.SIGTERM)
    assert interruptible(lambda: asyncio.run(work()) or 0) == INTERRUPTED
    # asyncio logs an exception that was never retrieved when its task is garbage-collected.
    gc.collect()
    assert opened == ["closed"]
    assert caplog.records == []
    assert capsys.readouterr().err == "\nStopped. No evaluation is lost: run the same command to continue.\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_stops_a_command_that_ignores_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells do for background commands
    try:
        assert interruptible(lambda: signal.raise_signal(signal.SIGTERM) or 0) == INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
