"""Pruning a store that a real agent filled: what goes, what stays whatever happens, and when nothing is touched.

What has to stay is worked out a second time in tests/support/promises.py; that it can be restored is tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from replicator.core.errors import (
    ClockWrong,
    Interrupted,
    StoreDenied,
    StoreUnavailable,
    TargetUnreachable,
)
from replicator.core.names import EventName, FullName, IncrementalName, LogName, parse_name
from replicator.core.position import Position
from replicator.core.records import DAMAGED, PINNED, EventRecord, encode_record
from replicator.core.retention_policy import Policy
from replicator.core.times import MICROS_PER_SECOND
from replicator.jobs import FULL, INCREMENTAL, LOG
from replicator.prune import Prune, Pruned, document
from replicator.repository import Manifests, read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store import Store
from replicator.store.contract import PROBES
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore
from tests.support.promises import Made, Rules, backups_in, promised, unreferenced
from tests.support.station import Station

POLICY = Policy(log_hours=8, incremental_days=2, full_days=4, months=1)
RULES = Rules(log_hours=8, incremental_days=2, full_days=4, months=1)
HOUR = 3_600.0


@dataclass(frozen=True)
class Past:
    """What an agent left in a store in nine days, over the turn of a month, and has never pruned: the objects, the time
    then, every backup, and what the database was at each commit."""

    objects: Mapping[str, bytes]
    wall: int
    backups: Mapping[str, Made]
    digests: Mapping[Position, str]

    def store(self) -> MemoryStore:
        store = MemoryStore(wall=self.clock().wall)
        for name, data in self.objects.items():
            store.put(name, data)
        return store

    def clock(self) -> FakeClock:
        return FakeClock(wall=self.wall)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Fulls at night and two incrementals by day; a commit before each, three behind the last; logs in between. After a
    week the continuity is lost once."""
    station = Station(tmp_path_factory.mktemp("past"))
    station.clock.set_wall(1_738_044_000_000_000)  # 2025-01-28T06:00:00Z
    station.fill(60)
    digests: dict[Position, str] = {}

    def commit() -> None:
        station.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 20 = ?", len(digests) % 20)
        digests[station.position] = station.app.digest()
        station.ship_all()

    station.keep_up()
    digests[station.position] = station.app.digest()
    for day in range(9):
        for kind in (FULL, INCREMENTAL, INCREMENTAL):
            station.clock.advance(7.5 * HOUR)
            commit()
            station.do(kind)
            commit()
            station.do(LOG)
        station.clock.advance(1.5 * HOUR)
        if day == 6:
            station.follow.lose("a test")
            station.keep_up()
            digests[station.position] = station.app.digest()
    for _ in range(3):
        station.clock.advance(0.5 * HOUR)
        commit()
    assert isinstance(station.inner, MemoryStore)
    found = {name: station.inner.get(name) for name in station.inner.names}
    past = Past(found, station.clock.wall(), backups_in(station.inner), digests)
    station.close()
    return past


class Yard:
    """That store, as often as it is wanted, and what is done to it."""

    def __init__(self, past: Past, folder: Path) -> None:
        self.past = past
        self.folder = folder
        self.inner = past.store()
        self.faulty = FaultyStore(self.inner)
        self.clock = past.clock()
        self.policy = POLICY
        self.manifests = Manifests()

    def prune(self, store: Store | None = None, **more: object) -> Pruned:
        return self.pruner(store).run(**more)  # type: ignore[arg-type]

    def pruner(self, store: Store | None = None, stopped: Callable[[], bool] = lambda: False) -> Prune:
        return Prune(
            store or self.faulty, self.clock, self.manifests, policy=lambda: self.policy, stopped=stopped
        )

    @property
    def names(self) -> set[str]:
        return set(self.inner.names)

    @property
    def promises(self) -> dict[str, str]:
        return promised(self.past.backups.values(), RULES, self.clock.wall())

    def restored(self, position: Position) -> str:
        output = self.folder / "restored.db"
        repository = read_repository(self.inner)
        chosen = choose(repository, Target(txid=position.txid, generation=position.generation))
        restore_chosen(repository, chosen, str(output), RestoreOptions(verify="none"))
        digest = hashlib.sha256(output.read_bytes()).hexdigest()
        output.unlink()
        return digest

    def set_aside(self, backup_id: str) -> None:
        record = EventRecord(backup_id, DAMAGED, self.clock.wall(), {"fault": "a test"})
        self.inner.put(str(EventName(backup_id, DAMAGED)), encode_record(record))

    def require_promised(self) -> None:
        """Every backup that is promised, and every commit of the window, restores to what it was."""
        begins = self.clock.wall() - round(RULES.log_hours * HOUR * MICROS_PER_SECOND)
        wanted = {self.past.backups[each] for each in self.promises}
        positions = {Position(each.generation, each.txid) for each in wanted}  # type: ignore[arg-type]
        newest = max(positions, key=lambda each: (times(self.past)[each], each.txid))
        positions |= {
            each
            for each in self.past.digests
            if each.generation == newest.generation and each.txid >= newest.txid
        }
        assert begins < self.clock.wall()
        for position in sorted(positions):
            assert self.past.digests[position] == self.restored(position), position


def times(past: Past) -> dict[Position, int]:
    return {Position(each.generation, each.txid): each.time for each in past.backups.values()}  # type: ignore[arg-type]


@pytest.fixture
def yard(past: Past, tmp_path: Path) -> Yard:
    return Yard(past, tmp_path)


def kinds(names: set[str], kind: type) -> list[str]:
    return sorted(name for name in names if isinstance(parse_name(name), kind))


# --- what goes and what stays --------------------------------------------------------------------------


def test_s78_exactly_what_is_promised_is_left(yard: Yard) -> None:
    """And what that rests on; every promised point restores, and nothing lies there that nobody needs."""
    pruned = yard.prune()
    left = backups_in(yard.inner)

    assert set(yard.promises) == set(left)
    assert 0 < len(left) < len(yard.past.backups)
    assert [] == unreferenced(yard.inner, yard.clock.wall())
    assert yard.names == set(yard.past.objects) - set(pruned.deleted)
    yard.require_promised()
    assert () == pruned.refused
    assert () == yard.prune().deleted


def test_s12_logs_are_kept_from_where_the_window_begins(yard: Yard) -> None:
    """Those from before what it begins from, and from before the newest full, are gone; no commit within is lost."""
    yard.prune()
    logs = [name for each in kinds(yard.names, LogName) if isinstance(name := parse_name(each), LogName)]
    before = len(kinds(set(yard.past.objects), LogName))
    window = yard.clock.wall() - round(RULES.log_hours * HOUR * MICROS_PER_SECOND)
    ordered = sorted(yard.past.backups.values(), key=lambda each: each.time)
    base = [each for each in ordered if each.time <= window][-1]
    full = [each for each in ordered if each.parent is None][-1]
    begins = min(base.txid, full.txid)

    assert base.generation == full.generation
    assert 0 < len(logs) < before
    assert all(name.generation == base.generation and name.txid_last > begins for name in logs)
    yard.require_promised()


def test_a_dry_run_touches_nothing(yard: Yard) -> None:
    """It says what a real one would do, each with its reason."""
    before = yard.names
    dry = yard.prune(dry=True)
    assert before == yard.names
    said = document(dry)
    done = document(yard.prune())

    assert said["dry_run"]
    assert said["deleted"] == done["deleted"]
    assert said["kept"] == done["kept"]
    assert all(each["reason"] for each in (*said["deleted"], *said["kept"]))
    assert said["bytes_deleted"] == done["bytes_deleted"] > 0
    assert before == {each["name"] for each in (*said["deleted"], *said["kept"])}
    assert sum(len(data) for data in yard.past.objects.values()) == said["bytes_deleted"] + said["bytes_kept"]
    assert len(said["windows_before"]) == len(said["windows_after"])


def test_manifests_are_read_once(yard: Yard) -> None:
    """They never change: the second pruning asks for what is new alone."""
    yard.prune()
    before = yard.faulty.calls["get"]
    yard.prune()
    after = yard.faulty.calls["get"] - before

    assert before > len(yard.past.backups)
    assert after < 10


def test_s109_a_pin_keeps_a_backup_and_what_it_rests_on(yard: Yard) -> None:
    """For ever; and once the pin is gone, it goes."""
    gone = sorted(set(yard.past.backups) - set(yard.promises))
    pinned = next(each for each in gone if yard.past.backups[each].parent is not None)
    pin = str(EventName(pinned, PINNED))
    yard.inner.put(pin, encode_record(EventRecord(pinned, PINNED, yard.clock.wall())))
    yard.prune()
    made = yard.past.backups[pinned]

    assert {*yard.promises, pinned, str(made.parent)} <= set(backups_in(yard.inner))
    assert yard.past.digests[Position(made.generation, made.txid)] == yard.restored(  # type: ignore[arg-type]
        Position(made.generation, made.txid)  # type: ignore[arg-type]
    )
    yard.inner.delete(pin)
    yard.prune()
    assert set(yard.promises) == set(backups_in(yard.inner))


def test_s73_before_a_time_nothing_is_left_that_restores_a_state_from_then(yard: Yard) -> None:
    """Whatever is promised; the newest chain stays, if it begins after that."""
    newest = max(yard.past.backups.values(), key=lambda each: (each.parent is None, each.time))
    pruned = yard.prune(before=newest.time)
    left = backups_in(yard.inner)

    assert {newest.backup_id} <= set(left)
    assert all(each.time >= newest.time for each in left.values())
    assert pruned.deleted
    with pytest.raises(TargetUnreachable):
        choose(read_repository(yard.inner), Target(timestamp=newest.time - 1))
    tip = max(each for each in yard.past.digests if each.generation == newest.generation)
    assert yard.past.digests[tip] == yard.restored(tip)


def test_s73_the_newest_chain_stays_even_so(yard: Yard) -> None:
    """With a word about what to do."""
    pruned = yard.prune(before=yard.clock.wall())
    left = backups_in(yard.inner)
    newest = max(yard.past.backups.values(), key=lambda each: (each.parent is None, each.time))

    assert newest.backup_id in left
    assert "make a full backup that is read back, and prune once more" in str(document(pruned)["note"])
    tip = max(each for each in yard.past.digests if each.generation == newest.generation)
    assert yard.past.digests[tip] == yard.restored(tip)


def test_s104_where_room_is_short_the_oldest_go_first(yard: Yard) -> None:
    """Down to the limit if that can be; the newest chain and the window stay in any case."""
    everything = sum(len(data) for data in yard.past.objects.values())
    sizes = []
    for share in (0.5, 0.2, 0.0):
        yard.policy = replace(POLICY, max_bytes=int(everything * share))
        pruned = yard.prune()
        sizes.append(sum(each.size for each in yard.inner.list("")))
        assert (sizes[-1] > everything * share) == (pruned.plan.bytes_over > 0)
    newest = max(each for each in yard.past.digests if each.generation == newest_generation(yard.past))

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= everything * 0.5
    assert yard.past.digests[newest] == yard.restored(newest)


def newest_generation(past: Past) -> str:
    return max(past.backups.values(), key=lambda each: each.time).generation


def test_s78_a_probe_that_was_left_is_cleared_away(yard: Yard) -> None:
    """Of a process that was killed a day ago: no listing shows it. One that is in use stays, and a plan clears none."""
    store = MemoryStore(wall=yard.clock.wall)
    for name, data in yard.past.objects.items():
        store.put(name, data)
    store.put(f"{PROBES}00-clock", b"old")
    yard.clock.advance(25 * HOUR)
    store.put(f"{PROBES}01-clock", b"new")
    yard.prune(store, dry=True)
    assert 2 == len(list(store.list(PROBES)))
    yard.prune(store)

    assert [f"{PROBES}01-clock"] == [each.name for each in store.list(PROBES)]


# --- the clock -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-7 * 86_400, -601, 601, 86_400, 400 * 86_400])
def test_s78_nothing_is_deleted_while_the_clocks_differ(yard: Yard, seconds: int) -> None:
    """Ahead or behind: no age means anything then; it says which way, and what to do."""
    yard.clock.set_wall(yard.past.wall + seconds * MICROS_PER_SECOND)
    before = yard.names
    with pytest.raises(ClockWrong, match="behind" if seconds < 0 else "ahead of") as caught:
        yard.prune()

    assert before == yard.names
    assert "set the clock" in str(caught.value.hint)
    with pytest.raises(ClockWrong):
        yard.prune(dry=True)


@pytest.mark.parametrize("seconds", [-599, 599])
def test_clocks_that_differ_by_minutes_do_no_harm(yard: Yard, seconds: int) -> None:
    """Nothing is kept for less than hours."""
    yard.clock.set_wall(yard.past.wall + seconds * MICROS_PER_SECOND)
    pruned = yard.prune()

    assert pruned.deleted
    yard.require_promised()


def test_a_store_that_does_not_say_what_time_it_is_is_pruned(yard: Yard) -> None:
    """It cannot be compared; what was recorded in the future still can."""

    class Silent(FaultyStore):
        def modified(self, name: str) -> int:
            raise StoreDenied("it does not say")

    pruned = yard.prune(Silent(yard.inner))

    assert pruned.deleted
    assert set(yard.promises) == set(backups_in(yard.inner))


@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_a_backup_in_the_future_keeps_everything(yard: Yard, kind: str) -> None:
    """It was made by a clock that ran ahead, or ours went back: it would outlive what is newer."""
    newest = max(
        (each for each in yard.past.backups.values() if (each.parent is None) == (kind == "full")),
        key=lambda each: each.time,
    )
    wall = newest.time - 3_600 * MICROS_PER_SECOND
    yard.clock.set_wall(wall)
    yard.inner._wall = yard.clock.wall
    before = yard.names
    with pytest.raises(ClockWrong, match="holds a backup of"):
        yard.prune()

    assert before == yard.names


# --- interrupted ---------------------------------------------------------------------------------------


def test_s78_a_crash_between_any_two_deletes_breaks_no_promise(past: Past, tmp_path: Path) -> None:
    """After each of them every promised point restores; the next pruning ends where this one would have."""
    whole = Yard(past, tmp_path)
    order = whole.prune().deleted
    yard = Yard(past, tmp_path)
    assert len(order) > 60
    for count in range(len(order)):
        yard.faulty.fail("delete", skip=2)  # the first one is of the object that tells the time
        with contextlib.suppress(StoreUnavailable):
            yard.prune()
        assert set(past.objects) - yard.names == set(order[: count + 1])
        if count % 7 == 0 or isinstance(parse_name(order[count]), FullName | IncrementalName):
            yard.require_promised()

    assert whole.names == yard.names
    yard.require_promised()


def test_one_that_is_stopped_goes_on_the_next_time(yard: Yard) -> None:
    """Between two deletes, and with a word."""
    asked = itertools.count()
    with pytest.raises(Interrupted, match="the next one goes on"):
        yard.pruner(stopped=lambda: next(asked) == 5).run()

    assert 5 == len(set(yard.past.objects) - yard.names)
    yard.require_promised()
    yard.prune()
    assert set(yard.promises) == set(backups_in(yard.inner))


# --- a store that does not let go ----------------------------------------------------------------------


class Holding(FaultyStore):
    """May not delete what the test says."""

    holds: Callable[[str], bool] = staticmethod(lambda _: False)

    def delete(self, name: str) -> None:
        if self.holds(name):
            raise StoreDenied(f"{name} is under retention")
        super().delete(name)


def test_a_backup_that_may_not_be_deleted_keeps_what_it_needs(yard: Yard) -> None:
    """Its chain, the packs of all of them and their records, each with the reason: it can still be restored."""
    gone = sorted(set(yard.past.backups) - set(yard.promises))
    held = next(each for each in gone if yard.past.backups[each].parent is not None)
    made = yard.past.backups[held]
    store = Holding(yard.inner)
    store.holds = lambda name: name.endswith(f"{held}.incremental")
    pruned = yard.prune(store)
    left = backups_in(yard.inner)
    refused = dict(pruned.refused)

    assert {held, str(made.parent)} <= set(left)
    assert (
        "under retention" in refused[next(name for name in refused if name.endswith(f"{held}.incremental"))]
    )
    needed = [name for each in (held, str(made.parent)) for name, _ in yard.past.backups[each].packs]
    assert set(needed) <= yard.names
    assert all("which needs it, may not be deleted" in refused[name] for name in needed if name in refused)
    position = Position(made.generation, made.txid)  # type: ignore[arg-type]
    assert yard.past.digests[position] == yard.restored(position)
    assert [] != [each for each in yard.names if each.startswith(f"records/{held}/")]
    yard.require_promised()
    assert set(yard.past.objects) == yard.names | set(pruned.deleted)
    said = document(pruned)
    assert sum(len(yard.past.objects[name]) for name in pruned.deleted) == said["bytes_deleted"]
    assert set(pruned.deleted) == {each["name"] for each in said["deleted"]}


def test_credentials_that_may_only_add_delete_nothing(yard: Yard) -> None:
    """All that would go is told as refused, and it all stays."""
    store = Holding(yard.inner)
    store.holds = lambda _: True
    pruned = yard.prune(store)
    names = {name for name in yard.names if not name.startswith(".probe")}

    assert () == pruned.deleted
    assert set(yard.past.objects) == names
    assert {each.name for each in pruned.plan.delete} <= set(dict(pruned.refused))
    assert 0 == document(pruned)["bytes_deleted"]


def test_a_store_that_is_away_ends_it(yard: Yard) -> None:
    """Nothing is guessed about what went."""
    yard.faulty.fail("delete", skip=4)
    with pytest.raises(StoreUnavailable):
        yard.prune()
    yard.require_promised()
    yard.prune()

    assert set(yard.promises) == set(backups_in(yard.inner))


# --- damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "version", "gone"])
def test_what_cannot_be_read_is_not_deleted_nor_built_upon(yard: Yard, damage: str) -> None:
    """The manifest of an old full: nobody knows what it needs, so it and all older packs stay."""
    gone = [yard.past.backups[each] for each in set(yard.past.backups) - set(yard.promises)]
    full = max((each for each in gone if each.parent is None), key=lambda each: each.time)
    (name,) = (each for each in yard.names if each.endswith(f"{full.backup_id}.full"))
    if damage == "gone":
        yard.inner.delete(name)
    else:
        spoil = (lambda data: data[:-9]) if damage == "cut" else (lambda data: data[:7] + b"\3" + data[8:])
        yard.inner.damage(name, spoil)
    yard.prune()

    assert (damage != "gone") == (name in yard.names)
    assert (damage != "gone") == ({pack for pack, _ in full.packs} <= yard.names)
    yard.require_promised()


@pytest.mark.parametrize("what", ["pack", "manifest"])
def test_where_the_window_begins_from_something_damaged_the_one_before_is_kept(yard: Yard, what: str) -> None:
    """Once the damaged one is set aside, every commit of the window is still to be had."""
    begins = yard.clock.wall() - round(RULES.log_hours * HOUR * MICROS_PER_SECOND)
    usual = max(
        (each for each in yard.past.backups.values() if each.time <= begins), key=lambda each: each.time
    )
    (name,) = (each for each in yard.names if f"{usual.backup_id}." in each)
    if what == "manifest":
        yard.inner.damage(name, lambda data: data[:-1])
    else:
        yard.inner.delete(usual.packs[-1][0])
    yard.prune()
    yard.set_aside(usual.backup_id)
    within = [
        each for each in yard.past.digests if each.generation == usual.generation and each.txid > usual.txid
    ]

    assert within
    for position in within:
        assert yard.past.digests[position] == yard.restored(position)


def test_a_backup_that_was_set_aside_never_comes_back(yard: Yard) -> None:
    """Nobody relies on it, prune neither; and what says that it is hurt goes last: without that it would count
    again."""
    fulls = sorted(
        (each for each in yard.past.backups.values() if each.parent is None), key=lambda each: each.time
    )
    hurt, young = fulls[-4], fulls[-1]
    for each in (hurt, young):
        yard.set_aside(each.backup_id)
    yard.inner._wall = yard.clock.wall
    for _ in range(6):
        yard.faulty.fail("delete", skip=3)
        for _ in range(2):
            with contextlib.suppress(StoreUnavailable):
                yard.prune()
        catalogue = read_repository(yard.inner).catalogue
        counted = {each.backup_id for listing in catalogue.generations for each in listing.backups}
        assert not {hurt.backup_id, young.backup_id} & counted
        yard.clock.advance(12 * HOUR)
    yard.prune(yard.inner)

    left = [each for each in yard.names if not each.endswith(".pack")]  # which others may need
    assert [] == [each for each in left if hurt.backup_id in each or young.backup_id in each]
    assert [] == unreferenced(yard.inner, yard.clock.wall())


def test_of_a_backup_that_was_set_aside_the_record_outlives_the_manifest(yard: Yard) -> None:
    """A store that keeps the one keeps the other."""
    old = min(yard.past.backups.values(), key=lambda each: each.time)
    yard.set_aside(old.backup_id)
    store = Holding(yard.inner)
    store.holds = lambda name: name.endswith(".full")
    yard.prune(store)

    assert f"records/{old.backup_id}/damaged.json" in yard.names
    assert any(each.endswith(f"{old.backup_id}.full") for each in yard.names)
