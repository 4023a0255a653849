"""The log: units of some minutes verbatim in one object, with an index in front. docs/FORMAT.md has the bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.core import varint
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.named_digest import DIGEST_SIZE, digest_of_pieces, require_digest
from replicator.core.names import LogName
from replicator.core.unit import UnitHeader
from replicator.core.varint import Reader

MAGIC = b"RPLLOGS"
VERSION = 1
_HEAD = struct.Struct(">7sBI")  # magic, version, length of the index
HEAD_SIZE = _HEAD.size
# A log is put and read whole, so this is what it costs in memory. One that would be larger is cut in two.
LOG_BYTES_MAX = 32 << 20
# A unit of the largest transaction's part is below 5 MiB; a reader is ready for more.
READ_BYTES_MAX = 512 << 20
_INDEX_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One unit: where it lies in the object, its last transaction and when that was observed."""

    offset: int
    size_bytes: int
    txid_last: int
    observed_last: int


@dataclass(frozen=True, slots=True)
class Log:
    """``units``: the bytes of all of them, one behind the other."""

    name: LogName
    index: tuple[IndexEntry, ...]
    units: memoryview


def encode_log(name: LogName, units: Sequence[tuple[UnitHeader, bytes]]) -> bytes:
    """The object's final bytes. *units* are consecutive, and the last of them ends a transaction."""
    index = bytearray()
    varint.put(index, len(units))
    txid, observed = name.txid_first, units[0][0].observed_first
    varint.put(index, observed)
    for header, unit in units:
        varint.put(index, len(unit))
        varint.put(index, header.txid_last - txid)
        varint.put(index, header.observed_last - observed)
        txid, observed = header.txid_last, header.observed_last
    pieces = [_HEAD.pack(MAGIC, VERSION, len(index)), bytes(index), *(unit for _, unit in units)]
    pieces.append(digest_of_pieces(pieces, str(name)))
    return b"".join(pieces)


def decode_log(data: bytes, name: LogName) -> Log:
    """The inverse; the units in it are still to be decoded."""
    text = str(name)
    if len(data) < HEAD_SIZE + DIGEST_SIZE or len(data) > READ_BYTES_MAX:
        raise ObjectCorrupt(f"{text} has {len(data)} bytes, which no log has", name=text)
    magic, version, index_bytes = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise ObjectCorrupt(f"{text} is not a log: it does not begin with RPLLOGS", name=text)
    require_digest(data, text)
    if version != VERSION:
        raise FormatTooNew(
            f"{text} is of format {version}, this program reads format {VERSION}",
            hint="use a newer version of replicator",
        )
    if index_bytes > _INDEX_BYTES_MAX or HEAD_SIZE + index_bytes + DIGEST_SIZE > len(data):
        raise ObjectCorrupt(f"{text} claims an index larger than itself", name=text)
    begin = HEAD_SIZE + index_bytes
    end = len(data) - DIGEST_SIZE
    index = tuple(_read_index(Reader(data, HEAD_SIZE, begin), name, begin, end))
    return Log(name, index, memoryview(data)[begin:end])


def _read_index(reader: Reader, name: LogName, offset: int, end: int) -> list[IndexEntry]:
    count = reader.varint(_INDEX_BYTES_MAX)
    txid, observed = name.txid_first, reader.varint(1 << 62)
    entries: list[IndexEntry] = []
    for _ in range(count):
        size = reader.varint(end - offset)
        txid += reader.varint(name.txid_last - txid)
        observed += reader.varint(1 << 62)
        entries.append(IndexEntry(offset, size, txid, observed))
        offset += size
    if reader or offset != end or txid != name.txid_last or not entries:
        raise ObjectCorrupt(f"{name} has an index that does not fit what is behind it", name=str(name))
    return entries


def observed_first(data: bytes | memoryview, name: LogName) -> int:
    """When the first commit was observed, from the first bytes of the object alone; not proved."""
    if len(data) < HEAD_SIZE + 2 or bytes(data[: len(MAGIC)]) != MAGIC:
        raise ObjectCorrupt(f"{name} is not a log: it does not begin with RPLLOGS", name=str(name))
    reader = Reader(data, HEAD_SIZE)
    reader.varint(_INDEX_BYTES_MAX)
    return reader.varint(1 << 62)


def units_begin(data: bytes | memoryview, name: LogName) -> int:
    """Where the first unit lies, from the first HEAD_SIZE bytes of the object alone; not proved."""
    magic, _, index_bytes = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise ObjectCorrupt(f"{name} is not a log: it does not begin with RPLLOGS", name=str(name))
    return HEAD_SIZE + int(index_bytes)


BEGINNING_BYTES = HEAD_SIZE + 20
"""Enough for ``observed_first``."""
