"""Databases to measure with: a board of the demo, with rows added up to a wanted size. Made once, then copied."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
from pathlib import Path

from replicator.demo.board import WORDS, create_board, fill_board, open_board

ROW_BYTES = 480
TEXT_BYTES = 64 << 20
# What is larger repeats the payload of this much, too far apart for any side to find it again.
OWN_MEGABYTES = 1000


def template(folder: Path, megabytes: int) -> Path:
    """A closed database of about that size (0: a board alone), kept in *folder* for the next one who asks."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"board-{megabytes}.db"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        unfinished.unlink(missing_ok=True)
        create_board(unfinished)
        conn = open_board(unfinished)
        fill_board(conn, 500)
        _add_rows(conn, megabytes)
        # Here, so that no commit but the writers' counted ones comes after.
        conn.execute("CREATE TABLE bulk (id INTEGER PRIMARY KEY, payload BLOB)")
        conn.execute("INSERT INTO ledger VALUES (1, 0, 0)")
        conn.close()
        os.rename(unfinished, path)
    return path


def place(made: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, path)
    os.sync()  # the template, too: whoever is measured first does not pay for it


def _add_rows(conn: sqlite3.Connection, megabytes: int) -> None:
    """Words at random, of which LZ4 leaves 59 % and zstd 33 %; no piece lies there twice close together."""
    conn.execute(
        "CREATE TABLE rows (id INTEGER PRIMARY KEY, n INTEGER, mark TEXT NOT NULL, payload TEXT NOT NULL)"
    )
    rng = random.Random(megabytes)
    size = min(TEXT_BYTES, max(megabytes, 1) << 20)
    text = " ".join(rng.choices(WORDS, k=size // 6))
    whole = max(1, megabytes) * 1_000_000 // ROW_BYTES if megabytes else 100
    count = min(whole, OWN_MEGABYTES * 1_000_000 // ROW_BYTES)

    def rows(first: int, last: int) -> list[tuple[int, int, str, str]]:
        made = []
        for number in range(first, last):
            at = rng.randrange(len(text) - ROW_BYTES)
            mark = f"{rng.getrandbits(256):064x}"
            made.append((number, rng.getrandbits(40), mark, text[at : at + rng.randrange(200, 500)]))
        return made

    for first in range(1, count + 1, 20_000):
        conn.execute("BEGIN IMMEDIATE")
        last = min(first + 20_000, count + 1)
        conn.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows(first, last))
        conn.execute("COMMIT")
    again = "SELECT id + ?, random() >> 24, lower(hex(randomblob(32))), payload FROM rows WHERE id BETWEEN ? AND ?"
    step = min(200_000, count)
    for first in range(1, whole - count + 1, step):
        last = min(first + step - 1, whole - count)
        conn.execute(f"INSERT INTO rows {again}", (count, first, last))


def ledger_root(path: Path) -> tuple[int, int]:
    """The ledger's page and the page size."""
    conn = open_board(path)
    try:
        root = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'ledger'").fetchone()[0]
        return root, conn.execute("PRAGMA page_size").fetchone()[0]
    finally:
        conn.close()


def ledger_total(path: Path) -> int:
    conn = open_board(path)
    try:
        return int(conn.execute("SELECT coalesce(sum(counter), 0) FROM ledger").fetchone()[0])
    finally:
        conn.close()


def proof(path: Path, *, whole: bool) -> tuple[int, str]:
    """The ledger's total and a hash of the content (*whole*: of the user's tables, else of the ledger alone).

    By content and not by bytes: the rival adds tables of its own to the database.
    """
    conn = open_board(path)
    try:
        problem = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise AssertionError(f"the restored database is damaged: {problem}")
        names = [row[0] for row in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        digest = hashlib.sha256()
        for name in sorted(names):
            if name.startswith(("sqlite_", "_litestream")) or not (whole or name == "ledger"):
                continue
            if conn.execute(
                "SELECT sql LIKE '%VIRTUAL%' FROM sqlite_schema WHERE name = ?", (name,)
            ).fetchone()[0]:
                continue
            for row in conn.execute(f'SELECT * FROM "{name}"'):
                digest.update(repr(row).encode())
        total = conn.execute("SELECT coalesce(sum(counter), 0) FROM ledger").fetchone()[0]
    finally:
        conn.close()
    return int(total), digest.hexdigest()
