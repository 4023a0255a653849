"""Sealed objects: what it is to replace one, and when it was written, where objects are sealed and have revisions."""

from __future__ import annotations

import secrets

import pytest

from replicator.core.errors import KeyRefused, ObjectNotFound, StoreDenied
from replicator.core.key_ring import KeyRing, new_ring, rotated
from replicator.core.names import METADATA, KeyName, LeaseName
from replicator.keys import FixedKeys
from replicator.rekey import Rekeyed, rekey
from replicator.store.contract import PROBES
from replicator.store.sealed import SealedStore
from tests.support.memory_store import FaultyStore, MemoryStore

LEASE = str(LeaseName(1))


def ring_of(number: int = 1) -> KeyRing:
    ring = new_ring("r" * 16, 0, secrets=[secrets.token_bytes(size) for size in (32, 32, 8, 8)])
    for _ in range(number - 1):
        ring = rotated(ring, 0, secrets.token_bytes(32), secrets.token_bytes(8))
    return ring


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


class WithSlot(FixedKeys):
    """Of an agent, which puts its slot before what is sealed with it."""

    def slot(self) -> bytes:  # type: ignore[override]
        return b"the slot"


def test_what_is_replaced_is_sealed(inner: MemoryStore) -> None:
    """Nothing plain reaches the store, each time under a key of its own, and what opens it was put before."""
    store = SealedStore(inner, WithSlot(ring_of()))
    stored = []
    for content in (b"plain " * 20, b"plain " * 20, b"plain and shorter"):
        store.replace(METADATA, content)
        stored.append(inner.get(METADATA))
        assert content == store.get(METADATA)

    assert not any(b"plain" in each for each in stored)
    assert 3 == len(set(stored))
    assert [str(KeyName(1))] == inner.puts
    assert [str(KeyName(1)), METADATA] == inner.names


def test_without_the_key_it_cannot_be_read(inner: MemoryStore) -> None:
    """A ring that lacks its key refuses, and none of its bytes comes out."""
    SealedStore(inner, FixedKeys(ring_of())).replace(METADATA, b"plain")

    with pytest.raises(KeyRefused):
        SealedStore(inner, FixedKeys(ring_of())).get(METADATA)


def test_what_another_one_replaced_is_read_as_it_is_now(inner: MemoryStore) -> None:
    """Whole, in part, and by the key it is sealed with: nothing of the one before is remembered."""
    ring = ring_of()
    reader = SealedStore(inner, FixedKeys(rotated(ring, 0, bytes(32), bytes(8))))
    for keys, content in ((ring, b"0123456789"), (rotated(ring, 0, bytes(32), bytes(8)), b"abcdefghijklm")):
        SealedStore(inner, FixedKeys(keys)).replace(METADATA, content)

        assert content[3:7] == reader.get_range(METADATA, 3, 4)
        assert content == reader.get(METADATA)
        assert keys.active.key_id == reader.key_of(METADATA)


def test_it_never_has_revisions(inner: MemoryStore) -> None:
    """Sealed anew it stays one object of that name, and what lies there as another of it is a stranger's."""
    ring = ring_of(2)
    older = KeyRing(ring.repository, 1, ring.roots[:1], ring.dedup)
    SealedStore(inner, FixedKeys(older)).replace(METADATA, b"content")
    SealedStore(inner, FixedKeys(older)).put(LEASE, b"lease")
    inner.put("metadata.r2.json", b"a stranger's")
    store = SealedStore(inner, FixedKeys(ring))
    for name in (METADATA, LEASE):
        store.seal_anew(name)

    assert ["leases/00000001.r2.json", METADATA, "metadata.r2.json"] == inner.names
    assert [LEASE, METADATA, "metadata.r2.json"] == [listed.name for listed in store.list("")]
    assert b"content" == store.get(METADATA)
    assert {ring.active.key_id} == {store.key_of(name) for name in (METADATA, LEASE)}


def test_a_rekeying_ends_where_it_may_not_be_replaced(inner: MemoryStore) -> None:
    """It is left as it is, instead of being met again and again."""
    ring = ring_of(2)
    older = KeyRing(ring.repository, 1, ring.roots[:1], ring.dedup)
    SealedStore(inner, FixedKeys(older)).replace(METADATA, b"content")
    SealedStore(inner, FixedKeys(older)).put(LEASE, b"lease")
    faulty = FaultyStore(inner)
    for skip in range(5):
        faulty.fail("replace", skip=skip, error=StoreDenied("it may only add"))
    passes: list[Rekeyed] = []
    store = SealedStore(faulty, FixedKeys(ring))
    done = rekey(store, ring.active.key_id, report=passes.append, cancelled=lambda: len(passes) > 5)

    assert (1, 0) == (done.sealed_anew, done.kept)
    assert b"content" == store.get(METADATA)


def test_a_missing_one_costs_one_request(inner: MemoryStore) -> None:
    """No revision of it is looked for."""
    faulty = FaultyStore(inner)
    store = SealedStore(faulty, FixedKeys(ring_of()))
    with pytest.raises(ObjectNotFound):
        store.get(METADATA)

    assert {"get": 1} == dict(faulty.calls)


def test_when_it_was_written_is_told_of_the_revision_that_counts() -> None:
    """Of a probe, which nobody seals, as of anything."""
    times = iter((1_000, 2_000, 3_000, 4_000))
    inner = MemoryStore(wall=lambda: next(times))
    ring = ring_of(2)
    SealedStore(inner, FixedKeys(KeyRing(ring.repository, 1, ring.roots[:1], ring.dedup))).put(LEASE, b"x")
    store = SealedStore(inner, FixedKeys(ring))
    first = store.modified(LEASE)
    store.seal_anew(LEASE)
    store.put(f"{PROBES}a", b"probe")

    assert (1_000, 2_000, 3_000) == (first, store.modified(LEASE), store.modified(f"{PROBES}a"))
    assert 2_000 == SealedStore(inner, FixedKeys(ring)).modified(LEASE)
    assert b"probe" == inner.get(f"{PROBES}a")
    with pytest.raises(ObjectNotFound):
        store.modified(str(LeaseName(2)))
