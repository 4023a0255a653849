"""The write barrier: the last resort against a log that outgrows its bound, and what the holds so far were."""

from __future__ import annotations

import logging
from collections.abc import Callable

from replicator.clock import Clock
from replicator.core.cursor import Observation
from replicator.core.wal import FRAME_HEADER_SIZE
from replicator.source.database import Database

log = logging.getLogger(__name__)

# Writers at full speed leave gaps of microseconds; this long is looked for one before giving up.
BARRIER_PATIENCE_SECONDS = 0.05
# The tail is captured until it is this short, but not for ever: a writer may be as fast as we are.
BARRIER_TAIL_FRAMES = 100
BARRIER_APPROACHES = 3

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

    def take(
        self,
        database: Database,
        clock: Clock,
        look: Callable[[], Observation],
        fresh: Callable[[Observation], int],
        hand_over: Callable[[], Observation],
    ) -> None:
        """Keep writers out for as long as it takes to reach the end of the log. *fresh*: frames of a look that
        are not captured yet."""
        for _ in range(BARRIER_APPROACHES):
            left = fresh(look())
            hand_over()
            if left <= BARRIER_TAIL_FRAMES:
                break
        with database.barrier(BARRIER_PATIENCE_SECONDS) as taken:
            if not taken:
                log.debug("barrier.missed")
                return
            began = clock.now()
            hand_over()
            database.passive_under_barrier(BARRIER_PATIENCE_SECONDS)
            seen = look()
            if reached := seen.fully_backfilled:
                seen = hand_over()
        log_bytes = seen.frames * (database.page_size + FRAME_HEADER_SIZE)
        self.ended(log_bytes, (clock.now() - began) * 1000, reached=reached)

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
