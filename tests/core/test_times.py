"""Times: what is accepted, what is refused, and that every written form reads back."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import UsageError
from replicator.core.times import (
    MICROS_MAX,
    MICROS_MIN,
    ParsedTime,
    ago,
    compact_time,
    day_folder,
    format_time,
    month_of,
    parse_compact,
    parse_time,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

NOW = 1_738_029_600 * SECOND  # 2025-01-28T02:00:00Z

any_time = st.integers(MICROS_MIN, MICROS_MAX)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2025-01-28T02:00:00Z", NOW),
        ("2025-01-28 02:00:00Z", NOW),
        ("2025-01-28t02:00:00z", NOW),
        ("  2025-01-28T02:00:00Z\n", NOW),
        ("2025-01-28T03:30:00+01:30", NOW),
        ("2025-01-27T21:00:00-05:00", NOW),
        ("2025-01-28T02:00:00.5Z", NOW + 500_000),
        ("2025-01-28T02:00:00.123456Z", NOW + 123_456),
        ("2024-02-29T00:00:00Z", NOW - 334 * DAY - 2 * HOUR),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00-00:01", MINUTE),
        ("9999-12-31T23:59:59.999999Z", MICROS_MAX),
    ],
)
def test_rfc_3339_with_an_offset_is_exact(text: str, micros: int) -> None:
    """A time with an offset means one instant, and no zone is assumed for it."""
    parsed = parse_time(text, NOW)

    assert ParsedTime(micros, zone_assumed=False) == parsed


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2025-01-28T02:00:00", NOW),
        ("2025-01-28 02:00:00.25", NOW + 250_000),
        ("2025-01-28", NOW - 2 * HOUR),
        ("1970-01-01", 0),
    ],
)
def test_utc_is_assumed_when_the_offset_is_missing(text: str, micros: int) -> None:
    """A time or a day without an offset is taken as UTC, and the result says that this was a guess."""
    parsed = parse_time(text, NOW)

    assert ParsedTime(micros, zone_assumed=True) == parsed


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("now", 0),
        ("NOW", 0),
        ("2 hours ago", 2 * HOUR),
        ("90s ago", 90 * SECOND),
        ("10 minutes ago", 10 * MINUTE),
        ("1 Day ago", DAY),
        ("1.5h  ago", 90 * MINUTE),
        ("3 weeks ago", 21 * DAY),
        ("0.000001s ago", 1),
        ("0 seconds ago", 0),
    ],
)
def test_an_age_is_taken_from_now(text: str, age: int) -> None:
    """An age is subtracted from the time handed in, and needs no zone."""
    parsed = parse_time(text, NOW)

    assert ParsedTime(NOW - age, zone_assumed=False) == parsed


def test_digits_beyond_the_microsecond_are_cut_off() -> None:
    """A time between two microseconds is the earlier one, so that nothing later is included."""
    parsed = parse_time("2025-01-28T02:00:00.9999999999Z", NOW)

    assert NOW + 999_999 == parsed.micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "latest",
        "2025",
        "2025-1-28",
        "28.01.2025",
        "1738029600",
        "2025-01-28T",
        "2025-01-28T02:00",
        "2025-01-28  02:00:00",
        "2025-01-28T02:00:00.Z",
        "2025-01-28T02:00:00+0100",
        "2025-01-28T02:00:00 Europe/Paris",
        "2025-01-28Z",
        "٢٠٢٥-01-28",
        "ago",
        "hours ago",
        "-2 hours ago",
        "2 hours",
        "in 2 hours",
        "1e3 seconds ago",
        "9" * 4_000 + " days ago",
    ],
)
def test_other_texts_are_refused_with_the_accepted_forms(text: str) -> None:
    """What is no time in an accepted form is an error that quotes it and shows the forms."""
    with pytest.raises(UsageError) as caught:
        parse_time(text, NOW)

    assert str(caught.value).startswith(repr(text))
    assert "2025-01-28T14:30:00Z" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "2025-02-29",
        "2025-13-01",
        "2025-00-10",
        "2025-01-28T24:00:00Z",
        "2025-01-28T02:60:00Z",
        "2016-12-31T23:59:60Z",
        "2025-01-28T02:00:00+24:00",
        "2025-01-28T02:00:00+01:60",
    ],
)
def test_times_that_do_not_exist_are_refused(text: str) -> None:
    """A well-formed text that names no instant is an error on every version of Python."""
    with pytest.raises(UsageError, match="is not a time: "):
        parse_time(text, NOW)


def test_an_unknown_unit_of_an_age_is_named() -> None:
    """The error for an age names the unit that is none."""
    with pytest.raises(UsageError, match="'fortnights' is no unit"):
        parse_time("2 fortnights ago", NOW)


@pytest.mark.parametrize(
    "text",
    [
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "0001-01-01T00:00:00+01:00",
        "21900 days ago",
    ],
)
def test_years_outside_1970_to_9999_are_refused(text: str) -> None:
    """A time that no name could carry is refused when it is typed, also when only its offset moves it out."""
    with pytest.raises(UsageError, match="outside the years 1970 to 9999"):
        parse_time(text, NOW)


@given(any_time)
def test_format_time_reads_back(micros: int) -> None:
    """The written form of any time reads back as the same microsecond."""
    parsed = parse_time(format_time(micros), NOW)

    assert ParsedTime(micros, zone_assumed=False) == parsed


@given(any_time)
def test_compact_time_reads_back_to_the_second(micros: int) -> None:
    """The compact form reads back as the start of the same second."""
    assert micros - micros % SECOND == parse_compact(compact_time(micros))


@given(any_time, any_time)
def test_written_times_sort_as_the_times_do(left: int, right: int) -> None:
    """Texts and names in order of spelling are in order of time."""
    earlier, later = sorted((left, right))

    assert format_time(earlier) <= format_time(later)
    assert compact_time(earlier) <= compact_time(later)
    assert day_folder(earlier) <= day_folder(later)
    assert month_of(earlier) <= month_of(later)


def test_the_written_forms() -> None:
    """Each written form is the documented one."""
    micros = NOW + 1_234

    assert "2025-01-28T02:00:00.001234Z" == format_time(micros)
    assert "20250128T020000Z" == compact_time(micros)
    assert "2025/01/28" == day_folder(micros)
    assert "2025-01" == month_of(micros)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-01-28T02:00:00Z",
        "20250128T020000",
        "20250128t020000z",
        "20250128T020000Z\n",
        "20250230T020000Z",
        "20250128T240000Z",
        "19691231T235959Z",
    ],
)
def test_parse_compact_accepts_only_what_compact_time_writes(text: str) -> None:
    """A name that no agent can have written carries no time."""
    with pytest.raises(ValueError, match="is not a compact time"):
        parse_compact(text)


@pytest.mark.parametrize("write", [format_time, compact_time, day_folder, month_of])
@pytest.mark.parametrize("micros", [MICROS_MIN - 1, MICROS_MAX + 1, 10**30])
def test_writing_a_time_outside_the_bounds_is_refused(write: Callable[[int], str], micros: int) -> None:
    """A number from a damaged object does not become a text that looks like a time."""
    with pytest.raises(ValueError, match="outside the years 1970 to 9999"):
        write(micros)


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (0, "just now"),
        (SECOND - 1, "just now"),
        (SECOND, "1 second ago"),
        (59 * SECOND, "59 seconds ago"),
        (MINUTE, "1 minute ago"),
        (3 * MINUTE + 59 * SECOND, "3 minutes ago"),
        (23 * HOUR, "23 hours ago"),
        (400 * DAY, "400 days ago"),
        (1 - SECOND, "just now"),
        (-3 * MINUTE, "in 3 minutes"),
        (-DAY, "in 1 day"),
    ],
)
def test_ago_uses_the_largest_unit_that_fits(age: int, words: str) -> None:
    """An age is said in one unit, rounded down, and a time ahead is said to be ahead."""
    assert words == ago(NOW - age, NOW)


@given(st.integers(SECOND, NOW))
def test_ago_reads_back_within_its_unit(age: int) -> None:
    """What a report says about an age can be typed, and gives a time not before the real one."""
    words = ago(NOW - age, NOW)

    micros = parse_time(words, NOW).micros

    assert NOW - age <= micros < NOW - age / 2


@given(st.one_of(st.text(), st.from_regex(r"[0-9T :.Z+-]+|[0-9.]+ ?[a-z]+ ago", fullmatch=True)))
def test_any_text_is_a_time_or_a_usage_error(text: str) -> None:
    """No text makes the parser fail in another way than the documented one."""
    with contextlib.suppress(UsageError):
        assert MICROS_MIN <= parse_time(text, NOW).micros <= MICROS_MAX
