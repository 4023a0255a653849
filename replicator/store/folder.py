"""A folder as a store: a local disk, or a share that is mounted.

Put-once is link(2), replacing is rename(2); durability is fsync of the file, then of its folder. No lock is assumed
to work there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator

from replicator.core.catalogue import Listed
from replicator.core.errors import ObjectCorrupt, ObjectExists, ObjectNotFound, StoreUnavailable
from replicator.files import make_folder, mapped_errors, publish_once, replace_file, sync_folder
from replicator.store.folders import walk

_SPECIAL = re.compile("[%?#]")


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
        self._device: int | None = None  # of the root, from the first put on

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._writing(path):
            try:
                publish_once(path, data)
            except FileExistsError as exc:
                raise ObjectExists(name) from exc

    def get(self, name: str) -> bytes:
        path = self._path(name)
        with mapped_errors(f"cannot read {path}"):
            try:
                with open(path, "rb", opener=_no_follow) as file:
                    return file.read()
            except FileNotFoundError as exc:
                raise ObjectNotFound(name) from exc

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
            os.unlink(path)
            sync_folder(os.path.dirname(path))

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._writing(path):
            replace_file(path, data)

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
        path = self._path(name)
        with mapped_errors(f"cannot read {path}"):
            try:
                with open(path, "rb", buffering=0, opener=_no_follow) as file:
                    return os.pread(file.fileno(), length, offset), os.fstat(file.fileno()).st_size
            except FileNotFoundError as exc:
                raise ObjectNotFound(name) from exc

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        """Makes the folder of *path* where it is missing. The root is looked at whenever something goes into it: the
        folder below a mount that is away is there, unlike those inside."""
        folder = os.path.dirname(path)
        with mapped_errors(f"cannot write {path}"):
            if folder not in self._made or folder == self._root:
                self._require_root()
            if folder not in self._made:
                make_folder(folder)
                self._made.add(folder)
                self._device = os.stat(self._root).st_dev
            try:
                yield
            except FileNotFoundError:
                self._made.discard(folder)
                raise

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

    def _entries(self, folder: str) -> Iterable[tuple[str, os.DirEntry[str]]]:
        try:
            with os.scandir(os.path.join(self._root, folder) if folder else self._root) as found:
                return [(e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, e) for e in found]
        except (FileNotFoundError, NotADirectoryError):
            return []


def _size(entry: os.DirEntry[str]) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        if entry.is_file(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
    return None


def _no_follow(path: str, flags: int) -> int:
    """A link in a store is never ours: it could point at any file of this machine."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise ObjectCorrupt(f"{path} is a symbolic link") from exc
        raise
