"""When freed memory is given back: once, after work, and not during it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from replicator.heap import WORTH_SECONDS, Heap

ROOT = Path(__file__).resolve().parents[2]


class Times:
    def __init__(self) -> None:
        self.now = self.used = 0.0
        self.trims = 0
        self.heap = Heap(self.trim, now=lambda: self.now, used=lambda: self.used)

    def trim(self) -> None:
        self.trims += 1

    def pass_by(self, seconds: float, *, working: float) -> None:
        self.now += seconds
        self.used += working
        self.heap.look()


def test_memory_goes_back_once_the_work_is_over() -> None:
    times = Times()
    times.pass_by(5.0, working=4.0)
    assert 0 == times.trims
    times.pass_by(5.0, working=0.01)
    assert 1 == times.trims
    times.pass_by(5.0, working=0.01)
    assert 1 == times.trims


def test_little_work_is_not_worth_it_until_it_adds_up() -> None:
    times = Times()
    looks = 0
    while not times.trims:
        times.pass_by(5.0, working=0.02)
        looks += 1

    assert looks * 0.02 >= WORTH_SECONDS


def test_the_c_library_is_asked() -> None:
    """With one that cannot, too."""
    used = iter([0.0, 0.0, WORTH_SECONDS, WORTH_SECONDS])
    Heap(now=iter([0.0, 60.0]).__next__, used=used.__next__).look()

    assert [] == list(used)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_pieces_go_back_at_once() -> None:
    """Logs are made in one thread after the other, while others hold small pieces: none of the large ones stays."""
    script = """
        import threading
        from replicator.heap import Heap

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096

        def make_log():
            large = bytearray(20 << 20)
            small = [bytes(600) for _ in range(100)]
            others = [bytearray(4 << 20) for _ in range(4)]
            kept.append(small)

        kept, heap = [], Heap()
        before = resident()
        for _ in range(4):
            threads = [threading.Thread(target=make_log) for _ in range(3)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        print(resident() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    grown = int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)

    assert grown < 6 << 20
