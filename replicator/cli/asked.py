"""What was asked for, turned into values: times, targets, the place of a repository.

No click in here, and nothing is printed: the Python API of the package uses it too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.errors import (
    ConfigError,
    OwnershipLost,
    ReplicatorError,
    TargetUnreachable,
    UsageError,
)
from replicator.core.names import BackupName, FullName
from replicator.core.position import TXID_MAX, GenerationId, Position, parse_generation, parse_txid
from replicator.core.times import MICROS_MAX, MICROS_MIN, Micros, format_time, parse_time
from replicator.key_change import KeyHolders
from replicator.keys import KeySource, unlocked
from replicator.repository import Repository, newest_point, read_repository, window
from replicator.restore import Chosen, Target, choose
from replicator.slots import readable_record_in
from replicator.state import default_state_folder, repository_of
from replicator.status import read_status
from replicator.store import connect, folder_of, shown_url
from replicator.store.sealed import SealedStore

if TYPE_CHECKING:
    # Configuration knows of all that an agent is made of; a restore from a URL needs none of it.
    from replicator.config import AgentConfig, DatabaseConfig

log = logging.getLogger(__name__)

DEFAULT_CONFIG = "replicator.yml"
LATEST = "latest"


def wall_now() -> Micros:
    return time.time_ns() // 1000


def configuration(path: str | None) -> AgentConfig | None:
    """The configuration at *path*, or ``replicator.yml`` of the working folder if there is one, or what the
    environment says."""
    from replicator.config import environment_config, load_config

    if path is None and not os.path.exists(DEFAULT_CONFIG):
        return environment_config()
    return load_config(DEFAULT_CONFIG if path is None else path)


def needed_configuration(path: str | None) -> AgentConfig:
    config = configuration(path)
    if config is None:
        raise ConfigError(
            f"there is no {DEFAULT_CONFIG} in {os.getcwd()}",
            hint="name a database and a store URL, or a file with --config; `config init` writes a first one; or set "
            "DATABASE_PATH and BACKUP_DIRECTORY",
        )
    return config


def state_folder_of(database: str) -> str | None:
    """The state folder beside a database, where an agent ran with the usual settings."""
    folder = default_state_folder(database)
    return folder if read_status(folder) is not None else None


def _told_stores(state_folder: str) -> tuple[str, ...]:
    """The stores that the agent with that state folder says it replicates to."""
    told = (read_status(state_folder) or {}).get("stores") or []
    return tuple(str(each["url"]) for each in told)


def opened(url: str, database: DatabaseConfig | None = None) -> SealedStore:
    """The store at *url*, read with the key of *database* or of the environment, if it is encrypted."""
    return unlocked(connect(url), database.encryption if database else None)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a database lies: ``urls`` of its stores, and the state folder that knows whose they are."""

    urls: tuple[str, ...]
    state_folder: str
    database: DatabaseConfig | None

    def open(self, url: str) -> SealedStore:
        """Raises OwnershipLost for the repository of another database, however it came there."""
        store = opened(url, self.database)
        ours, found = repository_of(self.state_folder), readable_record_in(store.plain)
        if ours and found is not None and found.repository != ours:
            raise OwnershipLost(
                f"{store.url} is the repository of another database ({found.repository}, ours is {ours})",
                hint="stores may have changed places; to look into this one all the same, give its URL in place of the "
                "database",
            )
        return store


def own_store(url: str, database: DatabaseConfig) -> SealedStore:
    """One of the stores of *database*. Raises OwnershipLost where another's repository lies there."""
    return _Places(database.stores, database.state_folder, database).open(url)


def _places_of(source: str, config_path: str | None) -> _Places | None:
    """None where SOURCE is a store."""
    if not source or "://" in source:
        return None
    # In a disaster a broken configuration must not stand between a person and a folder they name.
    config = None if config_path is None and os.path.isdir(source) else configuration(config_path)
    found = config.find(source) if config is not None else None
    if found is not None:
        return _Places(found.stores, found.state_folder, found)
    folder = state_folder_of(source)
    told = _told_stores(folder) if folder is not None else ()
    return _Places(told, folder, None) if folder and told else None


def find_store(source: str, config_path: str | None) -> SealedStore:
    """The store that SOURCE means: a URL; or a database that the configuration knows or that an agent replicates, of
    whose stores the one that leads furthest; or else a folder."""
    places = _places_of(source, config_path)
    if places is not None:
        return _furthest_of(places)
    if source and "://" not in source and os.path.isfile(source):
        raise UsageError(
            f"{source} is a file, and no agent is known to replicate it",
            hint="give the URL or the folder of its store, or the configuration with --config",
        )
    return opened(source)


def _furthest_of(places: _Places) -> SealedStore:
    """The one whose newest restore point is the newest; of the same the first. One that was put back from an old copy,
    or has a hole, is behind, whatever is said of it."""
    if len(places.urls) == 1:
        return places.open(places.urls[0])
    best: tuple[tuple[int, int], SealedStore] | None = None
    failed: ReplicatorError | None = None
    for url in places.urls:
        try:
            store = places.open(url)
            repository = read_repository(store)
            at = choose(repository, Target()).point.position
        except ReplicatorError as exc:
            failed = failed or exc
            log.warning("store.passed-over", extra={"store": shown_url(url), "reason": str(exc)})
            continue
        order = [each.generation for each in repository.catalogue.generations].index(at.generation)
        reached = (repository.catalogue.generations[order].began, at.txid)
        if best is None or reached > best[0]:
            best = reached, store
    if best is not None:
        return best[1]
    assert failed is not None
    raise failed


def find_stores(source: str, config_path: str | None) -> list[Callable[[], SealedStore]]:
    """All that SOURCE means, each opened when its turn comes: of a database every store."""
    places = _places_of(source, config_path)
    if places is None:
        return [lambda: find_store(source, config_path)]
    return [partial(places.open, url) for url in places.urls]


def key_holders(source: str, config_path: str | None) -> KeyHolders:
    """Who has the key ring of SOURCE, a store or a database: all its stores, and its state folder."""
    local = "://" not in source
    config = configuration(config_path) if local else None
    found = config.find(source) if config is not None else None
    state = found.state_folder if found is not None else (state_folder_of(source) if local else None)
    if state is not None:
        urls = found.stores if found is not None else _told_stores(state)
        if urls:
            keys = found.encryption if found is not None else KeySource()
            path = os.path.join(state, "keys.json")
            return KeyHolders([connect(url) for url in urls], keys, path if os.path.exists(path) else None)
    return KeyHolders([find_store(source, config_path).plain], KeySource())


def find_databases(database: str | None, state: str | None, config_path: str | None) -> list[DatabaseConfig]:
    """The databases to ask about: one that is named, or all of the configuration."""
    if database is None:
        return list(needed_configuration(config_path).databases)
    config = configuration(config_path) if database else None
    found = config.find(database) if config is not None else None
    found = found or database_at(database)
    return [replace(found, state=state) if state else found]


def with_stores(database: DatabaseConfig) -> DatabaseConfig:
    """*database*; where nobody said so, with the stores that an agent replicated it to."""
    if database.stores:
        return database
    return replace(database, stores=_told_stores(database.state_folder))


def find_database(source: str, config_path: str | None, state: str | None = None) -> DatabaseConfig | None:
    """The database that SOURCE means, with its stores; None where it is a store."""
    if not source or "://" in source:
        return None
    config = None if config_path is None and os.path.isdir(source) else configuration(config_path)
    found = config.find(source) if config is not None else None
    if found is None and not os.path.isdir(source):
        known = with_stores(database_at(source, state=state))
        found = known if known.stores else None
    return replace(found, state=state) if found is not None and state else found


def database_of_store(source: str, config_path: str | None) -> DatabaseConfig | None:
    """The database of the configuration that the store at *source* is one of, with that store alone."""
    config = configuration(config_path)
    wanted = _place_of(source)
    for database in config.databases if config is not None else ():
        for url in database.stores:
            # What another store lacks, such as a package or a key, is nothing that this one needs.
            with contextlib.suppress(ReplicatorError):
                if _place_of(url) == wanted:
                    return replace(database, stores=(url,))
    return None


def _place_of(url: str) -> str:
    """The same for every way to write where a store is."""
    store = connect(url).url
    folder = folder_of(store)
    return store if folder is None else os.path.realpath(folder)


def database_at(path: str, stores: tuple[str, ...] = (), state: str | None = None) -> DatabaseConfig:
    """A database that was named on the command line, with its stores, if any."""
    from replicator.config import DatabaseConfig, read_environment

    if not path:
        raise UsageError("the database has an empty name", hint="name the database file")
    found = DatabaseConfig(os.path.abspath(path), stores, os.path.basename(path), state or None)
    return read_environment().over(found)


@dataclass(frozen=True, slots=True)
class AskedTime:
    """A time as it was asked for; None is the newest there is."""

    micros: Micros | None
    zone_assumed: bool = False


def asked_time(value: datetime | str | int | None, now: Micros) -> AskedTime:
    """*value*: text as a person types it, or ``latest``; microseconds; a datetime (UTC if it has no zone)."""
    if value is None or (isinstance(value, str) and value.strip().lower() == LATEST):
        return AskedTime(None)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, int) and not isinstance(value, bool):
        if not MICROS_MIN <= value <= MICROS_MAX:
            raise UsageError(f"{value} µs lies outside the years 1970 to 9999")
        return AskedTime(value)
    if not isinstance(value, str):
        raise UsageError(
            f"{value!r} is not a time", hint="give text, a datetime, or whole microseconds since the epoch"
        )
    parsed = parse_time(value, now)
    return AskedTime(parsed.micros, parsed.zone_assumed)


def choose_point(repository: Repository, target: Target, now: Micros) -> Chosen:
    """The restore point for *target*; a time that has not come yet is refused: nobody knows it."""
    time_wanted = target.timestamp
    if time_wanted is not None and time_wanted > now:
        newest = max(
            (
                newest_point(repository, each).observed
                for each in repository.catalogue.generations
                if each.fulls
            ),
            default=0,
        )
        if time_wanted > newest:
            raise TargetUnreachable(f"{format_time(time_wanted)} has not come yet", hint=window(repository))
    return choose(repository, target)


def require_at_least(repository: Repository, wanted: Position) -> None:
    """Refuse a repository that does not reach *wanted* any more: it was cut off or rolled back."""
    listing = repository.catalogue.generation(wanted.generation)
    if listing is None or not listing.fulls:
        raise TargetUnreachable(
            f"{repository.store.url} holds nothing of generation {wanted.generation}; {wanted} is asked for",
            hint=window(repository),
        )
    newest = newest_point(repository, listing)
    if newest.position.txid < wanted.txid:
        raise TargetUnreachable(
            f"{repository.store.url} reaches {newest.position} only, and at least {wanted} is asked for",
            hint="its newest part was cut off, or has not arrived yet; " + window(repository),
        )


def find_backup(repository: Repository, wanted: str) -> BackupName:
    """The backup whose id begins with *wanted*; or the `latest` one, the `oldest`, or the `last-full`."""
    every: list[BackupName] = [
        backup for listing in repository.catalogue.generations for backup in listing.backups
    ]
    fulls: list[BackupName] = [each for each in every if isinstance(each, FullName)]
    named = {"latest": every[-1:], "oldest": every[:1], "last-full": fulls[-1:]}
    if wanted in named:
        found = named[wanted]
    else:
        # The id of a full may be the beginning of an incremental's: who gives all of it means the full.
        exact = [each for each in every if each.backup_id == wanted]
        found = exact or [each for each in every if each.backup_id.startswith(wanted)]
    if not found:
        raise TargetUnreachable(f"there is no backup {wanted!r} at {repository.store.url}", hint="see `ls`")
    if len(found) > 1:
        raise UsageError(
            f"{wanted!r} is the beginning of {len(found)} backups",
            hint=f"{found[0].backup_id} and {found[1].backup_id} are two of them",
        )
    return found[0]


def target_of(
    *,
    timestamp: Micros | None = None,
    txid: int | str | None = None,
    generation: str | None = None,
    exact: bool = False,
) -> Target:
    """The same for what the Python API takes: texts, or anything that a caller took for a txid."""
    number = parse_txid(txid) if isinstance(txid, str) else txid
    if number is not None and (type(number) is not int or not 0 <= number <= TXID_MAX):
        raise UsageError(f"not a txid: {txid!r}", hint="it is a number, 0 or more, or text as `ls` prints it")
    if generation is not None and not isinstance(generation, str):
        raise UsageError(f"not a generation: {generation!r}", hint="it is text of 16 hexadecimal digits")
    return Target(
        txid=number,
        timestamp=timestamp,
        generation=None if generation is None else parse_generation(generation),
        exact=exact,
    )


def backup_target(backup: BackupName) -> Target:
    return Target(txid=backup.txid, generation=GenerationId(backup.generation))
