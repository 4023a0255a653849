"""Observe: a log line for each call, and counters that anyone may read."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TypeVar

from replicator.core.catalogue import Listed
from replicator.core.errors import ObjectExists, ObjectNotFound, ReplicatorError
from replicator.store.contract import Kind

log = logging.getLogger(__name__)

T = TypeVar("T")

_COUNTED_AS = {"put": "bytes_put", "replace": "bytes_put", "get": "bytes_got"}


class ObservedStore:
    """``counters``: calls by operation (``put``, ``get``, ``list``, ``delete``, ``replace``, ``modified``), ``failed``,
    and bytes as ``bytes_put`` and ``bytes_got``. A listing is one call, however many pages it takes."""

    def __init__(self, store: Kind) -> None:
        self._store = store
        self._lock = Lock()
        self._counters: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def counters(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counters)

    def put(self, name: str, data: bytes) -> None:
        self._call("put", name, lambda: self._store.put(name, data), lambda _: len(data))

    def get(self, name: str) -> bytes:
        return self._call("get", name, lambda: self._store.get(name), len)

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        return self._call(
            "get", name, lambda: self._store.get_start(name, length), lambda found: len(found[0])
        )

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._call("get", name, lambda: self._store.get_range(name, offset, length), len)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        listing = iter(self._store.list(prefix, after))
        began, number = time.monotonic(), 0
        try:
            while (each := next(listing, None)) is not None:
                number += 1
                yield each
        except ReplicatorError as exc:
            self._note("list", prefix, began, exc, 0)
            raise
        self._note("list", prefix, began, None, 0, entries=number)

    def delete(self, name: str) -> None:
        self._call("delete", name, lambda: self._store.delete(name), lambda _: 0)

    def replace(self, name: str, data: bytes) -> None:
        self._call("replace", name, lambda: self._store.replace(name, data), lambda _: len(data))

    def modified(self, name: str) -> int:
        return self._call("modified", name, lambda: self._store.modified(name), lambda _: 0)

    def _call(self, operation: str, name: str, call: Callable[[], T], size: Callable[[T], int]) -> T:
        began = time.monotonic()
        try:
            result = call()
        except ReplicatorError as exc:
            self._note(operation, name, began, exc, 0)
            raise
        self._note(operation, name, began, None, size(result))
        return result

    def _note(
        self, operation: str, name: str, began: float, error: ReplicatorError | None, size: int, **more: int
    ) -> None:
        answered = error is None or isinstance(error, ObjectExists | ObjectNotFound)
        with self._lock:
            self._counters[operation] += 1
            if not answered:
                self._counters["failed"] += 1
            elif operation in _COUNTED_AS:
                self._counters[_COUNTED_AS[operation]] += size
        if not log.isEnabledFor(logging.DEBUG):
            return
        extra: dict[str, object] = {
            "store": self.url,
            "key": name,
            "duration_ms": round((time.monotonic() - began) * 1000, 1),
            "bytes_out" if operation in ("put", "replace") else "bytes_in": size,
            **more,
        }
        if error is not None:
            extra["error"] = str(error)
        log.debug(f"store.{operation}", extra=extra)
