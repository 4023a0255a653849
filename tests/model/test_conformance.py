"""The model against SQLite itself: random walks of both, side by side, compared after every step.

Processes stand still wherever the model says that others can come between (paused.py), so the steps are the model's
own and not whole statements. Compared are the wal-index in shared memory (salts, frames, size, moved frames, read
marks), the locks on it, the frames in the log and the pages in the main file; answers of checkpoints, what
transactions read, and in the end the database.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.model.wal_model import (
    CUT_OFF,
    IDLE,
    NOT_USED,
    Application,
    Checkpoint,
    Left,
    State,
    Write,
    begin,
    checkpoint_steps,
    closed_by_the_last,
    ended,
    let_go,
    start_checkpoint,
    waits_for,
)
from tests.support.paused import Process

SEEDS = 300
STEPS = 30
PAGE_BYTES = 512
PAGES_MAX = 24
SLOTS = 4
CONNECTIONS = 2
MODES = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")
# What to do, in transactions that write one page, two, make the file longer, and shorter.
SQL = {
    "UPDATE a SET v = {0}": 4,
    "UPDATE b SET v = {0}": 3,
    "UPDATE a SET v = {0}; UPDATE b SET v = {0}": 2,
    "INSERT INTO c VALUES(zeroblob(900))": 2,
    "DELETE FROM c": 1,
    "DELETE FROM c; UPDATE a SET v = {0}": 1,
}
# Where a checkpoint of the model stands, and what its process says then.
STANDS = {"copy": "page", "cut main": "cut main", "count": "cut main", "file": "cut log"}
SCHEMA = """
PRAGMA page_size = 512; PRAGMA auto_vacuum = FULL; PRAGMA journal_mode = WAL;
CREATE TABLE a(v); CREATE TABLE b(v); CREATE TABLE c(body);
INSERT INTO a VALUES(10000); INSERT INTO b VALUES(10000); INSERT INTO c VALUES(zeroblob(900));
PRAGMA wal_checkpoint(TRUNCATE);
"""
_WAL_INDEX = struct.Struct("=4I")  # of the header, from mxFrame on: mxFrame, nPage, two of checksums
_LOCK = struct.Struct("hhqqi4x")
LOCKS_AT = 120


class Processes:
    """Kept from walk to walk: starting one takes longer than a walk."""

    def __init__(self) -> None:
        self._idle: list[Process] = []

    def take(self) -> Process:
        return self._idle.pop() if self._idle else Process()

    def give_back(self, process: Process) -> None:
        if process.child.poll() is None:
            self._idle.append(process)

    def end(self) -> None:
        for process in self._idle:
            process.kill()


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    processes.end()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> Path:
    """A small database with nothing in its log."""
    path = tmp_path_factory.mktemp("template") / "app.db"
    process = processes.take()
    process.does("open", str(path))
    process.does("sql", SCHEMA)
    process.does("close")
    processes.give_back(process)
    return path


class Walk:
    """One walk of both. ``state`` is the model's; connections 0 … read and write, the last process checkpoints."""

    def __init__(self, path: Path, seed: int, processes: Processes) -> None:
        self.path = path
        self.rng = random.Random(f"conformance/{seed}")
        self._processes = processes
        self.all = [processes.take() for _ in range(CONNECTIONS + 1)]
        self.paused: list[str | None] = [None] * (CONNECTIONS + 1)
        for process in self.all:
            process.does("open", str(path))
            process.does("sql", "SELECT * FROM a")
        self._shm = os.open(f"{path}-shm", os.O_RDWR)
        self.did: list[str] = []
        self.salts: dict[int, bytes] = {}
        main = path.read_bytes()
        size = len(main) // PAGE_BYTES
        self.pages: dict[tuple[int, int], bytes] = {
            (page, 0): main[(page - 1) * PAGE_BYTES : page * PAGE_BYTES] for page in range(1, size + 1)
        }
        marks = tuple(NOT_USED if mark > 1 << 30 else mark for mark in self._marks())
        self.state = State(
            head=0, file=(), salt=1, frames=0, size=size, backfilled=0, marks=marks,
            locks=(0,) * (SLOTS + 1), writing=False, main=(0,) * size + (CUT_OFF,) * (PAGES_MAX - size),
            commits=(), salts=1, attempts=0, connections=(IDLE,) * CONNECTIONS, checkpoint=None,
            left=Left(attempts=1 << 20, rollbacks=1 << 20), agent=None,
        )  # fmt: skip
        self.said: list[str] = []
        self.kinds: set[str] = set()
        self.seen: list[Any] = [None] * CONNECTIONS
        self.committed: list[Any] = [[[[10000]], [[10000]]]]

    # --- what SQLite has

    def _marks(self) -> tuple[int, ...]:
        return struct.unpack("=5I", os.pread(self._shm, 20, 100))

    def _lock(self, number: int) -> int:
        """0: free, 1: shared, -1: exclusive."""
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCKS_AT + number, 1, 0)
        kind, *_ = _LOCK.unpack(fcntl.fcntl(self._shm, fcntl.F_GETLK, asked))
        return {fcntl.F_UNLCK: 0, fcntl.F_RDLCK: 1, fcntl.F_WRLCK: -1}[kind]

    def compare(self) -> None:
        """Everything there is to see, by stat(2), pread(2) and fcntl(2)."""
        state = self.state
        frames, size, *_ = _WAL_INDEX.unpack(os.pread(self._shm, 16, 16))
        (backfilled,) = struct.unpack("=I", os.pread(self._shm, 4, 96))
        marks = tuple(NOT_USED if mark == 0xFFFFFFFF else mark for mark in self._marks())
        locks = tuple(self._lock(3 + slot) for slot in range(SLOTS + 1))
        real = (frames, size if frames else state.size, backfilled, marks, locks)
        model_locks = tuple(min(lock, 1) for lock in state.locks)
        assert (state.frames, state.size, state.backfilled, state.marks, model_locks) == real
        salt = os.pread(self._shm, 8, 32)
        assert self.salts.setdefault(state.salt, salt) == salt
        busy = (self._lock(0) != 0, self._lock(1) != 0)
        assert (state.writing, state.checkpoint is not None) == busy
        self._compare_log()
        self._compare_main()

    def _compare_log(self) -> None:
        log = Path(f"{self.path}-wal").read_bytes()
        if not self.state.head:
            assert log == b""
            return
        assert self.salts[self.state.head] == log[16:24]
        assert len(log) == 32 + len(self.state.file) * (24 + PAGE_BYTES)
        for index, frame in enumerate(self.state.file):
            page, size, salt, data = _frame(log, index)
            assert (frame.page, frame.size, self.salts[frame.salt]) == (page, size, salt)
            assert self.pages[frame.page, frame.version] == data

    def _compare_main(self) -> None:
        main = self.path.read_bytes()
        for page, version in enumerate(self.state.main, 1):
            data = main[(page - 1) * PAGE_BYTES : page * PAGE_BYTES]
            expected = b"" if version == CUT_OFF else self.pages[page, version]
            assert expected == (data if version != CUT_OFF else data.strip(b"\0")), f"page {page}"

    # --- a step of both

    def step(self) -> None:
        number = self.rng.randrange(CONNECTIONS + 1)
        if number == CONNECTIONS:
            self._checkpoint()
        elif self.state.connections[number].at == "idle":
            self._begin(number)
        elif self.paused[number]:
            self._go_on(number)
        else:
            self.rng.choice((self._end, self._read, self._write, self._write))(number)

    def _model(self, number: int, name: str, write: Write | None = None, *, fresh: bool = False) -> None:
        """The step of that name that the model has for this connection."""
        application = Application((write,) if write else ())
        it = self.state.connections[number]
        steps = application.of_connection(self.state, it, False)
        found = [
            step for step in steps if step[0].startswith(name) and fresh == step[0].endswith("new salts")
        ]
        assert len(found) == 1, f"{name}: {found}"
        said, state, it = found[0]
        self.kinds.add(_kind(said))
        self.state = state.but(
            connections=(*state.connections[:number], it, *state.connections[number + 1 :])
        )

    def _begin(self, number: int) -> None:
        if begin(self.state) is None:
            return  # SQLite asks again for ten seconds
        self._does(number, "sql", "BEGIN")
        self.seen[number] = self._values(number)
        assert self.committed[-1] == self.seen[number]
        self._model(number, "holds slot")

    def _values(self, number: int) -> Any:
        return [self._does(number, "sql", f"SELECT v FROM {table}")["done"] for table in "ab"]

    def _read(self, number: int) -> None:
        assert self.seen[number] == self._values(number)

    def _end(self, number: int) -> None:
        self._does(number, "sql", "ROLLBACK")
        self._model(number, "ends")

    def _write(self, number: int) -> None:
        """The statement takes the write lock; the frames are written at the end of it."""
        it, state = self.state.connections[number], self.state
        (sql,) = self.rng.choices(list(SQL), list(SQL.values()))
        value = 10001 + state.attempts
        can = it.header == (state.salt, state.frames) and not state.writing
        answer = self._does(number, "sql", sql.format(value))
        if not can:
            assert {"error": "BusyError"} == answer
            self._end(number)
            return
        assert {"done": []} == answer
        changed = self._values(number)
        if self.rng.random() < 0.1:
            self._does(number, "sql", "ROLLBACK")  # nothing was written to the log: it is as if it had ended
            self._model(number, "ends")
            return
        self.wrote = changed
        if it.slot == 0 and state.backfilled and not any(state.locks[1:]):
            self._at(number, self._does(number, "write", "COMMIT"), "header")
            self._model(number, "restarts the log: header")
            self._model(number, "restarts the log: counts")
        else:
            answer = self._does(number, "write", "COMMIT")
            self._appended(number, self._goes(number, "go") if answer.get("at") == "header" else answer)

    def _go_on(self, number: int) -> None:
        at, dies = self.paused[number], self.rng.random() < 0.06
        self.paused[number] = None
        if dies:
            self._kill(number)
            self._model(number, "writes nothing" if at == "header" else "rolls back")
        elif at == "header":
            self._appended(number, self._goes(number, "go"))
        elif self.rng.random() < 0.15:
            assert {"error": "IOError"} == self._goes(number, "fail")
            self._does(number, "sql", "SELECT 1")
            self._model(number, "rolls back")
        else:
            assert {"done": []} == self._goes(number, "go")
            self._model(number, "commits")
            self.committed.append(self.wrote)

    def _appended(self, number: int, answer: dict[str, Any]) -> None:
        """The model is told which pages SQLite has written, and nothing else."""
        self._at(number, answer, "written")
        log = Path(f"{self.path}-wal").read_bytes()
        state, frames, size = self.state, [], 0
        while not size:
            page, size, salt, data = _frame(log, state.frames + len(frames))
            frames.append(page)
            self.pages[page, state.attempts + 1] = data
        fresh = not state.frames and self.salts[state.salt] != salt
        self._model(number, "appends", Write(tuple(frames), size), fresh=fresh)
        if fresh:
            self.salts[self.state.head] = salt

    def _checkpoint(self) -> None:
        number = CONNECTIONS
        if self.state.checkpoint is None:
            mode = self.rng.choice(MODES)
            answer = self._does(number, "checkpoint", mode)
            ((name, state),) = start_checkpoint(self.state, mode, patient=mode != "PASSIVE")
            self.state, self.said = state, [name]
        elif self.paused[number] == "busy":
            # Who waits no longer does not look whether what it waited for is free by now.
            no = self.rng.random() < 0.4 and self._stands_still(self.state.checkpoint)
            answer = self._goes(number, "no" if no else "go")
            if no:
                self._advance_checkpoint()
        elif self.rng.random() < 0.03 and self.state.checkpoint.at != "file":
            self._kill(number)
            self.state = ended(self.state)
            return
        else:
            answer = self._goes(number, "go")
            cut = self.state.checkpoint.at == "cut main"
            self._advance_checkpoint()
            if cut:
                self._advance_checkpoint()  # nothing is written to a file before it counts
        while (it := self.state.checkpoint) is not None and not self._stands_still(it):
            self._advance_checkpoint()
        it = self.state.checkpoint
        if it is None:
            busy = self.said[-1].endswith("busy") or any("goes on as PASSIVE" in said for said in self.said)
            assert busy == (answer == {"error": "BusyError"}), answer
            self.paused[number] = None
        else:
            self._at(number, answer, STANDS.get(it.at, "busy"))
            if it.at == "copy":
                assert it.place == answer["page"]

    def _advance_checkpoint(self) -> None:
        it = self.state.checkpoint
        assert it is not None
        ((name, state),) = checkpoint_steps(self.state, it)
        self.said.append(name)
        self.kinds.add(_kind(name.partition(": ")[2]))
        self.state = state

    def _stands_still(self, it: Checkpoint) -> bool:
        if it.at == "lock":
            return self.state.writing
        wanted = waits_for(self.state)
        if wanted:
            return any(self.state.locks[slot] for slot in wanted)
        return it.at in ("copy", "cut main", "file") or (it.at == "count" and it.safe == self.state.frames)

    # --- processes

    def _does(self, number: int, what: str, argument: Any = None) -> dict[str, Any]:
        self.did.append(f"{number} {what} {argument}")
        return self.all[number].does(what, argument)

    def _goes(self, number: int, line: str) -> dict[str, Any]:
        self.did.append(f"{number} {line}")
        return self.all[number].goes(line)

    def _at(self, number: int, answer: dict[str, Any], expected: str) -> None:
        assert expected == answer.get("at"), answer
        self.paused[number] = expected

    def _kill(self, number: int) -> None:
        self.did.append(f"{number} is killed")
        self.all[number].kill()
        self.all[number] = self._processes.take()
        self.paused[number] = None
        self._does(number, "open", str(self.path))
        # A connection that has read nothing yet does not know that there is a log.
        begun = begin(self.state)
        assert begun is not None
        self.state = let_go(*begun)
        self._does(number, "sql", "PRAGMA user_version")

    def finish(self) -> None:
        """All that is under way comes to an end, and everybody goes; the last one leaves no log."""
        self.compare()
        for number in (CONNECTIONS, *range(CONNECTIONS)):
            while self.paused[number]:
                self._go_on(number) if number < CONNECTIONS else self._checkpoint()
                self.compare()
            if number < CONNECTIONS and self.state.connections[number].at == "reads":
                self._end(number)
        self.compare()
        os.close(self._shm)
        for number, process in enumerate(self.all):
            self._does(number, "close")
            self._processes.give_back(process)
        assert not Path(f"{self.path}-wal").exists()
        if self.state.commits:
            self.state = closed_by_the_last(self.state)
        self._compare_main()


def _kind(step: str) -> str:
    return re.sub(r" [0-9+]+", " n", step.partition(", size")[0].replace(", new salts", ""))


def _frame(log: bytes, index: int) -> tuple[int, int, bytes, bytes]:
    """Page, size, salts and content."""
    at = 32 + index * (24 + PAGE_BYTES)
    page, size = struct.unpack_from(">2I", log, at)
    return page, size, log[at + 8 : at + 16], log[at + 24 : at + 24 + PAGE_BYTES]


# Every kind of step that the model has for others than the agent, but one that no pause comes before.
KINDS = {
    "holds slot n", "ends", "restarts the log: header", "restarts the log: counts", "writes nothing",
    "appends n in slot n", "commits", "rolls back, or is killed",
    "keeps writers out", "waits no longer for writers, goes on as PASSIVE", "reads the header, n frames",
    "slot n has mark n", "slot n is free", "stops at mark n", "waits no longer for slot n",
    "keeps slot n", "slot n is held", "moves page n, version n", "is at the end of the log",
    "is not at the end of the log", "cuts the main file to n", "counts n as moved", "lets go of slot n", "done",
    "busy", "waits no longer for readers, busy", "empties the log: header", "empties the log: counts",
    "empties the log: file, done",
}  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks for locks as Linux has them")
def test_random_walks(template: Path, tmp_path: Path, processes: Processes) -> None:
    """Whatever SQLite does, the model does, step by step; and there is nothing that it never did."""
    kinds: set[str] = set()
    for seed in range(SEEDS):
        kinds |= walk(template, tmp_path, processes, seed, STEPS)

    assert set() == KINDS - kinds


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks for locks as Linux has them")
def test_more_and_longer_walks(template: Path, tmp_path: Path, processes: Processes) -> None:
    """Likewise for minutes."""
    for seed in range(SEEDS, 10 * SEEDS):
        walk(template, tmp_path, processes, seed, 4 * STEPS)


def walk(template: Path, tmp_path: Path, processes: Processes, seed: int, steps: int) -> set[str]:
    """The kinds of steps there were."""
    path = tmp_path / f"{seed}.db"
    shutil.copyfile(template, path)
    it = Walk(path, seed, processes)
    try:
        for _ in range(steps):
            it.compare()
            it.step()
        it.finish()
    except BaseException:
        print(f"seed {seed}:", *it.did, it.state, sep="\n  ")
        raise
    path.unlink()
    return it.kinds
