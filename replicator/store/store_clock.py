"""How a store's clock differs from ours: asked before anything is deleted because of its age."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable

from replicator.core.errors import ObjectNotFound, StoreDenied, StoreError
from replicator.core.times import MICROS_PER_SECOND
from replicator.store.contract import PROBES, Store


def clock_difference(store: Store, wall: Callable[[], int]) -> float | None:
    """Seconds by which the store's clock is ahead of *wall*, negative where it is behind; None where it does not say.

    Put, look, delete: three requests. The time that a probe was given lies somewhere within its put, and the middle of
    that is taken: the answer is wrong by half of what the put took, at most. Some stores know whole seconds, and round
    down (S3, Azure, SFTP; FAT two of them): these seem up to that much behind.

    Raises what a put raises. A probe that may not be deleted stays, hidden from listings.
    """
    name = f"{PROBES}{secrets.token_hex(8)}-clock"
    before = wall()
    store.put(name, b"tells what time it is; may be deleted\n")
    after = wall()
    try:
        told = store.modified(name)
    except (StoreDenied, ObjectNotFound):
        return None  # or somebody cleared it away at once
    finally:
        with contextlib.suppress(StoreError):
            store.delete(name)
    return (2 * told - before - after) / (2 * MICROS_PER_SECOND)
