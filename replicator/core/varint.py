"""Unsigned integers in as few bytes as they need (LEB128), with bounds on reading; one value has one spelling."""

from __future__ import annotations

from replicator.core.errors import ObjectCorrupt

_MAX_BYTES = 10  # 64 bits in groups of seven


def put(out: bytearray, value: int) -> None:
    """Append *value*, which must be in 0..2^64-1."""
    assert 0 <= value < 1 << 64, value
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


class Reader:
    """A cursor over bytes that came from a store: every read is bounded."""

    __slots__ = ("_data", "_end", "offset")

    def __init__(self, data: bytes | memoryview, offset: int = 0, end: int | None = None) -> None:
        self._data = memoryview(data)
        self.offset = offset
        self._end = len(self._data) if end is None else end

    def __bool__(self) -> bool:
        return self.offset < self._end

    def varint(self, limit: int = (1 << 64) - 1) -> int:
        """The next integer; one above *limit* is corruption."""
        value = shift = 0
        for _ in range(_MAX_BYTES):
            if self.offset >= self._end:
                raise ObjectCorrupt("a number runs past the end of its part")
            byte = self._data[self.offset]
            self.offset += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if value > limit:
                    raise ObjectCorrupt(f"a number is {value}, above its bound {limit}")
                if not byte and shift:
                    raise ObjectCorrupt("a number is written in more bytes than it needs")
                return value
            shift += 7
        raise ObjectCorrupt("a number is longer than 64 bits")

    def take(self, length: int) -> memoryview:
        """The next *length* bytes; a view into what the reader was given."""
        end = self.offset + length
        if length < 0 or end > self._end:
            raise ObjectCorrupt(f"{length} bytes wanted, {self._end - self.offset} left")
        taken = self._data[self.offset : end]
        self.offset = end
        return taken

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")
