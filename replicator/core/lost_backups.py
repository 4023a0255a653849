"""Backups that are not there and were not let go of: what tells of them, and what is lost with them.

Pruning deletes the records of a backup right behind its manifest, and only then what nothing leads to any more. So a
record that is left tells of a loss, and carriers alone do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from replicator.core.catalogue import Catalogue, GenerationListing
from replicator.core.coverage import Base, Span, lost
from replicator.core.names import BackupName, FullName, IncrementalName, LogName, parse_name
from replicator.core.records import DAMAGED
from replicator.core.restore_plan import chain_of
from replicator.core.times import MICROS_PER_SECOND

# A generation that ended sooner may never have had a full: that of a large database takes a while.
_LIVED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class LostBackup:
    """``name``: of its manifest, or of what lies on it; `generation …` where there is neither. ``base``: where it
    stood, or the generation began."""

    name: str
    base: Base
    fault: str


def lost_backups(catalogue: Catalogue, listing: GenerationListing) -> list[LostBackup]:
    """Those without which something cannot be restored, as far as names tell. One that was set aside is no loss any
    more: whoever did that has told of it."""
    there = [Base(each.txid, each.time) for each in listing.backups if chain_of(listing, each) is not None]
    spans = list(_spans(listing))
    found = [
        LostBackup(
            str(name), Base(name.txid, name.time, whole=False), "it is missing, and a record tells of it"
        )
        for name in _told_of(catalogue, listing)
    ]
    found = [each for each in found if lost([*there, each.base], spans)]
    found += _below_incrementals(listing)
    if not found and not listing.fulls and _had_a_full(catalogue, listing):
        base = Base(listing.carriers[0].txid_first - 1, listing.began, whole=False)
        fault = "it has no full backup any more, and nothing of it can be restored"
        found.append(LostBackup(f"generation {listing.generation}", base, fault))
    return found


def _below_incrementals(listing: GenerationListing) -> Iterator[LostBackup]:
    """What incrementals lie on."""
    by_txid = {each.txid: each for each in listing.incrementals}
    for each in listing.incrementals:
        if chain_of(listing, each) is None:
            lowest = each
            while lowest.txid_from in by_txid and lowest.txid_from < lowest.txid:
                lowest = by_txid[lowest.txid_from]
            base = Base(lowest.txid_from, min(listing.began or each.time, each.time), whole=False)
            yield LostBackup(str(each), base, f"the backup it lies on, at {lowest.txid_from:016x}, is gone")


def _spans(listing: GenerationListing) -> Iterator[Span]:
    carriers = listing.carriers
    for number, name in enumerate(carriers, 1):
        last = name.txid_first
        if isinstance(name, LogName):
            last = name.txid_last
        elif number < len(carriers):
            last = max(last, carriers[number].txid_first - 1)
        yield Span(name.txid_first, last, 0, 0)


def _told_of(catalogue: Catalogue, listing: GenerationListing) -> Iterator[BackupName]:
    """Backups of which there are only records."""
    there = {each.backup_id for each in listing.backups}
    for backup_id, events in sorted(catalogue.events.items()):
        if backup_id not in there and DAMAGED not in events:
            name = _name_of(backup_id)
            if name is not None and name.generation == listing.generation:
                yield name


def _name_of(backup_id: str) -> BackupName | None:
    """The manifest's that *backup_id* is the last part of."""
    day = f"{backup_id[:4]}/{backup_id[4:6]}/{backup_id[6:8]}"
    for text in (f"full/{day}/{backup_id}.full", f"incremental/{day}/{backup_id}.incremental"):
        name = parse_name(text)
        if isinstance(name, FullName | IncrementalName):
            return name
    return None


def _had_a_full(catalogue: Catalogue, listing: GenerationListing) -> bool:
    """Whether it is one that ended, and lived long enough; nothing else tells."""
    if not listing.carriers:
        return False
    set_aside = (_name_of(each) for each, events in catalogue.events.items() if DAMAGED in events)
    if any(name is not None and name.generation == listing.generation for name in set_aside):
        return False
    following = next(
        (b for a, b in pairwise(catalogue.generations) if a.generation == listing.generation), None
    )
    if following is None or following.record is None or listing.record is None:
        return False
    return following.record.began - listing.record.began >= _LIVED_SECONDS * MICROS_PER_SECOND
