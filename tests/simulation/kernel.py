"""Between the program and the system: carries out what the program asks for, tells the disk's model, and counts.

The calls of ``os`` are wrapped, and SQLite's go through a VFS of apsw. What happens below the root is followed;
everything else passes. Files have times of the world's clock, and exact ones, so that chance has no part in it.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.simulation.disk import Disk, File, Operation, Reading
from tests.simulation.sqlite_files import followed_by
from tests.simulation.system_calls import SystemCalls, real_open

AGENT, APPLICATION, JUDGE = "agent", "application", "judge"
HERE = "/proc/self/cwd"
"""How the agent knows the root: so stores have the same URL wherever the root lies."""
PROCESS = 4242
"""What number the agent's process has, in every run."""


class Killed(BaseException):
    """The agent's process is gone."""


class Kernel:
    """One at a time is in use. *on_point* is called before and after each durability point, with its number, what it
    is, and whether it has happened; it may raise Killed, and then ``dead`` has to be set: the agent's process is gone.
    ``crashed``: the application's."""

    def __init__(self, root: str, disk: Disk, wall: Callable[[], int], *, seed: int = 0) -> None:
        self.root = os.path.realpath(root)
        self.disk = disk
        self._acting = threading.local()
        self.dead = False
        self.crashed = False
        self.points = 0
        self.on_point: Callable[[int, str, bool], None] = lambda *_: None
        self.on_operation: Callable[[Operation], None] = lambda _: None
        self.interrupt: Callable[[str, str], None] | None = None
        """Called before each operation of SQLite on a file, with what it is and the path."""
        self.sleep: Callable[[float], None] | None = None
        """In the place of SQLite's own pauses."""
        self.wall = wall
        self._tick = 0
        self._rng = random.Random(f"kernel/{seed}")
        self._calls = SystemCalls(self)

    # --- in use ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        before = os.getcwd(), os.getpid, secrets.token_bytes, secrets.token_hex, random.getstate()
        os.chdir(self.root)
        os.getpid = lambda: PROCESS
        secrets.token_bytes = lambda count=32: self._rng.randbytes(count or 32)
        secrets.token_hex = lambda count=32: self._rng.randbytes(count or 32).hex()
        random.seed(self._rng.random())
        try:
            with followed_by(self), self._calls.in_use():
                yield
        finally:
            folder, os.getpid, secrets.token_bytes, secrets.token_hex, state = before
            random.setstate(state)
            os.chdir(folder)

    @property
    def actor(self) -> str:
        """In this thread: a step that waits goes on as who it was."""
        return getattr(self._acting, "actor", APPLICATION)

    @actor.setter
    def actor(self, actor: str) -> None:
        self._acting.actor = actor

    @contextlib.contextmanager
    def acting(self, actor: str) -> Iterator[None]:
        before, self.actor = self.actor, actor
        try:
            yield
        finally:
            self.actor = before

    def randomness(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def path_of(self, path: Any) -> str | None:
        """Relative to the root; None where it is not below it, or nobody is to be followed."""
        if self.actor == JUDGE or isinstance(path, int):
            return None
        text = os.fspath(path)
        text = os.fsdecode(text)
        for prefix in (HERE, self.root):
            if text == prefix:
                return ""
            if text.startswith(prefix + "/"):
                return text[len(prefix) + 1 :]
        return None

    def tick(self) -> int:
        """Nanoseconds, never the same twice."""
        self._tick += 1
        return self.wall() * 1000 + self._tick

    @contextlib.contextmanager
    def point(self, what: str, path: str) -> Iterator[None]:
        self.require_alive()
        self.points += 1
        label = f"{self.actor}: {what} {path}"
        self.on_point(self.points, label, False)
        yield
        self.on_point(self.points, label, True)

    def require_alive(self) -> None:
        if (self.dead and self.actor == AGENT) or (self.crashed and self.actor == APPLICATION):
            raise Killed

    def apply(self, *operation: Any) -> None:
        self.on_operation(operation)
        self.disk.apply(operation)

    def differences(self) -> list[str]:
        """Between the model and what there is; nothing, or an operation has slipped by."""
        wrong: list[str] = []
        view = self.disk.view(Reading.KILLED)
        there: set[str] = set()
        for folder, folders, files in os.walk(self.root):
            base = os.path.relpath(folder, self.root)
            there.update(os.path.normpath(os.path.join(base, each)) for each in (*folders, *files))
        for path in there ^ set(view):
            if not path.endswith("-shm"):
                wrong.append(f"{path} is only {'there' if path in there else 'in the model'}")
        for path, content in view.items():
            if content is not None and path in there and not path.startswith("db/"):
                with real_open(os.path.join(self.root, path), "rb") as file:
                    if file.read() != content:
                        wrong.append(f"{path} has another content")
        return wrong

    def spoil(self, path: str) -> None:
        """Damage a file as a bad disk would."""
        file = self.disk.find(path)
        assert isinstance(file, File)
        middle = len(file.now) // 2
        with real_open(os.path.join(self.root, path), "r+b") as real:
            real.seek(middle)
            real.write(b"?")
        self.apply("write", file.number, middle, b"?")
        self.apply("sync", file.number)
