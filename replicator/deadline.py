"""Ask several at once, and wait no longer than one is ready to: for stores that may not answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

# How soon a stop is noticed, in seconds.
_LOOK_SECONDS = 0.05


def ask_all(
    calls: Sequence[Callable[[], T]], seconds: float, *, stopped: Callable[[], bool]
) -> list[Future[T]]:
    """A future for each call, ``done()`` if it ended within *seconds* of its own, and before *stopped*.

    What is not done then goes on, unheard, in a thread that keeps no process from ending: a call that waits for
    a server cannot be taken back.
    """
    asked: list[Future[T]] = []
    for call in calls:
        future: Future[T] = Future()
        asked.append(future)
        threading.Thread(target=_answer, args=(future, call), name="ask", daemon=True).start()
    ends = time.monotonic() + seconds
    for future in asked:
        while not future.done() and time.monotonic() < ends and not stopped():
            _wait(future)
    return asked


def _answer(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as exc:
        future.set_exception(exc)


def _wait(future: Future[T]) -> None:
    with contextlib.suppress(TimeoutError):
        future.exception(_LOOK_SECONDS)
