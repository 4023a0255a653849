"""Who is at a checkpoint is seen by the lock it holds, on the descriptor that SQLite has open."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.source.checkpoint_lock import CheckpointLock
from replicator.source.connection import identity_of
from replicator.source.database import Database
from tests.support.app import App


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(str(tmp_path / "app.db")) as app:
        app.execute("PRAGMA busy_timeout = 10000")
        app.insert(5)
        yield app


@pytest.fixture
def database(app: App, tmp_path: Path) -> Iterator[Database]:
    """Followed, with a read mark at the end of the log."""
    database = Database(str(tmp_path / "app.db"))
    database.open()
    database.begin_next()
    database.end_previous()
    yield database
    database.close()


@pytest.mark.parametrize("mode", ["FULL", "RESTART", "TRUNCATE"])
def test_a_checkpoint_that_waits_for_us_is_seen(app: App, database: Database, mode: str) -> None:
    """Not before it began and not after it ended, but for all the time it waits for our read mark."""
    app.insert(1)  # behind our mark
    before = database.checkpointed_elsewhere
    thread = threading.Thread(target=app.execute, args=(f"PRAGMA wal_checkpoint({mode})",))
    thread.start()
    deadline = time.monotonic() + 10
    while not database.checkpointed_elsewhere and time.monotonic() < deadline:
        time.sleep(0.001)
    seen = [database.checkpointed_elsewhere for _ in range(100)]
    while thread.is_alive():  # hands change until it has what it wants
        database.begin_next()
        database.end_previous()
        time.sleep(0.001)
    thread.join()

    assert before is False
    assert all(seen)
    assert database.checkpointed_elsewhere is False


def test_our_own_checkpoint_is_none_of_another(app: App, database: Database) -> None:
    """fcntl(2) tells of other processes' locks only."""
    app.insert(1)
    assert database.passive()

    assert database.checkpointed_elsewhere is False


def test_writers_are_no_checkpoint(app: App, database: Database) -> None:
    """The lock of a writer is another one."""
    app.execute("BEGIN IMMEDIATE")

    assert database.checkpointed_elsewhere is False
    app.execute("ROLLBACK")


def test_asking_takes_nothing_away(app: App, database: Database) -> None:
    """Our read mark holds as before: the application cannot restart the log."""
    app.insert(1)
    for _ in range(3):
        assert database.checkpointed_elsewhere is False
    app.execute("PRAGMA busy_timeout = 0")
    ((busy, _, _),) = app.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    assert 1 == busy


@pytest.mark.parametrize("number", [-1, "of another file", "closed"])
def test_a_number_that_stands_for_something_else_is_looked_up_again(
    app: App, database: Database, tmp_path: Path, number: int | str
) -> None:
    """SQLite closes and opens as it likes."""
    shm = identity_of(str(tmp_path / "app.db-shm"))
    assert shm is not None
    lock = CheckpointLock(shm)
    other = os.open(tmp_path, os.O_RDONLY)
    if number == "closed":
        os.close(other)
    lock._fd = other if isinstance(number, str) else number
    try:
        assert lock.held is False
        assert database.checkpointed_elsewhere is False
    finally:
        if number != "closed":
            os.close(other)


def test_where_it_cannot_be_found_out_somebody_may_be_there(app: App, tmp_path: Path) -> None:
    """No descriptor of that file is open in this process."""
    shm = identity_of(str(tmp_path / "app.db-shm"))
    assert shm is not None

    assert CheckpointLock(shm).held is True
