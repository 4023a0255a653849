"""The workload in processes that are really killed: a few in the default run, at every moment in `make faults`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["plain", "sealed"]
RARELY = 601
SHARES = 4


def kill(scratch: str, kind: str, *, every: int, offset: int, tried: Any) -> int:
    command = [sys.executable, "-m", "tests.simulation.killing", scratch]
    command += ["--sealed"] if kind == "sealed" else []
    done = subprocess.run(
        [*command, "--every", str(every), "--offset", str(offset)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    told = json.loads(done.stdout)
    tried({f"processes of a {kind} agent killed": told["killed"]})

    assert not told["wrong"], "\n".join(told["wrong"][:20])
    return int(told["killed"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_is_killed_loses_nothing_that_was_shipped(scratch: str, kind: str, tried: Any) -> None:
    """Its files are what the model says they are; another agent goes on from them."""
    assert kill(scratch, kind, every=RARELY, offset=RARELY // 2, tried=tried) > 3


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_is_killed_at_any_moment(scratch: str, kind: str, share: int, tried: Any) -> None:
    """The same, before and after every point."""
    assert kill(scratch, kind, every=SHARES, offset=share, tried=tried) > 500
