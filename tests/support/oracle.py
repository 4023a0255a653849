"""What a database really holds, asked of SQLite itself, for comparison with what was restored.

Whatever touches a database that may be live runs in a child process: closing any descriptor of the file in a
process where the agent has it open would drop the agent's locks. The child uses apsw, whose SQLite cannot
lose commits in a checkpoint; `python -m tests.support.oracle` is that child and nothing to be called by hand.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

ROOT = Path(__file__).resolve().parents[2]
# How long the child tries to find a moment at which the log is empty, and how long the parent waits for it.
PATIENCE_SECONDS = 30.0
CHILD_SECONDS = 100.0
STEP_BYTES = 1 << 20


class OracleError(Exception):
    """The child could not answer; carries what it printed."""


@dataclass(frozen=True)
class Snapshot:
    """A database as of one commit: what its file would be were everything checkpointed at that moment."""

    digest: str
    page_size: int
    page_count: int
    ledger: dict[int, int]


def database_digest(path: str | Path) -> str:
    """Return the SHA-256 of the main file at a moment when the whole log is in it.

    Checkpoints with TRUNCATE, again and again for half a minute until no commit comes between; then the file
    is read under a read transaction that forbids any other checkpoint to write to it. So this is exact
    beside live writers too, only slower. As the last one out it leaves no log behind.
    """
    return str(_ask("digest", path))


def copy_after_checkpoint(path: str | Path, dest: str | Path) -> None:
    """Copy the main file to *dest* (overwritten) under the conditions of `database_digest`."""
    _ask("copy", path, dest)


def snapshot_at_rest(db: str | Path, dest: str | Path) -> Snapshot:
    """Write to *dest* the exact pages of *db* as of one commit, and return what they are.

    Page for page what SQLite's pager reads inside one read transaction, log included, and the ledger as of
    that same transaction. Changes nothing: no checkpoint, and a log stays, even if this is the last one out.
    Writers may go on meanwhile. Holds the whole database in memory.
    """
    answer = _ask("snapshot", db, dest)
    return Snapshot(answer["digest"], answer["page_size"], answer["page_count"], dict(answer["ledger"]))


def ledger(path: str | Path) -> dict[int, int]:
    """Return each writer's counter in a closed or restored file: how many of its commits are in there.

    Empty if there is no ledger. A file without a log is read without creating one.
    """
    return dict(_ask("ledger", path))


def newest_commit(path: str | Path) -> int:
    """When the newest commit in the ledger of a closed or restored file was made, in microseconds; 0 without any."""
    return int(_ask("newest", path))


def acknowledged(acks: str | Path, *, before_micros: int | None = None) -> dict[int, int]:
    """Return each writer's last counter in a file of acknowledgements, later ones left out if so asked.

    A last line that is still being written is ignored.
    """
    counters: dict[int, int] = {}
    for line in Path(acks).read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            writer, counter, micros = map(int, line.split())
            if before_micros is None or micros < before_micros:
                counters[writer] = max(counter, counters.get(writer, 0))
    return counters


def pages_differ(a: str | Path, b: str | Path, page_size: int) -> list[int]:
    """Return the numbers of the pages that differ between two closed files, or that only one of them has.

    Reads in this process: neither file may be open in SQLite.
    """
    different: list[int] = []
    step = max(1, STEP_BYTES // page_size) * page_size
    with Path(a).open("rb") as file_a, Path(b).open("rb") as file_b:
        base = 0
        while True:
            part_a, part_b = file_a.read(step), file_b.read(step)
            if part_a != part_b:
                for start in range(0, max(len(part_a), len(part_b)), page_size):
                    if part_a[start : start + page_size] != part_b[start : start + page_size]:
                        different.append((base + start) // page_size + 1)
            if not part_a and not part_b:
                return different
            base += step


def _ask(question: str, *paths: str | Path) -> Any:
    command = [sys.executable, "-m", "tests.support.oracle", question, *(os.path.abspath(p) for p in paths)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False
    )
    if done.returncode != 0:
        raise OracleError(f"{question} {paths[0]}: {done.stderr.strip()}")
    return json.loads(done.stdout)


# The child


@contextlib.contextmanager
def _checkpointed(path: Path) -> Iterator[Iterator[bytes]]:
    """Hold the main file still while it is the whole database, and hand out its content.

    It is read through SQLite's own descriptor: a second one, once closed, would drop this process's locks.
    """
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    conn.set_busy_timeout(1000)
    try:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not _begin_on_empty_log(conn, path):
            if time.monotonic() > give_up:
                raise TimeoutError("the log was never empty")
        size = path.stat().st_size
        yield (conn.read("main", 0, at, min(STEP_BYTES, size - at))[1] for at in range(0, size, STEP_BYTES))
    finally:
        conn.close()


def _begin_on_empty_log(conn: apsw.Connection, path: Path) -> bool:
    """Checkpoint and begin a read transaction; tell whether the main file is all that it reads.

    It is, if the log is empty *after* the transaction began, and while that lives nobody can copy a frame
    into the main file. Had a commit come between, the log would not be empty.
    """
    with contextlib.suppress(apsw.BusyError):
        conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        if _log_size(path) == 0:
            return True
    if conn.in_transaction:
        conn.execute("ROLLBACK")
    return False


def _log_size(path: Path) -> int:
    try:
        return Path(f"{path}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with _checkpointed(path) as parts:
        for part in parts:
            digest.update(part)
    return digest.hexdigest()


def _copy(path: Path, dest: Path) -> None:
    with _checkpointed(path) as parts, dest.open("wb") as file:
        file.writelines(parts)


def _snapshot(path: Path, dest: Path) -> dict[str, Any]:
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    conn.set_busy_timeout(int(PATIENCE_SECONDS * 1000))
    if _log_size(path):
        conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    conn.execute("BEGIN")
    counters = _ledger_rows(conn)
    page_size = conn.pragma("page_size")
    page_count = conn.pragma("page_count")
    # sqlite3_serialize asks the pager for every page in turn. The sqlite_dbpage table, which would do the
    # same, is not compiled into apsw, nor into Python's own module.
    image = conn.serialize("main")
    conn.execute("ROLLBACK")
    conn.close()
    if len(image) != page_size * page_count:
        raise ValueError(f"{len(image)} bytes are not {page_count} pages of {page_size}")
    dest.write_bytes(image)
    digest = hashlib.sha256(image).hexdigest()
    return {"digest": digest, "page_size": page_size, "page_count": page_count, "ledger": counters}


def _ledger(path: Path) -> list[list[int]]:
    with _closed(path) as conn:
        return _ledger_rows(conn)


def _newest(path: Path) -> int:
    with _closed(path) as conn:
        if not _ledger_rows(conn):
            return 0
        return int(str(conn.execute("SELECT max(at) FROM ledger").fetchall()[0][0]))


@contextlib.contextmanager
def _closed(path: Path) -> Iterator[apsw.Connection]:
    # Without a log the file is all there is. Opened as immutable it needs no -wal and -shm, which a
    # read-only connection would otherwise leave behind.
    immutable = "" if _log_size(path) else "&immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    conn = apsw.Connection(f"{path.as_uri()}?mode=ro{immutable}", flags=flags)
    try:
        yield conn
    finally:
        conn.close()


def _ledger_rows(conn: apsw.Connection) -> list[list[int]]:
    # Also the read that makes a transaction begin: BEGIN alone does not.
    if not conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger'").fetchall():
        return []
    rows = conn.execute("SELECT writer, counter FROM ledger ORDER BY writer").fetchall()
    return [[int(str(writer)), int(str(counter))] for writer, counter in rows]


QUESTIONS: dict[str, Callable[..., Any]] = {
    "digest": _digest,
    "copy": _copy,
    "snapshot": _snapshot,
    "ledger": _ledger,
    "newest": _newest,
}


if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[1]](*map(Path, sys.argv[2:]))))
