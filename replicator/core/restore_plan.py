"""What to fetch for one restore point: a full backup, incrementals onto it, and what carries the units after them.

Names alone make a plan, which is provisional: only when the units read chain without a hole is it proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replicator.core.catalogue import GenerationListing
from replicator.core.names import BackupName, CarrierName, FullName, IncrementalName, LogName
from replicator.core.position import GenerationId


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Restore ``full``, lay ``incrementals`` over it, then apply the units of ``carriers`` that lie behind, up to
    ``txid``; None means as far as they chain."""

    generation: GenerationId
    full: FullName
    incrementals: tuple[IncrementalName, ...]
    carriers: tuple[CarrierName, ...]
    txid: int | None

    @property
    def base(self) -> BackupName:
        """What the units are applied to."""
        return self.incrementals[-1] if self.incrementals else self.full

    @property
    def base_txid(self) -> int:
        return self.base.txid


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why no objects lead to the target, and the restore points nearest to it that have a plan."""

    reason: str
    nearest_before: int | None
    nearest_after: int | None


def carriers_from(carriers: Sequence[CarrierName], txid: int) -> tuple[CarrierName, ...]:
    """Those that may hold transactions after *txid*. The name of a segment says where it begins, not where it ends, so
    the one that begins at or before ``txid + 1`` belongs to them; and a log that it may be a part of."""
    first = 0
    for number, each in enumerate(carriers):
        if isinstance(each, LogName):
            first = number + 1 if each.txid_last <= txid else first
        elif each.txid_first <= txid + 1 and each.part <= 1:
            first = number
    logs = (each for each in carriers[:first] if isinstance(each, LogName) and each.txid_last > txid)
    return (*logs, *carriers[first:])


def chain_of(
    listing: GenerationListing, backup: BackupName
) -> tuple[FullName, tuple[IncrementalName, ...]] | None:
    """The full that *backup* rests on, and the incrementals up to it; None where one of them is gone."""
    incrementals: list[IncrementalName] = []
    fulls = {each.txid: each for each in listing.fulls}
    by_txid = {each.txid: each for each in listing.incrementals}
    at: BackupName | None = backup
    while isinstance(at, IncrementalName):
        incrementals.append(at)
        if at.txid_from >= at.txid:
            return None
        at = fulls.get(at.txid_from) or by_txid.get(at.txid_from)
    return (at, tuple(reversed(incrementals))) if at is not None else None


def plan_restore(listing: GenerationListing, txid: int | None) -> RestorePlan | NoPlan:
    """The plan for *txid* of one generation, or for its newest restore point.

    The newest backup at or before the target is taken: fewest transactions to apply.
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
    for backup in reversed(listing.backups):
        if txid is not None and backup.txid > txid:
            continue
        chain = chain_of(listing, backup)
        if chain is not None:
            return _from(listing, *chain, txid)
    raise AssertionError("a full has a chain of its own")


def _from(
    listing: GenerationListing, full: FullName, incrementals: tuple[IncrementalName, ...], txid: int | None
) -> RestorePlan | NoPlan:
    base = incrementals[-1].txid if incrementals else full.txid
    carriers = carriers_from(listing.carriers, base)
    if txid is not None:
        carriers = tuple(each for each in carriers if each.txid_first <= txid)
        if txid == base:
            carriers = ()
        elif (end := _reach(base, carriers)) is not None and end < txid:
            after = min((each.txid for each in listing.backups if each.txid > txid), default=None)
            return NoPlan(
                f"the transactions from {end + 1:016x} on that lead to {txid:016x} are not kept any more",
                end,
                after,
            )
    return RestorePlan(listing.generation, full, incrementals, carriers, txid)


def _reach(base: int, carriers: Sequence[CarrierName]) -> int | None:
    """The last txid that can be reached from *base*, as far as names tell of a hole; None where they tell of none.
    Where a segment ends only its content tells, so behind one nothing is known."""
    end = base
    for each in carriers:
        if each.txid_first > end + 1:
            return end
        if not isinstance(each, LogName):
            return None
        end = max(end, each.txid_last)
    return end
