"""Clocks that tests set: time passes as ever, but what the wall says is theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from replicator import agent
from replicator.clock import Clock


class SetClock(Clock):
    """The wall stands still until it is set; what paces the program goes on."""

    def __init__(self, wall: int) -> None:
        self._wall = wall

    def wall(self) -> int:
        return self._wall

    def set_wall(self, micros: int) -> None:
        self._wall = micros

    def advance(self, seconds: float) -> None:
        self._wall += round(seconds * 1_000_000)


@contextlib.contextmanager
def agents_with(clock: Clock) -> Iterator[None]:
    """Agents that are made in here have *clock*; there is no setting for it, since nobody else needs one."""
    usual = agent.Clock
    agent.Clock = lambda: clock  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        agent.Clock = usual  # type: ignore[misc]
