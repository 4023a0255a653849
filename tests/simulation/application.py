"""The application: connections of its own to the database, and what it knows of every commit it made."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

import apsw

from replicator.core.checksum import pages_checksum
from tests.simulation.kernel import APPLICATION, JUDGE, Kernel

PAGE_SIZE = 512
_FRAME = 24
_HEADER = 32


@dataclass(frozen=True, slots=True)
class Commit:
    """The database as it was after one commit. ``checksum`` is what a manifest says of it, ``end`` the checksum of its
    last frame in the log, which a unit carries."""

    digest: str
    checksum: str
    end: tuple[int, int] | None


class History:
    """Every commit, numbered from 0: what was there at first."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self._by_digest: dict[str, int] = {}
        self._by_checksum: dict[str, int] = {}
        self._by_end: dict[tuple[int, int], int] = {}

    def add(self, commit: Commit) -> None:
        number = len(self.commits)
        self.commits.append(commit)
        self._by_digest[commit.digest] = self._by_checksum[commit.checksum] = number
        if commit.end is not None:
            # A power cut may lead back to a commit: what was captured of it before was the earlier one.
            self._by_end.setdefault(commit.end, number)

    @property
    def newest(self) -> int:
        return len(self.commits) - 1

    def number_of(self, digest: str) -> int | None:
        """Of several commits with the same content the last."""
        return self._by_digest.get(digest)

    def number_of_checksum(self, checksum: str) -> int:
        return self._by_checksum[checksum]

    def number_of_end(self, end: tuple[int, int]) -> int:
        return self._by_end[end]

    def copy(self) -> History:
        made = History()
        for each in self.commits:
            made.add(each)
        return made


class Application:
    """One connection that writes, further ones that read; several may be open. Every change goes through ``commit``
    or ``change``, so that the history has it."""

    def __init__(self, path: str, kernel: Kernel, history: History, *, seed: int = 0) -> None:
        self._path = path
        self._kernel = kernel
        self.history = history
        self.rng = random.Random(f"application/{seed}")
        self._open: list[apsw.Connection] = []
        self.main = self.connect()

    def connect(self, *, autocheckpoint: int = 0, synchronous: str = "FULL") -> apsw.Connection:
        with self._kernel.acting(APPLICATION):
            connection = apsw.Connection(self._path)
            connection.wal_autocheckpoint(autocheckpoint)
            connection.execute(f"PRAGMA page_size={PAGE_SIZE}").fetchall()
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute(f"PRAGMA synchronous={synchronous}").fetchall()
        self._open.append(connection)
        return connection

    def create(self, rows: int) -> None:
        self.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        self.execute("CREATE TABLE ledger (counter INTEGER)")
        self.execute("INSERT INTO ledger VALUES (0)")
        for _ in range(rows):
            self.insert()
        self.checkpoint("TRUNCATE")
        self.note()

    def execute(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self._kernel.acting(APPLICATION):
            return self.main.execute(sql, values).fetchall()  # type: ignore[arg-type]

    def insert(self, size: int = 100) -> None:
        self.execute("INSERT INTO t (body) VALUES (?)", self.rng.randbytes(size))

    def commit(self, *work: Callable[[], object]) -> None:
        """One transaction."""
        self.execute("BEGIN IMMEDIATE")
        for each in work:
            each()
        self.execute("UPDATE ledger SET counter = counter + 1")
        self.execute("COMMIT")
        self.note()

    def write(self, count: int = 1, size: int = 100) -> None:
        """So many commits, of a row each."""
        for _ in range(count):
            self.commit(lambda: self.insert(size))

    def update(self) -> None:
        row = self.rng.randrange(1, 12)
        self.commit(lambda: self.execute("UPDATE t SET body = ? WHERE id = ?", self.rng.randbytes(60), row))

    def write_much(self, kilobytes: int) -> None:
        """One transaction that carries so much."""
        self.commit(lambda: [self.insert(1000) for _ in range(kilobytes)])

    def change(self, sql: str) -> None:
        """A statement that is a commit by itself, such as VACUUM."""
        self.execute(sql)
        self.note()

    def checkpoint(self, mode: str, connection: apsw.Connection | None = None) -> bool:
        """False where somebody was in the way."""
        with self._kernel.acting(APPLICATION):
            try:
                (connection or self.main).wal_checkpoint(mode=getattr(apsw, f"SQLITE_CHECKPOINT_{mode}"))
            except apsw.BusyError:
                return False
            return True

    def look(self) -> Commit:
        """What SQLite sees now. Nobody comes in between."""
        with self._kernel.acting(JUDGE):
            return look(self.main)

    def note(self) -> None:
        self.history.add(self.look())

    def close(self, *, clean: bool = True) -> None:
        """Not *clean*: as if it was killed, so that the log stays."""
        with self._kernel.acting(APPLICATION):
            while self._open:
                each = self._open.pop()
                with contextlib.suppress(apsw.ConnectionClosedError):  # it was killed while it was closing
                    if not clean:
                        each.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                    each.close(True)


def look(connection: apsw.Connection) -> Commit:
    image = connection.serialize("main")
    assert image is not None
    digest = hashlib.sha256(image).hexdigest()
    checksum = f"{pages_checksum(image, 1, PAGE_SIZE):016x}"
    return Commit(digest, checksum, _end_of_log(connection))


def _end_of_log(connection: apsw.Connection) -> tuple[int, int] | None:
    frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    if frames <= 0:
        return None
    at = _HEADER + (frames - 1) * (_FRAME + PAGE_SIZE)
    whole, head = connection.read("main", 1, at, _FRAME)
    s0, s1 = struct.unpack(">16x2I", head)
    return (s0, s1) if whole else None
