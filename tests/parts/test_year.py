"""A year in a test: real parts, the real schedules and a simulated clock; one change an hour for four hundred days.

The agent is restarted, killed and away at random, and prunings break off. What has to be there at each day's end is
worked out a second time from the list of all backups there ever were (tests/support/promises.py); each point that is
kept is restored and compared with what the application saw.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from replicator import spool
from replicator.core.errors import StoreUnavailable
from replicator.core.full import decode_manifest
from replicator.core.incremental import decode_incremental
from replicator.core.names import FullName, IncrementalName, parse_name
from replicator.core.position import GenerationId, Position
from replicator.core.retention_policy import Policy
from replicator.jobs import PRUNE
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from tests.support.memory_store import FakeClock, MemoryStore
from tests.support.promises import (
    DAY,
    HOUR,
    Made,
    Rules,
    backups_in,
    made_of,
    parts_of,
    past_units,
    promised,
    unreferenced,
)
from tests.support.station import Station, default_schedules

BEGINS = 1_738_044_000_000_000  # 2025-01-28T06:00:00Z
ROWS = 400
# Chunks of earlier fulls of the month that nobody needs any more, in packs that somebody still needs.
DEAD_SHARE_MAX = 0.1


class Breaking(MemoryStore):
    """After so many deletes it is away for the next one; None is never."""

    deletes_left: int | None = None

    def delete(self, name: str) -> None:
        if self.deletes_left is not None:
            self.deletes_left -= 1
            if self.deletes_left < 0:
                self.deletes_left = None
                raise StoreUnavailable("the network went away")
        super().delete(name)


@dataclass(frozen=True)
class Day:
    """At the end of one: the points of all, and how many bytes lie there, by kind."""

    points: int
    sizes: Counter[str]
    dead: float

    @property
    def total(self) -> int:
        return self.sizes.total()


@dataclass
class Year:
    """What happened, by the hour; and what has to come of it."""

    station: Station
    inner: Breaking
    rules: Rules
    rng: random.Random
    made: dict[str, Made] = field(default_factory=dict)
    digests: dict[Position, str] = field(default_factory=dict)
    times: dict[Position, int] = field(default_factory=dict)
    parts: dict[str, dict[tuple[str, int, int], float]] = field(default_factory=dict)
    days: list[Day] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    fresh: list[str] = field(default_factory=list)
    away: int = 0
    _seen: int = 0
    _ended: int = (BEGINS - 22 * HOUR) // DAY

    # --- what happens ----------------------------------------------------------------------------------

    def hour(self, number: int) -> None:
        """One change, and whatever is due."""
        station = self.station
        station.clock.advance(3_600)
        self._change(number)
        if self.away:
            self.away -= 1
            if self.away:
                return
            station.begin()
        wall = station.clock.wall()
        # With the last run of the schedules, or when it is made up for.
        ends = (wall - 22 * HOUR) // DAY > self._ended
        breaks = not ends and wall % DAY == 6 * HOUR and self.rng.random() < 0.5
        self.inner.deletes_left = self.rng.randrange(12) if breaks else None
        station.keep_up()
        self.happened["prunings broke off"] += breaks and self.inner.deletes_left is None
        self.inner.deletes_left = None
        self.digests[station.position] = station.app.digest()
        self.times[station.position] = wall
        self._note()
        if self.rng.random() < 1 / 30:
            station.do(PRUNE)  # by hand, where no backup stands at the beginning of the window
            self.happened["prunings by hand"] += 1
            self._require({self._oldest(wall)})
        if ends:
            self._ended = (wall - 22 * HOUR) // DAY
            self._end_of_day(wall)
        self._accident()

    def _change(self, number: int) -> None:
        """A row, mostly one of those that changed lately; now and then all of them, or the file grows or shrinks."""
        app = self.station.app
        dice = self.rng.random()
        if dice < 0.002:
            app.execute("UPDATE t SET body = hex(randomblob(150))")
        elif dice < 0.01:
            self.station.fill(5, 150)
        elif dice < 0.02:
            app.execute("DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id DESC LIMIT 3)")
        else:
            row = number // 48 * 7 + self.rng.randrange(20)
            app.execute("UPDATE t SET body = hex(randomblob(150)) WHERE id = ?", row % ROWS + 1)

    def _accident(self) -> None:
        dice = self.rng.random()
        if dice > 1 / 40:
            return
        kill = self.rng.random() < 0.5
        self.happened["kills" if kill else "stops"] += 1
        if dice > 1 / 120:
            self.station.restart(kill=kill)
        else:
            self.station.end(kill=kill)
            self.away = self.rng.choice((2, 5, 12, 30, 80))
            self.happened["hours away"] += self.away

    def _note(self) -> None:
        """What was made, while it is still there."""
        for name in self.inner.puts[self._seen :]:
            parsed = parse_name(name)
            if isinstance(parsed, FullName | IncrementalName):
                decode = decode_manifest if isinstance(parsed, FullName) else decode_incremental
                manifest = decode(self.inner.get(name), name)
                self.made[parsed.backup_id] = made_of(manifest)
                self.parts[parsed.backup_id] = parts_of(manifest, self.inner)
                self.fresh.append(parsed.backup_id)
        self._seen = len(self.inner.puts)

    # --- what has to be so -----------------------------------------------------------------------------

    def _end_of_day(self, now: int) -> None:
        made = self.made.values()
        promises = promised(made, self.rules, now)
        there = backups_in(self.inner)

        assert set(promises) == set(there)
        assert [] == unreferenced(self.inner, now)
        assert [] == past_units(self.inner, made, self.rules, now)
        self._weigh(there)
        assert self.days[-1].dead <= DEAD_SHARE_MAX * self.days[-1].total
        # What was made since, what goes next, and one of all.
        ordered = sorted(there.values(), key=lambda each: each.time)
        fulls, incrementals = (
            [each for each in ordered if (each.parent is None) == full] for full in (True, False)
        )
        recent = [each for each in fulls if each.time >= now - self.rules.full_days * DAY]
        sample = (
            [there[each] for each in self.fresh] + recent[:1] + incrementals[:1] + [self.rng.choice(ordered)]
        )
        self.fresh.clear()
        commits = [each for each, time in self.times.items() if time >= now - self.rules.log_hours * HOUR]
        self._require({*map(position_of, sample), self.rng.choice(commits)})

    def _oldest(self, now: int) -> Position:
        """Commit of the window, of those that the agent saw by themselves."""
        begins = now - self.rules.log_hours * HOUR
        return min((time, each) for each, time in self.times.items() if time >= begins)[1]

    def at_last(self) -> None:
        """Every point that is kept, and every commit of the window."""
        now = self.station.clock.wall()
        window = {each for each, time in self.times.items() if time >= now - self.rules.log_hours * HOUR}
        self._require({*map(position_of, backups_in(self.inner).values()), *window})

    def _require(self, positions: set[Position]) -> None:
        repository = read_repository(self.inner)
        output = self.station.folder / "restored.db"
        for position in sorted(positions):
            chosen = choose(repository, Target(txid=position.txid, generation=position.generation))
            found = restore_chosen(repository, chosen, str(output), RestoreOptions(verify="none"))
            digest = hashlib.sha256(output.read_bytes()).hexdigest()
            output.unlink()
            self.happened["restores"] += 1
            assert (position, self.digests[position]) == (found.position, digest)

    def _weigh(self, there: dict[str, Made]) -> None:
        sizes: Counter[str] = Counter()
        for each in self.inner.list(""):
            parsed = parse_name(each.name)
            sizes[type(parsed).__name__.removesuffix("Name") if parsed is not None else "other"] += each.size
        live: dict[tuple[str, int, int], float] = {}
        for backup_id in there:
            live |= self.parts[backup_id]
        self.days.append(Day(len(there), sizes, sizes["Pack"] - sum(live.values())))

    def report(self) -> str:
        last = self.days[-1]
        shares = [each.dead / each.total for each in self.days]
        counts = [each.points for each in self.days]
        lines = [
            f"{len(self.days)} days, {len(self.digests)} commits, {len(self.made)} backups, "
            + ", ".join(f"{number} {what}" for what, number in sorted(self.happened.items())),
            f"at the end {last.points} points, {min(counts[40:])} to {max(counts)} from day 40 on",
            f"at the end {last.total:,} bytes, at the most {max(each.total for each in self.days):,}: "
            + ", ".join(f"{kind} {size:,}" for kind, size in last.sizes.most_common()),
            f"dead bytes in packs: at the end {shares[-1]:.1%}, at the most {max(shares):.1%}",
        ]
        return "\n".join(lines)


def position_of(made: Made) -> Position:
    return Position(GenerationId(made.generation), made.txid)


@pytest.mark.parametrize(
    ("days", "rules"),
    [
        # Long enough for a first full of a month to be outlived.
        pytest.param(65, Rules(months=2), id="65-days", marks=pytest.mark.timeout(300)),
        pytest.param(400, Rules(), id="400-days", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_s03_s04_s08_s12_s78_exactly_what_is_promised_is_there_at_the_end_of_each_day(
    days: int, rules: Rules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it needs, and nothing else; it restores to what the application saw. What outlives a power cut is not
    asked here, and tests/simulation asks it: so nothing waits for a disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(spool, "_sync_content", lambda _: None)
    clock = FakeClock(wall=BEGINS)
    inner = Breaking(wall=clock.wall)
    policy = Policy(months=rules.months)
    station = Station(tmp_path, inner=inner, policy=policy, schedules=default_schedules(), clock=clock)
    station.fill(ROWS, 150)
    year = Year(station, inner, rules, random.Random(days))
    try:
        for number in range(24 * days):
            year.hour(number)
        year.at_last()
        print(year.report())
    finally:
        if not year.away:
            station.end()
        station.app.kill()

    assert 0.8 * days < len(year.days)
    assert all(
        year.happened[each]
        for each in ("kills", "stops", "hours away", "prunings broke off", "prunings by hand")
    )
