"""``ls``: what lies in a store, and what can be restored from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click

from replicator.browse import repositories_in
from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import Screen, columns, count_text, screen_of, size_text
from replicator.core.catalogue import GenerationListing
from replicator.core.errors import ObjectCorrupt, ReplicatorError, RepositoryNotFound
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental
from replicator.core.names import BackupName, FullName, IncrementalName, LogName, SegmentName
from replicator.core.records import PINNED
from replicator.core.times import format_time
from replicator.repository import (
    Repository,
    RestorePoint,
    newest_carried,
    newest_point,
    oldest_point,
    read_repository,
)
from replicator.store import Store

STRAYS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Filter:
    """Of which kinds, and of which span of time, microseconds; None is without end."""

    kind: str | None
    since: int | None
    until: int | None

    def covers(self, time: int) -> bool:
        return (self.since is None or time >= self.since) and (self.until is None or time <= self.until)


@click.command(cls=Verb)
@click.argument("source", required=False)
@click.option(
    "--kind",
    type=click.Choice(["full", "incremental", "log", "segment"]),
    help="Only these; segments are listed one by one.",
)
@click.option("--since", metavar="TIME", help="Only what was committed at or after this time.")
@click.option("--until", metavar="TIME", help="Only what was committed at or before this time.")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.pass_context
def ls(
    ctx: click.Context,
    source: str | None,
    kind: str | None,
    since: str | None,
    until: str | None,
    config: str | None,
) -> int:
    """List generations, backups, logs and live segments of SOURCE; without it, the databases of the
    configuration. Where SOURCE is a bucket or a folder with repositories in it, those are listed.

    JSON: `replicator-listing`; without SOURCE a line `replicator-database` for each store of each; of a place
    with repositories a line `replicator-repository` {url} for each.
    """
    screen = screen_of(ctx)
    if source is None:
        _list_databases(screen, config)
        return 0
    chosen = Filter(kind, _time(screen, since), _time(screen, until))
    store = asked.find_store(source, config)
    try:
        repository = read_repository(store)
    except RepositoryNotFound:
        if not _list_repositories(screen, store):
            raise
        return 0
    document = describe(repository, chosen)
    if screen.json:
        screen.document(document)
    else:
        _print(screen, document)
    return 0


def _time(screen: Screen, text: str | None) -> int | None:
    time = asked.asked_time(text, asked.wall_now())
    if time.micros is not None and time.zone_assumed:
        screen.note(f"{text!r} names no zone, UTC is assumed: {format_time(time.micros)}")
    return time.micros


def _list_repositories(screen: Screen, store: Store) -> bool:
    """Those below *store*, as the URLs to give next; whether there are any."""
    found = False
    deep: list[str] = []
    for prefix in repositories_in(store, too_deep=deep.append):
        found = True
        url = f"{store.url.rstrip('/')}/{prefix}"
        if screen.json:
            screen.document({"kind": "replicator-repository", "url": url})
        else:
            screen.result(url)
    if deep:
        screen.note(
            f"not looked into, since they lie deep: {len(deep)}, such as {deep[0]}; name one to see it"
        )
    return found


# --- the databases of the configuration ----------------------------------------------------------------


def _list_databases(screen: Screen, config: str | None) -> None:
    """JSON: ``replicator-database`` {name, database, store, window, problem}, where ``window`` is as in
    ``describe`` and ``problem`` says why there is none."""
    rows = [("NAME", "DATABASE", "STORE", "OLDEST", "NEWEST")]
    for database in asked.needed_configuration(config).databases:
        for url in database.stores:
            place = asked.opened(url, database).url
            window: dict[str, Any] | None = None
            problem: str | None = None
            try:
                window = window_of(read_repository(asked.own_store(url, database)))
                problem = None if window else "nothing can be restored yet"
            except ReplicatorError as exc:
                problem = str(exc)
            if screen.json:
                screen.document(
                    {
                        "kind": "replicator-database",
                        "name": database.name,
                        "database": database.path,
                        "store": place,
                        "window": window,
                        "problem": problem,
                    }
                )
            else:
                ends = (
                    (window["oldest"]["committed"], window["newest"]["committed"])
                    if window
                    else ("-", problem)
                )
                rows.append((database.name, database.path, place, ends[0], ends[1] or ""))
    if not screen.json:
        for line in columns(rows):
            screen.result(line)


# --- one repository ------------------------------------------------------------------------------------


def point_document(point: RestorePoint) -> dict[str, str]:
    """{position, committed}: how every verb writes a restore point."""
    return {"position": str(point.position), "committed": format_time(point.observed)}


def window_of(repository: Repository) -> dict[str, Any] | None:
    """{oldest, newest} restore point of the whole repository, or None while there is none."""
    generations = [each for each in repository.catalogue.generations if each.fulls]
    if not generations:
        return None
    return {
        "oldest": point_document(oldest_point(repository, generations[0])),
        "newest": point_document(newest_point(repository, generations[-1])),
    }


def describe(repository: Repository, chosen: Filter) -> dict[str, Any]:
    """``replicator-listing``: {store, repository, window, generations[], strays[]}.

    A generation is {generation, began, reason, previous, fulls[], incrementals[], logs[], tail, segments[], problem}; a
    full {id, position, committed, verified, pinned, object_bytes, database_bytes, plain_bytes, stored_bytes, chunks,
    chunks_new}, an incremental {id, position, committed, verified, pinned, parent, object_bytes, database_bytes, pages,
    plain_bytes, stored_bytes}, of which all from database_bytes on are null where the manifest cannot be read;
    ``verified`` is written, checksummed or restored. A log {name, txid_first, txid_last, bytes, committed}; ``tail``
    {count, bytes, txid_first, txid_last, first, last} or null; ``segments`` only with --kind segment, {name,
    txid_first, part, bytes, committed}. ``problem`` names what could not be read.
    """
    catalogue = repository.catalogue
    return {
        "kind": "replicator-listing",
        "store": repository.store.url,
        "repository": repository.identity,
        "window": _attempt(lambda: window_of(repository))[0],
        "generations": [_generation(repository, each, chosen) for each in catalogue.generations],
        "strays": list(catalogue.strays),
    }


def _attempt(read: Callable[[], dict[str, Any] | None]) -> tuple[dict[str, Any] | None, str | None]:
    """A damaged object must not keep the others from being listed."""
    try:
        return read(), None
    except ObjectCorrupt as exc:
        return None, str(exc)


def _generation(repository: Repository, listing: GenerationListing, chosen: Filter) -> dict[str, Any]:
    record = listing.record
    segments: list[dict[str, Any]] = []
    tail: dict[str, Any] | None = None
    problem: str | None = None
    if chosen.kind == "segment":
        for name in listing.segments:
            found = _segment(repository, name)
            if chosen.covers(found.pop("micros")):
                segments.append(found)
    elif chosen.kind is None and listing.segments:
        tail, problem = _attempt(lambda: _tail(repository, listing))

    def of_kind(kind: str, found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return (
            [each for each in found if chosen.covers(each.pop("micros"))]
            if chosen.kind in (None, kind)
            else []
        )

    return {
        "generation": listing.generation,
        "began": format_time(record.began) if record else None,
        "reason": record.reason if record else None,
        "previous": record.previous if record else None,
        "fulls": of_kind("full", (_full(repository, each) for each in listing.fulls)),
        "incrementals": of_kind(
            "incremental", (_incremental(repository, each) for each in listing.incrementals)
        ),
        "logs": of_kind("log", (_log(repository, each) for each in listing.logs)),
        "tail": tail,
        "segments": segments,
        "problem": problem,
    }


def _full(repository: Repository, name: FullName) -> dict[str, Any]:
    found: Manifest | None = None
    with contextlib.suppress(ReplicatorError):  # its name says the rest; whoever restores it is told
        found = repository.manifest(name)
    return {
        **_backup(repository, name, found),
        "chunks": found.chunks if found else None,
        "chunks_new": found.chunks_new if found else None,
    }


def _incremental(repository: Repository, name: IncrementalName) -> dict[str, Any]:
    found: Incremental | None = None
    with contextlib.suppress(ReplicatorError):
        found = repository.incremental(name)
    return {
        **_backup(repository, name, found),
        "parent": found.parent if found else None,
        "pages": found.pages_stored if found else None,
    }


def _backup(repository: Repository, name: BackupName, found: Manifest | Incremental | None) -> dict[str, Any]:
    observed = found.observed if found else name.time
    return {
        "id": name.backup_id,
        "position": f"{name.generation}/{name.txid:016x}",
        "committed": format_time(observed),
        "verified": repository.catalogue.grade(name.backup_id),
        "pinned": PINNED in repository.catalogue.events.get(name.backup_id, ()),
        "object_bytes": repository.catalogue.sizes[str(name)],
        "database_bytes": found.database_bytes if found else None,
        "plain_bytes": found.plain_bytes if found else None,
        "stored_bytes": found.stored_bytes if found else None,
        "micros": observed,
    }


def _log(repository: Repository, name: LogName) -> dict[str, Any]:
    return {
        "name": str(name),
        "txid_first": f"{name.txid_first:016x}",
        "txid_last": f"{name.txid_last:016x}",
        "bytes": repository.catalogue.sizes[str(name)],
        "committed": format_time(name.time),
        "micros": name.time,
    }


def _segment(repository: Repository, name: SegmentName) -> dict[str, Any]:
    try:
        began = repository.begins(name)
    except ObjectCorrupt:
        began = 0
    return {
        "name": str(name),
        "txid_first": f"{name.txid_first:016x}",
        "part": name.part,
        "bytes": repository.catalogue.sizes[str(name)],
        "committed": format_time(began) if began else None,
        "micros": began,
    }


def _tail(repository: Repository, listing: GenerationListing) -> dict[str, Any]:
    last = newest_carried(repository, listing).headers[-1]
    return {
        "count": len(listing.segments),
        "bytes": sum(repository.catalogue.sizes[str(each)] for each in listing.segments),
        "txid_first": f"{listing.segments[0].txid_first:016x}",
        "txid_last": f"{last.txid_last:016x}",
        "first": format_time(repository.begins(listing.segments[0])),
        "last": format_time(last.observed_last),
    }


# --- for the eye ---------------------------------------------------------------------------------------


def _print(screen: Screen, document: dict[str, Any]) -> None:
    screen.result(f"store   {document['store']} (repository {document['repository']})")
    window = document["window"]
    if window is None:
        screen.result("window  nothing can be restored yet, or the newest object is damaged")
    else:
        oldest, newest = window["oldest"], window["newest"]
        screen.result(f"window  from {oldest['committed']} ({oldest['position']})")
        screen.result(f"        to   {newest['committed']} ({newest['position']})")
    for generation in document["generations"]:
        screen.result()
        began = (
            f"began {generation['began']}: {generation['reason']}"
            if generation["began"]
            else "without its record"
        )
        after = f", after {generation['previous']}" if generation["previous"] else ""
        screen.result(f"generation {generation['generation']}  {began}{after}")
        _print_objects(screen, generation)
    strays = document["strays"]
    if strays:
        screen.result()
        shown = ", ".join(strays[:STRAYS_SHOWN]) + (", …" if len(strays) > STRAYS_SHOWN else "")
        screen.result(f"{count_text(len(strays), 'stray object')}, not ours and not used: {shown}")


def _print_backups(screen: Screen, word: str, backups: list[dict[str, Any]]) -> None:
    """With what was stored for each, how small that is, and how much of the database it could refer to."""
    rows = [(f"  {word}", "COMMITTED", "STORED", "SMALLER", "NEW", "DATABASE", "VERIFIED")]
    for each in backups:
        stored, plain = each["stored_bytes"], each["plain_bytes"]
        whole, chunks = each["database_bytes"], each.get("chunks")
        new = f"{each['chunks_new'] / chunks:.0%}" if chunks else "-"
        if each.get("pages") is not None:
            new = count_text(each["pages"], "page")
        rows.append(
            (
                f"  {each['id']}",
                each["committed"],
                size_text(each["object_bytes"] if stored is None else stored),
                f"{plain / stored:.1f}×" if stored and plain else "-",
                new,
                "-" if whole is None else size_text(whole),
                each["verified"] + ", pinned" * each["pinned"],
            )
        )
    for line in columns(rows, right=frozenset((2, 3, 4, 5))) if backups else ():
        screen.result(line)


def _print_objects(screen: Screen, generation: dict[str, Any]) -> None:
    for word, key in (("FULL", "fulls"), ("INCREMENTAL", "incrementals")):
        _print_backups(screen, word, generation[key])
    logs = generation["logs"]
    if logs:
        whole = size_text(sum(each["bytes"] for each in logs))
        screen.result(
            f"  {count_text(len(logs), 'log')}, {whole}: txid {logs[0]['txid_first']} to {logs[-1]['txid_last']}, "
            f"{logs[0]['committed']} to {logs[-1]['committed']}"
        )
    rows = [("  SEGMENT", "COMMITTED", "SIZE", "")] if generation["segments"] else []
    for each in generation["segments"]:
        rows.append((f"  {each['name']}", each["committed"] or "unreadable", size_text(each["bytes"]), ""))
    for line in columns(rows, right=frozenset((2,))):
        screen.result(line)
    tail = generation["tail"]
    if tail is not None:
        screen.result(
            f"  tail: {count_text(tail['count'], 'segment')}, {size_text(tail['bytes'])}, "
            f"txid {tail['txid_first']} to {tail['txid_last']}, {tail['first']} to {tail['last']}"
        )
    if generation["problem"]:
        screen.result(f"  DAMAGED: {generation['problem']}")
