"""The unit: what is captured at once, sealed, chained and final.

Layout, big-endian; docs/FORMAT.md is the specification of record:

    header   88 bytes, see ``_HEADER``
    entries  one for each transaction: times, size of the database, page numbers, page hashes, checksum
    payload  blocks of page images (core/page_delta.py), in the order of the entries
    trailer  the digest: 16 bytes of the SHA-256 of all before it

The first 8 bytes of a digest are repeated in the next unit's header, which chains the units; what the first
one repeats stands for its repository and generation. A transaction too large for one unit is carried by
several, numbered parts of the same txid.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replicator.core import varint
from replicator.core.checksum import SHORT_HASH_SIZE
from replicator.core.codec import CODECS
from replicator.core.cursor import WalCursor
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.page_delta import Block, block_pages_max, read_block, write_block
from replicator.core.position import TXID_MAX, GenerationId, Position
from replicator.core.times import MICROS_MAX, MICROS_MIN
from replicator.core.varint import Reader
from replicator.core.wal import Salt, WalChecksum

MAGIC = b"RPLUNIT"
VERSION = 1
HEADER_SIZE = 88
TRAILER_SIZE = 16
CHAIN_SIZE = 8

# magic, version, flags, codec, log2 of the page size, reserved, part, generation, epoch, frames, first txid,
# txids after it, salts, WAL checksum, observed first, microseconds from it to the last, chain before, lengths
_HEADER = struct.Struct(">7sBBBBxI8sIIQIIIIIqI8sII")
assert _HEADER.size == HEADER_SIZE
_RESERVED = 11  # the byte that `x` passes over

_PART = 1
_LAST_PART = 2
_ROLLING_UNKNOWN = 4
_CLOCK_STEPPED = 8
_FLAGS_KNOWN = 15

# What one unit may claim before it is read: far above what capture cuts, far below what hurts a reader.
ENTRIES_BYTES_MAX = 64 << 20
PAYLOAD_BYTES_MAX = 256 << 20
# The page images in it, expanded: sixteen times what capture puts into one. A hundred kilobytes can be a gigabyte of
# zeros.
IMAGES_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class UnitHeader:
    """What a unit says of itself.

    ``part`` is 0 for a unit of whole transactions, else 1, 2, 3 … within one transaction, and ``last_part``
    marks the one that carries the commit. ``rolling_known`` is False where the change of the database's
    checksum could not be followed (see ``Entry.rolling``). ``clock_stepped``: the wall clock went back, and
    the times in here were held at the latest one seen. ``cursor`` is the place in the log after the last
    commit. Times are microseconds UTC. ``chain_before`` is how the digest of the unit before begins.
    """

    generation: GenerationId
    epoch: int
    page_size: int
    codec: int
    txid_first: int
    txid_last: int
    part: int
    last_part: bool
    rolling_known: bool
    clock_stepped: bool
    cursor: WalCursor
    observed_first: int
    observed_last: int
    chain_before: bytes
    entries_bytes: int
    payload_bytes: int

    @property
    def size(self) -> int:
        """Bytes of the whole unit."""
        return HEADER_SIZE + self.entries_bytes + self.payload_bytes + TRAILER_SIZE

    @property
    def commits(self) -> bool:
        """Whether the database stands at a commit after this unit."""
        return self.part == 0 or self.last_part

    @property
    def position(self) -> Position:
        return Position(self.generation, self.txid_last)


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction, or under overload a run of them of which only the end is a restore point.

    ``span`` counts the commits; ``txid`` is the last of them. The commit happened after ``not_before`` (the
    look before) and no later than ``observed``. ``pgnos`` ascend and have the short form of one hash each.
    ``rolling`` is the XOR of the whole hashes of all changes since the generation began, so the checksum of
    the database here is that of any full backup XOR the full's rolling XOR this one.
    """

    txid: int
    span: int
    observed: int
    not_before: int
    pages_after: int
    pgnos: tuple[int, ...]
    hashes: tuple[int, ...]
    rolling: int


@dataclass(frozen=True, slots=True)
class Unit:
    header: UnitHeader
    entries: tuple[Entry, ...]
    blocks: tuple[Block, ...]
    digest: bytes


def first_chain(repository: bytes, generation: GenerationId) -> bytes:
    """What the first unit of a generation chains to."""
    return _digest(b"RPLCHAIN", repository, bytes.fromhex(generation))


def follows(header: UnitHeader, digest: bytes) -> bool:
    """Whether a unit was built on the one that has *digest*, or the first one on ``first_chain``."""
    return header.chain_before == digest[:CHAIN_SIZE]


def lies_before(header: UnitHeader, txid: int, part: int) -> bool:
    """Whether a unit is among those up to *txid*, or up to that *part* of the transaction behind it: a segment may hold
    what a log has taken over, to its end or to the midst of a transaction."""
    return header.txid_last <= txid or (header.txid_first == txid + 1 and 0 < header.part <= part)


def _digest(*pieces: bytes | bytearray | memoryview) -> bytes:
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.digest()[:TRAILER_SIZE]


class Body(NamedTuple):
    """Entries and blocks as they are stored; the entries come first."""

    content: bytearray
    entries_bytes: int

    @property
    def payload_bytes(self) -> int:
        return len(self.content) - self.entries_bytes


def encode_body(entries: Sequence[Entry], blocks: Sequence[Block]) -> Body:
    """What lies between header and trailer; the header has to know how long it is."""
    body = bytearray()
    observed = entries[0].observed
    for entry in entries:
        varint.put(body, entry.span)
        varint.put(body, entry.observed - observed)
        varint.put(body, entry.observed - entry.not_before)
        observed = entry.observed
        varint.put(body, entry.pages_after)
        varint.put(body, len(entry.pgnos))
        last = 0
        for pgno in entry.pgnos:
            varint.put(body, pgno - last)
            last = pgno
        body += struct.pack(f">{len(entry.hashes)}IQ", *entry.hashes, entry.rolling)
    entries_bytes = len(body)
    for block in blocks:
        write_block(body, block)
    return Body(body, entries_bytes)


def encode_unit(header: UnitHeader, body: Body) -> tuple[bytes, bytes]:
    """The unit's final bytes and its digest."""
    flags = (
        (_PART if header.part else 0)
        | (_LAST_PART if header.last_part else 0)
        | (0 if header.rolling_known else _ROLLING_UNKNOWN)
        | (_CLOCK_STEPPED if header.clock_stepped else 0)
    )
    cursor = header.cursor
    head = _HEADER.pack(
        MAGIC, VERSION, flags, header.codec, header.page_size.bit_length() - 1, header.part,
        bytes.fromhex(header.generation), header.epoch, cursor.frames,
        header.txid_first, header.txid_last - header.txid_first, *cursor.salt, *cursor.checksum,
        header.observed_first, header.observed_last - header.observed_first, header.chain_before,
        header.entries_bytes, header.payload_bytes,
    )  # fmt: skip
    digest = _digest(head, body.content)
    return b"".join((head, body.content, digest)), digest


def parse_unit_header(data: bytes | memoryview) -> UnitHeader:
    """Read and bound the first 88 bytes of a unit; nothing in it is proved until ``decode_unit``."""
    if len(data) < HEADER_SIZE:
        raise ObjectCorrupt(f"a unit's header is cut off after {len(data)} bytes")
    (magic, version, flags, codec, page_log2, part, generation, epoch, frames, txid_first, txids_more,
     salt1, salt2, s0, s1, observed_first, observed_more, chain, entries_bytes,
     payload_bytes) = _HEADER.unpack_from(data)  # fmt: skip
    txid_last, observed_last = txid_first + txids_more, observed_first + observed_more
    # Version 0 was never written: it is what a torn write leaves where zeros follow the magic.
    if magic != MAGIC or version == 0:
        raise ObjectCorrupt("not a unit: it does not begin with RPLUNIT and a version")
    if version != VERSION or flags & ~_FLAGS_KNOWN:
        raise FormatTooNew(
            f"unit of format {version} (flags {flags:#x}), this program reads format {VERSION}",
            hint="use a newer version of replicator",
        )
    if (
        data[_RESERVED]
        or not 9 <= page_log2 <= 16
        or codec not in CODECS
        or not 1 <= txid_first <= txid_last <= TXID_MAX
        or entries_bytes > ENTRIES_BYTES_MAX
        or payload_bytes > PAYLOAD_BYTES_MAX
        or bool(flags & _PART) != (part > 0)
        or not MICROS_MIN <= observed_first <= observed_last <= MICROS_MAX
    ):
        raise ObjectCorrupt("a unit's header holds values that are never written")
    return UnitHeader(
        generation=GenerationId(generation.hex()),
        epoch=epoch,
        page_size=1 << page_log2,
        codec=codec,
        txid_first=txid_first,
        txid_last=txid_last,
        part=part,
        last_part=bool(flags & _LAST_PART),
        rolling_known=not flags & _ROLLING_UNKNOWN,
        clock_stepped=bool(flags & _CLOCK_STEPPED),
        cursor=WalCursor(Salt(salt1, salt2), frames, WalChecksum(s0, s1)),
        observed_first=observed_first,
        observed_last=observed_last,
        chain_before=chain,
        entries_bytes=entries_bytes,
        payload_bytes=payload_bytes,
    )


def decode_unit(data: bytes | memoryview) -> Unit:
    """The unit that begins at the first byte of *data*, proved against its digest."""
    header = parse_unit_header(data)
    if len(data) < header.size:
        raise ObjectCorrupt(f"unit {header.position} is cut off: {len(data)} of {header.size} bytes")
    view = memoryview(data)
    body_end = header.size - TRAILER_SIZE
    digest = _digest(view[:body_end])
    if digest != view[body_end : header.size]:
        raise ObjectCorrupt(f"unit {header.position} does not have the digest it was written with")
    entries_end = HEADER_SIZE + header.entries_bytes
    entries = tuple(_read_entries(Reader(view, HEADER_SIZE, entries_end), header))
    pages_left = sum(len(entry.pgnos) for entry in entries)
    blocks: list[Block] = []
    reader = Reader(view, entries_end, body_end)
    while reader:
        block = read_block(reader, pages_left=min(pages_left, block_pages_max(header.page_size)))
        pages_left -= block.pages
        blocks.append(block)
    if pages_left:
        raise ObjectCorrupt(f"unit {header.position} lists {pages_left} pages that no block holds")
    return Unit(header, entries, tuple(blocks), digest)


def _read_entries(reader: Reader, header: UnitHeader) -> Iterator[Entry]:
    txid = header.txid_first - 1
    observed = header.observed_first
    pages_left = IMAGES_BYTES_MAX // header.page_size
    while reader:
        span = reader.varint(header.txid_last - txid)
        txid += span
        since_last = reader.varint(header.observed_last - observed)
        if since_last and txid - span == header.txid_first - 1:
            raise ObjectCorrupt(f"unit {header.position} does not begin when its header says")
        observed += since_last
        not_before = observed - reader.varint(observed - MICROS_MIN)
        pages_after = reader.varint(0xFFFFFFFF)
        count = reader.varint(min(pages_left, header.entries_bytes // SHORT_HASH_SIZE))
        pages_left -= count
        pgnos: list[int] = []
        last = 0
        for _ in range(count):
            delta = reader.varint(0xFFFFFFFF)
            last += delta
            if delta == 0 or last > 0xFFFFFFFF:
                raise ObjectCorrupt(f"unit {header.position} lists its pages out of order")
            pgnos.append(last)
        hashes = struct.unpack(f">{count}I", reader.take(SHORT_HASH_SIZE * count))
        rolling = reader.u64()
        if span == 0 or pages_after == 0:
            raise ObjectCorrupt(f"unit {header.position} holds an empty entry")
        yield Entry(txid, span, observed, not_before, pages_after, tuple(pgnos), hashes, rolling)
    if txid != header.txid_last or observed != header.observed_last:
        raise ObjectCorrupt(f"unit {header.position} ends at txid {txid:016x}, or not when its header says")


def split_units(data: bytes | memoryview) -> Iterator[memoryview]:
    """The units that lie one behind the other in a segment, each still to be decoded."""
    view = memoryview(data)
    offset = 0
    while offset < len(view):
        header = parse_unit_header(view[offset : offset + HEADER_SIZE])
        if offset + header.size > len(view):
            raise ObjectCorrupt(f"unit {header.position} is cut off")
        yield view[offset : offset + header.size]
        offset += header.size
