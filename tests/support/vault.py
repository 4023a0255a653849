"""A station with a key, pruned day by day while keys are rotated; and what its objects say they are sealed with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from replicator.core.key_ring import KeyRing
from replicator.core.names import (
    sealed_kind,
    split_revision,
)
from replicator.core.retention_policy import Policy
from replicator.core.seal import parse_header, seal
from replicator.jobs import FULL, INCREMENTAL, LOG, PRUNE
from replicator.key_change import KeyHolders, rotate
from replicator.keys import KEY, KeySource, unlocked
from replicator.store import Store
from replicator.store.sealed import SealedStore
from replicator.unused_keys import destroy_unused
from replicator.verify import Limits, verify
from tests.support.memory_store import FaultyStore, MemoryStore
from tests.support.station import Station

SOURCE = KeySource({KEY: hashlib.sha256(b"a key").hexdigest()})
POLICY = Policy(log_hours=12, incremental_days=1, full_days=2, months=0)
DAY = 86_400.0


class Vault(Station):
    """A station with a key, and perhaps a second store that has the same."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, key=SOURCE, policy=POLICY)
        self.second: FaultyStore | None = None
        self.clock.set_wall(
            1_738_303_200_000_000
        )  # 2025-01-31T06:00:00Z: no full of February needs what is before
        self.fill(60)
        self.keep_up()

    @property
    def objects(self) -> MemoryStore:
        assert isinstance(self.inner, MemoryStore)
        return self.inner

    @property
    def plain(self) -> list[FaultyStore]:
        return [self.faulty, *([self.second] if self.second is not None else [])]

    def copy_to_second(self) -> MemoryStore:
        other = MemoryStore("memory://second", wall=self.clock.wall)
        for name in self.objects.names:
            other.put(name, self.objects.get(name))
        self.second = FaultyStore(other)
        return other

    def holders(self) -> KeyHolders:
        return KeyHolders(self.plain, SOURCE, self.state.keys_path)

    def rotate(self) -> str:
        """The id of the key that is active then."""
        ring = rotate(self.holders(), self.clock.wall())
        self.keys.look()
        return ring.active.key_id

    def day(self) -> None:
        """With all kinds of objects in it, and a pruning at its end."""
        for kind in (FULL, INCREMENTAL):
            self.clock.advance(DAY / 2)
            self.app.execute(
                "UPDATE t SET body = hex(randomblob(500))"
            )  # so that no full needs an older pack
            self.ship_all()
            self.do(kind)
            self.app.insert(2)
            self.ship_all()
            self.do(LOG)
        self.do(PRUNE)

    def destroy(self) -> tuple[str, ...]:
        stores = [SealedStore(each, self.keys) for each in self.plain]
        done = destroy_unused(stores, self.holders(), self.clock.wall())
        self.keys.look()
        return done

    @property
    def ring(self) -> KeyRing:
        return self.holders().ring()

    def require_open(self) -> None:
        """Everything in each store opens with the operator's key alone, and the newest commit is the source."""
        for each in self.plain:
            store = unlocked(each, SOURCE)
            for listed in store.list(""):
                store.get(listed.name)
            if each is self.faulty:
                assert (self.position, self.app.digest()) == self.restored(store)
            found = verify(unlocked(each, SOURCE), "content", Limits(), restore=lambda *_: None).found
            assert [] == found


def sealed_under(store: Store) -> dict[str, set[str]]:
    """The names of the objects in *store* by the key of each, as it says itself; of several revisions the newest."""
    newest: dict[str, str] = {}
    for each in store.list(""):
        name, number = split_revision(each.name)
        if sealed_kind(name) is not None and number >= split_revision(newest.get(name, name))[1]:
            newest[name] = each.name
    found: dict[str, set[str]] = {}
    for name, stored in newest.items():
        found.setdefault(parse_header(store.get(stored), stored).key_id.hex(), set()).add(name)
    return found


def ids(ring: KeyRing) -> set[str]:
    return {each.key_id for each in ring.roots}


def resealed(name: str, plain: bytes, ring: KeyRing) -> bytes:
    kind = sealed_kind(name)
    assert kind is not None
    return seal(
        plain,
        name,
        kind=kind,
        key_id=bytes.fromhex(ring.active.key_id),
        root=ring.active.secret,
        salt=bytes(32),
    )
