"""Records: what is said about a repository, its generations, keys and backups; put back from what the state folder
knows, or another store has.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from replicator.core.errors import (
    FormatTooNew,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    ReplicatorError,
    StoreDenied,
)
from replicator.core.key_ring import read_slot
from replicator.core.names import REPOSITORY, EventName, GenerationName, KeyName, parse_name
from replicator.core.records import (
    DAMAGED,
    PINNED,
    SEALED,
    EventRecord,
    RepositoryRecord,
    decode_repository,
    encode_record,
)
from replicator.core.times import format_time
from replicator.state import StateFolder
from replicator.store import Store
from replicator.store.sealed import SealedStore
from replicator.verify.stored import check_plain

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Repaired:
    """``taken_away``: what told of a backup, and nobody knows any more what. ``set_aside``: backups that nobody relies
    on any more. ``left``: what stays hurt, and why. ``well``: what was found whole at the second look."""

    put_back: list[str] = field(default_factory=list)
    taken_away: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    well: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


class Records:
    """Of one store. *others*: the stores that may have the same."""

    def __init__(
        self,
        store: SealedStore,
        others: Callable[[], Sequence[Store]],
        *,
        state: StateFolder,
        slot: Callable[[], bytes | None],
        wall: Callable[[], int],
    ) -> None:
        self._store = store
        self._others = others
        self._state = state
        self._slot = slot
        self._wall = wall

    def is_well(self, name: str) -> bool:
        try:
            check_plain(self._store.get(name), name)
        except (ObjectCorrupt, ObjectNotFound):
            return False
        return True

    def replace(self, name: str, content: bytes, done: Repaired) -> None:
        """What is hurt goes first, since a name is put once."""
        try:
            self._store.delete(name)
            self._store.put(name, content)
        except ObjectExists:
            done.left[name] = "something was put there meanwhile"
        except StoreDenied as exc:
            done.left[name] = f"the store does not let go of it: {exc}"
        else:
            done.put_back.append(name)

    def identify(self, names: Sequence[str]) -> list[str]:
        """Put back what says who this is, and what opens it: without them nobody may write here, nor repair the rest.
        For who knows that it is ours. Returns what was put back. Raises StoreError."""
        done = Repaired()
        for name in names:
            own = self._own(name)
            if own is not None and not self._identifies(name, own):
                self.replace(name, own, done)
        return done.put_back

    def _identifies(self, name: str, own: bytes) -> bool:
        try:
            content = self._store.get(name)
            if name != REPOSITORY:
                return content == own
            found, wanted = decode_repository(content, name), decode_repository(own, name)
        except (ObjectCorrupt, ObjectNotFound):
            return False
        except FormatTooNew:
            return True
        return (found.repository, found.features) == (wanted.repository, wanted.features)

    def _own(self, name: str) -> bytes | None:
        """What this database has under that name in every store of its own; None where it is not known here."""
        slot, parsed = self._slot(), parse_name(name)
        if name == REPOSITORY and self._state.repository:
            return self._elsewhere(name) or encode_record(
                RepositoryRecord(
                    self._state.repository, format_time(self._wall()), (SEALED,) if slot is not None else ()
                )
            )
        if (
            isinstance(parsed, KeyName)
            and slot is not None
            and read_slot(slot, name)["number"] == parsed.number
        ):
            return slot
        return None

    def put(self, name: str, parsed: object, done: Repaired) -> None:
        """What the state folder knows, or another store."""
        if isinstance(parsed, EventName):
            self._put_event(name, parsed, done)
            return
        found = self._elsewhere(name) if isinstance(parsed, GenerationName | KeyName) else None
        if isinstance(parsed, GenerationName) and (record := self._state.record_of(parsed.generation)):
            found = encode_record(record)
        if found is not None:
            self.replace(name, found, done)
        else:
            done.left[name] = "what it held is not known here"

    def _put_event(self, name: str, parsed: EventName, done: Repaired) -> None:
        """That a backup is pinned, or hurt, its name tells; how far one was proved nobody knows any more."""
        try:
            self._store.get(name)
        except ObjectNotFound:
            done.well.append(name)  # somebody took it away since it was looked at
            return
        except ObjectCorrupt:
            pass
        if parsed.event in (PINNED, DAMAGED):
            details = {"fault": "what this record said of it was damaged"} if parsed.event == DAMAGED else {}
            self.replace(
                name, encode_record(EventRecord(parsed.backup_id, parsed.event, self._wall(), details)), done
            )
            return
        try:
            self._store.delete(name)
            done.taken_away.append(name)
        except StoreDenied as exc:
            done.left[name] = f"the store does not let go of it: {exc}"

    def _elsewhere(self, name: str) -> bytes | None:
        """What another store has under that name, if it is whole and of this repository."""
        for other in self._others():
            try:
                content = other.get(name)
                check_plain(content, name)
                if json.loads(content)["repository"] == self._state.repository:
                    return content
            except ReplicatorError as exc:
                log.info("object.not-there", extra={"store": other.url, "key": name, "error": str(exc)})
        return None
