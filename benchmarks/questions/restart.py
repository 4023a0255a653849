"""The agent was away for a while: how long until commits are safe again, and what is sent for it?"""

from __future__ import annotations

import time

from benchmarks import proc
from benchmarks.bench import Bench, bench
from benchmarks.questions import Column, Plot
from benchmarks.rounds import Row, Session
from benchmarks.setting import OURS, V5, Setting

TITLE = "Restart of the agent"
NOTES = (
    "The agent is stopped in good order and started again a little later; from the start of its process until a "
    "commit made meanwhile is in the replica, and the bytes that came into the store for it. *Stayed open*: the "
    "application went on writing without closing the database. *Wrote and closed*: it opened, wrote and closed, "
    "which takes the log away."
)
COLUMNS = (
    Column("seconds", "to the next durable commit s", 2),
    Column("sent_mb", "sent MB", 2),
    Column("cpu_seconds", "CPU s"),
)
PLOTS = (Plot("restart", "seconds", "s", "Restart: time to the next durable commit"),)
OPEN, CLOSED = "the application stayed open", "it wrote and closed meanwhile"


def run(session: Session) -> None:
    size = session.pick(20, 1000)
    cases = [f"{size} MB, {OPEN}", f"{size} MB, {CLOSED}"]
    session.take_turns("restart", cases, (OURS, V5), lambda case, each: measure(session, case, each, size))


def measure(session: Session, case: str, setting: Setting, size: int) -> Row:
    with bench(session, setting, size) as here:
        here.start_probe()
        here.start_agent()
        here.settle(compacted=True)
        return away(here, stays=case.endswith(OPEN))


def away(here: Bench, *, stays: bool) -> Row:
    total = here.counter_before
    # Another process of the application holds the database open, or not.
    keeper = here.reader() if stays else None
    total += here.write("--rate", 100, "--commits", 50)["commits"]
    here.wait_for_commit(total)
    here.stop_agent()
    total += here.write("--rate", 100, "--commits", 100)["commits"]
    here.resting = total
    before = proc.stored(here.store)[1]
    began = time.time()
    here.agent = here.setting.start([(here.db, here.store)], here.folder)
    appeared = here.wait_for_commit(total, 120)
    seconds = appeared / 1e6 - began
    here.settle()
    row: Row = {
        "seconds": seconds,
        "sent_mb": (proc.stored(here.store)[1] - before) / 1e6,
        "cpu_seconds": proc.cpu_seconds(here.pid),
    }
    here.prove()
    if keeper is not None:
        proc.end(keeper)
    return row
