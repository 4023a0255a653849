"""Checkpoint: run PASSIVE checkpoints beside the capturing, so that an fsync never holds it up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from replicator.core.errors import SourceError
from replicator.source.database import Database

log = logging.getLogger(__name__)

# Where another reader of the application keeps the log from moving, asking more often moves nothing.
PAUSE_MIN_SECONDS = 0.1
PAUSE_MAX_SECONDS = 1.0


class Checkpoint:
    """PASSIVE checkpoints on request. SQLite keeps each within our read mark, hence within captured."""

    def __init__(self, database: Database, on_done: Callable[[], None]) -> None:
        self._database = database
        self._on_done = on_done
        self._wanted = threading.Event()
        self._not_before = 0.0
        self._pause = PAUSE_MIN_SECONDS

    def request(self) -> None:
        self._wanted.set()

    @property
    def wanted(self) -> bool:
        return self._wanted.is_set()

    def step(self, now: float) -> float | None:
        """Run one if one is wanted and the pause is over."""
        if not self._wanted.is_set():
            return None
        if now < self._not_before:
            return self._not_before - now
        self._wanted.clear()
        try:
            moved = self._database.passive()
        except SourceError as exc:
            log.debug("checkpoint.failed", extra={"error": str(exc)})
            return None
        self._pause = PAUSE_MIN_SECONDS if moved else min(self._pause * 2, PAUSE_MAX_SECONDS)
        self._not_before = now + self._pause
        self._on_done()
        return None
