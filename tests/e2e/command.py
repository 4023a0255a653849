"""The command line as a process, and the application beside it: what the tests in here are made of."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")},
    "PYTHONPATH": str(ROOT),
}
PATIENCE_SECONDS = 30.0

# A handler is reset in a child, an ignored signal is not: a shell that runs the tests in the background has
# SIGINT ignored, nohup has SIGHUP, and then nobody could be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object that was printed."""
        return json.loads(self.out)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "replicator", *map(str, arguments)]


def replicator(*arguments: object, cwd: Path, **environment: str) -> Done:
    """Run the command line to its end, without a terminal."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Running:
    """The command line while it runs, in a session of its own; killed with its children at the end of the
    context if it still does."""

    def __init__(
        self, *arguments: object, cwd: Path, environ: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=cwd,
            env={**ENVIRONMENT, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> Done:
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return Done(self.process.returncode, out, err)


def until(holds: Callable[[], bool], *, every: float = 0.02) -> None:
    """Wait until *holds*; a test that waits in vain fails here."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


def sql(database: Path, *statements: str) -> list[list[Any]]:
    """Run statements, each its own commit, in a child with the standard library's SQLite; the last one's rows.

    It ends without closing: its log stays, as that of an application that goes on.
    """
    script = (
        "import json, os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)\n"
        "for each in sys.argv[2:]:\n"
        "    rows = connection.execute(each).fetchall()\n"
        "print(json.dumps(rows), flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(database), *statements], capture_output=True, text=True, check=True
    )
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows


def write_board(database: Path, *, commits: int, rate: int = 0) -> list[str]:
    """Work on a board as the demo application does, as a command to run."""
    return [
        *(sys.executable, "-m", "replicator.demo.writer", str(database), "--quiet"),
        *("--commits", str(commits), "--rate", str(rate), "--tasks", "60"),
    ]


def following(database: Path) -> bool:
    """Whether the agent of *database* says that it follows."""
    try:
        found = json.loads((database.parent / f".{database.name}-replicator" / "status.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return bool(found["source"]["phase"] == "following")


def leftovers(folder: Path) -> list[str]:
    """All that lies in *folder*, hidden or not."""
    return sorted(path.name for path in folder.iterdir())
