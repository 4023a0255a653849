"""What does an agent use of the machine: at rest, and under a bulk load?"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import databases, proc
from benchmarks.bench import Bench, bench
from benchmarks.questions import Column, Plot
from benchmarks.rounds import Row, Session
from benchmarks.setting import OURS, V5, Setting

TITLE = "CPU and memory at rest and under a bulk load"
NOTES = (
    "CPU time of all processes of the agent as a share of one core, and their resident memory. *Idle* begins "
    "when the agent came to rest after its first full backups, or 40 s later. Wake-ups: voluntary context "
    "switches. *Bulk*: commits of 5 MB from a writer that makes them meanwhile. A steady rate is in the table of "
    "latencies."
)
COLUMNS = (
    Column("cpu_percent", "CPU % of a core", 2),
    Column("cpu_seconds", "CPU s", 2),
    Column("seconds", "until in the replica s"),
    Column("wakeups_second", "wake-ups/s"),
    Column("rss_mb", "RSS MB"),
    Column("peak_rss_mb", "peak RSS MB"),
    Column("open_files", "open files", 0),
)
PLOTS = (
    Plot("idle-cpu", "cpu_percent", "% of a core", "Idle: CPU by databases", prefix="idle databases: "),
    Plot("idle-rss", "rss_mb", "MB", "Idle: memory by databases", prefix="idle databases: "),
)
IDLE, BULK = "idle databases: ", "bulk load"


def run(session: Session) -> None:
    def idle(case: str, setting: Setting) -> Row:
        return measure_idle(session, case, setting)

    session.take_turns("cost", [IDLE + "1"], (OURS, V5), idle)
    many = session.pick(("20",), ("100", "1000"))  # minutes each, and much the same every time
    session.take_turns("cost", [IDLE + count for count in many], (OURS, V5), idle, rounds=1)
    bulk = f"{BULK} of {session.pick(25, 500)} MB"
    session.take_turns("cost", [bulk], (OURS, V5), lambda _, setting: measure_bulk(session, setting))


def measure_idle(session: Session, case: str, setting: Setting) -> Row:
    count = int(case.removeprefix(IDLE))
    with bench(session, setting, placed=False) as here:
        pairs = many(here, count)
        here.agent = setting.start(pairs, here.folder)
        wanted = lambda: all(setting.protects(store) for _, store in pairs)  # noqa: E731 - a condition
        proc.wait_for(wanted, f"fulls of {count} databases", 600, every=0.2)
        here.settle()
        row = at_rest(here, session.pick(3.0, 20.0))
        row["peak_rss_mb"] = proc.rss_mb(here.pid, peak=True)
        return row


def many(here: Bench, count: int) -> list[tuple[Path, Path]]:
    """Databases in folders of their own, each with its store."""
    pairs = []
    for number in range(count):
        db, store = here.folder / f"apps/{number}/app.db", here.folder / f"stores/{number}"
        databases.place(here.made, db)
        store.mkdir(parents=True)
        pairs.append((db, store))
    return pairs


def at_rest(here: Bench, seconds: float) -> Row:
    pid = here.pid
    cpu, switches = proc.cpu_seconds_at_rest(pid), proc.context_switches(pid)
    time.sleep(seconds)
    here.require_agent()
    return {
        "cpu_percent": (proc.cpu_seconds_at_rest(pid) - cpu) / seconds * 100,
        "wakeups_second": (proc.context_switches(pid) - switches) / seconds,
        "rss_mb": proc.rss_mb(pid),
        "open_files": proc.open_files(pid),
    }


def measure_bulk(session: Session, setting: Setting) -> Row:
    """Commits of some 5 MB each, as fast as they go; then what is left until the replica has them."""
    commits = session.pick(5, 95)
    with bench(session, setting) as here:
        here.start_probe()
        here.start_agent()
        here.settle()
        cpu, began = proc.cpu_seconds(here.pid), time.monotonic()
        here.write("--kind", "bulk", "--commits", commits)
        here.wait_for_commit(here.counter_before + commits, 300)
        row: Row = {"seconds": time.monotonic() - began}
        here.settle()
        row |= {"cpu_seconds": proc.cpu_seconds(here.pid) - cpu, "rss_mb": proc.rss_mb(here.pid)}
        row["peak_rss_mb"] = proc.rss_mb(here.pid, peak=True)
        here.prove()
        return row
