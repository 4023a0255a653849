"""Catalogue: keep ``metadata.json`` as the objects of a store are, or make it anew from them alone."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable

from replicator.core.errors import ObjectCorrupt, ObjectNotFound, StoreDenied, StoreError
from replicator.core.metadata import Stored, decode_metadata, encode_metadata, metadata_of, stored_in
from replicator.core.names import METADATA, split_revision
from replicator.repository import Manifests, Repository, read_repository
from replicator.store.sealed import SealedStore

log = logging.getLogger(__name__)

# What was put before this catalogue began has to be read for its hash, which may cost money: so much at a time.
HASHED_BYTES = 256 << 20


class CatalogueFile:
    """Of one store. What was read of manifests and hashed once is remembered: neither ever changes."""

    def __init__(self, store: SealedStore, manifests: Manifests) -> None:
        self._store = store
        self._manifests = manifests
        self._lock = threading.Lock()
        self._stored: dict[str, Stored] = {}
        self._loaded = False

    def update(self) -> None:
        """Write it anew. It is derived, so whatever keeps it from being written is told of, and no more."""
        with self._lock:
            try:
                self._load()
                repository = read_repository(self._store)
                self._store.replace(METADATA, self._made(repository, lambda _: None, HASHED_BYTES))
            except StoreDenied as exc:
                log.info("metadata.unwritten", extra={"store": self._store.url, "error": str(exc)})
            except (StoreError, ObjectCorrupt) as exc:
                log.warning("metadata.unwritten", extra={"store": self._store.url, "error": str(exc)})

    def forget(self) -> None:
        """What was known of hashes is not right: they are made anew, some at each update."""
        with self._lock:
            self._stored.clear()
            self._manifests.forget()
            self._loaded = True

    def rebuild(self, report: Callable[[str], None]) -> bytes:
        """Make it from the objects alone, each read and hashed anew, and put it there. Raises StoreError."""
        self.forget()
        with self._lock:
            made = self._made(read_repository(self._store), report, None)
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

    def _made(self, repository: Repository, report: Callable[[str], None], bytes_max: int | None) -> bytes:
        """*bytes_max*: how much may be read for the sake of hashes; objects beyond that are left out for now."""
        manifests = self._manifests.of(repository)
        sizes = repository.catalogue.sizes
        needed = {str(name): None for name in manifests}
        needed |= {pack.name: None for each in manifests.values() for pack in each.packs}
        left = bytes_max if bytes_max is not None else sum(sizes.values())
        stored: dict[str, Stored] = {}
        for name in sorted(needed):
            found = self._known(name, sizes.get(name))
            if found is None and (size := sizes.get(name)) is not None and size <= left:
                left -= size
                report(name)
                found = self._read(name)
            if found is not None:
                stored[name] = found
        self._stored = stored
        return encode_metadata(metadata_of(repository.identity, repository.catalogue, manifests, stored))

    def _known(self, name: str, size: int | None) -> Stored | None:
        # What was put again is another one where it is sealed, under the same name and of the same size.
        for known in (self._store.put_here(name), self._stored.get(name)):
            if known is None or known.name != self._store.stored_name(name):
                continue
            if self._store.plain_size(name, known.size_bytes) == size:
                return known
        return None

    def _read(self, name: str) -> Stored | None:
        """What its bytes say; None where they cannot be read, which verify tells of."""
        stored = self._store.stored_name(name)
        try:
            data = self._store.plain.get(stored)
        except (ObjectNotFound, ObjectCorrupt):
            return None
        return Stored(stored, len(data), hashlib.sha256(data).hexdigest())
