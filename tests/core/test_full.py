"""Full backups as bytes: manifests that read back, tables of chunks, packs, and what is refused."""

import contextlib
import hashlib
import json
import random
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.chunk_table import ChunkTable, Earlier
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.full import (
    CHUNK_BYTES,
    FRAME_CHUNKS,
    HASH_SIZE,
    HEAD_SIZE,
    Frame,
    Manifest,
    ManifestHead,
    PackBuilder,
    Run,
    build_runs,
    chunk_bytes_for,
    chunk_hash,
    compress_chunks,
    decode_manifest,
    encode_manifest,
    expand_frame,
)
from replicator.core.names import PackName
from replicator.core.position import GenerationId, Position
from tests.core.histories import GENERATION, REPOSITORY, START

NOISE = random.Random(4)


def head_of(pages: int = 41, page_size: int = 4096, packs: int = 2, **fields: Any) -> ManifestHead:
    generation = GenerationId(GENERATION)
    names = tuple(str(PackName(START, generation, 7, f"{number:016x}")) for number in range(packs))
    head = ManifestHead(
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
        packs=names,
        stored_bytes=5,
    )
    return replace(head, **fields)


def manifest_of(head: ManifestHead) -> Manifest:
    """Chunks in frames of up to sixteen, the odd frames in the second pack."""
    located: list[tuple[Frame, int]] = []
    for first in range(0, head.chunks, FRAME_CHUNKS):
        count = min(FRAME_CHUNKS, head.chunks - first)
        plain = sum(head.chunks_length(first + slot) for slot in range(count))
        number = first // FRAME_CHUNKS
        frame = Frame(number % len(head.packs), 8 + 300 * number, 200 + number, plain)
        located += [(frame, slot) for slot in range(count)]
    hashes = b"".join(hashlib.sha256(bytes([index & 0xFF])).digest() for index in range(head.chunks))
    return Manifest(head, hashes, build_runs(located))


MANIFEST = manifest_of(head_of())
NAME = str(MANIFEST.head.name)
BYTES = encode_manifest(MANIFEST)


# --- the manifest --------------------------------------------------------------------------------------


@given(
    page_size=st.sampled_from([512 << n for n in range(8)]),
    pages=st.integers(1, 3000),
    packs=st.integers(1, 4),
    txid=st.integers(0, 2**64 - 1),
    observed=st.integers(0, 253_402_300_799_999_999),
)
def test_a_manifest_reads_back(page_size: int, pages: int, packs: int, txid: int, observed: int) -> None:
    """Head, hashes and runs come out as they went in, for any page size, number of packs and time."""
    head = head_of(pages, page_size, packs, txid=txid, observed=observed)
    manifest = manifest_of(head)

    assert manifest == decode_manifest(encode_manifest(manifest), str(head.name))


def test_a_manifest_says_what_it_stands_for() -> None:
    """Position, size and number of chunks follow from the head; the last chunk may be short."""
    head = head_of(pages=41)

    assert Position(GenerationId(GENERATION), 7) == head.position
    assert 41 * 4096 == head.database_bytes
    assert 11 == head.chunks
    assert [CHUNK_BYTES] * 10 + [4096] == [head.chunks_length(index) for index in range(11)]
    assert f"full/2025/01/28/20250128T060000Z-{GENERATION}-0000000000000007.full" == NAME


@pytest.mark.parametrize(
    ("page_size", "chunk"), [(512, 16384), (4096, 16384), (16384, 16384), (32768, 32768), (65536, 65536)]
)
def test_a_chunk_is_whole_pages(page_size: int, chunk: int) -> None:
    """Chunks are 16 KiB, or one page where that is larger."""
    assert chunk == chunk_bytes_for(page_size)


def test_every_flipped_bit_of_a_manifest_is_noticed() -> None:
    """Each byte, changed, makes it ObjectCorrupt, or FormatTooNew where it is the version."""
    too_new = set()
    for offset in range(len(BYTES)):
        changed = BYTES[:offset] + bytes([BYTES[offset] ^ 1 << offset % 8]) + BYTES[offset + 1 :]
        with pytest.raises((ObjectCorrupt, FormatTooNew)) as caught:
            decode_manifest(changed, NAME)
        if caught.type is FormatTooNew:
            too_new.add(offset)

    assert {7} == too_new


def test_every_cut_of_a_manifest_is_noticed() -> None:
    """Cut off after any number of bytes it is ObjectCorrupt."""
    for length in range(len(BYTES)):
        with pytest.raises(ObjectCorrupt):
            decode_manifest(BYTES[:length], NAME)


def test_a_manifest_under_another_name_is_refused() -> None:
    """A manifest copied to the name of another backup is not that backup."""
    other = str(replace(MANIFEST.head, txid=8).name)

    with pytest.raises(ObjectCorrupt, match="not its own"):
        decode_manifest(BYTES, other)


def sealed(
    text: bytes, locators: bytes = b"", hashes: bytes = b"", *, lengths: tuple[int, int] | None = None
) -> bytes:
    text_bytes, locator_bytes = lengths or (len(text), len(locators))
    body = struct.pack(">7sBII", b"RPLFULL", 1, text_bytes, locator_bytes) + text + locators + hashes
    return body + hashlib.sha256(body).digest()


TEXT_BYTES, LOCATOR_BYTES = struct.unpack_from(">II", BYTES, 8)
TEXT = json.loads(BYTES[HEAD_SIZE : HEAD_SIZE + TEXT_BYTES])
LOCATORS = BYTES[HEAD_SIZE + TEXT_BYTES : HEAD_SIZE + TEXT_BYTES + LOCATOR_BYTES]


def forged(locators: bytes = LOCATORS, hashes: bytes = MANIFEST.hashes, **fields: Any) -> bytes:
    """The manifest with other values under a digest that fits them; None removes a key."""
    text = {key: value for key, value in (TEXT | fields).items() if value is not None}
    return sealed(json.dumps(text).encode(), locators, hashes)


def test_the_forger_of_these_tests_can_forge() -> None:
    """Unchanged, the forged manifest is the real one."""
    assert MANIFEST == decode_manifest(forged(), NAME)


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
        {"packs": ["full/../../etc/passwd"]},
        {"packs": [NAME]},
        {"packs": {"a": 1}},
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
        sealed(b"{}", lengths=(1 << 31, 0)),
        sealed(b"{}", lengths=(2, 1 << 31)),
        sealed(b"{}", lengths=(0xFFFFFFFF, 0xFFFFFFFF)),
        b"RPLPACK\x01" + BYTES[8:],
        b"",
    ],
    ids=range(11),
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    """Other JSON, lengths beyond the object, another kind of object: ObjectCorrupt."""
    with pytest.raises(ObjectCorrupt):
        decode_manifest(data, NAME)


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


FRAME_MAX = FRAME_CHUNKS * CHUNK_BYTES


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
        assert 11 == sum(run.count for run in decode_manifest(forged(locators), NAME).runs)
    else:
        with pytest.raises(ObjectCorrupt, match=fault):
            decode_manifest(forged(locators), NAME)


@pytest.mark.parametrize("hashes", [b"", MANIFEST.hashes[:-1], MANIFEST.hashes + bytes(32)])
def test_every_chunk_has_one_hash(hashes: bytes) -> None:
    """Fewer or more hashes than chunks are ObjectCorrupt."""
    with pytest.raises(ObjectCorrupt, match="bytes of hashes for 11 chunks"):
        decode_manifest(forged(hashes=hashes), NAME)


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
def test_any_json_in_a_head_is_read_or_refused(fields: dict[str, Any]) -> None:
    """Whatever stands in the head, it is ObjectCorrupt or a head of proper types."""
    with contextlib.suppress(ObjectCorrupt):
        head = decode_manifest(forged(**fields), NAME).head
        assert all(
            type(value) is int for value in (head.txid, head.pages, head.observed, head.created, head.epoch)
        )


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

    assert b"".join(digest(index) for index in range(5)) == table.hashes
    assert 0b11111 == table.checksum
    assert (Run(one, 0, 2), Run(two, 1, 1), Run(two, 0, 1), Run(one, 2, 1)) == table.runs()
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
    assert (Run(old, 0, 1), Run(new, 0, 1), Run(old, 2, 1)) == table.runs()


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
        assert b"".join(digest(index) for index in range(size)) == table.hashes


def test_an_earlier_full_is_searched_at_the_same_place() -> None:
    """A chunk is found where the earlier full has the same content at the same index, and nowhere else."""
    earlier = Earlier(MANIFEST)
    hashes = [MANIFEST.hashes[i * HASH_SIZE : (i + 1) * HASH_SIZE] for i in range(MANIFEST.head.chunks)]
    found = [earlier.find(index, each) for index, each in enumerate(hashes)]
    run = MANIFEST.runs[0]

    assert [(run.frame, slot) for slot in range(11)] == found
    assert MANIFEST.head.packs == earlier.packs
    assert earlier.find(1, hashes[0]) is None
    assert earlier.find(11, hashes[0]) is None
    assert earlier.find(1 << 31, b"") is None
    assert Earlier(None).find(0, hashes[0]) is None
    assert () == Earlier(None).packs


# --- packs ---------------------------------------------------------------------------------------------


def test_packs_hold_the_frames_that_were_added() -> None:
    """Each frame lies where it says, in the pack it says, and expands to its chunks."""
    builder = PackBuilder(first_pack=4)
    contents = [[NOISE.randbytes(CHUNK_BYTES), bytes(CHUNK_BYTES)], [b"last"], [NOISE.randbytes(100)]]
    frames = [builder.add(*compress_chunks(contents[0])), builder.add(*compress_chunks(contents[1]))]
    packs = {4: builder.take()}
    frames.append(builder.add(*compress_chunks(contents[2])))
    packs[5] = builder.take()

    assert [4, 4, 5] == [frame.pack for frame in frames]
    for frame, chunks in zip(frames, contents, strict=True):
        pack = packs[frame.pack]
        assert pack is not None
        assert pack.startswith(b"RPLPACK\x01")
        stored = pack[frame.offset : frame.offset + frame.stored_bytes]
        assert b"".join(chunks) == expand_frame(frame, stored, "the pack")


def test_an_empty_pack_is_none() -> None:
    """A builder that was given nothing has nothing to put, and no number is used up."""
    builder = PackBuilder(0)

    assert builder.take() is None
    assert builder.take() is None
    assert 0 == builder.add(b"x", 1).pack


def test_a_damaged_frame_names_its_pack_and_place() -> None:
    """Bytes that do not expand, or to another length, are ObjectCorrupt with the pack's name and the offset."""
    builder = PackBuilder(0)
    frame = builder.add(*compress_chunks([b"content" * 50]))
    pack = builder.take()
    assert pack is not None
    stored = pack[frame.offset :]
    changes: list[tuple[Frame, bytes]] = [
        (frame, stored[:-1]),
        (frame, b"\0" * len(stored)),
        (replace(frame, plain_bytes=frame.plain_bytes + 1), stored),
    ]

    for each, data in changes:
        with pytest.raises(ObjectCorrupt, match="pack-name is damaged at byte 8"):
            expand_frame(each, data, "pack-name")
