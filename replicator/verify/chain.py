"""What carries units: one behind the other, each chained to the one before, and backups where they say they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from replicator.core.catalogue import GenerationListing
from replicator.core.coverage import Span
from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.names import BackupName, CarrierName, LeaseName, LogName
from replicator.core.records import lease_in_segment
from replicator.core.unit import Unit, follows, lies_before
from replicator.repository import Carried, Repository
from replicator.verify.content import Read, Tell


@dataclass(frozen=True, slots=True)
class Hole:
    """Transactions that nothing carries, and what lies behind them. ``ends``: a backup stands there, so that restore
    points begin again; a store that lapsed has such holes, and one that lost a log looks the same."""

    first: int
    last: int
    behind: CarrierName
    ends: bool

    @property
    def text(self) -> str:
        return f"transactions {self.first:016x} to {self.last:016x} before it are missing"


def holes_by_name(listing: GenerationListing) -> Iterator[Hole]:
    """As far as names tell: where a segment ends only its content says."""
    stands = {backup.txid for backup in listing.backups}
    for before, after in pairwise(listing.carriers):
        if isinstance(before, LogName) and after.txid_first > before.txid_last + 1:
            last = after.txid_first - 1
            yield Hole(before.txid_last + 1, last, after, ends=last in stands)


def spans_by_name(read: Read) -> None:
    """Without reading any: where they begin, and up to what follows."""
    carriers = read.listing.carriers
    for number, name in enumerate(carriers):
        following = carriers[number + 1] if number + 1 < len(carriers) else None
        span = _unread_span(name, following, 0)
        read.spans[name] = replace(span, whole=str(name) not in read.hurt)
    read.holes += [_span(each) for each in holes_by_name(read.listing) if not each.ends]


def _span(hole: Hole, first: int = 0, last: int = 0) -> Span:
    return Span(hole.first, hole.last, first, last, whole=False)


def _unread_span(name: CarrierName, following: CarrierName | None, time: int) -> Span:
    """As far as names tell: up to what follows."""
    if isinstance(name, LogName):
        return Span(name.txid_first, name.txid_last, time or name.time, name.time, whole=False)
    last = following.txid_first - 1 if following is not None else name.txid_first
    return Span(name.txid_first, max(last, name.txid_first), time, time, whole=False)


def read_carriers(repository: Repository, read: Read, tell: Tell, look: Callable[[], None]) -> None:
    """Every log and segment. What lies after a hole has to begin where a backup stands, or nothing leads there."""
    walk = _Walk(repository, read, tell)
    carriers = read.listing.carriers
    for number, name in enumerate(carriers):
        look()
        following = carriers[number + 1] if number + 1 < len(carriers) else None
        try:
            walk.carrier(name)
        except (ObjectCorrupt, ObjectNotFound) as exc:
            if not walk.fence(name):
                walk.unread(name, following, str(exc))


class _Walk:
    """``_end``: txid and digest of the unit before, and its part; None where that could not be read."""

    def __init__(self, repository: Repository, read: Read, tell: Tell) -> None:
        self._repository = repository
        self._read = read
        self._tell = tell
        self._stands = {backup.txid for backup in read.listing.backups}
        self._end: tuple[int, bytes, int] | None = None
        self._time = 0

    def carrier(self, name: CarrierName) -> None:
        carried = self._repository.carried(name)
        if not carried.holds_what_it_says:
            raise ObjectCorrupt("it lies under a name not its own")
        self._chain(carried)
        first, last = carried.headers[0], carried.headers[-1]
        self._read.spans[name] = Span(
            first.txid_first, last.txid_last if last.commits else last.txid_first - 1,
            first.observed_first, last.observed_last,
        )  # fmt: skip
        self._time = last.observed_last

    def unread(self, name: CarrierName, following: CarrierName | None, fault: str) -> None:
        self._tell(str(name), fault)
        self._read.hurt.add(str(name))
        self._read.spans[name] = _unread_span(name, following, self._time)
        self._end = None

    def fence(self, name: CarrierName) -> bool:
        """Whether that is what lies there, seen by nobody since the lease that it repeats is lost."""
        try:
            lease = lease_in_segment(self._repository.store.get(str(name)), str(name))
        except (ObjectCorrupt, ObjectNotFound):
            return False
        if lease is None:
            return False
        lost = LeaseName(lease.epoch)
        if lost not in self._repository.catalogue.leases:
            self._tell(str(lost), f"it is missing, and {name} repeats it")
        return True

    def _chain(self, carried: Carried) -> None:
        for unit in carried.units():
            if self._end is not None and lies_before(unit.header, self._end[0], self._end[2]):
                continue  # it lies in what is before it, too
            if self._end is not None and self._goes_on(carried.name, unit, self._end):
                if not follows(unit.header, self._end[1]):
                    raise ObjectCorrupt(
                        f"it does not chain to what is before it (txid {unit.header.txid_first:016x})"
                    )
            elif unit.header.part <= 1:
                self._begin_at_backup(unit)
            self._advance(unit)

    def _goes_on(self, name: CarrierName, unit: Unit, end: tuple[int, bytes, int]) -> bool:
        """Whether *unit* is the next one. What is missing before it is told of, unless a backup stands there."""
        header, (txid, _, part) = unit.header, end
        first = header.txid_first
        if first == txid + 1 and header.part == (part + 1 if part else min(header.part, 1)):
            return True
        self._end = None
        if first - 1 in self._stands and header.part <= 1:
            return False
        hole = Hole(txid + 1, max(first - 1, txid + 1), name, ends=False)
        self._tell(
            str(name),
            hole.text if first > txid + 1 else f"parts of transaction {first:016x} before it are missing",
        )
        self._read.holes.append(_span(hole, self._time, header.observed_first))
        return False

    def _begin_at_backup(self, unit: Unit) -> None:
        """What begins anew behind a backup was chained to it."""
        for name, chain in self._backups_at(unit.header.txid_first - 1):
            if not follows(unit.header, chain):
                raise ObjectCorrupt(f"it does not chain to {name.backup_id}, behind which it begins")

    def _advance(self, unit: Unit) -> None:
        header = unit.header
        proved = self._end is not None
        if not header.commits:
            self._end = header.txid_first - 1, unit.digest, header.part
            return
        self._end = header.txid_last, unit.digest, 0
        if not proved:
            return  # and so nobody can say which of the two is wrong
        for name, chain in self._backups_at(header.txid_last):
            if chain != unit.digest:
                self._tell(
                    str(name), "it is of another history than the transactions that lead to where it stands"
                )
                self._read.hurt.add(str(name))

    def _backups_at(self, txid: int) -> list[tuple[BackupName, bytes]]:
        return [
            (name, bytes.fromhex(manifest.chain))
            for name, manifest in self._read.manifests.items()
            if name.txid == txid
        ]
