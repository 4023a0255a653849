"""A station with a history of each kind of object, whose every commit is known: to damage, to repair and to restore."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from replicator.core.errors import ReplicatorError
from replicator.core.names import (
    parse_name,
)
from replicator.core.position import Position
from replicator.jobs import FULL, INCREMENTAL, LOG, REPAIR
from replicator.keys import KEY, KeySource
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store.sealed import SealedStore
from replicator.verify import Limits, Report, verify
from tests.support.memory_store import MemoryStore
from tests.support.station import Station

SOURCES = {"plain": KeySource({}), "sealed": KeySource({KEY: hashlib.sha256(b"a key").hexdigest()})}


class Clinic(Station):
    """A station with fulls, incrementals, logs and segments; ``digests`` of every commit that can be restored."""

    def __init__(self, folder: Path, key: KeySource) -> None:
        super().__init__(folder, key=key)
        self.digests: dict[Position, str] = {}
        self.fill(100)
        self.keep_up()
        self.commit(3)
        self.do(LOG)
        self.do(INCREMENTAL)
        self.commit(3)
        self.do(LOG)
        self.do(FULL)
        self.commit(3)
        self.do(INCREMENTAL)
        self.commit(2)
        self.do(LOG)
        self.commit(4)

    @property
    def objects(self) -> MemoryStore:
        assert isinstance(self.inner, MemoryStore)
        return self.inner

    def commit(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(5)
            self.app.execute("UPDATE t SET body = hex(randomblob(900)) WHERE id % 20 = ?", len(self.digests))
            self.digests[self.position] = self.app.digest()
            self.ship_all()

    def names(self, kind: type) -> list[str]:
        return [each for each in self.objects.names if isinstance(parse_name(each), kind)]

    def mirror(self) -> MemoryStore:
        """Another store with the very same objects, which the database has, too."""
        other = MemoryStore("memory://other", wall=self.clock.wall)
        for name in self.objects.names:
            other.put(name, self.objects.get(name))
        self.others = [SealedStore(other, self.keys)]
        return other

    def content(self) -> dict[str, bytes]:
        """What is in the objects, as far as it says anything: sealed anew it would be other bytes; not what is derived,
        nor what differs with the time."""
        found = {}
        for name in self.objects.names:
            with contextlib.suppress(ReplicatorError):
                found[name] = self.store.get(name)
        found.pop("metadata.json", None)
        return found

    # --- damage and repair -----------------------------------------------------------------------------

    def cut(self, name: str) -> None:
        self.objects.damage(name, lambda data: data[: len(data) // 2])

    def look(self) -> Report:
        """As with `verify`: by who knows nothing of the agent."""
        return verify(SealedStore(self.inner, self.keys), "content", Limits(), restore=lambda *_: None)

    def repair(self, *names: str) -> dict[str, Any]:
        """Of what verify finds, and *names*."""
        found = [each.name for each in self.look().found]
        return self.do(REPAIR, names=[*dict.fromkeys([*found, *names])])

    def require_well(self) -> None:
        assert [] == self.look().found

    def require_all(self, but: Sequence[int] = ()) -> None:
        """Every commit comes back as it was, but those with the txids *but*."""
        repository = read_repository(SealedStore(self.inner, self.keys))
        output = self.folder / "out.db"
        for position, digest in self.digests.items():
            target = Target(txid=position.txid, generation=position.generation)
            if position.txid in but:
                with pytest.raises(ReplicatorError):
                    restore_chosen(
                        repository, choose(repository, target), str(output), RestoreOptions("none")
                    )
                continue
            restore_chosen(repository, choose(repository, target), str(output), RestoreOptions("none"))
            assert digest == hashlib.sha256(output.read_bytes()).hexdigest(), position
            output.unlink()


Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "one bit": lambda data: bytes([*data[:-40], data[-40] ^ 1, *data[-39:]]),
}


Made = Callable[[str], Clinic]
"""Makes one of the kind that is named in SOURCES."""
