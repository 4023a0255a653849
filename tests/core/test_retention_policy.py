"""How long what is kept: calendar months, and schedules that override the settings for all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.retention_policy import DAY, HOUR, Policy, months_before, policy_with
from replicator.core.schedule import Schedule
from replicator.core.schedule_file import DEFAULT_SCHEDULES
from tests.core.shelves import at


def schedule(backup_type: str, days: int | None, *, enabled: bool = True) -> Schedule:
    return Schedule(f"{backup_type}-{days}", "@daily", backup_type, days, enabled=enabled)


@pytest.mark.parametrize(
    ("now", "months", "expected"),
    [
        ("2025-11-28 10:30", 12, "2024-11-28 10:30"),
        ("2025-11-28 10:30", 1, "2025-10-28 10:30"),
        ("2025-01-15", 1, "2024-12-15"),
        ("2025-01-15", 13, "2023-12-15"),
        ("2025-03-31", 1, "2025-02-28"),
        ("2024-03-31", 1, "2024-02-29"),
        ("2025-02-28", 12, "2024-02-28"),
        ("2024-02-29 23:59:59.5", 12, "2023-02-28 23:59:59.5"),
        ("2025-11-28", 0, "2025-11-28"),
        ("1970-05-01", 12, "1970-01-01"),
    ],
)
def test_months_are_those_of_the_calendar(now: str, months: int, expected: str) -> None:
    """The same day and hour, or the month's last day where it has no such day."""
    assert at(expected) == months_before(at(now), months)


@given(st.integers(at("1971-01-01"), at("9999-12-31")), st.integers(0, 12))
def test_a_month_is_28_to_31_days(now: int, months: int) -> None:
    """Whatever the day: never more, never less; and a year is a year."""
    assert 28 * months * DAY <= now - months_before(now, months) <= 31 * months * DAY
    assert now - months_before(now, 12) in (365 * DAY, 366 * DAY)


def test_where_the_windows_begin() -> None:
    """The four of the strategy, by their numbers."""
    now, policy = at("2025-11-28 12:00"), Policy()

    assert now - 48 * HOUR == policy.window_from(now)
    assert now - 7 * DAY == policy.incrementals_from(now)
    assert now - 30 * DAY == policy.fulls_from(now)
    assert at("2024-11-28 12:00") == policy.monthlies_from(now)
    assert now - 500 * DAY == replace(policy, monthly_days=500).monthlies_from(now)
    assert at("2024-11-28 12:00") == replace(policy, monthly_days=100).monthlies_from(now)
    assert [0] * 4 == [
        replace(policy, months=999, full_days=99_999, incremental_days=99_999, log_hours=9e6).window_from(
            now
        ),
        replace(policy, incremental_days=99_999).incrementals_from(now),
        replace(policy, full_days=99_999).fulls_from(now),
        replace(policy, months=999).monthlies_from(now),
    ]


BASE = Policy(log_hours=48, incremental_days=7, full_days=30, months=12)


@pytest.mark.parametrize(
    ("schedules", "changed"),
    [
        ([], {}),
        (DEFAULT_SCHEDULES, {}),
        ([schedule("full", 10)], {"full_days": 10}),
        ([schedule("full", 90)], {"full_days": 90}),
        ([schedule("full", None)], {}),
        # of several the longest, the setting for all among them
        ([schedule("full", 10), schedule("full", 20)], {"full_days": 20}),
        ([schedule("full", 10), schedule("full", None)], {"full_days": 30}),
        # switching it off deletes nothing
        ([schedule("full", 10), schedule("full", 60, enabled=False)], {"full_days": 60}),
        ([schedule("incremental", 3)], {"incremental_days": 3}),
        ([schedule("log", 5)], {"log_hours": 120}),
        ([schedule("log", None)], {}),
        ([schedule("monthly", 400)], {"months": 0, "monthly_days": 400}),
        ([schedule("monthly", None)], {}),
        ([schedule("monthly", 400), schedule("monthly", None)], {"monthly_days": 400}),
    ],
)
def test_s103_s110_x5_a_schedule_overrides_the_setting_for_its_type(
    schedules: list[Schedule], changed: dict[str, int]
) -> None:
    """X5: per schedule first; the others are left as they are."""
    assert replace(BASE, **changed) == policy_with(BASE, schedules)  # type: ignore[arg-type]
