"""Time, handed to the parts so that a test can own it."""

from __future__ import annotations

import time

# macOS counts sleep with this one, Linux has one of its own.
_COUNTS_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The machine's clocks."""

    def now(self) -> float:
        """Monotonic seconds: for intervals and pacing."""
        return time.monotonic()

    def awake(self) -> float:
        """Seconds that go on while the machine sleeps, where the system can tell."""
        return time.clock_gettime(_COUNTS_SLEEP)

    def wall(self) -> int:
        """Microseconds since the epoch, UTC: for what is recorded. It may jump."""
        return time.time_ns() // 1000
