"""Configuration: what to replicate, where to, how. Flags over a `replicator.yml`."""

from __future__ import annotations

import difflib
import math
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from replicator.capture import FollowSettings
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.codec import DEFAULT, Compression, parse_compression
from replicator.core.errors import ConfigError, UsageError
from replicator.core.quantities import parse_duration, parse_size
from replicator.keys import KeySource
from replicator.state import default_state_folder
from replicator.store import folder_of, is_folder, is_plain_path, open_store, shown_url

T = TypeVar("T")
D = TypeVar("D")

# A lone commit is shipped at once anyway; under sustained commits this bounds the number of objects, each of
# which is a request that somebody pays for unless it is a file of one's own.
SHIP_INTERVAL_FOLDER = 0.05
SHIP_INTERVAL_ELSEWHERE = 1.0
SPOOL_BYTES_MAX = 1 << 30
CAPTURE_INTERVAL_MAX = 1.0
SECONDS_PER_DAY = 86_400
# Of a configuration: brackets within brackets, and settings of one database with those that are merged into it.
DEPTH_MAX = 50
MERGED_MAX = 1_000
# After it a key is called old. Nobody gave a number; this is what most rules ask for.
KEY_MAX_AGE = 90.0 * SECONDS_PER_DAY


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """One database. Durations in seconds, sizes in bytes; without a ``ship_interval`` each kind of store has
    its own, without a ``bandwidth`` (bytes a second, for each store) there is no limit.

    Paths and stores may be given as ``os.PathLike``; they are kept as text. Raises ConfigError for what no
    database can have. It may have no store: to be asked about, that is; an agent refuses it.
    """

    path: str
    stores: tuple[str, ...]
    name: str = ""
    state: str | None = None
    ship_interval: float | None = None
    spool_bytes_max: int = SPOOL_BYTES_MAX
    bandwidth: int | None = None
    barrier: bool = True
    compression: Compression = DEFAULT
    verification: bool = True
    encryption: KeySource = field(default_factory=KeySource)
    key_max_age: float = KEY_MAX_AGE
    wait: bool = True
    take_over: bool = False

    def __post_init__(self) -> None:
        # Frozen for everybody else.
        object.__setattr__(self, "path", _path_text("path", self.path))
        object.__setattr__(self, "stores", _store_texts(self.path, self.stores))
        if self.state is not None:
            object.__setattr__(self, "state", _path_text("state", self.state))
        if self.ship_interval is not None:
            _require_number(self.path, "ship_interval", self.ship_interval, (int, float))
        if self.bandwidth is not None:
            _require_number(self.path, "bandwidth", self.bandwidth, (int,))
            if self.bandwidth == 0:
                raise ConfigError(f"`bandwidth` of {self.path} is 0", hint="leave it out for no limit")
        _require_number(self.path, "spool_bytes_max", self.spool_bytes_max, (int,))

    @property
    def state_folder(self) -> str:
        return self.state or default_state_folder(self.path)

    @property
    def follow(self) -> FollowSettings:
        limits = CheckpointLimits(barrier=self.barrier)
        return FollowSettings(
            interval=self.capture_interval, limits=limits, compression=self.compression, wait=self.wait
        )

    @property
    def capture_interval(self) -> float:
        """Captured units are what checkpoints wait for, so they never wait longer than a second themselves."""
        return min([self.interval_of(url) for url in self.stores] + [CAPTURE_INTERVAL_MAX])

    def interval_of(self, url: str) -> float:
        """How often a segment goes to the store at *url* under load."""
        if self.ship_interval is not None:
            return self.ship_interval
        return SHIP_INTERVAL_FOLDER if is_folder(url) else SHIP_INTERVAL_ELSEWHERE

    def ship_pause_of(self, url: str) -> float:
        """Between two puts. Nothing for a folder where capture keeps that pace already, or a commit would wait twice;
        elsewhere a put costs money, and capture is at work more often where somebody's checkpoint waits for it."""
        interval = self.interval_of(url)
        return 0.0 if is_folder(url) and interval <= self.capture_interval else interval


def _path_text(what: str, value: object) -> str:
    try:
        text = os.fsdecode(value)  # type: ignore[arg-type]  # of any type: callers need not be checked
    except TypeError:
        raise ConfigError(f"`{what}` of a database is no path but a {type(value).__name__}") from None
    if not text or "\0" in text:
        fault = "it has a zero byte in it" if text else "it is empty"
        raise ConfigError(f"`{what}` of a database is no path: {fault}", hint="name a file")
    return text


def _store_texts(database: str, stores: object) -> tuple[str, ...]:
    # A text is a sequence of texts, too: each of its letters would become a folder.
    if isinstance(stores, (str, bytes, os.PathLike)) or not isinstance(stores, Iterable):
        raise ConfigError(
            f"`stores` of {database} is no list of store URLs but a {type(stores).__name__}",
            hint="put it in a list",
        )
    return tuple(_path_text("stores", each) for each in stores)


def _require_number(database: str, what: str, value: object, kinds: tuple[type, ...]) -> None:
    known = isinstance(value, kinds) and not isinstance(value, bool)
    if not known or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"`{what}` of {database} is {value!r}", hint="it is a number, 0 or more")


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


_SHARED_KEYS = (
    "ship_interval",
    "spool_limit",
    "bandwidth",
    "barrier",
    "compression",
    "verification",
    "encryption",
    "key_max_age",
)
_TOP_KEYS = ("databases", *_SHARED_KEYS)
_DATABASE_KEYS = ("path", "stores", "name", "state", *_SHARED_KEYS)
_ENCRYPTION_KEYS = ("key_file", "key_command", "passphrase_file", "passphrase_command")


def load_config(path: str) -> AgentConfig:
    """Read a `replicator.yml`. Every key that is not known is an error that names the nearest known one."""
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
    databases = tuple(_database(each, loaded, folder, path) for each in entries)
    try:
        require_distinct(databases)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}", hint=exc.hint) from exc
    return AgentConfig(databases)


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


def _database(entry: Any, defaults: Mapping[str, Any], folder: str, path: str) -> DatabaseConfig:
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
    merged = {**{key: defaults[key] for key in defaults if key != "databases"}, **entry}
    database = os.path.join(folder, entry["path"])
    barrier = _plain(merged, "barrier", path) or "auto"
    if barrier not in ("auto", "never"):
        raise ConfigError(f"{path}: `barrier` is neither `auto` nor `never`", hint="it is `auto` or `never`")
    name, state = _plain(entry, "name", path), _plain(entry, "state", path)
    texts = {key: _plain(merged, key, path) for key in ("spool_limit", "compression", *_WITHOUT_DEFAULT)}
    try:
        return DatabaseConfig(
            path=database,
            stores=tuple(os.path.join(folder, each) if is_plain_path(each) else each for each in stores),
            name=name or os.path.basename(database),
            state=os.path.join(folder, state) if state else None,
            ship_interval=_parsed(parse_duration, texts["ship_interval"], None),
            spool_bytes_max=_parsed(parse_size, texts["spool_limit"], SPOOL_BYTES_MAX),
            bandwidth=_parsed(parse_size, texts["bandwidth"], None),
            barrier=barrier == "auto",
            compression=_parsed(parse_compression, texts["compression"], DEFAULT),
            verification=_flag(merged, "verification", path),
            key_max_age=_parsed(parse_duration, texts["key_max_age"], KEY_MAX_AGE),
            encryption=_key_source(merged.get("encryption", {}), folder, path),
        )
    except (UsageError, ConfigError) as exc:
        raise ConfigError(f"{path}: {exc}", hint=exc.hint) from exc


_WITHOUT_DEFAULT = ("ship_interval", "bandwidth", "key_max_age")


def _plain(settings: Mapping[str, Any], key: str, path: str) -> str:
    """A setting as text; empty where it is not given, or empty. What has more in it is never written out: a few lines
    may stand for more than fits into memory."""
    value = settings.get(key)
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise ConfigError(f"{path}: `{key}` is not a plain value", hint="write one, without brackets")
    return str(value)


def _parsed(parse: Callable[[str], T], text: str, default: D) -> T | D:
    return parse(text) if text else default


def _flag(merged: Mapping[str, Any], key: str, path: str) -> bool:
    value = merged.get(key, True)
    if not isinstance(value, bool):
        raise ConfigError(f"{path}: `{key}` is neither true nor false", hint="it is true or false")
    return value


def _key_source(entry: Any, folder: str, path: str) -> KeySource:
    """Where the operator's key is read from; the key itself does not belong into a configuration."""
    if not isinstance(entry, dict) or not all(isinstance(value, str) and value for value in entry.values()):
        raise ConfigError(
            f"{path}: `encryption` is no mapping of {', '.join(_ENCRYPTION_KEYS)}",
            hint="`encryption: {key_file: /etc/replicator/key}`; the key itself never stands in here",
        )
    _check_keys(entry, _ENCRYPTION_KEYS, path)
    for kind in ("key", "passphrase"):
        if f"{kind}_file" in entry and f"{kind}_command" in entry:
            raise ConfigError(
                f"{path}: `{kind}_file` and `{kind}_command` are both given", hint="leave out one"
            )
    files = {key: os.path.join(folder, entry[key]) for key in entry if key.endswith("_file")}
    return KeySource(**{**entry, **files})


def _check_keys(found: Mapping[Any, Any], known: tuple[str, ...], path: str) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(known)}"
            raise ConfigError(f"{path}: unknown setting {key!r}", hint=hint)


def require_distinct(databases: Iterable[DatabaseConfig]) -> None:
    """Refuse two that would write over each other, however each of them is spelt. Raises ConfigError."""
    found = tuple(databases)
    for what, values in (
        ("database", [os.path.realpath(each.path) for each in found]),
        ("name", [each.name for each in found if each.name]),
        ("state folder", [os.path.realpath(each.state_folder) for each in found]),
        ("store", [_place_of(url) for each in found for url in each.stores]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ConfigError(f"the same {what} stands twice: {twice}", hint="leave out one of them")


def _place_of(url: str) -> str:
    """What a store's URL comes down to. One that cannot be opened is told of by whoever opens it."""
    try:
        place = open_store(url).url
    except UsageError:
        return shown_url(url)
    folder = folder_of(place)
    return place if folder is None else "file://" + os.path.realpath(folder)
