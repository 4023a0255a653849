"""Jobs of one store: what is to be done there beside shipping, in the order it was asked for."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from replicator.core.errors import ReplicatorError, StoreError

FULL, INCREMENTAL, LOG, PRUNE, REPAIR = "full", "incremental", "log", "prune", "repair"
# What a full is asked for as that shall refer to no pack of an earlier one.
FULL_ANEW = "full-anew"


@dataclass(slots=True, eq=False)
class Job:
    """Something to do once. ``done`` gets the outcome, a JSON object, or the error. Of ``arguments``, only what nobody
    waits for has a ``schedule``: its name, or None where we ask for it ourselves."""

    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    done: Future[dict[str, Any]] = field(default_factory=Future)

    def end(self, outcome: dict[str, Any] | ReplicatorError) -> None:
        """Who says it first counts: at a stop nobody waits for a store that does not answer."""
        with contextlib.suppress(InvalidStateError):
            if isinstance(outcome, ReplicatorError):
                self.done.set_exception(outcome)
            else:
                self.done.set_result(outcome)


class Jobs:
    """From any thread. ``doing`` is the one that was taken out last, until it is over."""

    def __init__(self) -> None:
        self.doing: Job | None = None
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def ask(self, job: Job) -> None:
        """What waits already is not done twice: a store that was away for days has made a schedule's runs wait, and one
        will do."""
        with self._lock:
            same = next((each for each in self._waiting if _is_same(each, job)), None)
            if same is None:
                self._waiting.append(job)
        if same is not None:
            same.done.add_done_callback(partial(_pass_on, job.done))

    def next(self) -> Job | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def abandon(self, error: ReplicatorError) -> None:
        """Nothing is done any more; whoever waits is told so."""
        if (doing := self.doing) is not None:
            doing.end(error)
        while (job := self.next()) is not None:
            job.end(error)

    def turn_away(self, error: ReplicatorError) -> None:
        """The store fails: who asks by hand is told so at once; what a schedule asked for waits until it is back.
        Damage is no such failure: it is answered within a second, and a repair waits for just that."""
        if not isinstance(error, StoreError):
            return
        with self._lock:
            refused = [each for each in self._waiting if "schedule" not in each.arguments]
            self._waiting = deque(each for each in self._waiting if each not in refused)
        for job in refused:
            job.end(error)


def _is_same(one: Job, other: Job) -> bool:
    return (one.kind, one.arguments) == (other.kind, other.arguments)


def _pass_on(to: Future[dict[str, Any]], done: Future[dict[str, Any]]) -> None:
    error = done.exception()
    if error is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())
