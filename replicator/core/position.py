"""Where we are: generations, transactions, positions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from replicator.core.errors import UsageError

GenerationId = NewType("GenerationId", str)
"""16 hexadecimal digits; drawn at random when a generation begins."""

TXID_MAX = (1 << 64) - 1

_GENERATION = re.compile(r"[0-9a-f]{16}")
_TXID_HEX = re.compile(r"[0-9a-fA-F]{16}")
_TXID_DECIMAL = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A restore point: the database after commit number *txid* of a generation.

    txid 0 is the state the generation began with.
    """

    generation: GenerationId
    txid: int

    def __str__(self) -> str:
        return f"{self.generation}/{self.txid:016x}"


def parse_generation(text: str) -> GenerationId:
    """A generation as a person types it: all 16 digits."""
    if not _GENERATION.fullmatch(text.lower()):
        raise UsageError(
            f"not a generation: {text!r}", hint="a generation is 16 hexadecimal digits; see `ls`"
        )
    return GenerationId(text.lower())


def parse_txid(text: str) -> int:
    """16 digits are hexadecimal, as we print them; fewer are decimal."""
    if _TXID_HEX.fullmatch(text):
        return int(text, 16)
    if _TXID_DECIMAL.fullmatch(text):
        return int(text)
    raise UsageError(
        f"not a txid: {text!r}", hint="give 16 hexadecimal digits as `ls` prints them, or a decimal number"
    )


def parse_position(text: str) -> Position:
    """The inverse of ``str(position)``."""
    generation, slash, txid = text.partition("/")
    if not slash:
        raise UsageError(f"not a position: {text!r}", hint="a position is <generation>/<txid>")
    return Position(parse_generation(generation), parse_txid(txid))
