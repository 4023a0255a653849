"""The local queue between captured and shipped: units, appended and synced, in files of some mebibytes.

One thread appends; any number read, each from a place of its own. A unit exists for readers once the
transaction it belongs to is whole and durable, so nobody ever ships half a transaction. Files are deleted
when every reader is past them, but for the last one, whose last unit says where we are.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from replicator.core.errors import ObjectCorrupt, StoreError
from replicator.core.position import GenerationId
from replicator.core.unit import HEADER_SIZE, UnitHeader, decode_unit, parse_unit_header
from replicator.files import FILE_MODE, make_folder, mapped_errors, sync_folder, write_all

# Space comes back a file at a time; a new file costs a sync of the folder.
FILE_BYTES = 8 << 20

# What was appended last stays at hand for readers, who mostly ask for just that.
RECENT_BYTES = 1 << 20

_NAME = re.compile(r"(\d{8})\.units")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Between two units: byte ``offset`` of file ``number``."""

    number: int
    offset: int


# macOS has no fdatasync.
_sync_content = getattr(os, "fdatasync", os.fsync)


class Spool:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._sizes: dict[int, int] = {}
        self._fd = -1
        self._written = Place(0, 0)
        self._end = Place(0, 0)
        self._last: Place | None = None
        self._recent: dict[Place, tuple[UnitHeader, bytes]] = {}
        self._recent_bytes = 0
        self._readers: dict[str, Place | None] = {}

    def open(self) -> None:
        """Find what an earlier run left, and cut off what was torn or belongs to half a transaction."""
        with mapped_errors(f"cannot open the spool {self._folder}"):
            make_folder(self._folder)
            names = sorted(os.listdir(self._folder))
            numbers = [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]
            self._sizes = {number: os.stat(self._path(number)).st_size for number in numbers}
            self._end = Place(numbers[0], 0) if numbers else Place(0, 0)
            for number in numbers:
                self._walk(number, prove=number == numbers[-1])
            for number in numbers:
                if number > self._end.number:
                    os.unlink(self._path(number))
                    del self._sizes[number]
            self._open_last()

    def _walk(self, number: int, *, prove: bool) -> None:
        """Advance the end over the whole transactions in one file; the newest file is proved unit by unit."""
        with open(self._path(number), "rb") as file:
            offset = 0
            while head := file.read(HEADER_SIZE):
                try:
                    header = parse_unit_header(head)
                    if prove:
                        decode_unit(head + file.read(header.size - HEADER_SIZE))
                    elif offset + header.size > self._sizes[number]:
                        return
                except ObjectCorrupt:
                    return
                offset += header.size
                file.seek(offset)
                if header.commits:
                    self._end, self._last = Place(number, offset), Place(number, offset - header.size)

    def _open_last(self) -> None:
        """Go on at the end. Where that fails it is open no more, or what comes next would go to another place."""
        number, size = self._end.number, self._end.offset
        self._fd = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
            sync_folder(self._folder)
        except OSError:
            self.close()
            raise
        self._sizes[number] = size
        self._written = self._end

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- appending -------------------------------------------------------------------------------------

    def append(self, unit: bytes, header: UnitHeader) -> None:
        """Make *unit* durable. It becomes readable, with the parts before it, once it ends a transaction.

        On failure nothing was added: the caller may try the same unit again.
        """
        with mapped_errors(f"cannot write to the spool {self._folder}"):
            if self._fd < 0:
                self._open_last()  # a rewind that could not end
            if self._written.offset >= FILE_BYTES:
                self._begin_file()
            number, offset = self._written.number, self._written.offset
            try:
                os.lseek(self._fd, offset, os.SEEK_SET)
                write_all(self._fd, unit)
                _sync_content(self._fd)
            except OSError:
                self._cut_off(offset)
                raise
        with self._lock:
            self._written = Place(number, offset + len(unit))
            self._sizes[number] = offset + len(unit)
            self._remember(Place(number, offset), header, unit)
            if header.commits:
                self._end, self._last = self._written, Place(number, offset)

    def _cut_off(self, offset: int) -> None:
        """What was not written whole. If that fails, too, it is done before anything is written again."""
        try:
            os.ftruncate(self._fd, offset)
        except OSError:
            self.close()

    def _remember(self, place: Place, header: UnitHeader, unit: bytes) -> None:
        self._recent[place] = header, unit
        self._recent_bytes += len(unit)
        while self._recent_bytes > RECENT_BYTES:
            _, forgotten = self._recent.pop(next(iter(self._recent)))
            self._recent_bytes -= len(forgotten)

    def rewind(self) -> None:
        """Forget the parts of a transaction that could not be captured to its end."""
        self.close()
        with self._lock:
            self._recent.clear()
            self._recent_bytes = 0
        with mapped_errors(f"cannot write to the spool {self._folder}"):
            for number in [each for each in self._sizes if each > self._end.number]:
                os.unlink(self._path(number))
                del self._sizes[number]
            self._open_last()

    def _begin_file(self) -> None:
        number = self._written.number + 1
        # Not O_EXCL: an attempt that failed at the sync has left an empty one.
        fd = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            sync_folder(self._folder)
        except OSError:
            os.close(fd)
            raise
        self.close()
        with self._lock:
            self._fd = fd
            self._sizes[number] = 0
            self._written = Place(number, 0)

    # --- reading ---------------------------------------------------------------------------------------

    @property
    def end(self) -> Place:
        """Behind the newest whole transaction."""
        with self._lock:
            return self._end

    @property
    def beginning(self) -> Place:
        with self._lock:
            return Place(min(self._sizes), 0)

    def bytes_from(self, place: Place) -> int:
        """How much lies between *place* and the end."""
        with self._lock:
            return sum(
                (self._end.offset if number == self._end.number else size)
                - (place.offset if number == place.number else 0)
                for number, size in self._sizes.items()
                if place.number <= number <= self._end.number
            )

    def read(self, place: Place, bytes_max: int) -> tuple[list[tuple[UnitHeader, bytes]], Place]:
        """Units from *place* on, of one generation, at least one if there is any and then up to *bytes_max*.

        Returns them with the place behind the last.
        """
        units, place = self._read_recent(place, bytes_max)
        if units:
            return units, place
        total = 0
        for header, unit, behind in self._units(place):
            other = bool(units) and units[0][0].generation != header.generation
            if other or (units and total + len(unit) > bytes_max):
                break
            units.append((header, unit))
            total += len(unit)
            place = behind
        return units, place

    def _read_recent(self, place: Place, bytes_max: int) -> tuple[list[tuple[UnitHeader, bytes]], Place]:
        """The same, of what is still in memory: nothing, where the first of them is not."""
        units: list[tuple[UnitHeader, bytes]] = []
        total = 0
        with self._lock:
            while place < self._end and (found := self._recent.get(place)) is not None:
                header, unit = found
                other = bool(units) and units[0][0].generation != header.generation
                if other or (units and total + len(unit) > bytes_max):
                    break
                units.append(found)
                total += len(unit)
                place = Place(place.number, place.offset + len(unit))
                if place.offset == self._sizes[place.number] and place < self._end:
                    place = Place(place.number + 1, 0)
        return units, place

    def all_units(self) -> Iterator[tuple[UnitHeader, bytes]]:
        """Everything that is in here, oldest first."""
        for header, unit, _ in self._units(self.beginning):
            yield header, unit

    def last_unit(self) -> bytes | None:
        """The newest unit that ends a transaction; None in an empty spool."""
        if self._last is None:
            return None
        _, unit, _ = next(self._units(self._last))
        return unit

    def place_after(self, unit: UnitHeader) -> tuple[Place, bytes] | None:
        """Behind the unit that covers what *unit* covers, and its bytes; None where it is not in here."""
        wanted = (unit.generation, unit.txid_last, unit.part)
        for header, file, offset, number in self._headers(self.beginning):
            if (header.generation, header.txid_last, header.part) == wanted:
                file.seek(offset)
                return Place(number, offset + header.size), file.read(header.size)
        return None

    def header_at(self, place: Place) -> UnitHeader | None:
        """Header of the unit behind *place*; None at the end."""
        if place == self.end:
            return None
        return next((header for header, *_ in self._headers(place)), None)

    def first_of(self, generation: GenerationId) -> tuple[Place, UnitHeader] | None:
        """Where the first unit of *generation* begins, and its header; None where there is none."""
        for header, _, offset, number in self._headers(self.beginning):
            if header.generation == generation:
                return Place(number, offset), header
        return None

    def generations(self) -> list[GenerationId]:
        """Those that have units in here, oldest first."""
        return list(dict.fromkeys(header.generation for header, *_ in self._headers(self.beginning)))

    def retain(self, reader: str, place: Place | None) -> None:
        """*reader* still needs what lies behind *place*, or with None nothing; files that nobody needs any
        more are deleted. The newest file always stays."""
        with self._lock:
            self._readers[reader] = place
            needed = min((each for each in self._readers.values() if each is not None), default=self._end)
            limit = min(needed.number, self._end.number)
            numbers = [number for number in self._sizes if number < limit]
            for number in numbers:
                del self._sizes[number]
            if numbers:
                self._recent = {at: each for at, each in self._recent.items() if at.number in self._sizes}
                self._recent_bytes = sum(len(unit) for _, unit in self._recent.values())
        with mapped_errors(f"cannot clear the spool {self._folder}"):
            for number in numbers:
                os.unlink(self._path(number))

    def _units(self, place: Place) -> Iterator[tuple[UnitHeader, bytes, Place]]:
        """Units from *place* on, with the place behind each."""
        for header, file, offset, number in self._headers(place):
            file.seek(offset)
            yield header, file.read(header.size), Place(number, offset + header.size)

    def _headers(self, place: Place) -> Iterator[tuple[UnitHeader, BinaryIO, int, int]]:
        """Headers from *place* on, each with the open file, the offset in it and its number."""
        end = self.end
        with self._lock:
            numbers = sorted(number for number in self._sizes if place.number <= number <= end.number)
            limits = {number: self._sizes[number] for number in numbers}
        limits[end.number] = end.offset
        for number in numbers:
            offset = place.offset if number == place.number else 0
            if offset >= limits[number]:
                continue
            with (
                mapped_errors(f"cannot read the spool {self._folder}"),
                open(self._path(number), "rb") as file,
            ):
                while offset < limits[number]:
                    file.seek(offset)
                    header = _spooled_header(file.read(HEADER_SIZE))
                    yield header, file, offset, number
                    offset += header.size

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"{number:08d}.units")


def _spooled_header(head: bytes) -> UnitHeader:
    try:
        return parse_unit_header(head)
    except ObjectCorrupt as exc:
        raise StoreError(f"the spool is damaged: {exc}", hint="its disk lost bytes that were synced") from exc
