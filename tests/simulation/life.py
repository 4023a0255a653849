"""A life of an agent, from a seed: everything that may happen to it happens, at any moment and beside anything else.

Writers, checkpoints and readers of the application, commits whose sync fails, stores in bad weather, kills, power cuts,
ordinary stops, requests and schedules. After every step the invariants are looked at; now and then, and after every
crash, the database is restored and compared with what it was after each commit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from replicator.core.errors import ReplicatorError, SourceError
from replicator.marks import SourceState
from replicator.store.folder import FolderStore
from tests.simulation import judge
from tests.simulation.application import History
from tests.simulation.campaign import lay_out
from tests.simulation.disk import Disk, Reading
from tests.simulation.errands import Errands
from tests.simulation.fibers import InTurns
from tests.simulation.invariants import Watch
from tests.simulation.judge import Shipped
from tests.simulation.kernel import AGENT, APPLICATION, HERE, JUDGE
from tests.simulation.turns import WorldClock
from tests.simulation.weather import Ledger, Weather, in_weather
from tests.simulation.workload import BEGINS, DAY, HOUR, LOG_HOURS, SETTINGS, key_source
from tests.simulation.world import World

STEPS = 1500
# How likely a durability point is the last thing an agent does.
ENDS_AT_POINTS = 0.002
CUTS = (Reading.STRICT, Reading.NAMES, Reading.CONTENT, Reading.TORN, Reading.ZEROED)
STORES = ("store", "elsewhere")


@dataclass(slots=True)
class Lived:
    """What happened, counted."""

    steps: int = 0
    checks: int = 0
    restored: int = 0
    commits: int = 0
    happened: Counter[str] = field(default_factory=Counter)


class Life:
    """Of one seed, below *root*."""

    def __init__(self, seed: int, root: str, *, steps: int = STEPS) -> None:
        self._root = root
        self._steps = steps
        self._seed = seed
        self._rng = rng = random.Random(f"life/{seed}")
        self._clock = WorldClock(wall=BEGINS + rng.randrange(30) * round(DAY * 1e6))
        self._turns = InTurns(self._clock, rng, chance=rng.choice((0.01, 0.05, 0.2)))
        self._source = key_source(sealed=rng.random() < 0.25)
        # With the lower ones, what is done under overload, and the write barrier, have their turn.
        self._limits = rng.choice(({}, {}, {"coalesce_bytes": 32 << 10, "high_bytes": 48 << 10}))
        self._urls = rng.choice((STORES, STORES[:1], STORES[1:]))
        self._weather = {
            each: Weather(rng, self._turns, ledger=Ledger(self._source.configured)) for each in STORES
        }
        self._history = History()
        self._shipped: dict[str, Shipped] = {}
        self._watch = Watch()
        self._lives = 0
        self._disk_bad = 0.0
        self._cut_at = steps
        self._ends_here: Callable[[], Disk | None] | None = None
        self._errands = Errands(rng, self._turns, self._history, self._happens, seed=seed)
        # How often it is interrupted: a long life sees more of schedules, a short one more of crashes.
        self._harsh = rng.choice((0.1, 0.5, 1.0))
        self.lived = Lived()

    def run(self) -> Lived:
        disk = Disk()
        with in_weather(lambda store: self._weather[os.path.basename(store.url)]):
            try:
                while disk := self._between_power_cuts(disk):  # type: ignore[assignment]
                    lay_out(disk.view(Reading.KILLED), self._root, self._clock.wall())
            finally:
                self._turns.close()
                shutil.rmtree(self._root, ignore_errors=True)
        self.lived.steps, self.lived.checks = self._turns.steps, self._watch.checks
        self.lived.commits = self._history.newest
        return self.lived

    # --- from one power cut to the next ----------------------------------------------------------------

    def _between_power_cuts(self, disk: Disk) -> Disk | None:
        """What the cut left of the disk; None at the end."""
        self._lives += 1
        os.makedirs(self._root, exist_ok=True)
        self._world = world = World(
            self._root, disk=disk, clock=self._clock, history=self._history, source=self._source,
            seed=self._seed * 1000 + self._lives, turns=self._turns,
            stores=tuple(f"{HERE}/{each}" for each in self._urls),
            limits=self._limits, ship_interval=self._rng.choice((0.0, 0.05, 1.0)), **SETTINGS,
        )  # fmt: skip
        world.shipped = self._shipped
        with world.entered():
            self._prepare(world)
            self._watch.lost_sight()
            self._errands.open(world)
            if self._lives == 1:
                self._start()
            try:
                while self._turns.steps < self._steps:
                    if (left := self._one_thing()) is not None:
                        return left
                self._end()
            finally:
                self._turns.checked = lambda: None
                world.kernel.dead = world.kernel.crashed = True
                self._turns.kill(AGENT, APPLICATION)
                world.kernel.dead = world.kernel.crashed = False
                world.kernel.interrupt = world.kernel.sleep = None
        return None

    def _prepare(self, world: World) -> None:
        self._turns.acting = world.kernel.acting
        self._turns.checked = lambda: self._watch.look(world)
        world.kernel.on_point = self._on_point
        world.kernel.interrupt = self._on_io
        world.kernel.sleep = self._turns.sleep

    def _on_point(self, _: int, label: str, happened: bool) -> None:
        if self._rng.random() < ENDS_AT_POINTS * self._harsh:
            # Just here, before or after it.
            self._ends_here = self._rng.choice((self._cut_power, self._restart))
            self._turns.pause(1.0)
        self._turns.pause()
        bad = self._disk_bad and not happened and self._world.kernel.actor == AGENT and "db/" not in label
        if bad and self._rng.random() < self._disk_bad:
            self._happens("the disk fails the agent")
            code = self._rng.choice((errno.ENOSPC, errno.EIO))
            raise OSError(code, os.strerror(code))

    def _on_io(self, what: str, path: str) -> None:
        kernel = self._world.kernel
        if kernel.actor == JUDGE:
            return
        if what != "read" and not path.endswith("-shm"):
            self._watch.allow(f"{what} of {path} while nobody followed")
        if kernel.actor == APPLICATION and what in ("write", "sync") and self._rng.random() < 0.3:
            self._world.watcher.tell()
        self._turns.pause(None if what != "read" else self._turns.chance / 10)
        if kernel.actor == APPLICATION and what == "sync":
            self._errands.synced()

    def _happens(self, what: str) -> None:
        self.lived.happened[what] += 1

    def _count_what_ends(self, source: SourceState) -> None:
        self.lived.happened.update(
            {
                "write barriers": source.barriers,
                "commits merged under overload": source.coalesced,
                "generations": source.generations_begun,
            }
        )

    # --- one thing -------------------------------------------------------------------------------------

    def _one_thing(self) -> Disk | None:
        world, rng = self._world, self._rng
        self._require_well()
        if self._ends_here is not None:
            end, self._ends_here = self._ends_here, None
            return end()
        if self._turns.steps >= self._cut_at:
            return self._cut_power()
        at = rng.random()
        if at < 0.80:
            if not world.go():
                self._time_goes_by()
        elif at < 0.93:
            self._errands.begin_one()
        elif at < 0.97:
            rng.choice((self._change_weather, self._change_disk, self._time_goes_by, self._ask, self._tell))()
        elif at < 0.983:
            self._require_restorable()
        elif at < 0.99:
            if world.follower is None:
                self._start()
        elif rng.random() < self._harsh:
            return rng.choice((self._restart, self._restart, self._cut_power, self._errands.crash))()
        return None

    def _time_goes_by(self) -> None:
        rng = self._rng
        due = self._turns.next_due
        if due < self._clock.now() + 30 and rng.random() < 0.9:
            self._turns.advance_to(due)
        else:
            self._clock.advance(
                rng.choice(
                    (0.01, 0.01, 0.5, 0.5, 3.0, 3.0, 20.0, 400.0, 900.0, rng.choice((1.0, 1.0, HOUR, DAY)))
                )
            )

    def _change_weather(self) -> None:
        weather, rng = self._weather[self._rng.choice(self._urls)], self._rng
        weather.bad = rng.choice((0.0, 0.0, 0.05, 0.3))
        weather.slow = rng.choice((0.0, 0.01, 0.3, 3.0))
        weather.away = rng.random() < 0.15
        self._happens("other weather")

    def _change_disk(self) -> None:
        self._disk_bad = self._rng.choice((0.0, 0.0, 0.02, 0.3))

    def _tell(self) -> None:
        self._world.watcher.tell()

    def _ask(self) -> None:
        kind = self._rng.choice(("full", "incremental", "log", "prune"))
        if self._world.follower is not None:
            with contextlib.suppress(ReplicatorError):
                self._world.follower.ask(kind, {})
                self._happens(f"a request: {kind}")

    # --- the agent comes and goes ----------------------------------------------------------------------

    def _start(self) -> None:
        with self._world.kernel.acting(JUDGE):
            for name in self._urls:
                ledger = self._weather[name].ledger
                ledger.attempts.clear()
                ledger.reconcile(FolderStore(os.path.join(self._world.kernel.root, name)))
        try:
            self._world.start()
            self._happens("a start")
        except ReplicatorError:
            if not self._disk_bad:
                raise
            self._world.abandon()
            self._happens("a start that failed")

    def _restart(self) -> None:
        """Or one of both, so that time goes by without an agent."""
        world = self._world
        if world.follower is None:
            self._start()
            return
        running = world.follower.state.generation
        self._watch.ends(world)
        self._count_what_ends(world.follower.marks.snapshot().source)
        if self._rng.random() < 0.6:
            world.abandon()
            self._happens("a kill")
        else:
            world.stop(settle=self._rng.random() < 0.2)
            self._happens("a stop")
        self._watch.lost_sight()
        if running is None or running.base_checksum is None:
            self._watch.allow("no full was complete, so what came next cannot be told from a gap")
        if self._rng.random() < 0.6:
            self._start()
        if self._rng.random() < 0.2:
            # Soon: what one process left and the next one relies on has to be durable by then.
            self._cut_at = self._turns.steps + self._rng.randrange(1, 60)

    def _cut_power(self) -> Disk:
        """Whoever was doing something does nothing more, and what was not synced is gone."""
        world, kernel = self._world, self._world.kernel
        self._require_model()
        self._cut_at, self._ends_here = self._steps, None
        reading = self._rng.choice(CUTS)
        view = kernel.disk.view(reading)
        elsewhere = {
            name: each for name, each in kernel.disk.view(Reading.KILLED).items() if _is_elsewhere(name)
        }
        view = {name: each for name, each in view.items() if not _is_elsewhere(name)} | elsewhere
        self._happens(f"a power cut, {reading.value}")
        if world.follower is not None:
            self._count_what_ends(world.follower.marks.snapshot().source)
        self._errands.about_to_end()
        kernel.dead = kernel.crashed = True
        self._turns.kill(AGENT, APPLICATION)
        world.abandon()
        kernel.crashed = False
        self._watch.power_cut()
        return Disk.of(view)

    # --- what must be true -----------------------------------------------------------------------------

    def _require_restorable(self) -> None:
        """From every store: not older than what it acknowledged, and exactly some commit; and one more point of those
        that are promised."""
        for name in self._urls:
            self._require_restorable_from(name)

    def _require_restorable_from(self, name: str, *, newest: str | None = None) -> None:
        root = self._world.kernel.root
        store = FolderStore(os.path.join(root, name))
        shipped = next((each for url, each in self._shipped.items() if url.endswith("/" + name)), None)
        if shipped is not None:
            shipped.expire(self._clock.wall() - round(LOG_HOURS * HOUR * 1e6))
        floor = shipped.floor if shipped is not None else None
        with self._world.kernel.acting(JUDGE):
            found = judge.restore(store, os.path.join(root, "out"), self._source)
            self.lived.restored += 1
            if found is None:
                assert floor is None, f"nothing to restore from {name}, and commit {floor} was acknowledged"
                return
            number = self._history.number_of(found.digest)
            assert number is not None, f"{found.position} from {name} is no commit"
            assert (floor or 0) <= number, f"commit {number} came out of {name}, and {floor} was acknowledged"
            assert newest in (None, found.digest), f"commit {number} came out of {name} at the end"
            if shipped is None or not shipped.points:
                return
            position = self._rng.choice(list(shipped.points))
            wanted, _ = shipped.points[position]
            target = judge.Target(txid=position.txid, generation=position.generation)
            other = judge.restore(store, os.path.join(root, "out"), self._source, target)
            self.lived.restored += 1
        assert other is not None, f"{position}, which is promised, cannot be had from {name}"
        digest = self._history.commits[wanted].digest
        assert other.digest == digest, (
            f"{position} from {name} is {self._history.number_of(other.digest)}, not {wanted}"
        )

    def _forgive_a_lock(self) -> bool:
        """A first look at a database that somebody keeps locked for seconds ends an agent, and it is started again."""
        world = self._world
        if not isinstance(world.failure, SourceError) or "is locked" not in str(world.failure):
            return False
        self._happens("a start that met a lock for too long")
        world.failure = None
        world.abandon()
        self._watch.lost_sight()
        return True

    def _require_well(self) -> None:
        self._forgive_a_lock()
        self._world.require_well()
        for each in self._weather.values():
            assert not each.wrong, each.wrong

    def _require_model(self) -> None:
        wrong = self._world.kernel.differences()
        assert not wrong, wrong

    def _end(self) -> None:
        """In good weather everything comes to rest, and every store has everything."""
        world = self._world
        for each in self._weather.values():
            each.bad = each.slow = 0.0
            each.away = False
        self._disk_bad = 0.0
        if world.follower is None:
            self._start()
        self._errands.end()
        if self._forgive_a_lock():
            self._start()
        world.settle(3600)
        for name in self._urls:
            self._require_restorable_from(name, newest=self._errands.app.look().digest)
        world.stop()
        self._errands.app.close()
        self._require_well()
        self._require_model()


def _is_elsewhere(path: str) -> bool:
    """On another machine, whose power is not cut."""
    return path.partition("/")[0] == STORES[1]
