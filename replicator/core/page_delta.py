"""Blocks: runs of page images, compressed against the state of the database just before them.

A page's previous version, given to zstd as a raw-content prefix, makes a small update cost a few dozen
bytes. The prefix of a block holds the previous versions of the distinct pages in it, ascending, each once.
zstd expands onto a wrong prefix without an error, so each block carries the prefix's short hash, looked at
first.

Which pages have a previous version is a rule both sides compute: a page that lay within the database before
the block, except those the block lists as *fresh* (their previous version was not at hand any more).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import xxhash

from replicator.core import varint, zstd
from replicator.core.checksum import SHORT_HASH_SIZE, short_hash
from replicator.core.codec import CODEC_DEFLATE, CODEC_ZSTD, Compression, deflate, inflate
from replicator.core.errors import ObjectCorrupt
from replicator.core.varint import Reader

# Only the last mebibyte of a prefix is indexed at level 3 (1.5 MiB gave 34 % of raw where 1 MiB gave 2 %).
PREFIX_BYTES_MAX = 1 << 20
# What a reader is ready to hold of one block: far above what is written.
_READ_BYTES_MAX = 16 << 20
# Content beyond the window finds its earlier versions no more; one mebibyte also bounds what a reader holds.
CONTENT_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class PageImage:
    """One version of one page."""

    pgno: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it is stored. ``pages`` counts images, in the order of the unit's page lists."""

    pages: int
    fresh: frozenset[int]
    prefix_hash: int
    stored: bytes


Previous = Callable[[int], bytes | None]
"""The version of a page just before the block; None where it is not at hand."""


@dataclass(frozen=True, slots=True)
class Step:
    """The page images of one transaction (or of a part of one), and the database's size around it."""

    images: Sequence[PageImage]
    pages_before: int
    pages_after: int


def encode_blocks(
    steps: Iterable[Step], previous: Previous, *, page_size: int, compression: Compression
) -> list[Block]:
    """Cut *steps* into blocks and compress each.

    A block ends at a transaction, or inside one that is itself larger than a block. *previous* is asked for
    the state before the first step; the versions within *steps* are kept here.
    """
    limit = max(1, min(PREFIX_BYTES_MAX, CONTENT_BYTES_MAX) // page_size)
    blocks: list[Block] = []
    newest: dict[int, bytes] = {}
    open_images: list[PageImage] = []
    open_before = 0

    def version(pgno: int) -> bytes | None:
        return newest[pgno] if pgno in newest else previous(pgno)

    def close() -> None:
        if open_images:
            blocks.append(_encode(open_images, open_before, version, compression))
            newest.update((image.pgno, image.content) for image in open_images)
            open_images.clear()

    for step in steps:
        if len(open_images) + len(step.images) > limit:
            close()
        if not open_images:
            open_before = step.pages_before
        for start in range(0, len(step.images), limit):
            if start:
                close()
                open_before = step.pages_before
            open_images.extend(step.images[start : start + limit])
    close()
    return blocks


def _encode(
    images: Sequence[PageImage],
    pages_before: int,
    version: Callable[[int], bytes | None],
    compression: Compression,
) -> Block:
    known: dict[int, bytes] = {}
    fresh: set[int] = set()
    for pgno in sorted({image.pgno for image in images if image.pgno <= pages_before}):
        before = version(pgno)
        if before is None:
            fresh.add(pgno)
        else:
            known[pgno] = before
    prefix = b"".join(known.values())
    prefix_hash = _prefix_hash(prefix)
    if compression.codec == CODEC_DEFLATE:
        stored = _deflate_images(images, known, compression.level)
    else:
        stored = b"".join([image.content for image in images])
        if compression.codec == CODEC_ZSTD:
            stored = zstd.compress(stored, prefix, compression.level)
    return Block(len(images), frozenset(fresh), prefix_hash, stored)


def _deflate_images(images: Sequence[PageImage], known: dict[int, bytes], level: int) -> bytes:
    """DEFLATE sees no further back than 32 KiB, so each image has the version before it as its dictionary."""
    out = bytearray()
    for image in images:
        stored = deflate(image.content, level, known.get(image.pgno, b""))
        varint.put(out, len(stored))
        out += stored
        known[image.pgno] = image.content
    return bytes(out)


def _inflate_images(
    stored: bytes, pgnos: Sequence[int], known: dict[int, bytes], page_size: int
) -> list[bytes]:
    reader = Reader(stored)
    images: list[bytes] = []
    for pgno in pgnos:
        part = bytes(reader.take(reader.varint(1 << 32)))
        known[pgno] = inflate(part, page_size, known.get(pgno, b""))
        images.append(known[pgno])
    if reader:
        raise ObjectCorrupt("it goes on behind its last page")
    return images


def _prefix_hash(prefix: bytes) -> int:
    return short_hash(xxhash.xxh3_64_intdigest(prefix))


def write_block(out: bytearray, block: Block) -> None:
    """Append *block*: page count, fresh pages, prefix hash, length, bytes."""
    varint.put(out, block.pages)
    varint.put(out, len(block.fresh))
    last = 0
    for pgno in sorted(block.fresh):
        varint.put(out, pgno - last)
        last = pgno
    out += block.prefix_hash.to_bytes(SHORT_HASH_SIZE, "big")
    varint.put(out, len(block.stored))
    out += block.stored


def block_pages_max(page_size: int) -> int:
    """So many pages a block may have at most."""
    return _READ_BYTES_MAX // page_size


def read_block(reader: Reader, *, pages_left: int) -> Block:
    """The inverse of *write_block*; a block may hold at most *pages_left* images."""
    pages = reader.varint(pages_left)
    if pages == 0:
        raise ObjectCorrupt("a block holds no page")
    fresh: set[int] = set()
    last = 0
    for _ in range(reader.varint(pages)):
        delta = reader.varint(0xFFFFFFFF - last)
        if delta == 0:
            raise ObjectCorrupt("a block lists its fresh pages out of order")
        last += delta
        fresh.add(last)
    prefix_hash = reader.u32()
    stored = bytes(reader.take(reader.varint(1 << 32)))
    return Block(pages, frozenset(fresh), prefix_hash, stored)


def expand_block(
    block: Block, pgnos: Sequence[int], *, pages_before: int, version: Previous, page_size: int, codec: int
) -> list[bytes]:
    """The page images of *block*, in the order of *pgnos*.

    *version* answers with the state just before the block. Raises ObjectCorrupt if that state is not the one
    the block was made against, or the bytes do not expand to exactly these pages.
    """
    wanted = sorted({pgno for pgno in pgnos if pgno <= pages_before and pgno not in block.fresh})
    parts = [version(pgno) for pgno in wanted]
    prefix = b"".join([part for part in parts if part is not None])
    if len(prefix) != len(wanted) * page_size or _prefix_hash(prefix) != block.prefix_hash:
        raise ObjectCorrupt("the state before a block is not the one it was made against")
    if codec == CODEC_DEFLATE:
        known = {pgno: part for pgno, part in zip(wanted, parts, strict=True) if part is not None}
        try:
            return _inflate_images(block.stored, pgnos, known, page_size)
        except ObjectCorrupt as exc:
            raise ObjectCorrupt(f"a block does not expand: {exc}") from exc
    length = len(pgnos) * page_size
    if codec == CODEC_ZSTD:
        try:
            content = zstd.expand(block.stored, length, prefix)
        except zstd.ZstdError as exc:
            raise ObjectCorrupt(f"a block does not expand: {exc}") from exc
    else:
        content = block.stored
    if len(content) != length:
        raise ObjectCorrupt(f"a block holds {len(content)} bytes instead of {length}")
    return [content[i : i + page_size] for i in range(0, length, page_size)]
