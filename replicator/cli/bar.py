"""A progress bar for a restore, where there is a terminal to draw it on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from replicator.restore import Progress

_WORDS = {
    "chunks": "full backup",
    "transactions": "transactions",
    "checksum": "checksum of the database",
    "check": "SQLite's own check",
}


@contextlib.contextmanager
def progress_bar(*, draws: bool, color: bool | None) -> Iterator[Callable[[Progress], None]]:
    """A callable to hand to a restore; it draws on standard error, or with *draws* False does nothing."""
    if not draws:
        yield lambda _: None
        return
    # rich takes longer to import than most restores of a small database.
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    console = Console(stderr=True, no_color=True if color is False else None)
    tasks: dict[str, TaskID] = {}
    with Bars(console=console, transient=True) as bars:

        def report(progress: Progress) -> None:
            total = progress.total or None
            if progress.stage not in tasks:
                for task in tasks.values():  # one stage ends where the next begins
                    bars.update(task, total=1, completed=1)
                tasks[progress.stage] = bars.add_task(_WORDS.get(progress.stage, progress.stage), total=total)
            bars.update(tasks[progress.stage], completed=progress.done, total=total)

        yield report
