"""Upkeep of one store: what is done in which order, what becomes of trouble, and when the next log is due.

Real parts on a real database, stepped by hand; time passes when a test says so.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.backup import ContentDiffers
from replicator.capture import ContinuityLost
from replicator.core.errors import (
    Interrupted,
    ObjectCorrupt,
    OwnershipLost,
    ReplicatorError,
    StoreDenied,
    StoreUnavailable,
)
from replicator.core.names import (
    FullName,
    IncrementalName,
    LeaseName,
    LogName,
    SegmentName,
    parse_name,
)
from replicator.core.records import LeaseRecord, encode_record
from replicator.core.retention_policy import Policy
from replicator.core.schedule import Schedule
from replicator.jobs import FULL, INCREMENTAL, LOG, PRUNE, Job
from replicator.upkeep import LOG_RETRY_SECONDS
from tests.support.memory_store import MemoryStore
from tests.support.station import LOG_SECONDS, Station

Open = Callable[..., Station]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Makes a station whose database has a first full, and closes it."""
    stations: list[Station] = []

    def made(**more: Any) -> Station:
        station = Station(tmp_path, **more)
        stations.append(station)
        station.fill(100)
        station.keep_up()
        return station

    yield made
    for station in stations:
        station.close()


@pytest.fixture
def station(opened: Open) -> Station:
    return opened()


def names(station: Station, kind: type) -> list[str]:
    """Objects of a kind, in the order they were put."""
    assert isinstance(station.inner, MemoryStore)
    return [name for name in station.inner.puts if isinstance(parse_name(name), kind)]


def step(station: Station) -> float | None:
    return station.upkeep.step(station.capture, station.clock.now())


def asked(station: Station, kind: str, **arguments: Any) -> Job:
    job = Job(kind, arguments)
    station.upkeep.jobs.ask(job)
    return job


def changed(station: Station, seconds: float = 5.0) -> None:
    station.clock.advance(seconds)
    station.app.insert()
    station.ship_all()


# --- order ---------------------------------------------------------------------------------------------


def test_one_thing_at_a_time_in_the_order_it_was_asked_for(station: Station) -> None:
    """Each step does one, and says that there is more."""
    changed(station)
    jobs = [asked(station, kind) for kind in (INCREMENTAL, LOG, FULL, PRUNE)]
    done: list[list[bool]] = []
    for _ in jobs:
        assert station.upkeep.has_work
        assert 0.0 == step(station)
        done.append([job.done.done() for job in jobs])

    assert [[number <= at for number in range(4)] for at in range(4)] == done
    assert [INCREMENTAL, LOG, FULL, PRUNE] == [job.done.result()["type"] for job in jobs]
    assert not station.upkeep.has_work


def test_a_full_that_the_store_lacks_comes_before_everything(tmp_path: Path, opened: Open) -> None:
    """Nothing that was asked for is of use without it."""
    station = Station(tmp_path)
    station.fill(50)
    station.ship_all()
    job = asked(station, INCREMENTAL)
    assert station.ship.needs_full
    assert 0.0 == step(station)

    assert 1 == len(names(station, FullName))
    assert not job.done.done()
    assert not station.ship.needs_full
    step(station)
    assert "nothing changed" in job.done.result()["note"]
    station.close()


def test_what_waits_already_is_not_done_twice(station: Station) -> None:
    """A store that was away has made a schedule's runs wait: one will do, and all who asked have its outcome."""
    changed(station)
    daily = {"schedule": "Daily", "compress": None, "verify": None}
    jobs = [asked(station, FULL, **daily) for _ in range(3)]
    other = asked(station, FULL, **{**daily, "compress": False})
    assert 0.0 == step(station)

    assert all(job.done.done() for job in jobs)
    assert 1 == len({job.done.result()["backup"] for job in jobs})
    assert not other.done.done()
    step(station)
    assert not station.upkeep.has_work
    changed(station)
    later = asked(station, FULL, **daily)
    step(station)
    assert later.done.result()["backup"] != jobs[0].done.result()["backup"]


def test_who_joins_one_that_fails_has_its_error(station: Station) -> None:
    """The same one."""
    changed(station)
    jobs = [asked(station, INCREMENTAL) for _ in range(2)]
    station.faulty.away = True
    step(station)
    errors = [job.done.exception() for job in jobs]

    assert isinstance(errors[0], StoreUnavailable)
    assert errors[0] is errors[1]


def test_jobs_are_asked_for_from_any_thread(station: Station) -> None:
    """While others ask and one works: none is lost, none is done for nobody, and nobody is told of anything else."""
    changed(station)
    jobs: list[Job] = []
    failures: list[BaseException] = []
    began = threading.Barrier(5)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def ask(number: int) -> None:
        began.wait()
        try:
            for each in range(400):
                jobs.append(asked(station, "nothing", number=number, each=each % 40))
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    began.wait()
    while any(thread.is_alive() for thread in threads) or station.upkeep.has_work:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(station.upkeep, "_confirm", lambda: None)
            with contextlib.suppress(KeyError):  # there is no such kind of job
                step(station)
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)

    assert [] == failures
    assert 1_600 == len(jobs)
    assert all(isinstance(job.done.exception(), ReplicatorError) for job in jobs)


# --- trouble -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL, LOG, PRUNE])
@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreDenied("no"), ObjectCorrupt("damaged")])
def test_whoever_asked_gets_the_error_and_the_next_is_done(
    station: Station, kind: str, error: ReplicatorError
) -> None:
    """Whatever a store answers, the upkeep goes on."""
    changed(station)
    job = asked(station, kind)
    behind = asked(station, FULL if kind == LOG else LOG)
    changed(station)
    operation, skip = {FULL: ("put", 1), INCREMENTAL: ("put", 1), LOG: ("put", 0), PRUNE: ("list", 1)}[kind]
    station.faulty.fail(operation, error=error, skip=skip)  # type: ignore[arg-type]
    assert 0.0 == step(station)

    assert error is job.done.exception()
    step(station)
    assert behind.kind == behind.done.result()["type"]
    assert kind == station_result(station, kind)["type"]


def station_result(station: Station, kind: str) -> dict[str, Any]:
    changed(station)
    return station.do(kind)


@pytest.mark.parametrize(
    "error",
    [
        OwnershipLost("another agent"),
        Interrupted("stopped"),
        ContentDiffers("differs"),
        ContinuityLost("lost"),
    ],
)
def test_what_concerns_everybody_is_raised(
    station: Station, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is told all the same."""

    def fail(*_: object) -> None:
        raise error

    changed(station)
    job = asked(station, FULL)
    monkeypatch.setattr(station.makers.full, "run", fail)
    with pytest.raises(type(error)):
        step(station)

    told = job.done.exception()
    assert isinstance(told, ReplicatorError)
    assert str(error) == str(told)


def test_a_fault_of_the_program_is_told_without_its_words(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it quotes; but nobody waits for ever either."""

    def fail(*_: object) -> None:
        raise ValueError("a secret")

    changed(station)
    job = asked(station, FULL)
    monkeypatch.setattr(station.makers.full, "run", fail)
    with pytest.raises(ValueError, match="secret"):
        step(station)

    told = job.done.exception()
    assert isinstance(told, ReplicatorError)
    assert "internal error: ValueError" == str(told)


def test_nothing_is_done_for_an_agent_that_was_taken_over_from(station: Station) -> None:
    """The lease is read before each thing: names of our own would meet nobody else's."""
    changed(station)
    lease = LeaseRecord(2, "f" * 16, "elsewhere", 1, "2025-01-28T06:00:00Z", took_over=True)
    station.inner.put(str(LeaseName(2)), encode_record(lease))
    before = sorted(each.name for each in station.inner.list(""))
    for kind in (FULL, INCREMENTAL, LOG, PRUNE):
        job = asked(station, kind)
        with pytest.raises(OwnershipLost):
            step(station)
        assert isinstance(job.done.exception(), OwnershipLost)
    station.clock.advance(LOG_SECONDS)
    with pytest.raises(OwnershipLost):
        step(station)

    assert before == sorted(each.name for each in station.inner.list(""))


def test_what_was_asked_for_is_abandoned_with_a_word(station: Station) -> None:
    """The agent stops."""
    jobs = [asked(station, FULL), asked(station, FULL), asked(station, LOG)]
    station.upkeep.jobs.abandon(Interrupted("the agent is stopping"))

    assert ["the agent is stopping"] * 3 == [str(job.done.exception()) for job in jobs]
    assert not station.upkeep.has_work


# --- a store that is full ------------------------------------------------------------------------------


def test_s104_a_full_by_hand_does_not_make_a_full_store_fuller(opened: Open) -> None:
    """It is refused, with what lies there and what may; a scheduled one lets an older one go, and is made."""
    station = opened(policy=Policy(max_bytes=20_000))
    changed(station)
    used = sum(each.size for each in station.inner.list(""))
    assert used > 20_000
    with pytest.raises(ReplicatorError, match="may hold 20kB") as caught:
        station.do(FULL)

    assert "prune --dry-run" in str(caught.value.hint)
    assert 1 == len(names(station, FullName))
    assert station.do(FULL, schedule="Daily")["backup"]
    assert 2 == len(names(station, FullName))
    changed(station)
    assert station.do(INCREMENTAL)["backup"]


def test_s104_a_full_that_is_needed_is_made_whatever_the_limit(opened: Open) -> None:
    """Without it nothing is restorable at all."""
    station = opened(policy=Policy(max_bytes=1))

    assert 1 == len(names(station, FullName))


def test_s104_below_the_limit_a_full_by_hand_is_made(opened: Open) -> None:
    """Up to the last byte."""
    station = opened()
    changed(station)
    used = sum(each.size for each in station.store.list(""))
    station.policy = Policy(max_bytes=used + 1)
    assert station.do(FULL)["backup"]
    station.policy = Policy(max_bytes=sum(each.size for each in station.store.list("")))
    with pytest.raises(ReplicatorError, match="may hold"):
        station.do(FULL)


def test_x9_how_full_a_store_was_when_it_was_pruned_is_marked(opened: Open) -> None:
    """With its limit, so that whoever asks is told before it is reached."""
    station = opened()
    changed(station)
    used = sum(each.size for each in station.inner.list(""))
    station.policy = Policy(max_bytes=2 * used)
    station.do(PRUNE)
    state = station.marks.snapshot().stores[station.store.url]

    assert (2 * used, 0) == (state.limit, state.over)
    assert 0 < state.used <= used


# --- incrementals --------------------------------------------------------------------------------------


def test_s10_without_a_parent_a_full_is_made_and_says_so(station: Station) -> None:
    """The manifests are gone, or damaged, or what changed since is not known: the note says which."""
    changed(station)
    assert isinstance(station.inner, MemoryStore)
    (full,) = names(station, FullName)
    kept = station.inner.get(full)
    notes = []
    for damage in ("gone", "damaged", "forgotten"):
        if damage == "gone":
            station.inner.delete(full)
        elif damage == "damaged":
            station.inner.put(full, kept[:-1])
        else:
            with station.capture.hold_still() as moment:
                moment.changed.forget(moment.tip.txid)
        outcome = station.do(INCREMENTAL)
        notes.append(outcome["note"])
        assert FULL == outcome["type"]
        newest = names(station, FullName)[-1]
        if damage == "gone":
            station.inner.delete(newest)  # so that the damaged one is the newest again
        changed(station)
        if damage == "damaged":
            station.inner.delete(full)

    assert [
        "there is no backup of this generation",
        "the newest backup cannot be read",
        "is not known any more",
    ] == [next(part for part in PARTS if part in note) for note in notes]
    assert all(note.startswith("a full backup was made instead: ") for note in notes)
    assert [] == names(station, IncrementalName)
    assert (station.position, station.app.digest()) == station.restored()


PARTS = ("there is no backup of this generation", "the newest backup cannot be read", "is not known any more")


def test_s07_an_incremental_lies_on_what_is_newest(station: Station) -> None:
    """A full or an incremental; the outcome says which, how much, and where it stands."""
    (full,) = (name for each in names(station, FullName) if isinstance(name := parse_name(each), FullName))
    parents = [full.backup_id]
    for _ in range(3):
        changed(station)
        outcome = station.do(INCREMENTAL)
        assert (INCREMENTAL, parents[-1], str(station.position), None) == (
            outcome["type"],
            outcome["parent"],
            outcome["position"],
            outcome["note"],
        )
        assert outcome["pages"] > 0
        assert outcome["stored_bytes"] > 0
        parents.append(outcome["backup"])
    again = station.do(INCREMENTAL)

    assert (None, parents[-1], 0) == (again["backup"], again["parent"], again["stored_bytes"])
    assert f"nothing changed since {parents[-1]}" == again["note"]
    assert (station.position, station.app.digest()) == station.restored()


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL])
def test_s06_s10_what_was_committed_before_it_was_asked_for_is_in_it(station: Station, kind: str) -> None:
    """Whoever commits and asks does not wait for the next look at the log in between."""
    changed(station)
    capture = station.capture
    station.app.insert()
    job = asked(station, kind)
    station.upkeep.step(capture, station.clock.now())
    told = job.done.result()["position"]

    assert str(station.position) == told
    station.ship_all()
    assert (station.position, station.app.digest()) == station.restored()


def test_s110_a_schedule_says_how_its_backup_is_made(station: Station) -> None:
    """Not compressed and not verified, beside others that are."""
    station.app.execute("UPDATE t SET body = hex(randomblob(1000))")
    changed(station)
    station.do(FULL, schedule="Daily", compress=False, verify=False)
    backup = names(station, FullName)[-1].rpartition("/")[2].removesuffix(".full")
    events = [each.name for each in station.inner.list(f"records/{backup}/")]
    catalogue = json.loads(station.inner.get("metadata.json"))
    last = catalogue["backups"][-1]

    assert [] == events
    assert (backup, "written") == (last["id"], last["verified"])
    assert last["stored_bytes"] > catalogue["backups"][0]["stored_bytes"] * 1.5


# --- logs ----------------------------------------------------------------------------------------------


def test_s11_a_log_is_due_a_quarter_of_an_hour_after_something_came(station: Station) -> None:
    """Not sooner; and where nothing comes there is nothing to wake up for."""
    assert LOG_SECONDS == step(station)  # what an earlier run left is taken over, too
    station.clock.advance(LOG_SECONDS - 1)
    assert 1.0 == pytest.approx(step(station) or 0)
    changed(station, 0.5)
    changed(station, 0.5)
    assert station.upkeep.has_work is False
    assert step(station) is None
    assert 1 == len(names(station, LogName))

    station.clock.advance(5_000.0)
    assert step(station) is None
    assert not station.upkeep.has_work
    changed(station, 0.0)
    assert station.upkeep.has_work
    assert LOG_SECONDS == step(station)
    changed(station, LOG_SECONDS - 5)
    assert 5.0 == pytest.approx(step(station) or 0)
    changed(station, 5.0)
    assert step(station) is None
    assert 2 == len(names(station, LogName))
    assert 1 == len(list(station.inner.list("tail/")))
    assert (station.position, station.app.digest()) == station.restored()


def test_s11_a_log_that_was_asked_for_counts(station: Station) -> None:
    """The next one is due a quarter of an hour after what comes next."""
    step(station)
    changed(station)
    changed(station)
    outcome = station.do(LOG)

    assert [str(each) for each in names(station, LogName)] == outcome["logs"]
    assert 1 == outcome["segments"]
    assert step(station) is None
    changed(station, 0.0)
    assert LOG_SECONDS == step(station)


def test_a_log_that_could_not_be_made_is_tried_again(station: Station) -> None:
    """When some more would go into it; nobody else is held up."""
    step(station)
    changed(station)
    changed(station)
    station.clock.advance(LOG_SECONDS)
    station.faulty.fail("put")
    assert LOG_SECONDS == step(station)
    assert LOG_SECONDS >= LOG_RETRY_SECONDS
    assert [] == names(station, LogName)
    station.clock.advance(LOG_SECONDS)
    assert step(station) is None

    assert 1 == len(names(station, LogName))


def test_s18_a_log_ends_where_a_backup_stands(station: Station) -> None:
    """So that whoever restores from there fetches nothing from before."""
    stands = []
    for kind in (INCREMENTAL, FULL):
        changed(station)
        stands.append(station.position.txid)
        station.do(kind)
        changed(station)
    changed(station)
    station.do(LOG)
    logs = [parse_name(name) for name in names(station, LogName)]

    assert stands == [each.txid_last for each in logs[:2] if isinstance(each, LogName)]


def test_s48_a_damaged_segment_is_told_and_answered_by_a_full(station: Station) -> None:
    """Restore points end there and begin anew at once; once it is gone, so is the trouble."""
    assert isinstance(station.inner, MemoryStore)
    changed(station)
    hurt = names(station, SegmentName)[-1]
    changed(station)
    changed(station)
    station.inner.damage(hurt, lambda data: data[:-3])
    fulls = len(names(station, FullName))
    outcome = station.do(LOG)
    errors = station.marks.snapshot().errors

    assert hurt in outcome["note"]
    assert [f"log of {station.store.url}"] == [each.where for each in errors]
    assert f"{hurt} is damaged" in errors[0].message
    assert errors[0].hint is not None
    assert "verify --repair" in errors[0].hint
    while station.upkeep.has_work:
        step(station)
    assert fulls + 1 == len(names(station, FullName))
    changed(station)
    assert (station.position, station.app.digest()) == station.restored()
    changed(station)
    station.do(LOG)
    assert not station.upkeep.has_work
    assert fulls + 1 == len(names(station, FullName))  # it is not news any more
    station.inner.delete(hurt)
    changed(station)
    station.do(LOG)
    assert () == station.marks.snapshot().errors


# --- what is said --------------------------------------------------------------------------------------


def test_marks_tell_when_what_was_done(station: Station) -> None:
    """For status: the newest full, incremental, log and pruning, and what is protected."""
    wall = station.clock.wall
    times = {}
    for kind in (FULL, INCREMENTAL, LOG, PRUNE):
        changed(station)
        changed(station)
        station.do(kind)
        times[f"last_{kind}"] = wall()
    state = station.marks.snapshot().stores[station.store.url]

    assert times == {key: getattr(state, key) for key in times}
    assert state.protected is not None
    assert state.logged is not None
    assert (0, 0) == (state.unprotected_since, state.over)


def test_the_outcome_of_a_pruning_says_what_went(opened: Open) -> None:
    """And `over` how much is kept beyond the limit, where nothing more may go."""
    station = opened(policy=Policy(full_days=1, months=0, log_hours=1, max_bytes=1_000))
    for _ in range(4):
        changed(station, 40_000.0)
        station.do(FULL, schedule="Daily")
    outcome = station.do(PRUNE)
    state = station.marks.snapshot().stores[station.store.url]

    assert PRUNE == outcome["type"]
    assert any(each["name"].endswith(".full") for each in outcome["deleted"])
    assert outcome["bytes_over"] == state.over > 0
    assert not any(
        each["name"] in {found.name for found in station.inner.list("")} for each in outcome["deleted"]
    )
    catalogue = json.loads(station.inner.get("metadata.json"))
    assert len(catalogue["backups"]) == sum(
        isinstance(parse_name(each.name), FullName) for each in station.inner.list("")
    )


def test_s02_schedules_run_when_they_are_due(opened: Open) -> None:
    """Fulls at two, incrementals from six to ten, each once, pruned behind each; by the clock on the wall."""
    station = opened(
        schedules=(
            Schedule("Daily full", "0 2 * * *", "full", 30),
            Schedule("Incremental", "0 6-22/4 * * *", "incremental", 7),
        )
    )
    before = station.marks.snapshot().stores[station.store.url].last_prune
    for _ in range(24 * 4):
        changed(station, 900.0)
        station.keep_up()
    runs = [(each["schedule"], each["due"][11:16]) for each in station.scheduler.runs]

    assert [
        ("Incremental", "10:00"), ("Incremental", "14:00"), ("Incremental", "18:00"), ("Incremental", "22:00"),
        ("Daily full", "02:00"), ("Incremental", "06:00"),
    ] == runs  # fmt: skip
    assert all(
        "completed" == outcome["result"]
        for each in station.scheduler.runs
        for outcome in each["stores"].values()
    )
    assert 0 == before < station.marks.snapshot().stores[station.store.url].last_prune
    assert (station.position, station.app.digest()) == station.restored()
