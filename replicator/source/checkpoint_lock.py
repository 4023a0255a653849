"""Whether another process is at a checkpoint just now: it holds a lock for as long, and for as long as it waits.

A FULL, RESTART or TRUNCATE checkpoint that waits for our read mark keeps writers out and moves nothing; but it
took the checkpoint lock first (sqlite3WalCheckpoint), and fcntl(2) tells whether somebody holds that, taking
nothing. It does not tell of locks that this process holds, so not of our own checkpoints.

We ask on the descriptor that SQLite has open: closing one of our own would drop all its locks on that file
(tests/traps/test_locks.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys

from replicator.source.connection import FileIdentity

# The byte of `-shm` that stands for the checkpoint lock: the second of eight behind the two copies of the header
# and the checkpoint info (walformat.html, section 2.3.1).
CHECKPOINT_BYTE = 121

# struct flock of 64 bit systems. Linux: type, whence, start, length, pid; macOS: start, length, pid, type, whence.
_LINUX = struct.Struct("hhqqi4x")
_MACOS = struct.Struct("qqihh")


class CheckpointLock:
    """Of the database whose `-shm` is the file *shm*, once SQLite has that open."""

    def __init__(self, shm: FileIdentity) -> None:
        self._shm = shm
        self._fd = -1

    @property
    def held(self) -> bool:
        """By another process; True also where that cannot be found out."""
        try:
            if not self._is_ours(self._fd):
                self._fd = next(fd for fd in map(int, os.listdir("/dev/fd")) if self._is_ours(fd))
            return _is_locked(self._fd)
        except (OSError, StopIteration):
            return True

    def _is_ours(self, fd: int) -> bool:
        """SQLite may have closed it since, and the number may stand for another file."""
        with contextlib.suppress(OSError):
            found = os.fstat(fd)
            return (found.st_dev, found.st_ino) == (self._shm.device, self._shm.inode)
        return False


def _is_locked(fd: int) -> bool:
    if sys.platform == "darwin":
        asked = _MACOS.pack(CHECKPOINT_BYTE, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
        *_, kind, _ = _MACOS.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    else:
        asked = _LINUX.pack(fcntl.F_WRLCK, os.SEEK_SET, CHECKPOINT_BYTE, 1, 0)
        kind, *_ = _LINUX.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return bool(kind != fcntl.F_UNLCK)
