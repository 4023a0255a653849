"""Which pages changed since when: what the next incremental backup has to hold.

For each page that changed, the transaction that changed it last and the short hash of what it holds since. In plain
arrays, 12 bytes a page in groups of 256 neighbours, so that a large database costs no more than its changed parts.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence

from replicator.core import zstd
from replicator.core.errors import ObjectCorrupt
from replicator.core.named_digest import DIGEST_SIZE, digest_of, has_digest
from replicator.core.position import GenerationId

_GROUP_LOG2 = 8
_GROUP = 1 << _GROUP_LOG2
_MAGIC = b"RPLCHNG\x01"
_HEAD = struct.Struct(">8s8sQQI")  # magic, generation, since, txid, groups
_GROUP_BYTES = 4 + _GROUP * 12
_GROUPS_MAX = 1 << 24


class _Group:
    """256 neighbouring pages; a txid of 0 is none. ``newest`` is the greatest of them."""

    __slots__ = ("hashes", "newest", "txids")

    def __init__(self) -> None:
        self.txids = array("Q", bytes(8 * _GROUP))
        self.hashes = array("I", bytes(4 * _GROUP))
        self.newest = 0


class ChangedPages:
    """Complete for every position from *since* on, in *generation*."""

    def __init__(self, generation: GenerationId, since: int) -> None:
        self.generation = generation
        self.since = since
        self.txid = since
        """Of the last transaction that was noted."""
        self._groups: dict[int, _Group] = {}

    def note(self, txid: int, pgnos: Sequence[int], hashes: Sequence[int]) -> None:
        """Transaction *txid* changed these pages, which have these short hashes now."""
        groups = self._groups
        for pgno, value in zip(pgnos, hashes, strict=True):
            group = groups.get(pgno >> _GROUP_LOG2)
            if group is None:
                group = groups[pgno >> _GROUP_LOG2] = _Group()
            within = pgno & (_GROUP - 1)
            group.txids[within] = group.newest = txid
            group.hashes[within] = value
        self.txid = txid

    def join(self, later: ChangedPages) -> None:
        """Note what *later* has noted, whose transactions are behind ours; it is not to be used any more."""
        for number, group in later._groups.items():
            mine = self._groups.setdefault(number, group)
            if mine is not group:
                for within, txid in enumerate(group.txids):
                    if txid:
                        mine.txids[within], mine.hashes[within] = txid, group.hashes[within]
                mine.newest = group.newest
        self.txid = later.txid

    def newer_than(self, txid: int, pages: int) -> Iterator[tuple[int, int]]:
        """Page and short hash of every page up to number *pages* that changed after *txid*, ascending."""
        assert txid >= self.since, (txid, self.since)
        for number in sorted(self._groups):
            group = self._groups[number]
            if group.newest <= txid:
                continue
            first = number << _GROUP_LOG2
            for within, changed in enumerate(group.txids):
                if changed > txid and first + within <= pages:
                    yield first + within, group.hashes[within]

    def copy(self) -> ChangedPages:
        """As it is now: the bytes are copied, some milliseconds for a million pages."""
        found = ChangedPages(self.generation, self.since)
        found.txid = self.txid
        for number, group in self._groups.items():
            mine = found._groups[number] = _Group()
            mine.txids, mine.hashes, mine.newest = group.txids[:], group.hashes[:], group.newest
        return found

    def forget(self, txid: int) -> None:
        """Nobody asks for what changed at or before *txid* any more."""
        if txid > self.since:
            self.since = txid
            self._groups = {number: group for number, group in self._groups.items() if group.newest > txid}

    # --- as a file -------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Its bytes in a file, ended by a digest."""
        generation = bytes.fromhex(self.generation)
        body = bytearray()
        for number in sorted(self._groups):
            group = self._groups[number]
            body += struct.pack(f">I{_GROUP}Q{_GROUP}I", number, *group.txids, *group.hashes)
        head = _HEAD.pack(_MAGIC, generation, self.since, self.txid, len(self._groups))
        whole = head + zstd.compress(bytes(body))
        return whole + digest_of(whole, self.generation)


def decode_changed(data: bytes) -> ChangedPages:
    """The inverse. Raises ObjectCorrupt for anything else."""
    if len(data) < _HEAD.size + DIGEST_SIZE:
        raise ObjectCorrupt("the list of changed pages is cut off")
    magic, generation, since, txid, count = _HEAD.unpack_from(data)
    found = ChangedPages(GenerationId(generation.hex()), since)
    if magic != _MAGIC or count > _GROUPS_MAX or not has_digest(data, found.generation):
        raise ObjectCorrupt("the list of changed pages is damaged")
    try:
        body = zstd.expand(data[_HEAD.size : -DIGEST_SIZE], count * _GROUP_BYTES)
    except zstd.ZstdError as exc:
        raise ObjectCorrupt(f"the list of changed pages does not expand: {exc}") from exc
    for offset in range(0, len(body), _GROUP_BYTES):
        number, *values = struct.unpack_from(f">I{_GROUP}Q{_GROUP}I", body, offset)
        group = found._groups[number] = _Group()
        group.txids, group.hashes = array("Q", values[:_GROUP]), array("I", values[_GROUP:])
        group.newest = max(group.txids)
    found.txid = txid
    return found
