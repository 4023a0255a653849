"""SQLite's own opinion of a restored file, asked without touching it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import apsw

from replicator.source.connection import MappedSqliteErrors

_PROBLEMS_MAX = 10


@dataclass(frozen=True, slots=True)
class Opinion:
    """``problems`` are damage; ``remarks`` are what could not be asked, or what virtual tables answered.

    A virtual table may disagree with its content on the source already (search indexes kept by triggers drift),
    so its complaints never fail a restore whose every page is proved.
    """

    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def ask_sqlite(path: str, *, full: bool, cancelled: Callable[[], None]) -> Opinion:
    """quick_check, or integrity_check with *full*, and a SELECT on each virtual table.

    The file is opened immutable: no lock, no -wal, no -shm. *cancelled* is called a few times a second in
    the caller's thread and may raise.
    """
    uri = f"file:{quote(path)}?immutable=1&mode=ro"
    connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    answer: list[Opinion | BaseException] = []

    def ask() -> None:
        try:
            answer.append(_ask(connection, path, full=full))
        except BaseException as exc:
            answer.append(exc)

    thread = threading.Thread(target=ask, name="proof")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
            cancelled()
    finally:
        connection.interrupt()
        thread.join()
        connection.close()
    found = answer[0]
    if isinstance(found, BaseException):
        raise found
    return found


def _ask(connection: apsw.Connection, path: str, *, full: bool) -> Opinion:
    problems: list[str] = []
    remarks: list[str] = []
    with MappedSqliteErrors(path):
        try:
            connection.execute("PRAGMA cache_size=-8000").fetchall()
            _check(connection, "integrity_check" if full else "quick_check", problems, remarks)
            _try_virtual_tables(connection, remarks)
        except (apsw.NotADBError, apsw.CorruptError) as exc:
            problems.append(str(exc))
    return Opinion(tuple(problems), tuple(remarks))


def _check(connection: apsw.Connection, pragma: str, problems: list[str], remarks: list[str]) -> None:
    try:
        rows = connection.execute(f"PRAGMA {pragma}({_PROBLEMS_MAX})").fetchall()
        problems.extend(str(row[0]) for row in rows if row[0] != "ok")
    except apsw.SQLError as exc:
        # A collation or a module of the application's own: SQLite cannot check what needs it.
        remarks.append(f"{pragma} could not run to its end: {exc}")


def _try_virtual_tables(connection: apsw.Connection, remarks: list[str]) -> None:
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type='table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
    ).fetchall()
    for (name,) in names:
        try:
            quoted = '"' + str(name).replace('"', '""') + '"'
            connection.execute(f"SELECT 1 FROM {quoted} LIMIT 1").fetchall()
        except apsw.InterruptError:
            raise
        except apsw.Error as exc:
            remarks.append(f"virtual table {name}: {exc}")
