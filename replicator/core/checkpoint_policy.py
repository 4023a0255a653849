"""When to move frames into the main file, and how: a pure decision over one look at the log.

Source of the rules: measured against real SQLite, see docs/ARCHITECTURE.md, "Checkpoints".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What to do now. None of it ever writes to the database's content."""

    NOTHING = "nothing"
    PASSIVE = "passive"
    APPROACH = "approach"
    BARRIER = "barrier"
    TRUNCATE = "truncate"


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """``soft_bytes``: from here on every pause is used; SQLite's own autocheckpoint of 1,000 pages.

    ``coalesce_bytes``: from here on, while it grows, only the end of a batch is kept as a restore point.
    ``high_bytes``: from here on the barrier may be taken. With what comes until it has been, the log stays
    below the 64 MB it may grow because of us, and a hold comes once in so much of it.
    ``file_bytes``: a log *file* above this is cut once nothing in it is needed.
    """

    soft_bytes: int = 4 << 20
    coalesce_bytes: int = 32 << 20
    high_bytes: int = 48 << 20
    file_bytes: int = 64 << 20
    barrier: bool = True


# From this share of the high mark on, what can be captured and moved beside the writers is, look by look: what
# is left to do under the barrier is what they wait for.
APPROACH_FROM = 0.85
# What a barrier may still have to move: more, and writers would wait for the bulk. A PASSIVE goes first.
BARRIER_BYTES_MAX = 16 << 20
# Where checkpoints do not keep up, a longer hold is better than a log without bound.
BARRIER_ANYWAY = 1.2


@dataclass(frozen=True, slots=True)
class LogState:
    """``captured``: frames we hold durably. ``growing``: frames were added since the look before.

    ``holding_zero``: our read transaction holds read mark 0, so the log is about to be restarted anyway.
    ``barrier_bytes``: how long this log has to be for a barrier; longer than the high mark once there was one.
    """

    frames: int
    backfilled: int
    captured: int
    frame_bytes: int
    file_bytes: int
    growing: bool
    holding_zero: bool
    barrier_bytes: int


def decide(log: LogState, limits: CheckpointLimits) -> Action:
    """Choose the mildest means that helps."""
    used = log.frames * log.frame_bytes
    if log.holding_zero and log.backfilled >= log.frames:
        if log.file_bytes > limits.file_bytes and not log.growing:
            return Action.TRUNCATE
        return Action.NOTHING
    behind = min(log.captured, log.frames) - log.backfilled
    left = (log.frames - log.backfilled) * log.frame_bytes
    short = left <= BARRIER_BYTES_MAX or used >= limits.high_bytes * BARRIER_ANYWAY
    if limits.barrier and used >= log.barrier_bytes * APPROACH_FROM and log.growing and short:
        return Action.BARRIER if used >= log.barrier_bytes else Action.APPROACH
    if used >= limits.soft_bytes and behind > 0:
        return Action.PASSIVE
    return Action.NOTHING
