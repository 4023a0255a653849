"""A listing of a repository, understood."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from replicator.core.names import (
    BackupName,
    CarrierName,
    EventName,
    FullName,
    GenerationName,
    IncrementalName,
    KeyName,
    LeaseName,
    LogName,
    ObjectName,
    PackName,
    SegmentName,
    parse_name,
)
from replicator.core.position import TXID_MAX, GenerationId
from replicator.core.records import CHECKSUMMED, DAMAGED, GenerationRecord, in_succession


@dataclass(frozen=True, slots=True)
class Listed:
    """One object as a store lists it."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class GenerationListing:
    """What lies in a store of one generation; all ascend by txid.

    ``record`` is None where the generation's record is missing: its objects are usable all the same.
    """

    generation: GenerationId
    record: GenerationRecord | None
    fulls: tuple[FullName, ...]
    segments: tuple[SegmentName, ...]
    incrementals: tuple[IncrementalName, ...] = ()
    logs: tuple[LogName, ...] = ()

    @property
    def backups(self) -> tuple[BackupName, ...]:
        """Fulls and incrementals; of two at one position the full is last."""
        found: list[BackupName] = [*self.incrementals, *self.fulls]
        return tuple(sorted(found, key=lambda each: each.txid))

    def without(self, backup: BackupName) -> GenerationListing:
        return replace(
            self,
            fulls=tuple(each for each in self.fulls if each != backup),
            incrementals=tuple(each for each in self.incrementals if each != backup),
        )

    @property
    def carriers(self) -> tuple[CarrierName, ...]:
        """What carries units, in their order: logs, and the segments that no log has taken over yet."""
        if not self.logs or not self.segments:
            return self.logs or self.segments
        # Where a segment ends only what follows it tells. One that a log holds the beginning of may go on behind it, if
        # only with the first parts of the transaction that the next one begins within.
        ends = [*(each.txid_first - (each.part <= 1) for each in self.segments[1:]), TXID_MAX]
        runs = _runs(self.logs)
        left: list[SegmentName] = []
        for segment, end in zip(self.segments, ends, strict=True):
            number = bisect_right(runs, segment.txid_first, key=lambda run: run[0]) - 1
            if number < 0 or max(segment.txid_first, end) > runs[number][1]:
                left.append(segment)
        found: list[CarrierName] = [*self.logs, *left]
        return tuple(sorted(found, key=lambda each: (each.txid_first, getattr(each, "part", 0))))

    @property
    def began(self) -> int:
        """Microseconds, by the clock of then."""
        if self.record is not None:
            return self.record.began
        return min((full.time for full in self.fulls), default=0)


def _runs(logs: Sequence[LogName]) -> list[tuple[int, int]]:
    """First and last transaction of what *logs*, which ascend, hold without a hole."""
    runs: list[tuple[int, int]] = []
    for each in logs:
        if runs and each.txid_first <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], max(runs[-1][1], each.txid_last))
        else:
            runs.append((each.txid_first, each.txid_last))
    return runs


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Generations in the order they followed each other. ``strays`` are names that we never write: reported, not used.
    ``events``: what became of each backup, by its id."""

    generations: tuple[GenerationListing, ...]
    leases: tuple[LeaseName, ...]
    sizes: Mapping[str, int]
    strays: tuple[str, ...]
    events: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def grade(self, backup_id: str) -> str:
        """How far a backup was proved: it was ``written``, or read back and ``checksummed``, or ``restored``."""
        known = self.events.get(backup_id, frozenset())
        return next((each for each in ("restored", CHECKSUMMED) if each in known), "written")

    def generation(self, wanted: GenerationId) -> GenerationListing | None:
        return next((each for each in self.generations if each.generation == wanted), None)


_Backup = TypeVar("_Backup", FullName, IncrementalName)


def _whole(backups: Iterable[_Backup], damaged: set[str]) -> list[_Backup]:
    """Without those that were found hurt: nothing is planned with them any more."""
    return [each for each in backups if each.backup_id not in damaged]


@dataclass(slots=True)
class _Collected:
    fulls: list[FullName] = field(default_factory=list)
    segments: list[SegmentName] = field(default_factory=list)
    incrementals: list[IncrementalName] = field(default_factory=list)
    logs: list[LogName] = field(default_factory=list)


def read_listing(
    listed: Iterable[Listed], records: Mapping[GenerationId, GenerationRecord], *, known: Iterable[str] = ()
) -> Catalogue:
    """Sort a listing into a catalogue; *known* names are no strays though they carry no backup."""
    sizes: dict[str, int] = {}
    collected: dict[GenerationId, _Collected] = {}
    leases: list[LeaseName] = []
    strays: list[str] = []
    events: dict[str, set[str]] = {}
    ignored = set(known)
    for each in listed:
        sizes[each.name] = each.size
        name: ObjectName | None = parse_name(each.name)
        match name:
            case None:
                if each.name not in ignored:
                    strays.append(each.name)
            case LeaseName():
                leases.append(name)
            case GenerationName():
                collected.setdefault(name.generation, _Collected())
            case FullName():
                collected.setdefault(name.generation, _Collected()).fulls.append(name)
            case SegmentName():
                collected.setdefault(name.generation, _Collected()).segments.append(name)
            case KeyName():
                pass
            case EventName():
                events.setdefault(name.backup_id, set()).add(name.event)
            case IncrementalName():
                collected.setdefault(name.generation, _Collected()).incrementals.append(name)
            case LogName():
                collected.setdefault(name.generation, _Collected()).logs.append(name)
            case PackName():
                pass  # a pack counts through the manifests that name it
    damaged = {backup for backup, happened in events.items() if DAMAGED in happened}
    generations = [
        GenerationListing(
            generation,
            records.get(generation),
            tuple(sorted(_whole(found.fulls, damaged), key=lambda full: full.txid)),
            tuple(sorted(found.segments, key=lambda segment: (segment.txid_first, segment.part))),
            tuple(sorted(_whole(found.incrementals, damaged), key=lambda each: (each.txid, each.txid_from))),
            tuple(sorted(found.logs, key=lambda each: (each.txid_first, each.txid_last))),
        )
        for generation, found in collected.items()
    ]
    places = in_succession(each.record for each in generations if each.record is not None)
    generations.sort(key=lambda each: (*places.get(each.generation, (each.began, 0)), each.generation))
    known_events = {backup: frozenset(found) for backup, found in events.items()}
    return Catalogue(tuple(generations), tuple(sorted(leases)), sizes, tuple(strays), known_events)
