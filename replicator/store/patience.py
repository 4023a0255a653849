"""Patience: go on reading from a store that is away for a while, where much would have to be begun anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from replicator.core.catalogue import Listed
from replicator.core.errors import StoreUnavailable
from replicator.store.contract import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

# A server that is restarted, or a line that comes back by itself, does within minutes.
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS_MAX = 5.0
# How soon it is noticed that nobody waits any more.
_LOOK_SECONDS = 0.2


class PatientStore:
    """A read that may succeed later is made again for five minutes, unless *ended* answers True. Of the others none:
    whoever lists has just begun."""

    def __init__(self, store: Store, ended: Callable[[], bool]) -> None:
        self._store = store
        self._ended = ended

    @property
    def url(self) -> str:
        return self._store.url

    def get(self, name: str) -> bytes:
        return self._call(lambda: self._store.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._call(lambda: self._store.get_range(name, offset, length))

    def put(self, name: str, data: bytes) -> None:
        self._store.put(name, data)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return self._store.list(prefix, after)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def replace(self, name: str, data: bytes) -> None:
        self._store.replace(name, data)

    def modified(self, name: str) -> int:
        return self._call(lambda: self._store.modified(name))

    def _call(self, read: Callable[[], T]) -> T:
        patience = time.monotonic() + PATIENCE_SECONDS
        pause = _LOOK_SECONDS
        while True:
            try:
                return read()
            except StoreUnavailable as exc:
                if self._ended() or time.monotonic() > patience:
                    raise
                if pause == _LOOK_SECONDS:
                    log.warning(
                        "store.waiting", extra={"store": self.url, "error": str(exc), "hint": exc.hint}
                    )
            goes_on = time.monotonic() + pause
            while time.monotonic() < goes_on and not self._ended():
                time.sleep(_LOOK_SECONDS)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
