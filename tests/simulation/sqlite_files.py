"""SQLite's files, through a VFS of apsw: what it writes, syncs and deletes is told to the kernel that is in use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import apsw

from tests.simulation.disk import File

if TYPE_CHECKING:
    from tests.simulation.kernel import Kernel

_kernel: Kernel | None = None


@contextlib.contextmanager
def followed_by(kernel: Kernel) -> Iterator[None]:
    """One at a time."""
    global _kernel  # noqa: PLW0603
    assert _kernel is None, "one world at a time"
    _kernel = kernel
    apsw.set_default_vfs("followed")
    apsw.randomness(0)  # asked anew, it comes from here
    try:
        yield
    finally:
        apsw.set_default_vfs("unix")
        apsw.randomness(0)
        _kernel = None


class _Files(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("followed", "unix")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802
        interrupted = _kernel is not None and _kernel.interrupt is not None
        return _InterruptedFile(name, flags) if interrupted else _SqliteFile(name, flags)

    def xSleep(self, microseconds: int) -> int:  # noqa: N802
        if _kernel is None or _kernel.sleep is None:
            return super().xSleep(microseconds)
        _kernel.sleep(microseconds / 1e6)
        return microseconds

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


class _InterruptedFile(_SqliteFile):
    """Others may go first before each operation: before what it reads, and between two frames that it writes."""

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._interrupted("read")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._interrupted("write")
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._interrupted("truncate")
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._interrupted("sync")
        super().xSync(flags)

    def _interrupted(self, what: str) -> None:
        kernel = self._kernel
        if kernel is not None and kernel.interrupt is not None and self._path is not None:
            kernel.interrupt(what, self._path)


_files = _Files()
