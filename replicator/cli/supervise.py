"""The main thread beside the agent's: it sleeps until a signal, a dead child or the agent's end wakes it.

Everything wakes it through one pipe, so that an idle agent costs no wake-up here either.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time

from replicator.agent import Agent
from replicator.cli.child import FORWARDED, Child
from replicator.cli.signals import STOPPING, Asked, handled
from replicator.core.errors import ReplicatorError

log = logging.getLogger(__name__)

# What an agent that failed beside a running application repeats, so that it is found in any window of a log.
REMIND_SECONDS = 60.0


class Supervisor:
    """Takes our signals while the context lasts; with *forwarding* also those that mean something to a child
    only. The pipe is left to the process's end: a thread of ours may still write to it."""

    def __init__(self, agent: Agent, *, forwarding: bool) -> None:
        self._agent = agent
        self._forwarding = forwarding
        self._signals = contextlib.ExitStack()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._child: Child | None = None
        self._early: list[int] = []
        self.asked = Asked()
        self.failure: BaseException | None = None

    def __enter__(self) -> Supervisor:
        before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._signals.callback(signal.set_wakeup_fd, before)
        numbers = FORWARDED if self._forwarding else STOPPING
        self._signals.enter_context(handled((*numbers, signal.SIGCHLD), self._signalled))
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.close()

    def _signalled(self, number: int) -> None:
        """Runs in the main thread, wherever it is; the wake-up itself went through the pipe."""
        if number == signal.SIGCHLD:
            return
        if self._child is not None:
            self._child.forward(number)
        elif number in STOPPING:
            self.asked(number)
        else:
            self._early.append(number)

    def watch_agent(self) -> None:
        """From now on the agent's end wakes us too."""
        threading.Thread(target=self._wait_for_agent, name="agent-end", daemon=True).start()

    def _wait_for_agent(self) -> None:
        try:
            self._agent.wait()
        except BaseException as exc:
            self.failure = exc
        with contextlib.suppress(OSError):
            os.write(self._writer, b"\0")

    def _sleep(self, seconds: float | None = None) -> None:
        select.select([self._reader], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def wait_for_stop(self) -> None:
        """Until a signal asks us to stop, or the agent has ended by itself."""
        while not self.asked.stop and self.failure is None:
            self._sleep()

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def wait_until_following(self, seconds: float) -> None:
        """Until every database is followed, or waited for since it cannot be; at most *seconds*."""
        deadline = time.monotonic() + seconds
        while not self.asked.stop and time.monotonic() < deadline:
            if self.failure is not None:
                self._agent.stop()
                raise self.failure
            sources = [each.source for each in self._agent.status().values()]
            if all(each.phase in ("following", "disabled") or each.reason for each in sources):
                return
            self._sleep(0.02)

    def wait_for_child(self, child: Child) -> int:
        """Until *child* has ended, giving it our signals; returns its exit code."""
        self._child = child
        if self.asked.stop:  # it came while the child was being started
            child.forward(self.asked.number)
        for number in self._early:
            child.forward(number)
        told = float("-inf")
        while True:
            child.collect()
            if child.code is not None:
                self._child = None
                return child.code
            now = time.monotonic()
            if self.failure is not None and now - told >= REMIND_SECONDS:
                hint = self.failure.hint if isinstance(self.failure, ReplicatorError) else None
                log.error(
                    "agent.failed: the application runs on WITHOUT replication",
                    extra={
                        "error": str(self.failure),
                        "error_type": type(self.failure).__name__,
                        "hint": hint,
                    },
                )
                told = now
            self._sleep(None if self.failure is None else REMIND_SECONDS)
