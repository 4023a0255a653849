"""Scheduler: what is due by the clock on the wall, of one database; each run with its result, kept beside the state.

A run that was missed while nobody was there is made up once, one that ended early in the stores where it did. Runs
queue behind each other in each store (upkeep.py). Waits are counted by the monotonic clock: the other may be set.
"""

from __future__ import annotations

import contextlib
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
from replicator.core.errors import (
    Interrupted,
    ReplicatorError,
    ScheduleNotFound,
    SourceError,
    SourceGone,
    StoreError,
    UsageError,
)
from replicator.core.schedule import Schedule, is_missed, last_due, next_run, with_jitter
from replicator.core.schedule_file import parse_schedules, schedule_document
from replicator.core.times import MICROS_MAX, MICROS_MIN, format_time
from replicator.files import make_folder, mapped_errors, read_json, replace_file
from replicator.jobs import FULL, INCREMENTAL, LOG, PRUNE

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
    """A run that waits: begin at ``at``, monotonic seconds, what answers the time ``due``, in the stores ``only``; None
    is all. ``told``: whether the log says that it waits."""

    at: float
    due: int
    only: frozenset[str] | None = None
    told: bool = False


class Scheduler:
    """``step`` runs in one thread at a time, everything else from any. *configured*: those of the configuration; one of
    the same name that was made or changed by hand counts instead. *chance*: 0 to 1, of the jitter."""

    def __init__(
        self,
        path: str,
        configured: Sequence[Schedule],
        clock: Clock,
        ask: Ask,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        """Called when there is another time to look at."""
        self.unreadable = ""
        """What is wrong with the file, so that nothing of it counts."""
        self._path = path
        self._configured = tuple(configured)
        self._clock = clock
        self._ask = ask
        self._chance = chance
        self._lock = threading.RLock()
        self._known: dict[str, Known] = {}
        self._by_hand: dict[str, Schedule | None] = {}
        self._runs: list[dict[str, Any]] = []
        self._pending: dict[str, Pending] = {}  # by name

    def open(self) -> None:
        """Load what an earlier run kept, and make up for what it left undone."""
        with self._lock:
            self.load()
            if self.unreadable:
                log.warning("schedules.unreadable", extra={"path": self._path, "error": self.unreadable})
            for run in self._runs:
                self._settle(run)
            for known in self._known.values():
                if urls := self._left_by(known):
                    self._pending[known.schedule.name] = Pending(self._clock.now(), known.last_due, urls)
            self._save()

    def load(self) -> None:
        """Only to look at it. What is new begins now: nothing before it was missed."""
        with self._lock:
            loaded = read_json(self._path)
            self.unreadable = "it is torn" if loaded is None and os.path.exists(self._path) else ""
            try:
                self._take(loaded or {})
            except (TypeError, ValueError, LookupError, AttributeError, ReplicatorError) as exc:
                self.unreadable = f"it is not what was written: {exc}"  # as good as torn
                self._take({})

    def _take(self, loaded: dict[str, Any]) -> None:
        """Raises whatever comes of values that are not ours."""
        runs = [dict(each) for each in loaded.get("runs", [])][-RUNS_KEPT:]
        by_hand = {
            str(name): parse_schedules(entry)[0] if entry else None
            for name, entry in (loaded.get("by_hand") or {}).items()
        }
        for run in runs:
            run |= {"schedule": run["schedule"], "due": run["due"]}
            run["stores"] = {str(url): dict(outcome) for url, outcome in run["stores"].items()}
        self._runs, self._by_hand = runs, by_hand
        counts = loaded.get("known") or {}
        for schedule in self._effective():
            kept = counts.get(schedule.name) or {}
            last = int(kept.get("last_due") or self._clock.wall())
            if not MICROS_MIN <= last <= MICROS_MAX:
                raise ValueError(f"{last} is no time")
            self._known[schedule.name] = Known(
                schedule, last, int(kept.get("runs") or 0), int(kept.get("failures") or 0)
            )

    def _settle(self, run: dict[str, Any]) -> None:
        """Of an agent that was killed: it did not come to say how the run ended."""
        open_ones = [each for each in run["stores"].values() if each.get("result") == "in_progress"]
        for outcome in open_ones:
            outcome |= {"result": "failed", "error": "the agent ended", "again": run["due"] is not None}
        known = self._known.get(str(run["schedule"]))
        if known is not None and open_ones:
            self._count(known, failed=True)

    def _left_by(self, known: Known) -> frozenset[str]:
        """The stores in which the newest run did not come to its end, though it might have."""
        newest: dict[str, dict[str, Any]] = {}
        for run in self._runs:
            if (run["schedule"], run["due"]) == (known.schedule.name, format_time(known.last_due)):
                newest |= run["stores"]
        return frozenset(url for url, outcome in newest.items() if outcome.get("again"))

    def _count(self, known: Known, *, failed: bool) -> None:
        changed = replace(known, runs=known.runs + 1, failures=known.failures + failed)
        self._known[known.schedule.name] = changed

    def _effective(self) -> list[Schedule]:
        found = {each.name: each for each in self._configured}
        for name, schedule in self._by_hand.items():
            if schedule is None:
                found.pop(name, None)
            else:
                found[name] = schedule
        return list(found.values())

    # --- the clock -------------------------------------------------------------------------------------

    def step(self, now: float) -> float:
        """Begin what is due; returns seconds until the next look."""
        with self._lock:
            wall = self._clock.wall()
            for known in list(self._known.values()):
                self._look(known, now, wall)
            ready = [name for name, each in self._pending.items() if each.at <= now]
        for name in ready:
            self._begin(name, now)
        with self._lock:
            enabled = [each.schedule for each in self._known.values() if each.schedule.enabled]
            waits = [(next_run(each, wall) - wall) / 1e6 for each in enabled]
            waits += [max(0.0, each.at - now) for each in self._pending.values()]
        return min([LOOK_SECONDS_MAX, *waits])

    def _look(self, known: Known, now: float, wall: int) -> None:
        schedule = known.schedule
        if known.last_due > next_run(schedule, wall):
            # The clock was set back. One run at most is left out, however far ahead it was.
            known = replace(known, last_due=last_due(schedule, wall) or wall)
            self._known[schedule.name] = known
        if not is_missed(schedule, known.last_due, wall):
            return
        due = last_due(schedule, wall)  # however often it was missed: once
        assert due is not None
        waiting = self._pending.get(schedule.name)
        if waiting is not None and waiting.only is None:
            self._pending[schedule.name] = replace(waiting, due=due)
        else:
            late = (with_jitter(schedule, due, self._chance()) - wall) / 1e6
            self._pending[schedule.name] = Pending(now + max(0.0, late), due)

    def _begin(self, name: str, now: float) -> None:
        with self._lock:
            pending = self._pending.pop(name, None)
            known = self._known.get(name)
        if pending is None or known is None or not known.schedule.enabled:
            return  # somebody changed it just now
        try:
            self.run(known.schedule, pending)
        except ReplicatorError as exc:
            if not pending.told:
                log.info("schedule.waits", extra={"schedule": name, "reason": str(exc)})
            with self._lock:
                self._pending[name] = replace(pending, at=now + AGAIN_SECONDS, told=True)

    # --- runs ------------------------------------------------------------------------------------------

    def run(self, schedule: Schedule, pending: Pending | None = None) -> Mapping[str, Future[dict[str, Any]]]:
        """Have it done now; *pending*: what it answers, None by hand. Raises what asking raises."""
        due, only = (pending.due, pending.only) if pending is not None else (None, None)
        kind = {"incremental": INCREMENTAL, "log": LOG}.get(schedule.backup_type, FULL)
        arguments: dict[str, Any] = {"compress": schedule.compress, "verify": schedule.verify}
        if pending is not None:  # who asks by hand is told at once of a store that is away, or full
            arguments["schedule"] = schedule.name
        asked = self._ask(kind, arguments, only)
        if not asked:
            return asked  # the store that it was to be made up in is none any more
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
            with contextlib.suppress(ReplicatorError):  # the next one does
                self._ask(PRUNE, {}, only)
        return asked

    def _ended(self, record: dict[str, Any], name: str, url: str, done: Future[dict[str, Any]]) -> None:
        error = done.exception()
        outcome: dict[str, Any] = {"ended": format_time(self._clock.wall())}
        # Who sets permissions right expects that it goes on, as it does by itself when a network is back.
        passes = isinstance(error, StoreError | SourceError | Interrupted)
        again = record["due"] is not None and passes
        if error is not None:
            outcome |= {"result": "failed", "error": str(error), "again": again}
        else:
            outcome |= {"result": "completed", **done.result()}
        with self._lock:
            record["stores"][url] = outcome
            known = self._known.get(name)
            results = [each["result"] for each in record["stores"].values()]
            if known is not None and "in_progress" not in results:
                self._count(known, failed="failed" in results)
            if again and not isinstance(error, Interrupted):  # then the next start makes up for it
                self._retry(name, url, record["due"])
            self._save()
        self.changed()

    def _retry(self, name: str, url: str, due: str) -> None:
        """In that store alone: the others have it. Whatever was due since does as well."""
        known = self._known.get(name)
        if known is None or format_time(known.last_due) != due:
            return
        waiting = self._pending.get(name)
        if waiting is None:
            at = self._clock.now() + RETRY_SECONDS
            self._pending[name] = Pending(at, known.last_due, frozenset({url}))
        elif waiting.only is not None:
            self._pending[name] = replace(waiting, only=waiting.only | {url})

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
            raise ScheduleNotFound(f"there is no schedule {name!r}", hint="see `schedule list`")
        return known.schedule

    def add(self, schedules: Sequence[Schedule], *, replacing: bool = False) -> None:
        """By hand, all of them or none; *replacing* those of the same names. Raises UsageError."""
        with self._lock:
            for each in schedules:
                if each.name in self._known and not replacing:
                    raise UsageError(
                        f"there is a schedule {each.name!r} already", hint="`schedule update` changes it"
                    )
            for each in schedules:
                self._keep(each)
            self._save()
        self.changed()

    def change(self, schedule: Schedule) -> None:
        """One by hand; the configuration's of the same name counts no more."""
        with self._lock:
            self.find(schedule.name)
            self._keep(schedule)
            self._save()
        self.changed()

    def _keep(self, schedule: Schedule) -> None:
        wall = self._clock.wall()
        before = self._known.get(schedule.name, Known(schedule, wall))
        known = replace(before, schedule=schedule)
        if before.schedule.cron != schedule.cron or not before.schedule.enabled:
            known = replace(known, last_due=wall)  # what would have been due before was not missed
        self._by_hand[schedule.name] = schedule
        self._known[schedule.name] = known
        self._pending.pop(schedule.name, None)

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
                make_folder(os.path.dirname(self._path))
                replace_file(self._path, json.dumps(content).encode())
        except StoreError as exc:
            log.warning("state.unwritten", extra={"error": str(exc)})


def kept_schedules(path: str, configured: Sequence[Schedule], clock: Clock) -> Scheduler:
    """What an agent that does not run will do; nothing can be run by it."""

    def refuse(*_: object) -> Mapping[str, Future[dict[str, Any]]]:
        raise SourceGone("no agent runs that could do it", hint="start it")

    found = Scheduler(path, configured, clock, refuse)
    found.load()
    return found
