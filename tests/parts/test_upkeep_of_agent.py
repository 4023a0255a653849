"""What is made beside shipping, in a real agent: one thing after another in each store, by schedules and by hand."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.errors import ReplicatorError
from replicator.core.retention_policy import Policy
from replicator.core.schedule_file import DEFAULT_SCHEDULES
from replicator.core.times import format_time
from tests.parts.rig import SECONDS, Rig
from tests.support.app import App

DAY = 86_400_000_000


class Site(Rig):
    """An application, and stores beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.app = App(self.database)
        self.app.insert(3)
        self.second = str(folder / "second")

    @property
    def schedules(self) -> Path:
        return Path(self.config().state_folder, "schedules.json")

    def with_two_stores(self) -> Agent:
        return Agent([DatabaseConfig(self.database, (self.store, self.second), ship_interval=0.01)])

    @contextmanager
    def second_away(self) -> Iterator[Agent]:
        """An agent of two stores, of which the second went away and was missed; there is something for it."""
        agent = self.with_two_stores()
        agent.start()
        try:
            agent.wait_captured_and_shipped(SECONDS)
            Path(self.second).rename(self.folder / "away")
            Path(self.second).write_text("not a folder")
            self.app.insert()
            with pytest.raises(ReplicatorError):
                agent.wait_captured_and_shipped(1.0)
            yield agent
        finally:
            agent.stop(ship_seconds=0.0)

    def be_away_for(self, days: int) -> None:
        """As if the agent had ended so long ago."""
        content = json.loads(self.schedules.read_text())
        for known in content["known"].values():
            known["last_due"] -= days * DAY
        self.schedules.write_text(json.dumps(content))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.app.kill()


def backups(store: str) -> list[str]:
    return sorted(each.suffix for kind in ("full", "incremental") for each in Path(store).rglob(f"*.{kind}"))


def results(answer: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [
        (run["schedule"], [outcome["result"] for outcome in run["stores"].values()]) for run in answer["runs"]
    ]


def list_when_done(agent: Agent, database: str, count: int) -> dict[str, Any]:
    """The schedules, once so many runs have ended."""
    while True:
        found: dict[str, Any] = agent.ask(database, "schedule", {"do": "list"})
        ended = [run for run in found["runs"] if "in_progress" not in str(run["stores"])]
        if len(ended) >= count:
            return found
        agent.wait(0.01)


def test_s02_s07_what_was_missed_is_made_by_the_agent_that_begins(site: Site) -> None:
    """Away for two days: a full and an incremental are made at once, and the run says what came of it."""
    site.once()
    site.be_away_for(2)
    site.app.insert(3)
    with site.agent() as agent:
        found = list_when_done(agent, site.database, 2)

    assert [("daily-full-backup", ["completed"]), ("incremental-backup", ["completed"])] == results(found)
    assert {
        each["schedule"]: each["stores"][f"file://{site.store}"]["note"] for each in found["runs"]
    }.keys() == {each.name for each in DEFAULT_SCHEDULES}
    assert [1, 1] == [each["runCount"] for each in found["schedules"]]
    assert 2 == backups(site.store).count(".full")


def test_a_run_that_was_killed_is_made_up_in_that_store(site: Site) -> None:
    """Of two stores one was done: the next agent makes it in the other one, and in no other."""
    agent_one = {"completed": f"file://{site.store}", "in_progress": f"file://{site.second}"}
    with site.with_two_stores() as agent:
        agent.wait_captured_and_shipped(SECONDS)
    content = json.loads(site.schedules.read_text())
    due = content["known"]["daily-full-backup"]["last_due"]
    content["runs"] = [
        {
            "schedule": "daily-full-backup",
            "type": "full",
            "due": format_time(due),
            "began": format_time(due),
            "stores": {url: {"result": result} for result, url in agent_one.items()},
        }
    ]
    site.schedules.write_text(json.dumps(content))
    before = [backups(store) for store in (site.store, site.second)]
    site.app.insert()
    with site.with_two_stores() as agent:
        found = list_when_done(agent, site.database, 2)

    assert [{f"file://{site.second}"}] == [set(each["stores"]) for each in found["runs"][1:]]
    assert [before[0], [".full", *before[1]]] == [backups(store) for store in (site.store, site.second)]


def test_what_overlaps_queues(site: Site) -> None:
    """Everything that is asked at the same time is done, one after another in the order it was asked for."""
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        site.app.insert(5)
        agent.wait_captured_and_shipped(SECONDS)
        (follower,) = agent._followers
        ended: list[str] = []

        def ask(kind: str, **arguments: Any) -> Future[dict[str, Any]]:
            (done,) = follower.ask(kind, arguments).values()
            done.add_done_callback(lambda _: ended.append(kind))
            return done

        order = ["full", "incremental", "log", "prune", "full", "repair", "incremental"]
        asked = [ask(kind, number=number, names=[]) for number, kind in enumerate(order)]
        outcomes = [each.result(SECONDS) for each in asked]

    assert order == ended
    assert order == [each["type"] for each in outcomes]
    site.assert_equal()


def test_what_waits_already_is_not_done_twice(site: Site) -> None:
    """A store that was away for days has made a schedule's runs wait: one will do, and all hear of it."""
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        Path(site.store).rename(site.folder / "away")
        Path(site.store).write_text("not a folder")
        site.app.insert()
        (follower,) = agent._followers
        first = follower.ask("full", {"schedule": "nightly"})[f"file://{site.store}"]
        while first.running() or not agent.status()[site.database].errors:
            agent.wait(0.01)
        others = [follower.ask("full", {"schedule": "nightly"})[f"file://{site.store}"] for _ in range(5)]
        by_hand = follower.ask("full", {})[f"file://{site.store}"]
        os.unlink(site.store)
        (site.folder / "away").rename(site.store)
        results = [_outcome(each) for each in (first, *others, by_hand)]

    assert 1 == len({json.dumps(each, default=str) for each in results[1:6]})
    # The first may have begun before the store was missed; by hand none is left to be made, or it was told so.
    made = [each for each in (results[0], results[1]) if isinstance(each, dict) and each["backup"]]
    assert 1 == len({each["backup"] for each in made})
    assert isinstance(results[6], str) or results[6]["backup"] is None
    site.assert_equal()


def _outcome(done: Future[dict[str, Any]]) -> Any:
    error = done.exception(SECONDS)
    return str(error) if error is not None else done.result()


def test_a_store_that_fails_does_not_hold_up_the_other(site: Site) -> None:
    """A backup by hand: one store has it, the other one is told of as failed, by its name."""
    agent = site.with_two_stores()
    agent.start()
    try:
        agent.wait_captured_and_shipped(SECONDS)
        Path(site.second).rename(site.folder / "away")
        Path(site.second).write_text("not a folder")
        site.app.insert()
        found = agent.ask(site.database, "backup", {"type": "log"})["stores"]
    finally:
        agent.stop(ship_seconds=0.0)

    assert [f"file://{site.store}", f"file://{site.second}"] == list(found)
    assert "error" not in found[f"file://{site.store}"]
    assert 16 == found[f"file://{site.second}"]["exit_code"]


def test_s45_a_store_that_is_away_is_told_to_who_asks(site: Site) -> None:
    """By hand it is an answer, with its reason; what a schedule asked for is made when the store is back."""
    with site.second_away() as agent:
        found = agent.ask(site.database, "backup", {"type": "incremental"})["stores"]

    assert 16 == found[f"file://{site.second}"]["exit_code"]
    assert found[f"file://{site.store}"]["backup"]


def test_s45_a_schedule_that_is_run_by_hand_is_turned_away_as_a_backup_is(site: Site) -> None:
    """By a store that is away, at once; whoever waits for it is a person."""
    with site.second_away() as agent:
        asked = {"do": "run", "name": "incremental-backup"}
        found = agent.ask(site.database, "schedule", asked)["stores"]

    assert 16 == found[f"file://{site.second}"]["exit_code"]
    assert found[f"file://{site.store}"]["backup"]


def test_s104_a_schedule_that_is_run_by_hand_is_under_the_limit(site: Site) -> None:
    """As a full by hand is."""
    with site.agent(retention=Policy(max_bytes=1)) as agent:
        agent.wait_captured_and_shipped(SECONDS)
        site.app.insert()
        with pytest.raises(ReplicatorError, match="may hold"):
            agent.ask(site.database, "schedule", {"do": "run", "name": "daily-full-backup"})


def test_where_every_store_fails_it_is_an_error(site: Site) -> None:
    """And not an answer that would have to be looked through."""
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        Path(site.store).rename(site.folder / "away")
        Path(site.store).write_text("not a folder")
        with pytest.raises(ReplicatorError) as caught:
            agent.ask(site.database, "backup", {"type": "log"})
        os.unlink(site.store)
        (site.folder / "away").rename(site.store)

    assert 16 == caught.value.exit_code


def test_x5_a_schedule_by_hand_counts_for_what_is_kept(site: Site) -> None:
    """What the agent prunes by is what its schedules say at that moment, the new ones as well."""

    def reasons(agent: Agent) -> str:
        (found,) = agent.ask(site.database, "prune", {})["stores"].values()
        return str([each["reason"] for each in found["kept"]])

    entry = {"name": "quarter", "cron": "*/15 * * * *", "type": "log", "retention": "4d"}
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        before = reasons(agent)
        agent.ask(site.database, "schedule", {"do": "create", "schedule": entry})

        assert ("48 hours" in before, "96 hours" in before) == (True, False)
        assert "96 hours" in reasons(agent)
