"""Schedules as people write them: what JSON or YAML gave, checked key by key, in both dialects of their names."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from replicator.core.errors import ConfigError, UsageError
from replicator.core.quantities import format_duration, parse_duration
from replicator.core.schedule import BACKUP_TYPES, CRON_HINT, Schedule, parse_cron

SCHEDULES_MAX = 100
NAME_CHARACTERS_MAX = 100
DESCRIPTION_CHARACTERS_MAX = 1_000
RETENTION_DAYS_MAX = 3_660  # ten years, of which up to three are leap years, and some days to spare
JITTER_SECONDS_MAX = 86_400

_FIELD_OF_KEY = {
    "name": "name",
    "cronExpression": "cron",
    "cron": "cron",
    "schedule": "cron",
    "backupType": "backup_type",
    "type": "backup_type",
    "retentionDays": "retention_days",
    "retention": "retention_days",
    "compress": "compress",
    "compressionEnabled": "compress",
    "verify": "verify",
    "verificationEnabled": "verify",
    "enabled": "enabled",
    "description": "description",
    "jitter": "jitter",
}
_NEEDED = {"cron": "cronExpression", "backup_type": "backupType"}

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100


def parse_schedules(loaded: object) -> tuple[Schedule, ...]:
    """The schedules that JSON or YAML gave: ``{"schedules": [...]}``, the list alone, or one schedule alone. One
    without a name is named after its type.

    Raises ConfigError with the schedule, the key and the value, for whatever is not understood in full: a schedule that
    is followed by half is worse than none.
    """
    entries = _entries(loaded)
    if len(entries) > SCHEDULES_MAX:
        raise ConfigError(f"there are {len(entries)} schedules", hint=f"{SCHEDULES_MAX} at most")
    schedules = tuple(_schedule(each, number) for number, each in enumerate(entries, 1))
    names = [each.name for each in schedules]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two schedules have the name {twice!r}", hint="give each a `name` of its own")
    return schedules


def schedule_document(schedule: Schedule) -> dict[str, Any]:
    """As ``parse_schedules`` takes it."""
    return {
        "name": schedule.name,
        "cronExpression": schedule.cron,
        "backupType": schedule.backup_type,
        "retentionDays": schedule.retention_days,
        "compress": schedule.compress,
        "verify": schedule.verify,
        "enabled": schedule.enabled,
        "description": schedule.description,
        "jitter": format_duration(schedule.jitter),
    }


def _entries(loaded: object) -> list[Any]:
    if isinstance(loaded, Mapping) and "schedules" in loaded:
        beside = [key for key in loaded if key != "schedules"]
        if beside:
            raise ConfigError(
                f"{_repr.repr(beside[0])} stands beside `schedules`", hint="all keys belong into a schedule"
            )
        loaded = loaded["schedules"]
        if not isinstance(loaded, list):
            raise ConfigError(f"`schedules` is {_repr.repr(loaded)}", hint="it is a list of schedules")
    if isinstance(loaded, list):
        return loaded
    if isinstance(loaded, Mapping) and loaded:
        return [loaded]
    raise ConfigError(
        f"{_repr.repr(loaded)} holds no schedules", hint='write {"schedules": [...]}, a list, or one schedule'
    )


def _schedule(entry: Any, number: int) -> Schedule:
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"schedule {number} is {_repr.repr(entry)}",
            hint="it is an object with `name`, `cronExpression`, `backupType`",
        )
    name = entry.get("name")
    label = f"schedule {_repr.repr(name)}" if isinstance(name, str) and name else f"schedule {number}"
    key_of: dict[str, str] = {}
    for key in entry:
        field = _FIELD_OF_KEY.get(key) if isinstance(key, str) else None
        if field is None:
            raise _unknown(label, key)
        if field in key_of:
            raise ConfigError(f"{label}: `{key_of[field]}` and `{key}` say the same", hint="leave out one")
        key_of[field] = key
    for field, key in _NEEDED.items():
        if field not in key_of:
            raise ConfigError(f"{label} has no `{key}`", hint=_HINT_OF[field])
    values = {field: _value(label, field, key, entry[key]) for field, key in key_of.items()}
    return Schedule(**{"name": values["backup_type"], **values})


def _unknown(label: str, key: object) -> ConfigError:
    near = difflib.get_close_matches(str(key)[:100], [*_FIELD_OF_KEY, "schedules"], 1)
    hint = f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(_FIELD_OF_KEY)}"
    return ConfigError(f"{label}: unknown key {_repr.repr(key)}", hint=hint)


def _value(label: str, field: str, key: str, value: object) -> Any:
    try:
        return _READ[field](value)
    except UsageError as exc:
        raise ConfigError(f"{label}: `{key}` is {_repr.repr(value)}", hint=exc.hint) from exc
    except ConfigError as exc:
        raise ConfigError(f"{label}: `{key}`: {exc}", hint=exc.hint) from exc
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{label}: `{key}` is {_repr.repr(value)}", hint=_HINT_OF[field]) from exc


# --- values: each reader raises ValueError for what it does not take -------------------------------------


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError
    if len(value) > NAME_CHARACTERS_MAX:
        raise ValueError
    return value.strip()


def _cron(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return parse_cron(value)


def _backup_type(value: object) -> str:
    if value not in BACKUP_TYPES:
        raise ValueError
    return str(value)


def _retention_days(value: object) -> int | None:
    if value is None:
        return None
    days = value
    if isinstance(value, str):
        days, rest = divmod(parse_duration(value), 86_400)
        if rest:
            raise ValueError
        days = int(days)
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= RETENTION_DAYS_MAX:
        raise ValueError
    return days


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _flag_or_none(value: object) -> bool | None:
    return None if value is None else _flag(value)


def _description(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > DESCRIPTION_CHARACTERS_MAX:
        raise ValueError
    return value


def _jitter(value: object) -> float:
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif value is None or (value == 0 and not isinstance(value, bool)):
        seconds = 0.0
    else:
        raise ValueError
    if seconds > JITTER_SECONDS_MAX:
        raise ValueError
    return seconds


_READ: dict[str, Callable[[object], Any]] = {
    "name": _name,
    "cron": _cron,
    "backup_type": _backup_type,
    "retention_days": _retention_days,
    "compress": _flag_or_none,
    "verify": _flag_or_none,
    "enabled": _flag,
    "description": _description,
    "jitter": _jitter,
}
_TRUE_OR_FALSE = "it is true or false, without quotes"
_HINT_OF = {
    "name": f"it is a text of 1 to {NAME_CHARACTERS_MAX} printable characters",
    "cron": CRON_HINT,
    "backup_type": f"it is one of {', '.join(BACKUP_TYPES)}",
    "retention_days": f"it is a whole number of days, 1 to {RETENTION_DAYS_MAX}",
    "compress": _TRUE_OR_FALSE,
    "verify": _TRUE_OR_FALSE,
    "enabled": _TRUE_OR_FALSE,
    "description": f"it is a text of at most {DESCRIPTION_CHARACTERS_MAX:,} characters",
    "jitter": "it is a duration up to a day, such as 5m",
}

PRINTED = {
    "schedules": [
        {
            "name": "daily-full-backup",
            "cronExpression": "0 2 * * *",
            "backupType": "full",
            "retentionDays": 30,
            "compress": True,
            "verify": True,
        },
        {
            "name": "incremental-backup",
            "cronExpression": "0 6,10,14,18,22 * * *",
            "backupType": "incremental",
            "retentionDays": 7,
            "compress": True,
            "verify": True,
        },
    ]
}
"""What is followed where nobody says otherwise, as it would stand in a file."""

DEFAULT_SCHEDULES = tuple(
    # The settings for all say the same, and may be set otherwise.
    replace(each, retention_days=None, compress=None, verify=None)
    for each in parse_schedules(PRINTED)
)
