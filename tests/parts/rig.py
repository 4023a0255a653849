"""One database, one folder store, and an agent in this process: what the tests of following stand on."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.repository import Repository, read_repository
from replicator.restore import RestoreOptions, RestoreResult, Target, choose, restore_chosen
from replicator.store import open_store
from tests.support import oracle

SECONDS = 30.0


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = str(folder / "app.db")
        self.store = str(folder / "store")
        self._outputs = 0

    def config(self, **more: Any) -> DatabaseConfig:
        return DatabaseConfig(self.database, (self.store,), **{"ship_interval": 0.01, **more})

    @contextmanager
    def agent(self, **more: Any) -> Iterator[Agent]:
        """Runs until everything committed inside the block is captured and shipped."""
        agent = Agent([self.config(**more)])
        agent.start()
        try:
            yield agent
            agent.wait_captured_and_shipped(SECONDS)
        finally:
            agent.stop()

    def once(self, **more: Any) -> None:
        with self.agent(**more):
            pass

    def repository(self) -> Repository:
        return read_repository(open_store(self.store))

    def generations(self) -> list[str]:
        """The reasons why each generation began, oldest first."""
        return [
            each.record.reason if each.record else "?" for each in self.repository().catalogue.generations
        ]

    def restore(self, **target: Any) -> RestoreResult:
        self._outputs += 1
        repository = self.repository()
        chosen = choose(repository, Target(**target))
        return restore_chosen(repository, chosen, f"{self.database}-out{self._outputs}", RestoreOptions())

    def assert_equal(self) -> RestoreResult:
        """The newest restore point is the source, byte by byte."""
        final = str(self.folder / "final.db")
        expected = oracle.snapshot_at_rest(self.database, final)
        result = self.restore()
        with open(result.path, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
        assert expected.digest == found, oracle.pages_differ(result.path, final, expected.page_size)[:10]
        os.unlink(final)
        return result
