"""When freed memory is given back: once, after work, and not during it."""

from __future__ import annotations

from replicator.heap import WORTH_SECONDS, Heap


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
