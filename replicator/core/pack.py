"""Packs: compressed frames one behind the other, each readable by itself, in objects of some mebibytes.

docs/FORMAT.md has the bytes. What lies in a frame, whoever names it knows: chunks, pages, or a table of either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replicator.core.codec import CODECS, Compression, compress, expand
from replicator.core.errors import ObjectCorrupt
from replicator.core.named_digest import digest_of, has_digest

MAGIC = b"RPLPACK"
VERSION = 1
HEAD = MAGIC + bytes([VERSION])
# A pack is final in memory before its first put, so its size is what a backup costs in memory.
PACK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a frame lies: at ``offset`` of pack number ``pack``. ``stored_bytes`` counts the byte of its codec."""

    pack: int
    offset: int
    stored_bytes: int
    plain_bytes: int


@dataclass(frozen=True, slots=True)
class PackUse:
    """A pack that a backup needs, by its object name, and how long it is."""

    name: str
    size_bytes: int


def encode_frame(plain: bytes, compression: Compression) -> bytes:
    """The codec, then what it made of *plain*."""
    return bytes([compression.codec]) + compress(plain, compression)


def decode_frame(frame: Frame, stored: bytes | memoryview, pack: str) -> bytes:
    """The plain bytes of *frame*, which lies in *stored*. Raises ObjectCorrupt, naming the pack."""
    codec = stored[0] if stored else -1
    if codec not in CODECS:
        raise ObjectCorrupt(f"{pack} is damaged at byte {frame.offset}: codec {codec}", name=pack)
    try:
        return expand(codec, bytes(stored[1:]), frame.plain_bytes)
    except ObjectCorrupt as exc:
        raise ObjectCorrupt(f"{pack} is damaged at byte {frame.offset}: {exc}", name=pack) from exc


class PackBuilder:
    """Collects frames into packs; whoever fills it puts what ``take`` gives.

    Frames of the pack under construction carry the pack number that it will have.
    """

    def __init__(self, first_pack: int) -> None:
        self._pack = first_pack
        self._out = bytearray(HEAD)

    @property
    def size(self) -> int:
        return len(self._out)

    def add(self, stored: bytes, plain_bytes: int) -> Frame:
        """What ``encode_frame`` gave, as one frame of the current pack."""
        frame = Frame(self._pack, len(self._out), len(stored), plain_bytes)
        self._out += stored
        return frame

    def take(self, name: str) -> bytes | None:
        """The finished pack, as object *name*, if it holds anything; the next one is begun."""
        if len(self._out) == len(HEAD):
            return None
        pack = bytes(self._out) + digest_of(self._out, name)
        self._out = bytearray(HEAD)
        self._pack += 1
        return pack


def check_pack(data: bytes, name: str) -> None:
    """Raise ObjectCorrupt where *data* is not the pack that was written as *name*."""
    if data[: len(HEAD)] != HEAD:
        raise ObjectCorrupt(f"{name} is no pack of a format that this program reads", name=name)
    if not has_digest(data, name):
        raise ObjectCorrupt(f"{name} does not have the digest it was written with", name=name)


def read_frame(
    frame: Frame, packs: tuple[PackUse, ...], get_range: Callable[[str, int, int], bytes]
) -> bytes:
    """Fetch one frame by itself."""
    pack = packs[frame.pack].name
    return decode_frame(frame, get_range(pack, frame.offset, frame.stored_bytes), pack)
