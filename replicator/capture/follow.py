"""Follow: wait for a database, find our place in it, capture, and notice when it is no longer the same one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from replicator.capture.changed import changed_since, keep_changed
from replicator.capture.place import (
    FIRST_RUN,
    Placed,
    base_tip,
    begin_generation,
    lineage_of,
    resume,
    tip_of,
)
from replicator.capture.rounds import CHANGED_PAST_LOG, Capture
from replicator.capture.units import ContinuityLost, MainChanged
from replicator.clock import Clock
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.codec import DEFAULT, Compression
from replicator.core.cursor import Lost, Observation
from replicator.core.errors import SourceError, SourceGone, StoreError
from replicator.core.quantities import format_size
from replicator.core.unit import parse_unit_header
from replicator.core.unit_build import Lineage, Tip
from replicator.marks import LastError, Marks
from replicator.source.connection import change_of, identity_of
from replicator.source.database import Database, HeldMark
from replicator.spool import Spool
from replicator.state import Recovered, RunningGeneration, StateFolder

log = logging.getLogger(__name__)

# Events can be lost without a word; this is how late a commit is seen at the worst. Whoever follows many
# databases looks at the files of all that rest this often (``changed_at_rest``), some microseconds each.
SAFETY_POLL_SECONDS = 5.0
# Where the system gives us no events: late by this at the worst, for a hundredth of a core.
BLIND_POLL_SECONDS = 0.05
# An application that is just making its database shows an empty file, then one not yet in WAL mode.
GRACE_SECONDS = 3.0
CAPTURE_RETRY_SECONDS = 1.0
# A commit that waits for a slow fsync is published without any event; a file's times tell nothing of it either.
UNPUBLISHED_POLL_SECONDS = 1.0
# Whoever copies over the main file writes now and then for as long as it takes; then it is compared.
DOUBT_SECONDS = 0.4
# And if it goes on, for instance because somebody touches the file now and again: the comparison is exact anyway,
# and as long as it is put off nothing is captured.
DOUBT_SECONDS_MAX = 5.0
# How far the log may grow because of us.
LOG_BYTES_MAX = 64 << 20
WAITING_POLL_SECONDS = 1.0
# With events off, how often it is looked whether the path still stands for the file we have open.
IDENTIFY_SECONDS = 1.0
SPOOL = "spool"


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """``wait``: a database that is not there is waited for; without, it is an error."""

    interval: float
    limits: CheckpointLimits
    compression: Compression = DEFAULT
    wait: bool = True


class Follow:
    """One database from waiting to following and back. ``step`` runs in one thread at a time."""

    def __init__(
        self,
        path: str,
        settings: FollowSettings,
        *,
        state: StateFolder,
        spool: Spool,
        marks: Marks,
        clock: Clock,
        prepare: Callable[[], None],
        confirm: Callable[[], None],
        recover: Callable[[], Recovered | None],
        on_captured: Callable[[], None],
        on_generation: Callable[[], None],
        request_passive: Callable[[], None],
        watch: Callable[[bool], bool],
        waited: bool,
    ) -> None:
        self._settings = settings
        self._state = state
        self._spool = spool
        self._marks = marks
        self._clock = clock
        self._prepare = prepare
        self._confirm = confirm
        self._recover = recover
        self._on_captured = on_captured
        self._on_generation = on_generation
        self._request_passive = request_passive
        self._watch = watch
        self._watching = False
        self._refused_until = float("-inf")
        self._waits = waited
        self._identified = float("-inf")
        self._lock = threading.RLock()
        self._event = threading.Event()
        self._waiting_since: float | None = None
        self._waiting_for = ""
        self._followed_once = False
        self._new_generation: str | None = None
        self._settled: tuple[object, ...] | None = None
        self._resting: tuple[object, ...] | None = None
        self._cannot = False
        self._doubted: tuple[int, ...] | None = None
        self._doubted_since = self._doubting_since = 0.0
        self.database = Database(path)
        self.capture: Capture | None = None

    @property
    def settled_in(self) -> bool:
        """Whether the database is followed, or is one to wait for; not while a first error has its grace. Where our own
        disk is full nobody knows how long that lasts, and an application that starts after us does not wait for it."""
        return self.capture is not None or self._waits or self._cannot

    def woken(self) -> None:
        """An event came: look closely for a while."""
        self._event.set()

    def step(self, now: float) -> float | None:
        """Do what is due; returns seconds until the next step. Raises SourceError where following cannot
        begin at all, never once it has."""
        with self._lock:
            try:
                if self.capture is None:
                    self._open()
                assert self.capture is not None
                return self._follow(self.capture, now)
            except MainChanged:
                return 0.0  # seen too late to begin with: it is doubted now
            except ContinuityLost as exc:
                self._lose(str(exc))
                return 0.0
            except SourceError as exc:
                return self._wait(exc, now)
            except StoreError as exc:
                return self._cannot_capture(exc)

    def finish(self, *, settle: bool) -> None:
        """Capture what is left and let go of the database."""
        with self._lock:
            if self.capture is not None:
                try:
                    if self.capture.main_changed:
                        self._compare(self.capture, self._base_checksum)
                    self.capture.finish(settle=settle)
                    keep_changed(self._state, self.capture)
                except ContinuityLost as exc:
                    log.warning("generation.lost", extra={"reason": str(exc)})
                finally:
                    self._close()
            self._marks.source(phase="stopped")

    def lose(self, reason: str) -> None:
        """Somebody found that the database is not what was captured: begin a new generation."""
        with self._lock:
            self._lose(reason)

    # --- following -------------------------------------------------------------------------------------

    def _follow(self, capture: Capture, now: float) -> float | None:
        self._resting = None
        event = self._event.is_set()
        if event:
            self._event.clear()
            capture.pace.wake(now)
        if (event or now - self._identified >= IDENTIFY_SECONDS) and self._replaced(now):
            capture.capture_now()  # the file we hold open is still the old one, to its last commit
            self._close()
            raise SourceGone(f"{self.database.path} was deleted or replaced")
        if capture.main_changed:
            return self._doubt(capture, now)
        delay = capture.step(now)
        if self._cannot:
            self._cannot = False
            self._marks.well(SPOOL)
        self._arm(not capture.pace.sustained(now), now)
        return self._rest(capture) if delay is None else delay

    def _doubt(self, capture: Capture, now: float) -> float:
        """Something writes over the main file: capture nothing until it has ended, then compare it all."""
        change = self.database.main_change
        if self._doubted is None:
            self._doubting_since = now
        if change != self._doubted:
            self._doubted, self._doubted_since = change, now
        ended = now - self._doubted_since >= DOUBT_SECONDS
        if not ended and now - self._doubting_since < DOUBT_SECONDS_MAX:
            return DOUBT_SECONDS / 4
        self._doubted = None
        self._compare(capture, self._base_checksum)
        return 0.0

    def _replaced(self, now: float) -> bool:
        self._identified = now
        return self.database.replaced

    def _arm(self, wanted: bool, now: float) -> None:
        """Events on or off; what happened just before they are on is not reported, so look once more."""
        if wanted != self._watching and now >= self._refused_until:
            self._watching = self._watch(wanted)
            if self._watching:
                self._event.set()
            elif wanted:
                self._refused_until = now + SAFETY_POLL_SECONDS

    def _rest(self, capture: Capture) -> float | None:
        """Nothing to do until something wakes us: an event, or a file that changed without one."""
        files = _files_of(self.database.path)  # before the look: whatever comes after it changes them
        found = capture.rest()
        if found is None:
            return 0.0
        seen, unpublished = found
        if files[0] is not None:
            self._settle(capture, (seen.header, seen.backfilled), files[0])
        self._resting = files
        if not self._watching:
            return BLIND_POLL_SECONDS
        return UNPUBLISHED_POLL_SECONDS if unpublished else None

    @property
    def changed_at_rest(self) -> bool:
        """Whether a file changed since we came to rest; from any thread, for three calls of stat(2)."""
        resting = self._resting
        return resting is not None and resting != _files_of(self.database.path)

    def _settle(self, capture: Capture, log_state: object, main: object) -> None:
        """A main file that changed though no frame was moved into it was changed past the log."""
        before, self._settled = self._settled, (log_state, main)
        base = self._base_checksum
        if before is None or base is None or before[0] != log_state or before[1] == main:
            return
        self._compare(capture, base)

    @property
    def _base_checksum(self) -> int | None:
        """What the content can be compared by; None before the first full backup is complete."""
        return self._state.generation.base_checksum if self._state.generation else None

    def _compare(self, capture: Capture, base: int | None) -> None:
        log.info("database.checked", extra={"reason": "the file changed and the log did not"})
        change = self.database.main_change  # before: what changes while it is read is doubted again
        if base is None or not capture.content_is_ours(base):
            raise ContinuityLost(CHANGED_PAST_LOG)
        capture.trust_main(change)

    # --- opening ---------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.database.open()
        try:
            self._prepare()
            mark, seen = self.database.begin_next()
            self.database.end_previous()
            placed = self._place(mark, seen)
            capture = Capture(
                self.database, self._spool, self._marks, self._clock,
                lineage=placed.lineage, tip=placed.tip, pages=placed.pages,
                changed=changed_since(self._state, self._spool, placed.tip, placed.lineage.generation),
                interval=self._settings.interval, limits=self._settings.limits,
                on_captured=self._on_captured, request_passive=self._request_passive,
            )  # fmt: skip
            capture.begin(mark)
            if placed.tip.rolling is None and self._state.generation is not None:
                capture.capture_now()
                base = self._base_checksum
                assert base is not None
                self._state.remember_checksum(*capture.settle_checksum(base))
            # Only now: a full backup begins as soon as it sees one, and needs the checksum.
            self.capture = capture
        except BaseException:
            self._close()
            raise
        self._followed_once, self._waiting_since, self._settled = True, None, None
        self._waiting_for = ""
        self._refused_until = float("-inf")
        if placed.began is not None:
            self._on_generation()
        self._on_captured()

    def _place(self, mark: HeldMark, seen: Observation) -> Placed:
        reason = self._new_generation
        if reason is None:
            placed = self._resume(mark, seen)
            if isinstance(placed, Placed):
                return placed
            reason = placed
        self._confirm()
        generation, pages = begin_generation(
            self.database, self._state, mark, seen, reason=reason, wall=self._clock.wall()
        )
        self._state.begin(generation, set(self._spool.generations()))
        self._new_generation = None
        level = logging.INFO if reason == FIRST_RUN else logging.WARNING
        log.log(
            level, "generation.started", extra={"generation": generation.record.generation, "reason": reason}
        )
        state = self._marks.snapshot().source
        self._marks.source(generations_begun=state.generations_begun + 1)
        return Placed(self._lineage(generation), base_tip(generation), pages, generation)

    def _resume(self, mark: HeldMark, seen: Observation) -> Placed | str:
        """Our saved place, or the reason why a new generation has to begin."""
        tip = self._saved_tip()
        if tip is None or self._state.generation is None:
            return FIRST_RUN
        resumed = resume(self.database, self._state, tip, mark, seen)
        if isinstance(resumed, Lost):
            return resumed.reason
        lineage = self._lineage(self._state.generation)
        return Placed(lineage, resumed[0], resumed[1], None)

    def _lineage(self, generation: RunningGeneration) -> Lineage:
        return lineage_of(self._state, generation, self._settings.compression)

    def _saved_tip(self) -> Tip | None:
        running = self._state.generation
        unit = self._spool.last_unit()
        if running is not None and unit is not None:
            if parse_unit_header(unit).generation == running.record.generation:
                return self._state.with_checksum(tip_of(unit))
            return base_tip(running)
        # The spool is new: either nothing was captured yet, or it was lost and a store knows more.
        recovered = self._recover()
        if recovered is None:
            return base_tip(running) if running is not None and running.base_pages else None
        tip = tip_of(recovered.unit)
        self._state.begin(RunningGeneration(recovered.record, tip.cursor, 0, recovered.base_checksum), set())
        return tip

    # --- letting go ------------------------------------------------------------------------------------

    def _lose(self, reason: str) -> None:
        log.warning("continuity.lost", extra={"reason": reason})
        self._close()
        self._new_generation = reason

    def _wait(self, exc: SourceError, now: float) -> float:
        """Not now: say why, and look again. What never worked is an error, after a moment's grace; but one
        that was waited for may be made in steps, and enter WAL mode only after a migration."""
        self._close()
        if self._waiting_since is None:
            self._waiting_since = now
        if self._waiting_for != str(exc):
            self._waiting_for = str(exc)
            log.warning("database.waiting", extra={"reason": str(exc), "hint": exc.hint})
        self._marks.source(phase="waiting", reason=str(exc))
        gone = isinstance(exc, SourceGone)
        if not (self._followed_once or self._waits or (gone and self._settings.wait)):
            if gone or now - self._waiting_since >= GRACE_SECONDS:
                raise exc
            return 0.1
        # Anew each time: the folder may have been made, or made again, since.
        self._arm(False, now)
        self._arm(True, now)
        self._waits = True
        return WAITING_POLL_SECONDS

    def _cannot_capture(self, exc: StoreError) -> float:
        """The spool cannot be written. The log is kept for us as long as it is bounded, and not beyond: the
        application goes before its replica."""
        log.error("capture.failed", extra={"error": str(exc), "hint": exc.hint})
        self._marks.error(LastError(self._clock.wall(), SPOOL, str(exc), exc.hint))
        self._cannot = True
        if self.capture is not None and self.database.log_bytes > LOG_BYTES_MAX:
            self._lose(f"the log outgrew {format_size(LOG_BYTES_MAX)} while it could not be captured: {exc}")
        return CAPTURE_RETRY_SECONDS

    def _close(self) -> None:
        if self.capture is not None:
            self._marks.source(**self.capture.describe())
            self.capture.close()
        self._marks.live = dict
        self._resting = None
        self.capture = None
        self.database.close()


def _files_of(path: str) -> tuple[object, ...]:
    """What tells that the database at *path*, or its log, was written to or replaced."""
    return change_of(path), change_of(path + "-wal"), identity_of(path + "-shm")
