"""The heap: what was freed goes back to the system, large pieces at once and small ones after the work."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable

# A share of a core below which a process counts as quiet, and the CPU seconds worth a look at the heap: in a shorter
# time little was allocated that is not in use again. To look costs some milliseconds for a hundred megabytes.
QUIET_SHARE = 0.05
WORTH_SECONDS = 0.5
# Larger pieces are mapped each by itself. glibc has such a limit, but raises it to 32 MiB with the first log or pack
# that is freed; from then on these lie in the heaps of all threads, and what is freed between two others stays: 300 MiB
# beside a busy database, of which 15 were in use, and 50 with the limit held.
MAPPED_BYTES = 256 << 10
_M_MMAP_THRESHOLD = -3


class Heap:
    """Of this process. The C library keeps what was freed between two pieces that are in use: after a bulk load, or
    the first full backups of many databases, as much again as the process needs at rest."""

    def __init__(
        self,
        trim: Callable[[], None] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._trim = trim or _trim_of_libc()
        _hold_threshold()
        self._now, self._used = now, used
        self._looked = now(), used()
        self._trimmed = used()

    def look(self) -> None:
        """Now and then: give back what is free, once, when the work is over."""
        (then, before), now, used = self._looked, self._now(), self._used()
        self._looked = now, used
        if used - before <= QUIET_SHARE * (now - then) and used - self._trimmed >= WORTH_SECONDS:
            self._trim()
            self._trimmed = self._used()


def _hold_threshold() -> None:
    """glibc's mallopt(3), for the whole process; other C libraries have none, and do not move theirs."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def _trim_of_libc() -> Callable[[], None]:
    """glibc's malloc_trim(3); other C libraries have none, and most need none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda: None
    return lambda: trim(0)
