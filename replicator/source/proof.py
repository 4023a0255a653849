"""SQLite's own opinion of a restored file, asked without touching it, and in a process of its own.

The file may come from a store that anybody can write to. Whatever it is made to do to SQLite, it does to a child whose
memory and time are bounded.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from replicator.core.errors import ProofFailed

_CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "proof_child.py")
_LOOK_SECONDS = 0.1
# Of the environment, what it takes to start Python. Keys of stores and of the repository are in there, too, and
# whatever the file makes of the child has no use for them.
_KEPT = re.compile("PATH|HOME|LANG|LC_.*|TZ|TMPDIR|PYTHON.*|LD_.*|DYLD_.*")


@dataclass(frozen=True, slots=True)
class Opinion:
    """``problems`` are damage; ``remarks`` are what could not be asked, or what virtual tables answered.

    A virtual table may disagree with its content on the source already (search indexes kept by triggers drift),
    so its complaints never fail a restore whose every page is proved.
    """

    problems: tuple[str, ...]
    remarks: tuple[str, ...]


class Proof:
    """quick_check, or integrity_check with *full*, and a SELECT on each virtual table. It runs from the start, beside
    whatever the caller does, and ends with the context at the latest."""

    def __init__(self, path: str, *, full: bool) -> None:
        self._command = [sys.executable, _CHILD, path, "full" if full else "quick"]
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Proof:
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)},
        )  # fmt: skip
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _exc: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._child is not None
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()

    def wait(self, cancelled: Callable[[], None]) -> Opinion:
        """What it found. *cancelled* is called a few times a second and may raise. Raises ProofFailed where SQLite did
        not survive the file, or did not come to an end."""
        child = self._child
        assert child is not None
        while True:
            try:
                out, errors = child.communicate(timeout=_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                cancelled()
        if child.returncode:
            raise ProofFailed(
                f"SQLite's check of the restored database {_how_it_ended(child.returncode, errors)}"
            )
        found = json.loads(out)
        return Opinion(tuple(found["problems"]), tuple(found["remarks"]))


def _how_it_ended(code: int, errors: bytes) -> str:
    if code == -signal.SIGXCPU:
        return "did not come to an end"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    last = errors.decode(errors="replace").strip().splitlines()
    return f"failed: {last[-1] if last else f'exit code {code}'}"
