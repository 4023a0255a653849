"""A process of its own that asks SQLite about a file that may be anybody's: python proof_child.py FILE quick|full

It is run as a file and imports nothing of the package, so that it is there within milliseconds. What it may use is
bounded before the file is opened. The answer is a JSON object on standard output: `problems` are damage, `remarks` what
could not be asked, or what virtual tables answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from urllib.parse import quote

import apsw

PROBLEMS_MAX = 10
# What whoever asked gets to read of each kind, and of each.
TEXTS_MAX, LETTERS_MAX = 20, 1_000
# SQLite's cache, its sorters and a page of 64 KiB need a tenth of it, whatever the size of the database.
MEMORY_BYTES = 1 << 30
# SQLite checks a gigabyte in 1 to 5 s; a file made to hang us does not end by itself.
CPU_SECONDS, CPU_SECONDS_PER_GIB = 300, 300


def bound(path: str) -> None:
    """No file is written, no program started; memory and processor time end somewhere."""
    cpu = CPU_SECONDS + CPU_SECONDS_PER_GIB * (os.stat(path).st_size >> 30)
    for what, limit, spare in (
        (resource.RLIMIT_AS, MEMORY_BYTES, 0),
        # Where both are the same, it is killed at once, and does not say what for.
        (resource.RLIMIT_CPU, cpu, 5),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, hard = resource.getrlimit(what)
        lower, last = (
            (limit, limit + spare)
            if hard == resource.RLIM_INFINITY
            else (min(limit, hard), min(limit + spare, hard))
        )
        with contextlib.suppress(ValueError, OSError):  # some systems know fewer limits
            resource.setrlimit(what, (lower, last))


def opened(path: str) -> apsw.Connection:
    """Immutable: no lock, no -wal, no -shm. What the schema says is not trusted."""
    uri = f"file:{quote(path)}?immutable=1&mode=ro"
    connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.execute("PRAGMA temp_store=MEMORY").fetchall()
    connection.execute("PRAGMA cache_size=-8000").fetchall()
    return connection


def check(connection: apsw.Connection, pragma: str, problems: list[str], remarks: list[str]) -> None:
    try:
        rows = connection.execute(f"PRAGMA {pragma}({PROBLEMS_MAX})").fetchall()
        problems.extend(str(row[0]) for row in rows if row[0] != "ok")
    except apsw.SQLError as exc:
        # A collation or a module of the application's own: SQLite cannot check what needs it.
        remarks.append(f"{pragma} could not run to its end: {exc}")


def try_virtual_tables(connection: apsw.Connection, remarks: list[str]) -> None:
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type='table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
    ).fetchall()
    for (name,) in names:
        try:
            quoted = '"' + str(name).replace('"', '""') + '"'
            connection.execute(f"SELECT 1 FROM {quoted} LIMIT 1").fetchall()
        except apsw.Error as exc:
            remarks.append(f"virtual table {name}: {exc}")


def cut(texts: list[str]) -> list[str]:
    """Names in them are as long, and they are as many, as the file wants."""
    more = [f"and {len(texts) - TEXTS_MAX} more"] if len(texts) > TEXTS_MAX else []
    return [each[:LETTERS_MAX] for each in texts[:TEXTS_MAX]] + more


def main(path: str, level: str) -> None:
    problems: list[str] = []
    remarks: list[str] = []
    bound(path)
    try:
        connection = opened(path)
        check(connection, "integrity_check" if level == "full" else "quick_check", problems, remarks)
        try_virtual_tables(connection, remarks)
    except (apsw.NotADBError, apsw.CorruptError) as exc:
        problems.append(str(exc))
    except apsw.Error as exc:
        problems.append(f"SQLite failed on it: {exc}")
    print(json.dumps({"problems": cut(problems), "remarks": cut(remarks)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
