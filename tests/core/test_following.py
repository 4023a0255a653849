"""The pace of following, with a time that tests own."""

import math

import pytest

from replicator.core.cursor import Observation
from replicator.core.following import (
    BACKLOG_BYTES,
    CALM_FRAMES_PER_SECOND,
    MUCH_FRAMES,
    POLL_ASKED_SECONDS,
    POLL_MAX_SECONDS,
    POLL_MIN_SECONDS,
    RELOOK_FIRST_SECONDS,
    RELOOK_FOR_SECONDS,
    RELOOK_MAX_SECONDS,
    SUSTAINED_SECONDS,
    Overload,
    Pace,
)
from replicator.core.wal import Salt, WalChecksum, WalHeader

LONG_AGO = float("-inf")


def log(frames: int, backfilled: int = 0) -> Observation:
    return Observation(WalHeader(4096, 0, Salt(1, 2), WalChecksum(3, 4)), frames, backfilled)


# --- when to look --------------------------------------------------------------------------------------


def test_after_an_event_looks_come_soon_then_rarely_then_not_at_all() -> None:
    """The commit is published a moment after its event: look at once, ever more rarely, and rest in the end."""
    pace = Pace(1.0)
    now, looks = 100.0, []
    pace.wake(now)
    while (delay := pace.next_look(now, pending=False)) is not None:
        looks.append(delay)
        now += delay

    assert RELOOK_FIRST_SECONDS == looks[0]
    assert looks == sorted(looks)
    assert RELOOK_MAX_SECONDS == looks[-1]
    assert RELOOK_FOR_SECONDS <= now - 100.0 < RELOOK_FOR_SECONDS + RELOOK_MAX_SECONDS
    assert len(looks) < 40


def test_an_event_begins_the_looks_anew() -> None:
    """Another event while looks are rare makes them frequent again."""
    pace = Pace(1.0)
    pace.wake(100.0)
    for _ in range(20):
        pace.next_look(100.0, pending=False)
    pace.wake(101.0)

    assert RELOOK_FIRST_SECONDS == pace.next_look(101.0, pending=False)


@pytest.mark.parametrize(
    ("woken", "grew", "captured", "interval", "pending", "asked", "delay"),
    [
        # seconds ago, all of them
        (LONG_AGO, LONG_AGO, LONG_AGO, 1.0, False, False, None),  # at rest
        (RELOOK_FOR_SECONDS, LONG_AGO, LONG_AGO, 1.0, False, False, None),
        (RELOOK_FOR_SECONDS - 0.01, LONG_AGO, LONG_AGO, 1.0, False, False, RELOOK_FIRST_SECONDS),
        (LONG_AGO, RELOOK_FOR_SECONDS - 0.01, LONG_AGO, 1.0, False, False, RELOOK_FIRST_SECONDS),
        (LONG_AGO, 1.0, 0.25, 1.0, True, False, POLL_MAX_SECONDS),  # frames wait for their interval
        (LONG_AGO, 1.0, 0.99, 1.0, True, False, 0.01),
        (LONG_AGO, 1.0, 3.0, 1.0, True, False, 0.0),
        (LONG_AGO, 1.0, LONG_AGO, 1.0, True, False, 0.0),
        (0.0, 0.0, 0.0, 1.0, False, False, POLL_MAX_SECONDS),  # commits keep coming: on the timer
        (0.0, SUSTAINED_SECONDS - 0.01, 0.0, 1.0, False, False, POLL_MAX_SECONDS),
        (0.0, 0.0, 0.0, 0.03, False, False, 0.01),
        (0.0, 0.1, 0.0, 0.0, False, False, POLL_MIN_SECONDS),
        (0.0, 0.1, 0.995, 1.0, True, False, 0.005),  # and never later than what waits is due
        (0.0, 0.1, 2.0, 1.0, True, False, 0.0),
        (0.0, 0.1, 0.5, 1.0, True, True, POLL_ASKED_SECONDS),  # somebody waits for us: closely
        (0.0, 0.1, 0.5, 1.0, False, True, POLL_ASKED_SECONDS),
        (0.0, 0.1, 0.999, 1.0, True, True, 0.001),
        (0.0, 0.1, 0.0, 0.0, False, True, POLL_MIN_SECONDS),
        (LONG_AGO, LONG_AGO, LONG_AGO, 1.0, False, True, POLL_ASKED_SECONDS),
    ],
)
def test_the_next_look(
    woken: float,
    grew: float,
    captured: float,
    interval: float,
    pending: bool,
    asked: bool,
    delay: float | None,
) -> None:
    """At rest never, after an event soon, with frames waiting at their time, under commits on a timer."""
    pace = Pace(interval, 50 - abs(woken), 50 - abs(grew), 50 - abs(captured), asked=asked)

    assert pytest.approx(delay) == pace.next_look(50.0, pending=pending)


@pytest.mark.parametrize(("ago", "sustained"), [(0.0, True), (0.249, True), (0.25, False), (math.inf, False)])
def test_commits_are_sustained_for_a_quarter_of_a_second(ago: float, sustained: bool) -> None:
    """For so long after the last new frame, events would tell nothing new."""
    assert sustained == Pace(1.0, grew=9.0 - ago).sustained(9.0)


# --- when to capture -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "interval", "fresh_bytes", "mark_zero", "asked", "grew", "due"),
    [
        # *since* the last capture, in seconds
        (math.inf, 1.0, 1, False, False, True, True),  # at once after quiet
        (1.0, 1.0, 1, False, False, True, True),  # once an interval
        (0.75, 1.0, 1, False, False, True, False),
        (0.75, 1.0, 1, False, False, False, False),
        (0.0, 0.0, 1, False, False, True, True),  # an interval of zero is every commit
        (0.0, 1.0, 1, True, False, True, True),  # mark 0 blocks a FULL checkpoint
        (0.0, 1.0, 1, False, True, False, True),  # and any other one a checkpoint that waits
        (
            0.0,
            1.0,
            1,
            False,
            True,
            True,
            False,
        ),  # which keeps writers out: what goes on beside them waits for nobody
        (0.0, 1.0, BACKLOG_BYTES, False, False, True, True),
        (0.0, 1.0, BACKLOG_BYTES - 1, False, False, True, False),
    ],
)
def test_when_new_frames_are_captured(
    since: float, interval: float, fresh_bytes: int, mark_zero: bool, asked: bool, grew: bool, due: bool
) -> None:
    """At once after quiet, then once an interval, and at once where our read mark may be in somebody's way."""
    pace = Pace(interval, captured=64.0 - since, asked=asked)

    assert due == pace.due(64.0, fresh_bytes=fresh_bytes, mark_zero=mark_zero, grew=grew)


@pytest.mark.parametrize(
    ("interval", "took", "due_in"),
    [(1.0, 0.0, 1.0), (1.0, 0.125, 0.875), (1.0, 0.25, 0.75), (1.0, 7.0, 0.75), (0.0, 1.0, 0.0)],
)
def test_what_a_round_takes_is_taken_off_the_interval(interval: float, took: float, due_in: float) -> None:
    """A commit that comes right after one is captured within the interval; up to a quarter of it."""
    pace = Pace(interval, captured=64.0, took=took)

    assert 64.0 + due_in == pace.due_at
    assert pace.due(64.0 + due_in, fresh_bytes=1, mark_zero=False, grew=True)
    assert interval == 0 or not pace.due(63.99 + due_in, fresh_bytes=1, mark_zero=False, grew=True)
    assert pytest.approx(due_in) == pace.next_look(64.0, pending=True) or due_in > POLL_MAX_SECONDS


# --- overload ------------------------------------------------------------------------------------------

MANY = MUCH_FRAMES
HIGH = 1000  # frames of one byte each: the mark
LOAD = int(CALM_FRAMES_PER_SECOND)  # as much in a second as is no calm


@pytest.mark.parametrize(
    ("looks", "active"),
    [
        # (seconds, frames in the log, fresh ones), and whether restore points are thinned out after each look
        ([(0, 10, 10)], [False]),
        ([(0, 5000, MANY)], [False]),  # the first round catches up
        ([(0, 10, 10), (1, 999, MANY)], [False, False]),  # below the mark
        ([(0, 10, 10), (1, 1000, MANY)], [False, True]),
        ([(0, 10, 10), (1, 1000, MANY - 1)], [False, False]),  # above it, but hardly anything new
        ([(0, 5000, 10), (1, 5000, MANY)], [False, False]),  # a log that is large and does not grow
        # the log is restarted, and much goes on coming: no calm yet
        ([(0, 10, 10), (1, 1000, MANY), (1.1, 5, 5), (2.2, 900, LOAD * 2)], [False, True, True, True]),
        # a second with little is calm, less than a second is not
        ([(0, 10, 10), (1, 1000, MANY), (1.5, 1001, 1)], [False, True, True]),
        ([(0, 10, 10), (1, 1000, MANY), (2, 1001, 1)], [False, True, False]),
        ([(0, 10, 10), (1, 1000, MANY), (3, 900, LOAD)], [False, True, False]),
        ([(0, 10, 10), (1, 1000, MANY), (2, 1001, 1), (3, 1300, MANY)], [False, True, False, True]),
    ],
)
def test_overload_begins_above_the_mark_and_ends_with_calm(
    looks: list[tuple[float, int, int]], active: list[bool]
) -> None:
    """Coalescing is for a log above its mark that still grows by much, and for nothing else."""
    overload = Overload(HIGH)
    found = [
        overload.judge(now, log(frames), frame_bytes=1, fresh_frames=fresh) for now, frames, fresh in looks
    ]

    assert active == found
    assert active[-1] == overload.active


@pytest.mark.parametrize(("above", "active"), [(4120 * 500, True), (4120 * 500 + 1, False)])
def test_the_mark_is_in_bytes(above: int, active: bool) -> None:
    """The size of a frame counts."""
    overload = Overload(above)
    overload.judge(0, log(1), frame_bytes=4120, fresh_frames=1)

    assert active == overload.judge(1, log(500), frame_bytes=4120, fresh_frames=MANY)
