import asyncio
import re
import sys
from dataclasses import dataclass

import pytest

from worker.watchdog import EXIT_STALLED, Watchdog

STUCK, STALLED_AFTER = 30.0, 60.0


@dataclass
class Clock:
    """A clock that a test advances."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A worker process with a watchdog, which a test advances second by second."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.exit_reasons: list[str] = []
        self.watchdog = Watchdog(
            self.exit_reasons.append, stuck_seconds=STUCK, stalled_seconds=STALLED_AFTER, clock=self.clock
        )

    def run(self, seconds: int, *, ticks: bool = True, waiting: bool | None = False) -> str | None:
        """Run for some seconds with a check in each; return the problem of the first check that finds one.

        Args:
            seconds: number of seconds.
            ticks: whether the loop ticks.
            waiting: whether messages wait; None while Redis does not answer.
        """
        for _ in range(seconds):
            self.clock.now += 1
            if ticks:
                self.watchdog.tick()
            if ticks and waiting is not None:
                self.watchdog.observe_queue(waiting=waiting)
            if why := self.watchdog.problem():
                return why
        return None

    def freeze(self, seconds: float) -> None:
        """Freeze the whole process, the watchdog included."""
        self.clock.now += seconds


@pytest.fixture
def process() -> Process:
    return Process()


def test_a_process_with_nothing_to_do_is_alive(process: Process) -> None:
    assert process.run(3_600) is None


# The loop


def test_a_loop_that_stops_ticking_has_stalled(process: Process) -> None:
    process.run(5)
    assert process.run(30, ticks=False) is None
    assert process.run(1, ticks=False) == "its event loop has not moved for 31 s"


def test_a_loop_that_never_ticked_has_stalled(process: Process) -> None:
    assert process.run(30, ticks=False) is None
    assert process.run(1, ticks=False)


def test_a_loop_that_ticks_occasionally_has_not_stalled(process: Process) -> None:
    for _ in range(10):
        assert process.run(29, ticks=False) is None
        assert process.run(1) is None


def test_a_loop_whose_next_round_is_late_has_stalled(process: Process) -> None:
    process.watchdog.expect_round("feed", 55)
    process.watchdog.expect_round("leases", 3_600)
    assert process.run(55) is None
    assert process.run(1) == "its loop feed has ended or hangs"


def test_a_loop_that_does_its_rounds_has_not_stalled(process: Process) -> None:
    for _ in range(10):
        process.watchdog.expect_round("feed", 55)
        assert process.run(50) is None


def test_a_freeze_does_not_count_towards_the_time_of_a_round(process: Process) -> None:
    process.watchdog.expect_round("feed", 55)
    process.run(20)
    process.freeze(86_400)
    assert process.run(30) is None
    assert process.run(10) == "its loop feed has ended or hangs"


# Messages


def test_a_process_that_takes_no_waiting_messages_has_stalled(process: Process) -> None:
    process.run(5)
    assert process.run(61, waiting=True) is None
    why = process.run(1, waiting=True)
    assert why
    assert "messages have been waiting for 61 s" in why


def test_a_process_that_takes_messages_has_not_stalled(process: Process) -> None:
    for _ in range(10):
        assert process.run(50, waiting=True) is None
        process.watchdog.record_message()


def test_the_time_limit_restarts_when_a_message_is_taken(process: Process) -> None:
    process.run(50, waiting=True)
    process.watchdog.record_message()
    assert process.run(61, waiting=True) is None
    assert process.run(1, waiting=True)


def test_the_time_limit_restarts_when_no_messages_wait(process: Process) -> None:
    assert process.run(50, waiting=True) is None
    assert process.run(1, waiting=False) is None
    assert process.run(50, waiting=True) is None


def test_a_redis_that_does_not_answer_is_not_a_stall(process: Process) -> None:
    process.run(50, waiting=True)
    assert process.run(3_600, waiting=None) is None
    assert process.run(50, waiting=True) is None, "the wait before the outage no longer counts"


def test_a_slow_redis_does_not_hide_a_stall(process: Process) -> None:
    for _ in range(12):
        assert process.run(4, waiting=None) is None
        assert process.run(1, waiting=True) is None
    process.run(4, waiting=None)
    assert process.run(5, waiting=True)


# A process that was frozen


@pytest.mark.parametrize("frozen", [31.0, 61.0, 86_400.0])
@pytest.mark.parametrize("waiting", [False, True])
def test_a_process_that_was_frozen_has_not_stalled_when_it_continues(
    process: Process, frozen: float, *, waiting: bool
) -> None:
    process.run(20, waiting=waiting)
    process.freeze(frozen)
    assert process.watchdog.problem() is None, "the watchdog may run before the loop"
    assert process.run(50, waiting=waiting) is None


def test_a_loop_that_is_stuck_after_a_freeze_has_stalled(process: Process) -> None:
    process.freeze(86_400)
    assert process.run(30, ticks=False) is None
    assert process.run(2, ticks=False)


# The thread


def test_the_watchdog_exits_once_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.watchdog._CHECK_SECONDS", 0.0)
    process = Process()
    process.run(5)
    process.clock.now += 9
    process.watchdog._ticked -= STUCK
    process.watchdog._watch()  # returns, because the watchdog ends after it has exited
    assert process.exit_reasons == ["its event loop has not moved for 39 s"]


def test_a_stopped_watchdog_does_not_exit() -> None:
    process = Process()
    process.watchdog._ticked -= STUCK * 2
    process.watchdog.stop()
    process.watchdog._watch()
    assert process.exit_reasons == []


_STALLED_PROCESS = """
import threading
from worker.watchdog import Watchdog

def function_that_hangs():
    threading.Event().wait()

Watchdog(stuck_seconds=0.3).start()
function_that_hangs()
"""


async def test_a_stalled_process_exits_with_the_traceback_of_each_thread() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STALLED_PROCESS), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    output = err.decode()
    assert process.returncode == EXIT_STALLED == 70
    assert out == b""
    assert output.startswith("docv-archive: the worker exits: its event loop has not moved for ")
    assert "function_that_hangs" in output
    assert len(re.findall(r"\bthread 0x", output, re.IGNORECASE)) == 2, "the main thread and the watchdog"
