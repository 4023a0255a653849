"""`verify` where backups are gone: hurt, with all that nothing leads to any more; and what a repair makes of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.core.catalogue import Listed
from replicator.core.coverage import Stretch
from replicator.core.names import EventName, FullName, IncrementalName, parse_name
from replicator.store.sealed import SealedStore
from replicator.verify import LEVELS, Limits, Report, verify
from tests.support.clinic import SOURCES, Clinic
from tests.support.memory_store import FaultyStore


@pytest.fixture(params=list(SOURCES))
def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clinic]:
    made = Clinic(tmp_path, SOURCES[request.param])
    yield made
    made.close()


def look(clinic: Clinic, level: str = "content") -> Report:
    return verify(SealedStore(clinic.inner, clinic.keys), level, Limits(), restore=lambda *_: None)


def lost(report: Report) -> list[tuple[int, int]]:
    return [(each.stretch.txid_first, each.stretch.txid_last) for each in report.lost]


def take_away(clinic: Clinic, *kinds: type) -> list[str]:
    names = [name for kind in kinds for name in clinic.names(kind)]
    for name in names:
        clinic.objects.delete(name)
    return names


@pytest.mark.parametrize("level", LEVELS)
def test_without_any_full_all_is_lost_and_each_is_named(clinic: Clinic, level: str) -> None:
    """At every level, whatever else is left; the whole range, from the first that was there on."""
    first = parse_name(clinic.names(FullName)[0])
    assert isinstance(first, FullName)
    names = take_away(clinic, FullName)
    report = look(clinic, level)

    assert set(names) <= {each.name for each in report.found}
    assert [(first.txid, clinic.position.txid)] == lost(report)


def test_without_fulls_and_without_records_what_lies_on_them_tells(clinic: Clinic) -> None:
    """The incrementals stand on nothing: from where the oldest of them began."""
    first = min(
        name.txid_from
        for each in clinic.names(IncrementalName)
        if isinstance(name := parse_name(each), IncrementalName)
    )
    take_away(clinic, FullName, EventName)
    report = look(clinic)

    assert {each.name for each in report.found} == {*clinic.names(IncrementalName)}
    ((begins, ends),) = lost(report)
    assert begins <= first
    assert clinic.position.txid == ends


def test_without_the_oldest_full_what_only_it_led_to_is_lost(clinic: Clinic) -> None:
    """Logs are there, and nothing to begin with; a repair sets it aside with what lies on it, and then all is well."""
    oldest, newer = (parse_name(each) for each in clinic.names(FullName))
    assert isinstance(oldest, FullName)
    assert isinstance(newer, FullName)
    clinic.objects.delete(str(oldest))
    report = look(clinic)

    assert str(oldest) in {each.name for each in report.found}
    assert [(oldest.txid, newer.txid - 1)] == lost(report)
    done = clinic.repair()
    assert str(oldest) in done["set_aside"]
    assert done["full"]
    after = look(clinic)
    assert ([], []) == (after.found, after.lost)
    clinic.require_all(but=[each.txid for each in clinic.digests if each.txid < newer.txid])


def test_without_any_full_a_repair_makes_one_and_is_content(clinic: Clinic) -> None:
    """What cannot be had again is set aside; from the new full on everything is restored."""
    names = take_away(clinic, FullName)
    done = clinic.repair()
    after = look(clinic)
    clinic.commit(2)

    assert set(names) <= set(done["set_aside"])
    assert done["full"]
    assert ([], []) == (after.found, after.lost)
    newest = clinic.position.txid
    clinic.require_all(but=[each.txid for each in clinic.digests if each.txid < newest - 2])


def test_a_full_that_is_gone_comes_back_from_another_store(clinic: Clinic) -> None:
    """With all that lies on it; no new one is needed."""
    clinic.mirror()
    names = take_away(clinic, FullName)
    done = clinic.repair()

    assert set(names) <= set(done["put_back"])
    assert (None, [], {}) == (done["full"], done["set_aside"], done["left"])
    clinic.require_well()
    clinic.require_all()


def test_what_an_interrupted_pruning_leaves_is_a_note(clinic: Clinic) -> None:
    """Manifest and records went; logs that nothing leads to are still there."""
    oldest, newer = (parse_name(each) for each in clinic.names(FullName))
    assert isinstance(oldest, FullName)
    assert isinstance(newer, FullName)
    for name in clinic.objects.names:
        parsed = parse_name(name)
        backup = (
            parsed.backup_id
            if isinstance(parsed, EventName | FullName | IncrementalName)
            else newer.backup_id
        )
        if backup < newer.backup_id:
            clinic.objects.delete(name)
    report = look(clinic)

    assert ([], []) == (report.found, report.lost)


def test_a_full_that_was_made_while_looking_is_not_lost(clinic: Clinic) -> None:
    """Its record is listed, and its manifest was put after that was looked for."""

    class Slow(FaultyStore):
        def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
            found = super().list(prefix, after)
            return (each for each in found if prefix or not each.name.endswith(".full"))

    store = SealedStore(Slow(clinic.objects), clinic.keys)
    report = verify(store, "names", Limits(), restore=lambda *_: None)

    assert [] == [each.name for each in report.found if each.name.startswith("full/")]


def test_stretches_have_the_times_of_what_is_gone(clinic: Clinic) -> None:
    """As its name tells them."""
    first = parse_name(clinic.names(FullName)[0])
    assert isinstance(first, FullName)
    take_away(clinic, FullName)
    (found,) = look(clinic).lost

    assert isinstance(found.stretch, Stretch)
    assert first.time == found.stretch.time_first
