"""Memory: what a store acknowledged, kept here, so that one which knows less is found to have been rolled back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from replicator.clock import Clock
from replicator.core.errors import StoreError
from replicator.core.position import GenerationId, Position
from replicator.core.times import MICROS_PER_SECOND, format_time
from replicator.core.unit import parse_unit_header
from replicator.marks import LastError, Marks
from replicator.state import Newest, StateFolder, StoreMemory
from replicator.store import Store

log = logging.getLogger(__name__)

# Between two notes of how far a store is. What it acknowledged since the last one is not missed if it is gone; a sync
# each time would cost as much as shipping does.
SAVE_SECONDS = 30.0
# So long `status` says that a store was rolled back, also after a restart: whoever looks once a month sees it.
TOLD_MICROS = 31 * 86_400 * MICROS_PER_SECOND


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
        if not self._changed:
            self._kept = self._state.load_store(self._store.url)
        return self._kept

    def shipped(self, position: Position) -> None:
        """It has this now; written down when that was not done for a while."""
        self._kept = replace(self._kept, shipped=(position.generation, position.txid))
        self._changed = True
        if self._clock.now() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def acknowledged(self, running: GenerationId) -> int:
        """The newest transaction of the running generation that it once had."""
        known = self._kept.shipped
        return known[1] if known is not None and known[0] == running else 0

    @property
    def wants_full(self) -> bool:
        """Until one is made, over a restart as well."""
        return self._kept.wants_full

    def want_full(self, wanted: bool = True) -> None:
        if self._kept.wants_full != wanted:
            self._kept = replace(self._kept, wants_full=wanted)
            self._changed = True
            self.save()

    def keep(self, full: tuple[GenerationId, int] | None, *, lapsed: bool) -> None:
        """For the next start, which would find it out by itself, at more cost."""
        self._kept = replace(self._kept, full=full, lapsed=lapsed)
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
        self._compare(running, fulls, max([shipped.txid_last if shipped else 0, *fulls]))
        self._marks.store(
            self._store.url,
            lapsed=lapsed,
            shipped=shipped.position if shipped and shipped.commits else None,
            shipped_observed=shipped.observed_last if shipped else 0,
            protected=Position(running, fulls[-1]) if fulls else None,
        )

    def _compare(self, running: GenerationId, fulls: Sequence[int], reached: int) -> None:
        """Tell where the store knows less of the running generation than it once acknowledged."""
        known, wall = self._kept.shipped, self._clock.wall()
        if known is not None and known[0] == running and reached < known[1]:
            self.rolled_back(
                f"it had acknowledged transaction {known[1]:016x} and knows {reached:016x} as its newest"
            )
        elif self._kept.full is not None and self._kept.full[0] == running and not fulls:
            self.rolled_back("it had a full backup, and has none any more that is whole")
        elif (told := self._kept.rolled_back) is not None and wall - told[0] <= TOLD_MICROS:
            self._marks.store(self._store.url, rolled_back=f"{format_time(told[0])}: {told[1]}")

    def rolled_back(self, what: str) -> None:
        """The store lost what it had acknowledged."""
        wall, message = self._clock.wall(), f"{self._store.url} was rolled back: {what}"
        self._kept = replace(self._kept, rolled_back=(wall, message))
        self._changed = True
        hint = "who has access to it, and was it restored from a copy? what is still here is shipped again"
        log.error("store.rolled-back", extra={"store": self._store.url, "error": message, "hint": hint})
        self._marks.store(self._store.url, rolled_back=f"{format_time(wall)}: {message}")
        self._marks.error(LastError(wall, self._store.url, message, hint))
        self.save()
