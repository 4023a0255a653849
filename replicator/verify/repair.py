"""Repair: put back what is hurt in a store, from the spool, from the other stores and from the state folder; and set
aside the backups that cannot be put back, so that nobody relies on them.

Only who writes to a store does that. Each object is looked at once more before: what was damaged on the way is not
damaged there. A name is put once, so what is hurt is deleted before: one that ends between the two leaves a hole, which
the next one finds.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from replicator.core.catalogue import GenerationListing
from replicator.core.errors import (
    FormatTooNew,
    KeyRefused,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    ReplicatorError,
    RepositoryNotFound,
    StoreDenied,
    StoreUnavailable,
)
from replicator.core.log import encode_log
from replicator.core.names import (
    METADATA,
    REPOSITORY,
    BackupName,
    CarrierName,
    EventName,
    FullName,
    IncrementalName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
)
from replicator.core.position import GenerationId, Position
from replicator.core.records import (
    DAMAGED,
    EventRecord,
    encode_record,
)
from replicator.core.restore_plan import chain_of
from replicator.core.unit import UnitHeader, decode_unit, follows
from replicator.events import damaged_backups
from replicator.repository import Repository, read_repository
from replicator.spool import Spool
from replicator.state import StateFolder
from replicator.store import Store
from replicator.store.sealed import SealedStore
from replicator.verify.content import check_full, check_incremental
from replicator.verify.records import Records, Repaired
from replicator.verify.stored import check_plain

log = logging.getLogger(__name__)

Units = Mapping[tuple[int, int], tuple[UnitHeader, bytes]]
"""By the first txid and the part."""


class Repair:
    """Of one store. *others*: the stores that may have the same. *shipped*: how far it is by what was put there."""

    def __init__(
        self,
        store: SealedStore,
        others: Callable[[], Sequence[Store]],
        *,
        state: StateFolder,
        spool: Spool,
        slot: Callable[[], bytes | None],
        shipped: Callable[[], Position | None],
        wall: Callable[[], int],
    ) -> None:
        self._store = store
        self._others = others
        self._state = state
        self._spool = spool
        self._shipped = shipped
        self._wall = wall
        self._records = Records(store, others, state=state, slot=slot, wall=wall)
        self.identify = self._records.identify

    def run(self, names: Sequence[str]) -> Repaired:
        """*names*: of the objects that verify found hurt. Raises StoreError."""
        done = Repaired()
        repository = read_repository(self._store)
        carriers: list[CarrierName] = []
        for name in names:
            parsed = parse_name(name)
            if name.startswith("generation "):
                done.left[name] = "nothing that it could begin with is left"
                continue
            if parsed is None and name not in (REPOSITORY, METADATA):
                done.left[name] = "it is none of ours"
                continue
            if name == METADATA:
                done.put_back.append(name)  # made anew after this
                continue
            if isinstance(parsed, FullName | IncrementalName | PackName):
                continue
            try:
                is_well = self._records.is_well(name)
            except (FormatTooNew, KeyRefused) as exc:
                done.left[name] = str(exc)  # whoever can read it may find it whole
                continue
            if is_well:
                if not (isinstance(parsed, SegmentName | LogName) and self._fill(repository, parsed, done)):
                    done.well.append(name)
            elif isinstance(parsed, SegmentName | LogName):
                carriers.append(parsed)
            else:
                self._records.put(name, parsed, done)
        for carrier in carriers:
            self._put_carrier(repository, carrier, done)
        self._look_for_gone(repository, names, done)
        self._set_aside(repository, names, done)
        log.info(
            "repaired",
            extra={"store": self._store.url, "objects": len(done.put_back), "set_aside": len(done.set_aside)},
        )
        return done

    # --- logs and segments -----------------------------------------------------------------------------

    def _put_carrier(self, repository: Repository, name: CarrierName, done: Repaired) -> None:
        listing = repository.catalogue.generation(name.generation)
        last = self._last_of(listing, name)
        if last is None:
            done.left[str(name)] = "where it ended is not known"
            return
        for units in self._sources(name, last):
            chained = _chained(units, name, last)
            if chained is None:
                continue
            if isinstance(name, LogName):
                self._put_log(name, chained, done)
            else:
                self._records.replace(str(name), _joined(chained), done)
            return
        done.left[str(name)] = _nowhere(name.txid_first, last)

    def _put_log(self, name: LogName, chained: Sequence[tuple[UnitHeader, bytes]], done: Repaired) -> None:
        """Until it is there again a segment has its units: nobody sees that a log is gone that nothing precedes."""
        stand_in = str(SegmentName(name.generation, name.txid_first, chained[0][0].part))
        with contextlib.suppress(ObjectExists):
            self._store.put(stand_in, _joined(chained))
        self._records.replace(str(name), encode_log(name, chained), done)
        if self._records.is_well(str(name)):  # read back
            with contextlib.suppress(StoreDenied):
                self._store.delete(stand_in)

    def _fill(self, repository: Repository, name: CarrierName, done: Repaired) -> bool:
        """Whether something was missing before *name*; it is put back as a segment."""
        listing = repository.catalogue.generation(name.generation)
        if listing is None or name not in listing.carriers:
            return False
        before = max((each.txid for each in listing.backups if each.txid < name.txid_first), default=0)
        for each in listing.carriers[: listing.carriers.index(name)]:
            with contextlib.suppress(ObjectCorrupt, ObjectNotFound):  # which is put back itself
                header = repository.carried(each).headers[-1]
                before = max(before, header.txid_last if header.commits else header.txid_first - 1)
        if before + 1 >= name.txid_first:
            return False
        for part in (0, 1):
            missing = SegmentName(name.generation, before + 1, part)
            for units in self._sources(missing, name.txid_first - 1):
                chained = _chained(units, missing, name.txid_first - 1)
                if chained is not None:
                    self._records.replace(str(missing), _joined(chained), done)
                    return True
        done.left[str(name)] = _nowhere(before + 1, name.txid_first - 1)
        return True

    def _last_of(self, listing: GenerationListing | None, name: CarrierName) -> int | None:
        """The last transaction in it: told by its name, by what follows, or by how far the store is."""
        if isinstance(name, LogName):
            return name.txid_last
        behind = (
            (each for each in listing.carriers if each.txid_first > name.txid_first) if listing else iter(())
        )
        following = next(behind, None)
        if following is not None:
            return following.txid_first - 1
        shipped = self._shipped()
        if shipped is not None and shipped.generation == name.generation and shipped.txid >= name.txid_first:
            return shipped.txid
        # An agent that found its newest segment damaged has made a full: what follows begins behind that.
        backups = listing.backups if listing is not None else ()
        return next((each.txid for each in backups if each.txid >= name.txid_first), None)

    def _sources(self, name: CarrierName, last: int) -> Iterator[Units]:
        """The spool first, then one store after the other: what each has of those transactions."""
        yield {
            (header.txid_first, header.part): (header, unit)
            for header, unit in self._spool.all_units()
            if header.generation == name.generation and name.txid_first <= header.txid_first <= last
        }
        for other in self._others():
            try:
                yield _units_in(read_repository(other), name.generation, name.txid_first, last)
            except ReplicatorError as exc:
                log.warning("store.unusable", extra={"store": other.url, "error": str(exc)})

    # --- backups ---------------------------------------------------------------------------------------

    def _set_aside(self, repository: Repository, names: Sequence[str], done: Repaired) -> None:
        hurt = set(names)
        for listing in repository.catalogue.generations:
            left = listing
            for backup in listing.backups:  # what others lie on before them
                try:
                    fault = self._fault_of(repository, backup, hurt)
                except (FormatTooNew, KeyRefused) as exc:
                    done.left[str(backup)] = str(exc)
                    continue
                lost = fault is None and chain_of(left, backup) is None
                if (fault and self._copied(backup, done)) or (
                    lost and self._copied_below(left, backup, done)
                ):
                    continue
                if lost and (str(backup) in hurt or chain_of(listing, backup) is not None):
                    fault = "the backup it lies on is gone"
                if fault is None:
                    continue
                left = left.without(backup)
                self._note_damaged(backup, fault, done)

    def _look_for_gone(self, repository: Repository, names: Sequence[str], done: Repaired) -> None:
        """Backups of which only a record is left."""
        there = {str(backup) for listing in repository.catalogue.generations for backup in listing.backups}
        for name in names:
            parsed = parse_name(name)
            if not isinstance(parsed, FullName | IncrementalName) or name in there:
                continue
            if not self._copied(parsed, done):
                self._note_damaged(parsed, "it is gone", done)

    def _note_damaged(self, backup: BackupName, fault: str, done: Repaired) -> None:
        record = EventRecord(backup.backup_id, DAMAGED, self._wall(), {"fault": fault[:500]})
        with contextlib.suppress(ObjectExists):
            self._store.put(str(EventName(backup.backup_id, DAMAGED)), encode_record(record))
            done.set_aside.append(str(backup))

    def _copied_below(self, listing: GenerationListing, backup: BackupName, done: Repaired) -> bool:
        """Whether another store has what *backup* lies on, where that is gone, and this one has it from there now."""
        for other in self._others():
            try:
                theirs = read_repository(other).catalogue.generation(listing.generation)
            except ReplicatorError as exc:
                log.warning("store.unusable", extra={"store": other.url, "error": str(exc)})
                continue
            chain = chain_of(theirs, backup) if theirs is not None else None
            below: tuple[BackupName, ...] = (chain[0], *chain[1]) if chain is not None else ()
            missing = [each for each in below if each not in listing.backups]
            hurt = damaged_backups(self._store)
            if missing and all(each.backup_id not in hurt and self._copied(each, done) for each in missing):
                return True
        return False

    def _copied(self, backup: BackupName, done: Repaired) -> bool:
        """Whether another store has the same backup, whole, and this one has it from there now."""
        for other in self._others():
            try:
                theirs = read_repository(other)
                packs = [pack.name for pack in theirs.backup(backup).packs]
                if theirs.identity != self._state.repository or self._fault_of(
                    theirs, backup, {str(backup), *packs}
                ):
                    continue
                for name in (*packs, str(backup)):
                    self._copy(other, name, done)
                return not any(name in done.left for name in (*packs, str(backup)))
            except StoreUnavailable as exc:
                log.warning("store.unusable", extra={"store": other.url, "error": str(exc)})
            except (ObjectCorrupt, ObjectNotFound, RepositoryNotFound, FormatTooNew, KeyRefused):
                continue
        return False

    def _copy(self, other: Store, name: str, done: Repaired) -> None:
        """Data before the manifest; what is the same already is left alone."""
        content = other.get(name)
        with contextlib.suppress(ObjectCorrupt, ObjectNotFound):
            if self._store.get(name) == content:
                return
        self._records.replace(name, content, done)

    def _fault_of(self, repository: Repository, backup: BackupName, hurt: set[str]) -> str | None:
        """What is wrong with it, if *hurt* has to do with it, and something is."""
        try:
            manifest = repository.backup(backup)
        except (ObjectCorrupt, ObjectNotFound) as exc:
            return str(exc)
        packs = [pack.name for pack in manifest.packs if pack.name in hurt]
        if not packs and str(backup) not in hurt:
            return None
        for pack in packs:
            try:
                check_plain(repository.store.get(pack), pack)
            except (ObjectCorrupt, ObjectNotFound) as exc:
                return str(exc)
        if isinstance(backup, FullName):
            dedup = self._store.dedup()
            return next(check_full(repository, repository.manifest(backup), dedup, _nothing), None)
        return next(check_incremental(repository, repository.incremental(backup), _nothing), None)


def _joined(chained: Sequence[tuple[UnitHeader, bytes]]) -> bytes:
    return b"".join(unit for _, unit in chained)


def _nowhere(first: int, last: int) -> str:
    return f"no spool and no other store has the transactions {first:016x} to {last:016x}"


def is_carrier(name: str) -> bool:
    """Whether *name* is that of a log or a segment: where one is missing, restore points end until the next full."""
    return isinstance(parse_name(name), SegmentName | LogName)


def _nothing() -> None:
    pass


def _units_in(repository: Repository, generation: GenerationId, first: int, last: int) -> Units:
    found: dict[tuple[int, int], tuple[UnitHeader, bytes]] = {}
    listing = repository.catalogue.generation(generation)
    for carrier in listing.carriers if listing is not None else ():
        if carrier.txid_first > last:
            break
        if isinstance(carrier, LogName) and carrier.txid_last < first:
            continue
        carried = repository.carried(carrier)
        for number, header in enumerate(carried.headers):
            if first <= header.txid_first <= last:
                found[header.txid_first, header.part] = (header, carried.raw(number))
    return found


def _chained(units: Units, name: CarrierName, last: int) -> list[tuple[UnitHeader, bytes]] | None:
    """Those from the beginning of *name* to *last*, each proved and on the one before; None where one is missing."""
    key = (name.txid_first, name.part if isinstance(name, SegmentName) else 0)
    if key not in units and isinstance(name, LogName):
        key = (name.txid_first, 1)
    found: list[tuple[UnitHeader, bytes]] = []
    digest: bytes | None = None
    while True:
        each = units.get(key)
        if each is None:
            return None
        unit = decode_unit(each[1])
        if unit.header.generation != name.generation:
            return None
        if digest is not None and not follows(unit.header, digest):
            return None
        found.append(each)
        digest = unit.digest
        header = unit.header
        if header.commits and header.txid_last >= last:
            return found if header.txid_last == last else None
        if header.commits:
            key = (header.txid_last + 1, 0)
            key = key if key in units else (header.txid_last + 1, 1)
        else:
            key = (header.txid_first, header.part + 1)
