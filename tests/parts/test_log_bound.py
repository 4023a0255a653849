"""The log stays bounded because of us: quiet gaps, the write barrier as last resort, and a huge file cut."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.capture.barrier import Holds
from replicator.marks import SourceState
from tests.parts.rig import Rig
from tests.support.app import App

LOG_BYTES_MAX = 64 << 20


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def _command(rig: Rig, *more: str) -> list[str]:
    return [sys.executable, "-m", "replicator.demo.writer", rig.database, "--quiet", *more]


def _write(rig: Rig, *more: str) -> None:
    subprocess.run(_command(rig, *more), stdout=subprocess.DEVNULL, check=True)


def _source(rig: Rig, agent: object) -> SourceState:
    return agent.status()[rig.database].source  # type: ignore[attr-defined,no-any-return]


def test_a_writer_at_full_speed_keeps_the_log_bounded(rig: Rig) -> None:
    """Under overload restore points thin out, the barrier is counted, and the end is exact. Other tests share the
    cores, and an agent that comes late finds more: one run of four has to keep it."""
    peaks: list[int] = []
    while not peaks or (peaks[-1] > LOG_BYTES_MAX * 1.6 and len(peaks) < 4):
        _write(rig, "--commits", "50")  # whose end takes the log file away
        peak, state = _written_at_full_speed(rig)
        peaks.append(peak)
        assert (
            peak < 48 << 20 or state.barriers > 0 or state.wal_bytes < peak
        )  # a pause had the log restarted
        rig.assert_equal()

    assert min(peaks) <= LOG_BYTES_MAX * 1.6, peaks


def _written_at_full_speed(rig: Rig) -> tuple[int, SourceState]:
    """For four seconds, beside an agent of its own; the largest size of the log, and what the agent says at the end."""
    peak = 0
    with rig.agent(ship_interval=0.05) as agent:
        command = _command(rig, "--rate", "0", "--seconds", "4")
        # Where other tests have the other core, the writer shares ours: then it goes behind, and not the agent.
        with subprocess.Popen(["nice", "-n", "15", *command], stdout=subprocess.PIPE, text=True) as writer:
            while writer.poll() is None:
                peak = max(peak, os.path.getsize(rig.database + "-wal"))
                assert not agent.wait(0.01)
            summary = json.loads(writer.communicate()[0])
        assert summary["busy_errors"] == 0
        return peak, _source(rig, agent)


@pytest.mark.parametrize(("allowed", "holds"), [(True, range(1, 4)), (False, range(1))])
def test_a_log_that_a_reader_keeps_long_is_no_reason_to_hold_writers_again_and_again(
    rig: Rig, allowed: bool, holds: range
) -> None:
    """One hold in 48 MiB of it, none with `barrier: never`; the log grows, since somebody reads from it."""
    with App(rig.database) as app, App(rig.database) as reader:
        app.insert()
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t")
        with rig.agent(ship_interval=0.05, barrier=allowed) as agent:
            for _ in range(45):
                app.execute(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<256) "
                    "INSERT INTO t(body) SELECT zeroblob(10000) FROM n"
                )
            while (state := _source(rig, agent)).captured is None or state.captured.txid < 45:
                assert not agent.wait(0.02)
            reader.execute("COMMIT")

    assert state.barriers in holds
    rig.assert_equal()


def test_a_log_that_goes_on_behind_a_barrier_is_met_again_soon_and_then_rarely() -> None:
    """4 MiB later, 8, 16, until it is as much as the first time; a log begun anew begins with that."""
    holds = Holds(50 << 20)
    due = []
    for _ in range(6):
        due.append(holds.from_bytes >> 20)
        holds.ended(holds.from_bytes, 1.0, reached=True)
    holds.ended(1000 << 20, 2.0, reached=False)
    due.append(holds.from_bytes >> 20)
    holds.restart()
    due.append(holds.from_bytes >> 20)

    assert due == [50, 54, 62, 78, 110, 160, 1050, 50]
    assert (7, 2.0) == (holds.count, holds.longest_ms)


def test_a_log_file_that_grew_huge_is_cut_once_it_is_not_needed(rig: Rig) -> None:
    """After a transaction of 80 MB the file is truncated, though the application never asks for it."""
    with App(rig.database) as app, rig.agent() as agent:
        app.execute("PRAGMA wal_autocheckpoint=0")
        app.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<21000) "
            "INSERT INTO t(body) SELECT zeroblob(3900) FROM n"
        )
        grown = os.path.getsize(rig.database + "-wal")
        agent.wait_captured_and_shipped(60)

        assert grown > 64 << 20
        for _ in range(500):
            if os.path.getsize(rig.database + "-wal") == 0:
                break
            assert not agent.wait(0.02)

        assert os.path.getsize(rig.database + "-wal") == 0
        app.insert(3)
    rig.assert_equal()


def test_a_database_over_one_gibibyte_is_restored_exactly(rig: Rig) -> None:
    """The lock page at 1 GiB is never written, never shipped, and counts as nothing."""
    with App(rig.database, page_size=65536) as app:
        app.execute("PRAGMA synchronous=OFF")
        app.execute("PRAGMA wal_autocheckpoint=200")
        app.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1030) "
            "INSERT INTO t(body) SELECT zeroblob(1000000) FROM n"
        )
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with rig.agent(ship_interval=0.05):
            app.execute("INSERT INTO t(body) SELECT zeroblob(50000000)")
            app.execute("UPDATE t SET body=zeroblob(1000001) WHERE id>1020")
            app.execute("CREATE INDEX i ON t(id, length(body))")

    assert os.path.getsize(rig.database) > 1 << 30
    result = rig.restore()
    app.close()
    same = subprocess.run(["cmp", result.path, rig.database], check=False)

    assert same.returncode == 0
