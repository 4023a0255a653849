"""How each side grows with the database, with the rate of commits, and with the number of databases."""

from __future__ import annotations

import time

from benchmarks import proc
from benchmarks.bench import bench
from benchmarks.questions import Column, Plot
from benchmarks.questions.cost import at_rest, many
from benchmarks.questions.latency import delays
from benchmarks.rounds import Row, Session
from benchmarks.setting import DEFAULTS, OURS, V5, Setting
from benchmarks.stats import latencies

TITLE = "How each grows"
NOTES = (
    "*Database*: from the start of the agent to a database that can be restored, then 100 commits/s for some "
    "seconds. *Commits*: at rates up to what the writer manages. *Databases*: all of them in one agent, at rest."
)
COLUMNS = (
    Column("seconds", "first full s", 2),
    Column("p50_ms", "p50 ms"),
    Column("p99_ms", "p99 ms"),
    Column("rate", "commits/s", 0),
    Column("cpu_percent", "CPU %", 2),
    Column("rss_mb", "RSS MB"),
    Column("peak_rss_mb", "peak RSS MB"),
    Column("lag_s", "lag at the end s", 2),
)
SIZE, RATE, COUNT = "database, MB: ", "commits/s: ", "databases: "
PLOTS = (
    Plot("growth-size-rss", "peak_rss_mb", "MB", "Peak memory by size of the database in MB", prefix=SIZE),
    Plot("growth-size-time", "seconds", "s", "First full by size of the database in MB", prefix=SIZE),
    Plot("growth-rate-cpu", "cpu_percent", "% of a core", "CPU by commits/s", prefix=RATE),
    Plot("growth-rate-p99", "p99_ms", "ms", "Commit → durable, p99, by commits/s", prefix=RATE),
    Plot("growth-count-rss", "rss_mb", "MB", "Memory by databases, idle", prefix=COUNT),
)


def run(session: Session) -> None:
    sizes = [SIZE + size for size in session.pick((), ("10", "100", "1000", "10000"))]
    rates = [RATE + rate for rate in session.pick(("10",), ("1", "10", "100", "1000", "3000", "10000"))]
    counts = [COUNT + count for count in session.pick(("10",), ("1", "10", "100", "1000"))]
    session.take_turns(
        "growth", [*sizes, *rates], [OURS, V5], lambda case, each: measure(session, case, each)
    )
    session.take_turns(
        "growth",
        counts,
        session.pick((OURS, V5), DEFAULTS),
        lambda case, each: measure_count(session, case, each),
    )


def measure(session: Session, case: str, setting: Setting) -> Row:
    kind, value = next((k, case.removeprefix(k)) for k in (SIZE, RATE) if case.startswith(k))
    megabytes, rate = (int(value), 100) if kind == SIZE else (0, int(value))
    seconds = session.pick(2, 20)
    with bench(session, setting, megabytes) as here:
        here.start_probe()
        took = here.start_agent(timeout=1800)
        here.settle()
        cpu, began = proc.cpu_seconds(here.pid), time.monotonic()
        written = here.write("--rate", rate, "--seconds", seconds, log="acks.log")
        used, passed = proc.cpu_seconds(here.pid) - cpu, time.monotonic() - began
        acks = here.acknowledged("acks.log")
        at = here.wait_for_commit(acks[-1][0], 120)
        row = latencies("", delays(acks, here.seen()))
        row |= {"cpu_percent": used / passed * 100, "rate": written["commits"] / written["seconds"]}
        row |= {"lag_s": max(0.0, (at - acks[-1][1]) / 1e6), "rss_mb": proc.rss_mb(here.pid)}
        row["peak_rss_mb"] = proc.rss_mb(here.pid, peak=True)
        if kind == SIZE:
            row["seconds"] = took
        return row


def measure_count(session: Session, case: str, setting: Setting) -> Row:
    with bench(session, setting, placed=False) as here:
        pairs = many(here, int(case.removeprefix(COUNT)))
        here.agent = setting.start(pairs, here.folder)
        wanted = lambda: all(setting.protects(store) for _, store in pairs)  # noqa: E731 - a condition
        took = proc.wait_for(wanted, f"fulls of {len(pairs)} databases", 900, every=0.2)
        here.settle()
        row = at_rest(here.pid, session.pick(3.0, 30.0))
        return row | {"seconds": took, "peak_rss_mb": proc.rss_mb(here.pid, peak=True)}
