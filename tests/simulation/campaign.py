"""Every durability point: a workload is broken off before and after each of them, and what is left has to do.

The run is written down, operation by operation, and gone through again. At each point the files are laid out as a
crash leaves them: as they are (the process was killed), or with what was not synced lost (a power cut, in several
readings). Then, from the store as it lies there, and again once another agent has caught up, the database is restored,
and compared with what it was after every commit.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from replicator.core.position import Position
from replicator.keys import KeySource
from replicator.restore import Target
from replicator.store.folder import FolderStore
from tests.simulation import judge
from tests.simulation.application import Application, History
from tests.simulation.disk import Disk, Operation, Reading, View
from tests.simulation.judge import Restored
from tests.simulation.kernel import HERE, JUDGE
from tests.simulation.turns import WorldClock, where
from tests.simulation.workload import SETTINGS, Workload, new_world
from tests.simulation.world import STORE, World

# Restore points that are tried at each state of the store, besides the newest.
POINTS_TRIED = 2
RESTART_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Moment:
    """Before or after a point. ``floor``: the newest commit that the store had acknowledged; ``committed``: the newest
    that the application knew of; ``points``: what else was promised."""

    number: int
    label: str
    happened: bool
    stage: str
    floor: int | None
    committed: int
    points: dict[Position, tuple[int, int]]
    wall: int

    def __str__(self) -> str:
        return f"point {self.number}, {'after' if self.happened else 'before'} {self.label} ({self.stage})"


@dataclass(slots=True)
class Recording:
    """``steps``: operations, and the moments between them."""

    sealed: bool
    source: KeySource
    history: History
    steps: list[Operation | Moment]

    @property
    def moments(self) -> int:
        return sum(isinstance(each, Moment) for each in self.steps)

    @property
    def points(self) -> int:
        return self.moments // 2


def record(root: str, *, sealed: bool, seed: int = 1) -> Recording:
    """Run the workload once and write everything down."""
    shutil.rmtree(root, ignore_errors=True)
    world = new_world(root, sealed=sealed, seed=seed)
    found = Recording(sealed, world.source, world.history, [])
    stages = ["the beginning"]

    def on_point(number: int, label: str, happened: bool) -> None:
        shipped = next(iter(world.shipped.values()), None)
        moment = Moment(
            number, label, happened, stages[-1],
            shipped.floor if shipped is not None else None, world.history.newest,
            shipped.points if shipped is not None else {}, world.clock.wall(),
        )  # fmt: skip
        found.steps.append(moment)

    found.steps += [("make_folder", each) for each in ("db", STORE)]
    found.steps.append(("sync_folder", ""))
    with world.entered():
        world.kernel.on_operation = found.steps.append
        for stage in Workload(world).stages():
            stages.append(stage)
            world.kernel.on_point = on_point
        wrong = world.kernel.differences()
        assert not wrong, wrong
    shutil.rmtree(root)
    return found


@dataclass(slots=True)
class Outcome:
    """``tried``: different states that were gone through, by reading. ``second``: those of them of which a power cut
    left something else, once an agent had caught up, and that was gone through, too."""

    tried: Counter[str] = field(default_factory=Counter)
    second: int = 0
    wrong: list[str] = field(default_factory=list)


class Trial:
    """Goes through a recording, in one folder. *share*: which of how many parts of all states is its own; *kills*,
    *cuts*: of the states after a kill and after a power cut one in so many is tried."""

    def __init__(
        self,
        recording: Recording,
        root: str,
        *,
        share: tuple[int, int] = (0, 1),
        kills: int = 1,
        cuts: int = 1,
    ) -> None:
        self._recording = recording
        self._root = root
        self._share = share
        self._kills, self._cuts = kills, cuts
        self._seen: set[int] = set()
        self._restored: dict[int, dict[Position | None, Restored | None]] = {}
        self._count = 0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        disk, changed = Disk(), True
        for step in self._recording.steps:
            if not isinstance(step, Moment):
                disk.apply(step)
                changed = True
                continue
            for reading in Reading if changed else ():
                self._try(step, disk, reading)
            changed = False
        shutil.rmtree(self._root, ignore_errors=True)
        return self.outcome

    def _try(self, moment: Moment, disk: Disk, reading: Reading) -> None:
        view = disk.view(reading)
        key = hash((_fingerprint(view), moment.floor, moment.committed))
        if key in self._seen:
            return
        self._seen.add(key)
        self._count += 1
        number, every = self._count, self._kills if reading is Reading.KILLED else self._cuts
        if number % self._share[1] != self._share[0] or number // self._share[1] % every:
            return
        self.outcome.tried[reading.value] += 1
        case = Case(self._recording, moment, reading, view, self._root, number)
        try:
            lay_out(view, self._root, moment.wall)
            store = {name: each for name, each in view.items() if name.startswith(STORE)}
            known = self._restored.setdefault(hash(_fingerprint(store)), {})
            wrong = [*case.restore_as_it_is(known), *case.catch_up(disk), *case.second_life()]
            self.outcome.second += case.second
        except Exception as exc:
            wrong = [where(exc)]
        self.outcome.wrong += [f"{reading.value}, {moment}: {each}" for each in wrong]


def lay_out(view: View, root: str, wall: int) -> None:
    """As files, last changed at *wall*."""
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    for name, content in sorted(view.items()):
        path = os.path.join(root, name)
        if content is None:
            os.mkdir(path)
        else:
            with open(path, "wb") as file:
                file.write(content)
    for name in (*sorted(view, reverse=True), ""):
        os.utime(os.path.join(root, name), ns=(wall * 1000, wall * 1000))


def _fingerprint(view: View) -> frozenset[tuple[str, int]]:
    """What tells states apart. What `status` reads no agent does; temporary files have names that mean nothing."""
    return frozenset(
        (name, hash(content)) for name, content in view.items()
        if not name.endswith("status.json") and not name.endswith(".tmp")
    )  # fmt: skip


class Case:
    """One state of the files below *root*."""

    def __init__(
        self, recording: Recording, moment: Moment, reading: Reading, view: View, root: str, number: int
    ) -> None:
        self._recording = recording
        self._moment = moment
        self._reading = reading
        self._view = view
        self._root = root
        self._number = number
        self._rng = random.Random(number)
        self.second = 0
        self._left: View | None = None
        self._expected = ""
        self._wall = 0

    # --- as it is --------------------------------------------------------------------------------------

    def restore_as_it_is(self, known: dict[Position | None, Restored | None]) -> list[str]:
        """What is wrong with what comes out of the store. *known*: what came out of one in the same state."""
        floor, committed = self._moment.floor, self._moment.committed
        points = list(self._moment.points.items())
        tried = self._rng.sample(points, min(POINTS_TRIED, len(points)))
        if known:
            tried = [each for each in points if each[0] in known]
        else:
            world = self._world(None)
            with world.entered(), world.kernel.acting(JUDGE):
                known |= {position: self._restore(position) for position in (None, *(at for at, _ in tried))}
        found = known[None]
        if found is None:
            return [] if floor is None else [f"nothing to restore, and commit {floor} was acknowledged"]
        number = self._number_of(found)
        # A commit that was under way may have become one.
        if number is None or not (floor or 0) <= number <= committed + 1:
            return [f"commit {number} was restored, of {floor} to {committed}"]
        return [
            f"{position} is commit {self._number_of(known[position])} and not {wanted}"
            for position, (wanted, _) in tried
            if self._number_of(known[position]) != wanted
        ]

    def _restore(self, position: Position | None) -> Restored | None:
        target = Target(txid=position.txid, generation=position.generation) if position else None
        store = FolderStore(os.path.join(self._root, STORE))
        return judge.restore(store, os.path.join(self._root, "out"), self._recording.source, target)

    def _number_of(self, found: Restored | None) -> int | None:
        return self._recording.history.number_of(found.digest) if found is not None else None

    # --- caught up -------------------------------------------------------------------------------------

    def catch_up(self, disk: Disk) -> list[str]:
        """What is wrong once another agent went on from here."""
        killed = self._reading is Reading.KILLED
        world = self._world(disk.copy() if killed else Disk.of(self._view))
        with world.entered():
            app = world.application()
            wrong = self._require_source(app.look().digest)
            if self._number % 2:
                app.write()  # while nobody follows
            if self._number % 3 == 0:
                app.close(clean=False)  # the agent is the first to open it
                world.start()
                world.run(0.1)
                app = world.application()
            else:
                world.start()
            world.settle(quiet=0.0)
            world.ask(("log", "full", "incremental", "prune")[self._number // 2 % 4])
            app.write()
            world.settle(quiet=0.0)
            wrong += self._require_restored(world, app)
            if killed:
                wrong += self._require_durable(world, app)
            app.close()
        return wrong

    def _require_source(self, digest: str) -> list[str]:
        """The database itself: SQLite's business, and ours as we run its checkpoints."""
        number = self._recording.history.number_of(digest)
        if number is None:
            return ["the database itself is as it never was"]
        if self._reading is Reading.KILLED and number < self._moment.committed:
            return [f"the database itself lost commits: {number} of {self._moment.committed}"]
        return []

    def _require_restored(self, world: World, app: Application) -> list[str]:
        expected = app.look().digest
        with world.kernel.acting(JUDGE):
            found = self._restore(None)
        if found is None or found.digest != expected:
            return [f"after catching up {found} was restored"]
        return []

    def _require_durable(self, world: World, app: Application) -> list[str]:
        """And now the power is cut, too: what the agent that caught up says is there stays there, and the next one goes
        on."""
        expected = app.look().digest
        now, left = (_fingerprint(world.kernel.disk.view(each)) for each in (Reading.KILLED, Reading.STRICT))
        self._left = world.kernel.disk.view(Reading.STRICT) if now != left else None
        if self._left is None:
            return []
        self._expected = expected
        self._wall = world.clock.wall()
        return []

    def second_life(self) -> list[str]:
        """After ``catch_up``: what a power cut leaves of it, in the same way."""
        if self._left is None:
            return []
        self.second = 1
        lay_out(self._left, self._root, self._wall)
        world = World(
            self._root, disk=Disk.of(self._left), clock=WorldClock(wall=self._wall + 1_000_000),
            history=self._recording.history.copy(), source=self._recording.source, seed=self._number + 1,
            **SETTINGS,
        )  # fmt: skip
        with world.entered():
            with world.kernel.acting(JUDGE):
                found = self._restore(None)
            if found is None or found.digest != self._expected:
                return [f"a power cut after catching up loses what was shipped: {found}"]
            app = world.application()
            world.start()
            world.settle(quiet=0.0)
            app.write()
            world.settle(quiet=0.0)
            wrong = self._require_restored(world, app)
            app.close()
        return [f"after a second crash: {each}" for each in wrong]

    def _world(self, disk: Disk | None) -> World:
        clock = WorldClock(wall=self._moment.wall + round(RESTART_SECONDS * 1e6))
        settings: dict[str, Any] = {**SETTINGS}
        return World(
            self._root, disk=disk or Disk.of(self._view), clock=clock, history=self._recording.history.copy(),
            source=self._recording.source, seed=self._number, stores=(f"{HERE}/{STORE}",), **settings,
        )  # fmt: skip
