"""The bytes of SQLite's `-wal` file: its header, its frames, its transactions.

Source: fileformat2.html section 4 and the header comment of SQLite's src/wal.c. Which frames are committed
is not decided here: SQLite's own count says so, and only frames within that count are ever handed in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from replicator.core.errors import SourceError

HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24

_MAGIC_LITTLE = 0x377F0682
_MAGIC_BIG = 0x377F0683
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_FRAME_HEAD = struct.Struct(">4I")


class Salt(NamedTuple):
    """Drawn anew at every reset of the log and copied into each of its frames."""

    salt1: int
    salt2: int

    def __str__(self) -> str:
        return f"{self.salt1:08x}/{self.salt2:08x}"


class WalChecksum(NamedTuple):
    """SQLite's running checksum over the header and all frames so far."""

    s0: int
    s1: int


@dataclass(frozen=True, slots=True)
class WalHeader:
    page_size: int
    checkpoint_seq: int
    salt: Salt
    checksum: WalChecksum


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """``commit_pages`` is the size of the database in pages after a commit frame, 0 in any other."""

    pgno: int
    commit_pages: int
    salt: Salt
    checksum: WalChecksum


@dataclass(slots=True)
class LoggedTransaction:
    """One committed transaction as it lies in the log.

    ``frames`` maps each page number to the index (from 0) of its last frame; a transaction that spilled may
    have written a page more than once. ``end`` is the frame count of the log after its commit frame.
    """

    end: int = 0
    commit_pages: int = 0
    frames: dict[int, int] = field(default_factory=dict)


def parse_header(data: bytes) -> WalHeader | None:
    """The header of a log, or None where there is none yet (a file that is empty, short or zeroed)."""
    if len(data) < HEADER_SIZE:
        return None
    magic, _version, page_size, seq, salt1, salt2, s0, s1 = _HEADER.unpack_from(data)
    if magic not in (_MAGIC_LITTLE, _MAGIC_BIG):
        return None
    if page_size < 512 or page_size > 65536 or page_size & (page_size - 1):
        return None
    return WalHeader(page_size, seq, Salt(salt1, salt2), WalChecksum(s0, s1))


def parse_frame_header(data: bytes) -> FrameHeader:
    pgno, commit, salt1, salt2, s0, s1 = _FRAME.unpack_from(data)
    return FrameHeader(pgno, commit, Salt(salt1, salt2), WalChecksum(s0, s1))


def frame_offset(index: int, page_size: int) -> int:
    """Where frame *index* (from 0) begins in the file."""
    return HEADER_SIZE + index * (FRAME_HEADER_SIZE + page_size)


class TransactionScan:
    """Collects the transactions in consecutive frames that are known to be committed.

    Feed it runs of whole frames in order; ``done`` holds the transactions that are complete. Frames behind
    the last commit frame stay pending for the next run.
    """

    def __init__(self, *, page_size: int, salt: Salt, first_frame: int) -> None:
        self._stride = FRAME_HEADER_SIZE + page_size
        self._salt = salt
        self._index = first_frame
        self._pending = LoggedTransaction()
        self.done: list[LoggedTransaction] = []

    def feed(self, frames: bytes) -> None:
        """Take a run of whole frames.

        Raises SourceError if a frame cannot have been committed to this log: it carries another salt, or
        page number 0, which SQLite never writes.
        """
        salt1, salt2 = self._salt
        pending = self._pending
        for offset in range(0, len(frames), self._stride):
            pgno, commit, frame_salt1, frame_salt2 = _FRAME_HEAD.unpack_from(frames, offset)
            if frame_salt1 != salt1 or frame_salt2 != salt2 or pgno == 0:
                raise SourceError(f"frame {self._index} of the log does not belong to it (page {pgno})")
            pending.frames[pgno] = self._index
            self._index += 1
            if commit:
                pending.end, pending.commit_pages = self._index, commit
                self.done.append(pending)
                pending = self._pending = LoggedTransaction()

    @property
    def complete(self) -> bool:
        """Whether the last frame fed was a commit frame."""
        return not self._pending.frames
