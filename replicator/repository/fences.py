"""Fences: what a take-over left in the place of the next segment is no segment."""

from __future__ import annotations

from dataclasses import replace

from replicator.core.catalogue import Catalogue, GenerationListing
from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.records import RECORD_BYTES_MAX, is_fence
from replicator.store import Store


def without_fences(catalogue: Catalogue, store: Store) -> Catalogue:
    """Only where there was a take-over anything is read: the last segments of each generation, if they are as small
    as a fence; behind one nothing counts. A lease may be lost, so a generation's record is asked, too."""
    epochs = [each.record.epoch for each in catalogue.generations if each.record is not None]
    if len(catalogue.leases) < 2 and max(epochs, default=1) < 2:
        return catalogue
    generations = tuple(_cut(each, catalogue, store) for each in catalogue.generations)
    return replace(catalogue, generations=generations)


def _cut(listing: GenerationListing, catalogue: Catalogue, store: Store) -> GenerationListing:
    end = len(listing.segments)
    for number in reversed(range(end)):
        name = str(listing.segments[number])
        if catalogue.sizes[name] > RECORD_BYTES_MAX:
            break
        try:
            content = store.get(name)
        except (ObjectCorrupt, ObjectNotFound):
            continue  # what it is nobody can say; whoever needs it is told, and the rest is no worse for it
        if not is_fence(content):
            break
        end = number
    return replace(listing, segments=listing.segments[:end])
