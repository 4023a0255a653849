"""Through the agent: what only who follows a database can do is asked of the one that runs, or of one for the while."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from replicator.agent import Agent
from replicator.cli.screen import Screen
from replicator.config import DatabaseConfig
from replicator.control import ask_agent
from replicator.core.errors import ReplicatorError, UsageError
from replicator.files import lock_holder

PARTIAL = 3
SHIP_SECONDS = 8.0
# A store that failed just now gets what lies in the spool from the next agent.
SHIP_SECONDS_FAILED = 1.0


def agent_runs(database: DatabaseConfig) -> bool:
    return lock_holder(f"{database.state_folder}/lock") is not None


def through_agent(
    screen: Screen, database: DatabaseConfig, verb: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The agent's answer. Where none runs, one begins, catches up, answers, and ends."""
    if agent_runs(database):
        return ask_agent(database.state_folder, database.path, verb, arguments, tell=screen.say)
    if not database.stores:
        raise UsageError(
            f"no agent runs on {database.path}, and no store is given for it",
            hint="name it in the configuration",
        )
    agent = Agent([database])
    agent.start()
    ship_seconds = 0.0
    try:
        agent.wait_captured_and_tried()
        found = agent.ask(database.path, verb, arguments, tell=screen.say)
        failed = any("error" in each for each in found.get("stores", {}).values())
        ship_seconds = SHIP_SECONDS_FAILED if failed else SHIP_SECONDS
    finally:
        agent.stop(ship_seconds=ship_seconds)
    return found


def told_of_all(
    screen: Screen, kind: str, databases: Sequence[DatabaseConfig], work: Callable[[DatabaseConfig], int]
) -> int:
    """Do *work* for each, whatever becomes of the others; 3 if some failed, the first one's code if all did."""
    codes: list[int] = []
    failed: list[int] = []
    for each in databases:
        try:
            codes.append(work(each))
        except ReplicatorError as exc:
            failed.append(exc.exit_code)
            outcome = exc.document()
            if screen.json:
                screen.document({"kind": kind, "database": each.path, **outcome})
            tell_failure(screen, each.path, outcome)
    if failed and not codes:
        return failed[0]
    return PARTIAL if failed else max(codes, default=0)


def tell_failure(screen: Screen, url: str, outcome: Mapping[str, Any]) -> bool:
    """Whether that store failed, which is told then."""
    if "error" not in outcome:
        return False
    if not screen.json:
        screen.result(f"{url}: FAILED: {outcome['error']}")
        if outcome.get("hint"):
            screen.result(f"  hint: {outcome['hint']}")
    return True
