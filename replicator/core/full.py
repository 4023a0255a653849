"""The full backup: a manifest over de-duplicated chunks, which lie in packs.

A chunk is a fixed, page-aligned run of the database file. Runs of new chunks are compressed together into frames
(eight times better use of zstd's window than chunk by chunk, still small enough to read one alone). Where each chunk
lies and what it holds is said by tables, each for 65,536 chunks, which are frames of the same packs: so no object
grows with the database, and who restores holds one table at a time. The manifest alone commits the backup.
docs/FORMAT.md has the bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from replicator.core import varint
from replicator.core.errors import ObjectCorrupt
from replicator.core.manifest import PLACE_MAX, TableUse, decode_said, encode_said, read_table
from replicator.core.names import FullName
from replicator.core.pack import Frame, PackUse
from replicator.core.position import GenerationId, Position
from replicator.core.varint import Reader

MAGIC = b"RPLFULL"
HASH_SIZE = 32

# Two fulls of a board a thousand operations apart share most of their chunks at 4 KiB, few at 64 KiB;
# a hash costs 32 bytes that never compress. 16 KiB keeps the tables at 0.2 % of the database.
CHUNK_BYTES = 16 << 10
FRAME_CHUNKS = 16
# Of a gibibyte in chunks of 16 KiB; a table is some 2.5 MB then.
TABLE_CHUNKS = 1 << 16

# What a reader may have to hold of one frame follows from it: far above what we write.
_CHUNK_BYTES_MAX = 1 << 20
_TABLE_HEAD = struct.Struct(">I")  # length of the locators
_LOCATOR_BYTES_MAX = 6 * 10

SHA256 = "sha256"


def chunk_bytes_for(page_size: int) -> int:
    """Chunk size of a database: whole pages, at least one."""
    return max(CHUNK_BYTES, page_size)


@dataclass(frozen=True, slots=True)
class Run:
    """``count`` consecutive chunks of the database, found in ``frame`` from its chunk ``first`` on."""

    frame: Frame
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Table:
    """Consecutive chunks: 32 bytes of ``hashes`` each, in order; ``runs`` cover the same chunks in the same order."""

    hashes: bytes
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a manifest says. ``packs`` are those it needs, its own and earlier ones; ``tables`` where the tables
    lie, in the order of the chunks. ``hashes`` names the hash of the chunks, with the key it is made with, if any.
    ``chunks_new`` of the chunks were stored by this backup, in ``stored_bytes`` for ``plain_bytes`` of database.
    Times in microseconds."""

    repository: str
    generation: GenerationId
    txid: int
    epoch: int
    page_size: int
    pages: int
    chunk_bytes: int
    observed: int
    created: int
    chain: str
    checksum: str
    rolling: str
    hashes: str
    chunks_new: int
    plain_bytes: int
    stored_bytes: int
    packs: tuple[PackUse, ...]
    tables: tuple[TableUse, ...]
    kind: str = "replicator-full"

    @property
    def position(self) -> Position:
        return Position(self.generation, self.txid)

    @property
    def database_bytes(self) -> int:
        return self.pages * self.page_size

    @property
    def chunks(self) -> int:
        return -(-self.database_bytes // self.chunk_bytes)

    @property
    def name(self) -> FullName:
        return FullName(self.observed - self.observed % 1_000_000, self.generation, self.txid)

    def chunks_length(self, index: int, count: int = 1) -> int:
        """Bytes of *count* chunks from *index* on; the last one of a database may be short."""
        return min(count * self.chunk_bytes, self.database_bytes - index * self.chunk_bytes)

    def chunks_of(self, table: int) -> int:
        """How many chunks table number *table* is about."""
        return min(TABLE_CHUNKS, self.chunks - table * TABLE_CHUNKS)


def chunk_hash(content: bytes | memoryview, key: bytes | None = None) -> bytes:
    """SHA-256, or HMAC-SHA-256 with a *key*, so that nobody else can tell whether a chunk he knows is in there."""
    return hmac.digest(key, content, "sha256") if key is not None else hashlib.sha256(content).digest()


# --- the manifest --------------------------------------------------------------------------------------


def encode_manifest(manifest: Manifest) -> bytes:
    """Its final bytes."""
    return encode_said(MAGIC, manifest, str(manifest.name))


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The inverse; *name* is the object's name and must be the one the manifest's own values spell."""
    return decode_said(data, name, MAGIC, lambda said: Manifest(**said), _is_proper)


_INTEGERS = ("chunk_bytes", "chunks_new")
_HASHES = re.compile(r"sha256|hmac-sha256:[0-9a-f]{16}")


def _is_proper(manifest: Manifest) -> bool:
    """Whether every value is one that we write."""
    return (
        manifest.kind == "replicator-full"
        and all(type(getattr(manifest, each)) is int for each in _INTEGERS)
        and manifest.chunk_bytes % manifest.page_size == 0
        and 0 < manifest.chunk_bytes <= _CHUNK_BYTES_MAX
        and bool(_HASHES.fullmatch(manifest.hashes))
        and len(manifest.tables) == -(-manifest.chunks // TABLE_CHUNKS)
        and all(
            each.frame.plain_bytes
            <= _TABLE_HEAD.size + manifest.chunks_of(number) * (HASH_SIZE + _LOCATOR_BYTES_MAX)
            for number, each in enumerate(manifest.tables)
        )
    )


# --- tables --------------------------------------------------------------------------------------------


def encode_table(table: Table) -> bytes:
    """Length of the locators, six numbers for each run, the hashes."""
    locators = bytearray()
    for run in table.runs:
        frame = run.frame
        for value in (run.count, frame.pack, frame.offset, frame.stored_bytes, frame.plain_bytes, run.first):
            varint.put(locators, value)
    return _TABLE_HEAD.pack(len(locators)) + bytes(locators) + table.hashes


def decode_table(data: bytes, manifest: Manifest, number: int) -> Table:
    """The inverse of ``encode_table``, of table *number*. Raises ObjectCorrupt."""
    name, chunks = str(manifest.name), manifest.chunks_of(number)
    if len(data) < _TABLE_HEAD.size:
        raise ObjectCorrupt(f"table {number} of {name} is cut off", name=name)
    (locator_bytes,) = _TABLE_HEAD.unpack_from(data)
    table = _TABLE_HEAD.size + locator_bytes
    if len(data) - table != chunks * HASH_SIZE:
        raise ObjectCorrupt(
            f"table {number} of {name} does not hold a hash for each of {chunks} chunks", name=name
        )
    reader = Reader(data, _TABLE_HEAD.size, table)
    return Table(data[table:], tuple(_read_runs(reader, manifest, chunks, name)))


def read_tables(manifest: Manifest, get_range: Callable[[str, int, int], bytes]) -> Iterator[Table]:
    """All tables in order, each fetched when it is asked for."""
    for number in range(len(manifest.tables)):
        yield decode_table(read_table(manifest, number, get_range), manifest, number)


def _read_runs(reader: Reader, manifest: Manifest, chunks: int, name: str) -> Iterable[Run]:
    covered = 0
    frame_max = FRAME_CHUNKS * manifest.chunk_bytes
    while reader:
        count = reader.varint(chunks - covered)
        pack = reader.varint(max(len(manifest.packs) - 1, 0))
        offset = reader.varint(PLACE_MAX)
        stored = reader.varint(2 * frame_max + 1024)
        plain = reader.varint(frame_max)
        first = reader.varint(FRAME_CHUNKS)
        if count == 0 or not manifest.packs or first * manifest.chunk_bytes >= plain:
            raise ObjectCorrupt(f"{name} has a chunk table that is never written", name=name)
        yield Run(Frame(pack, offset, stored, plain), first, count)
        covered += count
    if covered != chunks:
        raise ObjectCorrupt(f"{name} locates {covered} of {chunks} chunks", name=name)


def build_runs(located: Sequence[tuple[Frame, int]]) -> tuple[Run, ...]:
    """Join (frame, index in frame) for each chunk into runs."""
    runs: list[Run] = []
    for frame, index in located:
        last = runs[-1] if runs else None
        if last is not None and last.frame == frame and last.first + last.count == index:
            runs[-1] = replace(last, count=last.count + 1)
        else:
            runs.append(Run(frame, index, 1))
    return tuple(runs)
