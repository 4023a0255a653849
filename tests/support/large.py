"""A large database in little time: python -m tests.support.large FILE MEBIBYTES; with --change a fifth of it anew."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

ROWS_PER_MIB = 256  # a page each
FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    " INSERT INTO large(body) SELECT randomblob(300) || zeroblob(3600) FROM n"
)


def main() -> None:
    path, mebibytes = sys.argv[1], int(sys.argv[2])
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as conn:
        if "--change" in sys.argv:
            conn.execute("UPDATE large SET body = randomblob(300) || zeroblob(3600) WHERE id % 5 = 0")
            for number in range(100):
                conn.execute("UPDATE large SET body = zeroblob(3900) WHERE id = ?", (number * 97 + 1,))
            return
        conn.execute("PRAGMA journal_mode = OFF")
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("CREATE TABLE large(id INTEGER PRIMARY KEY, body BLOB)")
        conn.execute(FILL, (mebibytes * ROWS_PER_MIB,))
        conn.execute("PRAGMA journal_mode = WAL")


if __name__ == "__main__":
    main()
