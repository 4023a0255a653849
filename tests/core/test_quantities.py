"""Durations and sizes: what is accepted, what is refused, and that every written form reads back."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import UsageError
from replicator.core.quantities import (
    DURATION_SECONDS_MAX,
    SIZE_BYTES_MAX,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15m", 900.0),
        ("48h", 172_800.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("7d", 604_800.0),
        ("0", 0.0),
        ("0s", 0.0),
        (" 10 s ", 10.0),
        ("0.1s", 0.1),
        ("0.001ms", 0.000001),
        ("36500d", float(DURATION_SECONDS_MAX)),
    ],
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    """A number with a unit is that many seconds, exactly, and zero needs no unit."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not a duration"),
        ("s", "is not a duration"),
        ("-5s", "is not a duration"),
        ("1h30m", "is not a duration"),
        ("1,5s", "is not a duration"),
        ("1.s", "is not a duration"),
        (".5s", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("inf", "is not a duration"),
        ("٣s", "is not a duration"),
        ("9" * 5_000 + "s", "is not a duration"),
        ("90", "its unit is missing"),
        ("15x", "'x' is no unit"),
        ("15M", "'M' is no unit"),
        ("4MiB", "'MiB' is no unit"),
        ("0.0001ms", "finer than a microsecond"),
        ("36501d", "more than a hundred years"),
    ],
)
def test_other_durations_are_refused(text: str, fault: str) -> None:
    """What is no duration is an error that quotes it and shows the accepted form."""
    with pytest.raises(UsageError, match=fault) as caught:
        parse_duration(text)

    assert str(caught.value).startswith(repr(text))
    assert "15m" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0"),
        (0.0000001, "0"),
        (0.05, "50ms"),
        (0.0005, "0.5ms"),
        (0.123456, "123.456ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (90.000001, "90.000001s"),
        (90.0, "90s"),
        (900.0, "15m"),
        (5400.0, "90m"),
        (172_800.0, "2d"),
    ],
)
def test_durations_are_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    """A duration is written as a person would, with a fraction only where no unit fits."""
    assert text == format_duration(seconds)


@given(st.integers(0, DURATION_SECONDS_MAX * 1_000_000))
def test_durations_read_back(micros: int) -> None:
    """Any whole number of microseconds reads back as the same number of seconds."""
    seconds = micros / 1_000_000

    assert seconds == parse_duration(format_duration(seconds))


@pytest.mark.parametrize("seconds", [-0.001, DURATION_SECONDS_MAX + 1, float("inf"), float("nan")])
def test_writing_no_duration_is_refused(seconds: float) -> None:
    """A number that no duration has is a mistake of the program and is not written."""
    with pytest.raises(ValueError, match="is no duration"):
        format_duration(seconds)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512", 512),
        ("0", 0),
        ("512B", 512),
        ("10 KiB", 10_240),
        ("4MiB", 4_194_304),
        ("1.5GiB", 1_610_612_736),
        ("0.1kB", 100),
        ("3KB", 3_000),
        ("100GB", 100_000_000_000),
        ("2TiB", 2_199_023_255_552),
        ("9223372036854775807", SIZE_BYTES_MAX),
    ],
)
def test_sizes_are_read_in_bytes(text: str, size_bytes: int) -> None:
    """Units with an i count in 1024, those without in 1000, and a bare number is bytes."""
    assert size_bytes == parse_size(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not a size"),
        ("MiB", "is not a size"),
        ("-1", "is not a size"),
        ("1_000", "is not a size"),
        ("1e9", "is not a size"),
        ("1" * 5_000, "is not a size"),
        ("4M", "'M' is no unit"),
        ("4Mb", "'Mb' is no unit"),
        ("4mib", "'mib' is no unit"),
        ("4m", "'m' is no unit"),
        ("0.5", "not a whole number of bytes"),
        ("0.1KiB", "not a whole number of bytes"),
        ("9223372036854775808", "more than any file can hold"),
        ("8388608TiB", "more than any file can hold"),
    ],
)
def test_other_sizes_are_refused(text: str, fault: str) -> None:
    """What is no size is an error that quotes it and shows the accepted form."""
    with pytest.raises(UsageError, match=fault) as caught:
        parse_size(text)

    assert str(caught.value).startswith(repr(text))
    assert "4MiB" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"),
        (1_023, "1023B"),
        (1_024, "1KiB"),
        (1_000, "1kB"),
        (4_194_304, "4MiB"),
        (100_000_000_000, "100GB"),
        (512_000, "500KiB"),
        (SIZE_BYTES_MAX, "9223372036854775807B"),
    ],
)
def test_sizes_are_written_with_the_smallest_whole_number(size_bytes: int, text: str) -> None:
    """A limit is written in the unit in which it was most likely set."""
    assert text == format_size(size_bytes)


@given(
    st.one_of(
        st.integers(0, SIZE_BYTES_MAX),
        st.integers(0, 4_096).map(lambda count: count * 2**30),
        st.integers(0, 4_096).map(lambda count: count * 10**9),
    )
)
def test_sizes_read_back(size_bytes: int) -> None:
    """Any size reads back as the same number of bytes."""
    assert size_bytes == parse_size(format_size(size_bytes))


@pytest.mark.parametrize("size_bytes", [-1, SIZE_BYTES_MAX + 1])
def test_writing_no_size_is_refused(size_bytes: int) -> None:
    """A number that no size has is a mistake of the program and is not written."""
    with pytest.raises(ValueError, match="is no size"):
        format_size(size_bytes)


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
@given(text=st.one_of(st.text(), st.from_regex(r"[0-9. ]+[A-Za-z]*", fullmatch=True)))
def test_any_text_is_a_quantity_or_a_usage_error(parse: Callable[[str], float], text: str) -> None:
    """No text makes a parser fail in another way than the documented one."""
    with contextlib.suppress(UsageError):
        assert parse(text) >= 0
