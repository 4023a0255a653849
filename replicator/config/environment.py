"""The environment as configuration: the `BACKUP_…` variables, and the names that others use for the same.

A setting that two variables give differently is an error that names both. Names that are not our own are taken with a
notice. What the environment says counts more than a `replicator.yml`.
"""

from __future__ import annotations

import os
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
from replicator.core.errors import ConfigError, ReplicatorError, UsageError
from replicator.core.retention_policy import Policy
from replicator.core.schedule import Schedule
from replicator.core.schedule_file import DEFAULT_SCHEDULES, parse_schedules

# Of a server that keeps its database there; who has another says so.
DATABASE_PATH = "./data/kanban.db"
DIRECTORY = "./backups"
_PROVIDERS = ("local", "s3", "gcs", "azure", "sftp")

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variable:
    """``names``: our own first, then the aliases, each with what it makes of its text."""

    names: tuple[tuple[str, Callable[[str], Any]], ...]
    fields: Callable[[Any], Fields]


def _policy(**changes: Any) -> Fields:
    return {RETENTION: lambda policy: replace(policy, **changes)}


def _text(value: str) -> str:
    return value


def _plain(key: str, *names: str) -> Variable:
    """One whose text is that of the file's key."""
    return Variable(tuple((name, _text) for name in names), lambda value: parse_setting(key, value))


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
            ("BACKUP_MAX_SIZE_GB", lambda text: int(number(text, least=1e-6) * GIGABYTE)),
            ("MAX_BACKUP_SIZE", lambda text: whole(text, least=1, most=1 << 62)),
        ),
        lambda value: _policy(max_bytes=value),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Environment:
    """``fields`` of DatabaseConfig that the environment sets, ``policies`` what it changes of the retention."""

    fields: Fields
    policies: tuple[Callable[[Policy], Policy], ...]
    notices: tuple[str, ...]

    def over(self, database: DatabaseConfig) -> DatabaseConfig:
        """*database*, with what the environment says in place of what it had."""
        policy = merged(database.retention, list(self.policies))
        return replace(database, **self.fields, retention=policy)


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """The settings that hold for every database. Raises ConfigError, naming the variable and its value."""
    fields: Fields = {}
    policies: list[Callable[[Policy], Policy]] = []
    notices: list[str] = []
    for variable in _VARIABLES:
        found = _one_of(variable.names, environ, notices)
        if found is None:
            continue
        name, value = found
        try:
            parsed = variable.fields(value)
        except ReplicatorError as exc:
            raise ConfigError(f"{name}: {exc}", hint=exc.hint) from exc
        if RETENTION in parsed:
            policies.append(parsed[RETENTION])
        else:
            fields |= parsed
    schedules = _schedules(environ, notices)
    if schedules is not None:
        fields["schedules"] = schedules
    _check_encrypt(environ, notices)
    return Environment(fields, tuple(policies), tuple(notices))


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
        except UsageError as exc:
            raise ConfigError(f"{name}: {exc}", hint=exc.hint) from exc
        if name != names[0][0]:
            notices.append(f"{name} is taken for {names[0][0]}")
    if found and any(value != found[0][1] for _, value in found):
        raise ConfigError(
            f"{' and '.join(name for name, _ in found)} say different things: "
            f"{' and '.join(repr(environ[name]) for name, _ in found)}",
            hint="leave one of them",
        )
    return found[0] if found else None


def _schedules(environ: Mapping[str, str], notices: list[str]) -> tuple[Schedule, ...] | None:
    text = environ.get("BACKUP_SCHEDULES")
    if path := environ.get("BACKUP_SCHEDULES_FILE"):
        if text:
            raise ConfigError(
                "BACKUP_SCHEDULES and BACKUP_SCHEDULES_FILE are both set", hint="leave one of them"
            )
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(1 << 20)
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"BACKUP_SCHEDULES_FILE: cannot read {path}: {exc}", hint="correct it") from exc
    try:
        found = parse_setting("schedules", text)["schedules"] if text else None
        if cron := environ.get("BACKUP_SCHEDULE", "").strip():
            notices.append("BACKUP_SCHEDULE is taken for when full backups are made")
            full = parse_schedules({"name": "full-backup", "cron": cron, "type": "full"})[0]
            others = found if found is not None else DEFAULT_SCHEDULES
            found = (full, *(each for each in others if each.backup_type != "full"))
        if environ.get("BACKUP_INCREMENTAL", "").strip() and not flag(environ["BACKUP_INCREMENTAL"]):
            notices.append("BACKUP_INCREMENTAL is taken for no incremental backups")
            kept = found if found is not None else DEFAULT_SCHEDULES
            found = tuple(each for each in kept if each.backup_type != "incremental")
    except (UsageError, ConfigError) as exc:
        raise ConfigError(f"the schedules of the environment: {exc}", hint=exc.hint) from exc
    return found


def _check_encrypt(environ: Mapping[str, str], notices: list[str]) -> None:
    """BACKUP_ENCRYPT says whether; the key says with what, and has to fit."""
    text = environ.get("BACKUP_ENCRYPT", "").strip()
    if not text:
        return
    try:
        wanted = flag(text)
    except UsageError as exc:
        raise ConfigError(f"BACKUP_ENCRYPT: {exc}", hint=exc.hint) from exc
    notices.append("BACKUP_ENCRYPT only confirms what BACKUP_ENCRYPTION_KEY says")
    begins = ("BACKUP_ENCRYPTION_KEY", "BACKUP_ENCRYPTION_PASSPHRASE")
    keys = [name for name in environ if name.startswith(begins) and environ[name]]
    if keys and not wanted:
        raise ConfigError(f"BACKUP_ENCRYPT is {text!r}, and {keys[0]} is set", hint="leave one of them")
    if wanted and not keys:
        raise ConfigError(
            "BACKUP_ENCRYPT is set, and no key",
            hint="set BACKUP_ENCRYPTION_KEY; `replicator key generate` makes one",
        )


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
    if urls := environ.get(_STORES, "").split():
        return tuple(urls)
    directory = _one_of(tuple((name, _text) for name in _DIRECTORIES), environ, notices)
    provider = _one_of(tuple((name, str.lower) for name in _PROVIDER_NAMES), environ, notices)
    kind = provider[1] if provider is not None else "local"
    if kind not in _PROVIDERS:
        raise ConfigError(
            f"{provider[0] if provider else ''} is {kind!r}", hint=f"it is one of {', '.join(_PROVIDERS)}"
        )
    if kind == "local":
        return (directory[1] if directory is not None else DIRECTORY,)
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
