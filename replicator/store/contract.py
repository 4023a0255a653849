"""What every store keeps, in prose; one suite of tests holds each kind to it.

Names are relative, with ``/`` between parts, and are valid on every kind. A store adds nothing to what it is
given and interprets none of it.

- ``put`` creates an object, whole and durable when it returns, and raises ObjectExists if the name is taken;
  of several concurrent puts of a name exactly one succeeds. A put that raised StoreUnavailable may have taken
  the bytes all the same: the caller asks again with the same bytes and meets ObjectExists.
- ``get`` gives the whole object or raises ObjectNotFound; where it is larger than any object of its name, it raises
  ObjectCorrupt instead of reading it (core/sizes.py). ``get_range`` gives exactly the bytes asked for, or
  raises ObjectCorrupt where the object is shorter.
- ``list`` gives every object whose name begins with the prefix and sorts after ``after``, in the order of
  their names, each once. Objects put before the call are in it; probes only where the prefix is one of theirs.
- ``delete`` removes an object; a missing one is no error.
- ``replace`` gives an object new content, whole and durable when it returns, whether it was there or not; who reads
  meanwhile gets the old or the new, whole. Of several at a time one stays, nobody knows which, and one that raised
  StoreUnavailable may take effect later. It is for ``metadata.json`` alone, which is derived and which nothing needs.
  Credentials that may only add are a way to run: with them it is StoreDenied, at some services from the second time on.
- ``modified`` tells when an object was last written, by the store's own clock: microseconds since 1970, UTC, of which
  a store may know whole seconds only. Raises ObjectNotFound; StoreDenied where the store does not say.
- Anything may raise StoreUnavailable (ask again later) or StoreDenied (somebody must change something).

All calls block, may be made from several threads at once, and hold no lock of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from replicator.core.catalogue import Listed

# How an object begins that only tries what a server does; hidden from every listing that does not ask for such names,
# since one that could not be deleted again is nobody's. No folder: that would stay behind.
PROBES = ".probe-"


# What is asked of an object at first: one that is not larger costs one request. A pack has 8 MiB and a segment half of
# that; logs may have 32.
START_BYTES = 16 << 20


def is_probe(name: str) -> bool:
    return name.startswith(PROBES)


class Store(Protocol):
    @property
    def url(self) -> str:
        """Where this is, with no secret in it: for logs and errors."""
        ...

    def put(self, name: str, data: bytes) -> None: ...

    def get(self, name: str) -> bytes: ...

    def get_range(self, name: str, offset: int, length: int) -> bytes: ...

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]: ...

    def delete(self, name: str) -> None: ...

    def replace(self, name: str, data: bytes) -> None: ...

    def modified(self, name: str) -> int: ...


class Kind(Store, Protocol):
    """What store/ranges.py lies over: a kind of store, and whatever is wrapped around one below."""

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        """The first *length* bytes, at least 1, or all there are, and the size of the whole object: in one request.

        Raises ObjectNotFound.
        """
        ...
