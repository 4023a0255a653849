"""The small JSON objects of a repository: who it is, why a generation began, who writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.names import LEASES, EventName, GenerationName, LeaseName
from replicator.core.position import GenerationId
from replicator.core.times import MICROS_MAX

FORMAT = 1
SEALED = "sealed"
RECORD_BYTES_MAX = 64 << 10  # a hundred times what any record of ours needs
EPOCH_MAX = 99_999_999  # its name has eight digits, and units have 32 bits for it


@dataclass(frozen=True, slots=True)
class RepositoryRecord:
    """``repository.json``: 32 hexadecimal digits that every unit and manifest repeats. ``features``: what a reader
    has to know beyond the format; one that it does not know it refuses."""

    repository: str
    created: str
    features: tuple[str, ...] = ()
    format: int = FORMAT
    kind: str = "replicator-repository"

    @property
    def sealed(self) -> bool:
        """Whether everything but this record and the key slots is encrypted."""
        return SEALED in self.features


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """``generations/<generation>.json``: when and why an unbroken history began, and what was before it."""

    generation: GenerationId
    repository: str
    epoch: int
    began: int
    reason: str
    page_size: int
    previous: GenerationId | None
    kind: str = "replicator-generation"


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """``leases/<epoch>.json``: the agent that writes from this epoch on. ``writer`` names its state folder."""

    epoch: int
    writer: str
    host: str
    pid: int
    claimed: str
    took_over: bool
    kind: str = "replicator-lease"


CHECKSUMMED, DAMAGED, PINNED = "checksummed", "damaged", "pinned"
"""Events: read back after it was put; found hurt, so that nobody relies on it; kept for ever."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """``records/<backup id>/<event>.json``: something that became of a backup at ``at``, microseconds. ``details`` are
    for people and for reports; nothing that a restore needs."""

    backup: str
    event: str
    at: int
    details: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    kind: str = "replicator-event"


def encode_record(record: RepositoryRecord | GenerationRecord | LeaseRecord | EventRecord) -> bytes:
    """Readable in any console: indented, one key a line."""
    return (json.dumps(asdict(record), indent=2) + "\n").encode()


def _load(data: bytes, name: str, kind: str) -> dict[str, Any]:
    if len(data) > RECORD_BYTES_MAX:
        raise ObjectCorrupt(f"{name} is {len(data)} bytes, far larger than such a record is")
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ObjectCorrupt(f"{name} is not JSON: {exc}") from exc
    if not isinstance(loaded, dict) or loaded.get("kind") != kind:
        raise ObjectCorrupt(f"{name} is not a record of kind {kind}")
    return loaded


def _get(loaded: dict[str, Any], name: str, key: str, kind: type, pattern: str | None = None) -> Any:
    value = loaded.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise ObjectCorrupt(f"{name} holds no proper {key!r}")
    if pattern is not None and not re.fullmatch(pattern, str(value)):
        raise ObjectCorrupt(f"{name} holds {key!r}: {value!r:.60}, which is never written")
    return value


def _number(loaded: dict[str, Any], name: str, key: str, *, most: int) -> int:
    value: int = _get(loaded, name, key, int)
    if not 0 <= value <= most:
        raise ObjectCorrupt(f"{name} holds {key!r} that is out of its bounds")
    return value


def decode_repository(data: bytes, name: str) -> RepositoryRecord:
    loaded = _load(data, name, "replicator-repository")
    found = _get(loaded, name, "format", int)
    if found != FORMAT:
        raise FormatTooNew(
            f"{name} is of format {found}, this program reads format {FORMAT}",
            hint="use a newer version of replicator",
        )
    features = tuple(map(str, _get({"features": [], **loaded}, name, "features", list)))
    if unknown := set(features) - {SEALED}:
        raise FormatTooNew(
            f"{name} asks for {', '.join(sorted(unknown))}, which this program does not know",
            hint="use a newer version of replicator",
        )
    return RepositoryRecord(
        repository=_get(loaded, name, "repository", str, "[0-9a-f]{32}"),
        created=_get(loaded, name, "created", str),
        features=features,
    )


def decode_generation(data: bytes, name: str) -> GenerationRecord:
    loaded = _load(data, name, "replicator-generation")
    previous = loaded.get("previous")
    generation = GenerationId(_get(loaded, name, "generation", str, "[0-9a-f]{16}"))
    if str(GenerationName(generation)) != name:
        raise ObjectCorrupt(f"{name} is the record of generation {generation}")
    return GenerationRecord(
        generation=generation,
        repository=_get(loaded, name, "repository", str, "[0-9a-f]{32}"),
        epoch=_number(loaded, name, "epoch", most=EPOCH_MAX),
        began=_number(loaded, name, "began", most=MICROS_MAX),
        reason=_get(loaded, name, "reason", str),
        page_size=_number(loaded, name, "page_size", most=65_536),
        previous=None
        if previous is None
        else GenerationId(_get(loaded, name, "previous", str, "[0-9a-f]{16}")),
    )


def in_succession(records: Iterable[GenerationRecord]) -> dict[GenerationId, tuple[int, int]]:
    """What to order generations by: when they began, and each behind the one it followed, whatever the clock said then.
    The number of those it followed tells between two that began at once."""
    known = {each.generation: each for each in records}
    places: dict[GenerationId, tuple[int, int]] = {}
    for record in known.values():
        line: dict[GenerationId, GenerationRecord] = {}
        at: GenerationRecord | None = record
        while at is not None and at.generation not in places and at.generation not in line:
            line[at.generation] = at
            at = known.get(at.previous) if at.previous is not None else None
        latest, followed = places.get(at.generation, (0, 0)) if at is not None else (0, 0)
        for each in reversed(line.values()):
            latest, followed = max(latest, each.began), followed + 1
            places[each.generation] = latest, followed
    return places


def newest_of(records: Iterable[GenerationRecord]) -> GenerationRecord | None:
    """The one that goes on, or that was left last."""
    known = {each.generation: each for each in records}
    places = in_succession(known.values())
    return max(known.values(), key=lambda each: (places[each.generation], each.generation), default=None)


def decode_lease(data: bytes, name: str) -> LeaseRecord:
    """*name*: of the lease, or of the segment in whose place it lies."""
    loaded = _load(data, name, "replicator-lease")
    record = LeaseRecord(
        epoch=_number(loaded, name, "epoch", most=EPOCH_MAX),
        writer=_get(loaded, name, "writer", str),
        host=_get(loaded, name, "host", str),
        pid=_get(loaded, name, "pid", int),
        claimed=_get(loaded, name, "claimed", str),
        took_over=_get(loaded, name, "took_over", bool),
    )
    if name.startswith(LEASES) and str(LeaseName(record.epoch)) != name:
        raise ObjectCorrupt(f"{name} is the lease of epoch {record.epoch}")
    return record


def decode_event(data: bytes, name: str) -> EventRecord:
    loaded = _load(data, name, "replicator-event")
    details = _get({"details": {}, **loaded}, name, "details", dict)
    record = EventRecord(
        backup=_get(loaded, name, "backup", str),
        event=_get(loaded, name, "event", str),
        at=_number(loaded, name, "at", most=MICROS_MAX),
        details={
            str(key): value for key, value in details.items() if isinstance(value, (str, int, float, bool))
        },
    )
    if str(EventName(record.backup, record.event)) != name:
        raise ObjectCorrupt(f"{name} is the record of {record.event} of {record.backup}")
    return record


def is_fence(content: bytes) -> bool:
    """Whether what lies under a segment's name ends the generation. A damaged one does, too: no unit begins so."""
    return content.startswith(b"{")


def lease_in_segment(content: bytes, name: str) -> LeaseRecord | None:
    """The lease that a take-over put in the place of the next segment, so that whoever was taken over from
    meets it; None for a segment."""
    return decode_lease(content, name) if is_fence(content) else None
