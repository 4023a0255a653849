"""Time, handed to the parts so that a test can own it."""

from __future__ import annotations

import time


class Clock:
    """The machine's clocks."""

    def now(self) -> float:
        """Monotonic seconds: for intervals and pacing."""
        return time.monotonic()

    def wall(self) -> int:
        """Microseconds since the epoch, UTC: for what is recorded. It may jump."""
        return time.time_ns() // 1000
