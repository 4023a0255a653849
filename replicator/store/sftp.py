"""A folder on a server that speaks SFTP as a store.

Put-once is a temporary file and a hard link to the final name, or a rename where the server has no hard links and
was seen to refuse to replace. Replacing is OpenSSH's rename that does. Durability is fsync of the file and of its
folder, where the server offers it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ConfigError,
    ObjectCorrupt,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from replicator.core.names import METADATA
from replicator.core.sizes import require_proper_size
from replicator.core.times import MICROS_PER_SECOND
from replicator.files import shown_path
from replicator.store import sftp_session as wire
from replicator.store.folders import walk
from replicator.store.sftp_publish import Publisher, clear_leftovers, look
from replicator.store.sftp_session import Attributes, Dropped, Refused, Session
from replicator.store.sftp_url import parse_sftp_url, shown

if TYPE_CHECKING:
    from replicator.store.sftp_connection import SessionPool

_FULL = "SFTP has no code for a full disk or a quota: look there first"


def open_sftp(url: str, environ: Mapping[str, str]) -> SftpStore:
    """The store at ``sftp://[user@]host[:port]/folder``; ``/~/folder`` is below the home of the login.

    Settings: BACKUP_SFTP_KNOWN_HOSTS; BACKUP_SFTP_KEY_FILE, BACKUP_SFTP_KEY_PASSPHRASE (or …_FILE),
    BACKUP_SFTP_PASSWORD (or …_FILE); without a key or a password the ssh agent and ~/.ssh/id_*.
    """
    place = parse_sftp_url(url)
    for name in ("BACKUP_SFTP_PASSWORD", "BACKUP_SFTP_KEY_PASSPHRASE"):
        if environ.get(name) and environ.get(f"{name}_FILE"):
            raise ConfigError(f"{name} and {name}_FILE are both set", hint="remove one of them")
    try:
        from replicator.store.sftp_connection import Login, SessionPool, dial
    except ModuleNotFoundError as exc:
        raise UsageError(
            f"for {shown(url)} the package {exc.name} is missing",
            hint="in replicator's source: pip install '.[sftp]'",
        ) from exc

    home = environ.get("HOME") or os.path.expanduser("~")
    key_file = environ.get("BACKUP_SFTP_KEY_FILE")
    login = Login(
        host=place.host,
        port=place.port,
        user=place.user,
        known_hosts=_local(environ.get("BACKUP_SFTP_KNOWN_HOSTS") or "~/.ssh/known_hosts", home),
        key_file=_local(key_file, home) if key_file else None,
        secret=lambda name: _secret(name, environ, home),
    )
    return SftpStore(place.url, place.folder, SessionPool(lambda: dial(login)))


def _local(path: str, home: str) -> str:
    return os.path.abspath(os.path.join(home, path[2:]) if path.startswith("~/") else path)


def _secret(name: str, environ: Mapping[str, str], home: str) -> str | None:
    """The setting *name*, or what lies in the file that <name>_FILE names."""
    file = environ.get(f"{name}_FILE")
    if not file:
        return environ.get(name) or None
    try:
        with open(_local(file, home), encoding="utf-8") as opened:
            return opened.read().rstrip("\r\n") or None
    except (OSError, UnicodeDecodeError):
        raise StoreDenied(
            f"cannot read {shown_path(_local(file, home), file)}",
            hint=f"{name}_FILE names a file that this user can read",
        ) from None


class SftpStore:
    """Objects are files below *folder*, which is made at the first put; a relative one is below the login's home."""

    def __init__(self, url: str, folder: str, pool: SessionPool) -> None:
        self._url = url
        self._root = folder
        self._pool = pool
        self._publisher = Publisher(folder, url)

    def __repr__(self) -> str:
        return f"SftpStore({self._url!r})"

    @property
    def url(self) -> str:
        return self._url

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._mapped(f"cannot write {name}", hint=_FULL):
            now = self._pool.run(lambda session: self._publisher.publish(session, name, path, data))
        self._clear(posixpath.dirname(path), now)

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._mapped(f"cannot replace {name}", hint=_FULL):
            now = self._pool.run(lambda session: self._publisher.replace(session, path, data))
        self._clear(posixpath.dirname(path), now)

    def _clear(self, folder: str, now: int | None) -> None:
        if now is not None and self._publisher.is_to_be_cleared(folder):
            # The object is there: what happens now is nothing its caller needs to hear.
            with contextlib.suppress(Refused, Dropped, StoreError):
                self._pool.run(lambda session: clear_leftovers(session, folder, now))

    def get(self, name: str) -> bytes:
        def read(session: Session) -> bytes:
            handle, size = self._open(session, name)
            if name == METADATA:  # the one that is replaced, perhaps between those two questions
                size = session.attributes(session.ask_fstat(handle)).size or size
            require_proper_size(name, size)
            return _exactly(size, session.read(handle, 0, size), name, 0)

        with self._mapped(f"cannot read {name}"):
            return self._pool.run(read)

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        def read(session: Session) -> tuple[bytes, int]:
            handle, size = self._open(session, name)
            wanted = min(size, length)
            return _exactly(wanted, session.read(handle, 0, wanted), name, 0), size

        with self._mapped(f"cannot read {name}"):
            return self._pool.run(read)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        def read(session: Session) -> bytes:
            handle, _ = self._open(session, name)
            return _exactly(length, session.read(handle, offset, length), name, offset)

        with self._mapped(f"cannot read {name}"):
            return self._pool.run(read)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Files only; links and our own temporary files are passed over. A folder is read when it is reached."""
        return walk(self._entries_of, lambda attributes: attributes.size or 0, prefix, after)

    def delete(self, name: str) -> None:
        path = self._path(name)

        def remove(session: Session) -> None:
            try:
                session.done(session.ask_remove(path))
            except Refused as exc:
                if exc.code != wire.NO_SUCH_FILE:
                    raise

        with self._mapped(f"cannot delete {name}"):
            self._pool.run(remove)

    def modified(self, name: str) -> int:
        """In whole seconds, which is all that SFTP 3 has."""

        def ask(session: Session) -> int:
            found = look(session, self._path(name))
            if found is not None and found.is_link:
                raise ObjectCorrupt(f"{name} is a symbolic link", name=name)
            if found is None or not found.is_file:
                raise ObjectNotFound(name)
            if found.mtime is None:
                raise StoreDenied(
                    f"{self._url} does not say when {name} was written", hint="use another kind of store"
                )
            return found.mtime * MICROS_PER_SECOND

        with self._mapped(f"cannot look at {name}"):
            return self._pool.run(ask)

    # --- get and list ----------------------------------------------------------------------------------

    def _open(self, session: Session, name: str) -> tuple[bytes, int]:
        """A handle and the size of what it stands for."""
        path = self._path(name)
        looked, opened = session.ask_lstat(path), session.ask_open(path, wire.READ)
        try:
            attributes = session.attributes(looked)
            handle = session.handle(opened)
        except Refused as exc:
            if exc.code == wire.NO_SUCH_FILE:
                raise ObjectNotFound(name) from exc
            if (found := look(session, path)) is not None and found.is_folder:
                raise ObjectNotFound(name) from exc
            raise
        if attributes.is_file and attributes.size is not None:
            return handle, attributes.size
        if attributes.is_link:
            # A link in a store is never ours: it could point at any file of that machine.
            raise ObjectCorrupt(f"{name} is a symbolic link", name=name)
        raise ObjectNotFound(name)

    def _entries_of(self, folder: str) -> Iterable[tuple[str, Attributes]]:
        with self._mapped(f"cannot list {folder or 'the store'}"):
            return self._pool.run(lambda session: _entries(session, self._path(folder)))

    def _path(self, name: str) -> str:
        if not name:
            return self._root
        assert all(part not in ("", ".", "..") for part in name.split("/")), name
        return posixpath.join(self._root, name)

    @contextlib.contextmanager
    def _mapped(self, what: str, hint: str | None = None) -> Iterator[None]:
        what = f"{what} in {self._url}"
        try:
            yield
        except Dropped as exc:
            raise StoreUnavailable(f"{what}: {exc}") from exc
        except Refused as exc:
            if exc.code == wire.PERMISSION_DENIED:
                raise StoreDenied(f"{what}: {exc}", hint="give the login permission there") from exc
            raise StoreUnavailable(f"{what}: the server says {exc}", hint=hint) from exc


def _entries(session: Session, path: str) -> list[tuple[str, Attributes]]:
    """Files, and folders with a slash behind their names."""
    try:
        found = session.list(path)
    except Refused as exc:
        there = None if exc.code == wire.NO_SUCH_FILE else look(session, path, follow=True)
        if there is not None and there.is_folder:
            raise
        return []
    entries = []
    for name, said in found:
        attributes = said if said.mode is not None else look(session, posixpath.join(path, name))
        if attributes is not None and attributes.is_folder:
            entries.append((name + "/", attributes))
        elif attributes is not None and attributes.is_file:
            entries.append((name, attributes))
    return entries


def _exactly(length: int, data: bytes, name: str, offset: int) -> bytes:
    if len(data) != length:
        raise ObjectCorrupt(f"{name} ends at byte {offset + len(data)}, wanted {offset + length}", name=name)
    return data
