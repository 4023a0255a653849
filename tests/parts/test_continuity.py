"""Each rule of continuity, both ways: what must end a generation does, and what must not does not."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.agent import Agent
from replicator.capture import Capture
from replicator.capture import follow as follow_module
from replicator.capture.place import FIRST_RUN
from replicator.core.errors import NotADatabase, NotWalMode, OwnershipLost
from replicator.core.following import RELOOK_FOR_SECONDS
from tests.parts.rig import Rig
from tests.support.app import App


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def wait_until(agent: Agent, fact: Callable[[], bool], seconds: float = 30.0) -> None:
    """Give the agent's threads time; what is waited for must become true."""
    for _ in range(int(seconds / 0.02)):
        if fact():
            return
        assert not agent.wait(0.02)
    raise AssertionError("it did not happen")


# --- what must not end a generation ------------------------------------------------------------------


def test_an_application_that_writes_on_while_the_agent_restarts_loses_no_continuity(rig: Rig) -> None:
    """Commits made while the agent was away, in a log that goes on, are captured in the same generation."""
    with App(rig.database) as app:
        app.insert(5)
        rig.once()
        app.insert(7)
        with rig.agent():
            app.insert(3)

        assert [FIRST_RUN] == rig.generations()
        assert rig.assert_equal().position.txid >= 10


def test_an_application_that_closes_without_writing_loses_no_continuity(rig: Rig) -> None:
    """The log is gone, but every page is what was captured last."""
    with App(rig.database) as app:
        app.insert(5)
        rig.once()
    with App(rig.database) as app, rig.agent():
        app.insert(4)

    assert [FIRST_RUN] == rig.generations()
    rig.assert_equal()


def test_an_idle_restart_sends_nothing(rig: Rig) -> None:
    """With nothing written meanwhile, a restart puts no object."""
    with App(rig.database) as app:
        app.insert(5)
        rig.once()
        before = {each.name for each in rig.repository().store.list("")}
        rig.once()

        assert before == {each.name for each in rig.repository().store.list("")}


def test_a_lost_state_folder_loses_no_continuity(rig: Rig) -> None:
    """The place in the log is found in the newest unit in the store."""
    with App(rig.database) as app:
        app.insert(5)
        with rig.agent():
            app.insert(5)
        shutil.rmtree(rig.config().state_folder)
        app.insert(5)
        rig.once(take_over=True)

        assert [FIRST_RUN] == rig.generations()
        rig.assert_equal()


def test_a_lost_state_folder_and_log_lose_no_continuity_if_nothing_changed(rig: Rig) -> None:
    """The database's checksum in the store is compared with the database itself."""
    with App(rig.database) as app, rig.agent():
        app.insert(5)
    app.close()
    shutil.rmtree(rig.config().state_folder)
    with App(rig.database) as app, rig.agent(take_over=True):
        app.insert(1)

    assert [FIRST_RUN] == rig.generations()
    rig.assert_equal()


def test_nobody_sees_a_capture_whose_checksum_is_still_looked_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full backup began as soon as it saw one, found no checksum, and gave the generation up for nothing."""
    seen: list[object] = []
    settle = Capture.settle_checksum

    def looked(self: Capture, base: int) -> tuple[int, int]:
        follow = agent._followers[0]._follow
        assert follow is not None
        seen.append(follow.capture)
        return settle(self, base)

    with App(rig.database) as app:
        app.insert(3)
        rig.once()
        app.insert(3)
        monkeypatch.setattr(Capture, "settle_checksum", looked)
        agent = Agent([rig.config()])
        with agent:
            agent.wait_captured_and_shipped(20)

    assert [None] == seen
    assert [FIRST_RUN] == rig.generations()


@pytest.mark.parametrize("page_size", [1 << bits for bits in range(9, 17)])
def test_vacuum_alter_shrinking_and_huge_transactions_go_on(rig: Rig, page_size: int) -> None:
    """Commit sizes shrink and grow, frames spill and are written twice; the generation goes on."""
    with App(rig.database, page_size=page_size) as app, rig.agent():
        app.insert(50, size=2000)
        app.execute("PRAGMA cache_size=5")
        app.execute("BEGIN")
        app.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) "
            "INSERT INTO t(body) SELECT hex(randomblob(1500)) FROM n"
        )
        app.execute("UPDATE t SET body=body||'x' WHERE id%3=0")
        app.execute("COMMIT")
        app.execute("ALTER TABLE t ADD COLUMN extra")
        app.execute("DELETE FROM t WHERE id>40")
        app.execute("VACUUM")
        app.execute("PRAGMA auto_vacuum=FULL")
        app.execute("VACUUM")
        app.insert(5, size=70000)
        app.execute("DELETE FROM t WHERE id%2")
        app.execute("CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID")
        app.execute("INSERT INTO w VALUES('a', zeroblob(200000))")
        app.execute("CREATE VIRTUAL TABLE f USING fts5(body)")
        app.execute("INSERT INTO f SELECT 'word' || (id % 7) || ' ' || substr(body, 1, 300) FROM t")
        app.execute("INSERT INTO f(f) VALUES('optimize')")

    assert [FIRST_RUN] == rig.generations()
    rig.assert_equal()


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_checkpoints_of_the_application_go_on(rig: Rig, mode: str) -> None:
    """Every mode, after every commit. One may meet a read transaction of ours just as it begins, which SQLite
    makes it wait for in vain (docs/ARCHITECTURE.md, "Checkpoints"); the next one does not."""
    refused = 0
    with App(rig.database) as app, rig.agent():
        app.execute("PRAGMA busy_timeout=1000")
        for _ in range(10):
            app.insert(2)
            refused += app.execute(f"PRAGMA wal_checkpoint({mode})")[0][0]

    assert refused <= 1
    assert [FIRST_RUN] == rig.generations()
    rig.assert_equal()


def test_a_clock_that_goes_back_ends_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded times are held, and every commit keeps its order."""
    from replicator.clock import Clock

    with App(rig.database) as app:
        app.insert(3)
        rig.once()
        real = Clock.wall
        monkeypatch.setattr(Clock, "wall", lambda self: real(self) - 3_600_000_000)
        with rig.agent():
            app.insert(3)

        assert [FIRST_RUN] == rig.generations()
        rig.assert_equal()


# --- what must end one -------------------------------------------------------------------------------


def test_writes_after_the_log_was_restarted_while_we_were_away_begin_a_generation(rig: Rig) -> None:
    """The application wrote and closed: nobody can say what happened, and the old generation stays restorable."""
    with App(rig.database) as app:
        app.insert(5)
        rig.once()
        first = rig.restore().position
        app.insert(3)
    with App(rig.database) as app:
        app.insert(2)
        rig.once()

        assert 2 == len(rig.generations())
        rig.assert_equal()
        assert first == rig.restore(txid=first.txid, generation=first.generation).position


def test_an_older_copy_put_back_while_we_were_away_begins_a_generation(rig: Rig) -> None:
    """A database that went back in time, as after a power cut, is not appended to."""
    copy = str(rig.folder / "copy.db")
    with App(rig.database) as app:
        app.insert(5)
    shutil.copy(rig.database, copy)
    with App(rig.database) as app:
        app.insert(5)
        rig.once()
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(rig.database + suffix):
            os.unlink(rig.database + suffix)
    shutil.copy(copy, rig.database)
    rig.once()

    assert 2 == len(rig.generations())
    assert 5 == len(_rows(rig.assert_equal().path))


def test_a_log_that_lost_its_end_begins_a_generation(rig: Rig) -> None:
    """synchronous=NORMAL and a power cut: the log is shorter than what was captured from it."""
    with App(rig.database) as app:
        app.insert(3)
        early = os.path.getsize(rig.database + "-wal")
        app.insert(5)
        rig.once()
        app.kill()
    with open(rig.database + "-wal", "r+b") as file:
        file.truncate(early)
    os.unlink(rig.database + "-shm")
    rig.once()

    assert 2 == len(rig.generations())
    assert "older" in rig.generations()[1]
    rig.assert_equal()


def test_a_journal_mode_left_and_entered_again_begins_a_generation(rig: Rig) -> None:
    """What was written in rollback mode was in no log."""
    with App(rig.database) as app:
        app.insert(5)
        rig.once()
        app.execute("PRAGMA journal_mode=DELETE")
        app.insert(1)
        app.execute("PRAGMA journal_mode=WAL")
        app.insert(1)
        rig.once()

        assert 2 == len(rig.generations())
        rig.assert_equal()


def test_another_page_size_begins_a_generation(rig: Rig) -> None:
    """Pages of another size have no previous versions."""
    with App(rig.database) as app:
        app.insert(5)
        rig.once()
        app.execute("PRAGMA journal_mode=DELETE")
        app.execute("PRAGMA page_size=8192")
        app.execute("VACUUM")
        app.execute("PRAGMA journal_mode=WAL")
        app.insert(1)
        rig.once()

        assert "page size" in rig.generations()[1]
        rig.assert_equal()


def test_deletion_and_re_creation_under_our_feet_begin_a_generation(rig: Rig) -> None:
    """The last commits of the old file are captured from the descriptor we hold, then the new file is followed."""
    app = App(rig.database)
    with rig.agent() as agent:
        app.insert(5)
        wait_until(agent, lambda: _captured(agent) >= 5)
        app.kill()
        for suffix in ("", "-wal", "-shm"):
            os.unlink(rig.database + suffix)
        wait_until(agent, lambda: agent.status()[rig.database].source.phase == "waiting")
        with App(rig.database) as again:
            again.insert(2)
            wait_until(agent, lambda: agent.status()[rig.database].source.generations_begun == 2)

    assert 2 == len(rig.generations())
    rig.assert_equal()


def test_an_older_copy_renamed_over_the_database_begins_a_generation(rig: Rig) -> None:
    """Another inode is another file, whatever it holds."""
    app = App(rig.database)
    app.insert(3)
    app.close()
    shutil.copy(rig.database, rig.database + ".old")
    with App(rig.database) as app, rig.agent() as agent:
        app.insert(5)
        wait_until(agent, lambda: _captured(agent) >= 5)
        app.kill()
        for suffix in ("-wal", "-shm"):
            os.unlink(rig.database + suffix)
        os.rename(rig.database + ".old", rig.database)
        wait_until(agent, lambda: agent.status()[rig.database].source.generations_begun == 2)

    assert 2 == len(rig.generations())
    assert 3 == len(_rows(rig.assert_equal().path))


def test_a_copy_written_over_the_database_in_place_begins_a_generation(rig: Rig) -> None:
    """The same inode with other content, and no frame in the log that explains it."""
    app = App(rig.database)
    app.insert(3)
    app.close()
    shutil.copy(rig.database, rig.database + ".old")
    app = App(rig.database)
    with rig.agent() as agent:
        app.insert(5)
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        agent.wait_captured_and_shipped(20)
        app.kill()
        # At rest once, so that the agent knows what the file looked like.
        follow = agent._followers[0]._follow
        assert follow is not None
        wait_until(agent, lambda: follow._settled is not None)
        os.system(f"cat '{rig.database}.old' > '{rig.database}'")
        wait_until(agent, lambda: agent.status()[rig.database].source.generations_begun == 2)

    assert 2 == len(rig.generations())


@pytest.mark.parametrize("moved", ["TRUNCATE", "PASSIVE"])
@pytest.mark.parametrize("pause", [0.0, 0.5])
def test_a_copy_put_over_the_database_is_noticed_though_commits_follow_at_once(
    rig: Rig, moved: str, pause: float
) -> None:
    """The application is stopped, an older copy written over the file, and the application started: its first
    commit changes a page that is the same in both. What is restored must be what the application has."""
    with App(rig.database) as app:
        app.execute("CREATE TABLE other(id INTEGER PRIMARY KEY, n)")
        app.execute("INSERT INTO other VALUES(1, 0)")
        app.insert(3)
    shutil.copy(rig.database, rig.database + ".old")
    with rig.agent() as agent:
        with App(rig.database) as app:
            app.insert(40)
            agent.wait_captured_and_shipped(20)
            app.execute("PRAGMA busy_timeout = 5000")
            # PASSIVE goes as far as our read mark does, which may follow a moment later.
            wait_until(
                agent, lambda: bool(app.execute(f"PRAGMA wal_checkpoint({moved})")) and holds_zero(agent)
            )
        if moved == "PASSIVE":
            os.unlink(rig.database + "-wal")  # as people do, and have to: SQLite would read it back
            os.unlink(rig.database + "-shm")
        os.system(f"cat '{rig.database}.old' > '{rig.database}'")
        assert not agent.wait(pause) if pause else True
        with App(rig.database) as app:
            app.execute("UPDATE other SET n = n + 1")
            wait_until(agent, lambda: agent.status()[rig.database].source.generations_begun == 2)
            app.execute("UPDATE other SET n = n + 1")
            agent.wait_captured_and_shipped(20)
            expected = app.execute(EVERYTHING)

    assert 2 == len(rig.generations())
    # Rows, not bytes: where SQLite's index of the log outlived the copy, it still counts the pages of before.
    with App(str(rig.restore().path)) as restored:
        assert expected == restored.execute(EVERYTHING)


EVERYTHING = "SELECT 't', id, body FROM t UNION ALL SELECT 'other', id, n FROM other ORDER BY 1, 2"


def holds_zero(agent: Agent) -> bool:
    follow = agent._followers[0]._follow
    return follow is not None and follow.capture is not None and follow.capture._mark.zero


def rest_in_zero(agent: Agent, app: App) -> None:
    """Three commits, shipped and moved, and mark 0 held over them."""
    app.insert(3)
    agent.wait_captured_and_shipped(20)
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    wait_until(agent, lambda: holds_zero(agent))


def test_a_touched_file_is_compared_and_ends_nothing(rig: Rig) -> None:
    """New times, the same content."""
    with App(rig.database) as app, rig.agent() as agent:
        app.insert(3)
        agent.wait_captured_and_shipped(20)
        app.execute("PRAGMA busy_timeout = 5000")
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        wait_until(agent, lambda: holds_zero(agent))
        capture = agent._followers[0]._follow.capture  # type: ignore[union-attr]
        assert capture is not None
        os.utime(rig.database, (1, 1))
        assert capture.main_changed
        wait_until(agent, lambda: not capture.main_changed)
        app.insert(3)

    assert [FIRST_RUN] == rig.generations()
    rig.assert_equal()


def test_a_mode_or_a_link_of_the_file_is_no_write(rig: Rig) -> None:
    """A hard link as a backup makes it, and chmod: nothing is compared."""
    with App(rig.database) as app, rig.agent() as agent:
        rest_in_zero(agent, app)
        capture = agent._followers[0]._follow.capture  # type: ignore[union-attr]
        assert capture is not None
        os.chmod(rig.database, 0o640)
        os.link(rig.database, rig.database + "-link")
        os.unlink(rig.database + "-link")

        assert not capture.main_changed


@pytest.mark.parametrize("name", ["_round", "_hand_over"])
def test_a_file_that_is_touched_while_a_commit_is_captured_ends_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Found too late to compare first: it is compared next, and what was not captured is captured then."""
    with App(rig.database) as app, rig.agent() as agent:
        rest_in_zero(agent, app)
        function, touched = getattr(Capture, name), []

        def touching(self: Capture, *arguments: object) -> object:
            if not touched and self._mark.zero:
                touched.append(1)
                os.utime(rig.database, (1, 1))
            return function(self, *arguments)

        monkeypatch.setattr(Capture, name, touching)
        app.insert(3)
        agent.wait_captured_and_shipped(20)

    assert touched
    assert [FIRST_RUN] == rig.generations()
    rig.assert_equal()


def test_a_file_that_is_touched_all_the_while_is_followed_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and again it is compared, though it never comes to rest."""
    monkeypatch.setattr(follow_module, "DOUBT_SECONDS_MAX", 0.5)
    stop = threading.Event()

    def touch() -> None:
        while not stop.wait(0.05):
            os.utime(rig.database)

    with App(rig.database) as app, rig.agent() as agent:
        rest_in_zero(agent, app)
        before = _captured(agent)
        toucher = threading.Thread(target=touch)
        toucher.start()
        try:
            app.insert(5)
            wait_until(agent, lambda: _captured(agent) >= before + 5)
        finally:
            stop.set()
            toucher.join()

    assert [FIRST_RUN] == rig.generations()
    rig.assert_equal()


def test_a_commit_that_waits_for_a_slow_fsync_is_found(rig: Rig) -> None:
    """Its frames lie in the log long before it is published, which no event tells of, and no file time."""
    with App(rig.database) as app, rig.agent() as agent:
        app.insert(3)
        agent.wait_captured_and_shipped(20)
        slow = subprocess.Popen(
            [sys.executable, "-c", SLOW_COMMIT, rig.database, str(RELOOK_FOR_SECONDS + 1.0)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert slow.stdout is not None
        assert "committed\n" == slow.stdout.readline()
        before = agent.status()[rig.database].source.captured
        wait_until(agent, lambda: agent.status()[rig.database].source.captured != before, 3.0)
        slow.communicate(timeout=10)

    rig.assert_equal()


SLOW_COMMIT = """
import apsw, sys, time
delay = 0.0
class Slow(apsw.VFS):
    def __init__(self): super().__init__("slow", "unix")
    def xOpen(self, name, flags): return File(name, flags)
class File(apsw.VFSFile):
    def __init__(self, name, flags):
        super().__init__("unix", name, flags)
        self.log = flags[0] & apsw.SQLITE_OPEN_WAL
    def xSync(self, flags):
        if self.log: time.sleep(delay)
        super().xSync(flags)
vfs = Slow()
connection = apsw.Connection(sys.argv[1], vfs="slow")
connection.execute("PRAGMA synchronous=FULL")
delay = float(sys.argv[2])
connection.execute("INSERT INTO t(body) VALUES('slow')")
delay = 0.0
print("committed", flush=True)
"""


# --- what is waited for, and what is refused -----------------------------------------------------------


def test_a_database_that_does_not_exist_yet_is_waited_for(rig: Rig) -> None:
    """Followed from its first commits on."""
    agent = Agent([rig.config()])
    agent.start()
    try:
        wait_until(agent, lambda: agent.status()[rig.database].source.phase == "waiting")
        with App(rig.database) as app:
            app.insert(3)
            wait_until(agent, lambda: agent.status()[rig.database].source.phase == "following")
            agent.wait_captured_and_shipped(20)
    finally:
        agent.stop()

    assert 3 == len(_rows(rig.restore().path))


def test_s14_a_rollback_journal_database_is_refused(rig: Rig) -> None:
    """One clear error after a moment's grace."""
    with App(rig.database, wal=False) as app:
        app.insert(1)
        with pytest.raises(NotWalMode, match="not in WAL mode"):
            Agent([rig.config()]).start()


def test_a_file_that_is_no_database_is_refused(rig: Rig) -> None:
    """Named, and with nothing changed in it."""
    with open(rig.database, "wb") as file:
        file.write(b"certainly not a database" * 1000)
    with pytest.raises(NotADatabase, match="not a SQLite database"):
        Agent([rig.config()]).start()


def test_a_second_agent_with_another_state_folder_is_refused(rig: Rig) -> None:
    """The lease in the store says who writes; exit code 11."""
    with App(rig.database) as app:
        app.insert(1)
        rig.once()
        with pytest.raises(OwnershipLost, match="another agent"):
            Agent([rig.config(state=str(rig.folder / "other"))]).start()


def test_x11_nothing_is_ever_written_to_the_database(rig: Rig) -> None:
    """No table, no pragma that lasts, no byte of the main file that the application did not commit."""
    with App(rig.database) as app:
        app.insert(5)
        before = app.execute("SELECT * FROM sqlite_schema"), app.execute("PRAGMA user_version")
        changes = app.execute("PRAGMA data_version")
        with rig.agent():
            pass

        assert before == (app.execute("SELECT * FROM sqlite_schema"), app.execute("PRAGMA user_version"))
        assert changes == app.execute("PRAGMA data_version")


def _captured(agent: Agent) -> int:
    (snapshot,) = agent.status().values()
    return snapshot.source.captured.txid if snapshot.source.captured else 0


def _rows(path: str) -> list[object]:
    """The rows of a restored file, read by a child that finds no log beside it."""
    with App(path, wal=False) as app:
        return app.execute("SELECT id FROM t")


@pytest.mark.parametrize("state", [None, "state"])
def test_a_database_that_was_waited_for_may_be_made_in_steps(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    """A migration in rollback mode takes longer than any grace; once it enters WAL mode it is followed."""
    monkeypatch.setattr(follow_module, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(follow_module, "WAITING_POLL_SECONDS", 0.05)
    more = {} if state is None else {"state": str(rig.folder / state)}
    with rig.agent(**more) as agent, App(rig.database, wal=False) as app:
        app.insert(3)
        wait_until(agent, lambda: "not in WAL mode" in agent.status()[rig.database].source.reason)
        began = time.monotonic()
        wait_until(agent, lambda: time.monotonic() - began > 0.5)
        assert agent.status()[rig.database].source.phase == "waiting"
        app.execute("PRAGMA journal_mode=WAL")
        app.insert(1)
        wait_until(agent, lambda: agent.status()[rig.database].source.phase == "following")
        agent.wait_captured_and_shipped(20)
    rig.assert_equal()
