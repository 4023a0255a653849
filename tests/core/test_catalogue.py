"""A listing, understood: what belongs to which generation, and what is not ours."""

import random
from dataclasses import replace

from replicator.core.catalogue import GenerationListing, Listed, read_listing
from replicator.core.names import FullName, GenerationName, LeaseName, PackName, SegmentName
from replicator.core.position import GenerationId
from replicator.core.records import GenerationRecord, in_succession, newest_of

SECOND = 1_000_000
DAY = 86_400 * SECOND
OLD, NEW, BARE = (GenerationId(f"{number:016x}") for number in (9, 4, 7))


def record_of(generation: GenerationId, began: int) -> GenerationRecord:
    return GenerationRecord(generation, "ab" * 16, 1, began, "first run", 4096, None)


RECORDS = {OLD: record_of(OLD, 5 * DAY), NEW: record_of(NEW, 6 * DAY)}
NAMES = [
    GenerationName(OLD),
    GenerationName(NEW),
    LeaseName(2),
    LeaseName(1),
    FullName(5 * DAY, OLD, 0),
    FullName(7 * DAY, OLD, 90),
    PackName(5 * DAY, OLD, 0, "cd" * 8),
    SegmentName(OLD, 1),
    SegmentName(OLD, 20, 1),
    SegmentName(OLD, 20, 2),
    SegmentName(OLD, 20, 10),
    SegmentName(OLD, 21),
    SegmentName(OLD, 300),
    FullName(6 * DAY, NEW, 0),
    FullName(4 * DAY, BARE, 3),
]
STRAYS = ["README.txt", f"tail/{OLD}/notes", f"full/2025/01/01/{OLD}.full"]


def listing(seed: int = 1) -> list[Listed]:
    found = [Listed(name, 10 + number) for number, name in enumerate([*map(str, NAMES), *STRAYS])]
    random.Random(seed).shuffle(found)
    return [*found, Listed("repository.json", 99)]


def test_a_listing_becomes_generations_in_the_order_they_began() -> None:
    """Whatever the order of the listing: generations by when they began, their objects by txid and part."""
    for seed in range(5):
        catalogue = read_listing(listing(seed), RECORDS, known=("repository.json",))

        assert (
            GenerationListing(BARE, None, (FullName(4 * DAY, BARE, 3),), ()),
            GenerationListing(
                OLD,
                RECORDS[OLD],
                (FullName(5 * DAY, OLD, 0), FullName(7 * DAY, OLD, 90)),
                (
                    SegmentName(OLD, 1),
                    SegmentName(OLD, 20, 1),
                    SegmentName(OLD, 20, 2),
                    SegmentName(OLD, 20, 10),
                    SegmentName(OLD, 21),
                    SegmentName(OLD, 300),
                ),
            ),
            GenerationListing(NEW, RECORDS[NEW], (FullName(6 * DAY, NEW, 0),), ()),
        ) == catalogue.generations
        assert (LeaseName(1), LeaseName(2)) == catalogue.leases


def test_what_is_not_ours_is_reported_and_not_used() -> None:
    """Strays are the names we never write; those that are known by other means are none."""
    catalogue = read_listing(listing(), RECORDS, known=("repository.json",))

    assert sorted(STRAYS) == sorted(catalogue.strays)
    assert "repository.json" in read_listing(listing(), RECORDS).strays
    assert 99 == catalogue.sizes["repository.json"]
    assert len(NAMES) + len(STRAYS) + 1 == len(catalogue.sizes)


def test_a_generation_without_its_record_is_usable() -> None:
    """It began with its oldest full, as far as anybody can say; one with nothing at all sorts first."""
    lonely = GenerationId("cc" * 8)
    catalogue = read_listing([*listing(), Listed(f"tail/{lonely}/{1:016x}.segment", 1)], RECORDS)
    first, bare = catalogue.generations[:2]

    assert (lonely, 0) == (first.generation, first.began)
    assert (BARE, 4 * DAY) == (bare.generation, bare.began)
    assert bare == catalogue.generation(BARE)
    assert catalogue.generation(GenerationId("dd" * 8)) is None


def test_a_record_alone_is_a_generation() -> None:
    """A generation that was only announced is there, with nothing in it; a pack alone makes none."""
    names = [str(GenerationName(NEW)), str(PackName(DAY, OLD, 0, "ef" * 8))]
    catalogue = read_listing([Listed(name, 1) for name in names], RECORDS)

    assert (GenerationListing(NEW, RECORDS[NEW], (), ()),) == catalogue.generations
    assert () == catalogue.strays


def test_a_generation_is_newer_than_the_one_before_it_whatever_the_clock_said() -> None:
    """It was ahead for the first one, and stood still for the third: who asks for the newest gets the fourth."""
    ids = [GenerationId(f"{number:016x}") for number in (7, 5, 9, 3)]
    began = [90 * DAY, 5 * DAY, 6 * DAY, 6 * DAY]
    before = [None, *ids]
    records = {
        each: replace(record_of(each, when), previous=previous)
        for each, when, previous in zip(ids, began, before, strict=False)
    }
    names = [Listed(str(GenerationName(each)), 1) for each in sorted(ids)]

    assert ids == [each.generation for each in read_listing(names, records).generations]
    newest = newest_of(records.values())
    assert newest is not None
    assert ids[-1] == newest.generation


def test_records_that_follow_each_other_in_a_circle_are_in_some_order() -> None:
    """Nobody writes them, but whoever may write to a store can."""
    records = {
        OLD: replace(RECORDS[OLD], previous=NEW),
        NEW: replace(RECORDS[NEW], previous=OLD),
    }

    assert {OLD, NEW} == set(in_succession(records.values()))
