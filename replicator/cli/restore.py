"""``restore``: put a database back, or say what that would take."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import click

from replicator.cli import asked
from replicator.cli.bar import progress_bar
from replicator.cli.frame import Verb, settings_of
from replicator.cli.kinds import GENERATION, POSITION, TXID
from replicator.cli.needs import needs_of
from replicator.cli.screen import Screen, columns, count_text, screen_of, seconds_text, size_text, time_text
from replicator.cli.signals import STOPPING, Asked, handled
from replicator.core.errors import Interrupted, RepositoryNotFound, UsageError
from replicator.core.position import GenerationId, Position
from replicator.core.times import format_time
from replicator.repository import Repository, read_repository
from replicator.restore import (
    JOBS,
    Chosen,
    RestoreOptions,
    RestoreResult,
    Target,
    around_damage,
    restore_chosen,
)
from replicator.restore.destination import check_destination


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the options say, but for the destination. ``latest``: nobody named a moment, so age matters."""

    timestamp: str | None
    txid: int | None
    backup: str | None
    generation: GenerationId | None
    at_least: Position | None

    @property
    def latest(self) -> bool:
        named = self.timestamp is not None and self.timestamp.strip().lower() != asked.LATEST
        return not named and self.txid is None and self.backup is None and self.generation is None


@click.command(cls=Verb)
@click.argument("source")
@click.option("-o", "--output", metavar="OUT", help="The file to write; with --plan not needed.")
@click.option(
    "--timestamp",
    metavar="TIME",
    help="The newest commit at or before: RFC 3339 (UTC), '2 hours ago', latest.",
)
@click.option(
    "--txid", type=TXID, metavar="N", help="Exactly this commit: 16 hexadecimal digits, or a decimal number."
)
@click.option(
    "--backup",
    metavar="ID",
    help="Exactly this backup, full or incremental; the beginning of its id will do.",
)
@click.option("--generation", type=GENERATION, metavar="G", help="Of this generation.")
@click.option(
    "--verify",
    type=click.Choice(["none", "quick", "full"]),
    default="quick",
    show_default=True,
    help="What the result has to pass.",
)
@click.option(
    "--exact", is_flag=True, help="Refuse a time of which the newest commit by then is unknown, or not kept."
)
@click.option(
    "--at-least", type=POSITION, metavar="POSITION", help="Refuse a store that does not reach this position."
)
@click.option("--plan", is_flag=True, help="Say what would be fetched, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--if-db-not-exists", is_flag=True, help="Do nothing, with success, if OUT exists.")
@click.option(
    "--if-replica-exists", is_flag=True, help="Do nothing, with success, if there is no repository."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), default=JOBS, show_default=True, help="Reads at a time."
)
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before an existing file is replaced.")
@click.pass_context
def restore(
    ctx: click.Context,
    source: str,
    output: str | None,
    timestamp: str | None,
    txid: int | None,
    backup: str | None,
    generation: GenerationId | None,
    verify: str,
    exact: bool,
    at_least: Position | None,
    plan: bool,
    overwrite: bool,
    if_db_not_exists: bool,
    if_replica_exists: bool,
    jobs: int,
    config: str | None,
    yes: bool,
) -> int:
    """Restore a database from SOURCE to the file OUT: as of the newest commit, or of any other.

    Nothing stands at OUT before the result is proved. Interrupted, it leaves nothing behind.
    JSON: `replicator-restore`, with --plan `replicator-restore-plan`.
    """
    screen = screen_of(ctx)
    if sum(each is not None for each in (timestamp, txid, backup)) > 1:
        raise UsageError("--timestamp, --txid and --backup are different targets", hint="give one of them")
    if output is None and not plan:
        raise UsageError("no output is given", hint="name the file to write with -o OUT")
    if output is not None and if_db_not_exists and os.path.lexists(output):
        screen.note(f"{output} exists; nothing was restored")
        return 0
    wanted = _Wanted(timestamp, txid, backup, generation, at_least)
    stop = Asked()
    with handled(STOPPING, stop):
        try:
            stop.at_once = _interrupt
            store = asked.find_store(source, config)
            now = asked.wall_now()
            time = asked.asked_time(timestamp, now)
            target = Target(txid, time.micros, generation, exact)
            writing = _Writing(ctx, output, RestoreOptions(verify, overwrite, jobs), stop, yes)
            around_damage(
                lambda: read_repository(store),
                lambda repository: _choose(repository, wanted, target, now),
                lambda repository, chosen: _restore(
                    screen, repository, chosen, wanted, time, None if plan else writing
                ),
                target=target if backup is None else Target(txid=0),
            )
        except RepositoryNotFound as exc:
            if not if_replica_exists:
                raise
            screen.note(f"{exc}; nothing was restored")
            return 0
        except Interrupted as exc:
            exc.exit_code = stop.exit_code if stop.stop else exc.exit_code
            raise
    return 0


@dataclass(slots=True)
class _Writing:
    """Where to, and what was asked about it so far: once is enough, also where a second way has to be tried."""

    ctx: click.Context
    output: str | None
    options: RestoreOptions
    stop: Asked
    confirmed: bool

    def write(self, repository: Repository, chosen: Chosen) -> RestoreResult:
        screen, output = screen_of(self.ctx), self.output
        assert output is not None
        if self.options.overwrite and os.path.lexists(output):
            _confirm(screen, output, chosen, yes=self.confirmed)
            self.confirmed = True
        self.stop.at_once = None  # from here on it is asked for, so that what was begun is cleared away
        with progress_bar(draws=screen.draws, color=settings_of(self.ctx).color) as report:
            return restore_chosen(
                repository, chosen, output, self.options, on_progress=report, cancelled=lambda: self.stop.stop
            )


def _interrupt() -> None:
    raise Interrupted("the restore was stopped; nothing was written")


def _choose(repository: Repository, wanted: _Wanted, target: Target, now: int) -> Chosen:
    if wanted.at_least is not None:
        asked.require_at_least(repository, wanted.at_least)
    if wanted.backup is not None:
        target = asked.backup_target(asked.find_backup(repository, wanted.backup))
    return asked.choose_point(repository, target, now)


def _restore(
    screen: Screen,
    repository: Repository,
    chosen: Chosen,
    wanted: _Wanted,
    time: asked.AskedTime,
    writing: _Writing | None,
) -> None:
    """Without *writing* only say what it would take."""
    if time.micros is not None:
        if time.zone_assumed:
            screen.note(f"{wanted.timestamp!r} names no zone, UTC is assumed: {format_time(time.micros)}")
        screen.note(
            f"{format_time(time.micros)} resolves to the commit of {format_time(chosen.point.observed)}"
        )
    if writing is None:
        _tell_plan(screen, repository, chosen)
    else:
        result = writing.write(repository, chosen)
        _tell_result(screen, repository, result, latest=wanted.latest)  # it is done, whoever asks now


def _confirm(screen: Screen, output: str, chosen: Chosen, *, yes: bool) -> None:
    """Show what would be replaced, and ask; raises click.Abort, or UsageError where nobody can answer."""
    check_destination(os.path.abspath(output), overwrite=True)
    found = os.lstat(output)
    changed = int(found.st_mtime * 1_000_000)
    screen.say(
        f"replaces  {output}: {size_text(found.st_size)}, changed {time_text(changed, asked.wall_now())}"
    )
    for suffix in ("-wal", "-journal"):
        if os.path.exists(output + suffix):
            screen.say(f"          {output}{suffix}: {size_text(os.stat(output + suffix).st_size)}")
    screen.say(f"with      {chosen.point.position}, committed {format_time(chosen.point.observed)}")
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{output} would be replaced, and nobody can be asked", hint="confirm it with --yes")
    click.confirm("Replace it?", abort=True, err=True)


def _tell_plan(screen: Screen, repository: Repository, chosen: Chosen) -> None:
    """JSON: ``replicator-restore-plan`` with what ``show`` has, too: see ``needs.Needs.document``."""
    needs = needs_of(repository, chosen)
    if screen.json:
        screen.document(
            {"kind": "replicator-restore-plan", "store": repository.store.url, **needs.document()}
        )
        return
    for line in columns([("target", str(chosen.point.position)), *needs.rows(asked.wall_now())]):
        screen.result(line)


def _tell_result(screen: Screen, repository: Repository, result: RestoreResult, *, latest: bool) -> None:
    """JSON: ``replicator-restore`` {path, position, committed, age_seconds, pages, page_size, database_bytes,
    transactions, seconds, proved[], remarks[]}; times are RFC 3339 in UTC."""
    now = asked.wall_now()
    if screen.json:
        screen.document(
            {
                "kind": "replicator-restore",
                "path": result.path,
                "position": str(result.position),
                "committed": format_time(result.committed),
                "age_seconds": round((now - result.committed) / 1e6, 3),
                "pages": result.pages,
                "page_size": result.page_size,
                "database_bytes": result.pages * result.page_size,
                "transactions": result.transactions_applied,
                "seconds": round(result.seconds, 3),
                "proved": list(result.proved),
                "remarks": list(result.remarks),
            }
        )
    else:
        rows = [
            ("restored", f"{result.path} ({size_text(result.pages * result.page_size)})"),
            ("position", str(result.position)),
            ("committed", time_text(result.committed, now)),
            (
                "applied",
                f"{count_text(result.transactions_applied, 'transaction')} onto the newest backup before",
            ),
            ("took", seconds_text(result.seconds)),
            ("proved", ", ".join(result.proved)),
        ]
        for line in columns(rows):
            screen.result(line)
    for remark in result.remarks:
        screen.note(remark)
    if latest:
        screen.note(
            f"the newest commit in {repository.store.url} is of {time_text(result.committed, now)}; "
            "later ones, if there were any, had not arrived"
        )
