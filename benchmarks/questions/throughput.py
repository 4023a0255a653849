"""What does the agent cost the application that writes as fast as it can?"""

from __future__ import annotations

import time

from benchmarks import proc
from benchmarks.bench import Bench, bench, summary
from benchmarks.questions import Column, Plot
from benchmarks.rounds import Row, Session
from benchmarks.setting import NONE, OURS, V3, V5, V5_FAST, Setting

TITLE = "The application at full speed"
NOTES = (
    "Board-like commits, as many as the writer manages. *Alone*: one writer without a busy timeout, so every "
    "lock held by somebody else is a failed request, counted and tried again. *Crowd*: two writers with a busy "
    "timeout of 5 s and two readers. Lag: from the last commit until the replica had it. `-wal`: largest size "
    "of the file."
)
COLUMNS = (
    Column("rate", "commits/s", 0, better=""),
    Column("share", "of its speed without agent %", 0, 100, "more"),
    Column("failed", "failed requests", 0),
    Column("stall_p99_ms", "p99 commit ms"),
    Column("stall_max_ms", "longest stall ms", 0),
    Column("wal_mb", "peak -wal MB"),
    Column("lag_s", "lag at the end s", 2),
    Column("agent_cpu_percent", "agent CPU %", 0),
    Column("agent_rss_mb", "agent RSS MB", 0),
)
PLOTS = (Plot("throughput", "rate", "commits/s", "The writer at full speed", log=False),)
ALONE, CROWD = "alone", "crowd: 2 writers, 2 readers"


def run(session: Session) -> None:
    settings = session.pick((NONE, OURS, V5), (NONE, OURS, V5, V5_FAST, V3))
    cases = [ALONE, CROWD]
    session.take_turns("throughput", cases, settings, lambda case, setting: measure(session, case, setting))


def add_shares(rows: list[Row]) -> None:
    """The writer's speed beside each agent, as a share of that without any in the same round."""
    alone = {(r["case"], r["round"]): r["rate"] for r in rows if r["setting"] == NONE.name and "rate" in r}
    for row in rows:
        if row["question"] == "throughput" and "rate" in row and (row["case"], row["round"]) in alone:
            row["share"] = row["rate"] / alone[row["case"], row["round"]]


def measure(session: Session, case: str, setting: Setting) -> Row:
    seconds = session.pick(3, 12)
    with bench(session, setting, session.pick(0, 100)) as here:
        here.start_probe()  # without an agent, too: it is part of what the machine has to do
        here.start_agent()
        if setting is not NONE:
            here.settle(compacted=True)
        with proc.Sampler(wal=proc.size_of(here.wal)) as sampler:
            row = load(here, case, seconds, agent=setting is not NONE)
        row["wal_mb"] = sampler.peak["wal"] / 1e6
        if setting is not NONE:
            here.prove()
        return row


def load(here: Bench, case: str, seconds: int, *, agent: bool) -> Row:
    cpu, began = (proc.cpu_seconds(here.pid) if agent else 0.0), time.monotonic()
    if case == ALONE:
        summaries = [here.write("--seconds", seconds, "--busy-ms", 0)]
    else:
        readers = [here.reader() for _ in range(2)]
        writers = [here.writer("--seconds", seconds, "--seed", seed) for seed in (1, 2)]
        summaries = [summary(each) for each in writers]
        for reader in readers:
            proc.end(reader)
    row: Row = {
        "rate": sum(each["commits"] / each["seconds"] for each in summaries),
        "failed": sum(each["failed"] for each in summaries),
        "stall_p99_ms": max(each["stall_p99_ms"] for each in summaries),
        "stall_max_ms": max(each["stall_max_ms"] for each in summaries),
    }
    if agent:
        last = max(each["last_commit"] for each in summaries)
        total = here.counter_before + sum(each["commits"] for each in summaries)
        row["lag_s"] = max(0.0, here.wait_for_commit(total, 120) / 1e6 - last)
        took = time.monotonic() - began
        row["agent_cpu_percent"] = (proc.cpu_seconds(here.pid) - cpu) / took * 100
        row["agent_rss_mb"] = proc.rss_mb(here.pid, peak=True)
    return row
