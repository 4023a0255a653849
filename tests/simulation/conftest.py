"""What was tried is told at the end of a run, counted."""

from collections import Counter
from typing import Any

import pytest

TRIED = "tried"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Of all tests that counted something with ``record_property(TRIED, {what: how often})``."""
    found: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == TRIED:
                found.update(value)
    for what, count in sorted(found.items()):
        terminalreporter.write_line(f"{what}: {count}")


@pytest.fixture
def tried(record_property: Any) -> Any:
    return lambda counts: record_property(TRIED, dict(counts))
