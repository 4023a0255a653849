"""Full backups of a database that is really followed: exact whatever goes on meanwhile, and small the second time.

The application is a process of its own; the oracle is what SQLite itself reads.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicator.backup import ContentDiffers, FullBackup, FullResult
from replicator.backup import earlier as earlier_module
from replicator.backup import full as backup_module
from replicator.backup import packs as packs_module
from replicator.backup.earlier import Earlier
from replicator.capture import Capture, Follow, FollowSettings
from replicator.clock import Clock
from replicator.core import chunk_table
from replicator.core import full as full_module
from replicator.core.catalogue import Listed
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.codec import DEFAULT, Compression, parse_compression
from replicator.core.errors import (
    Interrupted,
    ObjectCorrupt,
    ObjectNotFound,
    OwnershipLost,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.core.full import Manifest, decode_manifest, read_tables
from replicator.core.key_ring import Root, new_ring
from replicator.core.names import FullName, PackName, SegmentName, parse_name
from replicator.core.pack import decode_frame
from replicator.core.position import GenerationId, Position
from replicator.core.records import RepositoryRecord, encode_record
from replicator.keys import FixedKeys
from replicator.marks import Marks
from replicator.moment import Moment
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.restore import chunks as chunks_module
from replicator.source.database import Database
from replicator.spool import Place, Spool
from replicator.state import StateFolder
from replicator.store import Store
from replicator.store.sealed import SealedStore
from tests.support import oracle
from tests.support.app import App
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore

FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    " INSERT INTO t(body) SELECT hex(randomblob(?)) FROM n"
)


class Site:
    """An application, its database, and the capturing of it, stepped by hand."""

    def __init__(self, folder: Path, page_size: int = 4096, compression: Compression = DEFAULT) -> None:
        self.folder = folder
        self.path = str(folder / "app.db")
        self.app = App(self.path, page_size=page_size)
        self.clock = FakeClock()
        self.state = StateFolder(str(folder / "state"))
        self.state.open()
        self.state.repository, self.state.epoch = "ab" * 16, 1
        self.spool = Spool(self.state.spool_folder)
        self.spool.open()
        self.store = MemoryStore()
        self.store.put("repository.json", encode_record(RepositoryRecord("ab" * 16, "2025-01-28T06:00:00Z")))
        self.compression = compression
        self.begin()
        self.shipped = Place(0, 0)

    def begin(self) -> None:
        """Whoever follows the database, from the state and the spool that are open."""
        settings = FollowSettings(0.0, CheckpointLimits(), compression=self.compression)
        self.follow = Follow(
            self.path, settings, state=self.state, spool=self.spool, marks=Marks(),
            clock=self.clock, prepare=lambda: None, confirm=lambda: None, recover=lambda: None,
            on_captured=lambda: None, on_generation=lambda: None, request_passive=lambda: None, watch=lambda _: True,
            waited=False,
        )  # fmt: skip

    @property
    def capture(self) -> Capture:
        """The capturing, begun if it was not, with everything committed captured."""
        if self.follow.capture is None:
            self.follow.step(self.clock.now())
        assert self.follow.capture is not None
        self.follow.capture.capture_now()
        return self.follow.capture

    def fill(self, rows: int, size: int = 1_000) -> None:
        self.app.execute(FILL, rows, size)

    def settle(self) -> None:
        """Everything captured moves into the main file."""
        _ = self.capture
        self.clock.advance(1.0)  # long enough for our read mark to follow
        self.follow.step(self.clock.now())
        self.app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self.follow.step(self.clock.now())

    def full(self, store: Store | None = None, **more: Any) -> FullResult:
        return self.backup(store, **more).run(self.capture)

    def backup(
        self,
        store: Store | None = None,
        *,
        reserve: Callable[[Moment], None] = lambda _: None,
        confirm: Callable[[], None] = lambda: None,
        trouble: Callable[[ReplicatorError | None], None] = lambda _: None,
        dedup: Callable[[], Root | None] = lambda: None,
        verification: bool = True,
        stop: threading.Event | None = None,
        clock: Clock | None = None,
    ) -> FullBackup:
        return FullBackup(
            store or self.store,
            self.state,
            clock or self.clock,
            reserve=reserve,
            confirm=confirm,
            trouble=trouble,
            dedup=dedup,
            verification=verification,
            stop=stop or threading.Event(),
        )

    def ship(self) -> None:
        """All that is spooled goes into the store, as one segment each time."""
        while True:
            units, behind = self.spool.read(self.shipped, 1 << 30)
            if not units:
                return
            header = units[0][0]
            name = SegmentName(header.generation, header.txid_first, header.part)
            self.store.put(str(name), b"".join(unit for _, unit in units))
            self.shipped = behind

    def restored(self, txid: int | None = None) -> str:
        """SHA-256 of the database restored from the store, fully proved."""
        output = self.folder / "restored.db"
        output.unlink(missing_ok=True)
        repository = read_repository(self.store)
        chosen = choose(repository, Target(txid=txid))
        result = restore_chosen(repository, chosen, str(output), RestoreOptions(verify="full"))
        assert "integrity_check" in result.proved
        assert "database checksum" in result.proved
        return hashlib.sha256(output.read_bytes()).hexdigest()

    def actual(self) -> str:
        """SHA-256 of what SQLite reads just now."""
        return oracle.snapshot_at_rest(self.path, self.folder / "actual.db").digest

    def close(self) -> None:
        self.follow.finish(settle=False)
        self.app.kill()
        self.spool.close()
        self.state.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def names_of(store: MemoryStore, kind: type) -> list[str]:
    return [name for name in store.puts if isinstance(parse_name(name), kind)]


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def packs_of(manifest: Manifest) -> list[str]:
    return [pack.name for pack in manifest.packs]


def manifests(store: MemoryStore) -> list[Manifest]:
    return [decode_manifest(store.get(name), name) for name in names_of(store, FullName)]


# --- exact ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("settled", [False, True])
def test_s05_a_full_is_the_database(tmp_path: Path, page_size: int, settled: bool) -> None:
    """Wherever the pages lie, in the log or in the main file, the full alone restores the very same bytes."""
    site = Site(tmp_path, page_size)
    site.fill(300)
    if settled:
        site.settle()
    site.app.insert(2)
    result = site.full()
    (manifest,) = manifests(site.store)

    assert site.actual() == site.restored()
    assert result.position == manifest.position
    assert result.database_bytes == manifest.pages * page_size == (tmp_path / "restored.db").stat().st_size
    assert result.chunks == result.chunks_new == manifest.chunks
    packs = {each.name: each.size for each in site.store.list("full/") if each.name.endswith(".pack")}
    assert packs == {pack.name: pack.size_bytes for pack in manifest.packs}
    assert result.stored_bytes == sum(packs.values())
    site.close()


def test_a_small_database_has_a_full_too(site: Site) -> None:
    """A few pages, less than a chunk: nothing is special about them."""
    result = site.full()

    assert 1 == result.chunks
    assert site.actual() == site.restored()


def test_the_first_full_gives_the_generation_its_checksum(site: Site) -> None:
    """From then on the content can be compared with what was captured, also after a restart."""
    site.fill(50)
    before = site.state.generation
    site.app.insert(3)
    site.full()
    after = site.state.generation
    (manifest,) = manifests(site.store)

    assert before is None or before.base_checksum is None
    assert after is not None
    assert int(manifest.checksum, 16) ^ int(manifest.rolling, 16) == after.base_checksum
    site.state.close()
    again = StateFolder(site.state.folder)
    again.open()
    assert after == again.generation
    again.close()


def test_the_manifest_comes_last_and_after_the_reservation(site: Site) -> None:
    """Packs, then the manifest: it alone is the backup; what is captured from its position on is kept."""
    site.fill(300)
    reserved: list[tuple[Position, Place, list[str]]] = []

    def reserve(moment: Moment) -> None:
        position = Position(moment.lineage.generation, moment.tip.txid)
        reserved.append((position, moment.spooled, names_of(site.store, FullName)))

    result = site.full(reserve=reserve)
    puts = [name for name in site.store.puts if name.startswith("full/")]

    assert [(result.position, site.spool.end, [])] == reserved
    assert isinstance(parse_name(puts[-1]), FullName)
    assert all(isinstance(parse_name(name), PackName) for name in puts[:-1])


# --- small the second time -----------------------------------------------------------------------------


def test_s30_a_second_full_without_changes_stores_under_one_percent(site: Site) -> None:
    """Every chunk is found in the first one: what is added is a manifest."""
    site.fill(4_000)
    site.settle()
    first = site.full()
    site.app.execute("PRAGMA user_version = 7")  # one page, so that it is another commit at all
    site.clock.advance(5.0)
    second = site.full()
    one, two = manifests(site.store)

    assert first.stored_bytes > first.database_bytes * 0.4  # hexadecimal digits: they halve
    assert second.chunks_new <= 1
    assert second.stored_bytes < second.database_bytes * 0.01
    assert set(packs_of(one)) <= set(packs_of(two))
    assert site.actual() == site.restored()


def test_a_full_of_the_same_commit_is_the_same_full(site: Site) -> None:
    """Nothing was committed since: the name is taken, by a manifest of the same database."""
    site.fill(500)
    first = site.full()
    second = site.full()

    assert first.position == second.position
    assert 1 == len(manifests(site.store))
    assert 0 == second.chunks_new
    assert site.actual() == site.restored()


def test_s31_one_percent_of_changes_stores_a_few_percent(site: Site) -> None:
    """Chunks are small enough that a few changed rows do not bring their neighbours along."""
    site.fill(4_000)
    site.settle()
    first = site.full()
    site.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 500 < 5")
    site.settle()
    site.clock.advance(5.0)
    second = site.full()

    assert 0 < second.chunks_new < first.chunks * 0.1
    assert second.stored_bytes < first.stored_bytes * 0.06
    assert site.actual() == site.restored()


def test_fulls_follow_a_database_that_grows_and_shrinks(site: Site) -> None:
    """VACUUM moves everything, deletes cut the file: each full restores, on its own, what was there."""
    site.app.execute("PRAGMA auto_vacuum = FULL")
    site.app.execute("VACUUM")
    digests: dict[int, str] = {}
    for sql in (
        "INSERT INTO t(body) SELECT hex(randomblob(2000)) FROM t AS a LIMIT 900",
        "DELETE FROM t WHERE id % 3 = 0",
        "VACUUM",
        "DELETE FROM t WHERE id > 100",
        "INSERT INTO t(body) SELECT hex(randomblob(9000)) FROM t LIMIT 60",
    ):
        if not digests:
            site.fill(600)
        site.app.execute(sql)
        site.settle()
        site.clock.advance(5.0)
        digests[site.full().position.txid] = site.actual()

    assert digests == {txid: site.restored(txid) for txid in digests}


def test_the_first_full_of_a_month_refers_to_nothing_older(site: Site) -> None:
    """So no pack has to outlive the fulls of its month."""
    site.clock.set_wall(1_738_367_990_000_000)  # 2025-01-31T23:59:50Z
    site.fill(500)
    site.full()
    site.clock.advance(30.0)
    site.app.insert()
    site.full()
    site.clock.advance(30.0)
    site.app.insert()
    site.full()
    january, february, again = manifests(site.store)

    assert "full/2025/01/31/" in packs_of(january)[0]
    assert all("full/2025/02/01/" in name for name in packs_of(february))
    assert set(packs_of(february)) <= set(packs_of(again))
    assert site.actual() == site.restored()


def test_a_damaged_manifest_is_passed_over(site: Site) -> None:
    """A full that cannot be read is not built upon, and does not keep the next one from being made."""
    site.fill(300)
    site.full()
    (name,) = names_of(site.store, FullName)
    site.store.damage(name, lambda data: flipped(data, len(data) - 5))
    site.clock.advance(5.0)
    site.app.insert()
    second = site.full()
    newest = names_of(site.store, FullName)[-1]
    whole = decode_manifest(site.store.get(newest), newest)

    assert second.chunks_new == second.chunks
    assert not set(packs_of(whole)) & set(names_of(site.store, PackName)[:1])


# --- tables --------------------------------------------------------------------------------------------


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven chunks, wherever the number is known: what a database of many gibibytes has, in a small one."""
    for module in (full_module, chunk_table, earlier_module, chunks_module):
        monkeypatch.setattr(module, "TABLE_CHUNKS", 7)


@pytest.mark.usefixtures("small_tables")
def test_a_full_has_as_many_tables_as_it_takes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made, built upon and restored table by table; packs end between tables, too."""
    monkeypatch.setattr(packs_module, "PACK_BYTES", 2_000)
    site.fill(800)
    site.settle()
    first = site.full()
    site.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 300 < 3")
    site.settle()
    site.clock.advance(5.0)
    second = site.full()
    one, two = manifests(site.store)

    assert first.chunks > 50
    assert [-(-each.chunks // 7) for each in (one, two)] == [len(each.tables) for each in (one, two)]
    assert 1 < len({each.frame.pack for each in one.tables})
    assert 0 < second.chunks_new < first.chunks * 0.2
    for manifest in (one, two):
        runs = [run for table in read_tables(manifest, site.store.get_range) for run in table.runs]
        assert manifest.chunks == sum(run.count for run in runs)
        places = {run.frame for run in runs} | {each.frame for each in manifest.tables}
        assert set(range(len(manifest.packs))) == {frame.pack for frame in places}
    assert site.actual() == site.restored()


@pytest.mark.usefixtures("small_tables")
def test_a_damaged_table_is_stored_anew_with_its_chunks(site: Site) -> None:
    """What one table of an earlier full says cannot be read: those chunks are stored again, the others are not."""
    site.fill(800)
    site.settle()
    first = site.full()
    (one,) = manifests(site.store)
    frame = one.tables[2].frame
    place = frame.offset + frame.stored_bytes - 1  # of the last hash: what it says reads well, and is wrong
    site.store.damage(one.packs[frame.pack].name, lambda data: flipped(data, place))
    site.clock.advance(5.0)
    site.app.execute("PRAGMA user_version = 7")
    second = site.full()

    assert first.chunks > 50
    assert 7 <= second.chunks_new <= 8
    assert site.actual() == site.restored()


@pytest.mark.usefixtures("small_tables")
def test_earlier_chunks_are_found_at_the_same_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the same index holds the same content, and nowhere else; tables are read once each, and few are held."""
    monkeypatch.setattr(earlier_module, "TABLES_KEPT", 2)
    site.fill(300)
    site.settle()
    site.full()
    (manifest,) = manifests(site.store)
    tables = list(read_tables(manifest, site.store.get_range))
    hashes = b"".join(table.hashes for table in tables)
    wanted = [
        (run.frame, run.first + slot) for table in tables for run in table.runs for slot in range(run.count)
    ]
    store = FaultyStore(site.store)
    earlier = Earlier(store, manifest)
    found = [earlier.find(i, hashes[32 * i : 32 * i + 32]) for i in range(manifest.chunks)]

    assert wanted == found
    assert len(tables) == store.calls["get_range"] > 2
    assert earlier.find(manifest.chunks - 1, hashes[-32:]) is not None
    assert len(tables) == store.calls["get_range"]  # held
    assert earlier.find(0, hashes[:32]) is not None
    assert len(tables) + 1 == store.calls["get_range"]  # not held any more
    assert earlier.find(1, hashes[:32]) is None
    assert earlier.find(manifest.chunks, hashes[:32]) is None
    assert earlier.find(1 << 31, b"") is None
    assert manifest.packs == earlier.packs
    assert Earlier(store, None).find(0, hashes[:32]) is None
    assert () == Earlier(store, None).packs


# --- codecs and keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["none", "gzip", "zstd:9"])
def test_s100_a_full_is_compressed_as_the_database_is(tmp_path: Path, text: str) -> None:
    """Every frame of its packs begins with that codec; the next full may have another, and builds on it."""
    compression = parse_compression(text)
    site = Site(tmp_path, compression=compression)
    site.fill(300)
    site.settle()
    site.full()
    (manifest,) = manifests(site.store)
    for table in read_tables(manifest, site.store.get_range):
        for frame in [*(run.frame for run in table.runs), *(each.frame for each in manifest.tables)]:
            pack = site.store.get(manifest.packs[frame.pack].name)
            assert compression.codec == pack[frame.offset]

    assert site.actual() == site.restored()
    site.close()


def test_s29_x7_chunks_of_an_encrypted_repository_have_keyed_hashes(site: Site) -> None:
    """Nobody without the key can tell whether a chunk is in there; what is hashed otherwise is not built on."""
    keys = [Root(f"{number:016x}", 0, bytes([number]) * 32) for number in (1, 2)]
    results = []
    site.fill(300)
    site.settle()
    for dedup in (None, keys[0], keys[0], keys[1]):
        site.clock.advance(5.0)
        site.app.execute("PRAGMA user_version = 7")
        site.settle()
        results.append(site.full(dedup=lambda dedup=dedup: dedup))
    made = manifests(site.store)
    (table,) = read_tables(made[1], site.store.get_range)
    first = table.runs[0].frame
    pack = made[1].packs[first.pack].name
    chunk = decode_frame(first, site.store.get_range(pack, first.offset, first.stored_bytes), pack)[:16384]

    assert ["sha256", *(f"hmac-sha256:{key.key_id}" for key in (keys[0], keys[0], keys[1]))] == [
        each.hashes for each in made
    ]
    assert hmac.digest(keys[0].secret, chunk, "sha256") == table.hashes[:32]
    assert [True, True, False, True] == [each.chunks_new == each.chunks for each in results]
    assert site.actual() == site.restored()


# --- read back -----------------------------------------------------------------------------------------


class Forgetful(MemoryStore):
    """Keeps something else than it was given of objects whose name ends so: one bit of the last byte but 40."""

    spoils = ""

    def put(self, name: str, data: bytes) -> None:
        if self.spoils and name.endswith(self.spoils):
            data = flipped(data, len(data) - 40)
        super().put(name, data)


def forgetful(site: Site, spoils: str) -> Forgetful:
    store = Forgetful()
    store.put("repository.json", site.store.get("repository.json"))
    store.spoils = spoils
    return store


@pytest.mark.parametrize("kind", [".pack", ".full"])
def test_s33_s34_what_a_store_does_not_give_back_does_not_count(site: Site, kind: str) -> None:
    """A store whose disk lies is found by reading what was put, and named, before the backup counts."""
    site.fill(300)
    site.settle()
    store = forgetful(site, kind)
    with pytest.raises(ObjectCorrupt, match=r"does not give .* back as it was put") as caught:
        site.full(store)
    running = site.state.generation

    assert caught.value.name == next(name for name in store.puts if name.endswith(kind))
    assert running is None or running.base_checksum is None
    assert (kind == ".full") == bool(names_of(store, FullName))
    store.spoils = ""
    site.clock.advance(5.0)
    site.app.insert()
    site.full(store)
    assert site.actual() == hashlib.sha256(restored_from(site, store)).hexdigest()


def test_s101_who_does_not_want_it_reads_nothing_back(site: Site) -> None:
    """Without verification no object that was put is fetched: what comes back costs money in some places."""
    site.fill(300)
    site.settle()
    store = FaultyStore(forgetful(site, ".pack"))
    site.full(store, verification=False)

    assert 0 == store.calls["get"]


def test_reading_back_ends_where_the_backup_is_in_vain(site: Site) -> None:
    """Stopped meanwhile: Interrupted, and no manifest."""
    stop = threading.Event()

    class Stopping(FaultyStore):
        def get(self, name: str) -> bytes:
            stop.set()
            return super().get(name)

    site.fill(600)
    site.settle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs_module, "PACK_BYTES", 100_000)
        with pytest.raises(Interrupted):
            site.full(Stopping(site.store), stop=stop)

    assert [] == names_of(site.store, FullName)


def restored_from(site: Site, store: Store) -> bytes:
    output = site.folder / "restored.db"
    output.unlink(missing_ok=True)
    repository = read_repository(store)
    restore_chosen(repository, choose(repository, Target()), str(output), RestoreOptions(verify="full"))
    return output.read_bytes()


# --- interrupted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
def test_a_put_that_fails_costs_nothing_that_was_read(
    site: Site, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each put in turn: a pack is put again, once; the manifest, with another attempt. None names a pack that is
    not there."""
    monkeypatch.setattr(packs_module, "PACK_BYTES", 100_000)
    monkeypatch.setattr(packs_module, "PAUSE_SECONDS", 0.001)
    told: list[ReplicatorError | None] = []
    site.fill(500)
    site.settle()
    skip = failed = 0
    while skip == failed:
        told.clear()
        store = FaultyStore(site.store)
        store.fail("put", after=after, skip=skip)
        site.clock.advance(5.0)
        site.app.execute("UPDATE t SET body = hex(randomblob(1000))")
        site.settle()
        before = len(names_of(site.store, FullName))
        skip += 1
        try:
            site.full(store, trouble=told.append)
            failed += len(told) == 2
            assert told[1:] in ([], [None])
        except StoreUnavailable:
            failed += 1
            committed = after and isinstance(parse_name(site.store.puts[-1]), FullName)
            assert before + committed == len(names_of(site.store, FullName))
            site.full(store)
        assert site.actual() == site.restored()
        for manifest in manifests(site.store):
            assert set(packs_of(manifest)) <= set(site.store.names)

    assert failed >= 4  # some packs, and the manifest


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_full_whose_pack_vanished_is_not_built_upon(site: Site, damage: str) -> None:
    """Somebody deleted a pack, or cut it off: the next full stores everything anew, or builds on an older one
    that is whole."""

    def spoil(name: str) -> None:
        if damage == "deleted":
            site.store.delete(name)
        else:
            site.store.damage(name, lambda data: data[:-1])

    site.fill(300)
    first = site.full()
    site.clock.advance(5.0)
    site.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id < 100")
    site.settle()
    site.full()
    one, two = names_of(site.store, PackName)
    spoil(two)
    site.clock.advance(5.0)
    site.app.insert()
    third = site.full()
    spoil(one)
    site.clock.advance(5.0)
    site.app.insert()
    fourth = site.full()
    last = manifests(site.store)[-2:]

    assert 0 < third.chunks_new < first.chunks
    assert one in packs_of(last[0])
    assert two not in packs_of(last[0])
    assert fourth.chunks == fourth.chunks_new
    assert not {one, two} & set(packs_of(last[1]))
    assert site.actual() == site.restored()


def test_a_sealed_pack_that_was_cut_off_is_not_built_upon(site: Site) -> None:
    """By the end of its last frame, which in a listing of what is stored is lost among what sealing adds."""
    ring = new_ring("ab" * 16, 1_000, secrets=[bytes(range(size)) for size in (32, 32, 8, 8)])
    store = SealedStore(site.store, FixedKeys(ring))
    site.fill(300)
    site.full(store, dedup=store.dedup)
    (one,) = names_of(site.store, PackName)
    results = []
    for damage in (False, True):
        if damage:
            site.store.damage(one, lambda data: data[:-40])
        site.clock.advance(5.0)
        site.app.insert()
        results.append(site.full(store, dedup=store.dedup))

    assert site.store.get(one).startswith(b"RPLSEAL")
    assert [True, False] == [each.chunks_new < each.chunks for each in results]
    assert site.actual() == hashlib.sha256(restored_from(site, store)).hexdigest()


def test_a_pack_that_vanishes_meanwhile_is_never_named(site: Site) -> None:
    """Deleted while the next full is made: no manifest promises what is not there."""
    site.fill(300)
    site.full()
    (name,) = names_of(site.store, PackName)
    site.clock.advance(5.0)
    site.app.insert()
    before = len(names_of(site.store, FullName))
    with pytest.raises(ObjectNotFound, match=name):
        site.full(reserve=lambda _: site.store.delete(name))

    assert before == len(names_of(site.store, FullName))


def test_a_full_can_be_stopped(site: Site) -> None:
    """The agent ends: no manifest is put, and the next agent begins anew."""
    site.fill(500)
    site.settle()
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        site.full(stop=stop)

    assert [] == names_of(site.store, FullName)
    site.full()
    assert site.actual() == site.restored()


def test_a_full_of_a_generation_that_ended_is_not_committed(site: Site) -> None:
    """While it was made the generation was given up: what was read belongs to nothing."""
    site.fill(300)
    capture = site.capture

    def reserve(_: Moment) -> None:
        running = site.state.generation
        assert running is not None
        record = replace(running.record, generation=GenerationId("01" * 8))
        site.state.begin(replace(running, record=record), set())

    with pytest.raises(ContentDiffers, match="generation ended"):
        site.backup(reserve=reserve).run(capture)

    assert [] == names_of(site.store, FullName)


# --- changed behind our back ---------------------------------------------------------------------------

OVERWRITE = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    file.write(b"\\xff\\x00\\xff")
"""


def test_a_main_file_that_was_changed_past_its_log_is_found(site: Site) -> None:
    """A child writes three bytes into the file, at a time when checkpoints may write there, too: the sum is wrong,
    no manifest is put, the generation cannot go on."""
    site.fill(500)
    site.settle()
    site.full()
    site.app.insert()
    site.clock.advance(1.0)
    site.follow.step(site.clock.now())  # read mark 0 is let go of
    subprocess.run([sys.executable, "-c", OVERWRITE, site.path, str(40 * 4096 + 77)], check=True)
    site.clock.advance(5.0)
    site.app.execute("INSERT INTO t(body) VALUES('more')")
    with pytest.raises(ContentDiffers, match="does not hold what was captured"):
        site.full()

    assert 1 == len(manifests(site.store))


# --- while the application goes on ---------------------------------------------------------------------


class Disturbed:
    """A database that is followed, whose application does something each time it is about to be held still.

    Everything the backup sees is the real thing; the application only commits at the worst moments.
    """

    def __init__(self, site: Site, deed: Callable[[], None]) -> None:
        self._site = site
        self._deed = deed
        self.database: Database = site.follow.database

    def require_followed(self) -> None:
        assert self._site.follow.capture is not None
        self._site.follow.capture.require_followed()

    @contextmanager
    def hold_still(self) -> Iterator[Moment]:
        self._deed()
        with self._site.capture.hold_still() as moment:
            yield moment

    @contextmanager
    def collecting_touched(self) -> Iterator[set[int]]:
        with self._site.capture.collecting_touched() as touched:
            self._deed()
            yield touched


DEEDS = (
    "INSERT INTO t(body) VALUES(hex(randomblob(20000)))",
    "INSERT INTO t(body) SELECT hex(randomblob(3000)) FROM t LIMIT 60",
    "UPDATE t SET body = hex(randomblob(1000)) WHERE id % 7 = 0",
    "UPDATE t SET body = body || 'x' WHERE id = (SELECT min(id) FROM t)",
    "DELETE FROM t WHERE id % 11 = 0",
    "DELETE FROM t WHERE id > (SELECT max(id) - 40 FROM t)",
    "VACUUM",
    "PRAGMA incremental_vacuum(20)",
    "PRAGMA wal_checkpoint(PASSIVE)",
    "PRAGMA wal_checkpoint(PASSIVE)",
)


@pytest.mark.parametrize("seed", range(12))
def test_a_full_is_exact_whatever_is_committed_meanwhile(
    site: Site, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growth, shrinking, VACUUM and checkpoints at every step of the way: it is the database at its position,
    and what was captured since leads from there to what the application has now."""
    monkeypatch.setattr(backup_module, "LEFT_FOR_THE_END", 2)
    rng = random.Random(seed)
    site.app.execute(f"PRAGMA auto_vacuum = {rng.choice(['NONE', 'FULL', 'INCREMENTAL'])}")
    site.app.execute("VACUUM")
    site.fill(800)
    site.settle()

    def deed() -> None:
        for _ in range(rng.randint(0, 4)):
            site.app.execute(rng.choice(DEEDS))
        _ = site.capture
        site.follow.step(site.clock.now())
        if rng.random() < 0.5:
            site.app.execute("PRAGMA wal_checkpoint(PASSIVE)")  # what was just captured is moved at once

    for _ in range(2):
        _ = site.capture
        result = site.backup().run(Disturbed(site, deed))
        site.clock.advance(5.0)
        site.app.insert(2)
        _ = site.capture
        site.ship()

        assert site.restored(result.position.txid)  # proved against the checksum that was captured
        assert site.actual() == site.restored()


@pytest.mark.parametrize("rows", range(300, 304))
def test_a_database_that_shrinks_after_it_was_read_is_backed_up(site: Site, rows: int) -> None:
    """The end of the file comes to lie within a chunk that was read as a whole, and no frame tells of it."""
    site.app.execute("PRAGMA auto_vacuum = FULL")
    site.app.execute("VACUUM")
    site.fill(rows)
    site.app.execute("UPDATE t SET body = hex(randomblob(3000)) WHERE id = 1")
    site.app.execute("VACUUM")
    site.app.execute(
        "UPDATE t SET body = hex(randomblob(200000)) WHERE id = 1"
    )  # grows at the end of the file
    site.settle()
    calls = [0]

    def deed() -> None:
        calls[0] += 1
        if calls[0] == 4:  # everything was read once
            site.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id = 1")
            _ = site.capture

    _ = site.capture
    result = site.backup().run(Disturbed(site, deed))
    (manifest,) = manifests(site.store)

    assert calls[0] >= 4
    assert manifest.pages * 4096 < 400_000 + rows * 2_000
    assert site.actual() == site.restored(result.position.txid)


def test_a_full_over_the_turn_of_a_month_refers_to_nothing_older(site: Site) -> None:
    """It began in January and stands at a commit of February: that is the month it belongs to."""
    site.clock.set_wall(1_738_367_990_000_000)  # 2025-01-31T23:59:50Z
    site.fill(500)
    site.settle()
    site.full()

    def deed() -> None:
        site.clock.advance(4.0)
        site.app.insert()
        _ = site.capture

    result = site.backup().run(Disturbed(site, deed))
    whole = manifests(site.store)[-1]

    assert "full/2025/02/01/" in names_of(site.store, FullName)[-1]
    assert all("full/2025/02/01/" in name for name in packs_of(whole))
    assert whole.position == result.position
    _ = site.capture
    site.ship()
    assert site.actual() == site.restored()


def test_a_database_that_grows_all_the_while_is_backed_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages added and moved into the main file while chunks are read again lie beyond the first size."""
    monkeypatch.setattr(backup_module, "LEFT_FOR_THE_END", 0)
    site.fill(1_500)
    site.settle()

    def deed() -> None:
        site.app.execute("INSERT INTO t(body) SELECT hex(randomblob(3000)) FROM t LIMIT 40")
        site.app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _ = site.capture
        site.follow.step(site.clock.now())
        site.app.execute("PRAGMA wal_checkpoint(PASSIVE)")

    _ = site.capture
    result = site.backup().run(Disturbed(site, deed))
    _ = site.capture
    site.ship()

    assert site.restored(result.position.txid)
    assert site.actual() == site.restored()


def test_a_listing_that_lags_behind_is_no_missing_pack(site: Site) -> None:
    """Packs that were just put and are not listed yet are looked at one by one."""

    class Lagging(FaultyStore):
        def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
            return (each for each in super().list(prefix, after) if not each.name.endswith(".pack"))

    site.fill(500)
    site.settle()
    site.full(Lagging(site.store))

    assert site.actual() == site.restored()


def test_a_full_of_an_agent_that_was_taken_over_from_is_not_committed(site: Site) -> None:
    """The lease is read once more before the manifest is put."""

    def taken_over() -> None:
        raise OwnershipLost("another agent writes here")

    site.fill(100)
    site.settle()
    with pytest.raises(OwnershipLost):
        site.full(confirm=taken_over)

    assert [] == names_of(site.store, FullName)
