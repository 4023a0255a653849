"""From a unit back to page images: the inverse of core/unit_build.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from replicator.core.checksum import page_hash, short_hash
from replicator.core.errors import ObjectCorrupt
from replicator.core.page_delta import Block, expand_block
from replicator.core.unit import Entry, Unit

Version = Callable[[int], bytes]
"""A page of the database just before the unit (for a part: before its transaction)."""


def expand_unit(unit: Unit, *, pages_before: int, version: Version) -> Iterator[tuple[Entry, list[bytes]]]:
    """Each entry of *unit* with its page images, in the order of ``entry.pgnos``, each proved by its hash.

    Blocks are expanded as they are needed, so whoever stops early pays for nothing behind. At most one
    unit's images are held. Raises ObjectCorrupt where the unit does not fit the state it is applied to.
    """
    wanted = [(number, pgno) for number, entry in enumerate(unit.entries) for pgno in entry.pgnos]
    newest: dict[int, bytes] = {}
    images: list[bytes] = []
    blocks = iter(unit.blocks)
    taken = 0
    for number, entry in enumerate(unit.entries):
        mine: list[bytes] = []
        while len(mine) < len(entry.pgnos):
            if not images:
                block = next(blocks)
                ahead = wanted[taken : taken + block.pages]
                size = pages_before if ahead[0][0] == 0 else unit.entries[ahead[0][0] - 1].pages_after
                images = _expand(unit, block, [pgno for _, pgno in ahead], size, newest, version)
                taken += block.pages
            use = min(len(images), len(entry.pgnos) - len(mine))
            mine += images[:use]
            del images[:use]
        for pgno, expected, image in zip(entry.pgnos, entry.hashes, mine, strict=True):
            if short_hash(page_hash(pgno, image)) != expected:
                raise ObjectCorrupt(
                    f"page {pgno} of txid {entry.txid:016x} (entry {number}) has another hash"
                )
        yield entry, mine


def _expand(
    unit: Unit, block: Block, pgnos: list[int], size: int, newest: dict[int, bytes], version: Version
) -> list[bytes]:
    header = unit.header

    def before(pgno: int) -> bytes | None:
        return newest[pgno] if pgno in newest else version(pgno)

    images = expand_block(
        block, pgnos, pages_before=size, version=before, page_size=header.page_size, codec=header.codec
    )
    newest.update(zip(pgnos, images, strict=True))
    return images
