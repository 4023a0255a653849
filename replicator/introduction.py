"""Introduction: who we are to the stores and they to us, before anything is captured under a name."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from replicator.clock import Clock
from replicator.core.errors import (
    ConfigError,
    Interrupted,
    KeyRefused,
    OwnershipLost,
    StoreUnavailable,
    UsageError,
)
from replicator.deadline import ask_all
from replicator.enlist import enlist, recover
from replicator.keys import HeldKeys
from replicator.slots import record_in
from replicator.state import Recovered, StateFolder
from replicator.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a first start, or a generation that begins, waits for a store that does not answer, before it goes on
# without. To load an SDK and fetch a token takes a busy machine some seconds.
STORES_SECONDS = 8.0
# A store that answered is given longer for what it is asked next.
RECOVER_SECONDS = 30.0


class Introduction:
    """Of one database to its stores. *stopped*: whether nobody waits for it any more."""

    def __init__(
        self,
        state: StateFolder,
        keys: HeldKeys,
        clock: Clock,
        *,
        take_over: bool,
        stopped: Callable[[], bool],
    ) -> None:
        self._state = state
        self._keys = keys
        self._clock = clock
        self._take_over = take_over
        self._stopped = stopped
        self._enlisting: dict[str, Callable[[], None]] = {}
        self._stores: list[Store] = []
        self._claimed: set[str] = set()
        self._prepared = False

    def enlisting(self, store: Store) -> Callable[[], None]:
        """What makes us known to *store*, from any thread; raises OwnershipLost where it is another's."""
        lock = threading.Lock()

        def enlist_there() -> None:
            with lock:
                # Once: an agent that was taken over from later shall find that out, not take over again.
                take_over = self._take_over and store.url not in self._claimed
                enlist(store, self._state, self._keys, self._clock, take_over=take_over)
                self._claimed.add(store.url)

        self._stores.append(store)
        self._enlisting[store.url] = enlist_there
        return enlist_there

    def prepare(self) -> None:
        """Find out who we are, once the database is there: a mistyped path claims nothing.

        A database that was followed before asks nobody and loses no time, for without a read mark of ours the
        application may restart its log; that a store belongs to others, its ship finds out. Who takes over has to
        claim an epoch before anything is captured.
        """
        known = self._state.repository and self._state.epoch
        if self._prepared or (known and not self._take_over):
            return
        if not self._state.repository:
            found = self._ask([partial(record_in, each) for each in self._stores], STORES_SECONDS)
            # A store that knows this database says who we are, before another one is given a new identity. If one
            # that did not answer turns out to belong to another database, it is refused then.
            told = [record for each in found if _answered(each) and (record := each.result()) is not None]
            self._state.belong_to(told[0].repository if told else secrets.token_hex(16))
        self.confirm()
        if not self._state.epoch:
            self._state.raise_epoch(1)  # no store could be asked
        self._prepared = True

    def confirm(self) -> None:
        """Be known to every store that answers: a generation that begins beside another agent's would hide it. There
        is nothing to lose by waiting then."""
        for each in self._ask([self._enlisting[store.url] for store in self._stores], STORES_SECONDS):
            _answered(each)

    def recover(self) -> Recovered | None:
        """What the first store that knows it says of where we were."""
        wanted = self._state.generation.record.generation if self._state.generation else None
        found = self._ask([partial(recover, each, wanted) for each in self._stores], RECOVER_SECONDS)
        return next((told for each in found if _answered(each) and (told := each.result()) is not None), None)

    def _ask(self, calls: Sequence[Callable[[], T]], seconds: float) -> list[Future[T]]:
        asked = ask_all(calls, seconds, stopped=self._stopped)
        if self._stopped():
            raise Interrupted("stopped while the stores were asked")
        return asked


def _answered(asked: Future[Any]) -> bool:
    """Whether a store did. Its ship meets the same trouble, and tells of it; but that it belongs to others, or cannot
    be used as it is set, is raised."""
    problem = asked.exception() if asked.done() else StoreUnavailable("no answer in time")
    if isinstance(problem, (OwnershipLost, UsageError, ConfigError, KeyRefused, Interrupted)):
        raise problem
    if problem is not None:
        log.warning("store.unusable", extra={"error": str(problem), "error_type": type(problem).__name__})
    return problem is None
