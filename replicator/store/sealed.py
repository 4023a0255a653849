"""Sealed: every object of an encrypted repository goes through here, and is plain on one side and sealed on the other.

Above this wrapper nobody knows of encryption: units, manifests and records are what they are in a plain repository.
Nor of revisions: an object that was sealed anew under another key is stored as `….r2.…`, and called what it was before;
the highest revision counts. ``metadata.json``, which is replaced, has none.
It lies over the retries, so all attempts of one put send the same bytes. A put that is made again later seals anew;
whoever meets his own object then reads it, and compares what is in it (ship/adopt.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from replicator.core.catalogue import Listed
from replicator.core.errors import FormatTooNew, KeyRefused, ObjectCorrupt, ObjectExists, ObjectNotFound
from replicator.core.key_ring import KeyRing, Root
from replicator.core.metadata import Stored
from replicator.core.named_digest import require_digest
from replicator.core.names import (
    FULL,
    INCREMENTAL,
    METADATA,
    KeyName,
    sealed_kind,
    split_revision,
    with_revision,
)
from replicator.core.seal import (
    HEADER_SIZE,
    SALT_SIZE,
    SealHeader,
    open_frames,
    parse_header,
    plain_length,
    seal,
    unseal,
)
from replicator.store.contract import Store, is_probe

T = TypeVar("T")

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
        self._put_here: OrderedDict[str, Stored] = OrderedDict()
        # Of names that are stored as another revision than the first alone: all that are there, the newest last.
        self._revisions: dict[str, tuple[str, ...]] = {}
        self._published = 0

    @property
    def url(self) -> str:
        return self.plain.url

    def over(self, store: Store) -> SealedStore:
        """*store*, read with the same keys."""
        return SealedStore(store, self._keys)

    def put(self, name: str, data: bytes) -> None:
        kind = self._kind(name)
        stored = data if kind is None else self._sealed(name, data, kind)
        self.plain.put(name, stored)
        self._note(name, stored)

    def get(self, name: str) -> bytes:
        kind = self._kind(name)
        if kind is None:
            return self.plain.get(name)
        return self._of_revision(name, lambda stored: self._unseal(stored, self.plain.get(stored), kind))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        kind = self._kind(name)
        if kind is None:
            return self.plain.get_range(name, offset, length)
        return self._of_revision(name, lambda stored: self._part(stored, offset, length, kind))

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Sizes are those of what is in the objects, like everything on this side."""
        if self._kind(prefix) is None:
            yield from self.plain.list(prefix, after)
            return
        # Revisions of a name lie side by side: they differ behind its last dot only.
        folder, slash, last = prefix.rpartition("/")
        listed = self.plain.list(folder + slash + last.partition(".")[0], after)
        for name, group in itertools.groupby(listed, lambda each: split_revision(each.name)[0]):
            revisions = sorted(group, key=lambda each: split_revision(each.name)[1])
            newest = revisions[-1]
            if name <= after:
                continue  # and not all of its revisions are behind the mark
            if newest.name != name:
                self._revisions[name] = tuple(each.name for each in revisions)
            else:
                self._revisions.pop(name, None)
            if name.startswith(prefix):
                yield Listed(name, self.plain_size(name, newest.size))

    def delete(self, name: str) -> None:
        """All revisions that a listing told of, the newest last: until then it is what counts."""
        for stored in self._revisions.pop(name, (name,)):
            self.plain.delete(stored)
            self._forget_header(stored)

    def stored_name(self, name: str) -> str:
        """What *name* is stored as, as far as listings told."""
        return self._revisions.get(name, (name,))[-1]

    def plain_size(self, name: str, stored_bytes: int) -> int:
        """How much is in *name*, of which so many bytes are stored."""
        return stored_bytes if self._kind(name) is None else plain_length(stored_bytes)

    def put_here(self, name: str) -> Stored | None:
        """What was put as *name*, if that was not long ago."""
        with self._lock:
            return self._put_here.get(name)

    def replace(self, name: str, data: bytes) -> None:
        kind = self._kind(name)
        self.plain.replace(name, data if kind is None else self._sealed(name, data, kind))

    def modified(self, name: str) -> int:
        if self._kind(name) is None:
            return self.plain.modified(name)
        return self._of_revision(name, self.plain.modified)

    def key_of(self, name: str) -> str | None:
        """Which key an object is sealed with; None of one that is not sealed."""
        if self._kind(name) is None:
            return None
        return self._of_revision(name, lambda stored: self._header(stored).key_id.hex())

    def seal_anew(self, name: str) -> None:
        """Put *name* once more, as the next revision, under the active key, and delete the one before when the new one
        was read back. Raises StoreDenied where nothing may be deleted; then both are there, and the new one counts.
        METADATA is replaced, or stays where that is denied."""
        kind = self._kind(name)
        assert kind is not None
        content = self.get(name)
        if name == METADATA:
            self.replace(name, content)
            return
        before = self._revisions.get(name, (name,))
        number = split_revision(before[-1])[1] + 1
        stored = with_revision(name, number)
        with contextlib.suppress(ObjectExists):  # an attempt before this one came as far
            sealed = self._sealed(stored, content, kind)
            self.plain.put(stored, sealed)
            self._note(stored, sealed)
        if self._unseal(stored, self.plain.get(stored), kind) != content:
            raise ObjectCorrupt(f"{self.url} does not give {stored} back as it was put", name=stored)
        self._revisions[name] = (*before, stored)
        self.delete_older(name)

    def dedup(self) -> Root | None:
        """What the chunks of backups are hashed with; None where nothing is sealed."""
        ring = self._keys.ring()
        return ring.dedup if ring is not None else None

    def has_older(self, name: str) -> bool:
        """Whether there are revisions that do not count any more, as far as a listing told of them."""
        return len(self._revisions.get(name, ())) > 1

    def delete_older(self, name: str) -> None:
        """Those revisions that do not count any more, as far as a listing told of them."""
        *older, newest = self._revisions.get(name, (name,))
        for stored in older:
            self.plain.delete(stored)
        if older:
            self._revisions[name] = (newest,)

    # --- revisions -------------------------------------------------------------------------------------

    def _of_revision(self, name: str, read: Callable[[str], T]) -> T:
        """What *read* makes of the newest revision, as far as it is known; looked for where that is gone."""
        stored = self.stored_name(name)
        try:
            return read(stored)
        except ObjectCorrupt as exc:
            exc.name = name  # whoever asked knows no other
            raise
        except ObjectNotFound:
            if name == METADATA:
                raise
            stem = name.rpartition(".")[0] + "."
            for _ in self.list(stem):
                pass  # takes note of revisions
            found = self.stored_name(name)
            if found == stored:
                raise ObjectNotFound(name) from None
            return read(found)

    # --- sealing ---------------------------------------------------------------------------------------

    def _kind(self, name: str) -> int | None:
        """What *name* is sealed as here; None where it is not."""
        kind = None if is_probe(name) else sealed_kind(name)
        return kind if kind is not None and self._keys.ring() is not None else None

    def _sealed(self, stored: str, data: bytes, kind: int) -> bytes:
        """What is to be put as *stored*; what it takes to open it is in the store by then."""
        ring = self._keys.ring()
        assert ring is not None
        self._publish(ring)
        root = ring.active
        return seal(
            data, stored, kind=kind, key_id=bytes.fromhex(root.key_id), root=root.secret,
            salt=secrets.token_bytes(SALT_SIZE),
        )  # fmt: skip

    def _note(self, stored: str, data: bytes) -> None:
        """What the catalogue will want to know of it, as long as it is at hand."""
        if stored.startswith((FULL, INCREMENTAL)):
            found = Stored(stored, len(data), hashlib.sha256(data).hexdigest())
            with self._lock:
                self._put_here[split_revision(stored)[0]] = found
                while len(self._put_here) > HEADERS_KEPT:
                    self._put_here.popitem(last=False)

    def _unseal(self, stored: str, data: bytes, kind: int) -> bytes:
        return unseal(data, stored, kind, lambda key_id: self._root(stored, key_id))

    def _part(self, stored: str, offset: int, length: int, kind: int) -> bytes:
        header = self._header(stored)
        if offset + length > header.plain_bytes:
            raise ObjectCorrupt(
                f"{stored} ends at byte {header.plain_bytes}, wanted {offset + length}", name=stored
            )
        if length == 0:
            return b""
        first = offset // header.frame_bytes
        count = (offset + length - 1) // header.frame_bytes + 1 - first
        sealed = self.plain.get_range(stored, *header.extent(first, count))
        try:
            frames = open_frames(
                sealed, header, stored, kind, lambda key_id: self._root(stored, key_id), first=first, count=count
            )  # fmt: skip
        except ObjectCorrupt:
            self._forget_header(stored)  # perhaps it was that answer, and not this one, that was damaged
            raise
        except KeyRefused:
            self._forget_header(stored)
            require_digest(self.plain.get(stored), stored)  # what looks like another key may be damage
            raise
        start = offset - first * header.frame_bytes
        return b"".join(frames)[start : start + length]

    def _forget_header(self, stored: str) -> None:
        with self._lock:
            self._headers.pop(stored, None)

    def _header(self, name: str) -> SealHeader:
        with self._lock:
            found = self._headers.get(name)
        if found is None:
            found = self._read_header(name)
            if name == METADATA:
                return found  # the next one it has is another
            with self._lock:
                self._headers[name] = found
                while len(self._headers) > HEADERS_KEPT:
                    self._headers.popitem(last=False)
        return found

    def _read_header(self, name: str) -> SealHeader:
        try:
            return parse_header(self.plain.get_range(name, 0, HEADER_SIZE), name)
        except FormatTooNew:
            require_digest(self.plain.get(name), name)
            raise

    def _root(self, name: str, key_id: bytes) -> bytes:
        wanted = key_id.hex()
        for ring in (self._keys.ring, self._keys.again):
            held = ring()
            root = held.root(wanted) if held is not None else None
            if root is not None:
                return root.secret
        raise KeyRefused(
            f"{name} is sealed with key {wanted}, which is not in the key ring of {self.url}",
            hint="is a newer slot missing or damaged in keys/, or this object from another repository?",
        )

    def publish_anew(self) -> None:
        """With the next object: the store may have been emptied, and its slots with it."""
        self._published = 0

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
