"""A repository at a store, read: who it is, what lies in it, and the few objects looked into so far."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from replicator.core.catalogue import Catalogue, read_listing
from replicator.core.errors import ObjectCorrupt, ObjectNotFound, RepositoryNotFound
from replicator.core.full import Manifest, decode_manifest
from replicator.core.incremental import Incremental, decode_incremental
from replicator.core.log import BEGINNING_BYTES, HEAD_SIZE, decode_log, observed_first, units_begin
from replicator.core.names import (
    FULL,
    METADATA,
    REPOSITORY,
    BackupName,
    CarrierName,
    FullName,
    GenerationName,
    IncrementalName,
    LogName,
    SegmentName,
    parse_name,
)
from replicator.core.position import GenerationId, Position
from replicator.core.records import GenerationRecord, decode_generation, decode_repository
from replicator.core.unit import HEADER_SIZE, Unit, UnitHeader, decode_unit, parse_unit_header, split_units
from replicator.repository.fences import without_fences
from replicator.store import Store

log = logging.getLogger(__name__)

# Whoever looks for a moment reads two or three of them; a log has up to 32 MiB.
_CARRIERS_KEPT = 4
_UNITS_KEPT = 64


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A position that can be restored. It was committed after ``not_before``, no later than ``observed``;
    the database had ``pages`` pages then. ``span``: how many commits it stands for, as far as it says."""

    position: Position
    observed: int
    not_before: int
    pages: int
    span: int = 1


@contextlib.contextmanager
def damage_named(name: CarrierName) -> Iterator[None]:
    """What is found damaged in here is that object."""
    try:
        yield
    except ObjectCorrupt as exc:
        raise ObjectCorrupt(f"{name} is damaged: {exc}", name=str(name), hint=exc.hint) from exc


class Carried:
    """The units of a log or a segment, each decoded and proved when it is asked for."""

    def __init__(self, name: CarrierName, content: bytes) -> None:
        with damage_named(name):
            units = decode_log(content, name).units if isinstance(name, LogName) else content
            self._views = list(split_units(units))
            self.headers = [parse_unit_header(view) for view in self._views]
            if not self.headers:
                raise ObjectCorrupt("it is empty")
        self.name = name
        self._decoded: dict[int, Unit] = {}

    def __len__(self) -> int:
        return len(self.headers)

    def unit(self, number: int) -> Unit:
        """The unit with that number; negative ones count from the end."""
        number %= len(self.headers)
        if number not in self._decoded:
            if len(self._decoded) > _UNITS_KEPT:
                self._decoded.clear()
            with damage_named(self.name):
                self._decoded[number] = decode_unit(self._views[number])
        return self._decoded[number]

    def units(self) -> Iterator[Unit]:
        for number in range(len(self.headers)):
            yield self.unit(number)

    def raw(self, number: int) -> bytes:
        """The unit with that number as it lies there."""
        return bytes(self._views[number])

    @property
    def holds_what_it_says(self) -> bool:
        """Whether it lies under the name that its first unit spells."""
        first = self.headers[0]
        if isinstance(self.name, LogName):
            return (self.name.generation, self.name.txid_first) == (first.generation, first.txid_first)
        return SegmentName(first.generation, first.txid_first, first.part) == self.name


@dataclass(slots=True)
class Repository:
    """A repository at a store, read: its catalogue, and the few objects looked into so far."""

    store: Store
    identity: str
    catalogue: Catalogue
    _carried: dict[CarrierName, Carried] = field(default_factory=dict)
    _begins: dict[CarrierName, int] = field(default_factory=dict)

    def carried(self, name: CarrierName) -> Carried:
        """The units of *name*; the last few that were asked for stay at hand."""
        if name not in self._carried:
            if len(self._carried) >= _CARRIERS_KEPT:
                self._carried.clear()
            self._carried[name] = Carried(name, self.store.get(str(name)))
        return self._carried[name]

    def begins(self, name: CarrierName) -> int:
        """When the first commit in *name* was observed: one small read."""
        if name not in self._begins:
            with damage_named(name):
                if isinstance(name, LogName):
                    beginning = self.store.get_range(str(name), 0, BEGINNING_BYTES)
                    self._begins[name] = observed_first(beginning, name)
                else:
                    header = parse_unit_header(self.store.get_range(str(name), 0, HEADER_SIZE))
                    self._begins[name] = header.observed_first
        return self._begins[name]

    def first_header(self, name: CarrierName) -> UnitHeader:
        """Of the first unit in *name*: one small read, two of a log. Not proved."""
        with damage_named(name):
            at = (
                units_begin(self.store.get_range(str(name), 0, HEAD_SIZE), name)
                if isinstance(name, LogName)
                else 0
            )
            return parse_unit_header(self.store.get_range(str(name), at, HEADER_SIZE))

    def manifest(self, name: FullName) -> Manifest:
        found = decode_manifest(self.store.get(str(name)), str(name))
        self._require_ours(name, found.repository)
        return found

    def incremental(self, name: IncrementalName) -> Incremental:
        found = decode_incremental(self.store.get(str(name)), str(name))
        self._require_ours(name, found.repository)
        return found

    def _require_ours(self, name: BackupName, repository: str) -> None:
        """Two repositories that were copied into one place shall not be taken for each other."""
        if repository != self.identity:
            raise ObjectCorrupt(
                f"{name} is of repository {repository}, and {self.store.url} is {self.identity}",
                name=REPOSITORY,
                hint=f"{name} or {REPOSITORY} does not belong there: `verify --level content` says more. Take it away, "
                "or name one of the other generations by --generation",
            )

    def backup(self, name: BackupName) -> Manifest | Incremental:
        return self.manifest(name) if isinstance(name, FullName) else self.incremental(name)

    def set_aside(self, backup: BackupName) -> None:
        """Plan without it from now on."""
        generations = tuple(
            each.without(backup) if each.generation == backup.generation else each
            for each in self.catalogue.generations
        )
        self.catalogue = replace(self.catalogue, generations=generations)

    def backup_point(self, name: BackupName) -> RestorePoint:
        found = self.backup(name)
        return RestorePoint(found.position, found.observed, found.observed, found.pages)


def read_repository(store: Store) -> Repository:
    """List and understand what lies at *store*. Raises RepositoryNotFound where there is nothing of ours."""
    identity = _identity(store)
    listed = list(store.list(""))
    records: dict[GenerationId, GenerationRecord] = {}
    for each in listed:
        name = parse_name(each.name)
        if isinstance(name, GenerationName):
            try:
                record = decode_generation(store.get(each.name), each.name)
                if record.repository != identity:
                    raise ObjectCorrupt(f"{each.name} is of repository {record.repository}")
                records[name.generation] = record
            except ObjectCorrupt as exc:
                # It tells when and why; its objects restore without it.
                log.warning("generation.unreadable", extra={"key": each.name, "error": str(exc)})
    catalogue = read_listing(listed, records, known=(REPOSITORY, METADATA))
    return Repository(store, identity, without_fences(catalogue, store))


def _identity(store: Store) -> str:
    """As the repository's own record says; where that is lost, as the fulls do, if they agree: they are enough to
    restore. Asked before all names are listed: a bucket may hold many repositories, and be none.
    """
    try:
        return decode_repository(store.get(REPOSITORY), REPOSITORY).repository
    except (ObjectNotFound, ObjectCorrupt) as exc:
        found = _identities(store)
        if len(found) > 1:
            raise ObjectCorrupt(
                f"fulls of {len(found)} repositories lie at {store.url}, and what would say which one it is cannot be "
                f"read: {exc}",
                name=REPOSITORY,
                hint=f"put {REPOSITORY} back, by `verify DATABASE --repair` or from another store; or take away what "
                f"does not belong there: {', '.join(f'{name} is of {whose}' for whose, name in found.items())}",
            ) from exc
        for whose in found:
            log.warning("repository.unreadable", extra={"key": REPOSITORY, "error": str(exc)})
            return whose
        if isinstance(exc, ObjectCorrupt):
            raise
        raise RepositoryNotFound(
            f"no repository at {store.url}", hint="name the store URL that the agent replicates to"
        ) from exc


def _identities(store: Store) -> dict[str, str]:
    """Of which repositories there are fulls, each with the name of one; of every generation the newest is read."""
    newest: dict[GenerationId, list[FullName]] = {}
    for each in store.list(FULL):
        name = parse_name(each.name)
        if isinstance(name, FullName):
            newest.setdefault(name.generation, []).append(name)
    found: dict[str, str] = {}
    for names in newest.values():
        for full in reversed(names):
            with contextlib.suppress(ObjectNotFound, ObjectCorrupt):
                found.setdefault(decode_manifest(store.get(str(full)), str(full)).repository, str(full))
                break
    return found
