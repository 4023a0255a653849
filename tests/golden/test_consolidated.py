"""A log and incrementals of format 1, made without the program, mean what README.md says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from replicator.core.full import decode_manifest
from replicator.core.incremental import (
    Incremental,
    decode_incremental,
    encode_incremental,
    is_on,
    page_tables,
    pages_in,
    read_page_frames,
)
from replicator.core.log import IndexEntry, decode_log, encode_log, observed_first
from replicator.core.manifest import read_table
from replicator.core.names import LogName
from replicator.core.pack import PackUse, check_pack, read_frame
from replicator.core.unit import parse_unit_header, split_units
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store.folder import FolderStore
from tests.golden.test_golden import DATABASES, FULL, PACK, PARTS, REPOSITORY, SEGMENT, G, golden, third_party

FOLDER = Path(__file__).parent / "consolidated"
STORE = FolderStore(str(FOLDER))
LOG = f"log/2025/01/28/20250128T020040Z-{G}-0000000000000001-0000000000000004.log"
ONE = f"incremental/2025/01/28/20250128T020020Z-{G}-0000000000000000-0000000000000002.incremental"
TWO = f"incremental/2025/01/28/20250128T020040Z-{G}-0000000000000002-0000000000000004.incremental"
ONE_PACK = f"incremental/2025/01/28/20250128T020020Z-{G}-0000000000000002-00000000000000bb.pack"
TWO_PACK = f"incremental/2025/01/28/20250128T020040Z-{G}-0000000000000004-00000000000000cc.pack"
OBJECTS = {
    FULL: "80b77112aeb66d70",
    PACK: "5db3217b0d1ee633",
    f"generations/{G}.json": "3a91a98c818271a5",
    ONE: "b6fe699738d954c3",
    ONE_PACK: "0a6e098713efde2c",
    TWO: "800ee48048c2f926",
    TWO_PACK: "7ccd955ee72c1184",
    "leases/00000001.json": "fc1b2b4fa51c7656",
    LOG: "d3a671d0acdd7919",
    f"records/20250128T020000Z-{G}-0000000000000000/checksummed.json": "46244b7459ebcb9f",
    "repository.json": "257abeb769ec9b8b",
}
UNITS = [bytes(view) for name in (SEGMENT, *PARTS) for view in split_units(golden(name))]
SECOND = 1_000_000
TIMES = [1_738_029_600_123_456 + each * SECOND for each in (0, 10, 20, 30, 40)]


def test_the_golden_files_are_the_ones_that_were_checked_in() -> None:
    """Nobody made them anew, and none was added or lost."""
    found = [path for path in FOLDER.rglob("*") if path.is_file()]

    assert OBJECTS == {
        path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in found
    }


@pytest.mark.parametrize(("txid", "applied"), [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)])
def test_the_repository_is_restored_at_every_txid(txid: int, applied: int, tmp_path: Path) -> None:
    """From the nearest backup before it, and the log: byte by byte the database SQLite had after that commit."""
    output = tmp_path / "restored.db"
    repository = read_repository(STORE)
    result = restore_chosen(
        repository, choose(repository, Target(txid=txid)), str(output), RestoreOptions(verify="full")
    )

    assert DATABASES[txid] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert (txid, applied) == (result.position.txid, result.transactions_applied)


# --- as the program reads them -------------------------------------------------------------------------


def test_the_log_is_read() -> None:
    """Its index tells where each unit lies and when it ends, and we would write the very same bytes."""
    name = LogName(1_738_029_640 * SECOND, G, 1, 4)
    data = (FOLDER / LOG).read_bytes()
    log = decode_log(data, name)
    sizes = [len(unit) for unit in UNITS]
    begin = len(data) - 32 - sum(sizes)

    assert str(name) == LOG
    assert b"".join(UNITS) == log.units
    assert log.index == tuple(
        IndexEntry(begin + sum(sizes[:number]), sizes[number], txid, TIMES[txid])
        for number, txid in enumerate((2, 3, 4, 4))
    )
    assert TIMES[1] == observed_first(data[:40], name)
    assert data == encode_log(name, [(parse_unit_header(unit), unit) for unit in UNITS])


def manifest_of(name: str) -> Incremental:
    return decode_incremental((FOLDER / name).read_bytes(), name)


def test_the_incrementals_are_read() -> None:
    """Each says what it lies on and what the database was, and we would write the same manifest and the same tables."""
    full = decode_manifest(golden(FULL), FULL)
    one, two = manifest_of(ONE), manifest_of(TWO)

    assert (REPOSITORY, G, 1, 512) == (one.repository, one.generation, one.epoch, one.page_size)
    assert [(2, 64, TIMES[2], TIMES[2] + 500_000), (4, 64, TIMES[4], TIMES[4] + 500_000)] == [
        (each.txid, each.pages, each.observed, each.created) for each in (one, two)
    ]
    assert is_on(one, full.name, full.chain)
    assert is_on(two, one.name, one.chain)
    assert not is_on(two, full.name, full.chain)
    assert ("24ebed8ef1ab6fea", "4fc57900b37c3b53") == (one.checksum, two.checksum)
    assert [UNITS[0][-16:].hex(), UNITS[3][-16:].hex()] == [one.chain, two.chain]
    assert [(PackUse(ONE_PACK, 986),), (PackUse(TWO_PACK, 10316),)] == [one.packs, two.packs]
    for manifest in (one, two):
        frames = list(read_page_frames(manifest, STORE.get_range))
        tables = [read_table(manifest, number, STORE.get_range) for number in range(len(manifest.tables))]
        assert b"".join(page_tables(frames)) == b"".join(tables)
        assert (FOLDER / str(manifest.name)).read_bytes() == encode_incremental(manifest)
        check_pack((FOLDER / manifest.packs[0].name).read_bytes(), manifest.packs[0].name)


def test_the_pages_of_an_incremental_are_read() -> None:
    """What txid 1 wrote and txid 2 wrote again is in it twice, and what txid 2 cut off at all."""
    manifest = manifest_of(ONE)
    older, newer = read_page_frames(manifest, STORE.get_range)
    pages: list[dict[int, bytes]] = []
    for frame in (older, newer):
        plain = read_frame(frame.frame, manifest.packs, STORE.get_range)
        pages.append(dict(pages_in(plain, frame, 512, ONE_PACK)))

    assert ((1, 2, 73, 74, 75), (1, 2, 3, 62, 63, 64)) == (older.pgnos, newer.pgnos)
    assert manifest.pages_stored == 11
    assert pages[0][1] != pages[1][1]
    assert max(older.pgnos) > manifest.pages


# --- as anybody could read them ------------------------------------------------------------------------


def test_a_third_party_reads_the_log() -> None:
    """Magic, version and the length of the index, then the units as they lay in the tail, then the digest."""
    data = (FOLDER / LOG).read_bytes()
    index = int.from_bytes(data[8:12], "big")
    units = third_party(data[12 + index : -32])

    assert b"RPLLOGS\x01" == data[:8]
    assert hashlib.sha256(LOG.encode() + b"\0" + data[:-32]).digest() == data[-32:]
    assert [(1, 1), (3, 0), (4, 0), (4, 0)] == [
        (unit.head["txid_first"], unit.head["txids_more"]) for unit in units
    ]
