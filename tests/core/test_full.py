"""Full backups as bytes: manifests that read back, tables of chunks, packs, and what is refused."""

import contextlib
import hashlib
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import chunk_table
from replicator.core import manifest as manifest_module
from replicator.core.chunk_table import ChunkTable
from replicator.core.codec import Compression
from replicator.core.errors import FormatTooNew, ObjectCorrupt, ReplicatorError
from replicator.core.full import (
    CHUNK_BYTES,
    FRAME_CHUNKS,
    HASH_SIZE,
    SHA256,
    TABLE_CHUNKS,
    Manifest,
    Run,
    Table,
    build_runs,
    chunk_bytes_for,
    chunk_hash,
    decode_manifest,
    decode_table,
    encode_manifest,
    encode_table,
    read_tables,
)
from replicator.core.manifest import HEAD_SIZE, TableUse, read_table, table_digest
from replicator.core.names import PackName
from replicator.core.pack import Frame, PackUse, encode_frame
from replicator.core.position import GenerationId, Position
from replicator.core.sizes import largest
from tests.core.histories import GENERATION, REPOSITORY, START


def manifest_of(pages: int = 41, page_size: int = 4096, packs: int = 2, **fields: Any) -> Manifest:
    """With its tables at made-up places, the odd ones in the second pack."""
    generation = GenerationId(GENERATION)
    names = tuple(str(PackName(START, generation, 7, f"{number:016x}")) for number in range(packs))
    manifest = Manifest(
        repository=REPOSITORY.hex(),
        generation=generation,
        txid=7,
        epoch=3,
        page_size=page_size,
        pages=pages,
        chunk_bytes=chunk_bytes_for(page_size),
        observed=START + 123_456,
        created=START + 2_000_000,
        chain="ab" * 16,
        checksum="0123456789abcdef",
        rolling="fedcba9876543210",
        hashes=SHA256,
        chunks_new=4,
        plain_bytes=65_536,
        stored_bytes=5,
        packs=tuple(PackUse(name, 9_000 + number) for number, name in enumerate(names)),
        tables=(),
    )
    count = -(-manifest.chunks // TABLE_CHUNKS)
    tables = tuple(
        TableUse(Frame(number % packs, 8 + 500 * number, 200, 4 + 32 * manifest.chunks_of(number)), "cd" * 32)
        for number in range(count)
    )
    return replace(manifest, **{"tables": tables, **fields})


def table_of(manifest: Manifest, number: int = 0) -> Table:
    """Chunks in frames of up to sixteen, the odd frames in the second pack."""
    located: list[tuple[Frame, int]] = []
    chunks = manifest.chunks_of(number)
    for first in range(0, chunks, FRAME_CHUNKS):
        count = min(FRAME_CHUNKS, chunks - first)
        plain = manifest.chunks_length(number * TABLE_CHUNKS + first, count)
        index = first // FRAME_CHUNKS
        frame = Frame(index % len(manifest.packs), 8 + 300 * index, 200 + index, plain)
        located += [(frame, slot) for slot in range(count)]
    hashes = b"".join(hashlib.sha256(bytes([index & 0xFF])).digest() for index in range(chunks))
    return Table(hashes, build_runs(located))


MANIFEST = manifest_of()
NAME = str(MANIFEST.name)
BYTES = encode_manifest(MANIFEST)
TABLE = table_of(MANIFEST)


# --- the manifest --------------------------------------------------------------------------------------


@given(
    page_size=st.sampled_from([512 << n for n in range(8)]),
    pages=st.integers(1, 3000),
    packs=st.integers(1, 4),
    txid=st.integers(0, 2**64 - 1),
    observed=st.integers(0, 253_402_300_799_999_999),
)
def test_a_manifest_reads_back(page_size: int, pages: int, packs: int, txid: int, observed: int) -> None:
    """Every value comes out as it went in, for any page size, number of packs and time."""
    manifest = manifest_of(pages, page_size, packs, txid=txid, observed=observed)

    assert manifest == decode_manifest(encode_manifest(manifest), str(manifest.name))


def test_a_manifest_is_laid_out_as_the_format_says() -> None:
    """Magic, version, length, JSON, and the SHA-256 of its name, a zero byte and all before it."""
    magic, version, length = struct.unpack_from(">7sBI", BYTES)
    text = json.loads(BYTES[12:-32])

    assert (b"RPLFULL", 1, len(BYTES) - 12 - 32) == (magic, version, length)
    assert hashlib.sha256(NAME.encode() + b"\0" + BYTES[:-32]).digest() == BYTES[-32:]
    assert {
        "repository": REPOSITORY.hex(), "generation": GENERATION, "txid": 7, "epoch": 3, "page_size": 4096,
        "pages": 41, "chunk_bytes": 16384, "observed": START + 123_456, "created": START + 2_000_000,
        "chain": "ab" * 16, "checksum": "0123456789abcdef", "rolling": "fedcba9876543210", "hashes": "sha256",
        "chunks_new": 4, "plain_bytes": 65_536, "stored_bytes": 5, "kind": "replicator-full",
        "packs": [[pack.name, pack.size_bytes] for pack in MANIFEST.packs], "tables": [[0, 8, 200, 356, "cd" * 32]],
    } == text  # fmt: skip


def test_a_manifest_says_what_it_stands_for() -> None:
    """Position, size and number of chunks follow from its values; the last chunk may be short."""
    assert Position(GenerationId(GENERATION), 7) == MANIFEST.position
    assert 41 * 4096 == MANIFEST.database_bytes
    assert 11 == MANIFEST.chunks
    assert [CHUNK_BYTES] * 10 + [4096] == [MANIFEST.chunks_length(index) for index in range(11)]
    assert (3 * CHUNK_BYTES, 2 * CHUNK_BYTES + 4096) == tuple(MANIFEST.chunks_length(i, 3) for i in (0, 8))
    assert f"full/2025/01/28/20250128T060000Z-{GENERATION}-0000000000000007.full" == NAME


@pytest.mark.parametrize(
    ("page_size", "chunk"), [(512, 16384), (4096, 16384), (16384, 16384), (32768, 32768), (65536, 65536)]
)
def test_a_chunk_is_whole_pages(page_size: int, chunk: int) -> None:
    """Chunks are 16 KiB, or one page where that is larger."""
    assert chunk == chunk_bytes_for(page_size)


@pytest.mark.parametrize(
    ("pages", "chunks"),
    [
        (1, [1]),
        (65_536 * 4 - 1, [65_536]),
        (65_536 * 4, [65_536]),
        (65_536 * 4 + 1, [65_536, 1]),
        (3 * 65_536 * 4 - 4, [65_536, 65_536, 65_535]),
    ],
)
def test_a_table_is_about_65536_chunks(pages: int, chunks: list[int]) -> None:
    """Every table but the last; and a manifest has as many as it takes, or is refused."""
    manifest = manifest_of(pages)

    assert chunks == [manifest.chunks_of(number) for number in range(len(manifest.tables))]
    assert sum(chunks) == manifest.chunks
    for tables in (manifest.tables[:-1], (*manifest.tables, manifest.tables[0])):
        with pytest.raises(ObjectCorrupt, match="never written"):
            decode_manifest(encode_manifest(replace(manifest, tables=tables)), str(manifest.name))


def test_every_flipped_bit_of_a_manifest_is_noticed() -> None:
    """Each bit, inverted, makes it ObjectCorrupt, also in the version: a later format has its digest, too."""
    for offset, bit in ((offset, bit) for offset in range(len(BYTES)) for bit in range(8)):
        changed = BYTES[:offset] + bytes([BYTES[offset] ^ 1 << bit]) + BYTES[offset + 1 :]
        with pytest.raises(ObjectCorrupt):
            decode_manifest(changed, NAME)


def test_a_manifest_of_a_later_format_is_refused_by_name() -> None:
    """Never guessed at."""
    body = BYTES[:7] + b"\2" + BYTES[8:-32]
    later = body + hashlib.sha256(NAME.encode() + b"\0" + body).digest()
    with pytest.raises(FormatTooNew, match=r"\.full is of format 2"):
        decode_manifest(later, NAME)


def test_every_cut_of_a_manifest_is_noticed() -> None:
    """Cut off after any number of bytes it is ObjectCorrupt."""
    for length in range(len(BYTES)):
        with pytest.raises(ObjectCorrupt):
            decode_manifest(BYTES[:length], NAME)


def test_a_manifest_under_another_name_is_refused() -> None:
    """A manifest copied to the name of another backup is not that backup, whoever made it fit its digest."""
    other = str(replace(MANIFEST, txid=8).name)
    with pytest.raises(ObjectCorrupt, match="digest"):
        decode_manifest(BYTES, other)
    with pytest.raises(ObjectCorrupt, match="not its own"):
        decode_manifest(sealed(BYTES[HEAD_SIZE:-32], name=other), other)


def sealed(text: bytes, *, length: int | None = None, name: str = NAME) -> bytes:
    body = struct.pack(">7sBI", b"RPLFULL", 1, len(text) if length is None else length) + text
    return body + hashlib.sha256(name.encode() + b"\0" + body).digest()


TEXT = json.loads(BYTES[HEAD_SIZE:-32])
PACKS, TABLES = TEXT["packs"], TEXT["tables"]
HEX = "cd" * 32


def forged(**fields: Any) -> bytes:
    """The manifest with other values under a digest that fits them; None removes a key."""
    text = {key: value for key, value in (TEXT | fields).items() if value is not None}
    return sealed(json.dumps(text).encode())


def test_the_forger_of_these_tests_can_forge() -> None:
    """Unchanged, the forged manifest is the real one; so it is with other values that could be written."""
    keyed = "hmac-sha256:0123456789abcdef"

    assert MANIFEST == decode_manifest(forged(), NAME)
    assert replace(MANIFEST, hashes=keyed) == decode_manifest(forged(hashes=keyed), NAME)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "replicator-incremental"},
        {"page_size": 4095},
        {"page_size": 256},
        {"page_size": 131_072},
        {"page_size": 0},
        {"page_size": -4096},
        {"page_size": "4096"},
        {"page_size": 4096.0},
        {"pages": 0},
        {"pages": -1},
        {"pages": 0xFFFFFFFF},
        {"pages": 41.0},
        {"pages": True},
        {"pages": [41]},
        {"chunk_bytes": 0},
        {"chunk_bytes": 1 << 40},
        {"chunk_bytes": -16384},
        {"chunk_bytes": 16_385},
        {"chunk_bytes": 16_384.0},
        {"txid": -1},
        {"txid": 1 << 64},
        {"txid": 7.0},
        {"txid": "7"},
        {"observed": -1},
        {"observed": 1 << 70},
        {"observed": 1e300},
        {"observed": "now"},
        {"observed": START + 0.5},
        {"created": "yesterday"},
        {"created": 1.5},
        {"stored_bytes": "5"},
        {"epoch": "3"},
        {"epoch": None},
        {"checksum": "0123"},
        {"checksum": "x" * 16},
        {"checksum": 1},
        {"rolling": "fedcba98765432100"},
        {"rolling": None},
        {"rolling": "fe dc ba 98 76 54 32 10"},
        {"chain": "ab" * 15},
        {"chain": "ab" * 32},
        {"chain": None},
        {"packs": None},
        {"packs": "none"},
        {"packs": []},
        {"packs": [PACKS[0][0], PACKS[1][0]]},
        {"packs": [["full/../../etc/passwd", 9_000], PACKS[1]]},
        {"packs": [[NAME, 9_000], PACKS[1]]},
        {"packs": [[5, 9_000], PACKS[1]]},
        {"packs": [[*PACKS[0], 1], PACKS[1]]},
        {"packs": [[PACKS[0][0]], PACKS[1]]},
        {"packs": [[PACKS[0][0], "9000"], PACKS[1]]},
        {"packs": [[PACKS[0][0], True], PACKS[1]]},
        {"packs": [[PACKS[0][0], None], PACKS[1]]},
        {"packs": [[PACKS[0][0], 0], PACKS[1]]},
        {"packs": [[PACKS[0][0], -1], PACKS[1]]},
        {"packs": [[PACKS[0][0], 1 << 70], PACKS[1]]},
        {"packs": {"a": 1}},
        {"tables": None},
        {"tables": []},
        {"tables": TABLES * 2},
        {"tables": "none"},
        {"tables": [5]},
        {"tables": [[0, 8, 200]]},
        {"tables": [[0, 8, 200, 300]]},
        {"tables": [[0, 8, 200, 300, HEX, 5]]},
        {"tables": [[0, 8, 200, 300, 5]]},
        {"tables": [[0, 8, 200, 300, None]]},
        {"tables": [[0, 8, 200, 300, HEX[:-1]]]},
        {"tables": [[0, 8, 200, 300, HEX.upper()]]},
        {"tables": [[0, 8, 200, 300, HEX + "\n"]]},
        {"tables": [[2, 8, 200, 300, HEX]]},
        {"tables": [[-1, 8, 200, 300, HEX]]},
        {"tables": [[0, -8, 200, 300, HEX]]},
        {"tables": [[0, 1 << 70, 200, 300, HEX]]},
        {"tables": [[0, 8, 0, 300, HEX]]},
        {"tables": [[0, 8, -200, 300, HEX]]},
        {"tables": [[0, 8, 1 << 40, 300, HEX]]},
        {"tables": [[0, 8, 200, -300, HEX]]},
        {"tables": [[0, 8, 200, 1 << 40, HEX]]},
        {"tables": [[0, 8, 200, 4 + 11 * (32 + 60) + 1, HEX]]},
        {"tables": [[0, 8.0, 200, 300, HEX]]},
        {"tables": [[0, "8", 200, 300, HEX]]},
        {"tables": [[False, 8, 200, 300, HEX]]},
        {"hashes": None},
        {"hashes": 256},
        {"hashes": "md5"},
        {"hashes": "sha256:0123456789abcdef"},
        {"hashes": "hmac-sha256"},
        {"hashes": "hmac-sha256:"},
        {"hashes": "hmac-sha256:0123456789ABCDEF"},
        {"hashes": "hmac-sha256:0123456789abcdef0"},
        {"hashes": "sha256\n"},
        {"chunks_new": "4"},
        {"chunks_new": None},
        {"plain_bytes": 1.5},
        {"plain_bytes": None},
        {"generation": "../" + GENERATION},
        {"generation": 5},
        {"repository": 7},
        {"repository": "ab" * 15},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_head_that_is_never_written_is_refused(fields: dict[str, Any]) -> None:
    """Every field has its type and bounds, though the digest is right: ObjectCorrupt, nothing else."""
    with pytest.raises(ObjectCorrupt):
        decode_manifest(forged(**fields), NAME)


@pytest.mark.parametrize(
    "data",
    [
        sealed(b"[]"),
        sealed(b"{"),
        sealed(b"\xff\xfe"),
        sealed(b"[" * 100_000),
        sealed(b"5"),
        sealed(b"{}"),
        sealed(b"{}", length=1 << 31),
        sealed(b"{}", length=0xFFFFFFFF),
        sealed(BYTES[HEAD_SIZE:-32], length=len(BYTES) - HEAD_SIZE - 33),
        sealed(BYTES[HEAD_SIZE:-32] + b" ", length=len(BYTES) - HEAD_SIZE - 32),
        sealed(b""),
        b"RPLPACK\x01" + BYTES[8:],
        b"",
    ],
    ids=range(13),
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    """Other JSON, lengths beyond the object, another kind of object: ObjectCorrupt."""
    with pytest.raises(ObjectCorrupt):
        decode_manifest(data, NAME)


@given(
    st.dictionaries(
        st.sampled_from(sorted(TEXT)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_any_json_in_a_manifest_is_read_or_refused(fields: dict[str, Any]) -> None:
    """Whatever stands in it, it is ObjectCorrupt or a manifest of proper types."""
    with contextlib.suppress(ObjectCorrupt):
        found = decode_manifest(forged(**fields), NAME)
        assert all(
            type(value) is int
            for value in (found.txid, found.pages, found.observed, found.created, found.epoch)
        )


def test_a_manifest_larger_than_readers_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor read; by its name not even fetched."""
    monkeypatch.setattr(manifest_module, "MANIFEST_BYTES_MAX", len(BYTES))
    assert BYTES == encode_manifest(MANIFEST)
    assert MANIFEST == decode_manifest(BYTES, NAME)
    monkeypatch.setattr(manifest_module, "MANIFEST_BYTES_MAX", len(BYTES) - 1)
    with pytest.raises(ReplicatorError, match=r"would have \d+ bytes, and readers take \d+: .* 2 packs"):
        encode_manifest(MANIFEST)
    with pytest.raises(ObjectCorrupt):
        decode_manifest(BYTES, NAME)


def test_five_terabytes_fit_into_a_manifest() -> None:
    """By what a pack of 8 MiB costs in it; and no reader is asked for more than 64 MiB of somebody else's JSON."""
    more = encode_manifest(replace(MANIFEST, packs=(*MANIFEST.packs, *[MANIFEST.packs[0]] * 1000)))
    packs = manifest_module.MANIFEST_BYTES_MAX // ((len(more) - len(BYTES)) / 1000)

    assert packs * 8 * 2**20 > 4.5 * 10**12
    assert 64 << 20 == manifest_module.MANIFEST_BYTES_MAX < largest(NAME) < 65 << 20


# --- tables --------------------------------------------------------------------------------------------


@given(
    page_size=st.sampled_from([512 << n for n in range(8)]),
    pages=st.integers(1, 3000),
    packs=st.integers(1, 4),
)
def test_a_table_reads_back(page_size: int, pages: int, packs: int) -> None:
    """Hashes and runs come out as they went in."""
    manifest = manifest_of(pages, page_size, packs)
    table = table_of(manifest)

    assert table == decode_table(encode_table(table), manifest, 0)


def test_a_table_is_laid_out_as_the_format_says() -> None:
    """Length of the locators, six varints a run, 32 bytes of hash a chunk."""
    locators = runs_bytes((11, 0, 8, 200, 10 * CHUNK_BYTES + 4096, 0))

    assert struct.pack(">I", len(locators)) + locators + TABLE.hashes == encode_table(TABLE)


def test_tables_are_fetched_one_by_one_when_they_are_asked_for() -> None:
    """Of a database of 65,537 chunks there are two, each read from its place when it is its turn."""
    manifest = manifest_of(pages=65_536 * 4 + 1)
    tables = [table_of(manifest, number) for number in (0, 1)]
    frames = [encode_frame(encode_table(table), Compression()) for table in tables]
    placed = tuple(
        TableUse(
            Frame(number, 8 + number, len(frame), len(encode_table(table))),
            hashlib.sha256(encode_table(table)).hexdigest(),
        )
        for number, (frame, table) in enumerate(zip(frames, tables, strict=True))
    )
    manifest = replace(manifest, tables=placed)
    asked: list[tuple[str, int, int]] = []

    def get_range(name: str, offset: int, length: int) -> bytes:
        asked.append((name, offset, length))
        return frames[len(asked) - 1]

    found = read_tables(manifest, get_range)
    first = next(found)
    before = list(asked)

    assert manifest == decode_manifest(encode_manifest(manifest), NAME)
    assert tables == [first, *found]
    assert [(manifest.packs[0].name, 8, len(frames[0]))] == before
    assert [*before, (manifest.packs[1].name, 9, len(frames[1]))] == asked


def test_a_table_with_another_hash_is_damaged() -> None:
    """One that expands, and reads well, and is not the one that the manifest was made with: its pack is named."""
    other = encode_table(replace(TABLE, hashes=bytes([TABLE.hashes[0] ^ 1]) + TABLE.hashes[1:]))
    stored = encode_frame(other, Compression())
    use = TableUse(Frame(1, 8, len(stored), len(other)), table_digest(encode_table(TABLE)))
    manifest = replace(MANIFEST, tables=(use,))

    pattern = rf"{MANIFEST.packs[1].name} is damaged: table 0 of {NAME} at byte 8 has another hash"
    with pytest.raises(ObjectCorrupt, match=pattern) as caught:
        read_table(manifest, 0, lambda *_: stored)
    assert MANIFEST.packs[1].name == caught.value.name


def runs_bytes(*runs: tuple[int, int, int, int, int, int]) -> bytes:
    """(count, pack, offset, stored, plain, first) as varints, by hand."""
    out = bytearray()
    for run in runs:
        for number in run:
            value = number
            while value > 0x7F:
                out.append(value & 0x7F | 0x80)
                value >>= 7
            out.append(value)
    return bytes(out)


def table_bytes(locators: bytes, hashes: bytes = TABLE.hashes) -> bytes:
    return struct.pack(">I", len(locators)) + locators + hashes


FRAME_MAX = FRAME_CHUNKS * CHUNK_BYTES
ONE_RUN = runs_bytes((11, 0, 8, 200, 11 * CHUNK_BYTES, 0))


@pytest.mark.parametrize(
    ("locators", "fault"),
    [
        (runs_bytes((11, 0, 8, 200, 11 * CHUNK_BYTES, 0)), None),
        (runs_bytes((5, 0, 8, 200, FRAME_MAX, 0), (6, 1, 8, 200, FRAME_MAX, 10)), None),
        (b"", "locates 0 of 11"),
        (runs_bytes((10, 0, 8, 200, FRAME_MAX, 0)), "locates 10 of 11"),
        (runs_bytes((12, 0, 8, 200, FRAME_MAX, 0)), "above its bound 11"),
        (runs_bytes((11, 0, 8, 200, FRAME_MAX, 0), (1, 0, 8, 200, FRAME_MAX, 0)), "above its bound 0"),
        (runs_bytes((0, 0, 8, 200, FRAME_MAX, 0), (11, 0, 8, 200, FRAME_MAX, 0)), "never written"),
        (runs_bytes((11, 2, 8, 200, FRAME_MAX, 0)), "above its bound 1"),
        (runs_bytes((11, 0, (1 << 48) + 1, 200, FRAME_MAX, 0)), "above its bound"),
        (runs_bytes((11, 0, 8, 3 * FRAME_MAX, FRAME_MAX, 0)), "above its bound"),
        (runs_bytes((11, 0, 8, 200, FRAME_MAX + 1, 0)), "above its bound"),
        (runs_bytes((11, 0, 8, 200, 0, 0)), "never written"),
        (runs_bytes((11, 0, 8, 200, CHUNK_BYTES, 1)), "never written"),
        (runs_bytes((11, 0, 8, 200, FRAME_MAX, FRAME_CHUNKS + 1)), "above its bound"),
        (runs_bytes((11, 0, 8, 200, FRAME_MAX, 0))[:-1], "past the end"),
    ],
)
def test_a_chunk_table_is_bounded(locators: bytes, fault: str | None) -> None:
    """Runs cover all chunks once, in packs that are named, in frames no larger than we write them."""
    if fault is None:
        assert 11 == sum(run.count for run in decode_table(table_bytes(locators), MANIFEST, 0).runs)
    else:
        with pytest.raises(ObjectCorrupt, match=fault):
            decode_table(table_bytes(locators), MANIFEST, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        table_bytes(ONE_RUN, b""),
        table_bytes(ONE_RUN, TABLE.hashes[:-1]),
        table_bytes(ONE_RUN, TABLE.hashes + bytes(HASH_SIZE)),
        struct.pack(">I", 0xFFFFFFFF) + ONE_RUN + TABLE.hashes,
        struct.pack(">I", len(ONE_RUN) + HASH_SIZE) + ONE_RUN + TABLE.hashes,
    ],
    ids=range(7),
)
def test_every_chunk_has_one_hash(data: bytes) -> None:
    """Fewer or more hashes than chunks, or none at all, are ObjectCorrupt."""
    with pytest.raises(ObjectCorrupt, match=f"table 0 of {NAME} (is cut off|does not hold a hash)"):
        decode_table(data, MANIFEST, 0)


def test_a_table_without_packs_locates_nothing() -> None:
    """Where no pack is named, no run can point into one."""
    with pytest.raises(ObjectCorrupt, match="never written"):
        decode_table(encode_table(TABLE), replace(MANIFEST, packs=()), 0)


def test_a_chunk_has_the_hash_that_the_manifest_names() -> None:
    """SHA-256 of its plain bytes, or HMAC-SHA-256 of them under the key of the repository."""
    content, key = b"a chunk", bytes(range(32))

    assert hashlib.sha256(content).digest() == chunk_hash(content) == chunk_hash(memoryview(content))
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key.ljust(64, b"\0")) + content).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in key.ljust(64, b"\0")) + inner).digest()
    assert outer == chunk_hash(content, key)


# --- chunk tables --------------------------------------------------------------------------------------


def digest(index: int) -> bytes:
    return chunk_hash(index.to_bytes(4, "big"))


def test_a_chunk_table_knows_what_it_was_told() -> None:
    """Hashes in order, the sum of checksums, runs of neighbours, and the packs in use."""
    table = ChunkTable(5)
    for index in range(5):
        table.describe(index, digest(index), 1 << index)
    one, two = Frame(0, 8, 100, 3 * CHUNK_BYTES), Frame(3, 8, 90, 2 * CHUNK_BYTES)
    table.locate([0, 1, 4], one)
    table.locate([2], two, first=1)
    table.locate([3], two, first=0)

    (found,) = table.tables()

    assert b"".join(digest(index) for index in range(5)) == found.hashes
    assert 0b11111 == table.checksum
    assert (Run(one, 0, 2), Run(two, 1, 1), Run(two, 0, 1), Run(one, 2, 1)) == found.runs
    assert {0, 3} == table.packs_used()
    assert [] == table.missing()


def test_a_forgotten_chunk_is_missing_and_sums_to_nothing() -> None:
    """What was read too early leaves no trace; read again, it counts once."""
    table = ChunkTable(3)
    old, new = Frame(0, 8, 100, CHUNK_BYTES), Frame(1, 8, 100, CHUNK_BYTES)
    for index in range(3):
        table.describe(index, digest(index), 8)
        table.locate([index], old, first=index)
    table.forget(1)
    between = (table.missing(), table.checksum)
    table.describe(1, digest(9), 3)
    table.locate([1], new)

    assert ([1], 8 ^ 8) == between
    assert 8 ^ 3 ^ 8 == table.checksum
    assert [(Run(old, 0, 1), Run(new, 0, 1), Run(old, 2, 1))] == [each.runs for each in table.tables()]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_a_resized_table_keeps_what_is_left_and_misses_what_is_new(sizes: list[int]) -> None:
    """Growing adds chunks that are missing, shrinking drops the last ones with their sums, in any order."""
    table = ChunkTable(0)
    frame = Frame(0, 8, 1, FRAME_MAX)
    held: dict[int, int] = {}
    for turn, size in enumerate(sizes):
        table.resize(size)
        held = {index: value for index, value in held.items() if index < size}
        assert [index for index in range(size) if index not in held] == table.missing()
        for index in table.missing():
            held[index] = 1 + turn * 100 + index
            table.describe(index, digest(index), held[index])
            table.locate([index], frame, first=index % FRAME_CHUNKS)
        total = 0
        for value in held.values():
            total ^= value

        assert total == table.checksum
        assert size == len(table)
        assert b"".join(digest(index) for index in range(size)) == b"".join(t.hashes for t in table.tables())


def test_a_chunk_table_is_told_in_parts() -> None:
    """So many chunks a table, the last one with the rest; a frame may be in two of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_table, "TABLE_CHUNKS", 4)
        table = ChunkTable(9)
        for index in range(9):
            table.describe(index, digest(index), 0)
        frames = [Frame(0, 8, 100, 6 * CHUNK_BYTES), Frame(0, 108, 50, 3 * CHUNK_BYTES)]
        table.locate(list(range(6)), frames[0])
        table.locate([6, 7, 8], frames[1])
        found = list(table.tables())
        none = list(ChunkTable(0).tables())

    assert [] == none
    assert [
        (Run(frames[0], 0, 4),),
        (Run(frames[0], 4, 2), Run(frames[1], 0, 2)),
        (Run(frames[1], 2, 1),),
    ] == [each.runs for each in found]
    assert [b"".join(map(digest, part)) for part in (range(4), range(4, 8), [8])] == [
        each.hashes for each in found
    ]


def test_packs_are_numbered_anew_where_some_are_left_out() -> None:
    """Frames of packs that are kept get their new number; what was forgotten may point anywhere."""
    table = ChunkTable(3)
    frames = [Frame(number, 8, 100, CHUNK_BYTES) for number in (2, 5, 7)]
    for index, frame in enumerate(frames):
        table.describe(index, digest(index), 0)
        table.locate([index], frame)
    table.forget(1)
    table.locate([1], replace(frames[2], offset=108))
    table.renumber({2: 0, 7: 1})
    (found,) = table.tables()

    assert {0, 1} == table.packs_used()
    assert [(0, 8), (1, 108), (1, 8)] == [(run.frame.pack, run.frame.offset) for run in found.runs]
