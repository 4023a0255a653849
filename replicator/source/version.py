"""Which SQLite the agent brings, and whether one that an application uses can lose commits."""

from __future__ import annotations

import apsw

# The WAL-reset bug: a checkpoint that races a writer's reset of the log. Fixed in 3.51.3, and on the two
# branches that were mended (sqlite.org/wal.html).
_BUG_FIRST = (3, 7, 0)
_BUG_FIXED = (3, 51, 3)
_BRANCHES_FIXED = {(3, 50): 7, (3, 44): 6}


def sqlite_version() -> str:
    """The version of the library that the agent's connections use."""
    return apsw.sqlite_lib_version()


def version_text(number: int) -> str:
    """SQLite's number of a version as it is written: 3054001 is 3.54.1."""
    return ".".join(map(str, _parts(number)))


def has_reset_bug(number: int) -> bool:
    """Whether that version of SQLite has the WAL-reset bug."""
    parts = _parts(number)
    fixed = _BRANCHES_FIXED.get(parts[:2])
    return _BUG_FIRST <= parts < _BUG_FIXED and (fixed is None or parts[2] < fixed)


def _parts(number: int) -> tuple[int, int, int]:
    return number // 1_000_000, number // 1_000 % 1_000, number % 1_000
