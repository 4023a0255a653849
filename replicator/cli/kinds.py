"""Kinds of option values, checked while the command line is read: each says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from replicator.core.position import parse_generation, parse_position, parse_txid
from replicator.core.quantities import parse_duration, parse_share, parse_size

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # a generic class only in the newest releases


class _Kind(_ParamType):
    """A parser of ours as click wants it; our errors carry exit code and hint already, and pass."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._parse(value) if isinstance(value, str) else value


TXID = _Kind("txid", parse_txid)
GENERATION = _Kind("generation", parse_generation)
POSITION = _Kind("position", parse_position)
DURATION = _Kind("duration", parse_duration)
SIZE = _Kind("size", parse_size)
SHARE = _Kind("share", parse_share)
