"""Durable file operations: what is written here survives a power cut, or was never there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import secrets
import time
from collections.abc import Iterator
from typing import Any

from replicator.core.errors import OwnershipLost, StoreDenied, StoreUnavailable

FILE_MODE = 0o600
FOLDER_MODE = 0o700
# Whoever asks who holds a lock has it for a moment; an agent has it for good.
_LOCK_ATTEMPTS = 20
# Linux has it; what it is made of differs by system.
_UNNAMED: int = getattr(os, "O_TMPFILE", 0)
# How file systems without hard links say so.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # Linux
_RENAME_EXCL = 4  # macOS


@contextlib.contextmanager
def mapped_errors(what: str) -> Iterator[None]:
    """Translate OSError once, at the edge: full, denied, or unavailable for now; for whoever tries again."""
    try:
        yield
    except OSError as exc:
        detail = f"{what}: {exc.strerror or exc}"
        if exc.errno in (errno.EACCES, errno.EPERM):
            raise StoreDenied(detail, hint="give this user permission there") from exc
        if exc.errno == errno.EROFS:
            hint = "it is mounted read-only; if nobody meant that, the kernel's log says why"
            raise StoreDenied(detail, hint=hint) from exc
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreUnavailable(
                detail, hint="free some space; nothing is lost, it goes on by itself"
            ) from exc
        raise StoreUnavailable(detail) from exc


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until nothing is left."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def suppress_unsynced() -> Iterator[None]:
    """Where a folder cannot be synced at all, or not by us: who writes into it finds that out."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def make_folder(path: str) -> None:
    """Create *path* and its missing parents, 0700 under any umask, durable from the topmost new one on. And what is
    there already: whoever made it may have been killed before that was durable."""
    missing: list[str] = []
    head = os.path.abspath(path)
    while not os.path.isdir(head):
        missing.append(head)
        head = os.path.dirname(head)
    with suppress_unsynced():
        sync_folder(os.path.dirname(head))
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, FOLDER_MODE)
        os.chmod(folder, FOLDER_MODE)
        sync_folder(os.path.dirname(folder))


def mount_of(path: str) -> str:
    """Where the file system that *path* lies on, or would lie on, is mounted."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def replace_file(path: str, data: bytes, *, durable: bool = True) -> None:
    """Give *path* new content atomically; a reader sees the old or the new, whole."""
    temporary = _temporary(os.path.dirname(path))
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        try:
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(os.path.dirname(path))


def publish_once(path: str, data: bytes) -> None:
    """Create *path* with *data*, whole and durable, or raise FileExistsError and change nothing.

    Written without a name, synced, then linked: link(2) refuses an existing name atomically, and whoever is
    killed before leaves nothing. Where that cannot be had, under a temporary name; and where there are no links
    (SMB, FAT), that is renamed by a call which does not replace.
    """
    folder = os.path.dirname(path)
    if not _publish_unnamed(folder, path, data):
        _publish_named(folder, path, data)
    sync_folder(folder)


def _publish_unnamed(folder: str, path: str, data: bytes) -> bool:
    """False where the system or the file system has no files without a name."""
    if not _UNNAMED:
        return False
    try:
        fd = os.open(folder, _UNNAMED | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
    except OSError as exc:
        if exc.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return False
        raise
    try:
        write_all(fd, data)
        os.fsync(fd)
        # A folder makes Python call linkat(2), which follows the link in /proc; link(2) would not.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    except FileNotFoundError:
        return False  # no /proc; or no folder any more, which the other way finds out
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        return False
    finally:
        os.close(fd)
    return True


def _publish_named(folder: str, path: str, data: bytes) -> None:
    temporary = _temporary(folder)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(temporary, path)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            _rename_once(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _temporary(folder: str) -> str:
    """Begins with a dot, so that a store does not list what a kill leaves of it."""
    return os.path.join(folder, f".{secrets.token_hex(8)}.tmp")


def _rename_once(source: str, target: str) -> None:
    """A rename that raises FileExistsError instead of replacing. Python has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(source), os.fsencode(target)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE)
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*names, _RENAME_EXCL)
    else:
        failed, _ = -1, ctypes.set_errno(errno.ENOSYS)
    if not failed:
        return
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        raise StoreDenied(
            f"the file system of {os.path.dirname(target)} has neither hard links nor a rename that does not replace",
            hint="an agent could not notice a second one there: choose another folder",
        )
    raise OSError(number, os.strerror(number), target)


def read_json(path: str) -> dict[str, Any] | None:
    """A JSON object of our own state folder; None where the file is missing or torn (it is then rebuilt).

    Raises StoreDenied or StoreUnavailable where nobody can say whether it is there.
    """
    with mapped_errors(f"cannot read {path}"):
        try:
            with open(path, "rb") as file:
                loaded = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError):
            return None
    return loaded if isinstance(loaded, dict) else None


class FolderLock:
    """An exclusive lock on a state folder, held by an open file of our own; dies with the process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock or raise OwnershipLost, naming the process that holds it."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            self._lock(self._fd)
        except OSError as exc:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            self._fd = -1
            raise OwnershipLost(
                f"another agent follows this database already (process {holder}, {self._path})",
                hint="stop it first, or give this one another --state folder and another store",
            ) from exc
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def _lock(self, fd: int) -> None:
        for left in reversed(range(_LOCK_ATTEMPTS)):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(0.005)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lock_holder(path: str) -> int | None:
    """The process that holds the lock of a state folder, or None."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isascii() and text.isdigit() else 0
    finally:
        os.close(fd)
    return None


def allow_descriptors(count: int) -> None:
    """Raise this process's soft limit on open files to *count*, or as far as the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def lies_within(path: str, folder: str) -> bool:
    """Whether *path* is *folder* or lies below it, links followed."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def shown_path(path: str, given: str = "") -> str:
    """For a message about a file that a setting names, as it was *given*. Where nothing lies there, and it is not
    spelt as a path of an existing folder, only the folder: people put into a setting what belongs into its file, and
    that may be a secret. So an OSError, which has the path in it, is not chained."""
    folder = os.path.dirname(path)
    try:
        spelt_out = given.startswith(("/", "~/", "./", "../")) and folder != "/" and os.path.isdir(folder)
        if os.path.lexists(path) or spelt_out:
            return given or path
        return os.path.join(folder, "…") if os.path.isdir(folder) else "…"
    except ValueError:
        return "…"


def free_bytes(path: str) -> int:
    """Space an unprivileged writer has on the file system of *path*."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
