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
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from replicator.core import varint
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.named_digest import DIGEST_SIZE, digest_of, has_digest
from replicator.core.names import FullName, PackName, parse_name
from replicator.core.pack import Frame, PackUse, read_frame
from replicator.core.position import GenerationId, Position
from replicator.core.unit import TRAILER_SIZE
from replicator.core.varint import Reader

MANIFEST_MAGIC = b"RPLFULL"
VERSION = 1
HASH_SIZE = 32

# Two fulls of a board a thousand operations apart share most of their chunks at 4 KiB, few at 64 KiB;
# a hash costs 32 bytes that never compress. 16 KiB keeps the tables at 0.2 % of the database.
CHUNK_BYTES = 16 << 10
FRAME_CHUNKS = 16
# Of a gibibyte in chunks of 16 KiB; a table is some 2.5 MB then.
TABLE_CHUNKS = 1 << 16

_HEAD = struct.Struct(">7sBI")  # magic, version, length of the JSON
HEAD_SIZE = _HEAD.size
_PAGES_MAX = 0xFFFFFFFE
# What a reader may have to hold of one frame follows from it: far above what we write.
_CHUNK_BYTES_MAX = 1 << 20
# 80 bytes of names for 8 MiB of database, so this is a hundred terabytes.
MANIFEST_BYTES_MAX = 1 << 30
_TABLE_HEAD = struct.Struct(">I")  # length of the locators
_LOCATOR_BYTES_MAX = 6 * 10

SHA256 = "sha256"
_HASHES = re.compile(r"sha256|hmac-sha256:[0-9a-f]{16}")


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
    tables: tuple[Frame, ...]
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
    said = asdict(manifest)
    said["packs"] = [[pack.name, pack.size_bytes] for pack in manifest.packs]
    said["tables"] = [
        [each.pack, each.offset, each.stored_bytes, each.plain_bytes] for each in manifest.tables
    ]
    text = json.dumps(said, indent=1).encode()
    body = _HEAD.pack(MANIFEST_MAGIC, VERSION, len(text)) + text
    return body + digest_of(body, str(manifest.name))


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The inverse; *name* is the object's name and must be the one the manifest's own values spell."""
    if len(data) < HEAD_SIZE + DIGEST_SIZE:
        raise ObjectCorrupt(f"{name} is cut off after {len(data)} bytes", name=name)
    magic, version, text_bytes = _HEAD.unpack_from(data)
    if magic != MANIFEST_MAGIC:
        raise ObjectCorrupt(f"{name} is not a manifest: it does not begin with RPLFULL", name=name)
    if version != VERSION:
        raise FormatTooNew(
            f"{name} is of format {version}, this program reads format {VERSION}",
            hint="use a newer version of replicator",
        )
    if not has_digest(data, name):
        raise ObjectCorrupt(f"{name} does not have the digest it was written with", name=name)
    if HEAD_SIZE + text_bytes + DIGEST_SIZE != len(data) or len(data) > MANIFEST_BYTES_MAX:
        raise ObjectCorrupt(f"{name} does not have the length it says", name=name)
    try:
        manifest = _from_json(data[HEAD_SIZE:-DIGEST_SIZE])
        proper = _is_proper(manifest) and str(manifest.name) == name
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ObjectCorrupt(f"{name} has a header that is never written: {exc}", name=name) from exc
    if not proper:
        raise ObjectCorrupt(
            f"{name} has a header that is never written, or lies under a name not its own", name=name
        )
    return manifest


def _from_json(text: bytes) -> Manifest:
    loaded: dict[str, Any] = json.loads(text)
    packs = tuple(PackUse(name, size) for name, size in loaded.pop("packs"))
    tables = tuple(Frame(*each) for each in loaded.pop("tables"))
    return Manifest(packs=packs, tables=tables, **loaded)


_INTEGERS = (
    "txid", "epoch", "page_size", "pages", "chunk_bytes", "observed", "created", "chunks_new", "plain_bytes",
    "stored_bytes",
)  # fmt: skip
_HEX = re.compile("[0-9a-f]+")


def _is_proper(manifest: Manifest) -> bool:
    """Whether every value is one that we write."""
    return (
        manifest.kind == "replicator-full"
        and all(type(getattr(manifest, each)) is int for each in _INTEGERS)
        and all(
            _HEX.fullmatch(getattr(manifest, each)) for each in ("repository", "chain", "checksum", "rolling")
        )
        and len(manifest.repository) == 32
        and len(manifest.checksum) == len(manifest.rolling) == 16
        and len(manifest.chain) == 2 * TRAILER_SIZE
        and 512 <= manifest.page_size <= 65536
        and manifest.page_size & (manifest.page_size - 1) == 0
        and 0 < manifest.pages <= _PAGES_MAX
        and manifest.chunk_bytes % manifest.page_size == 0
        and 0 < manifest.chunk_bytes <= _CHUNK_BYTES_MAX
        and 0 <= manifest.txid < 1 << 64
        and bool(_HASHES.fullmatch(manifest.hashes))
        and _has_proper_places(manifest)
    )


def _has_proper_places(manifest: Manifest) -> bool:
    return (
        all(
            isinstance(parse_name(pack.name), PackName) and type(pack.size_bytes) is int
            for pack in manifest.packs
        )
        and len(manifest.tables) == -(-manifest.chunks // TABLE_CHUNKS)
        and all(
            all(type(value) is int for value in (each.pack, each.offset, each.stored_bytes, each.plain_bytes))
            and 0 <= each.pack < len(manifest.packs)
            and each.offset >= 0
            and 0 < each.stored_bytes <= 2 * each.plain_bytes + 1024
            and each.plain_bytes
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
    """The inverse, of table *number*. Raises ObjectCorrupt."""
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
    for number, frame in enumerate(manifest.tables):
        yield decode_table(read_frame(frame, manifest.packs, get_range), manifest, number)


def _read_runs(reader: Reader, manifest: Manifest, chunks: int, name: str) -> Iterable[Run]:
    covered = 0
    frame_max = FRAME_CHUNKS * manifest.chunk_bytes
    while reader:
        count = reader.varint(chunks - covered)
        pack = reader.varint(max(len(manifest.packs) - 1, 0))
        offset = reader.varint(1 << 48)
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
