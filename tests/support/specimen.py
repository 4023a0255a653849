"""A repository with several of every kind of object, an oracle of its commits, and the same history again otherwise.

One database, followed by an agent whose wall clock is set, so that names hardly differ from run to run: a first
generation that was taken over from, in the midst of which the keys were rotated; and a second one with fulls,
incrementals, logs and live segments. Each transaction lies in a segment of its own. The *other* is what a copy of
everything, put back at the beginning of the second generation, went on to write under the same names: authentic, sealed
with the same keys, and not what was committed here. The *stranger* is another repository.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.key_change import KeyHolders, rotate
from replicator.keys import KEY, KeySource, unlocked
from replicator.store.folder import FolderStore
from replicator.verify import Limits, verify
from tests.support.app import App
from tests.support.clocks import SetClock, agents_with

BEGAN = 1_738_044_000_000_000  # 2025-01-28T06:00:00Z
COMMIT_SECONDS = 60.0
PATIENCE_SECONDS = 60.0


@dataclass
class Specimen:
    """``store``: the repository. ``digests``: by txid of the second generation, the database then, and ``walls`` when
    it was committed. ``strange``: digests of what the other history held. ``old_metadata``: as it lay there once.
    ``notes``: what verify says of it while nothing is wrong."""

    folder: Path
    keys: KeySource
    digests: dict[int, str] = field(default_factory=dict)
    walls: dict[int, int] = field(default_factory=dict)
    strange: set[str] = field(default_factory=set)
    old_metadata: bytes = b""
    notes: frozenset[str] = frozenset()

    @property
    def store(self) -> Path:
        return self.folder / "main" / "store"

    @property
    def other(self) -> Path:
        return self.folder / "other" / "store"

    @property
    def stranger(self) -> Path:
        return self.folder / "stranger" / "store"


class _Line:
    """A database with its agent and its store, in a folder of its own. A *late* one is a fraction of a second behind,
    so that what it records differs where the names do not."""

    def __init__(
        self, folder: Path, keys: KeySource, wall: int, *, late: float = 0.0, state: str = "state"
    ) -> None:
        self.folder = folder
        self.keys = keys
        self.clock = SetClock(wall + round(late * 1e6))
        self.state = state
        self.digests: list[str] = []
        self.walls: list[int] = []

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @contextlib.contextmanager
    def agent(self, **more: bool) -> Iterator[Agent]:
        config = DatabaseConfig(
            str(self.folder / "app.db"), (str(self.store),), ship_interval=0.0, encryption=self.keys,
            state=str(self.folder / self.state), schedules=(), log_interval=86_400.0, **more,
        )  # fmt: skip
        with agents_with(self.clock):
            agent = Agent([config])
        with agent:
            agent.wait_captured_and_shipped(PATIENCE_SECONDS)
            yield agent

    def note(self, app: App) -> None:
        self.digests.append(app.digest())
        self.walls.append(self.clock.wall())

    def commits(self, agent: Agent, app: App, count: int) -> None:
        for _ in range(count):
            self.clock.advance(COMMIT_SECONDS)
            app.insert(1, 400)
            agent.wait_captured_and_shipped(PATIENCE_SECONDS)
            self.note(app)

    def make(self, agent: Agent, kind: str) -> None:
        answer = agent.ask(str(self.folder / "app.db"), "backup", {"type": kind})
        assert all("error" not in each for each in answer["stores"].values()), answer


def build(folder: Path, *, sealed: bool) -> Specimen:
    """Some seconds; nothing runs any more when it returns."""
    keys = KeySource({KEY: hashlib.sha256(b"specimen").hexdigest()} if sealed else {})
    found = Specimen(folder, keys)
    for name in ("main", "stranger"):
        (folder / name).mkdir(parents=True)
    _build_stranger(_Line(folder / "stranger", keys, BEGAN))
    main = _Line(folder / "main", keys, BEGAN)
    app = App(str(main.folder / "app.db"))
    app.insert(120, 700)
    with main.agent() as agent:
        main.commits(agent, app, 2)
        _rotate(main, agent)
        main.commits(agent, app, 1)
    # While nobody follows the log it begins anew: the next agent, of another state folder, finds a gap.
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    app.insert(2)
    main.state = "state2"
    main.digests, main.walls = [], []
    with main.agent(take_over=True) as agent:
        main.note(app)
        main.commits(agent, app, 1)
    app.kill()
    shutil.copytree(main.folder, folder / "other")
    other = _Line(folder / "other", keys, main.clock.wall(), late=0.25, state=main.state)
    _second_generation(other, lambda: None)
    _second_generation(main, lambda: _keep_metadata(found))
    found.strange |= set(other.digests)
    found.digests = dict(enumerate(main.digests))
    found.walls = dict(enumerate(main.walls))
    assert not found.strange & set(found.digests.values())
    store = unlocked(FolderStore(str(found.store)), keys)
    found.notes = frozenset(verify(store, "content", Limits(), restore=lambda *_: None).notes)
    return found


def _keep_metadata(found: Specimen) -> None:
    found.old_metadata = (found.store / "metadata.json").read_bytes()


def _build_stranger(line: _Line) -> None:
    with App(str(line.folder / "app.db")) as app, line.agent() as agent:
        for kind in ("full", "incremental"):
            line.commits(agent, app, 3)
            line.make(agent, kind)
        line.make(agent, "log")


def _second_generation(line: _Line, midway: Callable[[], None]) -> None:
    """From txid 1 on: fulls at 0, 12 and 24, incrementals between them, logs up to 30, segments from there on."""
    with App(str(line.folder / "app.db"), wal=False) as app, line.agent() as agent:
        line.commits(agent, app, 3)
        line.make(agent, "incremental")
        line.commits(agent, app, 4)
        line.make(agent, "incremental")
        line.commits(agent, app, 4)
        line.make(agent, "full")
        line.make(agent, "log")
        midway()
        line.commits(agent, app, 4)
        line.make(agent, "incremental")
        line.commits(agent, app, 4)
        line.make(agent, "incremental")
        line.commits(agent, app, 4)
        line.make(agent, "full")
        line.commits(agent, app, 6)
        line.make(agent, "log")
        line.commits(agent, app, 5)


def _rotate(line: _Line, agent: Agent) -> None:
    if not line.keys.configured:
        return
    holders = KeyHolders(
        [FolderStore(str(line.store))], line.keys, str(line.folder / line.state / "keys.json")
    )
    rotate(holders, line.clock.wall())
    for follower in agent._followers:
        follower.sweep()
