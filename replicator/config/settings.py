"""The settings that every database can have, or all of them together: their keys, how each is written, what it sets.

In a `replicator.yml` a value is what YAML made of it, in the environment it is text; a parser takes either.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from replicator.core.codec import Compression, parse_compression
from replicator.core.errors import ConfigError, UsageError
from replicator.core.quantities import parse_duration, parse_size
from replicator.core.retention_policy import Policy
from replicator.core.schedule import Schedule
from replicator.core.schedule_file import parse_schedules
from replicator.core.variables import said
from replicator.keys import KeySource

DAY_SECONDS = 86_400
GIGABYTE = 10**9  # as disks and bills count
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def plain(value: object) -> str | int | float | bool:
    """What has more in it is never written out: a few lines of YAML may stand for more than fits into memory."""
    if not isinstance(value, (str, int, float)):
        raise UsageError("it is not a plain value", hint="write one, without brackets")
    return value


def flag(value: object) -> bool:
    """True or false, as YAML or as text."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in _YES + _NO:
        raise UsageError(f"it is {said(value)}", hint="it is true or false")
    return text in _YES


def number(value: object, *, least: float = 0, most: float = 1e12) -> float:
    try:
        found = float(str(value))
    except ValueError:
        found = float("nan")
    if isinstance(value, bool) or not least <= found <= most:
        raise UsageError(f"it is {said(value)}", hint=f"it is a number from {least:g} to {most:g}")
    return found


def whole(value: object, *, least: int = 0, most: int = 10**12) -> int:
    found = number(value, least=least, most=most)
    if found != int(found):
        raise UsageError(f"it is {said(value)}", hint="it is a whole number")
    return int(found)


def days(value: object) -> int:
    """Of a duration such as `30d`, or a bare number of days."""
    text = str(value).strip()
    if text.isdecimal():
        return whole(text, least=1, most=36_500)
    seconds = parse_duration(text)
    if seconds < DAY_SECONDS or seconds % DAY_SECONDS:
        raise UsageError(f"it is {said(value)}", hint="it is a number of days, such as 30d")
    return int(seconds // DAY_SECONDS)


def hours(value: object) -> float:
    """Of a duration such as `48h`, or a bare number of hours."""
    text = str(value).strip()
    return (
        number(text, least=0, most=100_000)
        if text.replace(".", "", 1).isdecimal()
        else parse_duration(text) / 3600
    )


def compression(value: object) -> Compression:
    """By its name; or whether at all."""
    text = str(value).strip().lower()
    return parse_compression(str(flag(text)) if text in _YES + _NO else text)


def barrier(value: object) -> bool:
    if value not in ("auto", "never"):
        raise UsageError(f"it is {said(value)}", hint="it is `auto` or `never`")
    return value == "auto"


def schedules(value: object) -> tuple[Schedule, ...]:
    """A list as YAML made it, or JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise UsageError(f"it is no JSON: {exc}", hint='it is {"schedules": [...]}') from exc
    return parse_schedules(value)


def retention(value: object) -> Callable[[Policy], Policy]:
    """What a mapping changes of the policy."""
    parsers: dict[str, tuple[str, Callable[[object], Any]]] = {
        "log": ("log_hours", hours),
        "incremental": ("incremental_days", days),
        "full": ("full_days", days),
        "monthly": ("months", lambda found: whole(found, most=1200)),
        "max_age": ("max_age_days", days),
    }
    if not isinstance(value, Mapping):
        raise UsageError("it is no mapping", hint=f"it is one of {', '.join(parsers)}")
    changes: dict[str, Any] = {}
    for key, found in value.items():
        if key not in parsers:
            raise UsageError(f"it has an unknown key {key!r}", hint=nearest(key, tuple(parsers)))
        field, parse = parsers[key]
        try:
            changes[field] = parse(plain(found))
        except UsageError as exc:
            raise UsageError(f"its `{key}`: {exc}", hint=exc.hint) from exc
    return lambda policy: replace(policy, **changes)


def seconds(value: object) -> float:
    return parse_duration(str(value))


def size(value: object) -> int:
    return parse_size(str(value))


SCHEDULES, RETENTION, MAX_SIZE, ENCRYPTION = "schedules", "retention", "max_size", "encryption"
# Key in the file -> field of DatabaseConfig, and the parser of its value. What is more than a value is done in
# ``applied``.
PLAIN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "enabled": ("enabled", flag),
    "ship_interval": ("ship_interval", seconds),
    "spool_limit": ("spool_bytes_max", size),
    "bandwidth": ("bandwidth", size),
    "barrier": ("barrier", barrier),
    "compression": ("compression", compression),
    "verification": ("verification", flag),
    "key_max_age": ("key_max_age", seconds),
    "log_interval": ("log_interval", seconds),
    SCHEDULES: ("schedules", schedules),
}
SHARED_KEYS = (*PLAIN, RETENTION, MAX_SIZE, ENCRYPTION)
ENCRYPTION_KEYS = ("key_file", "key_command", "passphrase_file", "passphrase_command")


def parse_setting(key: str, value: Any) -> dict[str, Any]:
    """What a setting comes to: fields of DatabaseConfig, and for ``retention`` changes of the policy. Raises
    UsageError or ConfigError, without the key."""
    if key == RETENTION:
        return {RETENTION: retention(value)}
    if key == MAX_SIZE:
        limit = size(plain(value))
        if limit == 0:
            raise UsageError("it is 0", hint="leave it out for no limit")
        return {RETENTION: lambda policy: replace(policy, max_bytes=limit)}
    field, parse = PLAIN[key]
    return {field: parse(value if key == SCHEDULES else plain(value))}


def merged(policy: Policy, changes: list[Callable[[Policy], Policy]]) -> Policy:
    for change in changes:
        policy = change(policy)
    return policy


def key_source(entry: Any, resolve: Callable[[str], str]) -> KeySource:
    """Where the operator's key is read from; the key itself does not belong into a configuration."""
    if not isinstance(entry, dict) or not all(isinstance(value, str) and value for value in entry.values()):
        raise ConfigError(
            f"`{ENCRYPTION}` is no mapping of {', '.join(ENCRYPTION_KEYS)}",
            hint="`encryption: {key_file: /etc/replicator/key}`; the key itself never stands in here",
        )
    for key in entry:
        if key not in ENCRYPTION_KEYS:
            raise ConfigError(
                f"`{ENCRYPTION}` has an unknown key {key!r}", hint=nearest(key, ENCRYPTION_KEYS)
            )
    for kind in ("key", "passphrase"):
        if f"{kind}_file" in entry and f"{kind}_command" in entry:
            raise ConfigError(f"`{kind}_file` and `{kind}_command` are both given", hint="leave out one")
    files = {key: resolve(entry[key]) for key in entry if key.endswith("_file")}
    return KeySource(**{**entry, **files})


def nearest(key: object, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(key), known, 1)
    return f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(known)}"
