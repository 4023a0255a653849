"""Who goes next: steps of all parts in turn, on a clock that moves only when nobody has anything to do.

Here a step runs to its end before anybody else moves; fibers.py has those that are interrupted.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from replicator.loop import Task
from tests.support.memory_store import FakeClock

FOREVER = float("inf")
# More steps without any time going by are a loop that never ends.
STEPS_AT_ONCE_MAX = 20_000


class WorldClock(FakeClock):
    """The machine never sleeps unless it is told to."""

    def awake(self) -> float:
        return self.now()


class Turns:
    """One queue for the tasks of both loops, which go in the order in which they are due."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self._tasks: list[Task] = []
        self._at_once = 0
        self._last = clock.now()

    # --- as loop.Loop ----------------------------------------------------------------------------------

    def start(self) -> None:
        pass

    def wake(self, task: Task) -> None:
        if task.running:
            task.again = True
        else:
            self._schedule(task, self.clock.now())

    def stop(self, timeout: float = 30.0) -> None:
        for task in self._tasks:
            task.due = None
        self._tasks.clear()

    def _schedule(self, task: Task, due: float) -> None:
        if task.due is None or task.due > due:
            task.due = due
            if task in self._tasks:
                self._tasks.remove(task)
            self._tasks.append(task)

    # --- one after the other ---------------------------------------------------------------------------

    @property
    def next_due(self) -> float:
        """When somebody has something to do."""
        return min((each.due for each in self._tasks if each.due is not None), default=FOREVER)

    def go(self) -> bool:
        """Let one step go that is due; False where none is."""
        now = self.clock.now()
        due = sorted((each for each in self._tasks if each.due is not None and each.due <= now), key=_due)
        if not due:
            return False
        self._count(now)
        self._begin(due[0])
        return True

    def advance_to(self, time: float) -> None:
        self.clock.advance(max(0.0, time - self.clock.now()))

    def _count(self, now: float) -> None:
        self._at_once = self._at_once + 1 if now == self._last else 0
        self._last = now
        assert self._at_once < STEPS_AT_ONCE_MAX, "steps without end"

    def _begin(self, task: Task) -> None:
        self._tasks.remove(task)
        task.due, task.running = None, True
        delay = task.step(self.clock.now())
        self._ended(task, delay)

    def _ended(self, task: Task, delay: float | None) -> None:
        task.running = False
        if task.again:
            task.again, delay = False, 0.0
        if delay is not None:
            now = self.clock.now()
            # A clock goes on, if by less than a number can tell.
            self._schedule(task, max(now + delay, math.nextafter(now, FOREVER)) if delay else now)

    def kill(self, *_: str) -> None:
        """Of whoever is killed; nobody is interrupted here, so nothing is under way."""
        self.stop()

    # --- waiting ---------------------------------------------------------------------------------------

    def pause(self, chance: float | None = None) -> None:
        """Others may go first, if they ever do."""

    def sleep(self, seconds: float) -> None:
        self.clock.advance(max(0.0, seconds))

    def wait_until(self, ready: Callable[[], bool], seconds: float = FOREVER) -> bool:
        """Whether it came to be within *seconds*."""
        if not ready() and seconds != FOREVER:
            self.clock.advance(seconds)
        assert ready() or seconds != FOREVER, "nobody else moves, so it never comes to be"
        return ready()


def _due(task: Task) -> float:
    return task.due or 0.0


# --- what the program takes for threads, time and pools --------------------------------------------------


class Lock:
    """Held by a step that waits, it makes others wait; a thread of the system would not know whose turn it is."""

    reentrant = False

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._holder: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = threading.get_ident()
        self._turns.pause()
        if self._count and not (self.reentrant and self._holder == me):
            assert self._holder != me, "a lock is taken twice"
            if not blocking:
                return False
            self._turns.wait_until(lambda: not self._count)
        self._holder = me
        self._count += 1
        return True

    def release(self) -> None:
        assert self._count
        self._count -= 1

    def locked(self) -> bool:
        return bool(self._count)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    reentrant = True


class Semaphore:
    def __init__(self, turns: Turns, count: int) -> None:
        self._turns = turns
        self._count = count

    def __enter__(self) -> None:
        if not self._count:
            self._turns.wait_until(lambda: self._count > 0)
        self._count -= 1

    def __exit__(self, *_: object) -> None:
        self._count += 1


class Event:
    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._turns.wait_until(self.is_set, FOREVER if timeout is None else timeout)


class Pool:
    """Does at once what it is given, in the order it is given."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments, **named))
        except Exception as exc:
            future.set_exception(exc)
        return future

    def map(self, call: Callable[..., Any], *several: Iterable[Any]) -> Iterator[Any]:
        return map(call, *several)

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _ask_all(turns: Turns) -> Callable[..., list[Future[Any]]]:
    def ask_all(calls: Sequence[Callable[[], Any]], seconds: float, *, stopped: Callable[[], bool]) -> Any:
        """One after the other; who takes longer than *seconds* has not answered, whatever it did."""
        asked: list[Future[Any]] = []
        for call in calls:
            began = turns.clock.now()
            answered = Pool().submit(call)
            asked.append(answered if turns.clock.now() - began <= seconds else Future())
        return asked

    return ask_all


@contextlib.contextmanager
def owned_by(turns: Turns) -> Iterator[None]:
    """For as long as this lasts, whatever modules of the program take for threads, time and pools is *turns*'."""
    clock = turns.clock
    threads = SimpleNamespace(
        Lock=lambda: Lock(turns), RLock=lambda: RLock(turns), Event=lambda: Event(turns),
        BoundedSemaphore=lambda count: Semaphore(turns, count), Thread=threading.Thread,
        Condition=threading.Condition, get_ident=threading.get_ident, current_thread=threading.current_thread,
    )  # fmt: skip
    times = SimpleNamespace(
        **{name: getattr(time, name) for name in ("gmtime", "strftime", "process_time", "perf_counter")},
        monotonic=clock.now, time_ns=lambda: clock.wall() * 1000, time=lambda: clock.wall() / 1e6,
        sleep=turns.sleep,
    )  # fmt: skip
    changed: list[tuple[Any, str, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("replicator.") or name == "replicator.clock":
            continue
        for attribute, mine in (
            ("threading", threads), ("time", times), ("ThreadPoolExecutor", Pool), ("ask_all", _ask_all(turns)),
        ):  # fmt: skip
            if attribute in vars(module) and name != "replicator.deadline":
                changed.append((module, attribute, vars(module)[attribute]))
                setattr(module, attribute, mine)
    try:
        yield
    finally:
        for module, attribute, before in changed:
            setattr(module, attribute, before)


def where(exc: BaseException) -> str:
    """The last lines of a traceback, for a message."""
    return "".join(traceback.format_exception(exc)[-6:])
