"""``replicate``: run the agent, alone or around an application."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import replace

import click

from replicator.agent import Agent
from replicator.cli.asked import database_at, find_databases, needed_configuration
from replicator.cli.checks import lies_beside, on_disk_of
from replicator.cli.child import Child
from replicator.cli.frame import COMMAND, CommandVerb, settings_of
from replicator.cli.kinds import DURATION, SIZE
from replicator.cli.logs import log_to_stderr
from replicator.cli.supervise import Supervisor
from replicator.config import AgentConfig, DatabaseConfig, read_environment
from replicator.core.errors import Interrupted, ReplicatorError, SourceGone, StoreUnavailable, UsageError
from replicator.source.connection import check_path
from replicator.source.version import sqlite_version
from replicator.store import folder_of, open_store

log = logging.getLogger(__name__)

# What is captured is durable in the spool, so the wait for the stores at a stop is a courtesy; shorter than
# the ten seconds after which most supervisors kill.
SHIP_REST_SECONDS = 8.0
# How long an application may have to wait for the agent to be ready before it.
FOLLOW_SECONDS = 30.0
# A store that fails for this long without a break ends a run with --once.
ONCE_STORE_SECONDS = 30.0


@click.command(cls=CommandVerb)
@click.argument("database", required=False, metavar="[DB]")
@click.argument("stores", nargs=-1, metavar="[URL...]")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.option("--once", is_flag=True, help="Ship all that is committed, onto a full backup, and end.")
@click.option("--state", metavar="DIR", help="State folder of the agent; beside the database.")
@click.option(
    "--ship-interval",
    type=DURATION,
    metavar="TIME",
    help="Objects under load, at most one each: 50ms for a folder, 1s elsewhere.",
)
@click.option(
    "--spool-limit", type=SIZE, metavar="SIZE", help="What a store that is away may queue here: 1GiB."
)
@click.option("--bandwidth", type=SIZE, metavar="SIZE", help="Bytes a second, for each store.")
@click.option(
    "--barrier",
    type=click.Choice(["auto", "never"]),
    help="May writers be held for a moment if the log gets huge?",
)
@click.option("--take-over", is_flag=True, help="Take a store over from an agent that is gone for good.")
@click.option(
    "--wait/--no-wait", default=None, help="Wait for a database that is not there yet; the default."
)
@click.pass_context
def replicate(
    ctx: click.Context,
    database: str | None,
    stores: tuple[str, ...],
    config: str | None,
    once: bool,
    state: str | None,
    ship_interval: float | None,
    spool_limit: int | None,
    bandwidth: int | None,
    barrier: str | None,
    take_over: bool,
    wait: bool | None,
) -> int:
    """Follow a database and ship every commit to its stores.

    Without DB: all databases of the configuration. With a command behind ``--``, that is started once
    its database is followed; it gets our signals, and its exit code is ours. Stopped by a signal, the agent
    captures and ships the rest and leaves with 0; a second signal ends it at once, with 128 + its number.
    """
    command: list[str] = ctx.meta.get(COMMAND, [])
    if once and command:
        raise UsageError("--once and a command do not go together", hint="leave out one of them")
    if once and wait:
        raise UsageError("--once and --wait do not go together", hint="leave out one of them")
    found, notices = _databases(database, stores, config)
    if state is not None and len(found) > 1:
        raise UsageError(
            "--state is the folder of one database",
            hint="name one database, or set `state` in the configuration",
        )
    chosen = tuple(
        replace(
            each,
            state=state or each.state,
            ship_interval=each.ship_interval if ship_interval is None else ship_interval,
            spool_bytes_max=each.spool_bytes_max if spool_limit is None else spool_limit,
            bandwidth=each.bandwidth if bandwidth is None else bandwidth,
            barrier=each.barrier if barrier is None else barrier == "auto",
            take_over=take_over,
            wait=not once if wait is None else wait,
        )
        for each in found
    )
    log_to_stderr(settings_of(ctx), logging.INFO)
    for notice in notices:
        log.info("config.notice", extra={"reason": notice})
    return _run(Agent(AgentConfig(chosen)), chosen, once=once, command=command)


def _databases(
    database: str | None, stores: tuple[str, ...], config: str | None
) -> tuple[list[DatabaseConfig], tuple[str, ...]]:
    """And what whoever wrote the settings should know."""
    if database is None:
        needed = needed_configuration(config)
        return list(needed.databases), needed.notices
    notices = read_environment().notices
    if stores:
        if config is not None:
            raise UsageError(
                "give a database with its stores, or --config", hint="one of the two says where to ship"
            )
        return [database_at(database, stores)], notices
    found = find_databases(database, None, config)[0]
    if not found.stores:
        raise UsageError(
            f"no store is given for {database}", hint="name at least one: replicate DB URL; a folder will do"
        )
    return [found], notices


def _run(agent: Agent, databases: tuple[DatabaseConfig, ...], *, once: bool, command: list[str]) -> int:
    for each in databases:
        # Before anything of ours is made, in the store too: a mistyped path must not claim a repository.
        try:
            check_path(each.path)
        except SourceGone:
            if not each.wait:
                raise
        places = [open_store(store).url for store in each.stores]  # absolute, and without secrets
        log.info(
            "agent.starting",
            extra={
                "db": each.name,
                "path": os.path.abspath(each.path),
                "store": " ".join(places),
                "sqlite": sqlite_version(),
            },
        )
        for place in places:
            folder = folder_of(place)
            if folder is not None and on_disk_of(folder, each.path) and lies_beside(folder, each.path):
                hint = "a lost folder or disk takes both; add a store elsewhere"
                log.warning("store.beside-database", extra={"db": each.name, "store": place, "hint": hint})
    with Supervisor(agent, forwarding=bool(command)) as supervisor:
        agent.start()
        supervisor.watch_agent()
        if once:
            return _once(agent, supervisor)
        if command:
            return _around(agent, supervisor, command)
        return _until_stopped(agent, supervisor)


def _until_stopped(agent: Agent, supervisor: Supervisor) -> int:
    supervisor.wait_for_stop()
    agent.stop(ship_seconds=SHIP_REST_SECONDS)
    supervisor.raise_failure()
    return 0


def _once(agent: Agent, supervisor: Supervisor) -> int:
    """Until everything is in every store. Told to stop before, it is not done, and says so by its code."""
    failing_since: float | None = None
    try:
        while not supervisor.asked.stop:
            try:
                agent.wait_captured_and_shipped(timeout=0.5)
                break
            except Interrupted:  # it is not there yet
                error = next((each.error for each in agent.status().values() if each.error), None)
                if error is None:
                    failing_since = None
                    continue
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > ONCE_STORE_SECONDS:
                    raise StoreUnavailable(error.message, hint=error.hint) from None
    finally:
        agent.stop(ship_seconds=0.0)
    return supervisor.asked.exit_code if supervisor.asked.stop else 0


def _around(agent: Agent, supervisor: Supervisor, command: list[str]) -> int:
    """Run *command* beside the agent.

    Whatever keeps the agent from following before the command is started, it is not started: a deployment
    without its backup shall be noticed. Once it runs, nothing of ours may harm it: an agent that failed (it
    lost its store to another one, say) says so now and every minute, and the application runs on, to its own
    end. That end is told by its own exit code, only not by 0 where the agent failed.
    """
    supervisor.wait_until_following(FOLLOW_SECONDS)
    if supervisor.asked.stop:
        agent.stop(ship_seconds=SHIP_REST_SECONDS)
        return supervisor.asked.exit_code
    try:
        child = Child(command)
    except OSError as exc:
        agent.stop(ship_seconds=SHIP_REST_SECONDS)
        log.error("command.failed", extra={"command": command[0], "error": exc.strerror})
        return 127 if isinstance(exc, FileNotFoundError) else 126
    log.info("command.started", extra={"command": command[0]})
    code = supervisor.wait_for_child(child)
    log.info("command.ended", extra={"command": command[0], "code": code})
    # What failed is told below, and what is not there yet has the time of ``stop``.
    with contextlib.suppress(ReplicatorError):
        agent.wait_captured_and_shipped(SHIP_REST_SECONDS)
    agent.stop(settle=True, ship_seconds=0.0 if supervisor.failure else SHIP_REST_SECONDS)
    failure = supervisor.failure
    if failure is not None and code == 0:
        return failure.exit_code if isinstance(failure, ReplicatorError) else 1
    return code
