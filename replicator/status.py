"""What the agent says of itself to `status`: a small file beside its state, rewritten when something changed."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict
from types import NoneType
from typing import Any

from replicator.clock import Clock
from replicator.core.times import MICROS_MAX, MICROS_MIN
from replicator.files import lock_holder, read_json, replace_file
from replicator.marks import Marks, Snapshot, SourceState, StoreState

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
    """What the agent wrote last, with ``running``: whether it is alive; None where there never was one, or where it is
    not what an agent writes. What an earlier version did not write yet is as if nothing of it had happened."""
    content = read_json(os.path.join(state_folder, "status.json"))
    if content is None or not _is_whole(content):
        return None
    content["running"] = lock_holder(os.path.join(state_folder, "lock")) is not None
    return content


_SOURCE: dict[str, Any] = asdict(SourceState())
_STORE: dict[str, Any] = {**asdict(StoreState("")), "error": None}
_POSITION = re.compile(r"[0-9a-f]{16}/[0-9a-f]{16}")


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether every value is of its kind; those that are missing are put in."""
    source, stores = content.get("source"), content.get("stores")
    if not isinstance(source, dict) or not isinstance(stores, list):
        return False
    content["source"] = {**_SOURCE, **source}
    content["stores"] = [{**_STORE, **each} if isinstance(each, dict) else {} for each in stores]
    return (
        all(isinstance(content.get(key), str) for key in ("name", "database"))
        and _is_alike(content.get("written"), 0)
        and (content.setdefault("pid", None) is None or _is_alike(content["pid"], 0))
        and _is_error(content.setdefault("error", None))
        and all(_is_alike(content["source"][key], default) for key, default in _SOURCE.items())
        and all(
            each
            and each["url"]
            and _is_error(each["error"])
            and all(_is_alike(each[key], default) for key, default in _STORE.items() if key != "error")
            for each in content["stores"]
        )
    )


def _is_alike(value: Any, default: Any) -> bool:
    if default is None:
        return value is None or (isinstance(value, str) and bool(_POSITION.fullmatch(value)))
    if type(default) is float:
        return type(value) in (int, float) and 0 <= value <= MICROS_MAX
    # Sizes and counts have the same bound as times: it is far beyond any.
    return type(value) is type(default) and (type(value) is not int or MICROS_MIN <= value <= MICROS_MAX)


def _is_error(said: Any) -> bool:
    return said is None or (
        isinstance(said, dict)
        and _is_alike(said.get("at"), 0)
        and all(isinstance(said.get(key), str) for key in ("where", "message"))
        and isinstance(said.setdefault("hint", None), (str, NoneType))
    )
