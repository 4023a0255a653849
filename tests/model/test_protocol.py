"""Every interleaving of small worlds keeps what the agent promises."""

from __future__ import annotations

import pytest

from tests.model.explorer import Explored, explore
from tests.model.protocol import BARRIER_ONLY, POSSIBLE, impossible
from tests.model.situations import LARGER, SITUATIONS, Situation
from tests.model.wal_model import State

# Three times the largest of them as it is today: whoever changes the model so that it grows ought to know.
STATES_MAX = 240_000
STATES_MAX_LARGER = 12_000_000


def holds(situation: Situation, states_max: int) -> Explored[State]:
    explored = explore(situation.protocol(), states_max=states_max)
    assert explored.trace is None, explored.trace
    for name in POSSIBLE:
        if situation.agent.barrier or name != BARRIER_ONLY:
            assert (trace := impossible(explored, name)) is None, trace
    print(
        f"{situation.name}: {len(explored.states)} states, {explored.transitions} steps, {explored.depth} deep"
    )
    return explored


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_nothing_is_lost_in(situation: Situation) -> None:
    """No property is violated in any state, and all that has to stay possible does."""
    holds(situation, STATES_MAX)


@pytest.mark.slow
@pytest.mark.parametrize("situation", LARGER, ids=lambda situation: situation.name)
def test_nothing_is_lost_in_the_larger(situation: Situation) -> None:
    """Likewise with more of everything: minutes, and gigabytes of memory."""
    holds(situation, STATES_MAX_LARGER)


def test_the_log_is_restarted_twice_and_captured_all_the_same() -> None:
    """The worlds are not too small for what they are about."""
    explored = explore(SITUATIONS[0].protocol(), states_max=STATES_MAX)
    restarts = {state.salt for state in explored.states}
    captured = {state.agent.taken for state in explored.states if state.salt == max(restarts)}

    assert {1, 2, 3} == restarts
    assert max(len(state.commits) for state in explored.states) == max(captured)
