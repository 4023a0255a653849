"""``pin``: keep a backup for ever, whatever the retention says; ``unpin`` lets it go again."""

from __future__ import annotations

import contextlib

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import Screen, screen_of
from replicator.cli.through import PARTIAL, tell_failure
from replicator.core.errors import ObjectExists, ReplicatorError
from replicator.core.names import EventName
from replicator.core.records import PINNED, EventRecord, encode_record
from replicator.repository import read_repository
from replicator.store.sealed import SealedStore

_config = click.option(
    "--config", metavar="FILE", help="Configuration; replicator.yml of the working folder."
)


@click.command("pin", cls=Verb)
@click.argument("source")
@click.argument("backup")
@_config
@click.pass_context
def pin(ctx: click.Context, source: str, backup: str, config: str | None) -> int:
    """Keep BACKUP, and what it lies on, in SOURCE, every store of a database or one store, until it is let go by
    `unpin`. Its id may be shortened; or it is `latest`, `oldest` or `last-full`, in each store its own. `prune
    --before` and `max_age` delete it all the same. Exit code 3 if some store has no such backup, or failed. JSON, of
    each store: `replicator-pin` {store, backup, pinned} or {store, error, hint, exit_code}.
    """
    return _tell(ctx, source, backup, config, pinned=True)


@click.command("unpin", cls=Verb)
@click.argument("source")
@click.argument("backup")
@_config
@click.pass_context
def unpin(ctx: click.Context, source: str, backup: str, config: str | None) -> int:
    """From now on BACKUP is kept as long as the retention says, in every store of SOURCE. Exit code and JSON as for
    `pin`."""
    return _tell(ctx, source, backup, config, pinned=False)


def _tell(ctx: click.Context, source: str, backup: str, config: str | None, *, pinned: bool) -> int:
    screen = screen_of(ctx)
    database = asked.find_database(source, config)
    if database is None:
        _pin(screen, asked.find_store(source, config), backup, pinned=pinned)
        return 0
    codes: list[int] = []
    for url in database.stores:
        try:
            _pin(screen, asked.own_store(url, database), backup, pinned=pinned)
            codes.append(0)
        except ReplicatorError as exc:
            if len(database.stores) == 1:
                raise
            codes.append(exc.exit_code)
            outcome = exc.document()
            if screen.json:
                screen.document({"kind": "replicator-pin", "store": url, **outcome})
            tell_failure(screen, url, outcome)
    return codes[0] if all(codes) else PARTIAL if any(codes) else 0


def _pin(screen: Screen, store: SealedStore, backup: str, *, pinned: bool) -> None:
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
        how = "kept for ever" if pinned else "kept as long as the retention says"
        screen.result(f"{found} is {how} in {store.url}")
