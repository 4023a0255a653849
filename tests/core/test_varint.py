"""Integers in few bytes, and a reader that never leaves its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import varint
from replicator.core.errors import ObjectCorrupt
from replicator.core.varint import Reader

U64_MAX = 2**64 - 1
NUMBERS = st.one_of(st.integers(0, U64_MAX), st.integers(0, 300), st.integers(0, 63).map(lambda n: 1 << n))


def encoded(*values: int) -> bytes:
    out = bytearray()
    for value in values:
        varint.put(out, value)
    return bytes(out)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2**32 - 1, "ffffffff0f"),
        (U64_MAX, "ffffffffffffffffff01"),
    ],
)
def test_numbers_are_leb128(value: int, written: str) -> None:
    """Seven bits a byte, the lowest first, the top bit set on all but the last."""
    assert written == encoded(value).hex()
    assert value == Reader(bytes.fromhex(written)).varint()


@given(st.lists(NUMBERS))
def test_numbers_read_back(values: list[int]) -> None:
    """Any run of numbers reads back, and the reader then stands at the end."""
    reader = Reader(encoded(*values))
    found = [reader.varint() for _ in values]

    assert values == found
    assert not reader


@given(value=NUMBERS, limit=NUMBERS)
def test_a_number_above_its_limit_is_corruption(value: int, limit: int) -> None:
    """The limit itself is accepted and everything above it is ObjectCorrupt."""
    reader = Reader(encoded(value))
    if value <= limit:
        assert value == reader.varint(limit)
    else:
        with pytest.raises(ObjectCorrupt, match="above its bound"):
            reader.varint(limit)


@pytest.mark.parametrize("written", ["", "80", "ffffffff", "80808080808080808080", "80" * 50])
def test_a_number_without_an_end_is_corruption(written: str) -> None:
    """A number that runs past its part, or past 64 bits, is ObjectCorrupt."""
    with pytest.raises(ObjectCorrupt):
        Reader(bytes.fromhex(written)).varint()


def test_a_number_of_ten_bytes_is_held_to_64_bits() -> None:
    """Ten bytes could hold 70 bits; more than 64 are above any bound."""
    with pytest.raises(ObjectCorrupt, match="above its bound"):
        Reader(bytes.fromhex("ffffffffffffffffff02")).varint()


@given(
    data=st.binary(max_size=64), start=st.integers(0, 70), end=st.integers(0, 64), count=st.integers(-5, 80)
)
def test_taking_stays_within_the_part(data: bytes, start: int, end: int, count: int) -> None:
    """What is taken are exactly the bytes asked for, or it is ObjectCorrupt; nothing beyond the end is seen."""
    end = min(end, len(data))
    reader = Reader(data, start, end)
    if count < 0 or start + count > end:
        with pytest.raises(ObjectCorrupt):
            reader.take(count)
        assert start == reader.offset
    else:
        assert data[start : start + count] == bytes(reader.take(count))
        assert start + count == reader.offset
        assert (start + count < end) == bool(reader)


@given(data=st.binary(max_size=40), end=st.integers(0, 40))
def test_any_bytes_are_read_or_refused(data: bytes, end: int) -> None:
    """Reading numbers from anything ends at the end of the part or in ObjectCorrupt, never elsewhere."""
    end = min(end, len(data))
    reader = Reader(data, 0, end)
    try:
        while reader:
            reader.varint()
    except ObjectCorrupt:
        pass

    assert reader.offset <= end


def test_fixed_numbers_are_big_endian() -> None:
    """Eight bytes or four, the highest first; fewer are ObjectCorrupt."""
    assert 0x0102030405060708 == Reader(bytes(range(1, 9))).u64()
    assert 0x01020304 == Reader(bytes(range(1, 9))).u32()
    with pytest.raises(ObjectCorrupt):
        Reader(bytes(7)).u64()
    with pytest.raises(ObjectCorrupt):
        Reader(bytes(3)).u32()


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_only_64_bit_numbers_are_written(value: int) -> None:
    """Writing a number that cannot be read back is a fault of the program."""
    with pytest.raises(AssertionError):
        varint.put(bytearray(), value)
