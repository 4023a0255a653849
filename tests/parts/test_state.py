"""The state folder: what it remembers, what a torn file costs, and who may use it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from replicator import state as state_module
from replicator.core.cursor import EMPTY, WalCursor
from replicator.core.errors import OwnershipLost, StoreUnavailable
from replicator.core.position import GenerationId
from replicator.core.records import GenerationRecord
from replicator.core.wal import Salt, WalChecksum
from replicator.files import FolderLock, lock_holder
from replicator.marks import Marks
from replicator.state import RunningGeneration, StateFolder, StoreMemory, default_state_folder
from replicator.status import StatusFile
from tests.support.memory_store import FakeClock

ROOT = Path(__file__).resolve().parents[2]
ONE, TWO, THREE = (GenerationId(f"{number:016x}") for number in (1, 2, 3))
CURSOR = WalCursor(Salt(1, 2**32 - 1), 17, WalChecksum(3, 4))


def running(generation: GenerationId, **fields: object) -> RunningGeneration:
    record = GenerationRecord(generation, "ab" * 16, 3, 1_738_044_000_000_000, "why: é", 4096, None)
    return replace(RunningGeneration(record, CURSOR, 41, 2**64 - 1), **fields)  # type: ignore[arg-type]


def opened(folder: Path) -> StateFolder:
    state = StateFolder(str(folder))
    state.open()
    return state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made" / "state"


# --- remembering ---------------------------------------------------------------------------------------


def test_a_new_folder_has_a_writer_and_nothing_else(folder: Path) -> None:
    """A state folder names its writer at once and for good; all else comes later."""
    state = opened(folder)
    writer = state.writer
    state.close()
    again = opened(folder)
    again.close()

    assert len(writer) == 16
    assert writer == again.writer
    assert ("", 0, None, ()) == (again.repository, again.epoch, again.generation, again.earlier)
    assert writer != opened(folder.parent / "other").writer


@pytest.mark.parametrize(
    "generation",
    [
        running(ONE),
        running(ONE, base_checksum=None),
        running(ONE, base_checksum=0),
        running(ONE, base=EMPTY, base_pages=1),
        running(ONE, record=replace(running(ONE).record, previous=TWO)),
    ],
)
def test_what_was_set_is_there_again(folder: Path, generation: RunningGeneration) -> None:
    """Repository, epoch and the running generation survive, to the last bit of the checksum."""
    state = opened(folder)
    state.repository, state.epoch = "cd" * 16, 7
    state.begin(generation, set())
    state.close()
    again = opened(folder)
    again.close()

    assert ("cd" * 16, 7, generation, ()) == (
        again.repository,
        again.epoch,
        again.generation,
        again.earlier,
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda state, _: state.belong_to("cd" * 16),
        lambda state, _: state.raise_epoch(7),
        lambda state, generation: state.remember_base(generation.record.generation, 8),
        lambda state, _: state.remember_mount("file:///there", "/there"),
        lambda state, generation: state.begin(replace(generation, base_pages=5), set()),
        lambda state, _: state.remember_checksum(5, 6),
    ],
    ids=["repository", "epoch", "base", "mount", "generation", "checksum"],
)
def test_what_could_not_be_written_down_is_as_it_was(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[StateFolder, RunningGeneration], object],
) -> None:
    """On a full disk, say: who tries again writes it, and does not take it for known."""
    generation = running(ONE, base_checksum=None)
    state = opened(folder)
    state.begin(generation, set())
    before = said(state)
    with monkeypatch.context() as patch:
        patch.setattr(state_module, "replace_file", failing)
        with pytest.raises(StoreUnavailable):
            change(state, generation)
        assert before == said(state)
    change(state, generation)
    after = said(state)
    state.close()
    state = opened(folder)

    assert before != after == said(state)
    state.close()


def said(state: StateFolder) -> tuple[object, ...]:
    return state.repository, state.epoch, state.generation, state.earlier, state.settled, dict(state.mounts)


def failing(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_earlier_generations_are_kept_while_they_are_spooled(folder: Path) -> None:
    """The record of a generation is needed until its last unit is shipped, and no longer."""
    state = opened(folder)
    state.begin(running(ONE), set())
    state.begin(running(TWO), {ONE})
    between = state.earlier
    found = [state.record_of(each) for each in (ONE, TWO, THREE)]
    state.begin(running(THREE), {TWO})
    state.close()
    again = opened(folder)
    again.close()

    assert (running(ONE).record,) == between
    assert [running(ONE).record, running(TWO).record, None] == found
    assert (running(TWO).record,) == state.earlier == again.earlier
    assert running(THREE) == again.generation


def test_what_is_known_of_each_store_is_kept_apart(folder: Path) -> None:
    """Two URLs, two memories; of a store that was never seen nothing is known."""
    state = opened(folder)
    memories = {
        "file:///a": StoreMemory((ONE, 2**64 - 1), lapsed=True),
        "file:///b": StoreMemory(None, lapsed=True),
        "s3://bucket/with/../odd name": StoreMemory((TWO, 0)),
    }
    for url, memory in memories.items():
        state.save_store(url, memory)
    state.close()
    again = opened(folder)
    again.close()

    assert memories == {url: again.load_store(url) for url in memories}
    assert StoreMemory() == again.load_store("file:///never")


def test_nobody_else_may_read_the_state(folder: Path) -> None:
    """Folders are 0700 and files 0600, and no temporary file is left."""
    state = opened(folder)
    state.save_store("file:///a", StoreMemory())
    state.close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}

    assert 0o700 == modes.pop("state") == modes.pop("stores")
    assert {0o600} == set(modes.values())
    assert not [name for name in modes if name.endswith(".tmp")]


def test_the_state_lies_beside_the_database(tmp_path: Path) -> None:
    """It follows links, so that a database has one state however it is called."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/app.db").write_bytes(b"")
    (tmp_path / "link.db").symlink_to(tmp_path / "real/app.db")

    assert str(tmp_path / "real/.app.db-replicator") == default_state_folder(str(tmp_path / "link.db"))
    assert str(tmp_path / "real/.app.db-replicator") == default_state_folder(str(tmp_path / "real/app.db"))


# --- torn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b'{"writer": "ab', b"[]", b"null", b"\0" * 300, b"\xff\xfe"])
def test_a_torn_state_is_a_new_one(folder: Path, content: bytes) -> None:
    """What cannot be read is rebuilt from spool and stores; only who we were is lost."""
    state = opened(folder)
    writer = state.writer
    state.repository = "cd" * 16
    state.begin(running(ONE), set())
    state.close()
    (folder / "state.json").write_bytes(content)
    again = opened(folder)
    again.close()

    assert ("", 0, None) == (again.repository, again.epoch, again.generation)
    assert again.writer not in ("", writer)
    assert again.writer == opened(folder).writer


@pytest.mark.parametrize("content", [b"", b"[1", b"5"])
def test_a_torn_memory_of_a_store_is_none(folder: Path, content: bytes) -> None:
    """The store itself is asked then."""
    state = opened(folder)
    state.save_store("file:///a", StoreMemory((ONE, 5), lapsed=True))
    (path,) = (folder / "stores").iterdir()
    path.write_bytes(content)

    assert StoreMemory() == state.load_store("file:///a")
    state.close()


# --- the lock ------------------------------------------------------------------------------------------

HOLDER = """
import sys
from replicator.state import StateFolder
state = StateFolder(sys.argv[1])
state.open()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_by_another_process_is_refused_by_name(folder: Path) -> None:
    """The error names the process that has it, and what to do; when that process dies, by whatever, it is free."""
    for end in (lambda child: child.kill(), lambda child: child.stdin.close()):
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            assert "locked\n" == child.stdout.readline()
            with pytest.raises(OwnershipLost, match=rf"process {child.pid}\b") as caught:
                opened(folder)
            assert caught.value.hint
            assert child.pid == lock_holder(str(folder / "lock"))
            end(child)
            child.wait()
        assert lock_holder(str(folder / "lock")) is None
        state = opened(folder)
        assert os.getpid() == lock_holder(str(folder / "lock"))
        state.close()


def test_two_agents_in_one_process_exclude_each_other_too(folder: Path) -> None:
    """The lock is one of an open file, not of a process, and is let go of by close."""
    state = opened(folder)
    with pytest.raises(OwnershipLost, match=rf"process {os.getpid()}\b"):
        opened(folder)
    state.close()

    opened(folder).close()


def test_whoever_asks_for_the_holder_keeps_nobody_out(folder: Path) -> None:
    """Threads: `status` asked again and again does not make an agent that starts believe in another one."""
    folder.mkdir(parents=True)
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            lock_holder(str(folder / "lock"))

    asking = threading.Thread(target=ask)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)  # or one of the two would be done before the other has its first turn
    asking.start()
    try:
        for _ in range(200):
            lock = FolderLock(str(folder / "lock"))
            lock.acquire()
            lock.release()
    finally:
        done.set()
        asking.join()
        sys.setswitchinterval(usual)


def test_without_a_lock_there_is_no_holder(folder: Path) -> None:
    """A folder that was never used, and one that no longer is."""
    before = lock_holder(str(folder / "lock"))
    opened(folder).close()

    assert before is None
    assert lock_holder(str(folder / "lock")) is None


def test_a_status_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """A full disk, or a folder that is away: it is written as soon as it can be."""
    clock, marks = FakeClock(), Marks()
    path = tmp_path / "away" / "status.json"
    status = StatusFile(str(path), "app", "app.db", marks, clock)
    delay = status.step(clock.now())
    assert delay
    path.parent.mkdir()
    clock.advance(delay)
    status.step(clock.now())

    assert path.exists()
