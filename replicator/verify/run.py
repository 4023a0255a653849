"""Verify: look at a repository as closely as was asked for, name what is hurt, and what it takes away."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from replicator.core.catalogue import Catalogue, GenerationListing, Listed
from replicator.core.coverage import Base, lost
from replicator.core.errors import KeyRefused, ObjectCorrupt, ObjectNotFound, ReplicatorError
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental
from replicator.core.lost_backups import lost_backups
from replicator.core.metadata import decode_metadata, stored_in
from replicator.core.names import (
    METADATA,
    REPOSITORY,
    BackupName,
    FullName,
    GenerationName,
    IncrementalName,
    PackName,
    parse_name,
    split_revision,
)
from replicator.core.position import GenerationId
from replicator.core.records import decode_generation
from replicator.repository import Repository, read_repository
from replicator.slots import is_sealed, key_ids_in, readable_record_in
from replicator.store.sealed import SealedStore
from replicator.verify.chain import read_carriers, spans_by_name
from replicator.verify.content import Read, bases_of, check_full, check_incremental, read_backups, spans_of
from replicator.verify.counted import CountedStore
from replicator.verify.names import look_at_names
from replicator.verify.report import LEVELS, Limits, Lost, Progress, Report, Sampled
from replicator.verify.stored import check_stored, key_of

# Objects read at once: each has up to 32 MiB.
JOBS = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Looked:
    """At an object by itself: what is wrong with it, and the key it is sealed with. ``differs``: METADATA says another
    checksum of it."""

    fault: str | None = None
    key_id: str | None = None
    differs: bool = False


class _OutOfTime(Exception):
    pass


def verify(
    store: SealedStore,
    level: str,
    limits: Limits,
    *,
    restore: Callable[[Repository, GenerationListing], None],
    on_progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], None] = lambda: None,
) -> Report:
    """Look at the repository at *store*. *restore* restores the newest point of a generation into scratch space, and
    raises where that does not work. *cancelled* is called often and may raise. Raises RepositoryNotFound, StoreError,
    and from ``content`` on KeyRefused."""
    return _Verification(store, level, limits, restore, on_progress, cancelled).run()


class _Verification:
    def __init__(
        self,
        store: SealedStore,
        level: str,
        limits: Limits,
        restore: Callable[[Repository, GenerationListing], None],
        on_progress: Callable[[Progress], None],
        cancelled: Callable[[], None],
    ) -> None:
        self._counted = CountedStore(store.plain)
        self._store = store.over(self._counted)
        self._depth = LEVELS.index(level)
        self._limits = limits
        self._restore = restore
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._ends = time.monotonic() + limits.seconds if limits.seconds is not None else float("inf")
        self._random = random.Random()  # which sample: another one each time
        self._manifests: dict[BackupName, Manifest | Incremental] = {}
        self._key_ids: set[str] = set()
        self._sums: dict[str, str] = {}
        self._gone: dict[GenerationId, list[Base]] = {}
        self._missing: set[str] = set()
        self.report = Report(level)
        if limits.sample < 1 and self._depth >= 1:
            self.report.sampled = Sampled()

    def run(self) -> Report:
        repository = self._understood()
        listed = list(self._store.plain.list(""))
        catalogue = look_at_names(listed, self.report.tell, self.report.notes.append)
        self._look_for_lost_backups(repository.catalogue if repository is not None else catalogue, repository)
        try:
            if self._depth >= 1:
                self._look_at_objects(listed)
            if repository is not None:
                for listing in repository.catalogue.generations:
                    self._look_at_generation(repository, listing)
                if self._depth >= 3:
                    self._try_restores(repository)
        except _OutOfTime:
            self.report.ended_early = True
        if repository is not None:
            self._pass_over_unneeded(repository)
        self.report.objects = len(listed)
        self.report.bytes_read = self._counted.bytes_read
        return self.report

    def _look(self) -> None:
        self._cancelled()
        if time.monotonic() > self._ends:
            raise _OutOfTime

    def _sampled(self, items: Sequence[T]) -> list[T]:
        """A share of *items*, the last of them always."""
        if self._limits.sample >= 1:
            return list(items)
        chosen = [each for each in items[:-1] if self._random.random() < self._limits.sample]
        return chosen + list(items[-1:])

    def _understood(self) -> Repository | None:
        """With the key; None without one, where none is needed."""
        try:
            return read_repository(self._store)
        except KeyRefused as exc:
            if self._depth >= 2:
                raise
            self.report.notes.append(f"without the key only names and digests are looked at: {exc}")
            return None
        except ObjectCorrupt as exc:
            self.report.tell(exc.name or REPOSITORY, str(exc))
            self.report.notes.append("what the objects hold could not be looked at because of that")
            return None

    def _look_for_lost_backups(self, catalogue: Catalogue, repository: Repository | None) -> None:
        for listing in catalogue.generations:
            for each in lost_backups(catalogue, listing):
                if each.name not in catalogue.sizes:
                    if next(iter(self._store.plain.list(each.name)), None) is not None:
                        continue  # it was put meanwhile
                    self._missing.add(each.name)
                    self.report.tell(each.name, each.fault)
                elif repository is None:  # else its manifest tells more
                    self.report.tell(each.name, each.fault)
                self._gone.setdefault(listing.generation, []).append(each.base)

    # --- objects by themselves -------------------------------------------------------------------------

    def _look_at_objects(self, listed: Sequence[Listed]) -> None:
        sealed = is_sealed(self._store.plain, readable_record_in(self._store.plain))
        self._key_ids = key_ids_in(self._store.plain) if sealed else set()
        self._sums = self._listed_sums()
        chosen = self._sampled(listed)
        if self.report.sampled is not None:
            self.report.sampled.objects = len(chosen), len(listed)
        with ThreadPoolExecutor(JOBS, thread_name_prefix="verify") as pool:
            rest = iter(chosen)
            done = 0
            while batch := list(islice(rest, 4 * JOBS)):
                self._look()
                for each, looked in zip(
                    batch, pool.map(lambda each: self._object(each.name, sealed), batch), strict=True
                ):
                    self._tell_of(each.name, looked)
                done += len(batch)
                self._on_progress(Progress("checksums", done, len(chosen)))

    def _listed_sums(self) -> dict[str, str]:
        """What METADATA says, if it can be read: it is not relied on, but people may."""
        try:
            return {each.name: each.sha256 for each in stored_in(decode_metadata(self._store.get(METADATA)))}
        except (ObjectCorrupt, ObjectNotFound, KeyRefused):
            return {}

    def _object(self, stored: str, sealed: bool) -> _Looked:
        try:
            data = self._store.plain.get(stored)
        except ObjectNotFound:
            return _Looked()  # pruned, or taken over by a log, since it was listed
        except ObjectCorrupt as exc:
            return _Looked(str(exc))
        try:
            check_stored(data, stored, sealed=sealed)
        except ReplicatorError as exc:
            return _Looked(str(exc))
        said = self._sums.get(stored)
        differs = said is not None and hashlib.sha256(data).hexdigest() != said
        return _Looked(None, key_of(data, stored) if sealed else None, differs)

    def _tell_of(self, stored: str, looked: _Looked) -> None:
        fault = looked.fault
        if fault is None and looked.key_id is not None:
            fault = self._without_key(looked.key_id)
        if fault is not None:
            self.report.tell(split_revision(stored)[0], fault)
        if looked.differs:
            fault = f"it says another checksum of {stored} than that has: one of the two is not what was put"
            self.report.tell(METADATA, fault)

    def _without_key(self, key_id: str) -> str | None:
        """The first object of each key that no slot holds any more stands for all that cannot be opened."""
        if key_id in self._key_ids:
            return None
        self._key_ids.add(key_id)
        return f"is sealed with key {key_id}, and no whole slot in keys/ holds that"

    # --- what they say to each other -------------------------------------------------------------------

    def _look_at_generation(self, repository: Repository, listing: GenerationListing) -> None:
        hurt = {each.name for each in self.report.found}
        read = Read(listing, hurt=hurt, gone=self._gone.get(listing.generation, []))
        self._look_at_record(repository, listing)
        read_backups(repository, read, self.report.tell)
        self._manifests |= read.manifests
        self._look_for_lost_lease(repository, listing, read)
        try:
            if self._depth >= 2:
                read_carriers(repository, read, self.report.tell, self._look)
                self._look_into_packs(repository, read)
            else:
                spans_by_name(read)
        finally:
            self._blame_backups(read)
            self.report.lost += [
                Lost(listing.generation, stretch) for stretch in lost(bases_of(read), spans_of(read))
            ]

    def _look_at_record(self, repository: Repository, listing: GenerationListing) -> None:
        """Why one that is there is not taken for what it says."""
        name = str(GenerationName(listing.generation))
        if listing.record is not None or name not in repository.catalogue.sizes:
            return
        try:
            record = decode_generation(repository.store.get(name), name)
            self.report.tell(
                name, f"it is of repository {record.repository}, and this is {repository.identity}"
            )
        except (ObjectCorrupt, ObjectNotFound) as exc:
            self.report.tell(name, str(exc))

    def _look_for_lost_lease(self, repository: Repository, listing: GenerationListing, read: Read) -> None:
        """A note: an agent of several stores writes under the highest epoch of all."""
        epochs = [each.epoch for each in read.manifests.values()]
        epochs += [listing.record.epoch] if listing.record is not None else []
        newest = max((each.epoch for each in repository.catalogue.leases), default=0)
        if max(epochs, default=0) > newest:
            self.report.notes.append(
                f"generation {listing.generation} was written under epoch {max(epochs)}, of which there is no lease: "
                "by an agent of several stores, or the lease was lost"
            )

    def _look_into_packs(self, repository: Repository, read: Read) -> None:
        dedup = self._store.dedup()
        backups = self._sampled(list(read.manifests.items()))
        if self.report.sampled is not None:
            chosen, every = self.report.sampled.backups or (0, 0)
            self.report.sampled.backups = chosen + len(backups), every + len(read.manifests)
        for done, (name, manifest) in enumerate(backups):
            self._on_progress(Progress("content", done, len(backups)))
            faults: Iterator[str] = (
                check_full(repository, manifest, dedup, self._look)
                if isinstance(manifest, Manifest)
                else check_incremental(repository, manifest, self._look)
            )
            for fault in faults:
                hurt, _, what = fault.partition(": ")
                self.report.tell(hurt, what or "it is damaged")
                read.hurt |= {str(name), hurt}

    def _blame_backups(self, read: Read) -> None:
        """A backup one of whose packs is hurt is hurt."""
        hurt = read.hurt | {each.name for each in self.report.found}
        for name, manifest in read.manifests.items():
            if any(pack.name in hurt for pack in manifest.packs):
                read.hurt.add(str(name))
        read.hurt |= {each.name for each in self.report.found}

    def _pass_over_unneeded(self, repository: Repository) -> None:
        """What belongs to no backup that counts may be hurt: prune deletes it when its time has come."""
        needed = {*self._missing, *map(str, self._manifests)}
        needed |= {pack.name for manifest in self._manifests.values() for pack in manifest.packs}
        counted = {str(backup) for each in repository.catalogue.generations for backup in each.backups}
        if not counted <= needed:
            return  # of a manifest that cannot be read nobody knows what it needs
        unneeded = [
            name
            for name in repository.catalogue.sizes
            if name not in needed and isinstance(parse_name(name), PackName)
        ]
        if unneeded:
            self.report.notes.append(
                f"no backup that is there needs {len(unneeded)} of the packs: a backup is being made, or one was lost"
            )
        for each in list(self.report.found):
            if (
                isinstance(parse_name(each.name), FullName | IncrementalName | PackName)
                and each.name not in needed
            ):
                self.report.found.remove(each)
                self.report.notes.append(f"{each.name} {each.fault}; no backup that counts needs it")

    def _try_restores(self, repository: Repository) -> None:
        listings = [each for each in repository.catalogue.generations if each.fulls]
        chosen = self._sampled(listings)
        if self.report.sampled is not None:
            self.report.sampled.generations = len(chosen), len(listings)
        for done, listing in enumerate(chosen):
            self._look()
            self._on_progress(Progress("restore", done, len(chosen)))
            try:
                self._restore(repository, listing)
                self.report.restored += 1
            except (ObjectCorrupt, ObjectNotFound) as exc:
                self.report.tell(exc.name or f"generation {listing.generation}", str(exc))
            except ReplicatorError as exc:
                if exc.retryable:
                    raise
                self.report.tell(f"generation {listing.generation}", str(exc))
