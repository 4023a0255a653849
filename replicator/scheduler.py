"""Scheduler: what is due by the clock on the wall, of one database; each run with its result, kept beside the state.

A run that was missed while nobody was there is made up once. Runs queue behind each other in each store (upkeep.py).
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from replicator.clock import Clock
from replicator.core.errors import Interrupted, ReplicatorError, SourceGone, StoreError, UsageError
from replicator.core.quantities import format_duration
from replicator.core.schedule import Schedule, is_missed, last_due, next_run, with_jitter
from replicator.core.schedule_file import parse_schedules
from replicator.core.times import format_time
from replicator.files import mapped_errors, read_json, replace_file
from replicator.upkeep import FULL, INCREMENTAL, LOG, PRUNE

log = logging.getLogger(__name__)

Ask = Callable[[str, dict[str, Any], Collection[str] | None], Mapping[str, Future[dict[str, Any]]]]
"""Have something done in those stores, None is every one; raises ReplicatorError where nothing can be done now."""

# The wall clock may be set; this is how late a run is at the most because of it, for a look at a list.
LOOK_SECONDS_MAX = 3600.0
# A run that could not begin, since the database was not followed, is tried again.
AGAIN_SECONDS = 60.0
# One that a store kept from ending well, as often as this, until it is due again anyway.
RETRY_SECONDS = 300.0
RUNS_KEPT = 200


@dataclass(frozen=True, slots=True)
class Known:
    """A schedule, and what became of it. ``last_due``: the newest time that was answered by a run, microseconds."""

    schedule: Schedule
    last_due: int
    runs: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A run that waits: begin at ``at`` what answers the time ``due``, in the stores ``only``; None is all."""

    at: int
    due: int
    only: frozenset[str] | None = None


def schedule_document(schedule: Schedule) -> dict[str, Any]:
    """As ``parse_schedules`` takes it."""
    return {
        "name": schedule.name,
        "cronExpression": schedule.cron,
        "backupType": schedule.backup_type,
        "retentionDays": schedule.retention_days,
        "compress": schedule.compress,
        "verify": schedule.verify,
        "enabled": schedule.enabled,
        "description": schedule.description,
        "jitter": format_duration(schedule.jitter),
    }


class Scheduler:
    """``step`` runs in one thread at a time, everything else from any. *configured*: those of the configuration; one of
    the same name that was made or changed by hand counts instead."""

    def __init__(self, path: str, configured: Sequence[Schedule], clock: Clock, ask: Ask) -> None:
        self.changed: Callable[[], None] = lambda: None
        """Called when there is another time to look at."""
        self._path = path
        self._configured = tuple(configured)
        self._clock = clock
        self._ask = ask
        self._lock = threading.RLock()
        self._known: dict[str, Known] = {}
        self._by_hand: dict[str, Schedule | None] = {}
        self._runs: list[dict[str, Any]] = []
        self._pending: dict[str, Pending] = {}  # by name

    def open(self) -> None:
        """Load what an earlier run kept, and make up for what it left undone."""
        with self._lock:
            self.load()
            for run in self._runs:
                self._settle(run)
            self._save()

    def load(self) -> None:
        """Only to look at it. What is new begins now: nothing before it was missed."""
        with self._lock:
            loaded = read_json(self._path) or {}
            self._runs = [each for each in loaded.get("runs", []) if isinstance(each, dict)][-RUNS_KEPT:]
            for name, entry in (loaded.get("by_hand") or {}).items():
                self._by_hand[str(name)] = parse_schedules(entry)[0] if entry else None
            counts = loaded.get("known") or {}
            wall = self._clock.wall()
            for schedule in self._effective():
                kept = counts.get(schedule.name) or {}
                self._known[schedule.name] = Known(
                    schedule, int(kept.get("last_due") or wall), int(kept.get("runs") or 0),
                    int(kept.get("failures") or 0),
                )  # fmt: skip

    def _settle(self, run: dict[str, Any]) -> None:
        """What an agent that was killed left behind: such a run is made up."""
        for outcome in (run.get("stores") or {}).values():
            if outcome.get("result") == "in_progress":
                outcome |= {"result": "failed", "error": "the agent ended"}
                self._make_up(str(run.get("schedule")), run.get("due"))

    def _make_up(self, name: str, due: str | None) -> None:
        known = self._known.get(name)
        if known is not None and due is not None and format_time(known.last_due) == due:
            self._known[name] = replace(known, last_due=known.last_due - 1)

    def _effective(self) -> list[Schedule]:
        found = {each.name: each for each in self._configured}
        for name, schedule in self._by_hand.items():
            if schedule is None:
                found.pop(name, None)
            else:
                found[name] = schedule
        return list(found.values())

    # --- the clock -------------------------------------------------------------------------------------

    def step(self, _now: float) -> float:
        """Begin what is due; returns seconds until the next look."""
        with self._lock:
            wall = self._clock.wall()
            for known in self._known.values():
                self._look(known, wall)
            ready = [name for name, each in self._pending.items() if each.at <= wall]
        for name in ready:
            self._begin(name)
        with self._lock:
            times = [next_run(each.schedule, wall) for each in self._known.values() if each.schedule.enabled]
            times += [each.at for each in self._pending.values()]
        return min([LOOK_SECONDS_MAX, *(max(0.0, (each - wall) / 1e6) for each in times)])

    def _look(self, known: Known, wall: int) -> None:
        schedule = known.schedule
        waiting = self._pending.get(schedule.name)
        if is_missed(schedule, known.last_due, wall) and (waiting is None or waiting.only is not None):
            due = last_due(schedule, wall)  # however often it was missed: once
            assert due is not None
            self._pending[schedule.name] = Pending(with_jitter(schedule, due, random.random()), due)

    def _begin(self, name: str) -> None:
        with self._lock:
            pending = self._pending.pop(name)
            known = self._known.get(name)
        if known is None or not known.schedule.enabled:
            return
        try:
            self.run(known.schedule, pending)
        except ReplicatorError as exc:
            log.info("schedule.waits", extra={"schedule": name, "reason": str(exc)})
            with self._lock:
                self._pending[name] = replace(pending, at=self._clock.wall() + int(AGAIN_SECONDS * 1e6))

    # --- runs ------------------------------------------------------------------------------------------

    def run(self, schedule: Schedule, pending: Pending | None = None) -> Mapping[str, Future[dict[str, Any]]]:
        """Have it done now; *pending*: what it answers, None by hand. Raises what asking raises."""
        due, only = (pending.due, pending.only) if pending is not None else (None, None)
        kind = {"incremental": INCREMENTAL, "log": LOG}.get(schedule.backup_type, FULL)
        arguments = {"schedule": schedule.name, "compress": schedule.compress, "verify": schedule.verify}
        asked = self._ask(kind, arguments, only)
        log.info("schedule.run", extra={"schedule": schedule.name, "kind": kind})
        record = {
            "schedule": schedule.name,
            "type": schedule.backup_type,
            "due": format_time(due) if due is not None else None,
            "began": format_time(self._clock.wall()),
            "stores": {url: {"result": "in_progress"} for url in asked},
        }
        with self._lock:
            self._runs = [*self._runs, record][-RUNS_KEPT:]
            known = self._known.get(schedule.name)
            if known is not None and due is not None:
                self._known[schedule.name] = replace(known, last_due=due)
            self._save()
        for url, future in asked.items():
            future.add_done_callback(partial(self._ended, record, schedule.name, url))
        if kind != LOG:
            self._ask(PRUNE, {}, only)
        return asked

    def _ended(self, record: dict[str, Any], name: str, url: str, done: Future[dict[str, Any]]) -> None:
        error = done.exception()
        outcome: dict[str, Any] = {"ended": format_time(self._clock.wall())}
        if error is not None:
            outcome |= {"result": "failed", "error": str(error)}
        else:
            outcome |= {"result": "completed", **done.result()}
        with self._lock:
            record["stores"][url] = outcome
            known = self._known.get(name)
            results = [each["result"] for each in record["stores"].values()]
            if known is not None and "in_progress" not in results:
                failures = known.failures + ("failed" in results)
                self._known[name] = replace(known, runs=known.runs + 1, failures=failures)
            if isinstance(error, Interrupted):
                self._make_up(name, record["due"])
            elif isinstance(error, ReplicatorError) and error.retryable and record["due"] is not None:
                self._retry(name, url)
            self._save()
        self.changed()

    def _retry(self, name: str, url: str) -> None:
        """In that store alone: the others have it."""
        known = self._known.get(name)
        at = self._clock.wall() + int(RETRY_SECONDS * 1e6)
        waiting = self._pending.get(name)
        if waiting is not None and waiting.only is not None:
            self._pending[name] = replace(waiting, only=waiting.only | {url})
        elif waiting is None and known is not None and not is_missed(known.schedule, known.last_due, at):
            self._pending[name] = Pending(at, known.last_due, frozenset({url}))

    # --- what people ask -------------------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """Every schedule with its next run, and what its runs came to."""
        wall = self._clock.wall()
        with self._lock:
            return [
                {
                    **schedule_document(known.schedule),
                    "nextRunAt": format_time(next_run(known.schedule, wall))
                    if known.schedule.enabled
                    else None,
                    "runCount": known.runs,
                    "failureCount": known.failures,
                    "byHand": known.schedule.name in self._by_hand,
                }
                for known in self._known.values()
            ]

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        with self._lock:
            return tuple(each.schedule for each in self._known.values())

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The newest last."""
        with self._lock:
            return [dict(each) for each in self._runs]

    def find(self, name: str) -> Schedule:
        with self._lock:
            known = self._known.get(name)
        if known is None:
            raise UsageError(f"there is no schedule {name!r}", hint="see `schedule list`")
        return known.schedule

    def keep(self, schedule: Schedule, *, new: bool) -> None:
        """Add one by hand, or change one; the configuration's of the same name counts no more. Raises UsageError."""
        with self._lock:
            if new and schedule.name in self._known:
                raise UsageError(
                    f"there is a schedule {schedule.name!r} already", hint="`schedule update` changes it"
                )
            before = self._known.get(schedule.name)
            self._by_hand[schedule.name] = schedule
            last = before.last_due if before is not None else self._clock.wall()
            self._known[schedule.name] = Known(
                schedule, last, before.runs if before else 0, before.failures if before else 0
            )
            self._pending.pop(schedule.name, None)
            self._save()
        self.changed()

    def remove(self, name: str) -> None:
        with self._lock:
            self.find(name)
            self._known.pop(name)
            if any(each.name == name for each in self._configured):
                self._by_hand[name] = None  # so that it does not come back at the next start
            else:
                self._by_hand.pop(name, None)
            self._save()

    def _save(self) -> None:
        content = {
            "known": {
                name: {"last_due": each.last_due, "runs": each.runs, "failures": each.failures}
                for name, each in self._known.items()
            },
            "by_hand": {
                name: schedule_document(each) if each else None for name, each in self._by_hand.items()
            },
            "runs": self._runs,
        }
        try:
            with mapped_errors(f"cannot write {self._path}"):
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                replace_file(self._path, json.dumps(content, indent=1).encode())
        except StoreError as exc:
            log.warning("state.unwritten", extra={"error": str(exc)})


def kept_schedules(path: str, configured: Sequence[Schedule], clock: Clock) -> Scheduler:
    """What an agent that does not run will do; nothing can be run by it."""

    def refuse(*_: object) -> Mapping[str, Future[dict[str, Any]]]:
        raise SourceGone("no agent runs that could do it", hint="start it")

    found = Scheduler(path, configured, clock, refuse)
    found.load()
    return found
