"""What an operator does to a database at night: each ends the neighbours' world, and most of them begin an era.

The neighbours have ended when one comes. Each takes the scene and the agent, and returns the agent that lives then.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.support import oracle
from tests.support.scene import Process, Scene

Upheaval = Callable[[Scene, Process], Process]


def keep_older(scene: Scene) -> Path:
    """The copy that is put back later."""
    older = scene.folder / "older.db"
    oracle.copy_after_checkpoint(scene.database, older)
    return older


def created_again(scene: Scene, agent: Process) -> Process:
    """Deleted, with its log, and made anew."""
    for suffix in ("", "-wal", "-shm"):
        Path(scene.database + suffix).unlink(missing_ok=True)
    scene.create()
    return agent


def renamed_over(scene: Scene, agent: Process) -> Process:
    """An older copy takes its place, as `mv` does it."""
    shutil.copy(scene.folder / "older.db", scene.folder / "again.db")
    for suffix in ("-wal", "-shm"):
        Path(scene.database + suffix).unlink(missing_ok=True)
    os.rename(scene.folder / "again.db", scene.database)
    scene.begin_era(oracle.ledger(scene.folder / "older.db"))
    return agent


def written_over(scene: Scene, agent: Process) -> Process:
    """An older copy takes its place in the same file, as `cp` does it; the log was empty."""
    oracle.database_digest(scene.database)
    subprocess.run(["cp", scene.folder / "older.db", scene.database], check=True)
    scene.begin_era(oracle.ledger(scene.folder / "older.db"))
    return agent


def written_over_unseen(scene: Scene, agent: Process) -> Process:
    """The same while nobody follows."""
    end(agent)
    written_over(scene, agent)
    return scene.agent()


def in_another_mode(scene: Scene, agent: Process) -> Process:
    """WAL mode is left, a commit made, and entered again; beside the agent that is refused."""
    with closing(sqlite3.connect(scene.database, timeout=0)) as conn:
        try:
            left = conn.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "wal"
        except sqlite3.OperationalError:
            left = False
        assert not left
    end(agent)
    statements(scene, "PRAGMA journal_mode = DELETE", "CREATE TABLE IF NOT EXISTS unlogged (a)",
               "INSERT INTO unlogged VALUES (1)", "PRAGMA journal_mode = WAL")  # fmt: skip
    return scene.agent()


def in_other_pages(scene: Scene, agent: Process) -> Process:
    """Another page size, which needs another mode."""
    end(agent)
    size = scene.rng.choice([512, 1024, 4096, 65536])
    statements(
        scene,
        "PRAGMA journal_mode = DELETE",
        f"PRAGMA page_size = {size}",
        "VACUUM",
        "PRAGMA journal_mode = WAL",
    )
    return scene.agent()


def cut_off(scene: Scene, agent: Process) -> Process:
    """The agent is killed, and nothing else."""
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    return scene.agent()


def end(agent: Process) -> None:
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(60) == 0


def statements(scene: Scene, *sql: str) -> None:
    with closing(sqlite3.connect(scene.database, timeout=30, isolation_level=None)) as conn:
        for each in sql:
            conn.execute(each).fetchall()


UPHEAVALS: tuple[Upheaval, ...] = (
    created_again, renamed_over, written_over, written_over_unseen, in_another_mode, in_other_pages, cut_off,
)  # fmt: skip
