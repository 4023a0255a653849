"""The queue of one store: captured units, put in order, each once.

Invariants kept here:
- a segment's bytes are units verbatim from the spool, final before the first attempt;
- a name that exists already is read: our own units are taken as shipped, any other means another writer;
- what a store has not got stays in the spool, up to a limit; beyond it the queue is dropped, loudly, and
  only a full backup at a later position brings the store back.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from replicator.clock import Clock
from replicator.core.errors import (
    FormatTooNew,
    ObjectCorrupt,
    ObjectExists,
    ReplicatorError,
    StoreError,
)
from replicator.core.names import FullName, GenerationName, SegmentName
from replicator.core.position import GenerationId, Position
from replicator.core.quantities import format_size
from replicator.core.records import encode_record
from replicator.core.unit import TRAILER_SIZE, UnitHeader, follows
from replicator.marks import LastError, Marks
from replicator.pulse import Pulse
from replicator.ship.adopt import adopt
from replicator.ship.catch_up import place_behind
from replicator.ship.memory import Memory
from replicator.ship.retries import Retries
from replicator.spool import Place, Spool
from replicator.state import Newest, StateFolder
from replicator.store import Store

log = logging.getLogger(__name__)

# Large enough that a bulk load is few requests, small enough to be held in memory a few times over.
SEGMENT_BYTES_MAX = 4 << 20


class Ship:
    """One store's queue. ``step`` runs in one thread at a time.

    ``enlist`` makes us known to the store; ``newest`` asks it how far it is in a generation; ``base_of`` reads from a
    full what the database's checksum was where its generation began; ``need_full`` says that only a full backup
    brings it on. ``reserve`` and ``rejoin`` are what the full answers with.
    ``fence`` keeps whoever wrote there before us from writing on beside a generation that begins; ``pulse``
    tells whether we stood still, so that somebody may have taken over from us.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        state: StateFolder,
        marks: Marks,
        clock: Clock,
        *,
        interval: float,
        spool_bytes_max: int,
        enlist: Callable[[], None],
        newest: Callable[[GenerationId], Newest],
        base_of: Callable[[FullName], int],
        need_full: Callable[[], None],
        fence: Callable[[GenerationId], None],
        pulse: Pulse,
    ) -> None:
        self._store = store
        self._spool = spool
        self._state = state
        self._marks = marks
        self._clock = clock
        self._interval = interval
        self._spool_bytes_max = spool_bytes_max
        self._enlist = enlist
        self._newest = newest
        self._base_of = base_of
        self._need_full = need_full
        self._fence = fence
        self._pulse = pulse
        self._pauses = pulse.beat()
        self._lock = threading.Lock()
        # Where the next segment begins; None once the queue was dropped. Until the store was asked, what is
        # in the spool counts as not shipped.
        self._place: Place | None = spool.beginning
        self._reserved: Place | None = None
        self._enlisted = False
        self._ready = False
        self.asks_anew = False  # at the next step; set by who has seen that time went by
        self._announced: set[GenerationId] = set()
        self._put_at = float("-inf")
        self._hurried: Place | None = None
        self._retries = Retries()
        self.memory = Memory(store, state, marks, clock)
        self._damage = ""
        self.trouble: ReplicatorError | None = None  # why the store does not tell how far it is
        self._asked = False
        self.segments = self._bytes_shipped = 0  # put so far, in this run
        self._full: tuple[GenerationId, int] | None = None
        # Generation and digest of the newest unit there, which the next one has to chain to; None if unknown.
        self._newest_there: tuple[GenerationId, bytes] | None = None
        spool.retain(store.url, spool.beginning)

    @property
    def asked(self) -> bool:
        """Whether the store was asked whose it is, and answered, or could not."""
        return self._asked

    def has_shipped(self, place: Place) -> bool:
        """Whether everything in the spool before *place* is in the store."""
        with self._lock:
            return self._ready and self._place is not None and self._place >= place

    @property
    def has_work(self) -> bool:
        """Whether something in the spool waits to be shipped; a queue that was dropped does not."""
        with self._lock:
            return self._place is not None and self._place != self._spool.end

    def step(self, now: float) -> float | None:
        """Put what is due. Raises OwnershipLost; every other trouble with the store is retried for ever."""
        if now < self._retries.not_before:
            return self._retries.not_before - now
        try:
            return self._step(now)
        except (StoreError, ObjectCorrupt, FormatTooNew) as exc:
            try:
                return self._failed(exc, now)
            except StoreError as ours:
                # What is to be done about it needs our own disk, and that has trouble, too.
                return self._retries.failed(ours, now)

    def _failed(self, exc: ReplicatorError, now: float) -> float:
        if self._enlisted and isinstance(exc, (ObjectCorrupt, FormatTooNew)):
            if self._damage == str(exc):
                if isinstance(exc, FormatTooNew):
                    raise exc
                # What lies there cannot be put again, nor built upon; a full backup makes a new beginning.
                self._lapse(f"{self._store.url} holds a damaged object: {exc}")
                self._damage, self._ready = "", True
                return 0.0
            # It may have been damaged on the way: read once more.
            self._damage = str(exc)
        delay = self._retries.failed(exc, now)
        # It may come back emptied, or as another one: asked anew, it says what it still has.
        self._enlisted = self._ready = False
        self._announced.clear()
        self.trouble = exc
        self._tell(exc)
        return delay

    def close(self) -> None:
        """Write down how far the store is."""
        self.memory.save()

    def hurry(self, place: Place) -> None:
        """Somebody waits until what lies before *place* is shipped: no interval until then, no long pause."""
        self._hurried = place
        self._retries.hurry(self._clock.now())

    # --- a full backup answers a lapse -----------------------------------------------------------------

    def reserve(self, place: Place) -> None:
        """Keep what is behind *place*: a full backup of the position there is about to be committed."""
        with self._lock:
            if self._place is None:
                self._reserved = place
                self._spool.retain(self._store.url, place)

    def rejoin(self, generation: GenerationId, txid: int) -> None:
        """The full backup is in the store: go on behind it."""
        with self._lock:
            self._full = (generation, txid)
            if self._place is None:
                self._place, self._reserved, self._newest_there = self._reserved, None, None
        self.memory.keep(self._full, lapsed=self._place is None)
        self._marks.store(self._store.url, lapsed=self._place is None)
        self._marks.well(self._store.url)

    @property
    def has_place(self) -> bool:
        """Whether the store has told how far it is."""
        return self._ready

    @property
    def has_full(self) -> bool:
        """Whether the store has a full backup of the running generation, and all behind it."""
        return self._ready and self._state.generation is not None and not self.needs_full

    @property
    def needs_full(self) -> bool:
        """Whether the store has no full backup of the running generation, or lapsed."""
        running = self._state.generation
        with self._lock:
            if not self._ready or running is None:
                return False
            covered = self._full is not None and self._full[0] == running.record.generation
            return not covered or self._place is None

    # --- one step --------------------------------------------------------------------------------------

    def _step(self, now: float) -> float | None:
        running = self._state.generation
        if running is None:
            return None
        self._limit()
        if self.asks_anew:
            self.asks_anew = self._ready = False
        if not self._ready:
            try:
                self._enlist()
            finally:
                self._asked = True
            self._enlisted = True
            self._find_place(running.record.generation)
            self._ready, self.trouble = True, None
        self._look_around()
        self._announce(running.record.generation)
        if self.needs_full:
            self._need_full()
        with self._lock:
            place = self._place
        if place is None:
            return None  # only a full backup brings it on; nothing was asked of the store
        if place == self._spool.end:
            self._recovered()
            return None
        wait = self._put_at + self._interval - now
        if wait > 0 and (self._hurried is None or place >= self._hurried):
            return wait
        units, behind = self._spool.read(place, SEGMENT_BYTES_MAX)
        if units:
            first = units[0][0]
            if not self._follows(first):
                self._lapse(f"{self._store.url} lacks transactions before {first.txid_first:016x}")
                return 0.0
            self._announce(first.generation)
            self._marks.store(self._store.url, oldest_unshipped=first.observed_first)
            last, behind, size = self._put(units, place, behind)
            self._put_at = now
            self._advance(last, behind, size)
        self._recovered()
        return None if behind == self._spool.end else 0.0

    def _look_around(self) -> None:
        """After a pause of the process the lease is read again: whoever took over may have taken the names
        away that we would have met."""
        pauses = self._pulse.beat()
        if pauses != self._pauses:
            log.info("process.paused", extra={"store": self._store.url})
            self._enlist()
            self._pauses = pauses

    def _follows(self, first: UnitHeader) -> bool:
        """Whether a unit chains to the newest one there. It cannot where the spool was lost and another
        store, further than this one, said where to go on."""
        there = self._newest_there
        return there is None or there[0] != first.generation or follows(first, there[1])

    def _put(
        self, units: list[tuple[UnitHeader, bytes]], place: Place, behind: Place
    ) -> tuple[UnitHeader, Place, int]:
        """One segment; returns its last unit, the place behind it and its size."""
        header = units[0][0]
        name = SegmentName(header.generation, header.txid_first, header.part)
        content = b"".join(unit for _, unit in units)
        try:
            self._store.put(str(name), content)
        except ObjectExists:
            last, behind, content = adopt(self._store, self._spool, name, place, self._state.epoch)
            self._newest_there = (last.generation, content[-TRAILER_SIZE:])
            return last, behind, len(content)
        self._newest_there = (header.generation, content[-TRAILER_SIZE:])
        log.debug(
            "segment.shipped",
            extra={
                "store": self._store.url,
                "txid_min": f"{header.txid_first:016x}",
                "txid_max": f"{units[-1][0].txid_last:016x}",
                "bytes_out": len(content),
            },
        )
        return units[-1][0], behind, len(content)

    def _advance(self, last: UnitHeader, behind: Place, size: int) -> None:
        self.segments += 1
        self._bytes_shipped += size
        shipped = last.position if last.commits else Position(last.generation, last.txid_first - 1)
        self._marks.store(
            self._store.url,
            shipped=shipped,
            shipped_observed=last.observed_last,
            oldest_unshipped=self._oldest_from(behind),
            spool_bytes=self._spool.bytes_from(behind),
            segments=self.segments,
            bytes_shipped=self._bytes_shipped,
        )
        self.memory.shipped(shipped)
        with self._lock:  # last: who waits for it shall find it told
            if self._place is not None:
                self._place = behind
        self._spool.retain(self._store.url, behind)

    def _oldest_from(self, place: Place) -> int:
        """When the first commit behind *place* was observed; 0 where there is none."""
        header = self._spool.header_at(place)
        return header.observed_first if header is not None else 0

    # --- where are we ----------------------------------------------------------------------------------

    def _find_place(self, running: GenerationId) -> None:
        """Ask the store how far it is, and find that in the spool; a queue with a hole in it has lapsed."""
        newest = self._newest(running)
        if newest.unit is None and not newest.fulls:
            self._announced.clear()  # it may have been emptied
        place = None
        if not self.memory.load().lapsed:
            had = self.memory.acknowledged(running)
            place = place_behind(self._spool, newest.unit, running, self._newest, self._store.url, had)
        known = self._state.generation
        if newest.fulls and known is not None and known.base_checksum is None:
            # We were stopped when that full had just been put.
            self._state.remember_base(running, self._base_of(newest.fulls[-1]))
        with self._lock:
            self._place = place if self._place is not None else None
            self._full = (running, newest.fulls[-1].txid) if newest.fulls else None
            self._newest_there = (running, newest.unit[-TRAILER_SIZE:]) if newest.unit is not None else None
        self._spool.retain(self._store.url, place)
        self.memory.found(running, newest, lapsed=place is None)

    def _announce(self, generation: GenerationId) -> None:
        """The generation's record goes before anything of it."""
        if generation in self._announced:
            return
        record = self._state.record_of(generation)
        if record is not None:
            # One that exists is by an earlier run of ours: its name is random, and its units chain to it.
            self._fence(generation)
            with contextlib.suppress(ObjectExists):
                self._store.put(str(GenerationName(generation)), encode_record(record))
                # Whoever takes over claims the lease and then looks for generations to close: it has seen this
                # one, or we see its lease now.
                self._enlist()
        self._announced.add(generation)

    # --- trouble ---------------------------------------------------------------------------------------

    def _limit(self) -> None:
        """Drop a queue that outgrew its limit: the disk of the application matters more."""
        with self._lock:
            place = self._place or self._reserved
            if place is None:
                self._spool.retain(self._store.url, None)  # what was captured since is not for this store
                return
            queued = self._spool.bytes_from(place)
            if queued <= self._spool_bytes_max:
                return
        limit = format_size(self._spool_bytes_max)
        self._lapse(f"the spool for {self._store.url} outgrew its limit of {limit} ({queued} bytes)")

    def _lapse(self, reason: str) -> None:
        """Give the queue up: the store comes back by a full backup, inside the same generation."""
        with self._lock:
            self._place = self._reserved = None
            self._spool.retain(self._store.url, None)
        self.memory.keep(self._full, lapsed=True)
        message = f"{reason}; what was queued is dropped, and a full backup follows when the store is back"
        log.error("store.lapsed", extra={"store": self._store.url, "reason": message})
        self._marks.store(self._store.url, lapsed=True, spool_bytes=0, unprotected_since=self._clock.wall())
        self._marks.error(LastError(self._clock.wall(), self._store.url, message, None))

    def _tell(self, exc: ReplicatorError) -> None:
        """Loud at first, then once in a while, and once when it is over."""
        failures = self._retries.failures
        log.log(
            logging.ERROR if failures in (1, 2) or failures % 10 == 0 else logging.DEBUG,
            "store.retry",
            extra={"store": self._store.url, "attempt": failures, "error": str(exc), "hint": exc.hint},
        )
        with self._lock:
            place = self._place
        if place is not None:
            self._marks.store(self._store.url, spool_bytes=self._spool.bytes_from(place))
            with contextlib.suppress(StoreError):  # without a descriptor to be had, neither can be read
                self._marks.store(self._store.url, oldest_unshipped=self._oldest_from(place))
        if place is not None or self._reserved is not None:  # else it keeps saying that the queue was dropped
            self._marks.error(LastError(self._clock.wall(), self._store.url, str(exc), exc.hint))

    def _recovered(self) -> None:
        if self._retries.failures:
            log.info("store.recovered", extra={"store": self._store.url, "attempt": self._retries.failures})
            self._retries.succeeded()
            self._damage = ""
        self._marks.well(self._store.url)
