"""What the agent says of itself to `status`: a small file beside its state, rewritten when something changed."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from typing import Any

from replicator.clock import Clock
from replicator.files import lock_holder, read_json, replace_file
from replicator.marks import Marks, Snapshot

log = logging.getLogger(__name__)

# Often enough for a person, rarely enough to cost nothing under load; the last change is always written.
WRITE_SECONDS = 1.0


class StatusFile:
    def __init__(self, path: str, name: str, database: str, marks: Marks, clock: Clock) -> None:
        self._path = path
        self._name = name
        self._database = database
        self._marks = marks
        self._clock = clock
        self._written: Snapshot | None = None
        self._at = float("-inf")
        self._told = False
        self.due = True
        """Whether a change has to wake the task; False while a write is scheduled anyway."""

    def step(self, now: float) -> float | None:
        wait = self._at + WRITE_SECONDS - now
        if wait > 0:
            self.due = False
            return wait
        self.due = True
        if self._marks.snapshot() != self._written:
            self._at = now
            try:
                self.write()
            except OSError as exc:  # a full disk, say: what is replicated matters more than what is told
                if not self._told:
                    log.warning("status.unwritten", extra={"path": self._path, "error": str(exc)})
                self._told, self.due = True, False
                return WRITE_SECONDS
            self._told = False
        return None

    def write(self, *, stopped: bool = False) -> None:
        snapshot = self._marks.snapshot()
        content = encode_snapshot(self._name, self._database, snapshot, self._clock.wall())
        content["pid"] = None if stopped else os.getpid()
        replace_file(self._path, json.dumps(content, indent=1).encode(), durable=False)
        self._written = snapshot


def encode_snapshot(name: str, database: str, snapshot: Snapshot, wall: int) -> dict[str, Any]:
    """The stable object that ``status --json`` prints, but for what only the reader can know."""
    source = asdict(snapshot.source)
    source["captured"] = str(snapshot.source.captured) if snapshot.source.captured else None
    stores: list[dict[str, Any]] = []
    for state in snapshot.stores.values():
        each = asdict(state)
        each["shipped"] = str(state.shipped) if state.shipped else None
        each["protected"] = str(state.protected) if state.protected else None
        each["logged"] = str(state.logged) if state.logged else None
        mine = (error for error in snapshot.errors if error.where.endswith(state.url))
        each["error"] = next((asdict(error) for error in mine), None)
        stores.append(each)
    return {
        "kind": "replicator-status",
        "name": name,
        "database": database,
        "written": wall,
        "source": source,
        "stores": stores,
        "error": asdict(snapshot.error) if snapshot.error else None,
    }


def read_status(state_folder: str) -> dict[str, Any] | None:
    """What the agent wrote last, with ``running``: whether it is alive; None where there never was one."""
    content = read_json(os.path.join(state_folder, "status.json"))
    if content is None:
        return None
    content["running"] = lock_holder(os.path.join(state_folder, "lock")) is not None
    return content
