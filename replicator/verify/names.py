"""What can be told from names and sizes alone: nothing is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from replicator.core.catalogue import Catalogue, GenerationListing, Listed, read_listing
from replicator.core.names import (
    METADATA,
    REPOSITORY,
    FullName,
    GenerationName,
    IncrementalName,
    parse_name,
    split_revision,
)
from replicator.verify.chain import holes_by_name
from replicator.verify.content import Tell

Note = Callable[[str], None]


def look_at_names(listed: Sequence[Listed], tell: Tell, note: Note) -> Catalogue:
    """Returns what they come to; nothing in it was read."""
    known: dict[str, Listed] = {}
    for each in listed:
        name = split_revision(each.name)[0]
        if name in known:
            note(
                f"{name} is there in several revisions: a rekeying was not at its end, or a record was put again"
            )
        known[name] = Listed(name, each.size)
    if REPOSITORY not in known:
        tell(REPOSITORY, "it is missing; what says who this is can be put back by `verify --repair`")
    catalogue = read_listing(known.values(), {}, known=(REPOSITORY, METADATA))
    for listing in catalogue.generations:
        record = str(GenerationName(listing.generation))
        if record not in known:
            tell(record, "it is missing; it says when and why the generation began")
    _look_for_lost_backups(catalogue, known, note)
    for stray in catalogue.strays:
        note(f"{stray} is not ours, and not used")
    for listing in catalogue.generations:
        _look_for_holes(listing, tell, note)
        taken_over = len(listing.segments) + len(listing.logs) - len(listing.carriers)
        if taken_over:
            note(f"{taken_over} segments of {listing.generation} lie in a log, too")
    return catalogue


def _look_for_lost_backups(catalogue: Catalogue, known: Iterable[str], note: Note) -> None:
    """Prune deletes a backup before its records, and may have been interrupted: so it is no proof."""
    names = map(parse_name, known)
    there = {name.backup_id for name in names if isinstance(name, FullName | IncrementalName)}
    for backup_id in sorted(catalogue.events.keys() - there):
        note(f"of {backup_id} only a record is there: it is being pruned, or was lost")


def _look_for_holes(listing: GenerationListing, tell: Tell, note: Note) -> None:
    if not listing.fulls and (listing.carriers or listing.incrementals):
        note(f"generation {listing.generation} has no full backup: nothing of it can be restored")
    for hole in holes_by_name(listing):
        if hole.ends:
            note(
                f"transactions {hole.first:016x} to {hole.last:016x} of generation {listing.generation} are not there: "
                "restore points begin again at the backup behind them"
            )
        else:
            tell(str(hole.behind), hole.text)
