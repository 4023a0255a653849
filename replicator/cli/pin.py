"""``pin``: keep a backup for ever, whatever the retention says; ``unpin`` lets it go again."""

from __future__ import annotations

import contextlib

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import screen_of
from replicator.core.errors import ObjectExists
from replicator.core.names import EventName
from replicator.core.records import PINNED, EventRecord, encode_record
from replicator.repository import read_repository

_config = click.option(
    "--config", metavar="FILE", help="Configuration; replicator.yml of the working folder."
)


@click.command("pin", cls=Verb)
@click.argument("source")
@click.argument("backup")
@_config
@click.pass_context
def pin(ctx: click.Context, source: str, backup: str, config: str | None) -> None:
    """Keep BACKUP, and what it lies on, until it is let go by `unpin`. Its id may be shortened; or it is `latest`,
    `oldest` or `last-full`. Only `prune --before` deletes it. JSON: `replicator-pin` {store, backup, pinned}."""
    _tell(ctx, source, backup, config, pinned=True)


@click.command("unpin", cls=Verb)
@click.argument("source")
@click.argument("backup")
@_config
@click.pass_context
def unpin(ctx: click.Context, source: str, backup: str, config: str | None) -> None:
    """From now on BACKUP is kept as long as the retention says. JSON as for `pin`."""
    _tell(ctx, source, backup, config, pinned=False)


def _tell(ctx: click.Context, source: str, backup: str, config: str | None, *, pinned: bool) -> None:
    screen = screen_of(ctx)
    store = asked.find_store(source, config)
    found = asked.find_backup(read_repository(store), backup).backup_id
    name = str(EventName(found, PINNED))
    if pinned:
        with contextlib.suppress(ObjectExists):  # it was pinned before
            store.put(name, encode_record(EventRecord(found, PINNED, asked.wall_now())))
    else:
        store.delete(name)
    if screen.json:
        screen.document({"kind": "replicator-pin", "store": store.url, "backup": found, "pinned": pinned})
    else:
        screen.result(f"{found} is {'kept for ever' if pinned else 'kept as long as the retention says'}")
