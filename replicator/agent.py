"""The agent: builds the parts of each database, runs their steps in threads, and stops them in order.

Invariants, checked by the tests after every step:
1. shipped ≤ captured ≤ committed, and none of them goes back within a generation.
2. No checkpoint of ours passes captured; while following we hold a read transaction or the write barrier.
3. An object is put once, its bytes final before the first attempt.
4. Units of a generation are contiguous and chained; a hole in one store ends at a full.
5. Doubt about continuity begins a new generation, with its reason; never a guess.
8. The database, its -wal and -shm are touched in source/ alone, and there through apsw alone.
9. After any crash, restore yields the database as it was after some commit, not older than the last shipped.
(6 and 7 belong to prune and restore.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from replicator.capture import SAFETY_POLL_SECONDS
from replicator.clock import Clock
from replicator.config import AgentConfig, DatabaseConfig, require_distinct
from replicator.control import ControlServer
from replicator.core.errors import ConfigError, Interrupted, UsageError
from replicator.files import allow_descriptors
from replicator.follower import Follower
from replicator.heap import Heap
from replicator.loop import Loop, Task
from replicator.marks import Snapshot
from replicator.pulse import Pulse
from replicator.requests import Requests
from replicator.source.watcher import Watcher
from replicator.spool import Place

log = logging.getLogger(__name__)

# A database at rest has 8 open files, one that is written to and backed up some 14; a few more are the program's.
DESCRIPTORS = 64
DESCRIPTORS_EACH = 16
# A store that does not answer holds one for half a minute; the others shall find another.
WORKERS_MAX = 32
# How long an application whose agent starts before it may wait for stores that do not answer.
ASKED_SECONDS = 3.0
# A call that a store does not answer is left to itself when we stop. Its thread ends with the process, and what it
# brings back is dropped: a name is put once, so the next start finds out whether it was.
ABANDON_SECONDS = 1.0


def _require_work(databases: Sequence[DatabaseConfig]) -> None:
    if not databases:
        raise ConfigError("an agent needs a database to follow", hint="give it one `DatabaseConfig` or more")
    for each in databases:
        if not each.stores:
            raise ConfigError(f"`stores` of {each.path} is empty", hint="name at least one; a folder will do")
    require_distinct(databases)


class Agent:
    """Replicates one or more databases until ``stop``.

    ``start`` returns when every database is followed or waited for, and raises what makes following
    impossible. ``wait`` blocks until the agent ends and raises what ended it. Also a context manager.
    An agent starts once. Raises ConfigError where there is nothing to follow, no store to ship to, or one
    thing stands twice.
    """

    def __init__(self, databases: Sequence[DatabaseConfig] | AgentConfig) -> None:
        found = databases.databases if isinstance(databases, AgentConfig) else tuple(databases)
        _require_work(found)
        self._clock = Clock()
        self._watcher = Watcher()
        self._pulse = Pulse(self._clock.awake)
        self._heap = Heap()
        self._used = False
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._local = Loop("capture", min(4, 1 + len(found)), self._clock, self._fail)
        self._remote = Loop(
            "ship", min(WORKERS_MAX, 2 * sum(len(each.stores) for each in found)), self._clock, self._fail
        )
        self._followers = [
            Follower(
                each,
                self._clock,
                self._watcher,
                self._local,
                self._remote,
                self._pulse,
                self._database_failed,
                self._state_opened,
            )
            for each in found
        ]

        self._requests = Requests(self._followers).handlers
        self._control = ControlServer(self._requests)

    def start(self) -> None:
        """Open state, make ourselves known to the stores, and begin to follow. UsageError the second time."""
        if self._used:
            raise UsageError(
                "an agent starts once, and this one was started or stopped before",
                hint="make another `Agent`",
            )
        self._used = True
        allow_descriptors(DESCRIPTORS + DESCRIPTORS_EACH * len(self._followers))
        try:
            for follower in self._followers:
                follower.open()
        except BaseException:
            for follower in self._followers:
                follower.close()
            raise
        self._local.start()
        self._remote.start()
        for follower in self._followers:
            follower.start()
        self._local.wake(Task("sweep", self._sweep))
        for follower in self._followers:
            while not follower.began.wait(0.05) and self._failure is None:
                pass
        # One that writes to somebody else's store is told so at once, if the stores can be asked.
        deadline = self._clock.now() + ASKED_SECONDS
        while self._failure is None and self._clock.now() < deadline:
            if all(follower.asked for follower in self._followers):
                break
            self._ended.wait(0.005)
        if self._failure is not None:
            self.stop(ship_seconds=0.0)
            raise self._failure

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the agent has ended; False after *timeout*. Raises what ended it."""
        ended = self._ended.wait(timeout)
        if self._failure is not None:
            raise self._failure
        return ended

    def wait_captured_and_shipped(self, timeout: float | None = None) -> None:
        """Block until all that is committed now is in every store, with a full backup under it.

        A database that is not there has committed nothing, and one that is disabled has nothing to wait for.
        """
        self._wait_for(lambda follower, place, _: follower.has_shipped(place), timeout)

    def wait_captured_and_tried(self) -> None:
        """The same, but nobody waits for a store that fails, or does not answer for some seconds: who asks for
        something there is told so. Of the others one that is slow is waited for."""
        self._wait_for(lambda follower, place, waited: follower.has_tried(place, waited), None)

    def _wait_for(self, done: Callable[[Follower, Place, float], bool], timeout: float | None) -> None:
        began = self._clock.now()
        deadline = None if timeout is None else began + timeout
        waiting: dict[Follower, Place | None] = dict.fromkeys(self._followers)
        while waiting:
            waiting = {
                each: place
                for each, place in waiting.items()
                if each.enabled and each.failure is None and each.exists
            }
            for follower in list(waiting):
                place = waiting[follower]
                if place is None and (place := follower.capture_now()) is not None:
                    follower.hurry(place)
                    waiting[follower] = place
                if place is not None and done(follower, place, self._clock.now() - began):
                    del waiting[follower]
            if self._failure is not None:
                raise self._failure
            if deadline is not None and self._clock.now() > deadline:
                raise Interrupted("not everything reached the stores in time", hint="see `status`")
            if waiting:
                self._ended.wait(0.01)
        for follower in self._followers:
            if follower.failure is not None:
                raise follower.failure

    def ask(
        self,
        database: str,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        tell: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """What a command may ask of it (requests.py), such as a `backup` of type `full`, and wait for the outcome.
        Raises SourceGone where *database* is not followed, and the error where every store has one."""
        return self._requests[verb](os.path.realpath(database), arguments, tell)

    def stop(self, *, settle: bool = False, ship_seconds: float = 10.0) -> None:
        """Capture the rest, ship it for at most *ship_seconds*, and let go.

        Nothing is lost where that is too short: it lies in the spool. With *settle* the main file is
        brought up to date, for an application that has ended.
        """
        self._used = True  # one that never ran has ended its loops, too
        log.info("agent.stopping")
        for follower in self._followers:
            with contextlib.suppress(Exception):
                follower.finish(settle=settle)
        deadline = self._clock.now() + ship_seconds
        while self._failure is None and self._clock.now() < deadline:
            if not any(follower.shipping for follower in self._followers):
                break
            self._ended.wait(0.01)
        for follower in self._followers:
            follower.cancel()
        self._local.stop()
        self._remote.stop(ABANDON_SECONDS)
        self._watcher.stop()
        self._control.stop()
        for follower in self._followers:
            follower.close()
        self._ended.set()

    def status(self) -> dict[str, Snapshot]:
        """How far everything is, by database path."""
        return {follower.path: follower.marks.snapshot() for follower in self._followers}

    def __enter__(self) -> Agent:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _sweep(self, _now: float) -> float:
        """One safety poll for all, so that a database at rest has no wake-up of its own."""
        self._pulse.beat()
        for follower in self._followers:
            follower.sweep()
        self._heap.look()
        return SAFETY_POLL_SECONDS

    def _state_opened(self, folder: str) -> None:
        self._control.announce(folder)

    def _database_failed(self, failure: BaseException) -> None:
        """One database that cannot be followed is no reason to leave the others alone."""
        if all(follower.failure is not None for follower in self._followers if follower.enabled):
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
        self._ended.set()
