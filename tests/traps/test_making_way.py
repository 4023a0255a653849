"""Whoever checkpoints beside an agent is not made to wait: its read mark is handed over in time.

A read mark left at the end of a log that is fully in the main file makes a TRUNCATE or RESTART wait for its whole
busy_timeout; one left in slot 0 after a commit does the same to FULL. Without the rule these took 3.5 seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.cursor import Observation
from replicator.source.database import Database, HeldMark
from tests.support.app import App

PROMPT_SECONDS = 0.9
TIMES = 4
# Enough of SQLite's busy handler asking that it asks only every 25 ms from then on.
WAITED_SECONDS = 0.06
# Whoever is in doubt for three times as long as that; the busy timeout of 5 s is what it takes without.
LATE_SECONDS = 2.5


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(str(tmp_path / "app.db")) as app:
        app.execute("PRAGMA busy_timeout = 5000")
        app.insert(20)
        yield app


@pytest.fixture(params=[0.0, 0.05, 1.0])
def agent(request: pytest.FixtureRequest, app: App, tmp_path: Path) -> Iterator[Agent]:
    """It follows, and may wait with a commit for as long as its interval."""
    path, store = str(tmp_path / "app.db"), str(tmp_path / "store")
    with Agent([DatabaseConfig(path, (store,), ship_interval=float(request.param))]) as agent:
        agent.wait_captured_and_shipped(30)
        yield agent


def checkpoint(app: App, mode: str) -> float:
    """Seconds it took; it has to succeed."""
    began = time.monotonic()
    ((busy, _, _),) = app.execute(f"PRAGMA wal_checkpoint({mode})")
    seconds = time.monotonic() - began
    assert 0 == busy, f"{mode} was busy after {seconds:.1f} s"
    return seconds


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("mode", ["TRUNCATE", "RESTART", "FULL"])
def test_a_checkpoint_beside_an_idle_agent_is_prompt(app: App, mode: str) -> None:
    """Once everything is quiet, and again at once after it."""
    took = [checkpoint(app, mode) for _ in range(TIMES)]

    assert max(took) < PROMPT_SECONDS, took


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("mode", ["FULL", "RESTART", "TRUNCATE"])
def test_a_checkpoint_right_after_a_commit_is_prompt(app: App, mode: str) -> None:
    """Also where the commit restarted the log under the mark that stood at its beginning."""
    took = []
    for _ in range(TIMES):
        app.insert(1)
        took.append(checkpoint(app, mode))
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        app.insert(2)
        took.append(checkpoint(app, mode))

    assert max(took) < PROMPT_SECONDS, took


@pytest.mark.usefixtures("agent")
def test_what_another_process_moved_does_not_hold_the_next_one_up(app: App, tmp_path: Path) -> None:
    """One process brings the main file up to date by PASSIVE, which nobody tells of; another one truncates."""
    with App(str(tmp_path / "app.db")) as other:
        other.execute("PRAGMA busy_timeout = 5000")
        took = []
        for _ in range(TIMES):
            other.insert(3)
            checkpoint(other, "PASSIVE")
            took.append(checkpoint(app, "TRUNCATE"))

    assert max(took) < PROMPT_SECONDS, took


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("mode", ["FULL", "RESTART", "TRUNCATE"])
def test_a_checkpoint_beside_a_busy_writer_is_prompt(app: App, tmp_path: Path, mode: str) -> None:
    """The writer never stops, and is kept out for as long as the checkpoint waits for us."""
    with App(str(tmp_path / "app.db")) as writer:
        ended = threading.Event()

        def write() -> None:
            while not ended.wait(0.004):
                writer.insert(1)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            took = [checkpoint(app, mode) for _ in range(4 * TIMES)]
        finally:
            ended.set()
            thread.join()

    assert max(took) < PROMPT_SECONDS, took


def test_a_slot_that_is_waited_for_is_not_taken_again(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit comes while hands change, and a checkpoint begins to wait for the slot we are about to let go
    of. A newer transaction would take that very slot, before it is asked for again, and rest there."""
    path = str(tmp_path / "app.db")
    let_go = Database.end_previous
    armed, waiting = threading.Event(), threading.Event()
    took: list[float] = []

    def let_go_late(self: Database) -> None:
        if armed.is_set():
            armed.clear()
            second.insert(1)
            thread.start()
            time.sleep(WAITED_SECONDS)  # whoever looked whether it holds the lock would leave a mark for us
            waiting.set()
        let_go(self)

    monkeypatch.setattr(Database, "end_previous", let_go_late)
    with (
        Agent([DatabaseConfig(path, (str(tmp_path / "store"),), ship_interval=0.0)]) as agent,
        App(path) as writer,
        App(path) as second,
    ):
        for before in range(2 * TIMES):  # hands change from slot to slot: each of them has its turn
            writer.insert(before)
            agent.wait_captured_and_shipped(30)
            waiting.clear()
            thread = threading.Thread(target=lambda: took.append(checkpoint(app, "RESTART")))
            armed.set()
            writer.insert(1)
            assert waiting.wait(10)
            thread.join()

    assert max(took) < PROMPT_SECONDS, took


def all_is_moved_until(event: threading.Event, app: App) -> bool:
    """Whether it came; a PASSIVE alone may find a mark in its way that is about to be left."""
    for _ in range(100):
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if event.wait(0.1):
            return True
    return False


class Ambush:
    """A FULL checkpoint of the application that begins to wait while hands change, right behind a commit. Whoever holds
    the moment up, once ``armed``, calls ``spring`` there."""

    second: App

    def __init__(self, app: App, path: str) -> None:
        self.armed, self._waiting = threading.Event(), threading.Event()
        self._app, self._path = app, path
        self._thread = threading.Thread()

    def spring(self) -> None:
        self.second.insert(1)
        self._thread.start()
        time.sleep(WAITED_SECONDS)
        self._waiting.set()

    def run(self, store: str) -> list[float]:
        """Seconds that each checkpoint took."""
        took: list[float] = []
        config = DatabaseConfig(self._path, (store,), ship_interval=0.0)
        with Agent([config]) as agent, App(self._path) as writer, App(self._path) as self.second:
            for before in range(2 * TIMES):
                writer.insert(1 + before)
                agent.wait_captured_and_shipped(30)
                self._waiting.clear()
                self._thread = threading.Thread(target=lambda: took.append(checkpoint(self._app, "FULL")))
                self.armed.set()
                assert all_is_moved_until(self._waiting, writer)
                self._thread.join()
        return took


def test_a_slot_that_is_waited_for_is_not_taken_again_from_slot_0(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likewise where the newer transaction is in slot 0, which has to be left soon after the commit."""
    ambush = Ambush(app, str(tmp_path / "app.db"))
    let_go = Database.end_previous

    def let_go_late(self: Database) -> None:
        if ambush.armed.is_set() and self.look().fully_backfilled:
            ambush.armed.clear()
            ambush.spring()
        let_go(self)

    monkeypatch.setattr(Database, "end_previous", let_go_late)
    took = ambush.run(str(tmp_path / "store"))

    assert max(took) < LATE_SECONDS, took


def test_a_slot_that_is_waited_for_is_not_taken_again_where_it_is_begun_anew(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits before and behind the beginning of the newer transaction: nobody can tell which slot it has."""
    ambush = Ambush(app, str(tmp_path / "app.db"))
    look, begin_next = Database.look, Database.begin_next
    looks: list[Observation] = []

    def look_between_commits(self: Database) -> Observation:
        if len(looks) == 1:
            ambush.spring()
        seen = look(self)
        if ambush.armed.is_set() and seen.fully_backfilled:
            ambush.armed.clear()
            ambush.second.insert(1)
            looks.append(seen)
        elif looks:
            looks.append(seen)
        return seen

    def begin_between_commits(self: Database) -> tuple[HeldMark, Observation]:
        with monkeypatch.context() as patch:
            patch.setattr(Database, "look", look_between_commits)
            begun = begin_next(self)
        looks.clear()
        return begun

    monkeypatch.setattr(Database, "begin_next", begin_between_commits)
    took = ambush.run(str(tmp_path / "store"))

    assert max(took) < LATE_SECONDS, took
