"""Bringing a database that is about to be replaced to rest: nobody has it open, and its log is in it."""

from __future__ import annotations

import glob
import os
from enum import Enum
from urllib.parse import quote

import apsw

from replicator.core.errors import DestinationRefused


class Rest(Enum):
    """What became of the old file."""

    SETTLED = "settled"
    UNREADABLE = "unreadable"


def settle(path: str) -> Rest:
    """Open the database at *path* exclusively, move its log into it, and close.

    Raises DestinationRefused if a live process has it open: replacing it under an application loses what that
    writes afterwards. UNREADABLE: SQLite cannot open it, whatever it is.
    """
    holders = _processes_with(path)
    if holders:
        raise DestinationRefused(
            f"{path} is open in another process ({', '.join(map(str, holders))})",
            hint="stop the application first, or restore to another file",
        )
    if not _is_database(path):
        return Rest.UNREADABLE
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error:
        return Rest.UNREADABLE
    try:
        connection.set_busy_timeout(0)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        connection.execute("BEGIN EXCLUSIVE").fetchall()
        connection.execute("COMMIT").fetchall()
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        # Out of the exclusive mode and closed, SQLite removes -wal and -shm by itself.
        connection.execute("PRAGMA locking_mode=NORMAL").fetchall()
        connection.execute("PRAGMA user_version").fetchall()
    except apsw.BusyError as exc:
        raise DestinationRefused(
            f"{path} is locked by another process",
            hint="stop the application first, or restore to another file",
        ) from exc
    except apsw.Error:
        return Rest.UNREADABLE
    finally:
        connection.close()
    return Rest.SETTLED


def _is_database(path: str) -> bool:
    """Whether SQLite can make sense of the header, asked without touching anything: to open in earnest what
    it cannot read plays back or deletes the side files all the same."""
    uri = f"file:{quote(path)}?immutable=1&mode=ro"
    try:
        connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    except apsw.Error:
        return False
    try:
        connection.execute("PRAGMA schema_version").fetchall()
    except apsw.Error:
        return False
    finally:
        connection.close()
    return True


def _processes_with(path: str) -> list[int]:
    """Live processes that have *path* open, as far as this user may see (Linux; elsewhere locks decide)."""
    try:
        wanted = os.stat(path)
    except OSError:
        return []
    found: set[int] = set()
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            there = os.stat(link)
        except OSError:
            continue
        if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.add(int(link.split("/")[2]))
    return sorted(found)
