"""Pulse: whether this process stood still, frozen or asleep with its machine, while the world went on."""

from __future__ import annotations

import threading
from collections.abc import Callable

# Twice what passes between two beats at rest (the agent's safety poll), so that a busy machine is no pause.
PAUSE_SECONDS = 10.0


class Pulse:
    """*now*: seconds that count while the machine sleeps, too."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._beat = now()
        self._pauses = 0

    def beat(self) -> int:
        """Say that we live; returns how many pauses there were so far, one that ends just now among them."""
        with self._lock:
            now = self._now()
            if now - self._beat > PAUSE_SECONDS:
                self._pauses += 1
            self._beat = now
            return self._pauses
