"""The environment as configuration: the `BACKUP_…` variables, and the names that others use for the same.

A setting that two variables give differently is an error that names both. Names that are not our own are taken with a
notice. What the environment says counts more than a `replicator.yml`.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from replicator.config.settings import (
    GIGABYTE,
    RETENTION,
    days,
    flag,
    hours,
    merged,
    number,
    parse_setting,
    whole,
)
from replicator.config.values import AgentConfig, DatabaseConfig
from replicator.core.errors import ConfigError, ReplicatorError
from replicator.core.quantities import SIZE_BYTES_MAX
from replicator.core.retention_policy import Policy
from replicator.core.schedule import Schedule
from replicator.core.schedule_file import parse_schedules
from replicator.core.variables import (
    ENCRYPT,
    STORE_FAMILIES,
    nearest_of,
    require_encryption_settings,
    require_store_settings,
    said,
    unknown_of_families,
)

# Of a server that keeps its database there; who has another says so.
DATABASE_PATH = "./data/kanban.db"
DIRECTORY = "./backups"
_PROVIDERS = ("local", "s3", "gcs", "azure", "sftp")

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variable:
    """``names``: our own first, then the aliases, each with what it makes of its text. Two of them agree if that is
    equal."""

    names: tuple[tuple[str, Callable[[str], Any]], ...]
    fields: Callable[[Any], Fields]


def _policy(**changes: Any) -> Fields:
    return {RETENTION: lambda policy: replace(policy, **changes)}


def _text(value: str) -> str:
    return value


def _plain(key: str, *names: str) -> Variable:
    """One whose text is that of the file's key."""
    return Variable(tuple((name, lambda text: parse_setting(key, text)) for name in names), dict)


_VARIABLES = (
    _plain("enabled", "BACKUP_ENABLED"),
    _plain("ship_interval", "BACKUP_SHIP_INTERVAL"),
    _plain("spool_limit", "BACKUP_SPOOL_LIMIT"),
    _plain("bandwidth", "BACKUP_BANDWIDTH"),
    _plain("barrier", "BACKUP_BARRIER"),
    _plain("compression", "BACKUP_COMPRESSION", "BACKUP_COMPRESS"),
    _plain("verification", "BACKUP_VERIFICATION", "BACKUP_VERIFY_INTEGRITY"),
    _plain("log_interval", "BACKUP_LOG_INTERVAL"),
    Variable((("BACKUP_KEY_MAX_AGE_DAYS", days),), lambda value: {"key_max_age": value * 86_400.0}),
    Variable((("BACKUP_RETENTION_DAYS", days),), lambda value: _policy(full_days=value)),
    Variable((("BACKUP_INCREMENTAL_RETENTION_DAYS", days),), lambda value: _policy(incremental_days=value)),
    Variable((("BACKUP_LOG_RETENTION_HOURS", hours),), lambda value: _policy(log_hours=value)),
    Variable((("BACKUP_MONTHLY_RETENTION_MONTHS", whole),), lambda value: _policy(months=value)),
    Variable((("BACKUP_MAX_AGE_DAYS", days),), lambda value: _policy(max_age_days=value)),
    Variable(
        (
            (
                "BACKUP_MAX_SIZE_GB",
                lambda text: round(number(text, least=1e-6, most=SIZE_BYTES_MAX // GIGABYTE) * GIGABYTE),
            ),
            ("MAX_BACKUP_SIZE", lambda text: whole(text, least=1, most=1 << 62)),
        ),
        lambda value: _policy(max_bytes=value),
    ),
)  # fmt: skip

_SCHEDULES, _SCHEDULES_FILE = "BACKUP_SCHEDULES", "BACKUP_SCHEDULES_FILE"
_SCHEDULE, _INCREMENTAL = "BACKUP_SCHEDULE", "BACKUP_INCREMENTAL"
_S3_ALIASES = ("S3_REGION", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_ENDPOINT")
# Of whoever wrote them down already.
_LATER = (
    "BACKUP_MONITORING_ENABLED",
    "BACKUP_ALERT_EMAIL",
    "BACKUP_HEALTH_CHECK_INTERVAL",
    "BACKUP_WEBHOOK_URL",
)

_SHORT = reprlib.Repr()
_SHORT.maxstring = 100


@dataclass(frozen=True, slots=True)
class _Schedules:
    """``given`` in place of all; ``full`` in place of those that make fulls."""

    given: tuple[Schedule, ...] | None
    full: Schedule | None
    incremental: bool

    def over(self, schedules: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
        found = schedules if self.given is None else self.given
        if self.full is not None:
            found = (self.full, *(each for each in found if each.backup_type != "full"))
        return tuple(each for each in found if self.incremental or each.backup_type != "incremental")


@dataclass(frozen=True, slots=True)
class Environment:
    """``fields`` of DatabaseConfig that the environment sets, ``policies`` what it changes of the retention.
    ``encrypt``: whether there has to be a key, None where nothing is said; ``key``: the variable that gives it."""

    fields: Fields
    policies: tuple[Callable[[Policy], Policy], ...]
    schedules: _Schedules
    encrypt: bool | None
    key: str | None
    notices: tuple[str, ...]

    def over(self, database: DatabaseConfig) -> DatabaseConfig:
        """*database*, with what the environment says in place of what it had. Raises ConfigError where they do not go
        together."""
        self._check_encrypt(database)
        return replace(
            database,
            **self.fields,
            retention=merged(database.retention, list(self.policies)),
            schedules=self.schedules.over(database.schedules),
        )

    def _check_encrypt(self, database: DatabaseConfig) -> None:
        """BACKUP_ENCRYPT says whether; the key says with what, and has to fit."""
        key = self.key or (f"`encryption` of {database.path}" if database.encryption.configured else None)
        if key is not None and self.encrypt is False:
            raise ConfigError(f"{ENCRYPT} says false, and {key} is set", hint="leave one of them")
        if key is None and self.encrypt:
            raise ConfigError(
                f"{ENCRYPT} is set, and no key",
                hint="set BACKUP_ENCRYPTION_KEY; `replicator key generate` makes one",
            )


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """The settings that hold for every database. Raises ConfigError, naming the variable and its value."""
    require_encryption_settings(environ)
    require_store_settings(environ)
    fields: Fields = {}
    policies: list[Callable[[Policy], Policy]] = []
    notices: list[str] = []
    for variable in _VARIABLES:
        found = _one_of(variable.names, environ, notices)
        if found is None:
            continue
        parsed = variable.fields(found[1])
        if RETENTION in parsed:
            policies.append(parsed[RETENTION])
        else:
            fields |= parsed
    schedules = _schedules(environ, notices)
    encrypt = _one_of(((ENCRYPT, flag),), environ, notices)
    if encrypt is not None:
        notices.append(f"{ENCRYPT} only confirms what BACKUP_ENCRYPTION_KEY says")
    begins = ("BACKUP_ENCRYPTION_KEY", "BACKUP_ENCRYPTION_PASSPHRASE")
    keys = [name for name in environ if name.startswith(begins) and environ[name]]
    notices += _notices(environ)
    return Environment(
        fields, tuple(policies), schedules, encrypt[1] if encrypt else None, keys[0] if keys else None, tuple(notices)
    )  # fmt: skip


def _one_of(
    names: tuple[tuple[str, Callable[[str], Any]], ...], environ: Mapping[str, str], notices: list[str]
) -> tuple[str, Any] | None:
    """The variable that is set, and its value; None where none is. All that are set have to agree."""
    found: list[tuple[str, Any]] = []
    for name, parse in names:
        if not environ.get(name, "").strip():
            continue
        try:
            found.append((name, parse(environ[name].strip())))
        except ReplicatorError as exc:
            raise ConfigError(f"{name}: {exc}", hint=exc.hint) from exc
        if name != names[0][0]:
            notices.append(f"{name} is taken for {names[0][0]}")
    for name, value in found[1:]:
        if value != found[0][1]:
            _refuse(found[0][0], environ[found[0][0]], name, environ[name])
    return found[0] if found else None


def _refuse(one: str, value: str, other: str, another: str) -> None:
    raise ConfigError(
        f"{one} and {other} say different things: {_SHORT.repr(value)} and {_SHORT.repr(another)}",
        hint="leave one of them",
    )


def _notices(environ: Mapping[str, str]) -> list[str]:
    found = [
        f"{name} is taken for BACKUP_{name}"
        for name in _S3_ALIASES
        if environ.get(name, "").strip() and not environ.get(f"BACKUP_{name}", "").strip()
    ]
    if later := [name for name in _LATER if environ.get(name, "").strip()]:
        found.append(f"{', '.join(later)}: without effect in this version, which neither watches nor alerts")
    known = {name for variable in _VARIABLES for name, _ in variable.names}
    known |= {_SCHEDULES, _SCHEDULES_FILE, _SCHEDULE, _INCREMENTAL, *_TELLING, *_LATER}
    unknown = unknown_of_families(environ)
    found += [f"{name} is no setting, and without effect" for name in unknown]
    for name in environ:
        if (
            name.startswith("BACKUP_")
            and name not in known
            and not name.startswith((*STORE_FAMILIES, ENCRYPT))
        ):
            near = nearest_of(name, sorted(known))
            if near is not None:
                found.append(f"{name} is no setting, and without effect; did you mean {near}?")
    return found


def _schedules(environ: Mapping[str, str], notices: list[str]) -> _Schedules:
    given = _one_of(((_SCHEDULES, _parse_schedules), (_SCHEDULES_FILE, _read_schedules)), environ, [])
    full = _one_of(((_SCHEDULE, _parse_full),), environ, notices)
    incremental = _one_of(((_INCREMENTAL, flag),), environ, notices)
    if full is not None:
        notices.append(f"{_SCHEDULE} is taken for when full backups are made")
    if incremental is not None:
        notices.append(f"{_INCREMENTAL} is taken for whether incremental backups are made")
    if given is not None:
        name, schedules = given
        for each in schedules:
            if full is not None and each.backup_type == "full" and each.cron != full[1].cron:
                _refuse(_SCHEDULE, full[1].cron, name, f"{each.name}: {each.cron}")
            if incremental is not None and not incremental[1] and each.backup_type == "incremental":
                _refuse(_INCREMENTAL, environ[_INCREMENTAL], name, f"{each.name}: {each.cron}")
        if any(each.backup_type == "full" for each in schedules):
            full = None  # they say the same, and more
    return _Schedules(
        given[1] if given is not None else None,
        full[1] if full is not None else None,
        incremental is None or incremental[1],
    )


def _parse_schedules(text: str) -> tuple[Schedule, ...]:
    found: tuple[Schedule, ...] = parse_setting("schedules", text)["schedules"]
    return found


def _read_schedules(path: str) -> tuple[Schedule, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 20)
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}", hint="correct it") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is no text", hint="correct it") from exc
    return _parse_schedules(text)


def _parse_full(cron: str) -> Schedule:
    return parse_schedules({"name": "full-backup", "cron": cron, "type": "full"})[0]


# --- what to replicate, and where to -------------------------------------------------------------------

_DIRECTORIES = ("BACKUP_DIRECTORY", "DATABASE_BACKUP_PATH", "BACKUP_DIR", "BACKUP_PATH")
_PROVIDER_NAMES = ("BACKUP_STORAGE_PROVIDER", "STORAGE_PROVIDER")
_STORES = "BACKUP_STORES"
_TELLING = ("DATABASE_PATH", _STORES, *_DIRECTORIES, *_PROVIDER_NAMES)


def environment_config(environ: Mapping[str, str] = os.environ) -> AgentConfig | None:
    """The one database that the environment speaks of; None where it speaks of none."""
    if not any(environ.get(name, "").strip() for name in _TELLING):
        return None
    notices: list[str] = []
    path = environ.get("DATABASE_PATH", "").strip() or DATABASE_PATH
    environment = read_environment(environ)
    database = DatabaseConfig(path, _stores(environ, notices), os.path.basename(path))
    return AgentConfig((environment.over(database),), (*notices, *environment.notices))


def _stores(environ: Mapping[str, str], notices: list[str]) -> tuple[str, ...]:
    directory = _one_of(tuple((name, _text) for name in _DIRECTORIES), environ, notices)
    if urls := environ.get(_STORES, "").split():
        if directory is not None and directory[1] not in urls:
            notices.append(f"{directory[0]} is without effect beside {_STORES}")
        return tuple(urls)
    provider = _one_of(tuple((name, str.lower) for name in _PROVIDER_NAMES), environ, notices)
    kind = provider[1] if provider is not None else "local"
    if kind not in _PROVIDERS:
        raise ConfigError(
            f"{provider[0] if provider else ''} is {said(kind)}", hint=f"it is one of {', '.join(_PROVIDERS)}"
        )
    if kind == "local":
        return (directory[1] if directory is not None else DIRECTORY,)
    if directory is not None:
        notices.append(f"{directory[0]} is without effect where the provider is {kind}")
    return (_remote(kind, environ, notices),)


def _remote(kind: str, environ: Mapping[str, str], notices: list[str]) -> str:
    def needed(*names: str) -> str:
        found = _one_of(tuple((name, _text) for name in names), environ, notices)
        if found is None:
            raise ConfigError(
                f"the provider is {kind}, and {names[0]} is not set", hint=f"set it, or {_STORES}"
            )
        return str(found[1])

    def below(name: str) -> str:
        prefix = environ.get(name, "").strip("/ ")
        return f"/{prefix}" if prefix else ""

    if kind == "s3":
        return f"s3://{needed('BACKUP_S3_BUCKET', 'S3_BUCKET')}{below('BACKUP_S3_PREFIX')}"
    if kind == "gcs":
        return f"gs://{needed('BACKUP_GCS_BUCKET')}{below('BACKUP_GCS_PREFIX')}"
    if kind == "azure":
        account, container = needed("BACKUP_AZURE_ACCOUNT"), needed("BACKUP_AZURE_CONTAINER")
        return f"azure://{account}/{container}{below('BACKUP_AZURE_PREFIX')}"
    return needed("BACKUP_SFTP_URL")
