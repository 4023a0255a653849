"""Upkeep of one store: full and incremental backups, logs, pruning; whatever is made there besides shipping.

One thing at a time, in the order it was asked for. A full backup that the store lacks comes before everything else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from replicator.archive import Archive
from replicator.backup import AS_USUAL, ContentDiffers, FullBackup, IncrementalBackup, Making, NoParent
from replicator.capture import Capture, ContinuityLost
from replicator.catalogue import CatalogueFile
from replicator.clock import Clock
from replicator.core.errors import (
    Interrupted,
    KeyRefused,
    ObjectCorrupt,
    OwnershipLost,
    ReplicatorError,
)
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental
from replicator.core.names import METADATA
from replicator.core.position import Position
from replicator.core.quantities import format_size
from replicator.core.retention_policy import Policy
from replicator.enlist import newest_backup, newest_lease
from replicator.jobs import FULL, INCREMENTAL, LOG, PRUNE, REPAIR, Job, Jobs
from replicator.marks import LastError, Marks
from replicator.prune import Prune, document
from replicator.ship import Ship
from replicator.state import StateFolder
from replicator.store import Store
from replicator.verify import Repair, is_carrier

log = logging.getLogger(__name__)

# A log that could not be made is tried again when some more would go into it, but not too soon.
LOG_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Makers:
    """Who does it."""

    full: FullBackup
    incremental: IncrementalBackup
    archive: Archive
    prune: Prune
    repair: Repair
    catalogue: CatalogueFile


class Upkeep:
    """``step`` runs in one thread at a time. *log_seconds*: how long the tail may grow. *confirm* raises OwnershipLost
    if another agent writes there by now: names of their own meet nobody else's."""

    def __init__(
        self,
        store: Store,
        ship: Ship,
        makers: Makers,
        *,
        state: StateFolder,
        marks: Marks,
        clock: Clock,
        confirm: Callable[[], None],
        log_seconds: float,
        policy: Callable[[], Policy],
    ) -> None:
        self._store = store
        self._ship = ship
        self._makers = makers
        self._state = state
        self._marks = marks
        self._clock = clock
        self._confirm = confirm
        self._log_seconds = log_seconds
        self._policy = policy
        self.jobs = Jobs()
        self._cuts: set[int] = set()
        # What an earlier run left in the tail is taken over, too.
        self._log_due: float | None = clock.now() + log_seconds
        self._archived = 0
        self._damaged: set[str] = set()

    @property
    def has_work(self) -> bool:
        """Whether there is something to do, or a time to be set for it, that nobody has looked at yet."""
        return bool(self.jobs) or self._log_unset or self._ship.memory.wants_full

    @property
    def _log_unset(self) -> bool:
        """Whether something came into the tail since the last log, and nobody waits for the next one yet."""
        return self._log_due is None and self._ship.segments != self._archived

    def step(self, capture: Capture, now: float) -> float | None:
        """Do the next thing. Raises what a full backup that is needed raises; what was asked for gets its own errors,
        but for OwnershipLost, ContentDiffers and ContinuityLost, which are everybody's."""
        if self._ship.needs_full:
            self._full(capture)
            return 0.0
        if self._ship.memory.wants_full:
            self._renew(capture)
            return 0.0
        if (job := self.jobs.next()) is not None:
            self._do(job, capture)
            return 0.0
        if self._log_unset:
            self._log_due = now + self._log_seconds
        if self._log_due is not None and now >= self._log_due:
            self._archive_in_time(now)
        return max(0.0, self._log_due - now) if self._log_due is not None else None

    def _renew(self, capture: Capture) -> None:
        """A full that stands at the newest commit, and is whole, will do."""
        capture.capture_now()
        if self._makers.full.standing(capture) is None:
            self._full(capture)
        self._ship.memory.want_full(False)

    def _do(self, job: Job, capture: Capture) -> None:
        arguments = job.arguments
        work: dict[str, Callable[[], dict[str, Any]]] = {
            FULL: lambda: self._full_asked(capture, arguments),
            INCREMENTAL: lambda: self._incremental(capture, _making(arguments)),
            LOG: self._logs,
            PRUNE: lambda: self._prune(arguments),
            REPAIR: lambda: self._repair(capture, arguments["names"], identified),
        }
        self.jobs.doing = job
        identified: list[str] = []
        try:
            if job.kind == REPAIR:
                identified = self._identified(arguments["names"])
            self._confirm()
            if job.kind in (FULL, INCREMENTAL):
                capture.capture_now()  # who has just committed and asks for a backup means that commit, too
            job.end(work[job.kind]())
        except (OwnershipLost, ContentDiffers, ContinuityLost, Interrupted) as exc:
            job.end(exc if isinstance(exc, ReplicatorError) else ReplicatorError(str(exc)))
            raise
        except ReplicatorError as exc:
            log.error(
                "upkeep.failed",
                extra={"store": self._store.url, "kind": job.kind, "error": str(exc), "hint": exc.hint},
            )
            job.end(exc)
        except BaseException as exc:
            job.end(ReplicatorError(f"internal error: {type(exc).__name__}"))
            raise
        finally:
            self.jobs.doing = None

    # --- what is done ----------------------------------------------------------------------------------

    def _full_asked(self, capture: Capture, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One by hand does not make a full store fuller. A scheduled one does: it lets an older one go."""
        limit = self._policy().max_bytes
        if limit is not None and "schedule" not in arguments:
            used = sum(each.size for each in self._store.list(""))
            if used >= limit:
                raise ReplicatorError(
                    f"{self._store.url} holds {format_size(used)}, and may hold {format_size(limit)}",
                    hint="see `prune --dry-run` for what is kept and why; scheduled backups go on",
                )
        standing = self._makers.full.standing(capture)
        if standing is not None and "anew" in arguments and standing.chunks_new < standing.chunks:
            raise ReplicatorError(
                f"nothing changed since {standing.name.backup_id}, which refers to packs of earlier fulls",
                hint="a full anew can be made as soon as something is committed",
            )
        if standing is not None:
            return {
                "type": FULL,
                "backup": None,
                "position": str(standing.position),
                "database_bytes": standing.database_bytes,
                "stored_bytes": 0,
                "seconds": 0.0,
                "note": f"nothing changed since {standing.name.backup_id}",
            }
        return self._full(capture, _making(arguments))

    def _full(self, capture: Capture, making: Making = AS_USUAL) -> dict[str, Any]:
        result = self._makers.full.run(capture, making)
        position = result.position
        self._marks.store(
            self._store.url, protected=position, unprotected_since=0, last_full=self._clock.wall(),
            full_seconds=result.seconds, full_bytes=result.stored_bytes,
        )  # fmt: skip
        self._ship.rejoin(position.generation, position.txid)
        self._cuts.add(position.txid)
        self._makers.catalogue.update()
        return {
            "type": FULL,
            "backup": result.backup_id,
            "position": str(position),
            "database_bytes": result.database_bytes,
            "stored_bytes": result.stored_bytes,
            "seconds": round(result.seconds, 3),
            "note": None,
        }

    def _incremental(self, capture: Capture, making: Making) -> dict[str, Any]:
        try:
            parent = self._parent()
            result = self._makers.incremental.run(capture, parent, making)
        except NoParent as exc:
            log.info("incremental.became-full", extra={"store": self._store.url, "reason": str(exc)})
            return {**self._full(capture, making), "note": f"a full backup was made instead: {exc}"}
        manifest = result.manifest
        if manifest is not None:
            self._cuts.add(manifest.txid)
            self._marks.store(self._store.url, last_incremental=self._clock.wall())
            self._makers.catalogue.update()
        return {
            "type": INCREMENTAL,
            "backup": manifest.name.backup_id if manifest is not None else None,
            "position": str(manifest.position if manifest is not None else parent.position),
            "parent": parent.name.backup_id,
            "pages": manifest.pages_stored if manifest is not None else 0,
            "stored_bytes": manifest.stored_bytes if manifest is not None else 0,
            "seconds": round(result.seconds, 3),
            "note": None if manifest is not None else f"nothing changed since {parent.name.backup_id}",
        }

    def _parent(self) -> Manifest | Incremental:
        running = self._state.generation
        if running is None:
            raise NoParent("nothing is captured yet")
        try:
            found = newest_backup(self._store, running.record.generation)
        except ObjectCorrupt as exc:
            raise NoParent(f"the newest backup cannot be read: {exc}") from exc
        if found is None:
            raise NoParent("there is no backup of this generation")
        return found

    def _prune(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        pruned = self._makers.prune.run(before=arguments.get("before"), dry="dry" in arguments)
        if pruned.dry:
            return document(pruned)
        said = document(pruned)
        self._marks.store(
            self._store.url, last_prune=self._clock.wall(), over=pruned.plan.bytes_over, used=said["bytes_kept"],
            limit=self._policy().max_bytes or 0,
        )  # fmt: skip
        if pruned.deleted:
            self._makers.catalogue.update()
        return said

    def _identified(self, names: Sequence[str]) -> list[str]:
        """What says whose the store is cannot be asked where it is what is hurt. The lease tells it as well."""
        try:
            lease = newest_lease(self._store)
        except ObjectCorrupt:
            return []
        ours = lease is not None and lease.writer == self._state.writer
        return self._makers.repair.identify(names) if ours else []

    def _repair(self, capture: Capture, names: Sequence[str], identified: Sequence[str]) -> dict[str, Any]:
        done = self._makers.repair.run([name for name in names if name not in identified])
        done.put_back[:0] = identified
        full = None
        if done.set_aside or any(is_carrier(name) for name in done.left):
            full = self._full(capture)["backup"]  # restore points begin anew from it
        if METADATA in names:
            self._makers.catalogue.forget()
        self._makers.catalogue.update()
        return {"type": REPAIR, **asdict(done), "full": full, "note": None}

    def _archive_in_time(self, now: float) -> None:
        try:
            self._confirm()
            self._logs()
        except (Interrupted, OwnershipLost, KeyRefused):
            raise
        except ReplicatorError as exc:
            log.error("log.failed", extra={"store": self._store.url, "error": str(exc), "hint": exc.hint})
            self._log_due = now + max(LOG_RETRY_SECONDS, self._log_seconds)

    def _logs(self) -> dict[str, Any]:
        running = self._state.generation
        assert running is not None
        segments = self._ship.segments
        done = self._makers.archive.run(running.record.generation, self._cuts)
        self._archived, self._log_due = segments, None
        self._ship.asks_anew = True  # while puts succeed, nothing else tells that it lost what it had
        self._tell_of_damage(done.damaged)
        self._tell_of_missing(done.missing)
        if done.logs:
            last = done.logs[-1]
            self._cuts = {each for each in self._cuts if each > last.txid_last}
            self._marks.store(
                self._store.url,
                last_log=self._clock.wall(),
                logged=Position(last.generation, last.txid_last),
            )
        return {
            "type": LOG,
            "logs": [str(name) for name in done.logs],
            "segments": done.segments,
            "kept": done.kept,
            "stored_bytes": done.bytes_out,
            "note": "; ".join(f"{name} stays: {fault}" for name, fault in done.damaged.items()) or None,
        }

    def _tell_of_damage(self, damaged: Mapping[str, str]) -> None:
        """Restore points end at a damaged segment, and begin again at the next full: so that is made at once."""
        where = f"log of {self._store.url}"
        if not damaged:
            self._marks.well(where)
        for name, fault in damaged.items():
            error = LastError(
                self._clock.wall(), where, f"{name} is damaged: {fault}", "see `verify --repair`"
            )
            self._marks.error(error)
        if not damaged.keys() <= self._damaged:
            log.error("segment.damaged", extra={"store": self._store.url, "key": ", ".join(damaged)})
            self._ship.memory.want_full()
        self._damaged = set(damaged)

    def _tell_of_missing(self, missing: Sequence[tuple[int, int]]) -> None:
        if missing:
            holes = ", ".join(f"{first:016x} to {last:016x}" for first, last in missing)
            self._ship.memory.rolled_back(
                f"transactions {holes}, which it had acknowledged, are not there any more"
            )
            self._ship.memory.want_full()


def _making(arguments: Mapping[str, Any]) -> Making:
    """What a schedule has otherwise than the settings for all, or a person wants."""
    return Making(arguments.get("compress"), arguments.get("verify"), anew="anew" in arguments)
