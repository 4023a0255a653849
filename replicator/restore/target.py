"""Which restore point is meant: from what a person asks to one position, with its neighbours."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from replicator.core.catalogue import GenerationListing
from replicator.core.errors import ObjectCorrupt, ObjectNotFound, TargetUnreachable
from replicator.core.names import CarrierName, LogName
from replicator.core.position import GenerationId
from replicator.core.restore_plan import NoPlan, RestorePlan, chain_of, plan_restore
from replicator.core.times import MICROS_MAX, format_time
from replicator.core.unit import follows
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

    @property
    def until(self) -> int | None:
        """The newest restore point by then is meant; None: a certain one."""
        if self.txid is not None:
            return None
        return self.timestamp if self.timestamp is not None else MICROS_MAX


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
    return Chosen(point, _plan(repository, newest, point.position.txid), notes)


# --- by txid -----------------------------------------------------------------------------------------


def _by_txid(repository: Repository, listing: GenerationListing, txid: int) -> Chosen:
    plan = plan_restore(listing, txid)
    if isinstance(plan, NoPlan):
        raise TargetUnreachable(plan.reason, hint=window(repository))
    if plan.base_txid == txid:
        _require_same_history(repository, listing, plan)
        return Chosen(repository.backup_point(plan.base), plan)
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
        point, following, unreached = _around(repository, listing, time)
        if point is not None:
            following = following or after
            if unreached is None:
                notes, ambiguous = _time_notes(point, following, time)
            else:
                ambiguous = _hole_note(point, unreached, time)
                notes = (ambiguous,)
            if exact and ambiguous:
                raise TargetUnreachable(ambiguous, hint="leave out --exact, or name one of them by --txid")
            return Chosen(point, _plan(repository, listing, point.position.txid), notes)
        after = oldest_point(repository, listing)
    assert after is not None
    raise TargetUnreachable(
        f"{format_time(time)} lies before the oldest restore point, {format_time(after.observed)} ({after.position})",
        hint=window(repository),
    )


def _around(
    repository: Repository, listing: GenerationListing, time: int
) -> tuple[RestorePoint | None, RestorePoint | None, RestorePoint | None]:
    """The restore points of one generation just before (or at) and just after *time*; and behind the first one, if
    there is any, the newest commit by then that nothing leads to any more."""
    oldest = oldest_point(repository, listing)
    if oldest.observed > time:
        return None, oldest, None
    best, following = _backups_around(repository, listing, time)
    unreached: RestorePoint | None = None
    carriers = listing.carriers
    number = _last_begun(repository, carriers, time)
    for name in carriers[max(number, 0) : number + 2]:
        for point in _points_around(repository.carried(name), time):
            if point.position.txid <= oldest.position.txid:
                continue
            if point.observed > time:
                if following is None or point.position.txid < following.position.txid:
                    following = point
            elif point.position.txid >= best.position.txid:
                end = _reached(listing, point)
                if end == point.position.txid:
                    best, unreached = point, None
                else:
                    unreached = point
                    if end > best.position.txid:  # the hole begins behind the newest backup
                        best = _by_txid(repository, listing, end).point
    return best, following, unreached


def _reached(listing: GenerationListing, point: RestorePoint) -> int:
    """Up to where what leads to *point* leads: behind a hole nothing does. Backups are kept longer than the log."""
    plan = plan_restore(listing, point.position.txid)
    return point.position.txid if isinstance(plan, RestorePlan) else (plan.nearest_before or 0)


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

    def begins(name: CarrierName) -> int:
        try:
            return repository.begins(name)
        except (ObjectCorrupt, ObjectNotFound):
            if isinstance(name, LogName):
                return name.time  # when it ended: enough to see that it is not the one
            raise

    return bisect_right(carriers, time, key=begins) - 1


def _time_notes(
    point: RestorePoint, following: RestorePoint | None, time: int
) -> tuple[tuple[str, ...], str | None]:
    if following is None or time == point.observed:
        return (), None
    if following.position.generation != point.position.generation:
        between = (
            f"of the commits between {format_time(point.observed)}, where generation {point.position.generation} "
            f"ends, and {format_time(following.observed)}, where {following.position.generation} begins, none was "
            f"captured: {format_time(time)} is rounded to the restore point before it, {point.position}"
        )
        return (between,), between
    if following.position.txid - following.span > point.position.txid:
        kept = (
            f"of the commits between {format_time(point.observed)} and {format_time(following.observed)} none is kept "
            f"any more: {format_time(time)} is rounded to the restore point before it, {point.position}"
        )
        return (kept,), kept
    if following.not_before >= time:
        return (), None
    ambiguous = (
        f"{format_time(time)} falls between two looks at the database: {following.position} was committed "
        f"between {format_time(following.not_before)} and {format_time(following.observed)}, and "
        f"{point.position} is the one before it"
    )
    return (ambiguous,), ambiguous


def _hole_note(point: RestorePoint, unreached: RestorePoint, time: int) -> str:
    return (
        f"of the commits from {point.position.txid + 1:016x} to {unreached.position.txid:016x} some are missing, so "
        f"that none can be reached: {format_time(time)} is rounded to the restore point before them, {point.position} "
        f"of {format_time(point.observed)}"
    )


def _plan(repository: Repository, listing: GenerationListing, txid: int) -> RestorePlan:
    plan = plan_restore(listing, txid)
    if isinstance(plan, NoPlan):
        raise TargetUnreachable(
            plan.reason,
            hint=f"restore --txid {plan.nearest_before or 0:016x} --generation {listing.generation} is the nearest "
            "restore point before it",
        )
    if plan.base_txid == txid:
        _require_same_history(repository, listing, plan)
    return plan


def _require_same_history(repository: Repository, listing: GenerationListing, plan: RestorePlan) -> None:
    """No transaction is applied onto the backup that *plan* ends with, so none shows whether it is the one that this
    history went through, or was put there from a copy that went its own way. What lies around it says so, where it can:
    the transaction behind it, which costs a small read, and if that does not agree, the one before."""
    base = repository.backup(plan.base)
    behind = next((each for each in listing.carriers if each.txid_first == base.txid + 1), None)
    if behind is None:
        return
    try:
        header = repository.first_header(behind)
    except (ObjectCorrupt, ObjectNotFound):
        return  # it is not needed, and whoever needs it finds that out
    is_next = header.generation == base.generation and header.txid_first == base.txid + 1
    agrees = not is_next or follows(header, bytes.fromhex(base.chain))
    if not agrees and not _is_end_of(repository, listing, base.txid, base.chain):
        raise ObjectCorrupt(
            f"{behind} does not chain to {base.name}, behind which it begins", name=str(base.name)
        )


def _is_end_of(repository: Repository, listing: GenerationListing, txid: int, chain: str) -> bool:
    before = [each for each in listing.carriers if each.txid_first <= txid]
    try:
        units = list(repository.carried(before[-1]).units()) if before else []
    except (ObjectCorrupt, ObjectNotFound):
        return False
    return any(unit.header.txid_last == txid and unit.digest.hex() == chain for unit in units)
