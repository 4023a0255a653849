"""An agent in a process of its own, for tests that kill it: python -m tests.support.agent_process DB STORE."""

import argparse
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from replicator import pulse, spool
from replicator.agent import Agent
from replicator.config import DatabaseConfig, values
from replicator.core.checkpoint_policy import CheckpointLimits
from replicator.core.errors import ReplicatorError


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("store", nargs="+")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--interval", type=float, default=0.02)
    parser.add_argument("--spool-bytes", type=int, default=1 << 30)
    parser.add_argument("--barrier", default="auto")
    parser.add_argument("--every-commit", action="store_true", help="no merging of commits under overload")
    parser.add_argument("--state")
    parser.add_argument("--take-over", action="store_true")
    parser.add_argument("--log-interval", type=float, default=900.0)
    parser.add_argument("--pause", type=float, help="what counts as having stood still, in seconds")
    parser.add_argument(
        "--sync-seconds", type=float, default=0.0, help="a disk that takes so long for every fsync"
    )
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    logging.basicConfig(
        level=logging.DEBUG if given.debug else logging.INFO,
        stream=sys.stderr,
        format="%(relativeCreated)d %(name)s %(message)s %(reason)s",
    )
    logging.getLogger().handlers[0].formatter = _Formatter()
    if given.every_commit:
        # No setting: an operator has no use for a log without bound. A test that looks for every commit has.
        values.CheckpointLimits = functools.partial(CheckpointLimits, coalesce_bytes=1 << 60)  # type: ignore
    if given.pause is not None:
        pulse.PAUSE_SECONDS = given.pause
    if given.sync_seconds:
        make_slow(given.sync_seconds)
    agent = Agent(
        [
            DatabaseConfig(
                given.database,
                tuple(given.store),
                state=given.state,
                ship_interval=given.interval,
                spool_bytes_max=given.spool_bytes,
                barrier=given.barrier == "auto",
                log_interval=given.log_interval,
                take_over=given.take_over,
            )
        ]
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        agent.start()
        print("ready", flush=True)
        if given.once:
            agent.wait_captured_and_shipped(given.seconds)
        else:
            while not stop.wait(5) and not agent.wait(0):
                pass
        agent.stop()
    except ReplicatorError as exc:
        print(f"error: {type(exc).__name__}: {exc} ({exc.hint})", file=sys.stderr)
        return exc.exit_code
    return 0


def make_slow(seconds: float) -> None:
    """Every fsync of ours takes *seconds*: the one thing that a slow disk does to a program that waits for it."""
    for name in ("fsync", "fdatasync"):
        usual = getattr(os, name)

        def slow(fd: int, usual: Callable[[int], None] = usual) -> None:
            time.sleep(seconds)
            usual(fd)

        setattr(os, name, slow)
    spool._sync_content = os.fdatasync


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        known = set(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime"}
        extra = " ".join(f"{key}={value}" for key, value in record.__dict__.items() if key not in known)
        return f"{record.relativeCreated:.0f} {record.getMessage()} {extra}"


if __name__ == "__main__":
    sys.exit(main())
