"""``verify``: look for damage in a repository, and say what it takes away."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.kinds import DURATION, SHARE
from replicator.cli.screen import Screen, count_text, screen_of, size_text
from replicator.cli.signals import STOPPING, Asked, handled
from replicator.core.catalogue import GenerationListing
from replicator.core.errors import Interrupted
from replicator.core.times import format_time
from replicator.repository import Repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.verify import LEVELS, Limits, Lost, Report, verify

CLEAN, PARTIAL, HURT = 0, 3, 13


@click.command("verify", cls=Verb)
@click.argument("source")
@click.option(
    "--level", type=click.Choice(LEVELS), default="content", show_default=True, help="How close to look."
)
@click.option("--sample", type=SHARE, metavar="SHARE", default="100%", help="Of the objects, so many: 5%.")
@click.option("--max-duration", type=DURATION, metavar="TIME", help="Stop looking after this: 1h.")
@click.option("--scratch", metavar="DIR", help="Where `restore` restores to, for as long as it takes.")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.pass_context
def verify_verb(
    ctx: click.Context,
    source: str,
    level: str,
    sample: float,
    max_duration: float | None,
    scratch: str | None,
    config: str | None,
) -> int:
    """Look for damage in SOURCE: what is hurt, and which restore points it takes away.

    names: what is listed fits together. checksums: every object is what was written under its name; of an encrypted
    repository also without the key. content: backups and log say what they should to each other, chunk by chunk, unit
    by unit. restore: each generation is restored. Exit code 13 if something is hurt, 3 if time ran out before the end.
    JSON: `replicator-verify` {store, level, objects, bytes_read, restored, ended_early, hurt [{name, fault}], lost
    [{generation, txid_first, txid_last, first, last}], notes[]}.
    """
    screen = screen_of(ctx)
    store = asked.find_store(source, config)
    stop = Asked()

    def cancelled() -> None:
        if stop.stop:
            error = Interrupted("the verification was stopped")
            error.exit_code = stop.exit_code
            raise error

    def restore(repository: Repository, listing: GenerationListing) -> None:
        chosen = choose(repository, Target(generation=listing.generation))
        with tempfile.TemporaryDirectory(prefix="replicator-", dir=scratch) as folder:
            output = os.path.join(folder, "restored.db")
            restore_chosen(repository, chosen, output, RestoreOptions("full"), cancelled=lambda: stop.stop)

    with handled(STOPPING, stop):
        report = verify(store, level, Limits(sample, max_duration), restore=restore, cancelled=cancelled)
    _tell(screen, store.url, report)
    return HURT if report.found else (PARTIAL if report.ended_early else CLEAN)


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


def _tell(screen: Screen, url: str, report: Report) -> None:
    if screen.json:
        screen.document(
            {
                "kind": "replicator-verify",
                "store": url,
                "level": report.level,
                "objects": report.objects,
                "bytes_read": report.bytes_read,
                "restored": report.restored,
                "ended_early": report.ended_early,
                "hurt": [{"name": each.name, "fault": each.fault} for each in report.found],
                "lost": [lost_document(each) for each in report.lost],
                "notes": report.notes,
            }
        )
        return
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
    early = ", as far as the time allowed" if report.ended_early else ""
    read = f", {size_text(report.bytes_read)} read" if report.bytes_read else ""
    verdict = "nothing is hurt" if not report.found else count_text(len(report.found), "hurt object")
    screen.result(f"{count_text(report.objects, 'object')} of {url}, {report.level}{early}{read}: {verdict}")
