"""Processes that together get so much memory and no more: the kernel ends who takes more."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_limited(limit: int) -> Iterator[Callable[[], None] | None]:
    """What a child calls before it runs; None where control groups may not be made."""
    group = None
    for base, name in ((_V1, "memory.limit_in_bytes"), (_V2, "memory.max")):
        made = base / f"replicator-test-{secrets.token_hex(4)}"
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            (made / name).write_text(str(limit))
        except OSError:
            made.rmdir()
            continue
        group = made
        break

    def enter() -> None:
        assert group is not None
        (group / "cgroup.procs").write_text(str(os.getpid()))

    try:
        yield enter if group is not None else None
    finally:
        if group is not None:
            group.rmdir()
