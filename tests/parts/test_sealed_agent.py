"""An agent with a key over stores in folders: nothing readable leaves the machine, and all of it comes back.

What would be found without the encryption is looked for in a plain store beside it, so that the looking is proved.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.codec import Compression, parse_compression
from replicator.core.errors import KeyRefused, ReplicatorError
from replicator.core.names import FullName, SegmentName, parse_name
from replicator.key_change import KeyHolders, rotate
from replicator.keys import KEY, FixedKeys, KeySource, unlocked
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.slots import ring_in
from replicator.store.folder import FolderStore
from replicator.store.sealed import SealedStore
from tests.support import oracle
from tests.support.app import App

ONE, TWO = (hashlib.sha256(word).hexdigest() for word in (b"one", b"two"))
SECONDS = 30.0
# Found in whatever is neither encrypted nor compressed: content, names of tables and columns, records, magics.
ROW = "WHO-READS-THIS-HAS-THE-PAYROLL-" + hashlib.sha256(b"row").hexdigest()
IN_CLEAR = {
    ROW,
    "salaries_of_2025",
    "monthly_amount",
    '"took_over"',
    "RPLUNIT",
    "RPLPACK",
    "RPLFULL",
    "SQLite format 3",
}
MARKS = {*IN_CLEAR, "payroll.db", "payroll"}


class Site:
    """A database, two stores for it, and agents with or without a key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = str(folder / "payroll.db")
        self.stores = [folder / "one", folder / "two"]
        self.app = App(self.database)
        self.app.execute("CREATE TABLE salaries_of_2025(id INTEGER PRIMARY KEY, monthly_amount TEXT)")

    def pay(self, count: int = 1) -> None:
        for _ in range(count):
            self.app.execute(
                "INSERT INTO salaries_of_2025(monthly_amount) VALUES(?)", ROW + os.urandom(100).hex()
            )

    def agent(
        self, *keys: str, stores: int = 2, compression: Compression | None = None, **more: Any
    ) -> Agent:
        return Agent(
            [
                DatabaseConfig(
                    self.database,
                    tuple(str(each) for each in self.stores[:stores]),
                    ship_interval=0.01,
                    compression=compression or parse_compression("none"),
                    encryption=source(*keys),
                    **more,
                )
            ]
        )

    def once(self, *keys: str, commits: int = 3, **more: Any) -> None:
        """An agent that runs until everything is shipped, with commits before it and while it runs."""
        self.pay(commits)
        with self.agent(*keys, **more) as agent:
            self.pay(commits)
            agent.wait_captured_and_shipped(SECONDS)

    @property
    def state(self) -> Path:
        return self.folder / ".payroll.db-replicator"

    def objects(self, store: int = 0) -> dict[str, bytes]:
        root = self.stores[store]
        return {
            path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
        }

    def assert_equal(self, *keys: str, store: int = 0) -> None:
        """The newest restore point is the source, byte by byte, proved as far as it goes."""
        expected = oracle.snapshot_at_rest(self.database, self.folder / "expected.db")
        output = self.folder / "restored.db"
        output.unlink(missing_ok=True)
        repository = read_repository(unlocked(FolderStore(str(self.stores[store])), source(*keys)))
        result = restore_chosen(
            repository, choose(repository, Target()), str(output), RestoreOptions(verify="full")
        )
        assert "database checksum" in result.proved
        assert expected.digest == hashlib.sha256(output.read_bytes()).hexdigest()


def source(*keys: str) -> KeySource:
    return KeySource({KEY: ",".join(keys)} if keys else {})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.app.kill()


def marks_in(objects: dict[str, bytes]) -> set[str]:
    """Those of the marks that stand in some object, or in its name."""
    return {
        mark
        for mark in MARKS
        for name, content in objects.items()
        if mark.encode() in content or mark in name
    }


# --- what lies there -----------------------------------------------------------------------------------


def test_s25_s72_nothing_readable_lies_in_a_store(site: Site) -> None:
    """Of two stores: no content, no name of a table or a file, no host; only who it is, and the wrapped ring."""
    site.once(ONE)
    (site.folder / "plain").mkdir()
    plain = Site(site.folder / "plain")
    plain.once()
    plain.app.kill()
    for number in (0, 1):
        objects = site.objects(number)
        in_clear = {name for name, content in objects.items() if not content.startswith(b"RPLSEAL\1")}
        assert {"repository.json", "keys/00000001.json"} == in_clear
        assert set() == marks_in(objects)
        assert {type(parse_name(name)) for name in objects} >= {FullName, SegmentName}
        assert ["sealed"] == json.loads(objects["repository.json"])["features"]
        slot = json.loads(objects["keys/00000001.json"])
        assert ["key"] == [wrap["by"] for wrap in slot["wraps"]]

    assert IN_CLEAR == marks_in(plain.objects())


def test_no_secret_lies_anywhere(site: Site) -> None:
    """Neither the operator's key nor a root: not in a store, not in the state folder, in no spelling."""
    site.once(ONE)
    found = ring_in(FolderStore(str(site.stores[0])), source(ONE).read())
    assert found is not None
    ring = found[0]
    secrets = [bytes.fromhex(ONE), *(root.secret for root in (*ring.roots, ring.dedup))]
    files = [path for path in site.folder.rglob("*") if path.is_file()]
    assert site.state / "keys.json" in files
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content, path
            assert secret.hex().encode() not in content.lower(), path


def test_stores_share_a_ring_and_nothing_else(site: Site) -> None:
    """The same slot and the same names of segments, and not one object of which the bytes are the same."""
    site.once(ONE)
    one, two = site.objects(0), site.objects(1)
    both = {name for name in one if name in two and name != "repository.json"}

    assert one["keys/00000001.json"] == two["keys/00000001.json"] == (site.state / "keys.json").read_bytes()
    assert {"keys/00000001.json"} == {name for name in both if one[name] == two[name]}
    assert len(both) > 3
    for store in (0, 1):
        site.assert_equal(ONE, store=store)


# --- and comes back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_what_is_restored_is_the_source(site: Site, compression: str) -> None:
    """Byte by byte, with any codec, and after a log that began anew, which begins another generation."""
    site.once(ONE, compression=parse_compression(compression))
    site.assert_equal(ONE)
    site.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    site.once(ONE, compression=parse_compression(compression))
    site.assert_equal(ONE)
    repository = read_repository(unlocked(FolderStore(str(site.stores[0])), source(ONE)))

    assert 2 == len(repository.catalogue.generations)


def test_a_restart_goes_on_under_the_same_ring(site: Site) -> None:
    """No slot, no lease and no generation is added; both runs are one history."""
    site.once(ONE)
    before = site.objects()
    site.once(ONE)
    after = site.objects()

    assert {name: after[name] for name in before} == before
    added = [name for name in after if name not in before]
    assert added
    assert {SegmentName} == {type(parse_name(name)) for name in added}
    site.assert_equal(ONE)


def test_a_lost_state_folder_finds_the_ring_in_the_store(site: Site) -> None:
    """Taken over, the history goes on or begins anew, under the ring that there is; both stores can be read."""
    site.once(ONE)
    slot = site.objects()["keys/00000001.json"]
    shutil.rmtree(site.state)
    site.once(ONE, take_over=True)

    assert slot == (site.state / "keys.json").read_bytes()
    assert ["keys/00000001.json"] == [name for name in site.objects() if name.startswith("keys/")]
    for store in (0, 1):
        site.assert_equal(ONE, store=store)


def test_a_store_that_is_added_gets_the_slot_first(site: Site) -> None:
    """An empty second store of an encrypted database is encrypted, too, with the ring there is."""
    site.once(ONE, stores=1)
    site.once(ONE, stores=2)

    assert site.objects(0)["keys/00000001.json"] == site.objects(1)["keys/00000001.json"]
    assert set() == marks_in(site.objects(1))
    site.assert_equal(ONE, store=1)


def test_keys_are_rotated_beside_a_running_agent(site: Site) -> None:
    """It takes the new one up by itself; what is old stays as it is, and one operator's key opens all of it."""
    site.pay(3)
    with site.agent(ONE) as agent:
        agent.wait_captured_and_shipped(SECONDS)
        before = site.objects()
        stores = [FolderStore(str(each)) for each in site.stores]
        ring = rotate(KeyHolders(stores, source(ONE), str(site.state / "keys.json")), 1_800_000_000_000_000)
        for follower in agent._followers:
            follower.sweep()
        site.pay(3)
        agent.wait_captured_and_shipped(SECONDS)
    sealed = [SealedStore(each, FixedKeys(ring)) for each in stores]
    added = [name for name in site.objects() if name.startswith("tail/") and name not in before]

    assert added
    for store in sealed:
        keys = {store.key_of(each.name) for each in store.list("tail/") if each.name in added}
        assert {ring.active.key_id} == keys
    assert {name: site.objects()[name] for name in before} == before
    site.assert_equal(ONE)


# --- refused -------------------------------------------------------------------------------------------


def refused(agent: Agent) -> ReplicatorError:
    """What ends it, at its start or soon after; nothing is left running."""

    def run() -> None:
        try:
            agent.start()
            agent.wait(SECONDS)
        finally:
            agent.stop(ship_seconds=0.0)

    with pytest.raises(KeyRefused) as caught:
        run()
    return caught.value


@pytest.mark.parametrize("lost", [False, True], ids=["state kept", "state lost"])
@pytest.mark.parametrize("keys", [(), (TWO,)], ids=["none", "wrong"])
def test_without_the_key_an_agent_does_not_go_on(site: Site, keys: tuple[str, ...], lost: bool) -> None:
    """None, or another: exit code 12, and not a byte is put, plain or sealed."""
    site.once(ONE, stores=1)
    if lost:
        shutil.rmtree(site.state)
    site.pay()
    before = site.objects()
    problem = refused(site.agent(*keys, stores=1, take_over=lost))

    assert 12 == problem.exit_code
    assert before == site.objects()
    site.once(ONE, stores=1, take_over=lost)
    site.assert_equal(ONE)


def test_a_plain_repository_does_not_become_encrypted(site: Site) -> None:
    """A key is configured for a database that was replicated without: refused, since half of it would stay readable."""
    site.once(stores=1)
    before = site.objects()
    problem = refused(site.agent(ONE, stores=1))

    assert 12 == problem.exit_code
    assert "not encrypted" in str(problem)
    assert before == site.objects()


def test_a_store_whose_record_says_plain_gets_nothing(site: Site) -> None:
    """Somebody with access to the store replaces what it says of itself: the agent sends nothing plain, and stops."""
    site.once(ONE, stores=1)
    record = site.stores[0] / "repository.json"
    said = json.loads(record.read_bytes())
    record.write_bytes(json.dumps({**said, "features": []}).encode())
    site.pay()
    before = site.objects()
    shutil.rmtree(site.state)  # the worst case: nothing here remembers that it was encrypted but the setting
    problem = refused(site.agent(ONE, stores=1, take_over=True))

    assert 12 == problem.exit_code
    assert before == site.objects()


# --- what it costs who does not want it ----------------------------------------------------------------

PLAIN_RUN = """
import sys
from replicator.agent import Agent
from replicator.config import DatabaseConfig
with Agent([DatabaseConfig(sys.argv[1], (sys.argv[2],))]) as agent:
    agent.wait_captured_and_shipped(30)
from replicator.keys import unlocked
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store import connect
repository = read_repository(unlocked(connect(sys.argv[2])))
restore_chosen(repository, choose(repository, Target()), sys.argv[3], RestoreOptions())
print(sorted(each for each in sys.modules if each.split(".")[0] in ("cryptography", "_cffi_backend")))
"""


@pytest.mark.parametrize(("environ", "loaded"), [({}, False), ({KEY: ONE}, True)], ids=["plain", "encrypted"])
def test_who_encrypts_nothing_does_not_load_what_encrypts(
    site: Site, environ: dict[str, str], loaded: bool
) -> None:
    """A plain agent and a plain restore, in a process of their own: 10 MB less."""
    site.pay(3)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_RUN, site.database, str(site.stores[0]), str(site.folder / "out.db")],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("BACKUP_")}, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert loaded == ("cryptography.hazmat.primitives.ciphers.aead" in done.stdout)
    assert loaded or done.stdout.strip() == "[]"
