"""The long run: python -m tests.fuzz --seconds 600 [--seed N] [--target NAME]…"""

from __future__ import annotations

import argparse
import resource
import secrets
import sys
import time

from tests.fuzz.engine import Failure, Run, save, smallest
from tests.fuzz.targets import targets

# A target that asks for more than this is at fault, and shall not take the machine with it.
MEMORY_BYTES = 4 << 30
# Turn by turn, so that a run that is stopped has looked at all of them.
TURN_SECONDS = 2.0
# Of one target; then it is left alone: what it would still find is most likely the same.
FAILURES_MAX = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--target", action="append", choices=[each.name for each in targets()])
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first failure")
    given = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if given.seed is None else given.seed
    chosen = [each for each in targets() if not given.target or each.name in given.target]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    print(f"seed {seed}", flush=True)
    runs = [Run(each, seed) for each in chosen]
    failures: dict[str, list[object]] = {each.name: [] for each in chosen}
    ends = time.monotonic() + given.seconds
    turn = min(TURN_SECONDS, max(0.02, given.seconds / len(runs) / 4))
    while time.monotonic() < ends:
        for run in runs:
            found = failures[run.target.name]
            if len(found) >= FAILURES_MAX or time.monotonic() >= ends:
                continue
            try:
                run.seconds(turn)
            except Failure as failure:
                if failure.place in found:
                    continue
                found.append(failure.place)
                small = smallest(failure)
                print(f"{small}\nat {small.place}\nsaved as {save(small)}", flush=True)
                if not given.keep_going:
                    print(f"seed {seed}, input {run.tried} of {run.target.name}", file=sys.stderr)
                    return 1
    for run in runs:
        print(f"{run.target.name:20} {run.tried:>10,} inputs {len(run.seen):>5} places")
    print(f"seed {seed}")
    return 1 if any(failures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
