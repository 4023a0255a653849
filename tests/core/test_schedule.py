"""Schedules: when they are due, compared with a clock that looks at every minute."""

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import ConfigError
from replicator.core.schedule import (
    LOOK_BACK_DAYS,
    SHORTHANDS,
    Schedule,
    explain,
    is_missed,
    last_due,
    next_run,
    parse_cron,
    with_jitter,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def text_of(time: int) -> str:
    return (EPOCH + timedelta(microseconds=time)).strftime("%Y-%m-%d %H:%M")


def schedule(cron: str, *, jitter: float = 0.0, enabled: bool = True) -> Schedule:
    return Schedule("one", parse_cron(cron), "full", jitter=jitter, enabled=enabled)


# --- the second opinion: cron(5), read minute by minute ------------------------------------------------

BOUNDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
NAMES = {
    3: {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name},
    4: {name.upper(): (number + 1) % 7 for number, name in enumerate(calendar.day_abbr)},
}


def values_of(field: str, number: int) -> set[int]:
    low, high = BOUNDS[number]
    names = NAMES.get(number, {})
    found: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = names[first] if first in names else int(first)
            ends = last or (str(high) if step else first)
            end = names[ends] if ends in names else int(ends)
        found |= set(range(begin, end + 1, int(step or 1)))
    return {each % 7 for each in found} if number == 4 else found


def comes_true(cron: str, moment: datetime) -> bool:
    minutes, hours, days, months, weekdays = (
        values_of(field, number) for number, field in enumerate(cron.split())
    )
    if moment.minute not in minutes or moment.hour not in hours or moment.month not in months:
        return False
    is_day, is_weekday = moment.day in days, moment.isoweekday() % 7 in weekdays
    starred = any(cron.split()[number].startswith("*") for number in (2, 4))
    return (is_day and is_weekday) if starred else (is_day or is_weekday)


def next_by_looking(cron: str, after: int, days: int) -> int | None:
    """Day by day, then every minute of a day that has any; None where nothing comes within *days*."""
    moment = EPOCH + timedelta(microseconds=after // MINUTE * MINUTE) + timedelta(minutes=1)
    _, _, *rest = cron.split()
    for number in range(days):
        day = moment.replace(hour=0, minute=0) + timedelta(days=number)
        if not comes_true(" ".join(["*", "*", *rest]), day):
            continue
        for minute in range(24 * 60):
            tried = day + timedelta(minutes=minute)
            if tried >= moment and comes_true(cron, tried):
                return (tried - EPOCH) // timedelta(microseconds=1)
    return None


@st.composite
def fields(draw: st.DrawFn, number: int) -> str:
    low, high = BOUNDS[number]

    def value() -> str:
        found = draw(st.integers(low, high))
        spelt = [name for name, each in NAMES.get(number, {}).items() if each == found]
        return spelt[0] if spelt and draw(st.booleans()) else str(found)

    def item() -> str:
        kind = draw(st.sampled_from(["star", "one", "span", "span"]))
        step = draw(st.sampled_from(["", "", "/1", "/2", "/5", "/7" if number in (3, 4) else "/13"]))
        if kind == "star":
            return "*" + step
        if kind == "one":
            return value() + step
        first, last = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
        return f"{first}-{last}{step}"

    if draw(st.integers(0, 2)) == 0:
        return "*"
    return ",".join(item() for _ in range(draw(st.integers(1, 3))))


crons = st.tuples(*(fields(number) for number in range(5))).map(" ".join)
times = st.integers(at("1999-12-31"), at("2101-01-01"))


def accepted(cron: str) -> Schedule | None:
    try:
        return schedule(cron)
    except ConfigError as exc:
        if "never comes" not in str(exc):
            raise
        return None


@given(crons, times)
def test_s109_x16_the_next_run_is_the_next_minute_that_matches(cron: str, after: int) -> None:
    """For any expression and any time, it is what looking at every minute finds; in UTC no hour is skipped or told
    twice."""
    parsed = accepted(cron)
    found = next_by_looking(cron, after, 800)
    if parsed is None:
        assert found is None
        return
    run = next_run(parsed, after)

    assert (found if found is not None else run) == run
    assert found is not None or run - after > 799 * DAY


@given(crons, times)
def test_runs_go_on_and_on(cron: str, after: int) -> None:
    """Each next run is after the time asked, on a whole minute, and none lies between; so is what was due last."""
    parsed = accepted(cron)
    if parsed is None:
        return
    run = next_run(parsed, after)

    assert run > after
    assert 0 == run % MINUTE
    assert run == next_run(parsed, run - 1)
    assert run == last_due(parsed, run) == last_due(parsed, next_run(parsed, run) - 1) or (
        next_run(parsed, run) - run > LOOK_BACK_DAYS * DAY
    )
    assert next_run(parsed, run) > run
    before = last_due(parsed, run - 1)
    assert before is None or (before <= after and next_run(parsed, before) == run)


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 2 * * *", "2025-01-28 01:59:59.999999", "2025-01-28 02:00"),
        ("0 2 * * *", "2025-01-28 02:00", "2025-01-29 02:00"),
        ("0 6,10,14,18,22 * * *", "2025-01-28 22:00", "2025-01-29 06:00"),
        ("0 6,10,14,18,22 * * *", "2025-01-28 06:00:01", "2025-01-28 10:00"),
        ("*/15 * * * *", "2025-01-28 23:45", "2025-01-29 00:00"),
        # the hours that clocks of Europe and America skip and repeat
        ("30 2 * * *", "2025-03-30 00:00", "2025-03-30 02:30"),
        ("30 1 * * *", "2025-10-26 01:30", "2025-10-27 01:30"),
        ("*/30 * * * *", "2025-11-02 01:00", "2025-11-02 01:30"),
        # steps of a single value lead nowhere else
        ("5-5/10 * * * *", "2025-01-28 00:05", "2025-01-28 01:05"),
        ("0 0 * jan-1/2 mon-1/2", "2025-01-27 00:00", "2026-01-05 00:00"),
        ("5/10 * * * *", "2025-01-28 00:05", "2025-01-28 00:15"),
        # leap years
        ("0 0 29 2 *", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("0 0 29 FEB *", "2096-02-29 00:00", "2104-02-29 00:00"),
        ("0 0 * * *", "2025-02-28 00:00", "2025-03-01 00:00"),
        ("0 0 * * *", "2024-02-28 00:00", "2024-02-29 00:00"),
        ("0 0 31 * *", "2025-01-31 00:00", "2025-03-31 00:00"),
        # days of the week: 0 and 7 are Sunday
        ("0 3 * * 7", "2025-01-28 00:00", "2025-02-02 03:00"),
        ("0 3 * * 0", "2025-01-28 00:00", "2025-02-02 03:00"),
        ("0 3 * * sun", "2025-01-28 00:00", "2025-02-02 03:00"),
        ("0 3 * jan-mar mon-fri", "2025-01-31 03:00", "2025-02-03 03:00"),
        # the day or the weekday; both where one begins with a star
        ("0 0 13 * 5", "2025-06-01 00:00", "2025-06-06 00:00"),
        ("0 0 13 * 5", "2025-06-06 00:00", "2025-06-13 00:00"),
        ("0 0 */2 * 5", "2025-06-01 00:00", "2025-06-13 00:00"),
        ("@daily", "2025-01-28 00:00", "2025-01-29 00:00"),
        ("@hourly", "2025-01-28 00:00", "2025-01-28 01:00"),
        ("@weekly", "2025-01-28 00:00", "2025-02-02 00:00"),
        ("@MONTHLY", "2025-01-28 00:00", "2025-02-01 00:00"),
        ("@yearly", "2025-01-28 00:00", "2026-01-01 00:00"),
    ],
)
def test_the_next_run(cron: str, after: str, expected: str) -> None:
    """The first time strictly after the one given, in UTC."""
    assert expected == text_of(next_run(schedule(cron), at(after)))


@pytest.mark.parametrize(
    ("cron", "now", "expected"),
    [
        ("0 2 * * *", "2025-01-28 02:00", "2025-01-28 02:00"),
        ("0 2 * * *", "2025-01-28 02:00:00.000001", "2025-01-28 02:00"),
        ("0 2 * * *", "2025-01-28 01:59:59.999999", "2025-01-27 02:00"),
        ("0 0 29 2 *", "2024-03-01 00:00", "2024-02-29 00:00"),
        ("0 0 29 2 *", "2025-04-05 00:00", "2024-02-29 00:00"),  # 401 days are 35 more than a year
        ("0 0 1 1 *", "2025-12-31 00:00", "2025-01-01 00:00"),
    ],
)
def test_what_was_due_last(cron: str, now: str, expected: str) -> None:
    """The latest time at or before now, a due time exactly now included."""
    due = last_due(schedule(cron), at(now))

    if (at(now) - at(expected)) > LOOK_BACK_DAYS * DAY:
        assert due is None
    else:
        assert due is not None
        assert expected == text_of(due)


def test_it_looks_back_four_hundred_days_and_no_further() -> None:
    """A due time 400 days ago counts, a microsecond more does not, and one before 1970 never."""
    rare, due = schedule("0 0 29 2 *"), at("2024-02-29 00:00")

    assert due == last_due(rare, due + 400 * DAY)
    assert last_due(rare, due + 400 * DAY + 1) is None
    assert last_due(schedule("0 2 * * *"), HOUR) is None


def test_s02_a_missed_run_is_made_up_for_once() -> None:
    """Down over three due times: missed until it ran once, whenever that was; not again before it is due again."""
    daily, ran = schedule("0 2 * * *"), at("2025-01-25 02:00:03")
    back = at("2025-01-28 09:00")

    assert not is_missed(daily, ran, at("2025-01-26 01:59:59"))
    assert is_missed(daily, ran, at("2025-01-26 02:00"))
    assert is_missed(daily, ran, back)
    assert not is_missed(daily, back, back + 1)
    assert not is_missed(daily, back, at("2025-01-29 01:59:59"))
    assert is_missed(daily, back, at("2025-01-29 02:00"))
    assert not is_missed(schedule("0 2 * * *", enabled=False), ran, back)


def test_a_run_just_when_it_was_due_counts() -> None:
    """One that ran at its due time to the microsecond is not missed; one that ran before it is."""
    daily, due = schedule("0 2 * * *"), at("2025-01-26 02:00")

    assert not is_missed(daily, due, due + HOUR)
    assert is_missed(daily, due - 1, due)


@given(crons, times, st.floats(0, 1), st.sampled_from([0.0, 0.5, 300.0, 86_400.0]))
def test_jitter_delays_and_never_reaches_the_next_run(
    cron: str, after: int, fraction: float, jitter: float
) -> None:
    """A run is moved by up to its jitter, never before it is due, never to when it is due again."""
    parsed = accepted(cron)
    if parsed is None:
        return
    jittered = Schedule("one", parsed.cron, "full", jitter=jitter)
    due = next_run(jittered, after)
    moved = with_jitter(jittered, due, fraction)

    assert due <= moved <= due + jitter * SECOND
    assert moved < next_run(jittered, due)
    assert due == last_due(jittered, moved)


def test_jitter_is_a_share_of_what_was_allowed() -> None:
    """Half of five minutes are 150 seconds; where it is due each minute less than one is left."""
    due = at("2025-01-28 02:00")

    assert due + 150 * SECOND == with_jitter(schedule("0 2 * * *", jitter=300), due, 0.5)
    assert due == with_jitter(schedule("0 2 * * *", jitter=300), due, 0.0)
    assert due + MINUTE - 1 == with_jitter(schedule("* * * * *", jitter=300), due, 1.0)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("", "0 fields"),
        ("0 2 * *", "4 fields"),
        ("0 0 2 * * *", "6 fields"),
        ("0 2 * * * 2025", "6 fields"),
        ("@reboot", "no shorthand"),
        ("@every 5m", "no shorthand"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * 32 * *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * 0 *", "bad month"),
        ("* * * * 8", "bad day-of-week"),
        ("* * * * FEB", "bad day-of-week"),
        ("* * * MON *", "bad month"),
        ("5-1 * * * *", "bad minute"),
        ("*/0 * * * *", "bad minute"),
        ("*/61 * * * *", "steps of 61 in minutes"),
        ("*/60 * * * *", "steps of 60 in minutes"),
        ("0 5,*/24 * * *", "steps of 24 in hours"),
        ("0 0 */32 * *", "steps of 32 in days"),
        ("0 0 1 */13 *", "steps of 13 in months"),
        ("0 0 * * */8", "steps of 8 in weekdays"),
        ("* * L * *", "does not know: L"),
        ("* * * * MON#2", "does not know: MON#2"),
        ("* * ? * *", "does not know: ?"),
        ("1,,2 * * * *", "does not know: 1,,2"),
        ("-1 * * * *", "does not know: -1"),
        ("1.5 * * * *", "does not know: 1.5"),
        ("H * * * *", "does not know: H"),
        ("٣ * * * *", "no cron expression"),
        ("* * * * \u017fun", "no cron expression"),  # a long s, of which S is the capital
        ("0 0 31 2 *", "never comes"),
        ("0 0 30 FEB *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 31 2 */2", "never comes"),
        ("0,1" + ",2" * 300 + " * * * *", "no cron expression"),
        ("9" * 10_000 + " * * * *", "no cron expression"),
    ],
)
def test_what_is_no_cron_expression_is_refused(cron: str, said: str) -> None:
    """Only five fields of numbers, names, lists, ranges and steps that come true some day."""
    with pytest.raises(ConfigError) as caught:
        parse_cron(cron)

    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=40))
def test_any_text_is_a_cron_expression_or_refused(text: str) -> None:
    """Whatever is typed, the answer is an expression or a ConfigError."""
    try:
        cron = parse_cron(text)
    except ConfigError:
        return
    assert cron == parse_cron(cron)


def test_cron_is_kept_as_it_was_written() -> None:
    """With single blanks and in capitals; a shorthand stays one."""
    assert "0 2 * JAN MON" == parse_cron("  0  2 * jan\tmon ")
    assert "@daily" == parse_cron(" @Daily ")


@given(crons, st.sampled_from([None, 1, 30]), st.booleans())
def test_every_schedule_can_be_explained(cron: str, days: int | None, flag: bool) -> None:
    """Whatever is accepted has a sentence of its own."""
    parsed = accepted(cron)
    if parsed is None:
        return
    said = explain(Schedule("one", parsed.cron, "log", days, flag, flag, flag, jitter=60.0))

    assert "UTC: log backup" in said
    assert "\n" not in said


def test_explanations() -> None:
    """When, what, and what it overrides."""
    daily = Schedule("a", "0 2 * * *", "full", 30, True, True, jitter=300)
    weekly = Schedule("b", "30 3 * * SUN", "monthly", 1, False, False, enabled=False)

    assert (
        "At 02:00 every day, UTC: full backup, kept 30 days, compressed, verified, up to 5m later"
        == explain(daily)
    )
    assert (
        "At 03:30 on Sunday, UTC: monthly full backup, kept 1 day, not compressed, not verified, switched off"
        == explain(weekly)
    )
    assert "At 00:00 every day, UTC: incremental backup" == explain(Schedule("c", "@daily", "incremental"))
    assert "At 06:00, 10:00, 14:00, 18:00 and 22:00 every day, UTC: log backup" == explain(
        Schedule("d", "0 6,10,14,18,22 * * *", "log")
    )
    assert "At 00:05 and 12:05 on Monday through Friday, UTC: full backup" == explain(
        Schedule("e", "5 12,0 * * MON-FRI", "full")
    )
    assert "Every 15th minute of every hour, UTC: log backup" == explain(Schedule("f", "*/15 * * * *", "log"))


def test_a_time_that_no_calendar_has_is_refused() -> None:
    """Times lie in 1970 to 9999, and the last run is the last before the year 10000."""
    last = at("9999-12-31 02:00")

    assert last == next_run(schedule("0 2 * * *"), last - 1)
    for after in (last, -1, at("9999-12-31 23:59:59") + 2 * SECOND):
        with pytest.raises(ValueError, match=r"10000|1970"):
            next_run(schedule("0 2 * * *"), after)


def test_shorthands_stand_for_what_cron_means_by_them() -> None:
    """Each comes true at midnight UTC on the day that its name says."""
    begin = at("2025-03-05 10:00")
    found = {name: text_of(next_run(schedule(name), begin)) for name in SHORTHANDS}

    assert {
        "@hourly": "2025-03-05 11:00",
        "@daily": "2025-03-06 00:00",
        "@midnight": "2025-03-06 00:00",
        "@weekly": "2025-03-09 00:00",
        "@monthly": "2025-04-01 00:00",
        "@yearly": "2026-01-01 00:00",
        "@annually": "2026-01-01 00:00",
    } == found
    assert calendar.weekday(2025, 3, 9) == calendar.SUNDAY
