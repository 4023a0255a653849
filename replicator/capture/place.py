"""Where to go on from: the place saved by an earlier run, or the beginning of a new generation.

Doubt is a new generation with the reason in its record, never a guess.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from replicator.core.codec import DEFAULT, Compression
from replicator.core.cursor import (
    EMPTY,
    Continue,
    Elsewhere,
    Lost,
    Observation,
    WalCursor,
    recognise,
)
from replicator.core.errors import SourceError
from replicator.core.position import GenerationId
from replicator.core.records import GenerationRecord
from replicator.core.unit import decode_unit, first_chain
from replicator.core.unit_build import UNIT_BYTES_MAX, Lineage, Tip
from replicator.core.wal import FrameHeader
from replicator.source.database import Database, HeldMark
from replicator.source.pages import CapturedPages
from replicator.state import RunningGeneration, StateFolder

FIRST_RUN = "first run"


@dataclass(frozen=True, slots=True)
class Placed:
    """Go on from ``tip``. ``began`` is the running generation if it was begun just now."""

    lineage: Lineage
    tip: Tip
    pages: CapturedPages
    began: RunningGeneration | None


def tip_of(unit_bytes: bytes) -> Tip:
    """The end of the chain, from its last unit."""
    unit = decode_unit(unit_bytes)
    entry, header = unit.entries[-1], unit.header
    rolling = entry.rolling if header.rolling_known else None
    return Tip(header.txid_last, unit.digest, rolling, entry.pages_after, entry.observed, header.cursor)


def base_tip(generation: RunningGeneration) -> Tip:
    """The tip of a generation that has no unit yet."""
    chain = first_chain(bytes.fromhex(generation.record.repository), generation.record.generation)
    record = generation.record
    return Tip(0, chain, 0, generation.base_pages, record.began, generation.base)


def lineage_of(
    state: StateFolder, generation: RunningGeneration, compression: Compression = DEFAULT
) -> Lineage:
    return Lineage(
        repository=bytes.fromhex(state.repository),
        generation=generation.record.generation,
        epoch=state.epoch,
        page_size=generation.record.page_size,
        compression=compression,
    )


def resume(
    database: Database, state: StateFolder, tip: Tip, mark: HeldMark, seen: Observation
) -> tuple[Tip, CapturedPages] | Lost:
    """Look a saved tip up in the database; the caller holds *mark*, which began with *seen*."""
    generation = state.generation
    assert generation is not None
    if database.page_size != generation.record.page_size:
        return Lost(f"the page size changed from {generation.record.page_size} to {database.page_size}")
    cursor = tip.cursor
    within = seen.header is not None and 0 < cursor.frames <= seen.frames
    verdict = recognise(cursor, seen, _frame_header(database, cursor.frames - 1) if within else None)
    if isinstance(verdict, Lost) and mark.zero and database.look().header != seen.header:
        # It was written over while we looked; what it held is in the main file, where nobody writes.
        verdict = Elsewhere("the log was restarted")
    if isinstance(verdict, Lost):
        return verdict
    if isinstance(verdict, Continue):
        if verdict.new_frames and generation.base_checksum is None:
            # Without a full there is nothing that could restore this generation, and nothing to check it by.
            return Lost("commits came while the agent was away, before the first full backup was complete")
        return _resume_in_log(database, tip, mark, seen)
    return _resume_by_content(database, generation, tip, mark, seen, verdict)


def _frame_header(database: Database, index: int) -> FrameHeader | None:
    """None where the log was cut before it since."""
    try:
        return database.frame_header(index)
    except SourceError:
        return None


def _resume_in_log(
    database: Database, tip: Tip, mark: HeldMark, seen: Observation
) -> tuple[Tip, CapturedPages]:
    if seen.frames == tip.cursor.frames:
        return tip, _captured(database, mark, seen)
    assert seen.header is not None
    pages = _read_log(database, tip.cursor.frames, seen)
    # Nobody's mark was held meanwhile: a checkpoint may have written any of these to the main file.
    behind = pages.scan(tip.cursor.frames, seen.frames, seen.header.salt, bytes_max=1 << 62)
    pages.distrust({pgno for each in behind for pgno in each.frames})
    return Tip(tip.txid, tip.chain, None, tip.pages, tip.observed, tip.cursor), pages


def _resume_by_content(
    database: Database,
    generation: RunningGeneration,
    tip: Tip,
    mark: HeldMark,
    seen: Observation,
    why: Elsewhere,
) -> tuple[Tip, CapturedPages] | Lost:
    """The log that held our place is gone; the same content in every page is the same database."""
    if generation.base_checksum is None:
        return Lost(f"{why.reason}, and its content cannot be compared: no full backup was complete")
    if tip.rolling is None:
        return Lost(
            f"{why.reason}, and its content cannot be compared: its checksum was not followed to the end"
        )
    pages = _captured(database, mark, seen)
    size = _size_at(database, mark, seen)
    if size == tip.pages and pages.database_checksum(size) == generation.base_checksum ^ tip.rolling:
        cursor = cursor_at(database, mark, seen)
        return Tip(tip.txid, tip.chain, tip.rolling, tip.pages, tip.observed, cursor), pages
    return Lost(f"{why.reason}, and the database is not the one that was captured last")


def begin_generation(
    database: Database, state: StateFolder, mark: HeldMark, seen: Observation, *, reason: str, wall: int
) -> tuple[RunningGeneration, CapturedPages]:
    """A new history from what the log says now; the caller holds *mark*, which began with *seen*."""
    previous = state.generation.record.generation if state.generation else None
    record = GenerationRecord(
        generation=GenerationId(secrets.token_hex(8)),
        repository=state.repository,
        epoch=state.epoch,
        began=wall,
        reason=reason,
        page_size=database.page_size,
        previous=previous,
    )
    began = RunningGeneration(record, cursor_at(database, mark, seen), _size_at(database, mark, seen))
    return began, _captured(database, mark, seen)


def cursor_at(database: Database, mark: HeldMark, seen: Observation) -> WalCursor:
    """The place behind every frame of *seen*; the beginning, where the log was restarted since."""
    if seen.header is None or seen.frames == 0:
        return EMPTY
    frame = _frame_header(database, seen.frames - 1)
    if frame is None or (mark.zero and frame.salt != seen.header.salt):
        return EMPTY
    return WalCursor(seen.header.salt, seen.frames, frame.checksum)


def _size_at(database: Database, mark: HeldMark, seen: Observation) -> int:
    if mark.zero or seen.header is None or seen.frames == 0:
        return database.page_count()
    return database.frame_header(seen.frames - 1).commit_pages


def _captured(database: Database, mark: HeldMark, seen: Observation) -> CapturedPages:
    """Every page as *seen*. With read mark 0 the main file holds them all, and nobody writes to it, while the
    next writer may write over the frames."""
    return CapturedPages(database) if mark.zero else _read_log(database, seen.frames, seen)


def _read_log(database: Database, frames: int, seen: Observation) -> CapturedPages:
    """What the first *frames* frames of the log hold."""
    pages = CapturedPages(database)
    first = 0
    while seen.header is not None and first < frames:
        logged = pages.scan(first, frames, seen.header.salt, bytes_max=UNIT_BYTES_MAX)
        for each in logged:
            pages.advance(each)
        first = logged[-1].end
    return pages
