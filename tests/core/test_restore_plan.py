"""Which objects lead to a restore point, by their names alone."""

import pytest

from replicator.core.catalogue import GenerationListing
from replicator.core.names import CarrierName, FullName, IncrementalName, LogName, SegmentName
from replicator.core.position import GenerationId
from replicator.core.restore_plan import NoPlan, RestorePlan, carriers_from, plan_restore

G = GenerationId("00112233445566ff")
Part = int | tuple[int, int]


def full(txid: int) -> FullName:
    return FullName(txid * 1_000_000, G, txid)


def segment(first: Part) -> SegmentName:
    return SegmentName(G, *first) if isinstance(first, tuple) else SegmentName(G, first)


def listing(fulls: list[int], segments: list[Part]) -> GenerationListing:
    return GenerationListing(G, None, tuple(map(full, fulls)), tuple(map(segment, segments)))


PLANNED: list[tuple[list[int], list[Part], int | None, int, list[Part]]] = [
    # fulls, segments (first txid, or txid and part), wanted txid, the full to take, the segments to apply
    ([0], [], None, 0, []),
    ([0], [], 0, 0, []),
    ([0], [1, 5, 9], None, 0, [1, 5, 9]),
    ([0], [1, 5, 9], 0, 0, []),
    ([0], [1, 5, 9], 1, 0, [1]),
    ([0], [1, 5, 9], 4, 0, [1]),
    ([0], [1, 5, 9], 5, 0, [1, 5]),
    ([0], [1, 5, 9], 8, 0, [1, 5]),
    ([0], [1, 5, 9], 500, 0, [1, 5, 9]),
    # the newest full at or before the target
    ([0, 6], [1, 5, 9], 5, 0, [1, 5]),
    ([0, 6], [1, 5, 9], 6, 6, []),
    ([0, 6], [1, 5, 9], 7, 6, [5]),
    ([0, 6], [1, 5, 9], 9, 6, [5, 9]),
    ([0, 6], [1, 5, 9], None, 6, [5, 9]),
    ([0, 4], [1, 5, 9], None, 4, [5, 9]),
    ([0, 8], [1, 5, 9], 8, 8, []),
    ([0, 8], [1, 5, 9], None, 8, [9]),
    ([0, 20], [1, 5, 9], None, 20, [9]),  # the last one may reach beyond 20: only its units can tell
    ([3, 6, 7], [1, 5, 9], 6, 6, []),
    ([3, 6, 7], [1, 5, 9], 4, 3, [1]),
    # a hole that ends at a full
    ([0, 50], [1, 5, 51], None, 50, [51]),
    ([0, 50], [1, 5, 51, 60], 60, 50, [51, 60]),
    ([0, 50], [1, 5, 51], 7, 0, [1, 5]),
    ([0, 50], [1, 5, 51], 49, 0, [1, 5]),
    # transactions in parts
    ([0], [1, (5, 1), (5, 2), (5, 3), 6], None, 0, [1, (5, 1), (5, 2), (5, 3), 6]),
    ([0], [1, (5, 1), (5, 2), (5, 3), 6], 5, 0, [1, (5, 1), (5, 2), (5, 3)]),
    ([0], [1, (5, 1), (5, 2), (5, 3), 6], 4, 0, [1]),
    ([0, 4], [1, (5, 1), (5, 2), (5, 3), 6], None, 4, [(5, 1), (5, 2), (5, 3), 6]),
    ([0, 5], [1, (5, 1), (5, 2), (5, 3), 6], None, 5, [6]),
    ([0, 5], [1, (5, 1), (5, 3)], None, 5, [(5, 1), (5, 3)]),
    ([0, 4], [1, (5, 4), 6], None, 4, [1, (5, 4), 6]),  # the first parts lie in the segment of txid 1
]


@pytest.mark.parametrize(("fulls", "segments", "txid", "base", "applied"), PLANNED)
def test_a_plan_is_a_full_and_the_segments_behind_it(
    fulls: list[int], segments: list[Part], txid: int | None, base: int, applied: list[Part]
) -> None:
    """The newest full at or before the target, and every segment that may hold what follows up to it."""
    expected = RestorePlan(G, full(base), (), tuple(map(segment, applied)), txid)

    assert expected == plan_restore(listing(fulls, segments), txid)


@pytest.mark.parametrize(
    ("fulls", "txid", "reason", "after"),
    [
        ([], None, f"generation {G} has no complete full backup", None),
        ([], 5, f"generation {G} has no complete full backup", None),
        ([6, 9], 5, f"txid {5:016x} lies before the oldest full backup of generation {G}", 6),
        ([6, 9], 0, f"txid {0:016x} lies before the oldest full backup of generation {G}", 6),
    ],
)
def test_without_a_plan_there_is_a_reason(
    fulls: list[int], txid: int | None, reason: str, after: int | None
) -> None:
    """No full at or before the target: the reason, and the nearest restore point that has a plan."""
    assert NoPlan(reason, None, after) == plan_restore(listing(fulls, [1, 5]), txid)


@pytest.mark.parametrize(
    ("segments", "txid", "expected"),
    [([], 5, []), ([1, 5], 0, [1, 5]), ([1, 5], 3, [1, 5]), ([1, 5], 4, [5]), ([7, 9], 3, [7, 9])],
)
def test_the_segment_that_may_hold_the_next_transaction_comes_first(
    segments: list[Part], txid: int, expected: list[Part]
) -> None:
    """A name says where a segment begins and not where it ends."""
    assert tuple(map(segment, expected)) == carriers_from(tuple(map(segment, segments)), txid)


# --- incrementals and logs -----------------------------------------------------------------------------


def incremental(parent: int, txid: int) -> IncrementalName:
    return IncrementalName(txid * 1_000_000, G, parent, txid)


def log(first: int, last: int) -> LogName:
    return LogName(last * 1_000_000, G, first, last)


MIXED = GenerationListing(
    G,
    None,
    (full(0), full(40)),
    (segment(30), segment(50), segment(60)),
    (incremental(0, 10), incremental(10, 20), incremental(25, 30), incremental(40, 45)),
    (log(1, 10), log(11, 20), log(21, 49)),
)


@pytest.mark.parametrize(
    ("txid", "base", "incrementals", "carriers"),
    [
        (0, 0, [], []),
        (9, 0, [], [log(1, 10)]),
        (10, 0, [(0, 10)], []),
        (15, 0, [(0, 10)], [log(11, 20)]),
        (20, 0, [(0, 10), (10, 20)], []),
        (35, 0, [(0, 10), (10, 20)], [log(21, 49)]),  # the backup at 30 lies on one that is gone
        (40, 40, [], []),
        (44, 40, [], [log(21, 49)]),
        (47, 40, [(40, 45)], [log(21, 49)]),
        (49, 40, [(40, 45)], [log(21, 49)]),
        (50, 40, [(40, 45)], [log(21, 49), segment(50)]),
        (None, 40, [(40, 45)], [log(21, 49), segment(50), segment(60)]),
    ],
)
def test_incrementals_lie_over_a_full_and_logs_carry_what_follows(
    txid: int | None, base: int, incrementals: list[tuple[int, int]], carriers: list[CarrierName]
) -> None:
    """The newest backup whose whole chain is there, and what lies behind it; a segment that a log took over is left."""
    expected = RestorePlan(
        G, full(base), tuple(incremental(*each) for each in incrementals), tuple(carriers), txid
    )

    assert expected == plan_restore(MIXED, txid)
    assert expected.base_txid == (incrementals[-1][1] if incrementals else base)


@pytest.mark.parametrize(
    ("txid", "before", "after"),
    [(12, 10, 20), (21, 20, 30), (29, 20, 30), (31, 30, 40), (41, 40, None)],
)
def test_without_the_log_there_are_the_backups(txid: int, before: int, after: int | None) -> None:
    """X3, S58, S59: the nearest on both sides are told."""
    chains = (incremental(0, 10), incremental(10, 20), incremental(30, 40))
    backups = GenerationListing(G, None, (full(0), full(30)), (), chains)

    found = plan_restore(backups, txid)

    assert isinstance(found, NoPlan)
    assert (before, after) == (found.nearest_before, found.nearest_after)


def test_what_a_log_holds_in_part_is_read_too() -> None:
    """A segment reaches behind the log that took over its beginning; and one with all of them gone is no trouble."""
    listing = GenerationListing(G, None, (full(0),), (segment(8), segment(15)), (), (log(1, 10),))

    assert (log(1, 10), segment(8), segment(15)) == listing.carriers
    assert (log(1, 10),) == GenerationListing(G, None, (full(0),), (), (), (log(1, 10),)).carriers
