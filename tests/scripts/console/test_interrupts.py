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
def test_a_connection_that_a_signal_cancels_leaves_no_warning_of_asyncio(
    number: signal.Signals, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    async def work() -> None:
        await asyncio.gather(_open_connection(number, opened), asyncio.sleep(60))

    before = signal.getsignal(signal.SIGTERM)
    # Warnings about an exception that was never retrieved come when its task is collected.
    assert interruptible(lambda: asyncio.run(work()) or 0) == INTERRUPTED
    gc.collect()
    assert opened == ["closed"]
    assert caplog.records == []
    assert capsys.readouterr().err == "\nStopped. No evaluation is lost: run the same command to continue.\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_stops_a_command_whose_ctrl_c_is_ignored_too() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a background command
    try:
        assert interruptible(lambda: signal.raise_signal(signal.SIGTERM) or 0) == INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
