"""Object name <-> value: the only place that knows how names are spelled.

Names come back from stores, which anyone may have written to, so a name is accepted only when it matches
its pattern in full. Times in names are the recorded time of the object's last commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from replicator.core.position import GenerationId
from replicator.core.times import compact_time, day_folder, parse_compact

REPOSITORY = "repository.json"
METADATA = "metadata.json"
TAIL = "tail/"
FULL = "full/"
INCREMENTAL = "incremental/"
LOG = "log/"
GENERATIONS = "generations/"
LEASES = "leases/"
KEYS = "keys/"
RECORDS = "records/"


@dataclass(frozen=True, slots=True, order=True)
class GenerationName:
    generation: GenerationId

    def __str__(self) -> str:
        return f"{GENERATIONS}{self.generation}.json"


@dataclass(frozen=True, slots=True, order=True)
class LeaseName:
    epoch: int

    def __str__(self) -> str:
        return f"{LEASES}{self.epoch:08d}.json"


@dataclass(frozen=True, slots=True, order=True)
class KeyName:
    """A slot of the key ring, wrapped by the operator's key."""

    number: int

    def __str__(self) -> str:
        return f"{KEYS}{self.number:08d}.json"


@dataclass(frozen=True, slots=True, order=True)
class FullName:
    """A full backup's manifest; ``time`` in microseconds, of which the name keeps whole seconds."""

    time: int
    generation: GenerationId
    txid: int

    @property
    def backup_id(self) -> str:
        return f"{compact_time(self.time)}-{self.generation}-{self.txid:016x}"

    def __str__(self) -> str:
        return f"{FULL}{day_folder(self.time)}/{self.backup_id}.full"


@dataclass(frozen=True, slots=True, order=True)
class IncrementalName:
    """Manifest of an incremental backup, onto the backup that stands at ``txid_from``."""

    time: int
    generation: GenerationId
    txid_from: int
    txid: int

    @property
    def backup_id(self) -> str:
        return f"{compact_time(self.time)}-{self.generation}-{self.txid_from:016x}-{self.txid:016x}"

    def __str__(self) -> str:
        return f"{INCREMENTAL}{day_folder(self.time)}/{self.backup_id}.incremental"


BackupName = FullName | IncrementalName


@dataclass(frozen=True, slots=True, order=True)
class PackName:
    """Content of a backup that began at ``time``; ``nonce`` is 16 random hexadecimal digits, ``tree`` where it lies."""

    time: int
    generation: GenerationId
    txid: int
    nonce: str
    tree: str = FULL

    def __str__(self) -> str:
        stem = f"{compact_time(self.time)}-{self.generation}-{self.txid:016x}-{self.nonce}"
        return f"{self.tree}{day_folder(self.time)}/{stem}.pack"


@dataclass(frozen=True, slots=True, order=True)
class LogName:
    """The units of some minutes, from the first to the last of these transactions; ``time`` is that of the last."""

    time: int
    generation: GenerationId
    txid_first: int
    txid_last: int

    def __str__(self) -> str:
        stem = f"{compact_time(self.time)}-{self.generation}-{self.txid_first:016x}-{self.txid_last:016x}"
        return f"{LOG}{day_folder(self.time)}/{stem}.log"


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """A live segment, named after the first unit in it. ``part`` is 0 unless that unit is a part."""

    generation: GenerationId
    txid_first: int
    part: int = 0

    def __str__(self) -> str:
        part = f"-p{self.part:04d}" if self.part else ""
        return f"{TAIL}{self.generation}/{self.txid_first:016x}{part}.segment"


@dataclass(frozen=True, slots=True, order=True)
class EventName:
    """What became of a backup: that it was read back, restored, named, pinned."""

    backup_id: str
    event: str

    def __str__(self) -> str:
        return f"{RECORDS}{self.backup_id}/{self.event}.json"


CarrierName = LogName | SegmentName
"""What carries units."""

ObjectName = (
    GenerationName
    | LeaseName
    | KeyName
    | EventName
    | FullName
    | IncrementalName
    | PackName
    | LogName
    | SegmentName
)

# Digits are spelled out: `\d` takes those of every script.
_G = r"(?P<generation>[0-9a-f]{16})"
_STEM = rf"(?P<day>[0-9]{{4}}/[0-9]{{2}}/[0-9]{{2}})/(?P<time>[0-9]{{8}}T[0-9]{{6}}Z)-{_G}-(?P<txid>[0-9a-f]{{16}})"
_GENERATION_RE = re.compile(rf"generations/{_G}\.json")
_LEASE_RE = re.compile(r"leases/(?P<epoch>[0-9]{8})\.json")
_KEY_RE = re.compile(r"keys/(?P<number>[0-9]{8})\.json")
_ID = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}-[0-9a-f]{16}(-[0-9a-f]{16})?"
_EVENT_RE = re.compile(rf"records/(?P<backup_id>{_ID})/(?P<event>[a-z]+(-[0-9TZ]+)?)\.json")
_FULL_RE = re.compile(rf"full/{_STEM}\.full")
_PACK_RE = re.compile(rf"(?P<tree>full/|incremental/){_STEM}-(?P<nonce>[0-9a-f]{{16}})\.pack")
_TO = r"-(?P<txid_to>[0-9a-f]{16})"
_INCREMENTAL_RE = re.compile(rf"incremental/{_STEM}{_TO}\.incremental")
_LOG_RE = re.compile(rf"log/{_STEM}{_TO}\.log")
_SEGMENT_RE = re.compile(rf"tail/{_G}/(?P<txid>[0-9a-f]{{16}})(-p(?P<part>[0-9]{{4,9}}))?\.segment")


# What an object is sealed as, so that one kind is never taken for another (core/seal.py).
_SEALED_AS = {".full": 2, ".pack": 3, ".segment": 4, ".log": 5, ".incremental": 6}
_RECORD = 1


def sealed_kind(name: str) -> int | None:
    """The kind an object is sealed as; None for what is never sealed, since it tells how to open the rest."""
    if name == REPOSITORY or name.startswith(KEYS):
        return None
    return _SEALED_AS.get(name[name.rfind(".") :], _RECORD)


_REVISED = re.compile(r"(?P<stem>.+)\.r(?P<number>[1-9][0-9]{0,5})(?P<ending>\.[a-z]+)", re.DOTALL)


def with_revision(name: str, number: int) -> str:
    """How *name* is stored once it was sealed anew: `.r2`, `.r3` … before its ending. The first has no number."""
    stem, dot, ending = name.rpartition(".")
    return name if number == 1 else f"{stem}.r{number}{dot}{ending}"


def split_revision(stored: str) -> tuple[str, int]:
    """The name that a stored one stands for, and which revision of it that is. METADATA is replaced and has none."""
    match = _REVISED.fullmatch(stored)
    if match is None or match["number"] == "1" or match["stem"] + match["ending"] == METADATA:
        return stored, 1
    return match["stem"] + match["ending"], int(match["number"])


def tail_prefix(generation: GenerationId) -> str:
    """What every segment name of *generation* begins with."""
    return f"{TAIL}{generation}/"


def parse_name(name: str) -> ObjectName | None:
    """What *name* stands for; None for anything we never write (it is reported, and never used)."""
    parsed: ObjectName | None = None
    if match := _SEGMENT_RE.fullmatch(name):
        parsed = SegmentName(
            GenerationId(match["generation"]), int(match["txid"], 16), int(match["part"] or 0)
        )
    elif match := _GENERATION_RE.fullmatch(name):
        parsed = GenerationName(GenerationId(match["generation"]))
    elif match := _LEASE_RE.fullmatch(name):
        parsed = LeaseName(int(match["epoch"]))
    elif match := _KEY_RE.fullmatch(name):
        parsed = KeyName(int(match["number"]))
    elif match := _EVENT_RE.fullmatch(name):
        parsed = EventName(match["backup_id"], match["event"])
    else:
        for pattern in (_FULL_RE, _PACK_RE, _INCREMENTAL_RE, _LOG_RE):
            if match := pattern.fullmatch(name):
                parsed = _parse_dated(match)
    # Only the one spelling that we write is ours: it must read back to itself (day folder and all).
    return parsed if parsed is not None and str(parsed) == name else None


def _parse_dated(match: re.Match[str]) -> FullName | PackName | IncrementalName | LogName | None:
    try:
        time = parse_compact(match["time"])
    except ValueError:
        return None
    generation, txid = GenerationId(match["generation"]), int(match["txid"], 16)
    if match.re is _PACK_RE:
        return PackName(time, generation, txid, match["nonce"], match["tree"])
    if match.re is _INCREMENTAL_RE:
        return IncrementalName(time, generation, txid, int(match["txid_to"], 16))
    if match.re is _LOG_RE:
        return LogName(time, generation, txid, int(match["txid_to"], 16))
    return FullName(time, generation, txid)
