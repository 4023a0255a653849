"""The manifests of a repository, each read once: they are put once and do not change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental
from replicator.core.names import BackupName
from replicator.repository.reading import Repository

log = logging.getLogger(__name__)


class Manifests:
    """Those that are there, as of the last time they were asked for; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[BackupName, Manifest | Incremental] = {}

    def of(self, repository: Repository) -> Mapping[BackupName, Manifest | Incremental]:
        """Without those that cannot be read, which are told of."""
        with self._lock:
            found: dict[BackupName, Manifest | Incremental] = {}
            for listing in repository.catalogue.generations:
                for name in listing.backups:
                    try:
                        found[name] = self._known.get(name) or repository.backup(name)
                    except (ObjectCorrupt, ObjectNotFound) as exc:
                        log.warning("backup.unreadable", extra={"key": str(name), "error": str(exc)})
            self._known = found
            return found

    def forget(self) -> None:
        """Read them anew: whoever looks for damage wants them as they lie there now."""
        with self._lock:
            self._known = {}
