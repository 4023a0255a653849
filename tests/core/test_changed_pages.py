"""Which pages changed since when: against a dictionary that remembers every note, and as a file."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.changed_pages import ChangedPages, decode_changed
from replicator.core.errors import ObjectCorrupt
from replicator.core.position import GenerationId

G = GenerationId("00112233445566ff")
Note = tuple[int, dict[int, int]]

pages = st.dictionaries(
    st.integers(1, 3_000) | st.integers(1, 0xFFFFFFFE), st.integers(0, 0xFFFFFFFF), max_size=12
)
histories = st.lists(pages, min_size=1, max_size=12)


def noted(history: list[dict[int, int]], since: int = 0) -> ChangedPages:
    found = ChangedPages(G, since)
    for txid, changes in enumerate(history, since + 1):
        found.note(txid, sorted(changes), [changes[pgno] for pgno in sorted(changes)])
    return found


def expected(history: list[dict[int, int]], after: int, size: int, since: int = 0) -> list[tuple[int, int]]:
    newest: dict[int, int] = {}
    for txid, changes in enumerate(history, since + 1):
        if txid > after:
            newest |= changes
    return sorted((pgno, value) for pgno, value in newest.items() if pgno <= size)


def everything(found: ChangedPages) -> list[list[tuple[int, int]]]:
    return [list(found.newer_than(txid, 0xFFFFFFFF)) for txid in range(found.since, found.txid + 1)]


@given(histories, st.integers(0, 12), st.integers(1, 4_000))
def test_what_changed_after_any_transaction(history: list[dict[int, int]], after: int, size: int) -> None:
    """The newest hash of each page that changed since, up to the end of the database, ascending."""
    found = noted(history)

    assert expected(history, after, size) == list(found.newer_than(after, size))
    assert len(history) == found.txid


@given(histories)
def test_it_reads_back_from_a_file(history: list[dict[int, int]]) -> None:
    """With the generation and the positions that it is complete between."""
    found = noted(history, 5)
    read = decode_changed(found.encode())

    assert (G, 5, 5 + len(history)) == (read.generation, read.since, read.txid)
    assert everything(found) == everything(read)


@given(histories, st.integers(0, 12))
def test_what_nobody_asks_for_is_forgotten(history: list[dict[int, int]], txid: int) -> None:
    """What changed after that is as it was; to forget less than before changes nothing."""
    found, kept = noted(history), noted(history)
    kept.forget(txid)
    kept.forget(txid - 1)

    assert max(0, txid) == kept.since
    for after in range(txid, len(history) + 1):
        assert list(found.newer_than(after, 1 << 32)) == list(kept.newer_than(after, 1 << 32))


@given(histories, histories)
def test_what_comes_later_joins(history: list[dict[int, int]], later: list[dict[int, int]]) -> None:
    """Noted apart and joined, it is as if it had been noted at once."""
    found = noted(history)
    found.join(noted(later, len(history)))

    assert everything(noted([*history, *later])) == everything(found)
    assert len(history) + len(later) == found.txid


def test_a_copy_stays_as_it_is() -> None:
    """Whatever is noted or forgotten after."""
    found = noted([{1: 1, 300: 2}, {2: 3}])
    copied = found.copy()
    before = everything(copied)
    found.note(3, [1, 300], [7, 8])
    found.forget(2)

    assert before == everything(copied)
    assert [(1, 7), (300, 8)] == list(found.newer_than(2, 1_000))


def test_what_was_before_it_began_is_not_answered() -> None:
    """Whoever asks would take it for nothing."""
    with pytest.raises(AssertionError):
        list(noted([{1: 1}], since=5).newer_than(4, 10))


def test_every_flipped_bit_of_the_file_is_noticed() -> None:
    """What is damaged is not half believed."""
    data = noted([{1: 1, 700: 2}, {2: 3}]).encode()
    rng = random.Random(1)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        with pytest.raises(ObjectCorrupt):
            decode_changed(changed)
    for length in range(len(data)):
        with pytest.raises(ObjectCorrupt):
            decode_changed(data[:length])


def test_a_large_database_costs_no_more_than_its_changed_parts() -> None:
    """Two hundred thousand pages of a hundred million take some 14 bytes each."""
    tracemalloc.start()
    found = ChangedPages(G, 0)
    for first in range(1, 100_000_000, 5_000_000):
        pgnos = range(first, first + 10_000)
        found.note(1, pgnos, pgnos)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert size < 200_000 * 15
