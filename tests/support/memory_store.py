"""Smaller worlds for tests of the parts: a store in memory, a store that fails, a clock that stands still.

Each is a real implementation of the whole interface, held to it by the same suite as the real ones
(tests/store/test_contract.py). None of them is told what to answer.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from replicator.clock import Clock
from replicator.core.catalogue import Listed
from replicator.core.errors import ObjectCorrupt, ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from replicator.store.contract import Kind

_T = TypeVar("_T")


class MemoryStore:
    """Put-once objects in a dictionary. ``puts`` are the names in the order they were taken, ``wall`` is its clock."""

    def __init__(self, url: str = "memory://store", *, wall: Callable[[], int] | None = None) -> None:
        self._url = url
        self._wall = wall or Clock().wall
        self._lock = threading.Lock()
        self._objects: dict[str, bytes] = {}
        self._times: dict[str, int] = {}
        self.puts: list[str] = []

    @property
    def url(self) -> str:
        return self._url

    def put(self, name: str, data: bytes) -> None:
        assert all(part not in ("", ".", "..") for part in name.split("/")), name
        with self._lock:
            if name in self._objects:
                raise ObjectExists(name)
            self._objects[name] = bytes(data)
            self._times[name] = self._wall()
            self.puts.append(name)

    def get(self, name: str) -> bytes:
        with self._lock:
            if name not in self._objects:
                raise ObjectNotFound(name)
            return self._objects[name]

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        found = self.get(name)
        return found[:length], len(found)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        found = self.get(name)[offset : offset + length]
        if len(found) != length:
            raise ObjectCorrupt(f"{name} ends at byte {offset + len(found)}, wanted {offset + length}")
        return found

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        with self._lock:
            found = sorted(
                (name, len(data))
                for name, data in self._objects.items()
                if name.startswith(prefix) and name > after
            )
        for name, size in found:
            yield Listed(name, size)

    def delete(self, name: str) -> None:
        with self._lock:
            self._objects.pop(name, None)

    def replace(self, name: str, data: bytes) -> None:
        with self._lock:
            self._objects[name] = bytes(data)
            self._times[name] = self._wall()

    def modified(self, name: str) -> int:
        with self._lock:
            if name not in self._objects:
                raise ObjectNotFound(name)
            return self._times[name]

    # --- what only a test may do -----------------------------------------------------------------------

    def damage(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Change an object behind everybody's back, as a failing disk or a person would."""
        with self._lock:
            self._objects[name] = change(self._objects[name])

    @property
    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._objects)


class FaultyStore:
    """A store in front of another that fails on request, before or after the effect.

    ``away``: every call fails until it is False again. ``fail`` plans the failure of a later call of an
    operation by its number; ``roll`` lets each call fail by chance, from a seed. ``calls`` counts.
    """

    OPERATIONS = ("put", "get", "get_start", "get_range", "list", "delete", "replace", "modified")

    def __init__(self, inner: Kind) -> None:
        self._inner = inner
        self._planned: dict[tuple[str, int], tuple[bool, StoreError]] = {}
        self._chance = 0.0
        self._rng = random.Random(0)
        self.away = False
        self.calls: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return self._inner.url

    def fail(
        self, operation: str, *, after: bool = False, skip: int = 0, error: StoreError | None = None
    ) -> None:
        """The call of *operation* after the next *skip* ones fails; with *after*, its effect stays."""
        assert operation in self.OPERATIONS, operation
        number = self.calls[operation] + skip + 1
        self._planned[operation, number] = (after, error or StoreUnavailable("the network went away"))

    def roll(self, chance: float, *, seed: int) -> None:
        """From now on each call fails with this *chance*, half of them after the effect."""
        self._chance, self._rng = chance, random.Random(seed)

    def put(self, name: str, data: bytes) -> None:
        self._run("put", lambda: self._inner.put(name, data))

    def get(self, name: str) -> bytes:
        return self._run("get", lambda: self._inner.get(name))

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        return self._run("get_start", lambda: self._inner.get_start(name, length))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._run("get_range", lambda: self._inner.get_range(name, offset, length))

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        yield from self._run("list", lambda: list(self._inner.list(prefix, after)))

    def delete(self, name: str) -> None:
        self._run("delete", lambda: self._inner.delete(name))

    def replace(self, name: str, data: bytes) -> None:
        self._run("replace", lambda: self._inner.replace(name, data))

    def modified(self, name: str) -> int:
        return self._run("modified", lambda: self._inner.modified(name))

    def _run(self, operation: str, call: Callable[[], _T]) -> _T:
        self.calls[operation] += 1
        after, error = self._planned.pop((operation, self.calls[operation]), (False, None))
        if self.away:
            after, error = False, StoreUnavailable("the network is away")
        elif error is None and self._rng.random() < self._chance:
            after, error = self._rng.random() < 0.5, StoreUnavailable("the network is bad")
        if error is not None and not after:
            raise error
        result = call()
        if error is not None:
            raise error
        return result


class FakeClock(Clock):
    """Time that passes only when a test says so. Wall and monotonic time are independent of each other."""

    def __init__(self, now: float = 1_000.0, wall: int = 1_738_044_000_000_000) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> int:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let both go on."""
        assert seconds >= 0
        self._now += seconds
        self._wall += round(seconds * 1_000_000)

    def set_wall(self, micros: int) -> None:
        """Somebody set the machine's clock."""
        self._wall = micros
