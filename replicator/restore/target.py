"""Which restore point is meant: from what a person asks to one position, with its neighbours."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field

from replicator.core.catalogue import Catalogue, GenerationListing, read_listing
from replicator.core.errors import ObjectCorrupt, ObjectNotFound, RepositoryNotFound, TargetUnreachable
from replicator.core.full import Manifest, decode_manifest
from replicator.core.names import FULL, REPOSITORY, FullName, GenerationName, SegmentName, parse_name
from replicator.core.position import GenerationId, Position
from replicator.core.records import GenerationRecord, decode_generation, decode_repository
from replicator.core.restore_plan import NoPlan, RestorePlan, plan_restore
from replicator.core.times import format_time
from replicator.core.unit import HEADER_SIZE, Unit, UnitHeader, decode_unit, parse_unit_header, split_units
from replicator.restore.fences import without_fences
from replicator.restore.nearest import damage_named, nearest_points_named
from replicator.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked for: a txid, a time (microseconds UTC), or with neither the newest restore point."""

    txid: int | None = None
    timestamp: int | None = None
    generation: GenerationId | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A position that can be restored. It was committed after ``not_before``, no later than ``observed``;
    the database had ``pages`` pages then."""

    position: Position
    observed: int
    not_before: int
    pages: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The restore point, the plan that leads to it, and what the operator should know about the choice."""

    point: RestorePoint
    plan: RestorePlan
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Repository:
    """A repository at a store, read: its catalogue, and the few objects looked into so far."""

    store: Store
    identity: str
    catalogue: Catalogue
    _segments: dict[SegmentName, tuple[Unit, ...]] = field(default_factory=dict)
    _begins: dict[SegmentName, int] = field(default_factory=dict)

    def units(self, name: SegmentName) -> tuple[Unit, ...]:
        """The units of a segment, decoded and proved; the last few stay at hand."""
        if name not in self._segments:
            if len(self._segments) > 4:
                self._segments.clear()
            content = self.store.get(str(name))
            with damage_named(name):
                units = tuple(decode_unit(view) for view in split_units(content))
                if not units:
                    raise ObjectCorrupt("it is empty")
            self._segments[name] = units
        return self._segments[name]

    def begins(self, name: SegmentName) -> int:
        """When the first commit of a segment was observed: one small read."""
        if name not in self._begins:
            with damage_named(name):
                header = parse_unit_header(self.store.get_range(str(name), 0, HEADER_SIZE))
            self._begins[name] = header.observed_first
        return self._begins[name]

    def manifest(self, name: FullName) -> Manifest:
        try:
            return decode_manifest(self.store.get(str(name)), str(name))
        except ObjectCorrupt as exc:
            exc.name = str(name)
            raise

    def full_point(self, name: FullName) -> RestorePoint:
        found = self.manifest(name)
        return RestorePoint(found.position, found.observed, found.observed, found.pages)


def read_repository(store: Store) -> Repository:
    """List and understand what lies at *store*. Raises RepositoryNotFound where there is nothing of ours."""
    identity = _identity(store)
    listed = list(store.list(""))
    records: dict[GenerationId, GenerationRecord] = {}
    for each in listed:
        name = parse_name(each.name)
        if isinstance(name, GenerationName):
            try:
                record = decode_generation(store.get(each.name), each.name)
                if record.repository != identity:
                    raise ObjectCorrupt(f"{each.name} is of repository {record.repository}")
                records[name.generation] = record
            except ObjectCorrupt as exc:
                # It tells when and why; its objects restore without it.
                log.warning("generation.unreadable", extra={"key": each.name, "error": str(exc)})
    catalogue = read_listing(listed, records, known=(REPOSITORY,))
    return Repository(store, identity, without_fences(catalogue, store))


def _identity(store: Store) -> str:
    """As the repository's own record says; where that is lost, as the fulls do: they are enough to restore.

    Asked before all names are listed: a bucket may hold many repositories, and be none.
    """
    try:
        return decode_repository(store.get(REPOSITORY), REPOSITORY).repository
    except (ObjectNotFound, ObjectCorrupt) as exc:
        for each in reversed(list(store.list(FULL))):
            if isinstance(parse_name(each.name), FullName):
                with contextlib.suppress(ObjectNotFound, ObjectCorrupt):
                    found = decode_manifest(store.get(each.name), each.name).repository
                    log.warning("repository.unreadable", extra={"key": REPOSITORY, "error": str(exc)})
                    return found
        if isinstance(exc, ObjectCorrupt):
            raise
        raise RepositoryNotFound(
            f"no repository at {store.url}", hint="name the store URL that the agent replicates to"
        ) from exc


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


def newest_point(repository: Repository, listing: GenerationListing) -> RestorePoint:
    """The newest restore point of a generation that has a full."""
    full = repository.full_point(listing.fulls[-1])
    for name in reversed(listing.segments):
        units = repository.units(name)
        if not holds_what_it_says(name, units[0].header):
            # Nothing chains to it; if it lies in the place of one of ours, the newest commits are lost.
            log.warning(
                "segment.stray", extra={"key": str(name), "error": "it lies under a name not its own"}
            )
            continue
        for unit in reversed(units):
            if unit.header.commits and unit.header.txid_last > full.position.txid:
                return _point(unit, len(unit.entries) - 1)
            if unit.header.txid_last <= full.position.txid:
                return full
    return full


def last_segment(repository: Repository, listing: GenerationListing) -> tuple[Unit, ...]:
    """The units of the newest segment that lies under its own name; there is at least one segment."""
    for name in reversed(listing.segments):
        units = repository.units(name)
        if holds_what_it_says(name, units[0].header):
            return units
    raise ObjectCorrupt(f"no segment of generation {listing.generation} lies under its own name")


def holds_what_it_says(name: SegmentName, first: UnitHeader) -> bool:
    """Whether a segment lies under the name that its first unit spells."""
    return SegmentName(first.generation, first.txid_first, first.part) == name


def oldest_point(repository: Repository, listing: GenerationListing) -> RestorePoint:
    return repository.full_point(listing.fulls[0])


def window(repository: Repository) -> str:
    """One sentence: what can be restored."""
    generations = [each for each in repository.catalogue.generations if each.fulls]
    if not generations:
        return "nothing can be restored yet"
    oldest = oldest_point(repository, generations[0])
    newest = newest_point(repository, generations[-1])
    return (
        f"restore points reach from {format_time(oldest.observed)} ({oldest.position}) "
        f"to {format_time(newest.observed)} ({newest.position})"
    )


# --- by txid -----------------------------------------------------------------------------------------


def _by_txid(repository: Repository, listing: GenerationListing, txid: int) -> Chosen:
    plan = plan_restore(listing, txid)
    if isinstance(plan, NoPlan):
        raise TargetUnreachable(plan.reason, hint=window(repository))
    if plan.full.txid == txid:
        return Chosen(repository.full_point(plan.full), plan)
    before: RestorePoint | None = None
    for name in reversed(plan.segments):
        for unit in reversed(repository.units(name)):
            for number in range(len(unit.entries) - 1, -1, -1):
                entry = unit.entries[number]
                if entry.txid == txid and unit.header.commits:
                    return Chosen(_point(unit, number), plan)
                if entry.txid - entry.span < txid < entry.txid:
                    raise TargetUnreachable(
                        f"txid {txid:016x} was merged with its neighbours while the database was overloaded",
                        hint=f"restore points are {entry.txid - entry.span:016x} and {entry.txid:016x}",
                    )
                if entry.txid < txid and before is None:
                    before = _point(unit, number)
        break
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
    best = oldest
    for full in listing.fulls[1:]:
        if full.time <= time:
            point = repository.full_point(full)
            best = point if point.observed <= time else best
    number = _last_begun(repository, listing.segments, time)
    following: RestorePoint | None = None
    for name in listing.segments[max(number, 0) : number + 2]:
        for unit in repository.units(name):
            for index, entry in enumerate(unit.entries):
                if not unit.header.commits or entry.txid <= oldest.position.txid:
                    continue
                if entry.observed <= time and entry.txid >= best.position.txid:
                    best = _point(unit, index)
                elif entry.observed > time and following is None:
                    following = _point(unit, index)
    return best, following


def _last_begun(repository: Repository, segments: tuple[SegmentName, ...], time: int) -> int:
    """Index of the last segment whose first commit was observed at or before *time*; -1 if none was."""
    low, high = 0, len(segments)
    while low < high:
        middle = (low + high) // 2
        if repository.begins(segments[middle]) <= time:
            low = middle + 1
        else:
            high = middle
    return low - 1


def _time_notes(
    point: RestorePoint, following: RestorePoint | None, time: int
) -> tuple[tuple[str, ...], str | None]:
    if following is None or following.not_before >= time or following.position.txid == 0:
        return (), None
    ambiguous = (
        f"{format_time(time)} falls between two looks at the database: {following.position} was committed "
        f"between {format_time(following.not_before)} and {format_time(following.observed)}, and "
        f"{point.position} is the one before it"
    )
    return (ambiguous,), ambiguous


def _point(unit: Unit, number: int) -> RestorePoint:
    entry = unit.entries[number]
    return RestorePoint(
        Position(unit.header.generation, entry.txid), entry.observed, entry.not_before, entry.pages_after
    )


def _plan(listing: GenerationListing, txid: int) -> RestorePlan:
    plan = plan_restore(listing, txid)
    assert isinstance(plan, RestorePlan), plan
    return plan
