"""A reading process of the application: python -m benchmarks.reader DB. Short read transactions until killed."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from replicator.demo.board import open_board


def main() -> None:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    conn = open_board(Path(sys.argv[1]))
    while not asked:
        conn.execute("BEGIN")
        conn.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall()
        conn.execute("SELECT * FROM tasks ORDER BY changed_at DESC LIMIT 20").fetchall()
        conn.execute("COMMIT")
        time.sleep(0.005)
    conn.close()


if __name__ == "__main__":
    main()
