"""A database in WAL mode under observation: what its log says, and the read transactions that keep it.

Nothing in here commits, resets or changes anything: looks, reads, read transactions, PASSIVE checkpoints,
and as last resort the write barrier (BEGIN IMMEDIATE, then ROLLBACK).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from replicator.core.cursor import Observation
from replicator.core.errors import SourceError
from replicator.core.wal import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    FrameHeader,
    WalHeader,
    frame_offset,
    parse_frame_header,
    parse_header,
)
from replicator.source.checkpoint_lock import CheckpointLock
from replicator.source.connection import (
    FileIdentity,
    MappedSqliteErrors,
    change_of,
    check_path,
    identities_of,
    identity_of,
    log_file_bytes,
    open_connection,
    open_untouched,
    prepare,
    require_wal,
)

_NOOP = apsw.SQLITE_CHECKPOINT_NOOP
_TOUCH = "PRAGMA user_version"  # begins a read transaction without needing a schema that parses
# A writer may be kept from running in the middle of the wal-index header, which cannot be read then: looks that
# gave up after as many attempts, some 10 ms, did so now and then beside ten busy processes on two cores.
_LOOK_ATTEMPTS = 50
_LOOK_SECONDS = 2.0
_BEGIN_ATTEMPTS = 50
# Whoever waits for a slot asks for it after as long again as it has waited, and 2 ms.
_ASKED_SECONDS = 0.003
_ASKED_SECONDS_MAX = 0.1


@dataclass(frozen=True, slots=True)
class HeldMark:
    """Our read transaction: it began when the log held at least ``frames`` frames.

    ``zero``: it began when all of them were in the main file, and holds read mark 0: the next writer may
    restart the log once, and nobody can move a frame of the new log.
    """

    frames: int
    zero: bool


class Database:
    """Connections to one database. Use from one thread at a time, but for ``passive`` and ``main_bytes``,
    which have connections of their own and may run beside the rest, each in one thread."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._mapped = MappedSqliteErrors(self.path)
        self.page_size = 0
        self.identities: tuple[FileIdentity | None, ...] | None = None
        self._observer: apsw.Connection | None = None
        self._readers: list[apsw.Connection | None] = [None, None]
        self._current = 0
        self._checkpointer: apsw.Connection | None = None
        self._scanner: apsw.Connection | None = None
        self._writer: apsw.Connection | None = None
        self._checkpoint_lock: CheckpointLock | None = None
        self._header_bytes = b""
        self._header: WalHeader | None = None
        self._scanning = threading.Lock()
        self._checkpointing = threading.Lock()

    def open(self) -> None:
        """Open and check; raises SourceGone, NotADatabase, NotWalMode or SourceError, with nothing open."""
        check_path(self.path)
        try:
            with self._mapped:
                main = identity_of(self.path)
                self._observer = open_untouched(self.path)
                self.page_size = require_wal(self._observer, self.path)
                prepare(self._observer)
                self._observer.execute(_TOUCH).fetchall()
                self.identities = main, *identities_of(self.path)[1:]
                shm = self.identities[2]
                self._checkpoint_lock = CheckpointLock(shm) if shm is not None else None
        except apsw.BusyError as exc:
            self.close()
            raise SourceError(f"{self.path} is locked by another process: {exc}") from exc
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything; the log stays as it is."""
        with self._scanning, self._checkpointing:
            everyone = [self._observer, self._checkpointer, self._scanner, self._writer, *self._readers]
            for connection in everyone:
                if connection is not None:
                    connection.close()
            self._observer = self._checkpointer = self._scanner = self._writer = None
            self._readers = [None, None]
            self.identities = self._checkpoint_lock = None

    def rest(self) -> None:
        """Close what is only needed while something happens: most databases of many are at rest."""
        spare, self._readers[1 - self._current] = self._readers[1 - self._current], None
        idle = [spare, self._writer]
        self._writer = None
        if self._checkpointing.acquire(blocking=False):
            idle.append(self._checkpointer)
            self._checkpointer = None
            self._checkpointing.release()
        if self._scanning.acquire(blocking=False):
            idle.append(self._scanner)
            self._scanner = None
            self._scanning.release()
        with self._mapped:
            for connection in idle:
                if connection is not None:
                    connection.close()

    def require_open(self) -> None:
        """Raise SourceError once ``close`` was called, for whoever comes from another thread."""
        if self.identities is None:
            raise SourceError(f"{self.path} is not open any more")

    @property
    def replaced(self) -> bool:
        """Whether the paths no longer stand for the files we have open, the log's among them."""
        return identities_of(self.path) != self.identities

    @property
    def main_change(self) -> tuple[int, ...] | None:
        """Compares equal as long as nobody wrote to the main file; a mode or a link that changed is no write."""
        change = change_of(self.path)
        return None if change is None else change[:3]

    @property
    def checkpointed_elsewhere(self) -> bool:
        """Whether another process checkpoints, or waits until it can; True also where nobody can say."""
        return self._checkpoint_lock is None or self._checkpoint_lock.held

    # --- looking ---------------------------------------------------------------------------------------

    def look(self) -> Observation:
        """One consistent look; costs no lock and some microseconds.

        The header is read before and after the counts, so counts of one log are never paired with the
        header of another. SQLite reads one count after the other, so they are asked for twice: a reset in
        between would pair all frames of the old log with none moved, and a mark 0 would pass for another.
        """
        observer = self._observer
        assert observer is not None
        with self._mapped:
            for attempt in itertools.count():
                if attempt == _LOOK_ATTEMPTS:
                    deadline = time.monotonic() + _LOOK_SECONDS
                elif attempt > _LOOK_ATTEMPTS and time.monotonic() >= deadline:
                    break
                before = observer.read("main", 1, 0, HEADER_SIZE)[1]
                try:
                    counts = observer.wal_checkpoint(mode=_NOOP)
                    again = observer.wal_checkpoint(mode=_NOOP)
                except apsw.BusyError:
                    # The wal-index header was being written just then.
                    if attempt > 2:
                        time.sleep(0.0002)
                    continue
                after = observer.read("main", 1, 0, HEADER_SIZE)[1]
                if before == after and counts == again:
                    if after != self._header_bytes:
                        self._header_bytes, self._header = after, parse_header(after)
                    return Observation(self._header, *counts)
        raise SourceError(f"the log of {self.path} never held still for a look")

    def read_frames(self, first: int, count: int) -> bytes:
        """*count* whole frames from index *first* on; they must be committed."""
        length = count * (FRAME_HEADER_SIZE + self.page_size)
        return self._read_log(frame_offset(first, self.page_size), length)

    def frame_header(self, index: int) -> FrameHeader:
        return parse_frame_header(self._read_log(frame_offset(index, self.page_size), FRAME_HEADER_SIZE))

    def holds_more_than(self, seen: Observation) -> bool:
        """Whether the file goes on behind what is committed, with a frame of this log: a commit that waits
        for its fsync to be published, or what a rollback left."""
        if seen.header is None or self._observer is None:
            return False
        offset = frame_offset(seen.frames, self.page_size)
        with self._mapped:
            whole, data = self._observer.read("main", 1, offset, FRAME_HEADER_SIZE)
        return bool(whole) and parse_frame_header(data).salt == seen.header.salt

    def frame_page(self, index: int) -> bytes:
        """The page in frame *index*."""
        return self._read_log(frame_offset(index, self.page_size) + FRAME_HEADER_SIZE, self.page_size)

    def main_page(self, pgno: int) -> bytes:
        """Page *pgno* of the main file; zeros where the file is shorter."""
        assert self._observer is not None
        with self._mapped:
            return self._observer.read("main", 0, (pgno - 1) * self.page_size, self.page_size)[1]

    def main_bytes(self, offset: int, length: int) -> bytes:
        """A run of the main file, through a connection of its own; zeros where the file is shorter."""
        with self._scanning, self._mapped:
            self.require_open()
            if self._scanner is None:
                self._scanner = open_connection(self.path)
            return self._scanner.read("main", 0, offset, length)[1]

    def _read_log(self, offset: int, length: int) -> bytes:
        assert self._observer is not None
        with self._mapped:
            whole, data = self._observer.read("main", 1, offset, length)
        if not whole:
            raise SourceError(f"the log of {self.path} ends before byte {offset + length}")
        return data

    @property
    def log_bytes(self) -> int:
        return log_file_bytes(self.path)

    # --- holding, hand over hand -----------------------------------------------------------------------

    def begin_next(self) -> tuple[HeldMark, Observation]:
        """Begin a read transaction on the free reader; the one before goes on until ``end_previous``.

        Looks before and after tell which kind of read mark it got; where commits came in between so that
        they cannot, it is begun anew. Returns the look after, too.
        """
        with self._mapped:
            reader = self._readers[1 - self._current] or open_connection(self.path)
            self._readers[1 - self._current] = reader
            _rollback(reader)  # left open where a step failed between begin and end
            for _ in range(_BEGIN_ATTEMPTS):
                began = time.monotonic()
                before = self.look()
                try:
                    reader.execute("BEGIN").fetchall()
                    reader.execute(_TOUCH).fetchall()
                except apsw.BusyError:
                    _rollback(reader)
                    continue
                after = self.look()
                if before == after:
                    return HeldMark(before.frames, after.fully_backfilled), after
                same_log = before.header == after.header and before.frames <= after.frames
                if same_log and after.backfilled < before.frames:
                    return HeldMark(before.frames, zero=False), after
                _rollback(reader)
                if self.checkpointed_elsewhere:
                    # It may have begun to wait for the slot we just had: begun anew, we would have that again,
                    # with the log's end for a mark, and rest there.
                    waited = time.monotonic() - began
                    time.sleep(min(_ASKED_SECONDS + 2 * waited, _ASKED_SECONDS_MAX))
        raise SourceError(f"no read transaction could be begun on {self.path}")

    def end_previous(self) -> None:
        """End the older read transaction; the newer one is the one held from now on."""
        current = self._readers[self._current]
        if current is not None:
            with self._mapped:
                _rollback(current)
        self._current = 1 - self._current

    def page_count(self) -> int:
        """Size of the database in pages as the newest read transaction sees it."""
        reader = self._readers[1 - self._current]
        if reader is None or not reader.in_transaction:
            reader = self._readers[self._current]
        assert reader is not None
        with self._mapped:
            return int(str(reader.execute("PRAGMA page_count").fetchall()[0][0]))

    # --- checkpoints -----------------------------------------------------------------------------------

    def passive(self) -> bool:
        """Move frames up to our own read mark at most; False where somebody else is at it just now."""
        with self._checkpointing, self._mapped:
            self.require_open()
            if self._checkpointer is None:
                self._checkpointer = open_connection(self.path)
                self._checkpointer.execute(_TOUCH).fetchall()
            try:
                self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.BusyError:
                return False
            return True

    def passive_under_barrier(self, patience: float) -> None:
        """A PASSIVE on the observer while writers are kept out. One of the application's that is at work
        just then is waited for, for at most *patience* seconds."""
        assert self._observer is not None
        deadline = time.monotonic() + patience
        with self._mapped:
            while True:
                try:
                    self._observer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                    return
                except apsw.BusyError:
                    if time.monotonic() >= deadline:
                        return
                    time.sleep(0.0005)

    def truncate(self) -> bool:
        """Cut the log file. Only while our mark is zero and nothing is new: else SQLite answers busy."""
        assert self._observer is not None
        with self._mapped:
            try:
                self._observer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
            return True

    @contextlib.contextmanager
    def barrier(self, patience: float) -> Iterator[bool]:
        """Keep every writer out, writing nothing; False where no gap was found within *patience* seconds.

        A PASSIVE of our own that is under way is waited for first, not while writers wait.
        """
        with self._checkpointing, self._mapped:
            if self._writer is None:
                self._writer = open_connection(self.path)
            taken = self._take_write_lock(self._writer, time.monotonic() + patience)
        try:
            yield taken
        finally:
            _rollback(self._writer)

    def _take_write_lock(self, writer: apsw.Connection, deadline: float) -> bool:
        """Mostly without sleeping: between two commits of a busy writer there are some ten microseconds, and
        the shortest sleep is longer."""
        for attempt in itertools.count(1):
            try:
                writer.execute("BEGIN IMMEDIATE").fetchall()
                return True
            except apsw.BusyError:
                if time.monotonic() >= deadline:
                    return False
                if attempt % 16 == 0:
                    time.sleep(0.0001)
        raise AssertionError("unreachable")


def _rollback(connection: apsw.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK").fetchall()
