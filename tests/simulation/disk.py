"""A disk that remembers what of it is durable: the content of each file as of its last sync, the names in each folder
as of theirs.

It is a model, driven by operations that were carried out on real files (kernel.py), and can be asked what a crash would
leave. An operation is a tuple, so that a run can be written down and gone through again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Operation = tuple[Any, ...]
View = dict[str, bytes | None]
"""Content by path; None is a folder."""


@dataclass(eq=False, slots=True)
class File:
    """``durable`` is None as long as it was never synced."""

    number: int
    now: bytearray = field(default_factory=bytearray)
    durable: bytes | None = None
    _frozen: bytes | None = b""

    def content(self) -> bytes:
        """The same object as long as nothing is written."""
        if self._frozen is None:
            self._frozen = bytes(self.now)
        return self._frozen

    def synced(self) -> bytes:
        return self.durable if self.durable is not None else b""

    def torn(self) -> bytes:
        """Half of what was written since the last sync has reached the disk: an odd number of bytes of what was
        appended, the first half of what was written over."""
        old, new = self.synced(), self.content()
        if old == new:
            return old
        if new.startswith(old):
            return new[: len(old) + ((len(new) - len(old)) // 2 | 1)]
        half = min(len(old), len(new)) // 2
        return new[:half] + old[half:]

    def zeroed(self) -> bytes:
        """It has its size. Of what was appended since the last sync the first half is there, and zeros behind it; what
        was written over is as before."""
        old, new = self.synced(), self.content()
        kept = old[: len(new)] + new[len(old) : (len(old) + len(new)) // 2]
        return kept + bytes(len(new) - len(kept))

    def write(self, offset: int, data: bytes) -> None:
        if len(self.now) < offset:
            self.now.extend(bytes(offset - len(self.now)))
        self.now[offset : offset + len(data)] = data
        self._frozen = None

    def truncate(self, size: int) -> None:
        if size != len(self.now):
            self.now[size:] = bytes(max(0, size - len(self.now)))
            self._frozen = None

    def sync(self) -> None:
        self.durable = self.content()


@dataclass(eq=False, slots=True)
class Folder:
    now: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)


class Reading(Enum):
    """What a crash leaves. KILLED: everything that was written, since the system lives on. STRICT: nothing that was
    not synced. NAMES: as STRICT, but names are there at once. CONTENT: names only where their folder was synced, but
    whatever was written. TORN: as NAMES, with half of what was not synced. ZEROED: as NAMES, with the size
    that files had, and zeros in the place of the second half. ELSEWHERE: as STRICT, but the store is on
    another machine, which lives on."""

    KILLED = "killed"
    STRICT = "strict"
    NAMES = "names"
    CONTENT = "content"
    TORN = "torn"
    ZEROED = "zeroed"
    ELSEWHERE = "elsewhere"


_NAMES_NOW = {Reading.KILLED, Reading.NAMES, Reading.TORN, Reading.ZEROED}
_CONTENT: dict[Reading, Callable[[File], bytes]] = {
    Reading.KILLED: File.content,
    Reading.STRICT: File.synced,
    Reading.NAMES: File.synced,
    Reading.CONTENT: File.content,
    Reading.TORN: File.torn,
    Reading.ZEROED: File.zeroed,
}


class Disk:
    """Paths are relative to its root, with ``/`` between the parts."""

    def __init__(self) -> None:
        self.root = Folder()
        self._files: dict[int, File] = {}
        self._numbers = 0

    # --- operations ------------------------------------------------------------------------------------

    def apply(self, operation: Operation) -> None:
        verb, *arguments = operation
        getattr(self, f"_{verb}")(*arguments)

    def new_number(self) -> int:
        """For ``create``."""
        self._numbers += 1
        return self._numbers

    def _create(self, number: int, path: str | None) -> None:
        """A file; without *path* one that has no name yet."""
        self._numbers = max(self._numbers, number)
        self._files[number] = File(number)
        if path is not None:
            self._put(path, self._files[number])

    def _write(self, number: int, offset: int, data: bytes) -> None:
        self._files[number].write(offset, data)

    def _truncate(self, number: int, size: int) -> None:
        self._files[number].truncate(size)

    def _sync(self, number: int) -> None:
        self._files[number].sync()

    def _sync_folder(self, path: str) -> None:
        folder = self.folder(path)
        folder.durable = dict(folder.now)

    def _link(self, number: int, path: str) -> None:
        self._put(path, self._files[number])

    def _rename(self, source: str, target: str) -> None:
        node = self._parent(source).now.pop(_last(source))
        self._put(target, node)

    def _unlink(self, path: str) -> None:
        del self._parent(path).now[_last(path)]

    def _make_folder(self, path: str) -> None:
        self._put(path, Folder())

    def _put(self, path: str, node: File | Folder) -> None:
        self._parent(path).now[_last(path)] = node

    # --- looking ---------------------------------------------------------------------------------------

    def _parent(self, path: str) -> Folder:
        return self.folder(path.rpartition("/")[0])

    def folder(self, path: str) -> Folder:
        found = self.find(path)
        assert isinstance(found, Folder), path
        return found

    def find(self, path: str) -> File | Folder | None:
        node: File | Folder | None = self.root
        for part in path.split("/") if path else ():
            if not isinstance(node, Folder):
                return None
            node = node.now.get(part)
        return node

    def view(self, reading: Reading, *, store: str = "store") -> View:
        """What is there after a crash. *store*: the folder that is ELSEWHERE."""
        found: View = {}
        if reading is Reading.ELSEWHERE:
            for name, node in self.root.now.items():
                _collect(node, name, Reading.KILLED if name == store else Reading.STRICT, found)
            return found
        _collect(self.root, "", reading, found)
        return found

    @classmethod
    def of(cls, view: View) -> Disk:
        """One on which all of *view* is durable."""
        disk = cls()
        for path, content in sorted(view.items()):
            if content is None:
                disk.apply(("make_folder", path))
            else:
                number = disk.new_number()
                disk.apply(("create", number, path))
                disk.apply(("write", number, 0, content))
                disk.apply(("sync", number))
        for path in ["", *(path for path, content in view.items() if content is None)]:
            disk.apply(("sync_folder", path))
        return disk

    def copy(self) -> Disk:
        """Without files that have no name, durable or not."""
        made = Disk()
        copies: dict[int, File | Folder] = {}
        made.root = _copied(self.root, copies)  # type: ignore[assignment]
        made._files = {each.number: each for each in copies.values() if isinstance(each, File)}
        made._numbers = self._numbers
        return made


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _collect(node: File | Folder, path: str, reading: Reading, found: View) -> None:
    if isinstance(node, File):
        found[path] = _CONTENT[reading](node)
        return
    if path:
        found[path] = None
    entries = node.now if reading in _NAMES_NOW else node.durable
    for name, each in entries.items():
        _collect(each, f"{path}/{name}" if path else name, reading, found)


def _copied(node: File | Folder, copies: dict[int, File | Folder]) -> File | Folder:
    if id(node) in copies:
        return copies[id(node)]
    if isinstance(node, File):
        copies[id(node)] = made = File(node.number, bytearray(node.now), node.durable, node._frozen)
        return made
    copies[id(node)] = folder = Folder()
    folder.now.update({name: _copied(each, copies) for name, each in node.now.items()})
    folder.durable.update({name: _copied(each, copies) for name, each in node.durable.items()})
    return folder
