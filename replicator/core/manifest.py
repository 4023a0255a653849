"""What the manifests of full and incremental backups share: JSON between a short header and a digest.

docs/FORMAT.md has the bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from typing import Any, Protocol, TypeVar

from replicator.core.errors import FormatTooNew, ObjectCorrupt, ReplicatorError
from replicator.core.named_digest import DIGEST_SIZE, digest_of, require_digest
from replicator.core.names import PackName, parse_name
from replicator.core.pack import Frame, PackUse, read_frame
from replicator.core.position import GenerationId, Position
from replicator.core.records import EPOCH_MAX
from replicator.core.times import MICROS_MAX, MICROS_MIN
from replicator.core.unit import TRAILER_SIZE

VERSION = 1
_HEAD = struct.Struct(">7sBI")  # magic, version, length of the JSON
HEAD_SIZE = _HEAD.size
_PAGES_MAX = 0xFFFFFFFE
# Some 105 bytes for each pack of 8 MiB, so this is five terabytes as they are stored. Who reads one takes five times as
# much memory, and somebody else may have written it.
MANIFEST_BYTES_MAX = 64 << 20
PLACE_MAX = 1 << 48  # in an object: what every store can be asked for, and none of ours reaches


@dataclass(frozen=True, slots=True)
class TableUse:
    """Where a table lies, and the SHA-256 of its bytes: it is read by itself, and no digest of its pack is asked. One
    that is damaged must not be built upon, nor lead a restore to the wrong chunks."""

    frame: Frame
    digest: str


class Backup(Protocol):
    """What both kinds of manifest say of the database they stand for. Times in microseconds; ``chain``, ``checksum``
    and ``rolling`` in hexadecimal digits."""

    @property
    def repository(self) -> str: ...
    @property
    def generation(self) -> GenerationId: ...
    @property
    def txid(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    @property
    def pages(self) -> int: ...
    @property
    def observed(self) -> int: ...
    @property
    def created(self) -> int: ...
    @property
    def plain_bytes(self) -> int: ...
    @property
    def stored_bytes(self) -> int: ...
    @property
    def chain(self) -> str: ...
    @property
    def checksum(self) -> str: ...
    @property
    def rolling(self) -> str: ...
    @property
    def packs(self) -> tuple[PackUse, ...]: ...
    @property
    def tables(self) -> tuple[TableUse, ...]: ...
    @property
    def name(self) -> object: ...
    @property
    def position(self) -> Position: ...


M = TypeVar("M", bound=Backup)


def encode_said(magic: bytes, manifest: Any, name: str) -> bytes:
    """The final bytes of *manifest*, a dataclass. Raises ReplicatorError where no reader would take it."""
    said = asdict(manifest)
    said["packs"] = [[pack.name, pack.size_bytes] for pack in manifest.packs]
    said["tables"] = [[*astuple(each.frame), each.digest] for each in manifest.tables]
    text = json.dumps(said, indent=1).encode()
    size = HEAD_SIZE + len(text) + DIGEST_SIZE
    if size > MANIFEST_BYTES_MAX:
        raise ReplicatorError(
            f"{name} would have {size} bytes, and readers take {MANIFEST_BYTES_MAX}: its backup needs "
            f"{len(manifest.packs)} packs",
            hint="it is not put; a database of more than some five terabytes, as it is stored, is too large",
        )
    body = _HEAD.pack(magic, VERSION, len(text)) + text
    return body + digest_of(body, name)


def decode_said(
    data: bytes, name: str, magic: bytes, made: Callable[[dict[str, Any]], M], proper: Callable[[M], bool]
) -> M:
    """The inverse. *made* makes the manifest of what it says, *proper* looks at what is its own kind's alone."""
    if len(data) < HEAD_SIZE + DIGEST_SIZE:
        raise ObjectCorrupt(f"{name} is cut off after {len(data)} bytes", name=name)
    found, version, text_bytes = _HEAD.unpack_from(data)
    if found != magic:
        raise ObjectCorrupt(f"{name} is not a manifest: it does not begin with {magic.decode()}", name=name)
    require_digest(data, name)
    if version != VERSION:
        raise FormatTooNew(
            f"{name} is of format {version}, this program reads format {VERSION}",
            hint="use a newer version of replicator",
        )
    if HEAD_SIZE + text_bytes + DIGEST_SIZE != len(data) or len(data) > MANIFEST_BYTES_MAX:
        raise ObjectCorrupt(f"{name} does not have the length it says", name=name)
    try:
        said: dict[str, Any] = json.loads(data[HEAD_SIZE:-DIGEST_SIZE])
        said["packs"] = tuple(PackUse(pack, size) for pack, size in said["packs"])
        said["tables"] = tuple(TableUse(Frame(*each[:4]), *each[4:]) for each in said["tables"])
        manifest = made(said)
        is_proper = _is_proper(manifest) and proper(manifest) and str(manifest.name) == name
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ObjectCorrupt(f"{name} has a header that is never written: {exc}", name=name) from exc
    if not is_proper:
        raise ObjectCorrupt(
            f"{name} has a header that is never written, or lies under a name not its own", name=name
        )
    return manifest


_INTEGERS = ("txid", "epoch", "page_size", "pages", "observed", "created", "plain_bytes", "stored_bytes")
_HEX = re.compile("[0-9a-f]+")
_DIGEST = re.compile("[0-9a-f]{64}")


def _is_proper(manifest: Backup) -> bool:
    """Whether every value that both kinds have is one that we write."""
    return (
        all(type(getattr(manifest, each)) is int for each in _INTEGERS)
        and all(
            _HEX.fullmatch(getattr(manifest, each)) for each in ("repository", "chain", "checksum", "rolling")
        )
        and len(manifest.repository) == 32
        and len(manifest.checksum) == len(manifest.rolling) == 16
        and len(manifest.chain) == 2 * TRAILER_SIZE
        and 512 <= manifest.page_size <= 65536
        and manifest.page_size & (manifest.page_size - 1) == 0
        and 0 < manifest.pages <= _PAGES_MAX
        and 0 <= manifest.txid < 1 << 64
        and 0 <= manifest.epoch <= EPOCH_MAX
        and MICROS_MIN <= manifest.created <= MICROS_MAX
        and manifest.plain_bytes >= 0
        and manifest.stored_bytes >= 0
        and _has_proper_places(manifest)
    )


def _has_proper_places(manifest: Backup) -> bool:
    packs, tables = manifest.packs, manifest.tables
    return all(
        isinstance(parse_name(pack.name), PackName)
        and type(pack.size_bytes) is int
        and 0 < pack.size_bytes <= PLACE_MAX
        for pack in packs
    ) and all(
        all(type(value) is int for value in astuple(each.frame))
        and 0 <= each.frame.pack < len(packs)
        and 0 <= each.frame.offset <= PLACE_MAX
        and each.frame.plain_bytes > 0
        and 0 < each.frame.stored_bytes <= 2 * each.frame.plain_bytes + 1024
        and bool(_DIGEST.fullmatch(each.digest))
        for each in tables
    )


def table_digest(table: bytes) -> str:
    """What a manifest says of a table."""
    return hashlib.sha256(table).hexdigest()


def read_table(manifest: Backup, number: int, get_range: Callable[[str, int, int], bytes]) -> bytes:
    """Fetch table *number*, and prove it. Raises ObjectCorrupt, naming the pack it lies in."""
    use = manifest.tables[number]
    table = read_frame(use.frame, manifest.packs, get_range)
    if table_digest(table) != use.digest:
        pack = manifest.packs[use.frame.pack].name
        raise ObjectCorrupt(
            f"{pack} is damaged: table {number} of {manifest.name} at byte {use.frame.offset} has another hash",
            name=pack,
        )
    return table
