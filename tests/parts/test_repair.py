"""`verify --repair` of logs, segments and backups: what is put back and from where, what is set aside, and that every
commit is right afterwards.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator import spool
from replicator.core.log import encode_log
from replicator.core.names import (
    EventName,
    FullName,
    IncrementalName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
)
from replicator.core.records import (
    DAMAGED,
    decode_event,
)
from replicator.store.sealed import SealedStore
from tests.support.clinic import DAMAGES, SOURCES, Clinic, Made
from tests.support.memory_store import FaultyStore, MemoryStore

# --- logs and segments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [LogName, SegmentName])
def test_s48_logs_and_segments_are_put_back_from_the_spool(clinic: Clinic, kind: type, damage: str) -> None:
    """Every one of them at once, byte by byte what it was; no full is needed."""
    hurt = clinic.names(kind)
    before = clinic.content()
    for name in hurt:
        clinic.objects.damage(name, DAMAGES[damage])
    done = clinic.repair()

    assert len(hurt) > 3
    assert sorted(hurt) == sorted(done["put_back"])
    assert (None, [], {}) == (done["full"], done["set_aside"], done["left"])
    assert before == clinic.content()
    clinic.require_well()
    clinic.require_all()


def test_s48_a_hole_is_filled_from_the_spool(clinic: Clinic) -> None:
    """A log and a segment that are gone: verify names what lies behind them, and that stays as it is."""
    before = clinic.content()
    gone = [clinic.names(LogName)[2], clinic.names(SegmentName)[1]]
    for name in gone:
        clinic.objects.delete(name)
    done = clinic.repair()
    log = parse_name(gone[0])
    assert isinstance(log, LogName)

    assert {gone[1], str(SegmentName(log.generation, log.txid_first, 0))} == set(done["put_back"])
    assert before.items() - clinic.content().items() == {(gone[0], before[gone[0]])}
    clinic.require_well()
    clinic.require_all()


@pytest.mark.parametrize("kind", [LogName, SegmentName])
def test_s48_what_the_spool_has_no_more_comes_from_another_store(
    made: Made, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    """The second one, too, where the first is away or damaged itself."""
    monkeypatch.setattr(spool, "FILE_BYTES", 1)  # a file for each unit: what is shipped goes
    clinic = made("sealed")
    assert len(list(clinic.spool.all_units())) < 3
    before = clinic.content()
    good, bad = clinic.mirror(), clinic.mirror()
    away = FaultyStore(MemoryStore("memory://away"))
    away.away = True
    clinic.others = [SealedStore(each, clinic.keys) for each in (away, bad, good)]
    hurt = clinic.names(kind)[1:3]
    for name in hurt:
        clinic.objects.damage(name, DAMAGES["cut"])
        bad.damage(name, DAMAGES["one bit"])
    done = clinic.repair()

    assert hurt == sorted(done["put_back"])
    assert (None, {}) == (done["full"], done["left"])
    assert before == clinic.content()
    clinic.require_all()


@pytest.mark.parametrize("foreign", [1, 2])
def test_s48_what_another_store_has_of_another_history_is_not_taken(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: int
) -> None:
    """Though it is whole by itself, and has the right numbers: what does not chain belongs elsewhere."""
    (tmp_path / "other").mkdir()
    other = Clinic(tmp_path / "other", SOURCES["plain"])
    theirs = {header.txid_first: (header, unit) for header, unit in other.spool.all_units()}
    other.close()
    clinic = made("plain")
    ours = {header.txid_first: (header, unit) for header, unit in clinic.spool.all_units()}
    hurt = clinic.names(LogName)[0]
    name = parse_name(hurt)
    assert isinstance(name, LogName)
    mixed = {**{txid: ours[txid] for txid in (1, 2)}, foreign: theirs[foreign]}
    monkeypatch.setattr(clinic.spool, "all_units", lambda: iter(()))
    clinic.mirror().replace(hurt, encode_log(name, [mixed[1], mixed[2]]))
    clinic.cut(hurt)
    done = clinic.repair()

    assert [] == done["put_back"]
    assert [hurt] == list(done["left"])


def test_s48_what_nobody_has_is_named_and_a_full_is_made(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore points end there, and begin anew at once; what lies around it is as it was."""
    monkeypatch.setattr(spool, "FILE_BYTES", 1)
    clinic = made("plain")
    hurt = clinic.names(SegmentName)[2]
    name = parse_name(hurt)
    assert isinstance(name, SegmentName)
    clinic.cut(hurt)
    done = clinic.repair()
    span = f"{name.txid_first:016x}"

    assert {hurt: f"no spool and no other store has the transactions {span} to {span}"} == done["left"]
    assert [] == done["put_back"]
    assert done["full"]
    clinic.commit(2)
    lost = [each.txid for each in clinic.digests if name.txid_first <= each.txid < name.txid_first + 2]
    clinic.require_all(but=lost)


def test_a_well_segment_that_a_log_has_taken_over_is_left_alone(clinic: Clinic) -> None:
    """An archive that died before it deleted it; somebody names it all the same."""
    log = parse_name(clinic.names(LogName)[1])
    assert isinstance(log, LogName)
    left = str(SegmentName(log.generation, log.txid_first, 0))
    (unit,) = (unit for header, unit in clinic.spool.all_units() if header.txid_first == log.txid_first)
    clinic.store.put(left, unit)
    before = clinic.content()
    done = clinic.repair(left)

    assert [left] == done["well"]
    assert before == clinic.content()


# --- backups -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "kind", ["full/ pack", "full/ manifest", "incremental/ pack", "incremental/ manifest"]
)
def test_s48_a_backup_that_nobody_has_is_set_aside_with_all_that_lies_on_it(
    clinic: Clinic, kind: str, number: int
) -> None:
    """A record says why, and a full is made of the live database; verify finds nothing more, and nobody uses them.
    Every commit still comes back, from what is left, but those that only a lost first full led to."""
    folder, _, what = kind.partition(" ")
    of_kind = [PackName] if what == "pack" else [FullName, IncrementalName]
    names = [each for one in of_kind for each in clinic.names(one) if each.startswith(folder)]
    clinic.cut(names[number])
    manifests = [*clinic.names(FullName), *clinic.names(IncrementalName)]
    txids = {
        each: parsed.txid
        for each in manifests
        if isinstance(parsed := parse_name(each), FullName | IncrementalName)
    }
    # In order: a full at 0, an incremental on it at 3, a full at 6 that needs the pack of the first, one on it at 9.
    lost = {
        "full/ pack": [{0, 3, 6, 9}, {6, 9}],
        "full/ manifest": [{0, 3}, {6, 9}],
        "incremental/ pack": [{3}, {9}],
        "incremental/ manifest": [{3}, {9}],
    }[kind][number]
    done = clinic.repair()
    newest = max(each.txid for each in clinic.digests)
    first = min({0, 3, 6, 9, newest} - lost)

    assert lost == {txids[each] for each in done["set_aside"]}
    assert done["full"].endswith(f"{newest:016x}")
    for each in done["set_aside"]:
        name = parse_name(each)
        assert isinstance(name, FullName | IncrementalName)
        event = str(EventName(name.backup_id, DAMAGED))
        assert decode_event(clinic.store.get(event), event).details["fault"]
    clinic.require_well()
    clinic.commit(2)
    clinic.require_all(but=range(1, first))
    again = clinic.repair()
    assert ([], None) == (again["set_aside"], again["full"])


@pytest.mark.parametrize("kind", [PackName, FullName, IncrementalName])
def test_s48_backups_are_put_back_from_another_store(clinic: Clinic, kind: type) -> None:
    """Those that it has, packs before their manifests; nothing is set aside, and what was whole is not written anew."""
    clinic.mirror()
    before = clinic.content()
    hurt = clinic.names(kind)
    for name in hurt[:-1]:
        clinic.cut(name)
    clinic.objects.delete(hurt[-1])
    puts = len(clinic.objects.puts)
    done = clinic.repair(hurt[-1])
    put = clinic.objects.puts[puts:]

    assert set(hurt) >= set(done["put_back"]) >= set(hurt[:-1])
    assert ([], None, {}) == (done["set_aside"], done["full"], done["left"])
    assert done["put_back"] == put
    if kind is PackName:
        assert before == clinic.content()
    clinic.require_well()
    clinic.require_all()


def test_s48_a_backup_that_another_store_has_differently_is_taken_with_its_packs(clinic: Clinic) -> None:
    """Two stores of one database have the same backup in packs of their own."""
    other = clinic.mirror()
    full, pack = clinic.names(FullName)[1], clinic.names(PackName)[1]
    name = parse_name(full)
    assert isinstance(name, FullName)
    assert f"{name.txid:016x}-" in pack
    clinic.cut(full)
    for each in (full, pack):
        clinic.objects.delete(each)
    clinic.objects.put(full, b"nothing")
    done = clinic.repair()

    assert [pack, full] == done["put_back"]
    assert other.get(full)
    clinic.require_all()
