import asyncio
import re
import sys
from dataclasses import dataclass

import pytest

from worker.watchdog import EXIT_STALLED, Watchdog

STUCK, STALLED_AFTER = 30.0, 60.0


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A worker process under a watchdog, second by second."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.left: list[str] = []
        self.watchdog = Watchdog(self.left.append, stuck_seconds=STUCK, stalled_seconds=STALLED_AFTER, clock=self.clock)

    def lives(self, seconds: int, *, ticks: bool = True, waiting: bool | None = False) -> str | None:
        """Live for so long, and look each second; return what the first look that was alarmed said.

        Args:
            seconds: how long.
            ticks: whether the loop moves.
            waiting: whether messages wait; None while Redis does not answer.
        """
        for _ in range(seconds):
            self.clock.now += 1
            if ticks:
                self.watchdog.tick()
            if ticks and waiting is not None:
                self.watchdog.queue_observed(waiting=waiting)
            if why := self.watchdog.problem():
                return why
        return None

    def freezes(self, seconds: float) -> None:
        """Nothing in the process moves, not even the watchdog."""
        self.clock.now += seconds


@pytest.fixture
def process() -> Process:
    return Process()


def test_a_process_with_nothing_to_do_is_alive(process: Process) -> None:
    assert process.lives(3_600) is None


# The loop


def test_a_loop_that_does_not_move_is_deaf(process: Process) -> None:
    process.lives(5)
    assert process.lives(30, ticks=False) is None
    assert process.lives(1, ticks=False) == "its event loop has not moved for 31 s"


def test_a_loop_that_never_moved_is_deaf_as_well(process: Process) -> None:
    assert process.lives(30, ticks=False) is None
    assert process.lives(1, ticks=False)


def test_a_loop_that_moves_now_and_then_is_not(process: Process) -> None:
    for _ in range(10):
        assert process.lives(29, ticks=False) is None
        assert process.lives(1) is None


# Messages


def test_messages_that_wait_and_are_not_taken_mean_that_the_process_is_deaf(process: Process) -> None:
    process.lives(5)
    assert process.lives(61, waiting=True) is None
    why = process.lives(1, waiting=True)
    assert why
    assert "messages have been waiting for 61 s" in why


def test_who_takes_a_message_is_not_deaf(process: Process) -> None:
    for _ in range(10):
        assert process.lives(50, waiting=True) is None
        process.watchdog.message_handled()


def test_after_a_message_was_taken_the_time_begins_anew(process: Process) -> None:
    process.lives(50, waiting=True)
    process.watchdog.message_handled()
    assert process.lives(61, waiting=True) is None
    assert process.lives(1, waiting=True)


def test_who_has_no_room_or_no_messages_once_begins_anew(process: Process) -> None:
    assert process.lives(50, waiting=True) is None
    assert process.lives(1, waiting=False) is None
    assert process.lives(50, waiting=True) is None


def test_a_redis_that_does_not_answer_makes_nobody_deaf(process: Process) -> None:
    process.lives(50, waiting=True)
    assert process.lives(3_600, waiting=None) is None
    assert process.lives(50, waiting=True) is None, "what was before says nothing any more"


def test_a_redis_that_is_slow_to_answer_hides_no_deafness(process: Process) -> None:
    for _ in range(12):
        assert process.lives(4, waiting=None) is None
        assert process.lives(1, waiting=True) is None
    process.lives(4, waiting=None)
    assert process.lives(5, waiting=True)


# A process that was frozen


@pytest.mark.parametrize("frozen", [31.0, 61.0, 86_400.0])
@pytest.mark.parametrize("waiting", [False, True])
def test_a_process_that_was_frozen_is_not_deaf_when_it_goes_on(
    process: Process, frozen: float, *, waiting: bool
) -> None:
    process.lives(20, waiting=waiting)
    process.freezes(frozen)
    assert process.watchdog.problem() is None, "its watchdog may be the first to move"
    assert process.lives(50, waiting=waiting) is None


def test_a_loop_that_is_stuck_when_the_process_goes_on_is_found_out(process: Process) -> None:
    process.freezes(86_400)
    assert process.lives(30, ticks=False) is None
    assert process.lives(2, ticks=False)


# The thread


def test_it_leaves_once_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.watchdog._LOOK_SECONDS", 0.0)
    process = Process()
    process.lives(5)
    process.clock.now += 9
    process.watchdog._ticked -= STUCK
    process.watchdog._watch()  # returns: who has left does not look again
    assert process.left == ["its event loop has not moved for 39 s"]


def test_who_is_about_to_end_is_not_watched_any_more() -> None:
    process = Process()
    process.watchdog._ticked -= STUCK * 2
    process.watchdog.stop()
    process.watchdog._watch()
    assert process.left == []


_STALLED_PROCESS = """
import threading
from worker.watchdog import Watchdog

def a_function_in_which_something_hangs():
    threading.Event().wait()

Watchdog(stuck_seconds=0.3).start()
a_function_in_which_something_hangs()
"""


async def test_a_deaf_process_ends_and_tells_where_each_of_its_threads_is() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STALLED_PROCESS), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    said = err.decode()
    assert process.returncode == EXIT_STALLED == 70
    assert out == b""
    assert said.startswith("docv-archive: the worker leaves: its event loop has not moved for ")
    assert "a_function_in_which_something_hangs" in said
    assert len(re.findall(r"\bthread 0x", said, re.IGNORECASE)) == 2, "the main thread and the watchdog"
