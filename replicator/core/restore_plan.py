"""What to fetch for one restore point: a full backup and the segments after it.

Names alone make a plan, which is provisional: only when the units read chain without a hole is it proved.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.core.catalogue import GenerationListing
from replicator.core.names import FullName, SegmentName
from replicator.core.position import GenerationId


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Restore ``full``, then apply the units of ``segments`` that lie behind it, up to ``txid``.

    ``txid`` None means as far as the segments chain.
    """

    generation: GenerationId
    full: FullName
    segments: tuple[SegmentName, ...]
    txid: int | None


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why no objects lead to the target, and the restore points nearest to it that have a plan."""

    reason: str
    nearest_before: int | None
    nearest_after: int | None


def segments_from(listing: GenerationListing, txid: int) -> tuple[SegmentName, ...]:
    """The segments that may hold transactions after *txid*: a name says where a segment begins, not where
    it ends, so the one that begins at or before ``txid + 1`` belongs to them."""
    first = 0
    for number, segment in enumerate(listing.segments):
        if segment.txid_first <= txid + 1 and segment.part <= 1:
            first = number
    return listing.segments[first:]


def plan_restore(listing: GenerationListing, txid: int | None) -> RestorePlan | NoPlan:
    """The plan for *txid* of one generation, or for its newest restore point.

    The newest full at or before the target is taken: fewest transactions to apply.
    """
    if not listing.fulls:
        return NoPlan(f"generation {listing.generation} has no complete full backup", None, None)
    oldest = listing.fulls[0].txid
    if txid is not None and txid < oldest:
        return NoPlan(
            f"txid {txid:016x} lies before the oldest full backup of generation {listing.generation}",
            None,
            oldest,
        )
    full = max(
        (each for each in listing.fulls if txid is None or each.txid <= txid), key=lambda each: each.txid
    )
    segments = segments_from(listing, full.txid)
    if txid is not None:
        segments = tuple(each for each in segments if each.txid_first <= txid)
        if txid == full.txid:
            segments = ()
    return RestorePlan(listing.generation, full, segments, txid)
