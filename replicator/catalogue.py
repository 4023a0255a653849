"""Catalogue: keep ``metadata.json`` as the objects of a store are, or make it anew from them alone."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable

from replicator.core.errors import ObjectCorrupt, ObjectNotFound, StoreDenied, StoreError
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental
from replicator.core.metadata import Stored, decode_metadata, encode_metadata, metadata_of, stored_in
from replicator.core.names import METADATA, BackupName, split_revision
from replicator.repository import Repository, read_repository
from replicator.store.sealed import SealedStore

log = logging.getLogger(__name__)


class CatalogueFile:
    """Of one store. What was read of manifests and hashed once is remembered: neither ever changes."""

    def __init__(self, store: SealedStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._manifests: dict[BackupName, Manifest | Incremental] = {}
        self._stored: dict[str, Stored] = {}
        self._loaded = False

    def update(self) -> None:
        """Write it anew. It is derived, so whatever keeps it from being written is told of, and no more."""
        with self._lock:
            try:
                self._load()
                repository = read_repository(self._store)
                self._store.replace(METADATA, self._made(repository, lambda _: None))
            except StoreDenied as exc:
                log.info("metadata.unwritten", extra={"store": self._store.url, "error": str(exc)})
            except (StoreError, ObjectCorrupt) as exc:
                log.warning("metadata.unwritten", extra={"store": self._store.url, "error": str(exc)})

    def rebuild(self, report: Callable[[str], None]) -> bytes:
        """Make it from the objects alone, each read and hashed anew, and put it there. Raises StoreError."""
        with self._lock:
            self._stored.clear()
            self._manifests.clear()
            self._loaded = True
            made = self._made(read_repository(self._store), report)
            self._store.replace(METADATA, made)
            return made

    def _load(self) -> None:
        """Hashes that an earlier run wrote down."""
        if self._loaded:
            return
        self._loaded = True
        try:
            said = decode_metadata(self._store.get(METADATA))
        except (ObjectNotFound, ObjectCorrupt):
            return
        for each in stored_in(said):
            self._stored[split_revision(each.name)[0]] = each

    def _made(self, repository: Repository, report: Callable[[str], None]) -> bytes:
        names = [name for listing in repository.catalogue.generations for name in listing.backups]
        self._manifests = {name: found for name, found in self._manifests.items() if name in set(names)}
        needed: set[str] = set()
        for name in names:
            try:
                manifest = self._manifests.get(name) or repository.backup(name)
            except (ObjectCorrupt, ObjectNotFound) as exc:
                log.warning("backup.unreadable", extra={"key": str(name), "error": str(exc)})
                continue
            self._manifests[name] = manifest
            needed |= {str(name), *(pack.name for pack in manifest.packs)}
        self._stored = {
            each: found for each in sorted(needed) if (found := self._one(each, repository, report))
        }
        return encode_metadata(
            metadata_of(repository.identity, repository.catalogue, self._manifests, self._stored)
        )

    def _one(self, name: str, repository: Repository, report: Callable[[str], None]) -> Stored | None:
        """What is known of an object, or what its bytes say; None where it cannot be read, which verify tells of."""
        stored = self._store.stored_name(name)
        known = self._stored.get(name) or self._store.put_here(name)
        there = repository.catalogue.sizes.get(name)
        if known is not None and known.name == stored and self._store.plain_size(name, known.size_bytes) == there:
            return known
        report(name)
        try:
            data = self._store.plain.get(stored)
        except (ObjectNotFound, ObjectCorrupt):
            return None
        return Stored(stored, len(data), hashlib.sha256(data).hexdigest())
