"""What lies in a repository as far as it was read, and what of it can be restored for certain.

Whoever deletes decides on it, so what is only probable counts as missing where something is built on it, and as there
where it would be deleted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from replicator.core.catalogue import Catalogue, GenerationListing
from replicator.core.coverage import Base, Span, Stretch, restorable
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental, is_on
from replicator.core.names import (
    BackupName,
    CarrierName,
    EventName,
    FullName,
    IncrementalName,
    LogName,
    ObjectName,
    PackName,
    SegmentName,
    parse_name,
)
from replicator.core.position import TXID_MAX, GenerationId
from replicator.core.times import MICROS_MAX, MICROS_PER_SECOND

# Names keep whole seconds: what they tell was observed up to so much later.
_WITHIN_A_SECOND = MICROS_PER_SECOND - 1


@dataclass(frozen=True, slots=True)
class Extent:
    """The units in a log or a segment. Those behind ``txid_last`` lie in what follows, too, and none of the others was
    observed after ``until``; the end of time where nothing tells. ``inside``: the log that a segment begins in, and
    that readers take instead."""

    name: CarrierName
    txid_last: int
    until: int
    inside: LogName | None = None

    @property
    def is_taken_over(self) -> bool:
        """Whether nothing is lost with it."""
        return self.inside is not None and self.txid_last <= self.inside.txid_last


@dataclass(frozen=True)
class Holdings:
    """What lies in a repository, as far as it was read.

    ``manifests``: of all fulls and incrementals; one that is not among them could not be read. ``pins``: ids of
    backups to be kept for ever. ``running``: the generation that an agent goes on with; None is the newest.
    """

    catalogue: Catalogue
    manifests: Mapping[BackupName, Manifest | Incremental]
    pins: frozenset[str] = frozenset()
    running: GenerationId | None = None

    @cached_property
    def generations(self) -> tuple[Held, ...]:
        """In the order they followed each other; none ends before it began, though the clock was set back."""
        listings = self.catalogue.generations
        following = [listing.began or MICROS_MAX for listing in listings[1:]]
        return tuple(
            Held(self, listing, max(ends, listing.began))
            for listing, ends in zip(listings, [*following, MICROS_MAX], strict=False)
        )

    @property
    def goes_on(self) -> GenerationId | None:
        """The generation that is running."""
        listings = self.catalogue.generations
        return self.running or (listings[-1].generation if listings else None)

    def held(self, generation: GenerationId) -> Held:
        """The generation of that id; an empty one where there is none."""
        return self._by_id.get(generation) or Held(
            self, GenerationListing(generation, None, (), ()), MICROS_MAX
        )

    @cached_property
    def _by_id(self) -> Mapping[GenerationId, Held]:
        return {each.generation: each for each in self.generations}

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Of all objects but those that are not ours."""
        strays = set(self.catalogue.strays)
        return {name: size for name, size in self.catalogue.sizes.items() if name not in strays}

    @cached_property
    def parsed(self) -> Mapping[str, ObjectName | None]:
        """What each of ours is; None for those about the repository as a whole."""
        return {name: parse_name(name) for name in self.sizes}

    @cached_property
    def spelt(self) -> Mapping[ObjectName, str]:
        """Their names, which take time to spell."""
        return {parsed: name for name, parsed in self.parsed.items() if parsed is not None}

    @cached_property
    def set_aside(self) -> tuple[BackupName, ...]:
        """Backups that were found hurt, so that no listing counts them."""
        counted = {each for held in self.generations for each in held.backups}
        backups = (each for each in self.parsed.values() if isinstance(each, FullName | IncrementalName))
        return tuple(sorted((each for each in backups if each not in counted), key=str))

    @cached_property
    def packs(self) -> tuple[PackName, ...]:
        """By their time."""
        return tuple(sorted(each for each in self.parsed.values() if isinstance(each, PackName)))

    @cached_property
    def events(self) -> tuple[EventName, ...]:
        """By the time of the backups they tell of."""
        return tuple(sorted(each for each in self.parsed.values() if isinstance(each, EventName)))

    @cached_property
    def fences(self) -> Mapping[GenerationId, tuple[SegmentName, ...]]:
        """Segments in name only: what a take-over put in their place, and what lies behind it."""
        used = {each for held in self.generations for each in held.listing.segments}
        found: dict[GenerationId, tuple[SegmentName, ...]] = {}
        for each in sorted(each for each in self.parsed.values() if isinstance(each, SegmentName)):
            if each not in used:
                found[each.generation] = (*found.get(each.generation, ()), each)
        return found

    def packs_of(self, backup: BackupName) -> frozenset[str]:
        """The packs that its manifest names; none where that could not be read."""
        manifest = self.manifests.get(backup)
        return frozenset(pack.name for pack in manifest.packs) if manifest is not None else frozenset()

    def time(self, backup: BackupName) -> int:
        """When its last commit was observed; to the second where its manifest cannot be read."""
        manifest = self.manifests.get(backup)
        return manifest.observed if manifest is not None else backup.time

    def has_packs(self, backup: BackupName) -> bool:
        """Whether its manifest could be read, and each pack that it names is there and long enough."""
        manifest = self.manifests.get(backup)
        sizes = self.catalogue.sizes
        return manifest is not None and all(
            sizes.get(pack.name, -1) >= pack.size_bytes for pack in manifest.packs
        )


@dataclass(frozen=True)
class Held:
    """One generation of the holdings. ``ends``: nothing in it was observed after that."""

    holdings: Holdings
    listing: GenerationListing
    ends: int

    @property
    def generation(self) -> GenerationId:
        return self.listing.generation

    @cached_property
    def backups(self) -> tuple[BackupName, ...]:
        return self.listing.backups

    @cached_property
    def carriers(self) -> tuple[CarrierName, ...]:
        return self.listing.carriers

    @cached_property
    def _standing(self) -> Mapping[int, BackupName]:
        """What an incremental that begins there lies on: of two at one position the full."""
        return {each.txid: each for each in self.backups}

    def rests_on(self, backup: BackupName) -> tuple[BackupName, ...]:
        """*backup* and what it lies on, down to the full, as far as it is there."""
        found = [backup]
        at: BackupName | None = backup
        while isinstance(at, IncrementalName) and at.txid_from < at.txid:
            at = self._standing.get(at.txid_from)
            if at is not None:
                found.append(at)
        return tuple(found)

    @cached_property
    def whole(self) -> tuple[BackupName, ...]:
        """The backups that can be restored for certain, ascending: all manifests down to the full can be read, each was
        made on the next, and their packs are there."""
        found: dict[BackupName, None] = {}
        for backup in self.backups:
            if self.holdings.has_packs(backup) and (
                isinstance(backup, FullName) or self._fits(backup, found)
            ):
                found[backup] = None
        return tuple(found)

    def _fits(self, backup: IncrementalName, whole: Mapping[BackupName, None]) -> bool:
        manifest = self.holdings.manifests[backup]
        parent = self._standing.get(backup.txid_from)
        if parent is None or parent not in whole or parent.txid >= backup.txid:
            return False
        assert isinstance(manifest, Incremental), "the manifest of an incremental is one"
        return is_on(manifest, parent, self.holdings.manifests[parent].chain)

    @cached_property
    def extents(self) -> tuple[Extent, ...]:
        """Of all logs and segments, in the order of their units; what a log has taken over before the log."""
        carriers: list[CarrierName] = [*self.listing.logs, *self.listing.segments]
        found: list[Extent] = []
        behind: CarrierName | None = None
        following: CarrierName | None = None
        for each in sorted(carriers, key=_begins, reverse=True):
            if behind is not None and _begins(behind) > _begins(each):
                following = behind
            last = _last_of(each, following)
            inside = self._log_around(each) if isinstance(each, SegmentName) else None
            found.append(Extent(each, last, self._until(each, last), inside))
            behind = each
        found.reverse()
        return tuple(sorted(found, key=lambda each: (_begins(each.inside or each.name), each.inside is None)))

    def _log_around(self, segment: SegmentName) -> LogName | None:
        logs = self.listing.logs
        number = bisect_right(logs, segment.txid_first, key=lambda each: each.txid_first)
        return next((each for each in reversed(logs[:number]) if segment.txid_first <= each.txid_last), None)

    def _until(self, carrier: CarrierName, last: int) -> int:
        if isinstance(carrier, LogName):
            return carrier.time + _WITHIN_A_SECOND
        txids, times = self._marks
        number = bisect_left(txids, last)
        return times[number] if number < len(times) else self.ends

    @cached_property
    def _marks(self) -> tuple[list[int], list[int]]:
        """Ascending txids, and when the commit was observed at the latest."""
        marks = [(each.txid, self.holdings.time(each) + _WITHIN_A_SECOND) for each in self.backups]
        marks += [(each.txid_last, each.time + _WITHIN_A_SECOND) for each in self.listing.logs]
        marks.sort()
        return [txid for txid, _ in marks], [time for _, time in marks]

    def stretches(self, gone: frozenset[str] = frozenset()) -> tuple[Stretch, ...]:
        """What can be restored without the objects *gone*, as far as names tell."""
        spelt = self.holdings.spelt
        bases = [
            Base(each.txid, self.holdings.time(each))
            for each in self.whole
            if not any(spelt[below] in gone for below in self.rests_on(each))
        ]
        times = iter(bases)
        base = next(times, None)
        spans: list[Span] = []
        seen = 0
        for each in self.extents:
            if spelt[each.name] in gone:
                continue
            # When the commits of a segment were observed its name does not tell: not before what lies behind it.
            while base is not None and base.txid < each.name.txid_first:
                seen, base = max(seen, base.time), next(times, None)
            seen = max(seen, each.name.time if isinstance(each.name, LogName) else 0)
            last = each.txid_last if each.txid_last < TXID_MAX else each.name.txid_first
            spans.append(Span(each.name.txid_first, last, seen, seen))
        return tuple(restorable(bases, spans))


def _begins(carrier: CarrierName) -> tuple[int, int]:
    return carrier.txid_first, carrier.part if isinstance(carrier, SegmentName) else 0


def _last_of(carrier: CarrierName, following: CarrierName | None) -> int:
    """The last txid that may be in it: a segment's name does not tell where it ends, but the next one begins there."""
    if isinstance(carrier, LogName):
        return carrier.txid_last
    if following is None:
        return TXID_MAX
    # Where the next one begins within a transaction, its first parts are in this one.
    within = isinstance(following, SegmentName) and following.part > 1
    return max(following.txid_first - (not within), carrier.txid_first)
