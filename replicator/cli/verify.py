"""``verify``: look for damage in a repository, and say what it takes away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.kinds import DURATION, SHARE
from replicator.cli.screen import Screen, count_text, screen_of, size_text
from replicator.cli.signals import STOPPING, Asked, handled
from replicator.cli.through import agent_runs, tell_failure, through_agent
from replicator.config import DatabaseConfig
from replicator.core.catalogue import GenerationListing
from replicator.core.errors import Interrupted, KeyRefused, ReplicatorError, UsageError
from replicator.core.names import REPOSITORY, KeyName, LeaseName, parse_name
from replicator.core.times import format_time
from replicator.enlist import newest_lease
from replicator.files import read_json
from replicator.keys import HeldKeys
from replicator.repository import Repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.slots import slots_in
from replicator.state import StateFolder
from replicator.store import connect
from replicator.store.sealed import SealedStore
from replicator.verify import LEVELS, Limits, Lost, Report, verify
from replicator.verify.records import Records

CLEAN, PARTIAL, HURT = 0, 3, 13


@click.command("verify", cls=Verb)
@click.argument("source")
@click.option(
    "--level", type=click.Choice(LEVELS), default="content", show_default=True, help="How close to look."
)
@click.option(
    "--sample", type=SHARE, metavar="SHARE", default="100%", help="Look at so many only, such as 5%."
)
@click.option("--max-duration", type=DURATION, metavar="TIME", help="Stop looking after this: 1h.")
@click.option("--scratch", metavar="DIR", help="Where `restore` restores to, for as long as it takes.")
@click.option("--repair", is_flag=True, help="Put back what can be, through the agent of SOURCE, a database.")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.pass_context
def verify_verb(
    ctx: click.Context,
    source: str,
    level: str,
    sample: float,
    max_duration: float | None,
    scratch: str | None,
    repair: bool,
    config: str | None,
) -> int:
    """Look for damage in SOURCE: what is hurt, and which restore points it takes away.

    names: what is listed fits together. checksums: every object is what was written under its name; of an encrypted
    repository also without the key. content: backups and log say what they should to each other, chunk by chunk, unit
    by unit. restore: each generation is restored. Exit code 13 if something is hurt, 3 if time ran out before the
    end. With --repair what is hurt is put back from the spool, the state folder, or the other stores of the database;
    a backup that nobody has is relied upon no more, and a full one is made of the live database. Of a database each
    store is looked at.

    --sample takes a share, another one each time and always the last, of three things: of the objects whose checksums
    are looked at, of the backups that are read chunk by chunk, and of the generations that are restored. All names and
    all manifests are looked at, and from content on every log and segment is read.

    JSON, an object a store: `replicator-verify` {store, level, objects, sampled {objects, backups, generations},
    bytes_read, restored, ended_early, hurt [{name, fault}], lost [{generation, txid_first, txid_last, first, last}],
    notes[]}; `sampled` is null where all was looked at.
    """
    screen = screen_of(ctx)
    looking = _Looking(level, Limits(sample, max_duration), scratch)
    if not repair:
        stores = asked.find_stores(source, config)
        return max(_look_at(screen, looking, opened, alone=len(stores) == 1) for opened in stores)
    database = asked.find_database(source, config)
    if database is None:
        raise UsageError(
            f"{source} is a store, and only the agent of a database repairs one", hint="name the database"
        )
    return max(_repair(screen, database, url, looking) for url in database.stores)


def _look_at(screen: Screen, looking: _Looking, opened: Callable[[], SealedStore], *, alone: bool) -> int:
    """Of several stores, one that cannot be looked at does not keep the others from being."""
    try:
        return _tell(screen, *looking.at(opened()))
    except Interrupted:
        raise
    except ReplicatorError as exc:
        if alone:
            raise
        screen.result(f"NOT SEEN  {exc}")
        return exc.exit_code


class _Looking:
    """How close, and for how long; with the signals that end it."""

    def __init__(self, level: str, limits: Limits, scratch: str | None) -> None:
        self._level = level
        self._limits = limits
        self._scratch = scratch
        self._stop = Asked()

    def at(self, store: SealedStore) -> tuple[str, Report]:
        with handled(STOPPING, self._stop):
            report = verify(
                store, self._level, self._limits, restore=self._restore, cancelled=self._cancelled
            )
        return store.url, report

    def _cancelled(self) -> None:
        if self._stop.stop:
            error = Interrupted("the verification was stopped")
            error.exit_code = self._stop.exit_code
            raise error

    def _restore(self, repository: Repository, listing: GenerationListing) -> None:
        chosen = choose(repository, Target(generation=listing.generation))
        with tempfile.TemporaryDirectory(prefix="replicator-", dir=self._scratch) as folder:
            output = os.path.join(folder, "restored.db")
            restore_chosen(
                repository, chosen, output, RestoreOptions("full"), cancelled=lambda: self._stop.stop
            )


def _repair(screen: Screen, database: DatabaseConfig, url: str, looking: _Looking) -> int:
    """Look, put back, look again; what is hurt then stays so."""
    store = asked.own_store(url, database)
    place = store.url
    try:
        report = looking.at(store)[1]
        if not report.found:
            return _tell(screen, place, report)
        names = [each.name for each in report.found]
        for each in report.found:
            screen.say(f"hurt: {each.name}: {each.fault}")
    except KeyRefused as exc:
        # Of what opens the rest the agent has its own, also where no slot is left.
        names = [str(name) for name in slots_in(store.plain)] or _kept_slot(database)
        screen.say(f"not opened: {exc}")
    if not agent_runs(database):
        identified = _identify(database, url, names)
        names = [name for name in names if name not in identified]
        for name in identified:
            screen.say(f"put back: {name}")
    found = through_agent(screen, database, "repair", {"store": place, "names": names})["stores"][place]
    if tell_failure(screen, place, found):
        return int(found["exit_code"])
    for word, key in (
        ("put back", "put_back"),
        ("taken away", "taken_away"),
        ("set aside", "set_aside"),
        ("whole, seen again", "well"),
    ):
        for name in found[key]:
            screen.say(f"{word}: {name}")
    for name, reason in found["left"].items():
        screen.say(f"left as it is: {name}: {reason}")
    if found["full"]:
        screen.say(f"a full backup was made: {found['full']}")
    return _tell(screen, *looking.at(asked.own_store(url, database)))


def _kept_slot(database: DatabaseConfig) -> list[str]:
    kept = read_json(StateFolder(database.state_folder).keys_path)
    number = kept.get("number") if kept is not None else None
    return [str(KeyName(number))] if isinstance(number, int) else []


def _identify(database: DatabaseConfig, url: str, names: Sequence[str]) -> list[str]:
    """Put back what says whose the store is, and what opens it: an agent that begins asks for that first, and would
    wait for it. Returns what was. Raises ObjectCorrupt where nobody knows who writes there."""
    if not any(name == REPOSITORY or isinstance(parse_name(name), KeyName | LeaseName) for name in names):
        return []
    state = StateFolder(database.state_folder)
    state.open()
    try:
        keys = HeldKeys(database.encryption, state.keys_path)
        keys.open()
        store = SealedStore(connect(url), keys)
        lease = newest_lease(store)
        if lease is None or lease.writer != state.writer:
            return []
        return Records(store, lambda: (), state=state, slot=keys.slot, wall=asked.wall_now).identify(names)
    finally:
        state.close()


def lost_document(lost: Lost) -> dict[str, Any]:
    """{generation, txid_first, txid_last, first, last}; times are null where only names were looked at."""
    stretch = lost.stretch
    return {
        "generation": lost.generation,
        "txid_first": f"{stretch.txid_first:016x}",
        "txid_last": f"{stretch.txid_last:016x}",
        "first": format_time(stretch.time_first) if stretch.time_first else None,
        "last": format_time(stretch.time_last) if stretch.time_last else None,
    }


def _tell(screen: Screen, url: str, report: Report) -> int:
    code = HURT if report.found else (PARTIAL if report.ended_early else CLEAN)
    if screen.json:
        screen.document(
            {
                "kind": "replicator-verify",
                "store": url,
                "level": report.level,
                "objects": report.objects,
                "sampled": _sampled(report),
                "bytes_read": report.bytes_read,
                "restored": report.restored,
                "ended_early": report.ended_early,
                "hurt": [{"name": each.name, "fault": each.fault} for each in report.found],
                "lost": [lost_document(each) for each in report.lost],
                "notes": report.notes,
            }
        )
        return code
    for each in report.found:
        screen.result(f"HURT  {each.name}: {each.fault}")
    for lost in map(lost_document, report.lost):
        times = f" ({lost['first']} to {lost['last']})" if lost["first"] and lost["last"] else ""
        screen.result(
            f"LOST  restore points {lost['txid_first']} to {lost['txid_last']} of generation "
            f"{lost['generation']}{times}"
        )
    for note in report.notes:
        screen.note(note)
    screen.result(_summary(url, report))
    return code


def _sampled(report: Report) -> dict[str, int | None] | None:
    """How many were chosen; null of each kind that the level does not look into."""
    if report.sampled is None:
        return None
    chosen = {field.name: getattr(report.sampled, field.name) for field in fields(report.sampled)}
    return {name: found[0] if found is not None else None for name, found in chosen.items()}


def _summary(url: str, report: Report) -> str:
    what, nothing = count_text(report.objects, "object"), "nothing is hurt"
    if report.sampled is not None:
        chosen = report.sampled.objects or (0, report.objects)
        also = [
            f"{found[0]:,} of {count_text(found[1], name)} {how}"
            for name, how, found in (
                ("backup", "chunk by chunk", report.sampled.backups),
                ("generation", "by restoring", report.sampled.generations),
            )
            if found is not None
        ]
        what = ", ".join([f"a sample of {chosen[0]:,} of {count_text(chosen[1], 'object')}", *also])
        nothing = "nothing in it is hurt"
    early = ", as far as the time allowed" if report.ended_early else ""
    read = f", {size_text(report.bytes_read)} read" if report.bytes_read else ""
    verdict = nothing if not report.found else count_text(len(report.found), "hurt object")
    return f"{what} of {url}, {report.level}{early}{read}: {verdict}"
