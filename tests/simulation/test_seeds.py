"""Lives from seeds: those in seeds.txt always, more of them with `make simulate SEEDS=1000`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.simulation.simulate import live

_LINES = Path(__file__).with_name("seeds.txt").read_text().splitlines()
SEEDS = [int(line.partition("#")[0]) for line in _LINES if line.partition("#")[0].strip()]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_keeps_every_invariant(scratch: str, seed: int, tried: Any) -> None:
    """After every step, and what is restored is what was there after some commit, not older than the last one
    acknowledged."""
    lived = live(seed, scratch)
    tried(
        {
            "steps of seeded lives": lived.steps,
            "checks of invariants": lived.checks,
            "restores": lived.restored,
        }
    )

    assert lived.checks > 200
    assert lived.restored > 0


def test_a_seed_lives_the_same_life_again(scratch: str) -> None:
    """Step by step: so a seed that failed can be looked at for as long as it takes."""
    one, two = (live(SEEDS[0], scratch) for _ in range(2))

    assert one == two
