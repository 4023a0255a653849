"""The bytes of a log: read as tests/support/walbuilder.py writes them, and as the real SQLite does."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import SourceError
from replicator.core.wal import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    LoggedTransaction,
    Salt,
    TransactionScan,
    WalChecksum,
    frame_offset,
    parse_frame_header,
    parse_header,
)
from tests.support import oracle, walbuilder
from tests.support.walbuilder import BIG_ENDIAN_MAGIC, LITTLE_ENDIAN_MAGIC, FrameSpec, WalSpec

PAGE_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
MAGICS = (LITTLE_ENDIAN_MAGIC, BIG_ENDIAN_MAGIC)
U32 = st.integers(0, 2**32 - 1)


def scan_of(wal: bytes, page_size: int, first: int = 0) -> TransactionScan:
    header = parse_header(wal)
    assert header is not None
    scan = TransactionScan(page_size=page_size, salt=header.salt, first_frame=first)
    scan.feed(wal[frame_offset(first, page_size) :])
    return scan


def page(page_size: int, fill: int) -> bytes:
    return bytes([fill & 0xFF]) * page_size


# --- headers -------------------------------------------------------------------------------------------


@given(
    page_size=st.sampled_from(PAGE_SIZES),
    magic=st.sampled_from(MAGICS),
    salts=st.tuples(U32, U32),
    seq=U32,
    pgno=st.integers(1, 2**32 - 1),
    commit=U32,
)
def test_headers_are_read_as_another_writer_wrote_them(
    page_size: int, magic: int, salts: tuple[int, int], seq: int, pgno: int, commit: int
) -> None:
    """Page size, sequence, salts and checksums come out as they went in, in both byte orders."""
    spec = WalSpec((FrameSpec(pgno, bytes(page_size), commit),), page_size, magic, salts, seq)
    wal = walbuilder.build(spec)
    stored = walbuilder.describe(wal)
    header = parse_header(wal[:HEADER_SIZE])
    frame = parse_frame_header(wal[HEADER_SIZE : HEADER_SIZE + FRAME_HEADER_SIZE])

    assert header is not None
    assert (page_size, seq, salts) == (header.page_size, header.checkpoint_seq, tuple(header.salt))
    assert stored.checksum == tuple(header.checksum)
    assert (pgno, commit, salts) == (frame.pgno, frame.commit_pages, tuple(frame.salt))
    assert stored.frames[0].checksum == tuple(frame.checksum)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda wal: b"", "an empty file"),
        (lambda wal: wal[:31], "a short header"),
        (lambda wal: bytes(32) + wal[32:], "a zeroed header"),
        (lambda wal: b"\x37\x7f\x06\x84" + wal[4:], "another magic"),
        (lambda wal: wal[:8] + (0).to_bytes(4, "big") + wal[12:], "page size 0"),
        (lambda wal: wal[:8] + (256).to_bytes(4, "big") + wal[12:], "a page size too small"),
        (lambda wal: wal[:8] + (4097).to_bytes(4, "big") + wal[12:], "a page size that is no power of two"),
        (lambda wal: wal[:8] + (131_072).to_bytes(4, "big") + wal[12:], "a page size too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_header_is_no_log(change: object, fault: str) -> None:
    """A log that is not there yet has no header; that is no error."""
    wal = walbuilder.build(WalSpec().with_commit({1: bytes(4096)}, 1))

    assert parse_header(change(wal)) is None, fault  # type: ignore[operator]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_frames_lie_where_sqlite_puts_them(page_size: int) -> None:
    """The offset of a frame is that of the second opinion, for every page size."""
    offsets = [walbuilder.frame_start(number, page_size) for number in range(4)]

    assert offsets == [frame_offset(number, page_size) for number in range(4)]


def test_a_salt_reads_as_two_words() -> None:
    """A salt prints as eight hexadecimal digits each, the form that logs carry."""
    assert "0000000a/deadbeef" == str(Salt(10, 0xDEADBEEF))


# --- transactions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("magic", MAGICS)
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_transactions_end_at_commit_frames(page_size: int, magic: int) -> None:
    """Each transaction has the last frame of every page, its end and the size of the database after it."""
    spec = WalSpec(page_size=page_size, magic=magic)
    spec = spec.with_commit({1: page(page_size, 1), 2: page(page_size, 2)}, 2)
    spec = spec.with_commit({2: page(page_size, 3)}, 7)
    spec = spec.with_commit({1: page(page_size, 4), 9: page(page_size, 5), 3: page(page_size, 6)}, 9)
    scan = scan_of(walbuilder.build(spec), page_size)

    assert [
        LoggedTransaction(2, 2, {1: 0, 2: 1}),
        LoggedTransaction(3, 7, {2: 2}),
        LoggedTransaction(6, 9, {1: 3, 9: 4, 3: 5}),
    ] == scan.done
    assert scan.complete


def test_the_last_frame_of_a_page_wins_in_a_spilled_transaction() -> None:
    """A transaction that outgrew its cache writes pages more than once; only the last version counts."""
    frames = (
        FrameSpec(4, page(512, 1)),
        FrameSpec(5, page(512, 2)),
        FrameSpec(4, page(512, 3)),
        FrameSpec(5, page(512, 4)),
        FrameSpec(4, page(512, 5), commit_pages=6),
    )
    scan = scan_of(walbuilder.build(WalSpec(frames, 512)), 512)

    assert [LoggedTransaction(5, 6, {4: 4, 5: 3})] == scan.done


def test_frames_without_a_commit_frame_stay_pending() -> None:
    """The frames of an open transaction are not handed out, and complete it once the commit frame comes."""
    wal = walbuilder.build(
        WalSpec(page_size=512).with_commit({1: page(512, 1), 2: page(512, 2), 3: page(512, 3)}, 3)
    )
    cut = frame_offset(2, 512)
    scan = scan_of(wal[:cut], 512)
    before = (list(scan.done), scan.complete)
    scan.feed(wal[cut:])

    assert ([], False) == before
    assert ([LoggedTransaction(3, 3, {1: 0, 2: 1, 3: 2})], True) == (scan.done, scan.complete)


@given(
    commits=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=8),
    data=st.data(),
)
def test_it_does_not_matter_how_the_frames_are_cut_into_runs(
    commits: list[list[int]], data: st.DataObject
) -> None:
    """Fed frame by frame, in runs of any length or all at once, the same transactions come out."""
    frames: list[FrameSpec] = []
    for pgnos in commits:
        frames += [FrameSpec(pgno, page(512, len(frames))) for pgno in pgnos]
        frames[-1] = replace(frames[-1], commit_pages=30)
    wal = walbuilder.build(WalSpec(tuple(frames), 512))
    whole = scan_of(wal, 512)
    pieces = TransactionScan(page_size=512, salt=Salt(0x01020304, 0x0A0B0C0D), first_frame=0)
    index = 0
    while index < len(frames):
        count = data.draw(st.integers(1, len(frames) - index))
        pieces.feed(wal[frame_offset(index, 512) : frame_offset(index + count, 512)])
        index += count

    assert whole.done == pieces.done
    assert len(commits) == len(whole.done)


def test_a_scan_counts_frames_from_where_it_began() -> None:
    """A scan that begins at a later frame gives indexes of the log, not of what it was fed."""
    spec = WalSpec(page_size=512).with_commit({1: page(512, 1)}, 1).with_commit({1: page(512, 2)}, 1)
    scan = scan_of(walbuilder.build(spec), 512, first=1)

    assert [LoggedTransaction(2, 1, {1: 1})] == scan.done


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (FrameSpec(2, bytes(512), 2, salts=(0x01020305, 0x0A0B0C0D)), "another first salt"),
        (FrameSpec(2, bytes(512), 2, salts=(0x01020304, 0x0A0B0C0E)), "another second salt"),
        (FrameSpec(0, bytes(512), 2), "page number 0"),
    ],
)
def test_frames_that_cannot_be_committed_are_refused(frame: FrameSpec, fault: str) -> None:
    """A frame of an older log, or of page 0, among those SQLite calls committed is an error, not a guess."""
    wal = walbuilder.build(WalSpec((FrameSpec(1, bytes(512), 1), frame), 512))

    with pytest.raises(SourceError, match="frame 1 of the log does not belong to it"):
        scan_of(wal, 512)


# --- SQLite's own log ----------------------------------------------------------------------------------

# Ends without closing, so that the log stays, with frames of an open transaction behind the last commit.
CHILD = """
import os, sqlite3, sys
path, page_size = sys.argv[1], int(sys.argv[2])
conn = sqlite3.connect(path, isolation_level=None)
conn.execute(f"PRAGMA page_size = {page_size}")
conn.execute("PRAGMA journal_mode = WAL").fetchall()
conn.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
conn.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
conn.execute("PRAGMA cache_size = 10").fetchall()
for turn in range(6):
    conn.execute("BEGIN")
    rows = 60 if page_size < 65536 else 24  # as many pages in the cache, but the second opinion is slow
    conn.executemany("INSERT INTO t (body) VALUES (?)", [(os.urandom(page_size // 2),) for _ in range(rows)])
    conn.execute("UPDATE t SET body = substr(body, 2) WHERE id % 3 = ?", (turn % 3,))
    conn.execute("COMMIT")
    conn.execute("DELETE FROM t WHERE id % 5 = 0")
conn.execute("BEGIN")
conn.execute("UPDATE t SET body = zeroblob(length(body))")
os._exit(0)
"""


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_log_of_sqlite_yields_the_database_it_describes(page_size: int, tmp_path: Path) -> None:
    """Transactions of a real log, spilled ones among them, laid over the main file are what SQLite reads."""
    path = tmp_path / "real.db"
    subprocess.run([sys.executable, "-c", CHILD, path, str(page_size)], check=True, timeout=60)
    wal = Path(f"{path}-wal").read_bytes()
    pages = walbuilder.pages_of(path.read_bytes(), page_size)
    spec = walbuilder.describe(wal)
    valid = walbuilder.describe(walbuilder.build(walbuilder.unsummed(spec)))
    sound = 0
    for number, (stored, computed) in enumerate(zip(spec.frames, valid.frames, strict=False), 1):
        if stored.checksum != computed.checksum:
            break
        sound = number if stored.commit_pages else sound
    scan = scan_of(wal[: frame_offset(sound, page_size)], page_size)
    rewritten = 0
    for transaction in scan.done:
        first = rewritten
        rewritten = transaction.end
        assert len(transaction.frames) <= transaction.end - first
        for pgno, index in transaction.frames.items():
            pages[pgno] = spec.frames[index].content
        pages = {pgno: pages[pgno] for pgno in range(1, transaction.commit_pages + 1)}
    wrote_twice = [t for t, u in zip(scan.done[1:], scan.done, strict=False) if len(t.frames) < t.end - u.end]
    oracle.snapshot_at_rest(path, tmp_path / "seen.db")

    assert 12 == len(scan.done)
    assert wrote_twice, "no transaction spilled"
    assert (tmp_path / "seen.db").read_bytes() == b"".join(pages[pgno] for pgno in sorted(pages))
    assert (
        WalChecksum(*valid.frames[sound - 1].checksum)
        == parse_frame_header(  # type: ignore[misc]
            wal[frame_offset(sound - 1, page_size) :][:FRAME_HEADER_SIZE]
        ).checksum
    )
