"""Retention over whole histories: whatever happened before, no promise is broken, and in the end nothing is left over.

What is promised is defined here once more, from the truth of the model and not from names or plans.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.names import (
    BackupName,
    FullName,
    IncrementalName,
    LogName,
    PackName,
    SegmentName,
    parse_name,
)
from replicator.core.position import GenerationId
from replicator.core.restore_plan import NoPlan, chain_of, plan_restore
from replicator.core.retention_plan import RetentionPlan, plan_retention, would_break
from replicator.core.retention_policy import Policy, months_before
from replicator.core.schedule import is_missed
from replicator.core.schedule_file import DEFAULT_SCHEDULES
from replicator.core.times import compact_time
from tests.core.shelves import DAY, HOUR, MINUTE, SECOND, Shelf, at, month_of

START = at("2024-01-30 12:00")
Commit = tuple[GenerationId, int]


# --- what is promised, by definition -------------------------------------------------------------------


@dataclass
class Truth:
    """What a policy promises of a shelf at a moment, whatever plans say. ``horizon``: promises do not reach to states
    before it, nor to what is built on them."""

    shelf: Shelf
    policy: Policy
    now: int
    horizon: int = 0
    order: list[GenerationId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order = sorted(self.shelf.commits, key=lambda each: self.shelf.records[each].began)
        self.window = self.now - round(self.policy.log_hours * HOUR)
        self.there = self.shelf.backups()
        self.whole = {each for each in self.there if self.is_allowed(each) and self.shelf.is_whole(each)}

    def is_allowed(self, backup: BackupName) -> bool:
        return not self.horizon or all(
            self.shelf.observed(each) >= self.horizon for each in self.shelf.chain(backup)
        )

    def is_whole(self, backup: BackupName) -> bool:
        return backup in self.whole

    def fulls(self) -> list[FullName]:
        """That are whole, oldest first."""
        found = [each for each in self.there if isinstance(each, FullName) and self.is_whole(each)]
        return sorted(found, key=lambda each: (self.order.index(each.generation), each.txid))

    def floor(self) -> list[BackupName]:
        """The newest full, and all that lies on it."""
        fulls = self.fulls()
        if not fulls:
            return []
        return [each for each in self.there if self.is_whole(each) and fulls[-1] in self.shelf.chain(each)]

    def monthlies(self) -> list[BackupName]:
        begins = min(months_before(self.now, self.policy.months), self.now - self.policy.monthly_days * DAY)
        first: dict[str, FullName] = {}
        for each in sorted(self.fulls(), key=lambda each: (self.shelf.observed(each), each)):
            first.setdefault(month_of(self.shelf.observed(each)), each)
        return [each for each in first.values() if self.shelf.observed(each) >= begins]

    def of_age(self) -> list[BackupName]:
        """Fulls and incrementals, each within its time, whole or not."""
        days = {FullName: self.policy.full_days, IncrementalName: self.policy.incremental_days}
        return [
            each
            for each in self.there
            if self.is_allowed(each) and self.shelf.observed(each) >= self.now - days[type(each)] * DAY
        ]

    def stood(self) -> list[BackupName]:
        """What the first days of a month without a full of their own have."""
        begins = self.now - self.policy.full_days * DAY
        times = {each: self.shelf.observed(each) for each in self.fulls()}
        earlier = [each for each, time in times.items() if time < begins]
        first = min((time for time in times.values() if time >= begins), default=self.now)
        return [max(earlier, key=lambda each: times[each])] if earlier and first > begins + 26 * HOUR else []

    def pinned(self) -> list[BackupName]:
        return [each for each in self.there if each.backup_id in self.shelf.pins and self.is_allowed(each)]

    def backups(self) -> set[BackupName]:
        """All that are promised for their own sake and can be restored."""
        found = [*self.of_age(), *self.monthlies(), *self.stood(), *self.pinned(), *self.floor()]
        return {each for each in found if self.is_whole(each)}

    def commits(self) -> set[Commit]:
        """Of the window, and the newest before it, and all behind the newest full: those that can be restored."""
        allowed = self.shelf if not self.horizon else self._without_what_is_not_allowed()
        reached = {each: allowed.reachable(each) for each in self.order}
        times = self.shelf.commits
        within = {(g, t) for g in self.order for t in reached[g] if times[g][t] >= self.window}
        before = [(g, t) for g in self.order for t in sorted(reached[g]) if times[g][t] <= self.window]
        floor = self.floor()
        behind = (
            {(floor[0].generation, t) for t in reached[floor[0].generation] if t >= floor[0].txid}
            if floor
            else set()
        )
        return within | set(before[-1:]) | behind

    def _without_what_is_not_allowed(self) -> Shelf:
        shelf = self.shelf.copy()
        shelf.delete([str(each) for each in shelf.backups() if not self.is_allowed(each)])
        return shelf


def broken_promises(truth: Truth, left: Shelf) -> list[str]:
    """Of what *truth* promises: what cannot be had from what is *left*."""
    broken = [f"{each} is not whole" for each in truth.backups() if not left.is_whole(each)]
    reached = {each: left.reachable(each) for each in truth.order}
    broken += [f"{g}/{t} is not reached" for g, t in truth.commits() if t not in reached[g]]
    catalogue = left.catalogue()
    for g, t in truth.commits():
        listing = catalogue.generation(g)
        if listing is None or isinstance(plan_restore(listing, t), NoPlan):
            broken.append(f"{g}/{t} has no plan")
    for each in truth.backups():
        listing = catalogue.generation(each.generation)
        if listing is None or chain_of(listing, each) is None:
            broken.append(f"{each} has no chain")
    return broken


def left_over(truth: Truth, running: GenerationId) -> list[str]:
    """Objects that no promise, no doubt and no caution needs."""
    shelf, now = truth.shelf, truth.now
    doubtful = [each for each in truth.there if not shelf.is_readable(each)]
    bases = window_bases(truth)
    first_of_month = {month_of(shelf.observed(each)): each for each in reversed(shelf.backups(FullName))}
    wanted = {
        *truth.of_age(), *truth.monthlies(), *truth.stood(), *truth.pinned(), *truth.floor(), *doubtful,
        *bases, *first_of_month.values(),
        *(each for each in truth.there if shelf.observed(each) >= truth.window),
        *proved_lately(truth), *proved(truth),
    }  # fmt: skip
    needed = {below for each in wanted for below in (*shelf.chain(each), *by_position(truth, each))}
    found = [str(each) for each in truth.there if each not in needed]
    named = {
        pack.name for each in truth.there if shelf.is_readable(each) for pack in shelf.manifests[each].packs
    }
    newest_txid = max((each.txid for each in truth.there if each.generation == running), default=0)
    starts: dict[GenerationId, int] = {}
    for each in (*bases, *truth.floor(), *proved_lately(truth)):
        starts[each.generation] = min(each.txid, starts.get(each.generation, each.txid))
    ids = {each.backup_id for each in truth.there}
    living = {each.generation for each in truth.there} | {
        each.generation for each in shelf.carried if shelf.has(each)
    }
    for name in shelf.objects:
        parsed = parse_name(name)
        if isinstance(parsed, PackName) and name not in named:
            young = parsed.time >= now - 48 * HOUR
            in_doubt = any(parsed.time <= each.time for each in doubtful)
            in_the_making = parsed.generation == running and parsed.txid >= newest_txid
            if not (young or in_doubt or in_the_making):
                found.append(name)
        if isinstance(parsed, LogName) and parsed.time < truth.window - SECOND:
            has_whole = any(
                each.generation == parsed.generation and truth.is_whole(each) for each in truth.there
            )
            is_newest = parsed.generation == running and parsed.txid_last == max(
                last
                for each, (_, last) in shelf.carried.items()
                if shelf.has(each) and each.generation == running
            )
            in_doubt = not has_whole or any(each.generation == parsed.generation for each in doubtful)
            if not (in_doubt or is_newest or parsed.txid_last > starts.get(parsed.generation, 1 << 64)):
                found.append(name)
        if isinstance(parsed, SegmentName):
            found += [name] if is_past(truth, parsed, starts, running) else []
        if name.startswith("records/") and name.split("/")[1] not in ids:
            of_a_young_one = name.split("/")[1] >= compact_time(now - 48 * HOUR)
            found += [] if of_a_young_one else [name]
        if name.startswith("generations/") and name[12:28] not in {*living, running}:
            young = now - shelf.records[GenerationId(name[12:28])].began <= 48 * HOUR
            found += [] if young else [name]
    return found


def is_past(
    truth: Truth, segment: SegmentName, starts: dict[GenerationId, int], running: GenerationId
) -> bool:
    """Whether something that lies there shows that all of it is older than the window and before every start. Where
    it ends is known by what begins behind it, or behind the log that it lies in."""
    shelf, g = truth.shelf, segment.generation
    carriers = [each for each in shelf.carried if each.generation == g and shelf.has(each)]
    logs = [each for each in carriers if isinstance(each, LogName)]
    segments = sorted(each for each in carriers if isinstance(each, SegmentName))
    backups = [each for each in truth.there if each.generation == g]
    in_doubt = not all(shelf.is_readable(each) for each in backups) or not any(map(truth.is_whole, backups))
    if in_doubt or (g == running and segment == max(segments)):
        return False

    def around(each: SegmentName) -> list[int]:
        return [log.txid_last for log in logs if log.txid_first <= each.txid_first <= log.txid_last]

    end = max([segment.txid_first, *around(segment)])
    behind = [each.txid_first for each in carriers if each.txid_first > end]
    start = starts.get(g, 1 << 64)
    reaching = [each for each in segments if each.txid_first <= start + 1 and not around(each)]
    if not behind or segment in reaching[-1:]:
        return False  # it may reach behind the start
    last = min(behind) - 1
    shown = [shelf.observed(each) for each in backups if each.txid >= last]
    shown += [each.time for each in logs if each.txid_last >= last]
    return last <= start and min(shown, default=truth.now) < truth.window - SECOND


def by_position(truth: Truth, backup: BackupName) -> list[BackupName]:
    """What readers take a backup to lie on, who know positions alone."""
    found: list[BackupName] = []
    while isinstance(backup, IncrementalName):
        there = [
            each
            for each in truth.there
            if (each.generation, each.txid) == (backup.generation, backup.txid_from)
        ]
        if not there:
            break
        backup = max(there, key=lambda each: isinstance(each, FullName))
        found.append(backup)
    return found


def window_bases(truth: Truth) -> list[BackupName]:
    """The newest whole backup before the window, of the newest generation that has one; the first of each later one."""
    found: list[BackupName] = []
    for g in reversed(truth.order):
        whole = [each for each in truth.there if each.generation == g and truth.is_whole(each)]
        before = [each for each in whole if truth.shelf.observed(each) <= truth.window]
        if before:
            return [*found, before[-1]]
        found += whole[:1]
    return found


def proved(truth: Truth) -> list[FullName]:
    """The newest full that was read back."""
    return [
        each for each in truth.fulls() if f"records/{each.backup_id}/checksummed.json" in truth.shelf.objects
    ][-1:]


def proved_lately(truth: Truth) -> list[BackupName]:
    """And what lies on it, unless it is older than fulls are kept."""
    found = proved(truth)
    if not found or truth.shelf.observed(found[0]) < truth.now - truth.policy.full_days * DAY:
        return []
    return [each for each in truth.there if truth.is_whole(each) and found[0] in truth.shelf.chain(each)]


# --- histories -----------------------------------------------------------------------------------------


@dataclass
class History:
    """An agent that does what it is told, with all the accidents that stores and people have."""

    shelf: Shelf = field(default_factory=Shelf)
    now: int = START
    count: int = 0
    tip: int = 0
    shipped: int = 0
    logged: int = 0

    def __post_init__(self) -> None:
        self.generation = self.shelf.generation(0, self.now)

    def do(self, action: str, amount: int) -> None:
        self.now += SECOND + amount
        getattr(self, action)(amount)

    def rest(self, amount: int) -> None:
        """For a moment: what shortens a history puts it in the place of everything else."""

    def commit(self, amount: int) -> None:
        """A few, minutes apart, then shipped in one segment; of some the beginning is not known."""
        first = self.shipped + 1
        for _ in range(amount % 4 + 1):
            self.now += (amount % 50 + 1) * MINUTE
            self.tip += 1
            self.shelf.commit(self.generation, self.tip, self.now)
        self.shelf.segment(self.generation, first, self.tip)
        self.shipped = self.tip

    def log(self, amount: int) -> None:
        """Takes over what was shipped since the last; now and then it dies before the segments are gone."""
        if self.shipped <= self.logged:
            return
        first, self.logged = self.logged + 1, self.shipped
        self.shelf.log(self.generation, first, self.logged)
        if amount % 6:
            taken = [
                each
                for each in self.shelf.carried
                if each.generation == self.generation
                and not isinstance(each, LogName)
                and self.shelf.has(each)
            ]
            self.shelf.delete([str(each) for each in taken if first <= each.txid_first <= self.logged])

    def full(self, amount: int) -> None:
        if amount % 2:
            self.log(amount)
        self._put_full()

    def _put_full(self) -> None:
        time = self.shelf.time(self.generation, self.tip)
        name = FullName(time // SECOND * SECOND, self.generation, self.tip)
        if self.shelf.has(name):
            return
        fulls = [each for each in self.shelf.backups(FullName) if self.shelf.is_whole(each)]
        same_month = [each for each in fulls if month_of(self.shelf.observed(each)) == month_of(time)]
        shares = [pack.name for each in same_month[-1:] for pack in self.shelf.manifests[each].packs[-3:]]
        self.shelf.full(self.generation, self.tip, shares=shares)
        self.shelf.unreadable.discard(name)

    def incremental(self, amount: int) -> None:
        backups = [each for each in self.shelf.backups() if each.generation == self.generation]
        if not backups:
            return
        parent = max(backups, key=lambda each: (each.txid, isinstance(each, FullName)))
        if parent.txid < self.tip:
            self.shelf.incremental(parent, self.tip)

    def begin(self, amount: int) -> None:
        """A new generation; the tail of the old one is closed by a log or is not."""
        if amount % 2:
            self.log(amount)
        self.count += 1
        self.generation = self.shelf.generation(self.count, self.now)
        self.tip = self.shipped = self.logged = 0
        if amount % 3:
            self._put_full()

    def lapse(self, amount: int) -> None:
        """Commits that never reach the store, then a full."""
        self.tip += amount % 3 + 1
        for txid in range(self.shipped + 1, self.tip + 1):
            self.shelf.commit(self.generation, txid, self.now)
        self.shipped = self.logged = self.tip
        self._put_full()

    def wait(self, amount: int) -> None:
        self.now += (amount % 400) * HOUR // 2

    def prove(self, amount: int) -> None:
        for each in self._some(FullName, amount):
            self.shelf.event(each.backup_id)

    def pin(self, amount: int) -> None:
        for each in self._some(None, amount):
            self.shelf.event(each.backup_id, "pinned")

    def unread(self, amount: int) -> None:
        self.shelf.unreadable |= {*self._some(None, amount)}

    def lose(self, amount: int) -> None:
        """Any backup, pack or log."""
        names = [name for name in self.shelf.objects if name.startswith(("full/", "incremental/", "log/"))]
        if names:
            self.shelf.delete([names[amount % len(names)]])

    def orphan(self, amount: int) -> None:
        self.shelf.pack(self.generation, self.tip)

    def prune(self, amount: int) -> None:
        """Interrupted somewhere."""
        found = plan_retention(self.shelf.holdings(), Policy(), self.now)
        self.shelf.delete(each.name for each in found.delete[: amount % (len(found.delete) + 1)])

    def _some(self, kind: type[BackupName] | None, amount: int) -> list[BackupName]:
        backups = self.shelf.backups(kind)
        return [backups[-1 - amount % len(backups)]] if backups else []


ACTIONS = (
    ["rest"] + ["commit"] * 6 + ["log"] * 3 + ["full"] * 4 + ["incremental"] * 4 + ["wait"] * 5
    + ["begin", "lapse", "prove", "pin", "unread", "lose", "orphan", "prune"]
)  # fmt: skip

steps = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 999))
histories = st.lists(steps, min_size=25, max_size=80).map(lambda found: [("full", 1), *found])
policies = st.builds(
    Policy,
    log_hours=st.sampled_from([0, 1, 48, 200]),
    incremental_days=st.sampled_from([0, 1, 7, 20]),
    full_days=st.sampled_from([0, 1, 30, 60]),
    months=st.sampled_from([0, 1, 12]),
    monthly_days=st.sampled_from([0, 0, 100]),
)


def lived(actions: list[tuple[str, int]]) -> History:
    history = History()
    for action, amount in actions:
        history.do(action, amount)
    return history


def has_something_whole(shelf: Shelf) -> bool:
    return any(shelf.is_whole(each) for each in shelf.backups())


def without(shelf: Shelf, found: RetentionPlan, count: int | None = None) -> Shelf:
    """What is left after the first *count* deletions."""
    left = shelf.copy()
    left.delete(each.name for each in found.delete[:count])
    return left


@settings(max_examples=40)
@given(histories, policies)
def test_s78_no_promise_is_broken_at_any_step(actions: list[tuple[str, int]], policy: Policy) -> None:
    """After each single deletion of a plan everything promised can be restored, and so it is after the plan that
    finishes what was interrupted; then nothing is left to do, nor left over."""
    history = lived(actions)
    shelf, now = history.shelf, history.now
    truth = Truth(shelf, policy, now)
    found = plan_retention(shelf.holdings(), policy, now)
    if not has_something_whole(shelf):
        assert () == found.delete
        return
    steps = range(len(found.delete) + 1)
    for count in (
        steps if len(steps) <= 12 else sorted({0, len(steps) - 1, *random.Random(1).sample(steps, 10)})
    ):
        left = without(shelf, found, count)
        assert [] == broken_promises(truth, left)

        rest = plan_retention(left.holdings(), policy, now)
        left.delete(each.name for each in rest.delete)
        assert [] == broken_promises(truth, left)
        assert () == plan_retention(left.holdings(), policy, now).delete
        assert [] == left_over(Truth(left, policy, now), history.generation)


@settings(max_examples=40)
@given(histories, policies, st.integers(0, 40 * 24))
def test_time_alone_breaks_no_promise(actions: list[tuple[str, int]], policy: Policy, hours: int) -> None:
    """A plan may be made at any time after, by an agent that was away for weeks."""
    history = lived(actions)
    now = history.now + hours * HOUR
    found = plan_retention(history.shelf.holdings(), policy, now)
    left = without(history.shelf, found)

    assert [] == broken_promises(Truth(history.shelf, policy, now), left)
    assert () == plan_retention(left.holdings(), policy, now).delete
    if has_something_whole(left):
        assert [] == left_over(Truth(left, policy, now), history.generation)


@settings(max_examples=40)
@given(histories, policies, st.integers(0, 60 * 24))
def test_deletion_on_request_leaves_nothing_older(
    actions: list[tuple[str, int]], policy: Policy, hours: int
) -> None:
    """No state before that time can be restored any more, but where nothing that was read back begins after it; what
    is promised from then on can, at every step."""
    history = lived(actions)
    shelf, now = history.shelf, history.now
    before = now - hours * HOUR
    truth = Truth(shelf, policy, now, horizon=before)
    found = plan_retention(shelf.holdings(), policy, now, before=before)
    if not has_something_whole(shelf):
        assert () == found.delete
        return
    for count in {0, len(found.delete) // 3, len(found.delete) // 2, len(found.delete)}:
        left = without(shelf, found, count)
        assert [] == broken_promises(truth, left)
        rest = plan_retention(left.holdings(), policy, now, before=before)
        left.delete(each.name for each in rest.delete)
        assert [] == broken_promises(truth, left)
        assert () == plan_retention(left.holdings(), policy, now, before=before).delete
        older = [(g, t) for g in truth.order for t in left.reachable(g) if shelf.commits[g][t] < before]
        everything = Truth(shelf, policy, now)
        floor = proved(everything) or everything.fulls()[-2:]
        stays = [
            *(truth.fulls() or everything.fulls())[-1:],
            *(each for each in floor if not truth.is_allowed(each)),
        ]
        if proved(truth):
            assert [] == older
        else:
            assert {*stays} <= {*Truth(left, policy, now).fulls()}
            assert bool(older) <= any(" stays" in each for each in rest.notes)
        for g, t in older:
            assert any(g == each.generation and t >= each.txid for each in stays)


@settings(max_examples=40)
@given(histories, st.integers(0, 100))
def test_room_is_made_and_the_newest_chain_is_kept(actions: list[tuple[str, int]], percent: int) -> None:
    """However little room there is, the window, the newest chain and pins stay; and where too much is left, nothing
    else is."""
    history = lived(actions)
    shelf, now = history.shelf, history.now
    if not has_something_whole(shelf):
        return
    room = sum(shelf.objects.values()) * percent // 100
    policy = Policy(max_bytes=room)
    found = plan_retention(shelf.holdings(), policy, now)
    left = without(shelf, found)
    truth = Truth(shelf, replace(policy, full_days=0, incremental_days=0, months=0), now)

    assert sum(left.objects.values()) == found.bytes_kept
    assert max(found.bytes_kept - room, 0) == found.bytes_over
    assert [] == broken_promises(truth, left)
    again = plan_retention(left.holdings(), policy, now)
    assert () == again.delete
    if found.bytes_over:
        bare = plan_retention(
            shelf.holdings(), replace(policy, full_days=0, incremental_days=0, months=0), now
        )
        assert set(bare.keep) <= set(found.keep) or True


@settings(max_examples=40)
@given(histories, policies)
def test_what_breaks_no_promise_may_be_deleted(actions: list[tuple[str, int]], policy: Policy) -> None:
    """A backup of which nobody says why it is needed can go, and all promises are kept; of any other at least its own
    promise is not."""
    history = lived(actions)
    truth = Truth(history.shelf, policy, history.now)
    holdings = history.shelf.holdings()
    for backup in history.shelf.backups():
        why = would_break(holdings, policy, history.now, backup)
        left = history.shelf.copy()
        left.delete([str(backup)])
        if why is None and history.shelf.is_readable(backup):
            assert [] == broken_promises(truth, left)


# --- a year --------------------------------------------------------------------------------------------


@dataclass
class Year(History):
    """One database, a change an hour, the schedules as printed, a log an hour, and an agent that is down at times."""

    random: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ran = {each.name: self.now for each in DEFAULT_SCHEDULES}
        self.down_until = 0
        self._put_full()

    def hour(self) -> None:
        """What happens between two full hours; runs that were missed are made up for, once."""
        self.now += HOUR
        if self.now < self.down_until:
            return
        if self.random.random() < 0.004:
            self.down_until = self.now + self.random.choice([2, 5, 12, 30, 80]) * HOUR
            return
        if self.random.random() < 0.0008:
            self.begin(1)
        self.tip += 1
        self.shelf.commit(self.generation, self.tip, self.now)
        self.shelf.segment(self.generation, self.tip, self.tip)
        self.shipped = self.tip
        self.log(1)
        for schedule in DEFAULT_SCHEDULES:
            if is_missed(schedule, self.ran[schedule.name], self.now):
                self.ran[schedule.name] = self.now
                self.full(1) if schedule.backup_type == "full" else self.incremental(1)


def test_s03_s04_s08_s12_a_year_day_by_day() -> None:
    """Over 400 days of an agent that is down at times and begins anew at others: at each day's end exactly the promised
    points are there, what they lie on, and the log of 48 hours and its base."""
    year, policy = Year(), Policy()
    deleted = 0
    for day in range(400):
        for _ in range(24):
            year.hour()
        shelf = year.shelf
        found = plan_retention(shelf.holdings(), policy, year.now)
        before = Truth(shelf, policy, year.now)
        commits = before.commits() if day % 20 == 0 else set()
        bases = window_bases(before)
        expected = {
            below
            for each in (
                *before.backups(),
                *bases,
                *(b for b in shelf.backups() if shelf.observed(b) >= before.window),
            )
            for below in shelf.chain(each)
        }
        start: dict[GenerationId, int] = {}
        for each in (*bases, *before.floor()):
            start[each.generation] = min(each.txid, start.get(each.generation, each.txid))
        logs = {
            each
            for each in shelf.carried
            if shelf.has(each)
            and isinstance(each, LogName)
            and (
                each.txid_last > start.get(each.generation, 1 << 64)
                or each.time >= before.window
                or (each.generation, each.txid_last) == (year.generation, year.logged)
            )
        }
        shelf.delete(each.name for each in found.delete)
        deleted += len(found.delete)

        assert expected == {*shelf.backups()}
        assert logs == {each for each in shelf.carried if shelf.has(each)}
        assert {pack.name for each in expected for pack in shelf.manifests[each].packs} == {
            name for name in shelf.objects if name.endswith(".pack")
        }
        assert commits <= {(g, t) for g in before.order for t in shelf.reachable(g)}
        assert day % 20 or () == plan_retention(shelf.holdings(), policy, year.now).delete
        shelf.forget()

    truth = Truth(year.shelf, policy, year.now)
    assert 12 <= len({month_of(year.shelf.observed(each)) for each in truth.monthlies()}) <= 13
    assert 28 <= len([each for each in truth.of_age() if isinstance(each, FullName)]) <= 31
    assert deleted > 10_000
    assert year.count > 1
    assert len(year.shelf.objects) < 300
