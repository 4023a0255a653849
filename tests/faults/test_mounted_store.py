"""A store folder on a disk of its own that fills up, fails, or goes away and comes back, with a writer that goes on.

The disks are real ones, in mounts of the test's own. After each: nothing lost, nothing doubled, ``status`` says what
it was and is clear again, and it took no second full backup.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import replicator
from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.names import FullName, parse_name
from replicator.ship import retries
from replicator.store import connect
from tests.support import oracle
from tests.support.app import App
from tests.support.mounts import fill, in_own_mounts, needs_loop, needs_mount, run

SETTLED_SECONDS = 60.0
Harm = Callable[[Path], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def away(folder: Path) -> Iterator[None]:
    """The share is unmounted, and mounted again."""
    run("umount", "--lazy", folder / "store")
    yield
    run("mount", "--bind", folder / "disk", folder / "store")


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Somebody else's file takes all that is left."""
    fill(folder / "disk/.ballast")
    yield
    (folder / "disk/.ballast").unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """What a kernel makes of a disk that it trusts no longer."""
    run("mount", "-o", "remount,ro", folder / "disk")
    run("mount", "-o", "remount,bind,ro", folder / "store")
    yield
    run("mount", "-o", "remount,rw", folder / "disk")
    run("mount", "-o", "remount,bind,rw", folder / "store")


HARMS: dict[str, tuple[Harm, str]] = {
    "away": (away, "mount it"),
    "full": (full, "free some space"),
    "read only": (read_only, "mounted read-only"),
}


@needs_mount
@pytest.mark.parametrize("harm", HARMS)
def test_s21_a_disk_that_comes_back_is_caught_up(tmp_path: Path, harm: str) -> None:
    """Unmounted, full, read-only: the application goes on, and so does the store afterwards."""
    in_own_mounts(follow_through, tmp_path, harm)


def follow_through(folder: Path, harm: str) -> None:
    disk, store, database = folder / "disk", folder / "store", folder / "app.db"
    disk.mkdir()
    store.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16m", "none", disk)
    run("mount", "--bind", disk, store)
    retries.DENIED_SECONDS = 0.5
    harmed, hint = HARMS[harm]
    with App(str(database)) as app:
        app.insert(5)
        agent = Agent([DatabaseConfig(str(database), (str(store),), ship_interval=0.02)])
        agent.start()
        try:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            with harmed(folder):
                said = until_told(agent, app, hint)
                app.insert(20)
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            app.insert(3)
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            (snapshot,) = agent.status().values()
        finally:
            agent.stop()
    replicator.restore(str(store), str(folder / "out.db"))
    names = [parse_name(each.name) for each in connect(str(store)).list("")]

    assert hint in said
    assert snapshot.error is None
    assert 1 == sum(isinstance(each, FullName) for each in names)
    assert oracle.database_digest(database) == oracle.database_digest(folder / "out.db")


@needs_mount
def test_a_share_that_is_not_mounted_at_start_is_not_replaced(tmp_path: Path) -> None:
    """The machine came up without it: nothing is put on the disk beneath, and all of it there once it is back."""
    in_own_mounts(start_without_it, tmp_path)


def start_without_it(folder: Path) -> None:
    disk, store, database = folder / "disk", folder / "store", folder / "app.db"
    disk.mkdir()
    store.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16m", "none", disk)
    run("mount", "--bind", disk, store)
    config = DatabaseConfig(str(database), (str(store / "app"),), ship_interval=0.02)
    with App(str(database)) as app:
        app.insert(5)
        with Agent([config]) as agent:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
        run("umount", store)
        with Agent([config]) as agent:
            said = until_told(agent, app, "mount it")
            beneath = os.listdir(store)
            run("mount", "--bind", disk, store)
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
    replicator.restore(str(store / "app"), str(folder / "out.db"))
    names = [parse_name(each.name) for each in connect(str(store / "app")).list("")]

    assert said
    assert [] == beneath
    assert 1 == sum(isinstance(each, FullName) for each in names)
    assert oracle.database_digest(database) == oracle.database_digest(folder / "out.db")


def until_told(agent: Agent, app: App, *hints: str, size: int = 100) -> str:
    """What ``status`` says, once one of *hints* is in it, with commits of *size* going on."""
    said = ""
    for _ in range(100):
        app.insert(4, size)
        (snapshot,) = agent.status().values()
        if snapshot.error is not None:
            said = f"{snapshot.error.message} {snapshot.error.hint}"
            if any(hint in said for hint in hints):
                return said
        time.sleep(0.1)
    raise AssertionError(f"status says {said!r}, wanted {hints!r}")


@needs_loop
def test_a_disk_that_fails_is_told_and_caught_up_when_it_is_mended(tmp_path: Path) -> None:
    """EIO of a real file system: what was not durable there is not called shipped."""
    in_own_mounts(break_a_disk, tmp_path)


def break_a_disk(folder: Path) -> None:
    """The image behind the file system is sparse, and lies where there is no room left: the kernel cannot write, and
    trusts the disk no longer."""
    ground, store, database = folder / "ground", folder / "store", folder / "app.db"
    ground.mkdir()
    store.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16m", "none", ground)
    with open(ground / "image", "wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", ground / "image")
    run("mount", "-o", "loop", ground / "image", store)
    retries.DENIED_SECONDS = 0.5
    with App(str(database)) as app:
        app.insert(5)
        agent = Agent([DatabaseConfig(str(database), (str(store),), ship_interval=0.02)])
        agent.start()
        try:
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            fill(ground / "ballast")
            said = until_told(agent, app, os.strerror(errno.EIO), "mounted read-only", size=20_000)
            app.insert(20)
            (ground / "ballast").unlink()
            unmount(store)
            run("mount", "-o", "loop", ground / "image", store)
            agent.wait_captured_and_shipped(SETTLED_SECONDS)
            (snapshot,) = agent.status().values()
        finally:
            agent.stop()
    replicator.restore(str(store), str(folder / "out.db"))

    assert said
    assert snapshot.error is None
    assert oracle.database_digest(database) == oracle.database_digest(folder / "out.db")


def unmount(folder: Path) -> None:
    """As soon as nobody is in the middle of a file there."""
    while subprocess.run(["umount", folder], check=False, capture_output=True).returncode:
        time.sleep(0.05)
