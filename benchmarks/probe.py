"""Watches a store folder and writes down when each object appeared: python -m benchmarks.probe FOLDER LOG.

One line `<unix time in microseconds> <path>` for each file that got its name. Reads inotify itself: the time
is taken when the kernel hands the event over, and watching costs next to nothing beside what is measured.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time

IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_ISDIR = 0x40000000
IN_Q_OVERFLOW = 0x4000
EVENT = struct.Struct("iIII")
LIBC = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Recursive: folders are watched as they appear, and what lay in them already is told at once."""

    def __init__(self, root: str) -> None:
        self.fd = LIBC.inotify_init1(os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._folders: dict[int, str] = {}
        self.told: set[str] = set()
        self.add(root)

    def add(self, folder: str) -> list[str]:
        number = LIBC.inotify_add_watch(self.fd, os.fsencode(folder), IN_MOVED_TO | IN_CREATE)
        if number < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self._folders[number] = folder
        found: list[str] = []
        for entry in os.scandir(folder):
            found += self.add(entry.path) if entry.is_dir() else self._object(entry.path)
        return found

    def read(self) -> list[str]:
        data = os.read(self.fd, 1 << 16)
        found: list[str] = []
        at = 0
        while at < len(data):
            number, mask, _, length = EVENT.unpack_from(data, at)
            name = data[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0")
            at += EVENT.size + length
            if mask & IN_Q_OVERFLOW:
                raise RuntimeError("more objects than the kernel's queue holds: what was missed nobody knows")
            if not name:
                continue
            path = os.path.join(self._folders[number], os.fsdecode(name))
            found += self.add(path) if mask & IN_ISDIR else self._object(path)
        return found

    def _object(self, path: str) -> list[str]:
        name = os.path.basename(path)
        if name.startswith(".") or name.endswith(".tmp") or path in self.told:
            return []
        self.told.add(path)
        return [path]


def main() -> None:
    folder, log = sys.argv[1:]
    watch = Watch(folder)
    watch.told.clear()
    with open(log, "w", encoding="utf-8") as file:
        file.write("ready\n")
        file.flush()
        while True:
            paths = watch.read()
            now = time.time_ns() // 1000
            file.writelines(f"{now} {path}\n" for path in paths)
            file.flush()


if __name__ == "__main__":
    main()
