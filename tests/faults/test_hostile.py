"""Hostile neighbours on real files, the agent killed at random: what is restored is what was committed.

Several processes commit, roll back, VACUUM, spill, close, read long and fire every checkpoint mode with every
setting, while the agent follows. Live snapshots, taken by a reader of their own, are the oracle: each must be
found as a restore point byte by byte, unless the agent was away just then.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replicator.core.errors import TargetUnreachable
from replicator.repository import Repository, newest_point, read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store import open_store
from tests.support import oracle

SECONDS = 4.0


class Scene:
    def __init__(self, folder: Path, seed: int, seconds: float = SECONDS) -> None:
        self.folder = folder
        self.seconds = seconds
        self.rng = random.Random(seed)
        self.seed = seed
        self.database = str(folder / "app.db")
        self.store = str(folder / "store")
        self._outputs = 0
        create = (
            f"from tests.support.hostile import create_hostile; create_hostile({self.database!r}, {seed})"
        )
        subprocess.run([sys.executable, "-c", create], check=True)

    def agent(self, *more: str) -> "subprocess.Popen[bytes]":
        interval = str(self.rng.choice([0, 0.005, 0.05, 0.5]))
        command = [sys.executable, "-m", "tests.support.agent_process", self.database, self.store]
        with open(self.folder / "agent.log", "ab") as log:
            agent = subprocess.Popen(
                [*command, "--interval", interval, "--every-commit", *more],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        with agent.stdout as ready:  # type: ignore[union-attr]
            ready.readline()  # follows from here on
        return agent

    def neighbours(self) -> list["subprocess.Popen[bytes]"]:
        roles = ["mixed", "mixed", "writer", "checkpointer"]
        command = [
            sys.executable,
            "-m",
            "tests.support.hostile",
            self.database,
            "--seconds",
            str(self.seconds),
        ]
        return [
            subprocess.Popen(
                [*command, "--seed", str(self.seed * 10 + number), "--writer", str(number), "--role", role],
                stdout=subprocess.DEVNULL,
            )
            for number, role in enumerate(roles, 1)
        ]

    def restored(self, repository: Repository, **target: object) -> str:
        self._outputs += 1
        output = str(self.folder / f"out{self._outputs}.db")
        restore_chosen(
            repository,
            choose(repository, Target(**target)),
            output,
            RestoreOptions(verify="quick"),  # type: ignore[arg-type]
        )
        return output

    def has(self, repository: Repository, snapshot: oracle.Snapshot) -> bool | None:
        """Whether some restore point is *snapshot*; None where it lies outside all that was followed."""
        wanted = sum(snapshot.ledger.values())
        inside = False
        for listing in repository.catalogue.generations:
            if not listing.fulls:
                continue
            low, high = listing.fulls[0].txid, newest_point(repository, listing).position.txid
            ends = [self._total(repository, listing.generation, txid)[0] for txid in (low, high)]
            inside = inside or ends[0] < wanted < ends[1]
            while low < high:
                middle = (low + high) // 2
                total, _ = self._total(repository, listing.generation, middle)
                low, high = (middle + 1, high) if total < wanted else (low, middle)
            # Commits that are not in the ledger follow each other for as long as they like.
            for txid in range(low, newest_point(repository, listing).position.txid + 1):
                total, digest = self._total(repository, listing.generation, txid)
                if digest == snapshot.digest:
                    return True
                if total > wanted or total < 0:
                    break
        return False if inside else None

    def _total(self, repository: Repository, generation: str, txid: int) -> tuple[int, str]:
        try:
            path = self.restored(repository, txid=txid, generation=generation)
        except TargetUnreachable:
            return -1, ""
        total = sum(oracle.ledger(path).values())
        digest = _digest(path)
        os.unlink(path)
        return total, digest


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _run(scene: Scene, *, kill: bool) -> tuple[Repository, list[oracle.Snapshot]]:
    neighbours = scene.neighbours()
    agent = scene.agent()  # in the midst of it: its first full backup is made of a database that changes
    snapshots: list[oracle.Snapshot] = []
    deadline = time.monotonic() + scene.seconds
    while time.monotonic() < deadline:
        try:
            agent.wait(scene.rng.random())
        except subprocess.TimeoutExpired:
            pass
        else:
            pytest.fail(f"the agent ended: {(scene.folder / 'agent.log').read_text()[-2000:]}")
        if kill and snapshots and scene.rng.random() < 0.5:
            agent.send_signal(scene.rng.choice([signal.SIGKILL, signal.SIGTERM]))
            agent.wait()
            agent = scene.agent()
        elif len(snapshots) < 2:
            snapshots.append(
                oracle.snapshot_at_rest(scene.database, str(scene.folder / f"snapshot{len(snapshots)}"))
            )
    assert snapshots
    assert [0] * len(neighbours) == [each.wait(60) for each in neighbours]
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(60) == 0, (scene.folder / "agent.log").read_text()[-2000:]
    assert scene.agent("--once").wait(60) == 0, (scene.folder / "agent.log").read_text()[-2000:]
    return read_repository(open_store(scene.store)), snapshots


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_s13_a_followed_database_is_restored_at_any_commit(tmp_path: Path, seed: int) -> None:
    """With the agent alive throughout there is one generation, and every snapshot is a restore point in it."""
    scene = Scene(tmp_path, seed)
    repository, snapshots = _run(scene, kill=False)
    final = oracle.snapshot_at_rest(scene.database, str(tmp_path / "final"))

    assert 1 == len(repository.catalogue.generations)
    assert final.digest == _digest(scene.restored(repository))
    found = [scene.has(repository, each) for each in snapshots]
    assert False not in found  # None was before the first full backup was complete
    assert True in found


@pytest.mark.parametrize("seed", [11, 12, 13, 14, 15])
def test_s95_a_killed_agent_loses_nothing_that_it_followed(tmp_path: Path, seed: int) -> None:
    """SIGKILL and SIGTERM at random: the end is restored exactly, and so is every snapshot that was followed."""
    scene = Scene(tmp_path, seed)
    repository, snapshots = _run(scene, kill=True)
    final = oracle.snapshot_at_rest(scene.database, str(tmp_path / "final"))

    assert final.digest == _digest(scene.restored(repository))
    assert False not in [scene.has(repository, each) for each in snapshots]  # None lay in a gap


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_the_same_for_longer_and_for_many_more(tmp_path: Path, seed: int) -> None:
    """The campaign at full size: every page size, kills in every other run."""
    scene = Scene(tmp_path, seed, seconds=30.0)
    repository, snapshots = _run(scene, kill=seed % 2 == 1)
    final = oracle.snapshot_at_rest(scene.database, str(tmp_path / "final"))

    assert final.digest == _digest(scene.restored(repository))
    assert False not in [scene.has(repository, each) for each in snapshots]
