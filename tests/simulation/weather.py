"""A store that delays, fails before or after it took the bytes, and tells late what it lists; and what must be true of
each store at every moment.

It is the folder store: so it loses what was not synced when the power is cut, unless it stands elsewhere.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.core.catalogue import Listed
from replicator.core.errors import ObjectNotFound, StoreError, StoreUnavailable
from replicator.core.full import decode_manifest
from replicator.core.incremental import decode_incremental
from replicator.core.names import FullName, IncrementalName, PackName, SegmentName, parse_name, tail_prefix
from replicator.core.position import GenerationId
from replicator.core.records import lease_in_segment
from replicator.core.unit import UnitHeader, decode_unit, follows, split_units
from replicator.store import opening
from replicator.store.folder import FolderStore
from tests.simulation.turns import Turns

_T = TypeVar("_T")


@dataclass(slots=True)
class Ledger:
    """What a store holds, by what was done to it; what is *sealed* cannot be looked into. Each rule is an invariant of
    docs/ARCHITECTURE.md, named by what it says."""

    sealed: bool = False
    attempts: dict[str, bytes] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    _packs: dict[str, set[str]] = field(default_factory=dict)
    _tips: dict[GenerationId, bytes] = field(default_factory=dict)
    _fulls: set[tuple[GenerationId, int]] = field(default_factory=set)

    def attempted(self, name: str, data: bytes) -> None:
        """Bytes are final before the first attempt; of units there may be more by the next one, and a backup that could
        not be committed is made again."""
        if self.sealed:
            return  # sealed anew it differs, and is compared by what is in it
        if isinstance(parse_name(name), (SegmentName, PackName)):
            before = self.attempts.setdefault(name, data)
            longer, shorter = max(before, data, key=len), min(before, data, key=len)
            same = longer.startswith(shorter) if isinstance(parse_name(name), SegmentName) else before == data
            assert same, f"{name} is put with other bytes than before"

    def put(self, name: str, data: bytes) -> None:
        """It is there, whether anybody was told so or not."""
        assert name not in self.there, f"{name} was put twice"
        self.there.add(name)
        match None if self.sealed else parse_name(name):
            case FullName() as found:
                manifest = decode_manifest(data, name)
                self._backup(name, {each.name for each in manifest.packs})
                self._fulls.add((found.generation, found.txid))
            case IncrementalName():
                self._backup(name, {each.name for each in decode_incremental(data, name).packs})
            case SegmentName() if lease_in_segment(data, name) is None:
                for view in split_units(data):
                    unit = decode_unit(view)
                    self._unit(name, unit.header, unit.digest)
            case _:
                pass

    def reconcile(self, store: FolderStore) -> None:
        """After a crash: what was put is there still; and what is there was put, though nobody was told."""
        there = {each.name: each for each in FolderStore.list(store, "")}
        gone = {each for each in self.acknowledged if each not in there}
        assert not gone, f"{sorted(gone)} were put, and are gone"
        for each in (self.there, self._packs, self._tips, self._fulls):
            each.clear()
        for name in sorted(there, key=_in_the_order_of_puts):
            self.put(name, FolderStore.get(store, name))

    def deleted(self, name: str) -> None:
        """Manifest, then data."""
        self.there.discard(name)
        self.acknowledged.discard(name)
        match parse_name(name):
            case SegmentName(generation) if not any(
                each.startswith(tail_prefix(generation)) for each in self.there
            ):
                self._tips.pop(generation, None)  # what no full led to in time
        self._packs.pop(name, None)
        users = [user for user, packs in self._packs.items() if name in packs]
        assert not users, f"{name} is deleted, and {users[0]} needs it"

    def _backup(self, name: str, packs: set[str]) -> None:
        """Data, then manifest."""
        missing = packs - self.there
        assert not missing, f"{name} is put, and its {missing} is not there"
        self._packs[name] = packs

    def _unit(self, name: str, header: UnitHeader, digest: bytes) -> None:
        """Units are chained; a hole ends at a full."""
        before = self._tips.get(header.generation)
        if before is not None and not follows(header, before):
            full = (header.generation, header.txid_first - 1) in self._fulls
            assert full, f"{name} does not follow what lies there"
        self._tips[header.generation] = digest


def _in_the_order_of_puts(name: str) -> tuple[int, int, int, str]:
    """Packs before what names them, fulls before what follows them, units as they are chained."""
    match parse_name(name):
        case SegmentName(_, txid, part):
            return 2, txid, part, name
        case FullName() | IncrementalName():
            return 1, 0, 0, name
        case _:
            return 0, 0, 0, name


@dataclass(slots=True)
class Weather:
    """Of one store. ``bad``: how likely a call fails, half of them after their effect; ``slow``: how long one may
    take; ``away``: nothing answers."""

    rng: random.Random
    turns: Turns
    bad: float = 0.0
    slow: float = 0.0
    away: bool = False
    calls: int = 0
    failed: int = 0
    wrong: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """What is wrong is remembered: the program would take it for an answer of the store."""
        try:
            yield
        except AssertionError as exc:
            self.wrong.append(str(exc))

    def run(self, call: Callable[[], _T]) -> _T:
        self.calls += 1
        self.turns.sleep(self.rng.random() * self.slow)
        if self.away or self.rng.random() < self.bad / 2:
            self._fail("before")
        result = call()
        self.turns.sleep(self.rng.random() * self.slow)
        if self.rng.random() < self.bad / 2:
            self._fail("after")
        return result

    def _fail(self, when: str) -> None:
        self.failed += 1
        raise StoreUnavailable(f"bad weather, {when} it")


@contextlib.contextmanager
def in_weather(found: Callable[[FolderStore], Weather]) -> Iterator[None]:
    """For as long as this lasts every store that is opened stands in the weather that *found* tells."""

    class StormyFolder(FolderStore):
        def put(self, name: str, data: bytes) -> None:
            weather = found(self)
            ledger = weather.ledger
            with weather.judging():
                ledger.attempted(name, data)

            def put() -> None:
                try:
                    super(StormyFolder, self).put(name, data)
                except StoreError:
                    # Whoever put it was killed before it could be told; or it is there, but its folder was not synced.
                    with weather.judging(), contextlib.suppress(ObjectNotFound):
                        if name not in ledger.there:
                            ledger.put(name, super(StormyFolder, self).get(name))
                    raise
                with weather.judging():
                    ledger.put(name, data)
                if parse_name(name) is not None:
                    ledger.acknowledged.add(name)

            weather.run(put)

        def get(self, name: str) -> bytes:
            return found(self).run(lambda: super(StormyFolder, self).get(name))

        def get_start(self, name: str, length: int) -> tuple[bytes, int]:
            return found(self).run(lambda: super(StormyFolder, self).get_start(name, length))

        def get_range(self, name: str, offset: int, length: int) -> bytes:
            return found(self).run(lambda: super(StormyFolder, self).get_range(name, offset, length))

        def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
            """What was there when it was asked; it arrives late."""
            yield from found(self).run(lambda: [*super(StormyFolder, self).list(prefix, after)])

        def delete(self, name: str) -> None:
            def delete() -> None:
                with found(self).judging():
                    found(self).ledger.deleted(name)
                super(StormyFolder, self).delete(name)

            found(self).run(delete)

        def replace(self, name: str, data: bytes) -> None:
            found(self).run(lambda: super(StormyFolder, self).replace(name, data))

        def modified(self, name: str) -> int:
            return found(self).run(lambda: super(StormyFolder, self).modified(name))

    before, opening.FolderStore = opening.FolderStore, StormyFolder  # type: ignore[misc]
    try:
        yield
    finally:
        opening.FolderStore = before  # type: ignore[misc]
