"""Stores: put-once objects at a URL. ``connect`` is the way in, ``open_store`` that without any wrapper."""

from __future__ import annotations

from replicator.core.errors import UsageError
from replicator.files import lies_within
from replicator.store.contract import Store
from replicator.store.opening import connect, folder_of, is_folder, is_plain_path, open_store, shown_url

__all__ = [
    "Store",
    "connect",
    "folder_of",
    "is_folder",
    "is_plain_path",
    "open_store",
    "require_apart",
    "shown_url",
]


def require_apart(store: Store, state_folder: str) -> None:
    """What is shipped must not lie among what is still to be shipped, and be cleared away with it."""
    folder = folder_of(store.url)
    if folder is not None and lies_within(folder, state_folder):
        raise UsageError(
            f"the store {store.url} lies in the state folder {state_folder}",
            hint="name another folder, best on another disk",
        )
