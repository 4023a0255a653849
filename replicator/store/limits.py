"""Limits: how many calls at a time, and how many bytes a second, one wrapper each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from replicator.clock import Clock
from replicator.core.catalogue import Listed
from replicator.store.contract import Kind


class FewAtATime:
    """No more than *calls* at a time, of all threads; a listing counts only while it is asked for a page."""

    def __init__(self, store: Kind, calls: int) -> None:
        self._store = store
        self._slots = threading.BoundedSemaphore(calls)

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, name: str, data: bytes) -> None:
        with self._slots:
            self._store.put(name, data)

    def get(self, name: str) -> bytes:
        with self._slots:
            return self._store.get(name)

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        with self._slots:
            return self._store.get_start(name, length)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        with self._slots:
            return self._store.get_range(name, offset, length)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        listing = iter(self._store.list(prefix, after))
        while True:
            with self._slots:
                each = next(listing, None)
            if each is None:
                return
            yield each

    def delete(self, name: str) -> None:
        with self._slots:
            self._store.delete(name)

    def replace(self, name: str, data: bytes) -> None:
        with self._slots:
            self._store.replace(name, data)

    def modified(self, name: str) -> int:
        with self._slots:
            return self._store.modified(name)


class Bandwidth:
    """No more than *bytes_per_second*, up and down together, over any few seconds.

    An object is paid for before it goes and after it came; one larger than a second's worth makes the next
    ones wait. A pause is one of *sleep*, so that a stop ends it.
    """

    def __init__(
        self, store: Kind, bytes_per_second: int, clock: Clock, sleep: Callable[[float], object]
    ) -> None:
        self._store = store
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, name: str, data: bytes) -> None:
        self._pay(len(data))
        self._store.put(name, data)

    def get(self, name: str) -> bytes:
        data = self._store.get(name)
        self._pay(len(data))
        return data

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        data, size = self._store.get_start(name, length)
        self._pay(len(data))
        return data, size

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self._pay(length)
        return self._store.get_range(name, offset, length)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return self._store.list(prefix, after)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def replace(self, name: str, data: bytes) -> None:
        self._pay(len(data))
        self._store.replace(name, data)

    def modified(self, name: str) -> int:
        return self._store.modified(name)

    def _pay(self, size: int) -> None:
        """Book *size* bytes behind what is booked already, and wait until that is through."""
        with self._lock:
            now = self._clock.now()
            begins = max(self._free_at, now)
            self._free_at = begins + size / self._rate
        if begins > now:
            self._sleep(begins - now)
