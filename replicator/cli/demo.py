"""``demo``: the whole story in half a minute, on local files."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import click

from replicator.cli.frame import Verb
from replicator.cli.screen import Screen, screen_of
from replicator.core.errors import ProofFailed, UsageError


@click.command(cls=Verb)
@click.option("--keep", metavar="DIR", help="Work in this new or empty folder, and leave everything there.")
@click.pass_context
def demo(ctx: click.Context, keep: str | None) -> int:
    """Show it all on a board of tasks: live replication, a crash, a restore, a mistake, the moment before it.

    Every claim is proved as it is told; one that fails ends the demo loudly, with exit code 1. JSON:
    `replicator-demo` {lines[], seconds, folder}; folder is null unless kept.
    """
    from replicator.demo.story import Story, StoryFailed

    screen = screen_of(ctx)
    if keep is not None:
        os.makedirs(keep, exist_ok=True)
        if os.listdir(keep):
            raise UsageError(f"{keep} is not empty", hint="the demo wants a folder of its own")
    began = time.monotonic()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if not screen.json:
            screen.result(line)

    with (
        nullcontext(keep)
        if keep is not None
        else tempfile.TemporaryDirectory(prefix="replicator-demo-") as folder
    ):
        try:
            Story(Path(folder).absolute(), tell).run()
        except StoryFailed as exc:
            failure = ProofFailed(str(exc), hint="keep the files with --keep DIR, and report it")
            failure.exit_code = 1
            raise failure from exc
    _tell_end(screen, lines, time.monotonic() - began, keep)
    return 0


def _tell_end(screen: Screen, lines: list[str], seconds: float, keep: str | None) -> None:
    folder = os.path.abspath(keep) if keep is not None else None
    if screen.json:
        screen.document(
            {"kind": "replicator-demo", "lines": lines, "seconds": round(seconds, 1), "folder": folder}
        )
        return
    screen.result(f"Told in {seconds:.0f} s." + (f" The files are in {folder}." if folder else ""))
