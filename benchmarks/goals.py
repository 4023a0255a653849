"""The goals, and whether the measured figures hold them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.questions import Column, throughput
from benchmarks.questions.cost import IDLE
from benchmarks.questions.full import FIRST
from benchmarks.questions.restart import CLOSED, OPEN
from benchmarks.questions.size import BOARD
from benchmarks.rounds import Medians
from benchmarks.setting import (
    DEFAULTS,
    NONE,
    OURS,
    OURS_0,
    OURS_1S,
    OURS_S3,
    V3,
    V3_FAST,
    V5,
    V5_FAST,
    Setting,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """*held*: None where the figures it takes were not measured."""

    figure: str
    goal: str
    measured: str
    held: bool | None


@dataclass(frozen=True, slots=True)
class Ask:
    """Looks up medians; NaN for what was not measured, which makes every comparison undecided."""

    medians: Medians

    def at(self, question: str, case: str, setting: Setting, figure: str) -> float:
        return self.medians.get(question, case, setting.name, figure)

    def worst(self, question: str, case: str, setting: Setting, figure: str) -> float:
        return self.medians.worst(question, case, setting.name, figure)

    def case(self, question: str, wanted: Callable[[str], bool]) -> str:
        return next((case for case in self.medians.cases(question) if wanted(case)), "")


def judge_goals(medians: Medians) -> list[Verdict]:
    ask = Ask(medians)
    groups = (_latency, _cpu, _throughput, _restart, _full, _restore, _size, _memory)
    return [verdict for group in groups for verdict in group(ask)]


def _verdict(figure: str, goal: str, measured: float, limit: float, unit: str, digits: int = 1) -> Verdict:
    """Held where *measured* is at most *limit*."""
    if math.isnan(measured) or math.isnan(limit):
        return Verdict(figure, goal.replace("nan", "…"), "", None)
    return Verdict(figure, goal, f"{measured:,.{digits}f} {unit}", measured <= limit)


def _latency(ask: Ask) -> Iterator[Verdict]:
    def at(case: str, setting: Setting, figure: str) -> float:
        return ask.at("latency", case, setting, figure)

    lone = at("1", OURS, "p50_ms")
    yield _verdict("commit → durable, after quiet, p50", "≤ 5 ms", lone, 5, "ms")
    for rate in ("10", "100", "1000"):
        figure = f"commit → durable, {rate}/s, default interval, p99"
        yield _verdict(figure, "≤ 60 ms", at(rate, OURS, "p99_ms"), 60, "ms")
    yield _verdict("every commit, 100/s, p50", "≤ 5 ms", at("100", OURS_0, "p50_ms"), 5, "ms")
    yield _verdict("every commit, 1,000/s, p50", "≤ 20 ms", at("1000", OURS_0, "p50_ms"), 20, "ms")


def _cpu(ask: Ask) -> Iterator[Verdict]:
    def at(setting: Setting) -> float:
        return ask.at("latency", "100", setting, "agent_cpu_percent")

    rival = at(V5)
    goal = f"below the rival's default ({rival:.1f} %)"
    yield _verdict("CPU at 100 commits/s, 1 s interval", goal, at(OURS_1S), rival, "%")
    third = at(V5_FAST) / 3
    goal = f"≤ 1/3 of the rival at 10 ms ({third:.1f} %)"
    yield _verdict("CPU at 100 commits/s, every commit", goal, at(OURS_0), third, "%")
    idle = ask.at("cost", f"{IDLE}1", OURS, "cpu_percent")
    yield _verdict("CPU idle, one database", "< 0.1 %", idle, 0.1, "%", 3)


def _throughput(ask: Ask) -> Iterator[Verdict]:
    for case in (throughput.ALONE, throughput.CROWD):

        def at(setting: Setting, figure: str, case: str = case) -> float:
            return ask.at("throughput", case, setting, figure)

        def worst(setting: Setting, figure: str, case: str = case) -> float:
            return ask.worst("throughput", case, setting, figure)

        share = at(OURS, "share")
        measured = "" if math.isnan(share) else f"{share * 100:.0f} %"
        held = None if math.isnan(share) else share >= 0.85
        yield Verdict(f"writer at full speed, {case}", "≥ 85 % of its speed without", measured, held)
        yield _verdict(f"failed requests of all rounds, {case}", "0", worst(OURS, "failed"), 0, "", 0)
        alone = worst(NONE, "stall_max_ms")
        goal = f"≤ 2× of that without ({alone:.0f} ms)"
        yield _verdict(f"longest stall, {case}", goal, worst(OURS, "stall_max_ms"), 2 * alone, "ms", 0)
        yield _verdict(
            f"peak -wal, {case}", "≤ 64 MiB (67 MB)", worst(OURS, "wal_mb"), (64 << 20) / 1e6, "MB", 0
        )
        goal = f"≤ the rival ({at(V5, 'lag_s'):.2f} s)"
        yield _verdict(f"lag at the end, {case}", goal, at(OURS, "lag_s"), at(V5, "lag_s"), "s", 2)


def _restart(ask: Ask) -> Iterator[Verdict]:
    stayed = ask.case("restart", lambda case: case.endswith(OPEN))
    closed = ask.case("restart", lambda case: case.endswith(CLOSED))
    yield _verdict(f"restart, {stayed}", "≤ 1 s", ask.at("restart", stayed, OURS, "seconds"), 1, "s", 2)
    yield _verdict(
        f"sent then, {stayed}",
        "the new commits (≤ 1 MB)",
        ask.at("restart", stayed, OURS, "sent_mb"),
        1,
        "MB",
        2,
    )
    yield _verdict(f"restart, {closed}", "≤ 4 s", ask.at("restart", closed, OURS, "seconds"), 4, "s", 2)
    sent, rival = (ask.at("restart", closed, each, "sent_mb") for each in (OURS, V5))
    yield _verdict(
        f"sent then, {closed}",
        f"changed chunks (≤ 1/10 of the rival's {rival:,.0f} MB)",
        sent,
        rival / 10,
        "MB",
    )


def _full(ask: Ask) -> Iterator[Verdict]:
    case = f"{FIRST}1000"
    if case not in ask.medians.cases("full"):
        case = ask.case("full", lambda case: case.startswith(FIRST))

    def ours(figure: str) -> float:
        return ask.at("full", case, OURS, figure)

    def rival(figure: str) -> float:
        return ask.at("full", case, V5, figure)

    yield _verdict(
        f"{case}: time", f"≤ 0.8 × {rival('seconds'):.1f} s", ours("seconds"), 0.8 * rival("seconds"), "s"
    )
    limit = 0.6 * rival("stored_mb")
    yield _verdict(
        f"{case}: bytes", f"≤ 0.6 × {rival('stored_mb'):.0f} MB", ours("stored_mb"), limit, "MB", 0
    )
    yield _verdict(f"{case}: local disk", "no copy (≤ 5 MB)", ours("local_mb"), 5, "MB")


def _restore(ask: Ask) -> Iterator[Verdict]:
    def at(case: str, setting: Setting, figure: str = "seconds") -> float:
        return ask.at("restore", case, setting, figure)

    large, *others = ask.medians.cases("restore") or [""]
    ours, fifth = at(large, OURS), at(large, V5) / 5
    yield _verdict(f"restore {large}", f"≤ 1/5 of 0.5.17 ({fifth:.2f} s)", ours, fifth, "s", 2)
    yield _verdict(f"restore {large}", f"≤ 0.3.13 ({at(large, V3):.2f} s)", ours, at(large, V3), "s", 2)
    limit = 2 * at(large, OURS, "cp_seconds")
    none = at(large, OURS, "none_seconds")
    yield _verdict(
        f"restore {large}, --verify none", f"≤ 2 × cp + fsync ({limit:.2f} s)", none, limit, "s", 2
    )
    for case in others[:1]:
        half = min((v for v in (at(case, V5), at(case, V3)) if not math.isnan(v)), default=math.nan) / 2
        yield _verdict(
            f"restore {case}", f"≤ 1/2 of the better rival ({half:.2f} s)", at(case, OURS), half, "s", 2
        )


def _size(ask: Ask) -> Iterator[Verdict]:
    # Both at one second: what may be lost is the same then. At our default it is a twentieth of that.
    ours, rival = (ask.at("size", BOARD, each, "per_commit") for each in (OURS_1S, V5))
    goal = f"≤ 1/15 of the rival's ({rival / 15:,.0f} B)"
    yield _verdict("bytes a commit, Kanban-like, both at 1 s", goal, ours, rival / 15, "B", 0)
    default = ask.at("size", BOARD, OURS, "per_commit")
    yield _verdict("bytes a commit, Kanban-like, at our 50 ms", goal, default, rival / 15, "B", 0)
    smaller = ask.at("size", BOARD, OURS, "smaller")
    held = None if math.isnan(smaller) else smaller >= 15
    shown = "" if math.isnan(smaller) else f"1/{smaller:.1f}"
    yield Verdict("the same against LZ4-compressed frames", "≤ 1/15", shown, held)
    idle = ask.at("size", BOARD, OURS, "idle_objects_hour")
    yield _verdict("objects put in an idle hour", "0", idle, 0, "", 0)


def _memory(ask: Ask) -> Iterator[Verdict]:
    def at(count: int, figure: str = "rss_mb") -> float:
        return ask.at("cost", f"{IDLE}{count}", OURS, figure)

    yield _verdict("RSS, one database", "≤ 60 MB", ask.at("latency", "100", OURS, "rss_mb"), 60, "MB")
    known = [n for n in (20, 100, 1000) if not math.isnan(at(n))]
    if known:
        each = (at(known[-1]) - at(1)) / (known[-1] - 1)
        yield _verdict(f"RSS for one more idle database (of {known[-1]})", "≤ 0.3 MB", each, 0.3, "MB", 2)
        wakeups = (at(known[-1], "wakeups_second") - at(1, "wakeups_second")) / (known[-1] - 1)
        yield _verdict(
            "wake-ups for one more idle database", "none of its own (≤ 0.01/s)", wakeups, 0.01, "/s", 3
        )


MARGIN = 1.05  # what is closer is noise


PAIRS = ((OURS, DEFAULTS[1:]), (OURS_S3, (V5,)), (OURS_0, (V5_FAST, V3_FAST)))


def where_the_rival_is_better(medians: Medians) -> list[str]:
    """A line a case: each figure in which one of its versions beats us, both at their defaults or at their
    fastest."""
    lines: list[str] = []
    for question in dict.fromkeys(row["question"] for row in medians.rows):
        columns: tuple[Column, ...] = importlib.import_module(f"benchmarks.questions.{question}").COLUMNS
        for case in medians.cases(question):
            for ours, rivals in PAIRS:
                found = [
                    text
                    for column in columns
                    for rival in rivals
                    if (text := _better(medians, question, case, ours, rival, column))
                ]
                if found:
                    lines.append(f"{question}, {case}, against {ours.name}: {', '.join(found)}")
    return lines


def _better(
    medians: Medians, question: str, case: str, ours: Setting, rival: Setting, column: Column
) -> str | None:
    mine, theirs = (medians.get(question, case, each.name, column.figure) for each in (ours, rival))
    less = column.better == "less" and theirs * MARGIN < mine
    more = column.better == "more" and theirs > mine * MARGIN
    if not (less or more):
        return None
    pair = (f"{value * column.factor:,.{column.digits}f}" for value in (theirs, mine))
    return f"{column.heading} {' against '.join(pair)} ({rival.side})"
