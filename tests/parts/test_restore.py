"""Giving a database back: the right point, the right error for whatever is wrong, and never a file that is not proved.

Most databases here are models (tests/core/histories.py), not SQLite's, so they are restored without asking SQLite.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicator.core.errors import (
    FormatTooNew,
    Interrupted,
    KeyRefused,
    ObjectCorrupt,
    ObjectNotFound,
    ProofFailed,
    ReplicatorError,
    RepositoryNotFound,
    StoreUnavailable,
    TargetUnreachable,
)
from replicator.core.full import decode_manifest, encode_manifest
from replicator.core.key_ring import new_ring
from replicator.core.names import FullName, GenerationName, PackName, SegmentName, parse_name
from replicator.core.position import GenerationId, Position
from replicator.core.records import GenerationRecord, RepositoryRecord, encode_record
from replicator.core.unit import decode_unit, encode_body, encode_unit, first_chain, parse_unit_header
from replicator.core.unit_build import Sighting
from replicator.keys import FixedKeys
from replicator.repository import newest_point, oldest_point, read_repository, window
from replicator.restore import Progress, RestoreOptions, RestoreResult, Target, choose, restore_chosen
from replicator.restore.image import Image
from replicator.store import Store
from replicator.store.sealed import SealedStore
from tests.core.histories import GENERATION, REPOSITORY, START, Commit, Model, database_of
from tests.core.unit_writer import Writer, full_of, writer_on
from tests.support.memory_store import FaultyStore, MemoryStore

G = GenerationId(GENERATION)
LATER = GenerationId("ffeeddccbbaa9988")
SECOND = 1_000_000
IDENTITY = RepositoryRecord(REPOSITORY.hex(), "2025-01-28T06:00:00.000000Z")


class Shelf:
    """A store with generations in it, put there by hand."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.store.put("repository.json", encode_record(IDENTITY))
        self.writers: dict[str, Writer] = {}

    def begin(self, generation: GenerationId = G, *, began: int = START, pages: int = 40) -> Writer:
        rng = random.Random(int(generation, 16))
        record = GenerationRecord(generation, REPOSITORY.hex(), 1, began, "a test", 512, None)
        self.store.put(str(GenerationName(generation)), encode_record(record))
        writer = writer_on(database_of(rng, 512, pages), rng, generation=generation)
        self.writers[generation] = writer
        return writer

    def full(self, writer: Writer) -> str:
        """Returns its backup id."""
        for name, data in full_of(writer).items():
            self.store.put(name, data)
        made = parse_name(self.names(FullName)[-1])
        assert isinstance(made, FullName)
        return made.backup_id

    def segment(self, units: list[bytes]) -> str:
        header = parse_unit_header(units[0])
        name = str(SegmentName(header.generation, header.txid_first, header.part))
        self.store.put(name, b"".join(units))
        return name

    def names(self, kind: type) -> list[str]:
        return [name for name in self.store.puts if isinstance(parse_name(name), kind)]


@pytest.fixture
def shelf() -> Shelf:
    """One generation: a full, three segments of commits, one commit in parts over two segments, one segment."""
    shelf = Shelf()
    writer = shelf.begin()
    shelf.full(writer)
    for _ in range(3):
        shelf.segment(writer.commits(3))
    parts = writer.large(4)
    shelf.segment(parts[:2])
    shelf.segment(parts[2:])
    shelf.segment(writer.commits(2))
    return shelf


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "restored.db"


def restore(
    store: Store,
    output: Path,
    target: Target = Target(),  # noqa: B008
    verify: str = "none",
    **more: Any,
) -> RestoreResult:
    repository = read_repository(store)
    return restore_chosen(
        repository, choose(repository, target), str(output), RestoreOptions(verify=verify), **more
    )


def pages_of(path: Path) -> dict[int, bytes]:
    content = path.read_bytes()
    return {i // 512 + 1: content[i : i + 512] for i in range(0, len(content), 512)}


# --- what is given back --------------------------------------------------------------------------------


@pytest.mark.parametrize("txid", range(13))
def test_every_commit_can_be_given_back(shelf: Shelf, output: Path, txid: int) -> None:
    """Page by page what the database was after it; 0 is the full itself, 10 is the one in parts."""
    result = restore(shelf.store, output, Target(txid=txid))

    assert shelf.writers[G].states[txid].pages == pages_of(output)
    assert (Position(G, txid), txid) == (result.position, result.transactions_applied)
    assert (len(pages_of(output)), 512) == (result.pages, result.page_size)
    assert ["restored.db"] == [path.name for path in output.parent.iterdir()]
    assert 0o600 == output.stat().st_mode & 0o777


def test_without_a_target_it_is_the_newest(shelf: Shelf, output: Path) -> None:
    """The last commit of the last segment, of the generation that began last and can be restored."""
    assert Position(G, 12) == restore(shelf.store, output).position


def test_a_later_full_is_the_shorter_way(shelf: Shelf, output: Path) -> None:
    """From the newest full at or before the target fewer commits are applied, to the same end."""
    writer = shelf.writers[G]
    shelf.segment(writer.commits(3))
    shelf.full(writer)
    shelf.segment(writer.commits(4))
    result = restore(shelf.store, output, Target(txid=17))

    assert 2 == result.transactions_applied
    assert writer.states[17].pages == pages_of(output)
    assert 12 == restore(shelf.store, output.with_name("other"), Target(txid=12)).transactions_applied


def test_units_that_lie_in_two_segments_are_applied_once(shelf: Shelf, output: Path) -> None:
    """The same units under another cut do no harm."""
    writer = shelf.writers[G]
    shelf.segment(writer.units[4:7])
    restore(shelf.store, output)

    assert writer.states[12].pages == pages_of(output)


def test_stray_objects_are_not_used(shelf: Shelf, output: Path) -> None:
    """Names we never write, in any folder, change nothing."""
    for name in (f"tail/{G}/0000000000000004.segment.bak", "full/notes.full", "tail/x", "README"):
        shelf.store.put(name, b"noise")

    assert Position(G, 12) == restore(shelf.store, output).position


def test_a_transaction_whose_last_part_is_on_its_way_does_not_count(shelf: Shelf, output: Path) -> None:
    """The newest restore point is the commit before it."""
    writer = shelf.writers[G]
    parts = writer.large(3)
    shelf.segment(parts[:2])

    assert Position(G, 12) == restore(shelf.store, output).position
    with pytest.raises(TargetUnreachable):
        restore(shelf.store, output, Target(txid=13))
    shelf.segment(parts[2:])
    assert Position(G, 13) == restore(shelf.store, output.with_name("other")).position


def test_progress_is_told_and_ends_at_its_total(shelf: Shelf, output: Path) -> None:
    """Chunks in bytes, then transactions; neither goes back, and both arrive."""
    told: list[Progress] = []
    restore(shelf.store, output, on_progress=told.append)
    stages = [each.stage for each in told]

    assert sorted(stages, key=["chunks", "transactions"].index) == stages
    for stage, total in (("chunks", 40 * 512), ("transactions", 12)):
        done = [each.done for each in told if each.stage == stage]
        assert sorted(done) == done
        assert (total, total) == (done[-1], told[stages.index(stage)].total)


# --- whatever is wrong with the objects ----------------------------------------------------------------

Damage = Callable[[Shelf, str], None]


def flip(shelf: Shelf, name: str) -> None:
    size = len(shelf.store.get(name))
    at = random.Random(name).randrange(size)
    shelf.store.damage(name, lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def swap(shelf: Shelf, name: str) -> None:
    """Under this name lies another object of its kind."""
    mine = parse_name(name)
    others = [each for each in shelf.store.names if each != name and type(parse_name(each)) is type(mine)]
    if others:
        content = shelf.store.get(random.Random(name).choice(others))
        shelf.store.damage(name, lambda _: content)


DAMAGES: dict[str, Damage] = {
    "deleted": lambda shelf, name: shelf.store.delete(name),
    "emptied": lambda shelf, name: shelf.store.damage(name, lambda _: b""),
    "one bit": flip,
    "cut at half": lambda shelf, name: shelf.store.damage(name, lambda data: data[: len(data) // 2]),
    "cut by a byte": lambda shelf, name: shelf.store.damage(name, lambda data: data[:-1]),
    "cut by a digest and a byte": lambda shelf, name: shelf.store.damage(name, lambda data: data[:-33]),
    "a byte more": lambda shelf, name: shelf.store.damage(name, lambda data: data + b"\0"),
    "zeros": lambda shelf, name: shelf.store.damage(name, lambda data: bytes(len(data))),
    "noise": lambda shelf, name: shelf.store.damage(name, lambda data: random.Random(1).randbytes(len(data))),
    "swapped": swap,
}
OURS = (ObjectCorrupt, ObjectNotFound, TargetUnreachable, FormatTooNew, RepositoryNotFound)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [SegmentName, PackName, FullName, GenerationName])
def test_damage_is_an_error_or_does_not_matter(shelf: Shelf, tmp_path: Path, damage: str, kind: type) -> None:
    """Each object in turn, damaged in every way, for targets all over: one of our errors and no file left,
    or exactly the database as it was at the position that the result claims."""
    writer = shelf.writers[G]
    shelf.full(writer)
    shelf.segment(writer.commits(2))
    hurt = 0
    for name in shelf.names(kind):
        original = shelf.store.get(name)
        DAMAGES[damage](shelf, name)
        for target in (
            Target(),
            Target(txid=0),
            Target(txid=5),
            Target(txid=12),
            Target(timestamp=START + 8),
        ):
            output = tmp_path / "restored.db"
            try:
                result = restore(shelf.store, output, target)
            except OURS:
                hurt += 1
            else:
                assert writer.states[result.position.txid].pages == pages_of(output)
                assert target.txid in (None, result.position.txid)
                output.unlink()
            assert [] == list(tmp_path.iterdir())
        if name in shelf.store.names:
            shelf.store.damage(name, lambda _, content=original: content)  # type: ignore[misc]
        else:
            shelf.store.put(name, original)

    # A restore reads the frames of a pack, each by itself, and not the digest behind them.
    harmless = kind is GenerationName or (kind is PackName and damage in ("a byte more", "cut by a byte"))
    assert bool(hurt) != harmless


def test_a_missing_segment_names_the_hole_and_the_nearest_point(shelf: Shelf, output: Path) -> None:
    """Transactions 4 to 6 are gone: what is before can be restored, and the error says how."""
    shelf.store.delete(str(SegmentName(G, 4)))
    with pytest.raises(
        TargetUnreachable, match="transactions 0000000000000004 to 0000000000000006"
    ) as caught:
        restore(shelf.store, output)

    assert "--txid 0000000000000003" in str(caught.value.hint)
    assert not output.exists()
    assert Position(G, 3) == restore(shelf.store, output, Target(txid=3)).position


def test_a_damaged_segment_is_named(shelf: Shelf, output: Path) -> None:
    """ObjectCorrupt with the name of the object."""
    name = str(SegmentName(G, 4))
    shelf.store.damage(name, lambda data: data[:200] + b"?" + data[201:])
    with pytest.raises(ObjectCorrupt, match=name) as caught:
        restore(shelf.store, output)

    assert f"--txid 0000000000000003 --generation {G} before it" in str(caught.value.hint)
    assert [] == list(output.parent.iterdir())
    assert Position(G, 3) == restore(shelf.store, output, Target(txid=3)).position


def test_damage_at_the_end_names_what_is_before_and_behind_it(shelf: Shelf, output: Path) -> None:
    """Also where the newest restore point cannot even be found; a later full backup is named, too."""
    names = shelf.names(SegmentName)
    shelf.store.damage(names[-1], lambda data: data[: len(data) // 2])
    with pytest.raises(ObjectCorrupt, match=names[-1]) as caught:
        restore(shelf.store, output)
    assert "--txid 000000000000000a" in str(caught.value.hint)

    full = shelf.full(shelf.writers[G])
    with pytest.raises(ObjectCorrupt) as caught:
        restore(shelf.store, output, Target(txid=11))
    assert f"--backup {full} after its beginning" in str(caught.value.hint)


def test_swapped_segments_are_found(shelf: Shelf, output: Path) -> None:
    """Two whole segments under each other's names do not chain."""
    one, two = str(SegmentName(G, 4)), str(SegmentName(G, 7))
    first, second = shelf.store.get(one), shelf.store.get(two)
    shelf.store.damage(one, lambda _: second)
    shelf.store.damage(two, lambda _: first)
    with pytest.raises((TargetUnreachable, ObjectCorrupt), match=r"0000000000000004"):
        restore(shelf.store, output)

    assert [] == list(output.parent.iterdir())


def test_a_segment_of_another_generation_is_found(shelf: Shelf, output: Path) -> None:
    """A whole segment of another history with the same txids: it belongs to somebody else."""
    other = shelf.begin(LATER, began=START - SECOND)
    units = b"".join(other.commits(3))
    shelf.store.damage(str(SegmentName(G, 4)), lambda _: units)
    with pytest.raises((TargetUnreachable, ObjectCorrupt)):
        restore(shelf.store, output)
    shelf.store.damage(str(SegmentName(G, 1)), lambda _: units)
    with pytest.raises(ObjectCorrupt, match="another generation"):
        restore(shelf.store, output, Target(generation=G))

    assert [] == list(output.parent.iterdir())


def test_another_history_of_the_same_generation_does_not_chain(shelf: Shelf, output: Path) -> None:
    """The right txids, written by an agent that went on from an older copy: the chain tells."""
    writer = shelf.writers[G]
    fork = replace(writer, model=writer.states[3].copy(), units=[], rng=random.Random(5))
    fork.tip = replace(writer.tip, txid=3, chain=bytes(16), pages=fork.model.count)
    units = b"".join(fork.commits(3))
    shelf.store.damage(str(SegmentName(G, 4)), lambda _: units)
    with pytest.raises(ObjectCorrupt, match="does not chain"):
        restore(shelf.store, output)


def test_units_of_another_repository_do_not_chain(shelf: Shelf, output: Path) -> None:
    """Sound units under the same generation and txids, but the first unit is bound to somebody else."""
    writer = shelf.writers[G]
    lineage = replace(writer.lineage, repository=bytes(16))
    stranger = writer_on(writer.states[0], random.Random(6))
    stranger.lineage, stranger.tip = lineage, replace(stranger.tip, chain=first_chain(bytes(16), G))
    units = b"".join(stranger.commits(3))
    shelf.store.damage(str(SegmentName(G, 1)), lambda _: units)
    with pytest.raises(ObjectCorrupt, match=f"{SegmentName(G, 1)} does not chain"):
        restore(shelf.store, output)


def test_a_missing_pack_is_named(shelf: Shelf, output: Path) -> None:
    """ObjectNotFound with the name of the pack."""
    (name,) = shelf.names(PackName)
    shelf.store.delete(name)
    with pytest.raises(ObjectNotFound, match=name) as caught:
        restore(shelf.store, output)

    assert "no backup here does without it" in str(caught.value.hint)
    assert [] == list(output.parent.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_lost_record_of_the_repository_costs_nothing(
    shelf: Shelf, output: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Who it is stands in every full backup, too."""
    if content is None:
        shelf.store.delete("repository.json")
    else:
        shelf.store.damage("repository.json", lambda _: content)

    assert Position(G, 12) == restore(shelf.store, output).position
    assert "repository.unreadable" in [each.message for each in caplog.records]


def test_without_the_record_fulls_of_two_repositories_are_not_chosen_from(shelf: Shelf, output: Path) -> None:
    """The newer one may be anybody's. One of them is named, for each."""
    (full,) = shelf.names(FullName)
    ours = decode_manifest(shelf.store.get(full), full)
    foreign = replace(ours, repository="ab" * 16, generation=LATER, observed=ours.observed + SECOND)
    shelf.store.put(str(foreign.name), encode_manifest(foreign))
    with pytest.raises(ObjectCorrupt, match="is of repository abab") as strange:
        restore(shelf.store, output)
    shelf.store.delete("repository.json")
    with pytest.raises(ObjectCorrupt, match="fulls of 2 repositories") as caught:
        restore(shelf.store, output)

    assert "--generation" in str(strange.value.hint)
    assert f"is of {'ab' * 16}" in str(caught.value.hint)
    assert not output.exists()


def test_a_full_that_does_not_need_a_lost_pack_is_named(shelf: Shelf, output: Path) -> None:
    """The newest one whose manifest reads and names other packs."""
    (name,) = shelf.names(PackName)
    other = shelf.full(shelf.writers[G])
    shelf.store.delete(name)
    with pytest.raises(ObjectNotFound, match=name) as caught:
        restore(shelf.store, output, Target(txid=5))

    assert f"--backup {other} of" in str(caught.value.hint)


def test_what_a_killed_restore_left_is_cleared_away(shelf: Shelf, output: Path) -> None:
    """Not what another restore to the same place is still writing."""
    left = output.parent / f".{output.name}.restoring-00000000"
    left.write_bytes(b"half")
    other = Image(str(output), 512)
    restore(shelf.store, output)

    assert not left.exists()
    assert os.path.exists(other.path)
    other.discard()


RING = new_ring(REPOSITORY.hex(), 1_000, secrets=[bytes(range(size)) for size in (32, 32, 8, 8)])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [SegmentName, PackName, FullName, GenerationName])
def test_damage_to_what_is_sealed_is_an_error_or_does_not_matter(
    shelf: Shelf, tmp_path: Path, damage: str, kind: type
) -> None:
    """The same of the same objects encrypted, where nothing is taken for another object, or for plain."""
    writer = shelf.writers[G]
    shelf.full(writer)
    shelf.segment(writer.commits(2))
    plain, shelf.store = shelf.store, MemoryStore()
    for name in plain.puts:
        SealedStore(shelf.store, FixedKeys(RING)).put(name, plain.get(name))
    hurt = 0
    for name in shelf.names(kind):
        original = shelf.store.get(name)
        DAMAGES[damage](shelf, name)
        for target in (Target(), Target(txid=0), Target(txid=5), Target(timestamp=START + 8)):
            output = tmp_path / "restored.db"
            try:
                result = restore(SealedStore(shelf.store, FixedKeys(RING)), output, target)
            except (*OURS, KeyRefused):
                hurt += 1
            else:
                assert writer.states[result.position.txid].pages == pages_of(output)
                output.unlink()
            assert [] == list(tmp_path.iterdir())
        shelf.store.delete(name)
        shelf.store.put(name, original)

    harmless = kind is GenerationName or (kind is PackName and damage in ("a byte more", "cut by a byte"))
    assert bool(hurt) != harmless


@pytest.mark.parametrize("place", [8, 100, -33, -40])
def test_a_damaged_pack_is_named(shelf: Shelf, output: Path, place: int) -> None:
    """In a frame of chunks or in a table: ObjectCorrupt with the name of the pack."""
    (name,) = shelf.names(PackName)
    shelf.store.damage(name, lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ObjectCorrupt, match=name):
        restore(shelf.store, output)

    assert [] == list(output.parent.iterdir())


def test_a_pack_with_another_chunk_in_it_is_found_by_the_chunks_hash(output: Path) -> None:
    """A pack that expands to the right length but to other content: the sum is wrong, and the chunk is named."""
    shelf = Shelf()
    noise = random.Random(6)
    base = Model(512, {pgno: noise.randbytes(512) for pgno in range(1, 65)})
    writer = writer_on(base, noise)
    shelf.full(writer)
    (name,) = shelf.names(PackName)
    before = writer.model.pages[7]
    writer.model.pages[7] = before[:100] + b"changed" + before[107:]
    other = next(data for key, data in full_of(writer).items() if key.endswith(".pack"))
    writer.model.pages[7] = before
    assert len(shelf.store.get(name)) == len(other)  # noise is stored as it is
    full = shelf.names(FullName)[0]
    (table,) = decode_manifest(shelf.store.get(full), full).tables
    at = table.frame.offset
    shelf.store.damage(name, lambda data: other[:at] + data[at:])
    with pytest.raises(ObjectCorrupt, match=f"{name} is damaged: chunk 0 at byte 8 has another hash"):
        restore(shelf.store, output)

    assert [] == list(output.parent.iterdir())


def test_a_lying_checksum_fails_the_proof(shelf: Shelf, output: Path) -> None:
    """Every object is whole and chains, but the database does not have the checksum the agent recorded."""
    writer = shelf.writers[G]
    (written,) = writer.commits(1)
    unit = decode_unit(written)
    entry = replace(unit.entries[0], rolling=unit.entries[0].rolling ^ 1)
    shelf.segment([encode_unit(unit.header, encode_body([entry], unit.blocks))[0]])
    with pytest.raises(ProofFailed, match="checksum"):
        restore(shelf.store, output, verify="quick")
    assert [] == list(output.parent.iterdir())

    assert Position(G, 13) == restore(shelf.store, output, verify="none").position


def test_what_sqlite_cannot_read_is_not_published(shelf: Shelf, output: Path) -> None:
    """A model is no SQLite database: asked for its opinion SQLite refuses it, and no file is left."""
    for verify in ("quick", "full"):
        with pytest.raises(ProofFailed, match="not a database"):
            restore(shelf.store, output, verify=verify)

    assert [] == list(output.parent.iterdir())


def test_a_store_that_fails_at_any_call_leaves_no_file(shelf: Shelf, output: Path) -> None:
    """Each get, range and list in turn: StoreUnavailable, nothing left, and the next attempt succeeds."""
    for operation in ("get", "get_range", "list"):
        for skip in range(40):
            store = FaultyStore(shelf.store)
            store.fail(operation, skip=skip)
            try:
                restore(store, output)
            except StoreUnavailable:
                assert [] == list(output.parent.iterdir())
                continue
            assert shelf.writers[G].states[12].pages == pages_of(output)
            output.unlink()
            break
        else:
            pytest.fail("it never came through")


def test_it_can_be_stopped_at_any_moment(shelf: Shelf, output: Path) -> None:
    """Asked often, and whenever the answer is yes: Interrupted, and no file is left."""
    for allowed in range(200):
        left = [allowed]

        def cancelled(left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        try:
            restore(shelf.store, output, cancelled=cancelled)
        except Interrupted:
            assert [] == list(output.parent.iterdir())
            continue
        break

    assert allowed >= 4
    assert shelf.writers[G].states[12].pages == pages_of(output)


@pytest.mark.parametrize(
    ("objects", "error"),
    [
        ({}, RepositoryNotFound),
        ({"README": b"people"}, RepositoryNotFound),
        ({"repository.json": b""}, ObjectCorrupt),
        ({"repository.json": b'{"kind": "replicator-repository", "format": 2}'}, FormatTooNew),
        ({"repository.json": encode_record(IDENTITY)}, TargetUnreachable),
    ],
)
def test_what_is_no_repository_is_refused(
    objects: dict[str, bytes], error: type[ReplicatorError], output: Path
) -> None:
    """Nothing of ours, something damaged, a later format, or no full yet: each says so, with a hint."""
    store = MemoryStore()
    for name, data in objects.items():
        store.put(name, data)
    with pytest.raises(error) as caught:
        restore(store, output)

    assert caught.value.hint or error is ObjectCorrupt
    assert [] == list(output.parent.iterdir())


# --- which point is meant: by txid ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("txid", "fault"), [(13, "its newest is 000000000000000c"), (1 << 63, "there is no txid")]
)
def test_a_txid_beyond_the_newest_is_unreachable(shelf: Shelf, txid: int, fault: str) -> None:
    """The error names the newest, and the hint the window."""
    repository = read_repository(shelf.store)
    with pytest.raises(TargetUnreachable, match=fault) as caught:
        choose(repository, Target(txid=txid))

    assert window(repository) == caught.value.hint
    assert f"{G}/000000000000000c" in window(repository)


def test_a_txid_before_the_oldest_full_is_unreachable(output: Path) -> None:
    """A repository whose first full stands at a later position cannot give back what was before."""
    shelf = Shelf()
    writer = shelf.begin()
    shelf.segment(writer.commits(3))
    shelf.full(writer)
    shelf.segment(writer.commits(2))
    with pytest.raises(TargetUnreachable, match="before the oldest full backup"):
        restore(shelf.store, output, Target(txid=2))

    assert Position(G, 3) == oldest_point(*_listing(shelf)).position
    assert Position(G, 5) == newest_point(*_listing(shelf)).position
    assert Position(G, 3) == restore(shelf.store, output, Target(txid=3)).position


def _listing(shelf: Shelf, generation: GenerationId = G) -> tuple[Any, Any]:
    repository = read_repository(shelf.store)
    return repository, repository.catalogue.generation(generation)


def test_commits_that_were_merged_are_no_restore_points(output: Path) -> None:
    """Under overload an entry spans several commits: only its end can be restored, and the neighbours are named."""
    shelf = Shelf()
    writer = shelf.begin()
    shelf.full(writer)
    first = len(writer.units)
    writer.commits(2)
    size = writer.model.count
    group = [Commit({1: bytes([n]) * 512, n: bytes([n]) * 512}, size) for n in range(2, 6)]
    writer.whole([group])
    writer.commits(1)
    shelf.segment(writer.units[first:])
    for txid in (3, 4, 5):
        with pytest.raises(TargetUnreachable, match="merged with its neighbours") as caught:
            restore(shelf.store, output, Target(txid=txid))
        assert caught.value.hint is not None
        assert "0000000000000002 and 0000000000000006" in caught.value.hint
    result = restore(shelf.store, output, Target(txid=6))

    assert writer.states[6].pages == pages_of(output)
    assert 6 == result.transactions_applied


def test_a_generation_can_be_asked_for(output: Path) -> None:
    """The same txid in another generation is another database; without a generation it is the newest one."""
    shelf = Shelf()
    writers = {G: shelf.begin(G, began=START), LATER: shelf.begin(LATER, began=START + SECOND)}
    for writer in writers.values():
        shelf.full(writer)
        shelf.segment(writer.commits(3))
    for number, (generation, target) in enumerate(
        [
            (G, Target(txid=2, generation=G)),
            (LATER, Target(txid=2)),
            (LATER, Target(txid=2, generation=LATER)),
        ]
    ):
        path = output.with_name(str(number))
        assert Position(generation, 2) == restore(shelf.store, path, target).position
        assert writers[generation].states[2].pages == pages_of(path)

    with pytest.raises(TargetUnreachable, match="no generation 0101010101010101"):
        restore(shelf.store, output, Target(generation=GenerationId("01" * 8)))


def test_a_generation_without_a_full_leaves_the_one_before(shelf: Shelf, output: Path) -> None:
    """The newest that can be restored is the end of the old generation, and the choice says so."""
    later = shelf.begin(LATER, began=START + SECOND)
    shelf.segment(later.commits(2))
    repository = read_repository(shelf.store)
    chosen = choose(repository, Target())

    assert Position(G, 12) == chosen.point.position
    assert f"generation {LATER} has no complete full backup yet" in chosen.notes[0]
    with pytest.raises(TargetUnreachable, match="no full backup is complete"):
        choose(repository, Target(generation=LATER))


# --- which point is meant: by time ---------------------------------------------------------------------


@pytest.fixture
def timed() -> Shelf:
    """Commits 1 to 6 seen at seconds 10, 20, 20, 30, 60 and 60; before 60 the agent had not looked since 40."""
    shelf = Shelf()
    writer = shelf.begin()
    shelf.full(writer)
    sights = [(10, 9), (20, 19), (20, 19), (30, 29), (60, 40), (60, 40)]
    units = []
    for seen, looked in sights:
        writer.look = Sighting(START + seen * SECOND, START + looked * SECOND)
        units.append(writer.commits(1)[0])
    shelf.segment(units[:2])
    shelf.segment(units[2:3])
    shelf.segment(units[3:])
    return shelf


@pytest.mark.parametrize(
    ("second", "txid", "ambiguous"),
    [
        (0, 0, False),
        (1, 0, False),
        (9.5, 0, True),
        (10, 1, False),
        (10.5, 1, False),
        (19.5, 1, True),
        (20, 3, False),
        (25, 3, False),
        (30, 4, False),
        (39, 4, False),
        (41, 4, True),
        (59, 4, True),
        (60, 6, False),
        (1_000, 6, False),
    ],
)
def test_s50_a_time_means_the_last_commit_seen_by_then(
    timed: Shelf, second: float, txid: int, ambiguous: bool
) -> None:
    """At or before; where a commit may have happened before or after the time, that is said and --exact refuses."""
    repository = read_repository(timed.store)
    time = START + round(second * SECOND)
    chosen = choose(repository, Target(timestamp=time))

    assert Position(G, txid) == chosen.point.position
    assert ambiguous == bool(chosen.notes)
    if ambiguous:
        assert f"{G}/{txid:016x} is the one before it" in chosen.notes[0]
        with pytest.raises(TargetUnreachable, match="falls between two looks"):
            choose(repository, Target(timestamp=time, exact=True))
    else:
        assert chosen == choose(repository, Target(timestamp=time, exact=True))


def test_x3_a_time_before_a_hole_is_rounded_and_exact_refuses_it(timed: Shelf) -> None:
    """What lies between was committed then, and is not there any more."""
    (hole,) = (each.name for each in timed.store.list("tail/") if each.name.endswith("3.segment"))
    timed.store.delete(hole)
    repository = read_repository(timed.store)
    time = START + 25 * SECOND
    chosen = choose(repository, Target(timestamp=time))

    assert Position(G, 2) == chosen.point.position
    assert "none is kept any more" in chosen.notes[0]
    with pytest.raises(TargetUnreachable, match="none is kept"):
        choose(repository, Target(timestamp=time, exact=True))
    assert (
        Position(G, 2) == choose(repository, Target(timestamp=START + 20 * SECOND, exact=True)).point.position
    )


def test_x3_a_time_between_two_generations_is_rounded_and_exact_refuses_it(timed: Shelf) -> None:
    later = timed.begin(LATER, began=START + 100 * SECOND)
    later.tip = replace(later.tip, observed=START + 100 * SECOND)
    timed.full(later)
    repository = read_repository(timed.store)
    chosen = choose(repository, Target(timestamp=START + 80 * SECOND))

    assert Position(G, 6) == chosen.point.position
    assert f"where {LATER} begins, none was captured" in chosen.notes[0]
    with pytest.raises(TargetUnreachable, match="none was captured"):
        choose(repository, Target(timestamp=START + 80 * SECOND, exact=True))
    for time, generation in ((60, G), (100, LATER)):
        exact = Target(timestamp=START + time * SECOND, exact=True)
        assert generation == choose(repository, exact).point.position.generation


def test_s50_a_time_before_the_oldest_point_is_unreachable(timed: Shelf) -> None:
    """The error names the oldest, and the hint the window."""
    with pytest.raises(TargetUnreachable, match="before the oldest restore point") as caught:
        choose(read_repository(timed.store), Target(timestamp=START - 1))

    assert "restore points reach from" in str(caught.value.hint)


def test_a_time_is_restored_to_that_commit(timed: Shelf, output: Path) -> None:
    """The choice by time leads to the same database as its txid."""
    result = restore(timed.store, output, Target(timestamp=START + 25 * SECOND))

    assert timed.writers[G].states[3].pages == pages_of(output)
    assert START + 20 * SECOND == result.committed


@pytest.mark.parametrize(
    ("second", "generation", "txid"),
    [(35, G, 4), (99, G, 6), (100, LATER, 0), (105, LATER, 0), (110, LATER, 1), (500, LATER, 1)],
)
def test_a_time_is_looked_for_in_all_generations(
    timed: Shelf, second: int, generation: GenerationId, txid: int
) -> None:
    """The newest restorable point at or before it, whichever generation that is in."""
    later = timed.begin(LATER, began=START + 100 * SECOND)
    later.tip = replace(later.tip, observed=START + 100 * SECOND)
    timed.full(later)
    later.look = Sighting(START + 110 * SECOND, START + 109 * SECOND)
    timed.segment(later.commits(1))
    repository = read_repository(timed.store)

    assert (
        Position(generation, txid)
        == choose(repository, Target(timestamp=START + second * SECOND)).point.position
    )


def test_the_window_is_one_sentence(timed: Shelf) -> None:
    """From the oldest to the newest restore point; an empty repository has none."""
    empty = Shelf()

    assert (
        f"restore points reach from 2025-01-28T06:00:00.000000Z ({G}/0000000000000000) "
        f"to 2025-01-28T06:01:00.000000Z ({G}/0000000000000006)"
    ) == window(read_repository(timed.store))
    assert "nothing can be restored yet" == window(read_repository(empty.store))


def test_the_same_restore_gives_the_same_file(shelf: Shelf, output: Path) -> None:
    """With one job or many, and again: the bytes are those of the database and nothing else."""
    digests = set()
    for jobs in (1, 2, 8):
        repository = read_repository(shelf.store)
        options = RestoreOptions(verify="none", jobs=jobs)
        restore_chosen(repository, choose(repository, Target()), str(output), options)
        digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
        output.unlink()

    assert 1 == len(digests)
