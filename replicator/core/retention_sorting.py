"""Every object of a repository to one of two sides, given which backups are kept for their own sake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from replicator.core.holdings import Extent, Held, Holdings
from replicator.core.names import (
    BackupName,
    CarrierName,
    FullName,
    GenerationName,
    KeyName,
    LeaseName,
    PackName,
)
from replicator.core.quantities import format_size
from replicator.core.restore_plan import carriers_from
from replicator.core.retention_points import Point, Promises
from replicator.core.retention_policy import HOUR, Policy
from replicator.core.times import MICROS_MAX, format_time, parse_compact

# What nothing refers to may belong to a backup that is being made, whose manifest is put last. Two days are more than
# any takes, and what is left of one that was given up costs no more than the log of as long.
ORPHAN_AGE = 48 * HOUR


@dataclass(frozen=True, slots=True)
class Sorting:
    """Reasons by name; ``delete`` in the order in which to delete. ``packs_kept_anyway``: those that would stay if no
    manifest named them."""

    keep: dict[str, str]
    delete: dict[str, str]
    packs_kept_anyway: frozenset[str] = frozenset()


def sort_objects(
    holdings: Holdings, policy: Policy, now: int, promises: Promises, points: Iterable[Point]
) -> Sorting:
    """Keep what *points*, some of those that are promised, and the promised units need; delete the rest of ours."""
    sorter = _Sorter(holdings, policy, now, promises, _needed(holdings, points))
    sorter.sort_backups()
    sorter.sort_carriers()
    anyway = sorter.sort_packs()
    sorter.sort_records()
    sorter.sort_generations()
    sorter.keep_the_rest()
    return Sorting(sorter.keep, sorter.delete, anyway)


def _needed(holdings: Holdings, points: Iterable[Point]) -> dict[BackupName, str]:
    """The backups that *points* need, and why."""
    needed: dict[BackupName, str] = {}
    below: dict[BackupName, str] = {}
    for point in points:
        needed.setdefault(point.backup, point.reason)
        for each in holdings.held(point.backup.generation).rests_on(point.backup)[1:]:
            below.setdefault(each, f"{point.backup.backup_id} lies on it: {point.reason}")
    return {**below, **needed}


@dataclass(slots=True)
class _Sorter:
    holdings: Holdings
    policy: Policy
    now: int
    promises: Promises
    needed: Mapping[BackupName, str]
    keep: dict[str, str] = field(default_factory=dict)
    delete: dict[str, str] = field(default_factory=dict)

    # --- backups: children before parents, the oldest chain first --------------------------------------

    def sort_backups(self) -> None:
        """Behind each that goes what is told of it, so that a record without its backup tells of a loss."""
        told: dict[str, list[str]] = {}
        there = {each.backup_id for held in self.holdings.generations for each in held.backups}
        there |= {each.backup_id for each in self.holdings.set_aside}
        for event in self.holdings.events:
            told.setdefault(event.backup_id, []).append(self.holdings.spelt[event])
            if event.backup_id not in there and self.now - _time_of_id(event.backup_id) > ORPHAN_AGE:
                self.delete[told[event.backup_id][-1]] = f"it tells of {event.backup_id}, which is gone"

        def delete(name: str, backup: BackupName, reason: str) -> None:
            self.delete[name] = reason
            tells = f"it tells of {backup.backup_id}, which is not kept"
            self.delete.update(dict.fromkeys(told.get(backup.backup_id, ()), tells))

        for each in self.holdings.set_aside:
            delete(str(each), each, "it was found hurt, and nothing relies on it")
        for held in self.holdings.generations:
            for each in held.backups:
                if each in self.needed:
                    self.keep[self.holdings.spelt[each]] = self.needed[each]
            gone = [each for each in held.backups if each not in self.needed]
            for each in sorted(gone, key=lambda each: (held.rests_on(each)[-1].txid, -each.txid)):
                delete(self.holdings.spelt[each], each, self._outlived(held, each))

    def _outlived(self, held: Held, backup: BackupName) -> str:
        time = self.holdings.time
        if any(time(each) < self.promises.horizon for each in held.rests_on(backup)):
            return f"it lets a state before {format_time(self.promises.horizon)} be restored"
        if any(each.backup == backup for each in self.promises.points):
            assert self.policy.max_bytes is not None
            return f"there is no room for it: all together is more than {format_size(self.policy.max_bytes)}"
        if not isinstance(backup, FullName):
            return (
                f"it is older than {self.policy.incremental_days} days, and nothing that is kept lies on it"
            )
        return f"it is older than {self.policy.full_days} days, and not kept as the first full of its month"

    # --- logs and segments: the oldest first -----------------------------------------------------------

    def sort_carriers(self) -> None:
        for held in self.holdings.generations:
            txid = self.promises.units.get(held.generation)
            leads: set[CarrierName] = set() if txid is None else set(carriers_from(held.carriers, txid))
            newest = self._newest(held)
            for each in held.extents:
                name = self.holdings.spelt[each.name]
                if (reason := self._held_by(each, leads, newest)) is not None:
                    self.keep[name] = reason
                else:
                    self.delete[name] = self._passed(each)

    def _newest(self, held: Held) -> set[CarrierName]:
        """What an agent looks at to find its place again."""
        if held.generation != self.holdings.goes_on:
            return set()
        return {*held.carriers[-1:], *held.listing.segments[-1:]}

    def _held_by(self, each: Extent, leads: set[CarrierName], newest: set[CarrierName]) -> str | None:
        begins = max(self.policy.window_from(self.now), self.promises.horizon)
        if each.name in newest:
            return "it is the newest of its generation, and an agent goes on from it"
        if each.name in leads:
            return "promised restore points lead through it"
        if each.is_taken_over:
            return None
        if each.until >= begins:
            return f"it may hold commits of the last {self.policy.log_hours:g} hours"
        if each.inside in leads:
            return f"it may hold more than {each.inside}"
        return None

    def _passed(self, each: Extent) -> str:
        if each.is_taken_over:
            return f"{each.inside} holds all of it"
        if each.until >= self.policy.window_from(self.now):
            return f"it holds states before {format_time(self.promises.horizon)}"
        return f"it is older than {self.policy.log_hours:g} hours, and no promised restore point leads through it"

    # --- packs -----------------------------------------------------------------------------------------

    def sort_packs(self) -> frozenset[str]:
        """Returns those that are kept whether a manifest names them or not."""
        used: dict[str, str] = {}
        for backup in self.needed:
            backup_id = backup.backup_id
            for pack in self.holdings.packs_of(backup):
                used.setdefault(pack, backup_id)
        cautious = self._caution()
        anyway: set[str] = set()
        for each in self.holdings.packs:
            name = self.holdings.spelt[each]
            unnamed = cautious(each)
            if unnamed is not None:
                anyway.add(name)
            if name in used:
                self.keep[name] = f"{used[name]} needs it"
            elif unnamed is not None:
                self.keep[name] = unnamed
            else:
                self.delete[name] = "no backup that is kept needs it"
        return frozenset(anyway)

    def _caution(self) -> Callable[[PackName], str | None]:
        """Why to keep a pack that no manifest names."""
        holdings = self.holdings
        # Of what these need nobody knows more than that it is not younger than themselves.
        unread = max(
            (each for each in self.needed if each not in holdings.manifests),
            key=lambda each: each.time,
            default=None,
        )
        running = holdings.goes_on
        newest = max((each.txid for each in holdings.held(running).backups), default=0) if running else 0

        def reason(pack: PackName) -> str | None:
            if unread is not None and pack.time <= unread.time:
                return f"{unread.backup_id}, whose manifest cannot be read, may need it"
            if self.now - pack.time <= ORPHAN_AGE:
                return "it is younger than 48 hours and may belong to a backup that is being made"
            # The time in its name is that of the last commit, which in a database at rest may be long ago.
            if pack.generation == running and pack.txid >= newest:
                return "no backup is newer, and it may belong to one that is being made"
            return None

        return reason

    # --- what is said about backups and generations ----------------------------------------------------

    def sort_records(self) -> None:
        """Those that do not go with their backup."""
        kept = {each.backup_id for held in self.holdings.generations for each in held.backups}
        for event in self.holdings.events:
            name = self.holdings.spelt[event]
            if name in self.delete:
                continue
            if event.backup_id in kept:
                self.keep[name] = f"it tells of {event.backup_id}, which is kept"
            else:
                self.keep[name] = "the backup it tells of may have been put after it was looked for"

    def sort_generations(self) -> None:
        """A generation's fences and its record go when nothing else of it is left."""
        for held in self.holdings.generations:
            record = str(GenerationName(held.generation))
            reason = self._held_generation(held, record)
            for name in (*map(str, self.holdings.fences.get(held.generation, ())), record):
                if name not in self.holdings.sizes:
                    continue
                if reason is not None:
                    self.keep[name] = reason
                else:
                    self.delete[name] = "nothing of its generation is left"

    def _held_generation(self, held: Held, record: str) -> str | None:
        listing = held.listing
        if held.generation == self.holdings.goes_on:
            return "an agent goes on with its generation"
        spelt = self.holdings.spelt
        if any(spelt[each] in self.keep for each in (*held.backups, *listing.logs, *listing.segments)):
            return "something of its generation is kept"
        if listing.record is None and record in self.holdings.sizes:
            return "it cannot be read, so that nobody knows when its generation began"
        if listing.record is not None and self.now - listing.record.began <= ORPHAN_AGE:
            return "its generation has just begun"
        return None

    def keep_the_rest(self) -> None:
        for name, parsed in self.holdings.parsed.items():
            if name in self.keep or name in self.delete:
                continue
            if isinstance(parsed, LeaseName):
                self.keep[name] = "it tells who writes"
            elif isinstance(parsed, KeyName):
                self.keep[name] = "it opens what is sealed"
            else:
                self.keep[name] = "it is about the repository as a whole"


def _time_of_id(backup_id: str) -> int:
    """As its beginning tells; that a name was read means that it has one."""
    try:
        return parse_compact(backup_id[:16])
    except ValueError:
        return MICROS_MAX
