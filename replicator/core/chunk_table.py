"""The chunks of a full backup while it is made: what each holds, and where it lies."""

from __future__ import annotations

from array import array

from replicator.core.full import HASH_SIZE, Frame, Manifest, Run, build_runs

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

    @property
    def hashes(self) -> bytes:
        return bytes(self._hashes)

    def runs(self) -> tuple[Run, ...]:
        return build_runs(
            [(self._frames[number], slot) for number, slot in zip(self._frame_of, self._slot_of, strict=True)]
        )

    def packs_used(self) -> set[int]:
        """Numbers of the packs that still hold a chunk of the final state."""
        return {self._frames[number].pack for number in set(self._frame_of)}


class Earlier:
    """The chunks of an earlier full: whatever is still the same is not stored again."""

    def __init__(self, manifest: Manifest | None) -> None:
        self._hashes = manifest.hashes if manifest else b""
        self.packs: tuple[str, ...] = manifest.head.packs if manifest else ()
        self._frames: list[Frame] = []
        self._frame_of = array("I")
        self._slot_of = array("H")
        for run in manifest.runs if manifest else ():
            self._frames.append(run.frame)
            number = len(self._frames) - 1
            self._frame_of.extend([number] * run.count)
            self._slot_of.extend(range(run.first, run.first + run.count))

    def find(self, index: int, digest: bytes) -> tuple[Frame, int] | None:
        """Where chunk *index* lies if it has not changed since.

        Only the same place in the file is looked at: pages of a database hardly ever move, and an index of
        all hashes would cost a hundred bytes a chunk.
        """
        if self._hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE] != digest or index >= len(
            self._frame_of
        ):
            return None
        return self._frames[self._frame_of[index]], self._slot_of[index]
