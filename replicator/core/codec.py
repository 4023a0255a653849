"""How content is compressed: one of three codecs, told by a number beside what it made."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from replicator.core import zstd
from replicator.core.errors import ObjectCorrupt, UsageError

CODEC_NONE = 0
CODEC_ZSTD = 1
CODEC_DEFLATE = 2
CODECS = (CODEC_NONE, CODEC_ZSTD, CODEC_DEFLATE)

_RAW_DEFLATE = -15  # no header and no checksum: the digest around it is stronger
DICTIONARY_BYTES_MAX = 1 << 15  # all that DEFLATE can point back to
_DEFLATE_LEVEL = 6

_LEVEL = re.compile("[0-9]{1,2}")
_NAMES = {"none": CODEC_NONE, "zstd": CODEC_ZSTD, "gzip": CODEC_DEFLATE}
# Above 19 zstd takes hundreds of megabytes; below 3 it loses the far matches that page deltas live from.
_LEVELS = {CODEC_NONE: range(1), CODEC_ZSTD: range(3, 20), CODEC_DEFLATE: range(1, 10)}


@dataclass(frozen=True, slots=True)
class Compression:
    """A codec and its level."""

    codec: int = CODEC_ZSTD
    level: int = zstd.LEVEL

    def __str__(self) -> str:
        name = next(name for name, codec in _NAMES.items() if codec == self.codec)
        return name if self.level == _default_level(self.codec) else f"{name}:{self.level}"


DEFAULT = Compression()


def _default_level(codec: int) -> int:
    return {CODEC_ZSTD: zstd.LEVEL, CODEC_DEFLATE: _DEFLATE_LEVEL}.get(codec, 0)


def parse_compression(text: str) -> Compression:
    """``zstd``, ``gzip`` or ``none``, or with a level: ``zstd:9``. ``true`` and ``false`` stand for zstd and none."""
    name, colon, level_text = text.strip().lower().partition(":")
    codec = _NAMES.get({"true": "zstd", "false": "none"}.get(name, name))
    hint = "it is zstd, gzip or none; with a level zstd:3 to zstd:19, gzip:1 to gzip:9"
    if codec is None or (colon and not _LEVEL.fullmatch(level_text)):
        raise UsageError(f"not a compression: {text!r}", hint=hint)
    level = int(level_text) if colon else _default_level(codec)
    if level not in _LEVELS[codec]:
        raise UsageError(f"not a level of {name}: {level}", hint=hint)
    return Compression(codec, level)


def compress(content: bytes, compression: Compression) -> bytes:
    if compression.codec == CODEC_DEFLATE:
        return deflate(content, compression.level)
    return zstd.compress(content, level=compression.level) if compression.codec == CODEC_ZSTD else content


def expand(codec: int, stored: bytes, length: int) -> bytes:
    """The inverse; raises ObjectCorrupt where *stored* does not hold exactly *length* bytes."""
    if codec == CODEC_DEFLATE:
        return inflate(stored, length)
    if codec == CODEC_ZSTD:
        try:
            return zstd.expand(stored, length)
        except zstd.ZstdError as exc:
            raise ObjectCorrupt(f"it does not expand: {exc}") from exc
    if len(stored) != length:
        raise ObjectCorrupt(f"it holds {len(stored)} bytes instead of {length}")
    return stored


def deflate(content: bytes, level: int, dictionary: bytes = b"") -> bytes:
    """Raw DEFLATE, against the last 32 KiB of *dictionary*."""
    known = dictionary[-DICTIONARY_BYTES_MAX:]
    packer = (
        zlib.compressobj(level, zlib.DEFLATED, _RAW_DEFLATE, zdict=known)
        if known
        else zlib.compressobj(level, zlib.DEFLATED, _RAW_DEFLATE)
    )
    return packer.compress(content) + packer.flush()


def inflate(stored: bytes, length: int, dictionary: bytes = b"") -> bytes:
    """Undo ``deflate``; expands no more than one byte beyond *length*, so a bomb costs nothing."""
    known = dictionary[-DICTIONARY_BYTES_MAX:]
    opener = zlib.decompressobj(_RAW_DEFLATE, zdict=known) if known else zlib.decompressobj(_RAW_DEFLATE)
    try:
        content = opener.decompress(stored, length + 1)
    except zlib.error as exc:
        raise ObjectCorrupt(f"it does not expand: {exc}") from exc
    if len(content) != length or not opener.eof or opener.unused_data or opener.unconsumed_tail:
        raise ObjectCorrupt(f"it does not expand to exactly {length} bytes")
    return content
