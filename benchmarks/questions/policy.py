"""What does the backup policy cost in a day, and how long does a restore take as the log grows?"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks import proc
from benchmarks.bench import Bench, bench
from benchmarks.questions import Column, Plot
from benchmarks.questions.restore import timed
from benchmarks.questions.s3 import GB_MONTH_DOLLARS, GET_DOLLARS, PUT_DOLLARS, requests_in, start_wire
from benchmarks.rounds import Row, Session
from benchmarks.setting import OURS_S3, ROOT, Setting, environment
from tests.support.servers.s3 import seaweed

TITLE = "The backup policy: a day of it, and restores as the log grows"
NOTES = (
    "*A day*: SeaweedFS behind a proxy that counts. A minute of Kanban-like work is measured, then one log, one "
    "incremental, one full and one pruning, each by itself; a day has 1,440 such minutes, 96 logs, 5 incrementals, a "
    "full and 6 prunings. What a log reads and deletes is counted for each segment. Bytes are those that are put; of "
    "the segments those that the logs take over. A month at the prices of the table for S3, with what the retention "
    "of 48 hours, 7 days and 30 days keeps of it. *Log of N h*: 100 MB and N × 3,600 commits in logs, restored to the "
    "newest, with and without an incremental every four hours of them."
)
COLUMNS = (
    Column("puts_day", "PUT a day", 0),
    Column("lists_day", "LIST a day", 0),
    Column("gets_day", "GET, HEAD a day", 0),
    Column("deletes_day", "DELETE a day", 0),
    Column("segments_mb_day", "segments MB a day", 2),
    Column("logs_mb_day", "logs MB a day", 2),
    Column("incremental_mb", "an incremental MB", 2),
    Column("full_mb", "a full MB", 2),
    Column("dollars_month", "$ a month", 2),
    Column("seconds", "restore s", 2),
    Column("cpu_seconds", "CPU s", 2),
    Column("peak_rss_mb", "peak RSS MB", 0),
    Column("objects", "objects", 0),
    Column("stored_mb", "stored MB", 1),
)
LOG = "log of "
PLOTS = (Plot("restore-log", "seconds", "s", "Restore: 100 MB and a log", prefix=LOG, log=False),)
ALONE = Setting("replicator, full and log", "replicator")
WITH_INCREMENTALS = Setting("replicator, with an incremental every 4 h", "replicator")
MINUTES, LOGS, INCREMENTALS, FULLS, PRUNES = 1_440, 96, 5, 1, 6
HOURS = (0, 6, 12, 24, 48)


def run(session: Session) -> None:
    rates = session.pick(("1",), ("1", "10"))
    cases = [f"a day at {rate} commits/s" for rate in rates]
    session.take_turns("policy", cases, (OURS_S3,), lambda case, setting: a_day(session, case, setting))
    logs = [f"{LOG}{hours} h" for hours in session.pick((0, 6), HOURS)]
    both = (ALONE, WITH_INCREMENTALS)
    session.take_turns("policy", logs, both, lambda case, setting: grown(session, case, setting), rounds=1)


# --- a day ---------------------------------------------------------------------------------------------


def a_day(session: Session, case: str, setting: Setting) -> Row:
    seconds = session.pick(10, 60)
    with seaweed() as server, bench(session, setting, session.pick(1, 10)) as here:
        log = start_wire(here, server.endpoint, 0.0)
        here.start_probe()
        here.start_agent()
        here.settle()
        counted = {"idle": requests_in(log)}
        here.write("--rate", case.split()[3], "--seconds", seconds)
        here.settle()
        counted["segments"] = requests_in(log)
        for kind in ("log", "incremental", "full"):
            ask(here, "backup", kind, str(here.db))
            counted[kind] = requests_in(log)
        ask(here, "prune", str(here.db), "--yes")
        counted["prune"] = requests_in(log)
        here.prove()
    names = list(counted)
    costs = {name: counted[name] - counted[before] for before, name in itertools.pairwise(names)}
    return bill(costs, 60 / seconds)


def ask(here: Bench, *verb: str) -> None:
    """As a person does it."""
    command = [sys.executable, "-m", "replicator", *verb, "--config", str(here.folder / "replicator.yml")]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(here.folder, here.remote), capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(verb)} failed: {done.stderr.decode()[-500:]}")


def bill(costs: dict[str, Counter[str]], minute: float) -> Row:
    """*minute*: by how much the measured piece has to be multiplied to make one."""
    day: Counter[str] = Counter()
    segments = costs["segments"]["PUT"]
    for kind in ("PUT", "POST", "LIST", "GET", "HEAD", "DELETE"):
        each = costs["log"][kind]
        of_segments = segments if kind in ("GET", "DELETE") else 0
        day[kind] += round(costs["segments"][kind] * minute * MINUTES)
        day[kind] += round(of_segments * minute * MINUTES) + LOGS * max(0, each - of_segments)
        day[kind] += costs["incremental"][kind] * INCREMENTALS + costs["full"][kind] * FULLS
        day[kind] += costs["prune"][kind] * PRUNES
    puts, gets = day["PUT"] + day["POST"], day["GET"] + day["HEAD"]
    mb = {kind: costs[kind]["bytes"] / 1e6 for kind in costs}
    logs_day = mb["log"] * minute * MINUTES
    kept = (2 * logs_day + 7 * INCREMENTALS * mb["incremental"] + 30 * FULLS * mb["full"]) / 1000
    dollars = 30 * ((puts + day["LIST"]) * PUT_DOLLARS + gets * GET_DOLLARS) + kept * GB_MONTH_DOLLARS
    return {
        "puts_day": puts,
        "lists_day": day["LIST"],
        "gets_day": gets,
        "deletes_day": day["DELETE"],
        "segments_mb_day": mb["segments"] * minute * MINUTES,
        "logs_mb_day": logs_day,
        "incremental_mb": mb["incremental"],
        "full_mb": mb["full"],
        "dollars_month": dollars,
    }


# --- as the log grows ----------------------------------------------------------------------------------


def grown(session: Session, case: str, setting: Setting) -> Row:
    hours = int(case.removeprefix(LOG).split()[0])
    commits = session.pick(100, 3_600)
    with bench(session, setting, session.pick(10, 100)) as here:
        here.start_probe()
        here.start_agent()
        time.sleep(1.5)
        for hour in range(1, hours + 1):
            here.write("--rate", 1000, "--commits", commits)
            if setting is WITH_INCREMENTALS and hour % 4 == 0:
                ask(here, "backup", "incremental", str(here.db))
        here.wait_for_commit(here.counter_before + hours * commits)
        ask(here, "backup", "log", str(here.db))
        here.stop_agent()
        os.sync()
        row: Row = {"objects": proc.stored(here.store)[0], "stored_mb": _stored(here.store) / 1e6}
        return row | timed(here, None, "", keep=True)


def _stored(store: Path) -> int:
    return sum(each.stat().st_size for each in store.rglob("*") if each.is_file())
