"""May we go on from where we were? Every verdict of both questions, row by row."""

import pytest

from replicator.core.cursor import (
    EMPTY,
    Continue,
    Elsewhere,
    Lost,
    Observation,
    Restarted,
    Verdict,
    WalCursor,
    judge,
    recognise,
)
from replicator.core.wal import FrameHeader, Salt, WalChecksum, WalHeader

SALT = Salt(100, 200)
NEXT = Salt(101, 999)  # what a reset makes of it: salt 1 counts, salt 2 is drawn
SUM = WalChecksum(7, 8)
OTHER_SUM = WalChecksum(7, 9)


def log(frames: int, backfilled: int = 0, salt: Salt = SALT) -> Observation:
    return Observation(WalHeader(4096, 0, salt, WalChecksum(1, 2)), frames, backfilled)


def empty_file(frames: int = 0) -> Observation:
    return Observation(None, frames, frames)


def at(frames: int, salt: Salt = SALT) -> WalCursor:
    return WalCursor(salt, frames, SUM)


EMPTIED = Lost("the log was emptied under our read transaction")
RESTARTED = Lost("the log was restarted under our read transaction")
SHORTER = Lost("the log is shorter than what was captured from it")

JUDGED: list[tuple[WalCursor, Observation, bool, Verdict]] = [
    # cursor, what is seen, whether a reset is allowed, verdict
    # nothing taken yet
    (EMPTY, empty_file(), False, Continue(0)),
    (EMPTY, empty_file(), True, Continue(0)),
    (EMPTY, log(0), False, Continue(0)),  # between a reset and the next commit the old header stands there
    (EMPTY, log(0), True, Continue(0)),
    (EMPTY, log(1), False, Continue(1)),
    (EMPTY, log(1), True, Continue(1)),
    (EMPTY, log(17, 17), False, Continue(17)),
    (EMPTY, log(17, salt=NEXT), True, Continue(17)),
    # the same log goes on
    (at(5), log(5), False, Continue(0)),
    (at(5), log(5), True, Continue(0)),
    (at(5), log(5, 5), False, Continue(0)),
    (at(5), log(5, 5), True, Continue(0)),
    (at(5), log(6), False, Continue(1)),
    (at(5), log(6), True, Continue(1)),
    (at(5), log(500, 3), False, Continue(495)),
    # emptied: the file is gone, or no frame is trusted any more
    (at(5), empty_file(), False, EMPTIED),
    (at(5), empty_file(), True, Restarted()),
    (at(5), empty_file(3), False, EMPTIED),
    (at(5), empty_file(3), True, Restarted()),
    (at(5), log(0), False, EMPTIED),
    (at(5), log(0), True, Restarted()),
    (at(5), log(0, salt=NEXT), False, EMPTIED),
    (at(5), log(0, salt=NEXT), True, Restarted()),
    # restarted: other salts, however many frames
    (at(5), log(1, salt=NEXT), False, RESTARTED),
    (at(5), log(1, salt=NEXT), True, Restarted()),
    (at(5), log(5, salt=NEXT), False, RESTARTED),
    (at(5), log(5, salt=NEXT), True, Restarted()),
    (at(5), log(9, salt=NEXT), False, RESTARTED),
    (at(5), log(9, salt=NEXT), True, Restarted()),
    (at(5), log(5, salt=Salt(SALT.salt1, 201)), False, RESTARTED),
    (at(5), log(5, salt=Salt(101, SALT.salt2)), False, RESTARTED),
    # shorter under the same salts: nobody writes such a thing, whatever we hold
    (at(5), log(4), False, SHORTER),
    (at(5), log(4), True, SHORTER),
    (at(5), log(1, 1), True, SHORTER),
]


@pytest.mark.parametrize(("cursor", "seen", "reset_allowed", "verdict"), JUDGED)
def test_a_look_at_the_log_is_judged(
    cursor: WalCursor, seen: Observation, reset_allowed: bool, verdict: Verdict
) -> None:
    """The log goes on, began anew where that was allowed, or continuity is lost: never a guess."""
    assert verdict == judge(cursor, seen, reset_allowed=reset_allowed)


def frame(checksum: WalChecksum = SUM, salt: Salt = SALT) -> FrameHeader:
    return FrameHeader(3, 9, salt, checksum)


GONE = Elsewhere("the log is gone")
ANEW = Elsewhere("the log was restarted")
OLDER = Lost("the log is shorter than what was captured from it: the database is older than the replica")
FOREIGN = Lost("the log holds other frames than were captured from it")

RECOGNISED: list[tuple[WalCursor, Observation, FrameHeader | None, Continue | Lost | Elsewhere]] = [
    # saved cursor, what is seen, the frame at the cursor's end, verdict
    (at(5), log(5), frame(), Continue(0)),
    (at(5), log(5, 5), frame(), Continue(0)),
    (at(5), log(8), frame(), Continue(3)),
    (at(5), log(8, 8), frame(), Continue(3)),
    # no log, or no place in one: only the content can tell
    (EMPTY, empty_file(), None, GONE),
    (EMPTY, log(5), frame(), GONE),
    (EMPTY, log(0), None, GONE),
    (at(5), empty_file(), None, GONE),
    (at(5), empty_file(7), None, GONE),
    (at(5), log(0), None, GONE),
    (at(5), log(0, salt=NEXT), None, GONE),
    (at(5), log(3, salt=NEXT), None, ANEW),
    (at(5), log(5, salt=NEXT), frame(salt=NEXT), ANEW),
    (at(5), log(9, salt=NEXT), frame(salt=NEXT), ANEW),
    (at(5), log(9, salt=Salt(100, 201)), frame(), ANEW),
    # the same log, but not our frames: the database was put back
    (at(5), log(4), None, OLDER),
    (at(5), log(4), frame(), OLDER),
    (at(5), log(5), None, OLDER),
    (at(5), log(5), frame(OTHER_SUM), FOREIGN),
    (at(5), log(9), frame(OTHER_SUM), FOREIGN),
    (at(5), log(9), frame(WalChecksum(6, 8)), FOREIGN),
    (at(5), log(9), frame(salt=NEXT), FOREIGN),
]


@pytest.mark.parametrize(("cursor", "seen", "found", "verdict"), RECOGNISED)
def test_a_saved_place_is_recognised(
    cursor: WalCursor, seen: Observation, found: FrameHeader | None, verdict: Continue | Lost | Elsewhere
) -> None:
    """Salt, frame count and running checksum decide; a log that is gone or new leaves it to the content."""
    assert verdict == recognise(cursor, seen, found)


@pytest.mark.parametrize(
    ("frames", "backfilled", "fully"), [(0, 0, True), (5, 4, False), (5, 5, True), (4, 5, True)]
)
def test_fully_backfilled_means_every_frame(frames: int, backfilled: int, fully: bool) -> None:
    """A log is fully backfilled when the main file has every frame of it, so an empty one is."""
    assert fully == log(frames, backfilled).fully_backfilled
