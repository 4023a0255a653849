"""The workload in processes that are really killed, at one moment each: what they leave is what the model says.

    python -m tests.simulation.killing FOLDER [--sealed] [--every N] [--offset M]

Prints JSON: how many were killed, and what was wrong. A process of its own, since it forks and must have one thread.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.simulation.campaign import Case, Moment, Recording, record
from tests.simulation.disk import Disk, Reading, View
from tests.simulation.turns import where
from tests.simulation.workload import Workload, new_world


def run_until(root: str, sealed: bool, at: Moment) -> None:
    """The workload up to a moment, and not a bit further."""
    world = new_world(root, sealed=sealed)

    def on_point(number: int, _: str, happened: bool) -> None:
        if (number, happened) == (at.number, at.happened):
            signal.raise_signal(signal.SIGKILL)

    with world.entered():
        for _ in Workload(world).stages():
            world.kernel.on_point = on_point


def kill_at(root: str, sealed: bool, at: Moment) -> int:
    """Returns how the process ended."""
    shutil.rmtree(root, ignore_errors=True)
    child = os.fork()
    if not child:
        try:
            run_until(root, sealed, at)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files_below(root: str) -> View:
    found: View = {}
    for path in Path(root).rglob("*"):
        name = path.relative_to(root).as_posix()
        if not name.endswith("-shm"):
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def differences(there: View, expected: View) -> list[str]:
    names = sorted(set(there) ^ set(expected))
    contents = [name for name in sorted(set(there) & set(expected)) if there[name] != expected[name]]
    return [f"the model is wrong about {each}" for each in (names, contents) if each]


def try_moment(recording: Recording, at: Moment, disk: Disk, root: str, number: int) -> list[str]:
    ended = kill_at(root, recording.sealed, at)
    if ended != -signal.SIGKILL:
        return [f"it ended with {ended}"]
    there = files_below(root)
    case = Case(recording, at, Reading.KILLED, there, root, number)
    try:
        return [
            *differences(there, disk.view(Reading.KILLED)),
            *case.restore_as_it_is({}),
            *case.catch_up(Disk.of(there)),
        ]
    except Exception as exc:
        return [where(exc)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    given = parser.parse_args()
    root = os.path.join(given.folder, "world")
    recording = record(root, sealed=given.sealed)
    disk, count, killed = Disk(), 0, 0
    wrong: list[str] = []
    for step in recording.steps:
        if not isinstance(step, Moment):
            disk.apply(step)
            continue
        if count % given.every == given.offset:
            killed += 1
            wrong += [f"{step}: {each}" for each in try_moment(recording, step, disk, root, count)]
        count += 1
    shutil.rmtree(root, ignore_errors=True)
    print(json.dumps({"killed": killed, "wrong": wrong}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
