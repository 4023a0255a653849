"""Slots: what a store says without a key of whose it is and how it is encrypted, and the key ring that a key opens."""

from __future__ import annotations

import contextlib
import logging

from replicator.core.errors import KeyRefused, ObjectCorrupt, ObjectNotFound
from replicator.core.key_ring import KeyRing, read_slot, unwrap
from replicator.core.names import KEYS, REPOSITORY, KeyName, parse_name
from replicator.core.operator_key import OperatorKey
from replicator.core.records import RepositoryRecord, decode_repository
from replicator.store import Store

log = logging.getLogger(__name__)


def record_in(store: Store) -> RepositoryRecord | None:
    """Who the repository at *store* is; None where there is none yet."""
    try:
        return decode_repository(store.get(REPOSITORY), REPOSITORY)
    except ObjectNotFound:
        return None


def readable_record_in(store: Store) -> RepositoryRecord | None:
    """The same for who only reads: one that is damaged is as good as none."""
    try:
        return record_in(store)
    except ObjectCorrupt as exc:
        log.warning("repository.unreadable", extra={"store": store.url, "key": REPOSITORY, "error": str(exc)})
        return None


def is_sealed(store: Store, record: RepositoryRecord | None) -> bool:
    """Whether the repository there is encrypted: its *record* says so, or where there is none, that there are slots."""
    return record.sealed if record is not None else bool(slots_in(store))


def slots_in(store: Store) -> list[KeyName]:
    """The newest first."""
    names = (parse_name(each.name) for each in store.list(KEYS))
    return sorted((name for name in names if isinstance(name, KeyName)), reverse=True)


def key_ids_in(store: Store) -> set[str]:
    """The keys that some slot holds, as each slot says without a key; damaged ones hold none."""
    found: set[str] = set()
    for name in slots_in(store):
        with contextlib.suppress(ObjectCorrupt, ObjectNotFound):
            slot = read_slot(store.get(str(name)), str(name))
            if slot["number"] == name.number:
                found |= {each["key_id"] for each in slot["roots"]}
    return found


def ring_in(store: Store, keys: tuple[OperatorKey, ...]) -> tuple[KeyRing, bytes] | None:
    """The newest ring that *keys* open, and its slot; None where there is no slot. A slot that is damaged opens as
    little as one of another key. Raises KeyRefused, or ObjectCorrupt where that is all there is."""
    refused: KeyRefused | None = None
    corrupt: ObjectCorrupt | None = None
    for name in slots_in(store):
        slot = store.get(str(name))
        try:
            ring = unwrap(slot, str(name), keys)
            if ring.number != name.number:
                raise ObjectCorrupt(f"{name} holds the key ring number {ring.number}", name=str(name))
        except KeyRefused as exc:
            refused = refused or exc
        except ObjectCorrupt as exc:
            log.warning("slot.unreadable", extra={"store": store.url, "key": str(name), "error": str(exc)})
            exc.hint = exc.hint or "put it back from another store, or from keys.json in the state folder"
            corrupt = corrupt or exc
        else:
            return ring, slot
    if refused is not None or corrupt is not None:
        raise refused or corrupt  # type: ignore[misc]  # one of them is there
    return None
