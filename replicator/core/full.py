"""The full backup: a manifest over de-duplicated chunks, and the packs the new chunks lie in.

A chunk is a fixed, page-aligned run of the database file. Runs of new chunks are compressed together into
frames (eight times better use of zstd's window than chunk by chunk, still small enough to read one alone);
frames lie one behind the other in a pack. The manifest alone commits the backup. docs/FORMAT.md has the bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from replicator.core import varint, zstd
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.names import FullName, PackName, parse_name
from replicator.core.position import GenerationId, Position
from replicator.core.unit import TRAILER_SIZE
from replicator.core.varint import Reader

MANIFEST_MAGIC = b"RPLFULL"
PACK_MAGIC = b"RPLPACK"
VERSION = 1
HASH_SIZE = 32

# Two fulls of a board a thousand operations apart share most of their chunks at 4 KiB, few at 64 KiB;
# a hash costs 32 bytes that never compress. 16 KiB keeps the manifest at 0.2 % of the database.
CHUNK_BYTES = 16 << 10
FRAME_CHUNKS = 16
# A pack is final in memory before its first put, so its size is what a full backup costs in memory.
PACK_BYTES = 8 << 20

_HEAD = struct.Struct(">7sBII")  # magic, version, JSON length, locator length
HEAD_SIZE = _HEAD.size
_JSON_BYTES_MAX = 64 << 20
_PAGES_MAX = 0xFFFFFFFE
# What a reader may have to hold of one frame follows from it: far above what we write.
_CHUNK_BYTES_MAX = 1 << 20
MANIFEST_BYTES_MAX = 16 << 30


def chunk_bytes_for(page_size: int) -> int:
    """Chunk size of a database: whole pages, at least one."""
    return max(CHUNK_BYTES, page_size)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where some chunks lie: compressed together at ``offset`` of pack number ``pack``."""

    pack: int
    offset: int
    stored_bytes: int
    plain_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """``count`` consecutive chunks of the database, found in ``frame`` from its chunk ``first`` on."""

    frame: Frame
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """All that a manifest says but its chunk table. ``packs`` are object names; times in microseconds."""

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
    packs: tuple[str, ...]
    stored_bytes: int
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


@dataclass(frozen=True, slots=True)
class Manifest:
    """``hashes`` holds 32 bytes a chunk, in order; ``runs`` cover the same chunks in the same order."""

    head: ManifestHead
    hashes: bytes
    runs: tuple[Run, ...]


def pack_extents(manifest: Manifest) -> dict[str, int]:
    """How many bytes of each pack, counted from its beginning, the manifest needs."""
    extents = dict.fromkeys(manifest.head.packs, 0)
    for run in manifest.runs:
        pack = manifest.head.packs[run.frame.pack]
        extents[pack] = max(extents[pack], run.frame.offset + run.frame.stored_bytes)
    return extents


def chunk_hash(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest's final bytes, ending in the SHA-256 of all before it."""
    locators = bytearray()
    for run in manifest.runs:
        frame = run.frame
        for value in (run.count, frame.pack, frame.offset, frame.stored_bytes, frame.plain_bytes, run.first):
            varint.put(locators, value)
    text = json.dumps(asdict(manifest.head), indent=1).encode()
    body = b"".join(
        (_HEAD.pack(MANIFEST_MAGIC, VERSION, len(text), len(locators)), text, locators, manifest.hashes)
    )
    return body + hashlib.sha256(body).digest()


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The inverse; *name* is the object's name and must be the one the manifest's own values spell."""
    if len(data) < HEAD_SIZE + HASH_SIZE:
        raise ObjectCorrupt(f"{name} is cut off after {len(data)} bytes")
    magic, version, text_bytes, locator_bytes = _HEAD.unpack_from(data)
    if magic != MANIFEST_MAGIC:
        raise ObjectCorrupt(f"{name} is not a manifest: it does not begin with RPLFULL")
    if version != VERSION:
        raise FormatTooNew(
            f"{name} is of format {version}, this program reads format {VERSION}",
            hint="use a newer version of replicator",
        )
    if hashlib.sha256(memoryview(data)[:-HASH_SIZE]).digest() != data[-HASH_SIZE:]:
        raise ObjectCorrupt(f"{name} does not have the digest it was written with")
    table = HEAD_SIZE + text_bytes
    if text_bytes > _JSON_BYTES_MAX or table + locator_bytes + HASH_SIZE > len(data):
        raise ObjectCorrupt(f"{name} claims parts larger than itself")
    head = _decode_head(data[HEAD_SIZE:table], name)
    hashes = data[table + locator_bytes : -HASH_SIZE]
    if len(hashes) != head.chunks * HASH_SIZE:
        raise ObjectCorrupt(f"{name} holds {len(hashes)} bytes of hashes for {head.chunks} chunks")
    runs = tuple(_read_runs(Reader(data, table, table + locator_bytes), head, name))
    return Manifest(head, hashes, runs)


_INTEGERS = ("txid", "epoch", "page_size", "pages", "chunk_bytes", "observed", "created", "stored_bytes")
_HEX = re.compile("[0-9a-f]+")


def _decode_head(text: bytes, name: str) -> ManifestHead:
    try:
        loaded: dict[str, Any] = json.loads(text)
        packs = tuple(str(pack) for pack in loaded.pop("packs"))
        head = ManifestHead(packs=packs, **loaded)
        proper = (
            head.kind == "replicator-full"
            and all(type(getattr(head, each)) is int for each in _INTEGERS)
            and all(
                _HEX.fullmatch(getattr(head, each)) for each in ("repository", "chain", "checksum", "rolling")
            )
            and len(head.repository) == 32
            and 512 <= head.page_size <= 65536
            and head.page_size & (head.page_size - 1) == 0
            and 0 < head.pages <= _PAGES_MAX
            and head.chunk_bytes % head.page_size == 0
            and 0 < head.chunk_bytes <= _CHUNK_BYTES_MAX
            and 0 <= head.txid < 1 << 64
            and all(isinstance(parse_name(pack), PackName) for pack in packs)
            and len(head.checksum) == len(head.rolling) == 16
            and len(head.chain) == 2 * TRAILER_SIZE
            and str(head.name) == name
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ObjectCorrupt(f"{name} has a header that is never written: {exc}") from exc
    if not proper:
        raise ObjectCorrupt(f"{name} has a header that is never written, or lies under a name not its own")
    return head


def _read_runs(reader: Reader, head: ManifestHead, name: str) -> Iterable[Run]:
    covered = 0
    frame_max = FRAME_CHUNKS * head.chunk_bytes
    while reader:
        count = reader.varint(head.chunks - covered)
        pack = reader.varint(max(len(head.packs) - 1, 0))
        offset = reader.varint(1 << 48)
        stored = reader.varint(2 * frame_max + 1024)
        plain = reader.varint(frame_max)
        first = reader.varint(FRAME_CHUNKS)
        if count == 0 or not head.packs or first * head.chunk_bytes >= plain:
            raise ObjectCorrupt(f"{name} has a chunk table that is never written")
        yield Run(Frame(pack, offset, stored, plain), first, count)
        covered += count
    if covered != head.chunks:
        raise ObjectCorrupt(f"{name} locates {covered} of {head.chunks} chunks")


def compress_chunks(chunks: Sequence[bytes]) -> tuple[bytes, int]:
    """At most 16 chunks together, and how long they are plain."""
    plain = b"".join(chunks)
    return zstd.compress(plain), len(plain)


class PackBuilder:
    """Collects new chunks into frames and frames into packs; the caller puts what ``full`` packs it gets.

    Frames of the pack under construction carry the pack number that ``take`` will give it.
    """

    def __init__(self, first_pack: int) -> None:
        self._pack = first_pack
        self._out = bytearray(PACK_MAGIC + bytes([VERSION]))

    @property
    def size(self) -> int:
        return len(self._out)

    def add(self, stored: bytes, plain_bytes: int) -> Frame:
        """What ``compress_chunks`` gave, as one frame of the current pack."""
        frame = Frame(self._pack, len(self._out), len(stored), plain_bytes)
        self._out += stored
        return frame

    def take(self) -> bytes | None:
        """The finished pack, if it holds anything; the next one is begun."""
        if len(self._out) == len(PACK_MAGIC) + 1:
            return None
        pack = bytes(self._out)
        self._out = bytearray(PACK_MAGIC + bytes([VERSION]))
        self._pack += 1
        return pack


def expand_frame(frame: Frame, stored: bytes, pack: str) -> bytes:
    """The plain chunks of *frame*, one behind the other."""
    try:
        return zstd.expand(stored, frame.plain_bytes)
    except zstd.ZstdError as exc:
        raise ObjectCorrupt(f"{pack} is damaged at byte {frame.offset}: {exc}") from exc


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
