"""What is kept and what goes, rule by rule, each on a repository as small as it can be."""

from dataclasses import replace

import pytest

from replicator.core.coverage import Stretch
from replicator.core.holdings import Holdings
from replicator.core.names import BackupName, FullName, IncrementalName
from replicator.core.pack import PackUse
from replicator.core.position import GenerationId
from replicator.core.retention_plan import RetentionPlan, plan_retention, would_break
from replicator.core.retention_policy import Policy
from tests.core.shelves import DAY, HOUR, MINUTE, OBJECT_BYTES, SECOND, Shelf, at

NOW = at("2025-11-28 12:00")
POLICY = Policy()
BARE = Policy(log_hours=48, incremental_days=0, full_days=0, months=0)
"""Nothing but the window and the newest chain, for rules that others would hide."""


def shelf_with(*generations: int) -> tuple[Shelf, list[GenerationId]]:
    """Generations that began a year ago, or so many days before now."""
    shelf = Shelf()
    return shelf, [
        shelf.generation(number, NOW - days * DAY) for number, days in enumerate(generations or (400,))
    ]


def full_at(shelf: Shelf, generation: GenerationId, txid: int, age: int) -> FullName:
    shelf.commit(generation, txid, NOW - age)
    return shelf.full(generation, txid)


def proved_at(shelf: Shelf, generation: GenerationId, txid: int, age: int) -> FullName:
    """One that was read back."""
    full = full_at(shelf, generation, txid, age)
    shelf.event(full.backup_id, "checksummed")
    return full


def incremental_at(shelf: Shelf, parent: BackupName, txid: int, age: int) -> IncrementalName:
    shelf.commit(parent.generation, txid, NOW - age)
    return shelf.incremental(parent, txid)


def log_at(shelf: Shelf, generation: GenerationId, first: int, last: int, age: int) -> str:
    """*age* of its last commit; the first was a quarter of an hour earlier."""
    shelf.commit(generation, first, NOW - age - 15 * MINUTE)
    shelf.commit(generation, last, NOW - age)
    return str(shelf.log(generation, first, last))


def plan(
    shelf: Shelf,
    policy: Policy = POLICY,
    *,
    before: int | None = None,
    running: GenerationId | None = None,
) -> RetentionPlan:
    """With what holds of every plan: each object of ours is on one side, and nothing else is on any."""
    found = plan_retention(shelf.holdings(running), policy, NOW, before=before)
    sides = [each.name for each in (*found.keep, *found.delete)]

    assert sorted(set(shelf.objects) - set(shelf.catalogue().strays)) == sorted(sides)
    assert all(each.reason for each in (*found.keep, *found.delete))
    assert found.bytes_kept == sum(shelf.objects[each.name] for each in found.keep)
    assert found.bytes_deleted == sum(shelf.objects[each.name] for each in found.delete)
    return found


def kept(found: RetentionPlan) -> set[str]:
    return {each.name for each in found.keep}


def gone(found: RetentionPlan) -> list[str]:
    return [each.name for each in found.delete]


def reason(found: RetentionPlan, name: object) -> str:
    return next(each.reason for each in (*found.keep, *found.delete) if each.name == str(name))


def packs(shelf: Shelf, *backups: BackupName) -> list[str]:
    return [pack.name for each in backups for pack in shelf.manifests[each].packs]


def texts(*names: object) -> list[str]:
    return [str(each) for each in names]


# --- fulls, incrementals, months -----------------------------------------------------------------------


def test_a_full_is_kept_for_thirty_days_to_the_microsecond() -> None:
    """At thirty days it is, a microsecond later it is not; its pack goes with it."""
    shelf, (g,) = shelf_with()
    older = full_at(shelf, g, 2, 30 * DAY + 1)
    edge = full_at(shelf, g, 3, 30 * DAY)
    newest = full_at(shelf, g, 4, 60 * HOUR)
    found = plan(shelf, replace(POLICY, months=0))

    assert texts(older, *packs(shelf, older)) == gone(found)
    assert {*texts(edge, newest)} <= kept(found)
    assert "it is older than 30 days, and not kept as the first full of its month" == reason(found, older)
    assert "no backup that is kept needs it" == reason(found, packs(shelf, older)[0])
    assert "fulls are kept for 30 days" == reason(found, edge)


def test_the_full_that_the_window_began_with_stays_while_days_have_no_other() -> None:
    """A database that did not change for weeks has one full for all of them, as old as its last commit."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 1, 60 * DAY)
    stood = full_at(shelf, g, 2, 45 * DAY)
    full_at(shelf, g, 3, 5 * DAY)
    policy = replace(POLICY, months=0)
    assert "it is what the days up to 2025-11-23" in reason(plan(shelf, policy), stood)

    # A day and two hours after the window's beginning is as regular as fulls get.
    edge = full_at(shelf, g, 4, 29 * DAY - 2 * HOUR)
    assert str(stood) in gone(plan(shelf, policy))
    shelf.delete(texts(edge))
    full_at(shelf, g, 5, 29 * DAY - 2 * HOUR - 1)
    assert str(stood) in kept(plan(shelf, policy))


def test_monthlies_are_the_first_full_of_each_calendar_month() -> None:
    """By recorded time in UTC, over all generations."""
    shelf, (a, b) = shelf_with(500, 100)
    too_old = full_at(shelf, a, 1, NOW - at("2024-11-28 11:59:59.999999"))
    oldest = full_at(shelf, a, 2, NOW - at("2024-12-01 00:00"))
    last_of_december = full_at(shelf, a, 3, NOW - at("2024-12-31 23:59:59.999999"))
    january = full_at(shelf, a, 4, NOW - at("2025-01-01 00:00"))
    august = full_at(shelf, a, 5, NOW - at("2025-08-20 02:00"))
    of_the_next_generation = full_at(shelf, b, 1, NOW - at("2025-08-21 02:00"))
    full_at(shelf, b, 2, 60 * HOUR)
    found = plan(shelf, replace(BARE, months=12))

    assert {*texts(oldest, january, august)} <= kept(found)
    assert texts(too_old, last_of_december, of_the_next_generation) == gone(found)[:3]
    assert "it is the first full of 2024-12, which is kept for 12 months" == reason(found, oldest)


def test_a_monthly_is_kept_for_twelve_months_to_the_microsecond() -> None:
    """From its own time on, not from its month's beginning."""
    for early, stays in ((0, True), (1, False)):
        shelf, (g,) = shelf_with(500)
        monthly = full_at(shelf, g, 1, NOW - at("2024-11-28 12:00") + early)
        full_at(shelf, g, 2, 60 * HOUR)

        assert stays == (str(monthly) in kept(plan(shelf, replace(BARE, months=12))))


def test_the_first_of_a_month_that_can_be_restored_is_its_monthly() -> None:
    """One whose pack is gone would keep its month in name only."""
    shelf, (g,) = shelf_with()
    broken = full_at(shelf, g, 1, NOW - at("2025-06-01 02:00"))
    whole = full_at(shelf, g, 2, NOW - at("2025-06-02 02:00"))
    third = full_at(shelf, g, 3, NOW - at("2025-06-03 02:00"))
    full_at(shelf, g, 4, 60 * HOUR)
    shelf.delete(packs(shelf, broken))
    found = plan(shelf, replace(BARE, months=12))

    assert str(whole) in kept(found)
    assert {*texts(broken, third)} <= {*gone(found)}


def test_an_incremental_is_kept_for_seven_days_with_all_it_lies_on() -> None:
    """A base outlives its own age while something that is kept needs it; what it carries no longer goes."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 1, NOW - at("2025-10-01 02:00"))
    base = full_at(shelf, g, 2, 31 * DAY)
    below = incremental_at(shelf, base, 3, 8 * DAY)
    edge = incremental_at(shelf, below, 4, 7 * DAY)
    aside = incremental_at(shelf, below, 5, 7 * DAY + 1)
    other = full_at(shelf, g, 6, 29 * DAY + 23 * HOUR)
    newest = full_at(shelf, g, 7, 60 * HOUR)
    found = plan(shelf)

    assert {*texts(base, below, edge, other, newest), *packs(shelf, base, below, edge)} <= kept(found)
    assert texts(aside, *packs(shelf, aside)) == gone(found)
    assert "incrementals are kept for 7 days" == reason(found, edge)
    assert f"{edge.backup_id} lies on it: incrementals are kept for 7 days" == reason(found, base)
    assert "it is older than 7 days, and nothing that is kept lies on it" == reason(found, aside)


def test_pins_are_for_ever() -> None:
    """With what they lie on."""
    shelf, (g,) = shelf_with(3000)
    base = full_at(shelf, g, 1, 2000 * DAY)
    pinned = incremental_at(shelf, base, 2, 1999 * DAY)
    other = full_at(shelf, g, 3, 1998 * DAY)
    full_at(shelf, g, 4, 60 * HOUR)
    event = shelf.event(pinned.backup_id, "pinned")
    shelf.pins.add("20200101T000000Z-ffffffffffffffff-0000000000000001")  # of one that is no more
    found = plan(shelf, BARE)

    assert {*texts(base, pinned, event), *packs(shelf, base, pinned)} <= kept(found)
    assert str(other) in gone(found)
    assert "it is pinned" == reason(found, pinned)


def test_a_schedule_of_monthlies_in_days_takes_the_place_of_months() -> None:
    """X4: five hundred days are more than twelve months."""
    shelf, (g,) = shelf_with(900)
    old = full_at(shelf, g, 1, 499 * DAY)
    full_at(shelf, g, 2, 60 * HOUR)

    assert "which is kept for 500 days" in reason(plan(shelf, replace(BARE, monthly_days=500)), old)
    assert str(old) in gone(plan(shelf, replace(BARE, monthly_days=498)))


# --- the log window ------------------------------------------------------------------------------------


def test_every_commit_of_the_window_keeps_its_way() -> None:
    """The newest backup before the window and all logs from there on; what lies before that goes, oldest first."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 10, 60 * HOUR)
    too_old = [log_at(shelf, g, 11, 20, 58 * HOUR), log_at(shelf, g, 21, 30, 55 * HOUR)]
    full_at(shelf, g, 30, 55 * HOUR)
    between = log_at(shelf, g, 31, 40, 50 * HOUR)
    within = [log_at(shelf, g, 41, 50, 47 * HOUR), log_at(shelf, g, 51, 60, 20 * HOUR)]
    full_at(shelf, g, 60, 20 * HOUR)
    found = plan(shelf)

    assert too_old == gone(found)
    assert {between, *within} <= kept(found)
    assert "promised restore points lead through it" == reason(found, between)
    assert "it is older than 48 hours, and no promised restore point leads through it" == reason(
        found, too_old[0]
    )
    assert [(30, 60)] == [(each.txid_first, each.txid_last) for each in found.windows_after[0].stretches[1:]]
    assert [(10, 60)] == [(each.txid_first, each.txid_last) for each in found.windows_before[0].stretches]


def test_the_window_begins_at_a_backup_at_its_very_beginning() -> None:
    """One of exactly 48 hours ago is base enough; one a microsecond younger is not."""
    for age, needs_the_log in ((48 * HOUR, False), (48 * HOUR - 1, True)):
        shelf, (g,) = shelf_with()
        full_at(shelf, g, 10, 60 * HOUR)
        log = log_at(shelf, g, 11, 15, 50 * HOUR)
        log_at(shelf, g, 16, 20, age)
        full_at(shelf, g, 20, age)

        assert needs_the_log == (log in kept(plan(shelf)))


def test_a_log_is_as_young_as_its_last_commit_may_be() -> None:
    """Its name keeps whole seconds: a window that begins within one keeps what may reach into it."""
    policy = replace(POLICY, log_hours=48 - 0.5 / 3600)
    for age, stays in ((48 * HOUR - SECOND // 5, True), (48 * HOUR + 1, False)):
        shelf, (g,) = shelf_with()
        full_at(shelf, g, 10, 60 * HOUR)
        log = log_at(shelf, g, 11, 15, age)
        full_at(shelf, g, 15, age)
        log_at(shelf, g, 16, 20, HOUR)

        assert stays == (log in kept(plan(shelf, policy)))


def test_an_incremental_is_base_enough() -> None:
    """And what it lies on stays, older than any promise."""
    shelf, (g,) = shelf_with()
    first = full_at(shelf, g, 5, NOW - at("2025-08-01 02:00"))
    full = full_at(shelf, g, 10, NOW - at("2025-08-02 02:00"))
    base = incremental_at(shelf, full, 20, 49 * HOUR)
    log = log_at(shelf, g, 21, 30, HOUR)
    policy = replace(POLICY, incremental_days=1, full_days=1, months=1)
    found = plan(shelf, policy)

    assert {*texts(full, base), log} <= kept(found)
    assert texts(first, *packs(shelf, first)) == gone(found)
    assert "every commit of the last 48 hours is promised, and they begin from it" == reason(found, base)


def test_a_broken_backup_is_no_base() -> None:
    """Where a pack, a parent, or the right parent is missing, the one before it counts, and all logs since."""

    def built() -> tuple[Shelf, GenerationId, str, FullName, IncrementalName]:
        shelf, (g,) = shelf_with()
        sound = full_at(shelf, g, 10, 80 * HOUR)
        log = log_at(shelf, g, 11, 20, 70 * HOUR)
        base = incremental_at(shelf, sound, 20, 70 * HOUR)
        log_at(shelf, g, 21, 30, HOUR)
        full_at(shelf, g, 31, MINUTE)  # so that it is not for the newest chain that logs are kept
        return shelf, g, log, sound, base

    shelf, _, log, _, _ = built()
    assert log in gone(plan(shelf))

    shelf, _, log, _, base = built()
    shelf.delete(packs(shelf, base))
    assert log in kept(plan(shelf))

    shelf, _, log, _, base = built()
    shelf.objects[packs(shelf, base)[0]] -= 1  # cut off
    assert log in kept(plan(shelf))

    shelf, _, log, _, base = built()
    shelf.unreadable.add(base)
    assert log in kept(plan(shelf))

    shelf, _, log, sound, base = built()
    shelf.manifests[base] = replace(shelf.manifests[base], parent_chain="f" * 32)  # type: ignore[call-arg]
    assert log in kept(plan(shelf))

    shelf, g, log, sound, base = built()
    other = full_at(shelf, g, 9, 81 * HOUR)
    shelf.segment(g, 10, 10)
    shelf.delete(texts(sound))
    assert {str(other), log} <= kept(plan(shelf))


def test_behind_a_hole_the_backup_is_kept_that_leads_on() -> None:
    """A store that lapsed comes back with a full, and a log may be lost; so none of the window goes, however short a
    time its kind is kept."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 10, 50 * HOUR)
    log_at(shelf, g, 11, 20, 47 * HOUR)
    behind = full_at(shelf, g, 40, 40 * HOUR)
    log_at(shelf, g, 41, 50, 30 * HOUR)
    full_at(shelf, g, 50, 20 * HOUR)
    lost = log_at(shelf, g, 51, 60, 15 * HOUR)
    on = incremental_at(shelf, behind, 60, 15 * HOUR)
    log_at(shelf, g, 61, 70, 10 * HOUR)
    shelf.delete([lost])
    found = plan(shelf, BARE)

    assert [] == gone(found)
    assert "it lies within the last 48 hours" == reason(found, behind)
    assert "it lies within the last 48 hours" == reason(found, on)


def test_the_window_spans_generations() -> None:
    """The one that was current when it began needs its base and its end; those before need nothing, those after all."""
    shelf, (a, b, c) = shelf_with(90, 5, 1)
    policy = replace(POLICY, full_days=1, incremental_days=1, months=0)
    full_at(shelf, a, 0, 90 * DAY)
    forgotten = log_at(shelf, a, 1, 9, 5 * DAY + HOUR)
    current = full_at(shelf, b, 0, 5 * DAY)
    end = log_at(
        shelf, b, 1, 9, 4 * DAY
    )  # nothing happened for three days: it is the state of the window's beginning
    first = full_at(shelf, c, 0, DAY)
    after = log_at(shelf, c, 1, 9, HOUR)
    found = plan(shelf, policy)

    assert {*texts(current, first), end, after} <= kept(found)
    assert {*texts(FullName(NOW - 90 * DAY, a, 0)), forgotten, f"generations/{a}.json"} <= {*gone(found)}


def test_a_generation_without_a_full_keeps_all_it_has() -> None:
    """Its first one is still to come; the floor is the chain of the one before."""
    shelf, (a, b) = shelf_with(90, 3)
    full_at(shelf, a, 0, 80 * DAY)
    end = log_at(shelf, a, 1, 9, 75 * DAY)
    waiting = [log_at(shelf, b, 1, 9, 70 * HOUR), str(shelf.segment(b, 10, 12))]
    found = plan(shelf, BARE)

    assert [] == gone(found)
    assert {end, *waiting} <= kept(found)


# --- logs and segments ---------------------------------------------------------------------------------


def test_a_segment_ends_where_the_next_thing_begins() -> None:
    """Its name tells only its beginning: with the beginning of the next one, or a backup behind it, it is too old;
    where nothing tells, it may hold what is promised."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 0, 90 * HOUR)
    for txid, age in ((1, 80), (5, 70), (9, 49)):
        shelf.commit(g, txid, NOW - age * HOUR)
    segments = [str(shelf.segment(g, first, last)) for first, last in ((1, 4), (5, 8), (9, 20))]
    full_at(shelf, g, 8, 60 * HOUR)
    found = plan(shelf)

    assert segments[:2] == gone(found)
    assert segments[2] in kept(found)

    # without the full, all of them lead to the window
    shelf.delete(texts(FullName(NOW - 60 * HOUR, g, 8)))
    assert {*segments} <= kept(plan(shelf))


def test_the_newest_segment_of_the_running_generation_stays() -> None:
    """An agent goes on from it, however old it is; in another generation it goes with the rest."""
    shelf, (a, b) = shelf_with(300, 100)
    for g in (a, b):
        shelf.commit(g, 1, NOW - 90 * DAY)
        shelf.commit(g, 5, NOW - 90 * DAY)
        shelf.segment(g, 1, 4)
        shelf.segment(g, 5, 8)
        full_at(shelf, g, 8, 80 * DAY)
        full_at(shelf, g, 9, 60 * DAY)
    policy = replace(POLICY, full_days=1, months=0)
    newest = f"tail/{b}/{5:016x}.segment"
    found = plan(shelf, policy)

    assert newest in kept(found)
    assert {f"tail/{a}/{1:016x}.segment", f"tail/{a}/{5:016x}.segment", f"tail/{b}/{1:016x}.segment"} <= {
        *gone(found)
    }
    # the agent may go on with one that is not the newest
    assert f"tail/{a}/{5:016x}.segment" in kept(plan(shelf, policy, running=a))


def test_the_newest_segment_stays_though_a_log_has_taken_it_over() -> None:
    """An agent looks for its place among segments; the others of that log go."""
    shelf, (a, b) = shelf_with(300, 100)
    for g in (a, b):
        full_at(shelf, g, 0, 90 * HOUR)
        for txid in (1, 5):
            shelf.commit(g, txid, NOW - 3 * HOUR)
        segments = [str(shelf.segment(g, 1, 4)), str(shelf.segment(g, 5, 8))]
        log_at(shelf, g, 1, 8, 2 * HOUR)
        log_at(shelf, g, 9, 12, HOUR)
    found = plan(shelf)

    assert [each.replace(b, a) for each in segments] + segments[:1] == gone(found)
    assert "it is the newest of its generation, and an agent goes on from it" == reason(found, segments[1])


def test_a_segment_that_a_log_has_taken_over_goes() -> None:
    """Once it is known to end within: by the segment behind it, or by what begins where the log ends."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 0, 90 * HOUR)
    shelf.commit(g, 1, NOW - 2 * HOUR)
    shelf.commit(g, 5, NOW - 2 * HOUR)
    taken = [str(shelf.segment(g, 1, 4)), str(shelf.segment(g, 5, 8))]
    log = log_at(shelf, g, 1, 8, HOUR)
    found = plan(shelf)
    assert taken[:1] == gone(found)
    assert "it is the newest of its generation, and an agent goes on from it" == reason(found, taken[1])

    shelf.commit(g, 9, NOW - HOUR)
    shelf.segment(g, 9, 9)
    found = plan(shelf)
    assert taken == gone(found)
    assert f"{log} holds all of it" == reason(found, taken[0])


def test_a_segment_that_may_reach_behind_its_log_lives_as_long() -> None:
    """Of a generation that ended with a log."""
    shelf, (a, b) = shelf_with(100, 50)
    full_at(shelf, a, 0, 90 * DAY)
    shelf.commit(a, 1, NOW - 60 * DAY)
    segment = str(shelf.segment(a, 1, 8))
    log = log_at(shelf, a, 1, 8, 60 * DAY)
    policy = replace(POLICY, full_days=1, months=0)
    found = plan(shelf, policy)
    assert {segment, log} <= kept(found)

    full_at(shelf, b, 0, 50 * DAY)
    # The segment goes first: without the log readers would take it again.
    assert [segment, log] == [each for each in gone(plan(shelf, policy)) if each in (segment, log)]


def test_a_segment_with_the_first_parts_of_a_transaction_is_not_taken_over() -> None:
    """By a log that ends before that transaction; only by one that has it, too."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 0, 90 * HOUR)
    for txid in (1, 5, 6):
        shelf.commit(g, txid, NOW - 47 * HOUR)
    first = str(shelf.segment(g, 1, 4))
    rest = [str(shelf.segment(g, 5, 5, part=part)) for part in (2, 3)]
    shelf.segment(g, 6, 6)
    log_at(shelf, g, 1, 4, 47 * HOUR)
    assert {first, *rest} <= kept(plan(shelf))

    log_at(shelf, g, 5, 5, 47 * HOUR)
    assert [first, *rest] == gone(plan(shelf))


def test_a_fence_goes_with_the_last_of_its_generation() -> None:
    """It lies in the place of a segment, and keeps an agent out as long as there is anything to write behind."""
    shelf, (a, b) = shelf_with(300, 100)
    policy = replace(POLICY, full_days=1, months=0)
    full_at(shelf, a, 5, 200 * DAY)
    fence = str(shelf.segment(a, 6, 6))
    full_at(shelf, b, 0, 100 * DAY)
    full_at(shelf, b, 1, 60 * HOUR)

    def found() -> RetentionPlan:
        holdings = shelf.holdings()
        catalogue = holdings.catalogue
        cut = tuple(
            replace(each, segments=()) if each.generation == a else each for each in catalogue.generations
        )
        return plan_retention(replace(holdings, catalogue=replace(catalogue, generations=cut)), policy, NOW)

    assert [fence, f"generations/{a}.json"] == gone(found())[-2:]

    shelf.event(FullName(NOW - 200 * DAY, a, 5).backup_id, "pinned")
    assert [] == [each for each in gone(found()) if str(a) in each]


# --- the floor -----------------------------------------------------------------------------------------


def test_the_newest_chain_is_never_given_up() -> None:
    """However old: the newest full, its incrementals, and all units behind it."""
    shelf, (g,) = shelf_with(900)
    older = full_at(shelf, g, 10, 800 * DAY)
    floor = full_at(shelf, g, 20, 790 * DAY)
    before = log_at(shelf, g, 11, 20, 790 * DAY)
    on_it = [incremental_at(shelf, floor, 30, 780 * DAY)]
    on_it.append(incremental_at(shelf, on_it[0], 40, 770 * DAY))
    logs = [log_at(shelf, g, 21, 30, 780 * DAY), log_at(shelf, g, 31, 60, 760 * DAY)]
    found = plan(shelf, replace(POLICY, log_hours=0, full_days=1, incremental_days=1, months=0))

    assert {*texts(floor, *on_it), *logs} <= kept(found)
    assert {*texts(older), before} <= {*gone(found)}
    assert "it is the newest full that can be restored" == reason(found, floor)
    assert f"it belongs to the newest chain, on {floor.backup_id}" == reason(found, on_it[0])


def test_the_newest_full_that_was_read_back_stays_beside_a_newer_one() -> None:
    """With all that follows it, while it is not older than fulls are kept: what was proved earlier is history."""
    for age, stays in ((30 * DAY, True), (30 * DAY + 1, False)):
        shelf, (g,) = shelf_with()
        proved = full_at(shelf, g, 10, age)
        shelf.event(proved.backup_id, "checksummed")
        log = log_at(shelf, g, 11, 20, 28 * DAY)
        newest = full_at(shelf, g, 30, 60 * HOUR)
        log_at(shelf, g, 31, 40, HOUR)
        found = plan(shelf)

        assert stays == (log in kept(found))
        assert str(newest) in kept(found)


def test_a_broken_full_is_no_floor() -> None:
    """The newest that can be restored is; the broken one stays for its own time."""
    shelf, (g,) = shelf_with()
    floor = full_at(shelf, g, 10, 100 * DAY)
    log = log_at(shelf, g, 11, 20, 90 * DAY)
    broken = full_at(shelf, g, 20, 90 * DAY)
    shelf.delete(packs(shelf, broken))
    found = plan(shelf, BARE)

    assert {str(floor), log} <= kept(found)
    assert [str(broken)] == gone(found)


@pytest.mark.parametrize("fault", ["unreadable", "no packs", "no full"])
def test_where_nothing_can_be_restored_nothing_is_deleted(fault: str) -> None:
    """A wrong key or half of a disk is no reason to throw away what may be whole."""
    shelf, (g,) = shelf_with()
    full = full_at(shelf, g, 10, 300 * DAY)
    log_at(shelf, g, 11, 20, 299 * DAY)
    if fault == "unreadable":
        shelf.unreadable.add(full)
    elif fault == "no packs":
        shelf.delete(packs(shelf, full))
    else:
        shelf.delete(texts(full))
    for before in (None, NOW):
        found = plan(shelf, before=before)

        assert [] == gone(found)
        assert ("no backup can be restored for certain, so nothing is deleted",) == found.notes


def test_an_empty_repository_has_an_empty_plan() -> None:
    """Nothing to keep, nothing to delete, nothing to say."""
    found = plan(Shelf())

    assert ((), (), (), ()) == (found.keep, found.delete, found.windows_before, found.notes)


# --- doubt ---------------------------------------------------------------------------------------------


def test_what_an_unreadable_manifest_may_need_is_kept() -> None:
    """Itself, what it lies on by its name, and every pack that is not younger; `backup delete` may still take it."""
    shelf, (g,) = shelf_with()
    earlier = full_at(shelf, g, 10, 300 * DAY)
    base = full_at(shelf, g, 20, 290 * DAY)
    doubtful = incremental_at(shelf, base, 30, 280 * DAY)
    later = full_at(shelf, g, 40, 270 * DAY)
    full_at(shelf, g, 50, 60 * HOUR)
    shelf.unreadable.add(doubtful)
    policy = BARE
    found = plan(shelf, policy)

    assert {*texts(base, doubtful), *packs(shelf, earlier, base, doubtful)} <= kept(found)
    assert texts(earlier, later, *packs(shelf, later)) == gone(found)
    assert f"{doubtful.backup_id}, whose manifest cannot be read, may need it" == reason(
        found, packs(shelf, earlier)[0]
    )
    holdings = shelf.holdings()
    assert would_break(holdings, policy, NOW, doubtful) is None
    assert would_break(holdings, policy, NOW, base) is None

    shelf.unreadable.clear()
    assert {*texts(earlier, base, doubtful, later)} <= {*gone(plan(shelf, policy))}


def test_a_generation_of_which_nothing_can_be_restored_just_now_keeps_its_units() -> None:
    """Its backups may be readable tomorrow; the newest chain is that of the generation before."""
    shelf, (a, b) = shelf_with(300, 100)
    full_at(shelf, a, 0, 200 * DAY)
    doubtful = full_at(shelf, b, 5, 90 * DAY)
    log = log_at(shelf, b, 6, 9, 80 * DAY)
    before = log_at(shelf, b, 1, 5, 90 * DAY)
    shelf.unreadable.add(doubtful)
    found = plan(shelf, BARE)

    assert {str(doubtful), log} <= kept(found)
    assert [before] == gone(found)


# --- packs, records, generations -----------------------------------------------------------------------


def test_a_pack_lives_as_long_as_any_manifest_that_names_it() -> None:
    """Whichever of the fulls that share it goes first, and of whichever generation they are."""
    shelf, (a, b) = shelf_with(100, 20)
    old = full_at(shelf, a, 1, 90 * DAY)
    shared, own = packs(shelf, old)[0], shelf.pack(a, 1)
    both = tuple(PackUse(name, OBJECT_BYTES["pack"]) for name in (shared, own))
    shelf.manifests[old] = replace(shelf.manifests[old], packs=both)
    shelf.commit(b, 1, NOW - 60 * HOUR)
    shelf.full(b, 1, shares=[shared])
    found = plan(shelf, BARE)

    assert shared in kept(found)
    assert texts(old, own, f"generations/{a}.json") == gone(found)


def test_an_orphan_is_given_two_days() -> None:
    """By the time in its name; it may belong to a backup whose manifest is still to be put."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 10, 60 * HOUR)
    shelf.commit(g, 1, NOW - 48 * HOUR - SECOND)
    shelf.commit(g, 2, NOW - 48 * HOUR)
    old, young = shelf.pack(g, 1), shelf.pack(g, 2)
    elsewhere = shelf.pack(GenerationId("00000000000000ee"), 1, time=NOW - 3 * DAY)
    found = plan(shelf)

    assert [elsewhere, old] == gone(found)
    assert "it is younger than 48 hours and may belong to a backup that is being made" == reason(found, young)


def test_a_pack_of_a_database_at_rest_is_not_as_old_as_its_name() -> None:
    """Its time is that of the last commit. While no backup is newer, it may belong to one that is being made."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 10, 20 * DAY)
    waiting = shelf.pack(g, 10)
    assert "no backup is newer, and it may belong to one that is being made" == reason(plan(shelf), waiting)

    full_at(shelf, g, 11, 60 * HOUR)
    assert [waiting] == gone(plan(shelf))


def test_a_backup_that_is_set_aside_goes() -> None:
    """It was found hurt: nothing is promised by it, and what says so stays as long as it does."""
    shelf, (g,) = shelf_with()
    hurt = full_at(shelf, g, 10, HOUR)
    whole = full_at(shelf, g, 11, HOUR)
    said = shelf.event(hurt.backup_id, "damaged")
    found = plan(shelf)

    assert "it was found hurt, and nothing relies on it" == reason(found, str(hurt))
    assert gone(found).index(str(hurt)) < gone(found).index(said)
    assert {*texts(whole)} <= kept(found)


def test_what_is_told_of_a_backup_goes_after_it() -> None:
    """At once, so that a record without its backup tells of a loss. What an earlier plan left behind goes first; but
    not what is of one that may have been put since it was looked for."""
    shelf, (g,) = shelf_with()
    old = full_at(shelf, g, 1, 100 * DAY)
    new = full_at(shelf, g, 2, 60 * HOUR)
    told = [
        shelf.event(old.backup_id, event) for event in ("checksummed", "named", "restored-20250101T000000Z")
    ]
    stays = shelf.event(new.backup_id)
    left = shelf.event(FullName(NOW - 200 * DAY, g, 7).backup_id)
    young = shelf.event(FullName(NOW - 47 * HOUR, g, 8).backup_id)
    never = shelf.event("99999999T999999Z-0000000000000001-0000000000000001")
    found = plan(shelf, BARE)

    assert [left, *texts(old), *told, *packs(shelf, old)] == gone(found)
    assert {stays, young, never} <= kept(found)


def test_a_generations_record_goes_last() -> None:
    """When nothing of it is left, unless it just began or an agent goes on with it."""
    shelf, (empty, new, b) = shelf_with(300, 1, 200)
    full_at(shelf, b, 1, 60 * HOUR)
    found = plan(shelf, running=b)

    assert [f"generations/{empty}.json"] == gone(found)
    assert "nothing of its generation is left" == reason(found, f"generations/{empty}.json")
    assert "its generation has just begun" == reason(found, f"generations/{new}.json")
    assert [] == gone(plan(shelf, running=empty))

    del shelf.records[empty]  # it is there and cannot be read
    assert [] == gone(plan(shelf, running=b))


def test_a_generation_without_a_record_goes_like_any_other() -> None:
    """As far as there is anything of it."""
    shelf, (a, b) = shelf_with(300, 200)
    old = full_at(shelf, a, 1, 250 * DAY)
    full_at(shelf, b, 1, 60 * HOUR)
    shelf.delete([f"generations/{a}.json", f"generations/{b}.json"])

    assert texts(old, *packs(shelf, old)) == gone(plan(shelf, BARE))


def test_leases_keys_and_what_is_not_ours_are_left_alone() -> None:
    """Whatever their age; strays are on neither side."""
    shelf, (g,) = shelf_with()
    full_at(shelf, g, 1, 60 * HOUR)
    ours = ["leases/00000001.json", "keys/00000001.json", "repository.json", "metadata.json"]
    strays = ["README.txt", "full/2020/01/01/notes.txt", f"tail/{g}/x", "records/x/y.json", "log/"]
    shelf.objects |= dict.fromkeys([*ours, *strays], 5)
    found = plan(shelf)

    assert [] == gone(found)
    assert {*ours} <= kept(found)
    assert not kept(found) & {*strays}


# --- order ---------------------------------------------------------------------------------------------


def test_the_order_of_deleting_is_safe_to_interrupt() -> None:
    """Manifests, children before parents and the oldest chain first, each with its records; logs and segments, the
    oldest first; packs; generations."""
    shelf, (a, b) = shelf_with(300, 100)
    first = full_at(shelf, a, 10, 290 * DAY)
    on_first = incremental_at(shelf, first, 20, 289 * DAY)
    on_that = incremental_at(shelf, on_first, 30, 288 * DAY)
    second = full_at(shelf, a, 40, 287 * DAY)
    on_second = incremental_at(shelf, second, 50, 286 * DAY)
    logs = [log_at(shelf, a, 11, 20, 289 * DAY), log_at(shelf, a, 21, 40, 287 * DAY)]
    tail = str(shelf.segment(a, 41, 50))
    third = full_at(shelf, b, 0, 99 * DAY)
    told = shelf.event(first.backup_id)
    proved_at(shelf, b, 1, 60 * HOUR)
    found = plan(shelf, BARE)

    manifests = [*texts(on_that, on_first, first), told, *texts(on_second, second, third)]
    content = packs(shelf, first, on_first, on_that, second, on_second, third)
    assert [*manifests, *logs, tail, *content, f"generations/{a}.json"] == gone(found)


def test_a_plan_says_what_can_be_restored_before_and_after() -> None:
    """By generation, in stretches with their times: what a dry run prints."""
    shelf, (a, b) = shelf_with(300, 100)
    full_at(shelf, a, 1, 200 * DAY)
    log_at(shelf, a, 2, 9, 199 * DAY)
    base = full_at(shelf, b, 0, 99 * DAY)
    incremental_at(shelf, base, 5, 98 * DAY)
    log_at(shelf, b, 6, 8, 97 * DAY)
    full_at(shelf, b, 10, 60 * HOUR)
    log_at(shelf, b, 11, 20, 2 * HOUR)
    shelf.commit(b, 21, NOW - HOUR)
    shelf.segment(b, 21, 29)
    found = plan(shelf, BARE)

    assert [
        (a, (Stretch(1, 9, NOW - 200 * DAY, NOW - 199 * DAY),)),
        (
            b,
            (
                Stretch(0, 0, NOW - 99 * DAY, NOW - 99 * DAY),
                Stretch(5, 8, NOW - 98 * DAY, NOW - 97 * DAY),
                Stretch(10, 21, NOW - 60 * HOUR, NOW - 2 * HOUR),
            ),
        ),
    ] == [(each.generation, each.stretches) for each in found.windows_before]
    assert [(a, ()), (b, (Stretch(10, 21, NOW - 60 * HOUR, NOW - 2 * HOUR),))] == [
        (each.generation, each.stretches) for each in found.windows_after
    ]


# --- deletion on request -------------------------------------------------------------------------------


def test_deletion_on_request_takes_promised_states_too() -> None:
    """All that leads to a state before that time; with what lies on it, though it is younger."""
    shelf, (g,) = shelf_with()
    full = full_at(shelf, g, 10, 50 * HOUR)
    log = log_at(shelf, g, 11, 20, 40 * HOUR)
    on_it = incremental_at(shelf, full, 20, 10 * HOUR)
    told = shelf.event(on_it.backup_id)
    new = proved_at(shelf, g, 30, 9 * HOUR)
    stays = log_at(shelf, g, 31, 40, 8 * HOUR)
    found = plan(shelf, before=NOW - 20 * HOUR)

    assert [*texts(on_it), told, *texts(full)] == gone(found)[:3]
    assert {log, told} <= {*gone(found)}
    assert {str(new), stays} <= kept(found)
    assert "it lets a state before 2025-11-27T16:00:00.000000Z be restored" == reason(found, on_it)
    assert "it holds states before 2025-11-27T16:00:00.000000Z" == reason(found, log)
    assert () == found.notes
    # the packs are young; the next plan takes them, or the one after
    assert {*packs(shelf, full)} <= {*gone(found)}
    assert {*packs(shelf, on_it)} <= kept(found)


def test_a_state_at_the_very_time_stays() -> None:
    """Before means before."""
    shelf, (g,) = shelf_with()
    full = full_at(shelf, g, 10, 50 * HOUR)
    proved_at(shelf, g, 20, HOUR)

    assert str(full) in kept(plan(shelf, before=NOW - 50 * HOUR))
    assert str(full) in gone(plan(shelf, before=NOW - 50 * HOUR + 1))


def test_deletion_on_request_leaves_the_newest_chain_and_says_so() -> None:
    """Never nothing at all."""
    shelf, (g,) = shelf_with()
    older = full_at(shelf, g, 10, 50 * HOUR)
    newest = full_at(shelf, g, 20, 30 * HOUR)
    shelf.event(newest.backup_id, "checksummed")
    incremental = incremental_at(shelf, newest, 30, 20 * HOUR)
    log = log_at(shelf, g, 21, 40, 10 * HOUR)
    found = plan(shelf, before=NOW)

    assert texts(older, *packs(shelf, older)) == gone(found)
    assert {*texts(newest, incremental), log} <= kept(found)
    assert (
        "the newest chain stays, though it begins at 2025-11-27T06:00:00.000000Z, before "
        "2025-11-28T12:00:00.000000Z: as soon as something has changed since, make a full backup that is read back, "
        "and prune once more",
    ) == found.notes


@pytest.mark.parametrize("by", ["request", "age"])
def test_s73_the_only_full_that_was_read_back_is_never_given_up(by: str) -> None:
    """The newer one may be broken in spite of its packs: both stay, and the result says why."""
    shelf, (g,) = shelf_with()
    older = proved_at(shelf, g, 5, 60 * HOUR)
    proved = proved_at(shelf, g, 10, 50 * HOUR)
    on_it = incremental_at(shelf, proved, 15, 45 * HOUR)
    log = log_at(shelf, g, 16, 19, 40 * HOUR)
    written = full_at(shelf, g, 20, HOUR)
    found = plan(shelf, before=NOW - DAY) if by == "request" else plan(shelf, replace(POLICY, max_age_days=1))

    assert {*texts(proved, on_it, written), log} <= kept(found)
    assert str(older) in gone(found)
    assert (
        "it is the newest full that was read back, and one broken backup shall not be all that is left"
        == reason(found, proved)
    )
    assert [f"{proved.backup_id} stays, since it is the newest full that was read back"] == [
        each.partition(", though")[0] for each in found.notes
    ]

    proved_at(shelf, g, 30, HOUR // 2)
    found = plan(shelf, before=NOW - DAY)
    assert {*texts(proved, on_it)} <= {*gone(found)}
    assert [] == [each for each in found.notes if "one broken backup" in each]


def test_s73_where_nothing_was_read_back_two_fulls_are_left() -> None:
    """With verification switched off nobody knows which of them is whole."""
    shelf, (g,) = shelf_with()
    fulls = [full_at(shelf, g, txid, age * HOUR) for txid, age in ((10, 60), (20, 50), (30, 10))]
    found = plan(shelf, before=NOW - 20 * HOUR)

    assert {*texts(*fulls[1:])} <= kept(found)
    assert str(fulls[0]) in gone(found)
    assert [f"{fulls[1].backup_id} stays, since no full was ever read back"] == [
        each.partition(", though")[0] for each in found.notes
    ]


def test_s73_s74_packs_from_before_that_stay_are_named() -> None:
    """Fulls of a month share them, so that what was deleted from the database since may still be read there; in those
    that nothing needs for two days more. What a full made anew needs is its own."""
    shelf, (g,) = shelf_with()
    first = proved_at(shelf, g, 10, 20 * DAY)
    shared = packs(shelf, first)[0]
    shelf.commit(g, 20, NOW - 30 * HOUR)
    second = shelf.full(g, 20, shares=[shared])
    shelf.event(second.backup_id)
    before = NOW - 31 * HOUR
    (note,) = plan(shelf, before=before).notes

    assert f"(1: {shared}), since fulls of a month share their packs: `backup full --anew`" in note

    anew = proved_at(shelf, g, 30, HOUR)
    found = plan(shelf, before=NOW - 2 * HOUR)
    (note,) = found.notes
    assert {str(first), str(second), shared} <= {*gone(found)}
    assert {str(anew), *packs(shelf, anew)} <= kept(found)
    assert f"(1: {packs(shelf, second)[-1]}), and go by themselves" in note
    assert () == plan(shelf).notes


def test_a_pack_of_the_very_second_is_not_from_before() -> None:
    """Its name has whole seconds; the backup that it was made for knows better."""
    shelf, (g,) = shelf_with()
    proved_at(shelf, g, 10, HOUR - SECOND // 2)

    assert () == plan(shelf, before=NOW - HOUR + SECOND // 4).notes


def test_the_newest_full_that_was_read_back_stays_however_old() -> None:
    """Alone, if it is older than fulls are kept: what was written since may be broken."""
    shelf, (g,) = shelf_with()
    proved = proved_at(shelf, g, 10, 200 * DAY)
    on_it = incremental_at(shelf, proved, 15, 199 * DAY)
    full_at(shelf, g, 20, 60 * HOUR)
    found = plan(shelf, BARE)

    assert str(proved) in kept(found)
    assert "it is the newest full that was read back" == reason(found, proved)
    assert str(on_it) in gone(found)


def test_deletion_on_request_does_not_stop_at_pins_and_says_so() -> None:
    """Whoever asks for it has a reason that is stronger."""
    shelf, (g,) = shelf_with()
    pinned = full_at(shelf, g, 10, 50 * HOUR)
    shelf.event(pinned.backup_id, "pinned")
    proved_at(shelf, g, 20, HOUR)
    found = plan(shelf, before=NOW - DAY)

    assert str(pinned) in gone(found)
    assert [f"{pinned.backup_id} is pinned, and goes all the same"] == [
        each.partition(":")[0] for each in found.notes
    ]


def test_deletion_on_request_takes_what_cannot_be_read() -> None:
    """By the time in its name."""
    shelf, (g,) = shelf_with()
    doubtful = full_at(shelf, g, 10, 50 * HOUR)
    full_at(shelf, g, 20, HOUR)
    shelf.unreadable.add(doubtful)

    assert str(doubtful) in gone(plan(shelf, before=NOW - DAY))
    assert [] == gone(plan(shelf, before=NOW - 60 * HOUR))


def test_units_of_which_no_full_is_left_go_on_request_too() -> None:
    """A deletion that was interrupted behind the manifests is finished by the next one."""
    shelf, (a, b) = shelf_with(5, 1)
    full = full_at(shelf, a, 0, 4 * DAY)
    logs = [log_at(shelf, a, 1, 9, 40 * HOUR), log_at(shelf, a, 10, 19, 30 * HOUR)]
    proved_at(shelf, b, 0, HOUR)
    before = NOW - 2 * HOUR
    assert [str(full), *logs] == gone(plan(shelf, before=before))[:3]

    shelf.delete(texts(full))
    assert logs == gone(plan(shelf, before=before))[:2]


def test_nothing_is_older_than_the_hard_maximum() -> None:
    """S73: it stands above months and pins, and every day anew."""
    shelf, (g,) = shelf_with(900)
    too_old = full_at(shelf, g, 10, 100 * DAY + 1)
    edge = full_at(shelf, g, 20, 100 * DAY)
    full_at(shelf, g, 30, HOUR)
    shelf.event(too_old.backup_id, "pinned")
    found = plan(shelf, replace(POLICY, max_age_days=100))

    assert str(too_old) in gone(found)
    assert str(edge) in kept(found)
    assert str(too_old) in kept(plan(shelf))


# --- room ----------------------------------------------------------------------------------------------


def test_where_room_is_short_the_oldest_go_first() -> None:
    """X9: monthlies, then fulls, then incrementals, one by one, never the newest chain nor the log window."""
    shelf, (g,) = shelf_with()
    monthlies = [full_at(shelf, g, 10, 200 * DAY), full_at(shelf, g, 20, 100 * DAY)]
    dailies = [full_at(shelf, g, 30 + number, (30 - number) * DAY - HOUR) for number in range(3)]
    incrementals = [incremental_at(shelf, dailies[2], 50 + number, (6 - number) * DAY) for number in range(2)]
    newest = full_at(shelf, g, 60, 50 * HOUR)
    log = log_at(shelf, g, 61, 70, HOUR)
    room = sum(shelf.objects.values())
    assert [] == gone(plan(shelf, replace(POLICY, max_bytes=room)))

    # What both incrementals lie on goes with the last of them.
    steps = [[each] for each in (*monthlies, *dailies[:2], incrementals[0])] + [[incrementals[1], dailies[2]]]
    expected: set[str] = set()
    for step in steps:
        found = plan(shelf, replace(POLICY, max_bytes=room - 1))
        expected |= {*texts(*step), *packs(shelf, *step)}

        assert expected == {*gone(found)}
        assert 0 == found.bytes_over
        room = found.bytes_kept
    found = plan(shelf, replace(POLICY, max_bytes=room - 1))

    assert expected == {*gone(found)}
    assert {str(newest), log} <= kept(found)
    assert 1 == found.bytes_over
    assert "there is no room for it: all together is more than 10B" == reason(
        plan(shelf, replace(POLICY, max_bytes=10)), monthlies[0]
    )


def test_what_shares_all_its_packs_makes_no_room() -> None:
    """What goes is counted by what it frees, and it goes on until there is room."""
    shelf, (g,) = shelf_with()
    first = full_at(shelf, g, 1, 25 * DAY)
    shelf.commit(g, 2, NOW - 24 * DAY)
    second = shelf.full(g, 2, shares=packs(shelf, first))
    shelf.delete(packs(shelf, second)[1:])
    shelf.manifests[second] = replace(shelf.manifests[second], packs=shelf.manifests[first].packs)
    newest = full_at(shelf, g, 3, 50 * HOUR)
    told = shelf.event(first.backup_id, "named")
    total = sum(shelf.objects.values())

    found = plan(shelf, replace(POLICY, months=0, max_bytes=total - OBJECT_BYTES["full"] - 10))
    assert {str(first), told} == {*gone(found)}
    found = plan(shelf, replace(POLICY, months=0, max_bytes=total - OBJECT_BYTES["full"] - 11))
    assert {*texts(first, second, *packs(shelf, first)), told} == {*gone(found)}
    assert str(newest) in kept(found)


def test_pins_do_not_make_room() -> None:
    """They are not among what may go."""
    shelf, (g,) = shelf_with()
    pinned = full_at(shelf, g, 1, 25 * DAY)
    shelf.event(pinned.backup_id, "pinned")
    full_at(shelf, g, 2, HOUR)
    found = plan(shelf, replace(POLICY, max_bytes=1))

    assert [] == gone(found)
    assert found.bytes_over == sum(shelf.objects.values()) - 1


# --- deleting one backup -------------------------------------------------------------------------------


def test_why_a_backup_may_not_be_deleted() -> None:
    """C09: the promise that needs it, its own or that of another one; none is None."""
    shelf, (g,) = shelf_with()
    monthly = full_at(shelf, g, 10, 200 * DAY)
    base = full_at(shelf, g, 20, 190 * DAY)
    between = incremental_at(shelf, base, 30, 20 * DAY)
    young = incremental_at(shelf, between, 40, 6 * DAY)
    old = full_at(shelf, g, 45, NOW - at("2025-10-20 02:00"))
    full_at(shelf, g, 46, NOW - at("2025-10-01 02:00"))
    full_at(shelf, g, 50, 29 * DAY)
    holdings = shelf.holdings()

    assert "it is the first full of 2025-05, which is kept for 12 months" == would_break(
        holdings, POLICY, NOW, monthly
    )
    for needed in (base, between):
        assert f"{young.backup_id} lies on it: incrementals are kept for 7 days" == would_break(
            holdings, POLICY, NOW, needed
        )
    assert "incrementals are kept for 7 days" == would_break(holdings, POLICY, NOW, young)
    assert would_break(holdings, POLICY, NOW, old) is None
    assert would_break(holdings, POLICY, NOW, FullName(0, GenerationId("0" * 16), 0)) is None


def test_what_has_to_make_room_may_be_deleted() -> None:
    """It is promised no more."""
    shelf, (g,) = shelf_with()
    monthly = full_at(shelf, g, 10, 200 * DAY)
    newest = full_at(shelf, g, 20, 50 * HOUR)
    policy = replace(POLICY, max_bytes=10_000)

    assert would_break(shelf.holdings(), policy, NOW, monthly) is None
    assert would_break(shelf.holdings(), policy, NOW, newest) is not None
    assert would_break(Holdings(Shelf().catalogue(), {}), policy, NOW, newest) is None
