"""128 MiB of memory, whatever the size of the database: the kernel ends who takes more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.little_memory import memory_limited

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 128 << 20
# Of the peak that a process sees of itself: files that are mapped, such as programs, are not its own.
MAPPED = 24 << 20


def run(module: str, *arguments: object, enter: object = None) -> int:
    """The peak of its memory, in bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.peak", module, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=enter,  # type: ignore[call-overload]
    )  # fmt: skip
    assert 0 == done.returncode, f"{module} {arguments}: {done.returncode} {done.stderr[-2000:]}"
    peak = int(done.stderr.rpartition("peak ")[2])
    print(module, *map(str, arguments[:1]), f"{peak / (1 << 20):.0f} MiB")
    return peak


def go_round(folder: Path, mebibytes: int) -> list[int]:
    """Followed from nothing, a fifth of it changed in one transaction, followed on, backed up, restored, compared."""
    database, store, output = folder / "large.db", folder / "store", folder / "out.db"
    follow = (database, store, "--once", "--seconds", 1800)
    run("tests.support.large", database, mebibytes)
    peaks = []
    with memory_limited(LIMIT) as enter:
        peaks.append(run("tests.support.agent_process", *follow, enter=enter))
        run("tests.support.large", database, mebibytes, "--change")
        peaks.append(run("tests.support.agent_process", *follow, enter=enter))
        peaks.append(run("replicator", "verify", store, enter=enter))
        peaks.append(run("replicator", "restore", store, "-o", output, "--verify", "full", enter=enter))
    compare = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA wal_checkpoint(TRUNCATE)')"
    )
    subprocess.run([sys.executable, "-c", compare, database], check=True)
    subprocess.run(["cmp", database, output], check=True)
    return peaks


def test_a_database_larger_than_memory(tmp_path: Path) -> None:
    """A quarter larger: none of agent, verify and restore takes what it has not."""
    assert max(go_round(tmp_path, 160)) < LIMIT + MAPPED


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_database_of_4_gib(tmp_path: Path) -> None:
    """Thirty-two times as large, with a transaction of 0.8 GiB."""
    assert max(go_round(tmp_path, 4096)) < LIMIT + MAPPED
