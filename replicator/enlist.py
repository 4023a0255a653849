"""Enlist: make ourselves known to a store, and learn what it knows of us, before anything is shipped."""

from __future__ import annotations

import os
import secrets
import socket

from replicator.clock import Clock
from replicator.core.catalogue import GenerationListing
from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    OwnershipLost,
    StoreUnavailable,
)
from replicator.core.full import Manifest, decode_manifest
from replicator.core.incremental import Incremental, decode_incremental
from replicator.core.names import (
    FULL,
    GENERATIONS,
    INCREMENTAL,
    LEASES,
    REPOSITORY,
    FullName,
    GenerationName,
    IncrementalName,
    LeaseName,
    SegmentName,
    parse_name,
    tail_prefix,
)
from replicator.core.position import GenerationId
from replicator.core.records import (
    SEALED,
    GenerationRecord,
    LeaseRecord,
    RepositoryRecord,
    decode_generation,
    decode_lease,
    decode_repository,
    encode_record,
    lease_in_segment,
    newest_of,
)
from replicator.core.restore_plan import chain_of
from replicator.core.times import format_time
from replicator.core.unit import decode_unit, parse_unit_header, split_units
from replicator.events import damaged_backups
from replicator.files import mount_of, read_json
from replicator.keys import HeldKeys
from replicator.slots import record_in
from replicator.state import Newest, Recovered, StateFolder
from replicator.store import Store, folder_of


def enlist(store: Store, state: StateFolder, keys: HeldKeys, clock: Clock, *, take_over: bool) -> None:
    """Give the repository our identity, or take on its own; claim the lease.

    Raises OwnershipLost where the repository belongs to another database, or another agent writes there.
    """
    _identify(store, state, keys, clock)
    _claim(store, state, clock, take_over=take_over)


def _identify(store: Store, state: StateFolder, keys: HeldKeys, clock: Clock) -> None:
    folder = folder_of(store.url)
    if folder is not None:
        _require_mounted(store, folder, state)
    found = record_in(store)
    if found is None:
        features = (SEALED,) if keys.configured else ()
        wanted = RepositoryRecord(
            repository=state.repository or secrets.token_hex(16),
            created=format_time(clock.wall()),
            features=features,
        )
        try:
            store.put(REPOSITORY, encode_record(wanted))
            found = wanted
        except ObjectExists:
            found = decode_repository(store.get(REPOSITORY), REPOSITORY)
    if not state.repository:
        state.belong_to(found.repository)
    elif state.repository != found.repository:
        found = record_in(store) or found  # an answer may be damaged
        if state.repository != found.repository:
            raise OwnershipLost(
                f"{store.url} is the repository of another database ({found.repository}, ours is {state.repository})",
                hint="give this database a store URL of its own; if its state folder was lost and this store did not "
                "answer at the first start after that, delete the state folder and start again",
            )
    keys.agree(store, found, clock.wall)
    if folder is not None:
        state.remember_mount(store.url, mount_of(folder))


def _require_mounted(store: Store, folder: str, state: StateFolder) -> None:
    """An empty folder where a share was mounted is the disk beneath it. What were put there would be hidden once
    the share is back."""
    mount = state.mounts.get(store.url, "/")
    if not os.path.ismount(mount):
        raise StoreUnavailable(
            f"store folder {folder} lay on what was mounted at {mount}, and nothing is mounted there",
            hint=f"mount it; if it is gone for good, name another folder, or take it out of {state.path}",
        )


def newest_lease(store: Store) -> LeaseRecord | None:
    """Who writes to *store*; None where nobody ever did."""
    leases = [name for each in store.list(LEASES) if isinstance(name := parse_name(each.name), LeaseName)]
    newest = max(leases, default=None)
    if newest is None:
        return None
    try:
        return decode_lease(store.get(str(newest)), str(newest))
    except ObjectCorrupt as exc:
        exc.hint = (
            exc.hint or "nobody knows who writes; if only this agent does, take it away: it is claimed anew"
        )
        raise


def lease_text(lease: LeaseRecord) -> str:
    return f"process {lease.pid} on {lease.host}, since {lease.claimed} (epoch {lease.epoch})"


def is_of(lease: LeaseRecord, state_folder: str) -> bool:
    """Whether the agent of *state_folder*, running or not, holds *lease*."""
    state = read_json(os.path.join(state_folder, "state.json")) or {}
    return bool(state.get("writer") == lease.writer)


def _claim(store: Store, state: StateFolder, clock: Clock, *, take_over: bool) -> None:
    """A lease has no expiry: the newest one says who writes, until somebody claims the next epoch."""
    holder = newest_lease(store)
    if holder is not None and holder.writer != state.writer:
        holder = newest_lease(store) or holder  # an answer that was damaged on the way accuses nobody
    if holder is not None:
        if holder.writer == state.writer:
            # Of several stores one may have had a take-over: the epoch is the database's.
            state.raise_epoch(holder.epoch)
            return
        if not take_over:
            raise OwnershipLost(
                f"another agent writes to {store.url}: {lease_text(holder)}",
                hint="if that agent is gone for good, start this one with --take-over",
            )
    epoch = max(holder.epoch + 1 if holder else 1, state.epoch)
    lease = LeaseRecord(
        epoch, state.writer, socket.gethostname(), os.getpid(), format_time(clock.wall()), holder is not None
    )
    try:
        store.put(str(LeaseName(epoch)), encode_record(lease))
    except ObjectExists as exc:
        # Our own claim, by another thread or by an attempt that failed after its effect, is ours all the same.
        if decode_lease(store.get(str(LeaseName(epoch))), str(LeaseName(epoch))).writer != state.writer:
            raise OwnershipLost(
                f"another agent claimed epoch {epoch} of {store.url} at the same time",
                hint="see which one is wanted, and stop the other",
            ) from exc
    state.raise_epoch(epoch)


def newest_in(store: Store, generation: GenerationId) -> Newest:
    """One LIST of the generation's tail, one GET of its last segment and one of what would follow, which a listing that
    lags behind does not name; two LISTs for the fulls."""
    found: list[SegmentName] = []
    for each in store.list(tail_prefix(generation)):
        name = parse_name(each.name)
        if isinstance(name, SegmentName):
            found.append(name)
    unit: bytes | None = None
    closed = False
    while found and unit is None:
        last = str(found.pop())
        content = store.get(last)
        if lease_in_segment(content, last) is not None:
            closed = True
            continue
        unit = _last_unit(content, last)
    while unit is not None and not closed:
        following = _segment_behind(store, unit)
        if following is None:
            break
        closed = lease_in_segment(*following) is not None
        if not closed:
            unit = _last_unit(*following)
    return Newest(unit, fulls_in(store, generation), closed)


def _last_unit(content: bytes, name: str) -> bytes:
    """Proved: who would go on behind a damaged one accuses others of writing it."""
    unit: bytes | None = None
    for view in split_units(content):
        unit = bytes(view)
    if unit is None:
        raise ObjectCorrupt(f"{name} is empty")
    decode_unit(unit)
    return unit


def _segment_behind(store: Store, unit: bytes) -> tuple[bytes, str] | None:
    """What lies where the segment behind *unit* would, and its name."""
    last = parse_unit_header(unit)
    if last.commits:
        name = str(SegmentName(last.generation, last.txid_last + 1))
    else:
        name = str(SegmentName(last.generation, last.txid_first, last.part + 1))
    try:
        return store.get(name), name
    except ObjectNotFound:
        return None


def fulls_in(store: Store, generation: GenerationId) -> tuple[FullName, ...]:
    """Without those that were found hurt. Two LISTs."""
    damaged = damaged_backups(store)
    found = [
        name
        for each in store.list(FULL)
        if isinstance(name := parse_name(each.name), FullName)
        and name.generation == generation
        and name.backup_id not in damaged
    ]
    return tuple(sorted(found, key=lambda each: each.txid))


def newest_backup(store: Store, generation: GenerationId) -> Manifest | Incremental | None:
    """The newest backup of *generation* that has all it rests on; None without any. Four LISTs and a GET."""
    damaged = damaged_backups(store)
    incrementals = [
        name
        for each in store.list(INCREMENTAL)
        if isinstance(name := parse_name(each.name), IncrementalName)
        and name.generation == generation
        and name.backup_id not in damaged
    ]
    listing = GenerationListing(
        generation,
        None,
        fulls_in(store, generation),
        (),
        tuple(sorted(incrementals, key=lambda each: each.txid)),
    )
    for backup in reversed(listing.backups):
        if chain_of(listing, backup) is not None:
            content = store.get(str(backup))
            if isinstance(backup, IncrementalName):
                return decode_incremental(content, str(backup))
            return decode_manifest(content, str(backup))
    return None


def recover(store: Store, wanted: GenerationId | None) -> Recovered | None:
    """Where we were according to *store*: in generation *wanted*, or without one in the newest there is.

    Raises ObjectCorrupt where what would tell is damaged.
    """
    records: dict[GenerationId, GenerationRecord] = {}
    for each in store.list(GENERATIONS):
        name = parse_name(each.name)
        if isinstance(name, GenerationName):
            records[name.generation] = decode_generation(store.get(each.name), each.name)
    record = records.get(wanted) if wanted else newest_of(records.values())
    if record is None:
        return None
    found = newest_in(store, record.generation)
    if found.unit is None or found.closed or not decode_unit(found.unit).header.commits:
        return None
    base: int | None = None
    if found.fulls:
        base = base_checksum_of(read_manifest(store, found.fulls[-1]))
    return Recovered(record, found.unit, base)


def read_manifest(store: Store, name: FullName) -> Manifest:
    return decode_manifest(store.get(str(name)), str(name))


def base_checksum_of(full: Manifest) -> int:
    """The database's checksum where the generation began, from any of its full backups."""
    return int(full.checksum, 16) ^ int(full.rolling, 16)
