"""An exhaustive explorer: every state that any interleaving of steps leads to, breadth first.

States are hashable values, steps are named. What is found first is found by a shortest way, so the trace of a
violation has no step too many. It knows nothing of what it explores.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

Step = tuple[str, S]


class Model(Protocol[S]):
    """``steps`` yields what may happen next, each with its name; ``violation`` says what is wrong with a state,
    or None; of states that differ in nothing that matters, ``canonical`` picks one."""

    def initial(self) -> S: ...
    def steps(self, state: S) -> Iterable[Step[S]]: ...
    def canonical(self, state: S) -> S: ...
    def violation(self, state: S) -> str | None: ...
    def describe(self, state: S) -> str: ...


@dataclass(frozen=True, slots=True)
class Trace:
    """How a state was reached: lines to be read from top to bottom, and what is wrong at the end."""

    violation: str
    steps: Sequence[str]

    def __str__(self) -> str:
        lines = [f"{number:3}  {step}" for number, step in enumerate(self.steps)]
        return "\n".join([f"{self.violation}, after {len(self.steps) - 1} steps:", *lines])


class TooLarge(Exception):
    """There are more states than the bound allows: a bound that is met proves nothing."""


class Explored(Generic[S]):
    """All states, numbered in the order in which they were found."""

    def __init__(self, model: Model[S], states_max: int) -> None:
        self.model = model
        self.states: list[S] = []
        self.trace: Trace | None = None
        self.transitions = 0
        self.depth = 0
        self._states_max = states_max
        self._number: dict[S, int] = {}
        self._found: list[tuple[int, str]] = []
        """By which state, and which step from it, each state was found first."""

    def run(self) -> None:
        """Stops at the first violation, which ``trace`` then tells of. Raises TooLarge."""
        depths = [0]
        states, numbers, canonical_of = self.states, self._number, self.model.canonical
        start = canonical_of(self.model.initial())
        numbers[start] = 0
        self._add(start, -1, "")
        if self._violates(0):
            return
        at = 0
        while at < len(states):
            state = states[at]
            for name, after in self.model.steps(state):
                self.transitions += 1
                canonical = canonical_of(after)
                number = len(states)
                if numbers.setdefault(canonical, number) != number:
                    continue
                self._add(canonical, at, name)
                depths.append(depths[at] + 1)
                self.depth = depths[-1]
                if self._violates(number):
                    return
            at += 1

    def _add(self, state: S, found_from: int, name: str) -> None:
        if len(self.states) >= self._states_max:
            raise TooLarge(f"more than {self._states_max} states")
        self.states.append(state)
        self._found.append((found_from, name))

    def _violates(self, number: int) -> bool:
        violation = self.model.violation(self.states[number])
        if violation is not None:
            self.trace = self.trace_to(number, violation)
        return violation is not None

    def trace_to(self, number: int, violation: str) -> Trace:
        lines: list[str] = []
        while number >= 0:
            found_from, name = self._found[number]
            lines.append(f"{name or 'at first':44} {self.model.describe(self.states[number])}")
            number = found_from
        return Trace(violation, lines[::-1])

    def number_of(self, state: S) -> int:
        return self._number[self.model.canonical(state)]


def explore(model: Model[S], *, states_max: int) -> Explored[S]:
    """Every state of *model*, or those before the first violation. Raises TooLarge."""
    explored = Explored(model, states_max)
    collects = gc.isenabled()
    gc.disable()  # there are no cycles to be found among millions of tuples
    try:
        explored.run()
    finally:
        if collects:
            gc.enable()
    return explored


def without_a_way(
    explored: Explored[S],
    begins: Callable[[S], bool],
    arrived: Callable[[S], bool],
    steps: Callable[[S], Iterable[Step[S]]],
) -> Iterator[int]:
    """Numbers of the states in which something *begins*, and from which *steps* alone never lead to where it
    has *arrived*. Every state that *steps* lead to has to be among those explored."""
    leads: dict[int, bool] = {}

    def search(start: int) -> bool:
        came_from: dict[int, int] = {start: -1}
        waiting = [start]
        for at in waiting:
            state = explored.states[at]
            if arrived(state) or leads.get(at):
                back = at
                while back >= 0:
                    leads[back] = True
                    back = came_from[back]
                return True
            for _, after in steps(state):
                number = explored.number_of(after)
                if number not in came_from and leads.get(number) is not False:
                    came_from[number] = at
                    waiting.append(number)
        leads.update(dict.fromkeys(came_from, False))
        return False

    for number, state in enumerate(explored.states):
        if begins(state) and not leads.get(number) and (leads.get(number) is False or not search(number)):
            yield number
