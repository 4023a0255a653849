"""The soak: every scenario in turn, with new seeds in every round, beside one agent that lives throughout.

    python -m tests.soak --minutes 10          `make soak MINUTES=10`, or HOURS=8

The agent that lives throughout has hostile neighbours all the while; logs are consolidated, backups made and old ones
pruned beside them. Every minute what the store holds is restored and compared: with every commit that was acknowledged,
and by turns, at rest, with the database byte by byte. Its memory and descriptors have to stay flat. From an hour on the
tests that are marked slow are among the scenarios. Ends with a table, and with 1 where anything failed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import oracle
from tests.support.scene import Process, Scene
from tests.support.soaking import ROUND

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS: dict[str, tuple[str, ...]] = {
    "hostile neighbours": ("tests/faults/test_hostile.py",),
    "resources": tuple(
        f"tests/faults/test_{each}.py" for each in ("resources", "memory", "mounted_store", "clock_jumps")
    ),
    "two agents": ("tests/faults/test_two_agents.py", "tests/parts/test_fence.py"),
    "every durability point": ("tests/simulation",),
    "damage": ("tests/faults/test_damage.py",),
    "stores that fail": ("tests/faults/test_wire.py", "tests/faults/test_hostile_store.py"),
    "protocol": ("tests/model",),
}
SLOW_FROM_MINUTES = 60.0
SAMPLE_SECONDS = 5.0
LOOK_SECONDS = 60.0
# What an allocator keeps, and a look of `status` or a backup under way has open for a moment.
GROWTH_BYTES, GROWTH_DESCRIPTORS = 12 << 20, 4


@dataclass
class Tally:
    runs: int = 0
    passed: int = 0
    failed: int = 0
    unended: int = 0
    seconds: float = 0.0


@dataclass
class Long:
    """The agent that lives throughout. ``samples``: seconds, resident bytes, descriptors."""

    scene: Scene
    agent: Process
    samples: list[tuple[float, int, int]] = field(default_factory=list)
    looks: int = 0
    compared: int = 0
    backups: int = 0
    commits: int = 0
    faults: list[str] = field(default_factory=list)

    def live(self, stop: threading.Event) -> None:
        try:
            self._live(stop)
        except BaseException:
            self.faults.append(traceback.format_exc())

    def _live(self, stop: threading.Event) -> None:
        began = looked = time.monotonic()
        self.scene.neighbours(1e6)
        while not stop.wait(SAMPLE_SECONDS):
            assert self.agent.poll() is None, f"the agent ended: {self.scene.said()}"
            dead = [number for number, each in self.scene.living.items() if each.poll() is not None]
            assert not dead, f"neighbours {dead} ended"
            self.samples.append(
                (time.monotonic() - began, resident(self.agent.pid), descriptors(self.agent.pid))
            )
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self._look()
        self._compare()
        self.agent.terminate()
        assert self.agent.wait(60) == 0, self.scene.said()

    def _look(self) -> None:
        self.looks += self.scene.look()
        if self.looks % 2 == 0:
            self._compare()
            self.scene.neighbours(1e6)
        kind = ("incremental", "log", "full")[self.backups % 3]
        for ask in (("backup", kind, self.scene.database), ("prune", self.scene.database, "--yes")):
            subprocess.run(
                [sys.executable, "-m", "replicator", *ask], cwd=ROOT, check=True, capture_output=True
            )
        self.backups += 1

    def _compare(self) -> None:
        """At rest, byte by byte; the commits of an era are counted when it ends."""
        self.scene.end_neighbours()
        snapshot, _ = self.scene.until_shipped()
        self.compared += 1
        self.scene.assert_all_acknowledged(str(self.scene.folder / "at-rest"))
        told = oracle.acknowledged(self.scene.acks(self.scene.eras[-1]))
        before = self.scene.eras[-1].before
        self.commits += sum(count - before.get(writer, 0) for writer, count in told.items())
        self.scene.begin_era(snapshot.ledger)

    def flat(self) -> list[str]:
        """What grew between the second quarter, when all had its size, and the last one."""
        quarter = len(self.samples) // 4
        if not quarter:
            return []
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        grown = statistics.median(each[1] for each in late) - statistics.median(each[1] for each in early)
        more = max(each[2] for each in late) - max(each[2] for each in early)
        return [
            *([f"memory grew by {grown / (1 << 20):.1f} MiB"] if grown > GROWTH_BYTES else []),
            *([f"{more} more descriptors"] if more > GROWTH_DESCRIPTORS else []),
        ]


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def run_scenario(paths: tuple[str, ...], number: int, left: float, *, slow: bool, tally: Tally) -> str:
    """One round of it; returns what failed."""
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "3600" if slow else "300", *paths]
    if slow:
        command += ["-m", "slow or not slow"]
    began = time.monotonic()
    tally.runs += 1
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, ROUND: str(number)},
    ) as child:  # fmt: skip
        try:
            said, _ = child.communicate(timeout=max(left, 1.0))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            said, _ = child.communicate()
            tally.unended += 1
    tally.seconds += time.monotonic() - began
    progress = [
        line.split("[")[0].strip()
        for line in said.splitlines()
        if line.strip() and not line.strip(".sxF [%]0123456789")
    ]
    tally.passed += sum(line.count(".") for line in progress)
    failed = sum(line.count("F") for line in progress)
    tally.failed += failed
    return said if failed or child.returncode not in (0, -9) else ""


def table(tallies: dict[str, Tally], long: Long, minutes: float) -> str:
    lines = ["| scenario | rounds | tests passed | failed | seconds |", "|---|---|---|---|---|"]
    for name, each in tallies.items():
        rounds = f"{each.runs}" + (", the last one not to its end" if each.unended else "")
        lines.append(f"| {name} | {rounds} | {each.passed} | {each.failed} | {each.seconds:.0f} |")
    quarter = max(1, len(long.samples) // 4)
    early, late = long.samples[quarter : 2 * quarter] or long.samples, long.samples[-quarter:]
    memory = [statistics.median(each[1] for each in part) / (1 << 20) for part in (early, late)]
    files = [max(each[2] for each in part) for part in (early, late)]
    lines.append(
        f"\nThe agent that lived throughout: {minutes:.0f} minutes, {long.commits} acknowledged commits, "
        f"{long.looks} restores beside the neighbours, {long.compared} compared byte by byte at rest, "
        f"{long.backups} backups and prunings; resident memory {memory[0]:.0f} MiB in the second quarter and "
        f"{memory[1]:.0f} in the last, descriptors at most {files[0]} and {files[1]}."
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    given = parser.parse_args()
    ends = time.monotonic() + given.minutes * 60
    print(f"soak of {given.minutes:g} minutes, seed {given.seed}", flush=True)
    tallies = {name: Tally() for name in SCENARIOS}
    failures: list[str] = []
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        scene = Scene(Path(folder), given.seed, roles=("mixed", "writer", "checkpointer"))
        long = Long(scene, scene.agent("--log-interval", "60"))
        thread = threading.Thread(target=long.live, args=(stop,))
        thread.start()
        number = given.seed
        while time.monotonic() < ends and not long.faults:
            for name, paths in SCENARIOS.items():
                if (left := ends - time.monotonic()) > 0:
                    slow = given.minutes >= SLOW_FROM_MINUTES
                    said = run_scenario(paths, number, left, slow=slow, tally=tallies[name])
                    print(f"{name}, round {number}: {'FAILED' if said else 'well'}", flush=True)
                    if said:
                        failures.append(said)
            number += 1
        stop.set()
        thread.join()
        for each in scene.living.values():
            each.kill()
        long.agent.kill()
    failures += long.faults + long.flat()
    print(*failures, table(tallies, long, given.minutes), sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
