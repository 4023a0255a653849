"""Makes the golden repositories in this folder, with nothing of the program under test: python make.py

The layout is written here a second time, from the format alone, with struct, hashlib, zlib, xxhash, zstd and the
primitives of `cryptography`; the database and its log are those of Python's own sqlite3. README.md says what came of
it and with which versions. Running it again gives other bytes (salts are random), which is why what is checked in is
never made anew.
"""

import hashlib
import hmac
import json
import secrets
import sqlite3
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import xxhash
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

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

# What opens `sealed/`, and the ring in its slots: made up once, for this folder alone.
OPERATOR_KEY = bytes.fromhex("8d1f4c97a06be35218f4d97c03ab5ee16c2279b4f08e4d1da5937bc60e1f8245")
PASSPHRASE = b"quartz harbour nineteen lanterns"
ROOTS = [
    (
        "70c1de5a9b3e2f01",
        BEGAN,
        bytes.fromhex("e7b2049d5c318fa6d84b7710c9e6f35a2d90b8417c5ea3f6018dd4629b57ec3f"),
    ),
    (
        "a94f27e06d8cb512",
        BEGAN + 9,
        bytes.fromhex("1c85f3d06e49b7a25df018c3947be260fa3d71958e02c64bb917d5a80f6e3c72"),
    ),
]
DEDUP = (
    "de9d0b5ac47f1e38",
    BEGAN,
    bytes.fromhex("4b97e15ad8203cf6719eb4d05f826ca3e6140d7b92c5f83da061be4917df5c28"),
)

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


def deflated(content: bytes, known: bytes = b"") -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=known) if known else zlib.compressobj(6, wbits=-15)
    return packer.compress(content) + packer.flush()


def block(contents: list[bytes], prefix: list[bytes], fresh: list[int], *, codec: int) -> bytes:
    """With codec 2 the first pages are those that have a previous version, and each is in there once."""
    content, before = b"".join(contents), b"".join(prefix)
    if codec == 1 and before:
        content = zstd.compress(content, level=3, zstd_dict=zstd.ZstdDict(before, is_raw=True).as_prefix)
    elif codec == 1:
        content = zstd.compress(content, level=3)
    elif codec == 2:
        known = [*prefix, *([b""] * (len(contents) - len(prefix)))]
        parts = [deflated(page, old) for page, old in zip(contents, known, strict=True)]
        content = b"".join(varints(len(part)) + part for part in parts)
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


Hash = Callable[[bytes], bytes]


def digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def full(base: bytes, chain: bytes, sum_of_base: int, hashes: str, hash_of: Hash) -> dict[str, bytes]:
    """A full backup of the file at txid 0: three chunks in two frames of one pack, and their table as a third."""
    stem = f"full/2025/01/28/20250128T020000Z-{G}-{0:016x}"
    pack_name, name = f"{stem}-00000000000000aa.pack", f"{stem}.full"
    chunks = [base[i : i + CHUNK] for i in range(0, len(base), CHUNK)]
    pack, locators = b"RPLPACK\x01", b""
    for group, codec in ((chunks[:2], 1), (chunks[2:], 2)):
        plain = b"".join(group)
        stored = bytes([codec]) + (zstd.compress(plain, level=3) if codec == 1 else deflated(plain))
        locators += varints(len(group), 0, len(pack), len(stored), len(plain), 0)
        pack += stored
    table = struct.pack(">I", len(locators)) + locators + b"".join(map(hash_of, chunks))
    place = [0, len(pack), 1 + len(table), len(table), hashlib.sha256(table).hexdigest()]
    pack += b"\0" + table  # not compressed
    pack += digest(pack_name, pack)
    said = {
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
        "hashes": hashes,
        "chunks_new": len(chunks),
        "plain_bytes": len(base),
        "stored_bytes": len(pack),
        "packs": [[pack_name, len(pack)]],
        "tables": [place],
        "kind": "replicator-full",
    }
    text = json.dumps(said, indent=1).encode()
    body = struct.pack(">7sBI", b"RPLFULL", 1, len(text)) + text
    return {name: body + digest(name, body), pack_name: pack}


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
                     [states[0][p] for p in wanted], [], codec=1),
    )  # fmt: skip
    # Unit 2: commit 3; its pages are fresh, so the checksum is unknown; the clock had been set back.
    unit_two = unit(
        flags=4 | 8, codec=1, part=0, txids=(3, 3), cursor=cursors[2], observed=(TIMES[3], TIMES[3]),
        chain=unit_one[-16:],
        entries=entry(span=1, observed=TIMES[3], before=TIMES[3], not_before=TIMES[3], size=size_three,
                      pages=three, rolling=0),
        blocks=block([three[p] for p in sorted(three)], [], sorted(three), codec=1),
    )  # fmt: skip
    # Commit 4 in two parts, one in DEFLATE and one not compressed; each part has a block of its own.
    parts: list[bytes] = []
    numbers = sorted(four)
    half = len(numbers) // 2
    for number, share, codec in ((1, numbers[:half], 2), (2, numbers[half:], 0)):
        pages = {pgno: four[pgno] for pgno in share}
        parts.append(unit(
            flags=1 | (2 if number == 2 else 4), codec=codec, part=number, txids=(4, 4), cursor=cursors[3],
            observed=(TIMES[4], TIMES[4]), chain=parts[-1][-16:] if parts else unit_two[-16:],
            entries=entry(span=1, observed=TIMES[4], before=TIMES[4], not_before=TIMES[3], size=size_four,
                          pages=pages, rolling=rollings[4] if number == 2 else 0),
            blocks=block([pages[p] for p in share], [states[3][p] for p in share if p in states[3]], [],
                         codec=codec),
        ))  # fmt: skip
    return {
        f"tail/{G}/{1:016x}.segment": unit_one + unit_two,
        f"tail/{G}/{4:016x}-p0001.segment": parts[0],
        f"tail/{G}/{4:016x}-p0002.segment": parts[1],
    }


def record(**fields: object) -> bytes:
    return (json.dumps(fields, indent=2) + "\n").encode()


# --- encrypted -----------------------------------------------------------------------------------------


def cipher(secret: bytes, salt: bytes, purpose: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt, purpose).derive(secret))


def sealed(name: str, plain: bytes, kind: int, root: tuple[str, int, bytes], frame_log2: int) -> bytes:
    key_id, _, secret = root
    salt = secrets.token_bytes(32)
    head = struct.pack(">7sBBBBBQ", b"RPLSEAL", 1, kind, 0, frame_log2, 0, len(plain))
    head += bytes.fromhex(key_id) + bytes(4) + salt
    frames = [plain[i : i + 2**frame_log2] for i in range(0, len(plain), 2**frame_log2)] or [b""]
    under = cipher(secret, salt, b"replicator object 1")
    whole = head
    for number, frame in enumerate(frames):
        last = number == len(frames) - 1
        nonce = bytes([0, 0, 0, int(last)]) + number.to_bytes(8, "big")
        whole += under.encrypt(nonce, frame, head + name.encode())
    return whole + digest(name, whole)


def slot(number: int, *, passphrase: bool) -> bytes:
    """The ring with as many roots as its number says; the second is opened by the passphrase, too."""
    roots = ROOTS[:number]
    said = {"kind": "replicator-keys", "format": 1, "number": number, "repository": REPOSITORY.hex(),
            "roots": [{"key_id": key_id, "created": created} for key_id, created, _ in roots]}  # fmt: skip
    listed = ", ".join(f'{{"created": {created}, "key_id": "{key_id}"}}' for key_id, created, _ in roots)
    bound = (
        f'{{"format": 1, "kind": "replicator-keys", "number": {number}, "repository": "{REPOSITORY.hex()}", '
        f'"roots": [{listed}]}}'
    )
    ring = json.dumps(
        {
            "roots": [[key_id, created, secret.hex()] for key_id, created, secret in roots],
            "dedup": [DEDUP[0], DEDUP[1], DEDUP[2].hex()],
        }
    )
    wraps = []
    for by in ("key", "passphrase")[: 2 if passphrase else 1]:
        salt, secret = secrets.token_bytes(32), OPERATOR_KEY
        found: dict[str, object] = {"by": by, "salt": salt.hex()}
        if by == "passphrase":
            secret = Scrypt(salt, 32, 2**16, 8, 1).derive(PASSPHRASE)
            found |= {"n": 2**16, "r": 8, "p": 1}
        else:
            print_of_key = hmac.digest(OPERATOR_KEY, b"replicator key fingerprint", "sha256")
            found["fingerprint"] = print_of_key.hex()[:8]
        wrapped = cipher(secret, salt, b"replicator key slot 1").encrypt(
            bytes(12), ring.encode(), bound.encode()
        )
        wraps.append({**found, "sealed": wrapped.hex()})
    return record(**said, wraps=wraps)


def encrypted(objects: dict[str, bytes]) -> dict[str, bytes]:
    """The old root seals all but the last part, which was sealed anew, as its second revision, under the active one.

    Pack and parts have smaller frames than the program writes, so that there are several of them.
    """
    found: dict[str, bytes] = {}
    for name, plain in objects.items():
        kind = {"full": 2, "pack": 3, "segment": 4}.get(name.rpartition(".")[2], 1)
        if name.endswith("-p0002.segment"):
            stored = name.replace(".segment", ".r2.segment")
            found[stored] = sealed(stored, plain, kind, ROOTS[1], 12)
        else:
            log2 = {3: 8}.get(kind, 9 if "-p0001" in name else 16)
            found[name] = sealed(name, plain, kind, ROOTS[0], log2)
    return found


# --- both ----------------------------------------------------------------------------------------------


def identity(*features: str) -> bytes:
    return record(
        repository=REPOSITORY.hex(), created="2025-01-28T01:59:00.000000Z", features=list(features), format=1,
        kind="replicator-repository",
    )  # fmt: skip


def main() -> None:
    base, commits, cursors, final = database()
    states = [split(base)]
    for commit in commits:
        states.append(after(states[-1], commit))
    assert len(commits) == 4
    assert joined(states[-1]) == final
    assert len(states[2]) < len(states[1]), "the second commit was to shrink the file"
    chain = hashlib.sha256(b"RPLCHAIN" + REPOSITORY + GENERATION).digest()[:16]
    backup = f"20250128T020000Z-{G}-{0:016x}"
    records = {
        f"generations/{G}.json": record(
            generation=G, repository=REPOSITORY.hex(), epoch=EPOCH, began=BEGAN, reason="first run", page_size=PAGE,
            previous=None, kind="replicator-generation",
        ),
        "leases/00000001.json": record(
            epoch=EPOCH, writer="0123456789abcdef", host="golden.example", pid=4711,
            claimed="2025-01-28T01:59:00.000001Z", took_over=False, kind="replicator-lease",
        ),
        f"records/{backup}/checksummed.json": record(
            backup=backup, event="checksummed", at=TIMES[0] + 600_000, details={"objects": 2}, kind="replicator-event",
        ),
    }  # fmt: skip
    units = segments(base, commits, cursors, chain)
    plain = {
        "repository.json": identity(),
        **records,
        **full(base, chain, checksum(states[0]), "sha256", lambda chunk: hashlib.sha256(chunk).digest()),
        **units,
    }
    keyed = full(base, chain, checksum(states[0]), f"hmac-sha256:{DEDUP[0]}",
                 lambda chunk: hmac.digest(DEDUP[2], chunk, "sha256"))  # fmt: skip
    closed = {
        "repository.json": identity("sealed"),
        "keys/00000001.json": slot(1, passphrase=False),
        "keys/00000002.json": slot(2, passphrase=True),
        **encrypted({**records, **keyed, **units}),
    }
    print(f"SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}")
    for txid, state in enumerate(states):
        print(txid, len(state), f"{checksum(state):016x}", hashlib.sha256(joined(state)).hexdigest())
    for folder, objects in (("repository", plain), ("sealed", closed)):
        for name, content in objects.items():
            path = HERE / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:  # what is there is never replaced
                file.write(content)
            print(len(content), hashlib.sha256(content).hexdigest()[:16], folder, name)


if __name__ == "__main__":
    main()
