"""Sealing: an object encrypted and authenticated together with its name; docs/FORMAT.md has the bytes.

Each object has a key of its own, derived from a root of the key ring and a random salt, so a nonce, which only
counts frames, cannot repeat. Frames can be opened one by one: a part of a large object is read without the rest,
and no plain byte is given out that was not authenticated before. The digest at the end covers what is stored,
name included, so that whoever has no key can still tell damage and mix-ups.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.named_digest import DIGEST_SIZE, digest_of, require_digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"RPLSEAL"
VERSION = 1
# magic, version, kind, codec, log2 of the frame size, reserved, plain length, key id, reserved, salt
_HEADER = struct.Struct(">7sBBBBxQ8s4x32s")
HEADER_SIZE = _HEADER.size
assert HEADER_SIZE == 64
SALT_SIZE = 32
TAG_SIZE = 16
KEY_ID_SIZE = 8

# AES-GCM in `cryptography` holds Python's lock, 11 µs for as much; a tag costs 16 bytes.
FRAME_LOG2 = 16
FRAME_BYTES = 1 << FRAME_LOG2
_FRAME_LOG2_MAX = 20  # what a reader is ready to hold of one frame
PLAIN_BYTES_MAX = 1 << 40
_CODEC_NONE = 0  # what is inside carries codecs of its own

_INFO = b"replicator object 1"
# The nonce: frame number, then whether it is the last. A cut-off object has no last frame.
_NONCE = struct.Struct(">3xBQ")

RootOf = Callable[[bytes], bytes]
"""The root with a key id; raises KeyUnknown."""


@dataclass(frozen=True, slots=True)
class SealHeader:
    """What an object says of itself before anything is opened. ``raw`` are the bytes that the frames authenticate."""

    kind: int
    plain_bytes: int
    frame_bytes: int
    key_id: bytes
    salt: bytes
    raw: bytes

    @property
    def frames(self) -> int:
        """An object of no bytes has one frame: even that is authenticated."""
        return max(1, -(-self.plain_bytes // self.frame_bytes))

    @property
    def sealed_bytes(self) -> int:
        """Length of the whole object."""
        return HEADER_SIZE + self.plain_bytes + self.frames * TAG_SIZE + DIGEST_SIZE

    def frame_length(self, number: int) -> int:
        """Plain bytes of one frame."""
        return min(self.frame_bytes, self.plain_bytes - number * self.frame_bytes)

    def extent(self, first: int, count: int) -> tuple[int, int]:
        """Where so many frames lie in the object: offset and length."""
        offset = HEADER_SIZE + first * (self.frame_bytes + TAG_SIZE)
        plain = min((first + count) * self.frame_bytes, self.plain_bytes) - first * self.frame_bytes
        return offset, plain + count * TAG_SIZE


def plain_length(sealed_bytes: int) -> int:
    """How much lies in an object of so many bytes, by the size of frames that we write."""
    rest = max(0, sealed_bytes - HEADER_SIZE - DIGEST_SIZE)
    frames = max(1, -(-rest // (FRAME_BYTES + TAG_SIZE)))
    return max(0, rest - frames * TAG_SIZE)


def seal(plain: bytes, name: str, *, kind: int, key_id: bytes, root: bytes, salt: bytes) -> bytes:
    """The final bytes of object *name*. *salt*: 32 random bytes, never used before."""
    assert len(salt) == SALT_SIZE
    assert len(key_id) == KEY_ID_SIZE
    raw = _HEADER.pack(MAGIC, VERSION, kind, _CODEC_NONE, FRAME_LOG2, len(plain), key_id, salt)
    header = parse_header(raw, name)
    cipher, bound = derive_cipher(root, salt, _INFO), _bound(header, name)
    parts = [raw]
    view = memoryview(plain)
    for number in range(header.frames):
        start = number * FRAME_BYTES
        frame = view[start : start + FRAME_BYTES]
        parts.append(cipher.encrypt(_nonce(header, number), frame, bound))
    whole = b"".join(parts)
    return whole + digest_of(whole, name)


def parse_header(data: bytes, name: str) -> SealHeader:
    """Read and bound the first 64 bytes; nothing in it is proved before a frame is opened."""
    if len(data) < HEADER_SIZE:
        raise ObjectCorrupt(f"{name} is cut off after {len(data)} bytes", name=name)
    magic, version, kind, codec, frame_log2, plain, key_id, salt = _HEADER.unpack_from(data)
    if magic != MAGIC or version == 0:
        raise ObjectCorrupt(
            f"{name} is not encrypted, as everything in this repository is", name=name,
            hint="somebody else put it there, or it is damaged",
        )  # fmt: skip
    if version != VERSION or codec != _CODEC_NONE:
        raise FormatTooNew(
            f"{name} is sealed in format {version} (codec {codec}), this program reads format {VERSION}",
            hint="use a newer version of replicator",
        )
    reserved = (data[11], *data[28:32])
    if any(reserved) or not 0 < frame_log2 <= _FRAME_LOG2_MAX or plain > PLAIN_BYTES_MAX:
        raise ObjectCorrupt(f"{name} has a header that is never written", name=name)
    return SealHeader(kind, plain, 1 << frame_log2, key_id, salt, bytes(data[:HEADER_SIZE]))


def unseal(data: bytes, name: str, kind: int, root_of: RootOf) -> bytes:
    """The plain bytes of object *name*. Raises ObjectCorrupt where it is not what was sealed under this name."""
    try:
        header = parse_header(data, name)
    except FormatTooNew:
        require_digest(data, name)
        raise
    if len(data) != header.sealed_bytes:
        raise ObjectCorrupt(f"{name} has {len(data)} bytes instead of {header.sealed_bytes}", name=name)
    require_digest(data, name)
    body = memoryview(data)[HEADER_SIZE:-DIGEST_SIZE]
    return b"".join(open_frames(body, header, name, kind, root_of, first=0, count=header.frames))


def open_frames(
    sealed: bytes | memoryview,
    header: SealHeader,
    name: str,
    kind: int,
    root_of: RootOf,
    *,
    first: int,
    count: int,
) -> list[bytes]:
    """The plain bytes of *count* frames from number *first* on, which lie in *sealed*, each authenticated."""
    from cryptography.exceptions import InvalidTag

    if header.kind != kind:
        raise ObjectCorrupt(f"{name} is sealed as an object of another kind", name=name)
    cipher, bound = derive_cipher(root_of(header.key_id), header.salt, _INFO), _bound(header, name)
    view = memoryview(sealed)
    opened: list[bytes] = []
    at = 0
    for number in range(first, first + count):
        end = at + header.frame_length(number) + TAG_SIZE
        try:
            opened.append(cipher.decrypt(_nonce(header, number), view[at:end], bound))
        except InvalidTag:
            raise ObjectCorrupt(
                f"{name} is not what was sealed under this name (frame {number})", name=name
            ) from None
        at = end
    return opened


def derive_cipher(secret: bytes, salt: bytes, purpose: bytes) -> AESGCM:
    """AES-256-GCM under a key that is for *purpose* alone, by HKDF-SHA256."""
    # 10 MB and 40 ms that a plain repository does not need.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), 32, salt, purpose).derive(secret))


def _bound(header: SealHeader, name: str) -> bytes:
    return header.raw + name.encode(errors="backslashreplace")


def _nonce(header: SealHeader, number: int) -> bytes:
    return _NONCE.pack(number == header.frames - 1, number)
