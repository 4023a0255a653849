"""Requests: what a command may ask the running agent for (control.py), and what becomes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from replicator.control import Handler, Tell
from replicator.core.errors import ReplicatorError, SourceGone, UsageError
from replicator.core.schedule_file import parse_schedules, schedule_document
from replicator.core.times import MICROS_MAX, MICROS_MIN
from replicator.follower import Follower
from replicator.jobs import FULL, FULL_ANEW, INCREMENTAL, LOG, PRUNE, REPAIR
from replicator.scheduler import Scheduler

# How often whoever waits is told that it goes on; a client that has gone is found out by it.
TELL_SECONDS = 5.0

Asked = Mapping[str, Future[dict[str, Any]]]
"""By store."""


class Requests:
    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = {os.path.realpath(each.path): each for each in followers}

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "backup": self._backup,
            "prune": self._prune,
            "prune-plan": self._prune_plan,
            "repair": self._repair,
            "schedule": self._schedule,
        }

    def _follower(self, database: str) -> Follower:
        found = self._followers.get(database)
        if found is None:
            raise SourceGone(f"the agent does not replicate {database}", hint="see `status`")
        return found

    def _backup(self, database: str, arguments: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        kind = arguments.get("type")
        if kind == FULL_ANEW:  # a type of its own: an agent that does not know it refuses
            return outcomes(self._follower(database).ask(FULL, {"anew": True}), tell)
        if kind not in (FULL, INCREMENTAL, LOG):
            raise UsageError(f"no backup of type {kind!r} is known", hint="it is full, incremental or log")
        return outcomes(self._follower(database).ask(str(kind), {}), tell)

    def _prune(self, database: str, arguments: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        return self._pruned(database, arguments, tell, {})

    def _prune_plan(self, database: str, arguments: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """A verb of its own: an agent that does not know it refuses, and does not prune."""
        return self._pruned(database, arguments, tell, {"dry": True})

    def _pruned(
        self, database: str, arguments: Mapping[str, Any], tell: Tell, how: Mapping[str, Any]
    ) -> dict[str, Any]:
        """In all stores, or in the one that ``store`` names."""
        before, store = arguments.get("before"), arguments.get("store")
        if before is not None and (type(before) is not int or not MICROS_MIN <= before <= MICROS_MAX):
            raise UsageError(f"`before` is {before!r}", hint="it is a time in microseconds since 1970")
        if store is not None and not isinstance(store, str):
            raise UsageError(f"`store` is {store!r}", hint="it is the URL of one store")
        only = None if store is None else {store}
        asked = self._follower(database).ask(PRUNE, {"before": before, **how}, only)
        if not asked:
            raise UsageError(f"the agent does not replicate {database} to {store}", hint="see `status`")
        return outcomes(asked, tell)

    def _repair(self, database: str, arguments: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        store, names = arguments.get("store"), arguments.get("names")
        named = isinstance(names, list) and all(isinstance(each, str) for each in names)
        if not isinstance(store, str) or not named:
            raise UsageError("a repair is of one `store`, and of the objects in `names`")
        asked = self._follower(database).ask(REPAIR, {"names": names}, {store})
        if not asked:
            raise UsageError(f"the agent does not replicate {database} to {store}", hint="see `status`")
        return outcomes(asked, tell)

    def _schedule(self, database: str, arguments: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        scheduler = self._follower(database).scheduler
        if arguments.get("do") == "run":
            return outcomes(scheduler.run(scheduler.find(str(arguments.get("name")))), tell)
        return change_schedules(scheduler, arguments)


def change_schedules(scheduler: Scheduler, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``do``: list, create (in place of those of the same names where ``replace`` is true), update (what ``schedule``
    names of the one called ``name``) or delete. Returns {schedules, runs}. Raises UsageError, ConfigError."""
    verb, name = arguments.get("do"), str(arguments.get("name"))
    if verb == "create":
        scheduler.add(parse_schedules(arguments.get("schedule")), replacing=arguments.get("replace") is True)
    elif verb == "update":
        said = arguments.get("schedule")
        if not isinstance(said, Mapping) or said.get("name", name) != name:
            raise UsageError(f"{said!r:.60} is no change of {name!r}", hint="its name stays")
        changed = {**schedule_document(scheduler.find(name)), **said}
        scheduler.change(parse_schedules(changed)[0])
    elif verb == "delete":
        scheduler.remove(name)
    elif verb != "list":
        raise UsageError(f"the agent that runs does not know {verb!r}", hint="is it of an older version?")
    return {"schedules": scheduler.describe(), "runs": scheduler.runs}


def outcomes(asked: Asked, tell: Tell, *, between: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Wait for all: {stores: {url: outcome, or {error, hint, exit_code}}}. Raises it where every store has one."""
    found: dict[str, Any] = {}
    errors: list[ReplicatorError] = []
    for url, future in asked.items():
        while True:
            try:
                found[url] = future.result(timeout=TELL_SECONDS)
                break
            except NotYet:
                between()
                tell(f"{url}: under way")
            except ReplicatorError as exc:
                errors.append(exc)
                found[url] = exc.document()
                break
    if errors and len(errors) == len(found):
        raise errors[0]
    return {"stores": found}
