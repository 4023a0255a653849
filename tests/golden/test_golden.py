"""Files of format 1, made without the program, mean what README.md says: to the program, and to a third party."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash

from replicator.core.cursor import WalCursor
from replicator.core.full import Frame, ManifestHead, Run, decode_manifest, encode_manifest, expand_frame
from replicator.core.position import GenerationId
from replicator.core.records import (
    GenerationRecord,
    LeaseRecord,
    RepositoryRecord,
    decode_generation,
    decode_lease,
    decode_repository,
    encode_record,
)
from replicator.core.unit import UnitHeader, decode_unit, encode_body, encode_unit, split_units
from replicator.core.wal import Salt, WalChecksum
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store.folder import FolderStore

FOLDER = Path(__file__).parent / "repository"
G = GenerationId("5eed00c0ffee0001")
REPOSITORY = "4f1d0c9ab2e74c3d8a6b5e0f7d2c1b90"
TAIL = f"tail/{G}"
SEGMENT = f"{TAIL}/0000000000000001.segment"
PARTS = (f"{TAIL}/0000000000000004-p0001.segment", f"{TAIL}/0000000000000004-p0002.segment")
FULL = f"full/2025/01/28/20250128T020000Z-{G}-0000000000000000.full"
PACK = f"full/2025/01/28/20250128T020000Z-{G}-0000000000000000-00000000000000aa.pack"

# SHA-256 of the database after each commit, from README.md
DATABASES = {
    0: "4917e881c6ecd3a181f9b9d47159b6d55648d49bf7fdcd3885c473fdcbd5255b",
    1: "5208ebceb4698bd9932710327260e89310beefb4b6da1724cc38e6d6f1a53d32",
    2: "5753c3b40e6e6491b5033c4555481cd93f136d78d81f711d6bd064c9aa0e601e",
    3: "f0a8acc88ce8fa2f7b8785b5e6b43768fc8fb83a86c08f0db96655aaca5ec11d",
    4: "ec120307f5a5074e92b882d1da49195d6c67a91c1935ddfae0ca09d3d7defde5",
}
OBJECTS = {
    "repository.json": "f304632a2c80bf2d",
    f"generations/{G}.json": "3a91a98c818271a5",
    "leases/00000001.json": "fc1b2b4fa51c7656",
    FULL: "069cc7f95520103d",
    PACK: "a70271d6c4da370c",
    SEGMENT: "1c6ef1cba5917558",
    PARTS[0]: "60707401900d2725",
    PARTS[1]: "88a6c9943335042a",
}


def golden(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def test_the_golden_files_are_the_ones_that_were_checked_in() -> None:
    """Nobody made them anew, and none was added or lost."""
    found = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.is_file()}

    assert OBJECTS == {
        name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in found.items()
    }


# --- as the program reads them -------------------------------------------------------------------------


def test_the_records_are_read() -> None:
    """Who it is, why its history began, who writes; and we would write the very same bytes."""
    repository = RepositoryRecord(REPOSITORY, "2025-01-28T01:59:00.000000Z")
    generation = GenerationRecord(G, REPOSITORY, 1, 1_738_029_600_000_000, "first run", 512, None)
    lease = LeaseRecord(
        1, "0123456789abcdef", "golden.example", 4711, "2025-01-28T01:59:00.000001Z", took_over=False
    )

    assert repository == decode_repository(golden("repository.json"), "name")
    assert generation == decode_generation(golden(f"generations/{G}.json"), f"generations/{G}.json")
    assert lease == decode_lease(golden("leases/00000001.json"), "name")
    assert golden("repository.json") == encode_record(repository)
    assert golden(f"generations/{G}.json") == encode_record(generation)
    assert golden("leases/00000001.json") == encode_record(lease)


def test_the_manifest_and_its_pack_are_read() -> None:
    """Head, hashes, runs and the chunks themselves; and we would write the same manifest."""
    manifest = decode_manifest(golden(FULL), FULL)
    pack = golden(PACK)
    frames = (Frame(0, 8, 1057, 32768), Frame(0, 1065, 174, 4608))
    plain = [expand_frame(each, pack[each.offset : each.offset + each.stored_bytes], PACK) for each in frames]
    database = b"".join(plain)

    assert (
        ManifestHead(
            repository=REPOSITORY,
            generation=G,
            txid=0,
            epoch=1,
            page_size=512,
            pages=73,
            chunk_bytes=16384,
            observed=1_738_029_600_123_456,
            created=1_738_029_600_623_456,
            chain="1585e61deaf32a5e743354a775d5c239",
            checksum="ca7aa6c6a8f63313",
            rolling="0000000000000000",
            packs=(PACK,),
            stored_bytes=1239,
        )
        == manifest.head
    )
    assert (Run(frames[0], 0, 2), Run(frames[1], 0, 1)) == manifest.runs
    assert [hashlib.sha256(database[i : i + 16384]).digest() for i in range(0, len(database), 16384)] == [
        manifest.hashes[i : i + 32] for i in range(0, 96, 32)
    ]
    assert DATABASES[0] == hashlib.sha256(database).hexdigest()
    assert golden(FULL) == encode_manifest(manifest)


SALT = Salt(1_209_562_799, 1_296_977_074)
HEADERS = [
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=1, txid_first=1,
        txid_last=2, part=0, last_part=False, rolling_known=True, clock_stepped=False,
        cursor=WalCursor(SALT, 12, WalChecksum(125_581_692, 947_150_234)),
        observed_first=1_738_029_610_123_456, observed_last=1_738_029_620_123_456,
        chain_before=bytes.fromhex("1585e61deaf32a5e"),
        entries_bytes=95, payload_bytes=190,
    ),
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=1, txid_first=3,
        txid_last=3, part=0, last_part=False, rolling_known=False, clock_stepped=True,
        cursor=WalCursor(SALT, 13, WalChecksum(1_871_023_463, 215_186_438)),
        observed_first=1_738_029_630_123_456, observed_last=1_738_029_630_123_456,
        chain_before=bytes.fromhex("c9ce19e4ea5473f2"),
        entries_bytes=18, payload_bytes=80,
    ),
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=0, txid_first=4,
        txid_last=4, part=1, last_part=False, rolling_known=False, clock_stepped=False,
        cursor=WalCursor(SALT, 52, WalChecksum(943_304_693, 239_672_608)),
        observed_first=1_738_029_640_123_456, observed_last=1_738_029_640_123_456,
        chain_before=bytes.fromhex("ed8295d64c469a61"),
        entries_bytes=111, payload_bytes=9736,
    ),
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=0, txid_first=4,
        txid_last=4, part=2, last_part=True, rolling_known=True, clock_stepped=False,
        cursor=WalCursor(SALT, 52, WalChecksum(943_304_693, 239_672_608)),
        observed_first=1_738_029_640_123_456, observed_last=1_738_029_640_123_456,
        chain_before=bytes.fromhex("a5ea23922ffb858d"),
        entries_bytes=116, payload_bytes=10248,
    ),
]  # fmt: skip
# txid, span, observed, not before, pages after, page numbers, first hash, rolling
ENTRIES = [
    (1, 1, 1_738_029_610_123_456, 1_738_029_600_123_456, 75, (1, 2, 73, 74, 75), 0x34A1A61E,
     0xCC1AB65F9B5DA530),
    (2, 1, 1_738_029_620_123_456, 1_738_029_610_123_456, 64, (1, 2, 3, 61, 62, 63, 64), 0xA1766910,
     0xEE914B48595D5CF9),
    (3, 1, 1_738_029_630_123_456, 1_738_029_630_123_456, 64, (6,), 0x4D19DFA7, 0),
    (4, 1, 1_738_029_640_123_456, 1_738_029_630_123_456, 64, tuple(range(4, 23)), 0x0A8EA40B, 0),
    (4, 1, 1_738_029_640_123_456, 1_738_029_630_123_456, 64, tuple(range(23, 43)), 0x9585A252,
     0x85BFDFC61B8A0840),
]  # fmt: skip
# pages, fresh pages, hash of the prefix, bytes stored
BLOCKS = [
    (12, frozenset(), 0x86014EF3, 182),
    (1, frozenset({6}), 0x38D394C2, 72),
    (19, frozenset(), 0xB2BF707B, 9728),
    (20, frozenset(), 0xA3FEDBB8, 10240),
]
UNITS = [bytes(view) for name in (SEGMENT, *PARTS) for view in split_units(golden(name))]


def test_the_units_are_read() -> None:
    """Headers, entries and blocks of every unit, and we would write the same bytes around the same blocks."""
    units = [decode_unit(each) for each in UNITS]
    entries = [each for unit in units for each in unit.entries]

    assert HEADERS == [unit.header for unit in units]
    assert ENTRIES == [
        (e.txid, e.span, e.observed, e.not_before, e.pages_after, e.pgnos, e.hashes[0], e.rolling)
        for e in entries
    ]
    assert all(len(each.hashes) == len(each.pgnos) for each in entries)
    assert BLOCKS == [(b.pages, b.fresh, b.prefix_hash, len(b.stored)) for u in units for b in u.blocks]
    for written, unit in zip(UNITS, units, strict=True):
        assert (written, unit.digest) == encode_unit(unit.header, encode_body(unit.entries, unit.blocks))


@pytest.mark.parametrize("txid", sorted(DATABASES))
def test_the_repository_is_restored_at_every_txid(txid: int, tmp_path: Path) -> None:
    """What comes out is, byte by byte, the database SQLite had after that commit."""
    output = tmp_path / "restored.db"
    repository = read_repository(FolderStore(str(FOLDER)))
    result = restore_chosen(
        repository, choose(repository, Target(txid=txid)), str(output), RestoreOptions(verify="full")
    )

    assert DATABASES[txid] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert (txid, txid) == (result.position.txid, result.transactions_applied)
    assert "integrity_check" in result.proved
    assert ("database checksum" in result.proved) == (txid != 3)  # there the agent could not follow it


# --- as anybody could read them: nothing of the program from here on -----------------------------------


@dataclass
class Seen:
    """One unit as its layout says: header fields by name, entries as tuples, the payload as it lies there."""

    head: dict[str, object]
    entries: list[tuple[int, int, int, int, tuple[int, ...], tuple[int, ...], int]]
    payload: bytes
    trailer: bytes


FIELDS = (
    ("magic", "7s"), ("version", "B"), ("flags", "B"), ("codec", "B"), ("page_log2", "B"), ("zero", "B"),
    ("part", "I"), ("generation", "8s"), ("epoch", "I"), ("frames", "I"), ("txid_first", "Q"),
    ("txids_more", "I"), ("salt1", "I"), ("salt2", "I"), ("sum0", "I"), ("sum1", "I"), ("observed_first", "Q"),
    ("observed_for", "I"), ("chain", "8s"), ("entries_bytes", "I"), ("payload_bytes", "I"),
)  # fmt: skip


def third_party(data: bytes) -> list[Seen]:
    """The units of a segment, by the layout alone."""
    units: list[Seen] = []
    while data:
        layout = struct.Struct(">" + "".join(form for _, form in FIELDS))
        head = dict(zip((name for name, _ in FIELDS), layout.unpack_from(data), strict=True))
        at = layout.size
        end = at + int(head["entries_bytes"])
        txid, observed = int(head["txid_first"]) - 1, int(head["observed_first"])
        entries = []
        while at < end:
            (span, later, earlier, size, count), at = numbers(data, at, 5)
            steps, at = numbers(data, at, count)
            pgnos = tuple(sum(steps[: i + 1]) for i in range(count))
            *hashes, rolling = struct.unpack_from(f">{count}IQ", data, at)
            at += 4 * count + 8
            txid, observed = txid + span, observed + later
            entries.append((txid, observed, observed - earlier, size, pgnos, tuple(hashes), rolling))
        payload = data[end : end + int(head["payload_bytes"])]
        whole = end + len(payload)
        units.append(Seen(head, entries, payload, data[whole : whole + 16]))
        assert hashlib.sha256(data[:whole]).digest()[:16] == data[whole : whole + 16]
        data = data[whole + 16 :]
    return units


def numbers(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """So many LEB128 numbers, and where they end."""
    found = []
    for _ in range(count):
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        found.append(value)
    return found, at


def test_a_third_party_reads_the_units() -> None:
    """The layout alone is enough to read headers and entries, and the units chain by their last 16 bytes."""
    seen = [unit for name in (SEGMENT, *PARTS) for unit in third_party(golden(name))]
    heads = [each.head for each in seen]
    chain = hashlib.sha256(b"RPLCHAIN" + bytes.fromhex(REPOSITORY) + bytes.fromhex(G)).digest()[:16]

    assert [b"RPLUNIT"] * 4 == [head["magic"] for head in heads]
    assert [(1, 512, bytes.fromhex(G), 1, 0)] * 4 == [
        (head["version"], 1 << int(head["page_log2"]), head["generation"], head["epoch"], head["zero"])
        for head in heads
    ]
    assert [(0, 1, 0), (4 | 8, 1, 0), (1 | 4, 0, 1), (1 | 2, 0, 2)] == [
        (head["flags"], head["codec"], head["part"]) for head in heads
    ]
    assert [(1, 1), (3, 0), (4, 0), (4, 0)] == [(head["txid_first"], head["txids_more"]) for head in heads]
    assert [(each.entries[0][1], each.entries[-1][1]) for each in seen] == [
        (head["observed_first"], int(head["observed_first"]) + int(head["observed_for"])) for head in heads
    ]
    assert [each[:8] for each in (chain, *(unit.trailer for unit in seen[:-1]))] == [
        head["chain"] for head in heads
    ]
    assert [(txid, observed, earlier, size, pgnos, first, rolling)
            for txid, _, observed, earlier, size, pgnos, first, rolling in ENTRIES] == [
        (txid, observed, earlier, size, pgnos, hashes[0], rolling)
        for each in seen for txid, observed, earlier, size, pgnos, hashes, rolling in each.entries
    ]  # fmt: skip


def test_a_third_party_finds_the_pages_of_an_uncompressed_unit() -> None:
    """Not compressed, a block is the pages one behind the other, each with the low half of its hash in the entry."""
    (unit,) = third_party(golden(PARTS[1]))
    (pages, fresh), at = numbers(unit.payload, 0, 2)
    at += 4  # hash of the prefix
    (length,), at = numbers(unit.payload, at, 1)
    _, _, _, _, pgnos, hashes, _ = unit.entries[0]
    contents = [unit.payload[i : i + 512] for i in range(at, at + length, 512)]

    assert (20, 0, 20 * 512) == (pages, fresh, length)
    assert len(unit.payload) == at + length
    assert hashes == tuple(
        xxhash.xxh3_64_intdigest(content, seed=pgno) % 2**32
        for pgno, content in zip(pgnos, contents, strict=True)
    )


def test_the_checksum_of_the_database_is_base_and_rolling() -> None:
    """XOR over the pages of XXH3-64 seeded with the page number: txid 0's and an entry's rolling give that entry's."""
    rollings = {txid: rolling for txid, *_, rolling in ENTRIES if rolling}

    assert {1: 0x0660109933AB9623, 2: 0x24EBED8EF1AB6FEA, 4: 0x4FC57900B37C3B53} == {
        txid: 0xCA7AA6C6A8F63313 ^ rolling for txid, rolling in rollings.items()
    }
