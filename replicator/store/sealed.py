"""Sealed: every object of an encrypted repository goes through here, and is plain on one side and sealed on the other.

Above this wrapper nobody knows of encryption: units, manifests and records are what they are in a plain repository.
It lies over the retries, so all attempts of one put send the same bytes. A put that is made again later seals anew;
whoever meets his own object then reads it, and compares what is in it (ship/adopt.py).
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from replicator.core.catalogue import Listed
from replicator.core.errors import KeyRefused, ObjectCorrupt, ObjectExists
from replicator.core.key_ring import KeyRing
from replicator.core.names import KeyName, sealed_kind
from replicator.core.seal import (
    HEADER_SIZE,
    SALT_SIZE,
    SealHeader,
    open_frames,
    parse_header,
    seal,
    unseal,
)
from replicator.store.contract import Store, is_probe

# Of the packs that a restore reads piece by piece; some hundred bytes each.
HEADERS_KEPT = 1024


class Keys(Protocol):
    """Where the ring comes from: the state folder of an agent, or the store itself."""

    def ring(self) -> KeyRing | None:
        """None: the repository is not encrypted. Raises KeyRefused."""
        ...

    def again(self) -> KeyRing | None:
        """Asked where an object's key is not in the ring: it may have been added since."""
        ...

    def slot(self) -> bytes | None:
        """What has to be in the store before anything that is sealed with the ring; None for who only reads."""
        ...


class SealedStore:
    """A store whose objects are sealed, if the ring says so."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self.plain = store
        self._keys = keys
        self._lock = threading.Lock()
        self._headers: OrderedDict[str, SealHeader] = OrderedDict()
        self._published = 0

    @property
    def url(self) -> str:
        return self.plain.url

    def put(self, name: str, data: bytes) -> None:
        kind = _kind(name)
        ring = self._keys.ring() if kind is not None else None
        if kind is None or ring is None:
            self.plain.put(name, data)
            return
        self._publish(ring)
        root = ring.active
        sealed = seal(
            data, name, kind=kind, key_id=bytes.fromhex(root.key_id), root=root.secret,
            salt=secrets.token_bytes(SALT_SIZE),
        )  # fmt: skip
        self.plain.put(name, sealed)

    def get(self, name: str) -> bytes:
        data = self.plain.get(name)
        kind = _kind(name)
        if kind is None or self._keys.ring() is None:
            return data
        return unseal(data, name, kind, lambda key_id: self._root(name, key_id))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        kind = _kind(name)
        if kind is None or self._keys.ring() is None:
            return self.plain.get_range(name, offset, length)
        header = self._header(name)
        if offset + length > header.plain_bytes:
            raise ObjectCorrupt(
                f"{name} ends at byte {header.plain_bytes}, wanted {offset + length}", name=name
            )
        if length == 0:
            return b""
        first = offset // header.frame_bytes
        count = (offset + length - 1) // header.frame_bytes + 1 - first
        sealed = self.plain.get_range(name, *header.extent(first, count))
        frames = open_frames(
            sealed, header, name, kind, lambda key_id: self._root(name, key_id), first=first, count=count
        )
        start = offset - first * header.frame_bytes
        return b"".join(frames)[start : start + length]

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Sizes are those of what is stored."""
        return self.plain.list(prefix, after)

    def delete(self, name: str) -> None:
        self.plain.delete(name)

    def _header(self, name: str) -> SealHeader:
        with self._lock:
            found = self._headers.get(name)
        if found is None:
            found = parse_header(self.plain.get_range(name, 0, HEADER_SIZE), name)
            with self._lock:
                self._headers[name] = found
                while len(self._headers) > HEADERS_KEPT:
                    self._headers.popitem(last=False)
        return found

    def _root(self, name: str, key_id: bytes) -> bytes:
        wanted = key_id.hex()
        for ring in (self._keys.ring, self._keys.again):
            held = ring()
            root = held.root(wanted) if held is not None else None
            if root is not None:
                return root.secret
        raise KeyRefused(
            f"{name} is sealed with key {wanted}, which is not in the key ring of {self.url}",
            hint="is a newer slot missing in keys/, or this object from another repository?",
        )

    def _publish(self, ring: KeyRing) -> None:
        """The slot goes before anything that cannot be opened without it."""
        slot = self._keys.slot()
        if slot is None or ring.number <= self._published:
            return
        name = str(KeyName(ring.number))
        try:
            self.plain.put(name, slot)
        except ObjectExists:
            self._require_same(name, slot)
        self._published = ring.number

    def _require_same(self, name: str, slot: bytes) -> None:
        if self.plain.get(name) != slot:
            raise KeyRefused(
                f"{self.url} holds another key ring as {name} than this agent does",
                hint="was it rotated elsewhere? start the agent again, and it takes the store's",
            )


def _kind(name: str) -> int | None:
    return None if is_probe(name) else sealed_kind(name)
