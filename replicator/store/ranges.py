"""Ranges: a large object is fetched in pieces, some at a time, so that a line that breaks costs one of them.

It lies over the retries, so that each piece is asked for again by itself. The first request brings the start of an
object together with its size: one that is not larger, as nearly all are, costs that request and nothing beside.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from replicator.core.catalogue import Listed
from replicator.core.names import METADATA
from replicator.core.sizes import require_proper_size
from replicator.store.contract import START_BYTES, Kind

# What is lost where a line breaks: two seconds of a line of 32 Mbit/s. A request each is a small price at this size.
RANGE_BYTES = 8 << 20
# As many hide the round trips between them, and together hold 32 MiB, beside the object.
RANGES_AT_A_TIME = 4


class RangedStore:
    """``in_clear``: what goes over the network is not encrypted, since somebody asked for http."""

    def __init__(self, store: Kind, *, in_clear: bool = False) -> None:
        self.in_clear = in_clear
        self._store = store

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, name: str, data: bytes) -> None:
        self._store.put(name, data)

    def get(self, name: str) -> bytes:
        if name == METADATA:
            return self._store.get(name)  # pieces of it might be of the old one and of the new
        start, size = self._store.get_start(name, START_BYTES)
        require_proper_size(name, size)
        if len(start) == size:
            return start
        # Grows with what comes, whatever size was told; its value comes out without being copied.
        found = io.BytesIO()
        found.write(start)
        del start
        writing = threading.Lock()

        def fetch(offset: int) -> None:
            data = self._store.get_range(name, offset, min(RANGE_BYTES, size - offset))
            with writing:
                found.seek(offset)
                found.write(data)

        _each(fetch, range(found.tell(), size, RANGE_BYTES))
        return found.getvalue()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._store.get_range(name, offset, length)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return self._store.list(prefix, after)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def replace(self, name: str, data: bytes) -> None:
        self._store.replace(name, data)

    def modified(self, name: str) -> int:
        return self._store.modified(name)


def _each(fetch: Callable[[int], None], offsets: Iterable[int]) -> None:
    """Some at a time. The first that fails is the error; what is under way then ends, and nothing else begins."""
    with ThreadPoolExecutor(RANGES_AT_A_TIME, thread_name_prefix="range") as pool:
        under_way: set[Future[None]] = set()
        for offset in offsets:
            if len(under_way) == RANGES_AT_A_TIME:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for each in done:
                    each.result()
            under_way.add(pool.submit(fetch, offset))
        for each in under_way:
            each.result()
