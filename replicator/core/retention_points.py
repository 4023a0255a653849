"""Which restore points a policy promises at a moment, and why; not yet what each of them needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from replicator.core.holdings import Held, Holdings
from replicator.core.names import BackupName, FullName, IncrementalName
from replicator.core.position import GenerationId
from replicator.core.retention_policy import DAY, HOUR, Policy
from replicator.core.times import format_time, month_of

# Daily fulls are a day apart, give or take their jitter and the time they take. Where the first one of the window comes
# later than that, the one before the window is what the days before it have.
_FULLS_APART_MAX = DAY + 2 * HOUR

MONTHLY, DAILY, INCREMENTAL = range(3)
"""What goes first where room is short."""


@dataclass(frozen=True, slots=True)
class Point:
    """A backup that is kept for its own sake. ``goes``: with whom it goes where room is short; None is never."""

    backup: BackupName
    reason: str
    goes: int | None = None


@dataclass(frozen=True, slots=True)
class Promises:
    """``units``: of each generation, the txid from behind which on its logs and segments are kept. ``horizon``: what
    lets a state before it be restored is not promised any more; 0 where there is no such limit."""

    points: tuple[Point, ...]
    units: Mapping[GenerationId, int]
    horizon: int
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    holdings: Holdings
    policy: Policy
    now: int
    horizon: int
    points: list[Point] = field(default_factory=list)
    units: dict[GenerationId, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def is_allowed(self, held: Held, backup: BackupName) -> bool:
        return all(self.holdings.time(each) >= self.horizon for each in held.rests_on(backup))

    def whole(self, held: Held) -> list[BackupName]:
        return [each for each in held.whole if self.is_allowed(held, each)]

    def keep_units(self, held: Held, txid: int) -> None:
        self.units[held.generation] = min(txid, self.units.get(held.generation, txid))


def promised(holdings: Holdings, policy: Policy, now: int, before: int | None) -> Promises | None:
    """What is promised at *now*; None where nothing at all can be restored for certain, so that nobody can say what is
    needed."""
    if not any(held.whole for held in holdings.generations):
        return None
    horizon = max(before or 0, now - policy.max_age_days * DAY if policy.max_age_days is not None else 0)
    found = _Found(holdings, policy, now, horizon)
    _promise_window(found)
    _promise_incrementals(found)
    _promise_fulls(found)
    _promise_monthlies(found)
    _promise_newest_chain(found)
    _promise_pins(found)
    _promise_in_doubt(found)
    return Promises(tuple(found.points), found.units, horizon, tuple(found.notes))


def _promise_window(found: _Found) -> None:
    """Every commit of the last hours: in the generation that was the current one when the window begins, the newest
    backup before that; in all after it the first. And each backup within: behind a hole nothing else leads on."""
    begins = found.policy.window_from(found.now)
    reason = f"every commit of the last {found.policy.log_hours:g} hours is promised, and they begin from it"
    within = f"it lies within the last {found.policy.log_hours:g} hours"
    for held in reversed(found.holdings.generations):
        whole = found.whole(held)
        base = _newest_before(found, whole, begins)
        if base is None:
            _keep_all_units(found, held)
            found.points += [Point(each, reason) for each in whole[:1]]
        for each in held.backups:
            if found.holdings.time(each) >= begins and found.is_allowed(held, each):
                found.points.append(Point(each, within))
        if base is not None:
            found.keep_units(held, base.txid)
            found.points.append(Point(base, reason))
            return


def _keep_all_units(found: _Found, held: Held) -> None:
    """From the first backup on that can be restored or may be; all of them where there is none, since it is still to
    come, or cannot be had just now."""
    manifests = found.holdings.manifests
    for each in held.backups:
        if (each in held.whole or each not in manifests) and found.is_allowed(held, each):
            found.keep_units(held, each.txid)
            return
    firsts = [each.name.txid_first for each in held.extents if each.until >= found.horizon]
    if firsts and not held.whole:
        found.keep_units(held, min(firsts) - 1)


def _newest_before(found: _Found, whole: list[BackupName], time: int) -> BackupName | None:
    """The newest one with all before *time*; where the clock jumped, none behind the first that has not."""
    base = None
    for each in whole:
        if found.holdings.time(each) > time:
            break
        base = each
    return base


def _promise_incrementals(found: _Found) -> None:
    begins = found.policy.incrementals_from(found.now)
    reason = f"incrementals are kept for {found.policy.incremental_days} days"
    for held in found.holdings.generations:
        for each in held.listing.incrementals:
            if found.holdings.time(each) >= begins and found.is_allowed(held, each):
                found.points.append(Point(each, reason, INCREMENTAL))


def _fulls(found: _Found) -> Iterator[tuple[Held, FullName]]:
    for held in found.holdings.generations:
        for each in held.listing.fulls:
            if found.is_allowed(held, each):
                yield held, each


def _promise_fulls(found: _Found) -> None:
    """Each full of the last days, and where the first of them is long after the window's beginning, the one before."""
    begins = found.policy.fulls_from(found.now)
    reason = f"fulls are kept for {found.policy.full_days} days"
    time = found.holdings.time
    for _, each in _fulls(found):
        if time(each) >= begins:
            found.points.append(Point(each, reason, DAILY))
    whole = [each for held, each in _fulls(found) if each in held.whole]
    first = min((time(each) for each in whole if time(each) >= begins), default=found.now)
    earlier = max((each for each in whole if time(each) < begins), key=time, default=None)
    if earlier is not None and first - begins > _FULLS_APART_MAX:
        stood = (
            f"of the last {found.policy.full_days} days it is what the days up to {format_time(first)} have"
        )
        found.points.append(Point(earlier, stood, DAILY))


def _promise_monthlies(found: _Found) -> None:
    """The first full of each month that can be restored; the first of all in a month where none can."""
    begins = found.policy.monthlies_from(found.now)
    first: dict[str, tuple[bool, int, FullName]] = {}
    for held, each in _fulls(found):
        time = found.holdings.time(each)
        candidate = (each not in held.whole, time, each)
        first[month_of(time)] = min(first.get(month_of(time), candidate), candidate)
    for month, (_, time, each) in first.items():
        if time >= begins:
            kept = (
                f"{found.policy.months} months"
                if found.policy.months
                else f"{found.policy.monthly_days} days"
            )
            found.points.append(
                Point(each, f"it is the first full of {month}, which is kept for {kept}", MONTHLY)
            )


def _promise_newest_chain(found: _Found) -> None:
    """The newest full that can be restored, with its incrementals and all units after it; and the newest that was
    read back, too, since the other may be broken in spite of its name and its packs. Of one older than fulls are kept,
    only itself: what was proved so long ago is history."""
    fulls = [
        (held, each)
        for held in found.holdings.generations
        for each in held.whole
        if isinstance(each, FullName)
    ]
    allowed = [(held, each) for held, each in fulls if found.is_allowed(held, each)]
    proved = [pair for pair in fulls if found.holdings.catalogue.grade(pair[1].backup_id) != "written"]
    newest = (allowed or fulls)[-1]
    _promise_chain(found, *newest, "it is the newest full that can be restored")
    lately = [pair for pair in proved if pair in allowed][-1:]
    for held, full in lately:
        reason = "it is the newest full that was read back"
        if found.holdings.time(full) >= found.policy.fulls_from(found.now):
            _promise_chain(found, held, full, reason)
        else:
            found.points.append(Point(full, reason))
    if not allowed:
        _note_older(found, newest[1], "the newest chain stays")
    for held, full in [] if lately else proved[-1:] or fulls[-2:]:
        if (held, full) not in [*allowed, newest]:
            proof = "it is the newest full that was read back" if proved else "no full was ever read back"
            _promise_chain(found, held, full, f"{proof}, and one broken backup shall not be all that is left")
            _note_older(found, full, f"{full.backup_id} stays, since {proof}")


def _promise_chain(found: _Found, held: Held, full: FullName, reason: str) -> None:
    found.keep_units(held, full.txid)
    found.points.append(Point(full, reason))
    found.points += [
        Point(each, f"it belongs to the newest chain, on {full.backup_id}")
        for each in held.whole
        if isinstance(each, IncrementalName) and full in held.rests_on(each)
    ]


def _note_older(found: _Found, full: FullName, stays: str) -> None:
    """Where nothing has changed since, a full backup is not made at all, and the state of then is that of now."""
    found.notes.append(
        f"{stays}, though it begins at {format_time(found.holdings.time(full))}, before "
        f"{format_time(found.horizon)}: as soon as something has changed since, make a full backup that is read back, "
        "and prune once more"
    )


def _promise_pins(found: _Found) -> None:
    holdings = found.holdings
    kept = {each.backup for each in found.points}
    for held in holdings.generations:
        for each in held.backups:
            if each.backup_id in holdings.pins and found.is_allowed(held, each):
                found.points.append(Point(each, "it is pinned"))
            elif each.backup_id in holdings.pins and each not in kept:
                found.notes.append(
                    f"{each.backup_id} is pinned, and goes all the same: it lets a state before "
                    f"{format_time(found.horizon)} be restored"
                )


def _promise_in_doubt(found: _Found) -> None:
    """A backup whose manifest cannot be read may be whole."""
    for held in found.holdings.generations:
        for each in held.backups:
            if each not in found.holdings.manifests and found.is_allowed(held, each):
                found.points.append(Point(each, DOUBT))


DOUBT = "its manifest cannot be read, so that nobody knows what it is"
