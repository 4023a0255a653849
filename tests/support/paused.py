"""A process with one connection that stands still wherever others can come between.

    python -m tests.support.paused

Commands come as lines of JSON, answers go as such. What is under way stops just before the file is written to, and
where it waits for a lock; then a line says how it goes on: "go", "no" (wait no longer) or "fail" (an error of the
disk). Nothing is synced: these processes are killed, the machine is not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw

ROOT = Path(__file__).resolve().parents[2]
HEADER_BYTES = 32


class Process:
    """Such a process, and what is said to it."""

    def __init__(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.support.paused"], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def does(self, what: str, argument: Any = None) -> dict[str, Any]:
        return self.goes(json.dumps([what, argument]))

    def goes(self, line: str) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        answer: dict[str, Any] = json.loads(self.child.stdout.readline())
        return answer

    def kill(self) -> None:
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()


class PausingFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        self._name = name if isinstance(name, str) else name.filename()
        self._log = self._name.endswith("-wal")
        self._appended = False
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if under_way.pauses:
            if self._log and offset == 0:
                pause({"at": "header"})
            elif not self._log:
                pause({"at": "page", "page": offset // len(data) + 1})
        self._appended = self._log and len(data) > HEADER_BYTES
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if under_way.pauses and self._appended and not under_way.checkpoints:
            self._appended = False
            if pause({"at": "written"}) == "fail":
                raise apsw.IOError("no such luck")

    def xTruncate(self, size: int) -> None:  # noqa: N802
        if under_way.pauses:
            pause({"at": "cut log" if self._log else "cut main"})
        super().xTruncate(size)


class PausingVfs(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("pausing", "unix")

    def xOpen(self, name: Any, flags: list[int]) -> PausingFile:  # noqa: N802
        return PausingFile(name, flags)


class UnderWay:
    """Whether it is something that stands still on its way, and a checkpoint."""

    pauses = checkpoints = False


under_way = UnderWay()


def pause(where: dict[str, Any]) -> str:
    print(json.dumps(where), flush=True)
    return sys.stdin.readline().strip()


def busy(_times: int) -> bool:
    return under_way.pauses and pause({"at": "busy"}) == "go"


def run(connection: apsw.Connection, what: str, argument: Any) -> Any:
    if what == "sql":
        return connection.execute(argument).fetchall()
    under_way.pauses, under_way.checkpoints = True, what == "checkpoint"
    try:
        if what == "checkpoint":
            return connection.wal_checkpoint(mode=getattr(apsw, f"SQLITE_CHECKPOINT_{argument}"))
        return connection.execute(argument).fetchall()
    finally:
        under_way.pauses = under_way.checkpoints = False


def open_connection(path: str) -> apsw.Connection:
    connection = apsw.Connection(path, vfs="pausing")
    connection.set_busy_handler(busy)
    connection.wal_autocheckpoint(0)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def main() -> None:
    vfs, connection = PausingVfs(), None  # noqa: F841  it is known to SQLite for as long as it lives
    for line in sys.stdin:
        what, argument = json.loads(line)
        try:
            if what == "open":
                connection = open_connection(argument)
                answer = None
            elif what == "close":
                assert connection is not None
                connection.close()
                connection = answer = None
            else:
                assert connection is not None
                answer = run(connection, what, argument)
            print(json.dumps({"done": answer}), flush=True)
        except (apsw.BusyError, apsw.IOError) as exc:
            print(json.dumps({"error": type(exc).__name__}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
