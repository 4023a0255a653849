"""A store that lost what it had acknowledged, while puts to it go on succeeding: found, told, and made good."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.agent import Agent
from replicator.core.errors import StoreDenied
from replicator.core.names import FULL, TAIL
from replicator.keys import KeySource, unlocked
from replicator.marks import StoreState
from replicator.repository import read_repository
from replicator.store import connect
from tests.parts.rig import SECONDS, Rig
from tests.support.app import App


class Site(Rig):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.app = App(self.database)
        self.copy = folder / "copy"

    def state(self, agent: Agent) -> StoreState:
        (state,) = agent.status()[self.database].stores.values()
        return state

    def log(self, agent: Agent) -> None:
        """Time for a log; and all that follows from it."""
        agent.ask(self.database, "backup", {"type": "log"})
        agent.wait_captured_and_shipped(SECONDS)
        agent.ask(self.database, "backup", {"type": "log"})

    def commit(self, agent: Agent, count: int) -> None:
        """Each in a segment of its own."""
        for _ in range(count):
            self.app.insert()
            agent.wait_captured_and_shipped(SECONDS)

    def keep_copy(self) -> None:
        shutil.copytree(self.store, self.copy)

    def put_copy_back(self) -> None:
        for each in os.scandir(self.store):
            shutil.rmtree(each.path) if each.is_dir() else os.unlink(each.path)
        shutil.copytree(self.copy, self.store, dirs_exist_ok=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.app.kill()


def test_a_store_that_was_emptied_has_all_of_it_again_at_the_next_log(site: Site) -> None:
    site.copy.mkdir()
    with site.agent() as agent:
        site.commit(agent, 5)
        site.put_copy_back()
        site.commit(agent, 2)
        assert "" == site.state(agent).rolled_back
        site.log(agent)

        assert "rolled back" in site.state(agent).rolled_back
    assert 1 == len(site.repository().catalogue.generations)
    site.assert_equal()


def test_an_older_copy_put_back_under_a_running_agent_is_found_by_the_hole(site: Site) -> None:
    """The newest transaction there is newer than any that is known; what is between is missing, and told; restore
    points begin again at a full."""
    with site.agent() as agent:
        site.commit(agent, 3)
        site.keep_copy()
        site.commit(agent, 4)
        site.put_copy_back()
        site.commit(agent, 3)
        assert "" == site.state(agent).rolled_back
        site.log(agent)
        told = site.state(agent).rolled_back
        site.commit(agent, 2)

    assert "0000000000000004 to 0000000000000007" in told
    assert 2 == len(site.repository().catalogue.generations[-1].fulls)
    site.assert_equal()


def test_it_is_told_after_a_restart_as_well(site: Site) -> None:
    with site.agent() as agent:
        site.commit(agent, 3)
        site.keep_copy()
        site.commit(agent, 4)
    site.put_copy_back()
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        told = site.state(agent).rolled_back
    with site.agent() as agent:
        site.commit(agent, 1)
        again = site.state(agent).rolled_back

    assert "it had acknowledged transaction 0000000000000007 and knows 0000000000000003" in told
    assert told == again
    site.assert_equal()


def test_a_hole_before_the_newest_segment_is_found(site: Site) -> None:
    """That one stays where it is, and nothing else may be left in the tail."""
    with site.agent() as agent:
        site.commit(agent, 3)
        site.keep_copy()
        site.commit(agent, 3)
        site.log(agent)
        site.put_copy_back()
        site.commit(agent, 1)
        site.log(agent)
        told = site.state(agent).rolled_back

    assert "0000000000000004 to 0000000000000006" in told
    site.assert_equal()


def test_a_full_that_is_wanted_is_made_by_the_next_agent_if_it_failed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told meanwhile, also while shipping goes well."""
    monkeypatch.setattr("replicator.line.BACKUP_RETRY_SECONDS", 3600.0)
    with site.agent() as agent:
        site.commit(agent, 3)
        site.keep_copy()
        site.commit(agent, 4)
        site.put_copy_back()
        site.commit(agent, 3)
        with monkeypatch.context() as failing:
            failing.setattr("replicator.backup.full.FullBackup.run", refused)
            agent.ask(site.database, "backup", {"type": "log"})
            while not agent.status()[site.database].errors:
                assert not agent.wait(0.02)
            site.commit(agent, 2)
            errors = {each.where: each.message for each in agent.status()[site.database].errors}
    assert "not today" == errors[f"backups, logs and pruning of file://{site.store}"]
    assert 1 == len(site.repository().catalogue.generations[-1].fulls)
    with site.agent() as agent:
        while len(site.repository().catalogue.generations[-1].fulls) < 2:
            assert not agent.wait(0.02)
    site.assert_equal()


def refused(*_: Any, **__: Any) -> None:
    raise StoreDenied("not today")


def test_slots_are_put_again_where_a_store_was_emptied(tmp_path: Path) -> None:
    """Without them nobody could open what it has again."""
    site = Site(tmp_path)
    key = KeySource({"BACKUP_ENCRYPTION_KEY": secrets.token_hex(32)})
    site.copy.mkdir()
    try:
        with site.agent(encryption=key) as agent:
            site.commit(agent, 2)
            slots = sorted(Path(site.store, "keys").iterdir())
            site.put_copy_back()
            site.commit(agent, 1)
            site.log(agent)
            site.commit(agent, 1)

        assert slots == sorted(Path(site.store, "keys").iterdir())
        store = unlocked(connect(site.store), key)
        assert read_repository(store).catalogue.generations[-1].fulls
    finally:
        site.app.kill()


def test_a_hole_that_ends_at_a_full_is_none(site: Site) -> None:
    """A store that was away until its queue was dropped has one."""
    with site.agent(spool_bytes_max=100_000) as agent:
        site.commit(agent, 3)
        os.rename(site.store, site.copy)
        Path(site.store).write_text("away")
        site.app.insert(200, 5_000)
        os.unlink(site.store)
        os.rename(site.copy, site.store)
        agent.wait_captured_and_shipped(SECONDS)
        site.commit(agent, 3)
        site.log(agent)
        state = site.state(agent)

    assert "" == state.rolled_back
    assert len([*Path(site.store, FULL).rglob("*.full")]) > 1
    assert len([*Path(site.store, TAIL).rglob("*.segment")]) == 1
    site.assert_equal()
