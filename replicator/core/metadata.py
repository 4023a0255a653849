"""``metadata.json``: what lies in a repository, for people and their tools; derived, and never needed to restore.

The same objects always give the same bytes, so one that is made anew from them can be compared with what lies there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from replicator.core.catalogue import Catalogue, GenerationListing
from replicator.core.errors import ObjectCorrupt
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental
from replicator.core.names import METADATA, BackupName
from replicator.core.times import format_time

KIND = "replicator-metadata"
FORMAT = 1
# A line for each pack: of ten terabytes, kept a hundred times, that is as much.
METADATA_BYTES_MAX = 256 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it lies in the store: ``name`` with its revision, and the SHA-256 of its bytes in hexadecimal."""

    name: str
    size_bytes: int
    sha256: str


def metadata_of(
    repository: str,
    catalogue: Catalogue,
    manifests: Mapping[BackupName, Manifest | Incremental],
    stored: Mapping[str, Stored],
) -> dict[str, Any]:
    """What the file says. *manifests* of the backups that can be read; *stored* by plain name."""
    return {
        "kind": KIND,
        "format": FORMAT,
        "repository": repository,
        "generations": [_generation(each, catalogue) for each in catalogue.generations],
        "backups": [
            _backup(name, manifests.get(name), catalogue, stored)
            for listing in catalogue.generations
            for name in listing.backups
        ],
    }


def _generation(listing: GenerationListing, catalogue: Catalogue) -> dict[str, Any]:
    record, logs = listing.record, listing.logs
    return {
        "generation": listing.generation,
        "began": format_time(record.began) if record else None,
        "reason": record.reason if record else None,
        "previous": record.previous if record else None,
        "log": {
            "objects": len(logs),
            "bytes": sum(catalogue.sizes[str(each)] for each in logs),
            "txid_first": f"{logs[0].txid_first:016x}" if logs else None,
            "txid_last": f"{logs[-1].txid_last:016x}" if logs else None,
            "last": format_time(logs[-1].time) if logs else None,
        },
    }


def _backup(
    name: BackupName,
    manifest: Manifest | Incremental | None,
    catalogue: Catalogue,
    stored: Mapping[str, Stored],
) -> dict[str, Any]:
    needed = [str(name), *(pack.name for pack in manifest.packs)] if manifest is not None else [str(name)]
    return {
        "id": name.backup_id,
        "type": "incremental" if isinstance(manifest, Incremental) or ".incremental" in str(name) else "full",
        "position": f"{name.generation}/{name.txid:016x}",
        "committed": format_time(manifest.observed if manifest else name.time),
        "created": format_time(manifest.created) if manifest else None,
        "parent": manifest.parent if isinstance(manifest, Incremental) else None,
        "database_bytes": manifest.database_bytes if manifest else None,
        "stored_bytes": manifest.stored_bytes if manifest else None,
        "verified": catalogue.grade(name.backup_id),
        "events": sorted(catalogue.events.get(name.backup_id, ())),
        "objects": [
            {"name": found.name, "size": found.size_bytes, "sha256": found.sha256}
            for each in needed
            if (found := stored.get(each)) is not None
        ],
    }


def encode_metadata(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said, indent=1) + "\n").encode()


def decode_metadata(data: bytes) -> dict[str, Any]:
    """What such a file says, as far as anybody relies on it: its ``backups`` are objects with proper ``objects``."""
    try:
        said = json.loads(data) if len(data) <= METADATA_BYTES_MAX else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("kind") != KIND or said.get("format") != FORMAT:
        raise ObjectCorrupt(f"{METADATA} is not what this program writes", name=METADATA)
    backups = said.get("backups")
    if not isinstance(backups, list) or not all(isinstance(each, dict) for each in backups):
        raise ObjectCorrupt(f"{METADATA} lists no backups", name=METADATA)
    return said


def stored_in(said: Mapping[str, Any]) -> Iterator[Stored]:
    """The objects that it lists, each once."""
    seen: set[str] = set()
    for backup in said["backups"]:
        objects = backup.get("objects")
        for each in objects if isinstance(objects, list) else ():
            if not isinstance(each, dict):
                continue
            name, size, sha256 = each.get("name"), each.get("size"), each.get("sha256")
            proper = isinstance(name, str) and type(size) is int and bool(_SHA256.fullmatch(str(sha256)))
            if proper and name not in seen:
                seen.add(str(name))
                yield Stored(str(name), int(str(size)), str(sha256))


def sums(said: Mapping[str, Any]) -> Iterator[str]:
    """Lines that ``sha256sum -c`` takes, in a copy of the store."""
    for each in stored_in(said):
        yield f"{each.sha256}  {each.name}"
