"""Pieces: neighbouring frames of a pack that are read at once, and which chunks of the database they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from replicator.core.full import Table
from replicator.core.pack import Frame

# One read of a pack covers neighbouring frames up to this: few requests, and a few of them fit in memory.
READ_BYTES = 2 << 20

Slots = tuple[int, int, int]
"""Consecutive chunks: the first one's number in the database, its place in the frame, and how many they are."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring frames of one pack, and which chunks of the database they hold."""

    pack: int
    offset: int
    length: int
    frames: tuple[tuple[Frame, tuple[Slots, ...]], ...]


def pieces_of(table: Table, index: int) -> Iterator[Piece]:
    """Those of a table whose first chunk has number *index* in the database; in the order of the packs."""
    slots: dict[Frame, list[Slots]] = {}
    for run in table.runs:
        slots.setdefault(run.frame, []).append((index, run.first, run.count))
        index += run.count
    batch: list[tuple[Frame, tuple[Slots, ...]]] = []
    for frame in sorted(slots, key=lambda each: (each.pack, each.offset)):
        if batch:
            first, last = batch[0][0], batch[-1][0]
            neighbour = frame.pack == last.pack and frame.offset == last.offset + last.stored_bytes
            if not neighbour or frame.offset + frame.stored_bytes - first.offset > READ_BYTES:
                yield _piece(batch)
                batch = []
        batch.append((frame, tuple(slots[frame])))
    if batch:
        yield _piece(batch)


def _piece(batch: list[tuple[Frame, tuple[Slots, ...]]]) -> Piece:
    first, last = batch[0][0], batch[-1][0]
    return Piece(first.pack, first.offset, last.offset + last.stored_bytes - first.offset, tuple(batch))
