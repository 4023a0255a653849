"""Counted: how many bytes a store gave, whoever asked; from any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from replicator.core.catalogue import Listed
from replicator.store import Store


class CountedStore:
    """``bytes_read``: of objects and parts of objects, as they are stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.bytes_read = 0

    @property
    def url(self) -> str:
        return self._store.url

    def get(self, name: str) -> bytes:
        return self._counted(self._store.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._counted(self._store.get_range(name, offset, length))

    def _counted(self, data: bytes) -> bytes:
        with self._lock:
            self.bytes_read += len(data)
        return data

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return self._store.list(prefix, after)

    def put(self, name: str, data: bytes) -> None:
        self._store.put(name, data)

    def replace(self, name: str, data: bytes) -> None:
        self._store.replace(name, data)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def modified(self, name: str) -> int:
        return self._store.modified(name)
