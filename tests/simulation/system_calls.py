"""The calls of ``os`` that change files, as the program makes them: carried out, and told to the kernel."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from replicator import spool
from tests.simulation.disk import File

if TYPE_CHECKING:
    from tests.simulation.kernel import Kernel

_TMPFILE: int = getattr(os, "O_TMPFILE", 0)
_WRAPPED = (
    "open", "close", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "link", "unlink", "remove",
    "rename", "replace", "mkdir", "rmdir", "truncate", "symlink", "sendfile", "writev", "pwritev",
)  # fmt: skip
_real: dict[str, Any] = {name: getattr(os, name) for name in _WRAPPED}
real_open = builtins.open


class SystemCalls:
    """Those of one kernel. What is not below its root passes; what nobody would follow is refused there."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._fds: dict[int, int | str] = {}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        for name in _WRAPPED:
            setattr(os, name, getattr(self, f"_{name}", None) or self._refused(name))
        builtins.open = io.open = self._builtin_open  # type: ignore[assignment]
        spool._sync_content = self._fdatasync
        try:
            yield
        finally:
            for name, call in _real.items():
                setattr(os, name, call)
            builtins.open = io.open = real_open
            spool._sync_content = _real["fdatasync"]

    # --- names -----------------------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        found = self._kernel.path_of(path)
        if found is None:
            fd = int(_real["open"](path, flags, mode, dir_fd=dir_fd))
            self._fds.pop(fd, None)  # of a file object that was closed past us
            return fd
        assert dir_fd is None
        self._require_not_the_database(found)
        if _TMPFILE and flags & _TMPFILE == _TMPFILE:
            return self._open_nameless(path, flags, mode)
        known = self._kernel.disk.find(found)
        if known is None and flags & os.O_CREAT:
            with self._kernel.point("create", found):
                fd = int(_real["open"](path, flags, mode))
                self._fds[fd] = number = self._kernel.disk.new_number()
                self._kernel.apply("create", number, found)
            return fd
        if flags & os.O_TRUNC:
            self._kernel.require_alive()
        fd = int(_real["open"](path, flags, mode))
        self._fds.pop(fd, None)
        if isinstance(known, File):
            self._fds[fd] = known.number
            if flags & os.O_TRUNC:
                self._kernel.apply("truncate", known.number, 0)
        elif known is not None:
            self._fds[fd] = found
        return fd

    def _open_nameless(self, path: Any, flags: int, mode: int) -> int:
        self._kernel.require_alive()
        fd = int(_real["open"](path, flags, mode))
        self._fds[fd] = number = self._kernel.disk.new_number()
        self._kernel.apply("create", number, None)
        return fd

    def _close(self, fd: int) -> None:
        self._fds.pop(fd, None)
        _real["close"](fd)

    def _link(self, source: Any, target: Any, **how: Any) -> None:
        found = self._kernel.path_of(target)
        if found is None:
            _real["link"](source, target, **how)
            return
        text = os.fsdecode(os.fspath(source))
        if text.startswith("/proc/self/fd/"):
            number = self._fds[int(text.rpartition("/")[2])]
        else:
            file = self._kernel.disk.find(self._kernel.path_of(source) or "?")
            if not isinstance(file, File):
                _real["link"](source, target, **how)  # which says that it is not there
                raise AssertionError(f"nobody follows {source}")
            number = file.number
        with self._kernel.point("link", found):
            _real["link"](source, target, **how)
            self._kernel.apply("link", number, found)
            self._stamp(target)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        found = self._kernel.path_of(path)
        if found is None or self._kernel.disk.find(found) is None:
            self._kernel.require_alive()
            _real["unlink"](path, dir_fd=dir_fd)
            return
        with self._kernel.point("unlink", found):
            _real["unlink"](path)
            self._kernel.apply("unlink", found)
            self._stamp(path)

    _remove = _unlink

    def _replace(self, source: Any, target: Any, **how: Any) -> None:
        found, to = self._kernel.path_of(source), self._kernel.path_of(target)
        if found is None or to is None:
            assert found is None
            assert to is None
            _real["replace"](source, target, **how)
            return
        with self._kernel.point("rename", to):
            _real["replace"](source, target)
            self._kernel.apply("rename", found, to)
            self._stamp(target)

    _rename = _replace

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        found = self._kernel.path_of(path)
        if found is None or self._kernel.disk.find(found) is not None:
            _real["mkdir"](path, mode, dir_fd=dir_fd)
            return
        with self._kernel.point("mkdir", found):
            _real["mkdir"](path, mode)
            self._kernel.apply("make_folder", found)
            self._stamp(path)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        found = self._kernel.path_of(path)
        if found is None:
            _real["rmdir"](path, dir_fd=dir_fd)
            return
        with self._kernel.point("rmdir", found):
            _real["rmdir"](path)
            self._kernel.apply("unlink", found)

    def _stamp(self, path: Any) -> None:
        """By the world's clock: what came to be, if it is there, and the folder that it is in."""
        now = self._kernel.wall() * 1000
        text = os.fsdecode(os.fspath(path))
        with contextlib.suppress(FileNotFoundError):
            os.utime(text, ns=(now, now))
        os.utime(os.path.dirname(text), ns=(now, now))

    # --- content ---------------------------------------------------------------------------------------

    def _write(self, fd: int, data: Any) -> int:
        number = self._fds.get(fd)
        if isinstance(number, int):
            self._kernel.require_alive()
        written = int(_real["write"](fd, data))
        if isinstance(number, int):
            self._kernel.apply("write", number, os.lseek(fd, 0, os.SEEK_CUR) - written, bytes(data[:written]))
        return written

    def _pwrite(self, fd: int, data: Any, offset: int) -> int:
        number = self._fds.get(fd)
        if isinstance(number, int):
            self._kernel.require_alive()
        written = int(_real["pwrite"](fd, data, offset))
        if isinstance(number, int):
            self._kernel.apply("write", number, offset, bytes(data[:written]))
        return written

    def _ftruncate(self, fd: int, size: int) -> None:
        number = self._fds.get(fd)
        if isinstance(number, int):
            self._kernel.require_alive()
        _real["ftruncate"](fd, size)
        if isinstance(number, int):
            self._kernel.apply("truncate", number, size)

    def _fsync(self, fd: int, what: str = "fsync") -> None:
        known = self._fds.get(fd)
        if known is None:
            return  # not ours to follow, and nothing that has to last
        name = known if isinstance(known, str) else f"#{known}"
        with self._kernel.point(what, name or "."):
            if isinstance(known, str):
                self._kernel.apply("sync_folder", known)
            else:
                self._kernel.apply("sync", known)

    def _fdatasync(self, fd: int) -> None:
        self._fsync(fd, "fdatasync")

    def _builtin_open(self, file: Any, mode: str = "r", *more: Any, **how: Any) -> Any:
        found = None if isinstance(file, int) else self._kernel.path_of(file)
        if found is not None:
            self._require_not_the_database(found)
            assert not set(mode) & set("wax+"), f"{file} is written in a way that nobody follows"
        return real_open(file, mode, *more, **how)

    def _require_not_the_database(self, path: str) -> None:
        """Closing any descriptor of it would drop the locks of this process."""
        assert not path.startswith("db/"), f"{path} is opened past SQLite"

    def _refused(self, name: str) -> Callable[..., Any]:
        def refuse(*arguments: Any, **how: Any) -> Any:
            paths = (each for each in arguments if isinstance(each, (str, bytes, os.PathLike)))
            assert all(self._kernel.path_of(each) is None for each in paths), f"nobody follows os.{name}"
            return _real[name](*arguments, **how)

        return refuse
