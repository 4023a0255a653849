"""A hostile neighbour: a process that does to one database everything an application may do, from a seed.

    python -m tests.support.hostile DB --seed S --seconds T [--role mixed|writer|checkpointer|reader|sitter]

It uses the standard library's SQLite and so must never run in a process that has the agent's SQLite open on
the same file. Several of them work on one database; each keeps to its own tables for ALTER and DROP.

The oracle: every acknowledged commit raises this writer's counter in `ledger` within the same transaction,
and only then is `<writer> <counter> <unix time in microseconds>` appended to the file of --acks. VACUUM is
the exception: it is a commit that changes no row and cannot share a transaction, so it has no counter.
SQLITE_BUSY is expected and counted; any other error ends the process with its traceback, because then either
the database or this program is broken.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.neighbour import AUTO_VACUUM, Neighbour, Rollback, create_hostile

__all__ = ["create_hostile"]

# A huge transaction has to outgrow the cache of ten pages, but a minute of them must fit a small disk.
HUGE_BYTES = 1_000_000
# Mostly short: if some reader were always there, the log would never be reset, which is half the hostility.
READ_SECONDS = (0.001, 0.01, 0.01, 0.03, 0.1, 0.1, 0.3, 1.5)
SIT_SECONDS = (3.0, 6.0, 12.0)
RANGE = " WHERE id BETWEEN ? AND ?"


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
        "synchronous": ("OFF", "NORMAL", "FULL", "EXTRA"),
        "journal_size_limit": (-1, 0, 65536),
        "busy_timeout": (0, 50, 5000),
        "secure_delete": ("OFF", "ON", "FAST"),
        "mmap_size": (0, 0, 64_000_000),
        "cache_spill": ("ON", "ON", "OFF", 1),
        "temp_store": ("DEFAULT", "FILE", "MEMORY"),
        "checkpoint_fullfsync": ("ON", "OFF"),
        "cell_size_check": ("ON", "OFF"),
        "read_uncommitted": ("ON", "OFF"),
    }
    for name, values in wanted.items():
        with it.expected():
            it.conn.execute(f"PRAGMA {name} = {it.rng.choice(values)}").fetchall()


def exclusive(it: Neighbour) -> None:
    """Keep every lock for two commits, as an application does that thinks it is alone; then close, to let go."""
    it.end_reader()
    it.conn.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    it.conn.execute("PRAGMA busy_timeout = 0")
    small(it)
    small(it)
    it.conn.close()
    it.conn = it.connect()
    it.done["exclusive"] += 1


def flip(it: Neighbour) -> None:
    """Try to leave WAL mode. Beside others, the agent among them, that is busy; where it is not, go back."""
    usual = it.conn.execute("PRAGMA busy_timeout").fetchone()[0]
    it.conn.execute("PRAGMA busy_timeout = 0")
    mode = it.rng.choice(("DELETE", "PERSIST", "TRUNCATE"))
    with it.expected():
        it.conn.execute(f"PRAGMA journal_mode = {mode}").fetchone()
        it.done["flips"] += 1
    it.conn.execute("PRAGMA busy_timeout = 30000")
    it.conn.execute("PRAGMA journal_mode = WAL").fetchone()
    it.conn.execute(f"PRAGMA busy_timeout = {usual}")


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


def sit(it: Neighbour) -> None:
    """A report that takes its time: the log cannot be reset as long as it goes on."""
    if it.reader is None:
        read(it)
        it.reader_ends = time.monotonic() + it.rng.choice(SIT_SECONDS)


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
    exclusive: 1,
    flip: 1,
    reopen: 1,
    nap: 5,
    rest: 1,
}
CHECKPOINTER: dict[Deed, int] = {checkpoint: 20, settings: 2, reopen: 3, nap: 20, rest: 2}
READER: dict[Deed, int] = {read: 4, reopen: 1, nap: 30, rest: 2}
MIXED: dict[Deed, int] = WRITER | {checkpoint: 4, read: 1}
SITTER: dict[Deed, int] = {sit: 1, nap: 20}
ROLES = {"writer": WRITER, "checkpointer": CHECKPOINTER, "reader": READER, "sitter": SITTER, "mixed": MIXED}


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
