"""Restore points of a repository: the newest and the oldest of a generation, and the window between them."""

from __future__ import annotations

import logging

from replicator.core.catalogue import GenerationListing
from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.names import BackupName
from replicator.core.position import Position
from replicator.core.restore_plan import chain_of
from replicator.core.times import format_time
from replicator.core.unit import Unit
from replicator.repository.reading import Carried, Repository, RestorePoint

log = logging.getLogger(__name__)


def newest_point(repository: Repository, listing: GenerationListing) -> RestorePoint:
    """The newest restore point of a generation that has a full."""
    backup = repository.backup_point(_newest_backup(listing))
    for name in reversed(listing.carriers):
        carried = repository.carried(name)
        if not carried.holds_what_it_says:
            # Nothing chains to it; if it lies in the place of one of ours, the newest commits are lost.
            log.warning(
                "segment.stray", extra={"key": str(name), "error": "it lies under a name not its own"}
            )
            continue
        for number in range(len(carried) - 1, -1, -1):
            header = carried.headers[number]
            if header.commits and header.txid_last > backup.position.txid:
                unit = carried.unit(number)
                return point_in(unit, len(unit.entries) - 1)
            if header.txid_last <= backup.position.txid:
                return backup
    return backup


def _newest_backup(listing: GenerationListing) -> BackupName:
    """The newest that has all it rests on."""
    return next(each for each in reversed(listing.backups) if chain_of(listing, each) is not None)


def newest_carried(repository: Repository, listing: GenerationListing) -> Carried:
    """The newest log or segment that lies under its own name; there is at least one."""
    for name in reversed(listing.carriers):
        carried = repository.carried(name)
        if carried.holds_what_it_says:
            return carried
    raise ObjectCorrupt(f"no segment of generation {listing.generation} lies under its own name")


def oldest_point(repository: Repository, listing: GenerationListing) -> RestorePoint:
    return repository.backup_point(listing.fulls[0])


def window(repository: Repository) -> str:
    """One sentence: what can be restored. A hint does not fail: what hinders it is told in its place."""
    generations = [each for each in repository.catalogue.generations if each.fulls]
    if not generations:
        return "nothing can be restored yet"
    try:
        oldest = oldest_point(repository, generations[0])
        newest = newest_point(repository, generations[-1])
    except (ObjectCorrupt, ObjectNotFound) as exc:
        return f"from when to when cannot be said: {exc}"
    return (
        f"restore points reach from {format_time(oldest.observed)} ({oldest.position}) "
        f"to {format_time(newest.observed)} ({newest.position})"
    )


def point_in(unit: Unit, number: int) -> RestorePoint:
    entry = unit.entries[number]
    return RestorePoint(
        Position(unit.header.generation, entry.txid),
        entry.observed,
        entry.not_before,
        entry.pages_after,
        entry.span,
    )
