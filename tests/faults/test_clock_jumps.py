"""The clock of the machine jumps by an hour and by a year, forth and back, while the agent follows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from replicator.agent import Agent
from replicator.core.errors import ClockWrong
from replicator.core.position import Position
from tests.parts.rig import SECONDS, Rig
from tests.support.app import App
from tests.support.clocks import SetClock, agents_with
from tests.support.scene import digest_of

HOUR, YEAR = 3600.0, 365 * 86_400.0
JUMPS = (0.0, HOUR, -HOUR, YEAR, -YEAR, -HOUR, -YEAR, YEAR, HOUR)


def test_a_clock_that_jumps_loses_no_commit(tmp_path: Path) -> None:
    """Commits, fulls, incrementals and logs at every hour of it: each commit is restored by its txid, the newest is
    the newest, and nothing is pruned while the clock is not that of the store, or of the newest backup."""
    rig, clock = Rig(tmp_path), SetClock(time.time_ns() // 1000)
    known: list[tuple[Position, str]] = []
    pruned = 0
    with App(rig.database) as app, agents_with(clock), rig.agent() as agent:
        for number, jump in enumerate(JUMPS):
            clock.advance(jump)
            app.insert(1)
            agent.wait_captured_and_shipped(SECONDS)
            known.append((shipped(agent), app.digest()))
            for kind in ("incremental", "log", "full")[number % 3 :]:
                agent.ask(rig.database, "backup", {"type": kind})
            pruned += prune(agent, rig.database)
            app.insert(1)
    for position, digest in known:
        assert digest == digest_of(rig.restore(txid=position.txid, generation=position.generation).path)

    assert (
        1 == pruned
    )  # before the first jump: afterwards it is another time than the store's, or some backup is from later
    assert 1 == len(rig.generations())
    rig.assert_equal()


def test_an_agent_that_starts_in_another_year_goes_on(tmp_path: Path) -> None:
    """Jumps while nobody follows: the battery of the machine's clock is empty, and the network comes late."""
    rig, clock = Rig(tmp_path), SetClock(time.time_ns() // 1000)
    with App(rig.database) as app, agents_with(clock):
        for jump in (0.0, -20 * YEAR, 20 * YEAR, YEAR, -YEAR):
            clock.advance(jump)
            app.insert(1)
            rig.once()
            app.insert(1)
        rig.once()
    newest = rig.restore()

    assert 1 == len(rig.generations())
    assert 9 <= newest.position.txid
    assert newest.position == rig.restore(timestamp=clock.wall() + round(YEAR * 2e6)).position
    rig.assert_equal()


def shipped(agent: Agent) -> Position:
    (snapshot,) = agent.status().values()
    (store,) = snapshot.stores.values()
    assert store.shipped is not None
    return store.shipped


def prune(agent: Agent, database: str) -> bool:
    """Whether it was allowed."""
    try:
        agent.ask(database, "prune", {})
    except ClockWrong:
        return False
    return True


@pytest.mark.parametrize("jump", [HOUR, YEAR])
def test_what_was_made_in_the_future_is_no_reason_to_delete(tmp_path: Path, jump: float) -> None:
    """A backup by a clock that ran ahead: when it is right again, nothing counts as old because of that one."""
    rig, clock = Rig(tmp_path), SetClock(time.time_ns() // 1000)
    with App(rig.database) as app, agents_with(clock), rig.agent() as agent:
        app.insert(1)
        agent.wait_captured_and_shipped(SECONDS)
        clock.advance(jump)
        app.insert(1)
        agent.wait_captured_and_shipped(SECONDS)
        agent.ask(rig.database, "backup", {"type": "full"})
        clock.advance(-jump)
        before = sorted(path.name for path in Path(rig.store).rglob("*") if path.is_file())
        with pytest.raises(ClockWrong):
            agent.ask(rig.database, "prune", {})
        after = sorted(path.name for path in Path(rig.store).rglob("*") if path.is_file())

    assert set(before) <= set(after)
