"""Packs on their way into a store: filled with frames, put patiently, and read back before they count."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable

from replicator.core.errors import Interrupted, ObjectCorrupt, ObjectExists, ReplicatorError, StoreUnavailable
from replicator.core.named_digest import DIGEST_SIZE, has_digest
from replicator.core.pack import PACK_BYTES, Frame, PackBuilder, PackUse
from replicator.store import Store

log = logging.getLogger(__name__)

# Between two attempts to put a pack, beyond those that the store's own retries make.
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 30.0


def put_once(store: Store, name: str, encoded: bytes, *, verification: bool) -> None:
    """Put a manifest, and read it back with *verification*. Raises ObjectExists, ObjectCorrupt."""
    store.put(name, encoded)
    if verification and store.get(name) != encoded:
        raise ObjectCorrupt(
            f"{store.url} does not give {name} back as it was put", name=name,
            hint="a new backup is made; look after that store's disks",
        )  # fmt: skip


class PackWriter:
    """Of one backup. *earlier*: packs that it may refer to besides its own; frames number them first. *name* draws
    the name of a new pack. *require* raises once the backup is in vain; *trouble* is told what keeps a pack from being
    put, and None when it is put."""

    def __init__(
        self,
        store: Store,
        earlier: tuple[PackUse, ...],
        name: Callable[[], str],
        *,
        require: Callable[[], None],
        trouble: Callable[[ReplicatorError | None], None],
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._name = name
        self._require = require
        self._trouble = trouble
        self._stop = stop
        self._builder = PackBuilder(len(earlier))
        self._digests: dict[str, bytes] = {}
        self.packs = list(earlier)
        self.stored_bytes = 0

    @property
    def number(self) -> int:
        """Of the pack that what is added now will lie in."""
        return len(self.packs)

    def add(self, stored: bytes, plain_bytes: int) -> Frame:
        """One frame more; nothing is put."""
        return self._builder.add(stored, plain_bytes)

    def relieve(self) -> None:
        """Put a pack that is full."""
        if self._builder.size >= PACK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put what was added since the last pack."""
        name = self._name()
        pack = self._builder.take(name)
        if pack is None:
            return
        self._put_patiently(name, pack)
        self._digests[name] = pack[-DIGEST_SIZE:]
        self.packs.append(PackUse(name, len(pack)))
        self.stored_bytes += len(pack)

    def read_back(self) -> None:
        """Compare what the store gives with what was put. Raises ObjectCorrupt, naming the pack that differs."""
        for name, digest in self._digests.items():
            if self._stop.is_set():
                raise Interrupted("the backup was stopped")
            self._require()
            data = self._store.get(name)
            if data[-DIGEST_SIZE:] != digest or not has_digest(data, name):
                raise ObjectCorrupt(
                    f"{self._store.url} does not give {name} back as it was put", name=name,
                    hint="a new backup is made; look after that store's disks",
                )  # fmt: skip

    def _put_patiently(self, name: str, pack: bytes) -> None:
        """A store that is away for a while, or full, does not cost what was read and stored so far."""
        for attempt in itertools.count(1):
            self._require()
            try:
                self._store.put(name, pack)
            except StoreUnavailable as exc:
                level = logging.ERROR if attempt in (1, 2) or attempt % 10 == 0 else logging.DEBUG
                log.log(
                    level, "full.waits", extra={"store": self._store.url, "error": str(exc), "hint": exc.hint}
                )
                self._trouble(exc)
                if self._stop.wait(min(PAUSE_SECONDS * 2 ** (attempt - 1), PAUSE_SECONDS_MAX)):
                    raise Interrupted("the backup was stopped") from exc
                continue
            except ObjectExists:
                if attempt == 1:
                    raise
                # The name is random: an attempt that failed put it all the same.
            if attempt > 1:
                self._trouble(None)
            return
