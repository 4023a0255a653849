"""What a person asks for about backups: `backup`, `prune`, `schedule`, `pin`, beside an agent and without one."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.errors import ReplicatorError, StoreDenied
from replicator.core.retention_policy import Policy
from replicator.core.schedule_file import PRINTED
from replicator.store.folder import FolderStore
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


# --- a store that is dead ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [("backup", "full"), ("backup", "log"), ("prune", "--yes")])
def test_s45_without_an_agent_a_dead_store_is_told_and_the_other_served(
    site: Site, inside: Inside, verb: tuple[str, ...]
) -> None:
    """Within some seconds: the one is told of as failed, with its reason, and the exit code says in part."""
    site.once()
    site.app.insert()
    site.configure((site.store, "/proc/no-store"))
    done = (
        inside("--json", *verb) if verb[0] == "backup" else inside("--json", verb[0], site.database, verb[1])
    )
    stores = json.loads(done.out)["stores"]

    assert 3 == done.code, done.err
    assert "error" not in stores.get(f"file://{site.store}", stores.get(site.store))
    assert "error" in stores.get("file:///proc/no-store", stores.get("/proc/no-store"))


def test_s45_a_store_that_says_nothing_is_told_and_the_other_served(
    site: Site, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may answer in a minute, or never: who waits is a person."""
    monkeypatch.setattr("replicator.line.SILENT_SECONDS", 0.2)
    monkeypatch.setattr("replicator.agent.ASKED_SECONDS", 0.2)
    monkeypatch.setattr("replicator.introduction.STORES_SECONDS", 0.2)
    speaks, get = threading.Event(), FolderStore.get_start

    def get_later(store: FolderStore, name: str, length: int) -> tuple[bytes, int]:
        if store.url.endswith("second"):
            speaks.wait()
        return get(store, name, length)

    monkeypatch.setattr(FolderStore, "get_start", get_later)
    site.configure((site.store, site.second))
    try:
        done = inside("--json", "backup", "full")
    finally:
        speaks.set()
    stores = json.loads(done.out)["stores"]

    assert 3 == done.code, done.err
    assert "error" not in stores[f"file://{site.store}"]
    assert "has not answered" in stores[f"file://{site.second}"]["error"]


def test_s45_a_store_that_refuses_the_full_it_needs_is_told(
    site: Site, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, and takes everything but that: what is asked for there would wait for ever behind it."""
    put = FolderStore.put

    def put_no_packs(store: FolderStore, name: str, data: bytes) -> None:
        if store.url.endswith("second") and name.startswith("full/"):
            raise StoreDenied("not allowed here")
        put(store, name, data)

    monkeypatch.setattr("replicator.line.BACKUP_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(FolderStore, "put", put_no_packs)
    site.configure((site.store, site.second))
    done = inside("--json", "backup", "log")
    stores = json.loads(done.out)["stores"]

    assert 3 == done.code, done.err
    assert "error" not in stores[f"file://{site.store}"]
    assert "not allowed here" in stores[f"file://{site.second}"]["error"]


# --- several databases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [True, False])
def test_s45_a_database_that_fails_keeps_no_other_from_being_backed_up(
    site: Site, inside: Inside, as_json: bool
) -> None:
    """Each is told of; the exit code says in part, or what is wrong where all failed."""
    entries = [
        f"  - {{path: {site.folder / name}, stores: [{site.folder / store}]}}"
        for name, store in (("no.db", "one"), ("app.db", "store"), ("none.db", "three"))
    ]
    (site.folder / "replicator.yml").write_text("\n".join(["databases:", *entries]))
    done = inside(*(["--json"] if as_json else []), "backup", "full")

    assert 3 == done.code, done.err
    if as_json:
        told = list(map(json.loads, done.out.splitlines()))
        assert ["error" in each for each in told] == [True, False, True]
    else:
        assert 2 == done.out.count("FAILED")
    assert list(Path(site.store).rglob("*.full"))
    (site.folder / "replicator.yml").write_text("\n".join(["databases:", entries[0], entries[2]]))
    assert 15 == inside("backup", "full").code


# --- schedules -----------------------------------------------------------------------------------------


def test_s15_s16_the_printed_schedules_are_taken_as_a_file(site: Site, inside: Inside) -> None:
    """With an agent that runs and without; the list marks what was made by hand."""
    (site.folder / "printed.json").write_text(json.dumps(PRINTED))
    without = inside("schedule", "create", "--file", "printed.json", "--db", site.database)
    with site.agent():
        beside = inside("schedule", "create", "--file", "printed.json", "--db", site.database, "--json")
    twice = inside(
        "schedule",
        "create",
        "incremental-backup",
        "--cron",
        "@daily",
        "--type",
        "full",
        "--db",
        site.database,
    )
    listed = inside("schedule", "list", "--db", site.database)

    assert (0, 0, 2) == (without.code, beside.code, twice.code), without.err + beside.err
    assert [30, 7] == [each["retentionDays"] for each in json.loads(beside.out)["schedules"]]
    assert 2 == listed.out.count("yes"), listed.out


def test_a_torn_file_of_schedules_is_told_to_who_asks(site: Site, inside: Inside) -> None:
    """What was made by hand is lost with it, and what is kept may be less."""
    inside("schedule", "create", "noon", "--cron", "0 12 * * *", "--type", "full", "--db", site.database)
    listed = inside("schedule", "list", "--db", site.database).out.splitlines()
    assert [False, False, True] == ["  yes  " in line for line in listed[1:]], listed
    Path(site.config().state_folder, "schedules.json").write_text('{"by_hand": {"no')
    torn = inside("schedule", "list", "--db", site.database)

    assert "noon" not in torn.out
    assert "schedules by hand are lost" in torn.err


def test_a_schedule_that_is_not_there_is_not_found(site: Site, inside: Inside) -> None:
    """By each verb that names one, with the same code."""
    verbs = (["show"], ["update", "--retention", "3d"], ["delete"])
    codes = [inside("schedule", *verb, "none", "--db", site.database).code for verb in verbs]

    assert [15, 15, 15] == codes


# --- pins ----------------------------------------------------------------------------------------------


def test_a_backup_is_pinned_in_every_store_of_a_database(site: Site, inside: Inside) -> None:
    """Each is told of; `ls` marks it. A store that does not have it is told of as failed, and that was a part."""
    site.configure((site.store, site.second))
    with Agent([DatabaseConfig(site.database, (site.store, site.second))]) as agent:
        agent.wait_captured_and_shipped(SECONDS)

    def pinned() -> list[bool]:
        listed = [json.loads(inside("ls", store, "--json").out) for store in (site.store, site.second)]
        return [full["pinned"] for each in listed for full in each["generations"][0]["fulls"]]

    done = inside("pin", site.database, "latest")
    assert (0, 2) == (done.code, done.out.count("kept for ever")), done.err
    assert [True, True] == pinned()
    assert "checksummed, pinned" in inside("ls", site.store).out
    assert 0 == inside("unpin", site.database, "latest").code
    assert [False, False] == pinned()

    (full,) = Path(site.second).rglob("*.full")
    full.unlink()
    partly = inside("pin", site.database, full.stem)
    assert (3, 1, 1) == (partly.code, partly.out.count("kept for ever"), partly.out.count("FAILED"))
    assert 14 == inside("pin", site.database, "none").code


# --- room ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "word"), [(0.5, "FULL"), (1.05, "NEARLY FULL"), (2.0, "")])
def test_x9_a_store_that_is_nearly_full_is_told_of(
    site: Site, inside: Inside, share: float, word: str
) -> None:
    """From nine tenths of its limit on, by `status` and by `check`; that is no failure."""
    site.once()
    used = sum(each.stat().st_size for each in Path(site.store).rglob("*") if each.is_file())
    site.configure((site.store,), f"    max_size: {int(used * share)}B\n")
    with site.agent(retention=Policy(max_bytes=int(used * share))):
        assert 0 == inside("prune", site.database, "--yes").code
    checked = inside("check")
    status = inside("status", site.database)

    assert 0 == checked.code, checked.out
    assert bool(word) == ("and may hold" in checked.out), checked.out
    told = [
        line.split("room")[1].split(":")[0].strip() for line in status.out.splitlines() if "  room" in line
    ]
    assert ([word] if word else []) == told


# --- deletion on request -------------------------------------------------------------------------------


def test_s73_a_time_that_has_not_come_is_refused(site: Site, inside: Inside) -> None:
    """It would leave nothing but the newest chain, each time anew; by the agent as well."""
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        with pytest.raises(ReplicatorError, match="has not come yet"):
            agent.ask(site.database, "prune", {"before": 4_000_000_000_000_000})
        refused = inside("prune", site.database, "--before", "2090-01-01T00:00:00Z", "--yes")

    assert (2, True) == (refused.code, "has not come yet" in refused.err)


def test_s73_s74_what_was_deleted_is_gone_with_a_full_made_anew(site: Site, inside: Inside) -> None:
    """A later full of the month shares packs in which the row can still be read; one made anew, with all before it
    gone, needs none of them."""
    site.app.insert(1, 100_000)  # many chunks, which stay as they are
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        site.app.insert()
        first = inside("backup", "full", "--json", site.database).json["stores"][f"file://{site.store}"]
        refused = inside("backup", "full", "--anew", site.database)
        site.app.insert()
        anew = inside("backup", "full", "--anew", "--json", site.database).json["stores"][
            f"file://{site.store}"
        ]
        log = inside("backup", "log", "--anew", site.database)
    manifests = {
        name.backup_id: site.repository().manifest(name)
        for listing in site.repository().catalogue.generations
        for name in listing.fulls
    }
    packs = {backup: {pack.name for pack in each.packs} for backup, each in manifests.items()}
    others = set().union(*(found for backup, found in packs.items() if backup != anew["backup"]))

    assert (1, 2) == (refused.code, log.code)
    assert "nothing changed since" in refused.err
    assert packs[first["backup"]] & others
    assert not packs[anew["backup"]] & others
    assert manifests[anew["backup"]].chunks_new >= manifests[anew["backup"]].chunks
    site.assert_equal()
