"""Encrypted on one side, plain on the other: against a store that is not, against whoever changes what is stored,
and against rings that do not fit."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import seal as seal_module
from replicator.core.catalogue import Listed
from replicator.core.errors import (
    FormatTooNew,
    KeyRefused,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
)
from replicator.core.key_ring import KeyRing, new_ring, rotated, without_roots, wrap
from replicator.core.names import METADATA
from replicator.core.operator_key import OperatorKey
from replicator.core.records import RepositoryRecord, encode_record
from replicator.core.seal import parse_header, plain_length, unseal
from replicator.keys import KEY, FixedKeys, KeySource, unlocked
from replicator.store import sealed as sealed_module
from replicator.store.sealed import SealedStore
from tests.support.memory_store import FaultyStore, MemoryStore

REPOSITORY = "ab" * 16
OPERATOR = OperatorKey(hashlib.sha256(b"the operator's").digest())
OTHER_OPERATOR = OperatorKey(hashlib.sha256(b"somebody else's").digest())


def ring_of(*words: str) -> KeyRing:
    """A ring with a root for each word, the last one active."""
    secrets = [hashlib.sha256(word.encode()).digest() for word in words]
    ring = new_ring(
        REPOSITORY, 1_000, secrets=[secrets[0], secrets[0][::-1], secrets[0][:8], secrets[0][8:16]]
    )
    for secret in secrets[1:]:
        ring = rotated(ring, 2_000, secret, secret[:8])
    return ring


def slot_of(ring: KeyRing, key: OperatorKey = OPERATOR) -> bytes:
    return wrap(ring, [key], [bytes(31) + bytes([ring.number])])


RING = ring_of("one")
TWO = ring_of("one", "two")
NAME = "tail/0123456789abcdef/0000000000000001.segment"
PACK = "full/2025/01/28/20250128T060000Z-0123456789abcdef-0000000000000001-00000000000000aa.pack"


class Held:
    """What an agent holds: a ring and its slot; ``later`` is what it finds when it looks again."""

    def __init__(self, ring: KeyRing | None, later: KeyRing | None = None) -> None:
        self.held = ring
        self.later = later
        self.looks = 0

    def ring(self) -> KeyRing | None:
        return self.held

    def again(self) -> KeyRing | None:
        self.looks += 1
        self.held = self.later or self.held
        return self.held

    def slot(self) -> bytes | None:
        return slot_of(self.held) if self.held is not None else None


def agent(
    inner: MemoryStore | FaultyStore, ring: KeyRing = RING, later: KeyRing | None = None
) -> SealedStore:
    return SealedStore(inner, Held(ring, later))


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


# --- one side and the other ----------------------------------------------------------------------------


@given(data=st.data(), frame_log2=st.integers(1, 6))
def test_every_part_is_what_a_plain_store_gives(data: st.DataObject, frame_log2: int) -> None:
    """Offsets and lengths at all boundaries of frames and beyond: the same bytes, or the same error."""
    size = data.draw(st.integers(0, 300) | st.integers(0, 4).map(lambda n: n << frame_log2), label="size")
    content = (bytes(range(256)) * 2)[:size]
    plain, inner = MemoryStore(), MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seal_module, "FRAME_LOG2", frame_log2)
        patch.setattr(seal_module, "FRAME_BYTES", 1 << frame_log2)
        store = agent(inner)
        for each in (plain, store):
            each.put(PACK, content)
        assert content == store.get(PACK)
        near = st.sampled_from(
            sorted({max(0, n + d) for n in (0, 1 << frame_log2, 2 << frame_log2, size) for d in (-1, 0, 1)})
        )
        for _ in range(10):
            offset = data.draw(near | st.integers(0, 310), label="offset")
            length = data.draw(near | st.integers(0, 310), label="length")
            if offset + length <= size:
                assert plain.get_range(PACK, offset, length) == store.get_range(PACK, offset, length)
            else:
                with pytest.raises(ObjectCorrupt, match=f"{PACK} ends at byte {size}"):
                    store.get_range(PACK, offset, length)
        assert [Listed(PACK, size)] == list(store.list("full/"))


def test_a_part_costs_the_frames_it_lies_in_and_the_header_once(inner: MemoryStore) -> None:
    """64 bytes the first time, then only what is asked for, rounded up to frames of 64 KiB."""
    asked: list[tuple[int, int]] = []

    class Asked(FaultyStore):
        def get_range(self, name: str, offset: int, length: int) -> bytes:
            asked.append((offset, length))
            return super().get_range(name, offset, length)

    store = agent(Asked(inner))
    content = bytes(range(256)) * 1024
    store.put(PACK, content)
    ranges = [(65_535, 2), (200_000, 10), (65_536, 65_536), (0, 0)]
    frame = 65_536 + 16

    assert [content[at : at + size] for at, size in ranges] == [
        store.get_range(PACK, *each) for each in ranges
    ]
    assert [(0, 64), (64, 2 * frame), (64 + 3 * frame, frame), (64 + frame, frame)] == asked


def test_sizes_are_those_of_what_is_in_the_objects(inner: MemoryStore) -> None:
    """So a pack that was cut off is short for whoever knows how long it has to be."""
    store = agent(inner)
    sizes = [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000]
    for size in sizes:
        store.put(f"full/{size:08d}.pack", bytes(size))
    found = {each.name: each.size for each in store.list("full/")}
    inner.damage("full/00200000.pack", lambda data: data[:-1])

    assert {f"full/{size:08d}.pack": size for size in sizes} == found
    assert [Listed("full/00200000.pack", 199_999)] == list(store.list("full/002"))
    assert 0 == plain_length(0) == plain_length(111)


def test_all_but_the_record_and_the_slots_is_sealed(inner: MemoryStore) -> None:
    """What tells how to open the rest, and what only tries the server, lies there as it is."""
    store = agent(inner)
    plain = ("repository.json", "keys/00000001.json", "keys/more", ".probe-1")
    sealed = (
        NAME,
        PACK,
        "leases/00000001.json",
        "generations/0123456789abcdef.json",
        "metadata.json",
        "people",
    )
    held = Held(None)
    for name in (*plain[1:], *sealed, plain[0]):
        if name != "keys/00000001.json":
            store.put(name, b"the content of " + name.encode())

    for name in sealed:
        assert inner.get(name).startswith(b"RPLSEAL\1")
        assert b"the content" not in inner.get(name)
        assert b"the content of " + name.encode() == store.get(name)
    for name in plain:
        if name != "keys/00000001.json":
            assert b"the content of " + name.encode() == inner.get(name) == store.get(name)
            assert 3 == len(store.get_range(name, 4, 3))
    assert held.slot() is None


def test_each_kind_is_sealed_as_its_own(inner: MemoryStore) -> None:
    """Record, manifest, pack, segment: one that lies under the name of another kind is refused."""
    store = agent(inner)
    names = {"leases/00000001.json": 1, "full/a.full": 2, "full/a.pack": 3, "tail/a.segment": 4}
    for name, kind in names.items():
        store.put(name, b"content")
        assert kind == parse_header(inner.get(name), name).kind
        assert b"content" == unseal(inner.get(name), name, kind, lambda _: RING.active.secret)


def test_a_plain_repository_is_what_it_was(inner: MemoryStore) -> None:
    """Without a ring nothing is changed in either direction, and no slot is put."""
    store = SealedStore(inner, Held(None))
    store.put(NAME, b"content")

    assert b"content" == inner.get(NAME) == store.get(NAME)
    assert b"ten" == store.get_range(NAME, 3, 3)
    assert [Listed(NAME, 7)] == list(store.list("tail/"))
    assert [NAME] == inner.names
    assert store.key_of(NAME) is None


def test_two_puts_of_the_same_have_nothing_in_common(inner: MemoryStore) -> None:
    """Salts are drawn anew: no nonce is used twice under one key, whatever is put again."""
    store = agent(inner)
    store.put(NAME, bytes(1000))
    store.put(NAME.replace("1.seg", "2.seg"), bytes(1000))
    one, two = (inner.get(name) for name in (NAME, NAME.replace("1.seg", "2.seg")))

    assert parse_header(one, "a").salt != parse_header(two, "b").salt
    assert one[64:-32] != two[64:-32]


def test_an_object_that_exists_is_still_told_of(inner: MemoryStore) -> None:
    """Put-once is the store's: the second put meets ObjectExists, whatever it was sealed with."""
    store = agent(inner)
    store.put(NAME, b"first")
    with pytest.raises(ObjectExists):
        store.put(NAME, b"first")

    assert b"first" == store.get(NAME)


# --- damage --------------------------------------------------------------------------------------------


def test_whatever_was_changed_is_noticed(inner: MemoryStore) -> None:
    """Every byte of a small object: refused as a whole and, where it matters to it, in part; with its name."""
    store = agent(inner)
    store.put(NAME, b"some content")
    original = inner.get(NAME)
    for place in range(len(original)):
        inner.damage(NAME, lambda _, p=place: original[:p] + bytes([original[p] ^ 1]) + original[p + 1 :])
        reader = agent(inner)
        with pytest.raises(ObjectCorrupt, match=NAME):
            reader.get(NAME)
        if place < len(original) - 32:  # behind it lies the digest, which nobody asks of a part
            with pytest.raises(ObjectCorrupt, match=NAME):
                reader.get_range(NAME, 5, 3)


def test_a_later_format_is_no_damage(inner: MemoryStore) -> None:
    """One that has the digest that belongs to it is refused by name, as a whole and in part."""
    store = agent(inner)
    store.put(NAME, b"some content")
    later = inner.get(NAME)[:7] + b"\2" + inner.get(NAME)[8:-32]
    inner.damage(NAME, lambda _: later + hashlib.sha256(NAME.encode() + b"\0" + later).digest())
    for read in (lambda each: each.get(NAME), lambda each: each.get_range(NAME, 5, 3)):
        with pytest.raises(FormatTooNew, match="format 2"):
            read(agent(inner))


def test_two_objects_that_were_swapped_are_noticed(inner: MemoryStore) -> None:
    """Both are authentic, and neither under the name of the other."""
    store = agent(inner)
    other = NAME.replace("1.seg", "2.seg")
    store.put(NAME, b"the first of them")
    store.put(other, b"the other of them")
    one, two = inner.get(NAME), inner.get(other)
    inner.damage(NAME, lambda _: two)
    inner.damage(other, lambda _: one)
    reader = agent(inner)
    for name in (NAME, other):
        with pytest.raises(ObjectCorrupt, match=name):
            reader.get(name)
        with pytest.raises(ObjectCorrupt, match=name):
            reader.get_range(name, 0, 3)


def test_a_plain_object_in_an_encrypted_repository_is_refused(inner: MemoryStore) -> None:
    """Who may write to the store, and has no key, cannot slip anything in: not whole, not in part."""
    store = agent(inner)
    inner.put(NAME, b"RPLUNIT\1 and more, as a plain repository would have it" * 3)
    with pytest.raises(ObjectCorrupt, match="not encrypted, as everything in this repository is"):
        store.get(NAME)
    with pytest.raises(ObjectCorrupt, match="not encrypted"):
        store.get_range(NAME, 0, 4)


def test_an_answer_that_was_damaged_on_the_way_is_not_remembered(inner: MemoryStore) -> None:
    """A header that came wrong once is asked for again: the object is not lost for as long as the agent runs."""
    store = agent(inner)
    store.put(PACK, bytes(range(200)))
    original = inner.get(PACK)
    for place in (8, 19, 25, 40):
        reader = agent(inner)
        inner.damage(PACK, lambda _, p=place: original[:p] + bytes([original[p] ^ 1]) + original[p + 1 :])
        with pytest.raises((ObjectCorrupt, KeyRefused)):
            reader.get_range(PACK, 10, 5)
        inner.damage(PACK, lambda _: original)
        if place != 25:
            assert bytes(range(10, 15)) == reader.get_range(PACK, 10, 5)


def test_a_name_that_is_put_again_is_another_object(inner: MemoryStore) -> None:
    """What was known of the one that was deleted is forgotten."""
    store = agent(inner)
    store.put(PACK, bytes(100))
    store.get_range(PACK, 0, 10)
    store.delete(PACK)
    store.put(PACK, bytes(range(100)))

    assert bytes(range(90, 100)) == store.get_range(PACK, 90, 10)


def test_what_is_replaced_is_read_as_it_is_now(inner: MemoryStore) -> None:
    """Whole, in part, and by its key, also where somebody else replaced it: the one before is not remembered."""
    agent(inner).put(METADATA, b"first")
    store = agent(inner, TWO)
    for number, writer in enumerate((store, agent(inner, TWO), store)):
        assert [store.get_range(METADATA, 0, 3), store.key_of(METADATA)] == (
            [b"fir", RING.active.key_id] if number == 0 else [b"the", TWO.active.key_id]
        )
        writer.replace(METADATA, b"the next one, number %d" % number)
        assert b"the next one, number %d" % number == store.get(METADATA)

    assert inner.get(METADATA).startswith(b"RPLSEAL")
    assert [METADATA] == [each.name for each in store.list("metadata")]


def test_few_headers_are_held(inner: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; who comes back to one reads it again."""
    monkeypatch.setattr(sealed_module, "HEADERS_KEPT", 2)
    counted = FaultyStore(inner)
    store = agent(counted)
    for number in range(3):
        store.put(f"full/{number}.pack", bytes([number]) * 10)
    for number in (0, 1, 2, 2, 1, 0):
        assert bytes([number]) == store.get_range(f"full/{number}.pack", 5, 1)

    assert 6 + 4 == counted.calls["get_range"]


# --- slots ---------------------------------------------------------------------------------------------


def test_the_slot_is_there_before_anything_that_needs_it(inner: MemoryStore) -> None:
    """The first sealed object follows its slot, and the slot is put once."""
    store = agent(inner)
    store.put("repository.json", b"{}")
    store.put(NAME, b"content")
    store.put(PACK, b"content")

    assert ["repository.json", "keys/00000001.json", NAME, PACK] == inner.puts
    assert slot_of(RING) == inner.get("keys/00000001.json")


def test_nothing_is_sealed_where_the_slot_cannot_be_put(inner: MemoryStore) -> None:
    """A store that fails at the slot, before or after its effect, has no object that nobody could open."""
    for after in (False, True):
        faulty = FaultyStore(inner)
        faulty.fail("put", after=after)
        store = agent(faulty)
        with pytest.raises(StoreUnavailable):
            store.put(NAME, b"content")
        assert NAME not in inner.names
        store.put(NAME, b"content")
        assert ["keys/00000001.json", NAME] == inner.names
        for name in inner.names:
            inner.delete(name)


def test_a_rotation_puts_another_slot_first(inner: MemoryStore) -> None:
    """What is sealed with a new root is behind the slot that holds it; the old slot stays, and is not put again."""
    held = Held(RING)
    store = SealedStore(inner, held)
    store.put(NAME, b"old")
    held.held = TWO
    store.put(PACK, b"new")
    store.put("leases/00000001.json", b"newer")

    assert ["keys/00000001.json", NAME, "keys/00000002.json", PACK, "leases/00000001.json"] == inner.puts
    assert [RING.active.key_id, TWO.active.key_id] == [store.key_of(name) for name in (NAME, PACK)]
    assert [b"old", b"new"] == [store.get(name) for name in (NAME, PACK)]


def test_an_agent_with_another_ring_is_refused(inner: MemoryStore) -> None:
    """Two that each made a ring of their own cannot seal into one store: the second is told, and puts nothing."""
    agent(inner).put(NAME, b"content")
    other = agent(inner, ring_of("another"))
    with pytest.raises(KeyRefused, match=r"holds another key ring as keys/00000001\.json") as caught:
        other.put(PACK, b"content")

    assert 12 == caught.value.exit_code
    assert PACK not in inner.names
    agent(inner).put(PACK, b"ours may")
    assert b"ours may" == agent(inner).get(PACK)


def test_who_only_reads_puts_no_slot(inner: MemoryStore) -> None:
    """Nor anything else."""
    agent(inner).put(NAME, b"content")
    before = list(inner.puts)
    reader = SealedStore(inner, FixedKeys(RING))

    assert b"content" == reader.get(NAME)
    assert before == inner.puts


# --- rings that do not fit -----------------------------------------------------------------------------


def test_a_key_that_was_added_meanwhile_is_looked_for(inner: MemoryStore) -> None:
    """An object under a root that is not in the ring: the ring is asked for once more, and then it is there."""
    agent(inner, TWO).put(NAME, b"content" * 20)
    for read in (lambda s: s.get(NAME), lambda s: s.get_range(NAME, 0, 140)):
        held = Held(RING, later=TWO)
        store = SealedStore(inner, held)
        assert b"content" * 20 == read(store)
        assert b"content" * 20 == read(store)
        assert 1 == held.looks


def test_a_key_that_is_nowhere_is_refused_by_its_id(inner: MemoryStore) -> None:
    """With exit code 12 and the name of the object: nothing is wrong with that."""
    agent(inner, ring_of("another")).put(NAME, b"content")
    held = Held(RING)
    for read in (lambda s: s.get(NAME), lambda s: s.get_range(NAME, 0, 1)):
        with pytest.raises(
            KeyRefused, match=f"{NAME} is sealed with key {ring_of('another').active.key_id}"
        ) as caught:
            read(SealedStore(inner, held))
        assert 12 == caught.value.exit_code


def test_a_root_under_a_wrong_id_opens_nothing(inner: MemoryStore) -> None:
    """A ring whose root has the right id and another secret: ObjectCorrupt, never other bytes."""
    agent(inner).put(NAME, b"content")
    forged = KeyRing(REPOSITORY, 1, (TWO.active.__class__(RING.active.key_id, 0, bytes(32)),), RING.dedup)
    with pytest.raises(ObjectCorrupt, match=NAME):
        agent(inner, forged).get(NAME)


# --- whoever reads a store with the operator's key -----------------------------------------------------


def repository(*features: str) -> bytes:
    return encode_record(RepositoryRecord(REPOSITORY, "2025-01-28T06:00:00Z", features))


def encrypted(inner: MemoryStore, ring: KeyRing = RING) -> MemoryStore:
    inner.put("repository.json", repository("sealed"))
    agent(inner, ring).put(NAME, b"content")
    return inner


def source(key: OperatorKey = OPERATOR) -> KeySource:
    return KeySource({KEY: key.secret.hex()})


def test_the_key_opens_the_store(inner: MemoryStore) -> None:
    """The record says that it is encrypted, a slot holds the ring, and the operator's key opens that."""
    store = unlocked(encrypted(inner), source())

    assert b"content" == store.get(NAME)
    assert repository("sealed") == store.get("repository.json")


def test_the_newest_slot_that_opens_counts(inner: MemoryStore) -> None:
    """Also where there are newer ones for somebody else, and strays."""
    encrypted(inner)
    agent(inner, TWO).put(PACK, b"newer")
    three = ring_of("one", "two", "three")
    inner.put("keys/00000003.json", slot_of(three, OTHER_OPERATOR))
    inner.put("keys/README", b"people")
    store = unlocked(inner, source())

    assert [b"content", b"newer"] == [store.get(name) for name in (NAME, PACK)]
    assert b"content" == unlocked(inner, source(OTHER_OPERATOR)).get(NAME)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (KeySource({}), "is encrypted, and no key is given"),
        (source(OTHER_OPERATOR), f"is not opened by key {OTHER_OPERATOR.fingerprint}; it wants key"),
    ],
    ids=["none", "wrong"],
)
def test_without_the_key_nothing_is_read(inner: MemoryStore, given: KeySource, message: str) -> None:
    """None, or a wrong one: refused with exit code 12, whole, in part and in a listing."""
    encrypted(inner)
    for read in (
        lambda s: s.get(NAME),
        lambda s: s.get_range(NAME, 0, 1),
        lambda s: list(s.list("tail/")),
        lambda s: s.put("tail/x.segment", b"x"),
    ):
        with pytest.raises(KeyRefused, match=message) as caught:
            read(unlocked(inner, given))
        assert 12 == caught.value.exit_code


def test_a_record_that_was_replaced_by_a_plain_one_is_refused(inner: MemoryStore) -> None:
    """Somebody who may write wants to be sent what is plain, or believed: who has a key does not go along."""
    encrypted(inner)
    inner.damage("repository.json", lambda _: repository())
    inner.put(PACK, b"RPLPACK\1 a pack of somebody else's")
    for name in (NAME, PACK):
        with pytest.raises(KeyRefused, match=r"a key is given, and .* is not encrypted") as caught:
            unlocked(inner, source()).get(name)
        assert 12 == caught.value.exit_code


def test_a_record_that_was_lost_does_not_make_it_plain(inner: MemoryStore) -> None:
    """That there are slots says so."""
    encrypted(inner).delete("repository.json")

    assert b"content" == unlocked(inner, source()).get(NAME)
    with pytest.raises(KeyRefused):
        unlocked(inner, KeySource({})).get(NAME)


def test_slots_that_were_lost_are_told_of(inner: MemoryStore) -> None:
    """Encrypted, and nothing that could open it: refused, with where to look."""
    encrypted(inner).delete("keys/00000001.json")
    with pytest.raises(KeyRefused, match="its key slots are gone"):
        unlocked(inner, source()).get(NAME)


def test_the_ring_of_another_repository_is_refused(inner: MemoryStore) -> None:
    """A slot that was copied from elsewhere, and opens, does not belong here."""
    encrypted(inner)
    other = new_ring("cd" * 16, 1_000, secrets=[bytes(32), bytes(32), bytes(8), bytes(8)])
    inner.damage("keys/00000001.json", lambda _: slot_of(other))
    with pytest.raises(ObjectCorrupt, match="of another repository"):
        unlocked(inner, source()).get(NAME)


def test_a_slot_that_is_none_is_passed_over(inner: MemoryStore) -> None:
    """The number is bound to the ring: an old slot cannot be put forward as the newest, nor can rubbish keep one from
    what the right slot opens."""
    encrypted(inner)
    agent(inner, TWO).put(PACK, b"newer")
    inner.put("keys/00000009.json", slot_of(RING))
    inner.put("keys/00000010.json", b"{")

    assert b"newer" == unlocked(inner, source()).get(PACK)


def test_where_no_slot_is_whole_the_newest_is_named(inner: MemoryStore) -> None:
    """What is damaged is no reason to look for another key."""
    encrypted(inner)
    inner.damage("keys/00000001.json", lambda _: b"{")
    with pytest.raises(ObjectCorrupt, match=r"keys/00000001\.json is no key slot"):
        unlocked(inner, source()).get(NAME)


def test_a_damaged_record_is_as_good_as_lost(inner: MemoryStore) -> None:
    """That there are slots says that it is encrypted, and the key opens it."""
    encrypted(inner)
    expected = unlocked(inner, source()).get(NAME)
    inner.damage("repository.json", lambda content: content[:-10])

    assert expected == unlocked(inner, source()).get(NAME)


def test_who_takes_away_slots_and_record_cannot_slip_in(inner: MemoryStore) -> None:
    """Without the two it looks like a plain repository, and a key is given: what lies there is not what was put."""
    encrypted(inner)
    for name in ("repository.json", "keys/00000001.json"):
        inner.delete(name)
    inner.put("full/2025/01/28/20250128T020000Z-0123456789abcdef-0000000000000000.full", b"of the thief")
    with pytest.raises(KeyRefused, match="is not encrypted"):
        unlocked(inner, source()).get(NAME)


def test_an_empty_store_is_neither(inner: MemoryStore) -> None:
    """There is nothing yet that could be encrypted: who asks finds that nothing is there."""
    with pytest.raises(ObjectNotFound):
        unlocked(inner, source()).get("repository.json")
    assert [] == list(unlocked(inner, source()).list(""))


def test_the_ring_is_opened_once_by_many_threads(inner: MemoryStore) -> None:
    """Threads: a passphrase costs 0.3 s, and is worked through once for all of them."""
    counted = FaultyStore(encrypted(inner))
    store = unlocked(counted, source())
    ready = threading.Barrier(8)
    found: list[bytes] = []

    def read() -> None:
        ready.wait()
        found.append(store.get(NAME))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [b"content"] * 8 == found
    assert 1 == counted.calls["list"]
    assert 8 + 2 == counted.calls["get"]


# --- revisions -----------------------------------------------------------------------------------------


def revised(name: str, number: int) -> str:
    stem, dot, ending = name.rpartition(".")
    return f"{stem}.r{number}{dot}{ending}"


@pytest.mark.parametrize("name", [NAME, PACK, "leases/00000001.json", "full/a.full"])
def test_what_is_sealed_anew_is_called_what_it_was(inner: MemoryStore, name: str) -> None:
    """Stored as a revision of its own and under the new key, the old one is gone, and nobody above knows of it."""
    agent(inner).put(name, b"content")
    store = agent(inner, TWO)
    before = [listed for listed in store.list("") if listed.name == name]
    store.seal_anew(name)

    assert b"content" == store.get(name)
    assert b"ten" == store.get_range(name, 3, 3)
    assert revised(name, 2) in inner.names
    assert name not in inner.names
    assert TWO.active.key_id == store.key_of(name)
    for each in (store, agent(inner, TWO), agent(inner, without_roots(TWO, {RING.active.key_id}))):
        assert before == [listed for listed in each.list("") if listed.name == name]
        assert before == list(each.list(name))
        assert b"content" == each.get(name)
        assert b"ten" == each.get_range(name, 3, 3)


def test_who_reads_meanwhile_finds_either(inner: MemoryStore) -> None:
    """A reader that knew the first revision, or the second, looks for the next one where that is gone."""
    agent(inner).put(PACK, bytes(range(100)))
    reader = agent(inner, TWO)
    reader.get_range(PACK, 0, 1)
    for _ in range(2):
        agent(inner, TWO).seal_anew(PACK)
        assert bytes(range(50, 60)) == reader.get_range(PACK, 50, 10)
        assert bytes(range(100)) == reader.get(PACK)

    assert [revised(PACK, 3)] == [name for name in inner.names if name.endswith(".pack")]


def test_of_several_revisions_the_highest_counts(inner: MemoryStore) -> None:
    """By number, not by spelling; all but one are leftovers, and may be damaged or sealed with a lost key."""
    store = agent(inner, TWO)
    for number in (2, 10, 9):
        inner.put(revised(NAME, number), seal_as(revised(NAME, number), str(number).encode()))
    agent(inner, ring_of("lost")).plain.put(NAME, b"damaged")
    (found,) = store.list("tail/")

    assert Listed(NAME, 2) == found
    assert b"10" == store.get(NAME)
    store.delete_older(NAME)
    assert [revised(NAME, 10)] == [name for name in inner.names if name.startswith("tail/")]


def seal_as(stored: str, content: bytes) -> bytes:
    root = TWO.active
    return seal_module.seal(
        content, stored, kind=4, key_id=bytes.fromhex(root.key_id), root=root.secret, salt=bytes(32)
    )


def test_a_revision_under_another_number_is_noticed(inner: MemoryStore) -> None:
    """The stored name is authenticated, its number included: an old revision cannot be passed off as the newest."""
    store = agent(inner, TWO)
    store.put(NAME, b"content")
    inner.put(revised(NAME, 2), inner.get(NAME))
    assert [Listed(NAME, 7)] == list(store.list("tail/"))
    with pytest.raises(ObjectCorrupt):
        store.get(NAME)


def test_what_is_deleted_does_not_come_back_as_an_older_revision(inner: MemoryStore) -> None:
    """All of its revisions go, the one that counts last."""
    gone: list[str] = []

    class Watched(FaultyStore):
        def delete(self, name: str) -> None:
            gone.append(name)
            super().delete(name)

    store = agent(Watched(inner), TWO)
    store.put(NAME, b"first")
    for number in (2, 3):
        inner.put(revised(NAME, number), seal_as(revised(NAME, number), b"later"))
    list(store.list("tail/"))
    store.delete(NAME)

    assert [NAME, revised(NAME, 2), revised(NAME, 3)] == gone
    assert [] == list(agent(inner, TWO).list("tail/"))
    with pytest.raises(ObjectNotFound) as caught:
        store.get(NAME)
    assert NAME == caught.value.name


def test_a_listing_from_a_mark_on_has_whole_revisions(inner: MemoryStore) -> None:
    """A mark that lies among the revisions of a name hides none of those that are deleted with it."""
    store = agent(inner, TWO)
    full = "full/a.full"  # sorts before its own revisions
    store.put(full, b"first")
    inner.put("full/a.r2.full", seal_as("full/a.r2.full", b"later"))

    assert [] == list(store.list("full/", after=full))
    store.delete(full)
    assert ["full/a.r2.full"] == [name for name in inner.names if name.startswith("full/")]
    assert [full] == [listed.name for listed in store.list("full/")]
    store.delete(full)
    assert [] == [name for name in inner.names if name.startswith("full/")]


def test_an_object_that_cannot_be_deleted_is_there_twice(inner: MemoryStore) -> None:
    """Under a lock on the store the new one counts, and StoreDenied says that the old one is there still."""

    class Locked(FaultyStore):
        def delete(self, name: str) -> None:
            raise StoreDenied(f"{name} is locked")

    agent(inner).put(NAME, b"content")
    store = agent(Locked(inner), TWO)
    with pytest.raises(StoreDenied):
        store.seal_anew(NAME)

    assert {NAME, revised(NAME, 2)} <= set(inner.names)
    assert TWO.active.key_id == store.key_of(NAME)
    assert b"content" == store.get(NAME)
    assert [NAME] == [each.name for each in agent(inner, TWO).list("tail/")]


@pytest.mark.parametrize("operation", ["put", "get", "delete"])
@pytest.mark.parametrize("after", [False, True])
def test_sealing_anew_can_be_broken_off_anywhere(inner: MemoryStore, operation: str, after: bool) -> None:
    """At every call, before or after its effect: what was there can be read, and another attempt ends it."""
    agent(inner).put(NAME, b"content")
    for skip in range(3):
        faulty = FaultyStore(inner)
        faulty.fail(operation, after=after, skip=skip)
        store = agent(faulty, TWO)
        try:
            store.seal_anew(NAME)
        except StoreUnavailable:
            assert b"content" == agent(inner, TWO).get(NAME)
            again = agent(inner, TWO)
            list(again.list(""))
            again.seal_anew(NAME)
        assert b"content" == agent(inner, TWO).get(NAME)
        assert 1 == len([name for name in inner.names if name.startswith("tail/")])


def test_what_does_not_come_back_as_it_was_put_replaces_nothing(inner: MemoryStore) -> None:
    """A store that damages what it takes keeps the old revision."""

    class Lying(FaultyStore):
        def put(self, name: str, data: bytes) -> None:
            super().put(name, data[:-1] + bytes([data[-1] ^ 1]) if ".r2." in name else data)

    agent(inner).put(NAME, b"content")
    with pytest.raises(ObjectCorrupt):
        agent(Lying(inner), TWO).seal_anew(NAME)

    assert NAME in inner.names
    inner.delete(revised(NAME, 2))
    assert b"content" == agent(inner, TWO).get(NAME)


Read = Callable[[SealedStore], bytes]


@pytest.mark.parametrize(
    "read", [lambda s: s.get(NAME), lambda s: s.get_range(NAME, 0, 1)], ids=["whole", "part"]
)
def test_what_is_not_there_is_told_by_its_name(inner: MemoryStore, read: Read) -> None:
    """And not by that of a revision that somebody looked for, or knew."""
    agent(inner).put(NAME, b"content")
    knows = agent(inner, TWO)
    knows.seal_anew(NAME)
    inner.delete(revised(NAME, 2))
    for store in (agent(inner), knows):
        with pytest.raises(ObjectNotFound) as caught:
            read(store)
        assert NAME == caught.value.name
