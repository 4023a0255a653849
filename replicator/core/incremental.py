"""The incremental backup: the newest version of each page changed since the backup before, in frames of packs.

Like a full backup's, its manifest lists tables, which say what lies where; docs/FORMAT.md has the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from replicator.core import varint
from replicator.core.checksum import SHORT_HASH_SIZE, page_hash, short_hash
from replicator.core.errors import ObjectCorrupt
from replicator.core.manifest import PLACE_MAX, TableUse, decode_said, encode_said, read_table
from replicator.core.names import BackupName, FullName, IncrementalName
from replicator.core.pack import Frame, PackUse
from replicator.core.position import GenerationId, Position
from replicator.core.varint import Reader

MAGIC = b"RPLINCR"
# Pages compressed together: as much as the chunks of a full's frame, still small enough to read one alone.
FRAME_BYTES = 256 << 10
# Of some 600 KB: eight bytes a page, and twenty a frame.
TABLE_PAGES = 1 << 16
PGNO_MAX = 0xFFFFFFFE  # fileformat2, 1.3.1
_TABLE_BYTES_MAX = TABLE_PAGES * 60


@dataclass(frozen=True, slots=True)
class PageFrame:
    """A frame that holds pages one behind the other, ascending by number, each with its short hash."""

    frame: Frame
    pgnos: tuple[int, ...]
    hashes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Incremental:
    """What its manifest says. ``parent`` is the id of the backup it lies on, which stands at ``parent_txid`` with
    ``parent_chain``; the rest as in a full backup's manifest. ``pages_stored`` are in its frames."""

    repository: str
    generation: GenerationId
    txid: int
    epoch: int
    page_size: int
    pages: int
    observed: int
    created: int
    chain: str
    checksum: str
    rolling: str
    parent: str
    parent_txid: int
    parent_chain: str
    pages_stored: int
    plain_bytes: int
    stored_bytes: int
    packs: tuple[PackUse, ...]
    tables: tuple[TableUse, ...]
    kind: str = "replicator-incremental"

    @property
    def position(self) -> Position:
        return Position(self.generation, self.txid)

    @property
    def database_bytes(self) -> int:
        return self.pages * self.page_size

    @property
    def name(self) -> IncrementalName:
        return IncrementalName(
            self.observed - self.observed % 1_000_000, self.generation, self.parent_txid, self.txid
        )


def encode_incremental(manifest: Incremental) -> bytes:
    return encode_said(MAGIC, manifest, str(manifest.name))


def decode_incremental(data: bytes, name: str) -> Incremental:
    """The inverse; *name* is the object's name and must be the one the manifest's own values spell."""
    return decode_said(data, name, MAGIC, lambda said: Incremental(**said), _is_proper)


def _is_proper(manifest: Incremental) -> bool:
    return (
        manifest.kind == "replicator-incremental"
        and type(manifest.pages_stored) is int
        and type(manifest.parent_txid) is int
        and 0 <= manifest.parent_txid < manifest.txid
        and manifest.pages_stored >= 0
        and isinstance(manifest.parent, str)
        and len(manifest.parent_chain) == len(manifest.chain)
        and all(each.frame.plain_bytes <= _TABLE_BYTES_MAX for each in manifest.tables)
    )


def is_on(manifest: Incremental, parent: BackupName, chain: str) -> bool:
    """Whether it was made on the backup *parent*, whose manifest says *chain*."""
    return (manifest.parent, manifest.parent_txid, manifest.parent_chain) == (
        parent.backup_id,
        parent.txid,
        chain,
    )


# --- tables --------------------------------------------------------------------------------------------


def page_tables(frames: Sequence[PageFrame]) -> Iterator[bytes]:
    """The tables of all *frames*, each of some 65,536 pages."""
    part: list[PageFrame] = []
    pages = 0
    for each in frames:
        if part and pages + len(each.pgnos) > TABLE_PAGES:
            yield _encode_table(part)
            part, pages = [], 0
        part.append(each)
        pages += len(each.pgnos)
    if part:
        yield _encode_table(part)


def _encode_table(frames: Sequence[PageFrame]) -> bytes:
    out = bytearray()
    for each in frames:
        frame = each.frame
        for value in (frame.pack, frame.offset, frame.stored_bytes, frame.plain_bytes, len(each.pgnos)):
            varint.put(out, value)
        last = 0
        for pgno in each.pgnos:
            varint.put(out, pgno - last)
            last = pgno
        out += struct.pack(f">{len(each.hashes)}I", *each.hashes)
    return bytes(out)


def read_page_frames(
    manifest: Incremental, get_range: Callable[[str, int, int], bytes]
) -> Iterator[PageFrame]:
    """What lies where, table by table. A page may be listed again: what comes later is newer; and beyond the end of the
    database, where that shrank while it was read. Raises ObjectCorrupt."""
    found = 0
    for number in range(len(manifest.tables)):
        for each in _decode_table(read_table(manifest, number, get_range), manifest):
            found += len(each.pgnos)
            yield each
    if found != manifest.pages_stored:
        raise ObjectCorrupt(
            f"{manifest.name} lists {found} pages instead of {manifest.pages_stored}", name=str(manifest.name)
        )


def _decode_table(data: bytes, manifest: Incremental) -> Iterator[PageFrame]:
    reader = Reader(data)
    while reader:
        pack = reader.varint(max(len(manifest.packs) - 1, 0))
        offset = reader.varint(PLACE_MAX)
        stored = reader.varint(2 * FRAME_BYTES + (1 << 17))
        plain = reader.varint(FRAME_BYTES + (1 << 16))
        count = reader.varint(plain // manifest.page_size)
        pgnos: list[int] = []
        last = 0
        for _ in range(count):
            delta = reader.varint(PGNO_MAX - last)
            last += delta
            if delta == 0:
                raise ObjectCorrupt(f"{manifest.name} lists its pages out of order", name=str(manifest.name))
            pgnos.append(last)
        hashes = struct.unpack(f">{count}I", reader.take(SHORT_HASH_SIZE * count))
        if count == 0 or count * manifest.page_size != plain:
            raise ObjectCorrupt(
                f"{manifest.name} has a page table that is never written", name=str(manifest.name)
            )
        yield PageFrame(Frame(pack, offset, stored, plain), tuple(pgnos), hashes)


def pages_in(plain: bytes, each: PageFrame, page_size: int, pack: str) -> Iterator[tuple[int, bytes]]:
    """The pages of an expanded frame, each proved by its hash."""
    for number, (pgno, expected) in enumerate(zip(each.pgnos, each.hashes, strict=True)):
        content = plain[number * page_size : (number + 1) * page_size]
        if short_hash(page_hash(pgno, content)) != expected:
            raise ObjectCorrupt(f"{pack} is damaged: page {pgno} has another hash", name=pack)
        yield pgno, content


def parent_of(backup: BackupName) -> int | None:
    """The position of the backup that *backup* lies on; None for a full."""
    return None if isinstance(backup, FullName) else backup.txid_from
