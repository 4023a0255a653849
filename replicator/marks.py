"""How far everything came, for status and for whoever waits: written by the parts, read by anyone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from replicator.core.position import Position


@dataclass(frozen=True, slots=True)
class SourceState:
    """The database side. ``phase`` is waiting, following, disabled, failed or stopped; times in microseconds.
    ``key_ring`` is the number of the ring whose newest key, made at ``key_created``, seals what is new; 0 where
    nothing is encrypted."""

    phase: str = "waiting"
    reason: str = ""
    captured: Position | None = None
    captured_observed: int = 0
    pending_frames: int = 0
    pending_since: int = 0
    wal_bytes: int = 0
    log_frames: int = 0
    backfilled_frames: int = 0
    page_size: int = 0
    pages: int = 0
    overloaded: bool = False
    coalesced: int = 0
    barriers: int = 0
    barrier_longest_ms: float = 0.0
    generations_begun: int = 0
    key_ring: int = 0
    key_created: int = 0


@dataclass(frozen=True, slots=True)
class StoreState:
    """One store. ``protected`` is its newest complete full of the current generation; ``rolled_back`` says when it was
    found to know less than it had acknowledged, and what; ``in_clear``: it is reached without TLS. ``over``: how many
    bytes it holds more than it may, with all gone that may go; ``used`` of ``limit``: how many it held
    when it was pruned last, and how many it may; 0 where nobody said."""

    url: str
    shipped: Position | None = None
    shipped_observed: int = 0
    spool_bytes: int = 0
    oldest_unshipped: int = 0
    protected: Position | None = None
    unprotected_since: int = 0
    lapsed: bool = False
    rolled_back: str = ""
    in_clear: bool = False
    last_full: int = 0
    full_seconds: float = 0.0
    full_bytes: int = 0
    last_incremental: int = 0
    last_log: int = 0
    last_prune: int = 0
    over: int = 0
    used: int = 0
    limit: int = 0
    logged: Position | None = None
    segments: int = 0
    bytes_shipped: int = 0


@dataclass(frozen=True, slots=True)
class LastError:
    """``where``: whose trouble it is; each has one at a time."""

    at: int
    where: str
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``errors``: those that last, the newest first."""

    source: SourceState
    stores: dict[str, StoreState]
    errors: tuple[LastError, ...]

    @property
    def error(self) -> LastError | None:
        return self.errors[0] if self.errors else None


@dataclass(slots=True)
class Marks:
    """The one place where parts say how far they are. Setting never blocks on anything but its own lock.

    ``live`` answers with the fields of the source that change with every commit; it is asked when somebody
    looks, not told a thousand times a second. ``changed`` is called after every change.
    """

    changed: Callable[[], None] = lambda: None
    live: Callable[[], dict[str, Any]] = dict
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _source: dict[str, Any] = field(default_factory=dict)
    _stores: dict[str, dict[str, Any]] = field(default_factory=dict)
    _errors: dict[str, LastError] = field(default_factory=dict)

    def source(self, **fields: Any) -> None:
        with self._lock:
            self._source.update(fields)
        self.changed()

    def store(self, url: str, **fields: Any) -> None:
        with self._lock:
            self._stores.setdefault(url, {}).update(fields)
        self.changed()

    def error(self, error: LastError) -> None:
        """In place of what was wrong there before, until ``well`` says that it is over."""
        with self._lock:
            self._errors[error.where] = error
        self.changed()

    def well(self, where: str) -> None:
        with self._lock:
            known = self._errors.pop(where, None)
        if known is not None:
            self.changed()

    def snapshot(self) -> Snapshot:
        with self._lock:
            stores = {url: StoreState(url, **fields) for url, fields in self._stores.items()}
            errors = sorted(self._errors.values(), key=lambda each: each.at, reverse=True)
            return Snapshot(SourceState(**{**self._source, **self.live()}), stores, tuple(errors))
