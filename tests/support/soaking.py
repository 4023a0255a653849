"""What a soak asks of tests: another seed in every round."""

from __future__ import annotations

import os

ROUND = "REPLICATOR_SOAK_ROUND"


def seeds(*usual: int) -> list[int]:
    """*usual* in the default run; in round n of a soak (tests/soak.py) others, as many."""
    return [seed + 1000 * int(os.environ.get(ROUND, "0")) for seed in usual]
