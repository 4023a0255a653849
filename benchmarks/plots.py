"""PNG plots: lines over cases that are numbers, bars over others."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.questions import Plot
from benchmarks.rounds import Medians


def draw(plot: Plot, question: str, medians: Medians, results: Path, stem: str) -> str | None:
    """The file's name, or None where there is nothing to show."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cases = [case for case in medians.cases(question) if case.startswith(plot.prefix)]
    numbers = [(n, case) for case in cases if (n := _number(case, plot.prefix)) is not None]
    lines = len(numbers) > 1
    if lines:
        cases = [case for _, case in sorted(numbers)]
    settings = list(dict.fromkeys(s for case in cases for s in medians.settings(question, case)))
    values = {s: [medians.get(question, case, s, plot.figure) for case in cases] for s in settings}
    settings = [s for s in settings if not all(math.isnan(v) for v in values[s])]
    if not settings:
        return None
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for number, setting in enumerate(settings):
        style = "-" if setting.startswith("replicator") else "--"
        if lines:
            axes.plot([n for n, _ in sorted(numbers)], values[setting], style, marker="o", label=setting)
        else:
            width = 0.8 / len(settings)
            places = [place + (number - len(settings) / 2 + 0.5) * width for place in range(len(cases))]
            axes.bar(places, values[setting], width, label=setting, hatch="" if style == "-" else "//")
    if lines:
        axes.set_xscale("log")
    else:
        axes.set_xticks(range(len(cases)), cases)
    if plot.log:
        axes.set_yscale("log")
    axes.set_ylabel(plot.label)
    axes.set_title(plot.title)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    name = f"{stem}-{plot.name}.png"
    figure.savefig(results / name, dpi=100)
    plt.close(figure)
    return name


def _number(case: str, prefix: str) -> float | None:
    try:
        return float(case.removeprefix(prefix))
    except ValueError:
        return None
