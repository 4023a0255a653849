"""What a person asks for about backups: `backup`, `prune`, `schedule`, `pin`, beside an agent and without one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.retention_policy import Policy
from tests.e2e.conftest import Inside
from tests.parts.rig import SECONDS, Rig
from tests.support.app import App


class Site(Rig):
    """A database with a name, and stores beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.app = App(self.database)
        self.app.insert(3)
        self.second = str(folder / "second")

    def configure(self, stores: tuple[str, ...], text: str = "") -> None:
        listed = "".join(f"      - {each}\n" for each in stores)
        (self.folder / "replicator.yml").write_text(
            f"databases:\n  - path: {self.database}\n    stores:\n{listed}{text}"
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.app.kill()


# --- prune ---------------------------------------------------------------------------------------------


def reasons(out: str) -> str:
    return json.dumps(json.loads(out)["stores"])


def test_s78_the_plan_is_that_of_the_agent_that_runs(site: Site, inside: Inside) -> None:
    """It is what deletes, by its policy and its schedules, whatever the environment of the command says; a plan
    deletes nothing."""
    with site.agent(retention=Policy(log_hours=77)) as agent:
        agent.wait_captured_and_shipped(SECONDS)
        before = sorted(str(each) for each in Path(site.store).rglob("*"))
        planned = inside("prune", site.database, "--dry-run", "--json")
        after = sorted(str(each) for each in Path(site.store).rglob("*"))

    assert planned.code == 0, planned.err
    assert "every commit of the last 77 hours" in reasons(planned.out)
    assert '"dry_run": true' in reasons(planned.out)
    assert {*before} <= {*after}
    assert 0 == agent.status()[site.database].stores[f"file://{site.store}"].last_prune


def test_x5_a_store_alone_is_pruned_by_the_retention_of_its_database(site: Site, inside: Inside) -> None:
    """Its own database's, of the configuration here; or else that is said."""
    site.once()
    unknown = inside("prune", site.store, "--dry-run", "--json")
    assert "every commit of the last 48 hours" in reasons(unknown.out)
    assert "no configuration here says how long" in unknown.err

    site.configure((site.second, site.store), "    retention:\n      log: 77h\n")
    for source in (site.store, f"file://{site.store}", "store"):
        found = inside("prune", source, "--dry-run", "--json")
        assert "every commit of the last 77 hours" in reasons(found.out), found.err
        assert f"is a store of {site.database}" in found.err

    done = inside("prune", site.store, "--yes", "--json")
    assert (0, 1) == (done.code, len(json.loads(done.out)["stores"])), done.err


def test_x5_of_a_store_alone_the_agent_prunes_that_one(site: Site, inside: Inside) -> None:
    """Only who writes there deletes there; its other stores are left alone."""
    site.configure((site.store, site.second), "    retention:\n      log: 77h\n")
    agent = Agent([DatabaseConfig(site.database, (site.store, site.second), retention=Policy(log_hours=78))])
    with agent:
        agent.wait_captured_and_shipped(SECONDS)
        done = inside("prune", site.second, "--yes", "--json")

    assert done.code == 0, done.err
    assert [f"file://{site.second}"] == list(json.loads(done.out)["stores"])
    assert "every commit of the last 78 hours" in reasons(done.out)
