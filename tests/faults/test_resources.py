"""What runs out or goes wrong around the agent: disk space, descriptors, memory, time. It says so, and goes on after.

After each: nothing lost, nothing doubled, no generation that need not be. The disks are real ones.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

import replicator
from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.errors import DestinationRefused, ReplicatorError, StoreError
from replicator.core.names import FullName, parse_name
from replicator.repository import read_repository
from replicator.restore import run as run_module
from replicator.restore.destination import check_room
from replicator.store import connect, open_store
from tests.faults.test_hostile import assert_the_end, settle
from tests.faults.test_mounted_store import SETTLED_SECONDS, unmount, until_told
from tests.parts.rig import Rig
from tests.support import oracle
from tests.support.app import App
from tests.support.mounts import fill, in_own_mounts, mount_small, needs_loop, needs_mount, run
from tests.support.scene import Scene, digest_of
from tests.support.soaking import seeds
from tests.support.station import FILL

ROOT = Path(__file__).resolve().parents[2]


def assert_one_history(store: Path, database: Path, output: Path) -> None:
    """What is restored is the database, from one generation with one full backup, and nothing in it is hurt."""
    output.unlink(missing_ok=True)
    replicator.restore(str(store), str(output), verify="full")
    names = [parse_name(each.name) for each in connect(str(store)).list("")]
    verified = subprocess.run(
        [sys.executable, "-m", "replicator", "verify", store],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == verified.returncode, verified.stdout + verified.stderr
    assert 1 == len({each.generation for each in names if isinstance(each, FullName)})
    assert 1 == len(read_repository(open_store(str(store))).catalogue.generations)
    assert oracle.database_digest(database) == oracle.database_digest(output)


# --- a full disk ---------------------------------------------------------------------------------------


@needs_mount
def test_a_spool_whose_disk_is_full_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """ENOSPC under the spool: told, and caught up from the log; also by one that ends then, and one that begins."""
    in_own_mounts(fill_the_spool, tmp_path)


def fill_the_spool(folder: Path) -> None:
    state, store, database = mount_small(folder / "state", "4m"), folder / "store", folder / "app.db"
    config = DatabaseConfig(str(database), (str(store),), state=str(state), ship_interval=0.02)
    ballast = state / ".ballast"
    with App(str(database)) as app:
        app.insert(5)
        with Agent([config]) as agent:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            fill(ballast)
            told = until_told(agent, app, "free some space", size=20_000)
            app.insert(20, 20_000)
            ballast.unlink()
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            (well,) = agent.status().values()
            fill(ballast)
            app.insert(3, 20_000)  # ends with this in the log alone
        agent = Agent([config])
        agent.start()  # an application that is started after it does not wait for room
        late = until_told(agent, app, "free some space", size=20_000)
        ballast.unlink()
        app.insert(3, 20_000)
        agent.wait_captured_and_shipped(SETTLED_SECONDS)
        agent.stop()

    assert told
    assert late
    assert well.error is None
    assert_one_history(store, database, folder / "out.db")


@needs_mount
def test_a_state_folder_that_is_read_only_is_refused_at_the_start(tmp_path: Path) -> None:
    """By name and with what to do; and once it is writable all goes on from where it was."""
    in_own_mounts(start_on_a_read_only_state, tmp_path)


def start_on_a_read_only_state(folder: Path) -> None:
    state, store, database = mount_small(folder / "state", "8m"), folder / "store", folder / "app.db"
    config = DatabaseConfig(str(database), (str(store),), state=str(state), ship_interval=0.02)
    with App(str(database)) as app:
        app.insert(5)
        with Agent([config]) as agent:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
        run("mount", "-o", "remount,ro", state)
        with pytest.raises(ReplicatorError) as caught:
            Agent([config]).start()
        run("mount", "-o", "remount,rw", state)
        app.insert(3)
        with Agent([config]) as agent:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)

    assert "read-only" in str(caught.value.hint)
    assert_one_history(store, database, folder / "out.db")


@needs_loop
def test_a_disk_under_the_spool_that_fails_is_told_and_mended(tmp_path: Path) -> None:
    """EIO of a real file system, which the kernel makes read-only; the agent is ended, the disk mounted again, the
    agent started. What was not durable is captured anew."""
    in_own_mounts(break_the_spool, tmp_path)


def break_the_spool(folder: Path) -> None:
    ground, state = mount_small(folder / "ground", "16m"), folder / "state"
    store, database = folder / "store", folder / "app.db"
    state.mkdir()
    with open(ground / "image", "wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", ground / "image")
    run("mount", "-o", "loop,errors=remount-ro", ground / "image", state)
    config = DatabaseConfig(str(database), (str(store),), state=str(state / "app"), ship_interval=0.02)
    with App(str(database)) as app:
        app.insert(5)
        agent = Agent([config])
        agent.start()
        agent.wait_captured_and_shipped(SETTLED_SECONDS)
        fill(ground / "ballast")
        told = until_told(agent, app, os.strerror(errno.EIO), "mounted read-only", size=20_000)
        app.insert(5)
        agent.stop(ship_seconds=1.0)
        (ground / "ballast").unlink()
        unmount(state)
        run("mount", "-o", "loop", ground / "image", state)
        app.insert(3)
        with Agent([config]) as agent:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)

    replicator.restore(str(store), folder / "out.db", verify="full")
    generations = read_repository(open_store(str(store))).catalogue.generations

    assert told
    assert oracle.database_digest(database) == oracle.database_digest(folder / "out.db")
    # What lay in the log alone while nobody followed may be gone with the log; then it says so, and never guesses.
    assert len(generations) in {1, 2}
    assert all(each.record and each.record.reason for each in generations)


@needs_mount
def test_a_store_that_is_full_while_backups_are_made_has_whole_ones_after(tmp_path: Path) -> None:
    """ENOSPC in the middle of a full, an incremental and a log: each is refused, no half of it is relied upon."""
    in_own_mounts(fill_the_store, tmp_path)


def fill_the_store(folder: Path) -> None:
    store, database = mount_small(folder / "store", "6m"), folder / "app.db"
    ballast = store / ".ballast"
    config = DatabaseConfig(str(database), (str(store),), ship_interval=0.02)
    with App(str(database)) as app, ThreadPoolExecutor(1) as pool:
        app.insert(30, 10_000)
        with Agent([config]) as agent:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            for kind in ("incremental", "log", "full"):
                app.execute("UPDATE t SET body = hex(randomblob(10000))")
                agent.wait_captured_and_shipped(SETTLED_SECONDS)
                expected = app.digest()
                fill(ballast)
                os.truncate(ballast, ballast.stat().st_size - 100_000)  # so that something is begun
                asked = pool.submit(agent.ask, str(database), "backup", {"type": kind})
                wait([asked], timeout=0.2)
                replicator.restore(str(store), folder / f"{kind}.db")
                assert expected == digest_of(folder / f"{kind}.db")
                ballast.unlink()
                with contextlib.suppress(StoreError):  # refused, or waited for room
                    asked.result(SETTLED_SECONDS)
                agent.ask(str(database), "backup", {"type": kind})
            app.insert(3)
            agent.wait_captured_and_shipped(SETTLED_SECONDS)

    assert_one_history(store, database, folder / "out.db")


@needs_mount
@pytest.mark.parametrize("old", [False, True])
def test_a_restore_onto_a_disk_that_fills_up_leaves_it_as_it_was(tmp_path: Path, old: bool) -> None:
    """Somebody else takes the room while it runs: refused, nothing left of it, and an old database is whole."""
    in_own_mounts(fill_the_destination, tmp_path, old)


def fill_the_destination(folder: Path, old: bool) -> None:
    rig, disk = Rig(folder), mount_small(folder / "disk", "12m")
    output = disk / "out.db"
    with App(rig.database) as app:
        app.execute(FILL, 100, 10_000)
        rig.once()
        expected = app.digest()
    if old:
        with App(str(output)) as app:
            app.insert(3)
    before = digest_of(output) if old else None

    def somebody_comes_between(path: str, size: int) -> None:
        check_room(path, size)
        fill(disk / "ballast")

    refused = ""
    run_module.check_room = somebody_comes_between
    try:
        replicator.restore(rig.store, output, overwrite=old)
    except DestinationRefused as exc:
        refused = str(exc)
    run_module.check_room = check_room
    left = sorted(each.name for each in disk.iterdir())
    assert os.strerror(errno.ENOSPC) in refused
    assert (["ballast", "out.db"] if old else ["ballast"]) == left
    assert before == (digest_of(output) if old else None)
    (disk / "ballast").unlink()
    replicator.restore(rig.store, output, overwrite=old)

    assert expected == digest_of(output)


# --- descriptors, a slow disk --------------------------------------------------------------------------


def test_an_agent_without_descriptors_goes_on_when_it_has_some(tmp_path: Path) -> None:
    """From none that is free to a few, the application going on and asking for backups: nothing but a delay."""
    scene = Scene(tmp_path, 41, roles=())
    agent = scene.agent()
    with App(scene.database) as app:
        app.insert(3)
        scene.until_shipped()
        soft, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir(f"/proc/{agent.pid}/fd")))
        for spare in (1, 3, 6):
            resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (highest + spare, hard))
            app.insert(5)
            asked = subprocess.run(
                [sys.executable, "-m", "replicator", "backup", "full", scene.database],
                cwd=ROOT, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            app.insert(5)
            assert agent.poll() is None, scene.said()
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (soft, hard))
        scene.until_shipped()
    agent.send_signal(signal.SIGTERM)

    assert 0 == agent.wait(60)
    assert asked
    assert 1 == len(scene.repository().catalogue.generations)


@pytest.mark.parametrize("seed", seeds(51))
def test_a_slow_disk_delays_and_loses_nothing(tmp_path: Path, seed: int) -> None:
    """A twentieth of a second for every fsync, and a kill in the midst of them."""
    scene = Scene(tmp_path, seed)
    agent = scene.agent("--sync-seconds", "0.05")
    writers = scene.neighbours(1.2)
    with contextlib.suppress(subprocess.TimeoutExpired):
        writers[0].wait(0.6)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    scene.look()
    agent = scene.agent("--sync-seconds", "0.05")
    assert [0] * len(writers) == [each.wait(60) for each in writers]
    settle(scene, agent)

    assert_the_end(scene)
