"""Nothing in the agent's process opens the database, its -wal or its -shm but apsw: see test_locks.py for why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Python tells its audit hooks of every open, by whatever function, and of the standard library's sqlite3.
AUDITED = """
import json, os, sys
from pathlib import Path
folder = Path(sys.argv[1])
database = os.path.realpath(folder / "app.db")
watched = {database + suffix for suffix in ("", "-wal", "-shm")}
seen, opens = [], 0

def audit(event, arguments):
    global opens
    if event == "open":
        opens += 1
    if event in ("open", "sqlite3.connect", "os.link", "os.rename", "os.truncate", "shutil.copyfile"):
        for each in arguments[:2]:
            if isinstance(each, (str, bytes, os.PathLike)) and os.path.realpath(os.fsdecode(each)) in watched:
                seen.append([event, os.fsdecode(each)])

sys.addaudithook(audit)
"""

NAIVE = """
open(database, "rb").close()
os.close(os.open(database + "-shm", os.O_RDWR | os.O_CREAT))
import sqlite3, shutil
sqlite3.connect(database).close()
shutil.copyfile(database, database + ".copy")
os.chdir(folder)
open("app.db", "rb").close()
Path("app.db").read_bytes()
print(json.dumps([opens > 4, seen]))
"""

AGENT = """
import logging
logging.basicConfig(level=logging.ERROR)
from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.checkpoint_policy import CheckpointLimits
from tests.support.app import App

config = DatabaseConfig(database, (str(folder / "store"),), ship_interval=0.01)
app = App(database)
app.insert(5)
app.execute("INSERT INTO t(body) VALUES(hex(zeroblob(3000000)))")
for turn in range(3):
    with Agent([config]) as agent:
        app.insert(3)
        agent.wait_captured_and_shipped(30)
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the next round begins with a new log
        app.insert(3)
        app.execute("UPDATE t SET body = body || 'x'")
        app.execute("VACUUM")
        agent.wait_captured_and_shipped(30)
        agent.status()
        if turn == 2:
            app.close()
        agent.stop(settle=turn == 1)
    if turn == 1:
        app.close()  # nobody is left, the log goes: the content of the whole database is compared at the start
        app = App(database)
generations = os.listdir(folder / "store" / "generations")
print(json.dumps([opens > 20, seen, len(generations)]))
"""


def audited(body: str, folder: Path) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", AUDITED + body, str(folder)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_agent_opens_the_database_through_sqlite_alone(tmp_path: Path) -> None:
    """Start, capture, full backup, checkpoints, resets, restarts by the log and by content, settling, status, stop:
    not one open of those files by anything but apsw."""
    opened, seen, generations = audited(AGENT, tmp_path)

    assert opened is True
    assert [] == seen
    assert 1 == generations


def test_a_naive_open_would_be_seen(tmp_path: Path) -> None:
    """The hook sees every way in which Python opens a file, whatever it is called."""
    (tmp_path / "app.db").write_bytes(b"")
    opened, seen = audited(NAIVE, tmp_path)

    assert opened is True
    assert isinstance(seen, list)
    assert {"open", "sqlite3.connect", "shutil.copyfile"} <= {event for event, _ in seen}
    assert 7 <= len(seen)
    assert {"app.db", "app.db-shm"} <= {os.path.basename(path) for _, path in seen}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
def test_the_agent_has_no_descriptor_left_when_it_stopped(tmp_path: Path) -> None:
    """What SQLite opened it has closed again: nothing is inherited, kept or leaked."""
    body = AGENT.split("generations =", maxsplit=1)[0] + (
        "left = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "print(json.dumps([each for each in left if each.startswith(str(folder))]))\n"
    )

    assert [] == audited(body, tmp_path)
