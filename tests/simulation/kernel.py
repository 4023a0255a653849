"""Between the program and the system: carries out what the program asks for, tells the disk's model, and counts.

The calls of ``os`` are wrapped, and SQLite's go through a VFS of apsw. What happens below the root is followed;
everything else passes. Files have times of the world's clock, and exact ones, so that chance has no part in it.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import random
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from replicator import spool
from tests.simulation.disk import Disk, File, Operation, Reading

AGENT, APPLICATION, JUDGE = "agent", "application", "judge"
HERE = "/proc/self/cwd"
"""How the agent knows the root: so stores have the same URL wherever the root lies."""

_TMPFILE: int = getattr(os, "O_TMPFILE", 0)
_WRAPPED = (
    "open", "close", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "link", "unlink", "remove",
    "rename", "replace", "mkdir", "rmdir", "truncate", "symlink", "sendfile", "writev", "pwritev",
)  # fmt: skip
_real: dict[str, Any] = {name: getattr(os, name) for name in _WRAPPED}
_real_open = builtins.open


class Killed(BaseException):
    """The agent's process is gone."""


class Kernel:
    """One at a time is in use. *on_point* is called before and after each durability point, with its number, what it
    is, and whether it has happened; it may raise Killed, and then ``dead`` has to be set."""

    def __init__(self, root: str, disk: Disk, wall: Callable[[], int], *, seed: int = 0) -> None:
        self.root = os.path.realpath(root)
        self.disk = disk
        self.actor = APPLICATION
        self.dead = False
        self.points = 0
        self.on_point: Callable[[int, str, bool], None] = lambda *_: None
        self.on_operation: Callable[[Operation], None] = lambda _: None
        self._wall = wall
        self._tick = 0
        self._fds: dict[int, int | str] = {}
        self._rng = random.Random(f"kernel/{seed}")

    # --- in use ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        global _kernel  # noqa: PLW0603
        assert _kernel is None, "one world at a time"
        before = os.getcwd()
        os.chdir(self.root)
        _kernel = self
        tokens = secrets.token_bytes, secrets.token_hex
        state = random.getstate()
        secrets.token_bytes = lambda count=32: self._rng.randbytes(count or 32)
        secrets.token_hex = lambda count=32: self._rng.randbytes(count or 32).hex()
        random.seed(self._rng.random())
        apsw.set_default_vfs("followed")
        apsw.randomness(0)  # asked anew, it comes from here
        for name in _WRAPPED:
            setattr(os, name, getattr(self, f"_{name}", None) or _refused(name))
        builtins.open = io.open = self._builtin_open  # type: ignore[assignment]
        spool._sync_content = self._fdatasync
        try:
            yield
        finally:
            apsw.set_default_vfs("unix")
            apsw.randomness(0)
            _kernel = None
            for name, call in _real.items():
                setattr(os, name, call)
            builtins.open = io.open = _real_open
            spool._sync_content = _real["fdatasync"]
            secrets.token_bytes, secrets.token_hex = tokens
            random.setstate(state)
            os.chdir(before)

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
        return self._wall() * 1000 + self._tick

    @contextlib.contextmanager
    def point(self, what: str, path: str) -> Iterator[None]:
        self.require_alive()
        self.points += 1
        label = f"{self.actor}: {what} {path}"
        self.on_point(self.points, label, False)
        yield
        self.on_point(self.points, label, True)

    def require_alive(self) -> None:
        if self.dead and self.actor == AGENT:
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
                with _real_open(os.path.join(self.root, path), "rb") as file:
                    if file.read() != content:
                        wrong.append(f"{path} has another content")
        return wrong

    def spoil(self, path: str) -> None:
        """Damage a file as a bad disk would."""
        file = self.disk.find(path)
        assert isinstance(file, File)
        middle = len(file.now) // 2
        with _real_open(os.path.join(self.root, path), "r+b") as real:
            real.seek(middle)
            real.write(b"?")
        self.apply("write", file.number, middle, b"?")
        self.apply("sync", file.number)

    # --- names -----------------------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        found = self.path_of(path)
        if found is None:
            return int(_real["open"](path, flags, mode, dir_fd=dir_fd))
        assert dir_fd is None
        self._require_not_the_database(found)
        if _TMPFILE and flags & _TMPFILE == _TMPFILE:
            return self._open_nameless(path, flags, mode)
        known = self.disk.find(found)
        if known is None and flags & os.O_CREAT:
            with self.point("create", found):
                fd = int(_real["open"](path, flags, mode))
                self._fds[fd] = number = self.disk.new_number()
                self.apply("create", number, found)
            return fd
        if flags & os.O_TRUNC:
            self.require_alive()
        fd = int(_real["open"](path, flags, mode))
        if isinstance(known, File):
            self._fds[fd] = known.number
            if flags & os.O_TRUNC:
                self.apply("truncate", known.number, 0)
        elif known is not None:
            self._fds[fd] = found
        return fd

    def _open_nameless(self, path: Any, flags: int, mode: int) -> int:
        self.require_alive()
        fd = int(_real["open"](path, flags, mode))
        self._fds[fd] = number = self.disk.new_number()
        self.apply("create", number, None)
        return fd

    def _close(self, fd: int) -> None:
        self._fds.pop(fd, None)
        _real["close"](fd)

    def _link(self, source: Any, target: Any, **how: Any) -> None:
        found = self.path_of(target)
        if found is None:
            _real["link"](source, target, **how)
            return
        text = os.fsdecode(os.fspath(source))
        if text.startswith("/proc/self/fd/"):
            number = self._fds[int(text.rpartition("/")[2])]
        else:
            file = self.disk.find(self.path_of(source) or "?")
            assert isinstance(file, File)
            number = file.number
        with self.point("link", found):
            _real["link"](source, target, **how)
            self.apply("link", number, found)
            self._stamp(target)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        found = self.path_of(path)
        if found is None or self.disk.find(found) is None:
            self.require_alive()
            _real["unlink"](path, dir_fd=dir_fd)
            return
        with self.point("unlink", found):
            _real["unlink"](path)
            self.apply("unlink", found)
            self._stamp(path)

    _remove = _unlink

    def _replace(self, source: Any, target: Any, **how: Any) -> None:
        found, to = self.path_of(source), self.path_of(target)
        if found is None or to is None:
            assert found is None
            assert to is None
            _real["replace"](source, target, **how)
            return
        with self.point("rename", to):
            _real["replace"](source, target)
            self.apply("rename", found, to)
            self._stamp(target)

    _rename = _replace

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        found = self.path_of(path)
        if found is None or self.disk.find(found) is not None:
            _real["mkdir"](path, mode, dir_fd=dir_fd)
            return
        with self.point("mkdir", found):
            _real["mkdir"](path, mode)
            self.apply("make_folder", found)
            self._stamp(path)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        found = self.path_of(path)
        if found is None:
            _real["rmdir"](path, dir_fd=dir_fd)
            return
        with self.point("rmdir", found):
            _real["rmdir"](path)
            self.apply("unlink", found)

    def _stamp(self, path: Any) -> None:
        """By the world's clock: what came to be, if it is there, and the folder that it is in."""
        now = self._wall() * 1000
        text = os.fsdecode(os.fspath(path))
        with contextlib.suppress(FileNotFoundError):
            os.utime(text, ns=(now, now))
        os.utime(os.path.dirname(text), ns=(now, now))

    # --- content ---------------------------------------------------------------------------------------

    def _write(self, fd: int, data: Any) -> int:
        number = self._fds.get(fd)
        if isinstance(number, int):
            self.require_alive()
        written = int(_real["write"](fd, data))
        if isinstance(number, int):
            self.apply("write", number, os.lseek(fd, 0, os.SEEK_CUR) - written, bytes(data[:written]))
        return written

    def _pwrite(self, fd: int, data: Any, offset: int) -> int:
        number = self._fds.get(fd)
        if isinstance(number, int):
            self.require_alive()
        written = int(_real["pwrite"](fd, data, offset))
        if isinstance(number, int):
            self.apply("write", number, offset, bytes(data[:written]))
        return written

    def _ftruncate(self, fd: int, size: int) -> None:
        number = self._fds.get(fd)
        if isinstance(number, int):
            self.require_alive()
        _real["ftruncate"](fd, size)
        if isinstance(number, int):
            self.apply("truncate", number, size)

    def _fsync(self, fd: int, what: str = "fsync") -> None:
        known = self._fds.get(fd)
        if known is None:
            return  # not ours to follow, and nothing that has to last
        name = known if isinstance(known, str) else f"#{known}"
        with self.point(what, name or "."):
            if isinstance(known, str):
                self.apply("sync_folder", known)
            else:
                self.apply("sync", known)

    def _fdatasync(self, fd: int) -> None:
        self._fsync(fd, "fdatasync")

    def _builtin_open(self, file: Any, mode: str = "r", *more: Any, **how: Any) -> Any:
        found = None if isinstance(file, int) else self.path_of(file)
        if found is not None:
            self._require_not_the_database(found)
            assert not set(mode) & set("wax+"), f"{file} is written in a way that nobody follows"
        return _real_open(file, mode, *more, **how)

    def _require_not_the_database(self, path: str) -> None:
        """Closing any descriptor of it would drop the locks of this process."""
        assert not path.startswith("db/"), f"{path} is opened past SQLite"


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any, **how: Any) -> Any:
        kernel = _kernel
        known = [kernel.path_of(each) for each in arguments if isinstance(each, (str, bytes, os.PathLike))]
        assert not any(each is not None for each in known), f"nobody follows os.{name}"
        return _real[name](*arguments, **how)

    return refuse


# --- SQLite --------------------------------------------------------------------------------------------

_kernel: Kernel | None = None


class _Files(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("followed", "unix")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802
        return _SqliteFile(name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        kernel, found = _kernel, _followed(name)
        if kernel is None or found is None or kernel.disk.find(found) is None:
            super().xDelete(name, sync)
            return
        with kernel.point("delete", found):
            super().xDelete(name, sync)
            kernel.apply("unlink", found)
            if sync:
                kernel.apply("sync_folder", found.rpartition("/")[0])

    def xRandomness(self, count: int) -> bytes:  # noqa: N802
        return _kernel.randomness(count) if _kernel is not None else super().xRandomness(count)


def _followed(name: Any) -> str | None:
    text = name.filename() if isinstance(name, apsw.URIFilename) else name
    return _kernel.path_of(text) if _kernel is not None and text is not None else None


class _SqliteFile(apsw.VFSFile):
    """SQLite syncs the folder with the first sync of a log or journal that it opened to create it (unixSync)."""

    def __init__(self, name: Any, flags: list[int]) -> None:
        self._path = _followed(name)
        self._full = name.filename() if isinstance(name, apsw.URIFilename) else name
        journal = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
        self._sync_folder = bool(flags[0] & journal and flags[0] & apsw.SQLITE_OPEN_CREATE)
        self._kernel = kernel = _kernel
        if kernel is None or self._path is None or kernel.disk.find(self._path) is not None:
            super().__init__("unix", name, flags)
        else:
            with kernel.point("create", self._path):
                super().__init__("unix", name, flags)
                kernel.apply("create", kernel.disk.new_number(), self._path)
        found = kernel.disk.find(self._path) if kernel is not None and self._path is not None else None
        self._node = found if isinstance(found, File) else None

    def _stamp(self, kernel: Kernel) -> None:
        """Exact times, unless the name stands for another file by now."""
        if self._path is not None and kernel.disk.find(self._path) is self._node:
            tick = kernel.tick()
            os.utime(self._full, ns=(tick, tick))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        kernel, file = self._kernel, self._node
        if kernel is None or file is None:
            super().xWrite(data, offset)
            return
        main = not self._path.endswith(("-wal", "-journal"))  # type: ignore[union-attr]
        moment = kernel.point("write", self._path or "") if main else contextlib.nullcontext()
        kernel.require_alive()
        with moment:
            super().xWrite(data, offset)
            kernel.apply("write", file.number, offset, bytes(data))
            self._stamp(kernel)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        kernel, file = self._kernel, self._node
        if kernel is None or file is None:
            super().xTruncate(size)
            return
        with kernel.point("truncate", self._path or ""):
            super().xTruncate(size)
            kernel.apply("truncate", file.number, size)
            self._stamp(kernel)

    def xSync(self, flags: int) -> None:  # noqa: N802
        kernel, file = self._kernel, self._node
        if kernel is None or file is None:
            return
        with kernel.point("sync", self._path or ""):
            kernel.apply("sync", file.number)
            if self._sync_folder:
                kernel.apply("sync_folder", (self._path or "").rpartition("/")[0])
                self._sync_folder = False


_files = _Files()
