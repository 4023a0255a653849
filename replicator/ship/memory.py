"""Memory: what a store acknowledged, kept here, so that one which knows less is found to have been rolled back."""

from __future__ import annotations

import logging

from replicator.clock import Clock
from replicator.core.errors import StoreError
from replicator.core.position import GenerationId, Position
from replicator.core.times import format_time
from replicator.core.unit import parse_unit_header
from replicator.marks import LastError, Marks
from replicator.state import Newest, StateFolder, StoreMemory
from replicator.store import Store

log = logging.getLogger(__name__)

# Between two notes of how far a store is. What it acknowledged since the last one is not missed if it is gone; a sync
# each time would cost as much as shipping does.
SAVE_SECONDS = 30.0


class Memory:
    def __init__(self, store: Store, state: StateFolder, marks: Marks, clock: Clock) -> None:
        self._store = store
        self._state = state
        self._marks = marks
        self._clock = clock
        self._kept = StoreMemory()
        self._saved_at = float("-inf")
        self._changed = False

    def load(self) -> StoreMemory:
        self._kept = self._state.load_store(self._store.url)
        return self._kept

    def shipped(self, position: Position) -> None:
        """It has this now; written down when that was not done for a while."""
        self._kept = StoreMemory(self._kept.full, self._kept.lapsed, (position.generation, position.txid))
        self._changed = True
        if self._clock.now() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def keep(self, full: tuple[GenerationId, int] | None, *, lapsed: bool) -> None:
        """For the next start, which would find it out by itself, at more cost."""
        self._kept = StoreMemory(full, lapsed, self._kept.shipped)
        self._changed = True
        self.save()

    def save(self) -> None:
        if not self._changed:
            return
        try:
            self._state.save_store(self._store.url, self._kept)
        except StoreError as exc:
            log.warning("state.unwritten", extra={"store": self._store.url, "error": str(exc)})
            return
        self._saved_at, self._changed = self._clock.now(), False

    def found(self, running: GenerationId, newest: Newest, *, lapsed: bool) -> None:
        """What the store answered when it was asked how far it is."""
        shipped = parse_unit_header(newest.unit) if newest.unit is not None else None
        fulls = [full.txid for full in newest.fulls]
        self._compare(running, max([shipped.txid_last if shipped else 0, *fulls]))
        self._marks.store(
            self._store.url,
            lapsed=lapsed,
            shipped=shipped.position if shipped and shipped.commits else None,
            shipped_observed=shipped.observed_last if shipped else 0,
            protected=Position(running, fulls[-1]) if fulls else None,
        )

    def _compare(self, running: GenerationId, reached: int) -> None:
        """Tell where the store knows less of the running generation than it once acknowledged."""
        known = self._kept.shipped
        if known is None or known[0] != running or reached >= known[1]:
            return
        wall = self._clock.wall()
        message = (
            f"{self._store.url} was rolled back: it had acknowledged transaction {known[1]:016x} and knows "
            f"{reached:016x} as its newest"
        )
        hint = "who has access to it, and was it restored from a copy? what is still here is shipped again"
        log.error("store.rolled-back", extra={"store": self._store.url, "error": message, "hint": hint})
        self._marks.store(self._store.url, rolled_back=f"{format_time(wall)}: {message}")
        self._marks.error(LastError(wall, self._store.url, message, hint))
