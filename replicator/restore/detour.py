"""A detour: what lies in the way of a restore is not always the only way.

Objects move while a restore reads them: a log takes segments over, prune deletes; then the listing is read again. And
a backup that is damaged is gone round, where an earlier one leads to the very same restore point.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from replicator.core.errors import ObjectCorrupt, ObjectNotFound, TargetUnreachable
from replicator.core.names import BackupName
from replicator.repository import Repository, backups_on
from replicator.restore.target import Chosen, Target

log = logging.getLogger(__name__)

T = TypeVar("T")

# An agent that archives every second moves something during each restore of some seconds; not during all of many.
LISTINGS_MAX = 10


def around_damage(
    read: Callable[[], Repository],
    choose: Callable[[Repository], Chosen],
    restore: Callable[[Repository, Chosen], T],
    target: Target,
) -> T:
    """What *restore* gives for what *choose* makes of *target*. Where the way round ends before the restore point that
    was meant, what is in the way is raised."""
    return _Detour(read, choose, restore, target).run()


class _Detour(Generic[T]):
    def __init__(
        self,
        read: Callable[[], Repository],
        choose: Callable[[Repository], Chosen],
        restore: Callable[[Repository, Chosen], T],
        target: Target,
    ) -> None:
        self._read = read
        self._choose = choose
        self._restore = restore
        self._target = target
        self._repository = read()
        self._listings = 1
        self._aside: dict[BackupName, str] = {}
        self._first: ObjectCorrupt | ObjectNotFound | None = None

    def run(self) -> T:
        while True:
            try:
                chosen = self._choose(self._repository)
                self._require_meant(chosen)
                return self._restore(self._repository, self._told(chosen))
            except (ObjectCorrupt, ObjectNotFound) as exc:
                if exc is self._first:
                    raise
                self._avoid(exc)
            except TargetUnreachable:
                if self._first is not None:
                    raise self._first from None
                raise

    def _avoid(self, exc: ObjectCorrupt | ObjectNotFound) -> None:
        """Raises *exc* where it cannot be avoided."""
        if isinstance(exc, ObjectNotFound) and self._moved():
            return
        needing = backups_on(self._repository, exc.name) if exc.name else []
        if not needing:
            raise exc
        self._first = self._first or exc
        for each in needing:
            log.warning("backup.avoided", extra={"key": str(each), "error": str(exc)})
            self._aside[each] = str(exc)
            self._repository.set_aside(each)

    def _moved(self) -> bool:
        """Whether the objects that are there are others by now."""
        if self._listings == LISTINGS_MAX:
            return False
        self._listings += 1
        before = self._repository.catalogue.sizes.keys()
        self._repository = self._read()
        for each in self._aside:
            self._repository.set_aside(each)
        return self._repository.catalogue.sizes.keys() != before

    def _require_meant(self, chosen: Chosen) -> None:
        """A backup that was set aside stood at a restore point itself. If that is newer than what was found without it,
        and would have been found, then something newer was meant."""
        until, at = self._target.until, chosen.point.position
        if self._first is None or until is None:
            return
        order = [each.generation for each in self._repository.catalogue.generations]
        found = (order.index(at.generation), at.txid)
        for each in self._aside:
            wanted = self._target.generation in (None, each.generation) and each.time <= until
            if wanted and (order.index(each.generation), each.txid) > found:
                raise self._first

    def _told(self, chosen: Chosen) -> Chosen:
        told = tuple(
            f"{each.backup_id} was gone round, since it is damaged: {fault}"
            for each, fault in self._aside.items()
        )
        return replace(chosen, notes=(*chosen.notes, *told))
