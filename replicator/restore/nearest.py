"""Around damage: what can still be restored before and after an object that is missing or damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.core.catalogue import GenerationListing
from replicator.core.errors import ObjectCorrupt, ObjectNotFound, ReplicatorError
from replicator.core.names import FullName, SegmentName, parse_name
from replicator.core.times import format_time

if TYPE_CHECKING:
    from replicator.restore.target import Repository


@contextlib.contextmanager
def damage_named(name: SegmentName) -> Iterator[None]:
    """What is found damaged in here is that object."""
    try:
        yield
    except ObjectCorrupt as exc:
        raise ObjectCorrupt(f"{name} is damaged: {exc}", name=str(name), hint=exc.hint) from exc


@contextlib.contextmanager
def nearest_points_named(repository: Repository) -> Iterator[None]:
    """Whatever object is found missing or damaged in here: the error says what can be restored instead."""
    try:
        yield
    except (ObjectCorrupt, ObjectNotFound) as exc:
        if exc.hint is None and exc.name:
            with contextlib.suppress(ReplicatorError):
                exc.hint = nearest_to(repository, exc.name)
        raise


def nearest_to(repository: Repository, damaged: str) -> str | None:
    """One sentence on the restore points around the object *damaged*; None where there are none."""
    name = parse_name(damaged)
    if isinstance(name, SegmentName):
        listing = repository.catalogue.generation(name.generation)
        found = _around_segment(repository, listing, name) if listing is not None else []
    else:
        found = _without(repository, damaged)
    return "nearest restore points: " + ", ".join(found) if found else None


def _around_segment(repository: Repository, listing: GenerationListing, damaged: SegmentName) -> list[str]:
    """The last commit that chains up to the segment, and the first full backup behind its beginning."""
    found: list[str] = []
    before = [each for each in listing.fulls if each.txid < damaged.txid_first]
    if before:
        txid = _last_before(repository, listing, damaged, before[-1].txid)
        found.append(f"--txid {txid:016x} --generation {listing.generation} before it")
    after = [each for each in listing.fulls if each.txid >= damaged.txid_first]
    if after:
        found.append(f"--backup {after[0].backup_id} after its beginning")
    return found


def _last_before(repository: Repository, listing: GenerationListing, damaged: SegmentName, full: int) -> int:
    for name in reversed(listing.segments[: listing.segments.index(damaged)]):
        if name.txid_first <= full:
            break
        with contextlib.suppress(ObjectCorrupt, ObjectNotFound):
            for unit in reversed(repository.units(name)):
                if unit.header.commits:
                    return unit.header.txid_last
    return full


def _without(repository: Repository, damaged: str) -> list[str]:
    """The newest full backup that does not need the object."""
    for listing in reversed(repository.catalogue.generations):
        for full in reversed(listing.fulls):
            if str(full) != damaged and not _needs(repository, full, damaged):
                return [f"--backup {full.backup_id} of {format_time(full.time)} does not need it"]
    return []


def _needs(repository: Repository, full: FullName, damaged: str) -> bool:
    try:
        return damaged in {pack.name for pack in repository.manifest(full).packs}
    except (ObjectCorrupt, ObjectNotFound):
        return True
