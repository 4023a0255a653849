"""A database, a store, an agent and hostile neighbours, each a process of its own, and what has to be true of them.

What the neighbours were told is committed is known to the last commit: each appends it to a file of its own once
SQLite said so (hostile.py). Where the database is exchanged for another one an *era* ends and the counting begins anew.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import replicator
from replicator.core.errors import ObjectNotFound, RepositoryNotFound, StoreUnavailable, TargetUnreachable
from replicator.core.position import Position
from replicator.repository import Repository, newest_point, read_repository
from replicator.restore import RestoreOptions, RestoreResult, Target, choose, restore_chosen
from replicator.store import open_store
from tests.support import oracle

ROLES = ("mixed", "mixed", "writer", "checkpointer")
SETTLED_SECONDS = 90.0
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Era:
    """``before``: what the ledger held when it began, in microseconds at ``began``."""

    number: int
    began: int
    before: dict[int, int] = field(default_factory=dict)


class Scene:
    def __init__(self, folder: Path, seed: int, *, roles: tuple[str, ...] = ROLES) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.seed = seed
        self.roles = roles
        self.database = str(folder / "app.db")
        self.store = str(folder / "store")
        self.state = str(folder / ".app.db-replicator")
        self.eras: list[Era] = []
        self.living: dict[int, Process] = {}
        self._numbers = itertools.count(1)
        self.create()

    # --- who lives here --------------------------------------------------------------------------------

    def create(self) -> None:
        """A database where none is, and an era of it."""
        script = f"from tests.support.hostile import create_hostile; create_hostile({self.database!r}, {self.seed})"
        subprocess.run([sys.executable, "-c", script], check=True)
        self.begin_era({})

    def begin_era(self, ledger: dict[int, int]) -> None:
        self.eras.append(Era(len(self.eras), time.time_ns() // 1000, ledger))

    def acks(self, era: Era) -> Path:
        return self.folder / f"acks{era.number}"

    def agent(self, *more: str) -> Process:
        interval = str(self.rng.choice([0, 0.005, 0.05, 0.5]))
        command = [sys.executable, "-m", "tests.support.agent_process", self.database, self.store]
        with open(self.folder / "agent.log", "ab") as log:
            agent = subprocess.Popen(
                [*command, "--interval", interval, "--every-commit", *more],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        with agent.stdout as ready:  # type: ignore[union-attr]
            ready.readline()  # follows from here on
        return agent

    def said(self) -> str:
        return (self.folder / "agent.log").read_text()[-3000:]

    def neighbour(self, number: int, seconds: float) -> Process:
        """The one of that *number*, in the place of the one before."""
        command = [sys.executable, "-m", "tests.support.hostile", self.database, "--seconds", str(seconds)]
        self.living[number] = subprocess.Popen(
            [*command, "--seed", str(self.seed * 1000 + next(self._numbers)), "--writer", str(number + 1),
             "--role", self.roles[number], "--acks", str(self.acks(self.eras[-1]))],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return self.living[number]

    def neighbours(self, seconds: float) -> list[Process]:
        return [self.neighbour(number, seconds) for number in range(len(self.roles))]

    def end_neighbours(self, *, kill: bool = False) -> None:
        """However they end: at once, or after what they are doing."""
        for each in self.living.values():
            each.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        for each in self.living.values():
            each.send_signal(signal.SIGCONT)
        codes = [each.wait(60) for each in self.living.values()]
        self.living.clear()
        assert kill or {0, -signal.SIGTERM} >= set(codes), (
            codes
        )  # one that has only just begun has no ear yet

    # --- what came of it -------------------------------------------------------------------------------

    def restored(self, repository: Repository, **target: object) -> RestoreResult:
        return restore_chosen(
            repository,
            choose(repository, Target(**target)),  # type: ignore[arg-type]
            str(self.folder / f"out{next(self._numbers)}.db"),
            RestoreOptions(verify="quick"),
        )

    def until_shipped(self) -> tuple[oracle.Snapshot, Position]:
        """The database as it stands, once the store has it, and where; nobody writes meanwhile."""
        wanted = oracle.snapshot_at_rest(self.database, str(self.folder / "at-rest"))
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            try:
                result = replicator.restore(self.store, self.folder / "now.db")
            except (ObjectNotFound, RepositoryNotFound, StoreUnavailable, TargetUnreachable):
                pass  # no full backup yet
            else:
                found = digest_of(result.path)
                os.unlink(result.path)
                if found == wanted.digest:
                    return wanted, result.position
            assert time.monotonic() < deadline, f"not what was restored: {wanted.ledger}\n{self.said()}"

    def look(self) -> bool:
        """Restore what is newest in the store just now, beside everybody; what is wrong with it is raised. False where
        there is nothing yet."""
        try:
            result = replicator.restore(self.store, self.folder / "look.db", verify="full")
        except (RepositoryNotFound, TargetUnreachable):
            return False
        self.assert_a_commit(result.path)
        os.unlink(result.path)
        return True

    def assert_a_commit(self, path: str) -> None:
        """*path* is the database after some commit: all that was acknowledged before its newest one is in it.

        Commits follow each other, and each notes its time while it has the lock of a writer. So who was told before
        that time that a commit of his is done must find it; and nobody finds one that he has not made.
        """
        newest, found = oracle.newest_commit(path), oracle.ledger(path)
        era = next((each for each in reversed(self.eras) if each.began < newest), None)
        if era is None or not self.acks(era).exists():
            return
        told = era.before | oracle.acknowledged(self.acks(era), before_micros=newest)
        missing = {
            writer: (told[writer], found.get(writer, 0))
            for writer in told
            if found.get(writer, 0) < told[writer]
        }
        assert not missing, f"acknowledged before the newest commit and not there: {missing}"
        made = era.before | oracle.acknowledged(self.acks(era))
        invented = {writer: count for writer, count in found.items() if count > made.get(writer, 0) + 1}
        assert not invented, f"commits that nobody made: {invented}, made {made}"

    def assert_all_acknowledged(self, path: str) -> None:
        """Not one commit of this era is missing in *path*."""
        era, found = self.eras[-1], oracle.ledger(path)
        told = era.before | (oracle.acknowledged(self.acks(era)) if self.acks(era).exists() else {})
        assert not {
            writer: (told[writer], found.get(writer))
            for writer in told
            if found.get(writer, 0) < told[writer]
        }

    def has(self, repository: Repository, snapshot: oracle.Snapshot) -> bool | None:
        """Whether some restore point is *snapshot*; None where it lies outside all that was followed."""
        wanted = sum(snapshot.ledger.values())
        inside = False
        for listing in repository.catalogue.generations:
            if not listing.fulls:
                continue
            low, high = listing.fulls[0].txid, newest_point(repository, listing).position.txid
            ends = [self._total(repository, listing.generation, txid)[0] for txid in (low, high)]
            inside = inside or ends[0] < wanted < ends[1]
            while low < high:
                middle = (low + high) // 2
                total, _ = self._total(repository, listing.generation, middle)
                low, high = (middle + 1, high) if total < wanted else (low, middle)
            # Commits that are not in the ledger follow each other for as long as they like.
            for txid in range(low, newest_point(repository, listing).position.txid + 1):
                total, digest = self._total(repository, listing.generation, txid)
                if digest == snapshot.digest:
                    return True
                if total > wanted or total < 0:
                    break
        return False if inside else None

    def _total(self, repository: Repository, generation: str, txid: int) -> tuple[int, str]:
        try:
            path = self.restored(repository, txid=txid, generation=generation).path
        except TargetUnreachable:
            return -1, ""
        total = sum(oracle.ledger(path).values())
        digest = digest_of(path)
        os.unlink(path)
        return total, digest

    def repository(self) -> Repository:
        return read_repository(open_store(self.store))


def digest_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
