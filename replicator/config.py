"""Configuration: what to replicate, where to, how. Flags over a `replicator.yml`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from replicator.capture import FollowSettings
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.errors import ConfigError, UsageError
from replicator.core.quantities import parse_duration, parse_size
from replicator.state import default_state_folder

# A lone commit is shipped at once anyway; under sustained commits this bounds the number of objects.
SHIP_INTERVAL_FOLDER = 0.05
SPOOL_BYTES_MAX = 1 << 30
CAPTURE_INTERVAL_MAX = 1.0


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """One database. Durations in seconds, sizes in bytes."""

    path: str
    stores: tuple[str, ...]
    name: str = ""
    state: str | None = None
    ship_interval: float = SHIP_INTERVAL_FOLDER
    spool_bytes_max: int = SPOOL_BYTES_MAX
    barrier: bool = True
    wait: bool = True
    take_over: bool = False

    @property
    def state_folder(self) -> str:
        return self.state or default_state_folder(self.path)

    @property
    def follow(self) -> FollowSettings:
        limits = CheckpointLimits(barrier=self.barrier)
        return FollowSettings(interval=self.capture_interval, limits=limits, wait=self.wait)

    @property
    def capture_interval(self) -> float:
        """Captured units are what checkpoints wait for, so they never wait longer than a second themselves."""
        return min(self.ship_interval, CAPTURE_INTERVAL_MAX)

    @property
    def ship_pause(self) -> float:
        """Between two puts: nothing where capture keeps that pace already, or a commit would wait twice."""
        return 0.0 if self.ship_interval <= self.capture_interval else self.ship_interval


@dataclass(frozen=True, slots=True)
class AgentConfig:
    databases: tuple[DatabaseConfig, ...]

    def find(self, wanted: str) -> DatabaseConfig | None:
        """The database of that name or path."""
        real = os.path.realpath(wanted)
        return next(
            (each for each in self.databases if each.name == wanted or os.path.realpath(each.path) == real),
            None,
        )


_TOP_KEYS = ("databases", "ship_interval", "spool_limit", "barrier")
_DATABASE_KEYS = ("path", "stores", "name", "state", "ship_interval", "spool_limit", "barrier")


def load_config(path: str) -> AgentConfig:
    """Read a `replicator.yml`. Every key that is not known is an error that names the nearest known one."""
    try:
        with open(path, encoding="utf-8") as file:
            loaded = yaml.safe_load(file)
    except OSError as exc:
        raise ConfigError(f"cannot read configuration {path}: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{path} holds no settings", hint="it begins with `databases:`, see `etc/replicator.yml`"
        )
    _check_keys(loaded, _TOP_KEYS, path)
    entries = loaded.get("databases")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: `databases` is no list of databases")
    folder = os.path.dirname(os.path.abspath(path))
    databases = tuple(_database(each, loaded, folder, path) for each in entries)
    _check_distinct(databases, path)
    return AgentConfig(databases)


def _database(entry: Any, defaults: Mapping[str, Any], folder: str, path: str) -> DatabaseConfig:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: a database is no mapping: {entry!r}")
    _check_keys(entry, _DATABASE_KEYS, path)
    if not isinstance(entry.get("path"), str):
        raise ConfigError(f"{path}: a database has no `path`")
    stores = entry.get("stores")
    if not isinstance(stores, list) or not stores or not all(isinstance(each, str) for each in stores):
        raise ConfigError(f"{path}: `stores` of {entry['path']} is no list of store URLs")
    merged = {**{key: defaults[key] for key in defaults if key != "databases"}, **entry}
    database = os.path.join(folder, entry["path"])
    barrier = merged.get("barrier", "auto")
    if barrier not in ("auto", "never"):
        raise ConfigError(f"{path}: `barrier` is {barrier!r}", hint="it is `auto` or `never`")
    try:
        return DatabaseConfig(
            path=database,
            stores=tuple(each if "://" in each else os.path.join(folder, each) for each in stores),
            name=str(entry.get("name") or os.path.basename(database)),
            state=os.path.join(folder, str(entry["state"])) if entry.get("state") else None,
            ship_interval=parse_duration(str(merged.get("ship_interval", f"{SHIP_INTERVAL_FOLDER}s"))),
            spool_bytes_max=parse_size(str(merged.get("spool_limit", SPOOL_BYTES_MAX))),
            barrier=barrier == "auto",
        )
    except UsageError as exc:
        raise ConfigError(f"{path}: {exc}", hint=exc.hint) from exc


def _check_keys(found: Mapping[Any, Any], known: tuple[str, ...], path: str) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(known)}"
            raise ConfigError(f"{path}: unknown setting {key!r}", hint=hint)


def _check_distinct(databases: tuple[DatabaseConfig, ...], path: str) -> None:
    for what, values in (
        ("database", [os.path.realpath(each.path) for each in databases]),
        ("name", [each.name for each in databases]),
        ("store", [url for each in databases for url in each.stores]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ConfigError(f"{path}: the same {what} stands twice: {twice}")
