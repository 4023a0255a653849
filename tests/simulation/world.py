"""A world of one database: its application, its agent with all parts, and what they stand on."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import apsw

from replicator import follower as follower_module
from replicator import spool as spool_module
from replicator.backup import packs
from replicator.capture import SAFETY_POLL_SECONDS, place, units
from replicator.config import DatabaseConfig, values
from replicator.core import unit_build
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.errors import ReplicatorError
from replicator.follower import Follower
from replicator.keys import KeySource
from replicator.loop import Task
from replicator.pulse import Pulse
from replicator.ship import queue
from replicator.store.sealed import SealedStore
from tests.simulation.application import Application, History
from tests.simulation.disk import Disk
from tests.simulation.judge import Shipped
from tests.simulation.kernel import AGENT, HERE, Kernel
from tests.simulation.turns import FOREVER, Turns, WorldClock, owned_by

STORE = "store"
# Whoever is quiet for longer has nothing to do but to look now and then.
QUIET_SECONDS = 4.0


class Watcher:
    """Tells nothing by itself: a test does, or the agent finds out by looking."""

    def __init__(self) -> None:
        self._wakes: dict[str, Callable[[], None]] = {}

    def arm(self, path: str, wake: Callable[[], None]) -> bool:
        self._wakes[path] = wake
        return True

    def disarm(self, path: str) -> None:
        self._wakes.pop(path, None)

    def forget(self) -> None:
        """Of an agent that is gone."""
        self._wakes.clear()

    def tell(self) -> None:
        for wake in list(self._wakes.values()):
            wake()


@contextlib.contextmanager
def small(**more: int) -> Iterator[None]:
    """A few kibibytes are as much here as mebibytes elsewhere."""
    limits = {
        "soft_bytes": 24 << 10,
        "coalesce_bytes": 1 << 20,
        "high_bytes": 2 << 20,
        "file_bytes": 40 << 10,
    }
    limits |= more
    changes: list[tuple[Any, str, Any]] = [
        (spool_module, "FILE_BYTES", 6 << 10),
        (spool_module, "RECENT_BYTES", 2 << 10),
        (queue, "SEGMENT_BYTES_MAX", 8 << 10),
        (packs, "PACK_BYTES", 16 << 10),
        *((module, "UNIT_BYTES_MAX", 8 << 10) for module in (unit_build, units, place)),
        (values, "CheckpointLimits", functools.partial(CheckpointLimits, **limits)),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class World:
    """Entered as a context; everything in it happens below *root*. *disk*: what of it is durable."""

    def __init__(
        self,
        root: str,
        *,
        disk: Disk | None = None,
        clock: WorldClock | None = None,
        history: History | None = None,
        source: KeySource | None = None,
        seed: int = 0,
        turns: Turns | None = None,
        stores: tuple[str, ...] = (f"{HERE}/{STORE}",),
        limits: Mapping[str, int] | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or WorldClock()
        self.turns = turns or Turns(self.clock)
        self.kernel = Kernel(root, disk or Disk(), self.clock.wall, seed=seed)
        self.history = history or History()
        self.source = source or KeySource({})
        self.shipped: dict[str, Shipped] = {}
        self.watcher = Watcher()
        self.follower: Follower | None = None
        self.failure: BaseException | None = None
        self.database = os.path.join(self.kernel.root, "db", "app.db")
        self._seed = seed
        self._settings = {
            "state": f"{HERE}/state", "ship_interval": 0.05, "encryption": self.source, **settings,
        }  # fmt: skip
        self._stores = stores
        self._limits = limits or {}
        self._began = random.Random(seed)

    @contextlib.contextmanager
    def entered(self) -> Iterator[World]:
        level = logging.getLogger("replicator").level
        logging.getLogger("replicator").setLevel(logging.CRITICAL)
        for name in ("db", STORE):
            if self.kernel.disk.find(name) is None:
                os.makedirs(os.path.join(self.kernel.root, name), exist_ok=True)
                self.kernel.disk.apply(("make_folder", name))
                self.kernel.disk.apply(("sync_folder", ""))
        reporting = _reporting(self)
        with owned_by(self.turns), small(**self._limits), self.kernel.in_use():
            before, follower_module.SealedStore = follower_module.SealedStore, reporting  # type: ignore[misc]
            try:
                yield self
            finally:
                follower_module.SealedStore = before  # type: ignore[misc]
                self.abandon()
                for connection in list(apsw.connections()):
                    connection.close(True)
                logging.getLogger("replicator").setLevel(level)

    def application(self) -> Application:
        return Application(self.database, self.kernel, self.history, seed=self._seed)

    # --- the agent -------------------------------------------------------------------------------------

    def start(self) -> None:
        """As agent.Agent does it, for one database."""
        self.pulse = Pulse(self.clock.awake)
        config = DatabaseConfig(self.database, self._stores, **self._settings)
        self.failure = None
        loop: Any = self.turns
        with self.kernel.acting(AGENT):
            self.follower = Follower(
                config, self.clock, self.watcher, loop, loop, self.pulse, self._failed, lambda _: None  # type: ignore[arg-type]
            )  # fmt: skip
            self.follower.open()
            self.follower.start()
        self.turns.wake(Task("sweep", self._sweep))

    def _failed(self, failure: BaseException) -> None:
        self.failure = failure

    def _sweep(self, _now: float) -> float | None:
        if self.follower is None:
            return None
        self.pulse.beat()
        self.follower.sweep()
        return SAFETY_POLL_SECONDS

    def go(self) -> bool:
        with self.kernel.acting(AGENT):
            return self.turns.go()

    def run(self, seconds: float) -> None:
        """Let so much time go by."""
        until = self.clock.now() + seconds
        while True:
            while self.go():
                pass
            due = self.turns.next_due
            if due > until:
                self.turns.advance_to(until)
                return
            self.turns.advance_to(due)

    def settle(self, seconds: float = 120.0, *, quiet: float = QUIET_SECONDS) -> None:
        """Until all that is committed is in every store, and nobody has anything to do; then so long a time more."""
        until = self.clock.now() + seconds
        self.watcher.tell()
        while not (self.is_settled and self.turns.next_due > self.clock.now()):
            self.require_well()
            assert self.clock.now() < until, "it does not come to rest"
            if not self.go():
                self.turns.advance_to(min(self.turns.next_due, until))
        self.run(quiet)
        self.require_well()

    @property
    def is_settled(self) -> bool:
        follower = self.follower
        if follower is None or not follower.began.is_set():
            return False
        with self.kernel.acting(AGENT):
            place = follower.capture_now()
        return place is not None and follower.has_shipped(place)

    def require_well(self) -> None:
        if self.failure is not None:
            raise AssertionError(f"the agent gave up: {self.failure!r}") from self.failure

    def ask(self, kind: str, **arguments: Any) -> dict[str, Any]:
        """Have something done, and let the agent go on until it is."""
        assert self.follower is not None
        asked = self.follower.ask(kind, arguments)
        until = self.clock.now() + 600
        while not all(each.done() for each in asked.values()):
            self.require_well()
            assert self.clock.now() < until, f"{kind} is never done"
            if not self.go():
                self.turns.advance_to(min(self.turns.next_due, until))
        return {url: each.result() for url, each in asked.items()}

    def stop(self, *, settle: bool = False) -> None:
        """As agent.Agent does it."""
        follower = self.follower
        assert follower is not None
        with self.kernel.acting(AGENT):
            with contextlib.suppress(ReplicatorError):
                follower.finish(settle=settle)
            until = self.clock.now() + 10
            while follower.shipping and self.clock.now() < until and self.failure is None:
                if not self.turns.go():
                    self.turns.advance_to(min(self.turns.next_due, until))
            follower.cancel()
            self.turns.stop()
            follower.close()
        self.turns.kill(AGENT)  # whatever closing has woken
        self.follower = None

    def abandon(self) -> None:
        """What is left of an agent that was killed: its files and locks are let go of, and nothing is written."""
        self.kernel.dead = True
        follower, self.follower = self.follower, None
        self.turns.kill(AGENT)
        if follower is not None:
            with self.kernel.acting(AGENT):
                follower.cancel()
                if follower._follow is not None:
                    follower._follow.database.close()
                follower._spool.close()
                follower.state._lock.release()
        self.watcher.forget()
        self.turns.kill(AGENT)
        self.kernel.dead = False


def _reporting(world: World) -> type[SealedStore]:
    class ReportingStore(SealedStore):
        """Tells of every put that has returned."""

        def put(self, name: str, data: bytes) -> None:
            super().put(name, data)
            world.shipped.setdefault(self.url, Shipped(world.history)).took(name, data)

    return ReportingStore


__all__ = ["FOREVER", "STORE", "Watcher", "World", "small"]
