"""Every durability point of a workload, and what each kind of crash leaves before and after it.

The default run tries every state that a kill can leave without encryption, and some of the others; `make faults` all of
them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.simulation.campaign import Trial, record

SHARES = 4
# Of the states after a kill, and of those after a power cut, one in so many is tried in the default run.
RARELY = {"plain": (1, 59), "sealed": (17, 59)}
KINDS = ["plain", "sealed"]


def try_share(scratch: str, kind: str, share: int, rarely: tuple[int, int], tried: Any) -> None:
    recording = record(os.path.join(scratch, "world"), sealed=kind == "sealed")
    trial = Trial(
        recording, os.path.join(scratch, "world"), share=(share, SHARES), kills=rarely[0], cuts=rarely[1]
    )
    outcome = trial.run()
    counts = {f"crashes of a {kind} agent, {reading}": count for reading, count in outcome.tried.items()}
    counts[f"crashes of a {kind} agent, a second one later"] = outcome.second
    if share == 0:
        counts[f"durability points of a {kind} agent"] = recording.points
    tried(counts)

    assert not outcome.wrong, "\n".join([f"{len(outcome.wrong)} wrong", *outcome.wrong[:20]])
    assert outcome.tried.total() > 10


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_at_any_point_loses_nothing_that_was_shipped(
    scratch: str, kind: str, share: int, tried: Any
) -> None:
    """Restored as it lies there, it is some commit, not older than the last one acknowledged; another agent goes on
    from it, and what is restored then is what SQLite sees."""
    try_share(scratch, kind, share, RARELY[kind], tried)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("kind", KINDS)
def test_all_crashes_at_all_points(scratch: str, kind: str, share: int, tried: Any) -> None:
    """The same, nothing left out."""
    try_share(scratch, kind, share, (1, 1), tried)


def test_two_runs_of_the_workload_are_the_same(scratch: str) -> None:
    """Operation by operation: so a point has the same number in each."""
    one, two = (record(os.path.join(scratch, "world"), sealed=True).steps for _ in range(2))

    assert [str(each) for each in one] == [str(each) for each in two]
