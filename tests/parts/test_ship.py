"""One store's queue: in order, each once, at its pace, through every kind of failure; time is the test's own."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from replicator.core.cursor import EMPTY
from replicator.core.errors import (
    ObjectCorrupt,
    OwnershipLost,
    StoreDenied,
    StoreUnavailable,
    TargetUnreachable,
)
from replicator.core.key_ring import new_ring
from replicator.core.names import GenerationName, SegmentName, parse_name
from replicator.core.position import GenerationId, Position
from replicator.core.records import GenerationRecord
from replicator.core.unit import decode_unit, follows, parse_unit_header, split_units
from replicator.enlist import base_checksum_of, enlist, newest_in, read_manifest
from replicator.fence import fence
from replicator.keys import FixedKeys, HeldKeys, KeySource
from replicator.marks import Marks
from replicator.pulse import Pulse
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.ship import Ship, queue, retries
from replicator.spool import Spool
from replicator.state import RunningGeneration, StateFolder
from replicator.store import Store
from replicator.store.sealed import SealedStore
from tests.core.histories import GENERATION, REPOSITORY, START, database_of
from tests.core.unit_writer import Writer, full_of, writer_on
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore

G = GenerationId(GENERATION)
LATER = GenerationId("ffeeddccbbaa9988")
INTERVAL = 1.0
PLAIN = HeldKeys(KeySource({}), "/nonexistent/keys.json")
RING = new_ring(REPOSITORY.hex(), 1_000, secrets=[bytes(range(size)) for size in (32, 32, 8, 8)])


class Pier:
    """State, spool and clock of one database, and the ship of one store; ``restart`` is a new process."""

    def __init__(
        self,
        folder: Path,
        store: Store | None = None,
        *,
        inner: MemoryStore | None = None,
        take_over: bool = False,
    ) -> None:
        self.folder = folder
        self.inner = inner or MemoryStore()
        self.store = store or FaultyStore(self.inner)
        self.take_over = take_over
        self.clock = FakeClock()
        self.wanted_fulls = 0
        self.limit = 1 << 30
        self.interval = INTERVAL
        self.awake = 0.0
        self._open()
        self.writer = self.begin(LATER if take_over else G)

    def _open(self) -> None:
        self.state = StateFolder(str(self.folder / "state"))
        self.state.open()
        self.state.repository = REPOSITORY.hex()
        self.spool = Spool(self.state.spool_folder)
        self.spool.open()
        self.pulse = Pulse(lambda: self.awake)
        self.marks = Marks()
        self.ship = self.new_ship(self.store)

    def new_ship(self, store: Store) -> Ship:
        return Ship(
            store, self.spool, self.state, self.marks, self.clock,
            interval=self.interval, spool_bytes_max=self.limit,
            enlist=lambda: enlist(store, self.state, PLAIN, self.clock, take_over=self.take_over),
            newest=lambda generation: newest_in(store, generation),
            base_of=lambda name: base_checksum_of(read_manifest(store, name)),
            need_full=self._want_full,
            fence=lambda generation: fence(store, self.state.epoch, but=generation),
            pulse=self.pulse,
        )  # fmt: skip

    def _want_full(self) -> None:
        self.wanted_fulls += 1

    def restart(self) -> None:
        self.spool.close()
        self.state.close()
        self._open()

    def begin(self, generation: GenerationId) -> Writer:
        rng = random.Random(int(generation, 16))
        epoch = 2 if self.take_over else 1
        record = GenerationRecord(generation, REPOSITORY.hex(), epoch, START + epoch, "a test", 512, None)
        base = database_of(rng, 512, 8)
        running = RunningGeneration(record, EMPTY, base.count, base.checksum)
        self.state.begin(running, set(self.spool.generations()))
        self.writer = writer_on(base, rng, generation=generation, epoch=epoch)
        return self.writer

    def capture(self, units: list[bytes]) -> list[bytes]:
        for unit in units:
            self.spool.append(unit, parse_unit_header(unit))
        return units

    def commit(self, count: int = 1) -> list[bytes]:
        return self.capture(self.writer.commits(count))

    def step(self) -> float | None:
        return self.ship.step(self.clock.now())

    def run(self, *, seconds: float = 3600.0) -> None:
        """Step whenever it is due, until the ship rests or the time is over."""
        end = self.clock.now() + seconds
        while (delay := self.step()) is not None and self.clock.now() + delay <= end:
            self.clock.advance(delay)

    @property
    def segments(self) -> list[str]:
        """Names in the order they were put."""
        return [name for name in self.inner.puts if isinstance(parse_name(name), SegmentName)]

    def shipped_units(self, generation: GenerationId = G) -> list[bytes]:
        """What lies in the store of a generation, in the order of names."""
        names = sorted(
            (name, str(name))
            for each in self.inner.list(f"tail/{generation}/")
            if isinstance(name := parse_name(each.name), SegmentName)
        )
        reader = (
            SealedStore(self.inner, FixedKeys(RING)) if isinstance(self.store, SealedStore) else self.inner
        )
        return [bytes(view) for _, name in names for view in split_units(reader.get(name))]

    @property
    def mark(self) -> Position | None:
        return self.marks.snapshot().stores[self.store.url].shipped


@pytest.fixture
def pier(tmp_path: Path) -> Pier:
    return Pier(tmp_path)


@pytest.fixture(params=["plain", "sealed"])
def any_pier(tmp_path: Path, request: pytest.FixtureRequest) -> Pier:
    """To a store that is encrypted, or is not: nothing that is said of its user may differ."""
    inner = MemoryStore()
    store: Store = FaultyStore(inner)
    return Pier(
        tmp_path, store if request.param == "plain" else SealedStore(store, FixedKeys(RING)), inner=inner
    )


def faulty(pier: Pier) -> FaultyStore:
    store = pier.store.plain if isinstance(pier.store, SealedStore) else pier.store
    assert isinstance(store, FaultyStore)
    return store


def put_full(pier: Pier) -> int:
    """What a full backup does once it has read the database: reserve, put the objects, rejoin."""
    pier.ship.reserve(pier.spool.end)
    for name, data in full_of(pier.writer).items():
        pier.inner.put(name, data)
    pier.ship.rejoin(pier.writer.lineage.generation, pier.writer.tip.txid)
    return pier.writer.tip.txid


# --- order and pace ------------------------------------------------------------------------------------


def test_everything_goes_out_in_order_and_verbatim(pier: Pier) -> None:
    """Identity, lease, the generation's record, then units as they were captured, named after the first."""
    units = pier.commit(3)
    pier.run()
    more = pier.commit(2)
    pier.run()

    assert ["repository.json", "leases/00000001.json", str(GenerationName(G))] == pier.inner.puts[:3]
    assert [str(SegmentName(G, 1)), str(SegmentName(G, 4))] == pier.segments
    assert b"".join(units) == pier.inner.get(pier.segments[0])
    assert units + more == pier.shipped_units()
    assert Position(G, 5) == pier.mark
    assert pier.ship.has_shipped(pier.spool.end)


def test_a_lone_commit_goes_out_at_once(pier: Pier) -> None:
    """After quiet nothing waits, and at rest nothing is asked of the store at all."""
    pier.run()
    for _ in range(3):
        pier.clock.advance(10.0)
        before = faulty(pier).calls.total()
        pier.commit()
        assert pier.step() is None
        assert before + 1 == faulty(pier).calls.total()
        pier.clock.advance(10.0)
        assert pier.step() is None
        assert before + 1 == faulty(pier).calls.total()


def test_under_sustained_commits_one_segment_an_interval(pier: Pier) -> None:
    """A commit every tenth of a second: ten of them a segment, and the delay says when the next is due."""
    pier.run()
    began = pier.clock.now()
    delays = []
    for _ in range(60):
        pier.commit()
        delays.append(pier.step())
        pier.clock.advance(0.1)
    sizes = [len(list(split_units(pier.inner.get(name)))) for name in pier.segments]

    assert 6.0 == pytest.approx(pier.clock.now() - began)
    assert len(sizes) in (6, 7)
    assert 1 == sizes[0]
    assert set(sizes[1:]) <= {9, 10, 11}
    assert all(delay is None or 0 < delay <= INTERVAL for delay in delays)


def test_an_interval_of_zero_ships_every_commit(tmp_path: Path) -> None:
    """Each unit is a segment of its own if the ship is asked after each."""
    pier = Pier(tmp_path)
    pier.interval = 0.0
    pier.ship = pier.new_ship(pier.store)
    for _ in range(5):
        pier.commit()
        assert pier.step() is None

    assert [str(SegmentName(G, txid)) for txid in range(1, 6)] == pier.segments


def test_hurry_forgets_the_pace(pier: Pier) -> None:
    """Somebody waits for the end: no interval stands in the way, no long pause, and afterwards it is back."""
    pier.commit()
    pier.step()
    pier.commit()
    waiting = pier.step()
    pier.ship.hurry(pier.spool.end)
    at_once = pier.step()
    pier.commit()
    paced = pier.step()
    for _ in range(9):
        faulty(pier).fail("put")
        pier.clock.advance(retries.RETRY_MAX_SECONDS)
        backing_off = pier.step()
    pier.ship.hurry(pier.spool.end)
    hurried = pier.step()
    pier.clock.advance(retries.RETRY_HURRIED_SECONDS)
    pier.step()

    assert waiting == pytest.approx(INTERVAL)
    assert at_once is None
    assert paced == pytest.approx(INTERVAL)
    assert backing_off == retries.RETRY_MAX_SECONDS
    assert hurried == retries.RETRY_HURRIED_SECONDS
    assert 3 == len(pier.shipped_units())


def test_a_backlog_is_cut_into_segments(pier: Pier, monkeypatch: pytest.MonkeyPatch) -> None:
    """No segment is larger than the limit, but for one unit that is; between them the pace is kept."""
    units = pier.commit(30)
    limit = 3 * max(map(len, units))
    monkeypatch.setattr(queue, "SEGMENT_BYTES_MAX", limit)
    pier.run()
    sizes = [len(pier.inner.get(name)) for name in pier.segments]

    assert units == pier.shipped_units()
    assert max(sizes) <= limit
    assert 4 <= len(sizes) <= 29
    monkeypatch.setattr(queue, "SEGMENT_BYTES_MAX", 1)
    more = pier.commit(2)
    pier.run()
    assert units + more == pier.shipped_units()


def test_parts_of_a_transaction_are_shipped_before_they_count(
    pier: Pier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the last part is on its way the mark stays at the transaction before."""
    monkeypatch.setattr(queue, "SEGMENT_BYTES_MAX", 1)
    pier.commit(2)
    parts = pier.capture(pier.writer.large(4))
    marks: list[Position | None] = []
    for _ in range(20):
        if (delay := pier.step()) is None:
            break
        marks.append(pier.mark)
        pier.clock.advance(delay)
    numbers = [str(SegmentName(G, 3, part)) for part in range(1, len(parts) + 1)]

    assert [str(SegmentName(G, 1)), str(SegmentName(G, 2)), *numbers] == pier.segments
    assert {Position(G, 1), Position(G, 2)} == set(marks)
    assert Position(G, 3) == pier.mark


def test_two_generations_follow_each_other(pier: Pier) -> None:
    """What is left of the old one goes first, under its own name; each record before its segments."""
    old = pier.commit(3)
    pier.begin(LATER)
    new = pier.commit(2)
    pier.run()

    assert old == pier.shipped_units(G)
    assert new == pier.shipped_units(LATER)
    assert [str(SegmentName(G, 1)), str(SegmentName(LATER, 1))] == pier.segments
    for generation in (G, LATER):
        assert pier.inner.puts.index(str(GenerationName(generation))) < pier.inner.puts.index(
            str(SegmentName(generation, 1))
        )


def test_nothing_is_shipped_before_a_generation_runs(pier: Pier) -> None:
    """Without a running generation there is nothing to say, and nobody is asked."""
    pier.state.generation = None

    assert pier.step() is None
    assert 0 == faulty(pier).calls.total()
    assert not pier.ship.needs_full


# --- failures ------------------------------------------------------------------------------------------


def test_an_absent_store_is_asked_ever_more_rarely(pier: Pier) -> None:
    """Half a second, doubling up to thirty; in between it is left alone, and what failed is told."""
    pier.run()
    pier.commit()
    faulty(pier).away = True
    delays = []
    for _ in range(9):
        delay = pier.step()
        assert delay is not None
        calls = faulty(pier).calls.total()
        assert pier.step() == delay
        assert calls == faulty(pier).calls.total()
        delays.append(delay)
        pier.clock.advance(delay)
    error = pier.marks.snapshot().error
    spooled = pier.marks.snapshot().stores[pier.store.url].spool_bytes

    assert [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] == delays
    assert error is not None
    assert (pier.store.url, "the network is away") == (error.where, error.message)
    assert len(pier.writer.units[-1]) == spooled
    faulty(pier).away = False
    assert pier.step() is None
    assert pier.marks.snapshot().error is None
    assert 0 == pier.marks.snapshot().stores[pier.store.url].spool_bytes
    assert pier.ship.has_shipped(pier.spool.end)


def test_after_it_came_back_patience_begins_anew(pier: Pier) -> None:
    """The next failure is asked about soon again."""
    pier.run()
    for _ in range(2):
        pier.clock.advance(10.0)
        faulty(pier).away = True
        pier.commit()
        delays = []
        for _ in range(3):
            delay = pier.step()
            assert delay is not None
            delays.append(delay)
            pier.clock.advance(delay)
        faulty(pier).away = False
        pier.run()

        assert [0.5, 1.0, 2.0] == delays


def test_a_refusal_is_asked_about_now_and_then(pier: Pier) -> None:
    """Credentials or policy: somebody has to act first, so it is not asked every half second."""
    pier.run()
    pier.commit()
    for _ in range(3):
        faulty(pier).fail("put", error=StoreDenied("no permission", hint="give it"))
        assert pier.step() == retries.DENIED_SECONDS
        pier.clock.advance(retries.DENIED_SECONDS)
    error = pier.marks.snapshot().error

    assert error is not None
    assert "give it" == error.hint
    assert pier.step() is None


def without(*_: object, **__: object) -> None:
    raise StoreUnavailable("cannot read the spool: too many open files")


def test_without_a_descriptor_neither_store_nor_spool_is_reached(
    pier: Pier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put fails, and so does the look into the spool for what to say of it: told, and tried again."""
    pier.commit(3)
    faulty(pier).fail("put")
    with monkeypatch.context() as patch:
        patch.setattr(pier.spool, "header_at", without)
        assert pier.step() is not None
    (error,) = pier.marks.snapshot().errors
    pier.clock.advance(60.0)
    pier.run()

    assert "the network went away" == error.message
    assert [str(SegmentName(G, 1))] == pier.segments


def test_a_lapse_that_our_own_disk_refuses_ends_nothing(pier: Pier, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the store is damaged twice, so the queue is given up; and that cannot be written down."""
    pier.commit(3)
    pier.run()
    pier.commit(1)
    damaged: Any = ObjectCorrupt("it holds rubbish", name="tail/0")
    pier.clock.advance(60.0)
    faulty(pier).fail("put", error=damaged)
    assert pier.step() is not None
    pier.clock.advance(60.0)
    faulty(pier).fail("put", error=damaged)
    with monkeypatch.context() as patch:
        patch.setattr(pier.ship.memory, "keep", without)
        assert pier.step() is not None
    pier.clock.advance(60.0)
    pier.run()

    assert pier.segments


def test_a_put_that_failed_after_taking_the_bytes_is_adopted(any_pier: Pier) -> None:
    """The name is taken by exactly our units: they are shipped, and nothing is put twice."""
    any_pier.run()
    units = any_pier.commit(2)
    faulty(any_pier).fail("put", after=True)
    assert any_pier.step() == 0.5
    assert Position(G, 2) != any_pier.mark
    any_pier.clock.advance(0.5)
    any_pier.run()

    assert units == any_pier.shipped_units()
    assert [str(SegmentName(G, 1))] == any_pier.segments
    assert Position(G, 2) == any_pier.mark
    assert any_pier.ship.has_shipped(any_pier.spool.end)


def test_a_segment_that_was_cut_elsewhere_is_adopted(any_pier: Pier) -> None:
    """More was captured between the two attempts: what is there counts, and the rest follows behind it."""
    any_pier.run()
    first = any_pier.commit(2)
    faulty(any_pier).fail("put", after=True)
    any_pier.step()
    more = any_pier.commit(3)
    any_pier.clock.advance(0.5)
    any_pier.run()

    assert first + more == any_pier.shipped_units()
    assert [str(SegmentName(G, 1)), str(SegmentName(G, 3))] == any_pier.segments


@pytest.mark.parametrize("seed", range(8))
def test_through_any_failures_everything_arrives_once(any_pier: Pier, seed: int) -> None:
    """Puts, gets and lists that fail before or after their effect, and restarts in between: no unit is lost,
    doubled or out of order, and the mark never says more than is there."""
    rng = random.Random(seed)
    faulty(any_pier).roll(0.3, seed=seed)
    units: list[bytes] = []
    for _ in range(60):
        kind = rng.random()
        if kind < 0.6:
            units += any_pier.commit(rng.randint(1, 3))
        elif kind < 0.7:
            units += any_pier.capture(any_pier.writer.large(3))
        elif kind < 0.8:
            any_pier.restart()
        delay = any_pier.step()
        there = any_pier.shipped_units()
        assert units[: len(there)] == there
        mark = any_pier.marks.snapshot().stores.get(any_pier.store.url)
        if mark is not None and mark.shipped is not None:
            assert there
            assert mark.shipped.txid <= parse_unit_header(there[-1]).txid_last
        any_pier.clock.advance(rng.choice([0.0, 0.1, delay or 5.0]))
    faulty(any_pier).roll(0.0, seed=0)
    any_pier.clock.advance(60.0)
    any_pier.run()

    assert units == any_pier.shipped_units()
    assert Position(G, any_pier.writer.tip.txid) == any_pier.mark
    for before, after in itertools.pairwise(map(decode_unit, any_pier.shipped_units())):
        assert follows(after.header, before.digest)


# --- another writer ------------------------------------------------------------------------------------


def foreign_unit(seed: int = 99) -> bytes:
    rng = random.Random(seed)
    return writer_on(database_of(rng, 512, 8), rng, epoch=7).commits(1)[0]


def test_a_foreign_segment_ends_it(pier: Pier) -> None:
    """The name of our next segment is taken by other units: another agent, named with its epoch."""
    pier.run()
    pier.inner.put(str(SegmentName(G, 1)), foreign_unit())
    pier.commit()
    for _ in range(2):
        with pytest.raises(OwnershipLost, match=r"another agent wrote .*its epoch 7, ours 1"):
            pier.step()

    assert not pier.ship.has_shipped(pier.spool.end)


def test_a_segment_that_holds_more_than_ours_ends_it(pier: Pier) -> None:
    """Our units first and then one that we never captured: somebody goes on in our place."""
    pier.run()
    (unit,) = pier.commit()
    pier.inner.put(str(SegmentName(G, 1)), unit + foreign_unit())
    with pytest.raises(OwnershipLost):
        pier.step()


def test_an_empty_object_in_our_place_ends_it(pier: Pier) -> None:
    """We never write an empty segment."""
    pier.run()
    pier.inner.put(str(SegmentName(G, 1)), b"")
    pier.commit()
    with pytest.raises(OwnershipLost, match="empty"):
        pier.step()


def test_a_damaged_object_in_our_place_is_never_taken_as_shipped(pier: Pier) -> None:
    """It cannot be put again: only a full backup behind it brings the store on."""
    pier.run()
    put_full(pier)
    (unit,) = pier.commit()
    pier.inner.put(str(SegmentName(G, 1)), unit[:-1])
    pier.run(seconds=100.0)

    assert not pier.ship.has_shipped(pier.spool.end)
    assert pier.mark != Position(G, 1)
    assert pier.ship.needs_full
    assert pier.wanted_fulls


# --- where a restart finds itself ----------------------------------------------------------------------


def test_a_restart_puts_nothing_again(pier: Pier) -> None:
    """The store is asked how far it is; what it has is not sent again, and the rest is."""
    pier.commit(3)
    pier.run()
    pier.restart()
    before = list(pier.inner.puts)
    pier.run()
    assert before == pier.inner.puts
    assert Position(G, 3) == pier.mark
    assert pier.ship.has_shipped(pier.spool.end)

    pier.commit(2)
    pier.restart()
    pier.run()
    assert [str(SegmentName(G, 1)), str(SegmentName(G, 4))] == pier.segments


def test_until_the_store_was_asked_nothing_is_deleted(pier: Pier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away since the start keeps all that is spooled."""
    monkeypatch.setattr("replicator.spool.FILE_BYTES", 1_000)
    faulty(pier).away = True
    units = pier.commit(10)
    for _ in range(5):
        delay = pier.step()
        assert delay is not None
        pier.clock.advance(delay)
    assert pier.ship.asked
    assert not pier.ship.has_shipped(pier.spool.beginning)
    faulty(pier).away = False
    pier.run()

    assert units == pier.shipped_units()
    assert 1 == len(list(Path(pier.state.spool_folder).iterdir()))


def test_a_store_ahead_of_us_ends_it(pier: Pier) -> None:
    """It holds a transaction that we never captured: this state folder is an old copy, or another agent wrote."""
    pier.commit(2)
    pier.run()
    ahead = pier.writer.commits(1)
    pier.inner.put(str(SegmentName(G, 3)), ahead[0])
    pier.restart()
    with pytest.raises(OwnershipLost, match="never captured"):
        pier.step()


def test_a_store_that_differs_at_our_place_ends_it(pier: Pier) -> None:
    """The same txid, other bytes: two histories under one name."""
    pier.commit(2)
    pier.inner.put(str(SegmentName(G, 1)), foreign_unit())
    with pytest.raises(OwnershipLost, match="never captured"):
        pier.step()


def test_a_store_that_is_behind_goes_on_where_it_is(pier: Pier) -> None:
    """Everything it lacks is still spooled: it just gets it."""
    pier.commit(2)
    pier.run()
    pier.restart()
    pier.commit(4)
    pier.run()

    assert pier.writer.units == pier.shipped_units()
    assert not pier.marks.snapshot().stores[pier.store.url].lapsed


def test_a_store_too_far_behind_needs_a_full(pier: Pier, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lacks is no longer spooled: a hole, which only a full backup can end."""
    monkeypatch.setattr("replicator.spool.FILE_BYTES", 500)
    pier.commit(2)
    pier.run()
    put_full(pier)
    pier.spool.retain(pier.store.url, None)
    pier.capture(pier.writer.commits(6))
    pier.spool.retain("somebody else", pier.spool.end)
    pier.spool.retain("somebody else", None)
    pier.restart()
    pier.run(seconds=100.0)

    assert pier.ship.needs_full
    assert pier.wanted_fulls
    assert [1, 2] == [parse_unit_header(unit).txid_last for unit in pier.shipped_units()]
    assert pier.marks.snapshot().stores[pier.store.url].lapsed


def test_a_store_that_lacks_what_a_lost_spool_held_needs_a_full(pier: Pier) -> None:
    """The spool is gone, and another store said where to go on, further than this one is: a hole, not a chain."""
    pier.commit(2)
    pier.run()
    put_full(pier)
    pier.writer.commits(3)  # in the other store only
    pier.spool.close()
    for path in Path(pier.state.spool_folder).iterdir():
        path.unlink()
    pier.restart()
    pier.run()
    assert pier.ship.has_shipped(pier.spool.end)  # nothing tells yet
    pier.commit(1)
    pier.run(seconds=100.0)
    assert pier.ship.needs_full
    assert [1, 2] == [parse_unit_header(unit).txid_last for unit in pier.shipped_units()]

    put_full(pier)
    more = pier.commit(2)
    pier.run()
    assert more == pier.shipped_units()[2:]


def test_a_store_that_is_new_gets_all_that_is_spooled_from_the_first(pier: Pier) -> None:
    """Nothing of the generation is there, and the spool begins with its first unit."""
    pier.commit(3)
    pier.run()
    second = MemoryStore("memory://second")
    pier.commit(1)
    ship = pier.new_ship(second)
    while ship.step(pier.clock.now()) is not None:
        pier.clock.advance(1.0)
    found = [bytes(view) for each in second.list("tail/") for view in split_units(second.get(each.name))]

    assert pier.writer.units == found
    assert ship.needs_full  # segments alone restore nothing


def test_a_new_store_beside_a_spool_that_begins_later_needs_a_full_first(
    pier: Pier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments from the middle of a generation would be a chain without a beginning."""
    monkeypatch.setattr("replicator.spool.FILE_BYTES", 500)
    pier.commit(6)
    pier.run()
    second = MemoryStore("memory://second")
    ship = pier.new_ship(second)
    pier.commit(1)
    for _ in range(5):
        ship.step(pier.clock.now())
        pier.clock.advance(10.0)

    assert ship.needs_full
    assert [] == list(second.list("tail/"))


def test_a_restart_between_two_generations_ships_the_rest_of_both(pier: Pier) -> None:
    """The store has a part of the old generation and nothing of the new one: it gets both, each unit once."""
    pier.commit(2)
    pier.run()
    pier.commit(2)
    old = list(pier.writer.units)
    pier.begin(LATER)
    new = pier.commit(2)
    pier.restart()
    pier.run()

    assert old == pier.shipped_units(G)
    assert new == pier.shipped_units(LATER)
    assert [str(SegmentName(G, 1)), str(SegmentName(G, 3)), str(SegmentName(LATER, 1))] == pier.segments


# --- a queue that outgrew its limit --------------------------------------------------------------------


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pier:
    """A spool of a few kilobytes in files of one."""
    monkeypatch.setattr("replicator.spool.FILE_BYTES", 1_000)
    pier = Pier(tmp_path)
    pier.limit = 6_000
    pier.ship = pier.new_ship(pier.store)
    pier.step()
    put_full(pier)
    return pier


def lapse(pier: Pier) -> None:
    """The store is away for longer than the spool has room."""
    faulty(pier).away = True
    while not pier.marks.snapshot().stores[pier.store.url].lapsed:
        pier.commit(3)
        pier.step()
        pier.clock.advance(40.0)


def test_a_queue_beyond_its_limit_is_dropped_loudly(narrow: Pier) -> None:
    """The disk of the application matters more: the files go, the mark and the error say so."""
    lapse(narrow)
    error = narrow.marks.snapshot().error
    for _ in range(20):
        narrow.commit(1)
        narrow.step()
        assert len(list(Path(narrow.state.spool_folder).iterdir())) <= 2
        narrow.clock.advance(40.0)

    assert error is not None
    assert "outgrew its limit" in error.message
    assert error == narrow.marks.snapshot().error
    assert 0 == narrow.marks.snapshot().stores[narrow.store.url].spool_bytes
    assert not narrow.ship.has_shipped(narrow.spool.end)
    faulty(narrow).away = False
    narrow.step()

    assert narrow.ship.needs_full
    assert not narrow.ship.has_shipped(narrow.spool.end)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_lapsed_store_comes_back_by_a_full(narrow: Pier, restarted: bool, tmp_path: Path) -> None:
    """Inside the same generation: a hole that ends at a full, restorable before it and behind it."""
    before = narrow.commit(3)
    narrow.run()
    lapse(narrow)
    lost = narrow.writer.tip.txid
    faulty(narrow).away = False
    if restarted:
        narrow.restart()
    narrow.clock.advance(60.0)
    narrow.run(seconds=100.0)
    assert narrow.ship.needs_full
    assert narrow.wanted_fulls
    assert before == narrow.shipped_units()
    txid = put_full(narrow)
    after = narrow.commit(3)
    narrow.run()
    assert not narrow.ship.needs_full
    assert narrow.ship.has_shipped(narrow.spool.end)
    assert before + after == narrow.shipped_units()
    assert not narrow.marks.snapshot().stores[narrow.store.url].lapsed

    repository = read_repository(narrow.inner)
    for wanted in (0, 2, 3, txid, txid + 1, txid + 3):
        output = tmp_path / f"{wanted}.db"
        restore_chosen(
            repository, choose(repository, Target(txid=wanted)), str(output), RestoreOptions(verify="none")
        )
        assert narrow.writer.states[wanted].pages == pages_of(output)
    for wanted in (4, lost - 1, txid + 4):
        with pytest.raises(TargetUnreachable):
            choose(repository, Target(txid=wanted))
    newest = choose(repository, Target()).point.position
    assert Position(G, txid + 3) == newest


def pages_of(path: Path) -> dict[int, bytes]:
    content = path.read_bytes()
    return {i // 512 + 1: content[i : i + 512] for i in range(0, len(content), 512)}


def test_what_is_captured_while_the_full_is_made_is_kept(narrow: Pier) -> None:
    """From the moment the full stands still, units are reserved; they follow it, and nothing else does."""
    narrow.commit(2)
    narrow.run()
    lapse(narrow)
    faulty(narrow).away = False
    narrow.clock.advance(60.0)
    narrow.step()
    narrow.ship.reserve(narrow.spool.end)
    objects, txid = full_of(narrow.writer), narrow.writer.tip.txid
    meanwhile = narrow.commit(4)
    narrow.run(seconds=100.0)
    assert 2 == len(narrow.shipped_units())
    for name, data in objects.items():
        narrow.inner.put(name, data)
    narrow.ship.rejoin(G, txid)
    narrow.run()

    assert meanwhile == narrow.shipped_units()[2:]
    assert txid + 1 == parse_unit_header(meanwhile[0]).txid_first


def test_a_reservation_that_outgrew_the_limit_is_dropped_too(narrow: Pier) -> None:
    """A full that takes too long has to be made again: the disk is not filled behind its back."""
    lapse(narrow)
    faulty(narrow).away = False
    narrow.clock.advance(60.0)
    narrow.step()
    narrow.ship.reserve(narrow.spool.end)
    txid = narrow.writer.tip.txid
    for _ in range(12):
        narrow.commit(3)
        narrow.step()
    narrow.ship.rejoin(G, txid)

    assert narrow.ship.needs_full
    assert 1 == len(list(Path(narrow.state.spool_folder).iterdir()))
    narrow.restart()
    narrow.run(seconds=100.0)
    assert narrow.ship.needs_full


def test_a_store_that_works_needs_no_reservation(pier: Pier) -> None:
    """The first full of a generation leaves the queue as it is; it only covers it."""
    pier.commit(2)
    pier.run()
    needed = pier.ship.needs_full
    put_full(pier)
    more = pier.commit(2)
    pier.run()

    assert needed
    assert not pier.ship.needs_full
    assert more == pier.shipped_units()[2:]


def test_the_mark_of_a_store_that_is_away_stays(pier: Pier) -> None:
    """Shipped is what the store acknowledged, whatever is captured meanwhile."""
    pier.commit(2)
    pier.run()
    faulty(pier).away = True
    pier.commit(5)
    with pytest.raises(StoreUnavailable):
        pier.store.get("repository.json")
    pier.run(seconds=50.0)

    assert Position(G, 2) == pier.mark
    assert not pier.ship.has_shipped(pier.spool.end)


def test_a_state_folder_that_cannot_be_written_ends_nothing(pier: Pier) -> None:
    """What is remembered of a store only saves requests at the next start."""
    (pier.folder / "state" / "stores").write_text("no folder")
    pier.commit(3)
    pier.run()
    pier.ship.rejoin(G, 3)
    pier.commit(1)
    pier.run()

    assert 2 == len(pier.segments)


def test_a_server_that_asks_to_be_left_alone_is(pier: Pier) -> None:
    """For as long as it said, where that is longer than we would have waited."""
    faulty(pier).fail("put", skip=2, error=StoreUnavailable("slow down", retry_after=20.0))
    pier.commit(1)
    delays = [pier.step()]
    while delays[-1] == 0.0:
        delays.append(pier.step())

    assert 20.0 == delays[-1]


def test_damage_is_read_twice_before_the_queue_is_dropped(pier: Pier) -> None:
    """An object that was damaged on the way is whole when it is read again."""
    pier.commit(3)
    pier.run()
    (name,) = pier.segments
    whole = pier.inner.get(name)
    pier.restart()
    pier.inner.damage(name, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    pier.commit(1)
    delay = pier.step()
    assert delay
    pier.inner.damage(name, lambda _: whole)
    pier.clock.advance(delay)
    pier.run()

    assert 2 == len(pier.segments)
    assert not pier.marks.snapshot().stores[pier.inner.url].lapsed
