"""Opening a database, and the translation of SQLite's errors into ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType

import apsw

from replicator.core.errors import NotADatabase, NotWalMode, SourceError, SourceGone

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_WAL_VERSION = 2  # bytes 18 and 19 of the file (fileformat2, section 1.3.3)


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file a path stands for; another one means it was replaced."""

    device: int
    inode: int


def identity_of(path: str) -> FileIdentity | None:
    """stat(2) only; nothing is opened."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileIdentity(found.st_dev, found.st_ino)


def identities_of(path: str) -> tuple[FileIdentity | None, ...]:
    """Of the database, its `-wal` and its `-shm`. While a connection of ours is open nobody who works through
    SQLite deletes one of them; who does it by hand leaves us with files that no longer have a name."""
    return tuple(identity_of(path + suffix) for suffix in ("", "-wal", "-shm"))


def change_of(path: str) -> tuple[int, ...] | None:
    """What differs after any write to the file at *path*; also after a change of its times or its mode."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def log_file_bytes(path: str) -> int:
    """Size of the `-wal` file of the database at *path*; 0 where there is none. stat(2) only."""
    try:
        return os.stat(path + "-wal").st_size
    except OSError:
        return 0


class MappedSqliteErrors:
    """Translates what SQLite says, once; apsw.BusyError is an expected outcome and passes.

    One for each database, entered again and again: there are several a commit, and a generator each time was
    a tenth of what following costs.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: type[BaseException] | None, exc: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(exc, apsw.Error) and not isinstance(exc, apsw.BusyError):
            raise _translated(self._path, exc) from exc


def _translated(path: str, exc: apsw.Error) -> SourceError:
    if isinstance(exc, (apsw.NotADBError, apsw.CorruptError)):
        return NotADatabase(f"{path} is not a usable SQLite database: {exc}")
    if isinstance(exc, (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError)):
        return SourceError(
            f"cannot open {path}: {exc}",
            hint="the agent needs read and write permission on the database, its -wal, its -shm and their folder",
        )
    if isinstance(exc, apsw.FullError):
        return SourceError(f"no space left for {path}: {exc}", hint="free some space on its disk")
    return SourceError(f"SQLite failed on {path}: {exc}")


def open_untouched(path: str) -> apsw.Connection:
    """A connection that has read nothing yet: any statement would take locks, and play back a hot journal.

    It waits for nobody and deletes no log when it closes; NO_CKPT_ON_CLOSE also keeps a close of ours from
    unlinking, by name, the log of a database that was put in the place of the one we had open.
    """
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.set_busy_timeout(0)
    connection.wal_autocheckpoint(0)
    return connection


def open_connection(path: str) -> apsw.Connection:
    """A further connection to a database that is known to be in WAL mode."""
    return prepare(open_untouched(path))


def prepare(connection: apsw.Connection) -> apsw.Connection:
    """Settings of this connection alone; nothing lasts.

    We read pages around the cache, not through it. SQLite sets aside room for 20 pages at the first read, unless
    the cache is smaller than 3; so it is given back, and not taken again (88 of 164 KB a connection).
    """
    connection.execute("PRAGMA mmap_size=0").fetchall()
    connection.execute("PRAGMA cache_size=1").fetchall()
    connection.execute("PRAGMA shrink_memory").fetchall()
    return connection


def check_path(path: str) -> None:
    """Refuse what cannot be a database before SQLite sees it; a missing file is SourceGone."""
    if os.path.isdir(path):
        raise NotADatabase(f"{path} is a folder, not a database file", hint="name the database file itself")
    try:
        os.stat(path)
    except PermissionError as exc:
        # It may well be there, and waiting for it would be in vain.
        raise SourceError(
            f"no permission to look for {path}", hint="run the agent as the user that owns the database"
        ) from exc
    except (OSError, ValueError) as exc:
        raise SourceGone(f"there is no database at {path}") from exc
    if not os.path.isfile(path):
        raise NotADatabase(f"{path} is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(
            f"no permission to read and write {path}",
            hint="run the agent as the user that owns the database; it writes none of its content, "
            "but SQLite's locks need write permission",
        )
    if not os.access(os.path.dirname(path), os.W_OK):
        raise SourceError(
            f"no permission to write in the folder of {path}",
            hint="SQLite keeps -wal and -shm beside the file",
        )


class EmptyFile(SourceGone):
    """A database of no bytes: SQLite has created it and nothing is in it yet."""


def require_wal(connection: apsw.Connection, path: str) -> int:
    """The page size, read from the header without taking a lock or playing back a hot journal.

    Raises EmptyFile, NotADatabase or NotWalMode.
    """
    _, header = connection.read("main", 0, 0, _HEADER_BYTES)
    if not any(header):
        raise EmptyFile(f"{path} is empty still")
    if header[:16] != _MAGIC:
        raise NotADatabase(f"{path} is not a SQLite database (or an encrypted one)")
    if header[18] != _WAL_VERSION or header[19] != _WAL_VERSION:
        raise NotWalMode(
            f"{path} is not in WAL mode",
            hint="run `PRAGMA journal_mode=WAL` in the application once; it stays",
        )
    page_size = int.from_bytes(header[16:18], "big")
    return 65536 if page_size == 1 else page_size
