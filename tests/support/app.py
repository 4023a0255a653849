"""An application in a process of its own, driven statement by statement over pipes.

Tests hold apsw connections through the agent; stdlib sqlite3 on the same file in the same process would drop
its locks, so whatever the application does happens in a child.
"""

import json
import os
import signal
import subprocess
import sys
from typing import Any

_CHILD = """
import hashlib, json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
for line in sys.stdin:
    sql, arguments = json.loads(line)
    try:
        if sql == "digest":
            rows = [[hashlib.sha256(connection.serialize()).hexdigest()]]
        else:
            rows = connection.execute(sql, arguments).fetchall()
        answer = {"rows": rows}
    except sqlite3.Error as exc:
        answer = {"error": f"{type(exc).__name__}: {exc}"}
    print(json.dumps(answer), flush=True)
connection.close()
"""


class App:
    """``execute`` returns rows, or raises RuntimeError with SQLite's words."""

    def __init__(self, path: str, *, page_size: int = 4096, wal: bool = True) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if wal:
            self.execute(f"PRAGMA page_size={page_size}")
            self.execute("PRAGMA journal_mode=WAL")
        self.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body)")

    def execute(self, sql: str, *arguments: Any) -> list[Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps([sql, arguments]) + "\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["rows"]

    def insert(self, count: int = 1, size: int = 100) -> None:
        """*count* commits of one row each."""
        for _ in range(count):
            self.execute("INSERT INTO t(body) VALUES(hex(randomblob(?)))", size)

    def digest(self) -> str:
        """SHA-256 of every page as SQLite reads it now: what a restore of this commit has to be."""
        return str(self.execute("digest")[0][0])

    def close(self) -> None:
        """A clean end: the last connection checkpoints and deletes the log."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)
        if self._child.stdout is not None:
            self._child.stdout.close()

    def kill(self) -> None:
        """SIGKILL: the log stays as it is."""
        os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait(30)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self.close()
