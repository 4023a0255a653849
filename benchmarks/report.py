"""From raw rows to a report in Markdown, with plots beside it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from benchmarks.goals import judge_goals, where_the_rival_is_better
from benchmarks.limits import limit_of
from benchmarks.plots import draw
from benchmarks.questions import Column
from benchmarks.questions.throughput import add_shares
from benchmarks.rounds import Medians, Session

HOW = """\
One command makes all of this: `make bench`, some minutes of it with `make bench ARGS=--quick`. Every figure is
a median over the rounds (how many, says the last column; what is of the first round alone, the text above a table);
in each round the sides take turns on the same workload, in an order that rotates. Everything is measured from
outside: a watcher sees an object when it gets its name in the store folder, CPU and memory come from `/proc`, and in
the first round the database is restored after each run and compared with the source row by row, on every side. The
rival runs as installed from PyPI, at its defaults and with `monitor-interval` and `sync-interval` at 10 ms. Every side
syncs an object before that gets its name and the folder after it, but 0.3.13, which leaves out the folder
(`strace -f -e trace=fsync,fdatasync,rename`).
"""


def write_report(session: Session, results: Path) -> Path:
    results.mkdir(parents=True, exist_ok=True)
    stem = session.raw.name.removesuffix("-raw.json")
    path = results / f"{stem}-report.md"
    path.write_text("\n".join(_lines(session, results, stem)) + "\n", "utf-8")
    return path


def _lines(session: Session, results: Path, stem: str) -> Iterator[str]:
    add_shares(session.rows)
    medians = Medians(session.rows)
    yield f"# Figures of {stem}"
    yield ""
    if session.quick:
        yield "**A quick run: few rounds, small cases. It shows that everything works, and little more.**"
        yield ""
    yield HOW
    yield "| machine | |"
    yield "|---|---|"
    yield from (f"| {key} | {value} |" for key, value in session.machine.items())
    yield ""
    yield from _goals(medians)
    for name in dict.fromkeys(row["question"] for row in session.rows):
        yield from _question(name, medians, results, stem)
    if errors := medians.errors():
        yield "## What failed"
        yield ""
        yield from (f"- {each}" for each in errors)


def _goals(medians: Medians) -> Iterator[str]:
    yield "## Goals"
    yield ""
    yield "| figure | goal | measured | held |"
    yield "|---|---|---|---|"
    verdicts = judge_goals(medians)
    for verdict in verdicts:
        held = {True: "yes", False: "**no**", None: "not measured"}[verdict.held]
        yield f"| {verdict.figure} | {verdict.goal} | {verdict.measured} | {held} |"
    yield ""
    missed = {verdict.figure: limit_of(verdict.figure) for verdict in verdicts if verdict.held is False}
    if missed:
        yield "What stands in the way of those that are not held:"
        yield ""
        yield from (f"- *{figure}*: {limit or 'not known yet'}" for figure, limit in missed.items())
        yield ""
    better = where_the_rival_is_better(medians)
    yield "Where the rival is better, both at their defaults or at their fastest (its figure against ours):"
    yield ""
    yield from (f"- {each}" for each in better or ["nowhere in what was measured"])
    yield ""


def _question(name: str, medians: Medians, results: Path, stem: str) -> Iterator[str]:
    module: ModuleType = importlib.import_module(f"benchmarks.questions.{name}")
    yield f"## {module.TITLE}"
    yield ""
    yield module.NOTES
    for case in medians.cases(name):
        settings = medians.settings(name, case)
        columns = [
            column
            for column in module.COLUMNS
            if any(not math.isnan(medians.get(name, case, each, column.figure)) for each in settings)
        ]
        yield ""
        yield f"### {case}"
        yield ""
        yield f"| | {' | '.join(column.heading for column in columns)} | rounds |"
        yield f"|---|{'---:|' * (len(columns) + 1)}"
        for setting in settings:
            cells = [_cell(medians, name, case, setting, column) for column in columns]
            yield f"| {setting} | {' | '.join(cells)} | {medians.count(name, case, setting)} |"
    yield ""
    for plot in module.PLOTS:
        file = draw(plot, name, medians, results, stem)
        if file is not None:
            yield f"![{plot.title}]({file})"
            yield ""


def _cell(medians: Medians, question: str, case: str, setting: str, column: Column) -> str:
    value = medians.get(question, case, setting, column.figure)
    return "" if math.isnan(value) else f"{value * column.factor:,.{column.digits}f}"
