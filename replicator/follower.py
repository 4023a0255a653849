"""One database with all its parts, wired: the only place that knows how they hang together."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable

from replicator.backup import ContentDiffers, FullBackup
from replicator.capture import WAITING_POLL_SECONDS, Capture, ContinuityLost, Follow
from replicator.checkpoint import Checkpoint
from replicator.clock import Clock
from replicator.config import DatabaseConfig
from replicator.core.errors import (
    Interrupted,
    ObjectCorrupt,
    OwnershipLost,
    ReplicatorError,
    SourceError,
    SourceGone,
    StoreError,
)
from replicator.core.position import Position
from replicator.enlist import enlist, identity_in, newest_in, recover
from replicator.fence import fence
from replicator.loop import Loop, Task
from replicator.marks import LastError, Marks
from replicator.moment import Moment
from replicator.pulse import Pulse
from replicator.ship import Ship
from replicator.source.connection import check_path
from replicator.source.watcher import Watcher
from replicator.spool import Place, Spool
from replicator.state import Recovered, StateFolder
from replicator.status import StatusFile
from replicator.store import Store, connect, require_apart

log = logging.getLogger(__name__)

BACKUP_RETRY_SECONDS = 5.0


class _Line:
    """What one store of one database needs."""

    def __init__(self, store: Store, ship: Ship, backup: FullBackup) -> None:
        self.store = store
        self.ship = ship
        self.backup = backup
        self.backup_not_before = float("-inf")
        self.ship_task: Task | None = None
        self.backup_task: Task | None = None


class Follower:
    """Parts of one database; ``marks`` tell how far it is."""

    def __init__(
        self,
        config: DatabaseConfig,
        clock: Clock,
        watcher: Watcher,
        local: Loop,
        remote: Loop,
        pulse: Pulse,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._watcher = watcher
        self._local = local
        self._remote = remote
        self._pulse = pulse
        self._fail = fail
        self.path = config.path
        self._stop = threading.Event()
        self.failure: ReplicatorError | None = None
        """What ended the replication of this database for good."""
        self.began = threading.Event()
        """Set once the database is followed, or found to be waited for."""
        self.marks = Marks()
        self.state = StateFolder(config.state_folder)
        self._spool = Spool(self.state.spool_folder)
        self._status = StatusFile(self.state.status_path, config.name, config.path, self.marks, clock)
        self._stores: list[Store] = []
        self._missing = ""
        self._lines: list[_Line] = []
        self._follow: Follow | None = None
        self._checkpoint: Checkpoint | None = None
        self._finished = False
        self._opened = False
        self._enlisting = threading.Lock()

    # --- opening and closing ---------------------------------------------------------------------------

    def open(self) -> None:
        """Make ready; nothing runs yet. Raises OwnershipLost, UsageError, StoreError, and SourceGone where
        there is no database and it is not to be waited for.

        A state folder beside a database that is not there is not made before it is: the folder may be one
        that something is still to be mounted on.
        """
        config = self._config
        self._stores = [connect(url, stop=self._stop, bandwidth=config.bandwidth) for url in config.stores]
        for store in self._stores:
            require_apart(store, self.state.folder)
        try:
            check_path(os.path.realpath(self.path))
        except SourceGone as exc:
            if self._config.state is None:
                if not self._config.wait:
                    raise
                self._missing = str(exc)
                return
        except SourceError:
            pass  # the follow task meets the same, and gives it a moment's grace
        self._open_state()

    def _open_state(self, *, waited: bool = False) -> None:
        self.state.open()
        self._opened = True
        self._spool.open()
        self._lines += map(self._line, self._stores, map(self._config.ship_pause_of, self._config.stores))
        self._follow = Follow(
            self._config.path, self._config.follow, state=self.state, spool=self._spool, marks=self.marks,
            clock=self._clock, prepare=self._prepare, recover=self._recover, on_captured=self._wake_ships,
            on_generation=self._wake_ships, request_passive=self._request_passive, watch=self._watch,
            waited=waited,
        )  # fmt: skip
        self._checkpoint = Checkpoint(self._follow.database, self._wake_follow)

    def start(self) -> None:
        if self._follow is None:
            log.warning("database.waiting", extra={"db": self.path, "reason": self._missing})
            self.marks.source(phase="waiting", reason=self._missing)
            self.began.set()
            await_task = Task(f"await {self.path}", self._await_step)
            self._watcher.arm(os.path.realpath(self.path), lambda: self._local.wake(await_task))
            self._local.wake(await_task)
        else:
            self._start_tasks()

    def _await_step(self, _now: float) -> float | None:
        """Until there is a database: then everything begins."""
        if self._finished or self._opened:
            return None
        if not self.exists:
            return WAITING_POLL_SECONDS
        try:
            self._open_state(waited=True)
        except ReplicatorError as exc:
            self._give_up(exc)
            return None
        self._start_tasks()
        return None

    def _start_tasks(self) -> None:
        assert self._follow is not None
        assert self._checkpoint is not None
        self._follow_task = Task(f"follow {self.path}", self._follow_step)
        self._checkpoint_task = Task(f"checkpoint {self.path}", self._checkpoint.step)
        for line in self._lines:
            line.ship_task = Task(f"ship {line.store.url}", self._ship_step(line))
            line.backup_task = Task(f"backup {line.store.url}", self._backup_step(line))
            self._remote.wake(line.ship_task)
        self._status_task = Task(f"status {self.path}", self._status.step)
        self.marks.changed = lambda: self._local.wake(self._status_task) if self._status.due else None
        self._local.wake(self._status_task)
        self._local.wake(self._follow_task)

    def finish(self, *, settle: bool) -> None:
        """Capture the rest and let go of the database; ships go on until ``close``."""
        self._finished = True
        if self._follow is not None:
            self._follow.finish(settle=settle)
        self.hurry(self._spool.end)

    def cancel(self) -> None:
        """What waits for a store waits no longer."""
        self._stop.set()

    def close(self) -> None:
        if not self._opened:
            return  # the state folder may be another agent's
        if self._follow is not None:
            self._watcher.disarm(self._watched_path)
        with contextlib.suppress(ReplicatorError, OSError):
            self._status.write(stopped=True)
        self._spool.close()
        self.state.close()

    # --- how far ---------------------------------------------------------------------------------------

    def hurry(self, place: Place) -> None:
        for line in self._lines:
            line.ship.hurry(place)
        self._wake_ships()

    @property
    def exists(self) -> bool:
        return os.path.exists(self.path)

    @property
    def shipping(self) -> bool:
        """Whether some store has something still to come."""
        return any(line.ship.has_work for line in self._lines)

    def capture_now(self) -> Place | None:
        """Make all that is committed now durable; returns the place in the spool behind it, None where the
        database is not followed yet."""
        capture = self._follow.capture if self._follow else None
        if capture is None:
            return None
        try:
            capture.capture_now()
        except (ReplicatorError, ContinuityLost):
            return None  # the follow task meets the same, and deals with it
        return self._spool.end

    def has_shipped(self, place: Place) -> bool:
        """Whether every store has what lies before *place*, onto a full backup."""
        return all(line.ship.has_shipped(place) and not line.ship.needs_full for line in self._lines)

    # --- wiring ----------------------------------------------------------------------------------------

    def _line(self, store: Store, pause: float) -> _Line:
        ship = Ship(
            store, self._spool, self.state, self.marks, self._clock,
            interval=pause, spool_bytes_max=self._config.spool_bytes_max,
            enlist=lambda: self._enlist(store),
            newest=lambda generation: newest_in(store, generation),
            need_full=lambda: self._wake_backup(store),
            fence=lambda generation: fence(store, self.state.epoch, but=generation),
            pulse=self._pulse,
        )  # fmt: skip

        def reserve(moment: Moment) -> None:
            ship.reserve(moment.spooled)

        backup = FullBackup(store, self.state, self._clock, reserve=reserve, stopping=self._stop.is_set)
        return _Line(store, ship, backup)

    def _prepare(self) -> None:
        """Make ourselves known to every store, once the database is there: a mistyped path claims nothing.

        A store that is away is asked again by its ship; one that belongs to others is found out now.
        """
        if not self.state.repository:
            self._adopt_identity()
        for line in self._lines:
            try:
                self._enlist(line.store)
            except StoreError as exc:
                log.warning("store.away", extra={"store": line.store.url, "error": str(exc)})
                self.marks.error(LastError(self._clock.wall(), line.store.url, str(exc), exc.hint))
        if not self.state.repository:
            # No store could be asked. If one turns out to belong to another database, it is refused then.
            self.state.repository, self.state.epoch = secrets.token_hex(16), 1
            self.state.save()

    def _adopt_identity(self) -> None:
        """A store that knows this database says who we are, before another one is given a new identity."""
        for line in self._lines:
            with contextlib.suppress(StoreError, ObjectCorrupt):
                found = identity_in(line.store)
                if found is not None:
                    self.state.repository = found
                    self.state.save()
                    return

    def _enlist(self, store: Store) -> None:
        """One at a time: the follow task and the ship of a store both begin with it."""
        with self._enlisting:
            enlist(store, self.state, self._clock, take_over=self._config.take_over)

    def _recover(self) -> Recovered | None:
        wanted = self.state.generation.record.generation if self.state.generation else None
        for line in self._lines:
            try:
                found = recover(line.store, wanted)
            except (StoreError, ObjectCorrupt) as exc:
                log.warning("store.unusable", extra={"store": line.store.url, "error": str(exc)})
                continue
            if found is not None:
                return found
        return None

    def _follow_step(self, now: float) -> float | None:
        assert self._follow is not None
        if self._finished or self.failure is not None:
            return None
        try:
            delay = self._follow.step(now)
        except ReplicatorError as exc:
            self._give_up(exc)
            return None
        if self._follow.settled_in:
            self.began.set()
        return delay

    def _ship_step(self, line: _Line) -> Callable[[float], float | None]:
        def step(now: float) -> float | None:
            try:
                return None if self.failure is not None else line.ship.step(now)
            except Interrupted:
                return None
            except ReplicatorError as exc:
                self._give_up(exc)
                return None

        return step

    def _give_up(self, failure: ReplicatorError) -> None:
        """This database cannot be replicated any more; what becomes of the others, the agent decides."""
        self.failure = failure
        log.error("database.failed", extra={"db": self.path, "error": str(failure), "hint": failure.hint})
        self.marks.error(LastError(self._clock.wall(), self.path, str(failure), failure.hint))
        if self._follow is not None:
            self._follow.finish(settle=False)
        self.marks.source(phase="failed", reason=str(failure))
        self.began.set()
        self._fail(failure)

    def _backup_step(self, line: _Line) -> Callable[[float], float | None]:
        def step(now: float) -> float | None:
            capture: Capture | None = self._follow.capture if self._follow else None
            if capture is None or self._finished or not line.ship.needs_full:
                return None
            if now < line.backup_not_before:
                return line.backup_not_before - now
            try:
                result = line.backup.run(capture)
            except (ContentDiffers, ContinuityLost) as exc:
                assert self._follow is not None
                if self._follow.capture is capture:
                    self._follow.lose(str(exc))
                    self._wake_follow()
                return BACKUP_RETRY_SECONDS
            except Interrupted:
                return None
            except OwnershipLost as exc:
                self._give_up(exc)
                return None
            except ReplicatorError as exc:
                if self._finished:
                    return None  # it was let go of meanwhile
                log.error("full.failed", extra={"store": line.store.url, "error": str(exc), "hint": exc.hint})
                self.marks.error(LastError(self._clock.wall(), line.store.url, str(exc), exc.hint))
                line.backup_not_before = self._clock.now() + BACKUP_RETRY_SECONDS  # however often it is woken
                return BACKUP_RETRY_SECONDS
            position: Position = result.position
            self.marks.store(line.store.url, protected=position, unprotected_since=0)
            line.ship.rejoin(position.generation, position.txid)
            self._wake_ships()
            return None

        return step

    def _watch(self, wanted: bool) -> bool:
        """Events on or off; whether they are on."""
        if wanted:
            return self._watcher.arm(self._watched_path, self._event)
        self._watcher.disarm(self._watched_path)
        return False

    @property
    def _watched_path(self) -> str:
        assert self._follow is not None
        return self._follow.database.path

    def sweep(self) -> None:
        """Events can be lost: wake whatever changed at rest without one."""
        if self._follow is not None and self._follow.changed_at_rest:
            self._event()

    def _event(self) -> None:
        if self._follow is not None:
            self._follow.woken()
            self._wake_follow()

    def _wake_follow(self) -> None:
        self._local.wake(self._follow_task)

    def _wake_ships(self) -> None:
        for line in self._lines:
            if line.ship_task is not None:
                self._remote.wake(line.ship_task)

    def _wake_backup(self, store: Store) -> None:
        for line in self._lines:
            if line.store is store and line.backup_task is not None:
                self._remote.wake(line.backup_task)

    def _request_passive(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.request()
            self._local.wake(self._checkpoint_task)
