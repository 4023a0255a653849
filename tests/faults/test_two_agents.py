"""Two agents on one repository, and one that comes back with what it knew long ago: it stops, or begins anew."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import replicator
from replicator.core.position import Position
from tests.support import oracle
from tests.support.app import App
from tests.support.scene import Process, Scene, digest_of
from tests.support.soaking import seeds

ROOT = Path(__file__).resolve().parents[2]
OWNERSHIP_LOST = 11


def ask(*arguments: object) -> None:
    """As an operator does it."""
    done = subprocess.run(
        [sys.executable, "-m", "replicator", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, (arguments, done.stdout, done.stderr)


class Successor:
    """Another machine: the newest state of the store is put back there, and its agent takes the repository over."""

    def __init__(self, scene: Scene) -> None:
        self.folder = scene.folder / "successor"
        self.folder.mkdir()
        self.database = self.folder / "app.db"
        self.store = scene.store
        replicator.restore(scene.store, self.database)
        self.app = App(str(self.database))
        command = [
            sys.executable,
            "-m",
            "tests.support.agent_process",
            self.database,
            scene.store,
            "--take-over",
        ]
        self.agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.agent.stdout is not None
        self.agent.stdout.readline()

    def keep_house(self) -> None:
        """All that deletes and rewrites: backups, a log out of the live segments, and what is old goes."""
        for kind in ("full", "incremental", "log"):
            self.app.insert(5)
            ask("backup", kind, self.database)
        ask("prune", self.database, "--yes")

    def end(self) -> str:
        """The digest of what it has, when all of it is in the store."""
        self.app.insert(3)
        self.agent.send_signal(signal.SIGTERM)
        assert 0 == self.agent.wait(60)
        assert self.agent.stdout is not None
        self.agent.stdout.close()
        digest = self.app.digest()
        self.app.close()
        return digest


def freeze(scene: Scene, seconds: float, *, pause: float) -> None:
    """In the midst of whatever it does; the neighbours go on."""
    scene.neighbours(120.0)
    agent = scene.agent("--pause", str(pause))
    while not scene.look():
        pass
    wait(agent, scene.rng.random())
    agent.send_signal(signal.SIGSTOP)
    successor = Successor(scene)
    successor.keep_house()
    wait(agent, seconds)
    before = names(scene.store)
    agent.send_signal(signal.SIGCONT)
    code = agent.wait(60)
    after = names(scene.store)
    successor.app.insert(5)
    scene.end_neighbours()
    digest = successor.end()
    newest = replicator.restore(scene.store, scene.folder / "newest.db", verify="full")

    assert OWNERSHIP_LOST == code, scene.said()
    assert len(after - before) <= 1  # the one that was on its way when it was stopped
    assert digest == digest_of(newest.path)
    ask("verify", scene.store)


def wait(process: Process, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def names(store: str) -> set[str]:
    return {str(path) for path in Path(store).rglob("*") if path.is_file() and not path.name.startswith(".")}


@pytest.mark.parametrize("seed", seeds(61))
@pytest.mark.parametrize("pause", [pytest.param(0.5, marks=pytest.mark.slow), 1000.0])
def test_a_frozen_agent_finds_that_another_one_writes(tmp_path: Path, seed: int, pause: float) -> None:
    """Stopped in the midst of a load, while another takes over, consolidates and prunes; then continued, with a load
    still there. It ends with 11, whether it notices that it stood still or only meets the other's names."""
    freeze(Scene(tmp_path, seed), 0.0, pause=pause)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", seeds(62, 63, 64, 65))
def test_an_agent_that_is_frozen_for_a_minute(tmp_path: Path, seed: int) -> None:
    """With the pause that agents really have."""
    freeze(Scene(tmp_path, seed), 60.0, pause=10.0)


# --- an old copy of its own state ----------------------------------------------------------------------


def run_to_the_end(scene: Scene, seconds: float) -> tuple[Position, str]:
    """An agent and its neighbours for a while; where the store is then, and what the database is."""
    agent = scene.agent()
    scene.neighbours(60.0)
    wait(agent, seconds)
    scene.end_neighbours()
    ask("backup", "log", scene.database)
    snapshot, position = scene.until_shipped()
    agent.send_signal(signal.SIGTERM)
    assert 0 == agent.wait(60), scene.said()
    return position, snapshot.digest


def go_on(scene: Scene, *more: str) -> int:
    """The agent is started on what there is now; the exit code, 0 where it goes on and ships."""
    return scene.agent("--once", *more).wait(100)


@pytest.mark.parametrize("seed", seeds(71))
@pytest.mark.parametrize(
    "what",
    [
        pytest.param("state", marks=pytest.mark.slow),
        pytest.param("state and database", marks=pytest.mark.slow),
        "state and database, and it goes on",
    ],
)
def test_an_agent_with_an_old_copy_of_its_state_breaks_nothing(tmp_path: Path, seed: int, what: str) -> None:
    """The state folder comes back from a backup, alone or with the whole machine: it goes on, or refuses and says to
    delete that folder. Nothing that was shipped changes, and what is there now is restored."""
    scene = Scene(tmp_path, seed)
    known = [run_to_the_end(scene, 0.4)]
    shutil.copytree(scene.state, tmp_path / "old-state", ignore=shutil.ignore_patterns("control"))
    oracle.copy_after_checkpoint(scene.database, tmp_path / "old.db")
    known.append(run_to_the_end(scene, 0.4))
    shutil.rmtree(scene.state)
    shutil.copytree(tmp_path / "old-state", scene.state)
    if "database" in what:
        for suffix in ("-wal", "-shm"):
            Path(scene.database + suffix).unlink(missing_ok=True)
        shutil.copy(tmp_path / "old.db", tmp_path / "back.db")
        os.rename(tmp_path / "back.db", scene.database)
        scene.begin_era(oracle.ledger(tmp_path / "old.db"))
    if "goes on" in what:
        scene.neighbours(0.5)
        assert not any(each.wait(60) for each in scene.living.values())
    code = go_on(scene)
    if code == OWNERSHIP_LOST:
        assert "delete the state folder, and start with --take-over" in scene.said()
        shutil.rmtree(scene.state)
        code = go_on(scene, "--take-over")
    assert 0 == code, scene.said()
    snapshot, _ = scene.until_shipped()
    repository = scene.repository()
    for position, digest in known:
        there = scene.restored(repository, txid=position.txid, generation=position.generation)
        assert digest == digest_of(there.path)
    newest = replicator.restore(scene.store, tmp_path / "newest.db", verify="full")

    assert snapshot.digest == digest_of(newest.path)
    ask("verify", scene.store)
