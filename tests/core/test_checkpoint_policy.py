"""Which means are used to keep the log short, row by row."""

from dataclasses import replace
from typing import Any

import pytest

from replicator.core.checkpoint_policy import (
    APPROACH_FROM,
    BARRIER_ANYWAY,
    BARRIER_BYTES_MAX,
    Action,
    CheckpointLimits,
    LogState,
    decide,
)

LIMITS = CheckpointLimits(soft_bytes=1_000, high_bytes=10_000, file_bytes=20_000)
LOG = LogState(
    frames=0,
    backfilled=0,
    captured=0,
    frame_bytes=1,
    file_bytes=0,
    growing=False,
    holding_zero=False,
    barrier_bytes=LIMITS.high_bytes,
)
NEAR = int(LIMITS.high_bytes * APPROACH_FROM)


@pytest.mark.parametrize(
    ("state", "action"),
    [
        # a short log is left to the application
        ({}, Action.NOTHING),
        ({"frames": 999, "captured": 999}, Action.NOTHING),
        ({"frames": 999, "captured": 999, "growing": True}, Action.NOTHING),
        # from the soft mark on, whatever is captured and not moved yet is moved
        ({"frames": 1_000, "captured": 1_000}, Action.PASSIVE),
        ({"frames": 1_000, "captured": 1_000, "growing": True}, Action.PASSIVE),
        ({"frames": 1_000, "captured": 1}, Action.PASSIVE),
        ({"frames": 1_000, "captured": 0}, Action.NOTHING),  # nothing is captured: nothing may move
        ({"frames": 1_000, "captured": 400, "backfilled": 400}, Action.NOTHING),
        ({"frames": 1_000, "captured": 400, "backfilled": 399}, Action.PASSIVE),
        ({"frames": 1_000, "captured": 1_000, "backfilled": 1_000}, Action.NOTHING),
        ({"frames": 1_000, "captured": 5_000, "backfilled": 1_000}, Action.NOTHING),
        # above the high mark the barrier, if the log still grows and little is left to move
        ({"frames": 10_000, "captured": 10_000, "backfilled": 9_000, "growing": True}, Action.BARRIER),
        ({"frames": 9_999, "captured": 9_999, "backfilled": 9_000, "growing": True}, Action.APPROACH),
        ({"frames": NEAR, "captured": NEAR, "backfilled": NEAR, "growing": True}, Action.APPROACH),
        ({"frames": NEAR - 1, "captured": NEAR - 1, "growing": True}, Action.PASSIVE),
        ({"frames": NEAR, "captured": NEAR}, Action.PASSIVE),  # a pause is enough
        ({"frames": 10_000, "captured": 10_000, "backfilled": 9_000}, Action.PASSIVE),
        ({"frames": 10_000, "captured": 9_000, "backfilled": 9_000, "growing": True}, Action.BARRIER),
        ({"frames": 10_000, "captured": 10_000, "backfilled": 10_000, "growing": True}, Action.BARRIER),
        # a log that goes on behind a barrier
        ({"frames": 16_000, "captured": 16_000, "barrier_bytes": 19_000, "growing": True}, Action.PASSIVE),
        ({"frames": 19_000, "captured": 19_000, "barrier_bytes": 19_000, "growing": True}, Action.BARRIER),
        # under our mark 0 with everything moved the next commit restarts the log by itself
        ({"frames": 10_000, "backfilled": 10_000, "growing": True, "holding_zero": True}, Action.NOTHING),
        ({"frames": 0, "holding_zero": True}, Action.NOTHING),
        ({"file_bytes": 20_000, "holding_zero": True}, Action.NOTHING),
        ({"file_bytes": 20_001, "holding_zero": True}, Action.TRUNCATE),
        ({"file_bytes": 20_001, "holding_zero": True, "growing": True}, Action.NOTHING),
        ({"file_bytes": 20_001}, Action.NOTHING),
        ({"frames": 5_000, "backfilled": 5_000, "file_bytes": 20_001, "holding_zero": True}, Action.TRUNCATE),
        # mark 0, but commits came since: an ordinary log
        ({"frames": 1_000, "captured": 1_000, "file_bytes": 20_001, "holding_zero": True}, Action.PASSIVE),
    ],
)
def test_the_mildest_means_that_helps(state: dict[str, Any], action: Action) -> None:
    """Nothing, then PASSIVE, and the barrier only where nothing milder can reach the end of the log."""
    assert action == decide(replace(LOG, **state), LIMITS)


def test_without_the_barrier_it_is_never_taken() -> None:
    """`barrier: never` leaves it at PASSIVE, however long the log is."""
    state = replace(LOG, frames=50_000, captured=50_000, backfilled=49_999, growing=True)

    assert Action.BARRIER == decide(state, LIMITS)
    assert Action.PASSIVE == decide(state, replace(LIMITS, barrier=False))


def test_the_marks_are_in_bytes() -> None:
    """The size of a frame counts."""
    state = replace(LOG, frames=10, captured=10)

    assert Action.NOTHING == decide(replace(state, frame_bytes=99), LIMITS)
    assert Action.PASSIVE == decide(replace(state, frame_bytes=100), LIMITS)


BULK = 2 * BARRIER_BYTES_MAX


@pytest.mark.parametrize(
    ("frames", "backfilled", "action"),
    [
        (BULK, BULK - BARRIER_BYTES_MAX, Action.BARRIER),
        (BULK, BULK - BARRIER_BYTES_MAX - 1, Action.PASSIVE),  # the bulk first
        (
            int(BULK * BARRIER_ANYWAY) + 1,
            0,
            Action.BARRIER,
        ),  # checkpoints do not keep up: better a longer hold
    ],
)
def test_the_bulk_goes_before_the_barrier(frames: int, backfilled: int, action: Action) -> None:
    """Writers are not kept waiting for what a PASSIVE can move, unless the log outgrows its bound."""
    state = replace(LOG, frames=frames, captured=frames, backfilled=backfilled, growing=True)

    assert action == decide(replace(state, barrier_bytes=BULK), replace(LIMITS, high_bytes=BULK))
