"""Questions to a board, asked in a process of their own: it opens the file, answers as JSON, and is gone.

    python -m replicator.demo.ask look|mistake DB

Must never be imported where the agent runs (see the package).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from replicator.demo.board import BoardWorker, open_board

# The name in the ledger under which the mistake is made; writers of the story are 1 and 2.
CLUMSY = 99


def look(path: Path) -> dict[str, Any]:
    """What is in a database that nobody writes to just now: {digest, tasks, counter, integrity}.

    Asked of a copy, so that neither the file nor its log is changed: the last one to close a database deletes
    its log, and with it the agent's place. The log is copied first: what a checkpoint moves into the file
    meanwhile is then in both. ``digest`` is the SHA-256 of the file with its log played into it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        log = Path(f"{path}-wal")
        if log.exists():
            shutil.copyfile(log, f"{copy}-wal")
        shutil.copyfile(path, copy)
        with contextlib.closing(sqlite3.connect(copy)) as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            counters = conn.execute("SELECT counter FROM ledger WHERE writer = 1").fetchone()
            answer = {
                "tasks": conn.execute("SELECT count(*) FROM tasks").fetchone()[0],
                "counter": counters[0] if counters else 0,
                "integrity": conn.execute("PRAGMA integrity_check").fetchone()[0],
            }
        return {**answer, "digest": hashlib.sha256(copy.read_bytes()).hexdigest()}


def mistake(path: Path) -> dict[str, Any]:
    """Delete the tasks of the fullest board, as a careless query does: {deleted}."""
    with contextlib.closing(open_board(path)) as conn:
        return {"deleted": BoardWorker(conn, CLUMSY).mistake()}


if __name__ == "__main__":
    print(json.dumps({"look": look, "mistake": mistake}[sys.argv[1]](Path(sys.argv[2]))))
