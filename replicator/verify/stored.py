"""An object by itself, as it lies in a store: whether its bytes are those that were written under its name.

Needs no key: sealed objects end in a digest of what is stored.
"""

from __future__ import annotations

import json

from replicator.core.errors import ObjectCorrupt
from replicator.core.full import decode_manifest
from replicator.core.incremental import decode_incremental
from replicator.core.key_ring import read_slot
from replicator.core.log import decode_log
from replicator.core.named_digest import has_digest
from replicator.core.names import (
    REPOSITORY,
    EventName,
    FullName,
    GenerationName,
    IncrementalName,
    KeyName,
    LeaseName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
    sealed_kind,
    split_revision,
)
from replicator.core.pack import check_pack
from replicator.core.records import (
    decode_event,
    decode_generation,
    decode_lease,
    decode_repository,
    lease_in_segment,
)
from replicator.core.seal import parse_header
from replicator.core.unit import decode_unit, split_units


def check_stored(data: bytes, stored: str, *, sealed: bool) -> None:
    """Raise ObjectCorrupt where *data* is not what was put as *stored*, in a repository that is *sealed* or not."""
    name = split_revision(stored)[0]
    kind = sealed_kind(name)
    if sealed and kind is not None:
        _check_sealed(data, stored, kind)
    else:
        check_plain(data, name)


def _check_sealed(data: bytes, stored: str, kind: int) -> None:
    header = parse_header(data, stored)
    if len(data) != header.sealed_bytes:
        raise ObjectCorrupt(f"{stored} has {len(data)} bytes instead of {header.sealed_bytes}", name=stored)
    if header.kind != kind:
        raise ObjectCorrupt(f"{stored} is sealed as an object of another kind", name=stored)
    if not has_digest(data, stored):
        raise ObjectCorrupt(f"{stored} does not have the digest it was written with", name=stored)


def key_of(data: bytes, stored: str) -> str | None:
    """The key that an object of an encrypted repository is sealed with, which was found whole; None where it is not."""
    if sealed_kind(split_revision(stored)[0]) is None:
        return None
    return parse_header(data, stored).key_id.hex()


def check_plain(data: bytes, name: str) -> None:
    """The same of an object that is not sealed, or was opened."""
    if name == REPOSITORY:
        decode_repository(data, name)
    match parse_name(name):
        case FullName():
            decode_manifest(data, name)
        case IncrementalName():
            decode_incremental(data, name)
        case PackName():
            check_pack(data, name)
        case SegmentName() as segment:
            _check_segment(data, segment)
        case LogName() as log:
            for view in split_units(decode_log(data, log).units):
                decode_unit(view)
        case GenerationName():
            decode_generation(data, name)
        case LeaseName():
            decode_lease(data, name)
        case KeyName() as slot:
            number = read_slot(data, name)["number"]
            if number != slot.number:
                raise ObjectCorrupt(f"{name} holds the key ring number {number}", name=name)
        case EventName():
            decode_event(data, name)
        case None:
            if name.endswith(".json"):
                _check_json(data, name)


def _check_segment(data: bytes, name: SegmentName) -> None:
    if lease_in_segment(data, str(name)) is not None:
        return
    first = None
    for view in split_units(data):
        header = decode_unit(view).header
        first = first or header
    if first is None or SegmentName(first.generation, first.txid_first, first.part) != name:
        raise ObjectCorrupt(f"{name} holds units that belong elsewhere", name=str(name))


def _check_json(data: bytes, name: str) -> None:
    try:
        json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ObjectCorrupt(f"{name} is not JSON: {exc}", name=name) from exc
