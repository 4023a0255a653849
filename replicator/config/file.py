"""A `replicator.yml`: every key that is not known is an error that names the nearest known one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import yaml

from replicator.config.environment import Environment, read_environment
from replicator.config.settings import (
    ENCRYPTION,
    RETENTION,
    SHARED_KEYS,
    key_source,
    merged,
    nearest,
    parse_setting,
    plain,
)
from replicator.config.values import AgentConfig, DatabaseConfig, require_distinct
from replicator.core.errors import ConfigError, UsageError
from replicator.core.retention_policy import Policy
from replicator.store import is_plain_path

# Brackets within brackets, and settings of one database with those that are merged into it.
DEPTH_MAX = 50
MERGED_MAX = 1_000
_TOP_KEYS = ("databases", *SHARED_KEYS)
_DATABASE_KEYS = ("path", "stores", "name", "state", *SHARED_KEYS)


def load_config(path: str, environ: Mapping[str, str] = os.environ) -> AgentConfig:
    """Read the file at *path*; what the environment says counts more. Raises ConfigError."""
    loaded = _read_yaml(path)
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{path} holds no settings", hint="it begins with `databases:`, see `etc/replicator.yml`"
        )
    _check_keys(loaded, _TOP_KEYS, path)
    entries = loaded.get("databases")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: `databases` is no list of databases")
    folder = os.path.dirname(os.path.abspath(path))
    environment = read_environment(environ)
    databases = tuple(_database(each, loaded, folder, path, environment) for each in entries)
    try:
        require_distinct(databases)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}", hint=exc.hint) from exc
    return AgentConfig(databases, environment.notices)


class _Loader(yaml.SafeLoader):
    """YAML lets a key stand twice and takes the last one: half of what was written would not be followed. And it lets
    a few lines stand for more than fits into memory: nobody means that."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level > DEPTH_MAX:
            raise RecursionError
        super().fetch_flow_collection_start(token)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MERGED_MAX:
            raise ConfigError("what is merged has too many settings", hint="merge less, or once only")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue  # what is merged may be overridden
            if (key.tag, key.value) in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"`{key.value}` stands twice, again in line {line}", hint="leave out one")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _read_yaml(path: str) -> Any:
    try:
        with open(path, encoding="utf-8", opener=_unwaiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError("this is not a regular file")
            return yaml.load(file, _Loader)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}", hint=exc.hint) from exc
    except OSError as exc:
        raise ConfigError(f"cannot read configuration {path}: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    except (ValueError, LookupError, AttributeError, TypeError):
        # Of the parser itself, for `!!int x` or the 99th of a month. Not chained: the value may be a secret.
        raise ConfigError(f"{path} is not YAML: a value is none of its kind") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply", hint="see `etc/replicator.yml`") from None


def _unwaiting(path: str, flags: int) -> int:
    """A pipe that nobody writes to is opened all the same, and can be refused."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _database(
    entry: Any, defaults: Mapping[str, Any], folder: str, path: str, environment: Environment
) -> DatabaseConfig:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: a database is no mapping", hint="`- path: app.db`, and `stores` below it")
    _check_keys(entry, _DATABASE_KEYS, path)
    if not isinstance(entry.get("path"), str) or not entry["path"]:
        raise ConfigError(f"{path}: a database has no `path`")
    stores = entry.get("stores")
    if (
        not isinstance(stores, list)
        or not stores
        or not all(isinstance(each, str) and each for each in stores)
    ):
        raise ConfigError(f"{path}: `stores` of {entry['path']} is no list of store URLs")
    database = os.path.join(folder, entry["path"])
    try:
        found = DatabaseConfig(
            path=database,
            stores=tuple(os.path.join(folder, each) if is_plain_path(each) else each for each in stores),
            name=_text(entry, "name") or os.path.basename(database),
            state=os.path.join(folder, state) if (state := _text(entry, "state")) else None,
            **_shared(defaults, entry, folder),
        )
    except (UsageError, ConfigError) as exc:
        raise ConfigError(f"{path}: {exc}", hint=exc.hint) from exc
    return environment.over(found)


def _text(entry: Mapping[str, Any], key: str) -> str:
    """Empty where it is not given."""
    value = entry.get(key)
    if value is None:
        return ""
    try:
        return str(plain(value))
    except UsageError as exc:
        raise ConfigError(f"`{key}`: {exc}", hint=exc.hint) from exc


def _shared(defaults: Mapping[str, Any], entry: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The settings of the database itself over those for all."""
    fields: dict[str, Any] = {}
    policies: list[Callable[[Policy], Policy]] = []
    for written in (defaults, entry):
        for key in written:
            if key not in SHARED_KEYS:
                continue
            try:
                if key == ENCRYPTION:
                    fields[ENCRYPTION] = key_source(written[key], lambda each: os.path.join(folder, each))
                    continue
                parsed = parse_setting(key, written[key])
            except (UsageError, ConfigError) as exc:
                raise ConfigError(f"`{key}`: {exc}", hint=exc.hint) from exc
            if RETENTION in parsed:
                policies.append(parsed[RETENTION])
            else:
                fields |= parsed
    if policies:
        fields[RETENTION] = merged(Policy(), policies)
    return fields


def _check_keys(found: Mapping[Any, Any], known: tuple[str, ...], path: str) -> None:
    for key in found:
        if key not in known:
            raise ConfigError(f"{path}: unknown setting {key!r}", hint=nearest(key, known))
