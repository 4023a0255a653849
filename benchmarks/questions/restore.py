"""How long until the database is back?"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from benchmarks import databases, proc
from benchmarks.bench import Bench, bench, run_measured
from benchmarks.questions import Column, Plot
from benchmarks.rounds import Row, Session
from benchmarks.setting import DEFAULTS, Setting

TITLE = "Restore"
NOTES = (
    "The whole command, from start to exit, and a sync of the result by us afterwards where the program did not. "
    "Ours proves page hashes, the checksum of the database and `quick_check` by default; the rival checks nothing "
    "unless told to, so ours is timed with `--verify none` (page hashes all the same), too, and the rival with "
    "`-integrity-check quick`. *cp*: a copy of the same file and fsync, the limit. *Middle*: to the moment when "
    "half of the commits were done; off by: how far the result is from the last commit before that moment."
)
COLUMNS = (
    Column("seconds", "s, default", 2),
    Column("none_seconds", "s, no check", 2),
    Column("quick_seconds", "s, quick check", 2),
    Column("cpu_seconds", "CPU s"),
    Column("peak_rss_mb", "peak RSS MB", 0),
    Column("middle_seconds", "to the middle s", 2),
    Column("middle_off", "off by commits", 0),
    Column("cp_seconds", "cp + fsync s", 2, better=""),
    Column("objects", "objects", 0),
)
PLOTS = (Plot("restore", "seconds", "s", "Restore with each one's default checks"),)


def run(session: Session) -> None:
    large = f"{session.pick(20, 1000)} MB"
    small = session.pick(10, 100)
    commits = f"{small} MB + {session.pick(500, 10_000):,} small commits"
    updates = f"{small} MB + {session.pick(5_000, 200_000):,} row updates"
    cases = {large: [], commits: ["--commits", session.pick(500, 10_000)]}
    cases[updates] = ["--kind", "rows", "--batch", 100, "--commits", session.pick(50, 2_000)]

    def measure(case: str, setting: Setting) -> Row:
        with bench(session, setting, int(case.partition(" ")[0])) as here:
            return restored(here, cases[case])

    if session.quick:
        del cases[commits]
    session.take_turns("restore", list(cases), DEFAULTS, measure)


def restored(here: Bench, arguments: list[object]) -> Row:
    here.start_probe()
    here.start_agent()
    acks: list[tuple[int, int]] = []
    time.sleep(1.5)
    if arguments:
        here.write(*arguments, log="acks.log")
        acks = here.acknowledged("acks.log")
        here.wait_for_commit(acks[-1][0])
    here.patience = min(here.patience, 6.0)
    here.settle()
    here.stop_agent()
    os.sync()  # what all that has written is not to be on anybody's bill
    row: Row = {"objects": proc.stored(here.store)[0]}
    row |= timed(here, None, "", keep=True)
    if here.setting.ours:
        row["quick_seconds"] = row["seconds"]
        row |= timed(here, "none", "none_")
    else:  # which checks nothing unless told to
        row["none_seconds"] = row["seconds"]
        row |= timed(here, "quick", "quick_") if here.setting.side == "0.5.17" else {}
    if acks:
        row |= to_the_middle(here, acks)
    row["cp_seconds"] = copy_seconds(here.db, here.folder / "copy.db")
    return row


def timed(here: Bench, verify: str | None, prefix: str, *, keep: bool = False) -> Row:
    out = here.folder / "out.db"
    found = run_measured(here.setting.restore_command(here.store, out, verify=verify), here.folder)
    if not here.setting.ours:
        began = time.monotonic()
        sync(out)
        found["seconds"] += time.monotonic() - began
    if keep:  # proved once: what the default restore brought is what the source holds
        source, result = databases.proof(here.db, whole=here.proves), databases.proof(out, whole=here.proves)
        if source != result:
            raise AssertionError(f"restored {result}, the source is {source}")
    remove(out)
    return {f"{prefix}{name}": value for name, value in found.items() if keep or name == "seconds"}


def to_the_middle(here: Bench, acks: list[tuple[int, int]]) -> Row:
    counter, micros = acks[len(acks) // 2]
    out = here.folder / "middle.db"
    found = run_measured(here.setting.restore_command(here.store, out, micros=micros + 1), here.folder)
    total = databases.ledger_total(out)
    remove(out)
    return {"middle_seconds": found["seconds"], "middle_off": abs(total - counter)}


def copy_seconds(source: Path, target: Path) -> float:
    began = time.monotonic()
    shutil.copyfile(source, target)
    sync(target)
    took = time.monotonic() - began
    target.unlink()
    return took


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
