"""How an object comes to lie in a folder behind SFTP: whole, durable, and only if its name was free, or in one step in
the place of what was there.

SFTP 3 has no code for "exists" and none for "disk full": after a refusal a look tells them apart.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import secrets
import threading
import time
from collections.abc import Callable

from replicator.core.errors import ObjectExists, StoreDenied, StoreUnavailable
from replicator.files import FILE_MODE, FOLDER_MODE
from replicator.store import sftp_session as wire
from replicator.store.sftp_session import Attributes, Refused, Session

# No put takes an hour: each of its requests has ended or failed within the time-outs long before.
LEFTOVER_SECONDS = 3600
_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")


class Publisher:
    """Puts below *root*, for the store at *url*, and what was learnt of its server meanwhile.

    Two threads may learn the same at once, and nothing comes of it.
    """

    def __init__(self, root: str, url: str) -> None:
        self._root = root
        self._url = url
        self._was_there = False
        self._by_rename = False
        self._syncs_folders: bool | None = None
        self._lock = threading.Lock()
        self._cleared: dict[str, float] = {}  # folder to when, by our own clock

    def publish(self, session: Session, name: str, path: str, data: bytes) -> int | None:
        """Only if *name* is free. Gives the server's time, if it tells."""
        return self._write(session, path, data, lambda temporary: self._name(session, temporary, name, path))

    def replace(self, session: Session, path: str, data: bytes) -> int | None:
        """Whatever is there; otherwise as ``publish``."""
        if wire.POSIX_RENAME not in session.extensions:
            # Removing what is there first would leave a moment without any.
            raise StoreDenied(
                f"{self._url} can replace nothing: the server has no {wire.POSIX_RENAME}",
                hint="everything else works; to have metadata.json, use a server such as OpenSSH's",
            )
        return self._write(
            session, path, data, lambda temporary: session.done(session.ask_posix_rename(temporary, path))
        )

    def _write(
        self, session: Session, path: str, data: bytes, give_name: Callable[[str], None]
    ) -> int | None:
        """Write, sync, name, sync the folder: four round trips."""
        folder = posixpath.dirname(path)
        temporary = _temporary(folder)
        handle = self._create(session, folder, temporary)
        syncs = wire.FSYNC in session.extensions
        opened = None
        try:
            under_way = session.write(handle, data)
            if syncs:
                under_way.append(session.ask_fsync(handle))
            looked = session.ask_fstat(handle)
            for number in under_way:
                session.done(number)
            now = session.attributes(looked).mtime
            closed = session.ask_close(handle)
            if not syncs:
                session.done(closed)  # the last chance to hear of a full disk
            elif self._syncs_folders is not False:
                opened = session.ask_open(folder, wire.READ)
            give_name(temporary)
        finally:
            # Also behind a hard link, whose other name this is. What cannot be removed is cleared by a later put.
            removed = session.ask_remove(temporary)
        if opened is not None:
            self._sync_named(session, opened)
        with contextlib.suppress(Refused):
            session.done(removed)
        self._was_there = True
        return now

    def _create(self, session: Session, folder: str, temporary: str) -> bytes:
        for attempt in range(2):
            try:
                flags = wire.WRITE | wire.CREATE | wire.EXCLUSIVE
                return session.handle(session.ask_open(temporary, flags, FILE_MODE))
            except Refused as exc:
                if exc.code != wire.NO_SUCH_FILE or attempt:
                    raise
                self._make_folder(session, folder)
        raise AssertionError

    def _make_folder(self, session: Session, folder: str) -> None:
        if folder == self._root and self._was_there:
            # A volume that is not mounted shows nothing there; its objects are not to be mixed with what is below.
            raise StoreUnavailable(
                f"the folder of {self._url} is gone", hint="is its disk mounted on the server?"
            )
        try:
            _mkdir(session, folder)
        except Refused as exc:
            parent = posixpath.dirname(folder)
            if exc.code != wire.NO_SUCH_FILE or parent in ("", "/", "."):
                raise
            self._make_folder(session, parent)
            _mkdir(session, folder)

    def _name(self, session: Session, temporary: str, name: str, path: str) -> None:
        """Give the finished file its name, unless that is taken."""
        if wire.HARDLINK in session.extensions and not self._by_rename:
            try:
                session.done(session.ask_hardlink(temporary, path))
                return
            except Refused as exc:
                if look(session, path) is not None:
                    raise ObjectExists(name) from exc
                # Nothing is in the way: the file system behind the server has no hard links, or it forbids them.
        if not self._by_rename:
            self._require_rename_refuses(session, posixpath.dirname(path))
        try:
            session.done(session.ask_rename(temporary, path))
        except Refused as exc:
            if look(session, path) is not None:
                raise ObjectExists(name) from exc
            raise
        self._by_rename = True

    def _require_rename_refuses(self, session: Session, folder: str) -> None:
        """The draft says that rename does not replace; some servers do."""
        names = [_temporary(folder) for _ in range(2)]
        try:
            for each in names:
                # Closed: some systems refuse to rename over what is open, and this is to show that they always do.
                session.done(session.ask_close(self._create(session, folder, each)))
            try:
                session.done(session.ask_rename(names[0], names[1]))
            except Refused:
                if look(session, names[0]) is not None:
                    return
        finally:
            for each in names:
                session.forget(session.ask_remove(each))
        raise StoreDenied(
            f"{self._url} cannot keep a backup safe: the server has no hard links, and its rename replaces",
            hint="no object may ever replace another: use a server such as OpenSSH's, or another kind of store",
        )

    def _sync_named(self, session: Session, opened: int) -> None:
        try:
            _sync_opened(session, opened)
        except Refused:
            if self._syncs_folders:
                raise  # it could before, so this is a disk that fails
            self._syncs_folders = False
        else:
            self._syncs_folders = True

    def is_to_be_cleared(self, folder: str) -> bool:
        """At the first put into a folder, and an hour after: what an agent left that was killed just before."""
        now = time.monotonic()
        with self._lock:
            due = now - self._cleared.get(folder, -LEFTOVER_SECONDS) >= LEFTOVER_SECONDS
            if due:
                self._cleared[folder] = now
        return due


def _temporary(folder: str) -> str:
    return posixpath.join(folder, f".{secrets.token_hex(8)}.tmp")


def look(session: Session, path: str, *, follow: bool = False) -> Attributes | None:
    """None where nothing is."""
    try:
        return session.attributes(session.ask_stat(path) if follow else session.ask_lstat(path))
    except Refused as exc:
        if exc.code != wire.NO_SUCH_FILE:
            raise
        return None


def _mkdir(session: Session, folder: str) -> None:
    """Make a folder that is durable where the server can do that; one that is there is fine."""
    try:
        session.done(session.ask_mkdir(folder, FOLDER_MODE))
    except Refused:
        found = look(session, folder, follow=True)
        if found is None or not found.is_folder:
            raise
    if wire.FSYNC in session.extensions:
        with contextlib.suppress(Refused):
            _sync_opened(session, session.ask_open(posixpath.dirname(folder) or ".", wire.READ))


def _sync_opened(session: Session, opened: int) -> None:
    """OpenSSH opens a folder like a file; a server that does not has no way to sync a name."""
    session.done(session.ask_fsync(session.handle(opened)))


def clear_leftovers(session: Session, folder: str, now: int) -> None:
    """Temporary files of puts that were killed, by the server's clock."""
    for name, attributes in session.list(folder):
        if _LEFTOVER.fullmatch(name) and (attributes.mtime or now) < now - LEFTOVER_SECONDS:
            with contextlib.suppress(Refused):
                session.done(session.ask_remove(posixpath.join(folder, name)))
