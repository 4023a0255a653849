"""``check``: everything that can be found out before it matters, a line for each."""

from __future__ import annotations

import click

from replicator.cli import asked
from replicator.cli.check_keys import check_encryption, check_key_files
from replicator.cli.checks import (
    Finding,
    Level,
    check_clock,
    check_database,
    check_key,
    check_space,
    check_state,
    check_store,
)
from replicator.cli.frame import Verb
from replicator.cli.screen import Screen, count_text, screen_of
from replicator.core.errors import UsageError
from replicator.keys import KeySource
from replicator.source.version import sqlite_version

_COLORS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(cls=Verb)
@click.argument("database", required=False, metavar="[DB]")
@click.argument("stores", nargs=-1, metavar="[URL...]")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.option("--store", metavar="URL", help="Check this store alone.")
@click.option("--state", metavar="DIR", help="State folder of the agent; beside the database.")
@click.pass_context
def check(
    ctx: click.Context,
    database: str | None,
    stores: tuple[str, ...],
    config: str | None,
    store: str | None,
    state: str | None,
) -> int:
    """Check configuration, database, state folder, stores, clock and versions.

    Nothing is changed: the database is opened for a moment and only if no agent follows it (in a process of its own
    that is safe beside any application), and a store gets one small object, which is deleted again. Exit code 0 if
    nothing FAILed, warnings or not; 1; 2 for the configuration and for what is no key; 16 if only stores failed, 12 if
    only a key did.

    JSON: `replicator-check` {findings [{level ok|warn|fail, subject, message, hint}], failed}.
    """
    screen = screen_of(ctx)
    if store is not None:
        if database is not None:
            raise UsageError(
                "--store checks a store alone", hint="leave out the database, or give the store behind it"
            )
        opened, source = asked.opened(store), KeySource()
        found = [
            *check_clock(asked.wall_now()),
            *check_key(source, "key"),
            *check_key_files("operator's", source),
        ]
        found += check_store(opened, None)
        return _tell(screen, [*found, *check_encryption(opened.plain, source, asked.wall_now())])
    findings = [
        Finding(Level.OK, "agent", f"SQLite {sqlite_version()} of its own"),
        *check_clock(asked.wall_now()),
    ]
    if database is not None and stores:
        chosen = [asked.database_at(database, stores, state)]
    else:
        chosen = asked.find_databases(database, state, config)
        if database is None:
            findings.append(Finding(Level.OK, "configuration", count_text(len(chosen), "database")))
            notices = asked.needed_configuration(config).notices
            findings += [Finding(Level.OK, "configuration", each) for each in notices]
    for each in chosen:
        findings += check_key(each.encryption, f"{each.name} key")
        findings += check_database(each)
        findings += check_state(each)
        findings += check_space(each)
        findings += check_key_files(each.name, each.encryption)
        for url in each.stores:
            opened = asked.opened(url, each)
            findings += check_store(opened, each)
            findings += check_encryption(opened.plain, each.encryption, asked.wall_now(), each.key_max_age)
        if not each.stores:
            findings.append(
                Finding(Level.WARN, each.name, "no store is given", "name at least one behind the database")
            )
    return _tell(screen, findings)


def _tell(screen: Screen, findings: list[Finding]) -> int:
    failed = [each for each in findings if each.level is Level.FAIL]
    if screen.json:
        screen.document(
            {
                "kind": "replicator-check",
                "findings": [
                    {
                        "level": each.level.value.lower(),
                        "subject": each.subject,
                        "message": each.message,
                        "hint": each.hint,
                    }
                    for each in findings
                ],
                "failed": len(failed),
            }
        )
    else:
        for each in findings:
            if screen.quiet and each.level is Level.OK:
                continue
            level = click.style(each.level.value.ljust(4), fg=_COLORS[each.level])
            screen.result(f"  {each.subject}: {each.message}", lead=level)
            if each.hint:
                screen.result(f"      hint: {each.hint}")
    if not failed:
        return 0
    codes = {each.exit_code for each in failed}
    return codes.pop() if len(codes) == 1 else 1
