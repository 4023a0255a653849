"""One hostile neighbour (hostile.py): its connections, its transactions, and its place in the ledger."""

import argparse
import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
AUTO_VACUUM = ("NONE", "FULL", "INCREMENTAL")
DATABASE_BYTES_MAX = 24_000_000
EXPECTED_ERRORS = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS ledger (writer INTEGER PRIMARY KEY, counter INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS wild (id INTEGER PRIMARY KEY, owner INTEGER, number INTEGER, body BLOB);
CREATE INDEX IF NOT EXISTS wild_by_number ON wild(number);
CREATE TABLE IF NOT EXISTS wild_keyed (key TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS wild_text USING fts5(body);
COMMIT;
"""
LEDGER = (
    "INSERT INTO ledger VALUES (?, ?, ?)"
    " ON CONFLICT (writer) DO UPDATE SET counter = excluded.counter, at = excluded.at"
)
INSERT = "INSERT INTO wild (owner, number, body) VALUES (?, ?, ?)"


class Rollback(Exception):
    """Raised by work that wants its transaction undone."""


def create_hostile(path: str | Path, seed: int, *, page_size: int = 0, auto_vacuum: str = "") -> None:
    """Create the tables, in a new file or beside what a database already holds; then close it.

    A new file gets the page size and auto_vacuum given, else ones chosen by *seed*.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        prepare(conn, seed, page_size, auto_vacuum)


def prepare(conn: sqlite3.Connection, seed: int, page_size: int, auto_vacuum: str) -> None:
    rng = random.Random(f"create/{seed}")
    chosen_size, chosen_vacuum = rng.choice(PAGE_SIZES), rng.choice(AUTO_VACUUM)
    conn.execute("PRAGMA busy_timeout = 30000")
    conn.execute(f"PRAGMA page_size = {page_size or chosen_size:d}")
    conn.execute(f"PRAGMA auto_vacuum = {auto_vacuum or chosen_vacuum}")
    conn.execute("PRAGMA journal_mode = WAL")
    conn.executescript(SCHEMA)


class Neighbour:
    """One process's connections and its place in the ledger; what it may do are the functions below."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.path: Path = options.db
        self.writer: int = options.seed if options.writer is None else options.writer
        self.rng = random.Random(f"hostile/{options.seed}/{self.writer}")
        self.acks = os.open(options.acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if options.acks else None
        self.done: Counter[str] = Counter()
        self.conn = self.connect()
        # On this connection: to open and close one beforehand would delete the log a killed neighbour left.
        prepare(self.conn, options.seed, options.page_size, options.auto_vacuum)
        self.page_size: int = self.conn.execute("PRAGMA page_size").fetchone()[0]
        found = self.conn.execute("SELECT counter FROM ledger WHERE writer = ?", (self.writer,)).fetchone()
        self.counter: int = found[0] if found else 0
        self.reader: sqlite3.Connection | None = None
        self.reader_ends = 0.0

    def connect(self) -> sqlite3.Connection:
        # Patient for the first read only: it may have to rebuild the wal-index, or wait for a last close.
        conn = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        conn.execute(f"PRAGMA busy_timeout = {self.rng.choice((50, 1000, 5000))}")
        return conn

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        """Count the errors that many processes on one file may cause each other, and go on after them."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in EXPECTED_ERRORS:
                raise
            self.done["busy"] += 1

    def commit(self, work: Callable[[], object], *, begin: str = "BEGIN IMMEDIATE") -> None:
        """Run *work* and the ledger in one transaction; acknowledge it. Busy and `Rollback` undo both."""
        try:
            with self.expected():
                self.conn.execute(begin)
                work()
                self.conn.execute(LEDGER, (self.writer, self.counter + 1, time.time_ns() // 1000))
                self.conn.execute("COMMIT")
                self.counter += 1
                self.done["commits"] += 1
                if self.acks is not None:
                    os.write(self.acks, b"%d %d %d\n" % (self.writer, self.counter, time.time_ns() // 1000))
        except Rollback:
            self.done["rollbacks"] += 1
        finally:
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")

    def blob(self, least: int, most: int) -> bytes:
        """Bytes that compress about as badly as real rows do: half noise, half repetition."""
        size = self.rng.randint(least, most)
        return self.rng.randbytes(size // 2) + b"once upon a row " * (size // 32)

    def insert(self, rows: int, least: int, most: int) -> None:
        for _ in range(rows):
            self.conn.execute(INSERT, (self.writer, self.rng.randrange(10_000), self.blob(least, most)))

    def span(self, share: float) -> tuple[int, int]:
        low, high = self.conn.execute("SELECT ifnull(min(id), 1), ifnull(max(id), 1) FROM wild").fetchone()
        first = self.rng.randint(low, high)
        return first, first + int((high - low) * share)

    def shrink_if_large(self) -> None:
        pages = self.conn.execute("PRAGMA page_count").fetchone()[0]
        free = self.conn.execute("PRAGMA freelist_count").fetchone()[0]
        if (pages - free) * self.page_size > DATABASE_BYTES_MAX:
            self.conn.execute("DELETE FROM wild WHERE id % 4 <> 0")

    def end_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def close(self) -> None:
        self.end_reader()
        self.conn.close()
        if self.acks is not None:
            os.close(self.acks)
