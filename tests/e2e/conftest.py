"""A repository with a history, made once by the real program and copied for whoever wants to damage it."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from replicator.cli.entry import run
from tests.e2e.command import ENVIRONMENT, ROOT, Done, replicator, write_board
from tests.support import oracle


@dataclass(frozen=True)
class History:
    """A board's store: one generation with a full backup, and segments behind it. Nothing runs."""

    folder: Path
    digest: str
    counter: int

    @property
    def database(self) -> Path:
        return self.folder / "board.db"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def segments(self) -> list[Path]:
        return sorted((self.store / "tail").rglob("*.segment"))

    @cached_property
    def listing(self) -> dict[str, Any]:
        found: dict[str, Any] = replicator("ls", self.store, "--json", cwd=self.folder).json
        return found


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> History:
    """The history itself: for reading only."""
    folder = tmp_path_factory.mktemp("history")
    database = folder / "board.db"
    subprocess.run(write_board(database, commits=5), env=ENVIRONMENT, check=True, capture_output=True)
    once = replicator("replicate", database, folder / "store", "--once", cwd=folder)
    work = write_board(database, commits=60, rate=120)
    ran = replicator("replicate", database, folder / "store", "--", *work, cwd=ROOT)
    assert (0, 0) == (once.code, ran.code), once.err + ran.err
    assert len(list((folder / "store" / "tail").rglob("*.segment"))) >= 5
    return History(folder, oracle.database_digest(database), 65)


@pytest.fixture
def history(made: History, tmp_path: Path) -> History:
    """A copy of the history, to do anything to."""
    folder = tmp_path / "history"
    shutil.copytree(made.folder, folder)
    return History(folder, made.digest, made.counter)


Inside = Callable[..., Done]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """The command line within this process, in the temporary folder: ten times as fast as a process. For what
    opens no database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run_inside(*arguments: object) -> Done:
        capsys.readouterr()
        code = run([str(each) for each in arguments])
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return run_inside
