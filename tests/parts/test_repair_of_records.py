"""`verify --repair` of records; that nothing which is whole is touched; and a repair that ends anywhere."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from replicator.core.errors import ReplicatorError, StoreDenied, StoreUnavailable
from replicator.core.named_digest import DIGEST_SIZE, digest_of
from replicator.core.names import (
    METADATA,
    REPOSITORY,
    EventName,
    FullName,
    GenerationName,
    IncrementalName,
    KeyName,
    LeaseName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
)
from replicator.core.records import (
    CHECKSUMMED,
    DAMAGED,
    PINNED,
    EventRecord,
    LeaseRecord,
    decode_event,
    decode_repository,
    encode_record,
)
from replicator.jobs import REPAIR
from replicator.store.sealed import SealedStore
from tests.support.clinic import DAMAGES, Clinic, Made
from tests.support.memory_store import MemoryStore

# --- records -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_records_are_put_back_from_the_state_folder(clinic: Clinic, damage: str) -> None:
    """Who this is, what opens it, and why the generation began: all of them at once."""
    hurt = [*clinic.names(GenerationName), *clinic.names(KeyName), REPOSITORY]
    before = clinic.content()
    for name in hurt:
        clinic.objects.damage(name, DAMAGES[damage])
    done = clinic.do(REPAIR, names=hurt)

    assert sorted(hurt) == sorted(done["put_back"])
    assert {} == done["left"]
    now = clinic.content()
    record, was = (decode_repository(each.pop(REPOSITORY), REPOSITORY) for each in (now, before))
    assert (was.repository, was.features) == (record.repository, record.features)
    assert before == now
    clinic.require_well()
    clinic.require_all()
    clinic.restart()
    clinic.commit()
    clinic.require_all()


def test_who_this_is_comes_from_another_store_as_it_was(clinic: Clinic) -> None:
    """With the time it was made; what another database has does not count."""
    stranger = MemoryStore("memory://stranger")
    record = decode_repository(clinic.objects.get(REPOSITORY), REPOSITORY)
    stranger.put(REPOSITORY, encode_record(replace(record, repository="0" * 32)))
    before = clinic.content()
    mirror = SealedStore(clinic.mirror(), clinic.keys)
    clinic.others = [stranger, mirror]
    clinic.cut(REPOSITORY)
    clinic.repair(REPOSITORY)

    assert before == clinic.content()


def test_another_agents_store_is_not_made_ours(clinic: Clinic) -> None:
    """Where the newest lease is not ours, who this is stays as hurt as it is."""
    lease = LeaseRecord(2, "f" * 16, "elsewhere", 1, "2025-01-28T06:00:00Z", took_over=True)
    clinic.store.put(str(LeaseName(2)), encode_record(lease))
    clinic.cut(REPOSITORY)
    hurt = clinic.objects.get(REPOSITORY)
    with pytest.raises(ReplicatorError):
        clinic.do(REPAIR, names=[REPOSITORY])

    assert hurt == clinic.objects.get(REPOSITORY)
    clinic.objects.delete(str(LeaseName(2)))


@pytest.mark.parametrize("event", [PINNED, DAMAGED, CHECKSUMMED])
def test_a_record_of_a_backup_goes_on_saying_what_its_name_says(clinic: Clinic, event: str) -> None:
    """One that is pinned stays so, and one that was set aside does not come back; that one was proved is not known
    any more."""
    name = parse_name(clinic.names(FullName)[1])
    assert isinstance(name, FullName)
    record = str(EventName(name.backup_id, event))
    if event != CHECKSUMMED:
        clinic.store.put(record, encode_record(EventRecord(name.backup_id, event, 1)))
    clinic.cut(record)
    done = clinic.repair(record)

    if event == CHECKSUMMED:
        assert [record] == done["taken_away"]
        assert record not in clinic.objects.names
    else:
        assert [record] == done["put_back"]
        assert event == decode_event(clinic.store.get(record), record).event
    clinic.objects.delete(record)
    done = clinic.repair(record)
    assert [record] == done["well"]  # somebody took it away: a pin does not come back
    assert record not in clinic.objects.names


def test_what_nobody_knows_is_named(clinic: Clinic) -> None:
    """An older lease; and nothing that is not ours is touched."""
    old = str(LeaseName(0))
    clinic.objects.put(old, b"{")
    clinic.objects.put("holiday.jpg", b"not ours")
    done = clinic.do(REPAIR, names=[old, "holiday.jpg"])

    assert {old: "what it held is not known here", "holiday.jpg": "it is none of ours"} == done["left"]
    assert b"not ours" == clinic.objects.get("holiday.jpg")


# --- what is whole -------------------------------------------------------------------------------------


def test_nothing_that_is_whole_is_touched(clinic: Clinic) -> None:
    """Whoever names everything has it looked at once more, and that is all."""
    clinic.mirror()
    before, puts = clinic.content(), len(clinic.objects.puts)
    deletes = clinic.faulty.calls["delete"]
    done = clinic.do(REPAIR, names=clinic.objects.names)

    assert before == clinic.content()
    assert puts == len(clinic.objects.puts)
    assert deletes == clinic.faulty.calls["delete"]
    backups = {*clinic.names(FullName), *clinic.names(IncrementalName), *clinic.names(PackName)}
    assert set(clinic.objects.names) - backups - {METADATA} == set(done["well"])
    assert [METADATA] == done["put_back"]  # it is made anew in any case
    assert all(not done[each] for each in ("taken_away", "set_aside", "left", "full"))


@pytest.mark.parametrize("kind", [LogName, FullName])
def test_what_a_later_version_wrote_is_left_as_it_is(made: Made, kind: type) -> None:
    """It may be whole for whoever can read it."""
    clinic = made("plain")
    name = clinic.names(kind)[1]
    content = clinic.objects.get(name)
    content = content[:7] + b"\x63" + content[8:-DIGEST_SIZE]
    later = content + digest_of(content, name)
    clinic.objects.replace(name, later)
    before = clinic.content()
    done = clinic.do(REPAIR, names=[name])

    assert {name} == set(done["left"])
    assert "of format 99" in done["left"][name]
    assert [] == done["set_aside"]
    assert later == clinic.objects.get(name)
    assert before.items() <= clinic.content().items()


def test_what_a_store_does_not_let_go_of_is_named_and_the_rest_is_put_back(clinic: Clinic) -> None:
    """One object is under retention; that keeps no other from being repaired."""
    hurt = [clinic.names(LogName)[0], *clinic.names(SegmentName)]
    for name in hurt:
        clinic.cut(name)
    clinic.faulty.fail("delete", error=StoreDenied("it is under retention"))
    done = clinic.repair()

    assert {hurt[0]: "the store does not let go of it: it is under retention"} == done["left"]
    assert hurt[1:] == sorted(done["put_back"])


# --- interrupted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["delete", "put"])
@pytest.mark.parametrize("after", [False, True])
def test_a_repair_that_ends_anywhere_goes_on_the_next_time(
    clinic: Clinic, operation: str, after: bool
) -> None:
    """Before or after any of its changes: the next one finds what is left, and every commit is there in the end."""
    clinic.mirror()
    before = clinic.content()
    hurt = [
        clinic.names(LogName)[0], clinic.names(LogName)[3], clinic.names(SegmentName)[1], clinic.names(PackName)[1],
        clinic.names(FullName)[0], clinic.names(GenerationName)[0], REPOSITORY,
    ]  # fmt: skip
    for count in itertools.count():
        for name in hurt:
            clinic.cut(name)
        clinic.faulty.fail(operation, skip=count, after=after)
        try:
            clinic.do(REPAIR, names=hurt)
        except StoreUnavailable:
            clinic.repair(*hurt)
        else:
            break
        clinic.require_well()
        clinic.require_all()
        changed = {name for name, data in before.items() if clinic.content().get(name) != data}
        assert changed <= {"metadata.json", REPOSITORY}

    assert count >= len(hurt)
