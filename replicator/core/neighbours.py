"""Runs of consecutive numbers, for whoever reads or writes pages and chunks a piece at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def neighbours(indexes: Iterable[int], count_max: int) -> Iterator[list[int]]:
    """Runs of consecutive indexes, each of at most *count_max*."""
    run: list[int] = []
    for index in indexes:
        if run and (index != run[-1] + 1 or len(run) == count_max):
            yield run
            run = []
        run.append(index)
    if run:
        yield run
