"""Restore points as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import UsageError
from replicator.core.position import (
    TXID_MAX,
    GenerationId,
    Position,
    parse_generation,
    parse_position,
    parse_txid,
)

G = "00112233445566ff"


@given(generation=st.binary(min_size=8, max_size=8), txid=st.integers(0, TXID_MAX))
def test_a_position_reads_back(generation: bytes, txid: int) -> None:
    """What is printed of a position can be typed."""
    position = Position(GenerationId(generation.hex()), txid)

    assert position == parse_position(str(position))


@pytest.mark.parametrize(
    ("text", "txid"),
    [
        ("0", 0),
        ("10", 10),
        ("999999999999999", 999_999_999_999_999),
        ("0000000000000010", 16),  # sixteen digits are hexadecimal, as they are printed
        ("00000000000000fF", 255),
        ("f" * 16, TXID_MAX),
    ],
)
def test_a_txid_is_hexadecimal_as_printed_or_decimal(text: str, txid: int) -> None:
    """Sixteen digits are read as they are printed, fewer as a number."""
    assert txid == parse_txid(text)


@pytest.mark.parametrize("text", ["", "-1", "0x10", "ff", "1" * 17, "1.0", " 1", "1\n", "٣", "g" * 16])
def test_anything_else_is_no_txid(text: str) -> None:
    """Fifteen hexadecimal digits could be meant either way, so they are refused like any other text."""
    with pytest.raises(UsageError, match="not a txid"):
        parse_txid(text)


@pytest.mark.parametrize("text", ["", "0" * 15, "0" * 17, "g" * 16, G + "\n", "../" + G])
def test_a_generation_is_sixteen_digits(text: str) -> None:
    """All of them; upper case is fine when typed."""
    assert G == parse_generation(G.upper())
    with pytest.raises(UsageError, match="not a generation"):
        parse_generation(text)


@pytest.mark.parametrize("text", ["", G, f"{G}/", f"/{G}", f"{G}/x", f"{G}/1/2", "x/1"])
def test_a_position_has_two_parts(text: str) -> None:
    """A generation, a slash, a txid."""
    with pytest.raises(UsageError):
        parse_position(text)
