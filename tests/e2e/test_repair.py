"""`verify --repair` as a process: through the agent that runs, or through one for the while; and what it says."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.command import Done, Running, following, replicator, sql, until
from tests.e2e.conftest import History
from tests.support import oracle


class Site:
    """A copy of the history, and the settings that say where it is."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.environ = {"DATABASE_PATH": str(history.database), "BACKUP_DIRECTORY": str(history.store)}

    def run(self, *arguments: object) -> Done:
        return replicator(*arguments, cwd=self.history.folder, **self.environ)

    def agent(self) -> Running:
        return Running("replicate", cwd=self.history.folder, environ={**os.environ, **self.environ})

    def repair(self, *more: str) -> Done:
        return self.run("verify", self.history.database, "--repair", *more)

    def objects(self) -> dict[str, str]:
        """Each object that is not derived, and its content in short."""
        store = self.history.store
        return {
            path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in store.rglob("*")
            if path.is_file() and path.name != "metadata.json"
        }

    def one(self, pattern: str) -> Path:
        return sorted(self.history.store.rglob(pattern))[0]

    def restored(self) -> str:
        output = self.history.folder / "restored.db"
        output.unlink(missing_ok=True)
        done = self.run("restore", self.history.store, "-o", output, "--verify", "full")
        assert 0 == done.code, done.err
        return oracle.database_digest(output)


@pytest.fixture
def site(history: History) -> Site:
    return Site(history)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def test_s48_without_an_agent_one_begins_for_the_while(site: Site) -> None:
    """Segments come back from the spool as they were, the newest too; nothing else is touched, and it says so."""
    before = site.objects()
    hurt = [site.history.segments[0], site.history.segments[2]]
    for path in hurt:
        cut(path)
    assert 13 == site.run("verify", site.history.store).code
    done = site.repair()

    assert 0 == done.code, done.err
    for path in hurt:
        name = path.relative_to(site.history.store).as_posix()
        assert f"hurt: {name}" in done.err
        assert f"put back: {name}" in done.err
    assert "nothing is hurt" in done.out
    assert before.items() <= site.objects().items()
    assert site.history.digest == site.restored()


def test_s48_a_backup_is_set_aside_and_a_full_is_made_by_the_agent_that_runs(site: Site) -> None:
    """It goes on meanwhile; what was hurt is no reason for exit code 13 any more, and restores are right."""
    full = site.one("*.full").name.removesuffix(".full")
    with site.agent() as agent:
        until(lambda: following(site.history.database))
        cut(site.one("*.pack"))
        done = site.repair("--json")
        assert 0 == done.code, done.err
        assert [] == done.json["hurt"]
        assert f"{full}.full" in next(
            line for line in done.err.splitlines() if line.startswith("set aside: ")
        )
        assert "a full backup was made: " in done.err
        sql(site.history.database, "CREATE TABLE later(x)", "INSERT INTO later VALUES (1)")
        agent.signal(15)
        assert 0 == agent.end().code
    assert 2 == len(list(site.history.store.rglob("*.full")))
    assert oracle.database_digest(site.history.database) == site.restored()


@pytest.mark.parametrize("spoil", [cut, lambda path: path.write_bytes(b"")])
def test_s48_who_this_is_is_put_back_by_the_agent_that_runs(
    site: Site, spoil: Callable[[Path], None]
) -> None:
    """Though the agent is not asked whose the store is before."""
    with site.agent():
        until(lambda: following(site.history.database))
        spoil(site.history.store / "repository.json")
        done = site.repair()
        assert 0 == done.code, done.err
        assert "put back: repository.json" in done.err
    assert site.history.digest == site.restored()


def test_s48_without_an_agent_who_this_is_comes_back_too(site: Site) -> None:
    """What an agent that begins asks for first, and the segment that it would go on from."""
    hurt = [site.history.store / "repository.json", site.history.segments[-1]]
    for path in hurt:
        cut(path)
    done = site.repair()

    assert 0 == done.code, done.err
    for path in hurt:
        assert f"put back: {path.relative_to(site.history.store).as_posix()}" in done.err
    assert site.history.digest == site.restored()


def test_a_lease_that_is_damaged_is_named_and_so_is_what_to_do(site: Site) -> None:
    """It says who writes: so nobody takes that upon himself."""
    lease = site.one("leases/*.json")
    cut(lease)
    before = site.objects()
    done = site.repair()

    assert 13 == done.code
    assert "if only this agent does, take it away" in done.err
    assert before == site.objects()
    lease.unlink()
    assert 0 == site.repair().code
    assert 0 == site.run("replicate", "--once").code


@pytest.mark.parametrize("running", [False, True])
def test_s48_the_only_key_slot_is_put_back(tmp_path: Path, running: bool) -> None:
    """From the state folder, where one bit of it keeps everybody from opening anything."""
    database, store = tmp_path / "app.db", tmp_path / "store"
    sql(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
    site = Site(History(tmp_path, "", 0))
    site.environ = {
        "DATABASE_PATH": str(database),
        "BACKUP_DIRECTORY": str(store),
        "BACKUP_ENCRYPTION_KEY": hashlib.sha256(b"a key").hexdigest(),
    }
    assert 0 == site.run("replicate", "--once").code
    slot = site.one("keys/*.json")
    whole = slot.read_bytes()
    at = whole.index(b'"sealed": "') + 20
    with contextlib.ExitStack() as stack:
        if running:
            stack.enter_context(site.agent())
            until(lambda: following(database))
        slot.write_bytes(whole[:at] + (b"0" if whole[at : at + 1] != b"0" else b"1") + whole[at + 1 :])
        assert 12 == site.run("verify", store).code
        done = site.run("verify", database, "--repair")

        assert 0 == done.code, done.err
        assert f"put back: keys/{slot.name}" in done.err
        assert whole == slot.read_bytes()


def test_a_store_by_itself_is_not_repaired(site: Site) -> None:
    """Only who writes there may."""
    cut(site.history.segments[0])
    before = site.objects()
    done = site.run("verify", site.history.store, "--repair")

    assert 2 == done.code
    assert "name the database" in done.err
    assert before == site.objects()
