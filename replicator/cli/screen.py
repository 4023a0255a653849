"""What a person reads: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from replicator.cli.frame import Settings, settings_of
from replicator.core.errors import UsageError
from replicator.core.times import ago, format_time

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


class Screen:
    """The two outputs of one run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def json(self) -> bool:
        return self._settings.json

    @property
    def quiet(self) -> bool:
        return self._settings.quiet

    def result(self, line: str = "", *, lead: str = "") -> None:
        """A line of what was asked for. *lead* stands before it as it is, colours and all."""
        click.echo(lead + tame(line), color=self._settings.color)

    def text(self, lines: str) -> None:
        """Several lines that are all our own."""
        for line in lines.splitlines():
            self.result(line)

    def document(self, content: dict[str, Any]) -> None:
        """One object on one line, so that several are JSON Lines; *content* names its ``kind``."""
        assert "kind" in content
        click.echo(json.dumps(content))

    def note(self, text: str) -> None:
        """Something to know beside the result; silent with --quiet."""
        if not self._settings.quiet:
            click.echo(f"note: {tame(text)}", err=True)

    def say(self, line: str) -> None:
        """Progress and plans; silent with --quiet."""
        if not self._settings.quiet:
            click.echo(tame(line), err=True, color=self._settings.color)

    @property
    def draws(self) -> bool:
        """Whether something that moves may be drawn on standard error."""
        return sys.stderr.isatty() and not self._settings.quiet and not self._settings.json


def tame(text: str) -> str:
    """*text* on one line, with no character in it that takes hold of a terminal, hides something, or is none: names and
    records come from stores that anybody may have written to."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def screen_of(ctx: click.Context) -> Screen:
    return Screen(settings_of(ctx))


def confirm(screen: Screen, plan: str, *, yes: bool) -> None:
    """Show what would be done, and ask. Raises click.Abort, or UsageError where nobody can answer."""
    for line in plan.splitlines():
        screen.say(line)
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("this wants a yes, and nobody can be asked", hint="confirm it with --yes")
    click.confirm("Do it?", abort=True, err=True)


def size_text(size_bytes: int) -> str:
    """A size for the eye, rounded: ``1.2 MiB``."""
    size, unit = float(size_bytes), 0
    while size >= 999.5 and unit < len(_SIZES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_SIZES[unit]}" if unit == 0 or size >= 99.5 else f"{size:.1f} {_SIZES[unit]}"


def seconds_text(seconds: float) -> str:
    """A duration for the eye: ``40 ms``, ``3.2 s``, ``2 min``, ``5.0 h``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count_text(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def time_text(micros: int, now: int) -> str:
    return f"{format_time(micros)} ({ago(micros, now)})"


def columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Lines with the cells of each column below each other; *right* are columns of figures."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
