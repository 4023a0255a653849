"""What must be restorable, and whether it is."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from replicator.core.errors import KeyRefused, RepositoryNotFound, TargetUnreachable
from replicator.core.full import decode_manifest
from replicator.core.incremental import decode_incremental
from replicator.core.names import LEASES, FullName, GenerationName, IncrementalName, SegmentName, parse_name
from replicator.core.position import GenerationId, Position
from replicator.core.unit import Unit, decode_unit, split_units
from replicator.keys import KeySource, unlocked
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store import Store
from tests.simulation.application import History


@dataclass(slots=True)
class _Generation:
    """Numbers of commits. ``full``: of its newest complete full; ``units``: of the newest unit. ``first``: the txid of
    its oldest full, before which nothing can be had."""

    full: int | None = None
    first: int = 0
    units: int = -1


@dataclass(slots=True)
class Shipped:
    """What one store acknowledged, by commit. ``points``: every position that can be asked for from its first full on,
    with the commit it stands for and when that was observed; an immutable value, replaced when it changes."""

    history: History
    points: dict[Position, tuple[int, int]] = field(default_factory=dict)
    _generations: dict[GenerationId, _Generation] = field(default_factory=dict)
    _in_segment: dict[str, list[Position]] = field(default_factory=dict)

    def took(self, name: str, data: bytes) -> None:
        """A put of that object, plain, has returned."""
        match parse_name(name):
            case GenerationName(generation):
                self._of(generation)
            case SegmentName():
                units = [decode_unit(view) for view in split_units(data)]
                self._in_segment[name] = [
                    Position(each.header.generation, entry.txid) for each in units for entry in each.entries
                ]
                for each in units:
                    self._unit(each)
            case FullName():
                full = decode_manifest(data, name)
                self._backup(full.position, full.checksum, full.observed)
            case IncrementalName():
                incremental = decode_incremental(data, name)
                self._backup(incremental.position, incremental.checksum, incremental.observed)
            case _:
                pass

    def _of(self, generation: GenerationId) -> _Generation:
        return self._generations.setdefault(generation, _Generation())

    def _unit(self, unit: Unit) -> None:
        header = unit.header
        if not header.commits or (header.part and not header.last_part):
            return
        number = self.history.number_of_end(tuple(header.cursor.checksum))
        of = self._of(header.generation)
        of.units = max(number, of.units)
        if of.full is not None:
            # Commits in a unit follow each other, and each entry but one that was merged is a restore point.
            self._add(
                {
                    Position(header.generation, each.txid): (
                        number - (header.txid_last - each.txid),
                        each.observed,
                    )
                    for each in unit.entries
                    if each.txid >= of.first
                }
            )

    def _backup(self, position: Position, checksum: str, observed: int) -> None:
        of = self._of(position.generation)
        number = self.history.number_of_checksum(checksum)
        of.first = min(of.first, position.txid) if of.full is not None else position.txid
        of.full = max(of.full if of.full is not None else -1, number)
        self._add({position: (number, observed)})

    def _add(self, points: dict[Position, tuple[int, int]]) -> None:
        self.points = {**self.points, **points}

    def spoilt(self, name: str) -> None:
        """That segment was damaged: what is in it cannot be had until it is put back."""
        for position in self._in_segment.get(name, ()):
            self.points = {at: each for at, each in self.points.items() if at != position}

    def expire(self, before: int) -> None:
        """What was observed before that time is not promised any more."""
        self.points = {at: each for at, each in self.points.items() if each[1] >= before}

    @property
    def floor(self) -> int | None:
        """Nothing older than this commit may be restored; None while there is no complete full."""
        for each in reversed(self._generations.values()):
            if each.full is not None:
                return max(each.full, each.units)
        return None


@dataclass(frozen=True, slots=True)
class Restored:
    position: Position
    digest: str


def restore(
    store: Store, output: str, source: KeySource, target: Target | None = None, *, verify: str = "none"
) -> Restored | None:
    """What comes out; None where there is nothing yet to restore."""
    try:
        repository = read_repository(unlocked(store, source))
        chosen = choose(repository, target or Target())
    except (RepositoryNotFound, TargetUnreachable):
        return None
    except KeyRefused:
        if list(store.list(LEASES)):
            raise
        return None  # nobody writes there yet
    result = restore_chosen(repository, chosen, output, RestoreOptions(verify=verify, overwrite=False))
    with open(output, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    os.unlink(output)
    return Restored(result.position, digest)
