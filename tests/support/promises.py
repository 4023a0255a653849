"""What a retention policy promises, worked out a second time: from the list of all backups there ever were.

As plain and slow as it can be said, and with nothing of the program but its formats: what a store holds is compared
with it (tests/parts/test_prune.py, tests/parts/test_year.py).
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from replicator.core.full import Manifest, decode_manifest, read_tables
from replicator.core.incremental import Incremental, decode_incremental
from replicator.core.names import (
    FullName,
    GenerationName,
    IncrementalName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
)
from replicator.store import Store

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR


@dataclass(frozen=True)
class Rules:
    """The numbers of S12, S08, S03 and S04."""

    log_hours: float = 48
    incremental_days: float = 7
    full_days: float = 30
    months: int = 12


@dataclass(frozen=True)
class Made:
    """A backup that there was. ``parent`` is None of a full."""

    backup_id: str
    generation: str
    txid: int
    time: int
    parent: str | None
    packs: tuple[tuple[str, int], ...]


def made_of(manifest: Manifest | Incremental) -> Made:
    return Made(
        manifest.name.backup_id,
        manifest.generation,
        manifest.txid,
        manifest.observed,
        manifest.parent if isinstance(manifest, Incremental) else None,
        tuple((pack.name, pack.size_bytes) for pack in manifest.packs),
    )


def backups_in(store: Store) -> dict[str, Made]:
    """By their ids, as their manifests in *store* say."""
    found = {}
    for folder in ("full/", "incremental/"):
        for each in store.list(folder):
            name = parse_name(each.name)
            if isinstance(name, FullName):
                found[name.backup_id] = made_of(decode_manifest(store.get(each.name), each.name))
            elif isinstance(name, IncrementalName):
                found[name.backup_id] = made_of(decode_incremental(store.get(each.name), each.name))
    return found


def promised(backups: Iterable[Made], rules: Rules, now: int) -> dict[str, str]:
    """The ids of the backups that have to be there at *now*, each with why; what they rest on included."""
    known = {each.backup_id: each for each in backups}
    ordered = sorted(known.values(), key=lambda each: (each.time, each.txid))
    fulls = [each for each in ordered if each.parent is None]
    reasons: dict[str, str] = {}

    def promise(each: Made | None, why: str) -> None:
        if each is not None:
            reasons.setdefault(each.backup_id, why)

    for each in ordered:
        if each.time >= now - rules.log_hours * HOUR:
            promise(each, "S12: within the last hours")
        if each.parent is not None and each.time >= now - rules.incremental_days * DAY:
            promise(each, "S08: an incremental of the last days")
        if each.parent is None and each.time >= now - rules.full_days * DAY:
            promise(each, "S03: a full of the last days")
    promise(_base_of_window(ordered, now - round(rules.log_hours * HOUR)), "S12: the window begins from it")
    for each in _first_of_later_generations(ordered, now - round(rules.log_hours * HOUR)):
        promise(each, "S12: its generation begins within the window")
    for month, first in _first_of_months(fulls).items():
        if first.time >= months_before(now, rules.months):
            promise(first, f"S04: the first full of {month}")
    promise(_stands_for_days(fulls, now, rules), "S03: what the first days have")
    if fulls:
        newest = fulls[-1]
        promise(newest, "the newest full")
        for each in ordered:
            if newest.backup_id in chain_of(each, known):
                promise(each, "on the newest full")
    for backup_id, why in list(reasons.items()):
        for below in chain_of(known[backup_id], known)[1:]:
            reasons.setdefault(below, f"{backup_id} lies on it, {why}")
    return reasons


def chain_of(backup: Made, known: Mapping[str, Made]) -> list[str]:
    """*backup* and what it rests on, down to the full."""
    chain = [backup.backup_id]
    while backup.parent is not None:
        backup = known[backup.parent]
        chain.append(backup.backup_id)
    return chain


def _generations(ordered: list[Made]) -> list[list[Made]]:
    """The backups of each, in the order in which generations have a first one."""
    found: dict[str, list[Made]] = {}
    for each in ordered:
        found.setdefault(each.generation, []).append(each)
    return list(found.values())


def _base_of_window(ordered: list[Made], begins: int) -> Made | None:
    """The newest backup from before the window, of the generation that was the current one then."""
    before = [each for each in ordered if each.time <= begins]
    return max(before, key=lambda each: (each.time, each.txid), default=None)


def _first_of_later_generations(ordered: list[Made], begins: int) -> list[Made]:
    return [found[0] for found in _generations(ordered) if found[0].time > begins]


def _first_of_months(fulls: list[Made]) -> dict[str, Made]:
    found: dict[str, Made] = {}
    for each in fulls:
        found.setdefault(_moment(each.time).strftime("%Y-%m"), each)
    return found


def _stands_for_days(fulls: list[Made], now: int, rules: Rules) -> Made | None:
    """Where no full was made when the days that are kept begin: the one that was the newest then. A full may be late by
    two hours."""
    begins = now - round(rules.full_days * DAY)
    within = [each.time for each in fulls if each.time >= begins]
    earlier = [each for each in fulls if each.time < begins]
    late = min(within, default=now) - begins > DAY + 2 * HOUR
    return earlier[-1] if earlier and late else None


def months_before(now: int, months: int) -> int:
    moment = _moment(now)
    year, month = moment.year, moment.month - months
    while month < 1:
        year, month = year - 1, month + 12
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return (moment.replace(year=year, month=month, day=day) - _EPOCH) // timedelta(microseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(time: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time)


# --- what may lie there besides ------------------------------------------------------------------------


def unreferenced(store: Store, now: int) -> list[str]:
    """Packs that no manifest names and that are older than a backup may take, and records of backups that are gone.

    A pack behind the newest backup of all may belong to the next one, however old its commit is.
    """
    backups = backups_in(store)
    named = {name for each in backups.values() for name, _ in each.packs}
    newest = max(backups.values(), key=lambda each: (each.time, each.txid), default=None)
    found = []
    for each in store.list(""):
        name = parse_name(each.name)
        if isinstance(name, PackName) and each.name not in named and now - name.time > 48 * HOUR:
            next_one = newest is None or (name.generation == newest.generation and name.txid >= newest.txid)
            found += [] if next_one else [each.name]
        if each.name.startswith("records/"):
            backup_id = each.name.split("/")[1]
            young = now - _time_of(backup_id) <= 48 * HOUR
            if backup_id not in backups and not young:
                found.append(each.name)
    return found


def past_units(store: Store, backups: Iterable[Made], rules: Rules, now: int) -> list[str]:
    """Logs and segments that lead to no commit of the window and not on from the newest full, and records of
    generations of which nothing is left. *backups*: all that there ever were."""
    ordered = sorted(backups, key=lambda each: (each.time, each.txid))
    begins = now - round(rules.log_hours * HOUR)
    base = _base_of_window(ordered, begins) or ordered[0]
    full = [each for each in ordered if each.parent is None][-1]
    start = min(each.txid for each in (base, full) if each.generation == base.generation)
    order = list(dict.fromkeys(each.generation for each in ordered))
    later = set(order[order.index(base.generation) + 1 :])
    living = {each.generation for each in backups_in(store).values()} | {order[-1]}
    found = []
    for each in store.list(""):
        name = parse_name(each.name)
        if isinstance(name, LogName):
            leads = name.generation == base.generation and name.txid_last > start
            found += [] if leads or name.generation in later or name.time >= begins - SECOND else [each.name]
        elif isinstance(name, SegmentName):
            found += [] if name.generation in (base.generation, *later) else [each.name]
        elif isinstance(name, GenerationName):
            found += [] if name.generation in living else [each.name]
    return found


def parts_of(manifest: Manifest | Incremental, store: Store) -> dict[tuple[str, int, int], float]:
    """The bytes of packs that a backup needs, piece by piece: a chunk by its share of the frame that it lies in. An
    incremental needs all of its packs, which nobody else does."""
    if isinstance(manifest, Incremental):
        return {(pack.name, 0, 0): float(pack.size_bytes) for pack in manifest.packs}
    parts = {}
    for use in manifest.tables:
        parts[manifest.packs[use.frame.pack].name, use.frame.offset, -1] = float(use.frame.stored_bytes)
    for table in read_tables(manifest, store.get_range):
        for run in table.runs:
            frame = run.frame
            share = frame.stored_bytes / -(-frame.plain_bytes // manifest.chunk_bytes)
            for slot in range(run.first, run.first + run.count):
                parts[manifest.packs[frame.pack].name, frame.offset, slot] = share
    return parts


def _time_of(backup_id: str) -> int:
    moment = datetime.strptime(backup_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)
