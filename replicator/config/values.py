"""Configuration as values: what to replicate, where to, how."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from replicator.capture import FollowSettings
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.codec import DEFAULT, Compression
from replicator.core.errors import ConfigError, UsageError
from replicator.core.retention_policy import Policy, policy_with
from replicator.core.schedule import Schedule
from replicator.core.schedule_file import DEFAULT_SCHEDULES
from replicator.keys import KeySource
from replicator.state import default_state_folder
from replicator.store import folder_of, is_folder, open_store, shown_url

# A lone commit is shipped at once anyway; under sustained commits this bounds the number of objects, each of
# which is a request that somebody pays for unless it is a file of one's own.
SHIP_INTERVAL_FOLDER = 0.05
SHIP_INTERVAL_ELSEWHERE = 1.0
SPOOL_BYTES_MAX = 1 << 30
CAPTURE_INTERVAL_MAX = 1.0
DEFAULT_POLICY = Policy()
# How long live segments gather before they become a log.
LOG_INTERVAL = 900.0
SECONDS_PER_DAY = 86_400
DISABLED = "`enabled` or BACKUP_ENABLED says so"
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
    enabled: bool = True
    compression: Compression = DEFAULT
    verification: bool = True
    encryption: KeySource = field(default_factory=KeySource)
    key_max_age: float = KEY_MAX_AGE
    log_interval: float = LOG_INTERVAL
    schedules: tuple[Schedule, ...] = DEFAULT_SCHEDULES
    retention: Policy = DEFAULT_POLICY
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
        _require_number(self.path, "log_interval", self.log_interval, (int, float))
        _require_number(self.path, "key_max_age", self.key_max_age, (int, float))
        _require_kind(self.path, "compression", self.compression, Compression)
        _require_kind(self.path, "retention", self.retention, Policy)
        object.__setattr__(self, "schedules", tuple(self.schedules))
        for each in self.schedules:
            _require_kind(self.path, "schedules", each, Schedule)

    @property
    def state_folder(self) -> str:
        return self.state or default_state_folder(self.path)

    def require_enabled(self) -> None:
        """Raises UsageError where nothing is to be written to a store."""
        if not self.enabled:
            raise UsageError(f"backups of {self.path} are disabled", hint=DISABLED)

    def policy(self, schedules: Iterable[Schedule]) -> Policy:
        """How long what is kept: the numbers of *schedules* come first, those of the configuration or by hand."""
        return policy_with(self.retention, schedules)

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


def _require_kind(database: str, what: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ConfigError(
            f"`{what}` of {database} is {value!r:.60}", hint=f"it is made of replicator's `{kind.__name__}`"
        )


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """``notices``: what whoever wrote the settings should know."""

    databases: tuple[DatabaseConfig, ...]
    notices: tuple[str, ...] = ()

    def find(self, wanted: str) -> DatabaseConfig | None:
        """The database of that name or path."""
        real = os.path.realpath(wanted)
        return next(
            (each for each in self.databases if each.name == wanted or os.path.realpath(each.path) == real),
            None,
        )


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
