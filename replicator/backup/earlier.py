"""What a store holds of earlier full backups, for the next one to build upon."""

from __future__ import annotations

import logging

from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.full import Manifest, decode_manifest, pack_extents
from replicator.core.names import FULL, FullName, parse_name
from replicator.core.times import month_of
from replicator.store import Store

log = logging.getLogger(__name__)


def newest_of_month(store: Store, time: int, chunk_bytes: int, page_size: int) -> Manifest | None:
    """The newest of the month of *time* that is whole and cut alike. The first full of each month refers to nothing
    older, so no pack outlives its month's fulls."""
    year, _, number = month_of(time).partition("-")
    fulls = [
        name
        for each in store.list(f"{FULL}{year}/{number}/")
        if isinstance(name := parse_name(each.name), FullName)
    ]
    for name in sorted(fulls, reverse=True):
        try:
            manifest = decode_manifest(store.get(str(name)), str(name))
        except (ObjectCorrupt, ObjectNotFound) as exc:
            log.error("full.unreadable", extra={"key": str(name), "error": str(exc)})
            continue
        if missing := missing_packs(store, manifest):
            # Its chunks cannot be had any more: they are stored again, and the next full builds on those.
            log.error(
                "full.incomplete", extra={"key": str(name), "error": f"{missing[0]} is missing or short"}
            )
            continue
        if (manifest.head.chunk_bytes, manifest.head.page_size) != (chunk_bytes, page_size):
            return None
        return manifest
    return None


def missing_packs(store: Store, manifest: Manifest) -> list[str]:
    """The packs of *manifest* that are not in the store, or not as long there as they have to be."""
    packs = pack_extents(manifest)
    missing = set(packs)
    for folder in sorted({name.rpartition("/")[0] for name in packs}):
        for each in store.list(folder + "/"):
            if each.name in packs and each.size >= packs[each.name]:
                missing.discard(each.name)
    # A listing may lag behind; whoever asks for the last byte sees what is there.
    return sorted(name for name in missing if not _reaches(store, name, packs[name]))


def _reaches(store: Store, name: str, size: int) -> bool:
    try:
        return len(store.get_range(name, size - 1, 1)) == 1
    except (ObjectNotFound, ObjectCorrupt):
        return False
