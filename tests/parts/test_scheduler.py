"""The scheduler on a fake clock: what is due, what was missed, what is tried again, and what people change by hand."""

import json
import logging
from collections import deque
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from replicator.config import DatabaseConfig
from replicator.core.errors import (
    ConfigError,
    Interrupted,
    ObjectCorrupt,
    ReplicatorError,
    ScheduleNotFound,
    SourceGone,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from replicator.core.schedule import Schedule
from replicator.core.schedule_file import DEFAULT_SCHEDULES, PRINTED, parse_schedules
from replicator.core.times import format_time
from replicator.jobs import FULL, INCREMENTAL, LOG, PRUNE
from replicator.requests import change_schedules
from replicator.scheduler import RUNS_KEPT, Scheduler, kept_schedules
from tests.support.memory_store import FakeClock

HOUR, DAY = 3_600, 86_400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A Tuesday.
BEGAN = int(datetime(2025, 1, 28, 1, 30, tzinfo=UTC).timestamp()) * 1_000_000


class Stores:
    """Stores that do what is asked of them one thing after another, when the test lets them. ``asked`` tells what came,
    with the time on the wall; ``gone``: whether nothing is followed that could be backed up."""

    def __init__(self, clock: FakeClock, *urls: str) -> None:
        self._clock = clock
        self.urls = urls
        self.gone = False
        self.at_once = True
        self.errors: dict[str, ReplicatorError] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.arguments: list[dict[str, Any]] = []
        self._waiting: dict[str, deque[Future[dict[str, Any]]]] = {url: deque() for url in urls}

    def ask(
        self, kind: str, arguments: dict[str, Any], only: Collection[str] | None
    ) -> Mapping[str, Future[dict[str, Any]]]:
        if self.gone:
            raise SourceGone("it is not followed just now")
        found: dict[str, Future[dict[str, Any]]] = {}
        for url in self.urls:
            if only is None or url in only:
                found[url] = Future()
                self._waiting[url].append(found[url])
                self.asked.append((clock_text(self._clock), kind, url))
        self.arguments.append(arguments)
        if self.at_once:
            self.work()
        return found

    def work(self, *urls: str) -> None:
        """Everything that waits is done, or ends with the error of its store."""
        for url in urls or self.urls:
            while self._waiting[url]:
                self.work_one(url)

    def work_one(self, url: str) -> None:
        done = self._waiting[url].popleft()
        if url in self.errors:
            done.set_exception(self.errors[url])
        else:
            done.set_result({"backup": "b", "note": None})

    def backups(self) -> list[tuple[str, str, str]]:
        """What was asked since the last time, without pruning."""
        found = [each for each in self.asked if each[1] != PRUNE]
        self.asked.clear()
        return found


def clock_text(clock: FakeClock) -> str:
    """Day of January 2025 and time: ``28 02:00``."""
    moment = EPOCH + timedelta(microseconds=clock.wall())
    return moment.strftime("%d %H:%M") if (moment.year, moment.month) == (2025, 1) else moment.isoformat()


class World:
    """A clock, stores, and the schedulers of one state folder, one after another."""

    def __init__(self, folder: Path, *schedules: Schedule, urls: tuple[str, ...] = ("a",)) -> None:
        self.path = str(folder / "state" / "schedules.json")
        self.clock = FakeClock(wall=BEGAN)
        self.stores = Stores(self.clock, *urls)
        self.configured = schedules
        self.chance = 0.0
        self.begin()

    def begin(self) -> None:
        """As after a start: what was before is gone, but for the file."""
        self.scheduler = Scheduler(
            self.path, self.configured, self.clock, self.stores.ask, chance=lambda: self.chance
        )
        self.scheduler.open()
        self.scheduler.step(self.clock.now())

    def let(self, **time: float) -> None:
        """Let time pass, looking as often as the scheduler wants to."""
        end = self.clock.now() + timedelta(**time).total_seconds()
        while (wait := self.scheduler.step(self.clock.now())) <= end - self.clock.now():
            self.clock.advance(wait)
        self.clock.advance(end - self.clock.now())
        self.scheduler.step(self.clock.now())

    def counts(self, name: str) -> tuple[int, int]:
        (found,) = [each for each in self.scheduler.describe() if each["name"] == name]
        return found["runCount"], found["failureCount"]

    def results(self) -> list[tuple[str | None, dict[str, str]]]:
        """Of each run: what it answered, and what became of it in each store."""
        return [
            (each["due"], {url: outcome["result"] for url, outcome in each["stores"].items()})
            for each in self.scheduler.runs
        ]


def nightly(**more: Any) -> Schedule:
    (found,) = parse_schedules({"name": "nightly", "cron": "0 2 * * *", "type": "full"})
    return replace(found, **more)


# --- what is due ---------------------------------------------------------------------------------------


def test_s02_s07_the_printed_schedules_run_when_they_are_due(tmp_path: Path) -> None:
    """A full at 02:00, five incrementals a day; each with a pruning behind it; nothing is due when it begins."""
    world = World(tmp_path, *DEFAULT_SCHEDULES)
    assert [] == world.stores.asked
    world.let(hours=24)
    kinds = [kind for _, kind, _ in world.stores.asked]

    assert [FULL, PRUNE, *[INCREMENTAL, PRUNE] * 5] == kinds
    assert [
        ("28 02:00", FULL, "a"),
        *((f"28 {hour:02}:00", INCREMENTAL, "a") for hour in (6, 10, 14, 18, 22)),
    ] == world.stores.backups()
    world.let(hours=1)
    assert [("29 02:00", FULL, "a")] == world.stores.backups()
    assert (2, 0) == world.counts("daily-full-backup")


def test_s110_a_run_has_what_its_schedule_says(tmp_path: Path) -> None:
    """Compression and verification otherwise than for all; a monthly is a full; behind a log nothing is pruned."""
    quarter, monthly = parse_schedules(
        [
            {"name": "quarter", "cron": "45 1 * * *", "type": "log"},
            {"name": "monthly", "cron": "50 1 * * *", "type": "monthly", "compress": False, "verify": True},
        ]
    )
    world = World(tmp_path, quarter, monthly)
    world.let(hours=1)

    assert [LOG, FULL, PRUNE] == [kind for _, kind, _ in world.stores.asked]
    assert [
        {"schedule": "quarter", "compress": None, "verify": None},
        {"schedule": "monthly", "compress": False, "verify": True},
        {},
    ] == world.stores.arguments


def test_a_schedule_that_is_switched_off_does_not_run(tmp_path: Path) -> None:
    """It is listed, without a next run."""
    world = World(tmp_path, nightly(enabled=False))
    world.let(days=3)

    assert [] == world.stores.asked
    assert [None] == [each["nextRunAt"] for each in world.scheduler.describe()]


def test_s81_jitter_lets_it_run_later(tmp_path: Path) -> None:
    """By a share of it, and once; the next time comes as it is due."""
    world = World(tmp_path, nightly(jitter=600.0))
    world.chance = 0.5
    world.let(days=1)
    world.chance = 0.9
    world.let(days=1)

    assert [("28 02:05", FULL, "a"), ("29 02:09", FULL, "a")] == world.stores.backups()
    assert ["2025-01-28T02:00:00.000000Z", "2025-01-29T02:00:00.000000Z"] == [
        due for due, _ in world.results()
    ]


def test_runs_are_kept_and_bounded(tmp_path: Path) -> None:
    """The newest are listed, after a restart as well; the counts go on."""
    world = World(tmp_path, *parse_schedules({"name": "often", "cron": "*/5 * * * *", "type": "log"}))
    world.let(minutes=5)
    content = whole_file(world)
    content["runs"] = content["runs"] * RUNS_KEPT
    Path(world.path).write_text(json.dumps(content))
    world.begin()
    world.let(minutes=10)
    world.begin()

    assert RUNS_KEPT == len(world.results())
    assert ["35", "40", "45"] == [str(due)[14:16] for due, _ in world.results()[-3:]]
    assert (3, 0) == world.counts("often")


# --- what was missed -----------------------------------------------------------------------------------


def test_what_was_missed_is_made_up_once(tmp_path: Path) -> None:
    """Down for three days: one full and one incremental, at once; then all goes on as it is due."""
    world = World(tmp_path, *DEFAULT_SCHEDULES)
    world.let(hours=1)
    world.stores.backups()
    world.clock.advance(3 * DAY)
    world.begin()

    assert [("31 02:30", FULL, "a"), ("31 02:30", INCREMENTAL, "a")] == world.stores.backups()
    world.begin()
    world.let(hours=4)
    assert [("31 06:00", INCREMENTAL, "a")] == world.stores.backups()


def test_what_was_missed_does_not_wait_for_jitter(tmp_path: Path) -> None:
    """It was due long ago, and that much later it is."""
    world = World(tmp_path, nightly(jitter=600.0))
    world.chance = 1.0
    world.clock.advance(2 * DAY)
    world.begin()

    assert [("30 01:30", FULL, "a")] == world.stores.backups()


def test_while_nothing_is_followed_a_run_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For two days, told once; then it runs once, and answers the newest time."""
    caplog.set_level(logging.INFO)
    world = World(tmp_path, nightly())
    world.stores.gone = True
    world.let(days=2)
    world.stores.gone = False
    world.let(hours=1)

    assert [("30 01:31", FULL, "a"), ("30 02:00", FULL, "a")] == world.stores.backups()
    assert ["2025-01-29T02:00:00.000000Z", "2025-01-30T02:00:00.000000Z"] == [
        due for due, _ in world.results()
    ]
    assert 1 == [record.message for record in caplog.records].count("schedule.waits")


def test_killed_in_the_middle_it_is_made_up_where_it_ended(tmp_path: Path) -> None:
    """One of two stores had it already; the other gets it at the next start, and the run counts as failed."""
    world = World(tmp_path, nightly(), urls=("a", "b"))
    world.stores.at_once = False
    world.let(hours=1)
    world.stores.work("a")
    world.stores.backups()
    world.clock.advance(60)
    world.stores = Stores(world.clock, "a", "b")
    world.begin()

    assert [("28 02:31", FULL, "b")] == world.stores.backups()
    assert [{"a": "completed", "b": "failed"}, {"b": "completed"}] == [each for _, each in world.results()]
    assert "the agent ended" == world.scheduler.runs[0]["stores"]["b"]["error"]
    assert (2, 1) == world.counts("nightly")
    world.begin()
    assert [] == world.stores.backups()


def test_stopped_in_the_middle_it_is_made_up_at_the_next_start(tmp_path: Path) -> None:
    """Not before: who stops is not asked again."""
    world = World(tmp_path, nightly(), urls=("a", "b"))
    world.stores.errors["b"] = Interrupted("the agent is stopping")
    world.let(hours=1)
    assert [("28 02:00", FULL, "a"), ("28 02:00", FULL, "b")] == world.stores.backups()
    world.stores.errors.clear()
    world.begin()

    assert [("28 02:30", FULL, "b")] == world.stores.backups()


def test_a_run_by_hand_that_was_killed_is_not_made_up(tmp_path: Path) -> None:
    """Whoever asked for it has seen that it did not end."""
    world = World(tmp_path, nightly())
    world.stores.at_once = False
    world.scheduler.run(world.scheduler.find("nightly"))
    world.stores.backups()
    world.begin()

    assert [] == world.stores.backups()
    assert [(None, {"a": "failed"})] == world.results()


def test_a_store_that_was_left_out_is_not_made_up_in(tmp_path: Path) -> None:
    """Of the configuration, while the agent did not run; nothing is recorded of it."""
    world = World(tmp_path, nightly(), urls=("a", "b"))
    world.stores.errors["b"] = Interrupted("the agent is stopping")
    world.let(hours=1)
    world.stores = Stores(world.clock, "a")
    world.begin()

    assert [] == world.stores.backups()
    assert 1 == len(world.results())


# --- what failed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [StoreUnavailable("the network went away"), StoreDenied("no permission")], ids=["away", "denied"]
)
def test_it_is_tried_again_in_the_store_that_failed(tmp_path: Path, error: ReplicatorError) -> None:
    """Every five minutes, until that store has it; the other one is left alone."""
    world = World(tmp_path, nightly(), urls=("a", "b"))
    world.stores.errors["b"] = error
    world.let(minutes=37)
    assert [
        ("28 02:00", FULL, "a"),
        ("28 02:00", FULL, "b"),
        ("28 02:05", FULL, "b"),
    ] == world.stores.backups()
    world.stores.errors.clear()
    world.let(hours=2)

    assert [("28 02:10", FULL, "b")] == world.stores.backups()
    assert [{"b": "failed"}, {"b": "completed"}] == [each for _, each in world.results()[1:]]
    assert (3, 2) == world.counts("nightly")


def test_it_is_tried_again_after_a_restart(tmp_path: Path) -> None:
    """In that store alone, at once."""
    world = World(tmp_path, nightly(), urls=("a", "b"))
    world.stores.errors["b"] = StoreUnavailable("the network went away")
    world.let(minutes=32)
    world.stores.errors.clear()
    world.stores.backups()
    world.begin()

    assert [("28 02:02", FULL, "b")] == world.stores.backups()


def test_it_is_not_tried_again_for_what_does_not_pass(tmp_path: Path) -> None:
    """Damage is there five minutes later, too."""
    world = World(tmp_path, nightly())
    world.stores.errors["a"] = ObjectCorrupt("it is damaged")
    world.let(hours=20)

    assert [("28 02:00", FULL, "a")] == world.stores.backups()
    assert (1, 1) == world.counts("nightly")


def test_it_is_not_tried_again_shortly_before_it_is_due(tmp_path: Path) -> None:
    """Due every five minutes, a failed run has no attempts of its own."""
    world = World(tmp_path, *parse_schedules({"name": "often", "cron": "*/5 * * * *", "type": "log"}))
    world.stores.errors["a"] = StoreUnavailable("the network went away")
    world.let(minutes=16)

    assert [(f"28 01:{minute}", LOG, "a") for minute in (35, 40, 45)] == world.stores.backups()


def test_what_is_due_again_takes_over_from_what_failed(tmp_path: Path) -> None:
    """In every store, and once."""
    world = World(tmp_path, nightly(cron="0 * * * *"), urls=("a", "b"))
    world.stores.errors["b"] = StoreUnavailable("the network went away")
    world.let(minutes=88)
    assert 2 + 11 == len(world.stores.backups())
    world.stores.errors.clear()
    world.let(minutes=20)

    assert [("28 03:00", FULL, "a"), ("28 03:00", FULL, "b")] == world.stores.backups()


def test_what_failed_late_is_not_tried_again(tmp_path: Path) -> None:
    """It was due again meanwhile, and that run is behind it in the queue already."""
    world = World(tmp_path, nightly(cron="0 * * * *"))
    world.stores.at_once = False
    world.let(hours=2)
    first = world.scheduler.runs[0]["stores"]
    world.stores.errors["a"] = StoreUnavailable("the network went away")
    world.stores.work_one("a")
    world.stores.errors.clear()
    world.stores.work()
    world.let(minutes=20)

    assert [("28 02:00", FULL, "a"), ("28 03:00", FULL, "a")] == world.stores.backups()
    assert "failed" == first["a"]["result"]


def test_a_pruning_that_cannot_be_asked_for_harms_no_backup(tmp_path: Path) -> None:
    """The database went away in between: the backup was asked for, and is not asked for again."""
    world = World(tmp_path, nightly())

    def ask(kind: str, arguments: dict[str, Any], only: Collection[str] | None) -> Any:
        if kind == PRUNE:
            raise SourceGone("it is not followed just now")
        return world.stores.ask(kind, arguments, only)

    scheduler = Scheduler(world.path, world.configured, world.clock, ask)
    scheduler.open()
    world.clock.advance(HOUR)
    for _ in range(3):
        scheduler.step(world.clock.now())
        world.clock.advance(120)

    assert [("28 02:30", FULL, "a")] == world.stores.backups()


# --- by hand -------------------------------------------------------------------------------------------


def change(world: World, verb: str, name: str = "", **schedule: Any) -> None:
    change_schedules(world.scheduler, {"do": verb, "name": name, "schedule": schedule})


def test_s108_what_is_made_by_hand_survives(tmp_path: Path) -> None:
    """A restart; with its counts, and due as it says. Its name is its own."""
    world = World(tmp_path, nightly())
    change_schedules(
        world.scheduler,
        {
            "do": "create",
            "schedule": {"name": "noon", "cron": "0 12 * * *", "type": "incremental", "retention": 3},
        },
    )
    world.let(hours=12)
    world.stores.backups()
    world.begin()
    world.let(days=1)

    assert [("29 02:00", FULL, "a"), ("29 12:00", INCREMENTAL, "a")] == world.stores.backups()
    assert (2, 0) == world.counts("noon")
    assert [("nightly", False), ("noon", True)] == [
        (each["name"], each["byHand"]) for each in world.scheduler.describe()
    ]
    with pytest.raises(UsageError, match="a schedule 'noon' already"):
        world.scheduler.add([nightly(name="noon")])


def test_what_is_changed_by_hand_wins_over_the_configuration(tmp_path: Path) -> None:
    """Also over another configuration at the next start."""
    world = World(tmp_path, nightly())
    change(world, "update", "nightly", cronExpression="30 4 * * *", retentionDays=5)
    world.configured = (nightly(cron="0 3 * * *", retention_days=9),)
    world.begin()
    world.let(hours=6)

    assert [("28 04:30", FULL, "a")] == world.stores.backups()
    assert 5 == world.scheduler.find("nightly").retention_days


def test_what_is_deleted_by_hand_stays_deleted(tmp_path: Path) -> None:
    """Although the configuration has it still; made again, it is there again."""
    world = World(tmp_path, nightly())
    change(world, "delete", "nightly")
    world.begin()
    world.let(days=2)
    assert ([], []) == (world.stores.backups(), world.scheduler.describe())
    with pytest.raises(ScheduleNotFound):
        change(world, "delete", "nightly")
    world.scheduler.add([nightly()])
    world.begin()
    world.let(days=1)

    assert [("30 02:00", FULL, "a")] == world.stores.backups()


def test_what_waits_is_dropped_with_its_schedule(tmp_path: Path) -> None:
    """A run that waits for its jitter, or for a store, is not begun by a schedule that is gone."""
    world = World(tmp_path, nightly(jitter=600.0))
    world.chance = 1.0
    world.let(minutes=35)
    change(world, "delete", "nightly")
    world.scheduler.add([nightly()])
    world.let(minutes=30)

    assert [] == world.stores.backups()


def test_a_change_makes_nothing_due(tmp_path: Path) -> None:
    """Another time of the day that has passed already, or one that is switched on again: they begin with the next."""
    world = World(tmp_path, nightly(enabled=False))
    world.let(hours=10)
    change(world, "update", "nightly", enabled=True)
    world.let(hours=1)
    change(world, "update", "nightly", cronExpression="0 9 * * *")
    world.let(hours=1)

    assert [] == world.stores.backups()
    world.let(hours=24)
    assert [("29 09:00", FULL, "a")] == world.stores.backups()


def test_a_change_of_something_else_does_not_answer_what_is_due(tmp_path: Path) -> None:
    """What waits because nothing is followed runs afterwards all the same."""
    world = World(tmp_path, nightly())
    world.stores.gone = True
    world.let(hours=1)
    change(world, "update", "nightly", description="for the auditors")
    world.stores.gone = False
    world.let(hours=1)

    assert [("28 02:30", FULL, "a")] == world.stores.backups()


def test_a_run_by_hand_answers_no_time(tmp_path: Path) -> None:
    """It comes on top, and what fails of it is not tried again."""
    world = World(tmp_path, nightly())
    world.stores.errors["a"] = StoreUnavailable("the network went away")
    world.scheduler.run(world.scheduler.find("nightly"))
    assert {"compress": None, "verify": None} == world.stores.arguments[0]
    world.let(minutes=20)
    world.stores.errors.clear()
    world.let(hours=1)

    assert [("28 01:30", FULL, "a"), ("28 02:00", FULL, "a")] == world.stores.backups()
    assert (2, 1) == world.counts("nightly")


def test_several_are_made_together_or_not_at_all(tmp_path: Path) -> None:
    """One of a file exists already: none of the others is made."""
    world = World(tmp_path, nightly())
    entries = [{"name": name, "cron": "@daily", "type": "full"} for name in ("first", "nightly", "third")]
    with pytest.raises(UsageError, match="'nightly' already"):
        change_schedules(world.scheduler, {"do": "create", "schedule": entries})

    assert ["nightly"] == [each.name for each in world.scheduler.schedules]


def test_s15_s16_the_printed_schedules_can_be_taken_from_a_file(tmp_path: Path) -> None:
    """Those that are there without one have the same names: what is in the file counts."""
    world = World(tmp_path, *DEFAULT_SCHEDULES)
    found = change_schedules(world.scheduler, {"do": "create", "schedule": PRINTED, "replace": True})

    assert ["daily-full-backup", "incremental-backup"] == [each["name"] for each in found["schedules"]]
    assert [(30, True), (7, True)] == [(each["retentionDays"], each["byHand"]) for each in found["schedules"]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"do": "explode"},
        {"do": None},
        {"do": "create"},
        {"do": "create", "schedule": {"name": "x"}},
        {"do": "create", "schedule": "x"},
        {"do": "update", "name": "nightly", "schedule": [1]},
        {"do": "update", "name": "nightly", "schedule": "cron"},
        {"do": "update", "name": "nightly", "schedule": {"cron": "@daily"}},
        {"do": "update", "name": "nightly", "schedule": {"name": "other"}},
        {"do": "update", "name": "nightly", "schedule": {"retentionDays": 10**9}},
        {"do": "update", "name": "other", "schedule": {"retentionDays": 1}},
        {"do": "update", "name": ["nightly"], "schedule": {}},
        {"do": "delete"},
        {"do": "delete", "name": {"a": 1}},
    ],
    ids=str,
)
def test_a_hostile_change_changes_nothing(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """Refused as what it is, and the schedules are as before."""
    world = World(tmp_path, nightly())
    with pytest.raises((UsageError, ConfigError, ScheduleNotFound)):
        change_schedules(world.scheduler, arguments)

    assert (nightly(),) == world.scheduler.schedules


def test_x5_the_retention_of_schedules_by_hand_counts(tmp_path: Path) -> None:
    """In the agent, and for whoever plans without one."""
    world = World(tmp_path, *DEFAULT_SCHEDULES)
    change_schedules(
        world.scheduler,
        {"do": "create", "schedule": {"name": "yearly", "cron": "@yearly", "type": "full", "retention": 700}},
    )
    change(world, "update", "incremental-backup", retentionDays=2)
    config = DatabaseConfig("app.db", ())
    for scheduler in (world.scheduler, kept_schedules(world.path, DEFAULT_SCHEDULES, world.clock)):
        policy = config.policy(scheduler.schedules)
        assert (700, 2) == (policy.full_days, policy.incremental_days)
    with pytest.raises(SourceGone):
        kept_schedules(world.path, (), world.clock).run(nightly())


# --- a clock that is set -------------------------------------------------------------------------------

YEAR = 365 * DAY


@pytest.mark.parametrize("seconds", [HOUR, YEAR], ids=["an hour", "a year"])
def test_a_clock_that_is_set_back_keeps_no_run_away(tmp_path: Path, seconds: int) -> None:
    """At most one is left out, since it was made already; the day after they run as they are due."""
    world = World(tmp_path, *DEFAULT_SCHEDULES)
    world.let(hours=1)
    world.stores.backups()
    world.clock.set_wall(world.clock.wall() - seconds * 1_000_000)
    world.let(hours=23)
    first = [kind for _, kind, _ in world.stores.backups()]
    world.let(hours=24)

    assert [INCREMENTAL] * 5 == first
    assert [FULL, *[INCREMENTAL] * 5] == [kind for _, kind, _ in world.stores.backups()]


def test_a_clock_that_is_set_back_while_nobody_is_there_keeps_no_run_away(tmp_path: Path) -> None:
    """The same with what was written down before: nothing is missed, and the next one runs."""
    world = World(tmp_path, nightly())
    world.let(hours=1)
    world.stores.backups()
    world.clock.set_wall(world.clock.wall() - 100 * DAY * 1_000_000)
    world.begin()
    assert [] == world.stores.backups()
    world.let(hours=24)

    assert 1 == len(world.stores.backups())


@pytest.mark.parametrize("seconds", [HOUR, YEAR], ids=["an hour", "a year"])
def test_a_clock_that_is_set_ahead_makes_up_once(tmp_path: Path, seconds: int) -> None:
    """What lies between was missed: one run of each, within the hour; set right again, they go on as they are due."""
    world = World(
        tmp_path, *parse_schedules({"name": "often", "cron": "*/10 * * * *", "type": "incremental"})
    )
    world.clock.set_wall(world.clock.wall() + seconds * 1_000_000)
    world.let(minutes=1)
    assert 1 == len(world.stores.backups())
    world.clock.set_wall(world.clock.wall() - seconds * 1_000_000)
    world.let(minutes=10)
    world.stores.backups()
    world.let(hours=1)

    assert 6 == len(world.stores.backups())


def test_what_waits_does_not_wait_for_the_clock_on_the_wall(tmp_path: Path) -> None:
    """Jitter, and the next attempt, take as long as they say although the clock is set back a year meanwhile."""
    world = World(tmp_path, nightly(jitter=600.0), urls=("a", "b"))
    world.chance = 1.0
    world.stores.errors["b"] = StoreUnavailable("the network went away")
    world.let(minutes=35)
    world.clock.set_wall(world.clock.wall() - YEAR * 1_000_000)
    world.let(minutes=6)
    assert [(FULL, "a"), (FULL, "b")] == [each[1:] for each in world.stores.backups()]
    world.clock.set_wall(world.clock.wall() - YEAR * 1_000_000)
    world.let(minutes=6)

    assert [(FULL, "b")] == [each[1:] for each in world.stores.backups()]


# --- the file ------------------------------------------------------------------------------------------


def whole_file(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(world.path).read_text())
    return found


@pytest.mark.parametrize(
    "damage",
    [
        {"known": [1]},
        {"known": {"nightly": 7}},
        {"known": {"nightly": {"last_due": "yesterday"}}},
        {"known": {"nightly": {"last_due": 10**30}}},
        {"known": {"nightly": {"last_due": -5}}},
        {"known": {"nightly": {"runs": "many"}}},
        {"by_hand": [1]},
        {"by_hand": {"noon": {"name": "noon"}}},
        {"by_hand": {"noon": 7}},
        {"runs": 7},
        {"runs": [7]},
        {"runs": [{"schedule": "nightly"}]},
        {"runs": [{"schedule": "nightly", "due": None, "stores": [1]}]},
        {"runs": [{"schedule": "nightly", "due": None, "stores": {"a": 7}}]},
    ],
    ids=str,
)
def test_a_file_that_is_none_of_ours_is_as_good_as_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: dict[str, Any]
) -> None:
    """The agent begins all the same, with the configuration's, and says so."""
    world = World(tmp_path, nightly())
    Path(world.path).write_text(json.dumps({**whole_file(world), **damage}))
    world.begin()
    world.let(hours=1)

    assert [("28 02:00", FULL, "a")] == world.stores.backups()
    assert "schedules.unreadable" in [record.message for record in caplog.records]
    world.begin()
    assert (1, 0) == world.counts("nightly")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_torn_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    """Nothing was missed then: nobody knows."""
    world = World(tmp_path, nightly())
    Path(world.path).write_bytes(content)
    world.clock.advance(2 * DAY)
    world.begin()

    assert [] == world.stores.backups()
    world.let(hours=1)
    assert [("30 02:00", FULL, "a")] == world.stores.backups()


def test_a_state_that_cannot_be_written_stops_no_backup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, say (here: a file in the place of the folder): told of, and the runs go on."""
    world = World(tmp_path, nightly())
    Path(world.path).unlink()
    Path(world.path).parent.rmdir()
    Path(world.path).parent.touch()
    world.let(days=2)

    assert [("28 02:00", FULL, "a"), ("29 02:00", FULL, "a")] == world.stores.backups()
    assert "state.unwritten" in [record.message for record in caplog.records]


def test_the_file_holds_no_more_than_it_should(tmp_path: Path) -> None:
    """Mode 0600, and times that are of the clock on the wall."""
    world = World(tmp_path, nightly())
    world.let(hours=1)
    found = whole_file(world)

    assert 0o600 == Path(world.path).stat().st_mode & 0o777
    assert "2025-01-28T02:00:00.000000Z" == format_time(found["known"]["nightly"]["last_due"])
    assert {"known", "by_hand", "runs"} == set(found)
