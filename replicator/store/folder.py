"""A folder as a store: a local disk, or a share that is mounted.

Put-once is link(2), replacing is rename(2); durability is fsync of the file, then of its folder. No lock is assumed
to work there. What can be seen may not be durable yet, where whoever put it was killed before the second fsync: a
folder is synced before we rely on the names in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from replicator.core.catalogue import Listed
from replicator.core.errors import ObjectCorrupt, ObjectExists, ObjectNotFound, StoreDenied, StoreUnavailable
from replicator.core.sizes import require_proper_size
from replicator.files import (
    make_folder,
    mapped_errors,
    publish_once,
    replace_file,
    suppress_unsynced,
    sync_folder,
)
from replicator.store.folders import walk

_SPECIAL = re.compile("[%?#]")
# Names of a folder that nothing was put into or deleted from for so long are on the disk, whoever did that: file
# systems write them within a minute. It spares those who look at a whole repository a sync for each day of it.
_SETTLED_SECONDS = 86_400.0
# How often a folder may vanish under a put, one after the other.
_ATTEMPTS = 5


class FolderStore:
    """Objects are files below *root*, which is made at the first put and not before.

    A mount that is away shows an empty folder or none: once something was put here, a root that has gone
    missing, or lies empty on another device, is StoreUnavailable instead of being made again on the disk beneath.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        # Only what would not come back: people read it, and their paths have spaces and letters of all kinds.
        self.url = "file://" + _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", self._root)
        self._made: set[str] = set()
        self._settled: set[str] = set()
        self._leaving = threading.Lock()
        self._left = 0  # how often a folder was taken away
        self._device: int | None = None  # of the root, from the first put on

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)

        def publish() -> None:
            try:
                publish_once(path, data)
            except FileExistsError as exc:
                sync_folder(os.path.dirname(path))  # an attempt of ours may have failed at just that
                raise ObjectExists(name) from exc

        self._write(name, path, publish)

    def get(self, name: str) -> bytes:
        with self._opened(name) as file:
            size = os.fstat(file.fileno()).st_size
            require_proper_size(name, size)
            return file.read(size)

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        return self._part(name, 0, length)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data, _ = self._part(name, offset, length)
        if len(data) != length:
            raise ObjectCorrupt(
                f"{name} ends at byte {offset + len(data)}, wanted {offset + length}", name=name
            )
        return data

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Files only; links and our own temporary files are passed over."""
        with mapped_errors(f"cannot list {self._root}"):
            yield from walk(self._entries, _size, prefix, after)

    def delete(self, name: str) -> None:
        path = self._path(name)
        with mapped_errors(f"cannot delete {path}"), contextlib.suppress(FileNotFoundError):
            self._require_no_link(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            sync_folder(os.path.dirname(path))
            self._leave(os.path.dirname(path))

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        self._write(name, path, lambda: replace_file(path, data))

    def modified(self, name: str) -> int:
        """By the clock of the system that holds the disk: of a share, that of its server."""
        path = self._path(name)
        with mapped_errors(f"cannot look at {path}"):
            try:
                found = os.lstat(path)
            except FileNotFoundError as exc:
                raise ObjectNotFound(name) from exc
        if stat.S_ISLNK(found.st_mode):
            raise ObjectCorrupt(f"{path} is a symbolic link")
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFound(name)
        return found.st_mtime_ns // 1000

    def _part(self, name: str, offset: int, length: int) -> tuple[bytes, int]:
        """What there is of a span, and the size of the whole file."""
        with self._opened(name) as file:
            return os.pread(file.fileno(), length, offset), os.fstat(file.fileno()).st_size

    def _write(self, name: str, path: str, write: Callable[[], None]) -> None:
        """Whoever deletes the last object of a folder takes that away, too: then it is made once more."""
        with mapped_errors(f"cannot write {path}"):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    self._write_into(os.path.dirname(path), name, write)
                    return
                except (
                    FileNotFoundError,
                    PermissionError,
                ):  # the latter from one that is taken away just then
                    self._made.discard(os.path.dirname(path))
                    if attempt == _ATTEMPTS:
                        raise

    def _write_into(self, folder: str, name: str, write: Callable[[], None]) -> None:
        """Makes *folder* where it is missing. The root is looked at whenever something goes into it: the folder below a
        mount that is away is there, unlike those inside."""
        self._require_no_link(name)
        if folder not in self._made or folder == self._root:
            self._require_root()
        if folder not in self._made:
            make_folder(folder)
            self._made.add(folder)
            self._device = os.stat(self._root).st_dev
        with self._leaving:
            left = self._left
        write()
        with self._leaving:
            was_left = self._left != left
        if was_left:  # another thread may have made it anew, and not have synced it yet
            make_folder(folder)

    def _leave(self, folder: str) -> None:
        """Take away what is empty now, up to the root: a year leaves hundreds of folders, and every listing reads them.
        One that something was put into just now stays."""
        while folder != self._root:
            with self._leaving:
                self._made.discard(folder)
                self._settled.discard(folder)
                try:
                    os.rmdir(folder)
                except OSError:
                    return
                self._left += 1
            folder = os.path.dirname(folder)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        """A regular file below the root, which no link leads to or from."""
        path = self._path(name)
        with mapped_errors(f"cannot read {path}"):
            if link := self._link_above(name):
                raise ObjectCorrupt(f"{link} is a symbolic link", name=name)
            try:
                with open(path, "rb", opener=_unwaiting) as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        raise ObjectCorrupt(f"{path} is not a regular file", name=name)
                    yield file
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as exc:
                raise ObjectNotFound(name) from exc
            except OSError as exc:
                if exc.errno == errno.ELOOP:
                    raise ObjectCorrupt(f"{path} is a symbolic link", name=name) from exc
                if exc.errno == errno.ENXIO:
                    raise ObjectCorrupt(f"{path} is not a regular file", name=name) from exc
                raise

    def _link_above(self, name: str) -> str | None:
        """The folder above *name* that is a link: it could lead to any place of this machine. The root may be one."""
        at = self._root
        for part in name.split("/")[:-1]:
            at = os.path.join(at, part)
            if os.path.islink(at):
                return at
        return None

    def _require_no_link(self, name: str) -> None:
        if link := self._link_above(name):
            raise StoreDenied(
                f"{link} is a symbolic link", hint="nothing is written through one: put a folder in its place"
            )

    def _require_root(self) -> None:
        """The mount is still there. A share that was mounted again may be another device, but is not empty."""
        if self._device is None:
            return
        there = os.path.isdir(self._root)
        if not there or (os.stat(self._root).st_dev != self._device and not os.listdir(self._root)):
            raise StoreUnavailable(f"store folder {self._root} is gone", hint="is it mounted?")

    def _path(self, name: str) -> str:
        parts = name.split("/")
        assert all(part not in ("", ".", "..") for part in parts), name
        return os.path.join(self._root, *parts)

    def _settle(self, folder: str) -> None:
        """Make durable what an earlier process left in *folder*; once, since what we do there ourselves is."""
        if folder in self._settled:
            return
        if abs(time.time() - os.stat(folder).st_mtime) < _SETTLED_SECONDS:
            with suppress_unsynced():
                sync_folder(folder)
        self._settled.add(folder)

    def _entries(self, folder: str) -> Iterable[tuple[str, os.DirEntry[str]]]:
        if self._link_above(f"{folder}/"):
            return []
        path = os.path.join(self._root, folder) if folder else self._root
        try:
            self._settle(path)
            with os.scandir(path) as found:
                return [(e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, e) for e in found]
        except (FileNotFoundError, NotADirectoryError):
            return []


def _size(entry: os.DirEntry[str]) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        if entry.is_file(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
    return None


def _unwaiting(path: str, flags: int) -> int:
    """A link in a store is never ours: it could point at any file of this machine. Nor is a pipe, which is opened
    without waiting for who writes to it, so that it can be refused."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
