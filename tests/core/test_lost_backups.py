"""Backups that are gone: told of where something is lost with them, and not where pruning let them go."""

from replicator.core.catalogue import Catalogue, Listed, read_listing
from replicator.core.coverage import Base
from replicator.core.lost_backups import lost_backups
from replicator.core.names import EventName, FullName, IncrementalName, LogName, SegmentName
from replicator.core.position import GenerationId
from replicator.core.records import CHECKSUMMED, DAMAGED, GenerationRecord

HOUR = 3_600_000_000
BEGAN = 1_738_044_000_000_000
A, B = GenerationId("a" * 16), GenerationId("b" * 16)


def full(txid: int, generation: GenerationId = A) -> FullName:
    return FullName(BEGAN, generation, txid)


def incremental(txid_from: int, txid: int) -> IncrementalName:
    return IncrementalName(BEGAN, A, txid_from, txid)


def log(first: int, last: int, generation: GenerationId = A) -> LogName:
    return LogName(BEGAN, generation, first, last)


def told(backup: FullName | IncrementalName, event: str = CHECKSUMMED) -> EventName:
    return EventName(backup.backup_id, event)


def catalogue(*names: object, lived: int = 10 * HOUR, ended: bool = False) -> Catalogue:
    """Of generation A, which ended after so long if *ended* says so, and B goes on."""
    generations = {A: (BEGAN, None), **({B: (BEGAN + lived, A)} if ended else {})}
    records = {
        generation: GenerationRecord(generation, "ab" * 16, 1, began, "first run", 4096, previous)
        for generation, (began, previous) in generations.items()
    }
    more = [f"generations/{generation}.json" for generation in generations]
    return read_listing([Listed(str(each), 1) for each in (*names, *more)], records)


def lost(found: Catalogue) -> list[tuple[str, int]]:
    return [(each.name, each.base.txid) for each in lost_backups(found, found.generations[0])]


def test_one_that_a_record_tells_of_is_lost_with_what_only_it_led_to() -> None:
    """The oldest of several, all of them, one that stands alone: by its own name."""
    spans = [log(1, 10), log(11, 20)]

    assert [(str(full(0)), 0)] == lost(catalogue(told(full(0)), full(10), *spans))
    assert [(str(full(n)), n) for n in (0, 10)] == lost(catalogue(told(full(0)), told(full(10)), *spans))
    assert [(str(full(5)), 5)] == lost(catalogue(full(0), told(full(5)), full(10), log(11, 20)))
    assert [(str(incremental(0, 5)), 5)] == lost(catalogue(full(0), told(incremental(0, 5)), log(7, 9)))
    found = catalogue(told(full(3)), log(4, 9))
    assert [Base(3, BEGAN, whole=False)] == [each.base for each in lost_backups(found, found.generations[0])]


def test_one_that_others_lead_past_is_no_loss() -> None:
    """Each commit of it is restored another way, slower."""
    assert [] == lost(catalogue(full(0), told(full(10)), told(incremental(10, 15)), log(1, 20)))
    assert [] == lost(catalogue(full(0), told(full(10)), log(1, 9), SegmentName(A, 10), SegmentName(A, 12)))


def test_what_pruning_leaves_is_no_loss() -> None:
    """Manifest and records go before what nothing leads to any more."""
    assert [] == lost(catalogue(full(10), told(full(10)), log(1, 10), log(11, 20)))


def test_one_that_was_set_aside_is_no_loss_any_more() -> None:
    """With its manifest or without it: whoever did that has told of it."""
    assert [] == lost(catalogue(told(full(0)), told(full(0), DAMAGED), log(1, 9)))
    assert [] == lost(catalogue(full(0), told(full(0), DAMAGED), log(1, 9)))
    assert [] == lost(catalogue(told(full(0), DAMAGED), log(1, 9), ended=True))


def test_what_lies_on_a_backup_tells_of_it() -> None:
    """Without any record: down to where the lowest of them began. What was set aside tells nothing."""
    first, second = incremental(5, 8), incremental(8, 9)

    assert [(str(first), 5), (str(second), 5)] == lost(catalogue(first, second, log(9, 20)))
    assert [(str(second), 8)] == lost(catalogue(full(0), second, log(1, 20)))
    assert [(str(second), 8)] == lost(catalogue(first, told(first, DAMAGED), second, full(20)))
    assert [] == lost(catalogue(full(5), first, second))
    assert [] == lost(catalogue(first, told(first, DAMAGED), second, told(second, DAMAGED), full(20)))


def test_a_generation_that_ended_had_a_full_if_it_lived_long_enough() -> None:
    """One that goes on may be making its first; one that ended soon may never have had the time."""
    name = f"generation {A}"

    assert [(name, 0)] == lost(catalogue(log(1, 9), ended=True))
    assert [(name, 0)] == lost(catalogue(SegmentName(A, 1), ended=True))
    assert [] == lost(catalogue(log(1, 9), ended=True, lived=HOUR // 2))
    assert [] == lost(catalogue(log(1, 9)))
    assert [] == lost(catalogue(ended=True))


def test_a_record_of_another_generation_tells_nothing() -> None:
    """Nor does one whose backup no manifest can be called after."""
    nobody = EventName(f"20259999T000000Z-{A}-0000000000000000", CHECKSUMMED)

    assert [] == lost(catalogue(told(full(0, B)), log(1, 9)))
    assert [] == lost(catalogue(nobody, log(1, 9)))
