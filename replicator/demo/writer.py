"""The demo application as a process: works on a board and says aloud which commits it has been promised.

    python -m replicator.demo.writer DB [--rate N] [--seed S] [--seconds T] [--commits N] [--quiet]

One line `<counter> <unix time in microseconds>` on standard output per commit, written only after SQLite
acknowledged it: whoever reads a line may hold the agent to that commit. The same counter is in the `ledger`
table, set in the same transaction. Must never run in the agent's process (see the board module).
"""

import argparse
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from replicator.demo.board import BoardWorker, create_board, fill_board, open_board

# A signal must end a slow writer soon, and time.sleep resumes after a handler that returns.
LONGEST_NAP_SECONDS = 0.05


@dataclass
class Summary:
    """What `--quiet` prints at the end, as JSON. A stall: from the first attempt to the acknowledgement."""

    commits: int = 0
    seconds: float = 0.0
    busy_errors: int = 0
    longest_stall_ms: float = 0.0


class Stop:
    """Becomes true at the first SIGTERM or SIGINT; the commit under way is still finished."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def work(worker: BoardWorker, options: argparse.Namespace, stop: Stop) -> Summary:
    """Commit until the options or *stop* say so; a busy database is counted and tried again."""
    summary = Summary()
    began = time.monotonic()
    ends = began + options.seconds if options.seconds else float("inf")
    while not stop.asked and summary.commits != options.commits:
        due = began + summary.commits / options.rate if options.rate else 0.0
        while (now := time.monotonic()) < min(due, ends) and not stop.asked:
            time.sleep(min(min(due, ends) - now, LONGEST_NAP_SECONDS))
        if now >= ends or stop.asked:
            break
        counter = _step(worker, summary, stop)
        summary.longest_stall_ms = max(summary.longest_stall_ms, (time.monotonic() - now) * 1000)
        if counter and not options.quiet:
            print(counter, time.time_ns() // 1000, flush=True)
    summary.seconds = time.monotonic() - began
    return summary


def _step(worker: BoardWorker, summary: Summary, stop: Stop) -> int:
    """The counter of the commit made, or 0 if it was told to stop while the database was busy."""
    while not stop.asked:
        try:
            counter = worker.step()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            summary.busy_errors += 1
        else:
            summary.commits += 1
            return counter
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m replicator.demo.writer", description="Work on a task board."
    )
    parser.add_argument("db", metavar="DB", type=Path, help="board database, created and filled if absent")
    parser.add_argument("--rate", type=float, default=0.0, help="commits per second; 0 = as fast as it can")
    parser.add_argument("--seed", type=int, default=1, help="choices, and the writer's name in the ledger")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after this long")
    parser.add_argument("--commits", type=int, default=-1, help="stop after this many commits")
    parser.add_argument("--tasks", type=int, default=200, help="tasks of a board that has to be created")
    parser.add_argument("--page-size", type=int, default=4096, help="page size of a board to be created")
    parser.add_argument("--quiet", action="store_true", help="no line per commit, a JSON summary at the end")
    options = parser.parse_args(arguments)

    stop = Stop()
    # Creating closes the file, and a last close deletes the log that a killed writer left. So what exists is
    # opened first, and only completed if it is no board yet.
    if not options.db.exists():
        create_board(options.db, page_size=options.page_size)
    conn = open_board(options.db)
    try:
        if not conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'boards'").fetchall():
            create_board(options.db, page_size=options.page_size)
        if conn.execute("SELECT count(*) FROM boards").fetchone()[0] == 0:
            fill_board(conn, options.tasks, options.seed)
        summary = work(BoardWorker(conn, options.seed), options, stop)
    except BrokenPipeError:
        # The reader has gone, which ends the work. Python's own last write must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        conn.close()
    if options.quiet:
        print(json.dumps({key: round(value, 3) for key, value in asdict(summary).items()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
