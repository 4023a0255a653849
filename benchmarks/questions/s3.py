"""The same over S3: how late is a commit, how many requests go there, and what does a month of them cost?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks import proc
from benchmarks.bench import Bench, bench
from benchmarks.questions import Column, Plot
from benchmarks.questions.latency import delays
from benchmarks.rounds import Row, Session
from benchmarks.setting import OURS_S3, ROOT, V5, Remote, Setting
from benchmarks.stats import latencies
from tests.support.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, seaweed

TITLE = "S3: latency, requests and their price"
NOTES = (
    "SeaweedFS on this machine, behind a proxy that counts requests and sees when the server has an object; and the "
    "same with 40 ms added to each request, as over a network. Both sides at their defaults: once a second. A minute "
    "is measured, as an hour has sixty of them. A month at the list prices of S3: $0.005 for a thousand PUT, POST or "
    "LIST, $0.0004 for a thousand GET or HEAD, deletes for nothing, and $0.023 a GB-month for what 48 hours put. "
    "`--ship-interval` sets how often."
)
COLUMNS = (
    Column("p50_ms", "p50 ms", 0),
    Column("p95_ms", "p95 ms", 0),
    Column("p99_ms", "p99 ms", 0),
    Column("puts_hour", "PUT an hour", 0),
    Column("lists_hour", "LIST an hour", 0),
    Column("gets_hour", "GET, HEAD an hour", 0),
    Column("deletes_hour", "DELETE an hour", 0),
    Column("sent_mb_hour", "sent MB an hour"),
    Column("dollars_month", "$ a month", 2),
    Column("agent_cpu_percent", "agent CPU %", 2),
)
PLOTS = (Plot("s3-latency", "p95_ms", "ms", "S3: commit → durable, p95", log=False),)
PREFIX = "run"
PLACES = {"SeaweedFS": 0.0, "SeaweedFS, +40 ms a request": 0.04}
IDLE = "idle"
RATES = ("1 commit/s", "100 commits/s")
PUT_DOLLARS, GET_DOLLARS, GB_MONTH_DOLLARS = 0.005 / 1000, 0.0004 / 1000, 0.023
KEPT_HOURS = 48  # of log; what else a policy keeps is the same on both sides


def run(session: Session) -> None:
    def measured(case: str, setting: Setting) -> Row:
        return measure(session, case, setting)

    cases = [f"{place}, {rate}" for place in PLACES for rate in RATES]
    session.take_turns("s3", session.pick(cases[:1], cases), (OURS_S3, V5), measured)
    if not session.quick:
        session.take_turns("s3", [f"{place}, {IDLE}" for place in PLACES], (OURS_S3, V5), measured, rounds=1)


def measure(session: Session, case: str, setting: Setting) -> Row:
    place, _, rate = case.rpartition(", ")
    seconds = session.pick(4, 60)
    with seaweed() as server, bench(session, setting) as here:
        log = start_wire(here, server.endpoint, PLACES[place])
        here.start_probe()
        here.start_agent()
        here.settle()
        before, cpu, began = requests_in(log), proc.cpu_seconds(here.pid), time.monotonic()
        row: Row = {}
        if rate == IDLE:
            time.sleep(seconds)
            here.require_agent()
        else:
            here.write("--rate", rate.split()[0], "--seconds", seconds, log="acks.log")
        took = time.monotonic() - began
        row["agent_cpu_percent"] = (proc.cpu_seconds(here.pid) - cpu) / took * 100
        row |= bill(requests_in(log) - before, took)
        if rate != IDLE:
            acks = here.acknowledged("acks.log")
            here.wait_for_commit(acks[-1][0])
            row |= latencies(delays(acks, here.seen()))
        here.prove()
        return row


def start_wire(here: Bench, endpoint: str, delay: float) -> Path:
    """Between the agent and the server; returns the log of requests."""
    log = here.folder / "wire.log"
    arguments = [endpoint, PREFIX, str(here.store), str(log), str(delay)]
    here.keep(subprocess.Popen([sys.executable, "-m", "benchmarks.wire", *arguments], cwd=ROOT))
    proc.wait_for(lambda: log.exists() and log.read_text("utf-8").endswith("\n"), "the proxy", 20)
    port = int(log.read_text("utf-8").splitlines()[0])
    here.remote = Remote(f"http://127.0.0.1:{port}", BUCKET, PREFIX, ACCESS_KEY, SECRET_KEY)
    return log


def requests_in(log: Path) -> Counter[str]:
    """By kind, and ``bytes`` of what was put."""
    found: Counter[str] = Counter()
    for line in log.read_text("utf-8").splitlines()[1:]:
        kind, _, size, _ = line.split(" ", 3)
        found[kind] += 1
        found["bytes"] += int(size) if kind == "PUT" else 0
    return found


def bill(requests: Counter[str], seconds: float) -> Row:
    hour = 3600 / seconds
    dear = requests["PUT"] + requests["POST"] + requests["LIST"]
    cheap = requests["GET"] + requests["HEAD"]
    stored = requests["bytes"] * hour * KEPT_HOURS / 1e9
    month = (dear * PUT_DOLLARS + cheap * GET_DOLLARS) * hour * 24 * 30 + stored * GB_MONTH_DOLLARS
    return {
        "puts_hour": (requests["PUT"] + requests["POST"]) * hour,
        "lists_hour": requests["LIST"] * hour,
        "gets_hour": cheap * hour,
        "deletes_hour": requests["DELETE"] * hour,
        "sent_mb_hour": requests["bytes"] * hour / 1e6,
        "dollars_month": month,
    }
