"""One measurement in a folder of its own: a database, a store, an agent, writers and a probe."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import databases, proc
from benchmarks.rounds import Session
from benchmarks.setting import ROOT, Remote, Setting, environment

READY_SECONDS = 600.0
SETTLE_SECONDS = 60.0


@dataclass(slots=True)
class Bench:
    """Everything lies below *folder*: `app/` the database and whatever an agent keeps beside it, `store/`."""

    folder: Path
    setting: Setting
    made: Path
    agent: subprocess.Popen[bytes] | None = None
    patience: float = 40.0
    """How long a rest is waited for; 0.5.17 comes to none after the first full of a larger database."""
    proves: bool = True
    remote: Remote | None = None
    """Where the store lies, if not in the folder; what comes to be there is mirrored into that folder then."""
    counter_before: int = 0
    resting: int = 0
    ledger: tuple[int, int] = (0, 0)
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _seen: list[tuple[int, int]] = field(default_factory=list)
    _read: int = 0
    _bases: dict[str, int] = field(default_factory=dict)

    @property
    def db(self) -> Path:
        return self.folder / "app" / "app.db"

    @property
    def wal(self) -> Path:
        return self.folder / "app" / "app.db-wal"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def pid(self) -> int:
        assert self.agent is not None
        return self.agent.pid

    # --- agent -----------------------------------------------------------------------------------------

    def place(self) -> None:
        databases.place(self.made, self.db)
        self.store.mkdir()
        self.ledger = databases.ledger_root(self.db)
        self.counter_before = self.resting = databases.ledger_total(self.db)

    def start_agent(self, *, timeout: float = READY_SECONDS) -> float:
        """Seconds until the database could be restored from the store; 0 where there is no agent to start."""
        if self.setting.side == "none":
            return 0.0
        self.agent = self.setting.start([(self.db, self.store)], self.folder, self.remote)
        return proc.wait_for(self._protected, f"first full of {self.setting.name}", timeout)

    def _protected(self) -> bool:
        self.require_agent()
        return self.setting.protects(self.store)

    def agent_log(self) -> str:
        path = self.folder / "agent.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def settle(self, *, compacted: bool = False) -> None:
        """Until the agent came to rest, or patience is over; *compacted*: and did what follows a first full.

        0.5.17 compacts for the first time on the next half minute.
        """
        if compacted:
            with contextlib.suppress(TimeoutError):
                done = lambda: self.setting.compacted(self.store)  # noqa: E731 - a condition
                proc.wait_for(done, "the first compaction", self.patience, every=0.1)
        proc.wait_quiet(self.pid, self.patience, seconds=min(3.0, self.patience / 3))
        self.require_agent()

    def require_agent(self) -> None:
        """What has ended costs nothing; that would be a fine figure."""
        if self.agent is not None and self.agent.poll() is not None:
            raise RuntimeError(f"{self.setting.name} ended: {self.agent_log()[-800:]}")

    def stop_agent(self) -> None:
        if self.agent is not None:
            proc.end(self.agent)
            self.agent = None

    def local_bytes(self) -> int:
        """Disk that the agent uses beside the database and the store: its state, and temporary files."""
        names = [self.db.name + suffix for suffix in ("", "-wal", "-shm")]
        return proc.disk_bytes(self.folder / "app", without=names) + proc.disk_bytes(self.folder / "tmp")

    # --- writers ---------------------------------------------------------------------------------------

    def writer(self, *arguments: object, log: str | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.writer", str(self.db), *map(str, arguments)]
        if log is not None:
            command += ["--log", str(self.folder / log)]
        return self.keep(
            subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment(self.folder))
        )

    def keep(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Ends with the measurement at the latest, however that ends."""
        self._others.append(process)
        return process

    def reader(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.reader", str(self.db)]
        return self.keep(subprocess.Popen(command, cwd=ROOT, env=environment(self.folder)))

    def write(self, *arguments: object, log: str | None = None) -> dict[str, Any]:
        return summary(self.writer(*arguments, log=log))

    def acknowledged(self, log: str) -> list[tuple[int, int]]:
        """(counter, unix micros) of each commit."""
        lines = (self.folder / log).read_text("ascii").splitlines()
        return [(int(counter), int(micros)) for counter, micros in (line.split() for line in lines)]

    # --- the store, from outside -----------------------------------------------------------------------

    def start_agent_again(self, *, fulls: int) -> None:
        """Until the store holds that many fulls of ours."""
        self.agent = self.setting.start([(self.db, self.store)], self.folder)
        found = lambda: len(list(self.store.glob("full/*/*/*/*.full"))) >= fulls  # noqa: E731 - a condition
        proc.wait_for(found, "another full", READY_SECONDS)

    def start_probe(self) -> None:
        log = self.folder / "probe.log"
        command = [sys.executable, "-m", "benchmarks.probe", str(self.store), str(log)]
        self.keep(subprocess.Popen(command, cwd=ROOT))
        proc.wait_for(lambda: log.exists() and log.stat().st_size > 0, "the probe", 20)

    def seen(self) -> list[tuple[int, int]]:
        """(unix micros, newest counter in the object that appeared then), of all objects so far."""
        # Up to the last line that is written whole.
        lines = (self.folder / "probe.log").read_text("utf-8").rpartition("\n")[0].splitlines()[1:]
        for line in lines[self._read :]:
            micros, _, path = line.partition(" ")
            counter: int | None = None
            with contextlib.suppress(FileNotFoundError):  # compacted away since
                counter = self.setting.counter_in(
                    self.store, Path(path), self.ledger, self._bases, self.resting
                )
            if counter is not None:
                self._seen.append((int(micros), counter))
            self._read += 1
        return self._seen

    def wait_for_commit(self, counter: int, timeout: float = SETTLE_SECONDS) -> int:
        """Unix micros at which an object with commit number *counter* or a later one had appeared."""
        ends = time.monotonic() + timeout
        while True:
            for micros, newest in self.seen():
                if newest >= counter:
                    return micros
            self.require_agent()
            if time.monotonic() > ends:
                raise TimeoutError(f"{self.setting.name}: commit {counter} never reached the store")
            time.sleep(0.05)

    def prove(self) -> None:
        """Restore, and compare with the source; call it with all writers at rest and everything shipped.

        In the first round only: the rounds after it are the same work.
        """
        if not self.proves:
            return
        out = self.folder / "proof.db"
        self.setting.restore(self.store, out, remote=self.remote, folder=self.folder, database=self.db)
        ours, theirs = databases.proof(self.db, whole=True), databases.proof(out, whole=True)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{out}{suffix}").unlink(missing_ok=True)
        if ours != theirs:
            raise AssertionError(f"{self.setting.name}: restored {theirs}, the source is {ours}")

    def close(self) -> None:
        self.stop_agent()
        for process in self._others:
            proc.end(process)
            if process.stdout is not None:
                process.stdout.close()


def summary(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a writer says at its end."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a writer failed with {process.returncode}")
    found: dict[str, Any] = json.loads(out)
    return found


def run_measured(command: list[str], folder: Path) -> dict[str, float]:
    """Run to the end: seconds, CPU and peak memory. Raises RuntimeError with its last words."""
    errors = folder / "errors.log"
    with open(errors, "wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=environment(folder), stdout=log, stderr=log)
        # Its highest so far, and rarely: whoever measures needs the processor, too.
        with proc.Sampler(0.05, rss=lambda: proc.rss_mb(process.pid, peak=True)) as sampler:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = time.monotonic() - began
        cpu, peak = proc.cpu_seconds(process.pid), sampler.peak["rss"]
    if process.wait():
        raise RuntimeError(f"{Path(command[0]).name} failed: {errors.read_text('utf-8', 'replace')[-500:]}")
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_rss_mb": peak}


@contextlib.contextmanager
def bench(session: Session, setting: Setting, megabytes: int = 0, *, placed: bool = True) -> Iterator[Bench]:
    """A measurement; its folder goes afterwards."""
    made = databases.template(session.scratch / "made", megabytes)
    folder = session.scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "tmp").mkdir()
    found = Bench(folder, setting, made, patience=session.pick(2.0, 40.0), proves=session.round == 0)
    try:
        if placed:
            found.place()
        yield found
    finally:
        found.close()
        shutil.rmtree(folder, ignore_errors=True)
