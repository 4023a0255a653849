"""Makes the corpus in this folder with the program itself: python -m tests.fuzz.make_corpus

What is checked in need not be made anew when the program changes: an input that it refuses by now is an input, too.
Where ``test_fuzz.py`` says that too little is accepted, it is time.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from replicator.core import full, incremental, key_ring, log, pack, unit
from replicator.core.checksum import page_hash, pages_checksum, short_hash
from replicator.core.codec import DEFAULT
from replicator.core.manifest import TableUse, table_digest
from replicator.core.names import FULL, INCREMENTAL, FullName, IncrementalName, LogName, PackName, parse_name
from replicator.core.operator_key import parse_passphrase
from replicator.core.records import EventRecord, encode_record
from tests.e2e.command import ENVIRONMENT, replicator, sql
from tests.fuzz.objects import CORPUS, KEY, PASSPHRASE, operator_key

_CREATE = (
    "PRAGMA page_size = 512",
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT, body TEXT)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 80) "
    "INSERT INTO task SELECT i, 'task ' || i, printf('what has to be done, number %d. %.400c', i * i, 'x') FROM n",
)
_CHANGE = (
    "UPDATE task SET title = 'done' WHERE id = 3",
    "INSERT INTO task VALUES (81, 'one more', printf('%.900c', 'm'))",
    "DELETE FROM task WHERE id BETWEEN 5 AND 9",
    "UPDATE task SET body = substr(body, 1, 300) || ' and again' WHERE id > 76",
)
# No name of a machine belongs into what is checked in.
_NAMELESS = "import socket; socket.gethostname = lambda: 'machine.example'"


def made(folder: Path, name: str, compression: str, **environment: str) -> Path:
    """A store with a full backup and a few segments behind it, and all that is beside it."""
    scene = folder / name
    scene.mkdir()
    (scene / "sitecustomize.py").write_text(_NAMELESS)
    environment["PYTHONPATH"] = f"{scene}:{ENVIRONMENT['PYTHONPATH']}"
    database, store = scene / "app.db", scene / "store"
    config = scene / "replicator.yml"
    config.write_text(f"compression: {compression}\ndatabases: [{{path: app.db, stores: [store]}}]\n")
    sql(database, *_CREATE)
    for statement in (None, *_CHANGE):
        if statement is not None:
            sql(database, statement)
        done = replicator("replicate", "--once", cwd=scene, **environment)
        assert done.code == 0, done.err
    assert len(list(store.rglob("*.segment"))) >= 4, sorted(store.rglob("*"))
    return scene


def with_more(store: Path, base: bytes, newest: bytes) -> None:
    """What the program does not write by itself yet, made by its encoders: an incremental, a log, an event."""
    full_path = next(store.rglob("*.full"))
    below = full.decode_manifest(full_path.read_bytes(), full_path.relative_to(store).as_posix())
    segments = sorted(store.rglob("*.segment"))
    units = [bytes(view) for each in segments for view in unit.split_units(each.read_bytes())]
    headers = [unit.parse_unit_header(each) for each in units]
    last = unit.decode_unit(units[-1])
    second = headers[-1].observed_last // 1_000_000 * 1_000_000
    generation = below.generation

    log_name = LogName(second, generation, headers[0].txid_first, headers[-1].txid_last)
    put(store, str(log_name), log.encode_log(log_name, list(zip(headers, units, strict=True))))

    size = below.page_size
    old = {n: base[start : start + size] for n, start in enumerate(range(0, len(base), size), 1)}
    new = {n: newest[start : start + size] for n, start in enumerate(range(0, len(newest), size), 1)}
    changed = [n for n in new if new[n] != old.get(n)]
    builder = pack.PackBuilder(0)
    frames = []
    for first in range(0, len(changed), 8):
        pgnos = tuple(changed[first : first + 8])
        plain = b"".join(new[n] for n in pgnos)
        frame = builder.add(pack.encode_frame(plain, DEFAULT), len(plain))
        frames.append(
            incremental.PageFrame(frame, pgnos, tuple(short_hash(page_hash(n, new[n])) for n in pgnos))
        )
    tables = [
        TableUse(builder.add(pack.encode_frame(each, DEFAULT), len(each)), table_digest(each))
        for each in incremental.page_tables(frames)
    ]
    pack_name = str(PackName(second, generation, last.header.txid_last, "00112233445566ff", INCREMENTAL))
    packed = builder.take(pack_name)
    assert packed is not None
    put(store, pack_name, packed)
    name = IncrementalName(second, generation, below.txid, last.header.txid_last)
    manifest = incremental.Incremental(
        repository=below.repository, generation=generation, txid=last.header.txid_last, epoch=1, page_size=size,
        pages=len(new), observed=last.entries[-1].observed, created=last.entries[-1].observed + 5,
        chain=last.digest.hex(), checksum=f"{pages_checksum(newest, 1, size):016x}",
        rolling=f"{last.entries[-1].rolling:016x}", parent=below.name.backup_id, parent_txid=below.txid,
        parent_chain=below.chain, pages_stored=len(changed), plain_bytes=len(changed) * size,
        stored_bytes=len(packed), packs=(pack.PackUse(pack_name, len(packed)),), tables=tuple(tables),
    )  # fmt: skip
    put(store, str(name), incremental.encode_incremental(manifest))
    event = EventRecord(
        name.backup_id, "restored", second, {"seconds": 0.5, "rows": 30, "host": "a", "whole": True}
    )
    put(store, f"records/{name.backup_id}/restored.json", encode_record(event))
    assert isinstance(parse_name(str(name)), IncrementalName)
    assert isinstance(parse_name(f"{FULL}{str(below.name)[len(FULL) :]}"), FullName)


def put(store: Path, name: str, data: bytes) -> None:
    path = store / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for each in ("plain", "gzip", "none", "sealed", "wal", "state"):
            shutil.rmtree(CORPUS / each, ignore_errors=True)
        scenes = {name: made(folder, name, name) for name in ("gzip", "none")}
        scenes["plain"] = made(folder, "plain", "zstd")
        scenes["sealed"] = made(folder, "sealed", "zstd", BACKUP_ENCRYPTION_KEY=KEY)
        plain = scenes["plain"]
        restored = [folder / "base.db", folder / "newest.db"]
        for path, wanted in zip(restored, (("--txid", "0"), ()), strict=True):
            done = replicator("restore", plain / "store", "-o", path, *wanted, cwd=folder)
            assert done.code == 0, done.err
        with_more(plain / "store", *(path.read_bytes() for path in restored))
        shutil.copy(restored[0], CORPUS / "base.db")
        for name, scene in scenes.items():
            # Of those only the units are of interest; they have to be built on base.db, as those of `plain` are.
            wanted = "tail" if name in ("gzip", "none") else "."
            shutil.copytree(scene / "store" / wanted, CORPUS / name / wanted, dirs_exist_ok=True)
        wal = (plain / "app.db-wal").read_bytes()
        put(
            CORPUS / "wal", "app.db-wal", wal[:32] + wal[-14 * (24 + 512) :]
        )  # of the log its header and its end
        state = plain / ".app.db-replicator"
        for kept in ("state.json", "status.json"):
            put(CORPUS / "state", kept, (state / kept).read_bytes().replace(str(folder).encode(), b"/srv"))
        (store_file,) = (state / "stores").iterdir()
        put(CORPUS / "state", "store.json", store_file.read_bytes().replace(str(folder).encode(), b"/srv"))
        (slot,) = (scenes["sealed"] / "store" / "keys").iterdir()
        ring = key_ring.rotated(
            key_ring.unwrap(slot.read_bytes(), "slot", [operator_key()]),
            1_738_044_000_000_000,
            bytes(range(32)),
            bytes(8),
        )
        # Cheap to open, so that it can be opened often.
        key_ring.SCRYPT_N, key_ring.SCRYPT_P = 2, 1
        keys = [operator_key(), parse_passphrase(PASSPHRASE, "passphrase")]
        put(
            CORPUS / "sealed",
            "keys/00000002.json",
            key_ring.wrap(ring, keys, [bytes(range(32)), bytes(range(1, 33))]),
        )
    said = json.loads((CORPUS / "state" / "status.json").read_bytes())
    print(f"{sum(path.is_file() for path in CORPUS.rglob('*'))} files, of {said['name']}")


if __name__ == "__main__":
    sys.exit(main())
