"""The state folder of one database: who we are, which generation is running, how far each store is.

Everything in here can be found again: the place in the log is in the newest unit, spooled or shipped, and
what a store holds is in the store. Losing the folder costs requests at the next start, or at worst a new
generation; it never costs a commit that was shipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from replicator.core.changed_pages import ChangedPages, decode_changed
from replicator.core.cursor import EMPTY, WalCursor
from replicator.core.errors import Interrupted, ObjectCorrupt, StoreError
from replicator.core.names import FullName, GenerationName
from replicator.core.position import TXID_MAX, GenerationId
from replicator.core.records import EPOCH_MAX, GenerationRecord, decode_generation
from replicator.core.times import MICROS_MAX
from replicator.core.unit_build import Tip
from replicator.core.wal import Salt, WalChecksum
from replicator.files import FolderLock, make_folder, mapped_errors, read_json, replace_file

log = logging.getLogger(__name__)

U32_MAX = (1 << 32) - 1


def default_state_folder(database: str) -> str:
    """Beside the database, so that it lies on the same disk and moves with it."""
    folder, name = os.path.split(os.path.realpath(database))
    return os.path.join(folder, f".{name}-replicator")


@dataclass(frozen=True, slots=True)
class RunningGeneration:
    """A generation as its own agent knows it.

    ``base`` and ``base_pages`` are the place in the log and the size of the database where it began (txid 0);
    ``base_checksum`` is the database's checksum there, known from the first complete full on.
    """

    record: GenerationRecord
    base: WalCursor
    base_pages: int
    base_checksum: int | None = None


@dataclass(frozen=True, slots=True)
class StoreMemory:
    """What we last knew of a store, written lazily: the store itself is asked at start. ``shipped``: what it had
    acknowledged; one that knows less was rolled back. ``rolled_back``: when (µs) that was found, and what.
    ``wants_full``: something there is lost or damaged, and only with another full do restore points begin again."""

    full: tuple[GenerationId, int] | None = None
    lapsed: bool = False
    shipped: tuple[GenerationId, int] | None = None
    rolled_back: tuple[int, str] | None = None
    wants_full: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a store knows of us where the state folder does not: the newest unit there, its generation's
    record, and the database's checksum where that generation began, if it has a full."""

    record: GenerationRecord
    unit: bytes
    base_checksum: int | None


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest unit a store has of a generation, and the full backups it has of it, by txid. ``closed``:
    another agent saw to it that nothing follows."""

    unit: bytes | None
    fulls: tuple[FullName, ...]
    closed: bool = False


class StateFolder:
    """Loaded by ``open``; every setter writes through, durably."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.repository = ""
        self.writer = ""
        self.epoch = 0
        self.generation: RunningGeneration | None = None
        self.earlier: tuple[GenerationRecord, ...] = ()
        self.settled: tuple[int, int] | None = None
        self.mounts: dict[str, str] = {}
        """Where the file system of each folder store was mounted, by its URL."""
        self._lock = FolderLock(os.path.join(self.folder, "lock"))
        self._saving = threading.RLock()
        self._closed = False

    @property
    def spool_folder(self) -> str:
        return os.path.join(self.folder, "spool")

    @property
    def keys_path(self) -> str:
        """The slot of the key ring, where the repository is encrypted."""
        return os.path.join(self.folder, "keys.json")

    @property
    def schedules_path(self) -> str:
        """What became of the schedules, and those made by hand."""
        return os.path.join(self.folder, "schedules.json")

    @property
    def status_path(self) -> str:
        return os.path.join(self.folder, "status.json")

    def open(self) -> None:
        """Create or load; raises OwnershipLost where another agent of this machine has it."""
        with mapped_errors(f"cannot use the state folder {self.folder}"):
            make_folder(self.folder)
            self._lock.acquire()
            self._closed = False
        try:
            self._take(read_json(self.path) or {})
        except (TypeError, ValueError, LookupError, AttributeError, ObjectCorrupt) as exc:
            # Not what we write: as good as torn, and found again in the same way.
            log.warning("state.unreadable", extra={"path": self.path, "error": str(exc)})
            self._take({})
        if not self.writer:
            self.writer = secrets.token_hex(8)
            self.save()

    def _take(self, loaded: dict[str, Any]) -> None:
        """Raises whatever comes of values that are not ours."""
        self.repository = _digits(loaded.get("repository"), 32)
        self.writer = _digits(loaded.get("writer"), 16)
        self.epoch = _whole(loaded.get("epoch") or 0, EPOCH_MAX)
        self.mounts = {_text(url): _text(mount) for url, mount in (loaded.get("mounts") or {}).items()}
        self.generation, self.earlier, self.settled = None, (), None
        if loaded.get("generation"):
            self.generation = _running(loaded["generation"])
            self.earlier = tuple(_record(each) for each in loaded.get("earlier", ()))
            if loaded.get("settled"):
                txid, rolling = loaded["settled"]
                self.settled = (_whole(txid, TXID_MAX), _whole(rolling, TXID_MAX))

    def close(self) -> None:
        with self._saving:
            self._closed = True
            self._lock.release()

    def save(self) -> None:
        """From any thread: the last one to write has seen what the others changed."""
        with self._saving, mapped_errors(f"cannot write the state folder {self.folder}"):
            if self._closed:
                raise Interrupted("the state folder was let go of")  # by now it may be another agent's
            content = {
                "repository": self.repository,
                "writer": self.writer,
                "epoch": self.epoch,
                "generation": asdict(self.generation) if self.generation else None,
                "settled": self.settled,
                "earlier": [asdict(record) for record in self.earlier],
                "mounts": self.mounts,
            }
            replace_file(self.path, json.dumps(content, indent=1).encode())

    @contextlib.contextmanager
    def _saved(self, *names: str) -> Iterator[None]:
        """What is changed within is written down, or as it was: nothing is built on what the next run would not
        know."""
        with self._saving:
            before = [getattr(self, name) for name in names]
            try:
                yield
                self.save()
            except BaseException:
                for name, value in zip(names, before, strict=True):
                    setattr(self, name, value)
                raise

    def belong_to(self, repository: str) -> None:
        """What is written is of that repository, from now on and in every store."""
        with self._saved("repository"):
            self.repository = repository

    def raise_epoch(self, epoch: int) -> None:
        """It never goes back."""
        with self._saving:
            if epoch > self.epoch:
                with self._saved("epoch"):
                    self.epoch = epoch

    def remember_base(self, generation: GenerationId, checksum: int) -> bool:
        """The database's checksum where *generation* began; False if that is not the running one any more."""
        with self._saving:
            running = self.generation
            if running is None or running.record.generation != generation:
                return False
            if running.base_checksum is None:
                with self._saved("generation"):
                    self.generation = replace(running, base_checksum=checksum)
            return True

    def remember_mount(self, url: str, mount: str) -> None:
        """The innermost that there ever was."""
        with self._saving:
            if len(mount) > len(self.mounts.get(url, "")):
                with self._saved("mounts"):
                    self.mounts = {**self.mounts, url: mount}

    def begin(self, generation: RunningGeneration, spooled: set[GenerationId]) -> None:
        """Make *generation* the running one; records of those still *spooled* are kept to be shipped."""
        with self._saved("generation", "earlier", "settled"):
            if self.generation is not None:
                kept = (*self.earlier, self.generation.record)
                self.earlier = tuple(record for record in kept if record.generation in spooled)
            self.generation, self.settled = generation, None

    def remember_checksum(self, txid: int, rolling: int) -> None:
        """The rolling checksum at *txid*, which the unit there could not carry."""
        with self._saved("settled"):
            self.settled = (txid, rolling)

    def with_checksum(self, tip: Tip) -> Tip:
        """*tip*, with the rolling checksum its unit lacks, if it is remembered."""
        if tip.rolling is None and self.settled is not None and self.settled[0] == tip.txid:
            return replace(tip, rolling=self.settled[1])
        return tip

    def running(self) -> GenerationId | None:
        """The generation that goes on."""
        return self.generation.record.generation if self.generation is not None else None

    def record_of(self, generation: GenerationId) -> GenerationRecord | None:
        records = (*self.earlier, *([self.generation.record] if self.generation else []))
        return next((record for record in records if record.generation == generation), None)

    def load_changed(self) -> ChangedPages | None:
        """The changed pages that an earlier run kept; None where there are none, or they are damaged."""
        with mapped_errors(f"cannot read the state folder {self.folder}"):
            try:
                with open(self._changed_path, "rb") as file:
                    return decode_changed(file.read())
            except (FileNotFoundError, ObjectCorrupt):
                return None

    def save_changed(self, changed: ChangedPages) -> None:
        """Raises StoreError; who cannot is content with a full backup at the next start."""
        with self._saving, mapped_errors(f"cannot write the state folder {self.folder}"):
            if not self._closed:
                replace_file(self._changed_path, changed.encode())

    def load_store(self, url: str) -> StoreMemory:
        loaded = read_json(self._store_path(url)) or {}
        return StoreMemory(
            full=_point(loaded.get("full")),
            lapsed=bool(loaded.get("lapsed")),
            shipped=_point(loaded.get("shipped")),
            rolled_back=_told(loaded.get("rolled_back")),
            wants_full=bool(loaded.get("wants_full")),
        )

    def save_store(self, url: str, memory: StoreMemory) -> None:
        path = self._store_path(url)
        with mapped_errors(f"cannot write the state folder {self.folder}"):
            make_folder(os.path.dirname(path))
            replace_file(path, json.dumps({"url": url, **asdict(memory)}, indent=1).encode())

    @property
    def _changed_path(self) -> str:
        return os.path.join(self.folder, "changed.pages")

    @property
    def path(self) -> str:
        return os.path.join(self.folder, "state.json")

    def _store_path(self, url: str) -> str:
        return os.path.join(self.folder, "stores", hashlib.sha256(url.encode()).hexdigest()[:16] + ".json")


def repository_of(folder: str) -> str:
    """Whose objects an agent with the state folder *folder* writes; empty where nobody knows."""
    try:
        return _digits((read_json(os.path.join(folder, "state.json")) or {}).get("repository"), 32)
    except (ValueError, TypeError, StoreError):
        return ""


# --- what was loaded: of the kind that we write, or ValueError and its like ------------------------------


def _point(loaded: Any) -> tuple[GenerationId, int] | None:
    """None as well where it is none: the store knows."""
    try:
        generation, txid = loaded
        known = _digits(generation, 16)
        return (GenerationId(known), _whole(txid, TXID_MAX)) if known else None
    except (TypeError, ValueError):
        return None


def _told(loaded: Any) -> tuple[int, str] | None:
    match loaded:
        case [int(wall), str(text)] if 0 <= wall <= MICROS_MAX:
            return wall, text
    return None


def _whole(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r:.60} is not a number up to {most}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not a text")
    return value


def _digits(value: Any, count: int) -> str:
    """So many hexadecimal digits, or none."""
    if value is None or value == "":
        return ""
    if not re.fullmatch(f"[0-9a-f]{{{count}}}", _text(value)):
        raise ValueError(f"{value!r:.60} is not {count} digits")
    return str(value)


def _record(loaded: dict[str, Any]) -> GenerationRecord:
    """As it is read from a store, which looks at every value."""
    name = str(GenerationName(GenerationId(_text(loaded["generation"]))))
    return decode_generation(json.dumps(loaded).encode(), name)


def _running(loaded: dict[str, Any]) -> RunningGeneration:
    cursor = loaded["base"]
    salts = (_whole(each, U32_MAX) for each in cursor["salt"])
    sums = (_whole(each, U32_MAX) for each in cursor["checksum"])
    base = WalCursor(Salt(*salts), _whole(cursor["frames"], U32_MAX), WalChecksum(*sums))
    checksum = loaded["base_checksum"]
    return RunningGeneration(
        record=_record(loaded["record"]),
        base=base if base.frames else EMPTY,
        base_pages=_whole(loaded["base_pages"], U32_MAX),
        base_checksum=None if checksum is None else _whole(checksum, TXID_MAX),
    )
