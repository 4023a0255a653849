"""Chunks of a full backup in the making: described, compressed where no earlier full has them, put into its table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from replicator.backup.earlier import Earlier
from replicator.backup.packs import PackWriter
from replicator.core.checksum import pages_checksum
from replicator.core.chunk_table import ChunkTable
from replicator.core.codec import Compression
from replicator.core.full import chunk_hash
from replicator.core.pack import Frame, encode_frame
from replicator.moment import Followed


@dataclass(slots=True)
class FullWork:
    """One full backup in the making."""

    followed: Followed
    table: ChunkTable
    earlier: Earlier
    writer: PackWriter
    page_size: int
    chunk_bytes: int
    compression: Compression
    verification: bool
    hashes: str
    hash_key: bytes | None
    chunks_new: int = 0
    plain_bytes: int = 0

    @property
    def pages_per_chunk(self) -> int:
        return self.chunk_bytes // self.page_size

    def chunks_of(self, pgnos: Iterable[int]) -> set[int]:
        return {(pgno - 1) // self.pages_per_chunk for pgno in pgnos}


@dataclass(frozen=True, slots=True)
class Described:
    """A chunk, and where an earlier full has it."""

    index: int
    digest: bytes
    checksum: int
    earlier: tuple[Frame, int] | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Neighbouring chunks; those that no earlier full has are in ``stored``, compressed together."""

    chunks: list[Described]
    stored: bytes
    plain_bytes: int


def prepare(work: FullWork, indexes: list[int], chunks: list[bytes]) -> Prepared:
    """The part of it that takes time: hash chunks, and compress those that an earlier full does not hold."""
    found: list[Described] = []
    new: list[bytes] = []
    for index, content in zip(indexes, chunks, strict=True):
        digest = chunk_hash(content, work.hash_key)
        checksum = pages_checksum(content, index * work.pages_per_chunk + 1, work.page_size)
        earlier = work.earlier.find(index, digest)
        found.append(Described(index, digest, checksum, earlier))
        if earlier is None:
            new.append(content)
    plain = b"".join(new)
    return Prepared(found, encode_frame(plain, work.compression) if new else b"", len(plain))


def take(work: FullWork, prepared: Prepared) -> None:
    """Into the table, and what is new into the pack; in the order of the file."""
    new: list[int] = []
    for each in prepared.chunks:
        work.table.describe(each.index, each.digest, each.checksum)
        if each.earlier is not None:
            work.table.locate([each.index], *each.earlier)
        else:
            new.append(each.index)
    if new:
        work.table.locate(new, work.writer.add(prepared.stored, prepared.plain_bytes))
        work.chunks_new += len(new)
        work.plain_bytes += prepared.plain_bytes
