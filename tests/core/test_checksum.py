"""The checksum of a database: the sum of its pages, each at its place."""

import random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.checksum import fold, lock_page, page_hash, pages_checksum

PAGE = random.Random(2).randbytes(512)


@pytest.mark.parametrize("page_size", [512 << n for n in range(8)])
def test_the_lock_page_lies_at_one_gibibyte(page_size: int) -> None:
    """SQLite locks the byte at 1 GiB; the page it lies on is the lock page."""
    locked = lock_page(page_size)

    assert (locked - 1) * page_size <= 1 << 30 < locked * page_size


def test_the_hash_of_a_page_is_seeded_with_its_number() -> None:
    """XXH3-64 of the content, the page number as the seed: the same bytes elsewhere hash differently."""
    assert xxhash.xxh3_64_intdigest(PAGE, seed=7) == page_hash(7, PAGE)
    assert page_hash(7, PAGE) != page_hash(8, PAGE)


@given(fills=st.lists(st.integers(0, 255), min_size=1, max_size=20), first=st.integers(1, 1000))
def test_the_checksum_of_a_run_is_the_sum_of_its_pages(fills: list[int], first: int) -> None:
    """Page by page, or the run at once, or two parts of it folded: the same number."""
    pages = [bytes([fill]) * 512 for fill in fills]
    run = b"".join(pages)
    half = len(pages) // 2
    parts = [
        pages_checksum(run[: half * 512], first, 512),
        pages_checksum(run[half * 512 :], first + half, 512),
    ]

    assert fold(page_hash(first + i, page) for i, page in enumerate(pages)) == pages_checksum(run, first, 512)
    assert pages_checksum(memoryview(run), first, 512) == fold(parts)


def test_swapped_pages_do_not_cancel_out() -> None:
    """Two pages that change places change the checksum; a linear sum would not notice."""
    other = PAGE[::-1]

    assert pages_checksum(PAGE + other, 1, 512) != pages_checksum(other + PAGE, 1, 512)


def test_the_lock_page_counts_as_nothing() -> None:
    """Whatever lies on the lock page, the checksum is that of its neighbours."""
    locked = lock_page(512)
    neighbours = page_hash(locked - 1, PAGE) ^ page_hash(locked + 1, PAGE)

    assert neighbours == pages_checksum(PAGE + PAGE + PAGE, locked - 1, 512)


def test_nothing_sums_to_zero() -> None:
    """No pages are zero, so sums can be built up."""
    assert 0 == fold([]) == pages_checksum(b"", 1, 512)
