"""The traps of POSIX locks, each on real SQLite: what a naive change of the agent would step into.

Locks of SQLite belong to a process and a file, and closing *any* descriptor of that file in the process drops all
of them, silently. `-shm` carries the read marks that keep the log; the main file carries the lock that tells
whether somebody else is there at all. Should one of these tests fail, SQLite or the system has changed, and a
rule of the agent may be needless; the rule itself is held by test_descriptors.py.

Everything happens in children, so that no trap is set in the process that runs other tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import App

# Holds a read transaction, as the agent does, and then makes the mistake it is told to make.
HOLDER = """
import hashlib, json, mmap, os, shutil, sqlite3, sys
import apsw
path = sys.argv[1]
connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
begin = lambda: connection.execute("BEGIN; SELECT count(*) FROM t").fetchall()
begin()

def open_and_close(name):
    os.close(os.open(name, os.O_RDONLY))

def with_open(name):
    with open(name, "rb") as file:
        file.read(1)

def digest(name):
    with open(name, "rb") as file:
        hashlib.file_digest(file, "sha256")

def mapped(name):
    fd = os.open(name, os.O_RDONLY)
    mmap.mmap(fd, 0, prot=mmap.PROT_READ).close()
    os.close(fd)

def copy(name):
    shutil.copyfile(name, path + ".copied")

def other_library(name):
    other = sqlite3.connect(name)
    other.execute("SELECT count(*) FROM t").fetchall()
    other.close()

def same_library(name):
    other = apsw.Connection(name)
    other.execute("SELECT count(*) FROM t").fetchall()
    other.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    other.close()

def apsw_reads(name):
    connection.read("main", 0, 0, 100)
    connection.read("main", 1, 0, 100)

def look(name):
    os.stat(name)
    os.path.exists(name)

def fork_and_leave(name):
    # The child lives on with the transaction it inherited; the parent ends it and goes.
    readable, writable = os.pipe()
    if os.fork():
        os._exit(0)

def still_reads(name):
    connection.execute("SELECT sum(length(body)) FROM t").fetchall()

for line in sys.stdin:
    what, suffix = json.loads(line)
    try:
        globals()[what](path + suffix)
        answer = {"in_transaction": connection.in_transaction}
    except Exception as exc:
        answer = {"error": f"{type(exc).__name__}: {exc}"}
    print(json.dumps(answer), flush=True)
"""


class Holder:
    """A process that believes it holds a read transaction."""

    def __init__(self, path: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.does("look", "")

    def does(self, what: str, suffix: str) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps([what, suffix]) + "\n")
        self.child.stdin.flush()
        answer: dict[str, Any] = json.loads(self.child.stdout.readline())
        return answer

    def end(self) -> None:
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()
        self.child.kill()
        self.child.wait()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(str(tmp_path / "app.db")) as app:
        app.execute("PRAGMA wal_autocheckpoint = 0")
        app.execute("PRAGMA busy_timeout = 0")
        app.insert(5)
        yield app


@pytest.fixture
def holder(app: App, tmp_path: Path) -> Iterator[Holder]:
    holder = Holder(str(tmp_path / "app.db"))
    yield holder
    holder.end()


def log_is_kept(app: App, tmp_path: Path) -> bool:
    """Whether a TRUNCATE by the application is kept from cutting the log behind the holder's back."""
    app.insert(1)
    ((busy, _, _),) = app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = (tmp_path / "app.db-wal").stat().st_size
    assert (size > 0) == bool(busy)
    return bool(busy)


READS = ["open_and_close", "with_open", "digest", "mapped", "copy"]


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_held_transaction_keeps_the_log(app: App, holder: Holder, tmp_path: Path, suffix: str) -> None:
    """So it is without any mistake: names may be looked at, and SQLite's own descriptors read through."""
    for harmless in ("look", "apsw_reads", "same_library" if suffix == "" else "look"):
        assert {"in_transaction": True} == holder.does(harmless, suffix)

    assert log_is_kept(app, tmp_path)


@pytest.mark.parametrize("mistake", READS)
def test_closing_a_descriptor_of_the_shared_memory_loses_the_log(
    app: App, holder: Holder, tmp_path: Path, mistake: str
) -> None:
    """The read mark is gone without a word: the application cuts frames that were not copied yet."""
    assert {"in_transaction": True} == holder.does(mistake, "-shm")

    assert not log_is_kept(app, tmp_path)


@pytest.mark.parametrize("mistake", READS)
def test_closing_a_descriptor_of_the_log_is_harmless(
    app: App, holder: Holder, tmp_path: Path, mistake: str
) -> None:
    """SQLite takes no lock on `-wal`."""
    assert {"in_transaction": True} == holder.does(mistake, "-wal")

    assert log_is_kept(app, tmp_path)


@pytest.mark.parametrize("mistake", ["look", *READS])
def test_closing_a_descriptor_of_the_database_lets_the_log_be_deleted(
    app: App, holder: Holder, tmp_path: Path, mistake: str
) -> None:
    """The application closes, sees nobody else, and deletes the log under the transaction that is still 'held'."""
    app.insert(3)
    assert {"in_transaction": True} == holder.does(mistake, "")
    app.close()

    assert (mistake == "look") == (tmp_path / "app.db-wal").exists()


def test_a_second_sqlite_library_in_the_process_drops_the_locks_too(
    app: App, holder: Holder, tmp_path: Path
) -> None:
    """Two libraries do not know of each other's descriptors: the close of one drops the locks of the other."""
    assert {"in_transaction": True} == holder.does("other_library", "")

    assert not log_is_kept(app, tmp_path)


def test_a_second_connection_of_the_same_library_does_not(app: App, holder: Holder, tmp_path: Path) -> None:
    """One library keeps its descriptors open until the last lock on the file is gone."""
    for _ in range(3):
        assert {"in_transaction": True} == holder.does("same_library", "")

    assert log_is_kept(app, tmp_path)


def test_a_transaction_is_not_inherited_by_a_fork(app: App, holder: Holder, tmp_path: Path) -> None:
    """The child goes on believing in it, but the locks were its parent's and went with it."""
    assert {"in_transaction": True} == holder.does("fork_and_leave", "")

    assert not log_is_kept(app, tmp_path)
