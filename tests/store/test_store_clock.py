"""The difference between a store's clock and ours, and what keeps it from being known."""

from __future__ import annotations

import pytest

from replicator.core.errors import ObjectNotFound, StoreDenied, StoreUnavailable
from replicator.store.store_clock import clock_difference
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore

HOUR = 3_600_000_000


class Far(MemoryStore):
    """Half of the time that a put takes goes by before it has the object, and its clock is *ahead* of ours."""

    def __init__(self, clock: FakeClock, *, ahead: int = 0, seconds: float = 0.0) -> None:
        super().__init__(wall=lambda: clock.wall() + ahead)
        self._clock, self._seconds = clock, seconds

    def put(self, name: str, data: bytes) -> None:
        self._clock.advance(self._seconds / 2)
        super().put(name, data)
        self._clock.advance(self._seconds / 2)

    def modified(self, name: str) -> int:
        self._clock.advance(100)  # how long it takes to ask changes nothing
        return super().modified(name)


@pytest.mark.parametrize("ahead", [0, 1, -1, HOUR, -HOUR, 24 * HOUR])
@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_it_is_what_the_clocks_differ(ahead: int, seconds: float) -> None:
    """In seconds, positive where the store's is ahead; how far away it is does not count, and nothing is left."""
    clock = FakeClock()
    store = Far(clock, ahead=ahead, seconds=seconds)

    assert ahead / 1_000_000 == clock_difference(store, clock.wall)
    assert [] == store.names


def test_a_store_that_does_not_say_gives_none() -> None:
    """Denied, or gone at once; the probe is deleted all the same."""
    for error in (StoreDenied("it does not say"), ObjectNotFound("gone")):
        inner = MemoryStore()
        store = FaultyStore(inner)
        store.fail("modified", error=error)

        assert clock_difference(store, FakeClock().wall) is None
        assert [] == inner.names


def test_a_store_that_is_away_is_an_error() -> None:
    """Nobody takes that for an answer; and no probe stays if it can be helped."""
    for operation in ("put", "modified"):
        inner = MemoryStore()
        store = FaultyStore(inner)
        store.fail(operation)
        with pytest.raises(StoreUnavailable):
            clock_difference(store, FakeClock().wall)
        assert [] == inner.names


def test_a_probe_that_may_not_be_deleted_is_no_error() -> None:
    """It begins as all probes do."""
    clock = FakeClock()
    inner = MemoryStore(wall=clock.wall)
    store = FaultyStore(inner)
    store.fail("delete", error=StoreDenied("it may only add"))

    assert 0.0 == clock_difference(store, clock.wall)
    assert [True] == [name.startswith(".probe-") for name in inner.names]
