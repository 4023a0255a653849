"""Fence: keep an agent that was taken over from, and does not know it, from writing on.

It would find out at its first put-once, if another agent wrote under the same names. One that began a
generation of its own does not; so it takes the names that the other would put next. What it puts there is its
lease, and the other reads from it who writes now.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    OwnershipLost,
    StoreUnavailable,
)
from replicator.core.names import (
    FULL,
    GENERATIONS,
    LEASES,
    FullName,
    GenerationName,
    LeaseName,
    SegmentName,
    parse_name,
    tail_prefix,
)
from replicator.core.position import GenerationId
from replicator.core.records import GenerationRecord, decode_generation, lease_in_segment, newest_of
from replicator.core.unit import parse_unit_header, split_units
from replicator.store import Store

log = logging.getLogger(__name__)

# An agent that writes just now takes a name while we look for the next one; after so many it is no accident.
_ATTEMPTS = 100


def fence(store: Store, epoch: int, *, but: GenerationId) -> None:
    """Close the newest generation of an epoch before ours, before *but*, a new one, begins."""
    if epoch == 1 or _exists(store, str(GenerationName(but))):
        return
    generation = _newest_of_others(store, epoch, but)
    if generation is None:
        return
    lease = _newest_lease(store)
    for _ in range(_ATTEMPTS):
        try:
            names = list(_next_names(store, generation))
        except ObjectCorrupt as exc:
            # What is the next name nobody can say. The lease still keeps it out when it starts or wakes.
            log.warning("generation.open", extra={"store": store.url, "error": str(exc)})
            return
        if all(_is_ours(store, name, lease) for name in names):
            return
    raise OwnershipLost(
        f"another agent writes to {store.url} just now and cannot be kept from it", hint="stop it first"
    )


def _newest_lease(store: Store) -> bytes:
    """Ours. Its epoch may be lower than that of another store, where more agents took over."""
    leases = [name for each in store.list(LEASES) if isinstance(name := parse_name(each.name), LeaseName)]
    if not leases:
        raise StoreUnavailable(f"{store.url} lists no lease, though one was put")
    return store.get(str(max(leases)))


def _exists(store: Store, name: str) -> bool:
    try:
        store.get(name)
    except ObjectNotFound:
        return False
    return True


def _newest_of_others(store: Store, epoch: int, but: GenerationId) -> GenerationId | None:
    found: list[GenerationRecord] = []
    for each in store.list(GENERATIONS):
        name = parse_name(each.name)
        if isinstance(name, GenerationName) and name.generation != but:
            try:
                record = decode_generation(store.get(each.name), each.name)
            except ObjectCorrupt:
                continue  # nobody can say whose it was; the newest that can be read is what is closed
            if record.epoch < epoch:
                found.append(record)
    newest = newest_of(found)
    return newest.generation if newest is not None else None


def _next_names(store: Store, generation: GenerationId) -> Iterator[SegmentName]:
    """What could follow: behind the newest unit, or where a store lapsed, behind the newest full; and either
    as a whole transaction or as the first part of one."""
    txid = 0
    for segment in reversed(_segments(store.list(tail_prefix(generation)))):
        content = store.get(str(segment))
        if lease_in_segment(content, str(segment)) is not None:
            continue
        last = None
        for view in split_units(content):
            last = parse_unit_header(view)
        if last is not None and not last.commits:
            yield SegmentName(generation, last.txid_first, last.part + 1)
            return
        txid = last.txid_last if last is not None else segment.txid_first
        break
    fulls = [
        name.txid
        for each in store.list(FULL)
        if isinstance(name := parse_name(each.name), FullName) and name.generation == generation
    ]
    for behind in sorted({txid, max([txid, *fulls])}):
        yield SegmentName(generation, behind + 1)
        yield SegmentName(generation, behind + 1, 1)


def _segments(listed: Iterator[Listed]) -> list[SegmentName]:
    return [name for each in listed if isinstance(name := parse_name(each.name), SegmentName)]


def _is_ours(store: Store, name: SegmentName, lease: bytes) -> bool:
    """Put our lease there; False where a segment took the name first, so that the next ones are others."""
    try:
        store.put(str(name), lease)
    except ObjectExists:
        return lease_in_segment(store.get(str(name)), str(name)) is not None
    return True
