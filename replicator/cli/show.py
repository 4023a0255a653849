"""``show``: one restore point."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.ls import point_document
from replicator.cli.needs import needs_of
from replicator.cli.screen import Screen, columns, screen_of, time_text
from replicator.core.catalogue import GenerationListing
from replicator.core.errors import ObjectCorrupt
from replicator.core.position import parse_generation, parse_position, parse_txid
from replicator.core.times import format_time
from replicator.core.unit import Unit
from replicator.repository import Carried, Repository, RestorePoint, read_repository
from replicator.repository.points import point_in
from replicator.restore import Target

_BACKUP_ID = re.compile(r"\d{8}T\d{0,6}(Z(-[0-9a-f]{0,16}(-[0-9a-f]{0,16}){0,2})?)?")
_SIXTEEN = re.compile(r"[0-9a-fA-F]{16}")


@click.command(cls=Verb)
@click.argument("source")
@click.argument("wanted", metavar="ID|T")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.pass_context
def show(ctx: click.Context, source: str, wanted: str, config: str | None) -> int:
    """Show one restore point of SOURCE: what it needs, its commit time, the points beside it.

    ID|T is the id of a backup or its beginning, a position, a generation (its newest point), a txid, a
    time, or `latest`. JSON: `replicator-point`, what a restore plan has and before, after: {position,
    committed} or null.
    """
    screen = screen_of(ctx)
    repository = read_repository(asked.find_store(source, config))
    now = asked.wall_now()
    chosen = asked.choose_point(repository, _target(screen, repository, wanted, now), now)
    needs = needs_of(repository, chosen)
    listing = repository.catalogue.generation(chosen.plan.generation)
    assert listing is not None
    before, after = neighbours(repository, listing, chosen.point.position.txid)
    if screen.json:
        document: dict[str, Any] = {
            "kind": "replicator-point",
            "store": repository.store.url,
            **needs.document(),
        }
        document["before"] = point_document(before) if before else None
        document["after"] = point_document(after) if after else None
        screen.document(document)
        return 0
    rows = [("position", str(chosen.point.position)), *needs.rows(now)]
    for word, point in (("before", before), ("after", after)):
        rows.append((word, f"{point.position}, {time_text(point.observed, now)}" if point else "none"))
    for line in columns(rows):
        screen.result(line)
    return 0


def _target(screen: Screen, repository: Repository, wanted: str, now: int) -> Target:
    """What *wanted* can only mean; digits alone are a txid, unless they are a generation that is there."""
    if "/" in wanted:
        position = parse_position(wanted)
        return Target(txid=position.txid, generation=position.generation)
    if _BACKUP_ID.fullmatch(wanted):
        return asked.backup_target(asked.find_backup(repository, wanted))
    if _SIXTEEN.fullmatch(wanted):
        generation = parse_generation(wanted)
        if repository.catalogue.generation(generation) is not None:
            return Target(generation=generation)
        return Target(txid=parse_txid(wanted))
    if wanted.isdecimal():
        return Target(txid=parse_txid(wanted))
    time = asked.asked_time(wanted, now)
    if time.micros is not None and time.zone_assumed:
        screen.note(f"{wanted!r} names no zone, UTC is assumed: {format_time(time.micros)}")
    return Target(timestamp=time.micros)


def neighbours(
    repository: Repository, listing: GenerationListing, txid: int
) -> tuple[RestorePoint | None, RestorePoint | None]:
    """The restore points of the generation just before and just after *txid*; reads three logs or segments and two
    manifests at most. What is damaged has no restore points to show."""
    carriers = listing.carriers
    number = max((i for i, each in enumerate(carriers) if each.txid_first <= txid), default=0)
    points: dict[int, RestorePoint] = {}
    for name in carriers[max(number - 1, 0) : number + 2]:
        with contextlib.suppress(ObjectCorrupt):
            for unit in _units_around(repository.carried(name), txid):
                for index in range(len(unit.entries) if unit.header.commits else 0):
                    point = point_in(unit, index)
                    points[point.position.txid] = point
    backups = {each.txid: each for each in listing.backups}
    oldest = min(backups)
    there = sorted({each for each in points if each >= oldest} | set(backups))

    def found(number: int | None) -> RestorePoint | None:
        if number is None or number in points:
            return None if number is None else points[number]
        return repository.backup_point(backups[number])

    before = next((each for each in reversed(there) if each < txid), None)
    after = next((each for each in there if each > txid), None)
    return found(before), found(after)


def _units_around(carried: Carried, txid: int) -> Iterator[Unit]:
    """The units just before, at and just after *txid*; of a transaction in parts all of them."""
    near = [
        number
        for number, header in enumerate(carried.headers)
        if header.txid_first <= txid + 1 and header.txid_last >= txid - 1
    ]
    first, last = (near[0], near[-1]) if near else (len(carried) - 1, len(carried) - 1)
    for number in range(max(first - 1, 0), min(last + 2, len(carried))):
        yield carried.unit(number)
