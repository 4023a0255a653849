"""Prune: delete what the policy no longer promises, object by object, in an order that may break off anywhere.

What to delete is decided in core/retention_plan.py, from one listing. Here are the clock, without which no age means
anything, and a store that may refuse to let go.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replicator.clock import Clock
from replicator.core.errors import ClockWrong, Interrupted, StoreDenied, StoreError, UsageError
from replicator.core.holdings import Holdings
from replicator.core.names import BackupName, FullName, IncrementalName, parse_name
from replicator.core.position import GenerationId
from replicator.core.quantities import format_duration
from replicator.core.records import PINNED
from replicator.core.retention_plan import GenerationWindow, RetentionPlan, plan_retention
from replicator.core.retention_policy import Policy
from replicator.core.times import MICROS_PER_SECOND, format_time
from replicator.repository import Manifests, read_repository
from replicator.store import Store
from replicator.store.contract import PROBES
from replicator.store.store_clock import clock_difference

log = logging.getLogger(__name__)

# Clocks that are set by the network differ by less than a second, those of virtual machines that slept by minutes.
# Nothing is kept for less than hours, so what is a few minutes off deletes nothing that matters.
CLOCK_SECONDS_MAX = 600.0
# One that is in use is minutes old.
PROBE_SECONDS_MAX = 86_400.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was done of a plan. ``refused``: what the store would not delete, and what that rests on; with its reason.
    ``bytes_deleted``: of what was, or would be. ``dry``: nothing was done."""

    plan: RetentionPlan
    deleted: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    bytes_deleted: int
    dry: bool


def document(pruned: Pruned) -> dict[str, Any]:
    """As `prune --json` prints it of one store."""
    plan, done, refused = pruned.plan, set(pruned.deleted), dict(pruned.refused)
    return {
        "type": "prune",
        "dry_run": pruned.dry,
        "kept": [{"name": each.name, "reason": each.reason} for each in plan.keep],
        "deleted": [
            {"name": each.name, "reason": each.reason}
            for each in plan.delete
            if pruned.dry or each.name in done
        ],
        "refused": [{"name": name, "reason": reason} for name, reason in refused.items()],
        "bytes_kept": plan.bytes_kept + plan.bytes_deleted - pruned.bytes_deleted,
        "bytes_deleted": pruned.bytes_deleted,
        "bytes_over": plan.bytes_over,
        "windows_before": list(map(_window, plan.windows_before)),
        "windows_after": list(map(_window, plan.windows_after)),
        "note": "; ".join(plan.notes) or None,
    }


def _window(window: GenerationWindow) -> dict[str, Any]:
    return {
        "generation": window.generation,
        "stretches": [
            {
                "from": format_time(each.time_first), "until": format_time(each.time_last),
                "txid_first": f"{each.txid_first:016x}", "txid_last": f"{each.txid_last:016x}",
            }
            for each in window.stretches
        ],
    }  # fmt: skip


class Prune:
    """Of one store. *running*: the generation that an agent goes on with; None is the newest. Not to be run twice at a
    time, nor beside a backup into the same store: only who writes there may delete."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        manifests: Manifests,
        *,
        policy: Callable[[], Policy],
        running: Callable[[], GenerationId | None] = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._manifests = manifests
        self._policy = policy
        self._running = running
        self._stopped = stopped

    def run(self, *, before: int | None = None, dry: bool = False) -> Pruned:
        """Delete, or with *dry* only say what would be. *before*: whatever lets a state before that time be restored
        goes as well. Raises UsageError where that has not come yet, ClockWrong, StoreError; ObjectCorrupt where it is
        not known whose repository it is."""
        if before is not None and before > self._clock.wall():
            raise UsageError(f"{format_time(before)} has not come yet", hint="`before` is a time in the past")
        self._require_clock()
        repository = read_repository(self._store)
        manifests = self._manifests.of(repository)
        pins = frozenset(backup for backup, events in repository.catalogue.events.items() if PINNED in events)
        holdings = Holdings(repository.catalogue, manifests, pins=pins, running=self._running())
        self._require_past(holdings)
        plan = plan_retention(holdings, self._policy(), self._clock.wall(), before=before)
        if dry:
            return Pruned(plan, (), (), plan.bytes_deleted, dry=True)
        self._clear_probes()
        return self._delete(plan, holdings)

    def _delete(self, plan: RetentionPlan, holdings: Holdings) -> Pruned:
        deleted: list[str] = []
        refused: dict[str, str] = {}
        for each in plan.delete:
            if self._stopped():
                raise Interrupted("stopped while pruning; the next one goes on")
            if each.name in refused:
                continue
            try:
                self._store.delete(each.name)
                deleted.append(each.name)
            except StoreDenied as exc:
                refused[each.name] = str(exc)
                # A backup that stays shall have what it needs.
                for below in _needed(parse_name(each.name), holdings):
                    refused.setdefault(below, f"{each.name}, which needs it, may not be deleted")
        freed = sum(holdings.sizes[name] for name in deleted)
        log.info(
            "pruned",
            extra={
                "store": self._store.url,
                "objects": len(deleted),
                "bytes": freed,
                "refused": len(refused),
            },
        )
        return Pruned(plan, tuple(deleted), tuple(refused.items()), freed, dry=False)

    def _clear_probes(self) -> None:
        """What only tried something, and was left by a process that was killed: no listing shows it otherwise."""
        before = self._clock.wall() - round(PROBE_SECONDS_MAX * MICROS_PER_SECOND)
        with contextlib.suppress(StoreError):  # the next pruning does
            for name in [each.name for each in self._store.list(PROBES)]:
                if self._store.modified(name) < before:
                    self._store.delete(name)

    # --- the clock -------------------------------------------------------------------------------------

    def _require_clock(self) -> None:
        off = clock_difference(self._store, self._clock.wall)
        if off is None:
            log.info("clock.unknown", extra={"store": self._store.url})
        elif abs(off) > CLOCK_SECONDS_MAX:
            behind = "behind" if off > 0 else "ahead of"
            raise ClockWrong(
                f"the clock of this machine is {format_duration(round(abs(off)))} {behind} that of {self._store.url}",
                hint=f"nothing is deleted because of its age while they differ by more than "
                f"{format_duration(CLOCK_SECONDS_MAX)}; set the clock",
            )

    def _require_past(self, holdings: Holdings) -> None:
        """What was recorded by a clock that ran ahead outlives what is newer, and so does what was recorded before ours
        went back."""
        now = self._clock.wall()
        newest = max(
            (holdings.time(name) for held in holdings.generations for name in held.backups), default=0
        )
        if newest - now > CLOCK_SECONDS_MAX * MICROS_PER_SECOND:
            raise ClockWrong(
                f"{self._store.url} holds a backup of {format_time(newest)}, and it is {format_time(now)} here",
                hint="set the clock; if that backup was made by one that ran ahead, nothing is deleted until then",
            )


def _needed(name: object, holdings: Holdings) -> list[str]:
    """What a backup rests on, the packs of all of that, and what is told of them: that one is hurt, or pinned."""
    if not isinstance(name, FullName | IncrementalName):
        return []
    chain: tuple[BackupName, ...] = holdings.held(name.generation).rests_on(name)
    ids = {each.backup_id for each in chain}
    return [
        *map(str, chain[1:]),
        *(pack for each in chain for pack in sorted(holdings.packs_of(each))),
        *(str(event) for event in holdings.events if event.backup_id in ids),
    ]
