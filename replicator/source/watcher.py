"""Filesystem events as wake-ups, and nothing more.

Events may be lost without a word (queues overflow), come late, or never (another host's writes on a network
file system): whoever is woken here looks for itself, and looks now and then unasked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

from watchdog.events import (
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

log = logging.getLogger(__name__)

_EVENTS: list[type[FileSystemEvent]] = [
    FileModifiedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
]

Wake = Callable[[], None]
"""Called on watchdog's thread."""


class Watcher:
    """One observer for all databases; a folder is watched once however many of them it holds.

    The folder is watched, not the file: `-wal` need not exist yet, and may be deleted and made again.
    """

    def __init__(self) -> None:
        self._observer: BaseObserver | None = None
        self._lock = threading.Lock()
        self._folders: dict[str, _Folder] = {}
        self._refused = False

    def arm(self, path: str, wake: Wake) -> bool:
        """Begin to report events of the database at *path*; False where there are none to be had: its folder
        does not exist, or the system's limits on watches are reached.

        Whoever arms looks once afterwards: what happened before was not reported.
        """
        folder, name = os.path.split(path)
        with self._lock:
            watched = self._folders.get(folder)
            if watched is None:
                watched = _Folder()
                try:
                    watched.watch = self._running().schedule(watched, folder, event_filter=_EVENTS)
                except OSError as exc:
                    self._tell(folder, exc)
                    return False
                self._folders[folder] = watched
            watched.wakes = {**watched.wakes, name: wake}
        return True

    def _running(self) -> BaseObserver:
        """The observer, made at its first use: it takes one of the system's few inotify instances."""
        if self._observer is None:
            observer = Observer()
            observer.start()
            self._observer = observer
        return self._observer

    def _tell(self, folder: str, exc: OSError) -> None:
        """Once: without events the looks go on, only more often."""
        if os.path.isdir(folder) and not self._refused:
            self._refused = True
            log.warning(
                "events.refused",
                extra={
                    "reason": f"{folder} cannot be watched: {exc}",
                    "hint": "raise fs.inotify.max_user_instances or max_user_watches",
                },
            )

    def disarm(self, path: str) -> None:
        """Stop reporting: under sustained commits events cost a fifth of a core and tell nothing new."""
        folder, name = os.path.split(path)
        with self._lock:
            watched = self._folders.get(folder)
            if watched is None:
                return
            watched.wakes = {key: wake for key, wake in watched.wakes.items() if key != name}
            if not watched.wakes:
                del self._folders[folder]
                if watched.watch is not None and self._observer is not None:
                    with contextlib.suppress(KeyError):
                        self._observer.unschedule(watched.watch)

    def stop(self) -> None:
        with self._lock:
            if self._observer is not None:
                self._observer.stop()
                self._observer.join(timeout=5)
                self._observer = None
                self._folders.clear()


class _Folder(FileSystemEventHandler):
    """Routes the events of one folder by file name."""

    def __init__(self) -> None:
        self.wakes: dict[str, Wake] = {}
        self.watch: ObservedWatch | None = None

    def dispatch(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            name = os.path.basename(os.fsdecode(path))
            main = name.removesuffix("-wal")
            if wake := self.wakes.get(main):
                wake()
