"""One module a question. Each has `TITLE`, `COLUMNS`, `NOTES`, `PLOTS` and `run(session)`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of the raw rows as the report shows it. *better*: "less", "more", or "" of what only explains."""

    figure: str
    heading: str
    digits: int = 1
    factor: float = 1.0
    better: str = "less"


@dataclass(frozen=True, slots=True)
class Plot:
    """Figure over the cases of a question; cases that are numbers give lines, others bars.

    *prefix*: only cases that begin with it, the rest of the name being the number.
    """

    name: str
    figure: str
    label: str
    title: str
    log: bool = True
    prefix: str = ""
