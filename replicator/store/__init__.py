"""Stores: put-once objects at a URL. ``open_store`` is the only way in."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from replicator.core.errors import UsageError
from replicator.store.contract import Store
from replicator.store.folder import FolderStore

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# What looks like a URL that lacks its slashes; one letter is none, and capitals are more likely a folder's.
_SCHEME_ALONE = re.compile(r"[a-z][a-z0-9+.-]+:(?!//)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

__all__ = ["Store", "folder_of", "is_plain_path", "open_store"]


def is_plain_path(text: str) -> bool:
    """Whether *text* is taken for a path of this machine, and not for a URL, proper or not."""
    return not _SCHEME.match(text) and not _SCHEME_ALONE.match(text)


def folder_of(url: str) -> str | None:
    """The folder of a store, from its own ``url``; None where it is another kind of store."""
    return unquote(url.removeprefix("file://")) if url.startswith("file://") else None


def open_store(url: str) -> Store:
    """The store at *url*: ``file:///folder`` or a plain path. Nothing is touched until it is used."""
    if not url or _CONTROL.search(url):
        raise UsageError(
            f"not a store URL: {_shown(url)}", hint="give a folder, or a URL such as file:///backups"
        )
    if _SCHEME_ALONE.match(url):
        raise UsageError(
            f"not a store URL: {_shown(url)} has no // behind its scheme",
            hint="give a URL such as file:///backups, or put ./ before the name of a folder",
        )
    if not _SCHEME.match(url):
        return _folder(url)
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise UsageError(f"not a store URL: {_shown(url)}", hint="a file URL is file:///backups") from exc
    if parts.scheme != "file":
        raise UsageError(
            f"no store of kind {parts.scheme!r} is known ({_shown(url)})",
            hint="this version stores in folders: file:///folder or a plain path",
        )
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise UsageError(
            f"not a proper file URL: {url!r}", hint="file:// takes an absolute path: file:///var/backups/app"
        )
    return open_store(_unescaped(parts.path, url))


def _shown(url: str) -> str:
    """For a message: without user and password, if it has them."""
    return repr(url.rsplit("@", maxsplit=1)[-1])


def _unescaped(path: str, url: str) -> str:
    try:
        if not _BAD_ESCAPE.search(path):
            return unquote(path, errors="strict")
    except UnicodeDecodeError:
        pass
    raise UsageError(
        f"not a proper file URL: {url!r} has an escape that stands for no character",
        hint="write a percent sign as %25, or give the folder as a plain path",
    )


def _folder(path: str) -> FolderStore:
    """Refuses what can never become a folder, because a file lies there or above it."""
    there = os.path.abspath(path)
    while not os.path.exists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    if os.path.exists(there) and not os.path.isdir(there):
        what = f"the store {path}" if there == os.path.abspath(path) else f"{there}, above the store {path},"
        raise UsageError(f"{what} is a file, not a folder", hint="give a folder")
    return FolderStore(path)
