"""One store of one database: its queue, its full backups, and what becomes of their trouble."""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from replicator.archive import Archive
from replicator.backup import ContentDiffers, FullBackup, IncrementalBackup
from replicator.capture import Capture, ContinuityLost
from replicator.catalogue import CatalogueFile
from replicator.clock import Clock
from replicator.core.errors import (
    Interrupted,
    OwnershipLost,
    ReplicatorError,
    StoreError,
    StoreUnavailable,
)
from replicator.core.position import Position
from replicator.core.retention_policy import Policy
from replicator.enlist import base_checksum_of, newest_in, read_manifest
from replicator.fence import fence
from replicator.jobs import Job
from replicator.keys import HeldKeys
from replicator.loop import Loop, Task
from replicator.marks import LastError, Marks
from replicator.moment import Moment
from replicator.prune import Prune
from replicator.pulse import Pulse
from replicator.repository import Manifests
from replicator.ship import Ship
from replicator.spool import Place, Spool
from replicator.state import StateFolder
from replicator.store import Store
from replicator.store.sealed import SealedStore
from replicator.upkeep import Makers, Upkeep
from replicator.verify import Repair

log = logging.getLogger(__name__)

BACKUP_RETRY_SECONDS = 5.0
SURPRISED_SECONDS = 30.0
# Who asks by hand waits so long for a store that says nothing at all: longer than a connection takes that comes about.
SILENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Ours:
    """What a line wants of the database it belongs to: its ``capture``, while it is followed; whether it is
    ``finished``, and nothing begins any more, or ``failed``; ``lose``, where a capture cannot be trusted;
    ``give_up``, where nothing can go on."""

    capture: Callable[[], Capture | None]
    finished: Callable[[], bool]
    failed: Callable[[], bool]
    lose: Callable[[Capture, str], None]
    give_up: Callable[[ReplicatorError], None]


class Line:
    """Both tasks run in *loop*, each in one thread at a time. ``enlist`` makes us known to the store; ``pause`` lies
    between two segments, in seconds; ``stop`` cancels what waits for the store."""

    def __init__(
        self,
        store: SealedStore,
        ours: Ours,
        *,
        enlist: Callable[[], None],
        pause: float,
        spool: Spool,
        spool_bytes_max: int,
        state: StateFolder,
        marks: Marks,
        clock: Clock,
        pulse: Pulse,
        loop: Loop,
        keys: HeldKeys,
        others: Callable[[], Sequence[Store]],
        verification: bool,
        log_seconds: float,
        policy: Callable[[], Policy],
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._ours = ours
        self._loop = loop
        self._marks = marks
        self._clock = clock
        self._full_at = f"full backup to {store.url}"
        self._upkeep_at = f"backups, logs and pruning of {store.url}"
        self._ship_not_before = self._backup_not_before = float("-inf")
        self._ship_task = Task(f"ship {store.url}", self._ship_step)
        self._backup_task = Task(f"backup {store.url}", self._backup_step)
        self.ship = Ship(
            store, spool, state, marks, clock,
            interval=pause, spool_bytes_max=spool_bytes_max, enlist=enlist,
            newest=partial(newest_in, store),
            base_of=lambda name: base_checksum_of(read_manifest(store, name)),
            need_full=partial(loop.wake, self._backup_task),
            fence=lambda generation: fence(store, state.epoch, but=generation),
            pulse=pulse,
        )  # fmt: skip
        self._begun = False
        self._full_trouble: ReplicatorError | None = None
        self._silent: ReplicatorError | None = None
        self._upkeep = Upkeep(
            store, self.ship, self._makers(keys, others, state, spool, enlist, verification, policy, stop),
            state=state, marks=marks, clock=clock, confirm=enlist, log_seconds=log_seconds, policy=policy,
        )  # fmt: skip

    def _makers(
        self, keys: HeldKeys, others: Callable[[], Sequence[Store]], state: StateFolder, spool: Spool,
        enlist: Callable[[], None], verification: bool, policy: Callable[[], Policy], stop: threading.Event,
    ) -> Makers:  # fmt: skip
        store, clock, manifests = self._store, self._clock, Manifests()
        return Makers(
            FullBackup(
                store, state, clock, reserve=self._reserve, confirm=enlist, trouble=self._tell_of_full,
                dedup=keys.dedup, verification=verification, stop=stop,
            ),
            IncrementalBackup(
                store, state, clock, confirm=enlist, trouble=self._tell_of_full, verification=verification,
                stop=stop,
            ),
            Archive(store, stop.is_set),
            Prune(store, clock, manifests, policy=policy, running=state.running, stopped=stop.is_set),
            Repair(
                store, others, state=state, spool=spool, slot=keys.slot, shipped=self._shipped,
                wall=clock.wall,
            ),
            CatalogueFile(store, manifests),
        )  # fmt: skip

    def ask(self, job: Job) -> None:
        """Something to be done in this store, when its turn comes."""
        if self._ours.finished() or self._ours.failed():
            job.done.set_exception(Interrupted("the agent is stopping"))
            return
        self._upkeep.jobs.ask(job)
        self._loop.wake(self._backup_task)

    def wake(self) -> None:
        self._loop.wake(self._ship_task)

    def has_shipped(self, place: Place) -> bool:
        """Whether the store has what lies before *place*, onto a full backup."""
        return self.ship.has_shipped(place) and not self.ship.needs_full

    def fails(self, waited: float) -> bool:
        """Whether nobody should wait for the store: it told why, or nothing at all in *waited* seconds. Who asks for
        something is told so until it has told how far it is."""
        if waited > SILENT_SECONDS and not self.ship.asked:
            self._silent = StoreUnavailable(
                f"{self._store.url} has not answered in {waited:.0f} s",
                hint="is it there, and the way to it free?",
            )
        return (self.ship.trouble or self._full_trouble or self._silent) is not None

    def close(self) -> None:
        self._upkeep.jobs.abandon(Interrupted("the agent is stopping"))
        self.ship.close()

    def _reserve(self, moment: Moment) -> None:
        self.ship.reserve(moment.spooled)

    def _shipped(self) -> Position | None:
        found = self._marks.snapshot().stores.get(self._store.url)
        return found.shipped if found is not None else None

    def _tell_of_full(self, exc: ReplicatorError | None) -> None:
        """To ``status``: what the full backup waits for; None: it waits no longer."""
        if exc is None:
            self._marks.well(self._full_at)
        else:
            self._tell(self._full_at, exc)

    def _tell(self, where: str, exc: ReplicatorError) -> None:
        self._marks.error(LastError(self._clock.wall(), where, str(exc), exc.hint))

    def _ship_step(self, now: float) -> float | None:
        if self._ours.failed():
            return None
        if now < self._ship_not_before:
            return self._ship_not_before - now
        if self.ship.asks_anew:
            self._store.publish_anew()
        try:
            delay = self.ship.step(now)
        except Interrupted:
            return None
        except ReplicatorError as exc:
            self._ours.give_up(exc)
            return None
        except Exception as exc:
            self._surprised(self._store.url, exc)
            self._ship_not_before = now + SURPRISED_SECONDS
            return SURPRISED_SECONDS
        if self.ship.has_full:
            self._full_trouble = self._silent = None
            self._tell_of_full(None)
            if self._upkeep.has_work or not self._begun:
                self._begun = True
                self._loop.wake(self._backup_task)
        elif self.ship.trouble is not None and self._upkeep.has_work:
            self._loop.wake(self._backup_task)
        return delay

    def _backup_step(self, now: float) -> float | None:
        if self._ours.finished() or self._ours.failed():
            self._upkeep.jobs.abandon(Interrupted("the agent is stopping"))
            return None
        capture = self._ours.capture()
        if capture is None or not self.ship.has_place:
            trouble = self.ship.trouble or (None if self.ship.has_place else self._silent)
            if trouble is not None:
                self._upkeep.jobs.turn_away(trouble)
            return None  # woken when the store has answered, and the database is followed
        if now < self._backup_not_before:
            return self._backup_not_before - now
        needed = self.ship.needs_full
        try:
            delay = self._upkeep.step(capture, now)
        except (ContentDiffers, ContinuityLost) as exc:
            self._ours.lose(capture, str(exc))
            return BACKUP_RETRY_SECONDS
        except Interrupted:
            return None
        except OwnershipLost as exc:
            self._ours.give_up(exc)
            return None
        except ReplicatorError as exc:
            return None if self._ours.finished() else self._failed(exc, needed=needed)
        except Exception as exc:
            self._surprised(self._full_at, exc)
            return self._again_in(SURPRISED_SECONDS)
        self._marks.well(self._upkeep_at)
        if needed:
            self._tell_of_full(None)
        if needed or self.ship.asks_anew:
            self.wake()
        return delay

    def _failed(self, exc: ReplicatorError, *, needed: bool) -> float:
        """*needed*: it was the full without which nothing of the generation can be restored. What goes wrong beside
        shipping stays told until it goes right: shipping would wipe it away."""
        event = "full.failed" if needed else "upkeep.failed"
        log.error(event, extra={"store": self._store.url, "error": str(exc), "hint": exc.hint})
        self._tell(self._full_at if needed else self._upkeep_at, exc)
        if needed:
            self._full_trouble = exc
        if isinstance(exc, StoreError):
            self._upkeep.jobs.turn_away(exc)  # else whoever asked by hand would wait for as long as it fails
        return self._again_in(BACKUP_RETRY_SECONDS)

    def _again_in(self, seconds: float) -> float:
        """However often the task is woken."""
        self._backup_not_before = self._clock.now() + seconds
        return seconds

    def _surprised(self, where: str, exc: Exception) -> None:
        """A fault of this program or of an SDK, with one store: no reason to end capture. Its text stays out of
        the log, since nobody knows what it quotes."""
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        error = ReplicatorError(
            f"internal error: {type(exc).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}",
            hint="it is tried again; please report it",
        )
        log.error("internal.error", extra={"store": where, "error": str(error)})
        self._tell(where, error)
