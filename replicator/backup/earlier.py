"""What a store holds of earlier full backups, for the next one to build upon."""

from __future__ import annotations

import logging
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable

from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.full import HASH_SIZE, TABLE_CHUNKS, Manifest, Table, decode_manifest, decode_table
from replicator.core.manifest import read_table
from replicator.core.names import FULL, RECORDS, FullName, parse_name
from replicator.core.pack import Frame, PackUse
from replicator.core.times import month_of
from replicator.events import damaged_backups
from replicator.store import Store

log = logging.getLogger(__name__)

# Tables at hand: the scan goes through them once, what was touched meanwhile comes back to some. 3 MB each.
TABLES_KEPT = 4


def newest_of_month(
    store: Store, time: int, chunk_bytes: int, page_size: int, hashes: str
) -> Manifest | None:
    """The newest of the month of *time* that is whole, and cut and hashed alike. The first full of each month refers
    to nothing older, so no pack outlives its month's fulls."""
    year, _, number = month_of(time).partition("-")
    fulls = [
        name
        for each in store.list(f"{FULL}{year}/{number}/")
        if isinstance(name := parse_name(each.name), FullName)
    ]
    for name in sorted(fulls, reverse=True):
        try:
            manifest = decode_manifest(store.get(str(name)), str(name))
        except (ObjectCorrupt, ObjectNotFound) as exc:
            log.error("full.unreadable", extra={"key": str(name), "error": str(exc)})
            continue
        if missing := missing_packs(store, manifest.packs):
            # Its chunks cannot be had any more: they are stored again, and the next full builds on those.
            log.error(
                "full.incomplete", extra={"key": str(name), "error": f"{missing[0]} is missing or short"}
            )
            continue
        if damaged_backups(store, name.backup_id):
            continue
        if (manifest.chunk_bytes, manifest.page_size, manifest.hashes) != (chunk_bytes, page_size, hashes):
            return None
        return manifest
    return None


def standing_at(store: Store, name: FullName) -> Manifest | None:
    """The full of that name, if it is there, nothing of it is missing, and nobody found it hurt."""
    try:
        manifest = decode_manifest(store.get(str(name)), str(name))
    except (ObjectCorrupt, ObjectNotFound):
        return None
    return (
        None if missing_packs(store, manifest.packs) or damaged_backups(store, name.backup_id) else manifest
    )


def forget_damaged(store: Store, name: FullName) -> bool:
    """Whether a backup of that name was found hurt and set aside: then it goes, and what is told of it, since another
    one of the same commit has the same name."""
    if not damaged_backups(store, name.backup_id):
        return False
    store.delete(str(name))
    for each in list(store.list(f"{RECORDS}{name.backup_id}/")):
        store.delete(each.name)
    return True


def missing_packs(store: Store, packs: Iterable[PackUse]) -> list[str]:
    """Those of *packs* that are not in the store, or not as long there as they have to be."""
    wanted = {pack.name: pack.size_bytes for pack in packs}
    missing = set(wanted)
    for folder in sorted({name.rpartition("/")[0] for name in wanted}):
        for each in store.list(folder + "/"):
            if each.name in wanted and each.size >= wanted[each.name]:
                missing.discard(each.name)
    # A listing may lag behind; whoever asks for the last byte sees what is there.
    return sorted(name for name in missing if not _reaches(store, name, wanted[name]))


def _reaches(store: Store, name: str, size: int) -> bool:
    try:
        return len(store.get_range(name, size - 1, 1)) == 1
    except (ObjectNotFound, ObjectCorrupt):
        return False


class _Known:
    """A table of an earlier full, laid out to be looked up."""

    def __init__(self, table: Table) -> None:
        self._hashes = table.hashes
        self._frames: list[Frame] = []
        self._frame_of = array("I")
        self._slot_of = array("H")
        for run in table.runs:
            self._frames.append(run.frame)
            self._frame_of.extend([len(self._frames) - 1] * run.count)
            self._slot_of.extend(range(run.first, run.first + run.count))

    def find(self, index: int, digest: bytes) -> tuple[Frame, int] | None:
        if self._hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE] != digest:
            return None
        return self._frames[self._frame_of[index]], self._slot_of[index]


class Earlier:
    """The chunks of an earlier full: whatever is still the same is not stored again. From any thread."""

    def __init__(self, store: Store, manifest: Manifest | None) -> None:
        self._store = store
        self._manifest = manifest
        self._lock = threading.Lock()
        self._tables: OrderedDict[int, _Known | None] = OrderedDict()

    @property
    def packs(self) -> tuple[PackUse, ...]:
        return self._manifest.packs if self._manifest is not None else ()

    def find(self, index: int, digest: bytes) -> tuple[Frame, int] | None:
        """Where chunk *index* lies if it has not changed since.

        Only the same place in the file is looked at: pages of a database hardly ever move, and an index of
        all hashes would cost a hundred bytes a chunk.
        """
        if self._manifest is None or index >= self._manifest.chunks:
            return None
        number, within = divmod(index, TABLE_CHUNKS)
        with self._lock:  # who waits for it needs the same table
            if number not in self._tables:
                self._tables[number] = self._load(self._manifest, number)
                if len(self._tables) > TABLES_KEPT:
                    self._tables.popitem(last=False)
            table = self._tables[number]
        return table.find(within, digest) if table is not None else None

    def _load(self, manifest: Manifest, number: int) -> _Known | None:
        try:
            encoded = read_table(manifest, number, self._store.get_range)
            return _Known(decode_table(encoded, manifest, number))
        except (ObjectCorrupt, ObjectNotFound) as exc:
            # As if it had never been: its chunks are stored again.
            log.error("full.unreadable", extra={"key": str(manifest.name), "error": str(exc)})
            return None
