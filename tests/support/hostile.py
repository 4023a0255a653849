"""A hostile neighbour: a process that does to one database everything an application may do, from a seed.

    python -m tests.support.hostile DB --seed S --seconds T [--role mixed|writer|checkpointer|reader]

It uses the standard library's SQLite and so must never run in a process that has the agent's SQLite open on
the same file. Several of them work on one database; each keeps to its own tables for ALTER and DROP.

The oracle: every acknowledged commit raises this writer's counter in `ledger` within the same transaction,
and only then is `<writer> <counter> <unix time in microseconds>` appended to the file of --acks. VACUUM is
the exception: it is a commit that changes no row and cannot share a transaction, so it has no counter.
SQLITE_BUSY is expected and counted; any other error ends the process with its traceback, because then either
the database or this program is broken.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
AUTO_VACUUM = ("NONE", "FULL", "INCREMENTAL")
# A huge transaction has to outgrow the cache of ten pages, but a minute of them must fit a small disk.
HUGE_BYTES = 1_000_000
DATABASE_BYTES_MAX = 24_000_000
# Mostly short: if some reader were always there, the log would never be reset, which is half the hostility.
READ_SECONDS = (0.001, 0.01, 0.01, 0.03, 0.1, 0.1, 0.3, 1.5)
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
RANGE = " WHERE id BETWEEN ? AND ?"


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


def small(it: Neighbour) -> None:
    it.commit(lambda: it.insert(it.rng.randint(1, 3), 10, 300))


def overflow(it: Neighbour) -> None:
    """Rows that need chains of overflow pages, sometimes rewritten in the same transaction."""

    def work() -> None:
        it.insert(1, it.page_size, min(30 * it.page_size, 150_000))
        if it.rng.random() < 0.3:
            body = it.blob(1, 3 * it.page_size)
            it.conn.execute("UPDATE wild SET body = ? WHERE id = (SELECT max(id) FROM wild)", (body,))

    it.commit(work)


def update(it: Neighbour) -> None:
    it.commit(lambda: it.conn.execute("UPDATE wild SET number = number + 1" + RANGE, it.span(0.1)))


def delete(it: Neighbour) -> None:
    it.commit(lambda: it.conn.execute("DELETE FROM wild" + RANGE, it.span(0.2)))


def empty(it: Neighbour) -> None:
    """Delete everything: a long free list, and with auto_vacuum a file that shrinks at once."""
    it.commit(lambda: it.conn.execute("DELETE FROM wild"))


def spill(it: Neighbour) -> None:
    """Outgrow the cache: frames of the open transaction are in the log, and then rewritten there."""

    def work() -> None:
        it.shrink_if_large()
        it.insert(HUGE_BYTES // 2000, 500, 3500)
        it.conn.execute("SAVEPOINT inner")
        it.conn.execute("UPDATE wild SET number = number % 97 WHERE id % 3 = 0")
        it.conn.execute("ROLLBACK TO inner" if it.rng.random() < 0.5 else "RELEASE inner")
        if it.rng.random() < 0.3:
            raise Rollback

    it.conn.execute("PRAGMA cache_size = 10")
    it.commit(work)
    it.conn.execute("PRAGMA cache_size = -2000")


def rollback(it: Neighbour) -> None:
    def work() -> None:
        it.insert(it.rng.randint(1, 40), 10, 2000)
        raise Rollback

    it.commit(work)


def upgrade(it: Neighbour) -> None:
    """Read first and write later, as careless applications do: a commit in between makes it busy."""

    def work() -> None:
        it.conn.execute("SELECT count(*) FROM wild").fetchone()
        nap(it, 0.005)
        it.insert(1, 10, 100)

    it.commit(work, begin="BEGIN DEFERRED")


def keyed(it: Neighbour) -> None:
    def work() -> None:
        written, deleted = f"{it.rng.randrange(500):x}", f"{it.rng.randrange(500):x}"
        it.conn.execute("REPLACE INTO wild_keyed VALUES (?, ?)", (written, it.blob(1, it.page_size)))
        it.conn.execute("DELETE FROM wild_keyed WHERE key = ?", (deleted,))

    it.commit(work)


def text(it: Neighbour) -> None:
    def work() -> None:
        for _ in range(it.rng.randint(1, 5)):
            words = " ".join(f"w{it.rng.randrange(400)}" for _ in range(it.rng.randint(3, 60)))
            it.conn.execute("INSERT INTO wild_text VALUES (?)", (words,))
        if it.rng.random() < 0.3:
            it.conn.execute("DELETE FROM wild_text WHERE rowid % 50 = ?", (it.rng.randrange(50),))

    it.commit(work)


def schema(it: Neighbour) -> None:
    """CREATE, ALTER and DROP on tables of its own; the others see the schema change under them."""

    def work() -> None:
        find = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB ?"
        mine = [row[0] for row in it.conn.execute(find, (f"wild_{it.writer}_*",))]
        fresh = f"{it.writer}_{it.counter + 1}"
        if not mine or (len(mine) < 6 and it.rng.random() < 0.4):
            keyed = it.rng.choice(("", " WITHOUT ROWID"))
            it.conn.execute(f"CREATE TABLE wild_{fresh} (a INTEGER PRIMARY KEY, b TEXT){keyed}")
            rows = [(n, f"{n:x}" * it.rng.randint(1, 40)) for n in range(200)]
            it.conn.executemany(f"INSERT INTO wild_{fresh} VALUES (?, ?)", rows)
            return
        table = it.rng.choice(mine)
        changes = (
            f"CREATE INDEX wild_index_{fresh} ON {table}(b)",
            f"ALTER TABLE {table} ADD COLUMN c{it.counter} TEXT DEFAULT 'new'",
            f"ALTER TABLE {table} RENAME TO wild_{fresh}",
            f"DROP TABLE {table}",
            f"DELETE FROM {table} WHERE a % 2",
            f"REINDEX {table}",
            "ANALYZE",
            f"PRAGMA user_version = {it.rng.randrange(1 << 30)}",
        )
        it.conn.execute(it.rng.choice(changes))

    it.commit(work)


def vacuum(it: Neighbour) -> None:
    """A commit without a counter, see the module. Sometimes it also changes auto_vacuum."""
    with it.expected():
        if it.rng.random() < 0.3:
            it.conn.execute(f"PRAGMA auto_vacuum = {it.rng.choice(AUTO_VACUUM)}")
        it.conn.execute("VACUUM")
        it.done["vacuums"] += 1


def incremental_vacuum(it: Neighbour) -> None:
    sql = f"PRAGMA incremental_vacuum({it.rng.choice((1, 10, 1000))})"
    it.commit(lambda: it.conn.execute(sql).fetchall())


def settings(it: Neighbour) -> None:
    wanted = {
        "wal_autocheckpoint": (0, 1, 10, 100, 1000),
        "synchronous": ("OFF", "NORMAL", "FULL"),
        "journal_size_limit": (-1, 0, 65536),
        "busy_timeout": (0, 50, 5000),
        "secure_delete": ("OFF", "ON", "FAST"),
        "mmap_size": (0, 0, 64_000_000),
    }
    for name, values in wanted.items():
        with it.expected():
            it.conn.execute(f"PRAGMA {name} = {it.rng.choice(values)}").fetchall()


def checkpoint(it: Neighbour) -> None:
    mode = it.rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
    usual = it.conn.execute("PRAGMA busy_timeout").fetchone()[0]
    it.conn.execute(f"PRAGMA busy_timeout = {it.rng.choice((0, 10, 50, 200))}")
    with it.expected():
        busy = it.conn.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]
        it.done[f"{mode} busy" if busy else mode] += 1
    it.conn.execute(f"PRAGMA busy_timeout = {usual}")


def reopen(it: Neighbour) -> None:
    """Close and open again; the last one to close also checkpoints and deletes the log."""
    it.end_reader()
    it.conn.close()
    nap(it, 0.01)
    it.conn = it.connect()
    it.done["reopened"] += 1


def read(it: Neighbour) -> None:
    """Begin a read transaction that stays open while other things go on."""
    it.end_reader()
    it.reader = it.connect()
    with it.expected():
        it.reader.execute("BEGIN")
        it.reader.execute("SELECT count(*), sum(length(body)) FROM wild").fetchone()
    it.reader_ends = time.monotonic() + it.rng.choice(READ_SECONDS)
    it.done["reads"] += 1


def nap(it: Neighbour, most: float = 0.03) -> None:
    time.sleep(it.rng.random() * most)


def rest(it: Neighbour) -> None:
    """Leave the others alone for a while: only in quiet gaps does a log get copied back to its end."""
    it.end_reader()
    nap(it, 0.4)


Deed = Callable[[Neighbour], None]
WRITER: dict[Deed, int] = {
    small: 40,
    overflow: 8,
    update: 8,
    delete: 4,
    empty: 1,
    spill: 2,
    rollback: 4,
    upgrade: 3,
    keyed: 5,
    text: 5,
    schema: 6,
    vacuum: 1,
    incremental_vacuum: 3,
    settings: 2,
    reopen: 1,
    nap: 5,
    rest: 1,
}
CHECKPOINTER: dict[Deed, int] = {checkpoint: 20, settings: 2, reopen: 3, nap: 20, rest: 2}
READER: dict[Deed, int] = {read: 4, reopen: 1, nap: 30, rest: 2}
MIXED: dict[Deed, int] = WRITER | {checkpoint: 4, read: 1}
ROLES = {"writer": WRITER, "checkpointer": CHECKPOINTER, "reader": READER, "mixed": MIXED}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.hostile")
    parser.add_argument("db", metavar="DB", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--role", choices=ROLES, default="mixed")
    parser.add_argument("--writer", type=int, help="name in the ledger; default: the seed")
    parser.add_argument("--acks", type=Path, help="file to which acknowledged counters are appended")
    parser.add_argument("--page-size", type=int, default=0, help="of a file that does not exist yet")
    parser.add_argument("--auto-vacuum", choices=AUTO_VACUUM, default="", help="likewise")
    options = parser.parse_args(arguments)

    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stop.append(number))
    neighbour = Neighbour(options)
    deeds = ROLES[options.role]
    ends = time.monotonic() + options.seconds
    try:
        while time.monotonic() < ends and not stop:
            neighbour.rng.choices(list(deeds), list(deeds.values()))[0](neighbour)
            if time.monotonic() > neighbour.reader_ends:
                neighbour.end_reader()
    finally:
        neighbour.close()
    print(json.dumps({"writer": neighbour.writer, "counter": neighbour.counter, **neighbour.done}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
