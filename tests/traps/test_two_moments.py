"""SQLite reads how many frames are committed, and then how many are in the main file: two moments of one look.

A writer may restart the log between them. Its header in shared memory is new then, that in the file still the old one,
so all frames of the old log are paired with none moved, and nothing else tells. A mark 0 that is looked at in
that moment would pass for one in another slot, under which no log can be restarted: the agent gave up on what it
held. Found by the model (tests/model); on real SQLite one in twenty thousand hand-overs beside a busy writer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from replicator.core.cursor import Restarted, WalCursor, judge
from replicator.source.database import Database
from tests.support.app import App
from tests.support.paused import Process


class Interrupted:
    """The agent's own connection, that is interrupted once between the two counts, in a transaction's look after."""

    def __init__(self, database: Database, writer: Process) -> None:
        assert database._observer is not None
        self._database, self._connection, self._writer = database, database._observer, writer
        self.times = 0

    def read(self, *arguments: Any) -> Any:
        return self._connection.read(*arguments)

    def close(self) -> None:
        self._connection.close()

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
        frames, backfilled = self._connection.wal_checkpoint(mode=mode)
        newer = self._database._readers[1 - self._database._current]
        if not self.times and newer is not None and newer.in_transaction:
            self.times += 1
            assert {"at": "header"} == self._writer.does("write", "COMMIT")
            _, backfilled = self._connection.wal_checkpoint(mode=mode)
        return frames, backfilled


class Interrupting:
    """A writer that is not let run in the middle of the header in shared memory, for 0.1 s: to read it is busy."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection, self._until = connection, time.monotonic() + 0.1

    def read(self, *arguments: Any) -> Any:
        return self._connection.read(*arguments)

    def close(self) -> None:
        self._connection.close()

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
        if time.monotonic() < self._until:
            raise apsw.BusyError
        return self._connection.wal_checkpoint(mode=mode)


@pytest.fixture
def writer() -> Iterator[Process]:
    writer = Process()
    yield writer
    writer.kill()


def test_mark_0_is_told_though_the_log_is_restarted_while_it_is_looked_at(
    tmp_path: Path, writer: Process
) -> None:
    """And what comes next is the restart that it allows, not a loss."""
    path = str(tmp_path / "app.db")
    with App(path) as app:
        app.insert(3)
        writer.does("open", path)
        database = Database(path)
        database.open()
        try:
            app.execute("PRAGMA wal_checkpoint(PASSIVE)")
            writer.does("sql", "BEGIN; INSERT INTO t(body) VALUES('x')")
            interrupted = Interrupted(database, writer)
            database._observer = interrupted  # type: ignore[assignment]
            before = database.look()
            mark, seen = database.begin_next()
            database.end_previous()
            assert before.header is not None
            place = database.frame_header(before.frames - 1)
            cursor = WalCursor(before.header.salt, before.frames, place.checksum)
            verdict = judge(cursor, database.look(), reset_allowed=mark.zero)
        finally:
            database.close()

    assert 1 == interrupted.times
    assert before.fully_backfilled
    assert mark.zero
    assert isinstance(verdict, Restarted)
    assert (0, 0) == (seen.frames, seen.backfilled)


def test_a_look_outlasts_a_writer_that_is_kept_from_running(tmp_path: Path) -> None:
    """Were it given up, everything would be let go of, for a second in which nothing is held."""
    path = str(tmp_path / "app.db")
    with App(path) as app:
        app.insert(3)
        database = Database(path)
        database.open()
        try:
            before = database.look()
            assert database._observer is not None
            database._observer = Interrupting(database._observer)  # type: ignore[assignment]
            after = database.look()
        finally:
            database.close()

    assert before == after
