"""Makes the golden repository in this folder, with nothing of the program under test: python make.py

The layout is written here a second time, from the format alone, with struct, hashlib, xxhash and zstd; the
database and its log are those of Python's own sqlite3. README.md says what came of it and with which versions.
Running it again gives other bytes (salts are random), which is why what is checked in is never made anew.
"""

import hashlib
import json
import sqlite3
import struct
import sys
import tempfile
from pathlib import Path

import xxhash

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HERE = Path(__file__).resolve().parent
REPOSITORY = bytes.fromhex("4f1d0c9ab2e74c3d8a6b5e0f7d2c1b90")
GENERATION = bytes.fromhex("5eed00c0ffee0001")
G = GENERATION.hex()
EPOCH = 1
PAGE = 512
CHUNK = 16_384
BEGAN = 1_738_029_600_000_000  # 2025-01-28T02:00:00Z
TIMES = [BEGAN + 1_000_000 * second + 123_456 for second in (0, 10, 20, 30, 40)]

Pages = dict[int, bytes]
Commit = tuple[Pages, int]


def database() -> tuple[bytes, list[Commit], list[tuple[int, ...]], bytes]:
    """The file before, four commits, the cursor after each (salts, frames, checksum), the file after them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "golden.db"
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute(f"PRAGMA page_size = {PAGE}")
        conn.execute("PRAGMA auto_vacuum = FULL")
        conn.execute("PRAGMA journal_mode = WAL").fetchall()
        conn.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        conn.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT, body TEXT)")
        rows = [(n, f"task {n}", f"what has to be done, number {n}. " * 12) for n in range(1, 71)]
        conn.executemany("INSERT INTO task VALUES (?, ?, ?)", rows)
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        base = path.read_bytes()
        conn.execute("INSERT INTO task VALUES (71, 'one more', ?)", ("more " * 200,))
        conn.execute("DELETE FROM task WHERE id BETWEEN 60 AND 70")
        conn.execute("UPDATE task SET title = 'done' WHERE id = 3")
        conn.execute("UPDATE task SET body = body || ' and again' WHERE id < 40")
        wal = Path(f"{path}-wal").read_bytes()
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        final = path.read_bytes()
        conn.close()
    commits: list[Commit] = []
    cursors: list[tuple[int, ...]] = []
    pages: Pages = {}
    for number, start in enumerate(range(32, len(wal), 24 + PAGE), 1):
        pgno, size, salt1, salt2, s0, s1 = struct.unpack_from(">6I", wal, start)
        pages[pgno] = wal[start + 24 : start + 24 + PAGE]
        if size:
            commits.append(({p: pages[p] for p in sorted(pages) if p <= size}, size))
            cursors.append((salt1, salt2, number, s0, s1))
            pages = {}
    return base, commits, cursors, final


def split(content: bytes) -> Pages:
    return {i // PAGE + 1: content[i : i + PAGE] for i in range(0, len(content), PAGE)}


def joined(pages: Pages) -> bytes:
    return b"".join(pages[pgno] for pgno in sorted(pages))


def after(pages: Pages, commit: Commit) -> Pages:
    return {pgno: content for pgno, content in (pages | commit[0]).items() if pgno <= commit[1]}


def page_hash(pgno: int, content: bytes) -> int:
    return xxhash.xxh3_64_intdigest(content, seed=pgno)


def low(value: int) -> int:
    return value % 2**32


def checksum(pages: Pages) -> int:
    total = 0
    for pgno, content in pages.items():
        total ^= page_hash(pgno, content)
    return total


def varints(*numbers: int) -> bytes:
    out = bytearray()
    for number in numbers:
        rest = number
        while rest > 127:
            out.append(rest % 128 + 128)
            rest //= 128
        out.append(rest)
    return bytes(out)


def deltas(numbers: list[int]) -> list[int]:
    return [number - before for before, number in zip([0, *numbers], numbers, strict=False)]


def entry(
    *, span: int, observed: int, before: int, not_before: int, size: int, pages: Pages, rolling: int
) -> bytes:
    numbers = sorted(pages)
    head = varints(span, observed - before, observed - not_before, size, len(numbers), *deltas(numbers))
    hashes = [low(page_hash(pgno, pages[pgno])) for pgno in numbers]
    return head + struct.pack(f">{len(hashes)}IQ", *hashes, rolling)


def block(contents: list[bytes], prefix: list[bytes], fresh: list[int], *, compressed: bool) -> bytes:
    content, before = b"".join(contents), b"".join(prefix)
    if compressed and before:
        content = zstd.compress(content, level=3, zstd_dict=zstd.ZstdDict(before, is_raw=True).as_prefix)
    elif compressed:
        content = zstd.compress(content, level=3)
    head = varints(len(contents), len(fresh), *deltas(sorted(fresh)))
    return head + struct.pack(">I", low(xxhash.xxh3_64_intdigest(before))) + varints(len(content)) + content


def unit(
    *,
    flags: int,
    codec: int,
    part: int,
    txids: tuple[int, int],
    cursor: tuple[int, ...],
    observed: tuple[int, int],
    chain: bytes,
    entries: bytes,
    blocks: bytes,
) -> bytes:
    salt1, salt2, frames, s0, s1 = cursor
    head = struct.pack(">7sBBBBBI", b"RPLUNIT", 1, flags, codec, 9, 0, part) + GENERATION
    head += struct.pack(">IIQI", EPOCH, frames, txids[0], txids[1] - txids[0])
    head += struct.pack(">IIII", salt1, salt2, s0, s1)
    head += struct.pack(">QI", observed[0], observed[1] - observed[0]) + chain[:8]
    head += struct.pack(">II", len(entries), len(blocks))
    whole = head + entries + blocks
    return whole + hashlib.sha256(whole).digest()[:16]


def full(base: bytes, chain: bytes, sum_of_base: int) -> dict[str, bytes]:
    """A full backup of the file at txid 0: two frames in one pack, three chunks."""
    stem = f"full/2025/01/28/20250128T020000Z-{G}-{0:016x}"
    pack_name = f"{stem}-00000000000000aa.pack"
    chunks = [base[i : i + CHUNK] for i in range(0, len(base), CHUNK)]
    pack, locators = b"RPLPACK\x01", b""
    for group in (chunks[:2], chunks[2:]):
        stored = zstd.compress(b"".join(group), level=3)
        locators += varints(len(group), 0, len(pack), len(stored), sum(map(len, group)), 0)
        pack += stored
    head = {
        "repository": REPOSITORY.hex(),
        "generation": G,
        "txid": 0,
        "epoch": EPOCH,
        "page_size": PAGE,
        "pages": len(base) // PAGE,
        "chunk_bytes": CHUNK,
        "observed": TIMES[0],
        "created": TIMES[0] + 500_000,
        "chain": chain.hex(),
        "checksum": f"{sum_of_base:016x}",
        "rolling": f"{0:016x}",
        "packs": [pack_name],
        "stored_bytes": len(pack),
        "kind": "replicator-full",
    }
    text = json.dumps(head, indent=1).encode()
    hashes = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    body = struct.pack(">7sBII", b"RPLFULL", 1, len(text), len(locators)) + text + locators + hashes
    return {f"{stem}.full": body + hashlib.sha256(body).digest(), pack_name: pack}


def segments(
    base: bytes, commits: list[Commit], cursors: list[tuple[int, ...]], chain: bytes
) -> dict[str, bytes]:
    """Three transactions in two units of one segment, then one transaction in two parts."""
    states = [split(base)]
    for commit in commits:
        states.append(after(states[-1], commit))
    rollings = [checksum(state) ^ checksum(states[0]) for state in states]
    (one, size_one), (two, size_two), (three, size_three), (four, size_four) = commits
    # Unit 1: commits 1 and 2 in one block, made against the state before commit 1.
    listed = [*sorted(one), *sorted(two)]
    wanted = sorted({pgno for pgno in listed if pgno in states[0]})
    unit_one = unit(
        flags=0, codec=1, part=0, txids=(1, 2), cursor=cursors[1], observed=(TIMES[1], TIMES[2]), chain=chain,
        entries=entry(span=1, observed=TIMES[1], before=TIMES[1], not_before=TIMES[0], size=size_one, pages=one,
                      rolling=rollings[1])
        + entry(span=1, observed=TIMES[2], before=TIMES[1], not_before=TIMES[1], size=size_two, pages=two,
                rolling=rollings[2]),
        blocks=block([*(one[p] for p in sorted(one)), *(two[p] for p in sorted(two))],
                     [states[0][p] for p in wanted], [], compressed=True),
    )  # fmt: skip
    # Unit 2: commit 3; its pages are fresh, so the checksum is unknown; the clock had been set back.
    unit_two = unit(
        flags=4 | 8, codec=1, part=0, txids=(3, 3), cursor=cursors[2], observed=(TIMES[3], TIMES[3]),
        chain=unit_one[-16:],
        entries=entry(span=1, observed=TIMES[3], before=TIMES[3], not_before=TIMES[3], size=size_three,
                      pages=three, rolling=0),
        blocks=block([three[p] for p in sorted(three)], [], sorted(three), compressed=True),
    )  # fmt: skip
    # Commit 4 in two parts, not compressed; each part has a block of its own.
    parts: list[bytes] = []
    numbers = sorted(four)
    half = len(numbers) // 2
    for number, share in enumerate((numbers[:half], numbers[half:]), 1):
        pages = {pgno: four[pgno] for pgno in share}
        parts.append(unit(
            flags=1 | (2 if number == 2 else 4), codec=0, part=number, txids=(4, 4), cursor=cursors[3],
            observed=(TIMES[4], TIMES[4]), chain=parts[-1][-16:] if parts else unit_two[-16:],
            entries=entry(span=1, observed=TIMES[4], before=TIMES[4], not_before=TIMES[3], size=size_four,
                          pages=pages, rolling=rollings[4] if number == 2 else 0),
            blocks=block([pages[p] for p in share], [states[3][p] for p in share if p in states[3]], [],
                         compressed=False),
        ))  # fmt: skip
    return {
        f"tail/{G}/{1:016x}.segment": unit_one + unit_two,
        f"tail/{G}/{4:016x}-p0001.segment": parts[0],
        f"tail/{G}/{4:016x}-p0002.segment": parts[1],
    }


def record(**fields: object) -> bytes:
    return (json.dumps(fields, indent=2) + "\n").encode()


def main() -> None:
    base, commits, cursors, final = database()
    states = [split(base)]
    for commit in commits:
        states.append(after(states[-1], commit))
    assert len(commits) == 4
    assert joined(states[-1]) == final
    assert len(states[2]) < len(states[1]), "the second commit was to shrink the file"
    chain = hashlib.sha256(b"RPLCHAIN" + REPOSITORY + GENERATION).digest()[:16]
    objects = {
        "repository.json": record(
            repository=REPOSITORY.hex(), created="2025-01-28T01:59:00.000000Z", format=1, kind="replicator-repository"
        ),
        f"generations/{G}.json": record(
            generation=G, repository=REPOSITORY.hex(), epoch=EPOCH, began=BEGAN, reason="first run", page_size=PAGE,
            previous=None, kind="replicator-generation",
        ),
        "leases/00000001.json": record(
            epoch=EPOCH, writer="0123456789abcdef", host="golden.example", pid=4711,
            claimed="2025-01-28T01:59:00.000001Z", took_over=False, kind="replicator-lease",
        ),
        **full(base, chain, checksum(states[0])),
        **segments(base, commits, cursors, chain),
    }  # fmt: skip
    for name, content in objects.items():
        path = HERE / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:  # what is there is never replaced
            file.write(content)
    print(f"SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}")
    for txid, state in enumerate(states):
        print(txid, len(state), f"{checksum(state):016x}", hashlib.sha256(joined(state)).hexdigest())
    for name, content in objects.items():
        print(len(content), hashlib.sha256(content).hexdigest()[:16], name)


if __name__ == "__main__":
    main()
