"""Files of format 1, made without the program, mean what README.md says: to the program, and to a third party."""

import hashlib
import hmac
import json
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import xxhash

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from replicator.core.cursor import WalCursor
from replicator.core.errors import KeyRefused
from replicator.core.full import (
    Manifest,
    Run,
    TableUse,
    decode_manifest,
    encode_manifest,
    encode_table,
    read_tables,
)
from replicator.core.key_ring import KeyRing, Root, unwrap
from replicator.core.operator_key import OperatorKey
from replicator.core.pack import Frame, PackUse, check_pack, decode_frame
from replicator.core.position import GenerationId
from replicator.core.records import (
    EventRecord,
    GenerationRecord,
    LeaseRecord,
    RepositoryRecord,
    decode_event,
    decode_generation,
    decode_lease,
    decode_repository,
    encode_record,
)
from replicator.core.unit import UnitHeader, decode_unit, encode_body, encode_unit, split_units
from replicator.core.wal import Salt, WalChecksum
from replicator.keys import KEY, PASSPHRASE, KeySource, unlocked
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store import Store
from replicator.store.folder import FolderStore

FOLDER = Path(__file__).parent / "repository"
SEALED = Path(__file__).parent / "sealed"
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
EVENT = f"records/20250128T020000Z-{G}-0000000000000000/checksummed.json"
OBJECTS = {
    "repository/repository.json": "257abeb769ec9b8b",
    f"repository/generations/{G}.json": "3a91a98c818271a5",
    "repository/leases/00000001.json": "fc1b2b4fa51c7656",
    f"repository/{EVENT}": "46244b7459ebcb9f",
    f"repository/{FULL}": "80b77112aeb66d70",
    f"repository/{PACK}": "5db3217b0d1ee633",
    f"repository/{SEGMENT}": "1cd3d2c9bddb3c3f",
    f"repository/{PARTS[0]}": "7dc061023a60676b",
    f"repository/{PARTS[1]}": "58a4e340012689c4",
    "sealed/repository.json": "c5235786dc410176",
    "sealed/keys/00000001.json": "34f079c2c1737d60",
    "sealed/keys/00000002.json": "733da64218d2f07a",
    f"sealed/generations/{G}.json": "eba313d5468d5966",
    "sealed/leases/00000001.json": "6fd372ad1deba8e8",
    f"sealed/{EVENT}": "2b903ef930527a67",
    f"sealed/{FULL}": "81e375412cb8f3ae",
    f"sealed/{PACK}": "02a02f26d4a54b59",
    f"sealed/{SEGMENT}": "3f175dd38f8fb2e0",
    f"sealed/{PARTS[0]}": "8c130c5bdfdc7b2a",
    f"sealed/{PARTS[1].removesuffix('.segment')}.r2.segment": "ddc6808dfa68c954",
}
# From README.md: what opens `sealed/`.
OPERATOR_KEY = "8d1f4c97a06be35218f4d97c03ab5ee16c2279b4f08e4d1da5937bc60e1f8245"
WORDS = "quartz harbour nineteen lanterns"
RINGS = {
    number: KeyRing(
        REPOSITORY,
        number,
        (
            Root(
                "70c1de5a9b3e2f01",
                1_738_029_600_000_000,
                bytes.fromhex("e7b2049d5c318fa6d84b7710c9e6f35a2d90b8417c5ea3f6018dd4629b57ec3f"),
            ),
            Root(
                "a94f27e06d8cb512",
                1_738_029_600_000_009,
                bytes.fromhex("1c85f3d06e49b7a25df018c3947be260fa3d71958e02c64bb917d5a80f6e3c72"),
            ),
        )[:number],
        Root(
            "de9d0b5ac47f1e38",
            1_738_029_600_000_000,
            bytes.fromhex("4b97e15ad8203cf6719eb4d05f826ca3e6140d7b92c5f83da061be4917df5c28"),
        ),
    )
    for number in (1, 2)
}


def golden(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def test_the_golden_files_are_the_ones_that_were_checked_in() -> None:
    """Nobody made them anew, and none was added or lost."""
    found = [path for folder in (FOLDER, SEALED) for path in folder.rglob("*") if path.is_file()]

    assert OBJECTS == {
        path.relative_to(FOLDER.parent).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in found
    }


# --- as the program reads them -------------------------------------------------------------------------


def test_the_records_are_read() -> None:
    """Who it is, why its history began, who writes; and we would write the very same bytes."""
    repository = RepositoryRecord(REPOSITORY, "2025-01-28T01:59:00.000000Z")
    generation = GenerationRecord(G, REPOSITORY, 1, 1_738_029_600_000_000, "first run", 512, None)
    lease = LeaseRecord(
        1, "0123456789abcdef", "golden.example", 4711, "2025-01-28T01:59:00.000001Z", took_over=False
    )
    backup = FULL.rpartition("/")[2].removesuffix(".full")
    event = EventRecord(backup, "checksummed", 1_738_029_600_723_456, {"objects": 2})

    assert repository == decode_repository(golden("repository.json"), "name")
    assert generation == decode_generation(golden(f"generations/{G}.json"), f"generations/{G}.json")
    assert lease == decode_lease(golden("leases/00000001.json"), "name")
    assert golden("repository.json") == encode_record(repository)
    assert golden(f"generations/{G}.json") == encode_record(generation)
    assert golden("leases/00000001.json") == encode_record(lease)
    assert event == decode_event(golden(EVENT), EVENT)
    assert golden(EVENT) == encode_record(event)


FRAMES = (Frame(0, 8, 1058, 32768), Frame(0, 1066, 198, 4608))
TABLE = TableUse(Frame(0, 1264, 119, 118), "44ff3c04250e8bfd6c87cfac195a792a5812793e7f13537e0c32f56bedcc3f90")
MANIFEST = Manifest(
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
    hashes="sha256",
    chunks_new=3,
    plain_bytes=37376,
    stored_bytes=1415,
    packs=(PackUse(PACK, 1415),),
    tables=(TABLE,),
)


def test_the_manifest_and_its_pack_are_read() -> None:
    """Values, table, runs and the chunks themselves; and we would write the same manifest and the same table."""
    manifest = decode_manifest(golden(FULL), FULL)
    pack = golden(PACK)
    check_pack(pack, PACK)
    (table,) = read_tables(manifest, FolderStore(str(FOLDER)).get_range)
    plain = [decode_frame(each, pack[each.offset : each.offset + each.stored_bytes], PACK) for each in FRAMES]
    database = b"".join(plain)
    place = TABLE.frame

    assert MANIFEST == manifest
    assert [1, 2, 0] == [pack[frame.offset] for frame in (*FRAMES, place)]  # zstd, DEFLATE, none
    assert (Run(FRAMES[0], 0, 2), Run(FRAMES[1], 0, 1)) == table.runs
    assert [hashlib.sha256(database[i : i + 16384]).digest() for i in range(0, len(database), 16384)] == [
        table.hashes[i : i + 32] for i in range(0, 96, 32)
    ]
    assert DATABASES[0] == hashlib.sha256(database).hexdigest()
    assert golden(FULL) == encode_manifest(manifest)
    assert pack[place.offset + 1 : place.offset + place.stored_bytes] == encode_table(table)


SALT = Salt(3_536_720_001, 3_342_852_466)
HEADERS = [
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=1, txid_first=1,
        txid_last=2, part=0, last_part=False, rolling_known=True, clock_stepped=False,
        cursor=WalCursor(SALT, 12, WalChecksum(1_690_104_806, 528_080_158)),
        observed_first=1_738_029_610_123_456, observed_last=1_738_029_620_123_456,
        chain_before=bytes.fromhex("1585e61deaf32a5e"),
        entries_bytes=95, payload_bytes=190,
    ),
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=1, txid_first=3,
        txid_last=3, part=0, last_part=False, rolling_known=False, clock_stepped=True,
        cursor=WalCursor(SALT, 13, WalChecksum(391_595_543, 587_515_600)),
        observed_first=1_738_029_630_123_456, observed_last=1_738_029_630_123_456,
        chain_before=bytes.fromhex("d21dc4c75f7a5752"),
        entries_bytes=18, payload_bytes=80,
    ),
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=2, txid_first=4,
        txid_last=4, part=1, last_part=False, rolling_known=False, clock_stepped=False,
        cursor=WalCursor(SALT, 52, WalChecksum(1_911_736_437, 566_759_746)),
        observed_first=1_738_029_640_123_456, observed_last=1_738_029_640_123_456,
        chain_before=bytes.fromhex("e43d5f9e6a1a117c"),
        entries_bytes=111, payload_bytes=625,
    ),
    UnitHeader(
        generation=G, epoch=1, page_size=512, codec=0, txid_first=4,
        txid_last=4, part=2, last_part=True, rolling_known=True, clock_stepped=False,
        cursor=WalCursor(SALT, 52, WalChecksum(1_911_736_437, 566_759_746)),
        observed_first=1_738_029_640_123_456, observed_last=1_738_029_640_123_456,
        chain_before=bytes.fromhex("e391ac81eddd205c"),
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
    (19, frozenset(), 0xB2BF707B, 617),
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


def opened(**settings: str) -> Store:
    return unlocked(FolderStore(str(SEALED)), KeySource(settings))


@pytest.mark.parametrize("txid", sorted(DATABASES))
@pytest.mark.parametrize("encrypted", [False, True])
def test_the_repository_is_restored_at_every_txid(txid: int, encrypted: bool, tmp_path: Path) -> None:
    """What comes out is, byte by byte, the database SQLite had after that commit."""
    output = tmp_path / "restored.db"
    repository = read_repository(opened(**{KEY: OPERATOR_KEY}) if encrypted else FolderStore(str(FOLDER)))
    result = restore_chosen(
        repository, choose(repository, Target(txid=txid)), str(output), RestoreOptions(verify="full")
    )

    assert DATABASES[txid] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert (txid, txid) == (result.position.txid, result.transactions_applied)
    assert "integrity_check" in result.proved
    assert ("database checksum" in result.proved) == (txid != 3)  # there the agent could not follow it


def test_the_key_rings_are_opened() -> None:
    """By the key, the second by the passphrase, too; and by nothing else."""
    slots = {n: (SEALED / f"keys/0000000{n}.json").read_bytes() for n in (1, 2)}
    key, words = OperatorKey(bytes.fromhex(OPERATOR_KEY)), OperatorKey(WORDS.encode(), passphrase=True)

    assert RINGS == {number: unwrap(slot, "slot", [key]) for number, slot in slots.items()}
    assert RINGS[2] == unwrap(slots[2], "slot", [words])
    for slot, wrong in (
        (slots[1], words),
        (slots[1], OperatorKey(bytes(32))),
        (slots[2], OperatorKey(bytes(32))),
    ):
        with pytest.raises(KeyRefused):
            unwrap(slot, "slot", [wrong])


@pytest.mark.parametrize("settings", [{KEY: OPERATOR_KEY}, {PASSPHRASE: WORDS}], ids=["key", "passphrase"])
def test_what_is_sealed_is_the_same_repository(settings: dict[str, str]) -> None:
    """Object by object the plain one, under the same names, but for the hashes of chunks, which are keyed."""
    store = opened(**settings)
    listed = [each.name for each in store.list("")]
    names = [each.removeprefix("repository/") for each in OBJECTS if each.startswith("repository/")]
    for name in names:
        if name not in ("repository.json", FULL, PACK):
            assert golden(name) == store.get(name)
            assert golden(name)[100:160] == store.get_range(name, 100, 60)
    manifest = decode_manifest(store.get(FULL), FULL)
    (table,) = read_tables(manifest, store.get_range)
    chunks = golden_chunks()

    assert sorted([*names, "keys/00000001.json", "keys/00000002.json"]) == listed
    assert replace(MANIFEST, hashes="hmac-sha256:de9d0b5ac47f1e38", tables=manifest.tables) == manifest
    assert TABLE.frame == manifest.tables[0].frame
    assert b"".join(hmac.digest(RINGS[2].dedup.secret, chunk, "sha256") for chunk in chunks) == table.hashes
    assert golden(PACK)[8:1264] == store.get(PACK)[8:1264] == store.get_range(PACK, 8, 1256)


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
    assert [(0, 1, 0), (4 | 8, 1, 0), (1 | 4, 2, 1), (1 | 2, 0, 2)] == [
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


def golden_chunks() -> list[bytes]:
    """The database at txid 0 by the layout of its pack: the first frame by what SQLite has, the second by zlib."""
    pack = golden(PACK)
    assert pack[:8] == b"RPLPACK\x01"
    assert hashlib.sha256(PACK.encode() + b"\0" + pack[:-32]).digest() == pack[-32:]
    assert (1, 2, 0) == (pack[8], pack[1066], pack[1264])
    first = zstd.decompress(pack[9:1066])
    last = zlib.decompressobj(-15).decompress(pack[1067:1264])
    return [first[:16384], first[16384:], last]


def test_a_third_party_reads_the_full_backup() -> None:
    """The manifest's JSON says where the table lies, the table where the chunks do, and all add up to the file."""
    manifest, pack = golden(FULL), golden(PACK)
    magic, version, length = struct.unpack_from(">7sBI", manifest)
    said = json.loads(manifest[12 : 12 + length])
    ((number, offset, stored, plain, digest),) = said["tables"]
    table = pack[offset + 1 : offset + stored]
    (locators,) = struct.unpack_from(">I", table)
    runs, at = numbers(table, 4, 12)
    hashes = table[4 + locators :]
    chunks = golden_chunks()

    assert (b"RPLFULL", 1, len(manifest) - 12 - 32) == (magic, version, length)
    assert hashlib.sha256(FULL.encode() + b"\0" + manifest[:-32]).digest() == manifest[-32:]
    assert (said["packs"], number) == ([[PACK, len(pack)]], 0)
    assert (0, plain, digest) == (pack[offset], len(table), hashlib.sha256(table).hexdigest())
    assert at == 4 + locators
    assert [2, 0, 8, 1058, 32768, 0, 1, 0, 1066, 198, 4608, 0] == runs
    assert b"".join(hashlib.sha256(chunk).digest() for chunk in chunks) == hashes
    assert DATABASES[0] == hashlib.sha256(b"".join(chunks)).hexdigest()


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256: one block of the expansion."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\1", "sha256")


def third_party_unsealed(stored: str) -> bytes:
    data = (SEALED / stored).read_bytes()
    magic, version, kind, codec, log2, zero, size = struct.unpack_from(">7sBBBBBQ", data)
    key_id, zeros, salt = data[20:28], data[28:32], data[32:64]
    secret = next(root.secret for root in RINGS[2].roots if root.key_id == key_id.hex())
    cipher = AESGCM(hkdf(secret, salt, b"replicator object 1"))
    frames = max(1, -(-size // 2**log2))
    plain, at = b"", 64
    for number in range(frames):
        end = min(at + 2**log2 + 16, len(data) - 32)
        nonce = struct.pack(">3xBQ", number == frames - 1, number)
        plain += cipher.decrypt(nonce, data[at:end], data[:64] + stored.encode())
        at = end

    assert (b"RPLSEAL", 1, 0, 0, bytes(4), size) == (magic, version, codec, zero, zeros, len(plain))
    assert {".full": 2, ".pack": 3, ".segment": 4}.get(Path(stored).suffix, 1) == kind
    assert at == len(data) - 32
    assert hashlib.sha256(stored.encode() + b"\0" + data[:-32]).digest() == data[-32:]
    return plain


def test_a_third_party_opens_what_is_sealed() -> None:
    """A root, HKDF and AES-GCM are enough; frames are small or large, and a revision is sealed under its own name."""
    stored = [each.removeprefix("sealed/") for each in OBJECTS if each.startswith("sealed/")]
    frames: dict[str, int] = {}
    for name in stored:
        if name == "repository.json" or name.startswith("keys/"):
            continue
        plain = third_party_unsealed(name)
        called = name.replace(".r2.", ".")
        frames[called] = 2 ** (SEALED / name).read_bytes()[10]
        if called not in (FULL, PACK):
            assert golden(called) == plain

    assert {PACK: 256, PARTS[0]: 512, PARTS[1]: 4096} == {
        name: size for name, size in frames.items() if size != 65536
    }
    assert ["sealed"] == json.loads((SEALED / "repository.json").read_bytes())["features"]


def test_a_third_party_opens_a_key_slot() -> None:
    """HKDF over the operator's key, or over scrypt of the passphrase; bound to all that the slot says in public."""
    slot = json.loads((SEALED / "keys/00000002.json").read_bytes())
    public = {key: slot[key] for key in ("kind", "format", "number", "repository", "roots")}
    bound = json.dumps(public, sort_keys=True).encode()
    secrets = {
        "key": bytes.fromhex(OPERATOR_KEY),
        "passphrase": hashlib.scrypt(
            WORDS.encode(),
            salt=bytes.fromhex(slot["wraps"][1]["salt"]),
            n=65536,
            r=8,
            p=1,
            maxmem=1 << 27,
            dklen=32,
        ),
    }
    ring = {
        "roots": [[root.key_id, root.created, root.secret.hex()] for root in RINGS[2].roots],
        "dedup": [RINGS[2].dedup.key_id, RINGS[2].dedup.created, RINGS[2].dedup.secret.hex()],
    }

    assert ["key", "passphrase"] == [wrap["by"] for wrap in slot["wraps"]]
    for wrap in slot["wraps"]:
        under = hkdf(secrets[wrap["by"]], bytes.fromhex(wrap["salt"]), b"replicator key slot 1")
        opened = AESGCM(under).decrypt(bytes(12), bytes.fromhex(wrap["sealed"]), bound)
        assert ring == json.loads(opened)
    fingerprint = hmac.digest(secrets["key"], b"replicator key fingerprint", "sha256")[:4].hex()
    assert fingerprint == slot["wraps"][0]["fingerprint"]


def test_a_third_party_expands_a_deflated_unit() -> None:
    """Each page behind its length, against the version before it, which is that after txid 3."""
    (unit,) = third_party(golden(PARTS[0]))
    (pages, fresh), at = numbers(unit.payload, 0, 2)
    at += 4
    (length,), at = numbers(unit.payload, at, 1)
    _, _, _, _, pgnos, hashes, _ = unit.entries[0]
    before = state_after_three()
    contents = []
    for pgno in pgnos:
        (size,), at = numbers(unit.payload, at, 1)
        opener = zlib.decompressobj(-15, zdict=before[pgno])
        contents.append(opener.decompress(unit.payload[at : at + size]))
        at += size

    assert (19, 0, 617) == (pages, fresh, length)
    assert len(unit.payload) == at
    assert hashes == tuple(
        xxhash.xxh3_64_intdigest(content, seed=pgno) % 2**32
        for pgno, content in zip(pgnos, contents, strict=True)
    )


def state_after_three() -> dict[int, bytes]:
    """Pages of the database before the last commit: those of the pack, and the images of the two zstd blocks."""
    pages = dict(enumerate(pages_in(b"".join(golden_chunks())), 1))
    for unit in third_party(golden(SEGMENT)):
        (_, fresh), at = numbers(unit.payload, 0, 2)
        _, at = numbers(unit.payload, at, fresh)
        (_,), at = numbers(unit.payload, at + 4, 1)
        listed = [pgno for entry in unit.entries for pgno in entry[4]]
        prefix = b"" if fresh else b"".join(pages[pgno] for pgno in sorted(set(listed)) if pgno in pages)
        known = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
        images = pages_in(zstd.decompress(unit.payload[at:], zstd_dict=known))
        pages.update(zip(listed, images, strict=True))
        pages = {pgno: page for pgno, page in pages.items() if pgno <= unit.entries[-1][3]}
    return pages


def pages_in(content: bytes) -> list[bytes]:
    return [content[i : i + 512] for i in range(0, len(content), 512)]


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
