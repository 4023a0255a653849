"""The file a database is restored into: a temporary one beside its destination, or nothing at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable

from replicator.core.checksum import pages_checksum
from replicator.core.neighbours import neighbours
from replicator.files import FILE_MODE
from replicator.restore.destination import RefusingErrors, temporary_of

# Pages changed by units are kept until there are this many bytes of them: most are changed again soon.
OVERLAY_BYTES = 32 << 20
_PIECE_BYTES = 1 << 20


class Image:
    """Pages by number, written through a bounded overlay. ``discard`` leaves nothing behind."""

    def __init__(self, destination: str, page_size: int) -> None:
        self.path = temporary_of(os.path.abspath(destination), secrets.token_hex(4))
        self.page_size = page_size
        self.pages = 0
        self._overlay: dict[int, bytes] = {}
        self._reading = RefusingErrors(f"cannot read {self.path}")
        self._writing = RefusingErrors(f"cannot write {self.path}")
        with self._writing:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        with contextlib.suppress(OSError):  # no locks there: then nobody takes it for a leftover either
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def resize(self, pages: int) -> None:
        """Set the size of the database; content beyond it is of no meaning until the file is finished."""
        self.pages = pages

    def write_at(self, offset: int, content: bytes | memoryview) -> None:
        """Write straight to the file; from any thread, before any page was set."""
        with self._writing:
            view = memoryview(content)
            while view:
                done = os.pwrite(self._fd, view, offset)
                view, offset = view[done:], offset + done

    def page(self, pgno: int) -> bytes:
        found = self._overlay.get(pgno)
        if found is not None:
            return found
        with self._reading:
            return os.pread(self._fd, self.page_size, (pgno - 1) * self.page_size)

    def set(self, pgno: int, content: bytes) -> None:
        self._overlay[pgno] = content
        if len(self._overlay) * self.page_size > OVERLAY_BYTES:
            self._flush()

    def _flush(self) -> None:
        # Pages beyond the end too: they may belong to a transaction that is not applied to its end yet.
        for run in neighbours(sorted(self._overlay), _PIECE_BYTES // self.page_size):
            self.write_at((run[0] - 1) * self.page_size, b"".join([self._overlay[pgno] for pgno in run]))
        self._overlay.clear()

    def finish(self) -> None:
        """Write what is kept and cut the file to the size of the database."""
        self._flush()
        with self._writing:
            os.ftruncate(self._fd, self.pages * self.page_size)

    def sync(self) -> None:
        with self._writing:
            os.fsync(self._fd)

    def checksum(self, cancelled: Callable[[], None]) -> int:
        """The checksum of the database as the file really holds it."""
        total = 0
        for offset in range(0, self.pages * self.page_size, _PIECE_BYTES):
            cancelled()
            with self._reading:
                piece = os.pread(self._fd, _PIECE_BYTES, offset)
            total ^= pages_checksum(piece, offset // self.page_size + 1, self.page_size)
        return total

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
