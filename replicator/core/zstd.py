"""The one import of zstd: the standard library's from 3.14 on, its backport before."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZstdError = zstd.ZstdError

# Level 3 is the lowest that finds far matches in a prefix; level 1 loses them (measured: wal pages
# against their previous version came out ten times larger).
LEVEL = 3

# A frame says how large a window it wants, and the library makes one before it looks at anything else. None of ours
# wants more than its content, which is at most 16 MiB; without this it would be 128 MiB.
_BOUNDS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 24}


def compress(content: bytes, prefix: bytes = b"", level: int = LEVEL) -> bytes:
    """One zstd frame that carries its plain length; *prefix* is a raw-content dictionary."""
    if prefix:
        return zstd.compress(content, level=level, zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix)
    return zstd.compress(content, level=level)


def expand(frame: bytes, length: int, prefix: bytes = b"") -> bytes:
    """Undo *compress*, refusing any frame that does not yield exactly *length* bytes.

    The frame's own claim is looked at before anything is expanded, and the expansion itself stops one
    byte past *length*, so a hostile frame cannot make us allocate more than we expect.
    """
    info = zstd.get_frame_info(frame)
    if info.decompressed_size is not None and info.decompressed_size != length:
        raise ZstdError(f"frame declares {info.decompressed_size} bytes instead of {length}")
    dictionary = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    decompressor = zstd.ZstdDecompressor(zstd_dict=dictionary, options=_BOUNDS)
    content = decompressor.decompress(frame, max_length=length + 1)
    if len(content) != length or not decompressor.eof or decompressor.unused_data:
        raise ZstdError(f"frame does not expand to exactly {length} bytes")
    return content
