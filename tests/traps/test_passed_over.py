"""A checkpoint that stops at a read mark passes over pages, and counts their frames as moved all the same.

It moves the newest frame of each page or none. So the main file is not what the number of moved frames says, and
a full backup that believed the number was of no commit at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.agent import Agent
from replicator.backup import FullBackup, FullResult, Making
from replicator.core.cursor import Observation
from replicator.core.following import Pace
from replicator.moment import Followed
from replicator.source.database import Database
from replicator.source.pages import CapturedPages
from tests.parts.rig import Rig
from tests.support import oracle
from tests.support.app import App

Work = Callable[[App], None]

ROWS = 60
PAGE_BYTES = 4096


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def filled(app: App) -> None:
    """A row a page, nothing in the log."""
    app.execute("PRAGMA wal_autocheckpoint=0")
    app.execute("PRAGMA auto_vacuum=FULL")
    app.execute("VACUUM")
    app.execute("CREATE TABLE r(id INTEGER PRIMARY KEY, n, filling)")
    for number in range(ROWS):
        app.execute("INSERT INTO r VALUES (?, 0, zeroblob(3000))", number)
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def shrink(app: App) -> None:
    """One commit; it writes almost none of the pages that it cuts off."""
    app.execute("DELETE FROM r")


def rewrite(app: App) -> None:
    app.execute(f"UPDATE r SET n = 2 WHERE id < {ROWS // 2}")


@pytest.mark.parametrize("work", [rewrite, shrink])
def test_frames_that_count_as_moved_are_not_all_in_the_main_file(tmp_path: Path, work: Work) -> None:
    """SQLite itself: 1 is the committed value of every row at the mark, and the file still has 0 of some."""
    path = str(tmp_path / "app.db")
    with App(path) as app:
        filled(app)
        app.execute("UPDATE r SET n = 1")
        database = Database(path)
        database.open()
        try:
            database.begin_next()
            work(app)
            app.execute("PRAGMA wal_checkpoint(PASSIVE)")
            seen = database.look()
            main = os.path.getsize(path)
            stale = sum(
                database.main_page(number) != frame
                for number, frame in newest_frames(database, seen.backfilled).items()
                if number * PAGE_BYTES <= main
            )
        finally:
            database.close()

    assert 0 < seen.backfilled < seen.frames
    assert stale > 10


def newest_frames(database: Database, frames: int) -> dict[int, bytes]:
    """By page number, of the first *frames* frames."""
    return {database.frame_header(index).pgno: database.frame_page(index) for index in range(frames)}


@pytest.fixture
def meanwhile(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Work], list[FullResult]]]:
    """Runs an agent whose first full backup meets a commit of 1 in every row, captured, then *work*, which is
    not, and a checkpoint; returns that full, if it was made. ``expected.db``: the database in between."""
    made: list[FullResult] = []
    run = FullBackup.run
    agent = Agent([rig.config()])

    def go(work: Work) -> list[FullResult]:
        def interfere(self: FullBackup, followed: Followed, making: Making) -> FullResult:
            monkeypatch.setattr(FullBackup, "run", run)
            app.execute("UPDATE r SET n = 1")
            agent._followers[0].capture_now()
            oracle.snapshot_at_rest(rig.database, str(rig.folder / "expected.db"))
            with monkeypatch.context() as patch:
                patch.setattr(Pace, "due", lambda *_, **__: False)
                work(app)
                app.execute("PRAGMA wal_checkpoint(PASSIVE)")
                made.append(run(self, followed, making))
            return made[0]

        monkeypatch.setattr(FullBackup, "run", interfere)
        with agent:
            agent.wait_captured_and_shipped(30)
        return made

    with App(rig.database) as app:
        filled(app)
        yield go
        rig.assert_equal()


@pytest.mark.parametrize("work", [rewrite, shrink])
def test_a_full_backup_is_of_one_commit_all_the_same(
    rig: Rig, meanwhile: Callable[[Work], list[FullResult]], work: Work
) -> None:
    """It restores to the commit it names, byte by byte, and its generation goes on."""
    (full,) = meanwhile(work)
    result = rig.restore(txid=full.position.txid)
    expected = oracle.database_digest(rig.folder / "expected.db")

    assert expected == oracle.database_digest(Path(result.path))
    assert ["first run"] == rig.generations()


def test_a_first_full_that_is_not_the_database_is_not_built_upon(
    rig: Rig, meanwhile: Callable[[Work], list[FullResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were a page believed that is not in the main file, the sum says so before anything is committed."""
    asked: list[CapturedPages] = []
    unsettled = CapturedPages.unsettled

    def nothing_at_first(self: CapturedPages, seen: Observation, captured: int) -> set[int]:
        asked.append(self)
        return set() if self is asked[0] else unsettled(self, seen, captured)

    monkeypatch.setattr(CapturedPages, "unsettled", nothing_at_first)
    made = meanwhile(rewrite)

    assert [] == made
    first, second = rig.repository().catalogue.generations
    assert not first.fulls
    assert second.record is not None
    assert "is not the database at its commit" in second.record.reason
