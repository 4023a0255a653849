"""Two agents on one repository: the one that was taken over from finds out, and nothing of either is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.core.errors import OwnershipLost
from replicator.core.names import SegmentName
from replicator.core.position import GenerationId
from replicator.fence import fence
from replicator.pulse import PAUSE_SECONDS, Pulse
from replicator.repository import read_repository
from replicator.restore import Target, choose
from replicator.store.folder import FolderStore
from tests.core.histories import GENERATION
from tests.parts.rig import Rig
from tests.parts.test_ship import LATER, Pier
from tests.support.app import App
from tests.support.memory_store import MemoryStore

G = GenerationId(GENERATION)


@pytest.fixture
def pier(tmp_path: Path) -> Pier:
    return Pier(tmp_path / "ours")


def take_over(pier: Pier, tmp_path: Path) -> Pier:
    """Another agent, with a state of its own, claims the store and begins a generation of its own."""
    theirs = Pier(tmp_path / "theirs", inner=pier.inner, take_over=True)
    theirs.commit(1)
    theirs.run()
    return theirs


def test_who_was_taken_over_from_finds_out_at_the_next_put(pier: Pier, tmp_path: Path) -> None:
    """It meets the other's lease in the place of its next segment; that of a first part is taken, too."""
    pier.commit(3)
    pier.run()
    take_over(pier, tmp_path)
    pier.commit(1)
    assert {str(SegmentName(G, 4)), str(SegmentName(G, 4, 1))} <= set(pier.inner.names)
    with pytest.raises(OwnershipLost) as caught:
        pier.run()

    assert f"process {os.getpid()}" in str(caught.value)
    assert "its epoch 2, ours 1" in str(caught.value)


def test_a_fence_is_no_segment(pier: Pier, tmp_path: Path) -> None:
    """Readers see the generation end where it did, and its commits restore."""
    pier.commit(3)
    pier.run()
    before = read_repository(pier.inner).catalogue.generation(G)
    take_over(pier, tmp_path)
    after = read_repository(pier.inner).catalogue.generation(G)

    assert before is not None
    assert after is not None
    assert before.segments == after.segments
    assert 1 < len([name for name in pier.inner.names if name.startswith(f"tail/{G}/")])


def test_nothing_is_closed_twice_nor_for_the_first_writer(pier: Pier, tmp_path: Path) -> None:
    """Epoch 1 has nobody before it; a start after the take-over puts nothing."""
    pier.commit(3)
    pier.run()
    fence(pier.inner, 1, but=LATER)
    assert [str(SegmentName(G, 1))] == pier.segments
    theirs = take_over(pier, tmp_path)
    names = pier.inner.names
    theirs.restart()
    theirs.run()

    assert names == pier.inner.names


def test_a_name_that_is_taken_meanwhile_is_followed_by_the_next(pier: Pier, tmp_path: Path) -> None:
    """The other one wrote while we looked: the fence goes behind that, and it meets it there."""

    class Racing(MemoryStore):
        raced = False

        def put(self, name: str, data: bytes) -> None:
            if data.startswith(b"{") and name.startswith("tail/") and not self.raced:
                self.raced = True
                pier.commit(1)
                pier.run()
            super().put(name, data)

    racing = Racing()
    pier = Pier(tmp_path / "first", inner=racing)
    pier.commit(3)
    pier.run()
    take_over(pier, tmp_path)
    pier.commit(1)

    with pytest.raises(OwnershipLost, match="over from us"):
        pier.run()
    assert racing.raced
    assert str(SegmentName(G, 4)) in racing.names


def test_after_a_pause_the_lease_is_read_before_anything_is_put(pier: Pier, tmp_path: Path) -> None:
    """Frozen while another took over and consolidated the tail away, it puts nothing when it wakes."""
    pier.commit(3)
    pier.run()
    take_over(pier, tmp_path)
    for name in [each for each in pier.inner.names if each.startswith(f"tail/{G}/")]:
        pier.inner.delete(name)  # as the log takes segments over: no name is left to be met
    before = pier.inner.names
    pier.commit(1)
    pier.awake += PAUSE_SECONDS + 1
    with pytest.raises(OwnershipLost, match="another agent writes to"):
        pier.run()

    assert before == pier.inner.names


def test_a_pause_is_what_is_longer_than_the_longest_rest() -> None:
    """Beats as far apart as the safety poll are none; a longer silence counts once."""
    now = 0.0
    pulse = Pulse(lambda: now)
    found = []
    for step in (1, 5, PAUSE_SECONDS, PAUSE_SECONDS + 0.1, 1, 3600, 1):
        now += step
        found.append(pulse.beat())

    assert [0, 0, 0, 1, 1, 2, 2] == found


def test_a_frozen_agent_wakes_up_and_stops(tmp_path: Path) -> None:
    """For real: SIGSTOP, a take-over by another state folder, SIGCONT; it ends with 11 and says who writes."""
    rig = Rig(tmp_path)
    command = [sys.executable, "-m", "tests.support.agent_process", rig.database, rig.store]
    with App(rig.database) as app:
        app.insert(3)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as old:
            assert old.stdout is not None
            assert "ready" == old.stdout.readline().strip()
            old.send_signal(signal.SIGSTOP)
            app.execute("PRAGMA wal_checkpoint(PASSIVE)")
            with rig.agent(state=str(tmp_path / "other"), take_over=True):
                app.insert(3)
            old.send_signal(signal.SIGCONT)
            app.insert(3)
            said = old.communicate(timeout=60)[1]
        assert 11 == old.returncode, said
        assert "OwnershipLost" in said
    repository = read_repository(FolderStore(rig.store))

    assert (
        choose(repository, Target()).point.position.generation
        == repository.catalogue.generations[-1].generation
    )
