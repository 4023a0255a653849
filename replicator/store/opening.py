"""From a URL to a store, and to one that asks again, is limited and counted, and fetches large objects in pieces."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import threading
from urllib.parse import unquote, urlsplit

from replicator.clock import Clock
from replicator.core.errors import Interrupted, UsageError
from replicator.core.variables import require_store_settings
from replicator.store.contract import Kind
from replicator.store.folder import FolderStore
from replicator.store.limits import Bandwidth, FewAtATime
from replicator.store.observe import ObservedStore
from replicator.store.ranges import RangedStore
from replicator.store.retry import RetryingStore

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# What looks like a URL that lacks its slashes; one letter is none, and capitals are more likely a folder's.
_SCHEME_ALONE = re.compile(r"[a-z][a-z0-9+.-]+:(?!//)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# In the place of host and port.
_PASSWORD = re.compile(r"(?<=://)[^/]*:(?![0-9]*(/|$)).*", re.DOTALL)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# Scheme -> module, its function, and the package that has to be there. Loaded only when a URL asks for it: an
# SDK costs up to 50 MB and a second.
_KINDS = {
    "s3": ("replicator.store.s3", "open_s3", "obstore"),
    "gs": ("replicator.store.gcs", "open_gcs", "google.cloud.storage"),
    "azure": ("replicator.store.azure", "open_azure", "azure.storage.blob"),
    "sftp": ("replicator.store.sftp", "open_sftp", "paramiko"),
}

# Of one store at a time, of all its threads: more gains nothing on a few cores, and servers limit it.
CALLS_MAX = 8


def connect(url: str, *, stop: threading.Event | None = None, bandwidth: int | None = None) -> RangedStore:
    """The store at *url* as everything but a test of it is to use it. *stop* ends a pause at once; *bandwidth*:
    bytes a second, up and down together."""
    stop = stop or threading.Event()
    kind = open_store(url)
    store: Kind = FewAtATime(ObservedStore(kind), CALLS_MAX)
    if bandwidth is not None:

        def pause(seconds: float) -> None:
            if stop.wait(seconds):
                raise Interrupted(f"stopped while {url} was to be used no faster than allowed")

        store = Bandwidth(store, bandwidth, Clock(), pause)
    return RangedStore(RetryingStore(store, stop), in_clear=getattr(kind, "in_clear", False))


def is_plain_path(text: str) -> bool:
    """Whether *text* is taken for a path of this machine, and not for a URL, proper or not."""
    return not _SCHEME.match(text) and not _SCHEME_ALONE.match(text)


def is_folder(url: str) -> bool:
    """Whether a store at *url* lies in the file system of this machine."""
    return is_plain_path(url) or url.startswith("file:")


def folder_of(url: str) -> str | None:
    """The folder of a store, from its own ``url``; None where it is another kind of store."""
    return unquote(url.removeprefix("file://")) if url.startswith("file://") else None


def open_store(url: str) -> Kind:
    """The store at *url*: ``file:///folder`` or a plain path, or of one of the other kinds, which read their
    settings from the environment. Nothing is touched until it is used."""
    if not url or _CONTROL.search(url):
        raise UsageError(
            f"not a store URL: {shown_url(url)}", hint="give a folder, or a URL such as s3://bucket/app"
        )
    if _SCHEME_ALONE.match(url):
        raise UsageError(
            f"not a store URL: {shown_url(url)} has no // behind its scheme",
            hint="give a URL such as s3://bucket/app, or put ./ before the name of a folder",
        )
    if not _SCHEME.match(url):
        return _folder(url)
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise UsageError(f"not a store URL: {shown_url(url)}", hint="a file URL is file:///backups") from exc
    if parts.scheme in _KINDS:
        return _of_kind(parts.scheme, url)
    if parts.scheme != "file":
        raise UsageError(
            f"no store of kind {parts.scheme!r} is known ({shown_url(url)})",
            hint=f"known are a plain path, file:// and {', '.join(f'{each}://' for each in _KINDS)}",
        )
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise UsageError(
            f"not a proper file URL: {shown_url(url)}",
            hint="file:// takes an absolute path: file:///var/backups/app",
        )
    return open_store(_unescaped(parts.path, url))


def _of_kind(scheme: str, url: str) -> Kind:
    require_store_settings(os.environ)
    module, function, package = _KINDS[scheme]
    try:
        found = importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise UsageError(
            f"{scheme}:// needs the package {package}, which is not installed",
            hint=f"in replicator's source: pip install '.[{scheme}]'",
        )
    store: Kind = getattr(importlib.import_module(module), function)(url, os.environ)
    return store


def shown_url(url: str) -> str:
    """For a message: without user and password, if it has them, also where the at sign behind them is missing, and
    without what follows a question mark."""
    return repr(_PASSWORD.sub("…", re.split("[?#]", url.rsplit("@", maxsplit=1)[-1])[0]))


def _unescaped(path: str, url: str) -> str:
    try:
        if not _BAD_ESCAPE.search(path):
            return unquote(path, errors="strict")
    except UnicodeDecodeError:
        pass
    raise UsageError(
        f"not a proper file URL: {shown_url(url)} has an escape that stands for no character",
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
