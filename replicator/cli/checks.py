"""The single checks behind ``check``: each looks at one thing and answers with findings; none raises for what
it finds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from replicator.cli import asked
from replicator.cli.screen import count_text, size_text
from replicator.config import DISABLED, DatabaseConfig
from replicator.core.errors import (
    ConfigError,
    KeyRefused,
    ReplicatorError,
    RepositoryNotFound,
    SourceGone,
    StoreError,
)
from replicator.core.retention_policy import Policy
from replicator.core.times import format_time
from replicator.enlist import is_of, lease_text, newest_lease
from replicator.files import free_bytes, lies_within, lock_holder
from replicator.keys import KeySource
from replicator.repository import newest_point, read_repository
from replicator.source.connection import log_file_bytes
from replicator.source.database import Database
from replicator.source.version import has_reset_bug, version_text
from replicator.status import read_status
from replicator.store import Store, folder_of
from replicator.store.trial import Broken, try_store

# The first version of this program is of 2025: a clock before that is not set.
CLOCK_MICROS_MIN = 1_735_689_600_000_000
# What the operator is told of by an alert, too.
FREE_SHARE_MIN = 0.10
# Where the version of the last writer stands in a database file (fileformat2, 1.3.17).
_VERSION_OFFSET = 96


# What only a store, or a lack of its key, is at fault for.
STORE = StoreError.exit_code


class Level(Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """``exit_code``: what it comes to if nothing else failed; the fault may lie with a store, or with a key."""

    level: Level
    subject: str
    message: str
    hint: str | None = None
    exit_code: int = 1


def _fault(subject: str, error: ReplicatorError, *, store: bool = False) -> Finding:
    code = STORE if store else 1
    if isinstance(error, KeyRefused | ConfigError):
        code = error.exit_code
    return Finding(Level.FAIL, subject, str(error), error.hint, code)


def check_clock(now: int) -> Iterator[Finding]:
    if now < CLOCK_MICROS_MIN:
        yield Finding(
            Level.FAIL, "clock", f"it says {format_time(now)}", "set it: restore points are named after it"
        )
    else:
        yield Finding(Level.OK, "clock", f"it says {format_time(now)}")


def check_key(source: KeySource, subject: str) -> Iterator[Finding]:
    """That it is one; whether it is the right one its stores tell."""
    if not source.configured:
        return
    try:
        source.read()
    except ReplicatorError as exc:
        yield _fault(subject, exc)
    else:
        yield Finding(Level.OK, subject, "the key can be read")


# --- the database --------------------------------------------------------------------------------------


def check_database(config: DatabaseConfig) -> Iterator[Finding]:
    if not config.enabled:
        yield Finding(Level.WARN, config.name, f"backups of {config.path} are disabled", DISABLED)
    holder = lock_holder(os.path.join(config.state_folder, "lock"))
    if holder is not None:
        yield _what_the_agent_says(config, holder)
        return
    database = Database(config.path)
    try:
        database.open()
    except SourceGone as exc:
        yield Finding(Level.WARN, config.name, str(exc), "the agent waits for it; is the path right?")
        return
    except ReplicatorError as exc:
        yield _fault(config.name, exc)
        return
    try:
        seen = database.look()
        writer = int.from_bytes(database.main_bytes(_VERSION_OFFSET, 4), "big")
        yield Finding(
            Level.OK,
            config.name,
            f"{database.path} is in WAL mode, page size {database.page_size}, "
            f"log {size_text(log_file_bytes(database.path))} of {seen.frames} frames",
        )
    except ReplicatorError as exc:
        yield _fault(config.name, exc)
        return
    finally:
        database.close()
    yield _application_version(config.name, writer)


def _what_the_agent_says(config: DatabaseConfig, process: int) -> Finding:
    source = (read_status(config.state_folder) or {}).get("source") or {}
    match source.get("phase"):
        case "failed":
            message = f"process {process} cannot follow {config.path}: {source.get('reason')}"
            return Finding(Level.FAIL, config.name, message, "mend that, and start the agent again")
        case "waiting":
            message = f"process {process} waits for {config.path}: {source.get('reason')}"
            return Finding(Level.WARN, config.name, message)
        case "disabled":
            message = f"process {process} is idle: backups of {config.path} are disabled there"
            return Finding(Level.WARN, config.name, message)
        case _:
            return Finding(Level.OK, config.name, f"process {process} follows {config.path}; see `status`")


def _application_version(subject: str, number: int) -> Finding:
    """The file says which SQLite last wrote its first page: the application's, since we write none."""
    advice = (
        "SQLite 3.7.0 to 3.51.2 can lose commits if a checkpoint meets a restart of the log (WAL-reset bug); "
        "use 3.51.3 or later, 3.50.7, or 3.44.6 in the application"
    )
    if number == 0:
        return Finding(Level.WARN, subject, "it does not say which SQLite wrote it", advice)
    if has_reset_bug(number):
        return Finding(Level.WARN, subject, f"last written by SQLite {version_text(number)}", advice)
    return Finding(Level.OK, subject, f"last written by SQLite {version_text(number)}")


# --- folders and disks ---------------------------------------------------------------------------------


def _existing(path: str) -> str:
    """*path* or the nearest folder above it that is there."""
    path = os.path.realpath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def check_state(config: DatabaseConfig) -> Iterator[Finding]:
    subject, folder = f"{config.name} state", config.state_folder
    there = _existing(folder)
    if not os.path.isdir(there):
        yield Finding(Level.FAIL, subject, f"{there} is not a folder", "name another state folder")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            Level.FAIL, subject, f"no permission to write in {there}", "or name another state folder"
        )
    else:
        yield Finding(
            Level.OK, subject, f"{folder} is writable" if there == folder else f"{folder} can be made"
        )
    for url in config.stores:
        store = folder_of(url) or url
        if "://" not in store and (lies_within(folder, store) or lies_within(store, folder)):
            yield Finding(
                Level.FAIL, subject, f"state folder and store lie in each other: {folder}, {store}",
                "keep them apart; whoever loses the one shall have the other",
            )  # fmt: skip


def check_space(config: DatabaseConfig) -> Iterator[Finding]:
    """The disks we write to; one line each."""
    seen: set[int] = set()
    for what, path in [("state", config.state_folder)] + [
        ("store", folder_of(url) or url) for url in config.stores
    ]:
        if "://" in path:
            continue
        there = _existing(path)
        device = os.stat(there).st_dev
        if device in seen:
            continue
        seen.add(device)
        found = os.statvfs(there)
        free, total = free_bytes(there), found.f_blocks * found.f_frsize
        low = free < total * FREE_SHARE_MIN
        text = f"{size_text(free)} of {size_text(total)} free on the disk of {path}"
        hint = f"the spool may grow to {size_text(config.spool_bytes_max)}" if low else None
        yield Finding(Level.WARN if low else Level.OK, f"{config.name} {what}", text, hint)


# --- the store -----------------------------------------------------------------------------------------


def check_store(store: Store, config: DatabaseConfig | None) -> Iterator[Finding]:
    folder = folder_of(store.url)
    if folder is not None and config is not None and on_disk_of(folder, config.path):
        place, lost = (
            ("in the folder", "folder or disk")
            if lies_beside(folder, config.path)
            else ("on the disk", "disk")
        )
        hint = f"a lost {lost} takes both; add a store elsewhere"
        yield Finding(Level.WARN, store.url, f"it lies {place} of the database", hint)
    if folder is not None and not os.path.isdir(folder):
        yield _absent_folder(store.url, folder)
        return
    if folder is not None and os.stat(folder).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(
            Level.WARN, store.url, "others may write to the folder",
            "a backup is worth what nobody else can change: chmod go-w",
        )  # fmt: skip
    try:
        yield from _trial(store)
        yield from _repository(store, config)
        yield from _lease(store, config)
    except ReplicatorError as exc:
        yield _fault(store.url, exc, store=True)


def on_disk_of(folder: str, database: str) -> bool:
    """Whether *folder* lies, or would lie, on the disk of *database*."""
    try:
        return os.stat(_existing(folder)).st_dev == os.stat(_existing(database)).st_dev
    except OSError:
        return False


def lies_beside(folder: str, database: str) -> bool:
    """Whether whoever clears away the folder of *database* takes *folder* with it."""
    return lies_within(folder, os.path.dirname(os.path.realpath(database)))


def _absent_folder(url: str, folder: str) -> Finding:
    """Not made here: it may be a mount that is away."""
    there = _existing(folder)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            Level.FAIL,
            url,
            f"it is not there, and cannot be made in {there}",
            "is it mounted?",
            exit_code=STORE,
        )
    return Finding(
        Level.WARN, url, "it is not there yet; the agent makes it", "if it is a mount, mount it first"
    )


def _trial(store: Store) -> Iterator[Finding]:
    try:
        found = try_store(store)
    except Broken as exc:
        yield Finding(Level.FAIL, store.url, str(exc), "choose another store", exit_code=STORE)
        return
    if not found.raced:
        yield Finding(
            Level.WARN, store.url, "it does not keep put-once by itself: names are looked at before they are put",
            "two agents that write within one round trip would both succeed; see that there is one",
        )  # fmt: skip
    if found.kept is not None:
        yield Finding(
            Level.WARN, store.url, f"put once, read and list work; it may not delete: {found.kept}",
            "a way to run, see docs/OPERATIONS.md: what is to go has to be deleted by somebody else",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, store.url, "put once, read, list and delete work")
    if found.fixed is not None:
        yield Finding(
            Level.WARN, store.url, f"it may not replace: {found.fixed}",
            "a way to run, see docs/OPERATIONS.md: only metadata.json is replaced, and nothing needs it",
        )  # fmt: skip
    if found.untimed is not None:
        yield Finding(
            Level.WARN,
            store.url,
            f"nobody can compare its clock with ours: {found.untimed}",
            found.untimed.hint,
        )


def _repository(store: Store, config: DatabaseConfig | None) -> Iterator[Finding]:
    try:
        repository = read_repository(store)
    except RepositoryNotFound:
        yield Finding(Level.OK, store.url, "no repository yet")
        return
    catalogue = repository.catalogue
    yield Finding(
        Level.OK,
        store.url,
        f"repository {repository.identity}, {count_text(len(catalogue.generations), 'generation')}",
    )
    if config is not None:
        yield from _room(store.url, sum(catalogue.sizes.values()), config.retention)
    if catalogue.strays:
        yield Finding(
            Level.WARN,
            store.url,
            f"{len(catalogue.strays)} objects are not ours, the first is {catalogue.strays[0]}",
        )
    complete = [each for each in catalogue.generations if each.fulls]
    newest = newest_point(repository, complete[-1]).observed if complete else 0
    if newest > asked.wall_now():
        yield Finding(
            Level.WARN, "clock", f"{store.url} has a commit of the future, {format_time(newest)}",
            "compare the clocks of this machine and of the one that replicates",
        )  # fmt: skip


def _room(url: str, used: int, policy: Policy) -> Iterator[Finding]:
    if policy.max_bytes is not None and policy.is_nearly_full(used):
        yield Finding(
            Level.WARN, url, f"it holds {size_text(used)}, and may hold {size_text(policy.max_bytes)}",
            "at the limit the oldest backups go before their time, and fulls by hand are refused: raise `max_size`, or "
            "keep less; `prune --dry-run` says what is kept and why",
        )  # fmt: skip


def _lease(store: Store, config: DatabaseConfig | None) -> Iterator[Finding]:
    holder = newest_lease(store)
    if holder is None:
        return
    who = lease_text(holder)
    if config is None:
        yield Finding(Level.OK, store.url, f"its writer is {who}")
    elif is_of(holder, config.state_folder):
        yield Finding(Level.OK, store.url, f"its writer is the agent of this state folder: {who}")
    else:
        yield Finding(
            Level.FAIL, store.url, f"another agent writes to it: {who}",
            "use another store, or --take-over if that agent is gone for good", exit_code=STORE,
        )  # fmt: skip
