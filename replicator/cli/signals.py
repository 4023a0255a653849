"""Signals as this program takes them: the first one asks to stop, the second one does not ask.

Only handlers that are needed are set, and one that was ignored from the start (nohup, a shell's background
job) stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Handler = Callable[[int], None]


@contextlib.contextmanager
def handled(numbers: tuple[signal.Signals, ...], handler: Handler) -> Iterator[None]:
    """Call *handler* in the main thread for each of these signals while the context lasts."""

    def call(number: int, _: FrameType | None) -> None:
        handler(number)

    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, old in before.items() if old is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, call)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


# Not a person who insists, but one signal that came twice: `timeout` and some shells send it to the process
# and again to its group.
_SAME_SIGNAL_SECONDS = 0.3


class Asked:
    """Whether somebody asked to stop, and by which signal.

    ``at_once`` is called at the first signal, and may raise; without it the signal is only remembered. The
    second signal ends the process: what is half done is made to be found so.
    """

    def __init__(self) -> None:
        self.number = 0
        self.at_once: Callable[[], None] | None = None
        self._first = 0.0

    @property
    def stop(self) -> bool:
        return self.number != 0

    @property
    def exit_code(self) -> int:
        return 128 + self.number

    def __call__(self, number: int) -> None:
        if self.number:
            if time.monotonic() - self._first > _SAME_SIGNAL_SECONDS:
                os._exit(128 + number)
            return
        self.number, self._first = number, time.monotonic()
        if self.at_once is not None:
            self.at_once()
