"""``schedule``: what is backed up when; listed, made, changed, and run by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import Screen, columns, screen_of, size_text
from replicator.cli.through import agent_runs, tell_failure, through_agent
from replicator.clock import Clock
from replicator.config import DatabaseConfig
from replicator.control import ask_agent
from replicator.core.errors import ScheduleNotFound, UsageError
from replicator.core.schedule import BACKUP_TYPES, explain
from replicator.core.schedule_file import parse_schedules
from replicator.requests import change_schedules
from replicator.scheduler import kept_schedules
from replicator.state import StateFolder

_Command = TypeVar("_Command", bound=Callable[..., Any])

RUNS_SHOWN = 10
_NOT_OF_A_SCHEDULE = ("nextRunAt", "runCount", "failureCount", "byHand")


class _ScheduleVerbs(click.Group):
    command_class = Verb


@click.group(cls=_ScheduleVerbs, context_settings={"help_option_names": ["-h", "--help"]})
def schedule() -> None:
    """Schedules of a database: the configuration's, and those made or changed by hand, which count more."""


_db = click.option(
    "--db", metavar="DB", help="Which database, by path or name; needed where there are several."
)
_config = click.option(
    "--config", metavar="FILE", help="Configuration; replicator.yml of the working folder."
)
_state = click.option("--state", metavar="DIR", help="State folder of the agent; beside the database.")
_cron = click.option("--cron", metavar="CRON", help="Five fields, in UTC: `0 2 * * *` is 02:00 every day.")
_type = click.option("--type", "kind", type=click.Choice(BACKUP_TYPES), help="What is made.")
_retention = click.option("--retention", metavar="30d", help="How long what is made of this type is kept.")
_compress = click.option("--compress/--no-compress", default=None, help="Otherwise than the setting for all.")
_verify = click.option("--verify/--no-verify", default=None, help="Otherwise than the setting for all.")
_jitter = click.option("--jitter", metavar="5m", help="Up to so much later, by chance.")
_description = click.option("--description", metavar="TEXT", help="For people.")
_enabled = click.option("--enable/--disable", "enabled", default=None, help="Whether it runs.")


def _of_a_database(command: _Command) -> _Command:
    return _db(_config(_state(command)))


def _described(command: _Command) -> _Command:
    for each in (_enabled, _description, _jitter, _verify, _compress, _retention, _type, _cron):
        command = each(command)
    return command


@schedule.command("list")
@_of_a_database
@click.pass_context
def list_schedules(ctx: click.Context, db: str | None, config: str | None, state: str | None) -> None:
    """All schedules, when they run next, and what their runs came to.

    JSON: `replicator-schedules` {database, schedules [{name, cronExpression, backupType, retentionDays, compress,
    verify, enabled, description, jitter, nextRunAt, runCount, failureCount, byHand}], runs [{schedule, type, due,
    began, stores {url: {result, …}}}]}.
    """
    screen = screen_of(ctx)
    database = _database(db, config, state)
    _tell(screen, database, _change(screen, database, {"do": "list"}))


@schedule.command("show")
@click.argument("name")
@_of_a_database
@click.pass_context
def show(ctx: click.Context, name: str, db: str | None, config: str | None, state: str | None) -> None:
    """One schedule, in words, and its last runs. JSON as for `list`, of that one alone."""
    screen = screen_of(ctx)
    database = _database(db, config, state)
    found = _only(_change(screen, database, {"do": "list"}), name)
    if screen.json:
        screen.document({"kind": "replicator-schedules", "database": database.path, **found})
        return
    entry = found["schedules"][0]
    screen.result(f"{entry['name']}: {_in_words(entry)}")
    if entry["byHand"]:
        screen.result("  made or changed by hand")
    for key in ("description", "nextRunAt", "runCount", "failureCount"):
        if entry[key] not in ("", None):
            screen.result(f"  {key}: {entry[key]}")
    for run in found["runs"][-RUNS_SHOWN:]:
        for url, outcome in run["stores"].items():
            said = outcome.get("error") or outcome.get("backup") or outcome.get("note") or ""
            screen.result(f"  {run['began']}  {outcome['result']}  {url}  {said}".rstrip())


@schedule.command("create")
@click.argument("name", required=False)
@click.option("--file", metavar="FILE", help="Schedules as JSON, as they are printed; - is standard input.")
@_described
@_of_a_database
@click.pass_context
def create(
    ctx: click.Context, /, name: str | None, file: str | None, db: str | None, config: str | None, state: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Make a schedule, with --cron and --type; or those of a file, in place of those that have the same names, be they
    the configuration's, those that are there without one, or made by hand. JSON as for `list`."""
    screen = screen_of(ctx)
    database = _database(db, config, state)
    entry = _entry(options)
    if file is not None:
        if name is not None or entry:
            raise UsageError("a file says all of its schedules", hint="leave out the name and the options")
        wanted: Any = _read(file)
    else:
        if name is None:
            raise UsageError("the schedule has no name", hint="give it one, or --file")
        wanted = {"name": name, **entry}
    parse_schedules(wanted)  # here, so that what is wrong is told before an agent is asked
    _tell(
        screen,
        database,
        _change(screen, database, {"do": "create", "schedule": wanted, "replace": file is not None}),
    )


@schedule.command("update")
@click.argument("name")
@_described
@_of_a_database
@click.pass_context
def update(
    ctx: click.Context, /, name: str, db: str | None, config: str | None, state: str | None, **options: Any
) -> None:
    """Change what is given of a schedule. JSON as for `list`."""
    screen = screen_of(ctx)
    database = _database(db, config, state)
    entry = _entry(options)
    if not entry:
        raise UsageError("nothing is to be changed", hint="see `schedule update --help`")
    _tell(screen, database, _change(screen, database, {"do": "update", "name": name, "schedule": entry}))


@schedule.command("delete")
@click.argument("name")
@_of_a_database
@click.pass_context
def delete(ctx: click.Context, name: str, db: str | None, config: str | None, state: str | None) -> None:
    """Run it no more; one of the configuration stays switched off, too. What it made is kept as long as it would have
    been by the setting for all. JSON as for `list`."""
    screen = screen_of(ctx)
    database = _database(db, config, state)
    _tell(screen, database, _change(screen, database, {"do": "delete", "name": name}))


@schedule.command("run")
@click.argument("name")
@_of_a_database
@click.pass_context
def run(ctx: click.Context, name: str, db: str | None, config: str | None, state: str | None) -> int:
    """Do now what it does when it is due. JSON: `replicator-schedule-run` {database, schedule, stores}, as `backup`."""
    screen = screen_of(ctx)
    database = _database(db, config, state)
    found = through_agent(screen, database, "schedule", {"do": "run", "name": name})
    if screen.json:
        screen.document(
            {"kind": "replicator-schedule-run", "database": database.path, "schedule": name, **found}
        )
    code = 0
    for url, outcome in found["stores"].items():
        if tell_failure(screen, url, outcome):
            code = 3
        elif not screen.json:
            made = outcome.get("backup") or ", ".join(outcome.get("logs", ())) or "nothing to store"
            screen.result(f"{url}: {made} ({size_text(outcome['stored_bytes'])})")
            if outcome.get("note"):
                screen.note(outcome["note"])
    return code


# --- what is asked -------------------------------------------------------------------------------------


def _database(db: str | None, config: str | None, state: str | None) -> DatabaseConfig:
    found = asked.find_databases(db, state, config)
    if len(found) > 1:
        raise UsageError(
            f"the configuration has {len(found)} databases",
            hint=f"say which with --db, such as {found[0].name}",
        )
    return asked.with_stores(found[0])


def _entry(options: Mapping[str, Any]) -> dict[str, Any]:
    keys = {"cron": "cronExpression", "kind": "backupType", "retention": "retentionDays"}
    return {keys.get(key, key): value for key, value in options.items() if value is not None}


def _read(path: str) -> Any:
    try:
        if path == "-":
            return json.load(sys.stdin)
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{path} is no JSON: {exc}", hint='it is {"schedules": [...]}') from exc


def _change(screen: Screen, database: DatabaseConfig, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """By the agent that runs; or in the state folder, for the one that will."""
    if agent_runs(database):
        return ask_agent(database.state_folder, database.path, "schedule", arguments)
    state = StateFolder(database.state_folder)
    kept = kept_schedules(state.schedules_path, database.schedules, Clock())
    if kept.unreadable:
        screen.note(f"{state.schedules_path} cannot be used, {kept.unreadable}: schedules by hand are lost")
    if arguments["do"] == "list":
        return change_schedules(kept, arguments)
    state.open()
    try:
        return change_schedules(kept, arguments)
    finally:
        state.close()


# --- what is told --------------------------------------------------------------------------------------


def _only(found: dict[str, Any], name: str) -> dict[str, Any]:
    schedules = [each for each in found["schedules"] if each["name"] == name]
    if not schedules:
        raise ScheduleNotFound(f"there is no schedule {name!r}", hint="see `schedule list`")
    return {"schedules": schedules, "runs": [each for each in found["runs"] if each["schedule"] == name]}


def _tell(screen: Screen, database: DatabaseConfig, found: dict[str, Any]) -> None:
    if screen.json:
        screen.document({"kind": "replicator-schedules", "database": database.path, **found})
        return
    rows = [("NAME", "NEXT RUN", "RUNS", "FAILED", "BY HAND", "WHAT")]
    rows += [
        (
            each["name"],
            each["nextRunAt"] or "switched off",
            str(each["runCount"]),
            str(each["failureCount"]),
            "yes" if each["byHand"] else "no",
            _in_words(each),
        )
        for each in found["schedules"]
    ]
    for line in columns(rows, right=frozenset({2, 3})) if found["schedules"] else ["no schedules"]:
        screen.result(line)


def _in_words(entry: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in entry.items() if key not in _NOT_OF_A_SCHEDULE}
    return explain(parse_schedules(plain)[0])
