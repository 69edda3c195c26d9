"""A clock that a test sets, for archives whose years pass in minutes."""

import datetime as dt
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

_TICK = dt.timedelta(milliseconds=1)


@dataclass
class SimulatedClock:
    """A clock that the test sets, and that advances by a millisecond whenever it is read.

    Attributes:
        now: its time.
    """

    now: dt.datetime = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)

    def set_day(self, day: dt.date, hour: int) -> None:
        self.now = max(self.now, dt.datetime.combine(day, dt.time(hour), dt.UTC))

    def read(self) -> dt.datetime:
        self.now += _TICK
        return self.now

    def seconds(self) -> float:
        return self.read().timestamp()

    def today(self) -> dt.date:
        return self.now.date()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let the product read this clock wherever it does not take one as an argument."""
        clock = self

        class Simulated(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
                return clock.read().astimezone(tz)

        stub = SimpleNamespace(time=self.seconds, monotonic=time.monotonic)
        patch.setattr("tasks.storage.manifest.time", stub)
        patch.setattr("scripts.erase.traces.time", stub)
        for module in ("tasks.storage.matter", "scripts.erase.receipt", "scripts.erase.locks"):
            patch.setattr(f"{module}.datetime", Simulated)
        patch.setattr(
            "scripts.retention.event_recorder.dt", SimpleNamespace(datetime=Simulated, UTC=dt.UTC, date=dt.date)
        )
