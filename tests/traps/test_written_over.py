"""With read mark 0 held, the next commit writes over the frames that lay in the log.

All of them are in the main file then, which nobody writes to while the mark is held. So whatever is read of them
between a look and the next is read there; a frame by its number is another page's by then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicator.agent import Agent
from replicator.backup import FullBackup, FullResult, Making
from replicator.capture import Capture, place
from replicator.capture import follow as follow_module
from replicator.moment import Followed
from replicator.source.pages import CapturedPages
from tests.parts.rig import Rig
from tests.support import oracle
from tests.support.app import App

ROWS = 60


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def filled(app: App) -> None:
    """A row a page, nothing in the log, and nobody but us who moves frames."""
    app.execute("PRAGMA wal_autocheckpoint=0")
    app.execute("CREATE TABLE r(id INTEGER PRIMARY KEY, n, filling)")
    for number in range(ROWS):
        app.execute("INSERT INTO r VALUES (?, 0, zeroblob(3000))", number)
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def write_over(app: App) -> None:
    """More frames than lie there, of other pages."""
    app.execute("UPDATE r SET n = n + 1 WHERE id < 40")


class Before:
    """Calls *first* once, before the next call of a function."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, first: Callable[[], None]) -> None:
        self.times = 0
        function = getattr(owner, name)

        def called(*arguments: Any, **more: Any) -> Any:
            self.times += 1
            if self.times == 1:
                first()
            return function(*arguments, **more)

        patch.setattr(owner, name, called)


def rest_in_zero(agent: Agent, app: App) -> None:
    """Until every frame is in the main file and the agent holds mark 0."""
    capture = agent._followers[0]._follow.capture  # type: ignore[union-attr]
    assert capture is not None
    for _ in range(500):
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with capture.hold_still():
            seen = capture.database.look()
        if capture._mark.zero and seen.frames and seen.fully_backfilled:
            return
        assert not agent.wait(0.02)
    pytest.fail("it never came to rest")


@pytest.mark.parametrize(
    ("owner", "name"), [(FullBackup, "_exact"), (CapturedPages, "database_checksum")], ids=["read", "proof"]
)
@pytest.mark.parametrize("later", [False, True])
def test_a_full_backup_is_of_its_commit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, later: bool
) -> None:
    """A commit while the last of its pages are read, or while the first full is proved."""
    made: list[FullResult] = []
    run = FullBackup.run
    stores = (rig.store, str(rig.folder / "other"))

    def interfere(self: FullBackup, followed: Followed, making: Making) -> FullResult:
        monkeypatch.setattr(FullBackup, "run", run)
        app.execute(f"UPDATE r SET n = 1 WHERE id >= {ROWS - 2}")  # the end of the file is read last
        rest_in_zero(agent, app)
        oracle.snapshot_at_rest(rig.database, str(rig.folder / "expected.db"))
        Before(monkeypatch, owner, name, lambda: write_over(app))
        made.append(run(self, followed, making))
        return made[0]

    with App(rig.database) as app:
        filled(app)
        if later:
            rig.once()
        agent = Agent([rig.config() if not later else rig.config().__class__(rig.database, stores)])
        monkeypatch.setattr(FullBackup, "run", interfere)
        with agent:
            agent.wait_captured_and_shipped(30)
        result = rig.restore(txid=made[0].position.txid)

        assert oracle.database_digest(rig.folder / "expected.db") == oracle.database_digest(result.path)
        assert [place.FIRST_RUN] == rig.generations()
        rig.assert_equal()


def away(rig: Rig, app: App, *, commit: bool) -> None:
    """The agent is gone, with all of the log in the main file, and perhaps a commit that it has not seen."""
    filled(app)
    rig.once()
    with rig.agent():
        app.execute("UPDATE r SET n = 1 WHERE id < 5")
    if commit:
        app.execute("UPDATE r SET n = 1 WHERE id >= 40")
    app.execute("PRAGMA wal_checkpoint(PASSIVE)")


def assert_every_point_restores(rig: Rig) -> None:
    for listing in rig.repository().catalogue.generations:
        for segment in listing.segments:
            for unit in rig.repository().carried(segment).units():
                rig.restore(txid=unit.header.txid_last, generation=listing.generation)
    rig.assert_equal()


@pytest.mark.parametrize(
    ("commit", "owner", "name"),
    [
        (False, follow_module, "resume"),
        (True, Capture, "settle_checksum"),
        (True, CapturedPages, "database_checksum"),
    ],
    ids=["place", "settle", "checksum"],
)
def test_a_commit_while_our_place_is_found_again_costs_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, commit: bool, owner: Any, name: str
) -> None:
    """The generation goes on, and the checksum that is remembered is the right one."""
    with App(rig.database) as app:
        away(rig, app, commit=commit)
        before = Before(monkeypatch, owner, name, lambda: write_over(app))
        with rig.agent():
            app.execute("UPDATE r SET n = 3 WHERE id = 3")

        assert before.times > 0
        assert [place.FIRST_RUN] == rig.generations()
        assert_every_point_restores(rig)


@pytest.mark.parametrize("cut", ["TRUNCATE", "RESTART"])
def test_content_is_compared_as_it_was_when_the_mark_was_taken(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Another log, the same content, all of it moved; and a commit while it is read through."""
    with App(rig.database) as app:
        away(rig, app, commit=False)
        app.execute(f"PRAGMA wal_checkpoint({cut})")
        for value in (9, 0):
            app.execute("UPDATE r SET n = ? WHERE id >= 55", value)
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        before = Before(monkeypatch, CapturedPages, "database_checksum", lambda: write_over(app))
        rig.once()

        assert before.times > 0
        assert [place.FIRST_RUN] == rig.generations()
        assert_every_point_restores(rig)


@pytest.mark.parametrize(
    "work", ["DELETE FROM r WHERE id > 20", "INSERT INTO r VALUES(99, 1, zeroblob(30000))"]
)
def test_a_generation_begins_at_the_mark(rig: Rig, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    """Its size is that of the transaction held, whatever the frames say by now."""
    with App(rig.database) as app:
        app.execute("PRAGMA auto_vacuum=FULL")
        app.execute("VACUUM")
        filled(app)
        app.execute("UPDATE r SET n = 1 WHERE id = 5")
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        Before(monkeypatch, follow_module, "begin_generation", lambda: app.execute(work))
        rig.once()

        assert [place.FIRST_RUN] == rig.generations()
        assert_every_point_restores(rig)


def test_frames_that_were_written_over_before_they_were_captured_end_the_generation(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came while the agent was away is gone from the log: said aloud, and a new history with a full."""
    with App(rig.database) as app:
        away(rig, app, commit=True)
        Before(monkeypatch, Capture, "capture_now", lambda: write_over(app))
        rig.once()

        first, second = rig.generations()
        assert place.FIRST_RUN == first
        assert "the log was restarted" in second
        assert_every_point_restores(rig)


def test_frames_that_are_written_over_while_they_are_captured_are_no_unit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in part from the old log and in part from the new, a unit is dropped before it counts."""
    with App(rig.database) as app:
        away(rig, app, commit=True)
        before = Before(monkeypatch, CapturedPages, "frame", lambda: write_over(app))
        rig.once()

        assert before.times > 0
        assert "the log was restarted before all of it was captured" == rig.generations()[1]
        assert_every_point_restores(rig)
