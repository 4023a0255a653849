"""The variables of the environment that families of settings know, and what is nearly one of them.

A slip in such a name is not passed over: without a word it would give plain backups, or another server than was meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from replicator.core.errors import ConfigError

_FILED = ("", "_FILE")
ENCRYPT = "BACKUP_ENCRYPT"
# What gives a key, by how the settings begin: those of the key there is, and of another one that is to replace it.
KEY_PREFIX, NEW_KEY_PREFIX = "BACKUP_ENCRYPTION_", "BACKUP_ENCRYPTION_NEW_"
_KEY_SETTINGS = tuple(f"{name}{end}" for name in ("KEY", "PASSPHRASE") for end in ("", "_FILE", "_COMMAND"))
_ENCRYPTION = (
    ENCRYPT,
    *(prefix + setting for prefix in (KEY_PREFIX, NEW_KEY_PREFIX) for setting in _KEY_SETTINGS),
)


def _named(prefix: str, plain: Iterable[str], filed: Iterable[str]) -> tuple[str, ...]:
    """*filed*: those that may stand in a file instead."""
    return (*(prefix + name for name in plain), *(prefix + name + end for name in filed for end in _FILED))


STORE_FAMILIES: dict[str, tuple[str, ...]] = {
    "BACKUP_S3_": _named(
        "BACKUP_S3_",
        ("BUCKET", "PREFIX", "ADDRESSING_STYLE", "CA_FILE"),
        ("REGION", "ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN"),
    ),
    "BACKUP_GCS_": _named("BACKUP_GCS_", ("BUCKET", "PREFIX", "CREDENTIALS_FILE", "PROJECT"), ()),
    "BACKUP_AZURE_": _named(
        "BACKUP_AZURE_",
        ("ACCOUNT", "CONTAINER", "PREFIX", "ENDPOINT"),
        ("CONNECTION_STRING", "ACCOUNT_KEY", "SAS_TOKEN"),
    ),
    "BACKUP_SFTP_": _named(
        "BACKUP_SFTP_", ("URL", "KEY_FILE", "KNOWN_HOSTS"), ("PASSWORD", "KEY_PASSPHRASE")
    ),
}
# A name that is so near to one of ours is not the application's.
_MISSPELT = 0.88


_SAID_MAX = 26


def said(value: object) -> str:
    """*value* for a message. What is longer than any such setting may be a secret that went to the wrong place."""
    text = repr(value)
    return text if len(text) <= _SAID_MAX else f"a text of {len(str(value))} characters"


def nearest_of(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff=_MISSPELT)), None)


def unknown_of_families(environ: Iterable[str]) -> list[str]:
    """Names that begin as those of a store's settings do, and are none."""
    return [
        name
        for name in environ
        if any(name.startswith(prefix) and name not in known for prefix, known in STORE_FAMILIES.items())
    ]


def require_store_settings(environ: Iterable[str]) -> None:
    """Refuse what is nearly a setting of a store. Raises ConfigError."""
    every = [name for known in STORE_FAMILIES.values() for name in known]
    for name in unknown_of_families(environ):
        near = nearest_of(name, every)
        if near is not None:
            raise ConfigError(f"{name} is no setting", hint=f"did you mean {near}? else take it away")


def require_encryption_settings(environ: Iterable[str]) -> None:
    """Refuse what somebody wrote who wants encryption, and nobody reads. Raises ConfigError."""
    for name in environ:
        if name in _ENCRYPTION or not name.upper().startswith("BACKUP"):
            continue
        near = nearest_of(name.upper(), _ENCRYPTION)
        if near is not None or name.upper().startswith(ENCRYPT):
            meant = f"did you mean {near}? " if near else ""
            raise ConfigError(
                f"{name} is no setting, and nothing is encrypted by it",
                hint=f"{meant}a key comes from {KEY_PREFIX}KEY, …_FILE or …_COMMAND; else take it away",
            )


def require_no_empty_key(environ: Mapping[str, str], prefix: str) -> None:
    """For who found no key in the settings that begin with *prefix*: refuse one that is there and empty, as a variable
    that was never filled in gives it. Raises ConfigError."""
    for name in (prefix + setting for setting in _KEY_SETTINGS):
        if environ.get(name) == "":
            raise ConfigError(
                f"{name} is set and empty, and nothing else gives a key",
                hint="give it a key (`replicator key generate` makes one); or take it away, and nothing is encrypted",
            )
