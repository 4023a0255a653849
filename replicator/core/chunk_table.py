"""The chunks of a full backup while it is made: what each holds, and where it lies."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace

from replicator.core.full import HASH_SIZE, TABLE_CHUNKS, Table, build_runs
from replicator.core.pack import Frame

_NOWHERE = 0xFFFFFFFF


class ChunkTable:
    """For each chunk: its hash, the XOR of its pages' hashes, and the frame it lies in.

    46 bytes a chunk in plain arrays, so that a large database costs what its table costs and no more.
    """

    def __init__(self, chunks: int) -> None:
        self._hashes = bytearray(chunks * HASH_SIZE)
        self._checksums = array("Q", bytes(8 * chunks))
        self._frame_of = array("I", [_NOWHERE]) * chunks
        self._slot_of = array("H", bytes(2 * chunks))
        self._frames: list[Frame] = []

    def __len__(self) -> int:
        return len(self._checksums)

    def resize(self, chunks: int) -> None:
        """The database grew or shrank while it was read."""
        grow = chunks - len(self)
        if grow > 0:
            self._hashes.extend(bytes(grow * HASH_SIZE))
            self._checksums.extend(array("Q", bytes(8 * grow)))
            self._frame_of.extend(array("I", [_NOWHERE]) * grow)
            self._slot_of.extend(array("H", bytes(2 * grow)))
        elif grow < 0:
            del self._hashes[chunks * HASH_SIZE :]
            del self._checksums[chunks:]
            del self._frame_of[chunks:]
            del self._slot_of[chunks:]

    def describe(self, index: int, digest: bytes, checksum: int) -> None:
        self._hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE] = digest
        self._checksums[index] = checksum

    def locate(self, indexes: list[int], frame: Frame, first: int = 0) -> None:
        """Chunks *indexes* lie in *frame*, one behind the other from slot *first* on."""
        number = len(self._frames)
        if self._frames and self._frames[-1] == frame:
            number -= 1
        else:
            self._frames.append(frame)
        for slot, index in enumerate(indexes, first):
            self._frame_of[index] = number
            self._slot_of[index] = slot

    def forget(self, index: int) -> None:
        """What was read of chunk *index* is not what it holds at the end."""
        self._frame_of[index] = _NOWHERE
        self._checksums[index] = 0

    def missing(self) -> list[int]:
        """Chunks not read yet, or forgotten."""
        return [index for index, number in enumerate(self._frame_of) if number == _NOWHERE]

    @property
    def checksum(self) -> int:
        total = 0
        for each in self._checksums:
            total ^= each
        return total

    def tables(self) -> Iterator[Table]:
        """What the manifest says of all of them, so many at a time."""
        for first in range(0, len(self), TABLE_CHUNKS):
            part = slice(first, first + TABLE_CHUNKS)
            located = zip(self._frame_of[part], self._slot_of[part], strict=True)
            runs = build_runs([(self._frames[number], slot) for number, slot in located])
            yield Table(bytes(self._hashes[first * HASH_SIZE : (first + TABLE_CHUNKS) * HASH_SIZE]), runs)

    def renumber(self, packs: Mapping[int, int]) -> None:
        """Packs that hold nothing of the final state are left out, and the others counted anew."""
        self._frames = [
            replace(frame, pack=packs[frame.pack]) if frame.pack in packs else frame for frame in self._frames
        ]

    def packs_used(self) -> set[int]:
        """Numbers of the packs that still hold a chunk of the final state."""
        return {self._frames[number].pack for number in set(self._frame_of)}
