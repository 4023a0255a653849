"""What is fed to the readers of the state folder: files of our own, which a disk, a person or an older version
changed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Hashable, Iterator
from pathlib import Path

from replicator.cli.status import describe
from replicator.config import DatabaseConfig
from replicator.core.records import decode_lease
from replicator.enlist import is_of
from replicator.files import lock_holder
from replicator.keys import HeldKeys, KeySource
from replicator.spool import Spool
from replicator.state import StateFolder
from replicator.status import read_status
from tests.fuzz.engine import Form, Target
from tests.fuzz.objects import CORPUS, KEY, contents, mend_units, named, split
from tests.fuzz.texts import NOW, SCRATCH

_FOLDER = Path(SCRATCH.name, "state")
_URL = "file:///var/backups/app"
STATUS = (
    (CORPUS / "state/status.json").read_bytes().replace(b'"protected": "', b'"protected": null, "was": "')
)


def _fresh() -> Path:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)
    return _FOLDER


def check_state(data: bytes) -> Hashable:
    folder = _fresh()
    (folder / "state.json").write_bytes(data)
    (folder / "status.json").write_bytes(STATUS.replace(b"file:///srv/plain", os.fsencode(folder)))
    describe(DatabaseConfig(str(folder / "app.db"), (), state=str(folder)), NOW)
    (name, content), *_ = map(split, named("plain", "leases/*"))
    is_of(decode_lease(content, name), str(folder))
    state = StateFolder(str(folder))
    try:
        state.open()
        state.save()
        again = StateFolder(str(folder))
        state.close()
        again.open()
        again.close()
        assert (again.repository, again.writer, again.epoch) == (state.repository, state.writer, state.epoch)
        assert (again.generation, again.earlier, again.settled) == (
            state.generation,
            state.earlier,
            state.settled,
        )
        assert again.mounts == state.mounts
    finally:
        state.close()
    return state.generation is not None, len(state.earlier), state.settled is not None


def check_store_memory(data: bytes) -> Hashable:
    folder = _fresh()
    state = StateFolder(str(folder))
    path = Path(state._store_path(_URL))
    path.parent.mkdir()
    path.write_bytes(data)
    memory = state.load_store(_URL)
    state.save_store(_URL, memory)
    assert state.load_store(_URL) == memory
    return memory.full is not None, memory.lapsed, memory.shipped is not None


def check_status(data: bytes) -> Hashable:
    """What ``status`` makes of a file that an agent wrote, or somebody else; stores are not asked."""
    folder = _fresh()
    try:
        said = json.loads(data)
        if isinstance(said, dict):
            said["stores"] = _without_place(said.get("stores"))
            data = json.dumps(said).encode()
    except (ValueError, RecursionError):
        pass
    (folder / "status.json").write_bytes(data)
    assert read_status(str(folder)) is None or isinstance(read_status(str(folder)), dict)
    found = describe(DatabaseConfig(str(folder / "app.db"), (), state=str(folder)), NOW)
    json.dumps(found)
    return found["running"], found["key"] is None


def _without_place(stores: object) -> object:
    """The mutation may not lead us to a server, nor to a folder of this machine."""
    if isinstance(stores, list):
        for each in stores:
            if isinstance(each, dict) and isinstance(each.get("url"), str):
                each["url"] = str(_FOLDER / "store")
            elif isinstance(each, dict) and "url" in each:
                each["url"] = None
    return stores


def check_lock(data: bytes) -> Hashable:
    """What stands in the lock file is the process that holds it; anybody may have written anything."""
    path = _fresh() / "lock"
    path.write_bytes(data)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        holder = lock_holder(str(path))
        assert isinstance(holder, int)
    assert lock_holder(str(path)) is None
    return holder > 0


def check_held_keys(data: bytes) -> Hashable:
    folder = _fresh()
    (folder / "keys.json").write_bytes(data)
    keys = HeldKeys(KeySource({"BACKUP_ENCRYPTION_KEY": KEY}), str(folder / "keys.json"))
    keys.open()
    keys.look()
    return keys.newest() is not None


def check_spool(data: bytes) -> Hashable:
    """A file of units that lost bytes: what is whole stays, the rest is cut off, and it can be appended to."""
    folder = _fresh()
    (folder / "00000003.units").write_bytes(data)
    spool = Spool(str(folder))
    try:
        spool.open()
        kept = (folder / "00000003.units").stat().st_size
        assert kept <= len(data)
    finally:
        spool.close()
    return kept == len(data), kept > 0


def state_targets() -> Iterator[Target]:
    def one(name: str) -> tuple[bytes, ...]:
        return ((CORPUS / "state" / name).read_bytes(),)

    yield Target("state", check_state, one("state.json"), Form.JSON, weight=0.5)
    yield Target("store-memory", check_store_memory, one("store.json"), Form.JSON, weight=0.5)
    yield Target("status", check_status, one("status.json"), Form.JSON, weight=0.5)
    yield Target(
        "lock", check_lock, (b"4711\n",), Form.TEXT, words=("²".encode(), "٣".encode(), b"-1", b"\xff")
    )
    yield Target("held-keys", check_held_keys, contents("sealed", "keys/*"), Form.JSON, weight=0.3)
    yield Target(
        "spool", check_spool, (b"".join(contents("plain", "tail/*/*.segment")),), mend=mend_units, weight=0.3
    )
