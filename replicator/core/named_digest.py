"""The digest that an object ends with: of its name and of all before it.

So whoever has neither key nor catalogue can tell damage, and two objects that were swapped. It is asked for before the
version: every later format ends in one, too, and a damaged version is damage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from replicator.core.errors import ObjectCorrupt

DIGEST_SIZE = 32


def digest_of(content: bytes | bytearray | memoryview, name: str) -> bytes:
    """SHA-256 of *name*, a zero byte, and *content*."""
    return digest_of_pieces((content,), name)


def digest_of_pieces(pieces: Iterable[bytes | bytearray | memoryview], name: str) -> bytes:
    """The same of what *pieces* are one behind the other: to join a large object twice costs its size in memory."""
    # A folder may hold names that are no text; no object of ours has one, and all are looked at.
    whole = hashlib.sha256(name.encode(errors="backslashreplace") + b"\0")
    for each in pieces:
        whole.update(each)
    return whole.digest()


def has_digest(data: bytes | memoryview, name: str) -> bool:
    """Whether *data* ends in the digest of what is before it."""
    view = memoryview(data)
    return len(view) >= DIGEST_SIZE and digest_of(view[:-DIGEST_SIZE], name) == view[-DIGEST_SIZE:]


def require_digest(data: bytes | memoryview, name: str) -> None:
    """Raise ObjectCorrupt where it does not."""
    if not has_digest(data, name):
        raise ObjectCorrupt(f"{name} does not have the digest it was written with", name=name)
