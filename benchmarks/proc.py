"""CPU, memory and disk of processes, from /proc and the file system; and processes that end when told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """*pid* and all that it started."""
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        found.append(each)
        for task in _listed(f"/proc/{each}/task"):
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{each}/task/{task}/children").read_text().split()
                todo += [int(child) for child in children]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree so far."""
    total = 0.0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            coarse = sum(int(field) for field in fields[11:15]) / TICKS
            # Threads that ended are in the coarse sum only, and that is cut to whole ticks.
            total += max(coarse, _of_threads(each))
    return total


def cpu_seconds_at_rest(pid: int) -> float:
    """The same to the nanosecond, without threads that have ended: for differences while none does."""
    return sum(_of_threads(each) for each in tree(pid))


def _of_threads(pid: int) -> float:
    fine = 0
    for task in _listed(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            fine += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return fine / 1e9


def context_switches(pid: int) -> int:
    """Voluntary switches of all threads: how often something woke up."""
    total = 0
    for each in tree(pid):
        for task in _listed(f"/proc/{each}/task"):
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{each}/task/{task}/status").read_text().splitlines()
                total += int(next(x for x in lines if x.startswith("voluntary")).split()[1])
    return total


def open_files(pid: int) -> int:
    return sum(len(_listed(f"/proc/{each}/fd")) for each in tree(pid))


def rss_mb(pid: int, *, peak: bool = False) -> float:
    """Resident memory of the tree in MB; *peak*: the sum of what each process had at most."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    total = 0.0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/status").read_text().splitlines():
                if line.startswith(wanted):
                    total += int(line.split()[1]) * 1024 / 1e6
    return total


def disk_bytes(folder: Path, *, without: Iterable[str] = ()) -> int:
    """Bytes of all files below *folder* (allocated ones, as `du` counts), but for some names."""
    skipped = set(without)
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            if name not in skipped:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(base, name)).st_blocks * 512
    return total


def stored(folder: Path) -> tuple[int, int]:
    """How many files lie below *folder*, and the bytes in them."""
    count = total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(base, name)).st_size
                count += 1
    return count, total


class Sampler:
    """Calls functions every so often and keeps the largest value of each."""

    def __init__(self, seconds: float = 0.02, **probes: Callable[[], float]) -> None:
        self.peak = dict.fromkeys(probes, 0.0)
        self._probes = probes
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._seconds):
            self.look()

    def look(self) -> None:
        for name, probe in self._probes.items():
            with contextlib.suppress(OSError):
                self.peak[name] = max(self.peak[name], probe())


def size_of(path: Path) -> Callable[[], float]:
    """A probe of a file's size; 0 while there is none."""

    def size() -> float:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    return size


def end(process: subprocess.Popen[bytes], patience: float = 60.0) -> int:
    """SIGTERM to a process that we started, SIGKILL when that takes too long."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def wait_for(true: Callable[[], bool], what: str, timeout: float, every: float = 0.01) -> float:
    """Seconds until *true*; TimeoutError says *what* never came."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > timeout:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s")
        time.sleep(every)
    return time.monotonic() - began


QUIET_SHARE = 0.05


def wait_quiet(pid: int, timeout: float, *, seconds: float = 3.0) -> None:
    """Until the tree used less than a twentieth of a core for some seconds, or *timeout* is over."""
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        before = cpu_seconds(pid)
        time.sleep(seconds)
        if cpu_seconds(pid) - before < QUIET_SHARE * seconds:
            return


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
