"""The row by which a writer counts its commits, so that a restored copy says at which commit it stands."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

LEDGER = (
    "INSERT INTO ledger VALUES (?, ?, ?)"
    " ON CONFLICT (writer) DO UPDATE SET counter = excluded.counter, at = excluded.at"
)


@contextmanager
def counted_commit(conn: sqlite3.Connection, writer: int, counter: int) -> Iterator[None]:
    """A transaction that counts itself in the ledger; nothing is left of it where SQLite refuses any part."""
    try:
        conn.execute("BEGIN IMMEDIATE")
        yield
        conn.execute(LEDGER, (writer, counter, time.time_ns() // 1000))
        conn.execute("COMMIT")
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
