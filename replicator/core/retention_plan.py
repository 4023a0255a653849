"""Which objects of a repository to keep and which to delete, with a reason for each.

An object is deleted only if every restore point that the policy promises has a plan without it. The order of deleting
is safe to interrupt: after each step the same promises are kept, and a later plan finishes the work.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from replicator.core.coverage import Stretch
from replicator.core.holdings import Holdings
from replicator.core.names import BackupName
from replicator.core.position import GenerationId
from replicator.core.retention_points import DOUBT, Point, promised
from replicator.core.retention_policy import Policy
from replicator.core.retention_sorting import Sorting, sort_objects
from replicator.core.times import format_time

_PACKS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deleted:
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class GenerationWindow:
    """What of a generation can be restored, as far as names and manifests tell."""

    generation: GenerationId
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """``delete`` is in the order in which to delete. ``bytes_over``: by how much what is kept exceeds the limit when
    all that may go is gone. ``notes``: what whoever asked should know."""

    keep: tuple[Kept, ...]
    delete: tuple[Deleted, ...]
    bytes_kept: int
    bytes_deleted: int
    bytes_over: int
    windows_before: tuple[GenerationWindow, ...]
    windows_after: tuple[GenerationWindow, ...]
    notes: tuple[str, ...]


def plan_retention(
    holdings: Holdings, policy: Policy, now: int, *, before: int | None = None
) -> RetentionPlan:
    """What to keep and what to delete at *now*.

    With *before*, whatever lets a state before that time be restored goes, promised or pinned, but never the newest
    chain; ``notes`` say so. Where nothing at all can be restored for certain, nothing is deleted. Objects that are not
    ours are neither kept nor deleted.
    """
    sorting, notes = _sort(holdings, policy, now, before)[1:]
    sizes = holdings.sizes
    bytes_kept = sum(sizes[name] for name in sorting.keep)
    gone = frozenset(sorting.delete)
    return RetentionPlan(
        keep=tuple(Kept(name, reason) for name, reason in sorting.keep.items()),
        delete=tuple(Deleted(name, reason) for name, reason in sorting.delete.items()),
        bytes_kept=bytes_kept,
        bytes_deleted=sum(sizes[name] for name in gone),
        bytes_over=max(bytes_kept - policy.max_bytes, 0) if policy.max_bytes is not None else 0,
        windows_before=tuple(
            GenerationWindow(each.generation, each.stretches()) for each in holdings.generations
        ),
        windows_after=tuple(
            GenerationWindow(each.generation, each.stretches(gone)) for each in holdings.generations
        ),
        notes=(*notes, *_older_packs(holdings, sorting, before)),
    )


def _older_packs(holdings: Holdings, sorting: Sorting, before: int | None) -> list[str]:
    """Beside those of a chain that stays though it is older: nothing restores a state of then from them alone, but who
    may read a pack can read what is in it."""
    backups = [
        each for held in holdings.generations for each in held.backups if holdings.spelt[each] in sorting.keep
    ]
    if before is None or all(holdings.time(each) < before for each in backups):
        return []
    later = [each for each in backups if holdings.time(each) >= before]
    needed = {pack for each in later for pack in holdings.packs_of(each)}
    of_older = {pack for each in backups for pack in holdings.packs_of(each)} - needed
    # The name of a pack has whole seconds; its commit may be that of a backup, which is known better.
    commits = {(each.generation, each.txid) for each in later}
    older = [each for each in holdings.packs if each.time < before]
    kept = [holdings.spelt[each] for each in older if (each.generation, each.txid) not in commits]
    kept = [name for name in kept if name in sorting.keep and name not in of_older]
    why = {
        True: "since fulls of a month share their packs: `backup full --anew` makes one that needs none of an earlier "
        "one, and `prune --before` its time lets the others go",
        False: "and go by themselves with a pruning two days later",
    }
    found = []
    for is_needed, reason in why.items():
        names = [name for name in kept if (name in needed) == is_needed]
        if names:
            shown = ", ".join(names[:_PACKS_NAMED]) + (", …" if len(names) > _PACKS_NAMED else "")
            found.append(
                f"content from before {format_time(before)} may be in packs that stay ({len(names)}: {shown}), {reason}"
            )
    return found


def would_break(holdings: Holdings, policy: Policy, now: int, name: BackupName) -> str | None:
    """Why the backup *name* may not be deleted: which promise needs it. None where none does, or where it is only kept
    because it cannot be read."""
    points = [each for each in _sort(holdings, policy, now, None)[0] if each.reason != DOUBT]
    for each in points:
        if each.backup == name:
            return each.reason
    for each in points:
        if name in holdings.held(each.backup.generation).rests_on(each.backup):
            return f"{each.backup.backup_id} lies on it: {each.reason}"
    return None


def _sort(
    holdings: Holdings, policy: Policy, now: int, before: int | None
) -> tuple[list[Point], Sorting, tuple[str, ...]]:
    """The points that are kept, and what becomes of each object."""
    promises = promised(holdings, policy, now, before)
    if promises is None:
        reason = "no backup can be restored for certain, so nothing is deleted"
        return [], Sorting(dict.fromkeys(holdings.sizes, reason), {}), (reason,) if holdings.sizes else ()
    points = list(promises.points)
    sorting = sort_objects(holdings, policy, now, promises, points)
    if policy.max_bytes is not None:
        excess = sum(holdings.sizes[name] for name in sorting.keep) - policy.max_bytes
        if excess > 0:
            points = _without_the_oldest(holdings, points, sorting, excess)
            sorting = sort_objects(holdings, policy, now, promises, points)
    return points, sorting, promises.notes


def _without_the_oldest(
    holdings: Holdings, points: list[Point], sorting: Sorting, excess: int
) -> list[Point]:
    """Monthlies go first, then fulls, then incrementals, the oldest of each first, until *excess* bytes are free."""
    rests_on = {each.backup: holdings.held(each.backup.generation).rests_on(each.backup) for each in points}
    backups = Counter(below for each in points for below in rests_on[each.backup])
    packs = Counter(pack for each in backups for pack in holdings.packs_of(each))
    records: Counter[str] = Counter()
    for event in holdings.events:
        records[event.backup_id] += holdings.sizes[holdings.spelt[event]]
    left = list(points)
    order = sorted(
        (each for each in points if each.goes is not None),
        key=lambda each: (each.goes, holdings.time(each.backup), each.backup.txid),
    )
    for point in order:
        if excess <= 0:
            break
        left.remove(point)
        for backup in rests_on[point.backup]:
            backups[backup] -= 1
            if backups[backup]:
                continue
            excess -= holdings.sizes[holdings.spelt[backup]] + records.get(backup.backup_id, 0)
            for pack in holdings.packs_of(backup):
                packs[pack] -= 1
                if not packs[pack] and pack not in sorting.packs_kept_anyway:
                    excess -= holdings.sizes.get(pack, 0)
    return left
