"""Continuous replication and point-in-time restore of SQLite databases.

    import replicator

    with replicator.Agent([replicator.DatabaseConfig("app.db", ("file:///backups/app",))]) as agent:
        ...                                    # the application works; every commit is shipped
        agent.wait_captured_and_shipped(10)    # all that is committed by now is in the store

    result = replicator.restore("file:///backups/app", "restored.db", timestamp="2025-01-28T14:30:00Z")
    print(result.position, result.proved)

The process that runs an ``Agent`` must not open the database by other means, the standard library's
``sqlite3`` included: closing it there would drop the agent's locks. Every error is a ``ReplicatorError``
with a ``hint`` and an ``exit_code``. What stands in ``__all__`` is the public interface.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

from replicator.core.errors import (
    ConfigError,
    DestinationRefused,
    FormatTooNew,
    Interrupted,
    NotADatabase,
    NotWalMode,
    ObjectCorrupt,
    ObjectNotFound,
    OwnershipLost,
    ProofFailed,
    ReplicatorError,
    RepositoryNotFound,
    SourceError,
    SourceGone,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    TargetUnreachable,
    UsageError,
)

if TYPE_CHECKING:
    from replicator.agent import Agent
    from replicator.config import AgentConfig, DatabaseConfig, load_config
    from replicator.restore import Progress, RestoreResult

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentConfig",
    "ConfigError",
    "DatabaseConfig",
    "DestinationRefused",
    "FormatTooNew",
    "Interrupted",
    "NotADatabase",
    "NotWalMode",
    "ObjectCorrupt",
    "ObjectNotFound",
    "OwnershipLost",
    "Progress",
    "ProofFailed",
    "ReplicatorError",
    "RepositoryNotFound",
    "RestoreResult",
    "SourceError",
    "SourceGone",
    "StoreDenied",
    "StoreError",
    "StoreUnavailable",
    "TargetUnreachable",
    "UsageError",
    "__version__",
    "load_config",
    "restore",
]

# Imported when first asked for: an agent brings SQLite, the watcher and a thread or two.
_HOME = {
    "Agent": "replicator.agent",
    "AgentConfig": "replicator.config",
    "DatabaseConfig": "replicator.config",
    "Progress": "replicator.restore",
    "RestoreResult": "replicator.restore",
    "load_config": "replicator.config",
}


def restore(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    timestamp: datetime | str | int | None = None,
    txid: int | str | None = None,
    generation: str | None = None,
    verify: str = "quick",
    exact: bool = False,
    overwrite: bool = False,
    jobs: int = 4,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> RestoreResult:
    """Restore a database to the file *output*, proved, or raise and leave nothing behind.

    *source*: URL or folder of a store, or the path of a database that an agent replicates.
    *timestamp*: the newest commit at or before it; text as the command line takes it, microseconds since the
    epoch, or a datetime (UTC if it has no zone). *txid* instead of it: exactly that commit, of *generation*
    or of the newest one. Neither: the newest commit there is. *exact* refuses a time that falls between two
    looks at the database. *verify*: ``none``, ``quick`` or ``full``.

    *on_progress* and *cancelled* are called in the calling thread, several times a second; *cancelled*
    answers True to stop. Raises TargetUnreachable, RepositoryNotFound, DestinationRefused, ObjectCorrupt,
    ProofFailed, StoreError, UsageError, Interrupted.
    """
    from replicator.cli import asked
    from replicator.repository import read_repository
    from replicator.restore import RestoreOptions, around_damage, restore_chosen

    if timestamp is not None and txid is not None:
        raise UsageError("timestamp and txid are two targets", hint="give one of them")
    if verify not in ("none", "quick", "full"):
        raise UsageError(f"verify is {verify!r}", hint="it is none, quick or full")
    if not isinstance(jobs, int) or jobs < 1:
        raise UsageError(f"jobs is {jobs!r}", hint="it is a number of reads at a time, 1 or more")
    source, output = _path_text("source", source), _path_text("output", output)
    now = asked.wall_now()
    micros = asked.asked_time(timestamp, now).micros
    target = asked.target_of(timestamp=micros, txid=txid, generation=generation, exact=exact)
    store = asked.find_store(source, None)
    return around_damage(
        lambda: read_repository(store),
        lambda repository: asked.choose_point(repository, target, now),
        lambda repository, chosen: restore_chosen(
            repository,
            chosen,
            output,
            RestoreOptions(verify, overwrite, jobs),
            on_progress=on_progress or (lambda _: None),
            cancelled=cancelled or (lambda: False),
        ),
        target=target,
    )


def _path_text(what: str, value: str | os.PathLike[str]) -> str:
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{what} is {value!r}", hint="it is a path, as text or a Path")
    return text


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


class _Package(ModuleType):
    """``replicator.restore`` is the function above, also after the package of that name was imported:
    importing a module sets it as attribute of its parent. ``from replicator.restore import …`` is not
    concerned, it does not look here."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name == "restore" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
