"""Archive: the live segments of about a quarter of an hour become one log, made from what the store really holds.

Order: read and prove the segments, put the log, read it back, and only then delete the segments. Interrupted anywhere,
the units lie in two places, and readers pass over what they have seen. The newest segment of the running generation
stays: it says where the agent goes on.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import insort
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from replicator.core.errors import (
    FormatTooNew,
    Interrupted,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
)
from replicator.core.log import LOG_BYTES_MAX, decode_log, encode_log
from replicator.core.names import (
    FULL,
    INCREMENTAL,
    LOG,
    TAIL,
    FullName,
    IncrementalName,
    LogName,
    SegmentName,
    parse_name,
)
from replicator.core.position import GenerationId
from replicator.core.records import is_fence
from replicator.core.unit import UnitHeader, decode_unit, follows, split_units
from replicator.store import Store

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Archived:
    """What one run did. ``kept``: segments that the store does not let go of, so that they lie there twice for good.
    ``damaged``: segments that stay as they are, with what is wrong; the logs end before them and go on behind.
    ``missing``: first and last transaction of each hole that ends at no backup: the store lost what it had."""

    logs: list[LogName] = field(default_factory=list)
    segments: int = 0
    bytes_out: int = 0
    kept: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    missing: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """Units that will be the next log, and the segments of which all units are taken."""

    units: list[tuple[UnitHeader, bytes]] = field(default_factory=list)
    size: int = 0
    emptied: list[SegmentName] = field(default_factory=list)


class Archive:
    """Of one store; one run at a time. *stopped*: whether nobody waits for the end any more."""

    def __init__(self, store: Store, stopped: Callable[[], bool]) -> None:
        self._store = store
        self._stopped = stopped
        self._logs: list[LogName] = []
        self._read: tuple[LogName, set[bytes]] | None = None
        # Where a hole ends that was told already: the newest segment is looked at again when it is taken.
        self._told: set[tuple[GenerationId, int]] = set()

    def run(self, running: GenerationId, cuts: set[int]) -> Archived:
        """Take over what lies in the tail. *cuts*: positions of backups, where a log shall end, so that who begins
        there needs nothing from before. Raises StoreError, Interrupted, and ObjectCorrupt where the store does not
        give a log back as it was put."""
        found = (parse_name(each.name) for each in self._store.list(LOG))
        self._logs = sorted((name for name in found if isinstance(name, LogName)), key=_order)
        self._read = None
        done = Archived()
        tails: dict[GenerationId, list[SegmentName]] = {}
        for each in self._store.list(TAIL):
            name = parse_name(each.name)
            if isinstance(name, SegmentName):
                tails.setdefault(name.generation, []).append(name)
        for generation, segments in tails.items():
            taken = segments[:-1] if generation == running else segments
            reached = self._take(generation, taken, cuts, done)
            if generation == running:
                self._look_for_hole(reached, generation, segments[-1].txid_first, done)
        return done

    def _take(
        self, generation: GenerationId, segments: list[SegmentName], cuts: set[int], done: Archived
    ) -> int | None:
        """Returns up to where the transactions lead; None: unknown."""
        ready = _Open()
        digest: bytes | None = None
        reached = max((each.txid_last for each in self._logs if each.generation == generation), default=None)
        for segment in segments:
            if self._stopped():
                raise Interrupted("the archiving was stopped")
            try:
                content = self._content(segment)
                if content is None:
                    continue
                units = [each for each in _units(content, segment) if not self._has(*each[:2])]
                before = (ready.units[-1][0], digest) if ready.units and digest is not None else None
                _require_chain(segment, before, units)
            except (ObjectCorrupt, FormatTooNew) as exc:
                done.damaged[str(segment)] = str(exc)
                self._close(ready, done)
                reached = None
                continue
            for header, unit, own in units:
                self._look_for_hole(reached, generation, header.txid_first, done)
                reached = header.txid_last if header.commits else header.txid_first - 1
                if ready.units and not _goes_on(ready.units[-1][0], header):
                    self._close(ready, done)  # a hole, which ends at a full backup
                ready.units.append((header, unit))
                ready.size += len(unit)
                digest = own
                if header.commits and (header.txid_last in cuts or ready.size >= LOG_BYTES_MAX):
                    self._close(ready, done)
            ready.emptied.append(segment)
            if not ready.units:  # the last log ended with it
                self._clear(ready, done)
        self._close(ready, done)
        self._clear(ready, done)
        return reached

    def _look_for_hole(
        self, reached: int | None, generation: GenerationId, txid_first: int, done: Archived
    ) -> None:
        """A store that was away for long has one, which ends where a full stands. *reached*: None: unknown."""
        if reached is None or txid_first <= reached + 1 or (generation, txid_first) in self._told:
            return
        stands = {
            name.txid
            for prefix in (FULL, INCREMENTAL)
            for each in self._store.list(prefix)
            if isinstance(name := parse_name(each.name), FullName | IncrementalName)
            and name.generation == generation
        }
        if txid_first - 1 not in stands:
            self._told.add((generation, txid_first))
            done.missing.append((reached + 1, txid_first - 1))

    def _content(self, segment: SegmentName) -> bytes | None:
        """None where there is none, since a listing lags behind, and of a fence, which stays."""
        try:
            content = self._store.get(str(segment))
        except ObjectNotFound:
            return None
        return None if is_fence(content) else content

    def _has(self, header: UnitHeader, unit: bytes) -> bool:
        """Whether a log of an earlier run, which did not come to delete the segment, holds this very unit."""
        for name in reversed(self._logs):
            if name.generation != header.generation or name.txid_first > header.txid_last:
                continue
            if name.txid_last < header.txid_last:
                return False  # they ascend
            if self._read is None or self._read[0] != name:
                self._read = name, self._digests_in(name)
            return hashlib.sha256(unit).digest() in self._read[1]
        return False

    def _digests_in(self, name: LogName) -> set[bytes]:
        try:
            units = decode_log(self._store.get(str(name)), name).units
            return {hashlib.sha256(view).digest() for view in split_units(units)}
        except (ObjectCorrupt, ObjectNotFound, FormatTooNew) as exc:
            log.error("log.unreadable", extra={"store": self._store.url, "key": str(name), "error": str(exc)})
            return set()

    def _close(self, ready: _Open, done: Archived) -> None:
        """Put what is ready as one log. A transaction whose last part is missing waits for it."""
        while ready.units and not ready.units[-1][0].commits:
            ready.units.pop()
            ready.emptied.clear()
        if not ready.units:
            ready.size = 0
            return
        first, last = ready.units[0][0], ready.units[-1][0]
        name = LogName(
            last.observed_last - last.observed_last % 1_000_000,
            last.generation,
            first.txid_first,
            last.txid_last,
        )
        encoded = encode_log(name, ready.units)
        size = len(encoded)
        ready.units, ready.size = [], 0  # a log is large: nobody holds it twice
        digest = hashlib.sha256(encoded).digest()
        with suppress(ObjectExists):  # a run that was interrupted
            self._store.put(str(name), encoded)
        del encoded
        self._prove(name, digest)
        insort(self._logs, name, key=_order)
        self._read = None
        done.logs.append(name)
        done.bytes_out += size
        log.info(
            "log.stored",
            extra={
                "store": self._store.url,
                "txid_min": f"{first.txid_first:016x}",
                "txid_max": f"{last.txid_last:016x}",
                "bytes_out": size,
            },
        )

    def _prove(self, name: LogName, digest: bytes) -> None:
        """Returns once the store gives it back as it is. One that is damaged there is deleted, since nothing could be
        put under its name any more, and readers would take it for the segments that are still there."""
        try:
            found = self._store.get(str(name))
            if hashlib.sha256(found).digest() == digest:
                return
            for view in split_units(decode_log(found, name).units):
                decode_unit(view)
        except (ObjectCorrupt, FormatTooNew):
            with suppress(StoreError):
                self._store.delete(str(name))
        raise ObjectCorrupt(f"{self._store.url} does not give {name} back as it was put", name=str(name))

    def _clear(self, ready: _Open, done: Archived) -> None:
        """Delete the segments that logs have taken over."""
        for segment in ready.emptied:
            try:
                self._store.delete(str(segment))
                done.segments += 1
            except StoreDenied:
                done.kept += 1
        ready.emptied.clear()


def _units(content: bytes, segment: SegmentName) -> list[tuple[UnitHeader, bytes, bytes]]:
    """Each with its digest, proved; the first is the one that *segment* is named after."""
    found: list[tuple[UnitHeader, bytes, bytes]] = []
    for view in split_units(content):
        unit = decode_unit(view)
        found.append((unit.header, bytes(view), unit.digest))
    first = found[0][0] if found else None
    if first is None or SegmentName(first.generation, first.txid_first, first.part) != segment:
        raise ObjectCorrupt(f"{segment} does not hold what its name says", name=str(segment))
    return found


def _order(name: LogName) -> tuple[GenerationId, int, int]:
    return name.generation, name.txid_first, name.txid_last


def _require_chain(
    segment: SegmentName,
    before: tuple[UnitHeader, bytes] | None,
    units: Sequence[tuple[UnitHeader, bytes, bytes]],
) -> None:
    """*before*: the unit that is ready, and its digest."""
    for header, _, own in units:
        if before is not None and _goes_on(before[0], header) and not follows(header, before[1]):
            raise ObjectCorrupt(f"{segment} does not chain to what is before it", name=str(segment))
        before = (header, own)


def _goes_on(last: UnitHeader, header: UnitHeader) -> bool:
    if last.commits:
        return header.txid_first == last.txid_last + 1 and header.part in (0, 1)
    return header.txid_first == last.txid_first and header.part == last.part + 1
