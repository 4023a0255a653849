"""What the report makes of raw figures: goals, losses, shares, merged files, plots."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import merge, publish, spread
from benchmarks.goals import judge_goals, where_the_rival_is_better
from benchmarks.limits import LIMITS, limit_of
from benchmarks.plots import _number
from benchmarks.questions.cost import IDLE
from benchmarks.questions.throughput import ALONE, add_shares
from benchmarks.report import write_report
from benchmarks.rounds import Medians, Row, Session
from benchmarks.setting import NONE, OURS, OURS_0, V3_FAST, V5, V5_FAST, Setting


def row(question: str, case: str, setting: Setting, number: int = 0, **figures: Any) -> Row:
    return {"question": question, "case": case, "setting": setting.name, "round": number, **figures}


def verdict(rows: list[Row], begins: str) -> tuple[str, bool | None]:
    (found,) = [each for each in judge_goals(Medians(rows)) if each.figure.startswith(begins)]
    return found.measured, found.held


@pytest.mark.parametrize(("p50", "held"), [(5.0, True), (5.01, False)])
def test_a_goal_is_held_up_to_its_limit(p50: float, held: bool) -> None:
    """And is undecided where nothing was measured."""
    assert held == verdict([row("latency", "1", OURS, p50_ms=p50)], "commit → durable, after quiet")[1]
    assert ("", None) == verdict([], "commit → durable, after quiet")


def test_no_goal_says_nan() -> None:
    """What it is compared with may be missing."""
    assert not [each for each in judge_goals(Medians([])) if "nan" in each.goal + each.measured]


def test_what_must_not_happen_once_is_no_median() -> None:
    """One failed request in three rounds is one; so is one long stall."""
    rows = [
        row("throughput", ALONE, OURS, n, failed=f, stall_max_ms=s)
        for n, f, s in ((0, 0, 5), (1, 0, 5), (2, 7, 90))
    ]
    rows += [row("throughput", ALONE, NONE, n, stall_max_ms=20) for n in range(3)]

    assert ("7 ", False) == verdict(rows, f"failed requests of all rounds, {ALONE}")
    assert ("90 ms", False) == verdict(rows, f"longest stall, {ALONE}")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([row("latency", "1", OURS, p50_ms=4.0), row("latency", "1", V5, p50_ms=3.0)], "p50 ms 3.0 against 4.0"),
        ([row("latency", "1", OURS_0, max_ms=4.0), row("latency", "1", V5_FAST, max_ms=3.0)], "worst ms 3.0"),
        ([row("latency", "1", OURS_0, p50_ms=4.0), row("latency", "1", V3_FAST, p50_ms=3.0)], "(0.3.13)"),
        ([row("throughput", ALONE, OURS, share=0.9), row("throughput", ALONE, V5, share=1.0)], "100 against 90"),
    ],
)  # fmt: skip
def test_where_the_rival_is_better_it_says_so(rows: list[Row], text: str) -> None:
    """In any figure that has a better end, at the defaults and at the fastest settings."""
    (line,) = where_the_rival_is_better(Medians(rows))

    assert text in line


@pytest.mark.parametrize(
    "rows",
    [
        [row("latency", "1", OURS, p50_ms=3.1), row("latency", "1", V5, p50_ms=3.0)],  # within the noise
        [row("latency", "1", OURS, p50_ms=2.0), row("latency", "1", V5, p50_ms=3.0)],
        [row("latency", "1", OURS, rate=2.0), row("latency", "1", V5, rate=3.0)],  # only explains
        [row("latency", "1", V5, p50_ms=3.0)],
        [
            row("latency", "1", OURS, p50_ms=9.0),
            row("latency", "1", V5_FAST, p50_ms=3.0),
        ],  # not the same pace
    ],
)
def test_where_it_is_not_it_does_not(rows: list[Row]) -> None:
    assert [] == where_the_rival_is_better(Medians(rows))


def test_a_share_is_of_the_same_round() -> None:
    """The machine may be slower in another one."""
    rows = [row("throughput", ALONE, each, n, rate=rate) for each, n, rate in
            ((NONE, 0, 100.0), (NONE, 1, 200.0), (OURS, 0, 90.0), (OURS, 1, 190.0), (V5, 2, 1.0))]  # fmt: skip
    add_shares(rows)

    assert [0.9, 0.95] == [each["share"] for each in rows if each["setting"] == OURS.name]
    assert "share" not in rows[-1]


def test_the_sides_take_turns() -> None:
    """Each begins once."""
    begun: list[str] = []

    def measure(_case: str, setting: Setting) -> Row:
        begun.append(setting.side)
        return {}

    session = Session(Path(), Path("/dev/null"), True, (), 3, {})
    session.take_turns("q", ["c"], (NONE, OURS, V5), measure)

    assert [
        "none",
        "replicator",
        "0.5.17",
        "replicator",
        "0.5.17",
        "none",
        "0.5.17",
        "none",
        "replicator",
    ] == begun


@pytest.mark.parametrize(
    ("case", "prefix", "number"),
    [
        ("100", "", 100.0), ("first, MB: 10", "first, MB: ", 10.0),
        ("100 MB + 10,000 commits", "", None), ("1000 MB", "", None),
    ],
)  # fmt: skip
def test_only_numbers_are_numbers(case: str, prefix: str, number: float | None) -> None:
    """Two cases at one place of a line would be one."""
    assert number == _number(case, prefix)


def raw(folder: Path, name: str, date: str, rows: list[Row], *, quick: bool = False) -> Path:
    path = folder / f"{name}-raw.json"
    path.write_text(
        json.dumps({"machine": {"date": date, "cores": "2"}, "quick": quick, "rounds": 3, "rows": rows})
    )
    return path


def test_files_are_merged(tmp_path: Path) -> None:
    """Rounds of one file stay together; measured again, the later file counts, and nothing is overwritten."""
    first = raw(
        tmp_path,
        "a",
        "2026-01-01 10:00",
        [row("q", "c", OURS, n, x=1) for n in range(3)] + [row("q", "d", V5, x=2)],
    )
    second = raw(tmp_path, "b", "2026-01-02 10:00", [row("q", "c", OURS, x=9)])
    merged = merge([first, second], tmp_path)
    medians = Medians(merged.rows)

    assert (9.0, 1) == (medians.get("q", "c", OURS.name, "x"), medians.count("q", "c", OURS.name))
    assert 2.0 == medians.get("q", "d", V5.name, "x")
    assert merged.raw == tmp_path / "2026-01-02-raw.json"
    assert merged.machine["date"] == "2026-01-01 10:00 to 2026-01-02 10:00"
    assert 3 == Medians(merge([first], tmp_path).rows).count("q", "c", OURS.name)


def test_quick_and_full_are_not_merged(tmp_path: Path) -> None:
    """They have the same names and not the same meaning."""
    paths = [raw(tmp_path, name, "2026-01-01", [], quick=name == "a") for name in ("a", "b")]
    with pytest.raises(SystemExit, match="quick and full"):
        merge(paths, tmp_path)


def session_of(folder: Path, *, quick: bool = False) -> Session:
    rows = [row("latency", case, each, p50_ms=float(case)) for case in ("1", "10") for each in (OURS, V5)]
    return Session(folder, folder / "day-raw.json", quick, (), 1, {"cores": "2"}, rows)


def test_the_published_report_finds_its_plots(tmp_path: Path) -> None:
    """Wherever the results lie."""
    results, docs = tmp_path / "benchmarks" / "results", tmp_path / "docs"
    docs.mkdir()
    session = session_of(results)
    publish(session, write_report(session, results), docs)
    text = (docs / "BENCHMARKS.md").read_text()
    links = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]

    assert links
    assert all((docs / link).is_file() for link in links), links
    with pytest.raises(SystemExit, match="quick"):
        publish(session_of(results, quick=True), results / "day-report.md", docs)


@pytest.mark.parametrize("figure", LIMITS)
def test_each_limit_belongs_to_a_goal(figure: str) -> None:
    """The text of one that was renamed would be lost without a word."""
    known = [each.figure for each in judge_goals(Medians(everything()))]

    assert any(limit_of(each) == LIMITS[figure] for each in known), known


def everything() -> list[Row]:
    cases = {"restore": ("1000 MB", "100 MB + 10,000 small commits"), "full": ("first, MB: 1000",)}
    idle = [row("cost", f"{IDLE}{count}", OURS, rss_mb=40.0 + count, wakeups_second=1.0) for count in (1, 20)]
    return idle + [row(question, case, OURS, seconds=1.0) for question in cases for case in cases[question]]


def test_a_goal_that_is_not_held_says_why(tmp_path: Path) -> None:
    """The report names what stands in the way."""
    rows = [
        row("latency", "100", each, agent_cpu_percent=cpu) for each, cpu in ((OURS_0, 30.0), (V5_FAST, 40.0))
    ]
    session = Session(tmp_path, tmp_path / "x-raw.json", False, (), 1, {}, rows)
    text = write_report(session, tmp_path).read_text()

    assert f"- *CPU at 100 commits/s, every commit*: {LIMITS['CPU at 100 commits/s, every commit']}" in text
    assert math.isnan(Medians(rows).get("latency", "100", OURS.name, "agent_cpu_percent"))


def test_what_differs_between_runs_is_told_as_a_span() -> None:
    assert "disk: 0.30 to 0.71 ms" == spread(["disk: 0.35 ms", "disk: 0.71 ms", "disk: 0.30 ms"])
    assert "3.11.7" == spread(["3.11.7", "3.11.7"])
    assert "ext4 / xfs" == spread(["ext4", "xfs", "ext4"])
    assert "0.9 to 10.5" == spread(["10.5", "0.9"])
