"""Any page of the database as it was at the last captured commit.

It is the newest captured frame of that page in the log, else the main file's page: no checkpoint writes a
page to the main file that has no frame in the log, and none passes our read mark, which never lies beyond
what is captured. Only frames from before we held a mark break that rule; their pages are ``unsure``. And while
read mark 0 is held, the next writer may write over the frames that lay in the log when it was taken; they are all
in the main file then, which nobody writes to, and are forgotten (``moved``).
"""

from __future__ import annotations

from collections.abc import Iterable

from replicator.core.checksum import page_hash, pages_checksum
from replicator.core.cursor import Observation
from replicator.core.wal import FRAME_HEADER_SIZE, LoggedTransaction, Salt, TransactionScan
from replicator.source.database import Database

# One read call for many frames; larger pieces gained nothing (measured up to 1 MiB) and cost memory.
PIECE_BYTES = 512 << 10


class CapturedPages:
    """Follows capture: ``advance`` after each transaction, ``restart`` when the log begins anew."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._latest: dict[int, int] = {}
        self._unsure: set[int] = set()
        self._window_first = 0
        self._window = b""

    def restart(self) -> None:
        """The log was reset: all that was captured is in the main file."""
        self._latest.clear()
        self._window = b""

    def moved(self, frames: int) -> None:
        """The first *frames* frames are in the main file, and it stays as it is: from now on they may be
        written over, and nobody writes to it (read mark 0)."""
        self._latest = {pgno: index for pgno, index in self._latest.items() if index >= frames}

    def distrust(self, pgnos: Iterable[int]) -> None:
        """Their version in the main file may be newer than the last captured commit."""
        self._unsure.update(pgno for pgno in pgnos if pgno not in self._latest)

    def advance(self, transaction: LoggedTransaction) -> None:
        self._latest.update(transaction.frames)
        if self._unsure:
            self._unsure.difference_update(transaction.frames)

    def unsettled(self, seen: Observation, captured: int) -> set[int]:
        """Pages with captured frames whose newest captured version may not be in the main file (yet). The
        main file's version of any other page changes only after it is captured again.

        A checkpoint that stops at our mark passes over each page that has a newer frame behind it, and each
        beyond the end of the database as its newest commit says, and counts their frames as moved all the
        same (sqlite3WalCheckpoint; tests/traps/test_passed_over.py). What it passed over then lies among the
        frames that are not *captured* yet.
        """
        if seen.backfilled >= seen.frames:
            return set()
        newer: set[int] = set()
        end = 1 << 32
        if captured < seen.frames and seen.header is not None:
            for each in self.scan(captured, seen.frames, seen.header.salt, bytes_max=1 << 62):
                newer.update(each.frames)
                end = min(end, each.commit_pages)
        return {
            pgno
            for pgno, index in self._latest.items()
            if index >= seen.backfilled or pgno in newer or pgno > end
        }

    def before(self, pgno: int) -> bytes | None:
        """The version at the last captured commit; None where it is not at hand."""
        index = self._latest.get(pgno)
        if index is not None:
            return self._database.frame_page(index)
        return None if pgno in self._unsure else self._database.main_page(pgno)

    def frame(self, index: int) -> bytes:
        """The page in frame *index*, from the piece just scanned where it lies in it."""
        stride = FRAME_HEADER_SIZE + self._database.page_size
        start = (index - self._window_first) * stride + FRAME_HEADER_SIZE
        if index >= self._window_first and start + self._database.page_size <= len(self._window):
            return self._window[start : start + self._database.page_size]
        return self._database.frame_page(index)

    def scan(
        self, first: int, end: int, salt: Salt, *, bytes_max: int, keep: int = 0
    ) -> list[LoggedTransaction]:
        """The transactions in frames *first* to *end* (of which the last is a commit frame), read until
        *bytes_max* is passed, but at least one. The first *keep* bytes stay at hand for ``frame``."""
        stride = FRAME_HEADER_SIZE + self._database.page_size
        piece_frames = max(1, PIECE_BYTES // stride)
        scan = TransactionScan(page_size=self._database.page_size, salt=salt, first_frame=first)
        pieces: list[bytes] = []
        index = first
        while index < end and not (scan.done and (index - first) * stride > bytes_max):
            count = min(piece_frames, end - index)
            piece = self._database.read_frames(index, count)
            scan.feed(piece)
            if (index - first) * stride < keep:
                pieces.append(piece)
            index += count
        self._window_first, self._window = first, b"".join(pieces)
        return scan.done

    def forget_window(self) -> None:
        self._window = b""

    def database_checksum(self, pages: int) -> int | None:
        """The checksum of the whole database at the last captured commit, read once through (about 0.3 s a
        GiB); None where some page's version is not at hand. The caller keeps the read mark where it is."""
        if self._unsure:
            return None
        size = self._database.page_size
        step = max(1, PIECE_BYTES // size)
        logged = sorted(pgno for pgno in self._latest if pgno <= pages)
        total = at = 0
        for first in range(1, pages + 1, step):
            count = min(step, pages + 1 - first)
            piece = self._database.main_bytes((first - 1) * size, count * size)
            total ^= pages_checksum(piece, first, size)
            while at < len(logged) and logged[at] < first + count:
                # Out with what was just read of it (a checkpoint may be writing it), in with the frame.
                pgno = logged[at]
                start = (pgno - first) * size
                total ^= page_hash(pgno, piece[start : start + size])
                total ^= page_hash(pgno, self._database.frame_page(self._latest[pgno]))
                at += 1
        return total
