"""Around damage: what can still be restored before and after an object that is missing or damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from replicator.core.catalogue import GenerationListing
from replicator.core.errors import ObjectCorrupt, ObjectNotFound, ReplicatorError
from replicator.core.names import BackupName, CarrierName, LogName, SegmentName, parse_name
from replicator.core.restore_plan import chain_of
from replicator.core.times import format_time
from replicator.repository.reading import Repository


@contextlib.contextmanager
def nearest_points_named(repository: Repository) -> Iterator[None]:
    """Whatever object is found missing or damaged in here: the error says what can be restored instead."""
    try:
        yield
    except (ObjectCorrupt, ObjectNotFound) as exc:
        if exc.hint is None and exc.name:
            exc.hint = (
                "no backup here does without it; is there another store of this database, or an older copy?"
            )
            with contextlib.suppress(ReplicatorError):
                exc.hint = nearest_to(repository, exc.name) or exc.hint
        raise


def nearest_to(repository: Repository, damaged: str) -> str | None:
    """One sentence on the restore points around the object *damaged*; None where there are none."""
    name = parse_name(damaged)
    if isinstance(name, SegmentName | LogName):
        listing = repository.catalogue.generation(name.generation)
        found = _around_carrier(repository, listing, name) if listing is not None else []
    else:
        found = _without(repository, damaged)
    return "nearest restore points: " + ", ".join(found) if found else None


def _around_carrier(repository: Repository, listing: GenerationListing, damaged: CarrierName) -> list[str]:
    """The last commit that chains up to it, and the first backup behind its beginning."""
    found: list[str] = []
    before = [each for each in listing.backups if each.txid < damaged.txid_first and chain_of(listing, each)]
    if before:
        txid = _last_before(repository, listing, damaged, before[-1].txid)
        found.append(f"--txid {txid:016x} --generation {listing.generation} before it")
    after = [each for each in listing.backups if each.txid >= damaged.txid_first and chain_of(listing, each)]
    if after:
        found.append(f"--backup {after[0].backup_id} after its beginning")
    return found


def _last_before(repository: Repository, listing: GenerationListing, damaged: CarrierName, base: int) -> int:
    carriers = listing.carriers
    for name in reversed(carriers[: carriers.index(damaged)]):
        if name.txid_first <= base:
            break
        with contextlib.suppress(ObjectCorrupt, ObjectNotFound):
            for header in reversed(repository.carried(name).headers):
                if header.commits:
                    return header.txid_last
    return base


def _without(repository: Repository, damaged: str) -> list[str]:
    """The newest backup that does not need the object."""
    for listing in reversed(repository.catalogue.generations):
        for backup in reversed(listing.backups):
            chain = chain_of(listing, backup)
            needed: list[BackupName] = [chain[0], *chain[1]] if chain is not None else []
            if needed and not any(_needs(repository, each, damaged) for each in needed):
                return [f"--backup {backup.backup_id} of {format_time(backup.time)} does not need it"]
    return []


def _needs(repository: Repository, backup: BackupName, damaged: str) -> bool:
    if str(backup) == damaged:
        return True
    try:
        return damaged in {pack.name for pack in repository.backup(backup).packs}
    except (ObjectCorrupt, ObjectNotFound):
        return True


def backups_on(repository: Repository, damaged: str) -> list[BackupName]:
    """The backups that are no good without the object *damaged*: itself, or those that need it as a pack of theirs."""
    found: list[BackupName] = []
    for listing in repository.catalogue.generations:
        for backup in listing.backups:
            with contextlib.suppress(ObjectCorrupt, ObjectNotFound):  # those are met by themselves
                if str(backup) == damaged or (
                    damaged.endswith(".pack")
                    and damaged in {pack.name for pack in repository.backup(backup).packs}
                ):
                    found.append(backup)
    return found
