"""How long what is kept: the numbers, and where schedules override them."""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from replicator.core.schedule import Schedule
from replicator.core.times import MICROS_MIN, MICROS_PER_SECOND

HOUR = 3_600 * MICROS_PER_SECOND
DAY = 24 * HOUR

# Whoever wants more room needs some days for it.
FULL_SHARE = 0.9

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Policy:
    """Which restore points are promised.

    Every commit of the last ``log_hours``; each incremental of the last ``incremental_days``; each full of the last
    ``full_days``; the first full of each calendar month for ``months``, or for ``monthly_days`` where that is longer.
    ``max_bytes``: above it the oldest points go before their time. ``max_age_days``: nothing older is kept, promised or
    pinned, but for the newest chain.
    """

    log_hours: float = 48
    incremental_days: int = 7
    full_days: int = 30
    months: int = 12
    monthly_days: int = 0
    max_bytes: int | None = None
    max_age_days: int | None = None

    def is_nearly_full(self, used: int) -> bool:
        """Whether a store that holds *used* bytes is at its limit, or will be soon."""
        return self.max_bytes is not None and used >= self.max_bytes * FULL_SHARE

    def window_from(self, now: int) -> int:
        """Where the window begins in which every commit is promised."""
        return max(now - round(self.log_hours * HOUR), MICROS_MIN)

    def incrementals_from(self, now: int) -> int:
        return max(now - self.incremental_days * DAY, MICROS_MIN)

    def fulls_from(self, now: int) -> int:
        return max(now - self.full_days * DAY, MICROS_MIN)

    def monthlies_from(self, now: int) -> int:
        return max(min(months_before(now, self.months), now - self.monthly_days * DAY), MICROS_MIN)


def policy_with(policy: Policy, schedules: Iterable[Schedule]) -> Policy:
    """*policy* as *schedules* override it, type by type.

    Of several schedules of one type the longest time counts for all: what made a backup its name does not tell. One
    that says nothing has the time for all. One that is switched off counts, too: switching it off deletes nothing.
    """
    days: dict[str, list[int | None]] = {}
    for each in schedules:
        days.setdefault(each.backup_type, []).append(each.retention_days)
    full = [policy.full_days if each is None else each for each in days.get("full", [])]
    incremental = [policy.incremental_days if each is None else each for each in days.get("incremental", [])]
    log = [policy.log_hours if each is None else each * 24 for each in days.get("log", [])]
    monthly = days.get("monthly", [])
    said = [each for each in monthly if each is not None]
    return replace(
        policy,
        full_days=max(full, default=policy.full_days),
        incremental_days=max(incremental, default=policy.incremental_days),
        log_hours=max(log, default=policy.log_hours),
        months=policy.months if len(said) == len(monthly) == 0 or None in monthly else 0,
        monthly_days=max(said, default=policy.monthly_days),
    )


def months_before(time: int, months: int) -> int:
    """The same day and hour so many calendar months earlier, on the month's last day where it has no such day."""
    moment = _EPOCH + timedelta(microseconds=time)
    year, month = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    if year < _EPOCH.year:
        return MICROS_MIN
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return (moment.replace(year=year, month=month + 1, day=day) - _EPOCH) // timedelta(microseconds=1)
