"""Lives from seeds: `make simulate SEEDS=1000`; one again: `python -m tests.simulation.simulate --seeds 1 --first 17`.

Prints each seed that failed with its reason (those belong into seeds.txt), and at the end, also of one that is
interrupted, what was lived.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter

from tests.simulation.life import STEPS, Life, Lived
from tests.simulation.turns import where


def live(seed: int, folder: str, *, steps: int = STEPS) -> Lived:
    return Life(seed, os.path.join(folder, "world"), steps=steps).run()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    total: Counter[str] = Counter()
    failed: list[int] = []
    began = time.monotonic()
    for seed in range(given.first, given.first + given.seeds):
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            try:
                lived = live(seed, folder, steps=given.steps)
            except KeyboardInterrupt:
                break
            except Exception as exc:
                failed.append(seed)
                print(f"seed {seed} failed: {where(exc)}", flush=True)
                continue
        total.update(lived.happened)
        total.update(
            seeds=1, steps=lived.steps, checks=lived.checks, restores=lived.restored, commits=lived.commits
        )
    for what, count in sorted(total.items()):
        print(f"{what}: {count}")
    print(f"{time.monotonic() - began:.0f} s; failed: {failed or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
