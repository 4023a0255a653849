"""The explorer on worlds that fit on a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.model.explorer import TooLarge, explore, without_a_way


@dataclass(frozen=True)
class Jugs:
    """Two jugs of 3 and 5, filled, emptied and poured; *wrong* is the amount that must never be in one."""

    wrong: int
    named: bool = True

    def initial(self) -> tuple[int, int]:
        return 0, 0

    def steps(self, state: tuple[int, int]) -> Iterator[tuple[str, tuple[int, int]]]:
        small, large = state
        yield "fill 3", (3, large)
        yield "fill 5", (small, 5)
        yield "empty 3", (0, large)
        yield "empty 5", (small, 0)
        poured = min(small, 5 - large)
        yield "3 into 5", (small - poured, large + poured)
        poured = min(large, 3 - small)
        yield "5 into 3", (small + poured, large - poured)

    def canonical(self, state: tuple[int, int]) -> tuple[int, int]:
        return state if self.named else (state[0], state[1] % 5)

    def violation(self, state: tuple[int, int]) -> str | None:
        return f"there are {self.wrong}" if self.wrong in state else None

    def describe(self, state: tuple[int, int]) -> str:
        return f"{state[0]} {state[1]}"


def test_all_states_are_found_and_counted_once() -> None:
    """Whatever lies on the edge of what the two can hold."""
    explored = explore(Jugs(wrong=9), states_max=100)

    assert explored.trace is None
    assert {(a, b) for a in range(4) for b in range(6) if a in (0, 3) or b in (0, 5)} == set(explored.states)
    assert 16 == len(explored.states)
    assert 16 * 6 == explored.transitions


def test_a_violation_is_told_by_a_shortest_way() -> None:
    """Four litres take six steps, as everybody knows."""
    trace = explore(Jugs(wrong=4), states_max=100).trace

    assert trace is not None
    assert "there are 4" == trace.violation
    assert ["at first", "fill 5", "5 into 3", "empty 3", "5 into 3", "fill 5", "5 into 3"] == [
        step[:10].strip() for step in trace.steps
    ]
    assert "there are 4, after 6 steps:\n  0  at first" in str(trace)
    assert str(trace).endswith("3 4")


def test_what_is_wrong_at_first_has_no_step() -> None:
    """Nothing is explored then."""
    explored = explore(Jugs(wrong=0), states_max=100)

    assert explored.trace is not None
    assert 1 == len(explored.trace.steps)


def test_states_that_are_the_same_are_explored_once() -> None:
    """A full jug of 5 is as good as an empty one, for instance."""
    assert len(explore(Jugs(wrong=9, named=False), states_max=100).states) < 16


def test_a_bound_that_is_met_proves_nothing() -> None:
    """So it is an error."""
    with pytest.raises(TooLarge, match="more than 15 states"):
        explore(Jugs(wrong=9), states_max=15)


def test_a_state_without_a_way_is_told_of() -> None:
    """With pouring alone, no water comes to where there was none."""
    model = Jugs(wrong=9)
    explored = explore(model, states_max=100)

    def pours(state: tuple[int, int]) -> Iterator[tuple[str, tuple[int, int]]]:
        return (step for step in model.steps(state) if "into" in step[0])

    stuck = {
        explored.states[number]
        for number in without_a_way(explored, lambda state: True, lambda state: state[0] == 3, pours)
    }

    assert {(a, b) for a, b in explored.states if a + b < 3} == stuck


def test_a_way_may_lead_through_states_where_nothing_begins() -> None:
    """It is asked for those where it does."""
    model = Jugs(wrong=9)
    explored = explore(model, states_max=100)

    assert [] == list(
        without_a_way(explored, lambda state: state == (0, 1), lambda state: state == (1, 0), model.steps)
    )
