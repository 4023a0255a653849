"""How long after SQLite acknowledged a commit does the replica hold it?"""

from __future__ import annotations

import time

from benchmarks import proc
from benchmarks.bench import Bench, bench
from benchmarks.questions import Column, Plot
from benchmarks.rounds import Row, Session
from benchmarks.setting import EVERY, OURS, OURS_0, V5, V5_FAST, Setting
from benchmarks.stats import latencies

TITLE = "Commit → durable in the replica, and what it costs"
NOTES = (
    "From the moment `COMMIT` returned in the writer until the object that holds that commit had its name in "
    "the store folder, as a watcher outside of both processes saw it. All sides sync an object before it gets "
    "its name. CPU of all processes of the agent as a share of one core, RSS at the end and at its highest. One "
    "commit a second is one after quiet; 10,000 are more than a writer manages."
)
COLUMNS = (
    Column("p50_ms", "p50 ms"),
    Column("p95_ms", "p95 ms"),
    Column("p99_ms", "p99 ms"),
    Column("max_ms", "worst ms"),
    Column("rate", "commits/s", 0, better=""),
    Column("agent_cpu_percent", "agent CPU %", 2),
    Column("rss_mb", "RSS MB"),
    Column("peak_rss_mb", "peak RSS MB"),
)
PLOTS = (
    Plot("latency-p50", "p50_ms", "ms", "Commit → durable, median, by commits/s"),
    Plot("latency-p99", "p99_ms", "ms", "Commit → durable, p99, by commits/s"),
    Plot("latency-cpu", "agent_cpu_percent", "% of a core", "CPU of the agent by commits/s"),
)
# Seconds of each rate; a minute of 100/s, for the sake of its CPU time.
RATES = {"1": 20, "10": 12, "100": 60, "1000": 8, "10000": 8}


def run(session: Session) -> None:
    chosen = (OURS, OURS_0, V5, V5_FAST)

    def settings(rate: str) -> tuple[Setting, ...]:
        if session.quick:
            return chosen
        return {"100": EVERY, "10000": (OURS, V5)}.get(rate, chosen)

    cases = session.pick(("1", "100"), tuple(RATES))
    session.take_turns("latency", cases, settings, lambda case, setting: measure(session, case, setting))


def measure(session: Session, case: str, setting: Setting) -> Row:
    with bench(session, setting) as here:
        here.start_probe()
        here.start_agent()
        time.sleep(session.pick(1.0, 3.0))
        return followed(here, ["--rate", case, "--seconds", session.pick(3, RATES[case])])


def followed(here: Bench, arguments: list[object]) -> Row:
    """Write, wait for the last commit, compare the times, prove it by a restore."""
    cpu, began = proc.cpu_seconds(here.pid), time.monotonic()
    written = here.write(*arguments, log="acks.log")
    acks = here.acknowledged("acks.log")
    here.wait_for_commit(acks[-1][0])  # what is left to do then is on the bill, too
    used, took = proc.cpu_seconds(here.pid) - cpu, time.monotonic() - began
    row: Row = latencies(delays(acks, here.seen()))
    row |= {"rss_mb": proc.rss_mb(here.pid), "peak_rss_mb": proc.rss_mb(here.pid, peak=True)}
    here.prove()
    row |= {"rate": written["commits"] / written["seconds"], "agent_cpu_percent": used / took * 100}
    row["commits"] = written["commits"]
    return row


def delays(acks: list[tuple[int, int]], seen: list[tuple[int, int]]) -> list[float]:
    """Seconds from each acknowledgement to the first object that has this commit or a later one."""
    found: list[float] = []
    objects = iter(seen)
    at, newest = 0, 0
    for counter, micros in acks:
        while newest < counter:
            at, newest = next(objects)
        # An object may have been put before the acknowledgement was written down.
        found.append(max(0, at - micros) / 1e6)
    return found
