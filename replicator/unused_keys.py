"""Unused keys: a key that nothing is sealed with any more is destroyed, and with it what was sealed with it, wherever a
copy of that may lie. On a disk or in a bucket that keeps versions nothing else deletes for certain.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from replicator.core.errors import ObjectCorrupt, ObjectNotFound, StoreDenied
from replicator.core.key_ring import KeyRing, without_roots
from replicator.core.names import (
    EventName,
    FullName,
    GenerationName,
    IncrementalName,
    LeaseName,
    LogName,
    PackName,
    parse_name,
)
from replicator.core.times import MICROS_PER_SECOND
from replicator.key_change import KeyHolders
from replicator.rekey import sealed_with
from replicator.store.sealed import SealedStore

log = logging.getLogger(__name__)

# An agent that was frozen may still put what it sealed before the key was rotated.
SETTLED_SECONDS = 48 * 3600


def destroy_unused(stores: Sequence[SealedStore], holders: KeyHolders, wall: int) -> tuple[str, ...]:
    """Look for keys that were rotated out and are not needed, in all of *stores*, and take them out of the ring;
    returns their ids. Small records that outlive everything are sealed anew. Raises KeyRefused, StoreError.

    Where nothing was rotated it asks only for the ring; where older backups are there, only for a listing.
    """
    ring = holders.ring()
    if holders.has_slots_beyond(ring):  # of one that ended between
        holders.spread()
        holders.forget_slots(ring.number)
    unused = _retired(ring, wall)
    for store in stores:
        if unused:
            unused -= _needed(store, ring, unused)
    if not unused:
        return ()
    ended = without_roots(ring, unused)
    holders.publish(ended)
    holders.forget_slots(ended.number)
    log.info("keys.destroyed", extra={"keys": " ".join(sorted(unused))})
    return tuple(sorted(unused))


def _retired(ring: KeyRing, wall: int) -> set[str]:
    """Those that were replaced long enough ago."""
    return {
        root.key_id
        for root, following in zip(ring.roots, ring.roots[1:], strict=False)
        if wall - following.created > SETTLED_SECONDS * MICROS_PER_SECOND
    }


def _needed(store: SealedStore, ring: KeyRing, unused: set[str]) -> set[str]:
    names = [each.name for each in store.list("")]
    oldest = min(_times(names), default=None)
    replaced = zip(ring.roots, ring.roots[1:], strict=False)
    if oldest is not None:
        # Looking at each object is a request each, so it is not asked about keys that backups tell of already.
        plainly = {root.key_id for root, following in replaced if oldest < following.created}
        if unused <= plainly:
            return unused
    if not _without_older(store, names):
        return unused
    needed: set[str] = set()
    for name, key in sealed_with(store, names):
        if key in unused and key not in needed and not _renewed(store, name):
            needed.add(key)
    return needed


def _without_older(store: SealedStore, names: Iterable[str]) -> bool:
    """What a sealing anew that ended between has left beside its result goes, before it is something that nobody can
    open. False: that result cannot be read, and what it was made of may be."""
    for name in filter(store.has_older, names):
        try:
            store.get(name)
            store.delete_older(name)
        except ObjectCorrupt:
            return False
        except (ObjectNotFound, StoreDenied):
            continue
    return True


def _times(names: Iterable[str]) -> Iterable[int]:
    for name in names:
        parsed = parse_name(name)
        if isinstance(parsed, FullName | IncrementalName | PackName | LogName):
            yield parsed.time


def _renewed(store: SealedStore, name: str) -> bool:
    """Whether it is a record of a few hundred bytes, and is now sealed with the active key."""
    if not isinstance(parse_name(name), GenerationName | LeaseName | EventName):
        return False
    try:
        store.seal_anew(name)
    except StoreDenied:
        return False
    return True
