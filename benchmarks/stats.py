"""Medians and percentiles of what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the worst, in milliseconds; none that is only the worst under another name."""
    known = [percent for percent in (50, 95, 99) if len(seconds) * (100 - percent) >= 100]
    named = {f"p{percent}": percentile(seconds, percent) for percent in known}
    named["max"] = max(seconds, default=math.nan)
    return {f"{name}_ms": value * 1000 for name, value in named.items()}
