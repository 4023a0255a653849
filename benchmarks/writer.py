"""An application as a process: python -m benchmarks.writer DB [--kind board|rows|bulk] [--rate N] …

Every commit counts itself in the `ledger`; with --log, a line `<counter> <unix micros>` tells when SQLite
acknowledged it. The last line on standard output is a JSON summary.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.stats import percentile
from replicator.demo.board import BoardWorker, open_board
from replicator.demo.ledger import counted_commit

LONGEST_NAP = 0.05


class Board(BoardWorker):
    """A request that another process made pointless (the task it links to is deleted) is given up."""

    def step(self) -> int:
        try:
            return super().step()
        except sqlite3.IntegrityError:
            self._pending.clear()
            return self.step()


class Rows:
    """Updates random rows of the table that `benchmarks.databases` makes: a few pages a commit, spread out."""

    def __init__(self, conn: sqlite3.Connection, seed: int, batch: int) -> None:
        self.conn, self.seed, self.batch = conn, seed, batch
        self.rng = random.Random(seed)
        self.count = conn.execute("SELECT max(id) FROM rows").fetchone()[0]
        found = conn.execute("SELECT counter FROM ledger WHERE writer = ?", (seed,)).fetchone()
        self.counter = found[0] if found else 0

    def step(self) -> int:
        rng = self.rng
        with counted_commit(self.conn, self.seed, self.counter + 1):
            for _ in range(self.batch):
                values = (rng.getrandbits(40), f"{rng.getrandbits(256):064x}", rng.randint(1, self.count))
                self.conn.execute("UPDATE rows SET n = ?, mark = ? WHERE id = ?", values)
        self.counter += 1
        return self.counter


class Bulk:
    """Inserts: each commit ten thousand rows of half a kilobyte."""

    def __init__(self, conn: sqlite3.Connection, seed: int) -> None:
        self.conn, self.seed, self.counter = conn, seed, 0
        self.rng = random.Random(seed)

    def step(self) -> int:
        made = ((self.rng.randbytes(180).hex() + "text " * 30,) for _ in range(10_000))
        with counted_commit(self.conn, self.seed, self.counter + 1):
            self.conn.executemany("INSERT INTO bulk (payload) VALUES (?)", made)
        self.counter += 1
        return self.counter


def work(step: Callable[[], int], options: argparse.Namespace) -> dict[str, float]:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    log = open(options.log, "w", encoding="ascii") if options.log else None  # noqa: SIM115 - closed below
    stalls: list[float] = []
    # Not in step with whoever ships by a clock: each commit up to half a period early or late.
    jitter = random.Random(options.seed)
    failed = commits = acknowledged = 0
    began = time.monotonic()
    ends = began + options.seconds if options.seconds else float("inf")
    while not asked and commits != options.commits:
        due = began + (commits + jitter.random()) / options.rate if options.rate else 0.0
        while (now := time.monotonic()) < min(due, ends) and not asked:
            time.sleep(min(due - now, LONGEST_NAP))
        if now >= ends or asked:
            break
        busy, counter = _request(step)
        acknowledged = time.time_ns() // 1000
        stalls.append(time.monotonic() - now)
        failed += busy
        commits += 1
        if log is not None:
            log.write(f"{counter} {acknowledged}\n")
    seconds = time.monotonic() - began
    if log is not None:
        log.close()
    return {
        "commits": commits,
        "seconds": seconds,
        "failed": failed,
        "stall_p99_ms": percentile(stalls, 99) * 1000,
        "stall_max_ms": max(stalls, default=0.0) * 1000,
        "last_commit": acknowledged / 1e6,
    }


def _request(step: Callable[[], int]) -> tuple[int, int]:
    """(1 if the first attempt found the database busy, the counter): tried again until it works."""
    busy = 0
    while True:
        try:
            return busy, step()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            busy = 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("db", type=Path)
    parser.add_argument("--kind", choices=["board", "rows", "bulk"], default="board")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--commits", type=int, default=-1)
    parser.add_argument("--batch", type=int, default=1, help="rows a commit, of kind rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--busy-ms", type=int, default=5000)
    parser.add_argument("--log")
    options = parser.parse_args()
    conn = open_board(options.db)
    conn.execute(f"PRAGMA busy_timeout = {options.busy_ms:d}")
    worker: Board | Rows | Bulk
    if options.kind == "board":
        worker = Board(conn, options.seed)
    elif options.kind == "rows":
        worker = Rows(conn, options.seed, options.batch)
    else:
        worker = Bulk(conn, options.seed)
    summary = work(worker.step, options)
    conn.close()
    print(json.dumps(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
