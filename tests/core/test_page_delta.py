"""Blocks: where they are cut, what they are made against, and what is refused."""

import random
import zlib
from dataclasses import replace

import pytest

from replicator.core import page_delta
from replicator.core.codec import CODEC_DEFLATE, CODEC_NONE, CODEC_ZSTD, Compression
from replicator.core.errors import ObjectCorrupt
from replicator.core.page_delta import (
    Block,
    PageImage,
    Step,
    encode_blocks,
    expand_block,
    read_block,
    write_block,
)
from replicator.core.varint import Reader

SIZE = 512
NONE, ZSTD, DEFLATE = Compression(CODEC_NONE, 0), Compression(CODEC_ZSTD, 3), Compression(CODEC_DEFLATE, 6)
EACH = pytest.mark.parametrize("compression", [NONE, ZSTD, DEFLATE], ids=str)
NOISE = random.Random(3)
OLD = {pgno: NOISE.randbytes(SIZE) for pgno in range(1, 60)}


def images(*pgnos: int, fill: int = 0) -> list[PageImage]:
    return [PageImage(pgno, bytes([pgno & 0xFF, fill]) + OLD[pgno][2:]) for pgno in pgnos]


def blocks_of(*steps: Step, limit: int, compression: Compression = NONE) -> list[Block]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_delta, "PREFIX_BYTES_MAX", limit * SIZE)
        return encode_blocks(steps, OLD.get, page_size=SIZE, compression=compression)


@pytest.mark.parametrize(
    ("pages", "limit", "blocks"),
    [
        ((3,), 4, [3]),
        ((4,), 4, [4]),
        ((2, 2), 4, [4]),
        ((2, 3), 4, [2, 3]),
        ((1, 1, 1, 1, 1), 4, [4, 1]),
        ((5,), 4, [4, 1]),
        ((9,), 4, [4, 4, 1]),
        ((2, 9), 4, [2, 4, 4, 1]),
        ((9, 2), 4, [4, 4, 3]),  # what is left of a large transaction may share its block
        ((9, 4), 4, [4, 4, 1, 4]),
        ((3, 3), 1, [1] * 6),
    ],
)
def test_a_block_ends_at_a_transaction_or_inside_a_large_one(
    pages: tuple[int, ...], limit: int, blocks: list[int]
) -> None:
    """No block holds more pages than the limit, and none splits a transaction that would fit into one."""
    steps = [Step(images(*range(1, count + 1)), 59, 59) for count in pages]

    assert blocks == [block.pages for block in blocks_of(*steps, limit=limit)]


def test_a_block_is_at_most_a_mebibyte() -> None:
    """The limits are such that neither prefix nor content of a block is above a mebibyte."""
    step = Step([PageImage(pgno, bytes(65536)) for pgno in range(1, 34)], 0, 33)
    blocks = encode_blocks([step], lambda _: None, page_size=65536, compression=NONE)

    assert [16, 16, 1] == [block.pages for block in blocks]
    assert max(len(block.stored) for block in blocks) == 1 << 20


def test_a_page_larger_than_the_limit_still_has_a_block() -> None:
    """Each block holds at least one page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_delta, "CONTENT_BYTES_MAX", SIZE - 1)
        found = encode_blocks([Step(images(1, 2), 59, 59)], OLD.get, page_size=SIZE, compression=NONE)

    assert [1, 1] == [block.pages for block in found]


@EACH
def test_later_blocks_are_made_against_earlier_ones(compression: Compression) -> None:
    """The version before a block is the newest within the unit, else the one before the unit."""
    first, second = images(1, 2, fill=1), images(1, 3, fill=2)
    _, two = blocks_of(Step(first, 59, 59), Step(second, 59, 59), limit=2, compression=compression)
    newest = OLD | {image.pgno: image.content for image in first}
    expanded = expand_block(
        two, [1, 3], pages_before=59, version=newest.get, page_size=SIZE, codec=compression.codec
    )

    assert [image.content for image in second] == expanded
    with pytest.raises(ObjectCorrupt, match="state before a block"):
        expand_block(two, [1, 3], pages_before=59, version=OLD.get, page_size=SIZE, codec=compression.codec)


def test_pages_beyond_the_database_have_no_previous_version() -> None:
    """Pages that a transaction adds are not asked for, and are not fresh: both sides know the size."""
    asked: list[int] = []

    def previous(pgno: int) -> bytes | None:
        asked.append(pgno)
        return OLD[pgno]

    (block,) = encode_blocks([Step(images(4, 5, 6), 4, 6)], previous, page_size=SIZE, compression=ZSTD)

    assert [4] == asked
    assert frozenset() == block.fresh


@EACH
def test_each_page_is_in_the_prefix_once(compression: Compression) -> None:
    """Two versions of a page in one block share its previous version, and both come out."""
    steps = [Step(images(7, fill=1), 59, 59), Step(images(7, fill=2), 59, 59)]
    (block,) = blocks_of(*steps, limit=4, compression=compression)
    expanded = expand_block(
        block, [7, 7], pages_before=59, version=OLD.get, page_size=SIZE, codec=compression.codec
    )

    assert [steps[0].images[0].content, steps[1].images[0].content] == expanded


@EACH
def test_a_fresh_page_needs_no_previous_version(compression: Compression) -> None:
    """A page whose version was not at hand is listed as fresh, and its reader is not asked for it either."""
    step = Step(images(1, 2, 3), 59, 59)
    (block,) = encode_blocks(
        [step], lambda p: None if p == 2 else OLD[p], page_size=SIZE, compression=compression
    )
    held = {pgno: OLD[pgno] for pgno in (1, 3)}
    expanded = expand_block(
        block, [1, 2, 3], pages_before=59, version=held.__getitem__, page_size=SIZE, codec=compression.codec
    )

    assert frozenset({2}) == block.fresh
    assert [image.content for image in step.images] == expanded


@EACH
@pytest.mark.parametrize(
    ("change", "pgnos", "fault"),
    [
        ({"prefix_hash": 1}, [1, 2], "state before a block"),
        ({}, [1, 3], "state before a block"),
        ({}, [1], "state before a block"),
        ({"stored": b""}, [1, 2], "a block"),
        ({"stored": b"no zstd at all"}, [1, 2], "a block"),
        ({"fresh": frozenset({1})}, [1, 2], "state before a block"),
    ],
)
def test_a_block_that_does_not_fit_is_corrupt(
    compression: Compression, change: dict[str, object], pgnos: list[int], fault: str
) -> None:
    """Another state, another list of pages or other bytes: ObjectCorrupt, whatever the codec."""
    (block,) = blocks_of(Step(images(1, 2), 59, 59), limit=4, compression=compression)

    with pytest.raises(ObjectCorrupt, match=fault):
        expand_block(
            replace(block, **change),  # type: ignore[arg-type]
            pgnos,
            pages_before=59,
            version=OLD.get,
            page_size=SIZE,
            codec=compression.codec,
        )


@EACH
def test_a_block_of_another_length_is_corrupt(compression: Compression) -> None:
    """Expanded bytes have to be exactly the pages that are listed: one more, whose prefix is empty, is not there."""
    (block,) = encode_blocks([Step(images(4), 0, 4)], OLD.get, page_size=SIZE, compression=compression)

    with pytest.raises(ObjectCorrupt, match=r"a block (holds 512 bytes|does not expand)"):
        expand_block(block, [4, 5], pages_before=0, version=OLD.get, page_size=SIZE, codec=compression.codec)


@EACH
def test_a_short_previous_version_is_corrupt(compression: Compression) -> None:
    """A file that ends inside a page cannot be the state a block was made against."""
    (block,) = blocks_of(Step(images(1, 2), 59, 59), limit=4, compression=compression)

    with pytest.raises(ObjectCorrupt, match="state before a block"):
        expand_block(
            block,
            [1, 2],
            pages_before=59,
            version=lambda p: OLD[p][:-1],
            page_size=SIZE,
            codec=compression.codec,
        )


# --- DEFLATE, page by page -----------------------------------------------------------------------------


def raw_deflate(content: bytes, known: bytes = b"") -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=known) if known else zlib.compressobj(6, wbits=-15)
    return packer.compress(content) + packer.flush()


def with_lengths(*parts: bytes) -> bytes:
    """Each behind its length, a varint of two bytes at most."""
    lengths = [
        bytes([len(part)]) if len(part) < 128 else bytes([len(part) % 128 + 128, len(part) // 128])
        for part in parts
    ]
    return b"".join(length + part for length, part in zip(lengths, parts, strict=True))


def test_a_deflated_block_is_its_pages_one_by_one() -> None:
    """Each behind its length, against the version before it: in the block, else before it, else against nothing."""
    first, second = images(7, fill=1)[0].content, images(7, fill=2)[0].content
    added = images(8)[0].content
    steps = [Step([PageImage(7, first), PageImage(8, added)], 7, 8), Step([PageImage(7, second)], 8, 8)]
    (block,) = blocks_of(*steps, limit=4, compression=DEFLATE)

    assert (
        with_lengths(raw_deflate(first, OLD[7]), raw_deflate(added), raw_deflate(second, first))
        == block.stored
    )


def test_deflate_sees_the_last_32_kib_of_a_page() -> None:
    """Of a version longer than DEFLATE can point back the end is the dictionary, on both sides."""
    old = NOISE.randbytes(65536)
    new = old[-20_000:] + NOISE.randbytes(45_536)
    step = Step([PageImage(1, new)], 1, 1)
    (block,) = encode_blocks([step], lambda _: old, page_size=65536, compression=DEFLATE)
    length = block.stored[0] % 128 + block.stored[1] % 128 * 128 + block.stored[2] * 16384
    opener = zlib.decompressobj(-15, zdict=old[-32768:])

    assert new == opener.decompress(block.stored[3:])
    assert length == len(block.stored) - 3
    assert 45_536 < len(block.stored) < 46_500
    assert [new] == expand_block(
        block, [1], pages_before=1, version=lambda _: old, page_size=65536, codec=CODEC_DEFLATE
    )


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        (with_lengths(raw_deflate(bytes(SIZE))) + b"\0", "goes on behind its last page"),
        (with_lengths(raw_deflate(bytes(SIZE)), raw_deflate(bytes(SIZE))), "goes on behind its last page"),
        (with_lengths(raw_deflate(bytes(SIZE)) + b"\0"), "exactly 512"),
        (with_lengths(raw_deflate(bytes(SIZE))[:-1]), "exactly 512"),
        (with_lengths(raw_deflate(bytes(SIZE + 1))), "exactly 512"),
        (with_lengths(raw_deflate(bytes(SIZE - 1))), "exactly 512"),
        (with_lengths(raw_deflate(bytes(10_000_000))), "exactly 512"),
        (with_lengths(b""), "exactly 512"),
        (with_lengths(b"\xff\xff\xff"), "does not expand"),
        (b"\xff\xff\xff\xff\x1f", "above its bound"),
        (b"\x7f", "bytes wanted"),
        (b"", "past the end"),
    ],
)
def test_a_deflated_block_that_is_never_written_is_corrupt(stored: bytes, fault: str) -> None:
    """More, less, cut off, or a bomb behind a right hash of the prefix: ObjectCorrupt."""
    (block,) = encode_blocks(
        [Step([PageImage(1, bytes(SIZE))], 0, 1)], OLD.get, page_size=SIZE, compression=DEFLATE
    )

    with pytest.raises(ObjectCorrupt, match=f"a block does not expand.*{fault}"):
        expand_block(
            replace(block, stored=stored),
            [1],
            pages_before=0,
            version=OLD.get,
            page_size=SIZE,
            codec=CODEC_DEFLATE,
        )


# --- as it is stored -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [
        Block(1, frozenset(), 0, b""),
        Block(3, frozenset({1, 2, 0xFFFFFFFF}), 2**32 - 1, bytes(300)),
        Block(200, frozenset({129}), 5, b"x"),
    ],
)
def test_a_block_reads_back(block: Block) -> None:
    """What is written of a block is read as the same, and nothing behind it is touched."""
    out = bytearray()
    write_block(out, block)
    reader = Reader(bytes(out) + b"behind")

    assert block == read_block(reader, pages_left=200)
    assert len(out) == reader.offset


def test_a_block_holds_no_more_pages_than_are_listed() -> None:
    """More images than the entries list are corruption, found before anything is expanded."""
    out = bytearray()
    write_block(out, Block(5, frozenset(), 0, b""))

    with pytest.raises(ObjectCorrupt, match="above its bound 4"):
        read_block(Reader(bytes(out)), pages_left=4)
