"""Hostile neighbours on real files, anybody killed or stopped at random: what is restored is what was committed.

Several processes commit, roll back, VACUUM, spill, close, read long and fire every checkpoint mode with every
setting, while the agent follows. Live snapshots, taken by a reader of their own, are the oracle: each must be
found as a restore point byte by byte, unless the agent was away just then. And every commit that was acknowledged
is counted: what the store holds at any moment has all that were before its newest one.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from replicator.core.position import Position
from replicator.repository import Repository
from tests.support import oracle
from tests.support.scene import Process, Scene, digest_of
from tests.support.soaking import seeds
from tests.support.upheavals import UPHEAVALS, keep_older

SECONDS = 4.0


def wait(process: Process, seconds: float) -> None:
    """As long as that, unless it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    pytest.fail(f"{process.args!r} ended with {process.returncode}")


def run(scene: Scene, seconds: float, *, kill: bool) -> tuple[Repository, list[oracle.Snapshot]]:
    neighbours = scene.neighbours(seconds)
    agent = scene.agent()  # in the midst of it: its first full backup is made of a database that changes
    snapshots: list[oracle.Snapshot] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        wait(agent, scene.rng.random())
        if kill and snapshots and scene.rng.random() < 0.5:
            agent.send_signal(scene.rng.choice([signal.SIGKILL, signal.SIGTERM]))
            agent.wait()
            agent = scene.agent()
        elif len(snapshots) < 2:
            snapshots.append(
                oracle.snapshot_at_rest(scene.database, str(scene.folder / f"snapshot{len(snapshots)}"))
            )
        else:
            scene.look()
    assert snapshots
    assert [0] * len(neighbours) == [each.wait(60) for each in neighbours]
    settle(scene, agent)
    return scene.repository(), snapshots


def settle(scene: Scene, agent: Process) -> None:
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(60) == 0, scene.said()
    assert scene.agent("--once").wait(60) == 0, scene.said()


def assert_the_end(scene: Scene) -> None:
    final = oracle.snapshot_at_rest(scene.database, str(scene.folder / "final"))
    path = scene.restored(scene.repository()).path
    assert final.digest == digest_of(path)
    scene.assert_all_acknowledged(path)


@pytest.mark.parametrize("seed", seeds(1, 2, 3))
def test_s13_a_followed_database_is_restored_at_any_commit(tmp_path: Path, seed: int) -> None:
    """With the agent alive throughout there is one generation, and every snapshot is a restore point in it."""
    scene = Scene(tmp_path, seed)
    repository, snapshots = run(scene, SECONDS, kill=False)

    assert 1 == len(repository.catalogue.generations)
    assert_the_end(scene)
    found = [scene.has(repository, each) for each in snapshots]
    assert False not in found  # None was before the first full backup was complete
    assert True in found


@pytest.mark.parametrize("seed", seeds(11, 12, 13))
def test_s95_a_killed_agent_loses_nothing_that_it_followed(tmp_path: Path, seed: int) -> None:
    """SIGKILL and SIGTERM at random: the end is restored exactly, and so is every snapshot that was followed."""
    scene = Scene(tmp_path, seed)
    repository, snapshots = run(scene, SECONDS, kill=True)

    assert_the_end(scene)
    assert False not in [scene.has(repository, each) for each in snapshots]  # None lay in a gap


def molest(scene: Scene, agent: Process, ends: float) -> Process:
    """Somebody is killed, and another comes in his place; or stands still for a moment, in the middle of anything."""
    whom = scene.rng.choice(list(scene.living))
    stopped = scene.rng.choice([agent, scene.living[whom]])
    deed = scene.rng.randrange(4)
    if deed == 0:
        scene.living[whom].send_signal(signal.SIGKILL)
        scene.living[whom].wait()
        scene.neighbour(whom, ends - time.monotonic())
    elif deed == 1:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        return scene.agent()
    elif deed == 2:
        stopped.send_signal(signal.SIGSTOP)
        wait(stopped, scene.rng.choice([0.01, 0.2, 1.0]))
        stopped.send_signal(signal.SIGCONT)
    else:
        scene.look()
    return agent


def molested(scene: Scene, seconds: float) -> None:
    ends = time.monotonic() + seconds
    scene.neighbours(seconds)
    agent = scene.agent()
    while (left := ends - time.monotonic()) > 0:
        wait(agent, min(left, 0.3 * scene.rng.random()))
        agent = molest(scene, agent, ends + 0.1)
    scene.end_neighbours()
    settle(scene, agent)
    assert_the_end(scene)


@pytest.mark.parametrize("seed", seeds(21))
def test_anybody_is_killed_or_stands_still(tmp_path: Path, seed: int) -> None:
    """The agent or one of five neighbours, at any moment; looks at the store between. Not one acknowledged commit is
    missing before the newest one of a look, and none at all in the end."""
    molested(Scene(tmp_path, seed, roles=("mixed", "mixed", "writer", "checkpointer", "sitter")), 5.0)


def overturn(scene: Scene, seconds: float) -> None:
    """Neighbours, an end, an upheaval; again and again, until each of them was."""
    agent = scene.agent()
    known: list[tuple[str, oracle.Snapshot, Position]] = []
    scene.until_shipped()
    keep_older(scene)
    for upheaval in scene.rng.sample(UPHEAVALS, len(UPHEAVALS)):
        scene.neighbours(60.0)
        wait(agent, seconds)
        scene.end_neighbours(kill=scene.rng.random() < 0.5)
        known.append((upheaval.__name__, *scene.until_shipped()))
        agent = upheaval(scene, agent)
        scene.until_shipped()
    scene.neighbours(60.0)
    wait(agent, seconds)
    scene.end_neighbours()
    settle(scene, agent)
    assert_the_end(scene)
    repository = scene.repository()
    for name, snapshot, position in known:
        there = scene.restored(repository, txid=position.txid, generation=position.generation)
        assert snapshot.digest == digest_of(there.path), name


@pytest.mark.parametrize("seed", seeds(31))
def test_a_database_that_is_exchanged_is_followed_on_and_what_was_stays(tmp_path: Path, seed: int) -> None:
    """Deleted and made anew, an older copy put back by `mv` and by `cp`, mode and page size changed, with the agent
    there and away: what comes is restored, and what was before each of them can still be."""
    overturn(Scene(tmp_path, seed), 0.4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds(*range(100, 160)))
def test_the_same_for_longer_and_for_many_more(tmp_path: Path, seed: int) -> None:
    """The campaign at full size: every page size, and each of the four in turn."""
    scene = Scene(tmp_path, seed)
    if seed % 4 == 2:
        molested(scene, 30.0)
    elif seed % 4 == 3:
        overturn(scene, 4.0)
    else:
        repository, snapshots = run(scene, 30.0, kill=seed % 4 == 1)
        assert_the_end(scene)
        assert False not in [scene.has(repository, each) for each in snapshots]
