"""Keys that nothing needs are destroyed, and only those: with what they sealed, wherever a copy of it may lie.

A station with a key, pruned day by day while keys are rotated. What is needed is worked out from the objects as they
lie there: each says which key it is sealed with.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.core.errors import KeyRefused, StoreDenied, StoreUnavailable
from replicator.core.names import (
    EventName,
    FullName,
    GenerationName,
    LeaseName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
    with_revision,
)
from replicator.key_change import KeyHolders, rotate
from replicator.keys import unlocked
from replicator.slots import key_ids_in, ring_in, slots_in
from replicator.store.sealed import SealedStore
from replicator.unused_keys import SETTLED_SECONDS, destroy_unused
from tests.support.memory_store import FaultyStore, MemoryStore
from tests.support.vault import DAY, SOURCE, Vault, ids, resealed, sealed_under


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault(tmp_path)
    yield vault
    vault.close()


# --- what goes -----------------------------------------------------------------------------------------


def test_s74_day_by_day_the_ring_holds_what_is_needed_and_nothing_else(vault: Vault) -> None:
    """A key goes once nothing that is kept is sealed with it and it was replaced two days ago; never the active one."""
    gone: list[str] = []
    replaced: dict[str, int] = {}
    for day in range(14):
        if day % 2 == 0:
            before = vault.ring.active.key_id
            vault.rotate()
            replaced[before] = vault.clock.wall()
        vault.day()
        gone += vault.destroy()
        used = set(sealed_under(vault.inner))
        settled = vault.clock.wall() - SETTLED_SECONDS * 1_000_000
        young = {each for each, time in replaced.items() if time >= settled}

        assert {vault.ring.active.key_id} | used | young == ids(vault.ring)
        assert ids(vault.ring) == key_ids_in(vault.inner)
        assert not used & set(gone)
    vault.require_open()
    assert len(gone) >= 4
    assert list(replaced)[: len(gone)] == gone  # the oldest first


def test_s74_what_was_deleted_opens_for_nobody_any_more(vault: Vault) -> None:
    """A copy of it that a bucket or a disk kept: not with the operator's key and any slot that is left."""
    name = next(each for each in vault.objects.names if each.endswith(".full"))
    copy = vault.objects.get(name)
    assert unlocked(vault.inner, SOURCE).get(name)
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    assert name not in vault.objects.names
    assert (old,) == vault.destroy()
    vault.objects.put(name, copy)

    with pytest.raises(KeyRefused, match="not in the key ring"):
        unlocked(vault.inner, SOURCE).get(name)
    for slot in slots_in(vault.inner):
        assert old.encode() not in vault.objects.get(str(slot))
    assert old not in Path(vault.state.keys_path).read_text()


def test_records_that_outlive_everything_are_sealed_anew(vault: Vault) -> None:
    """Leases and the record of a generation stay as long as the repository: a key does not stay for them."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    under = sealed_under(vault.inner)[old]
    assert under
    assert all(isinstance(parse_name(each), GenerationName | LeaseName | EventName) for each in under)
    assert (old,) == vault.destroy()
    vault.require_open()


# --- and what stays ------------------------------------------------------------------------------------


def test_s74_nothing_is_destroyed_before_two_days(vault: Vault) -> None:
    """An agent that was frozen may still put what it sealed before."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(4):
        vault.day()
    wall = vault.clock.wall()
    rotated = vault.ring.roots[-1].created
    assert wall - rotated > SETTLED_SECONDS * 1_000_000
    vault.clock.set_wall(rotated + SETTLED_SECONDS * 1_000_000)
    assert () == vault.destroy()
    assert old in ids(vault.ring)
    vault.clock.set_wall(rotated + SETTLED_SECONDS * 1_000_000 + 1)
    assert (old,) == vault.destroy()


@pytest.mark.parametrize("kind", [FullName, PackName, LogName, SegmentName])
@pytest.mark.parametrize("where", ["first", "second"])
def test_s74_one_object_in_one_store_keeps_its_key(vault: Vault, kind: type, where: str) -> None:
    """Of whatever kind and however old it says it is; and once it is gone the key goes."""
    old = vault.ring.active.key_id
    roots = vault.ring
    names = [each for each in vault.objects.names if isinstance(parse_name(each), kind)]
    vault.rotate()
    for _ in range(5):
        vault.day()
    second = vault.copy_to_second()
    store = vault.objects if where == "first" else second
    if kind is LogName:
        newest = [each for each in store.names if isinstance(parse_name(each), LogName)][-1]
        content = store.get(newest)
        plain = unlocked(store, SOURCE).get(newest)
        store.damage(newest, lambda _: resealed(newest, plain, roots))
    elif kind is SegmentName:
        newest = [each for each in store.names if isinstance(parse_name(each), SegmentName)][-1]
        content = store.get(newest)
        plain = unlocked(store, SOURCE).get(newest)
        store.damage(newest, lambda _: resealed(newest, plain, roots))
    else:
        newest = names[0]
        content = None
        store.put(newest, resealed(newest, b"what it holds does not matter", roots))

    assert () == vault.destroy()
    assert old in ids(vault.ring)
    if content is None:
        store.delete(newest)
    else:
        store.damage(newest, lambda _: content)
    assert (old,) == vault.destroy()
    vault.require_open()


def test_a_record_that_may_not_be_sealed_anew_keeps_its_key(vault: Vault) -> None:
    """A store with an object lock: nothing is lost, and nothing breaks."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    under = len(sealed_under(vault.inner)[old])
    for number in range(under):
        vault.faulty.fail("delete", skip=number, error=StoreDenied("it is locked"))
    vault.faulty.fail("put", error=StoreDenied("nothing may be put"))
    assert () == vault.destroy()

    assert old in ids(vault.ring)
    vault.require_open()


def test_a_store_that_is_away_keeps_all_keys(vault: Vault) -> None:
    """Nobody knows what it holds."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    vault.copy_to_second()
    assert vault.second is not None
    vault.second.away = True
    with pytest.raises(StoreUnavailable):
        vault.destroy()
    vault.second.away = False
    assert old in ids(vault.ring)
    assert (old,) == vault.destroy()


def test_where_nothing_was_rotated_hardly_anything_is_asked(vault: Vault) -> None:
    """No listing of all; and with older backups there, no look at each object."""
    vault.day()
    before = vault.faulty.calls.copy()
    assert () == vault.destroy()
    assert sum((vault.faulty.calls - before).values()) < 8
    vault.clock.advance(DAY)
    vault.rotate()
    for _ in range(3):
        vault.clock.advance(DAY)
    before = vault.faulty.calls.copy()
    assert () == vault.destroy()
    assert vault.faulty.calls["get_range"] == before["get_range"]


# --- what comes between --------------------------------------------------------------------------------

REQUESTS = [
    ("put", False), ("put", True), ("delete", False), ("delete", True), ("get", False), ("get_range", False),
    ("list", False),
]  # fmt: skip


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("operation", "after"), REQUESTS)
def test_s74_one_that_ends_anywhere_loses_nothing_and_goes_on(
    vault: Vault, operation: str, number: int, after: bool
) -> None:
    """At each request to either of two stores: everything opens in both, and the next one ends it in both."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    second = vault.copy_to_second()
    contents = [{name: each.get(name) for name in each.names} for each in (vault.objects, second)]
    slot = Path(vault.state.keys_path).read_bytes()
    for count in itertools.count(0, 1 if operation in ("put", "delete") else 7):
        vault.plain[number].fail(operation, skip=count, after=after)
        try:
            done = vault.destroy()
        except StoreUnavailable:
            done = ()
        reached = vault.plain[number]._planned == {}
        vault.plain[number]._planned.clear()
        vault.require_open()
        vault.destroy()
        for each in vault.plain:
            assert {vault.ring.active.key_id} == key_ids_in(each)
            assert old not in sealed_under(each)
        assert old not in Path(vault.state.keys_path).read_text()
        vault.require_open()
        if not reached:
            break
        _put_back(vault, (vault.objects, second), contents, slot)
    assert (old,) == done
    assert count > 0


def _put_back(
    vault: Vault, stores: tuple[MemoryStore, ...], contents: list[dict[str, bytes]], slot: bytes
) -> None:
    """As it was before."""
    for store, content in zip(stores, contents, strict=True):
        for name in store.names:
            if name not in content:
                store.delete(name)
        for name, data in content.items():
            store.replace(name, data)
    Path(vault.state.keys_path).write_bytes(slot)
    vault.keys.open()


class Between(FaultyStore):
    """Somebody else comes when it is asked for the n-th time."""

    def __init__(self, inner: MemoryStore, comes: Callable[[], None], when: int) -> None:
        super().__init__(inner)
        self.comes, self.when = comes, when

    def _run(self, operation: str, call):  # type: ignore[no-untyped-def]
        if sum(self.calls.values()) == self.when:
            self.when = -1
            self.comes()
        return super()._run(operation, call)


def test_s74_a_rotation_while_it_runs_is_not_lost(vault: Vault) -> None:
    """At whatever request it comes: its key is in the ring and seals what is new; the old one goes, now or then."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    content = {name: vault.objects.get(name) for name in vault.objects.names}
    slot = Path(vault.state.keys_path).read_bytes()
    refused = 0
    for when in itertools.count(0, 3):
        made: list[str] = []

        def comes(made: list[str] = made) -> None:
            theirs = KeyHolders([vault.inner], SOURCE, vault.state.keys_path)
            made.append(rotate(theirs, vault.clock.wall()).active.key_id)

        between = Between(vault.objects, comes, when)
        holders = KeyHolders([between], SOURCE, vault.state.keys_path)
        try:
            destroy_unused([SealedStore(between, vault.keys)], holders, vault.clock.wall())
        except KeyRefused:
            refused += 1
        vault.keys.look()
        if not made:
            break
        assert made[0] in ids(vault.ring)
        vault.destroy()
        assert old not in ids(vault.ring)
        assert vault.ring.active.key_id == made[0]
        assert key_ids_in(vault.inner) == ids(vault.ring)
        vault.require_open()
        _put_back(vault, (vault.objects,), [content], slot)
    assert when > 10
    assert refused


def test_what_a_sealing_anew_left_behind_is_no_damage_afterwards(vault: Vault) -> None:
    """It died before it deleted the record as it was: that goes, before nobody can open it any more."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    name = min(sealed_under(vault.inner)[old])
    before = vault.objects.get(name)
    SealedStore(vault.inner, vault.keys).seal_anew(name)
    vault.objects.put(name, before)
    assert with_revision(name, 2) in vault.objects.names
    assert (old,) == vault.destroy()

    assert name not in vault.objects.names
    vault.require_open()


def test_an_agent_goes_on_with_the_ring_that_is_left(vault: Vault) -> None:
    """It seals with what it has, and so does the next one."""
    vault.rotate()
    for _ in range(5):
        vault.day()
    assert vault.destroy()
    vault.day()
    vault.restart()
    vault.day()
    vault.require_open()


def test_a_slot_that_a_store_does_not_let_go_of_is_no_reason_to_stop(vault: Vault) -> None:
    """The ring is without the key all the same; the slot goes the next time."""
    old = vault.ring.active.key_id
    vault.rotate()
    for _ in range(5):
        vault.day()
    under = len(sealed_under(vault.inner)[old])
    vault.faulty.fail("delete", skip=under, error=StoreDenied("not now"))
    assert (old,) == vault.destroy()
    vault.destroy()

    assert {vault.ring.active.key_id} == key_ids_in(vault.inner)
    assert ring_in(vault.inner, SOURCE.read()) is not None
    vault.require_open()
