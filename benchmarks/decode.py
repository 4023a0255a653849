"""Which commit does an object of a store hold? Read from the object itself, on all sides.

The writers count their commits in a `ledger` row. The rival's objects hold whole pages, so the ledger page is
read out of them. Ours hold page deltas and transaction numbers, and a transaction is a commit: the number
minus that of the commit before the writer's first.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import lz4.block
import lz4.frame

from replicator.core.names import FullName, SegmentName, parse_name
from replicator.core.unit import parse_unit_header, split_units

LTX_HEADER = 100
LTX_PAGE_HEADER = 6
LTX_SIZE_FOLLOWS = 1
WAL_HEADER = 32
FRAME_HEADER = 24


def newest_txid(store: Path, path: Path) -> tuple[str, int] | None:
    """Generation and last transaction in one of our objects; None of one that holds none."""
    name = parse_name(path.relative_to(store).as_posix())
    if isinstance(name, FullName):
        return name.generation, name.txid
    if not isinstance(name, SegmentName):
        return None
    last = 0
    for unit in split_units(path.read_bytes()):
        header = parse_unit_header(unit)
        last = header.txid_last if header.commits else last
    return (name.generation, last) if last else None


def ltx_page(data: bytes | mmap.mmap, wanted: int) -> bytes | None:
    """Page *wanted* of an LTX file, if it is in there."""
    page_size = struct.unpack_from(">I", data, 8)[0]
    at = LTX_HEADER
    while at + LTX_PAGE_HEADER <= len(data):
        pgno, flags = struct.unpack_from(">IH", data, at)
        at += LTX_PAGE_HEADER
        if pgno == 0 or pgno > wanted:  # ascending, and a zero ends them
            return None
        if not flags & LTX_SIZE_FOLLOWS:
            raise ValueError("an LTX page without its size: not the format of 0.5.17")
        size = struct.unpack_from(">I", data, at)[0]
        at += 4
        if pgno == wanted:
            return bytes(lz4.block.decompress(data[at : at + size], uncompressed_size=page_size))
        at += size
    return None


def wal_page(data: bytes, wanted: int, page_size: int) -> bytes | None:
    """The newest version of page *wanted* in a piece of a log, with or without the log's header."""
    at = WAL_HEADER if data[:3] == b"\x37\x7f\x06" else 0
    found: bytes | None = None
    step = FRAME_HEADER + page_size
    while at + step <= len(data):
        if struct.unpack_from(">I", data, at)[0] == wanted:
            found = data[at + FRAME_HEADER : at + step]
        at += step
    return found


def wal_counter(path: Path, root: int, page_size: int) -> int | None:
    page = wal_page(lz4.frame.decompress(path.read_bytes()), root, page_size)
    return ledger_sum(page) if page is not None else None


def snapshot_counter(path: Path, root: int, page_size: int) -> int:
    """Of a whole database in one LZ4 frame."""
    with lz4.frame.open(path, "rb") as file:
        return ledger_sum(file.read(root * page_size)[-page_size:])


def ltx_counter(path: Path, root: int) -> int | None:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        page = ltx_page(data, root)
    return ledger_sum(page) if page is not None else None


def ledger_sum(page: bytes) -> int:
    """The sum of the counters in the ledger's only page: a table leaf of (writer, counter, at)."""
    if page[0] != 0x0D:
        raise ValueError("the ledger's page is no table leaf")
    total = 0
    for cell in struct.unpack_from(f">{struct.unpack_from('>H', page, 3)[0]}H", page, 8):
        at = cell
        _, at = _varint(page, at)  # bytes of the record
        _, at = _varint(page, at)  # the rowid, which is the writer
        head, body = _varint(page, at)
        at += head
        kinds: list[int] = []
        while body < cell + 64 and len(kinds) < 3:
            kind, body = _varint(page, body)
            kinds.append(kind)
        # The writer is the rowid and stored as NULL; the counter comes next.
        total += _integer(page, at, kinds[1])
    return total


def _integer(page: bytes, at: int, kind: int) -> int:
    if kind in (8, 9):
        return kind - 8
    size = (0, 1, 2, 3, 4, 6, 8)[kind]
    return int.from_bytes(page[at : at + size], "big", signed=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number in range(9):
        byte = data[at + number]
        if number == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + number + 1
    raise AssertionError
