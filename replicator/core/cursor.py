"""May we go on from where we were? One value for the place, one pure function for the question."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.core.wal import FrameHeader, Salt, WalChecksum, WalHeader


@dataclass(frozen=True, slots=True)
class WalCursor:
    """How far one `-wal` file was read: its salt, the frames taken, SQLite's checksum at the last of them.

    ``frames == 0`` means nothing of the log is taken; salt and checksum are then without meaning.
    """

    salt: Salt
    frames: int
    checksum: WalChecksum


EMPTY = WalCursor(Salt(0, 0), 0, WalChecksum(0, 0))


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the log: its header, and how many frames SQLite's readers trust and the main file has.

    ``header`` is None while the file is empty. ``frames`` is 0 between a reset and the next commit, while
    the file still shows the old header.
    """

    header: WalHeader | None
    frames: int
    backfilled: int

    @property
    def fully_backfilled(self) -> bool:
        return self.backfilled >= self.frames


@dataclass(frozen=True, slots=True)
class Continue:
    """The log goes on behind the cursor; ``new_frames`` may be 0."""

    new_frames: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """The log began anew exactly where we had read it to its end; nothing was in between."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody can say what happened since the cursor. ``reason`` goes to logs and into the next generation."""

    reason: str


Verdict = Continue | Restarted | Lost


def judge(cursor: WalCursor, seen: Observation, *, reset_allowed: bool) -> Verdict:
    """Compare a look at the log with our place in it, while a read transaction of ours is held.

    *reset_allowed*: our transaction began when every frame was in the main file and taken by us (it holds
    read mark 0), so the next writer may restart the log, once. Under any other mark of ours nobody can.
    """
    if seen.frames == 0 or seen.header is None:
        if cursor.frames == 0:
            return Continue(0)
        return Restarted() if reset_allowed else Lost("the log was emptied under our read transaction")
    if cursor.frames == 0:
        return Continue(seen.frames)
    if seen.header.salt != cursor.salt:
        return Restarted() if reset_allowed else Lost("the log was restarted under our read transaction")
    if seen.frames < cursor.frames:
        return Lost("the log is shorter than what was captured from it")
    return Continue(seen.frames - cursor.frames)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The saved place is not in this log; only the content of the whole database can tell more."""

    reason: str


def recognise(cursor: WalCursor, seen: Observation, frame: FrameHeader | None) -> Continue | Lost | Elsewhere:
    """Look up a place saved by an earlier run, with nothing held in between.

    *frame* is the header of the last frame the cursor took, as the log has it now; None where the log is
    shorter. Checksums chain, so an equal one at an equal salt means every frame up to it is the same.
    """
    if cursor.frames == 0 or seen.header is None or seen.frames == 0:
        return Elsewhere("the log is gone")
    if seen.header.salt != cursor.salt:
        return Elsewhere("the log was restarted")
    if frame is None or seen.frames < cursor.frames:
        return Lost(
            "the log is shorter than what was captured from it: the database is older than the replica"
        )
    if frame.salt != cursor.salt or frame.checksum != cursor.checksum:
        return Lost("the log holds other frames than were captured from it")
    return Continue(seen.frames - cursor.frames)
