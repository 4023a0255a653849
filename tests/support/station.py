"""One database and one store with all the parts between them, stepped by hand: no thread waits, no time passes.

What `Follower` and `Line` wire for their loops is wired here for a fake clock. The application is a process of its own.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from replicator.archive import Archive
from replicator.backup import FullBackup, IncrementalBackup
from replicator.capture import Capture, Follow, FollowSettings
from replicator.catalogue import CatalogueFile
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.errors import ReplicatorError
from replicator.core.position import GenerationId, Position
from replicator.core.retention_policy import Policy, policy_with
from replicator.core.schedule import Schedule
from replicator.enlist import base_checksum_of, newest_in, read_manifest
from replicator.fence import fence
from replicator.introduction import Introduction
from replicator.jobs import Job
from replicator.keys import HeldKeys, KeySource
from replicator.marks import Marks
from replicator.prune import Prune
from replicator.pulse import Pulse
from replicator.repository import Manifests, read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.scheduler import Scheduler
from replicator.ship import Ship
from replicator.spool import Spool
from replicator.state import StateFolder
from replicator.store.contract import Kind, Store
from replicator.store.sealed import SealedStore
from replicator.upkeep import Makers, Upkeep
from replicator.verify import Repair
from tests.support.app import App
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore

LOG_SECONDS = 900.0
FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    " INSERT INTO t(body) SELECT hex(randomblob(?)) FROM n"
)


class Station:
    """``inner`` holds the objects as they are stored, ``faulty`` lies before it, ``store`` is what the parts see.

    ``restart`` is a new process; it has to be opened, which is done by whatever is asked of it first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        inner: Kind | None = None,
        clock: FakeClock | None = None,
        key: KeySource | None = None,
        policy: Policy | None = None,
        schedules: Sequence[Schedule] = (),
        verification: bool = True,
        page_size: int = 4096,
    ) -> None:
        self.folder = folder
        self.path = str(folder / "app.db")
        self.app = App(self.path, page_size=page_size)
        self.clock = clock or FakeClock()
        self.inner = inner or MemoryStore(wall=self.clock.wall)
        self.faulty = FaultyStore(self.inner)
        self.source = key or KeySource({})
        self.policy = policy or Policy()
        self.schedules = schedules
        self.verification = verification
        self.others: list[Store] = []
        self._outputs = 0
        self.begin()

    def begin(self) -> None:
        """A new process."""
        clock = self.clock
        self.stop = threading.Event()
        self.marks = Marks()
        self.state = StateFolder(str(self.folder / "state"))
        self.state.open()
        self.keys = HeldKeys(self.source, self.state.keys_path)
        self.keys.open()
        self.store = SealedStore(self.faulty, self.keys)
        self.spool = Spool(self.state.spool_folder)
        self.spool.open()
        introduction = Introduction(self.state, self.keys, clock, take_over=False, stopped=self.stop.is_set)
        enlist = introduction.enlisting(self.store)
        self.follow = Follow(
            self.path, FollowSettings(0.0, CheckpointLimits()), state=self.state, spool=self.spool,
            marks=self.marks, clock=clock, prepare=introduction.prepare, confirm=introduction.confirm,
            recover=introduction.recover, on_captured=lambda: None, on_generation=lambda: None,
            request_passive=lambda: None, watch=lambda _: True, waited=False,
        )  # fmt: skip
        self.ship = Ship(
            self.store, self.spool, self.state, self.marks, clock, interval=0.0, spool_bytes_max=1 << 30,
            enlist=enlist, newest=lambda generation: newest_in(self.store, generation),
            base_of=lambda name: base_checksum_of(read_manifest(self.store, name)), need_full=lambda: None,
            fence=lambda generation: fence(self.store, self.state.epoch, but=generation), pulse=Pulse(lambda: 0.0),
        )  # fmt: skip
        self.makers = self._makers(enlist)
        self.upkeep = Upkeep(
            self.store, self.ship, self.makers, state=self.state, marks=self.marks, clock=clock, confirm=enlist,
            log_seconds=LOG_SECONDS, policy=self._policy,
        )  # fmt: skip
        self.scheduler = Scheduler(self.state.schedules_path, self.schedules, clock, self._ask)
        self.scheduler.open()

    def _makers(self, enlist: Callable[[], None]) -> Makers:
        store, state, clock, stop = self.store, self.state, self.clock, self.stop
        manifests = Manifests()
        return Makers(
            FullBackup(
                store, state, clock, reserve=lambda moment: self.ship.reserve(moment.spooled), confirm=enlist,
                trouble=self._trouble, dedup=self.keys.dedup, verification=self.verification, stop=stop,
            ),
            IncrementalBackup(
                store, state, clock, confirm=enlist, trouble=self._trouble, verification=self.verification,
                stop=stop,
            ),
            Archive(store, stop.is_set),
            Prune(
                store, clock, manifests, policy=self._policy, running=self.state.running, stopped=stop.is_set
            ),
            Repair(
                store, lambda: self.others, state=self.state, spool=self.spool, slot=self.keys.slot,
                shipped=lambda: self.marks.snapshot().stores[store.url].shipped, wall=clock.wall,
            ),
            CatalogueFile(store, manifests),
        )  # fmt: skip

    def _policy(self) -> Policy:
        return policy_with(self.policy, self.scheduler.schedules)

    def _trouble(self, exc: ReplicatorError | None) -> None:
        self.troubles = exc

    def _ask(
        self, kind: str, arguments: dict[str, Any], only: object = None
    ) -> Mapping[str, Future[dict[str, Any]]]:
        job = Job(kind, arguments)
        self.upkeep.jobs.ask(job)
        return {self.store.url: job.done}

    # --- what goes on ----------------------------------------------------------------------------------

    @property
    def capture(self) -> Capture:
        """The capturing, begun if it was not, with everything committed captured."""
        while self.follow.capture is None:
            self.follow.step(self.clock.now())
        self.follow.capture.capture_now()
        return self.follow.capture

    @property
    def generation(self) -> GenerationId:
        assert self.state.generation is not None
        return self.state.generation.record.generation

    @property
    def position(self) -> Position:
        """Of the last captured commit."""
        with self.capture.hold_still() as moment:
            return Position(moment.lineage.generation, moment.tip.txid)

    def ship_all(self) -> None:
        """Everything committed is captured and shipped."""
        _ = self.capture
        self.follow.step(self.clock.now())
        while True:
            delay = self.ship.step(self.clock.now())
            if delay is None:
                return
            self.clock.advance(delay)

    def keep_up(self) -> None:
        """Whatever is due now is done, and nothing waits any more."""
        self.ship_all()
        self.scheduler.step(self.clock.now())
        while self.upkeep.step(self.capture, self.clock.now()) == 0.0:
            self.ship_all()

    def do(self, kind: str, **arguments: Any) -> dict[str, Any]:
        """Ask for it, and do all that comes before it; raises the error that it ends with."""
        self.ship_all()
        job = Job(kind, arguments)
        self.upkeep.jobs.ask(job)
        while not job.done.done():
            self.upkeep.step(self.capture, self.clock.now())
            self.ship_all()
        return job.done.result()

    def fill(self, rows: int, size: int = 1_000) -> None:
        self.app.execute(FILL, rows, size)

    def end(self, *, kill: bool = False) -> None:
        """The agent ends; the application goes on."""
        self.stop.set()
        if kill:
            self.follow.database.close()
        else:
            self.follow.finish(settle=False)
            self.ship.close()
        self.spool.close()
        self.state.close()

    def restart(self, *, kill: bool = False) -> None:
        self.end(kill=kill)
        self.begin()

    def close(self) -> None:
        self.end()
        self.app.kill()

    # --- what came of it -------------------------------------------------------------------------------

    def restored(
        self, store: Store | None = None, *, verify: str = "none", **target: Any
    ) -> tuple[Position, str]:
        """The restore point that was chosen, and SHA-256 of the database restored."""
        self._outputs += 1
        output = self.folder / f"restored-{self._outputs}.db"
        repository = read_repository(store or SealedStore(self.inner, self.keys))
        result = restore_chosen(
            repository, choose(repository, Target(**target)), str(output), RestoreOptions(verify=verify)
        )
        digest = hashlib.sha256(output.read_bytes()).hexdigest()
        output.unlink()
        return result.position, digest


def default_schedules() -> tuple[Schedule, ...]:
    """The two of the specification."""
    return (
        Schedule("Daily full", "0 2 * * *", "full", 30),
        Schedule("Incremental", "0 6-22/4 * * *", "incremental", 7),
    )
