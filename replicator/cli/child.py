"""The application as a child of the agent: started, given our signals, waited for, never harmed.

As process 1 of a container we are also the parent of every orphan in it, so every dead child is collected.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
# A terminal sends these to its whole foreground group: the child, too, has them already.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


class Child:
    """A process with our standard input, output and error, in our process group."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start *command*; raises OSError where that is not possible."""
        # No preexec_fn: Python code between fork and exec may hang in a process with threads.
        self._process = subprocess.Popen(list(command))
        self.code: int | None = None

    def forward(self, number: int) -> None:
        """Give the child a signal that we got, unless it got it from the terminal as well."""
        if self.code is None and not (number in _FROM_TERMINAL and _in_foreground()):
            self._process.send_signal(number)

    def collect(self) -> None:
        """Collect whoever has ended; afterwards ``code`` is set if the child was among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._process.pid:
                code = os.waitstatus_to_exitcode(status)
                self._process.returncode = code
                self.code = 128 - code if code < 0 else code


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
