"""Which restore point is meant: from what a person asks to one position, with its neighbours."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from replicator.core.catalogue import GenerationListing
from replicator.core.errors import TargetUnreachable
from replicator.core.names import CarrierName
from replicator.core.position import GenerationId
from replicator.core.restore_plan import NoPlan, RestorePlan, chain_of, plan_restore
from replicator.core.times import format_time
from replicator.repository import (
    Carried,
    Repository,
    RestorePoint,
    nearest_points_named,
    newest_point,
    oldest_point,
    window,
)
from replicator.repository.points import point_in

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked for: a txid, a time (microseconds UTC), or with neither the newest restore point."""

    txid: int | None = None
    timestamp: int | None = None
    generation: GenerationId | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """The restore point, the plan that leads to it, and what the operator should know about the choice."""

    point: RestorePoint
    plan: RestorePlan
    notes: tuple[str, ...] = ()


def choose(repository: Repository, target: Target) -> Chosen:
    """Resolve *target*. Raises TargetUnreachable with the window and the nearest restore points, and
    ObjectCorrupt or ObjectNotFound with those around the object."""
    with nearest_points_named(repository):
        return _choose(repository, target)


def _choose(repository: Repository, target: Target) -> Chosen:
    generations = [each for each in repository.catalogue.generations if each.fulls]
    if target.generation is not None:
        wanted = repository.catalogue.generation(target.generation)
        if wanted is None:
            raise TargetUnreachable(
                f"there is no generation {target.generation} at {repository.store.url}", hint="see `ls`"
            )
        generations = [wanted] if wanted.fulls else []
    if not generations:
        raise TargetUnreachable(
            f"no full backup is complete at {repository.store.url}",
            hint="the first one is made when the agent starts",
        )
    if target.timestamp is not None:
        return _by_time(repository, generations, target.timestamp, exact=target.exact)
    newest = generations[-1]
    if target.txid is not None:
        return _by_txid(repository, newest, target.txid)
    notes: tuple[str, ...] = ()
    running = repository.catalogue.generations[-1]
    if target.generation is None and running.generation != newest.generation:
        notes = (
            f"generation {running.generation} has no complete full backup yet; "
            f"this is the end of generation {newest.generation}",
        )
    point = newest_point(repository, newest)
    return Chosen(point, _plan(newest, point.position.txid), notes)


# --- by txid -----------------------------------------------------------------------------------------


def _by_txid(repository: Repository, listing: GenerationListing, txid: int) -> Chosen:
    plan = plan_restore(listing, txid)
    if isinstance(plan, NoPlan):
        raise TargetUnreachable(plan.reason, hint=window(repository))
    if plan.base_txid == txid:
        return Chosen(
            repository.backup_point(plan.incrementals[-1] if plan.incrementals else plan.full), plan
        )
    carried = repository.carried(plan.carriers[-1]) if plan.carriers else None
    number = bisect_left(carried.headers, txid, key=lambda each: each.txid_last) if carried is not None else 0
    while carried is not None and number < len(carried):
        unit = carried.unit(number)
        for index, entry in enumerate(unit.entries):
            if entry.txid == txid and unit.header.commits:
                return Chosen(point_in(unit, index), plan)
            if entry.txid - entry.span < txid < entry.txid:
                raise TargetUnreachable(
                    f"txid {txid:016x} was merged with its neighbours while the database was overloaded",
                    hint=f"restore points are {entry.txid - entry.span:016x} and {entry.txid:016x}",
                )
        if unit.header.commits:
            break
        number += 1  # a part of its transaction: the last one carries the commit
    newest = newest_point(repository, listing)
    raise TargetUnreachable(
        f"there is no txid {txid:016x} in generation {listing.generation}; its newest is "
        f"{newest.position.txid:016x}",
        hint=window(repository),
    )


# --- by time -----------------------------------------------------------------------------------------


def _by_time(
    repository: Repository, generations: list[GenerationListing], time: int, *, exact: bool
) -> Chosen:
    """The newest restore point at or before *time* over all generations; they do not overlap in time."""
    after: RestorePoint | None = None
    for listing in reversed(generations):
        point, following = _around(repository, listing, time)
        if point is not None:
            following = following or after
            notes, ambiguous = _time_notes(point, following, time)
            if exact and ambiguous:
                raise TargetUnreachable(ambiguous, hint="leave out --exact, or name one of them by --txid")
            return Chosen(point, _plan(listing, point.position.txid), notes)
        after = oldest_point(repository, listing)
    assert after is not None
    raise TargetUnreachable(
        f"{format_time(time)} lies before the oldest restore point, {format_time(after.observed)} ({after.position})",
        hint=window(repository),
    )


def _around(
    repository: Repository, listing: GenerationListing, time: int
) -> tuple[RestorePoint | None, RestorePoint | None]:
    """The restore points of one generation just before (or at) and just after *time*."""
    oldest = oldest_point(repository, listing)
    if oldest.observed > time:
        return None, oldest
    best, following = _backups_around(repository, listing, time)
    carriers = listing.carriers
    number = _last_begun(repository, carriers, time)
    for name in carriers[max(number, 0) : number + 2]:
        for point in _points_around(repository.carried(name), time):
            if point.position.txid <= oldest.position.txid:
                continue
            if point.observed > time:
                if following is None or point.position.txid < following.position.txid:
                    following = point
            elif point.position.txid >= best.position.txid and _is_reached(listing, point):
                best = point
    return best, following


def _is_reached(listing: GenerationListing, point: RestorePoint) -> bool:
    """Behind a hole nothing leads there: backups are kept longer than the log."""
    return isinstance(plan_restore(listing, point.position.txid), RestorePlan)


def _backups_around(
    repository: Repository, listing: GenerationListing, time: int
) -> tuple[RestorePoint, RestorePoint | None]:
    """The newest backup at or before *time*, which there is, and the one after it."""
    usable = [each for each in listing.backups if chain_of(listing, each) is not None]
    following: RestorePoint | None = None
    for backup in reversed(usable):
        if backup.time > time:
            continue  # told by its name, which keeps whole seconds
        point = repository.backup_point(backup)
        if point.observed <= time:
            later = [each for each in usable if each.txid > backup.txid]
            following = repository.backup_point(later[0]) if later else None
            return point, following
    raise AssertionError("the oldest one was asked before")


def _points_around(carried: Carried, time: int) -> Iterator[RestorePoint]:
    """The restore points of the units around *time*: the last at or before it and the first behind it among them."""
    last = bisect_right(carried.headers, time, key=lambda each: each.observed_first) - 1
    first = max(last, 0)
    while first > 0 and not carried.headers[first].commits:
        first -= 1
    behind = last + 1
    while behind < len(carried) - 1 and not carried.headers[behind].commits:
        behind += 1
    for number in sorted({first, *range(max(last, 0), min(behind, len(carried) - 1) + 1)}):
        unit = carried.unit(number)
        for index in range(len(unit.entries) if unit.header.commits else 0):
            yield point_in(unit, index)


def _last_begun(repository: Repository, carriers: tuple[CarrierName, ...], time: int) -> int:
    """Index of the last one whose first commit was observed at or before *time*; -1 if none was."""
    return bisect_right(carriers, time, key=repository.begins) - 1


def _time_notes(
    point: RestorePoint, following: RestorePoint | None, time: int
) -> tuple[tuple[str, ...], str | None]:
    if (
        following is None
        or following.position.txid == 0
        or following.position.generation != point.position.generation
    ):
        return (), None
    if following.position.txid > point.position.txid + 1 and following.not_before == following.observed:
        kept = (
            f"of the commits between {format_time(point.observed)} and {format_time(following.observed)} none is kept "
            f"any more: {format_time(time)} is rounded to the restore point before it, {point.position}"
        )
        return ((kept,), kept) if time > point.observed else ((), None)
    if following.not_before >= time:
        return (), None
    ambiguous = (
        f"{format_time(time)} falls between two looks at the database: {following.position} was committed "
        f"between {format_time(following.not_before)} and {format_time(following.observed)}, and "
        f"{point.position} is the one before it"
    )
    return (ambiguous,), ambiguous


def _plan(listing: GenerationListing, txid: int) -> RestorePlan:
    plan = plan_restore(listing, txid)
    if isinstance(plan, NoPlan):
        raise TargetUnreachable(
            plan.reason,
            hint=f"restore --txid {plan.nearest_before or 0:016x} --generation {listing.generation} is the nearest "
            "restore point before it",
        )
    return plan
