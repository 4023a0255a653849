"""When a backup is due: five fields of cron, in UTC always, and what of a schedule overrides the settings for all.

The present is handed in, and so is chance. Days of the month and of the week are joined as Debian's cron does it: where
one of the two fields begins with a star both have to match, else one of them is enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from replicator.core.errors import ConfigError
from replicator.core.quantities import format_duration
from replicator.core.times import MICROS_MAX, MICROS_MIN, MICROS_PER_SECOND

BACKUP_TYPES = ("full", "incremental", "log", "monthly")
"""``monthly`` is a full, too; that the first full of a month is kept longer needs no schedule of its own."""

# A due time further back is not worth making up for; only the 29th of February is rarer than that.
LOOK_BACK_DAYS = 400

SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

CRON_HINT = (
    "five fields: minute, hour, day of month, month, day of week; such as `0 2 * * *`, 02:00 UTC every day"
)

# Sixty minutes one by one have 169 characters; the bound keeps a hostile text from becoming hostile work.
_CRON_CHARACTERS_MAX = 400
_VALUE = r"(?:[0-9]{1,2}|[A-Z]{3})"
_ITEM = rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/[0-9]{{1,2}})?"
_STEPS = re.compile(rf"({_VALUE})-({_VALUE})/[0-9]+")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_NUMBER_OF = {
    name: number for names, first in ((_DAYS, 0), (_MONTHS, 1)) for number, name in enumerate(names, first)
}
_FIELD = re.compile(rf"{_ITEM}(?:,{_ITEM})*")
_TIMES_NAMED_MAX = 12
_HIGHEST = (("minutes", 59), ("hours", 23), ("days", 31), ("months", 12), ("weekdays", 7))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = 60 * MICROS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Schedule:
    """A kind of backup at regular times. ``parse_schedules`` makes them and refuses what no schedule can have.

    ``retention_days``, ``compress`` and ``verify``: None is the setting for all. ``jitter``: up to so many seconds
    after it is due, it runs.
    """

    name: str
    cron: str
    backup_type: str
    retention_days: int | None = None
    compress: bool | None = None
    verify: bool | None = None
    enabled: bool = True
    description: str = ""
    jitter: float = 0.0


def parse_cron(text: str) -> str:
    """*text* with single blanks, in capitals, a shorthand such as ``@daily`` as it stands.

    Raises ConfigError, without the name of the schedule, for anything but five fields that come true some day.
    """
    if text.strip().lower() in SHORTHANDS:
        return text.strip().lower()
    fields = text.upper().split()
    if text.lstrip().startswith("@"):
        raise ConfigError(f"{_shown(text)} is no shorthand", hint=f"there are {', '.join(SHORTHANDS)}")
    if len(fields) != 5:
        raise ConfigError(f"{_shown(text)} has {len(fields)} fields instead of five", hint=CRON_HINT)
    if len(text) > _CRON_CHARACTERS_MAX or not text.isascii():
        raise ConfigError(f"{_shown(text)} is no cron expression", hint=CRON_HINT)
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise ConfigError(f"{_shown(text)} has a field that cron does not know: {field}", hint=CRON_HINT)
    for field, (name, highest) in zip(fields, _HIGHEST, strict=True):
        if too_far := next((step for step in re.findall("/([0-9]+)", field) if int(step) > highest), None):
            # It would come true once in each range, which is not what it says.
            raise ConfigError(f"{_shown(text)} has steps of {too_far} in {name}", hint=CRON_HINT)
    try:
        CronSim(_simulable(" ".join(fields)), _EPOCH)
    except CronSimError as exc:
        if _is_cron(" ".join([*fields[:3], "*", fields[4]])) and _is_cron(f"0 0 1 {fields[3]} *"):
            raise ConfigError(f"{_shown(text)} never comes: no such month has that day") from exc
        raise ConfigError(
            f"{_shown(text)} is no cron expression: {str(exc).lower()}", hint=CRON_HINT
        ) from exc
    return " ".join(fields)


def next_run(schedule: Schedule, after: int) -> int:
    """The first time it is due after *after*, whether it is enabled or not. Raises ValueError beyond 1970 to 9999."""
    try:
        return _micros(next(_simulated(schedule, after)))
    except (StopIteration, OverflowError) as exc:
        raise ValueError(f"{schedule.name} has no run before the year 10000") from exc


def last_due(schedule: Schedule, now: int) -> int | None:
    """The latest time it was due at or before *now*; None where that is more than 400 days ago."""
    # Backwards the simulation begins before the minute it is given.
    behind = min(now + _MINUTE, MICROS_MAX)
    try:
        due = _micros(next(_simulated(schedule, behind, reverse=True)))
    except (StopIteration, OverflowError):
        return None
    return due if due >= max(now - LOOK_BACK_DAYS * 86_400 * MICROS_PER_SECOND, MICROS_MIN) else None


def is_missed(schedule: Schedule, last_run: int, now: int) -> bool:
    """Whether it was due since *last_run* and has not run: however often, it is made up for once.

    *last_run*: when the last run began; of one that never ran, when the schedule came into being.
    """
    due = last_due(schedule, now)
    return schedule.enabled and due is not None and due > last_run


def with_jitter(schedule: Schedule, due: int, fraction: float) -> int:
    """When to run what is due at *due*: later by that *fraction*, 0 to 1, of the jitter; always before it is due
    again."""
    room = min(round(schedule.jitter * MICROS_PER_SECOND), next_run(schedule, due) - due - 1)
    return due + int(room * min(max(fraction, 0.0), 1.0))


def explain(schedule: Schedule) -> str:
    """One sentence in English."""
    when = _when(_simulable(schedule.cron))
    said = [f"{when}, UTC: {_KIND[schedule.backup_type]}"]
    if schedule.retention_days is not None:
        said.append(f"kept {schedule.retention_days} day{'s' * (schedule.retention_days != 1)}")
    if schedule.compress is not None:
        said.append("compressed" if schedule.compress else "not compressed")
    if schedule.verify is not None:
        said.append("verified" if schedule.verify else "not verified")
    if schedule.jitter:
        said.append(f"up to {format_duration(schedule.jitter)} later")
    if not schedule.enabled:
        said.append("switched off")
    return ", ".join(said)


def _when(cron: str) -> str:
    """What the library says; it names four times of a day at most, and a dozen are read more easily than a rule."""
    minutes, hours, rest = cron.split(maxsplit=2)
    listed = f"{minutes},{hours}".replace(",", "").isdigit()
    times = sorted({(int(h), int(m)) for h in hours.split(",") for m in minutes.split(",")}) if listed else []
    if not 1 < len(times) <= _TIMES_NAMED_MAX:
        return CronSim(cron, _EPOCH).explain()
    spelt = [f"{hour:02d}:{minute:02d}" for hour, minute in times]
    once = CronSim(f"0 0 {rest}", _EPOCH).explain()
    return once.replace("00:00", f"{', '.join(spelt[:-1])} and {spelt[-1]}", 1)


_KIND = {
    "full": "full backup",
    "incremental": "incremental backup",
    "log": "log backup",
    "monthly": "monthly full backup",
}


def _simulable(cron: str) -> str:
    """For the library, which takes `5-5/10` for `5/10`."""
    return _STEPS.sub(_without_steps_of_one, SHORTHANDS.get(cron, cron))


def _without_steps_of_one(match: re.Match[str]) -> str:
    first, last = (_NUMBER_OF[each] if each in _NUMBER_OF else int(each) for each in match.group(1, 2))
    return match[1] if first == last else match[0]


def _simulated(schedule: Schedule, start: int, *, reverse: bool = False) -> CronSim:
    if not MICROS_MIN <= start <= MICROS_MAX:
        raise ValueError(f"time {start} µs lies outside the years 1970 to 9999")
    # Whole minutes: versions of the library differ in what they make of a part of one.
    return CronSim(_simulable(schedule.cron), _EPOCH + timedelta(minutes=start // _MINUTE), reverse=reverse)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _is_cron(text: str) -> bool:
    try:
        CronSim(_simulable(text), _EPOCH)
    except CronSimError:
        return False
    return True


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
