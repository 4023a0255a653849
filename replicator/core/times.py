"""Times: what a person types, what the program counts, what a name and a report show.

Pure: the present is always handed in. Inside the program a time is a whole number of microseconds since
1970-01-01T00:00:00 UTC, without leap seconds; a zone exists only in the text a person typed. Every time here
lies in the years 1970 to 9999, the range that all texts below can write.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import TypeAlias

from replicator.core.errors import UsageError

Micros: TypeAlias = int

MICROS_PER_SECOND = 1_000_000
MICROS_MIN: Micros = 0
MICROS_MAX: Micros = 253_402_300_800 * MICROS_PER_SECOND - 1  # 9999-12-31T23:59:59.999999Z

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_OF_UNIT = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_SHORT_WORDS_OF_UNIT = {
    "second": ("s", "sec", "secs"),
    "minute": ("m", "min", "mins"),
    "hour": ("h", "hr", "hrs"),
    "day": ("d",),
    "week": ("w",),
}
_SECONDS_OF_WORD = {
    word: seconds
    for unit, seconds in _SECONDS_OF_UNIT.items()
    for word in (unit, f"{unit}s", *_SHORT_WORDS_OF_UNIT[unit])
}

# RFC 3339 §5.6, with the space its note allows in place of T; the offset may be missing, or all of the time.
_RFC_3339 = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]+))?"
    r"(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
# The bound on the digits keeps a hostile text from becoming a hostile number.
_AGO = re.compile(r"(?P<count>[0-9]{1,12}(?:\.[0-9]{1,9})?) *(?P<word>[a-z]+) +ago")
_COMPACT = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")

_HINT = "write RFC 3339 such as 2025-01-28T14:30:00Z, a date, 'now', or an age such as '2 hours ago'"


@dataclass(frozen=True, slots=True)
class ParsedTime:
    """A time that a person asked for.

    *zone_assumed* is true where the text named a time or a day but no offset, so that UTC was a guess that
    has to be said aloud. An age and ``now`` need no zone.
    """

    micros: Micros
    zone_assumed: bool


def parse_time(text: str, now: Micros) -> ParsedTime:
    """Return the time that *text* names, seen from *now*.

    Accepted: RFC 3339 with ``T`` or a space; the same without an offset, or a day alone (its midnight), both
    taken as UTC; ``now``; an age such as ``2 hours ago`` or ``90s ago``. Digits beyond the microsecond are
    cut off, never rounded up: asking for a time must not include what came after it. A leap second is
    refused.

    Raises ``UsageError`` for any other text, for a day that does not exist and outside 1970 to 9999.
    """
    wanted = text.strip()
    if wanted.lower() == "now":
        return ParsedTime(_within_bounds(now, text), zone_assumed=False)
    if found := _AGO.fullmatch(wanted.lower()):
        return ParsedTime(_within_bounds(now - _age(found, text), text), zone_assumed=False)
    if found := _RFC_3339.fullmatch(wanted):
        micros = _calendar_micros(found, text)
        return ParsedTime(_within_bounds(micros, text), zone_assumed=found["zone"] is None)
    raise UsageError(f"{text!r} is not a time", hint=_HINT)


def format_time(micros: Micros) -> str:
    """Write a time as RFC 3339 in UTC, always with six fraction digits: texts sort as their times do.

    Raises ``ValueError`` outside 1970 to 9999, as do all writers of this module.
    """
    return _utc(micros).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def compact_time(micros: Micros) -> str:
    """Write a time as names of objects carry it, ``20250128T020000Z``; the part of a second is dropped."""
    return _utc(micros).strftime("%Y%m%dT%H%M%SZ")


def parse_compact(text: str) -> Micros:
    """Return the time that ``compact_time`` wrote, at the start of its second.

    Raises ``ValueError`` for a text that ``compact_time`` cannot have written. It comes from the name of an
    object, not from a person, so the caller knows what to say about it.
    """
    found = _COMPACT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a compact time")
    year, month, day, hour, minute, second = (int(digits) for digits in found.groups())
    try:
        micros = micros_of(datetime(year, month, day, hour, minute, second, tzinfo=UTC))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a compact time: {error}") from error
    if micros < MICROS_MIN:
        raise ValueError(f"{text!r} is not a compact time: it lies before 1970")
    return micros


def micros_of(moment: datetime) -> Micros:
    """The time that *moment*, which has a zone, stands for; it may lie before 1970."""
    # Integer division of the distance is exact; datetime.timestamp() is a float and is not.
    return (moment - _EPOCH) // timedelta(microseconds=1)


def day_folder(micros: Micros) -> str:
    """Write the UTC day as folders of a store carry it: ``2025/01/28``."""
    return _utc(micros).strftime("%Y/%m/%d")


def month_of(micros: Micros) -> str:
    """Write the UTC month as reports carry it: ``2025-01``."""
    return _utc(micros).strftime("%Y-%m")


def ago(micros: Micros, now: Micros) -> str:
    """Say in words how long before *now* a time lies: ``3 minutes ago``, or ``in 3 minutes`` after it.

    The largest unit up to days that fits once, rounded down; under a second it is ``just now``.
    """
    seconds = abs(now - micros) // MICROS_PER_SECOND
    if seconds == 0:
        return "just now"
    unit = next(unit for unit in ("day", "hour", "minute", "second") if seconds >= _SECONDS_OF_UNIT[unit])
    count = seconds // _SECONDS_OF_UNIT[unit]
    words = f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"in {words}" if micros > now else f"{words} ago"


def _age(found: re.Match[str], text: str) -> Micros:
    seconds = _SECONDS_OF_WORD.get(found["word"])
    if seconds is None:
        raise UsageError(
            f"{text!r} is not a time: {found['word']!r} is no unit",
            hint="units of an age are seconds, minutes, hours, days and weeks",
        )
    # Fraction, since a float would lose microseconds of an age of some years.
    return int(Fraction(found["count"]) * seconds * MICROS_PER_SECOND)


def _calendar_micros(found: re.Match[str], text: str) -> Micros:
    """Return the microseconds of a match of ``_RFC_3339``, which may lie outside the bounds."""
    names = ("year", "month", "day", "hour", "minute", "second")
    year, month, day, hour, minute, second = (int(found[name] or 0) for name in names)
    microsecond = int((found["fraction"] or "")[:6].ljust(6, "0"))
    # The constructor, since what datetime.fromisoformat accepts differs between versions of Python.
    try:
        return micros_of(datetime(year, month, day, hour, minute, second, microsecond, _zone(found["zone"])))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time: {error}", hint=_HINT) from error


def _zone(written: str | None) -> timezone:
    if written is None or written in "Zz":
        return UTC
    hours, minutes = int(written[1:3]), int(written[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(f"offset {written} is out of range")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if written[0] == "-" else offset)


def _within_bounds(micros: Micros, text: str) -> Micros:
    if not MICROS_MIN <= micros <= MICROS_MAX:
        raise UsageError(f"{text!r} lies outside the years 1970 to 9999", hint=_HINT)
    return micros


def _utc(micros: Micros) -> datetime:
    if not MICROS_MIN <= micros <= MICROS_MAX:
        raise ValueError(f"time {micros} µs lies outside the years 1970 to 9999")
    return _EPOCH + timedelta(microseconds=micros)
