"""How large an object may be, told by its name, before a byte of it is read.

Far above what is written, far below what hurts a reader: a file of no content may claim to be of any size.
"""

from __future__ import annotations

from replicator.core.errors import ObjectCorrupt
from replicator.core.key_ring import SLOT_BYTES_MAX
from replicator.core.log import READ_BYTES_MAX
from replicator.core.manifest import MANIFEST_BYTES_MAX
from replicator.core.names import (
    REPOSITORY,
    FullName,
    IncrementalName,
    KeyName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
    split_revision,
)
from replicator.core.records import RECORD_BYTES_MAX

# A pack is full at 8 MiB, which its last frame and the tables of a large database go beyond.
_PACK_BYTES_MAX = 512 << 20
# What is none of ours is looked at by nobody but `verify`; the derived catalogue is JSON of some mebibytes.
_OTHER_BYTES_MAX = 256 << 20


def largest(name: str) -> int:
    """Bytes that an object stored as *name* may have, sealed or not."""
    plain = _largest_plain(split_revision(name)[0])
    return plain + plain // 1024 + 1024  # header, tags and digest of a sealed one


def _largest_plain(name: str) -> int:
    if name == REPOSITORY:
        return RECORD_BYTES_MAX
    match parse_name(name):
        case None:
            return _OTHER_BYTES_MAX
        case FullName() | IncrementalName():
            return MANIFEST_BYTES_MAX
        case PackName():
            return _PACK_BYTES_MAX
        case LogName() | SegmentName():
            return READ_BYTES_MAX
        case KeyName():
            return SLOT_BYTES_MAX
        case _:
            return RECORD_BYTES_MAX


def require_proper_size(name: str, size_bytes: int) -> None:
    """Raise ObjectCorrupt where *name* is larger than any such object."""
    if size_bytes > largest(name):
        raise ObjectCorrupt(f"{name} has {size_bytes} bytes, larger than any such object is", name=name)
