"""Shelves: model repositories for the tests of retention, with the truth about every commit in them.

What can be restored is found here by definition, commit by commit, from objects as they really are; names, plans and
policies of the package under test have no part in it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cache

from replicator.core.catalogue import Catalogue, Listed, read_listing
from replicator.core.full import SHA256, Manifest
from replicator.core.holdings import Holdings
from replicator.core.incremental import Incremental
from replicator.core.names import (
    FULL,
    INCREMENTAL,
    BackupName,
    CarrierName,
    EventName,
    FullName,
    GenerationName,
    IncrementalName,
    LogName,
    PackName,
    SegmentName,
)
from replicator.core.pack import PackUse
from replicator.core.position import GenerationId
from replicator.core.records import GenerationRecord

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KNOWN = ("repository.json", "metadata.json")

OBJECT_BYTES = {"full": 1_000, "incremental": 500, "log": 300, "segment": 100, "pack": 8_000, "record": 10}


def at(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def month_of(time: int) -> str:
    return (EPOCH + timedelta(microseconds=time)).strftime("%Y-%m")


def generation_id(number: int) -> GenerationId:
    """Their names do not sort as they began."""
    return GenerationId(f"{0xFFFF - 7 * number:016x}")


@cache
def _spelt(name: object) -> str:
    return str(name)


@dataclass
class Shelf:
    """``carried``: what really lies in a log or segment, first and last txid. ``commits``: their times by generation
    and txid. ``unreadable``: backups whose manifest cannot be read."""

    objects: dict[str, int] = field(default_factory=dict)
    records: dict[GenerationId, GenerationRecord] = field(default_factory=dict)
    manifests: dict[BackupName, Manifest | Incremental] = field(default_factory=dict)
    carried: dict[CarrierName, tuple[int, int]] = field(default_factory=dict)
    commits: dict[GenerationId, dict[int, int]] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)
    unreadable: set[BackupName] = field(default_factory=set)
    chains: dict[BackupName, list[BackupName]] = field(default_factory=dict)
    nonces: int = 0

    # --- putting ---------------------------------------------------------------------------------------

    def generation(self, number: int, began: int) -> GenerationId:
        name = generation_id(number)
        record = GenerationRecord(name, "ab" * 16, 1, began, "first run", 4096, None)
        self.records[name] = record
        self.objects[str(GenerationName(name))] = OBJECT_BYTES["record"]
        self.commits.setdefault(name, {0: began})
        return name

    def commit(self, generation: GenerationId, txid: int, time: int) -> None:
        self.commits[generation][txid] = time

    def time(self, generation: GenerationId, txid: int) -> int:
        return self.commits[generation][txid]

    def pack(self, generation: GenerationId, txid: int, tree: str = FULL, time: int | None = None) -> str:
        self.nonces += 1
        time = self.time(generation, txid) if time is None else time
        name = str(PackName(time // SECOND * SECOND, generation, txid, f"{self.nonces:016x}", tree))
        self.objects[name] = OBJECT_BYTES["pack"]
        return name

    def full(
        self, generation: GenerationId, txid: int, *, shares: Iterable[str] = (), began: int | None = None
    ) -> FullName:
        """*shares*: packs of earlier fulls that it names, too."""
        packs = [*shares, self.pack(generation, txid if began is None else began)]
        observed = self.time(generation, txid)
        name = FullName(observed // SECOND * SECOND, generation, txid)
        self.manifests[name] = Manifest(
            repository="ab" * 16, generation=generation, txid=txid, epoch=1, page_size=4096, pages=10,
            chunk_bytes=16384, observed=observed, created=observed, chain=f"{txid:032x}", checksum="0" * 16,
            rolling="0" * 16, hashes=SHA256, chunks_new=1, plain_bytes=1, stored_bytes=1,
            packs=tuple(PackUse(pack, OBJECT_BYTES["pack"]) for pack in packs), tables=(),
        )  # fmt: skip
        self.objects[str(name)] = OBJECT_BYTES["full"]
        return name

    def incremental(self, parent: BackupName, txid: int) -> IncrementalName:
        pack = self.pack(parent.generation, txid, INCREMENTAL)
        observed = self.time(parent.generation, txid)
        name = IncrementalName(observed // SECOND * SECOND, parent.generation, parent.txid, txid)
        self.manifests[name] = Incremental(
            repository="ab" * 16, generation=parent.generation, txid=txid, epoch=1, page_size=4096, pages=10,
            observed=observed, created=observed, chain=f"{txid:032x}", checksum="0" * 16, rolling="0" * 16,
            parent=parent.backup_id, parent_txid=parent.txid, parent_chain=f"{parent.txid:032x}",
            pages_stored=1, plain_bytes=1, stored_bytes=1,
            packs=(PackUse(pack, OBJECT_BYTES["pack"]),), tables=(),
        )  # fmt: skip
        self.objects[str(name)] = OBJECT_BYTES["incremental"]
        return name

    def log(self, generation: GenerationId, first: int, last: int) -> LogName:
        time = self.time(generation, last)
        name = LogName(time // SECOND * SECOND, generation, first, last)
        self.carried[name] = (first, last)
        self.objects[str(name)] = OBJECT_BYTES["log"]
        return name

    def segment(self, generation: GenerationId, first: int, last: int, *, part: int = 0) -> SegmentName:
        name = SegmentName(generation, first, part)
        self.carried[name] = (first, last)
        self.objects[str(name)] = OBJECT_BYTES["segment"]
        return name

    def event(self, backup_id: str, event: str = "checksummed") -> str:
        name = str(EventName(backup_id, event))
        self.objects[name] = OBJECT_BYTES["record"]
        if event == "pinned":
            self.pins.add(backup_id)
        return name

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            del self.objects[name]

    def forget(self) -> None:
        """What is not there any more and nothing there was made on, so that a long history stays quick."""
        needed = {below for each in self.backups() for below in self.chain(each)}
        self.manifests = {name: each for name, each in self.manifests.items() if name in needed}
        self.carried = {name: each for name, each in self.carried.items() if self.has(name)}

    def copy(self) -> Shelf:
        """As far as anything in it can change."""
        values = {each.name: copy.copy(getattr(self, each.name)) for each in fields(self)}
        return Shelf(**{**values, "commits": {name: dict(each) for name, each in self.commits.items()}})

    # --- as the package sees it ------------------------------------------------------------------------

    def catalogue(self) -> Catalogue:
        listed = [Listed(name, size) for name, size in sorted(self.objects.items())]
        records = {name: record for name, record in self.records.items() if self.has(GenerationName(name))}
        return read_listing(listed, records, known=KNOWN)

    def holdings(self, running: GenerationId | None = None) -> Holdings:
        return Holdings(
            self.catalogue(),
            {name: each for name, each in self.manifests.items() if self.is_readable(name)},
            frozenset(self.pins),
            running,
        )

    # --- the truth -------------------------------------------------------------------------------------

    def has(self, name: object) -> bool:
        return _spelt(name) in self.objects

    def is_readable(self, backup: BackupName) -> bool:
        return self.has(backup) and backup not in self.unreadable

    def backups(self, kind: type[BackupName] | None = None) -> list[BackupName]:
        """Those that are there, by time and position."""
        found = [each for each in self.manifests if self.has(each) and isinstance(each, kind or object)]
        return sorted(found, key=lambda each: (self.observed(each), each.txid))

    def observed(self, backup: BackupName) -> int:
        return self.time(backup.generation, backup.txid)

    def chain(self, backup: BackupName) -> list[BackupName]:
        """It and what it was made on, down to the full, by what its manifest said when it was put."""
        if backup in self.chains:
            return self.chains[backup]
        found = [backup]
        while isinstance(found[-1], IncrementalName):
            parent = self.manifests[found[-1]].parent  # type: ignore[union-attr]
            found.append(
                next(
                    each
                    for each in self.manifests
                    if each.txid == found[-1].txid_from and each.backup_id == parent
                )
            )
        self.chains[backup] = found
        return found

    def is_whole(self, backup: BackupName) -> bool:
        return all(
            self.is_readable(each) and all(self.has(pack.name) for pack in self.manifests[each].packs)
            for each in self.chain(backup)
        )

    def reachable(self, generation: GenerationId) -> set[int]:
        """Every txid that can be restored: from each whole backup as far as what is carried goes on."""
        spans = sorted(
            span for name, span in self.carried.items() if name.generation == generation and self.has(name)
        )
        found: set[int] = set()
        for backup in self.backups():
            if backup.generation != generation or not self.is_whole(backup):
                continue
            end = backup.txid
            for first, last in spans:
                if first <= end + 1:
                    end = max(end, last)
            found |= set(range(backup.txid, end + 1))
        return found & set(self.commits[generation])
