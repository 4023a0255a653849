"""The hash of a page, and the rolling checksum of a whole database.

The checksum of a database is the XOR of the hashes of its pages, so a commit changes it by the pages it
changed alone. The hash must not be linear (a CRC's XOR would miss swapped content), and takes the page
number as its seed, so the same bytes on two pages do not cancel out. XOR of 64-bit hashes guards against
faults, not against someone who can choose pages; that is what the SHA-256 of a unit is for.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

LOCK_BYTE = 1 << 30
"""SQLite locks the bytes from here on and never writes the page they lie on (fileformat2, section 1.6)."""

SHORT_HASH_SIZE = 4
"""Bytes of the short form of a hash."""


def lock_page(page_size: int) -> int:
    """Number of the page that never holds content."""
    return LOCK_BYTE // page_size + 1


def page_hash(pgno: int, page: bytes | memoryview) -> int:
    """64 bits for *page* as page number *pgno*."""
    return xxhash.xxh3_64_intdigest(page, pgno)


def short_hash(value: int) -> int:
    """The low 32 bits of a hash, which is what units store; docs/FORMAT.md says why it is enough."""
    return value & 0xFFFFFFFF


def pages_checksum(content: bytes | memoryview, first_pgno: int, page_size: int) -> int:
    """XOR of the hashes of consecutive whole pages; the lock page counts as nothing."""
    view = memoryview(content)
    hashed = xxhash.xxh3_64_intdigest
    total = 0
    pgno = first_pgno
    for offset in range(0, len(content), page_size):
        total ^= hashed(view[offset : offset + page_size], pgno)
        pgno += 1
    locked = lock_page(page_size)
    if first_pgno <= locked < pgno:
        start = (locked - first_pgno) * page_size
        total ^= hashed(view[start : start + page_size], locked)
    return total


def fold(hashes: Iterable[int]) -> int:
    """XOR of all *hashes*."""
    total = 0
    for each in hashes:
        total ^= each
    return total
