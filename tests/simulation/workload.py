"""What an agent does in its life, in a few hundred commits: the run that is broken off everywhere.

It is the same each time: names, salts, keys and times come from a seed, and every part goes when it is due.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

from replicator.core.retention_policy import Policy
from replicator.core.schedule import Schedule
from replicator.key_change import KeyHolders, begin_rekey, end_rekey, rotate
from replicator.keys import KEY, KeySource
from replicator.rekey import rekey
from replicator.store.sealed import SealedStore
from tests.simulation.application import Application
from tests.simulation.kernel import AGENT
from tests.simulation.turns import WorldClock
from tests.simulation.world import STORE, World

HOUR = 3600.0
DAY = 24 * HOUR
LOG_HOURS = 2.0
# 2025-01-31 at 01:50: the first full of a month comes soon.
BEGINS = 1_738_288_200_000_000

SETTINGS: dict[str, Any] = {
    "schedules": (
        Schedule("daily", "0 2 * * *", "full"),
        Schedule("often", "30 * * * *", "incremental"),
    ),
    "retention": Policy(log_hours=LOG_HOURS, incremental_days=1, full_days=2, months=0),
    "log_interval": 900.0,
}


def key_source(*, sealed: bool) -> KeySource:
    return KeySource({KEY: hashlib.sha256(b"the operator's").hexdigest()} if sealed else {})


def new_world(root: str, *, sealed: bool, seed: int = 1) -> World:
    os.makedirs(root, exist_ok=True)
    return World(root, clock=WorldClock(wall=BEGINS), source=key_source(sealed=sealed), seed=seed, **SETTINGS)


class Workload:
    """``stages`` goes through it; what is yielded says what comes next."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.app: Application

    def stages(self) -> Iterator[str]:
        world = self.world
        self.app = world.application()
        self.app.create(40)
        yield "the first start"
        world.start()
        world.settle()
        yield from self._commits()
        yield from self._checkpoints()
        yield from self._upkeep()
        yield from self._restarts()
        yield from self._repair()
        if world.source.configured:
            yield from self._keys()
        yield from self._prune()
        yield from self._gap()
        yield "the end"
        world.settle()
        world.stop()
        self.app.close()

    def told(self, seconds: float = 0.3) -> None:
        self.world.watcher.tell()
        self.world.run(seconds)

    # --- following -------------------------------------------------------------------------------------

    def _commits(self) -> Iterator[str]:
        app, world = self.app, self.world
        yield "lone commits"
        for _ in range(4):
            app.write()
            self.told(1.0)
        yield "commits that come together"
        app.write(3)
        self.told()
        yield "commits that keep coming"
        for _ in range(8):
            app.update()
            self.told(0.01)
        world.settle()
        yield "a commit that nobody tells of"
        app.write()
        world.run(6.0)
        yield "a transaction larger than a unit"
        app.write_much(20)
        app.write()
        world.settle()
        yield "a database that changes its shape"
        app.change("ALTER TABLE t ADD COLUMN more")
        app.commit(lambda: app.execute("DELETE FROM t WHERE id > 20"))
        self.told()
        app.change("VACUUM")
        app.write()
        world.settle()

    def _checkpoints(self) -> Iterator[str]:
        app, world = self.app, self.world
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            yield f"a {mode} checkpoint of the application"
            app.write(2)
            app.checkpoint(mode)
            self.told(0.1)
            app.checkpoint(mode)
            app.write()
            self.told(0.1)
        yield "checkpoints of ours, and the log is restarted"
        for _ in range(12):
            app.write(2, size=700)
            self.told(0.4)
        yield "commits that are not synced"
        app.execute("PRAGMA synchronous=NORMAL")
        for _ in range(4):
            app.write()
            self.told()
        app.checkpoint("PASSIVE")
        app.write()
        world.settle()

    # --- upkeep ----------------------------------------------------------------------------------------

    def _upkeep(self) -> Iterator[str]:
        app, world = self.app, self.world
        yield "an incremental, and one when nothing has changed"
        world.ask("incremental")
        world.ask("incremental")
        app.write(2)
        self.told()
        yield "a log"
        world.ask("log")
        app.write()
        self.told()
        yield "a full that is due, and a pruning that has nothing to do"
        world.run(600)
        yield "an incremental that is due, on commits in a log"
        app.write(2, size=600)
        world.run(1900)
        app.execute("PRAGMA synchronous=FULL")

    def _repair(self) -> Iterator[str]:
        app, world = self.app, self.world
        yield "a segment that was damaged, behind which there is a full"
        app.write()
        world.settle()
        tail = world.kernel.disk.folder(f"{STORE}/tail").now
        generation = list(tail)[-1]
        name = f"tail/{generation}/{sorted(world.kernel.disk.folder(f'{STORE}/tail/{generation}').now)[-1]}"
        app.write()
        self.told()
        world.ask("full")
        world.kernel.spoil(f"{STORE}/{name}")
        world.shipped[self.url].spoilt(name)
        yield "its repair"
        assert name in world.ask("repair", names=[name])[self.url]["put_back"]
        app.write()
        world.settle()

    def _prune(self) -> Iterator[str]:
        app, world = self.app, self.world
        for _ in range(3):
            yield "a day goes by, and what is old is deleted"
            world.clock.advance(DAY)
            self.expire()
            app.write(2)
            world.settle()
            world.run(60)
            assert world.ask("prune")
            app.write()
            self.told()

    def expire(self) -> None:
        for each in self.world.shipped.values():
            each.expire(self.world.clock.wall() - round(LOG_HOURS * HOUR * 1e6))

    # --- stopping --------------------------------------------------------------------------------------

    def _restarts(self) -> Iterator[str]:
        app, world = self.app, self.world
        yield "an ordinary stop, and commits while nobody follows"
        app.write()
        world.stop()
        app.write(2)
        world.run(5)
        world.start()
        world.settle()
        yield "a kill with something left to ship"
        app.write()
        world.watcher.tell()
        world.go()
        world.abandon()
        world.run(3)
        app.write()
        world.start()
        world.settle()
        yield "a stop of application and agent"
        app.write()
        world.stop(settle=True)
        app.close()
        self.app = app = world.application()
        world.start()
        world.run(1.0)
        app.write()
        world.settle()

    def _gap(self) -> Iterator[str]:
        app, world = self.app, self.world
        yield "commits that nobody saw, in a log that was restarted: another generation"
        world.stop()
        app.write()
        app.checkpoint("TRUNCATE")
        app.write()
        world.start()
        world.settle()
        app.write(2)
        world.settle()

    # --- keys ------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return next(iter(self.world.shipped))

    @contextlib.contextmanager
    def _holders(self) -> Iterator[tuple[KeyHolders, SealedStore]]:
        """As the command line has them, in a process of its own."""
        world = self.world
        assert world.follower is not None
        store = world.follower._stores[0]
        with world.kernel.acting(AGENT):
            yield KeyHolders([store.plain], world.source, world.follower.state.keys_path), store

    def _keys(self) -> Iterator[str]:
        app, world = self.app, self.world
        yield "another key"
        with self._holders() as (holders, _):
            rotate(holders, world.clock.wall())
        world.run(6.0)
        app.write()
        world.settle()
        yield "everything sealed anew"
        with self._holders() as (holders, _):
            ring = begin_rekey(holders, world.clock.wall())
        world.run(6.0)
        with self._holders() as (holders, store):
            rekey(store, ring.active.key_id, report=lambda _: None, cancelled=lambda: False)
            end_rekey(holders, holders.ring())
        app.write()
        world.settle()
        yield "another key, and the one before it is destroyed in time"
        with self._holders() as (holders, _):
            rotate(holders, world.clock.wall())
        world.run(6.0)
        app.write()
        world.settle()
