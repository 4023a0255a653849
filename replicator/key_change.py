"""Key change: another ring for a database and all its stores, or the same under another key of the operator's.

A slot is in every store before the state folder has it, so whatever an agent seals with a new root can be opened from
any store that holds it.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from replicator.core.errors import (
    FormatTooNew,
    KeyRefused,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreError,
)
from replicator.core.key_ring import (
    KeyRing,
    Root,
    joined,
    openers,
    read_slot,
    rotated,
    unwrap,
    wanted,
    without_roots,
)
from replicator.core.names import KeyName
from replicator.core.operator_key import KEY_SIZE, OperatorKey
from replicator.core.seal import KEY_ID_SIZE
from replicator.keys import KEY, KeySource, keep_slot, kept_slot, missing_key, wrapped
from replicator.slots import readable_record_in, ring_in, slots_in
from replicator.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyHolders:
    """Who has the ring: ``stores``, as they are, and ``path`` in the state folder, if the database is known here."""

    stores: Sequence[Store]
    source: KeySource
    path: str | None = None

    def ring(self) -> KeyRing:
        """The newest of all. Raises KeyRefused."""
        return self._newest()[0]

    def openers(self) -> tuple[OperatorKey, ...]:
        """Those of the operator's keys that open it. What comes next is wrapped with them alone: one that was replaced
        may still stand in the setting beside its successor, and shall not be let in again. Raises KeyRefused."""
        ring, slot = self._newest()
        return openers(slot, str(KeyName(ring.number)), self.source.read())

    def _newest(self) -> tuple[KeyRing, bytes]:
        """With its slot."""
        self._require_one_repository()
        if not self.source.configured and any(slots_in(store) for store in self.stores):
            raise missing_key(self.stores[0].url)
        keys = self.source.read() if self.source.configured else ()
        found: list[tuple[KeyRing, bytes]] = []
        slot = kept_slot(self.path) if self.path is not None else None
        if slot is not None and self.path is not None:
            found.append((unwrap(slot, self.path, keys), slot))
        for store in self.stores:
            there = ring_in(store, keys)
            if there is not None:
                found.append(there)
        if not found:
            raise KeyRefused(
                f"{self.stores[0].url} has no key ring: it is not encrypted",
                hint="see docs/OPERATIONS.md, Keys",
            )
        ring, slot = max(found, key=lambda each: each[0].number)
        for other, _ in found:
            if other.number == ring.number:
                ring = joined(ring, other)  # store by store rotated: whatever either sealed stays readable
        return ring, slot

    def _require_one_repository(self) -> None:
        """Where folders were mixed up, the ring of one repository would hide that of the other from everybody, and
        with it all that is there. Raises KeyRefused."""
        places: dict[str, str] = {}
        for place, repository in self._repositories():
            places.setdefault(repository, place)
        if len(places) > 1:
            said = ", ".join(f"{place} of {repository}" for repository, place in places.items())
            raise KeyRefused(
                f"these are of different repositories: {said}",
                hint="are these the stores of this one database? nothing was changed",
            )

    def _repositories(self) -> Iterator[tuple[str, str]]:
        """Places, and the repository that each names, as far as it can be read."""
        slot = kept_slot(self.path) if self.path is not None else None
        if slot is not None and self.path is not None:
            yield self.path, read_slot(slot, self.path)["repository"]
        for store in self.stores:
            record = readable_record_in(store)
            if record is not None:
                yield store.url, record.repository
            for name in slots_in(store):
                with contextlib.suppress(ObjectCorrupt, ObjectNotFound):
                    yield f"{store.url} {name}", read_slot(store.get(str(name)), str(name))["repository"]

    def publish(self, ring: KeyRing, keys: Sequence[OperatorKey] = ()) -> bytes:
        """Put *ring* where it belongs, wrapped with *keys*, or those that open the one before; returns the slot. One
        that ended between two stores is taken up again: what it put stays. Raises KeyRefused."""
        keys = keys or self.openers()
        slot = self._begun(ring, keys) or wrapped(ring, keys)
        for store in self.stores:
            name = str(KeyName(ring.number))
            try:
                store.put(name, slot)
            except ObjectExists:
                found = store.get(name)
                if found != slot:
                    raise _in_the_way(store, name, found, keys) from None
        if self.path is not None:
            keep_slot(self.path, slot)
        return slot

    def _begun(self, ring: KeyRing, keys: Sequence[OperatorKey]) -> bytes | None:
        """The slot of *ring* that is there already. Looks in all stores before anything is put: where one of them has
        another ring under that number, or a later one, no other store gets this one."""
        begun: bytes | None = None
        for store in self.stores:
            for name in slots_in(store):
                if name.number >= ring.number:
                    found = store.get(str(name))
                    begun = begun or found
                    if found != begun or not _is_slot_of(ring, found, str(name), keys):
                        raise _in_the_way(store, str(name), found, keys)
        return begun

    def spread(self) -> None:
        """The newest ring, by its very slot, wherever it is not: whoever published it may have ended between."""
        ring, slot = self._newest()
        name = str(KeyName(ring.number))
        for store in self.stores:
            try:
                store.put(name, slot)
            except ObjectExists:
                found = store.get(name)
                if found != slot:
                    raise _in_the_way(store, name, found, self.openers()) from None
        if self.path is not None and kept_slot(self.path) != slot:
            keep_slot(self.path, slot)

    def has_slots_beyond(self, ring: KeyRing) -> bool:
        """Whether an older slot holds a root that *ring* has no more."""
        known = {each.key_id for each in ring.roots}
        for store in self.stores:
            for name in slots_in(store):
                if name.number < ring.number:
                    with contextlib.suppress(ObjectCorrupt, ObjectNotFound, FormatTooNew):
                        slot = read_slot(store.get(str(name)), str(name))
                        if not {each["key_id"] for each in slot["roots"]} <= known:
                            return True
        return False

    def forget_slots(self, below: int) -> list[str]:
        """Delete older slots; returns those that a store does not let go of."""
        kept: list[str] = []
        for store in self.stores:
            for name in slots_in(store):
                if name.number < below:
                    try:
                        store.delete(str(name))
                    except StoreError as exc:
                        log.warning(
                            "slot.kept", extra={"store": store.url, "key": str(name), "error": str(exc)}
                        )
                        kept.append(f"{store.url} {name}")
        return kept


def _is_slot_of(ring: KeyRing, slot: bytes, name: str, keys: Sequence[OperatorKey]) -> bool:
    try:
        return unwrap(slot, name, keys) == ring
    except (KeyRefused, ObjectCorrupt):
        return False


def _in_the_way(store: Store, name: str, slot: bytes, keys: Sequence[OperatorKey]) -> KeyRefused:
    """What to do about a ring that has the number already which another was to have."""
    error = KeyRefused(f"{store.url} holds another key ring as {name} already")
    again = "run `replicator key rotate DATABASE` (with --config, where the agent has one)"
    try:
        if openers(slot, name, keys):
            error.hint = f"it was rotated meanwhile, or store by store: {again}, and all stores get one ring"
        else:
            error.hint = (
                f"{wanted(slot, name)} opens it: a change of your key ended before its end. Run it again with that one "
                f"as the new key; or set both, {KEY}=NEW,OLD, and {again}"
            )
    except ObjectCorrupt as exc:
        error.hint = f"{exc}: `verify --repair` puts it back, or delete it"
    return error


def rotate(holders: KeyHolders, wall: int) -> KeyRing:
    """One more root, which seals what is new; what is old stays readable."""
    ring = rotated(holders.ring(), wall, secrets.token_bytes(KEY_SIZE), secrets.token_bytes(KEY_ID_SIZE))
    holders.publish(ring)
    return ring


def begin_rekey(holders: KeyHolders, wall: int) -> KeyRing:
    """A new root, and a new key for the hashes of chunks."""
    ring = rotated(holders.ring(), wall, secrets.token_bytes(KEY_SIZE), secrets.token_bytes(KEY_ID_SIZE))
    dedup = Root(secrets.token_hex(KEY_ID_SIZE), wall, secrets.token_bytes(KEY_SIZE))
    ring = replace(ring, dedup=dedup)
    holders.publish(ring)
    return ring


def is_rekeying(ring: KeyRing) -> bool:
    """Whether the newest root came by ``begin_rekey``, so that what it does not seal yet is left over from that."""
    return len(ring.roots) > 1 and ring.dedup.created == ring.active.created


def end_rekey(holders: KeyHolders, ring: KeyRing) -> KeyRing:
    """Only the active root is left: who had the others can open nothing any more."""
    ended = without_roots(ring, {each.key_id for each in ring.roots})
    holders.publish(ended)
    holders.forget_slots(ended.number)
    return ended


def change_operator_key(holders: KeyHolders, new: KeySource) -> tuple[KeyRing, list[str]]:
    """The same ring, opened by the first key of *new* from now on. Returns the slots that the old key still opens,
    since their store does not let go of them."""
    ring = holders.ring()
    ring = replace(ring, number=ring.number + 1)
    holders.publish(ring, new.read()[:1])
    kept: list[str] = []
    with contextlib.suppress(StoreError):
        kept = holders.forget_slots(ring.number)
    return ring, kept
