"""Several databases in one agent: one watcher, one pool, and none holds up another."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replicator import line
from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.errors import NotWalMode, UsageError
from replicator.marks import LastError
from replicator.source.watcher import Watcher
from replicator.store.folder import FolderStore
from tests.parts.rig import SECONDS, Rig
from tests.support.app import App


def test_databases_of_one_folder_and_of_others_are_followed_by_one_agent(tmp_path: Path) -> None:
    """Each is restored to its last commit; one that does not exist yet harms nobody."""
    rigs = [Rig(tmp_path / name) for name in ("one", "two", "three")]
    for rig in rigs[:2]:
        rig.folder.mkdir()
    rigs[2].folder = rigs[0].folder
    rigs[2].database = str(rigs[0].folder / "third.db")
    missing = DatabaseConfig(
        str(tmp_path / "nowhere" / "absent.db"), (str(tmp_path / "store"),), state=str(tmp_path / "st")
    )
    apps = [App(rig.database) for rig in rigs]
    agent = Agent([*(rig.config() for rig in rigs), missing])
    agent.start()
    try:
        for number, app in enumerate(apps, 1):
            app.insert(number * 3)
        for _ in range(1000):
            shipped = [
                snapshot.stores and all(s.shipped and s.protected for s in snapshot.stores.values())
                for path, snapshot in agent.status().items()
                if "absent" not in path
            ]
            if all(shipped):
                break
            assert not agent.wait(0.02)
        observer = agent._watcher._observer

        assert observer is not None
        assert len(observer.emitters) <= 2
        assert "waiting" == agent.status()[missing.path].source.phase
    finally:
        agent.stop()
    for rig, app in zip(rigs, apps, strict=True):
        app.close()
        os.makedirs(rig.folder, exist_ok=True)
        rig.assert_equal()


def test_a_database_that_cannot_be_followed_leaves_the_others_alone(tmp_path: Path) -> None:
    """It is named as failed, with its reason; the agent goes on for the rest, and says so when asked to wait."""
    good, bad = Rig(tmp_path / "good"), Rig(tmp_path / "bad")
    for rig in (good, bad):
        rig.folder.mkdir()
    with App(good.database) as app, App(bad.database, wal=False) as rollback:
        rollback.insert(1)
        agent = Agent([good.config(), bad.config()])
        agent.start()
        try:
            app.insert(5)
            with pytest.raises(NotWalMode):
                agent.wait_captured_and_shipped(20)

            assert "failed" == agent.status()[bad.database].source.phase
            assert "following" == agent.status()[good.database].source.phase
        finally:
            agent.stop()
        good.assert_equal()


def test_without_events_commits_are_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system's limit on watches is reached: said once, and the looks are closer together."""

    def refuse() -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr("replicator.source.watcher.Observer", refuse)
    rig = Rig(tmp_path)
    with App(rig.database) as app:
        app.insert(1)
        agent = Agent([rig.config()])
        agent.start()
        agent.wait_captured_and_shipped(20)
        assert not agent.wait(2.5)  # past the looks that follow every commit
        before = agent.status()[rig.database].source.captured
        app.insert(1)
        began = time.monotonic()
        while agent.status()[rig.database].source.captured == before:
            assert not agent.wait(0.005)
            assert time.monotonic() - began < 1.5  # the safety poll comes at 5 s
        agent.stop()

    assert 1 == [each.message for each in caplog.records].count("events.refused")


def test_a_database_at_rest_has_no_wake_up_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit whose event was lost is found by the sweep over all databases, which looks at files only."""
    monkeypatch.setattr(Watcher, "arm", lambda *_: True)  # events that never come
    rigs = [Rig(tmp_path / name) for name in ("one", "two")]
    for rig in rigs:
        rig.folder.mkdir()
    with App(rigs[0].database) as app, App(rigs[1].database) as other:
        app.insert(1)
        other.insert(1)
        agent = Agent([rig.config() for rig in rigs])
        agent.start()
        agent.wait_captured_and_shipped(20)
        follows = [follower._follow for follower in agent._followers]
        for _ in range(1000):
            # The first full opened a connection since, and as root SQLite gives -wal its owner once more.
            if all(each and each._resting and not each.changed_at_rest for each in follows):
                break
            agent._sweep(0.0)
            assert not agent.wait(0.02)
        before = agent.status()[rigs[0].database].source.captured
        app.insert(1)
        agent._sweep(0.0)
        for _ in range(100):
            if agent.status()[rigs[0].database].source.captured != before:
                break
            assert not agent.wait(0.01)
        resting = [each._resting for each in follows if each is not None]
        captured = agent.status()[rigs[0].database].source.captured
        agent.stop()

    assert captured != before
    assert resting[1] is not None  # the other one was left alone


def test_many_databases_fit_into_the_limit_on_open_files() -> None:
    """The soft limit is raised as far as is needed and allowed, never lowered."""
    script = (
        "import resource, sys; from replicator.files import allow_descriptors\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))\n"
        "for wanted in (32, 256, 100_000):\n"
        "    allow_descriptors(wanted); print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ["64 512", "256 512", "512 512"] == done.stdout.splitlines()


def test_an_agent_starts_once(tmp_path: Path) -> None:
    """Started again while it runs, or once it was stopped, it says so; the next agent follows as ever."""
    rig = Rig(tmp_path)
    with App(rig.database) as app:
        agent = Agent([rig.config()])
        agent.start()
        try:
            with pytest.raises(UsageError, match="starts once"):
                agent.start()
            app.insert(3)
            agent.wait_captured_and_shipped(30.0)
        finally:
            agent.stop()
        with pytest.raises(UsageError, match="starts once"):
            agent.start()
        never = Agent([rig.config()])
        never.stop()
        with pytest.raises(UsageError, match="starts once"):
            never.start()
        rig.once()
    rig.assert_equal()


def test_a_fault_of_the_program_with_a_store_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no store should raise is told without its text, tried again, and capture goes on meanwhile."""
    put, secret = FolderStore.put, "canary"
    broken = [True]

    def put_or_break(self: FolderStore, name: str, data: bytes) -> None:
        if broken[0] and name.startswith("tail"):
            raise TypeError(secret)
        put(self, name, data)

    monkeypatch.setattr(line, "SURPRISED_SECONDS", 0.05)
    monkeypatch.setattr(FolderStore, "put", put_or_break)
    rig = Rig(tmp_path)

    def error_of(agent: Agent) -> LastError | None:
        return agent.status()[rig.database].error

    with App(rig.database) as app, rig.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        for _ in range(1000):
            app.insert(1)
            if (error := error_of(agent)) is not None:
                break
            assert not agent.wait(0.02)
        app.insert(5)
        broken[0] = False
        agent.wait_captured_and_shipped(SECONDS)
        assert error_of(agent) is None

    assert error is not None
    assert error.message.startswith("internal error: TypeError at test_several.py:")
    assert secret not in error.message
    rig.assert_equal()
