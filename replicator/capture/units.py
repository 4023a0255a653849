"""Cutting: transactions of the log become units in the spool, one behind the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from replicator.core.changed_pages import ChangedPages
from replicator.core.cursor import Observation, WalCursor
from replicator.core.page_delta import PageImage
from replicator.core.position import Position
from replicator.core.unit_build import (
    UNIT_BYTES_MAX,
    UNIT_MICROS_MAX,
    Built,
    Captured,
    Hole,
    Lineage,
    Sighting,
    Tip,
    build_parts,
    build_unit,
    check_growth,
    merge,
)
from replicator.core.wal import FRAME_HEADER_SIZE, LoggedTransaction
from replicator.source.database import Database
from replicator.source.pages import CapturedPages
from replicator.spool import Spool

log = logging.getLogger(__name__)


class ContinuityLost(Exception):
    """Nobody can say what happened since the last captured commit; a new generation has to begin."""


class MainChanged(ContinuityLost):
    """The main file was written to past its log, or touched: nothing is captured until it was compared."""


class Sightings:
    """When frames were first seen, so that every commit among them gets the times of the look that saw it."""

    def __init__(self, frames: int, wall: int) -> None:
        self._seen: list[tuple[int, Sighting]] = []
        self._last_look = wall
        self.frames = frames

    def restart(self) -> None:
        """The log begins anew."""
        self._seen.clear()
        self.frames = 0

    def look(self, frames: int, wall: int, *, not_earlier: int) -> bool:
        """Note one look; True if there are more frames than before. Recorded times never go back."""
        grew = frames > self.frames
        if grew:
            last = self._seen[-1][1].observed if self._seen else not_earlier
            observed = max(wall, last)
            self._seen.append((frames, Sighting(observed, min(self._last_look, observed), wall < last)))
            self.frames = frames
        self._last_look = wall
        return grew

    def of(self, end: int) -> Sighting:
        """The look that first saw a commit whose last frame is number *end*."""
        return next((sighting for frames, sighting in self._seen if frames >= end), self._seen[-1][1])

    def forget(self, frames: int) -> None:
        """What lies within the first *frames* frames is captured."""
        self._seen = [each for each in self._seen if each[0] > frames]

    @property
    def oldest(self) -> int:
        """When the oldest frames that are not captured were seen, 0 without any."""
        return self._seen[0][1].observed if self._seen else 0


class UnitWriter:
    """Owns the tip: every unit is built on it, made durable, and only then becomes it."""

    def __init__(
        self,
        database: Database,
        spool: Spool,
        pages: CapturedPages,
        lineage: Lineage,
        tip: Tip,
        changed: ChangedPages,
    ) -> None:
        self._database = database
        self._spool = spool
        self._frame_bytes = database.page_size + FRAME_HEADER_SIZE
        self.pages = pages
        self.lineage = lineage
        self.tip = tip
        self.changed = changed
        self.confirm: Callable[[], None] | None = None
        """Asked once a unit was read from the log and built, before it counts: it may raise."""
        self.coalesced = 0
        """Commits that were merged with a later one under overload, and are no restore points."""

    def write(
        self, seen: Observation, first: int, sightings: Sightings, touched: list[set[int]], *, coalesce: bool
    ) -> WalCursor:
        """Capture frames from *first* on: one unit, or all the parts of one transaction.

        With *coalesce* everything that was *seen* becomes one entry. Page numbers are added to each set of
        *touched*. Returns the place behind what is now durable. Raises ContinuityLost, StoreError.
        """
        assert seen.header is not None
        bytes_max = (seen.frames - first) * self._frame_bytes if coalesce else UNIT_BYTES_MAX
        logged = self.pages.scan(
            first, seen.frames, seen.header.salt, bytes_max=bytes_max, keep=UNIT_BYTES_MAX
        )
        self._check_growth(logged)
        for each in touched:
            for transaction in logged:
                each.update(transaction.frames)
        span = 1
        if coalesce and len(logged) > 1:
            span, logged = len(logged), [merge(logged)]
        else:
            logged = self._fitting(logged, sightings)
        end = logged[-1].end
        cursor = WalCursor(seen.header.salt, end, self._database.frame_header(end - 1).checksum)
        if len(logged) == 1 and len(logged[0].frames) * self.lineage.page_size > UNIT_BYTES_MAX:
            self._write_parts(logged[0], span, sightings.of(end), cursor)
        else:
            self._write_unit(logged, span, sightings, cursor)
        for each_logged in logged:
            self.pages.advance(each_logged)
        self.coalesced += span - 1
        return cursor

    def describe(self) -> dict[str, Any]:
        """What ``SourceState`` says of what is captured."""
        tip, lineage = self.tip, self.lineage
        return {
            "phase": "following",
            "reason": "",
            "captured": Position(lineage.generation, tip.txid),
            "captured_observed": tip.observed,
            "page_size": lineage.page_size,
            "pages": tip.pages,
            "coalesced": self.coalesced,
        }

    def settle_checksum(self, base_checksum: int) -> None:
        """Find the rolling checksum again by reading the whole database, where it was lost track of."""
        if self.tip.rolling is None:
            whole = self.pages.database_checksum(self.tip.pages)
            if whole is None:
                raise ContinuityLost("the database's checksum cannot be followed")
            self.tip = replace(self.tip, rolling=whole ^ base_checksum)

    def _check_growth(self, logged: list[LoggedTransaction]) -> None:
        pages = self.tip.pages
        try:
            for each in logged:
                check_growth(each, pages, self.lineage.page_size)
                pages = each.commit_pages
        except Hole as exc:
            raise ContinuityLost(str(exc)) from exc

    def _fitting(self, logged: list[LoggedTransaction], sightings: Sightings) -> list[LoggedTransaction]:
        """As many transactions as one unit takes, at least one."""
        room = UNIT_BYTES_MAX // self.lineage.page_size
        latest = sightings.of(logged[0].end).observed + UNIT_MICROS_MAX
        taken: list[LoggedTransaction] = []
        for each in logged:
            room -= len(each.frames)
            if taken and (room < 0 or sightings.of(each.end).observed > latest):
                break
            taken.append(each)
        return taken

    def _write_unit(
        self, logged: list[LoggedTransaction], span: int, sightings: Sightings, cursor: WalCursor
    ) -> None:
        captured = [
            Captured(
                [
                    PageImage(pgno, self.pages.frame(index))
                    for pgno, index in sorted(each.frames.items())
                    if pgno <= each.commit_pages
                ],
                each.commit_pages,
                span,
                sightings.of(each.end),
            )
            for each in logged
        ]
        self._keep(build_unit(self.lineage, self.tip, captured, cursor, self.pages.before), self.changed)

    def _write_parts(
        self, transaction: LoggedTransaction, span: int, seen: Sighting, cursor: WalCursor
    ) -> None:
        tip = self.tip
        changed = ChangedPages(self.lineage.generation, tip.txid)
        parts = build_parts(
            self.lineage, tip, transaction, span, seen, cursor, self.pages.frame, self.pages.before
        )
        try:
            for built in parts:
                self._keep(built, changed)
        except BaseException:
            self.tip = tip
            self._spool.rewind()
            raise
        self.changed.join(changed)

    def _keep(self, built: Built, changed: ChangedPages) -> None:
        if self.confirm is not None:
            self.confirm()
        self._spool.append(built.unit, built.header)
        self.tip = built.tip
        for entry in built.entries:
            changed.note(entry.txid, entry.pgnos, entry.hashes)
        log.debug(
            "unit.captured", extra={"txid": f"{built.header.txid_last:016x}", "bytes_out": len(built.unit)}
        )
