"""Codecs: what was compressed comes out, and nothing else does, however little it claims to be."""

import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import zstd
from replicator.core.codec import (
    CODEC_DEFLATE,
    CODEC_NONE,
    CODEC_ZSTD,
    CODECS,
    DEFAULT,
    DICTIONARY_BYTES_MAX,
    Compression,
    compress,
    deflate,
    expand,
    inflate,
    parse_compression,
)
from replicator.core.errors import ObjectCorrupt, UsageError

NOISE = random.Random(8)
EVERY = [Compression(CODEC_NONE, 0)]
EVERY += [Compression(CODEC_ZSTD, level) for level in (3, 9, 19)]
EVERY += [Compression(CODEC_DEFLATE, level) for level in (1, 6, 9)]
EACH = pytest.mark.parametrize("compression", EVERY, ids=str)


# --- round trips ---------------------------------------------------------------------------------------


@EACH
@given(content=st.binary(max_size=2_000))
def test_what_was_compressed_comes_out(compression: Compression, content: bytes) -> None:
    """With any codec at any level, also nothing at all."""
    assert content == expand(compression.codec, compress(content, compression), len(content))


@EACH
@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 262_144, 1_000_003])
def test_any_size_comes_out(compression: Compression, size: int) -> None:
    """Of noise and of nothing but zeros; zeros get small, and noise does not grow by much."""
    noise = NOISE.randbytes(size)
    for content in (noise, bytes(size)):
        stored = compress(content, compression)
        assert content == expand(compression.codec, stored, size)
        assert len(stored) <= size + size // 1_000 + 64
    if compression.codec != CODEC_NONE and size > 10_000:
        assert len(compress(bytes(size), compression)) < size // 100 + 64


def test_s80_levels_are_used() -> None:
    """A higher one stores less of what can be packed."""
    words = b" ".join(str(NOISE.randrange(2_000)).encode() for _ in range(30_000))

    for low, high in ((EVERY[1], EVERY[3]), (EVERY[4], EVERY[6])):
        assert len(compress(words, high)) < len(compress(words, low)) * 0.98


def test_s26_the_bytes_are_those_of_the_codecs() -> None:
    """zstd frames that carry their length, raw DEFLATE without header or checksum, or the content itself."""
    content = b"content " * 50

    assert content == compress(content, EVERY[0])
    assert zstd.zstd.get_frame_info(compress(content, DEFAULT)).decompressed_size == len(content)
    opener = zlib.decompressobj(-15)
    assert content == opener.decompress(compress(content, EVERY[5]))
    assert opener.eof


@given(content=st.binary(max_size=500), known=st.binary(max_size=500), level=st.integers(1, 9))
def test_deflate_takes_a_dictionary(content: bytes, known: bytes, level: int) -> None:
    """What was packed against it comes out against it; the same twice costs next to nothing."""
    assert content == inflate(deflate(content, level, known), len(content), known)
    assert len(deflate(known, level, known)) <= 8 + len(known) // 20


def test_of_a_dictionary_the_last_32_kib_count() -> None:
    """All that DEFLATE can point back: what is before does not matter on either side."""
    known = NOISE.randbytes(100_000)
    content = known[-20_000:-19_700]
    stored = deflate(content, 6, known)

    assert DICTIONARY_BYTES_MAX == 32_768
    assert len(stored) < 20
    assert stored == deflate(content, 6, known[-32_768:])
    assert content == inflate(stored, 300, NOISE.randbytes(50) + known[-32_768:])
    assert len(deflate(known[:300], 6, known)) > 300


# --- what is not what it should be ---------------------------------------------------------------------


@EACH
def test_every_other_length_is_refused(compression: Compression) -> None:
    """One byte more or less than is wanted, or nothing at all: ObjectCorrupt."""
    content = NOISE.randbytes(200) + bytes(200)
    stored = compress(content, compression)
    for length in (0, 1, 399, 401, 1 << 30):
        with pytest.raises(ObjectCorrupt):
            expand(compression.codec, stored, length)


@EACH
def test_every_cut_and_every_byte_behind_is_refused(compression: Compression) -> None:
    """What is stored ends where its codec says; a second frame behind it is no part of it."""
    content = NOISE.randbytes(40) + bytes(400)
    stored = compress(content, compression)
    for length in range(len(stored)):
        with pytest.raises(ObjectCorrupt):
            expand(compression.codec, stored[:length], len(content))
    for behind in (b"\0", b"more", stored, compress(b"", compression)):
        if behind:
            with pytest.raises(ObjectCorrupt):
                expand(compression.codec, stored + behind, len(content))


@EACH
@given(stored=st.binary(max_size=200), length=st.integers(0, 1_000))
def test_foreign_bytes_are_refused_or_as_long_as_wanted(
    compression: Compression, stored: bytes, length: int
) -> None:
    """Whatever is in there, nothing but ObjectCorrupt is raised."""
    try:
        content = expand(compression.codec, stored, length)
    except ObjectCorrupt:
        return

    assert length == len(content)


@pytest.mark.parametrize("codec", [CODEC_ZSTD, CODEC_DEFLATE])
def test_one_codec_does_not_read_the_other(codec: int) -> None:
    """The number beside the bytes has to be the right one."""
    stored = compress(b"content " * 50, next(each for each in EVERY if each.codec not in (codec, CODEC_NONE)))

    with pytest.raises(ObjectCorrupt):
        expand(codec, stored, 400)


# --- bombs ---------------------------------------------------------------------------------------------

BOMB_BYTES = 256 << 20


def deflate_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(BOMB_BYTES >> 20)), packer.flush()])


def zstd_bomb(*, declared: bool) -> bytes:
    packer = zstd.zstd.ZstdCompressor(level=3)
    if declared:
        packer.set_pledged_input_size(BOMB_BYTES)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(BOMB_BYTES >> 20)), packer.flush()])


def lying_zstd_bomb() -> bytes:
    """Declares 1,000 bytes in the four that hold the length, and goes on for as long as the others."""
    bomb = bytearray(zstd_bomb(declared=True))
    assert bomb[4] & 0xC0 == 0x80  # a length of four bytes
    place = 5 if bomb[4] & 0x20 else 6  # behind the window, where there is one
    assert BOMB_BYTES == int.from_bytes(bomb[place : place + 4], "little")
    bomb[place : place + 4] = (1_000).to_bytes(4, "little")
    return bytes(bomb)


@pytest.mark.parametrize(
    ("codec", "make"),
    [
        (CODEC_DEFLATE, deflate_bomb),
        (CODEC_ZSTD, lambda: zstd_bomb(declared=False)),
        (CODEC_ZSTD, lambda: zstd_bomb(declared=True)),
        (CODEC_ZSTD, lying_zstd_bomb),
    ],
    ids=["deflate", "zstd", "zstd that says so", "zstd that lies"],
)
def test_a_bomb_that_claims_little_costs_little(codec: int, make: Callable[[], bytes]) -> None:
    """A quarter of a gigabyte behind some kilobytes, in the place of a thousand bytes: refused, and never expanded."""
    bomb = make()
    tracemalloc.start()
    try:
        with pytest.raises(ObjectCorrupt):
            expand(codec, bomb, 1_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(bomb) < 1 << 20
    assert peak < 1 << 20


def test_a_frame_without_a_declared_size_is_read_where_it_is_right() -> None:
    """Other writers may stream: what counts is what comes out."""
    packer = zstd.zstd.ZstdCompressor(level=3)
    stored = packer.compress(b"content " * 10) + packer.flush()

    assert zstd.zstd.get_frame_info(stored).decompressed_size is None
    assert b"content " * 10 == expand(CODEC_ZSTD, stored, 80)
    for length in (0, 79, 81):
        with pytest.raises(ObjectCorrupt):
            expand(CODEC_ZSTD, stored, length)


def test_a_frame_without_its_end_is_refused_though_all_its_content_is_there() -> None:
    """The checksum that other writers put behind it is missing, in part or as a whole."""
    checksummed = zstd.zstd.ZstdCompressor(options={zstd.zstd.CompressionParameter.checksum_flag: 1})
    stored = checksummed.compress(b"content " * 10) + checksummed.flush()

    assert b"content " * 10 == expand(CODEC_ZSTD, stored, 80)
    for cut in (1, 2, 3, 4):
        with pytest.raises(ObjectCorrupt):
            expand(CODEC_ZSTD, stored[:-cut], 80)


# --- what people write ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "compression", "shown"),
    [
        ("zstd", Compression(CODEC_ZSTD, 3), "zstd"),
        ("true", Compression(CODEC_ZSTD, 3), "zstd"),
        (" ZSTD ", Compression(CODEC_ZSTD, 3), "zstd"),
        ("zstd:3", Compression(CODEC_ZSTD, 3), "zstd"),
        ("zstd:19", Compression(CODEC_ZSTD, 19), "zstd:19"),
        ("gzip", Compression(CODEC_DEFLATE, 6), "gzip"),
        ("Gzip:1", Compression(CODEC_DEFLATE, 1), "gzip:1"),
        ("gzip:9", Compression(CODEC_DEFLATE, 9), "gzip:9"),
        ("none", Compression(CODEC_NONE, 0), "none"),
        ("false", Compression(CODEC_NONE, 0), "none"),
        ("none:0", Compression(CODEC_NONE, 0), "none"),
    ],
)
def test_a_compression_is_a_codec_and_a_level(text: str, compression: Compression, shown: str) -> None:
    """Each codec has a level of its own if none is given; what is printed of it reads back."""
    assert compression == parse_compression(text)
    assert shown == str(compression)
    assert compression == parse_compression(shown)


@pytest.mark.parametrize(
    "text",
    [
        "", "lz4", "brotli", "zstd:", "zstd:2", "zstd:1", "zstd:0", "zstd:20", "zstd:22", "zstd:-1", "zstd:3.5",
        "zstd:x", "zstd:+3", "zstd: 3", "gzip:0", "gzip:10", "none:1", "zstd:3:3", ":3", "zstd:٣x", "yes", "1",
        "zstd:999999999999",
    ],
)  # fmt: skip
def test_what_is_no_compression_is_refused(text: str) -> None:
    """With a hint that lists what there is."""
    with pytest.raises(UsageError, match="not a") as caught:
        parse_compression(text)

    assert "zstd:3 to zstd:19" in str(caught.value.hint)


def test_the_codecs_are_numbered_as_the_format_says() -> None:
    """None, zstd, DEFLATE."""
    assert (0, 1, 2) == CODECS == (CODEC_NONE, CODEC_ZSTD, CODEC_DEFLATE)
    assert Compression(CODEC_ZSTD, 3) == DEFAULT
