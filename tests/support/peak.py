"""The most memory that this process has had, for tests that start one to find it out."""

from __future__ import annotations


def peak() -> int:
    """Bytes, since this program was started: what getrusage says begins with the peak of whoever started it."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
