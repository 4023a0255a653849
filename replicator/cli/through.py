"""Through the agent: what only who follows a database can do is asked of the one that runs, or of one for the while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replicator.agent import Agent
from replicator.cli.screen import Screen
from replicator.config import DatabaseConfig
from replicator.control import ask_agent
from replicator.core.errors import UsageError
from replicator.files import lock_holder

SHIP_SECONDS = 8.0


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
    with agent:
        agent.wait_captured_and_shipped()
        found = agent.ask(database.path, verb, arguments, tell=screen.say)
        agent.stop(ship_seconds=SHIP_SECONDS)
    return found


def tell_failure(screen: Screen, url: str, outcome: Mapping[str, Any]) -> bool:
    """Whether that store failed, which is told then."""
    if "error" not in outcome:
        return False
    if not screen.json:
        screen.result(f"{url}: FAILED: {outcome['error']}")
        if outcome.get("hint"):
            screen.result(f"  hint: {outcome['hint']}")
    return True
