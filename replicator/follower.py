"""One database with all its parts, wired: the only place that knows how they hang together."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from replicator.capture import WAITING_POLL_SECONDS, Capture, ContinuityLost, Follow
from replicator.checkpoint import Checkpoint
from replicator.clock import Clock
from replicator.config import DISABLED, DatabaseConfig
from replicator.core.errors import (
    Interrupted,
    ReplicatorError,
    SourceError,
    SourceGone,
)
from replicator.introduction import Introduction
from replicator.jobs import PRUNE, Job
from replicator.key_change import KeyHolders
from replicator.keys import HeldKeys
from replicator.line import Line, Ours
from replicator.loop import Loop, Task
from replicator.marks import LastError, Marks
from replicator.pulse import Pulse
from replicator.scheduler import Scheduler
from replicator.source.connection import check_path
from replicator.source.watcher import Watcher
from replicator.spool import Place, Spool
from replicator.state import StateFolder
from replicator.status import StatusFile
from replicator.store import connect, open_store, require_apart
from replicator.store.sealed import SealedStore
from replicator.unused_keys import destroy_unused

log = logging.getLogger(__name__)


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
        opened: Callable[[str], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._watcher = watcher
        self._local = local
        self._remote = remote
        self._pulse = pulse
        self._fail = fail
        self._on_opened = opened
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
        self._stores: list[SealedStore] = []
        self._missing = ""
        self._lines: list[Line] = []
        self._follow: Follow | None = None
        self._checkpoint: Checkpoint | None = None
        self._finished = False
        self._opened = False
        self._scheduling = False
        self._told_of_key: tuple[int, int] | None = None
        self.scheduler = Scheduler(self.state.schedules_path, config.schedules, clock, self.ask)
        self._keys = HeldKeys(config.encryption, self.state.keys_path)
        self._unused_task = Task(f"unused keys {self.path}", self._unused_step)
        self._introduction = Introduction(
            self.state, self._keys, clock, take_over=config.take_over, stopped=lambda: self._finished
        )

    # --- opening and closing ---------------------------------------------------------------------------

    def open(self) -> None:
        """Make ready; nothing runs yet. Raises OwnershipLost, UsageError, StoreError, and SourceGone where
        there is no database and it is not to be waited for.

        A state folder beside a database that is not there is not made before it is: the folder may be one
        that something is still to be mounted on.
        """
        config = self._config
        if not config.enabled:
            self._open_disabled()
            return
        self._keys.require()
        for url in config.stores:
            connected = connect(url, stop=self._stop, bandwidth=config.bandwidth)
            self._stores.append(SealedStore(connected, self._keys))
            self.marks.store(connected.url, in_clear=connected.in_clear)
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

    def _open_disabled(self) -> None:
        """Only to say so, and what is scheduled: nothing is followed, and no store is asked."""
        self.marks.source(phase="disabled", reason=DISABLED)
        for url in self._config.stores:
            self.marks.store(open_store(url).url)
        if not self.exists and self._config.state is None:
            return
        self.state.open()
        self._opened = True
        self._on_opened(self.state.folder)
        self.scheduler.load()
        with contextlib.suppress(OSError):
            self._status.write()

    def _open_state(self, *, waited: bool = False) -> None:
        self.state.open()
        self._opened = True
        self._on_opened(self.state.folder)
        self._keys.open()
        self._spool.open()
        self.scheduler.open()
        self._lines += map(self._line, self._stores, map(self._config.ship_pause_of, self._config.stores))
        self._follow = Follow(
            self._config.path, self._config.follow, state=self.state, spool=self._spool, marks=self.marks,
            clock=self._clock, prepare=self._introduction.prepare,
            confirm=self._introduction.confirm, recover=self._introduction.recover,
            on_captured=self._wake_ships, on_generation=self._wake_ships,
            request_passive=self._request_passive, watch=self._watch, waited=waited,
        )  # fmt: skip
        self._checkpoint = Checkpoint(self._follow.database, self._wake_follow)

    def start(self) -> None:
        if not self._config.enabled:
            log.warning("database.disabled", extra={"db": self.path})
            self.began.set()
        elif self._follow is None:
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
        self._status_task = Task(f"status {self.path}", self._status.step)
        self._schedule_task = Task(f"schedules {self.path}", self._schedule_step)
        self.scheduler.changed = lambda: self._local.wake(self._schedule_task)
        self.marks.changed = lambda: self._local.wake(self._status_task) if self._status.due else None
        self._local.wake(self._status_task)
        self._local.wake(self._follow_task)
        self._wake_ships()

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
        for line in self._lines:
            line.close()
        with contextlib.suppress(ReplicatorError, OSError):
            self._status.write(stopped=True)
        self._spool.close()
        self.state.close()

    # --- how far ---------------------------------------------------------------------------------------

    def ask(
        self, kind: str, arguments: dict[str, Any], only: Collection[str] | None = None
    ) -> dict[str, Future[dict[str, Any]]]:
        """Have something done in every store, or in those only; the outcome of each. Raises SourceGone while nothing is
        followed."""
        if self._follow is None or self._follow.capture is None:
            self._config.require_enabled()
            raise SourceGone(f"{self.path} is not followed just now", hint="see `status`")
        asked: dict[str, Future[dict[str, Any]]] = {}
        for store, line in zip(self._stores, self._lines, strict=True):
            if only is not None and store.url not in only:
                continue
            job = Job(kind, arguments)
            asked[store.url] = job.done
            if kind == PRUNE:
                job.done.add_done_callback(lambda _: self._remote.wake(self._unused_task))
            line.ask(job)
        return asked

    def hurry(self, place: Place) -> None:
        for line in self._lines:
            line.ship.hurry(place)
        self._wake_ships()

    @property
    def exists(self) -> bool:
        return os.path.exists(self.path)

    @property
    def enabled(self) -> bool:
        return self._config.enabled

    @property
    def asked(self) -> bool:
        """Whether every store was asked whose it is, as far as there is a database."""
        following = self._follow is not None and self._follow.capture is not None
        return not following or all(line.ship.asked for line in self._lines)

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
        return all(line.has_shipped(place) for line in self._lines)

    def has_tried(self, place: Place, waited: float) -> bool:
        """The same, but for stores that fail, or said nothing in *waited* seconds."""
        return all(line.has_shipped(place) or line.fails(waited) for line in self._lines)

    # --- wiring ----------------------------------------------------------------------------------------

    def _line(self, store: SealedStore, pause: float) -> Line:
        ours = Ours(
            capture=lambda: self._follow.capture if self._follow else None,
            finished=lambda: self._finished, failed=lambda: self.failure is not None,
            lose=self._lose, give_up=self._give_up,
        )  # fmt: skip
        return Line(
            store, ours, enlist=self._introduction.enlisting(store), pause=pause,
            spool=self._spool, spool_bytes_max=self._config.spool_bytes_max, state=self.state, marks=self.marks,
            clock=self._clock, pulse=self._pulse, loop=self._remote, keys=self._keys,
            others=lambda: [each for each in self._stores if each is not store],
            verification=self._config.verification, log_seconds=self._config.log_interval,
            policy=lambda: self._config.policy(self.scheduler.schedules), stop=self._stop,
        )  # fmt: skip

    def _follow_step(self, now: float) -> float | None:
        assert self._follow is not None
        if self._finished or self.failure is not None:
            return None
        try:
            delay = self._follow.step(now)
        except Interrupted:
            return None
        except ReplicatorError as exc:
            self._give_up(exc)
            return None
        if self._follow.settled_in:
            self.began.set()
        if self._follow.capture is not None and not self._scheduling:
            self._scheduling = True  # not before: what is to be made up for would have to wait
            self._local.wake(self._schedule_task)
        return delay

    def _schedule_step(self, now: float) -> float | None:
        return None if self._finished or self.failure is not None else self.scheduler.step(now)

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

    def _lose(self, capture: Capture, reason: str) -> None:
        """*capture* cannot be trusted: a new generation, unless there is another one by now."""
        assert self._follow is not None
        if self._follow.capture is capture:
            self._follow.lose(reason)
            self._wake_follow()

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
        """Events can be lost: wake whatever changed at rest without one. And keys may be rotated beside us."""
        try:
            self._keys.look()
            self._tell_of_keys()
        except ReplicatorError as exc:
            log.warning("keys.unreadable", extra={"error": str(exc), "hint": exc.hint})
        if self._follow is not None and self._follow.changed_at_rest:
            self._event()

    def _tell_of_keys(self) -> None:
        newest = self._keys.newest()
        state = self.marks.snapshot().source
        if newest is not None and newest != (state.key_ring, state.key_created):
            self.marks.source(key_ring=newest[0], key_created=newest[1])
        old = newest is not None and self._clock.wall() - newest[1] > self._config.key_max_age * 1e6
        if old and newest != self._told_of_key:
            self._told_of_key = newest
            log.warning("key.old", extra={"db": self.path, "hint": "rotate it: `replicator key rotate`"})

    def _unused_step(self, _now: float) -> None:
        """Behind a pruning: what nothing is sealed with any more is destroyed."""
        try:
            ring = self._keys.ring()
            if ring is not None and len(ring.roots) > 1 and not self._finished:
                plain = [each.plain for each in self._stores]
                holders = KeyHolders(plain, self._config.encryption, self.state.keys_path)
                destroy_unused(self._stores, holders, self._clock.wall())
                self._keys.look()
        except ReplicatorError as exc:
            log.warning("keys.kept", extra={"error": str(exc), "hint": exc.hint})

    def _event(self) -> None:
        if self._follow is not None:
            self._follow.woken()
            self._wake_follow()

    def _wake_follow(self) -> None:
        self._local.wake(self._follow_task)

    def _wake_ships(self) -> None:
        for line in self._lines:
            line.wake()

    def _request_passive(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.request()
            self._local.wake(self._checkpoint_task)
