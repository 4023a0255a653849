"""The destination of a restore: refused, or replaced by one rename, with one of the two whole at any moment."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from types import TracebackType

from replicator.core.errors import DestinationRefused, UsageError
from replicator.core.quantities import format_size
from replicator.files import free_bytes, sync_folder
from replicator.source.settle import Rest, settle

_SIDE_FILES = ("-wal", "-shm", "-journal")
# Room beyond the database itself, so that a full disk is not what the operator has next.
_SPARE_BYTES = 1 << 20
# File systems take 255 bytes; of those we add 20, `-journal` is 8, and without room for that SQLite opens nothing.
_NAME_BYTES_MAX = 255 - len(".") - len(".restoring-01234567") - len("-journal")
_DIGEST_DIGITS = 16


class RefusingErrors:
    """Nobody tries again by himself here: what the operator has to do first is said.

    Entered again and again: a generator for each page was a fifth of what a restore of many updates costs.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: type[BaseException] | None, exc: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(exc, OSError):
            raise DestinationRefused(
                f"{self._what}: {exc.strerror or exc}",
                hint="the destination is as it was; make room or give permission there, or restore to another folder",
            ) from exc


def temporary_of(path: str, tag: str) -> str:
    """Beside *path*. A name that leaves no room for ours is cut, and told from others cut alike by its hash."""
    folder, name = os.path.split(path)
    whole = os.fsencode(name)
    if len(whole) > _NAME_BYTES_MAX:
        digest = hashlib.sha256(whole).hexdigest()[:_DIGEST_DIGITS]
        name = whole[: _NAME_BYTES_MAX - _DIGEST_DIGITS - 1].decode(errors="ignore") + "~" + digest
    return os.path.join(folder, f".{name}.restoring-{tag}")


def clear_leftovers(path: str) -> None:
    """Temporary files of restores to *path* that were killed; one that is under way holds a lock on its own."""
    folder, prefix = os.path.split(temporary_of(path, ""))
    for name in os.listdir(folder):
        if not name.startswith(prefix):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(os.path.join(folder, name))
            finally:
                os.close(fd)


def check_destination(path: str, *, overwrite: bool) -> None:
    """Refuse at once what would be refused at the end."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise UsageError(f"the folder {folder} does not exist", hint="make it first, or name another output")
    if os.path.isdir(path):
        raise UsageError(f"the output {path} is a folder", hint="name the database file to write")
    if os.path.exists(path) and not os.path.isfile(path):
        # A pipe would be waited for without end, and a device given up for a file.
        raise DestinationRefused(f"{path} is not a regular file", hint="name the database file to write")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DestinationRefused(f"no permission to write in {folder}", hint="restore to another folder")
    if os.path.lexists(path) and not overwrite:
        raise DestinationRefused(f"{path} exists", hint="name another output, or replace it with --overwrite")
    if not overwrite:
        # SQLite would play a stray log back onto the restored database.
        for suffix in _SIDE_FILES:
            if os.path.lexists(path + suffix):
                raise DestinationRefused(
                    f"{path + suffix} lies there without its database, and SQLite would apply it to the restored one",
                    hint="move it away, or let it be moved aside with --overwrite",
                )


def check_room(path: str, size_bytes: int) -> None:
    folder = os.path.dirname(path)
    free = free_bytes(folder)
    if free < size_bytes + _SPARE_BYTES:
        raise DestinationRefused(
            f"{folder} has {format_size(free)} free, the database needs {format_size(size_bytes)}",
            hint="restore to another disk",
        )


def publish(temporary: str, path: str, *, overwrite: bool, aside: Callable[[str], None]) -> None:
    """Put the finished, synced file *temporary* at *path*.

    An old database is first brought to rest, so that it is whole without its log, and no stale log lies beside
    the new one. One that SQLite cannot open is moved aside with its side files; *aside* is told where to.
    """
    folder = os.path.dirname(path)
    with RefusingErrors(f"cannot put the restored database at {path}"):
        if not overwrite:
            # link(2) refuses an existing name: somebody may have made one since we looked.
            try:
                os.link(temporary, path)
            except FileExistsError as exc:
                raise DestinationRefused(f"{path} has come to exist meanwhile") from exc
            os.unlink(temporary)
            sync_folder(folder)
            return
        if os.path.lexists(path):
            if settle(path) is Rest.UNREADABLE:
                _move_aside(path, aside)
            for suffix in _SIDE_FILES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path + suffix)
        elif any(os.path.lexists(path + suffix) for suffix in _SIDE_FILES):
            _move_aside(path, aside)
        sync_folder(folder)
        os.rename(temporary, path)
        sync_folder(folder)


def _move_aside(path: str, aside: Callable[[str], None]) -> None:
    """A second name for the old file and its side files, complete before the first name is given up."""
    kept = f"{path}.before-restore-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    number = 0
    while os.path.lexists(kept):
        number += 1
        kept = f"{kept.split('~', maxsplit=1)[0]}~{number}"
    for suffix in ("", *_SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            os.link(path + suffix, kept + suffix, follow_symlinks=False)
    sync_folder(os.path.dirname(path))
    for suffix in _SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    aside(kept)
