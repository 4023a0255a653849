"""One suite for every kind of store: each keeps the prose of replicator/store/contract.py.

A new kind is one more entry of KINDS. What only one kind can break stands in a file of its own.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.clock import Clock
from replicator.core.catalogue import Listed
from replicator.core.errors import ObjectCorrupt, ObjectExists, ObjectNotFound
from replicator.core.key_ring import new_ring
from replicator.keys import FixedKeys
from replicator.store import Store
from replicator.store.contract import PROBES, Kind
from replicator.store.folder import FolderStore
from replicator.store.limits import Bandwidth, FewAtATime
from replicator.store.observe import ObservedStore
from replicator.store.patience import PatientStore
from replicator.store.ranges import RangedStore
from replicator.store.retry import RetryingStore
from replicator.store.sealed import SealedStore
from replicator.store.store_clock import clock_difference
from replicator.store.trial import Trial, try_store
from tests.support.memory_store import FaultyStore, MemoryStore
from tests.support.servers import azure, gcs, s3, sftp

RING = new_ring("ab" * 16, 1_000, secrets=[bytes(range(size)) for size in (32, 32, 8, 8)])
KINDS: dict[str, Callable[[Path], Store]] = {
    "folder": lambda folder: FolderStore(str(folder / "store")),
    "memory": lambda _: MemoryStore(),
    "faulty": lambda _: FaultyStore(MemoryStore()),
    "retrying": lambda _: RetryingStore(MemoryStore()),
    "few at a time": lambda _: FewAtATime(MemoryStore(), 2),
    "bandwidth": lambda _: Bandwidth(MemoryStore(), 1 << 40, Clock(), time.sleep),
    "patient": lambda _: PatientStore(MemoryStore(), lambda: False),
    "ranged": lambda _: RangedStore(MemoryStore()),
    "observed": lambda _: ObservedStore(MemoryStore()),
    "sealed": lambda _: SealedStore(MemoryStore(), FixedKeys(RING)),
}


# Kinds behind a server: how to start it, and a store of its own on it for each test.
SERVERS: dict[str, tuple[Callable[[Path], AbstractContextManager[Any]], Callable[[Any], Store]]] = {
    "s3": (lambda _: s3.seaweed(), s3.store_on),
    "gs": (lambda _: gcs.gcs_server(), gcs.store_on),
    "azure": (lambda _: azure.azurite_server(), azure.store_on),
    "sftp": (sftp.asyncssh_server, sftp.store_on),
}
ALL = [*KINDS, *SERVERS]
# What store/ranges.py may lie over.
BELOW_RANGES = [each for each in ALL if each not in ("patient", "ranged", "sealed")]

Open = Callable[[str, Path], Store]


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Opens an empty store of a kind; a server is started for the first one, and ends with the session."""
    running: dict[str, Any] = {}
    with ExitStack() as stack:

        def open_one(kind: str, folder: Path) -> Store:
            if kind in KINDS:
                return KINDS[kind](folder)
            start, store_on = SERVERS[kind]
            if kind not in running:
                running[kind] = stack.enter_context(start(tmp_path_factory.mktemp(kind)))
            return store_on(running[kind])

        yield open_one


@pytest.fixture(params=ALL)
def store(request: pytest.FixtureRequest, opened: Open, tmp_path: Path) -> Store:
    return opened(request.param, tmp_path)


@pytest.fixture(params=BELOW_RANGES)
def kind(request: pytest.FixtureRequest, opened: Open, tmp_path: Path) -> Kind:
    return opened(request.param, tmp_path)  # type: ignore[return-value]


def test_what_is_put_is_there(store: Store) -> None:
    """The whole object comes back, an empty one too, and names with folders are names."""
    objects = {"repository.json": b"{}", "tail/00/1.segment": bytes(range(256)), "empty": b""}
    for name, data in objects.items():
        store.put(name, data)

    assert objects == {name: store.get(name) for name in objects}
    assert sorted(objects) == [listed.name for listed in store.list("")]


def test_what_users_try_holds(store: Store) -> None:
    """What ``check --store`` tries finds nothing to say, and leaves nothing behind."""
    assert Trial() == try_store(store)
    assert [] == list(store.list(""))
    assert [] == list(store.list(PROBES))


def test_a_name_is_put_once(store: Store) -> None:
    """The second put is ObjectExists with the name, even of the same bytes, and changes nothing."""
    store.put("a/b", b"first")
    for data in (b"second", b"first", b""):
        with pytest.raises(ObjectExists) as caught:
            store.put("a/b", data)
        assert "a/b" == caught.value.name

    assert b"first" == store.get("a/b")
    assert [Listed("a/b", 5)] == list(store.list(""))


def test_of_sixteen_concurrent_puts_one_wins(store: Store) -> None:
    """Threads: all others meet ObjectExists, and the object is the winner's, whole; again and again."""
    for turn in range(10):
        name = f"race/{turn}/object"
        ready = threading.Barrier(16)
        won: list[int] = []
        lost: list[int] = []

        def put(number: int, name: str, ready: threading.Barrier, won: list[int], lost: list[int]) -> None:
            ready.wait()
            try:
                store.put(name, bytes([number]) * 10_000)
                won.append(number)
            except ObjectExists:
                lost.append(number)

        threads = [threading.Thread(target=put, args=(n, name, ready, won, lost)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (1, 15) == (len(won), len(lost))
        assert bytes(won) * 10_000 == store.get(name)


def test_concurrent_puts_of_many_names_all_succeed(store: Store) -> None:
    """Threads: objects in the same folders, all of which are new, do not get in each other's way."""
    ready = threading.Barrier(16)
    failed: list[Exception] = []

    def put(number: int) -> None:
        ready.wait()
        try:
            for turn in range(10):
                store.put(f"new/{turn}/deep/{number}", bytes([number]))
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failed
    assert 160 == len(list(store.list("new/")))


def test_a_missing_object_is_not_found(store: Store) -> None:
    """Whole or in part, near another or in an empty store: ObjectNotFound with the name."""
    for turn in range(2):
        for name in ("missing", "a/missing", "a", "a/b-"):
            with pytest.raises(ObjectNotFound) as whole:
                store.get(name)
            with pytest.raises(ObjectNotFound) as part:
                store.get_range(name, 0, 1)
            assert (name, name) == (whole.value.name, part.value.name)
        store.put(f"a-/{turn}", b"x")
        store.put(f"z/a/{turn}", b"x")


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 1), (0, 100), (1, 99), (50, 10), (99, 1), (100, 0), (0, 50)]
)
def test_a_range_is_exactly_the_bytes_asked_for(store: Store, offset: int, length: int) -> None:
    """From offset on, so many bytes, up to the last one."""
    data = bytes(range(100))
    store.put("object", data)

    assert data[offset : offset + length] == store.get_range("object", offset, length)


@pytest.mark.parametrize(("offset", "length"), [(0, 101), (99, 2), (100, 1), (5_000, 1), (1 << 40, 5)])
def test_a_range_beyond_the_end_is_corrupt(store: Store, offset: int, length: int) -> None:
    """An object that is shorter than somebody was promised is damaged; there is no short answer."""
    store.put("object", bytes(100))

    with pytest.raises(ObjectCorrupt, match="object ends at byte"):
        store.get_range("object", offset, length)


def test_the_start_of_an_object_comes_with_its_size(kind: Kind) -> None:
    """Of one that is empty, shorter, of that very length, longer by one, and much longer."""
    for size in (0, 1, 99, 100, 101, 1_000_000):
        data = random.Random(size).randbytes(size)
        kind.put(f"object/{size}", data)

        assert (data[:100], size) == kind.get_start(f"object/{size}", 100)
        assert (data, size) == kind.get_start(f"object/{size}", 1 << 24)
    with pytest.raises(ObjectNotFound) as caught:
        kind.get_start("object/missing", 100)
    assert "object/missing" == caught.value.name


# Names that sort differently by folder and by text: "a-b" < "a.b" < "a/b" < "a0b".
part = st.text(alphabet="ab-.0~", min_size=1, max_size=3).filter(lambda text: not text.startswith("."))
name = st.lists(part, min_size=1, max_size=4).map("/".join)


def without_nesting(names: set[str]) -> list[str]:
    """No object may be the folder of another: not every kind could hold both."""
    return [each for each in sorted(names) if not any(other.startswith(each + "/") for other in names)]


def _listing_is_in_order(store: Store, names: set[str], data: st.DataObject) -> None:
    kept = without_nesting(names)
    for each in kept:
        store.put(each, bytes(len(each)))
    somewhere = st.sampled_from(kept) if kept else st.just("a")
    cut = somewhere.flatmap(lambda text: st.integers(0, len(text)).map(lambda at: text[:at]))
    prefix = data.draw(st.one_of(st.just(""), cut, name), label="prefix")
    after = data.draw(st.one_of(st.just(""), somewhere, cut, name, cut.map(lambda t: t + "~")), label="after")
    wanted = [Listed(n, len(n)) for n in kept if n.startswith(prefix) and n > after]

    assert wanted == list(store.list(prefix, after))


@pytest.mark.parametrize("kind", KINDS)
@given(names=st.sets(name, max_size=14), data=st.data())
@settings(deadline=None)  # disks and machines are slow now and then
def test_a_listing_is_in_the_order_of_names(
    opened: Open, kind: str, names: set[str], data: st.DataObject
) -> None:
    """Everything with the prefix and after the mark, by whole names, each once, with its size."""
    with tempfile.TemporaryDirectory() as folder:
        _listing_is_in_order(opened(kind, Path(folder)), names, data)


@pytest.mark.parametrize("kind", SERVERS)
@given(names=st.sets(name, max_size=14), data=st.data())
@settings(max_examples=15, deadline=None)  # each is a store of its own, with a login of its own
def test_a_listing_of_a_server_is_in_the_order_of_names(
    opened: Open, kind: str, names: set[str], data: st.DataObject
) -> None:
    """The same, with fewer examples."""
    _listing_is_in_order(opened(kind, Path()), names, data)


def test_a_listing_of_nothing_is_empty(store: Store) -> None:
    """A store that was never put to, a prefix that nothing has, and a mark behind everything."""
    before = list(store.list(""))
    store.put("a/b", b"")

    assert [] == before
    assert [] == list(store.list("b"))
    assert [] == list(store.list("a/b/"))
    assert [] == list(store.list("a/c"))
    assert [] == list(store.list("", after="a/b"))
    assert [] == list(store.list("a/", after="b"))


def test_a_listing_can_be_taken_up_again_at_any_name(store: Store) -> None:
    """Page by page with the last name as the mark, everything comes once."""
    names = sorted(f"{letter}{sign}{number}" for letter in "ab" for sign in "-./0" for number in range(3))
    for each in random.Random(1).sample(names, len(names)):
        store.put(each, b"")
    found: list[str] = []
    while page := [listed.name for listed in store.list("", found[-1] if found else "")][:5]:
        found += page

    assert names == found


def test_what_is_deleted_is_gone(store: Store) -> None:
    """Deleting is final and may be repeated; the name can be put again, and its neighbours stay."""
    for each in ("a/b", "a/c", "d"):
        store.put(each, each.encode())
    for _ in range(2):
        store.delete("a/b")
        store.delete("never/was")
    with pytest.raises(ObjectNotFound):
        store.get("a/b")

    assert ["a/c", "d"] == [listed.name for listed in store.list("")]
    store.put("a/b", b"again")
    assert b"again" == store.get("a/b")


def test_what_is_replaced_has_the_new_content(store: Store) -> None:
    """Whether it was there or not, shorter or longer; a listing shows its size, and its neighbours stay."""
    store.put("metadata.jsonl", b"neighbour")
    for content in (b"first", b"second and longer", b"", b"4"):
        store.replace("metadata.json", content)
        assert content == store.get("metadata.json")
    store.put("deep/er/object", b"was put")
    store.replace("deep/er/object", b"was replaced")
    store.replace("new/folder/object", b"from nothing")

    assert {"deep/er/object": 12, "metadata.json": 1, "metadata.jsonl": 9, "new/folder/object": 12} == {
        each.name: each.size for each in store.list("")
    }
    assert b"was replaced" == store.get("deep/er/object")
    with pytest.raises(ObjectExists):
        store.put("metadata.json", b"4")


def test_who_reads_what_is_replaced_gets_one_or_the_other(store: Store) -> None:
    """Threads: two write, two read; no reader meets a missing object, half of one, or half of each."""
    contents = {bytes([number]) * (50_000 + number) for number in range(8)}
    store.replace("metadata.json", bytes(50_000))
    wrong: list[object] = []
    over = threading.Event()

    def write(mine: list[bytes]) -> None:
        try:
            for content in mine * 5:
                store.replace("metadata.json", content)
        except Exception as exc:
            wrong.append(exc)

    def read() -> None:
        try:
            while not over.is_set():
                found = store.get("metadata.json")
                if found not in contents:
                    wrong.append(len(found))
        except Exception as exc:
            wrong.append(exc)

    ordered = sorted(contents)
    writers = [threading.Thread(target=write, args=(ordered[n::2],)) for n in range(2)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()

    assert [] == wrong
    assert store.get("metadata.json") in contents
    assert ["metadata.json"] == [listed.name for listed in store.list("")]


def test_a_store_tells_when_an_object_was_written(store: Store) -> None:
    """By its own clock, which is this machine's here; to the second at least, and anew after a replacing."""
    before = time.time_ns() // 1000 - 1_100_000  # some know whole seconds only
    store.put("a/b", b"x")
    first = second = store.modified("a/b")
    for _ in range(30):
        store.replace("a/b", b"y")
        second = store.modified("a/b")
        if second > first:
            break
        time.sleep(0.1)

    assert before < first < second <= time.time_ns() // 1000
    with pytest.raises(ObjectNotFound) as caught:
        store.modified("a/c")
    assert "a/c" == caught.value.name


def test_the_clock_of_a_store_can_be_compared(store: Store) -> None:
    """It is this machine's here, whichever server asks it; whole seconds seem up to one behind. No probe stays."""
    found = clock_difference(store, Clock().wall)

    assert found is not None
    assert -1.5 < found < 0.5
    assert [] == list(store.list(PROBES))


def test_a_big_object_is_whole(store: Store) -> None:
    """Twenty megabytes go in and come out, and any part of them alone."""
    data = random.Random(2).randbytes(20_000_003)
    store.put("big", data)

    assert data == store.get("big")
    assert data[19_999_000:20_000_003] == store.get_range("big", 19_999_000, 1_003)
    assert [Listed("big", len(data))] == list(store.list("b"))


def test_a_url_says_where_it_is(store: Store) -> None:
    """The URL is for people, and names a scheme."""
    assert "://" in store.url


def test_an_object_is_not_the_buffer_it_came_from(store: Store) -> None:
    """Who goes on using the memory of what was put does not change the object."""
    buffer = bytearray(b"before")
    store.put("object", buffer)  # type: ignore[arg-type]
    buffer[:] = b"after!"

    assert b"before" == store.get("object")
