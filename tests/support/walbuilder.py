"""Writes the bytes of a `-wal` file from a description, as the second opinion on everything that reads one.

Must never import the package under test: the layout and the checksum loop are taken straight from SQLite's
file format document, section 4, "The Write-Ahead Log", and are as plain and slow as they stand there.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

# The last bit of the magic says in which byte order checksums read their words. The checksums themselves and
# all other fields are big-endian in both.
LITTLE_ENDIAN_MAGIC = 0x377F0682
BIG_ENDIAN_MAGIC = 0x377F0683
VERSION = 3007000
HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24


@dataclass(frozen=True)
class FrameSpec:
    """One frame. *commit_pages* > 0 makes it a commit frame and is the database's size in pages then.

    *salts* and *checksum* are for frames that are wrong on purpose; None means right. A wrong checksum is
    carried on by the frames behind it, as a writer that miscounted once would.
    """

    pgno: int
    content: bytes
    commit_pages: int = 0
    salts: tuple[int, int] | None = None
    checksum: tuple[int, int] | None = None


@dataclass(frozen=True)
class WalSpec:
    """A whole log. `build` does not check it: descriptions of impossible files are welcome."""

    frames: tuple[FrameSpec, ...] = ()
    page_size: int = 4096
    magic: int = LITTLE_ENDIAN_MAGIC
    salts: tuple[int, int] = (0x01020304, 0x0A0B0C0D)
    checkpoint_seq: int = 0
    version: int = VERSION
    checksum: tuple[int, int] | None = None

    def with_commit(self, pages: dict[int, bytes], commit_pages: int) -> "WalSpec":
        """Add one transaction: a frame per page in the order given, the last of them the commit frame."""
        added = [FrameSpec(pgno, content) for pgno, content in pages.items()]
        added[-1] = replace(added[-1], commit_pages=commit_pages)
        return replace(self, frames=(*self.frames, *added))


def build(spec: WalSpec) -> bytes:
    """Return the file's bytes, every checksum computed unless the description gives one."""
    # Four bytes hold 65536 as it is; only the two bytes of the database's own header write it as 1.
    header = struct.pack(">6I", spec.magic, spec.version, spec.page_size, spec.checkpoint_seq, *spec.salts)
    sums = spec.checksum or checksum(header, (0, 0), magic=spec.magic)
    parts = [header, struct.pack(">2I", *sums)]
    for frame in spec.frames:
        start = struct.pack(">2I", frame.pgno, frame.commit_pages)
        sums = frame.checksum or checksum(start + frame.content, sums, magic=spec.magic)
        parts += [start, struct.pack(">4I", *(frame.salts or spec.salts), *sums), frame.content]
    return b"".join(parts)


def checksum(content: bytes, start: tuple[int, int], *, magic: int) -> tuple[int, int]:
    """Continue the running checksum over *content*, a multiple of 8 bytes long."""
    s0, s1 = start
    order = ">" if magic & 1 else "<"
    for x0, x1 in struct.iter_unpack(f"{order}2I", content):
        s0 = (s0 + x0 + s1) & 0xFFFFFFFF
        s1 = (s1 + x1 + s0) & 0xFFFFFFFF
    return s0, s1


def describe(wal: bytes) -> WalSpec:
    """Read a log's fields back as they stand, judging nothing: frames of older logs and torn sums included.

    Every stored checksum is in the description, so `build` returns the very same bytes; `unsummed` makes it
    compute them instead. Bytes behind the last whole frame are left out.
    """
    magic, version, page_size, checkpoint_seq, *rest = struct.unpack(">8I", wal[:HEADER_BYTES])
    frames = []
    size = frame_bytes(page_size)
    for start in range(HEADER_BYTES, len(wal) - size + 1, size):
        pgno, commit_pages, salt1, salt2, s0, s1 = struct.unpack_from(">6I", wal, start)
        content = wal[start + FRAME_HEADER_BYTES : start + size]
        frames.append(FrameSpec(pgno, content, commit_pages, (salt1, salt2), (s0, s1)))
    salts, sums = (rest[0], rest[1]), (rest[2], rest[3])
    return WalSpec(tuple(frames), page_size, magic, salts, checkpoint_seq, version, sums)


def unsummed(spec: WalSpec) -> WalSpec:
    """Forget the stored checksums, and the frames from the first that has other salts on."""
    frames: list[FrameSpec] = []
    for frame in spec.frames:
        if frame.salts not in (None, spec.salts):
            break
        frames.append(replace(frame, checksum=None))
    return replace(spec, frames=tuple(frames), checksum=None)


def frame_bytes(page_size: int) -> int:
    return FRAME_HEADER_BYTES + page_size


def frame_start(frame_index: int, page_size: int) -> int:
    """Return the offset of a frame's header; *frame_index* counts from 0."""
    return HEADER_BYTES + frame_index * frame_bytes(page_size)


def over_older(newer: bytes, older: bytes) -> bytes:
    """Return what the file holds after a reset: the newer log over the start of the older."""
    return newer + older[len(newer) :]


def torn(wal: bytes, size: int, *, sector: int = 0) -> bytes:
    """Return the log as a power cut leaves it: cut at *size*, or zero from there on for *sector* bytes."""
    if sector:
        return wal[:size] + bytes(len(wal[size : size + sector])) + wal[size + sector :]
    return wal[:size]


def flipped(wal: bytes, offset: int, mask: int = 1) -> bytes:
    """Return the log with some bits of one byte inverted."""
    return wal[:offset] + bytes([wal[offset] ^ mask]) + wal[offset + 1 :]


def pages_of(database: bytes, page_size: int, pgnos: Sequence[int] | None = None) -> dict[int, bytes]:
    """Cut a database file's bytes into pages, all of them or those asked for."""
    wanted = range(1, len(database) // page_size + 1) if pgnos is None else pgnos
    return {pgno: database[(pgno - 1) * page_size : pgno * page_size] for pgno in wanted}
