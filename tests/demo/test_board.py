"""The demo board and the shared test support do what the other tests rely on."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicator.demo.board import BoardWorker, create_board, fill_board, open_board
from tests.support import oracle, walbuilder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.db"
    create_board(path)
    with closing(open_board(path)) as conn:
        fill_board(conn, tasks=60)
    return path


@pytest.fixture
def conn(board: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_board(board)) as conn:
        yield conn


def one(conn: sqlite3.Connection, sql: str, *values: object) -> object:
    return conn.execute(sql, values).fetchone()[0]


def start(module: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


class TestBoard:
    def test_checks_pass_after_work(self, conn: sqlite3.Connection) -> None:
        """Hundreds of requests leave a sound database whose references hold."""
        worker = BoardWorker(conn, seed=5)
        for _ in range(400):
            worker.step()

        assert one(conn, "PRAGMA integrity_check") == "ok"
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []

    def test_search_finds_what_tasks_hold_after_work(self, conn: sqlite3.Connection) -> None:
        """Task search agrees with the tasks themselves after edits and deletes."""
        worker = BoardWorker(conn, seed=6)
        for _ in range(400):
            worker.step()
        found = one(conn, "SELECT count(*) FROM task_search WHERE task_search MATCH 'webhook'")
        held = one(conn, "SELECT count(*) FROM tasks WHERE title || ' ' || body LIKE '%webhook%'")

        assert held == found != 0

    def test_note_search_drifts_after_work(self, conn: sqlite3.Connection) -> None:
        """The source itself fails FTS5's strict check on notes, as many applications' do."""
        worker = BoardWorker(conn, seed=7)
        for _ in range(400):
            worker.step()

        with pytest.raises(sqlite3.DatabaseError, match="malformed"):
            conn.execute("INSERT INTO note_search(note_search, rank) VALUES ('integrity-check', 1)")
        assert one(conn, "SELECT count(*) FROM note_search WHERE note_search MATCH 'webhook'") != 0

    def test_ledger_counts_steps(self, board: Path, conn: sqlite3.Connection) -> None:
        """Every step is one commit, and a later worker of the same name goes on counting."""
        first = BoardWorker(conn, seed=3)
        counters = [first.step() for _ in range(20)]
        second = BoardWorker(conn, seed=3)
        counters.append(second.step())

        assert list(range(1, 22)) == counters
        assert one(conn, "SELECT counter FROM ledger WHERE writer = 3") == 21

    def test_commits_are_a_handful_of_pages(self, board: Path, conn: sqlite3.Connection) -> None:
        """An average commit writes between 3 and 10 frames, as the real server's do."""
        conn.execute("PRAGMA wal_autocheckpoint = 0").fetchone()
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        worker = BoardWorker(conn, seed=4)
        for _ in range(300):
            worker.step()
        frames = Path(f"{board}-wal").stat().st_size // walbuilder.frame_bytes(4096)

        assert 3 <= frames / 300 <= 10

    def test_mistake_takes_one_board_whole(self, conn: sqlite3.Connection) -> None:
        """The mistake is one commit that deletes the tasks of one board, and work goes on after it."""
        worker = BoardWorker(conn, seed=1)
        before = one(conn, "SELECT count(*) FROM tasks")
        deleted = worker.mistake()
        left = one(conn, "SELECT count(*) FROM tasks")

        assert before == deleted + int(str(left))
        assert deleted > 20
        assert worker.step() == 2

    def test_step_is_repeated_after_busy(self, board: Path, conn: sqlite3.Connection) -> None:
        """A step that finds the database busy changes nothing and is done by the next call."""
        worker = BoardWorker(conn, seed=1)
        worker.step()
        conn.execute("PRAGMA busy_timeout = 0").fetchone()
        with closing(open_board(board)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                worker.step()
            other.execute("ROLLBACK")

        assert worker.step() == 2

    def test_open_refuses_an_absent_file(self, tmp_path: Path) -> None:
        """Opening does not create."""
        with pytest.raises(sqlite3.OperationalError):
            open_board(tmp_path / "absent.db")
        assert list(tmp_path.iterdir()) == []


class TestWriter:
    def test_commits_is_obeyed(self, tmp_path: Path) -> None:
        """The writer creates the board, prints one line per commit and stops after as many as asked."""
        db = tmp_path / "board.db"
        writer = start("replicator.demo.writer", db, "--commits", 25, "--seed", 2, "--tasks", 30)
        out, _ = writer.communicate()

        assert writer.returncode == 0
        assert [str(n) for n in range(1, 26)] == [line.split()[0] for line in out.splitlines()]
        assert oracle.ledger(db) == {2: 25}

    def test_quiet_prints_a_summary(self, board: Path) -> None:
        """With --quiet the only output is one JSON object."""
        writer = start("replicator.demo.writer", board, "--commits", 10, "--quiet")
        out, _ = writer.communicate()

        assert set(json.loads(out)) == {"commits", "seconds", "busy_errors", "longest_stall_ms"}
        assert json.loads(out)["commits"] == 10

    def test_sigterm_ends_it(self, board: Path) -> None:
        """A slow writer ends at once and cleanly, with every printed commit in the file."""
        writer = start("replicator.demo.writer", board, "--rate", 20)
        with writer:
            assert writer.stdout is not None
            printed = [next(writer.stdout) for _ in range(3)]
            writer.send_signal(signal.SIGTERM)
            printed += list(writer.stdout)

        assert writer.returncode == 0
        assert oracle.ledger(board) == {1: int(printed[-1].split()[0])}

    def test_log_of_a_killed_writer_is_continued(self, board: Path) -> None:
        """A restart neither deletes nor resets the log that the killed one left, and counts on."""
        first = start("replicator.demo.writer", board, "--rate", 100)
        with first:
            assert first.stdout is not None
            next(first.stdout)
            first.kill()
        counter, log = oracle.ledger(board)[1], Path(f"{board}-wal").read_bytes()
        second = start("replicator.demo.writer", board, "--rate", 20)
        with second:
            assert second.stdout is not None
            printed = next(second.stdout)
            again = Path(f"{board}-wal").read_bytes()
            second.kill()

        assert int(printed.split()[0]) == counter + 1
        assert again[: walbuilder.HEADER_BYTES] == log[: walbuilder.HEADER_BYTES]


class TestHostile:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_every_acknowledged_commit_is_there(self, tmp_path: Path, seed: int) -> None:
        """Neighbours of all roles leave a sound file with all they acknowledged, seen from within too."""
        db, acks, copy = tmp_path / "wild.db", tmp_path / "acks", tmp_path / "copy.db"
        common = (db, "--seed", seed, "--seconds", 1, "--acks", acks)
        roles = ("mixed", "writer", "checkpointer", "reader")
        started = [
            start("tests.support.hostile", *common, "--role", r, "--writer", n) for n, r in enumerate(roles)
        ]
        while not acks.exists() or not oracle.acknowledged(acks):
            assert started[1].poll() is None
        before = oracle.acknowledged(acks)
        middle = oracle.snapshot_at_rest(db, copy)
        summaries = [json.loads(process.communicate()[0]) for process in started]
        final = oracle.ledger(db)

        assert [0, 0, 0, 0] == [process.returncode for process in started]
        assert oracle.acknowledged(acks) == final
        assert final == {s["writer"]: s["counter"] for s in summaries if s["counter"]}
        assert oracle.ledger(copy) == middle.ledger
        for writer, counter in before.items():
            assert counter <= middle.ledger[writer] <= final[writer]
        for path in (db, copy):
            with closing(sqlite3.connect(path)) as conn:
                assert one(conn, "PRAGMA integrity_check") == "ok"


class TestOracle:
    def test_snapshot_equals_what_a_checkpoint_writes(
        self, board: Path, conn: sqlite3.Connection, tmp_path: Path
    ) -> None:
        """Pages read through a transaction are those a checkpoint makes; reading left the log alone."""
        worker = BoardWorker(conn, seed=1)
        for _ in range(100):
            worker.step()
        log_before = Path(f"{board}-wal").read_bytes()
        snapshot = oracle.snapshot_at_rest(board, tmp_path / "snapshot")
        log_after = Path(f"{board}-wal").read_bytes()
        oracle.copy_after_checkpoint(board, tmp_path / "copy")

        assert log_before == log_after
        assert oracle.pages_differ(tmp_path / "snapshot", tmp_path / "copy", snapshot.page_size) == []
        assert snapshot.digest == oracle.database_digest(board)
        assert snapshot.ledger == {1: 100}

    def test_last_one_out_keeps_the_log(self, board: Path, tmp_path: Path) -> None:
        """A snapshot of a database that nobody has open, left by a killed writer, deletes nothing."""
        writer = start("replicator.demo.writer", board, "--rate", 50)
        with writer:
            assert writer.stdout is not None
            next(writer.stdout)
            writer.kill()
        log = Path(f"{board}-wal").read_bytes()
        snapshot = oracle.snapshot_at_rest(board, tmp_path / "snapshot")

        assert Path(f"{board}-wal").read_bytes() == log != b""
        assert snapshot.ledger[1] >= 1
        assert snapshot.ledger == oracle.ledger(board)

    def test_differing_pages_are_named(self, tmp_path: Path) -> None:
        """Changed pages and pages of one file only are counted from 1."""
        a, b = tmp_path / "a", tmp_path / "b"
        a.write_bytes(bytes(512 * 5000))
        b.write_bytes(bytes(512 * 3) + b"x" + bytes(512 * 4998 - 1))

        assert oracle.pages_differ(a, b, 512) == [4, 5001]


def two_states(folder: Path, page_size: int) -> tuple[bytes, bytes]:
    """The same WAL-mode database before and after a second row, as closed files' bytes."""
    states = []
    for text in ("first", "second"):
        with closing(sqlite3.connect(folder / "made.db", isolation_level=None)) as conn:
            conn.execute(f"PRAGMA page_size = {page_size}")
            conn.execute("PRAGMA journal_mode = WAL").fetchone()
            conn.execute("CREATE TABLE IF NOT EXISTS t (a TEXT)")
            conn.execute("INSERT INTO t VALUES (?)", (text,))
        states.append((folder / "made.db").read_bytes())
    return states[0], states[1]


def rows_seen(folder: Path, main: bytes, wal: bytes) -> list[str]:
    """What SQLite reads from a main file with that log beside it."""
    (folder / "seen.db").write_bytes(main)
    (folder / "seen.db-wal").write_bytes(wal)
    with closing(sqlite3.connect(folder / "seen.db")) as conn:
        return [row[0] for row in conn.execute("SELECT a FROM t")]


class TestWalBuilder:
    @pytest.mark.parametrize("page_size", [512, 4096, 65536])
    @pytest.mark.parametrize("magic", [walbuilder.LITTLE_ENDIAN_MAGIC, walbuilder.BIG_ENDIAN_MAGIC])
    def test_sqlite_reads_a_built_log(self, tmp_path: Path, page_size: int, magic: int) -> None:
        """SQLite sees the content of a built log in either byte order and every kind of page size."""
        before, after = two_states(tmp_path, page_size)
        pages = walbuilder.pages_of(after, page_size)
        spec = walbuilder.WalSpec(page_size=page_size, magic=magic).with_commit(pages, len(pages))

        assert rows_seen(tmp_path, before, walbuilder.build(spec)) == ["first", "second"]

    def test_sqlite_stops_where_a_built_log_is_damaged(self, tmp_path: Path) -> None:
        """Cut, zeroed or flipped in its last frame, left by an older log: the commit does not count."""
        before, after = two_states(tmp_path, 4096)
        pages = walbuilder.pages_of(after, 4096)
        wal = walbuilder.build(walbuilder.WalSpec().with_commit(pages, len(pages)))
        empty = walbuilder.build(walbuilder.WalSpec(salts=(9, 9)))
        damaged = [
            walbuilder.torn(wal, len(wal) - 1),
            walbuilder.torn(wal, len(wal) - 512, sector=512),
            walbuilder.flipped(wal, len(wal) - 2000),
            walbuilder.flipped(wal, walbuilder.frame_start(0, 4096) + 3),
            walbuilder.over_older(empty, wal),
        ]

        assert [["first"]] * 5 == [rows_seen(tmp_path, before, log) for log in damaged]

    def test_builds_the_very_log_that_sqlite_wrote(self, board: Path, conn: sqlite3.Connection) -> None:
        """Described without its checksums and built again, a real log comes out byte for byte."""
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        worker = BoardWorker(conn, seed=1)
        for _ in range(20):
            worker.step()
        real = Path(f"{board}-wal").read_bytes()
        built = walbuilder.build(walbuilder.unsummed(walbuilder.describe(real)))

        assert real == built
