"""Schedules as people write them: what is taken, and what is refused with a word on how to put it right."""

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import ConfigError
from replicator.core.schedule import BACKUP_TYPES, Schedule
from replicator.core.schedule_file import DEFAULT_SCHEDULES, parse_schedules

DAILY = {
    "name": "daily-full-backup",
    "cronExpression": "0 2 * * *",
    "backupType": "full",
    "retentionDays": 30,
    "compress": True,
    "verify": True,
}
FOUR_HOURLY = {
    "name": "incremental-backup",
    "cronExpression": "0 6,10,14,18,22 * * *",
    "backupType": "incremental",
    "retentionDays": 7,
    "compress": True,
    "verify": True,
}
PRINTED = """{"schedules": [
  {"name": "daily-full-backup", "cronExpression": "0 2 * * *", "backupType": "full", "retentionDays": 30,
   "compress": true, "verify": true},
  {"name": "incremental-backup", "cronExpression": "0 6,10,14,18,22 * * *", "backupType": "incremental",
   "retentionDays": 7, "compress": true, "verify": true}]}"""
AS_PRINTED = (
    Schedule("daily-full-backup", "0 2 * * *", "full", 30, True, True),
    Schedule("incremental-backup", "0 6,10,14,18,22 * * *", "incremental", 7, True, True),
)


def refused(loaded: object) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_schedules(loaded)
    assert caught.value.hint or "never comes" in str(caught.value)
    return str(caught.value), caught.value.hint or ""


def test_s15_s16_the_schedules_are_taken_as_printed() -> None:
    """S15, S16, S108 to S110: the two objects of the strategy, letter by letter, are the default, too."""
    assert AS_PRINTED == parse_schedules(json.loads(PRINTED))
    assert AS_PRINTED == parse_schedules(yaml.safe_load(PRINTED))
    as_usual = [replace(each, retention_days=None, compress=None, verify=None) for each in AS_PRINTED]
    assert as_usual == list(DEFAULT_SCHEDULES)  # as usual is the same, and can be set


def test_a_list_alone_or_one_schedule_alone_will_do() -> None:
    """Without `schedules` around them; one without a name has the name of its type."""
    alone = {key: value for key, value in DAILY.items() if key != "name"}

    assert AS_PRINTED == parse_schedules([DAILY, FOUR_HOURLY])
    assert AS_PRINTED[:1] == parse_schedules(DAILY)
    assert (Schedule("full", "0 2 * * *", "full", 30, True, True),) == parse_schedules(alone)
    assert () == parse_schedules([])
    assert () == parse_schedules({"schedules": []})


def test_the_other_dialect_means_the_same() -> None:
    """The names of the server's routes, and the short ones."""
    route = {
        "name": "a",
        "schedule": "0 2 * * *",
        "type": "full",
        "retention": "30d",
        "compressionEnabled": False,
        "verificationEnabled": True,
        "enabled": False,
        "description": "every night",
        "jitter": "5m",
    }
    expected = Schedule("a", "0 2 * * *", "full", 30, False, True, False, "every night", 300.0)

    assert (expected,) == parse_schedules(route)
    assert (Schedule("log", "*/15 * * * *", "log"),) == parse_schedules(
        {"cron": "*/15 * * * *", "type": "log"}
    )


def test_what_is_left_out_is_the_setting_for_all() -> None:
    """Also where it is said to be nothing."""
    bare = {"name": "a", "cron": "@daily", "type": "monthly"}
    said = {**bare, "retention": None, "compress": None, "verify": None, "description": None, "jitter": 0}

    assert (Schedule("a", "@daily", "monthly", None, None, None, True, "", 0.0),) == parse_schedules([bare])
    assert parse_schedules([bare]) == parse_schedules([said])


@pytest.mark.parametrize("backup_type", BACKUP_TYPES)
def test_x4_every_type_can_be_scheduled(backup_type: str) -> None:
    """X4: log and monthly are types, too."""
    assert backup_type == parse_schedules({**DAILY, "backupType": backup_type})[0].backup_type


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("cronExpresion", "cronExpression"),
        ("backuptype", "backupType"),
        ("retention_days", "retentionDays"),
        ("retentiondays", "retentionDays"),
        ("compres", "compress"),  # codespell:ignore
        ("verfy", "verify"),  # codespell:ignore
        ("nmae", "name"),  # codespell:ignore
        ("enable", "enabled"),  # codespell:ignore
        ("jiter", "jitter"),  # codespell:ignore
        ("shedules", "schedules"),  # codespell:ignore
    ],
)
def test_an_unknown_key_names_the_nearest_one(key: str, meant: str) -> None:
    """A typing error is found, not passed over."""
    said, hint = refused([{**DAILY, key: 1}])

    assert f"schedule 'daily-full-backup': unknown key '{key}'" == said
    assert f"did you mean `{meant}`?" == hint


def test_an_unknown_key_like_no_other_lists_those_there_are() -> None:
    """Whatever kind of thing the key is."""
    for key in ("xyzzy", 5, None, True, "q" * 100_000):
        said, hint = refused([{**DAILY, key: 1}])

        assert "unknown key" in said
        assert hint.startswith("known are: name, cronExpression")
        assert len(said) < 300


WRONG: list[tuple[str, Any, str]] = [
    # key, value, what the hint says
    ("name", "", "text of 1 to 100"),
    ("name", "   ", "text of 1 to 100"),
    ("name", "a\nb", "text of 1 to 100"),
    ("name", "a\x1b[31m", "text of 1 to 100"),
    ("name", "n" * 101, "text of 1 to 100"),
    ("name", 5, "text of 1 to 100"),
    ("name", None, "text of 1 to 100"),
    ("name", ["a"], "text of 1 to 100"),
    ("cronExpression", 5, "five fields"),
    ("cronExpression", None, "five fields"),
    ("cronExpression", [], "five fields"),
    ("cronExpression", "0 0 2 * * *", "five fields"),
    ("cronExpression", "0 2 * * * 2025", "five fields"),
    ("cronExpression", "@reboot", "there are @hourly"),
    ("cronExpression", "every night", "five fields"),
    ("backupType", "Full", "full, incremental, log, monthly"),
    ("backupType", "differential", "full, incremental, log, monthly"),
    ("backupType", None, "full, incremental, log, monthly"),
    ("backupType", ["full"], "full, incremental, log, monthly"),
    ("backupType", {}, "full, incremental, log, monthly"),
    ("retentionDays", 0, "1 to 3660"),
    ("retentionDays", -1, "1 to 3660"),
    ("retentionDays", 3_661, "1 to 3660"),
    ("retentionDays", 1.5, "1 to 3660"),
    ("retentionDays", 30.0, "1 to 3660"),
    ("retentionDays", True, "1 to 3660"),
    ("retentionDays", "30", "such as"),
    ("retentionDays", "36h", "1 to 3660"),
    ("retentionDays", "0d", "1 to 3660"),
    ("retentionDays", float("nan"), "1 to 3660"),
    ("retentionDays", [30], "1 to 3660"),
    ("compress", "true", "without quotes"),
    ("compress", 1, "without quotes"),
    ("verify", "yes", "without quotes"),
    ("verify", 0, "without quotes"),
    ("enabled", None, "without quotes"),
    ("enabled", "on", "without quotes"),
    ("description", 5, "at most 1,000"),
    ("description", "d" * 1_001, "at most 1,000"),
    ("jitter", 5, "such as 5m"),
    ("jitter", "5", "such as"),
    ("jitter", "-5m", "such as"),
    ("jitter", "25h", "such as 5m"),
    ("jitter", False, "such as 5m"),
    ("jitter", [], "such as 5m"),
]


@pytest.mark.parametrize(("key", "value", "hint"), WRONG)
def test_a_wrong_value_is_named_with_its_schedule_and_key(key: str, value: Any, hint: str) -> None:
    """The message says where and what, the hint what it should be."""
    said, found = refused({"schedules": [FOUR_HOURLY, {**DAILY, key: value}]})

    assert said.startswith("schedule 2" if key == "name" and not value else "schedule ")
    assert "daily-full-backup" in said or key == "name"
    assert f"`{key}`" in said
    assert hint in found
    assert len(said) < 400


def test_the_day_that_no_month_has_is_refused_by_name() -> None:
    """It would be waited for until nobody remembers it."""
    said, _ = refused([{**DAILY, "cronExpression": "0 0 31 2 *"}])

    assert (
        "schedule 'daily-full-backup': `cronExpression`: '0 0 31 2 *' never comes: no such month has that day"
        == said
    )


def test_what_a_schedule_cannot_do_without() -> None:
    """When and what."""
    said, hint = refused([{"name": "a", "type": "full"}])
    assert "schedule 'a' has no `cronExpression`" == said
    assert "five fields" in hint

    said, hint = refused([{"cron": "@daily"}])
    assert "schedule 1 has no `backupType`" == said
    assert "full, incremental" in hint


def test_the_same_said_twice_is_refused() -> None:
    """Which of the two would count nobody can say."""
    said, _ = refused([{**DAILY, "cron": "0 3 * * *"}])

    assert "schedule 'daily-full-backup': `cronExpression` and `cron` say the same" == said


def test_two_of_the_same_name_are_refused() -> None:
    """Also where it is the name of their type, or differs in blanks only."""
    nameless = {"cron": "@daily", "type": "full"}
    for pair in (
        [DAILY, DAILY],
        [nameless, nameless],
        [DAILY, {**FOUR_HOURLY, "name": " daily-full-backup "}],
    ):
        said, hint = refused(pair)

        assert "two schedules have the name" in said
        assert "of its own" in hint


@pytest.mark.parametrize(
    "loaded",
    [
        None,
        "",
        "0 2 * * *",
        5,
        True,
        {},
        (),
        {"schedules": None},
        {"schedules": "daily"},
        {"schedules": DAILY},
        {"schedules": [DAILY], "version": 1},
        [None],
        ["daily"],
        [[DAILY]],
        [DAILY, 5],
        [{}],
    ],
)
def test_what_holds_no_schedules_is_refused(loaded: object) -> None:
    """Anything but a list of objects, an object with one, or one object."""
    refused(loaded)


def test_a_hundred_schedules_are_enough() -> None:
    """And each name may have a hundred characters."""
    many = [{**DAILY, "name": f"{number:0100d}"} for number in range(101)]

    assert 100 == len(parse_schedules(many[:100]))
    assert "there are 101 schedules" == refused(many)[0]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*DAILY, "schedules", "cron", "jitter", "x"]), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(anything)
def test_anything_is_schedules_or_refused(loaded: object) -> None:
    """Whatever a file holds, the answer is schedules or a ConfigError."""
    try:
        schedules = parse_schedules(loaded)
    except ConfigError:
        return
    assert all(isinstance(each, Schedule) for each in schedules)
