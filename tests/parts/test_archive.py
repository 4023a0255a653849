"""The tail becomes logs: whatever comes between any two requests, no reader misses a commit or sees one twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator import archive as archive_module
from replicator.archive import Archive, Archived
from replicator.core.catalogue import Listed
from replicator.core.errors import (
    Interrupted,
    ObjectCorrupt,
    StoreDenied,
    StoreUnavailable,
    TargetUnreachable,
)
from replicator.core.log import encode_log
from replicator.core.names import LogName, SegmentName, parse_name
from replicator.core.unit import parse_unit_header, split_units
from replicator.keys import FixedKeys, unlocked
from replicator.repository import read_repository
from replicator.restore import Target, choose
from replicator.store import Store
from replicator.store.sealed import SealedStore
from replicator.verify import Limits, verify
from tests.parts.test_ship import RING
from tests.parts.yard import LATER, G, Yard, headers_of, is_chained, lease_of
from tests.support.memory_store import FaultyStore, MemoryStore


def archived(store: Store, *cuts: int, running: str = G) -> Archived:
    """By an agent that has just started."""
    return Archive(store, lambda: False).run(G if running == G else LATER, set(cuts))


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path, 1)


def memory(yard: Yard) -> MemoryStore:
    assert isinstance(yard.store, MemoryStore)
    return yard.store


# --- what becomes of the tail --------------------------------------------------------------------------


def test_s11_the_tail_becomes_a_log(yard: Yard) -> None:
    """All units but those of the newest segment, verbatim and in order; it stays, since the agent goes on from it."""
    yard.commit(20)
    yard.ship_at_random()
    tail, units = yard.segments, list(yard.writer.units)
    left = [bytes(view) for view in split_units(yard.store.get(tail[-1]))]
    done = archived(yard.store)
    (log,) = yard.logs

    assert units[: -len(left)] == yard.logged()
    assert [log] == done.logs
    assert [tail[-1]] == yard.segments
    assert len(tail) - 1 == done.segments
    assert (0, {}) == (done.kept, done.damaged)
    assert done.bytes_out == len(yard.store.get(str(log)))
    last = headers_of(units[: -len(left)])[-1]
    assert (last.observed_last // 1_000_000 * 1_000_000, 1, last.txid_last) == (
        log.time,
        log.txid_first,
        log.txid_last,
    )
    yard.require_all()


def test_a_tail_of_one_segment_is_left_alone(yard: Yard) -> None:
    """Nothing is read but two listings."""
    yard.commit(3)
    yard.ship()
    store = FaultyStore(yard.store)

    assert Archived() == archived(store)
    assert {"list": 2} == store.calls


def test_the_next_log_begins_where_the_last_one_ended(yard: Yard) -> None:
    """Run after run, by one agent or by several, each unit lies in one log, and they chain."""
    archive = Archive(yard.store, lambda: False)
    for number in range(6):
        yard.commit(6)
        yard.ship_at_random()
        if number == 3:
            archive = Archive(yard.store, lambda: False)
        archive.run(G, set())
    logs = yard.logs

    assert is_chained(yard.logged())
    assert yard.writer.units[: len(yard.logged())] == yard.logged()
    assert 6 == len(logs)
    assert [log.txid_last + 1 for log in logs[:-1]] == [log.txid_first for log in logs[1:]]
    assert 1 == len(yard.segments)
    yard.require_all()


def test_a_log_ends_where_a_backup_stands(yard: Yard) -> None:
    """Whoever begins there fetches nothing from before."""
    yard.commit(5)
    yard.ship_at_random()
    cut = yard.back_up()
    yard.commit(5)
    yard.ship_at_random()
    done = archived(yard.store, cut)
    listing = read_repository(yard.store).catalogue.generation(G)
    assert listing is not None
    chosen = choose(read_repository(yard.store), Target(txid=done.logs[1].txid_last, generation=G))

    assert [cut, cut + 1] == [done.logs[0].txid_last, done.logs[1].txid_first]
    assert (done.logs[1],) == chosen.plan.carriers
    yard.require_all()


def test_a_log_that_grows_too_large_is_cut(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a transaction: it is put and read whole, so its size is what it costs in memory."""
    monkeypatch.setattr(archive_module, "LOG_BYTES_MAX", 3_000)
    yard.commit(20)
    yard.commit_large(4)
    yard.commit(20)
    yard.ship_at_random()
    archived(yard.store)
    sizes = [len(yard.store.get(str(log))) for log in yard.logs]
    largest = max(len(unit) for unit in yard.writer.units)

    assert len(yard.logs) > 3
    assert max(sizes) < 3_000 + 6 * largest + 1_000
    assert all(size > 3_000 for size in sizes[:-1])
    yard.require_all()


def test_the_tail_of_a_generation_that_ended_goes_as_a_whole(yard: Yard) -> None:
    """Nobody goes on from its newest segment."""
    yard.commit(5)
    yard.ship_at_random()
    old = list(yard.writer.units)
    yard.begin(LATER)
    yard.commit(5)
    yard.ship_at_random()
    newest = yard.segments[-1]
    archived(yard.store, running=LATER)

    assert old == yard.logged(G)
    assert [newest] == yard.segments
    yard.require_all()


def test_an_encrypted_tail_becomes_encrypted_logs(tmp_path: Path) -> None:
    """Through the store that seals, nobody above it sees a difference."""
    inner = MemoryStore()
    yard = Yard(tmp_path, 2, store=SealedStore(inner, FixedKeys(RING)))
    yard.commit(12)
    yard.ship_at_random()
    archived(yard.store)
    (log,) = yard.logs

    assert inner.get(str(log)).startswith(b"RPLSEAL")
    assert is_chained(yard.logged())
    yard.require_all()


# --- transactions in parts -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_transactions_in_parts_stay_whole(tmp_path: Path, seed: int) -> None:
    """However their parts lie in segments: a log ends behind the last of them, and readers miss none meanwhile."""
    yard = Yard(tmp_path, seed)
    archive = Archive(yard.store, lambda: False)
    for _ in range(4):
        yard.commit(yard.rng.randint(0, 3))
        yard.commit_large(yard.rng.randint(2, 5))
        while yard.waiting:
            yard.ship(yard.rng.randint(1, 2))
            if yard.rng.random() < 0.7:
                archive.run(G, set())
    yard.require_all()

    assert all(parse_unit_header(unit).commits for log in yard.logs for unit in [last_of(yard, log)])
    assert is_chained(yard.logged())
    assert yard.writer.units[: len(yard.logged())] == yard.logged()


def last_of(yard: Yard, name: LogName) -> bytes:
    units = [
        each for each in yard.logged(name.generation) if parse_unit_header(each).txid_last == name.txid_last
    ]
    return units[-1]


def test_a_segment_that_ends_within_a_transaction_is_read_until_the_rest_is_there(yard: Yard) -> None:
    """A log holds its first transactions, the next segment the rest of its last: between them it still counts."""
    yard.commit(3)
    whole = len(yard.waiting)
    yard.commit_large(4)
    name = yard.ship(whole + 2)
    yard.ship()
    done = archived(yard.store)

    assert [3] == [log.txid_last for log in done.logs]
    assert name in yard.segments
    yard.require_all()
    yard.commit(2)
    yard.ship()
    archived(yard.store)
    assert name not in yard.segments
    assert [(1, 3), (4, 4)] == [(log.txid_first, log.txid_last) for log in yard.logs]
    yard.require_all()


def test_a_segment_that_two_logs_took_over_is_in_nobodys_way(yard: Yard) -> None:
    """A backup stands in the midst of it, it ends within a transaction, and it could not be deleted: what the second
    log begins with was applied already, to the first parts."""
    yard.commit(3)
    cut = yard.back_up()
    yard.commit(3)
    whole = len(yard.waiting)
    yard.commit_large(4)
    name = yard.ship(whole + 2)
    yard.ship()
    yard.commit(2)
    yard.ship()
    left = yard.store.get(name)
    archived(yard.store, cut)
    yard.store.put(name, left)

    assert [(1, cut), (cut + 1, cut + 4)] == [(log.txid_first, log.txid_last) for log in yard.logs]
    assert [name, yard.segments[-1]] == yard.segments
    yard.require_all()
    report = verify(unlocked(yard.store), "content", Limits(), restore=lambda *_: None)
    assert ([], []) == (report.found, report.lost)


def test_a_transaction_whose_end_never_came_stays(yard: Yard) -> None:
    """The store lapsed within it: its parts are of no use, what is before and behind the hole becomes logs."""
    yard.commit(4)
    yard.ship_at_random()
    yard.commit_large(4)
    first_parts = yard.ship(2)
    yard.commit(3)
    hole = yard.lose()[0]
    begins = yard.back_up()
    yard.commit(4)
    yard.ship_at_random()
    for _ in range(2):
        archived(yard.store, begins)

    assert [first_parts] == yard.segments[:-1]
    assert [(1, 4), begins + 1] == [
        (yard.logs[0].txid_first, yard.logs[0].txid_last),
        yard.logs[1].txid_first,
    ]
    yard.require_all()
    with pytest.raises(TargetUnreachable):
        yard.restored(hole)


# --- interrupted ---------------------------------------------------------------------------------------

OPERATIONS = ("list", "get", "put", "delete")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_crash_between_any_two_requests_loses_nothing(tmp_path: Path, operation: str, after: bool) -> None:
    """At each request of that kind in turn: every restore point is there at once and after the next run, and each unit
    ends up in one log."""
    for skip in itertools.count():
        yard = Yard(tmp_path, 5)
        yard.commit(4)
        yard.commit_large(3)
        yard.ship_at_random(2)
        cut = yard.back_up()
        yard.commit(4)
        yard.ship_at_random(2)
        store = FaultyStore(yard.store)
        store.fail(operation, after=after, skip=skip)
        try:
            archived(store, cut)
        except StoreUnavailable:
            yard.require_all()
        else:
            break
        yard.commit(2)
        yard.ship_at_random(2)
        archived(yard.store, cut)
        assert is_chained(yard.logged())
        assert yard.writer.units[: len(yard.logged())] == yard.logged()
        assert 1 == len(yard.segments)
        yard.require_all()
    assert skip >= 2


def test_one_that_is_stopped_loses_nothing(yard: Yard) -> None:
    """Between any two segments: Interrupted, and the next run goes on."""
    yard.commit(12)
    yard.ship_at_random(2)
    asked = itertools.count()
    with pytest.raises(Interrupted):
        Archive(yard.store, lambda: next(asked) == 2).run(G, set())
    yard.require_all()
    archived(yard.store)

    assert is_chained(yard.logged())
    yard.require_all()


# --- stores with a will of their own -------------------------------------------------------------------


class Undeletable(FaultyStore):
    """Credentials that may only add."""

    def delete(self, name: str) -> None:
        raise StoreDenied("it may not be deleted")


def test_a_store_that_denies_deletes_is_archived_once(yard: Yard) -> None:
    """The segments stay; no later run, of this agent or of another, puts what is in them into a second log."""
    store = Undeletable(yard.store)
    archive = Archive(store, lambda: False)
    yard.commit(8)
    yard.ship_at_random()
    segments = len(yard.segments)
    first = archive.run(G, set())
    second = archive.run(G, set())
    third = archived(store)
    yard.commit(4)
    yard.ship_at_random()
    fourth = archived(store)

    assert (1, segments - 1, 0) == (len(first.logs), first.kept, first.segments)
    assert [] == second.logs == third.logs
    assert segments - 1 == second.kept == third.kept
    assert [first.logs[0].txid_last + 1] == [log.txid_first for log in fourth.logs]
    assert yard.writer.units[: len(yard.logged())] == yard.logged()
    yard.require_all()


class Lagging(FaultyStore):
    """Lists what was there when ``freeze`` was called last, less what is ``hidden``; reads what is there now."""

    frozen: list[Listed] | None = None
    hidden: frozenset[str] = frozenset()

    def freeze(self) -> None:
        self.frozen = list(super().list(""))

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        listed = super().list("") if self.frozen is None else iter(self.frozen)
        return (
            each
            for each in listed
            if each.name.startswith(prefix) and each.name > after and each.name not in self.hidden
        )


def test_a_listing_from_before_the_last_run_does_no_harm(yard: Yard) -> None:
    """It names segments that are gone, and not the log that has them: nothing is put, nothing is lost."""
    store = Lagging(yard.store)
    yard.commit(8)
    yard.ship_at_random()
    store.freeze()
    first = archived(store)
    second = archived(store)

    assert 1 == len(first.logs)
    assert Archived() == second
    yard.require_all()


def test_a_log_that_is_not_listed_yet_is_not_put_again(yard: Yard) -> None:
    """The agent ended before it could delete the segments, and the listing does not have the log: its name is taken, by
    the same bytes."""
    yard.commit(8)
    yard.ship_at_random()
    store = Lagging(yard.store)
    store.freeze()
    store.fail("delete")
    with pytest.raises(StoreUnavailable):
        archived(store)
    done = archived(store)

    assert 1 == len(done.logs) == len(yard.logs)
    assert 1 == len(yard.segments)
    yard.require_all()


@pytest.mark.parametrize("deletes", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_segments_that_are_listed_late_come_into_logs_of_their_own(
    tmp_path: Path, seed: int, deletes: bool
) -> None:
    """A listing without some of them looks as if there were holes; later they are taken over all the same, and each
    unit is in one log, also where the segments stay."""
    yard = Yard(tmp_path, seed)
    store = Lagging(yard.store if deletes else Undeletable(yard.store))
    archive = Archive(store, lambda: False)
    for _ in range(3):
        yard.commit(10)
        yard.ship_at_random()
        store.hidden = frozenset(yard.rng.sample(yard.segments, len(yard.segments) // 3))
        archive.run(G, set())
        yard.require_all()
        store.hidden = frozenset()
        if yard.rng.random() < 0.5:
            archive = Archive(store, lambda: False)
        archive.run(G, set())
    yard.require_all()

    assert yard.writer.units[: len(yard.logged())] == yard.logged()
    assert deletes == (len(yard.segments) == 1)


# --- damage --------------------------------------------------------------------------------------------


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :]


DAMAGES = {
    "magic": flipped(0),
    "version": flipped(7),
    "flags": flipped(8),
    "codec": flipped(9),
    "txid": flipped(39),
    "chain": flipped(73),
    "length": flipped(83),
    "payload": flipped(120),
    "cut": lambda data: data[:-1],
    "header": lambda data: data[:40],
    "empty": lambda _: b"",
    "more": lambda data: data + b"more",
}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_stays_and_the_log_goes_on_behind_it(
    tmp_path: Path, damage: str, sealed: bool
) -> None:
    """It is named with what is wrong; logs end before it and begin behind it, and no restore point but its own is
    lost: those behind it begin at the next full."""
    inner = MemoryStore()
    yard = Yard(tmp_path, 1, store=SealedStore(inner, FixedKeys(RING)) if sealed else inner)
    yard.commit(5)
    yard.ship()
    before = yard.writer.tip.txid
    yard.commit(4)
    hurt = yard.ship()
    behind = yard.writer.tip.txid
    yard.commit(5)
    yard.ship()
    begins = yard.back_up()
    yard.commit(3)
    yard.ship()
    yard.commit(1)
    yard.ship()
    inner.damage(hurt, DAMAGES[damage])
    archive = Archive(yard.store, lambda: False)
    done = archive.run(G, {begins})

    assert [hurt] == list(done.damaged)
    assert [(1, before), (behind + 1, begins)] == [(log.txid_first, log.txid_last) for log in done.logs[:2]]
    assert hurt in yard.segments
    assert 2 == len(yard.segments)
    again = archive.run(G, {begins})
    assert ([hurt], []) == (list(again.damaged), again.logs)
    yard.states = {key: state for key, state in yard.states.items() if not before < key[1] < begins}
    yard.require_all()


def test_an_empty_segment_is_damage(yard: Yard) -> None:
    """It says nothing, and we never write such a thing."""
    yard.commit(2)
    hurt = yard.ship()
    yard.commit(2)
    yard.ship()
    memory(yard).damage(hurt, lambda _: b"")

    assert [hurt] == list(archived(yard.store).damaged)
    assert hurt in yard.segments


def test_a_segment_of_another_history_stays(yard: Yard, tmp_path: Path) -> None:
    """It is whole, and chains to something else: whoever put it there, it is not taken over."""
    (tmp_path / "other").mkdir()
    other = Yard(tmp_path / "other", 99)
    yard.commit(3)
    yard.ship()
    tip = yard.writer.tip.txid
    while other.writer.tip.txid < tip:
        other.commit(1)
    other.ship()
    assert other.writer.tip.txid == tip
    other.writer.commits(2)
    strange = str(SegmentName(G, tip + 1))
    yard.store.put(strange, b"".join(other.writer.units[-2:]))
    yard.store.put(str(SegmentName(G, tip + 9)), other.writer.units[-1])
    done = archived(yard.store)

    assert [strange] == list(done.damaged)
    assert "does not chain" in done.damaged[strange]
    assert [(1, tip)] == [(log.txid_first, log.txid_last) for log in done.logs]
    yard.require_all()


def test_a_fence_stays(yard: Yard) -> None:
    """What a take-over put in the place of the next segments is no segment: the generation ends before it."""
    yard.commit(5)
    yard.ship_at_random()
    tip = yard.writer.tip.txid
    fences = [str(SegmentName(G, tip + 1, 1)), str(SegmentName(G, tip + 1))]
    yard.store.put("leases/00000002.json", lease_of(2))
    for name in fences:
        yard.store.put(name, lease_of(2))
    yard.begin(LATER)
    yard.commit(3)
    yard.ship_at_random()
    newest = yard.segments[-1]
    done = archived(yard.store, running=LATER)

    assert {} == done.damaged
    assert [*fences, newest] == yard.segments
    assert [(1, tip)] == [(log.txid_first, log.txid_last) for log in yard.logs if log.generation == G]
    yard.require_all()


class Spoiling(MemoryStore):
    """Keeps something else than it was given of the next log."""

    spoils = True

    def put(self, name: str, data: bytes) -> None:
        if self.spoils and name.startswith("log/"):
            self.spoils = False
            data = flipped(len(data) // 2)(data)
        super().put(name, data)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_log_that_does_not_come_back_as_it_was_put_does_not_count(tmp_path: Path, restarted: bool) -> None:
    """It is named, no segment is deleted for it, and the next run puts it as it should be, though the name is the
    same."""
    yard = Yard(tmp_path, 3, store=Spoiling())
    yard.commit(6)
    yard.ship_at_random()
    cut = yard.back_up()
    yard.commit(3)
    yard.ship_at_random()
    segments = yard.segments
    archive = Archive(yard.store, lambda: False)
    with pytest.raises(ObjectCorrupt, match="as it was put") as caught:
        archive.run(G, {cut})
    assert isinstance(parse_name(caught.value.name), LogName)
    assert segments == yard.segments
    yard.require_all()
    if restarted:
        archive = Archive(yard.store, lambda: False)
    done = archive.run(G, {cut})

    assert [cut] == [log.txid_last for log in done.logs[:1]]
    assert yard.writer.units[: len(yard.logged())] == yard.logged()
    yard.require_all()


def test_a_log_of_somebody_else_is_left_alone(yard: Yard) -> None:
    """Its name is ours, and what is in it is whole and other than ours: nothing is deleted, no segment either."""
    yard.commit(6)
    yard.ship_at_random()
    (log,) = archived(FaultyStore(clone(yard.store))).logs
    units = [bytes(view) for each in yard.segments for view in split_units(yard.store.get(each))]
    taken = [(parse_unit_header(unit), unit) for unit in units]
    theirs = encode_log(log, [*taken[:1], *taken[: taken_up_to(taken, log)]])
    yard.store.put(str(log), theirs)
    segments = yard.segments
    with pytest.raises(ObjectCorrupt, match="as it was put"):
        Archive(Hiding(yard.store), lambda: False).run(G, set())

    assert theirs == yard.store.get(str(log))
    assert segments == yard.segments


class Hiding(FaultyStore):
    """Does not list logs."""

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return (each for each in super().list(prefix, after) if not each.name.startswith("log/"))


def taken_up_to(taken: list[tuple[object, bytes]], log: LogName) -> int:
    return 1 + max(
        n for n, (_, unit) in enumerate(taken) if parse_unit_header(unit).txid_last == log.txid_last
    )


def clone(store: Store) -> MemoryStore:
    found = MemoryStore()
    for each in store.list(""):
        found.put(each.name, store.get(each.name))
    return found
