"""Holds: from which length of the log on the write barrier may be taken, and what the holds so far were."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

# A writer whose attempt began before the end was reached may go on with the same log all the same, one time in
# a hundred: it holds a read mark that nobody sees in time. The next hold comes soon then, and is short; where
# there is another reason, ever more rarely.
AGAIN_BYTES = 4 << 20


class Holds:
    def __init__(self, high_bytes: int) -> None:
        self._high_bytes = high_bytes
        self.count = 0
        self.longest_ms = 0.0
        self.restart()

    def restart(self) -> None:
        """The log begins anew."""
        self.from_bytes = self._high_bytes
        self._again_bytes = AGAIN_BYTES

    def ended(self, log_bytes: int, held_ms: float, *, reached: bool) -> None:
        """One is over, in a log of *log_bytes*; *reached*: all of it is in the main file.

        If not, somebody reads what lies before the end, and may do so for long: nothing helps but waiting.
        """
        gap = self._high_bytes
        if reached:
            gap, self._again_bytes = self._again_bytes, min(2 * self._again_bytes, self._high_bytes)
        self.from_bytes = log_bytes + gap
        self.count += 1
        self.longest_ms = max(self.longest_ms, held_ms)
        log.info("barrier.held", extra={"duration_ms": round(held_ms, 1), "bytes_in": log_bytes})
