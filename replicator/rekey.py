"""Rekey: everything in a store comes to be sealed under the active key, object by object; it can be stopped at any.

An object is put again as the next revision, read back, and only then the one before is deleted. Whoever reads
meanwhile finds either. What is left is found by looking, so a second run goes on where the first one ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from replicator.core.errors import Interrupted, ObjectNotFound, StoreDenied
from replicator.core.names import METADATA
from replicator.store.sealed import SealedStore

log = logging.getLogger(__name__)

# Objects under way at once: each is some mebibytes in memory, and three requests.
JOBS = 4


@dataclass(slots=True)
class Rekeyed:
    """``kept``: objects that were sealed anew, and whose old revision the store does not let go of."""

    looked_at: int = 0
    sealed_anew: int = 0
    kept: int = 0


def rekey(
    store: SealedStore, active: str, *, report: Callable[[Rekeyed], None], cancelled: Callable[[], bool]
) -> Rekeyed:
    """Seal anew what is not sealed under key *active*. Passes repeat until one finds nothing to do, since an agent may
    put objects meanwhile. Raises Interrupted."""
    done = Rekeyed()
    held: set[str] = set()
    while True:
        before = done.sealed_anew
        with ThreadPoolExecutor(JOBS, thread_name_prefix="rekey") as pool:
            names = (each.name for each in store.list(""))
            while batch := list(islice(names, 64 * JOBS)):
                if cancelled():
                    raise Interrupted("the rekeying was stopped; run it again to go on")
                for name, (anew, kept) in zip(
                    batch, pool.map(lambda name: _one(store, name, active), batch), strict=True
                ):
                    done.looked_at += 1
                    done.sealed_anew += anew
                    held.update([name] if kept else [])
                done.kept = len(held)
                report(done)
        if done.sealed_anew == before:
            return done


def _one(store: SealedStore, name: str, active: str) -> tuple[bool, bool]:
    """Whether it was sealed anew, and whether an old revision stays there."""
    anew = False
    try:
        if store.key_of(name) in (None, active):
            store.delete_older(name)  # of a run that ended between putting and deleting
        else:
            anew = True
            store.seal_anew(name)
    except ObjectNotFound:
        return False, False  # pruned meanwhile
    except StoreDenied as exc:
        log.warning("object.kept", extra={"store": store.url, "key": name, "error": str(exc)})
        if name == METADATA:
            return (
                False,
                False,
            )  # it could not be replaced, and the next pass would find it as it is, for ever
        return anew, True
    return anew, False


def keys_in_use(store: SealedStore) -> dict[str, int]:
    """How many objects are sealed with each key, by its id."""
    found: dict[str, int] = {}
    for _, key in sealed_with(store, [each.name for each in store.list("")]):
        found[key] = found.get(key, 0) + 1
    return found


def sealed_with(store: SealedStore, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Which key each of *names* is sealed with; without those that are not sealed, or are gone. A request each."""
    with ThreadPoolExecutor(JOBS, thread_name_prefix="rekey") as pool:
        for name, key in zip(names, pool.map(lambda name: _key_of(store, name), names), strict=True):
            if key is not None:
                yield name, key


def _key_of(store: SealedStore, name: str) -> str | None:
    try:
        return store.key_of(name)
    except ObjectNotFound:
        return None
