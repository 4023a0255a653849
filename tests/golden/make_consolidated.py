"""Makes `consolidated/`, what becomes of `repository/` in time, with nothing of the program under test:

    python tests/golden/make_consolidated.py

The units of its tail lie in one log, and two incrementals lie on its full. Log and incrementals are written here from
the format alone; the units are those that are checked in, and the database at each txid is made again by `make.py`.
What is there is never replaced.
"""

import hashlib
import json
import shutil
import struct

from make import (
    EPOCH,
    HERE,
    PAGE,
    REPOSITORY,
    TIMES,
    G,
    Pages,
    after,
    checksum,
    database,
    deflated,
    deltas,
    digest,
    joined,
    low,
    page_hash,
    split,
    varints,
    zstd,
)

FULL = f"20250128T020000Z-{G}-{0:016x}"
OLD = HERE / "repository"
NEW = HERE / "consolidated"

Frame = tuple[int, Pages]
"""A codec, and the pages that it holds."""


def units_of(data: bytes) -> list[bytes]:
    """A header of 88 bytes ends in the two lengths of what is behind it; a trailer of 16 bytes ends each unit."""
    found = []
    while data:
        entries, payload = struct.unpack_from(">II", data, 80)
        size = 88 + entries + payload + 16
        found.append(data[:size])
        data = data[size:]
    return found


def log(units: list[bytes]) -> dict[str, bytes]:
    last = [struct.unpack_from(">QI", each, 32) for each in units]
    txids = [first + more for first, more in last]
    times = [first + more for first, more in (struct.unpack_from(">QI", each, 60) for each in units)]
    begins = struct.unpack_from(">Q", units[0], 60)[0]
    first_txid = last[0][0]
    index = varints(len(units), begins)
    for each, txid, txid_before, time, time_before in zip(
        units, txids, [first_txid, *txids], times, [begins, *times], strict=False
    ):
        index += varints(len(each), txid - txid_before, time - time_before)
    name = f"log/2025/01/28/20250128T020040Z-{G}-{first_txid:016x}-{txids[-1]:016x}.log"
    whole = struct.pack(">7sBI", b"RPLLOGS", 1, len(index)) + index + b"".join(units)
    return {name: whole + digest(name, whole)}


def incremental(
    *, txid: int, state: Pages, observed: int, chain: bytes, rolling: int, parent: tuple[str, int, bytes],
    frames: list[Frame], tables: list[int], nonce: str,
) -> dict[str, bytes]:  # fmt: skip
    """*tables*: of how many frames each tells; the first lies compressed in the pack, the others as they are."""
    second = "20250128T0200" + f"{(observed - TIMES[0]) // 1_000_000:02d}Z"
    stem = f"incremental/2025/01/28/{second}-{G}"
    pack_name = f"{stem}-{txid:016x}-{nonce}.pack"
    name = f"{stem}-{parent[1]:016x}-{txid:016x}.incremental"
    pack, listed = b"RPLPACK\x01", []
    for codec, pages in frames:
        numbers = sorted(pages)
        plain = b"".join(pages[pgno] for pgno in numbers)
        stored = {0: lambda p: p, 1: lambda p: zstd.compress(p, level=3), 2: deflated}[codec](plain)
        stored = bytes([codec]) + stored
        hashes = [low(page_hash(pgno, pages[pgno])) for pgno in numbers]
        listed.append(
            varints(0, len(pack), len(stored), len(plain), len(numbers), *deltas(numbers))
            + struct.pack(f">{len(hashes)}I", *hashes)
        )
        pack += stored
    places, begin = [], 0
    for number, count in enumerate(tables):
        table = b"".join(listed[begin : begin + count])
        begin += count
        stored = b"\1" + zstd.compress(table, level=3) if number == 0 else b"\0" + table
        places.append([0, len(pack), len(stored), len(table), hashlib.sha256(table).hexdigest()])
        pack += stored
    pack += digest(pack_name, pack)
    said = {
        "repository": REPOSITORY.hex(),
        "generation": G,
        "txid": txid,
        "epoch": EPOCH,
        "page_size": PAGE,
        "pages": len(state),
        "observed": observed,
        "created": observed + 500_000,
        "chain": chain.hex(),
        "checksum": f"{checksum(state):016x}",
        "rolling": f"{rolling:016x}",
        "parent": parent[0],
        "parent_txid": parent[1],
        "parent_chain": parent[2].hex(),
        "pages_stored": sum(len(pages) for _, pages in frames),
        "plain_bytes": sum(len(pages) for _, pages in frames) * PAGE,
        "stored_bytes": len(pack),
        "packs": [[pack_name, len(pack)]],
        "tables": places,
        "kind": "replicator-incremental",
    }
    text = json.dumps(said, indent=1).encode()
    body = struct.pack(">7sBI", b"RPLINCR", 1, len(text)) + text
    return {name: body + digest(name, body), pack_name: pack}


def changed(new: Pages, old: Pages) -> Pages:
    return {pgno: content for pgno, content in new.items() if old.get(pgno) != content}


def halves(pages: Pages) -> tuple[Pages, Pages]:
    numbers = sorted(pages)
    half = len(numbers) // 2
    return {p: pages[p] for p in numbers[:half]}, {p: pages[p] for p in numbers[half:]}


def main() -> None:
    base, commits, _, _ = database()
    states = [split(base)]
    for commit in commits:
        states.append(after(states[-1], commit))
    units = [unit for path in sorted((OLD / "tail" / G).iterdir()) for unit in units_of(path.read_bytes())]
    rolling = [checksum(state) ^ checksum(states[0]) for state in states]
    root = hashlib.sha256(b"RPLCHAIN" + REPOSITORY + bytes.fromhex(G)).digest()[:16]
    # What changed at txid 1 and once more at txid 2 is listed twice, and what txid 2 cut off at all.
    one = incremental(
        txid=2, state=states[2], observed=TIMES[2], chain=units[0][-16:], rolling=rolling[2],
        parent=(FULL, 0, root), nonce="00000000000000bb", tables=[1, 1],
        frames=[(1, changed(states[1], states[0])), (2, changed(states[2], states[1]))],
    )  # fmt: skip
    first, second = halves(changed(states[4], states[2]))
    (name,) = [each for each in one if each.endswith(".incremental")]
    below = name.rpartition("/")[2].removesuffix(".incremental")
    two = incremental(
        txid=4, state=states[4], observed=TIMES[4], chain=units[-1][-16:], rolling=rolling[4],
        parent=(below, 2, units[0][-16:]), nonce="00000000000000cc", tables=[2],
        frames=[(0, first), (2, second)],
    )  # fmt: skip
    shutil.copytree(OLD, NEW, ignore=lambda folder, names: ["tail"] if folder == str(OLD) else [])
    for txid, state in enumerate(states):
        print(txid, len(state), f"{checksum(state):016x}", hashlib.sha256(joined(state)).hexdigest())
    for name, content in {**log(units), **one, **two}.items():
        path = NEW / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
    for path in sorted(path for path in NEW.rglob("*") if path.is_file()):
        print(hashlib.sha256(path.read_bytes()).hexdigest()[:16], path.relative_to(NEW).as_posix())


if __name__ == "__main__":
    main()
