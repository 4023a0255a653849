"""Incremental backups of a database that is really followed: exact whatever goes on meanwhile, and no larger than what
changed.

The application is a process of its own; the oracle is what SQLite itself reads.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicator.backup import (
    AS_USUAL,
    ContentDiffers,
    IncrementalBackup,
    IncrementalResult,
    Making,
    NoParent,
)
from replicator.backup import incremental as incremental_module
from replicator.backup import packs as packs_module
from replicator.core import incremental as format_module
from replicator.core.changed_pages import decode_changed
from replicator.core.checksum import pages_checksum
from replicator.core.codec import DEFAULT, Compression, parse_compression
from replicator.core.errors import (
    Interrupted,
    ObjectCorrupt,
    ObjectNotFound,
    OwnershipLost,
    ReplicatorError,
    StoreError,
    StoreUnavailable,
)
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental, decode_incremental, pages_in, read_page_frames
from replicator.core.names import EventName, IncrementalName, PackName, parse_name
from replicator.core.pack import read_frame
from replicator.core.position import GenerationId
from replicator.core.unit import split_units
from replicator.enlist import newest_backup
from replicator.keys import FixedKeys
from replicator.moment import Followed
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.spool import Spool
from replicator.state import StateFolder
from replicator.store import Store
from replicator.store.sealed import SealedStore
from tests.parts.test_backup import DEEDS, Disturbed, Site, forgetful, names_of, restored_from
from tests.parts.test_backup import manifests as fulls_of
from tests.parts.test_ship import RING
from tests.support.memory_store import FaultyStore, MemoryStore


class Scene(Site):
    """With the first full made, and incrementals on whatever is the newest."""

    def incremental(
        self,
        store: Store | None = None,
        *,
        parent: Manifest | Incremental | None = None,
        followed: Followed | None = None,
        making: Making = AS_USUAL,
        confirm: Callable[[], None] = lambda: None,
        trouble: Callable[[ReplicatorError | None], None] = lambda _: None,
        verification: bool = True,
        stop: threading.Event | None = None,
    ) -> IncrementalResult:
        store = store or self.store
        maker = IncrementalBackup(
            store, self.state, self.clock, confirm=confirm, trouble=trouble, verification=verification,
            stop=stop or threading.Event(),
        )  # fmt: skip
        self.clock.advance(5.0)
        capture = self.capture
        return maker.run(followed or capture, parent or self.newest(store), making)

    def newest(self, store: Store | None = None) -> Manifest | Incremental:
        assert self.state.generation is not None
        found = newest_backup(store or self.store, self.state.generation.record.generation)
        assert found is not None
        return found

    def actual(self) -> str:
        """As the application itself reads it, which is faster than the oracle in a process of its own."""
        return self.app.digest()

    def restored(self, txid: int | None = None, *, verify: str = "none") -> str:
        """SHA-256 of the restored database, whose checksum is the one that was recorded."""
        output = self.folder / "restored.db"
        output.unlink(missing_ok=True)
        repository = read_repository(self.store)
        chosen = choose(repository, Target(txid=txid))
        result = restore_chosen(repository, chosen, str(output), RestoreOptions(verify=verify))
        content = output.read_bytes()
        backup = repository.backup(
            chosen.plan.incrementals[-1] if chosen.plan.incrementals else chosen.plan.full
        )
        if backup.txid == result.position.txid:
            assert int(backup.checksum, 16) == pages_checksum(content, 1, result.page_size)
        return hashlib.sha256(content).hexdigest()

    def newest_full(self) -> Manifest:
        return fulls_of(self.store)[-1]

    def made(self, store: Store | None = None, **more: Any) -> Incremental:
        manifest = self.incremental(store, **more).manifest
        assert manifest is not None
        return manifest

    def restart(self, *, kill: bool = False) -> None:
        """The agent ends, or is killed, and a new one begins where it was."""
        self.end(kill=kill)
        self.reopen()

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.follow.database.close()
        else:
            self.follow.finish(settle=False)
        self.spool.close()
        self.state.close()

    def reopen(self) -> None:
        self.state = StateFolder(self.state.folder)
        self.state.open()
        self.spool = Spool(self.state.spool_folder)
        self.spool.open()
        self.begin()
        _ = self.capture


Open = Callable[..., Scene]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Makes a scene, and closes it."""
    scenes: list[Scene] = []

    def made(**more: Any) -> Scene:
        scenes.append(Scene(tmp_path, **more))
        return scenes[-1]

    yield made
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(opened: Open) -> Scene:
    scene = opened()
    scene.fill(400)
    scene.settle()
    scene.full()
    return scene


def manifests(store: MemoryStore) -> list[Incremental]:
    return [decode_incremental(store.get(name), name) for name in names_of(store, IncrementalName)]


def pages_of(manifest: Incremental, store: Store) -> list[dict[int, bytes]]:
    """The pages in each frame, in the order of the frames."""
    found = []
    for each in read_page_frames(manifest, store.get_range):
        plain = read_frame(each.frame, manifest.packs, store.get_range)
        found.append(dict(pages_in(plain, each, manifest.page_size, manifest.packs[each.frame.pack].name)))
    return found


# --- exact ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("settled", [False, True])
def test_s07_full_and_incremental_are_the_database(opened: Open, page_size: int, settled: bool) -> None:
    """Wherever the changed pages lie, in the log or in the main file, the two alone restore the very same bytes."""
    scene = opened(page_size=page_size)
    scene.fill(300)
    scene.settle()
    full = scene.full()
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 5 = 0")
    scene.app.insert(3, 5_000)
    if settled:
        scene.settle()
    manifest = scene.made()
    digest = scene.actual()
    scene.app.insert()

    assert [] == [each.name for each in scene.store.list("tail/")]
    assert (full.backup_id, full.position.txid) == (manifest.parent, manifest.parent_txid)
    assert [manifest] == manifests(scene.store)
    packs = {each.name: each.size for each in scene.store.list("incremental/") if each.name.endswith(".pack")}
    assert packs == {pack.name: pack.size_bytes for pack in manifest.packs}
    assert manifest.stored_bytes == sum(packs.values())
    assert manifest.plain_bytes == manifest.pages_stored * page_size
    scene.app.execute("DELETE FROM t WHERE id = (SELECT max(id) FROM t)")
    assert digest == scene.restored(manifest.txid, verify="full")


def test_s07_each_lies_on_the_one_before(scene: Scene) -> None:
    """A chain of five, as on a day: every one restores by itself, from the full and those between."""
    digests: dict[int, str] = {}
    for number in range(5):
        scene.app.execute(f"UPDATE t SET body = hex(randomblob(900)) WHERE id % 50 = {number}")
        scene.app.insert(2)
        manifest = scene.made()
        digests[manifest.txid] = scene.actual()
    chain = manifests(scene.store)

    assert digests == {txid: scene.restored(txid) for txid in digests}
    assert [scene.newest().name.backup_id] == [chain[-1].name.backup_id]
    assert [each.name.backup_id for each in chain[:-1]] == [each.parent for each in chain[1:]]
    assert [each.chain for each in chain[:-1]] == [each.parent_chain for each in chain[1:]]


def test_s07_units_go_on_from_an_incremental(scene: Scene) -> None:
    """What was shipped behind it leads from there to every later commit."""
    scene.app.insert(3)
    scene.made()
    digests = {}
    for _ in range(4):
        scene.app.insert(2)
        _ = scene.capture
        scene.ship()
        with scene.capture.hold_still() as moment:
            digests[moment.tip.txid] = scene.actual()

    assert digests == {txid: scene.restored(txid) for txid in digests}


def test_s09_an_incremental_has_what_changed_and_no_more(scene: Scene) -> None:
    """A few rows of four hundred: a few pages, and a small part of the bytes and of the requests of a full."""
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id BETWEEN 100 AND 104")
    scene.settle()
    store = FaultyStore(scene.store)
    manifest = scene.made(store)
    whole = scene.newest_full()

    assert manifest.pages_stored <= 8
    assert manifest.stored_bytes < whole.stored_bytes * 0.05
    assert 3 == store.calls["put"]  # a pack, the manifest, and that it was read back
    assert scene.actual() == scene.restored()


def test_nothing_is_stored_where_nothing_changed(scene: Scene) -> None:
    """Not a request but those that find the newest backup."""
    before = list(scene.store.puts)
    result = scene.incremental()

    assert result.manifest is None
    assert before == scene.store.puts
    scene.app.insert()
    assert scene.incremental().manifest is not None
    before = list(scene.store.puts)
    assert scene.incremental().manifest is None
    assert before == scene.store.puts


def test_incrementals_follow_a_database_that_grows_and_shrinks(opened: Open) -> None:
    """VACUUM moves everything, deletes cut the file, and it grows again over what was cut off."""
    scene = opened()
    scene.app.execute("PRAGMA auto_vacuum = FULL")
    scene.app.execute("VACUUM")
    scene.fill(600)
    scene.settle()
    scene.full()
    digests: dict[int, str] = {}
    for sql in (
        "DELETE FROM t WHERE id > 200",
        "INSERT INTO t(body) SELECT hex(randomblob(2000)) FROM t AS a LIMIT 150",
        "DELETE FROM t WHERE id % 3 = 0",
        "VACUUM",
        "INSERT INTO t(body) SELECT hex(randomblob(9000)) FROM t LIMIT 60",
        "DELETE FROM t",
        "INSERT INTO t(body) VALUES('only one')",
    ):
        scene.app.execute(sql)
        if scene.clock.now() % 2 < 1:
            scene.settle()
        digests[scene.made().txid] = scene.actual()

    assert digests == {txid: scene.restored(txid) for txid in digests}


@pytest.mark.parametrize("seed", range(12))
def test_an_incremental_is_exact_whatever_is_committed_meanwhile(
    opened: Open, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growth, shrinking, VACUUM and checkpoints at every step of the way: on the full, and on one another, they are
    the database at their positions, and what was captured since leads on from there."""
    monkeypatch.setattr(incremental_module, "LEFT_FOR_THE_END", 2)
    monkeypatch.setattr(incremental_module, "FRAME_BYTES", 16_384)
    rng = random.Random(seed)
    scene = opened()
    scene.app.execute(f"PRAGMA auto_vacuum = {rng.choice(['NONE', 'FULL', 'INCREMENTAL'])}")
    scene.app.execute("VACUUM")
    scene.fill(300)
    scene.settle()
    scene.full()
    moments: list[int] = []
    killed = False

    def deed() -> None:
        for _ in range(rng.randint(0, 4)):
            scene.app.execute(rng.choice(DEEDS))
        _ = scene.capture
        scene.follow.step(scene.clock.now())
        if rng.random() < 0.5:
            scene.app.execute("PRAGMA wal_checkpoint(PASSIVE)")  # what was just captured is moved at once
        moments.append(1)

    for _ in range(3):
        scene.app.execute(rng.choice(DEEDS[:6]))
        _ = scene.capture
        try:
            manifest = scene.made(followed=Disturbed(scene, deed))
        except NoParent:
            assert killed  # what changed before was not written down
            scene.full()
            continue
        scene.app.insert(2)
        _ = scene.capture
        scene.ship()

        assert scene.restored(manifest.txid)  # proved against the checksum that was captured
        assert scene.actual() == scene.restored()
        if rng.random() < 0.3:
            killed = rng.random() < 0.5
            scene.restart(kill=killed)
    assert len(moments) >= 5


def test_a_page_that_changes_while_it_is_made_is_superseded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in two frames, and the later one counts; one beyond the end of the database is of no account."""
    monkeypatch.setattr(incremental_module, "LEFT_FOR_THE_END", 0)
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 4 = 0")
    scene.app.insert(1, 400_000)
    scene.settle()
    calls = [0]

    def deed() -> None:
        calls[0] += 1
        if calls[0] == 2:
            scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 8 = 0")
            scene.app.execute("DELETE FROM t WHERE id = (SELECT max(id) FROM t)")
            scene.app.execute("VACUUM")
            _ = scene.capture

    manifest = scene.made(followed=Disturbed(scene, deed))
    frames = pages_of(manifest, scene.store)
    listed = [pgno for pages in frames for pgno in pages]

    assert len(listed) > len(set(listed))
    assert max(listed) > manifest.pages
    assert scene.actual() == scene.restored()


def test_a_database_that_never_rests_is_backed_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much changes between the passes, the last of them reads all that is left."""
    monkeypatch.setattr(incremental_module, "LEFT_FOR_THE_END", 0)
    calls = [0]

    def deed() -> None:
        calls[0] += 1
        scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 3 = 0")
        _ = scene.capture

    scene.app.insert()
    manifest = scene.made(followed=Disturbed(scene, deed))
    _ = scene.capture

    assert 1 + incremental_module.PASSES_MAX == calls[0]
    assert scene.restored(manifest.txid)


def test_tables_and_packs_are_as_many_as_it_takes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a database of many gibibytes has, in a small one."""
    monkeypatch.setattr(format_module, "TABLE_PAGES", 20)
    monkeypatch.setattr(incremental_module, "FRAME_BYTES", 4 * 4096)
    monkeypatch.setattr(packs_module, "PACK_BYTES", 40_000)
    monkeypatch.setattr(incremental_module, "LEFT_FOR_THE_END", 2)
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000))")
    scene.settle()
    manifest = scene.made()

    assert len(manifest.tables) > 5
    assert len(manifest.packs) > 5
    assert scene.actual() == scene.restored()


# --- nothing to lie on ---------------------------------------------------------------------------------


def test_s10_a_backup_from_before_what_is_known_is_no_parent(scene: Scene) -> None:
    """Which pages changed since is known from one position on, in one generation."""
    parent = scene.newest()
    scene.app.insert()
    for wrong in (
        replace(parent, generation=GenerationId("ab" * 8)),
        replace(parent, txid=parent.txid + 100),
    ):
        with pytest.raises(NoParent, match="is not known any more"):
            scene.incremental(parent=wrong)
    with scene.capture.hold_still() as moment:
        moment.changed.forget(moment.tip.txid)
    with pytest.raises(NoParent, match="is not known any more"):
        scene.incremental()

    assert [] == manifests(scene.store)


def test_s10_too_many_changed_pages_are_a_full(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a full, which shares its chunks, would cost little more."""
    monkeypatch.setattr(incremental_module, "PAGES_MAX", 50)
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000))")
    with pytest.raises(NoParent, match="more than 50 pages changed"):
        scene.incremental()

    assert [] == manifests(scene.store)


def test_s10_what_changed_is_known_after_a_restart(scene: Scene) -> None:
    """Kept at a stop; and what came while nobody was there is in the log."""
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 50 = 1")
    scene.end()
    scene.app.insert(3)
    scene.reopen()
    scene.restart()
    manifest = scene.made()

    assert 0 < manifest.pages_stored < 40
    assert scene.actual() == scene.restored()


def test_s10_what_changed_is_known_after_a_kill(scene: Scene) -> None:
    """What an earlier run kept, and the units in the spool behind that."""
    scene.app.insert()
    scene.restart()
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 50 = 1")
    scene.app.insert(3)
    _ = scene.capture
    scene.end(kill=True)
    scene.app.insert(2)
    scene.reopen()
    manifest = scene.made()

    assert 0 < manifest.pages_stored < 40
    assert scene.actual() == scene.restored()


def test_s10_a_transaction_in_parts_is_known_after_a_kill(scene: Scene) -> None:
    """A load too large for one unit lies in the spool in parts: the pages of all of them changed."""
    scene.app.insert()
    scene.restart()
    scene.app.execute("INSERT INTO t(body) SELECT zeroblob(200000) FROM t LIMIT 60")  # 12 MB
    scene.app.insert()
    _ = scene.capture
    parts = [header.part for header, _ in scene.spool.all_units()]
    scene.restart(kill=True)
    manifest = scene.made()

    assert max(parts) >= 3
    assert manifest.pages_stored > 2_900
    assert scene.actual() == scene.restored()


@pytest.mark.parametrize("lost", ["list", "spool", "damaged list", "of another generation"])
def test_s10_where_the_list_is_lost_nothing_is_guessed(scene: Scene, lost: str) -> None:
    """Kept and spooled do not meet, or one of them is gone: from now on it is known again, and for a backup from before
    that it is not."""
    scene.app.insert()
    scene.restart()
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 50 = 1")
    _ = scene.capture
    scene.app.insert(3)
    _ = scene.capture
    path = Path(scene.state.folder) / "changed.pages"
    content = path.read_bytes()
    (spool,) = Path(scene.state.spool_folder).iterdir()
    if lost == "list":
        path.unlink()
    elif lost == "damaged list":
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif lost == "of another generation":
        found = decode_changed(content)
        found.generation = GenerationId("01" * 8)
        path.write_bytes(found.encode())
    scene.restart(kill=True)
    if lost == "spool":
        # Its oldest units went with the file they were in, as they do once they are shipped.
        scene.end(kill=True)
        spool.write_bytes(bytes(list(split_units(spool.read_bytes()))[-1]))
        scene.reopen()
    scene.app.insert()
    with pytest.raises(NoParent, match="is not known any more"):
        scene.incremental()
    scene.full()
    scene.app.insert()
    scene.made()

    assert scene.actual() == scene.restored()


# --- put and proved ------------------------------------------------------------------------------------


def test_s33_an_incremental_is_read_back_before_it_counts(scene: Scene) -> None:
    """Its pack, its manifest; and that it was is put beside it."""
    scene.app.insert()
    manifest = scene.made()
    events = [parse_name(each) for each in names_of(scene.store, EventName)]

    assert EventName(manifest.name.backup_id, "checksummed") == events[-1]
    scene.app.insert()
    store = FaultyStore(scene.store)
    parent = scene.newest()
    unproved = scene.made(store, verification=False, parent=parent)
    assert 0 == store.calls["get"]
    assert EventName(unproved.name.backup_id, "checksummed") not in [
        parse_name(each) for each in names_of(scene.store, EventName)
    ]


@pytest.mark.parametrize("kind", [".pack", ".incremental"])
def test_s33_s34_what_a_store_does_not_give_back_does_not_count(scene: Scene, kind: str) -> None:
    """Named, and where it is the pack, no manifest was put."""
    store = forgetful(scene, "nothing")
    scene.full(store)
    scene.app.insert()
    store.spoils = kind
    with pytest.raises(ObjectCorrupt, match=r"does not give .* back as it was put") as caught:
        scene.incremental(store)

    assert caught.value.name.endswith(kind)
    assert (kind == ".incremental") == bool(names_of(store, IncrementalName))


@pytest.mark.parametrize("after", [False, True])
def test_a_put_that_fails_leaves_nothing_that_looks_whole(
    scene: Scene, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each put in turn: a pack is put again; after the manifest the next attempt begins anew, on what is there."""
    monkeypatch.setattr(packs_module, "PACK_BYTES", 20_000)
    monkeypatch.setattr(packs_module, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(incremental_module, "LEFT_FOR_THE_END", 2)
    monkeypatch.setattr(incremental_module, "FRAME_BYTES", 16_384)
    told: list[ReplicatorError | None] = []
    skip = failed = 0
    while skip == failed:
        told.clear()
        store = FaultyStore(scene.store)
        store.fail("put", after=after, skip=skip)
        scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id % 8 = 0")
        scene.settle()
        skip += 1
        try:
            scene.incremental(store, trouble=told.append)
            failed += bool(told)
            assert told in ([], [told[0], None] if told else [])
        except StoreUnavailable:
            failed += 1
            scene.incremental()
        assert scene.actual() == scene.restored()
        for manifest in manifests(scene.store):
            assert {pack.name for pack in manifest.packs} <= set(scene.store.names)

    assert failed >= 4  # some packs, and the manifest; that the event could not be put costs nothing


def test_a_pack_that_vanishes_meanwhile_is_never_named(scene: Scene) -> None:
    """Deleted before the manifest is put: it is not."""

    class Vanishing(FaultyStore):
        def put(self, name: str, data: bytes) -> None:
            super().put(name, data)
            if isinstance(parse_name(name), PackName):
                self.delete(name)

    scene.app.insert()
    with pytest.raises(ObjectNotFound, match=r"incremental/.*\.pack"):
        scene.incremental(Vanishing(scene.store), verification=False)

    assert [] == manifests(scene.store)


def test_an_incremental_can_be_stopped(scene: Scene) -> None:
    """The agent ends: no manifest is put, and the next one has all that changed."""
    scene.app.execute("UPDATE t SET body = hex(randomblob(1000))")
    scene.settle()
    stop = threading.Event()
    stop.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental_module, "LEFT_FOR_THE_END", 0)
        with pytest.raises(Interrupted):
            scene.incremental(stop=stop)

    assert [] == manifests(scene.store)
    scene.made()
    assert scene.actual() == scene.restored()


def test_an_incremental_of_an_agent_that_was_taken_over_from_is_not_committed(scene: Scene) -> None:
    """The lease is read once more before the manifest is put."""

    def taken_over() -> None:
        raise OwnershipLost("another agent writes here")

    scene.app.insert()
    with pytest.raises(OwnershipLost):
        scene.incremental(confirm=taken_over)

    assert [] == manifests(scene.store)


def test_an_incremental_of_a_generation_that_ended_is_not_committed(scene: Scene) -> None:
    """While it was made the generation was given up: it belongs to nothing."""
    calls = [0]

    def deed() -> None:
        calls[0] += 1
        if calls[0] == 2:
            running = scene.state.generation
            assert running is not None
            record = replace(running.record, generation=GenerationId("01" * 8))
            scene.state.begin(replace(running, record=record), set())

    scene.app.insert()
    with pytest.raises(ContentDiffers, match="generation ended"):
        scene.incremental(followed=Disturbed(scene, deed))

    assert [] == manifests(scene.store)


def test_an_encrypted_incremental_restores(scene: Scene) -> None:
    """Through the store that seals, the maker sees no difference, and nobody without the key sees a page."""
    store = SealedStore(scene.store, FixedKeys(RING))
    scene.clock.advance(5.0)
    scene.app.execute("INSERT INTO t(body) VALUES('in clear')")
    scene.full(store, dedup=store.dedup)
    scene.app.execute("INSERT INTO t(body) VALUES('WHO READS THIS')")
    manifest = scene.made(store, making=Making(compress=False))
    stored = [scene.store.get(str(manifest.name)), scene.store.get(manifest.packs[0].name)]

    assert all(each.startswith(b"RPLSEAL") and b"WHO READS THIS" not in each for each in stored)
    assert b"WHO READS THIS" in store.get(manifest.packs[0].name)
    assert scene.actual() == hashlib.sha256(restored_from(scene, store)).hexdigest()


# --- how it is made ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["none", "gzip", "zstd:9"])
def test_s110_a_schedule_says_whether_it_is_compressed(opened: Open, text: str) -> None:
    """As the settings for all have it, or not at all, or as is usual where they have none."""
    usual = parse_compression(text)
    scene = opened(compression=usual)
    scene.fill(100)
    scene.full()
    codecs = []
    for compress in (None, True, False):
        scene.app.insert()
        manifest = scene.made(making=Making(compress=compress))
        pack = scene.store.get(manifest.packs[0].name)
        codecs.append({pack[each.frame.offset] for each in read_page_frames(manifest, scene.store.get_range)})
        assert scene.actual() == scene.restored()

    assert [{usual.codec}, {usual.codec or DEFAULT.codec}, {0}] == codecs


def test_s110_a_schedule_says_whether_it_is_verified(scene: Scene) -> None:
    """Both ways, whatever the settings for all say."""
    for usual, wanted in ((True, False), (False, True)):
        scene.app.insert()
        parent = scene.newest()
        store = FaultyStore(scene.store)
        scene.made(store, parent=parent, verification=usual, making=Making(verify=wanted))
        assert wanted == (store.calls["get"] > 0)


def test_how_one_is_made() -> None:
    """None is as usual; asked to be compressed, what is not gets the default, and what is stays as it is."""
    plain, gzip = Compression(0, 0), parse_compression("gzip")

    assert (gzip, plain) == (AS_USUAL.compression(gzip), AS_USUAL.compression(plain))
    assert (gzip, DEFAULT) == tuple(Making(compress=True).compression(each) for each in (gzip, plain))
    assert (plain, plain) == tuple(Making(compress=False).compression(each) for each in (gzip, plain))
    assert [(True, False), (True, True), (False, False)] == [
        (Making(verify=each).verification(True), Making(verify=each).verification(False))
        for each in (None, True, False)
    ]


# --- a spool that is full ------------------------------------------------------------------------------


def test_what_could_not_be_captured_to_its_end_has_not_changed(scene: Scene) -> None:
    """The disk is full in the middle of a transaction in parts: an incremental before it is tried again stands at the
    commit before, and one after it has all of its pages."""

    def full_disk(*_: object) -> None:
        raise StoreError("the disk is full")

    scene.app.execute("UPDATE t SET body = hex(randomblob(1000)) WHERE id = 7")
    before = scene.actual()
    capture = scene.capture
    append, seen = scene.spool.append, []

    def failing(unit: bytes, header: Any) -> None:
        seen.append(header.part)
        if header.part == 3:
            full_disk()
        append(unit, header)

    scene.app.execute("INSERT INTO t(body) SELECT zeroblob(200000) FROM t LIMIT 60")
    scene.spool.append = failing  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="full"):
        capture.capture_now()
    scene.clock.advance(5.0)
    maker = IncrementalBackup(
        scene.store, scene.state, scene.clock, confirm=lambda: None, trouble=lambda _: None, verification=True,
        stop=threading.Event(),
    )  # fmt: skip
    first = maker.run(capture, scene.newest()).manifest
    assert first is not None
    assert before == scene.restored(first.txid)
    scene.spool.append = append  # type: ignore[method-assign]
    second = scene.made()

    assert [1, 2, 3] == seen
    assert second.pages_stored > 2_900
    assert scene.actual() == scene.restored()
