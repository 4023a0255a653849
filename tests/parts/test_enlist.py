"""Making ourselves known to a store: identity, leases, and what it tells of where we were."""

from __future__ import annotations

import os
import random
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.catalogue import Listed
from replicator.core.errors import FormatTooNew, ObjectCorrupt, OwnershipLost, StoreUnavailable
from replicator.core.names import GenerationName, LeaseName, SegmentName
from replicator.core.position import GenerationId
from replicator.core.records import (
    GenerationRecord,
    LeaseRecord,
    decode_lease,
    decode_repository,
    encode_record,
)
from replicator.core.unit import parse_unit_header
from replicator.enlist import enlist, fulls_in, newest_in, recover
from replicator.keys import HeldKeys, KeySource
from replicator.repository import read_repository
from replicator.restore import Target, choose
from replicator.state import Newest, Recovered, StateFolder
from replicator.store import Store
from replicator.store.folder import FolderStore
from tests.core.histories import GENERATION, REPOSITORY, database_of
from tests.core.unit_writer import writer_on
from tests.support.app import App
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore

G = GenerationId(GENERATION)
LATER = GenerationId("ffeeddccbbaa9988")
PLAIN = HeldKeys(KeySource({}), "/nonexistent/keys.json")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def state_at(folder: Path) -> StateFolder:
    state = StateFolder(str(folder))
    state.open()
    return state


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return state_at(tmp_path / "ours")


@pytest.fixture
def other(tmp_path: Path) -> StateFolder:
    return state_at(tmp_path / "theirs")


def lease(store: Store, epoch: int) -> LeaseRecord:
    return decode_lease(store.get(str(LeaseName(epoch))), "lease")


# --- identity ------------------------------------------------------------------------------------------


def test_an_empty_store_gets_an_identity_and_a_lease(state: StateFolder, clock: FakeClock) -> None:
    """The first agent draws the identity, claims epoch 1, and both are durable on this side too."""
    store = MemoryStore()
    enlist(store, state, PLAIN, clock, take_over=False)
    found = decode_repository(store.get("repository.json"), "name")

    assert ["leases/00000001.json", "repository.json"] == store.names
    assert 32 == len(found.repository)
    assert "2025-01-28T06:00:00.000000Z" == found.created
    assert (
        LeaseRecord(1, state.writer, socket.gethostname(), os.getpid(), "2025-01-28T06:00:00.000000Z", False)
    ) == lease(store, 1)
    state.close()
    again = state_at(Path(state.folder))
    assert (found.repository, 1) == (again.repository, again.epoch)


def test_a_second_store_gets_the_same_identity(state: StateFolder, clock: FakeClock) -> None:
    """Identity belongs to the database, so all its stores carry the same."""
    stores = [MemoryStore("memory://a"), MemoryStore("memory://b")]
    for store in stores:
        enlist(store, state, PLAIN, clock, take_over=False)
    found = {decode_repository(store.get("repository.json"), "name").repository for store in stores}

    assert {state.repository} == found


def test_an_identity_is_adopted_where_we_have_none(
    state: StateFolder, other: StateFolder, clock: FakeClock
) -> None:
    """A lost state folder takes on what the store says the database is."""
    store = MemoryStore()
    enlist(store, other, PLAIN, clock, take_over=False)
    enlist(store, state, PLAIN, clock, take_over=True)

    assert other.repository == state.repository
    assert ["leases/00000001.json", "leases/00000002.json", "repository.json"] == store.names


def test_the_repository_of_another_database_is_refused(
    state: StateFolder, other: StateFolder, clock: FakeClock
) -> None:
    """Two identities never mix, not even by force, and nothing is put."""
    mine, theirs = MemoryStore("memory://mine"), MemoryStore("memory://theirs")
    enlist(mine, state, PLAIN, clock, take_over=False)
    enlist(theirs, other, PLAIN, clock, take_over=False)
    before = theirs.names
    for take_over in (False, True):
        with pytest.raises(OwnershipLost, match=f"memory://theirs.*{other.repository}.*{state.repository}"):
            enlist(theirs, state, PLAIN, clock, take_over=take_over)

    assert before == theirs.names


def test_of_two_agents_on_an_empty_store_one_gets_it(tmp_path: Path, clock: FakeClock) -> None:
    """Threads: many agents at once, one wins identity and lease, and all others are refused."""
    for turn in range(10):
        store = MemoryStore()
        ready = threading.Barrier(4)
        states = [state_at(tmp_path / f"{turn}-{number}") for number in range(4)]
        refused: list[OwnershipLost] = []
        won: list[StateFolder] = []

        def claim(
            state: StateFolder,
            store: MemoryStore,
            ready: threading.Barrier,
            won: list[StateFolder],
            refused: list[OwnershipLost],
        ) -> None:
            ready.wait()
            try:
                enlist(store, state, PLAIN, clock, take_over=False)
                won.append(state)
            except OwnershipLost as exc:
                refused.append(exc)

        threads = [threading.Thread(target=claim, args=(s, store, ready, won, refused)) for s in states]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (1, 3) == (len(won), len(refused))
        assert won[0].writer == lease(store, 1).writer
        assert ["leases/00000001.json", "repository.json"] == store.names


def test_one_agent_does_not_take_itself_for_another(tmp_path: Path, clock: FakeClock) -> None:
    """Threads: following and shipping may both make us known to a new store, at the same time."""
    for turn in range(20):
        store = MemoryStore()
        state = state_at(tmp_path / str(turn))
        state.repository = "ab" * 16
        ready = threading.Barrier(2)
        refused: list[OwnershipLost] = []

        def claim(
            state: StateFolder, store: MemoryStore, ready: threading.Barrier, refused: list[OwnershipLost]
        ) -> None:
            ready.wait()
            try:
                enlist(store, state, PLAIN, clock, take_over=False)
            except OwnershipLost as exc:
                refused.append(exc)

        threads = [threading.Thread(target=claim, args=(state, store, ready, refused)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == refused
        assert ["leases/00000001.json", "repository.json"] == store.names
        state.close()


def test_a_store_can_be_added_to_a_database_that_is_replicated(tmp_path: Path) -> None:
    """A second URL in the configuration: the next agent makes itself known there, and puts a full and what follows."""
    database, stores = str(tmp_path / "app.db"), (str(tmp_path / "one"), str(tmp_path / "two"))
    with App(database) as app:
        for known in (stores[:1], stores):
            app.insert(3)
            with Agent([DatabaseConfig(database, known)]) as agent:
                app.insert(2)
                agent.wait_captured_and_shipped(30)
    first, second = (read_repository(FolderStore(each)) for each in stores)

    assert first.identity == second.identity
    assert 1 == len(second.catalogue.generations[0].fulls)
    assert choose(first, Target()).point.position == choose(second, Target()).point.position


def test_a_store_that_knows_the_database_says_who_it_is_before_an_empty_one_is_asked(tmp_path: Path) -> None:
    """The state folder is lost and the first store emptied: the second one's identity is given to the first."""
    database, stores = str(tmp_path / "app.db"), (str(tmp_path / "one"), str(tmp_path / "two"))
    with App(database) as app:
        for lost in (False, True):
            if lost:
                shutil.rmtree(stores[0])
                shutil.rmtree(tmp_path / ".app.db-replicator")
            app.insert(3)
            with Agent([DatabaseConfig(database, stores, take_over=lost)]) as agent:
                agent.wait_captured_and_shipped(30)
    first, second = (read_repository(FolderStore(each)) for each in stores)

    assert first.identity == second.identity
    assert choose(first, Target()).point.position == choose(second, Target()).point.position


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ObjectCorrupt),
        (b"{}", ObjectCorrupt),
        (b'{"kind": "replicator-repository", "format": 2}', FormatTooNew),
    ],
)
def test_an_identity_that_cannot_be_read_is_not_replaced(
    state: StateFolder, clock: FakeClock, content: bytes, error: type[Exception]
) -> None:
    """Damaged, or of a later format: an error, and nothing is put."""
    store = MemoryStore()
    store.put("repository.json", content)
    with pytest.raises(error):
        enlist(store, state, PLAIN, clock, take_over=True)

    assert ["repository.json"] == store.names


@pytest.mark.parametrize("operation", ["get", "put", "list"])
@pytest.mark.parametrize("after", [False, True])
def test_a_store_that_fails_can_be_asked_again(
    state: StateFolder, clock: FakeClock, operation: str, after: bool
) -> None:
    """Wherever it failed, before or after the effect, the next attempt finds what is there and goes on."""
    for skip in range(2):
        inner = MemoryStore(f"memory://{skip}")
        store = FaultyStore(inner)
        store.fail(operation, after=after, skip=skip)
        attempts = 0
        while attempts < 3:
            attempts += 1
            try:
                enlist(store, state, PLAIN, clock, take_over=False)
                break
            except StoreUnavailable:
                continue

        assert attempts <= 2
        assert ["leases/00000001.json", "repository.json"] == inner.names
        assert state.repository == decode_repository(inner.get("repository.json"), "name").repository


# --- leases --------------------------------------------------------------------------------------------


def test_the_same_writer_goes_on_silently(state: StateFolder, clock: FakeClock) -> None:
    """Restarts of the same state folder put nothing: no lease, no request but reads."""
    store = MemoryStore()
    enlist(store, state, PLAIN, clock, take_over=False)
    before = store.names
    state.close()
    again = state_at(Path(state.folder))
    for take_over in (False, True):
        enlist(store, again, PLAIN, clock, take_over=take_over)

    assert before == store.names
    assert 1 == again.epoch


def test_another_writer_is_refused_by_name(state: StateFolder, other: StateFolder, clock: FakeClock) -> None:
    """The error says which process on which host writes since when, and how to take over."""
    store = MemoryStore()
    enlist(store, other, PLAIN, clock, take_over=False)
    with pytest.raises(OwnershipLost) as caught:
        enlist(store, state, PLAIN, clock, take_over=False)

    for part in (f"process {os.getpid()}", socket.gethostname(), "2025-01-28T06:00:00", "epoch 1", store.url):
        assert part in str(caught.value)
    assert "--take-over" in str(caught.value.hint)
    assert 2 == len(store.names)


def test_a_take_over_claims_the_next_epoch_and_ends_the_other(
    state: StateFolder, other: StateFolder, clock: FakeClock
) -> None:
    """From then on the one before is refused, until it takes over in turn."""
    store = MemoryStore()
    enlist(store, other, PLAIN, clock, take_over=False)
    enlist(store, state, PLAIN, clock, take_over=True)
    with pytest.raises(OwnershipLost, match="epoch 2"):
        enlist(store, other, PLAIN, clock, take_over=False)
    enlist(store, other, PLAIN, clock, take_over=True)

    assert (2, 3) == (state.epoch, other.epoch)
    assert [other.writer, state.writer, other.writer] == [lease(store, n).writer for n in (1, 2, 3)]
    assert [False, True, True] == [lease(store, n).took_over for n in (1, 2, 3)]


def test_of_two_take_overs_at_once_one_is_refused(
    state: StateFolder, other: StateFolder, clock: FakeClock, tmp_path: Path
) -> None:
    """The epoch is put once: who comes second between the look and the claim learns of it."""
    inner = MemoryStore()
    enlist(inner, other, PLAIN, clock, take_over=False)
    third = state_at(tmp_path / "third")

    class Overtaken(FaultyStore):
        """Lets the third agent claim just before our own claim arrives."""

        def put(self, name: str, data: bytes) -> None:
            enlist(inner, third, PLAIN, clock, take_over=True)
            super().put(name, data)

    with pytest.raises(OwnershipLost, match="claimed epoch 2"):
        enlist(Overtaken(inner), state, PLAIN, clock, take_over=True)

    assert third.writer == lease(inner, 2).writer
    assert 0 == state.epoch


def test_an_epoch_never_goes_back(state: StateFolder, other: StateFolder, clock: FakeClock) -> None:
    """Where one store had a take-over and another had none, the database's epoch is the highest."""
    one, two = MemoryStore("memory://one"), MemoryStore("memory://two")
    enlist(one, state, PLAIN, clock, take_over=False)
    enlist(two, state, PLAIN, clock, take_over=False)
    other.repository = state.repository
    other.save()
    enlist(one, other, PLAIN, clock, take_over=True)
    enlist(one, state, PLAIN, clock, take_over=True)
    enlist(two, state, PLAIN, clock, take_over=False)
    third = MemoryStore("memory://three")
    enlist(third, state, PLAIN, clock, take_over=False)

    assert 3 == state.epoch
    assert ["leases/00000003.json", "repository.json"] == third.names


def test_names_that_are_no_leases_do_not_count(state: StateFolder, clock: FakeClock) -> None:
    """Only names we write are read; a stranger's file in the folder claims nothing."""
    store = MemoryStore()
    for name in ("leases/README", "leases/99999999.json.bak", "leases/7.json"):
        store.put(name, b"people")
    enlist(store, state, PLAIN, clock, take_over=False)

    assert 1 == state.epoch


# --- what a store knows --------------------------------------------------------------------------------


def generation_record(generation: GenerationId, began: int) -> GenerationRecord:
    return GenerationRecord(generation, REPOSITORY.hex(), 1, began, "first run", 512, None)


def put_segment(store: Store, units: list[bytes]) -> None:
    header = parse_unit_header(units[0])
    store.put(str(SegmentName(header.generation, header.txid_first, header.part)), b"".join(units))


def test_the_newest_unit_is_the_last_of_the_last_segment() -> None:
    """By name and by place in it; other generations and strays do not count."""
    store = MemoryStore()
    rng = random.Random(1)
    writer = writer_on(database_of(rng, 512, 6), rng)
    later = writer_on(database_of(rng, 512, 6), rng, generation=LATER)
    put_segment(store, writer.commits(3))
    put_segment(store, writer.large(2))
    last = writer.commits(2)
    put_segment(store, last)
    put_segment(store, later.commits(9))
    store.put(f"tail/{G}/zzz", b"a stray that sorts last")

    assert Newest(last[-1], ()) == newest_in(store, G)
    assert Newest(None, ()) == newest_in(store, GenerationId("01" * 8))
    assert () == fulls_in(store, G)


class LaggingStore(MemoryStore):
    """Lists only what was there when ``seen`` was set."""

    seen: frozenset[str] | None = None

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        for each in super().list(prefix, after):
            if self.seen is None or each.name in self.seen:
                yield each


def test_what_a_listing_does_not_name_yet_is_asked_for() -> None:
    """Segment behind segment; one that is empty is damage, and not the one before it again."""
    store = LaggingStore()
    rng = random.Random(1)
    writer = writer_on(database_of(rng, 512, 6), rng)
    put_segment(store, writer.commits(3))
    store.seen = frozenset(each.name for each in store.list(""))
    put_segment(store, writer.commits(2))
    last = writer.commits(1)
    put_segment(store, last)

    assert Newest(last[-1], ()) == newest_in(store, G)
    store.put(str(SegmentName(G, 7)), b"")
    with pytest.raises(ObjectCorrupt, match="is empty"):
        newest_in(store, G)


def test_where_we_were_is_found_in_the_store() -> None:
    """Of the generation asked for, or else of the newest that began; with its record and its newest unit."""
    store = MemoryStore()
    rng = random.Random(1)
    old, new = (writer_on(database_of(rng, 512, 6), rng, generation=generation) for generation in (G, LATER))
    records = {G: generation_record(G, 1_000), LATER: generation_record(LATER, 2_000)}
    for generation, record in records.items():
        store.put(str(GenerationName(generation)), encode_record(record))
    put_segment(store, old.commits(2))
    put_segment(store, new.commits(3))

    assert Recovered(records[LATER], new.units[-1], None) == recover(store, None)
    assert Recovered(records[G], old.units[-1], None) == recover(store, G)
    assert recover(store, GenerationId("01" * 8)) is None
    assert recover(MemoryStore(), None) is None


@pytest.mark.parametrize("what", ["segment", "record"])
def test_a_damaged_store_does_not_tell_where_we_were(what: str) -> None:
    """Newest unit or generation record are not what was written: ObjectCorrupt, never a place to go on from."""
    store = MemoryStore()
    rng = random.Random(1)
    writer = writer_on(database_of(rng, 512, 6), rng)
    store.put(str(GenerationName(G)), encode_record(generation_record(G, 1_000)))
    put_segment(store, writer.commits(2))
    name = str(SegmentName(G, 1)) if what == "segment" else str(GenerationName(G))
    store.damage(name, lambda data: data[:-40] + b"?" + data[-39:])
    with pytest.raises(ObjectCorrupt):
        recover(store, None)


def test_an_agent_without_its_state_beside_a_damaged_store_begins_anew(tmp_path: Path) -> None:
    """Nobody can say where we were: a new generation with a full of its own, and the old one is left as it is."""
    database, store = str(tmp_path / "app.db"), tmp_path / "store"
    config = DatabaseConfig(database, (str(store),), take_over=True)
    with App(database) as app:
        for turn in range(2):
            app.insert(3)
            with Agent([config]) as agent:
                app.insert(2)
                agent.wait_captured_and_shipped(30)
            if turn == 0:
                shutil.rmtree(config.state_folder)
                newest = max((store / "tail").rglob("*.segment"))
                newest.write_bytes(newest.read_bytes()[:-40] + b"?" * 40)
    listed = read_repository(FolderStore(str(store))).catalogue.generations

    assert [1, 1] == [len(each.fulls) for each in listed]


def test_a_transaction_that_is_not_whole_there_is_no_place_to_go_on_from() -> None:
    """Where the newest unit in a store is a part, nobody can go on behind it."""
    store = MemoryStore()
    rng = random.Random(1)
    writer = writer_on(database_of(rng, 512, 6), rng)
    store.put(str(GenerationName(G)), encode_record(generation_record(G, 1_000)))
    put_segment(store, writer.commits(1))
    put_segment(store, writer.large(3)[:1])

    assert recover(store, None) is None


def test_an_answer_that_was_damaged_accuses_nobody(
    state: StateFolder, clock: FakeClock, other: StateFolder
) -> None:
    """Another identity, or another holder of the lease, is believed when it is read twice."""

    class Flipping(MemoryStore):
        flips = ""

        def get(self, name: str) -> bytes:
            found = super().get(name)
            if name != self.flips:
                return found
            self.flips = ""
            wrong = (other.repository or "f" * 32) if name == "repository.json" else other.writer
            return found.replace(state.repository.encode(), wrong.encode()).replace(
                state.writer.encode(), wrong.encode()
            )

    store = Flipping()
    enlist(store, state, PLAIN, clock, take_over=False)
    for name in ("repository.json", "leases/00000001.json"):
        store.flips = name
        enlist(store, state, PLAIN, clock, take_over=False)
        assert "" == store.flips
