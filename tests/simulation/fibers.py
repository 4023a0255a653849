"""In turns: steps that may be interrupted, each in a thread of its own of which only one moves at a time.

A step gives others a turn wherever it waits for a store, a pause or a lock, and now and then between two operations on
files. Who goes next is chosen from a seed, so the seed decides everything.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from replicator.loop import Task
from tests.simulation.kernel import AGENT, APPLICATION, Killed
from tests.simulation.turns import FOREVER, Turns, WorldClock

# A stack is small here, and there are some twenty of them at most.
_STACK_BYTES = 512 << 10


class Errand(Task):
    """Something the application does: once."""

    __slots__ = ()


@dataclass(eq=False, slots=True)
class Fiber:
    """A step under way. ``ready`` and ``until``: what it waits for, and how long."""

    task: Task
    actor: str
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ready: Callable[[], bool] = lambda: True
    until: float = FOREVER
    killed: bool = False
    ended: bool = False
    delay: float | None = None
    failure: BaseException | None = None


class InTurns(Turns):
    """*chance*: how likely a step gives others a turn where it could; ``acting`` makes a thread somebody's; ``checked``
    is called whenever a step ended or gave others a turn."""

    def __init__(self, clock: WorldClock, rng: random.Random, *, chance: float = 0.1) -> None:
        super().__init__(clock)
        self.chance = chance
        self.acting: Callable[[str], contextlib.AbstractContextManager[None]] = lambda _: (
            contextlib.nullcontext()
        )
        self.checked: Callable[[], None] = lambda: None
        self.steps = 0
        self._rng = rng
        self._waiting: list[Fiber] = []
        self._mine = threading.local()
        self._back = threading.Semaphore(0)
        self._idle: list[_Worker] = []

    # --- who goes next ---------------------------------------------------------------------------------

    @property
    def next_due(self) -> float:
        now = self.clock.now()
        waiting = (now if each.ready() else each.until for each in self._waiting)
        return min(super().next_due, min(waiting, default=FOREVER))

    def under_way(self, actor: str) -> int:
        return sum(each.actor == actor for each in self._waiting)

    def go(self) -> bool:
        now = self.clock.now()
        tasks = [each for each in self._tasks if each.due is not None and each.due <= now]
        fibers = [each for each in self._waiting if each.until <= now or each.ready()]
        if not tasks and not fibers:
            return False
        self._count(now)
        self.steps += 1
        chosen = self._rng.choice([*tasks, *fibers])
        if isinstance(chosen, Fiber):
            self._resume(chosen)
        else:
            self._begin(chosen)
        self.checked()
        return True

    def spawn(self, name: str, work: Callable[[], object]) -> None:
        """Have the application do something."""

        def step(_now: float) -> None:
            work()

        self._schedule(Errand(name, step), self.clock.now())

    def _begin(self, task: Task) -> None:
        self._tasks.remove(task)
        task.due, task.running = None, True
        fiber = Fiber(task, APPLICATION if isinstance(task, Errand) else AGENT)
        worker = self._idle.pop() if self._idle else _Worker(self)
        self._switch_to(fiber, lambda: worker.begin(fiber))

    def _resume(self, fiber: Fiber) -> None:
        self._waiting.remove(fiber)
        self._switch_to(fiber, fiber.turn.release)

    def _switch_to(self, fiber: Fiber, go: Callable[[], None]) -> None:
        """Until it waits again, or has ended."""
        go()
        self._back.acquire()
        if not fiber.ended:
            return
        if fiber.failure is not None and not fiber.killed:
            raise fiber.failure
        if not fiber.killed:
            self._ended(fiber.task, fiber.delay)

    def run_fiber(self, fiber: Fiber) -> None:
        """In a thread of its own."""
        self._mine.fiber = fiber
        try:
            with self.acting(fiber.actor):
                fiber.delay = fiber.task.step(self.clock.now())
        except BaseException as exc:
            fiber.failure = exc
        fiber.ended = True

    # --- waiting ---------------------------------------------------------------------------------------

    def pause(self, chance: float | None = None) -> None:
        """Others may go first."""
        if getattr(self._mine, "fiber", None) is not None and self._rng.random() < (chance or self.chance):
            self.wait_until(lambda: True)

    def sleep(self, seconds: float) -> None:
        self.wait_until(lambda: False, max(0.0, seconds))

    def wait_until(self, ready: Callable[[], bool], seconds: float = FOREVER) -> bool:
        fiber: Fiber | None = getattr(self._mine, "fiber", None)
        if fiber is None:
            return self._drive_until(ready, seconds)
        if fiber.killed:
            raise Killed
        fiber.ready, fiber.until = ready, self.clock.now() + seconds
        self._waiting.append(fiber)
        self._back.release()
        fiber.turn.acquire()
        if fiber.killed:
            raise Killed
        return ready()

    def _drive_until(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Whoever waits outside of any step lets the others go on."""
        until = self.clock.now() + seconds
        while not ready():
            if self.go():
                continue
            due = min(self.next_due, until)
            assert due < FOREVER, "nobody else moves, so it never comes to be"
            if due >= until:
                self.advance_to(until)
                break
            self.advance_to(due)
        return ready()

    # --- ends ------------------------------------------------------------------------------------------

    def stop(self, timeout: float = 30.0) -> None:
        """Steps of the agent that are under way end by themselves, those that are due do not begin."""
        self._forget_tasks(AGENT)
        self._drive_until(lambda: not self.under_way(AGENT), timeout)
        self._forget_tasks(AGENT)

    def kill(self, *actors: str) -> None:
        """What they were doing ends here, wherever it is."""
        for actor in actors:
            self._forget_tasks(actor)
            while fiber := next((each for each in reversed(self._waiting) if each.actor == actor), None):
                fiber.killed = True
                self._resume(fiber)
                assert fiber.ended, f"{fiber.task.name} outlives its death"

    def _forget_tasks(self, actor: str) -> None:
        gone = [each for each in self._tasks if isinstance(each, Errand) == (actor == APPLICATION)]
        for each in gone:
            each.due = None
            self._tasks.remove(each)

    def close(self) -> None:
        self.kill(AGENT, APPLICATION)
        for each in self._idle:
            each.end()


class _Worker:
    """A thread that runs one fiber after the other."""

    def __init__(self, turns: InTurns) -> None:
        self._turns = turns
        self._wanted = threading.Semaphore(0)
        self._fiber: Fiber | None = None
        before = threading.stack_size(_STACK_BYTES)
        self._thread = threading.Thread(target=self._work, name="fiber", daemon=True)
        self._thread.start()
        threading.stack_size(before)

    def begin(self, fiber: Fiber) -> None:
        self._fiber = fiber
        self._wanted.release()

    def end(self) -> None:
        self._wanted.release()
        self._thread.join()

    def _work(self) -> None:
        while True:
            self._wanted.acquire()
            fiber, self._fiber = self._fiber, None
            if fiber is None:
                return
            self._turns.run_fiber(fiber)
            self._turns._idle.append(self)
            self._turns._back.release()
