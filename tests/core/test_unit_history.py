"""Units built from random histories, applied again: page by page and checksum by checksum the same database.

The model (tests/core/histories.py) knows nothing of units; it is compared at every entry.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core import page_delta, unit_build
from replicator.core.codec import CODEC_DEFLATE, CODEC_NONE, CODEC_ZSTD, DEFAULT, Compression
from replicator.core.errors import ObjectCorrupt
from replicator.core.position import GenerationId
from replicator.core.unit import decode_unit, encode_body, encode_unit, first_chain, follows
from replicator.core.unit_apply import expand_unit
from replicator.core.unit_build import (
    Hole,
    check_growth,
    merge,
)
from replicator.core.wal import LoggedTransaction
from tests.core.histories import GENERATION, REPOSITORY, Commit, Model, commits_of, database_of
from tests.core.unit_writer import write_history, writer_on

SEEDS = st.integers(0, 2**32)  # a history is far more bytes than hypothesis likes to choose one by one
COMPRESSIONS = (
    DEFAULT,
    Compression(CODEC_ZSTD, 9),
    Compression(CODEC_NONE, 0),
    Compression(CODEC_DEFLATE, 1),
    Compression(CODEC_DEFLATE, 6),
)
PAGE_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


def read_history(
    base: Model, units: list[bytes], at_entry: Callable[[int, Model, int | None], None]
) -> Model:
    """Apply all units in order onto *base*, strictly: pages beyond the end are gone at once.

    *at_entry* is told the txid, the database there, and its rolling checksum if that is known.
    """
    model = base.copy()
    chain, txid, part = first_chain(REPOSITORY, GenerationId(GENERATION)), 0, 0
    pending: dict[int, bytes] = {}
    for data in units:
        unit = decode_unit(data)
        header = unit.header
        assert follows(header, chain)
        assert txid + 1 == header.txid_first
        assert header.part == (part + 1 if header.part else 0)
        chain, part = unit.digest, 0 if header.commits else header.part
        for entry, images in expand_unit(unit, pages_before=model.count, version=model.pages.__getitem__):
            pending.update(zip(entry.pgnos, images, strict=True))
            if header.commits:
                model.apply(Commit(dict(pending), entry.pages_after))
                pending.clear()
                txid = entry.txid
                at_entry(txid, model, entry.rolling if header.rolling_known else None)
    assert not pending
    return model


@settings(max_examples=300)
@given(
    seed=SEEDS,
    page_size=st.sampled_from(PAGE_SIZES),
    compression=st.sampled_from(COMPRESSIONS),
    block_pages=st.integers(1, 9),
    part_pages=st.integers(1, 4),
)
def test_a_history_of_units_yields_the_same_database_at_every_entry(
    seed: int, page_size: int, compression: Compression, block_pages: int, part_pages: int
) -> None:
    """Growth, shrinking, growing again, merged commits, parts, many small blocks: pages and checksums agree."""
    rng = random.Random(seed)
    base = database_of(rng, page_size, rng.randint(1, 12))
    writer = writer_on(base, rng, compression)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_delta, "PREFIX_BYTES_MAX", block_pages * page_size)
        patch.setattr(unit_build, "UNIT_BYTES_MAX", part_pages * page_size)
        write_history(writer, commits_of(rng, base, rng.randint(1, 14)))
    seen: list[int] = []

    def compare(txid: int, model: Model, rolling: int | None) -> None:
        seen.append(txid)
        assert writer.states[txid].pages == model.pages
        assert rolling is not None
        assert model.checksum == base.checksum ^ rolling

    final = read_history(base, writer.units, compare)

    assert sorted(writer.states)[1:] == seen
    assert writer.model.pages == final.pages
    assert writer.tip.pages == final.count


@given(seed=SEEDS, page_size=st.sampled_from((512, 4096)))
def test_pages_without_a_previous_version_are_sent_fresh(seed: int, page_size: int) -> None:
    """Where the version before is not at hand the pages arrive all the same, and the checksum is unknown."""
    rng = random.Random(seed)
    base = database_of(rng, page_size, 8)
    writer = writer_on(base, rng)
    writer.whole([[each] for each in commits_of(rng, base, 2)])
    known = len(writer.states)
    writer.forgotten = frozenset(range(1, 40))
    write_history(writer, commits_of(rng, writer.model, 4))
    unknown = len(writer.states)
    writer.forgotten = frozenset()
    write_history(writer, commits_of(rng, writer.model, 2))
    rollings: list[int | None] = []

    def compare(txid: int, model: Model, rolling: int | None) -> None:
        rollings.append(rolling)
        assert writer.states[txid].pages == model.pages
        assert rolling is None or model.checksum == base.checksum ^ rolling

    read_history(base, writer.units, compare)

    assert writer.tip.rolling is None
    assert known < unknown
    assert None not in rollings[:2]
    assert {None} == set(rollings[-2:])


def test_a_transaction_in_parts_has_one_restore_point() -> None:
    """The parts of a transaction share its txid, count from 1, and only the last carries commit and checksum."""
    rng = random.Random(5)
    base = database_of(rng, 512, 20)
    writer = writer_on(base, rng)
    commit = Commit({pgno: rng.randbytes(512) for pgno in range(3, 24)}, 23)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_build, "UNIT_BYTES_MAX", 5 * 512)
        writer.parts(commit)
    headers = [decode_unit(unit).header for unit in writer.units]

    assert [1, 2, 3, 4, 5] == [header.part for header in headers]
    assert [False] * 4 + [True] == [header.last_part for header in headers]
    assert [False] * 4 + [True] == [header.commits for header in headers]
    assert [False] * 4 + [True] == [header.rolling_known for header in headers]
    assert {(1, 1)} == {(header.txid_first, header.txid_last) for header in headers}
    assert (1, 23) == (writer.tip.txid, writer.tip.pages)


def test_a_unit_does_not_fit_another_database() -> None:
    """Applied to a state that is not the one before it, a unit is ObjectCorrupt and never a wrong page."""
    rng = random.Random(7)
    base = Model(512, {pgno: rng.randbytes(512) for pgno in range(1, 7)})
    writer = writer_on(base, rng)
    writer.whole([[Commit({2: base.pages[2][:-1] + b"!"}, 6)]])
    other = base.copy()
    other.pages[2] = bytes(512)

    with pytest.raises(ObjectCorrupt, match="state before a block"):
        read_history(other, writer.units, lambda *_: None)


def test_every_page_is_proved_by_its_hash() -> None:
    """A unit whose chain and prefix are right, but whose entry promises another page: ObjectCorrupt, by its number."""
    rng = random.Random(9)
    base = database_of(rng, 512, 6)
    writer = writer_on(base, rng)
    writer.whole([[Commit({2: rng.randbytes(512), 4: rng.randbytes(512)}, 6)]])
    unit = decode_unit(writer.units[0])
    entry = unit.entries[0]
    forged = replace(entry, hashes=(entry.hashes[0], entry.hashes[1] ^ 1))
    written, _ = encode_unit(unit.header, encode_body([forged], unit.blocks))

    with pytest.raises(ObjectCorrupt, match=r"page 4 of txid 0000000000000001 .* has another hash"):
        read_history(base, [written], lambda *_: None)


@pytest.mark.parametrize("compression", [DEFAULT, Compression(CODEC_DEFLATE, 6)], ids=str)
def test_an_update_of_a_page_costs_a_few_dozen_bytes(compression: Compression) -> None:
    """The previous version is at hand: a page of noise with one byte changed is stored in under 60 bytes."""
    rng = random.Random(11)
    base = Model(4096, {pgno: rng.randbytes(4096) for pgno in range(1, 9)})
    writer = writer_on(base, rng, compression)
    changed = base.pages[5][:100] + b"x" + base.pages[5][101:]
    writer.whole([[Commit({5: changed}, 8)]])
    (block,) = decode_unit(writer.units[0]).blocks

    assert len(block.stored) < 60


# --- merge and growth ----------------------------------------------------------------------------------


def test_merging_keeps_the_newest_frame_of_each_page_and_drops_what_was_cut_off() -> None:
    """A page cut off and not written again is gone; one written again after the cut counts."""
    merged = merge(
        [
            LoggedTransaction(3, 7, {1: 0, 6: 1, 7: 2}),
            LoggedTransaction(4, 5, {1: 3}),
            LoggedTransaction(6, 6, {6: 4, 2: 5}),
        ]
    )

    assert {1: 3, 2: 5, 6: 4} == merged.frames
    assert (6, 6) == (merged.end, merged.commit_pages)


@pytest.mark.parametrize(
    ("frames", "commit_pages", "before", "page_size", "missing"),
    [
        ({1: 0}, 5, 5, 512, None),
        ({1: 0}, 4, 5, 512, None),
        ({6: 0}, 6, 5, 512, None),
        ({1: 0}, 6, 5, 512, 6),
        ({6: 0, 8: 1}, 8, 5, 512, 7),
        ({16_384: 0, 16_386: 1}, 16_386, 16_383, 65_536, None),  # page 16385 is the lock page of 64 KiB pages
        ({262_144: 0, 262_146: 1}, 262_146, 262_143, 4096, None),
        ({262_145: 0, 262_146: 1}, 262_146, 262_143, 4096, 262_144),
    ],
)
def test_growth_without_a_frame_is_a_hole(
    frames: dict[int, int], commit_pages: int, before: int, page_size: int, missing: int | None
) -> None:
    """Every page a commit adds has to be in its frames, but for the one SQLite never writes."""
    logged = LoggedTransaction(len(frames), commit_pages, frames)

    if missing is None:
        check_growth(logged, before, page_size)
    else:
        with pytest.raises(Hole, match=f"page {missing} was not written"):
            check_growth(logged, before, page_size)
