"""Fences: what a take-over left in the place of the next segment is no segment."""

from __future__ import annotations

from dataclasses import replace

from replicator.core.catalogue import Catalogue, GenerationListing
from replicator.core.records import RECORD_BYTES_MAX, lease_in_segment
from replicator.store import Store


def without_fences(catalogue: Catalogue, store: Store) -> Catalogue:
    """Only where there was a take-over anything is read: the last segment of each generation, if it is as
    small as a fence; behind one nothing counts."""
    if len(catalogue.leases) < 2:
        return catalogue
    generations = tuple(_cut(each, catalogue, store) for each in catalogue.generations)
    return replace(catalogue, generations=generations)


def _cut(listing: GenerationListing, catalogue: Catalogue, store: Store) -> GenerationListing:
    segments = list(listing.segments)
    while segments and catalogue.sizes[str(segments[-1])] <= RECORD_BYTES_MAX:
        last = str(segments[-1])
        if lease_in_segment(store.get(last), last) is None:
            break
        segments.pop()
    return replace(listing, segments=tuple(segments))
