"""Stores: put-once objects at a URL. ``open_store`` is the only way in."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from replicator.core.errors import UsageError
from replicator.store.contract import Store
from replicator.store.folder import FolderStore

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """The store at *url*: ``file:///folder`` or a plain path. Nothing is touched until it is used."""
    if not url or "\0" in url:
        raise UsageError(f"not a store URL: {url!r}", hint="give a folder, or a URL such as file:///backups")
    if not _SCHEME.match(url):
        if os.path.exists(url) and not os.path.isdir(url):
            raise UsageError(f"the store {url} is a file, not a folder", hint="give a folder")
        return FolderStore(url)
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise UsageError(
            f"no store of kind {parts.scheme!r} is known ({url.rsplit('@', maxsplit=1)[-1]!r})",
            hint="this version stores in folders: file:///folder or a plain path",
        )
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise UsageError(
            f"not a proper file URL: {url!r}", hint="file:// takes an absolute path: file:///var/backups/app"
        )
    return open_store(unquote(parts.path))
