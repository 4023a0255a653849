"""``backup``: make a full or an incremental backup now, through the agent that runs or by itself."""

from __future__ import annotations

from typing import Any

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import Screen, screen_of, size_text
from replicator.cli.through import tell_failure, through_agent, told_of_all
from replicator.config import DatabaseConfig
from replicator.core.errors import UsageError
from replicator.jobs import FULL, FULL_ANEW, INCREMENTAL, LOG


@click.command("backup", cls=Verb)
@click.argument("kind", metavar="full|incremental|log", type=click.Choice([FULL, INCREMENTAL, LOG]))
@click.argument("database", required=False, metavar="[DB]")
@click.option(
    "--anew", is_flag=True, help="A full that needs nothing of an earlier one, see `prune --before`."
)
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.option("--state", metavar="DIR", help="State folder of the agent; beside the database.")
@click.pass_context
def backup(
    ctx: click.Context, kind: str, database: str | None, anew: bool, config: str | None, state: str | None
) -> int:
    """Back DB up now, into every store; without it, every database of the configuration.

    full: the whole database, of which only what changed since the last one of the month is stored. incremental: the
    pages changed since the last backup; where there is none a full one is made, and it says so. log: the live segments
    become a log at once. An agent that runs does it; where none does, one is started for it. A database that fails
    keeps no other one from being backed up. Exit code 3 if some database or store failed, that of the error if all did.
    JSON: `replicator-backup` {database, stores {url: {type, backup, position, stored_bytes, seconds, note, …} or
    {error, hint, exit_code}}}; of a database that failed {database, error, hint, exit_code}, where there are several.
    """
    screen = screen_of(ctx)
    if anew and kind != FULL:
        raise UsageError(f"--anew is for a full backup, not for {kind}", hint="`backup full --anew`")
    kind = FULL_ANEW if anew else kind
    databases = asked.find_databases(database, state, config)
    if len(databases) == 1:
        return _back_up(screen, databases[0], kind)
    return told_of_all(screen, "replicator-backup", databases, lambda each: _back_up(screen, each, kind))


def _back_up(screen: Screen, database: DatabaseConfig, kind: str) -> int:
    database = asked.with_stores(database)
    return _tell(screen, database, through_agent(screen, database, "backup", {"type": kind}))


def _tell(screen: Screen, database: DatabaseConfig, found: dict[str, Any]) -> int:
    if screen.json:
        screen.document({"kind": "replicator-backup", "database": database.path, **found})
    code = 0
    for url, outcome in found["stores"].items():
        if tell_failure(screen, url, outcome):
            code = 3
        elif not screen.json:
            screen.result(f"{url}: {_line(outcome)}")
            if outcome.get("note"):
                screen.note(outcome["note"])
    return code


def _line(outcome: dict[str, Any]) -> str:
    if outcome["type"] == LOG:
        logs = ", ".join(outcome["logs"]) or "nothing to take over"
        return f"{logs} ({size_text(outcome['stored_bytes'])}, of {outcome['segments']} segments)"
    if outcome["backup"] is None:
        return f"{outcome['type']}: nothing stored, {outcome['position']} is the newest"
    return f"{outcome['backup']} ({outcome['type']}, {size_text(outcome['stored_bytes'])}, {outcome['seconds']} s)"
