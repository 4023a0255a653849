"""The most memory that this process has had, for tests that start one to find it out.

python -m tests.support.peak MODULE ARGUMENT…      runs the module and prints the peak to stderr, in bytes
"""

from __future__ import annotations

import runpy
import sys


def peak() -> int:
    """Bytes, since this program was started: what getrusage says begins with the peak of whoever started it."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


if __name__ == "__main__":
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        print(f"peak {peak()}", file=sys.stderr)
