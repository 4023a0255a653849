"""Backups that are disabled: the agent is idle and says so, stores are left alone, and what was stored can be read."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicator.agent import Agent
from replicator.cli.entry import run
from replicator.config import DatabaseConfig
from replicator.control import ask_agent
from replicator.core.errors import NotWalMode, UsageError
from tests.parts.rig import SECONDS, Rig
from tests.support.app import App


class Site(Rig):
    """A database that was replicated once, and commits since; its store as it was then."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder)
        self._capsys = capsys
        self.app = App(self.database)
        self.app.insert(3)
        self.once()
        self.app.insert(3)
        self.before = self.objects()

    def objects(self) -> dict[str, bytes]:
        return {str(each): each.read_bytes() for each in Path(self.store).rglob("*") if each.is_file()}

    def idle(self) -> Agent:
        return Agent([self.config(enabled=False)])

    def command(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run(arguments)
        shown = self._capsys.readouterr()
        return code, shown.out, shown.err


@pytest.fixture
def site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, capsys)
    monkeypatch.setenv("BACKUP_ENABLED", "false")
    yield site
    site.app.kill()


def test_x28_an_agent_that_is_disabled_is_idle_and_says_so(site: Site) -> None:
    """It runs and waits for nothing; `status` and `check` say "disabled", and are content; no byte is written."""
    with site.idle() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        site.app.insert()
        assert not agent.wait(0.01)
        code, text, _ = site.command("status", site.database)
        found = json.loads(site.command("status", site.database, "--json")[1])
        checked, checks, _ = site.command("check", site.database)

    assert (0, 0) == (code, checked)
    assert "disabled: `enabled` or BACKUP_ENABLED says so" in text
    assert "UNPROTECTED" not in text
    assert (True, False, "disabled", 0) == (
        found["running"], found["enabled"], found["source"]["phase"], found["lag_seconds"],
    )  # fmt: skip
    assert found["window"] is not None
    assert f"backups of {site.database} are disabled" in checks
    assert "is idle: backups" in checks
    assert site.before == site.objects()


def test_x28_s97_what_was_stored_can_be_read(site: Site) -> None:
    """By the name of the database, beside the idle agent, and after it."""
    reading = [
        ("ls", site.database),
        ("show", site.database, "latest"),
        ("verify", site.database),
        ("prune", site.database, "--dry-run"),
        ("schedule", "list", "--db", site.database),
    ]
    with site.idle():
        beside = [site.command(*each)[0] for each in reading]
        restored = site.command("restore", site.database, "-o", "beside.db")[0]
    after = [site.command(*each)[0] for each in reading]
    status, checks = site.command("status", site.database)[1], site.command("check", site.database)[1]

    assert ([0] * 5, 0, [0] * 5) == (beside, restored, after)
    assert "; backups are disabled\n" in status
    assert f"warn  app.db: backups of {site.database} are disabled\n" in checks
    assert site.before == site.objects()


@pytest.mark.parametrize("runs", [True, False], ids=["beside the agent", "without an agent"])
def test_x28_nothing_is_written_to_a_store(site: Site, runs: bool) -> None:
    """Neither a backup nor a pruning by hand: usage errors that name the setting."""
    writing = [
        ("backup", "full", site.database),
        ("backup", "log", site.database),
        ("schedule", "run", "daily-full-backup", "--db", site.database),
        ("prune", site.database, "--yes"),
    ]
    agent = site.idle()
    if runs:
        agent.start()
    told = [site.command(*each) for each in writing]
    agent.stop()

    assert [(2, "")] * 4 == [(code, out) for code, out, _ in told]
    assert ["hint: `enabled` or BACKUP_ENABLED says so"] * 4 == [err.splitlines()[-1] for *_, err in told]
    assert site.before == site.objects()


def test_x28_schedules_can_be_changed_meanwhile(site: Site) -> None:
    """They hold once it is enabled; nothing is run by them before."""
    state = site.config().state_folder
    with site.idle():
        wanted = {"name": "noon", "cron": "0 12 * * *", "type": "full"}
        ask_agent(state, site.database, "schedule", {"do": "create", "schedule": wanted})
    with site.agent() as agent:
        names = [each["name"] for each in agent.ask(site.database, "schedule", {"do": "list"})["schedules"]]

    assert ["daily-full-backup", "incremental-backup", "noon"] == names


def test_x28_enabled_again_it_goes_on(site: Site) -> None:
    """Where it was: what was committed meanwhile is captured, in the same generation."""
    with site.idle():
        site.app.insert(2)
    site.once()

    assert ["first run"] == site.generations()
    site.assert_equal()


def test_x28_a_database_that_is_not_there_is_disabled_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is made for it, and nobody waits; with a state folder of its own there is something to look into."""
    config = DatabaseConfig(str(tmp_path / "none" / "app.db"), (str(tmp_path / "store"),), enabled=False)
    with Agent([config]) as agent:
        assert ["disabled"] == [each.source.phase for each in agent.status().values()]
    assert [] == list(tmp_path.iterdir())
    with Agent([replace(config, state=str(tmp_path / "state"))]):
        assert "disabled" == json.loads((tmp_path / "state" / "status.json").read_text())["source"]["phase"]
    assert ["state"] == [each.name for each in tmp_path.iterdir()]
    assert "database.disabled" in [record.message for record in caplog.records]


def test_x28_one_of_two_is_disabled(site: Site, tmp_path: Path) -> None:
    """The other is followed; and where that cannot be, the agent ends, since nothing is left to do."""

    def other(**more: Any) -> DatabaseConfig:
        return DatabaseConfig(str(tmp_path / "two.db"), (str(tmp_path / "two"),), ship_interval=0.01, **more)

    with App(other().path) as app:
        app.insert()
        with Agent([site.config(enabled=False), other()]) as agent:
            agent.wait_captured_and_shipped(SECONDS)
            assert ["disabled", "following"] == [each.source.phase for each in agent.status().values()]
        app.execute("PRAGMA journal_mode=DELETE")
        with pytest.raises(NotWalMode), Agent([site.config(enabled=False), other()]) as agent:
            agent.wait(SECONDS)

    assert site.before == site.objects()


def test_x28_a_disabled_database_still_has_to_be_configured_right() -> None:
    """What is wrong with it is told now, and not on the day it is enabled."""
    with (
        pytest.raises(UsageError, match="no store of kind 'gopher'"),
        Agent([DatabaseConfig("app.db", ("gopher://hole",), enabled=False)]),
    ):
        pass
