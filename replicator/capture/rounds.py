"""Rounds of capture: follow an open database and turn its commits into durable units in the spool.

Invariants kept here:
- while following, a read transaction or the write barrier is held at every moment;
- the transaction held began no later than what is captured, so nobody's checkpoint passes captured, and the
  version of every page at the last captured commit stays readable (source/pages.py);
- the older read transaction ends only after everything up to the newer one's beginning is durable.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from replicator.capture.barrier import Holds
from replicator.capture.units import ContinuityLost, MainChanged, Sightings, UnitWriter
from replicator.clock import Clock
from replicator.core.changed_pages import ChangedPages
from replicator.core.checkpoint_policy import Action, CheckpointLimits, LogState, decide
from replicator.core.cursor import EMPTY, Continue, Lost, Observation, Restarted, judge
from replicator.core.following import Overload, Pace
from replicator.core.unit_build import Lineage, Tip
from replicator.core.wal import FRAME_HEADER_SIZE
from replicator.marks import Marks
from replicator.moment import Moment
from replicator.source.database import Database, HeldMark
from replicator.source.pages import CapturedPages
from replicator.spool import Spool

log = logging.getLogger(__name__)

# Mark 0 is taken anew this often while everything is in the main file.
ZERO_AGAIN_SECONDS = 0.02
# Under overload hands change no more often: each time costs a unit of its own, and a sync.
HAND_OVER_OVERLOADED_SECONDS = 0.05
# A checkpoint that began to wait for our slot while hands changed has asked for it again after this long.
# SQLite asks after as long again as it has waited, and 2 ms; the rest is for a machine that is late.
ASKED_AGAIN_SECONDS = 0.02
ASKED_AGAIN_TIMES = 3
# Close to the high-water mark looks are closer together: a writer at full speed adds a megabyte in this time.
NEAR_THE_BARRIER_SECONDS = 0.005
CHANGED_PAST_LOG = "the database file was changed past its log"
# A log file that grew huge is cut only when nothing has happened for this long.
TRUNCATE_QUIET_SECONDS = 1.0


class Capture:
    """Follows one open database from *tip* on. ``step`` and everything else run in one thread at a time;
    ``hold_still`` lets another thread in between two steps."""

    def __init__(
        self,
        database: Database,
        spool: Spool,
        marks: Marks,
        clock: Clock,
        *,
        lineage: Lineage,
        tip: Tip,
        pages: CapturedPages,
        changed: ChangedPages,
        interval: float,
        limits: CheckpointLimits,
        on_captured: Callable[[], None],
        request_passive: Callable[[], None],
    ) -> None:
        self.database = database
        self._spool = spool
        self._marks = marks
        self._clock = clock
        self._units = UnitWriter(database, spool, pages, lineage, tip, changed)
        self._cursor = tip.cursor
        self._limits = limits
        self._on_captured = on_captured
        self._request_passive = request_passive
        self._mark = HeldMark(0, zero=False)
        # Whether the log may be restarted under our read mark 0: once, and then not again.
        self._restartable = False
        self._main_at_zero: tuple[int, ...] | None = None
        self._lock = threading.RLock()
        self._sightings = Sightings(tip.cursor.frames, clock.wall())
        self._touched: list[set[int]] = []
        self._closed = False
        self._handed_over = float("-inf")
        self._doubtful_at = -1
        self._doubtful_until = float("-inf")
        self._holds = Holds(limits.high_bytes)
        self._frame_bytes = database.page_size + FRAME_HEADER_SIZE
        self._overload = Overload(limits.coalesce_bytes)
        self.pace = Pace(interval)

    def begin(self, mark: HeldMark) -> None:
        """Take over the read transaction that whoever placed us has begun."""
        self._hold(mark)
        if self._cursor.frames == 0:
            self._restartable = False  # it was restarted while our place was found, or there was none
        self._marks.live = self.describe
        self._marks.changed()

    # --- one step --------------------------------------------------------------------------------------

    def step(self, now: float) -> float | None:
        """Look once and do what is due; returns seconds until the next look, None to rest until woken. Raises
        ContinuityLost."""
        with self._lock:
            seen = self._look()
            fresh = self._fresh(seen)
            grew = self._sight(seen, now)
            self.pace.asked = bool(fresh or self.pace.asked) and self.database.checkpointed_elsewhere
            size = fresh * self._frame_bytes
            if fresh and self.pace.due(now, fresh_bytes=size, mark_zero=self._mark.zero, grew=grew):
                self._round(seen)
                fresh = 0
            wait = self._hand_over_in(seen, now) if not fresh else None
            if wait == 0.0:
                seen, wait = self._hand_over(), None
            self._checkpoint(seen, now, growing=grew)
            delay = self.pace.next_look(now, pending=self._fresh(seen) > 0)
            if seen.frames * self._frame_bytes > self._limits.coalesce_bytes and delay is not None:
                delay = min(delay, NEAR_THE_BARRIER_SECONDS)
            if wait:
                delay = wait if delay is None else min(delay, wait)
            return delay

    def capture_now(self) -> None:
        """Everything committed so far becomes durable, whatever the interval says."""
        with self._lock:
            self.database.require_open()
            seen = self._look()
            self._sight(seen, self._clock.now())
            if self._fresh(seen):
                self._round(seen)

    def finish(self, *, settle: bool) -> None:
        """Capture what is left; with *settle* the main file is brought up to date for whoever copies it.

        Without, frames stay in the log: as long as they are not all in the main file, an application that
        goes on appends to this log, and the next run finds its place in it.
        """
        with self._lock:
            self.capture_now()
            if settle and self.database.passive():
                self._hand_over()

    def close(self) -> None:
        """Let go of the database, once nobody holds it still any more."""
        with self._lock:
            self._closed = True
            self.database.close()

    def require_followed(self) -> None:
        """Raises ContinuityLost once this was let go of: the database may be open again, for another capture."""
        if self._closed:
            raise ContinuityLost("the database was let go of meanwhile")
        self.database.require_open()

    def rest(self) -> tuple[Observation, bool] | None:
        """A look for whoever compares one rest with the next, and whether frames lie behind it that nobody
        will tell of when they are published; None where there is no rest yet."""
        with self._lock:
            seen = self._look()
            if self._fresh(seen):
                return None
            self.database.rest()
            return seen, self.database.holds_more_than(seen)

    @property
    def main_changed(self) -> bool:
        """Whether the main file was written to though, with read mark 0 held, nobody can move a frame into
        it: something wrote over it, past SQLite."""
        return self._mark.zero and self.database.main_change != self._main_at_zero

    def _require_untouched_main(self) -> None:
        """Whoever comes past ``main_changed`` does not get to build on what cannot be trusted."""
        if self.main_changed:
            raise MainChanged(CHANGED_PAST_LOG)

    def trust_main(self, change: tuple[int, ...] | None) -> None:
        """What was written over the main file up to *change* was compared, and is what we captured."""
        self._main_at_zero = change

    @contextmanager
    def hold_still(self) -> Iterator[Moment]:
        """Keep the last captured commit where it is for as long as the context lasts."""
        with self._lock:
            self.require_followed()
            units = self._units
            yield Moment(
                units.tip, units.lineage, units.pages, units.changed, self._spool.end, self._unsettled()
            )

    @contextmanager
    def collecting_touched(self) -> Iterator[set[int]]:
        """A set of every page whose version in the main file may change from now on; it grows as commits
        are captured. Read and clear it under ``hold_still`` only."""
        with self._lock:
            self.require_followed()
            touched = self._unsettled()
            self._touched.append(touched)
        try:
            yield touched
        finally:
            with self._lock:
                self._touched = [each for each in self._touched if each is not touched]

    def _unsettled(self) -> set[int]:
        # Of one look the count of moved frames is the younger one: what it counts, the next look's frames hold.
        moved = self._look().backfilled
        seen = replace(self._look(), backfilled=moved)
        return self._units.pages.unsettled(seen, self._cursor.frames)

    # --- looking ---------------------------------------------------------------------------------------

    def _look(self) -> Observation:
        seen = self.database.look()
        self._follow_log(seen)
        return seen

    def _follow_log(self, seen: Observation) -> None:
        """Whether the log goes on from our place; raises ContinuityLost."""
        read_to_its_end = self._cursor.frames == self._mark.frames
        match judge(self._cursor, seen, reset_allowed=self._restartable and read_to_its_end):
            case Lost(reason):
                raise ContinuityLost(reason)
            case Restarted():
                log.debug("wal.restarted", extra={"frames": self._cursor.frames})
                self._cursor = EMPTY
                self._restartable = False
                self._sightings.restart()
                self._units.pages.restart()
                self._holds.restart()
            case Continue():
                pass

    def _fresh(self, seen: Observation) -> int:
        return seen.frames - self._cursor.frames if seen.header is not None and seen.frames else 0

    def _sight(self, seen: Observation, now: float) -> bool:
        """Remember when new frames were first seen; every commit among them gets these times."""
        grew = self._sightings.look(seen.frames, self._clock.wall(), not_earlier=self._units.tip.observed)
        if grew:
            self.pace.grew = now
            self._marks.changed()
        return grew

    # --- capturing -------------------------------------------------------------------------------------

    def _round(self, seen: Observation) -> None:
        """Capture what was seen. The read transaction held keeps every frame of it, however old it is."""
        self._require_untouched_main()
        began = self._clock.now()
        overloaded = self._overload.judge(
            began, seen, frame_bytes=self._frame_bytes, fresh_frames=self._fresh(seen)
        )
        while self._fresh(seen):
            self._write(seen, coalesce=overloaded)
        self._units.pages.forget_window()
        self.pace.captured, self.pace.took = began, self._clock.now() - began
        self._on_captured()

    def _hand_over_in(self, seen: Observation, now: float) -> float | None:
        """Seconds until a newer read transaction has to be begun; None while the one held is in nobody's way.
        Asked when all that was seen is captured; what came since is captured on the way.

        A mark before the last commit, or mark 0 once there are frames to move, makes others wait without
        anything that tells; so hands change with every round.
        """
        since = now - self._handed_over
        if seen.fully_backfilled and seen.frames == self._cursor.frames:
            # Begun anew now and then even with mark 0: a checkpoint that had not yet let go of it when ours
            # began has driven it into another slot.
            return 0.0 if not self._mark.zero or since >= ZERO_AGAIN_SECONDS else None
        zero = self._mark.zero
        if seen.frames <= (0 if zero else self._mark.frames):
            return None
        not_before = HAND_OVER_OVERLOADED_SECONDS - since if self._overload.active and not zero else 0.0
        if seen.frames == self._doubtful_at:
            not_before = max(not_before, self._doubtful_until - now)
        return max(0.0, not_before)

    def _hand_over(self) -> Observation:
        """A newer read transaction in the place of the older, with nothing left uncaptured between them.

        A checkpoint waits for a *slot*, whatever mark it holds meanwhile, and a newer transaction takes the
        lowest free one: it may be the very slot we just let go of, and there we would rest. Such a checkpoint
        keeps writers out. So if the log ends where our mark is once hands have changed, whoever waits for the
        slot sees the same end, and we share the mark from then on instead of taking a slot. If commits came
        meanwhile, hands do not change again until another shows that nobody waits, or until it has asked.
        """
        self._require_untouched_main()
        began = self._clock.now()
        mark, seen = self.database.begin_next()
        self._follow_log(seen)
        if self._fresh(seen):
            self._sight(seen, self._clock.now())
            while self._fresh(seen):
                self._write(seen, coalesce=self._overload.active)
            self._on_captured()
        self.database.end_previous()
        self._hold(mark)
        self._handed_over = now = self._clock.now()
        seen = self._look()
        self._sight(seen, now)
        self._doubtful_at = seen.frames if seen.frames > mark.frames else -1
        self._doubtful_until = now + max(ASKED_AGAIN_SECONDS, ASKED_AGAIN_TIMES * (now - began))
        return seen

    def _hold(self, mark: HeldMark) -> None:
        """Once everything is in the main file and we hold mark 0, nobody writes to it until we let go."""
        if mark.zero and not self._mark.zero:
            self._main_at_zero = self.database.main_change
        self._mark = mark
        self._restartable = mark.zero
        if mark.zero and self._cursor.frames >= mark.frames:
            self._units.pages.moved(mark.frames)

    def _write(self, seen: Observation, *, coalesce: bool) -> None:
        first = self._cursor.frames
        behind = self._restartable and first < self._mark.frames
        self._units.confirm = partial(self._require_same_log, seen) if behind else None
        self._cursor = self._units.write(seen, first, self._sightings, self._touched, coalesce=coalesce)
        if behind and self._cursor.frames >= self._mark.frames:
            self._units.pages.moved(self._mark.frames)
        self._sightings.forget(self._cursor.frames)

    def _require_same_log(self, seen: Observation) -> None:
        """Frames that came while we were away, and were all moved before we held a mark, may be written over
        while they are captured."""
        if self.database.look().header != seen.header:
            raise ContinuityLost("the log was restarted before all of it was captured")

    def content_is_ours(self, base_checksum: int) -> bool:
        """Whether the database, read through once, is the one we captured; False tells of a change that
        went past the log, such as a copy put over the file."""
        with self._lock:
            self._look()
            tip = self._units.tip
            whole = self._units.pages.database_checksum(tip.pages)
            return whole is None or tip.rolling is None or whole == tip.rolling ^ base_checksum

    def settle_checksum(self, base_checksum: int) -> tuple[int, int]:
        """Find the rolling checksum again, where it was lost track of; returns the txid and the checksum."""
        with self._lock:
            self._units.settle_checksum(base_checksum)
            tip = self._units.tip
            assert tip.rolling is not None
            return tip.txid, tip.rolling

    # --- checkpoints -----------------------------------------------------------------------------------

    def _checkpoint(self, seen: Observation, now: float, *, growing: bool) -> None:
        file_bytes = self.database.log_bytes if self._mark.zero else 0
        state = LogState(
            frames=seen.frames,
            backfilled=seen.backfilled,
            captured=self._cursor.frames,
            frame_bytes=self._frame_bytes,
            file_bytes=file_bytes,
            growing=growing or now - self.pace.grew < TRUNCATE_QUIET_SECONDS,
            holding_zero=self._mark.zero,
            barrier_bytes=self._holds.from_bytes,
        )
        match decide(state, self._limits):
            case Action.PASSIVE:
                self._request_passive()
            case Action.APPROACH:
                self._hand_over()
                self.database.passive()
            case Action.BARRIER:
                self._holds.take(self.database, self._clock, self._look, self._fresh, self._hand_over)
            case Action.TRUNCATE:
                done = self.database.truncate()
                log.info("wal.truncated", extra={"bytes_in": file_bytes, "done": done})
            case Action.NOTHING:
                pass

    # --- telling ---------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What ``SourceState`` says of us just now; from any thread."""
        pending = max(0, self._sightings.frames - self._cursor.frames)
        return {
            **self._units.describe(),
            "pending_frames": pending,
            "pending_since": self._sightings.oldest if pending else 0,
            "wal_bytes": self._sightings.frames * self._frame_bytes,
            "overloaded": self._overload.active,
            "barriers": self._holds.count,
            "barrier_longest_ms": round(self._holds.longest_ms, 1),
        }
