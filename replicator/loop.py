"""Turns steps into threads: a few workers run whatever is due, each task in one thread at a time."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from replicator.clock import Clock

log = logging.getLogger(__name__)

Step = Callable[[float], float | None]
"""Given the monotonic time, does what is due; returns seconds until the next step, or None: when woken."""


@dataclass(slots=True, eq=False)
class Task:
    """A step with a name. ``due`` is a monotonic time, None while it rests."""

    name: str
    step: Step
    due: float | None = None
    running: bool = False
    again: bool = False


class Loop:
    """Workers for some tasks. A task that raises ends the loop through *on_failure*, once."""

    def __init__(
        self, name: str, workers: int, clock: Clock, on_failure: Callable[[BaseException], None]
    ) -> None:
        self._name = name
        self._clock = clock
        self._on_failure = on_failure
        self._condition = threading.Condition()
        self._queue: list[tuple[float, int, Task]] = []
        self._order = itertools.count()
        # Until when each worker sleeps that wakes by itself. One is enough for the next task; the others sleep
        # until they are needed, since each waking costs a tenth of a millisecond.
        self._keepers: dict[int, float] = {}
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self, task: Task) -> None:
        """Run *task* as soon as a worker is free; once more if it is running just now."""
        with self._condition:
            if task.running:
                task.again = True
            elif self._schedule(task, self._clock.now()):
                self._condition.notify()

    def stop(self, timeout: float = 30.0) -> None:
        """Let running steps end, for *timeout* seconds at most, and run no more."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        deadline = self._clock.now() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - self._clock.now()))

    def _schedule(self, task: Task, due: float) -> bool:
        """Whether that changed anything."""
        if task.due is not None and task.due <= due:
            return False
        task.due = due
        heapq.heappush(self._queue, (due, next(self._order), task))
        return True

    def _next(self) -> Task | None:
        """Block until a task is due; None when the loop ends."""
        with self._condition:
            while not self._stopping:
                due = self._next_due()
                if due is None or self._is_kept(due):
                    self._condition.wait()
                    continue
                delay = due - self._clock.now()
                if delay > 0:
                    self._keep_time(due, delay)
                    continue
                task = heapq.heappop(self._queue)[2]
                task.due, task.running = None, True
                following = self._next_due()
                if following is not None and not self._is_kept(following):
                    self._condition.notify()  # we are busy from now on
                return task
            return None

    def _next_due(self) -> float | None:
        while self._queue and (self._queue[0][2].due != self._queue[0][0] or self._queue[0][2].running):
            heapq.heappop(self._queue)  # rescheduled since, or taken already
        return self._queue[0][0] if self._queue else None

    def _is_kept(self, due: float) -> bool:
        """Whether some worker wakes by itself no later than *due*."""
        return any(until <= due for until in self._keepers.values())

    def _keep_time(self, due: float, delay: float) -> None:
        me = threading.get_ident()
        self._keepers[me] = due
        self._condition.wait(delay)
        del self._keepers[me]

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                delay = task.step(self._clock.now())
            except BaseException as exc:
                self._on_failure(exc)
                return
            with self._condition:
                task.running = False
                if task.again:
                    task.again, delay = False, 0.0
                if delay is not None:
                    self._schedule(task, self._clock.now() + delay)
