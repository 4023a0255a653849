"""What was tried is told at the end of a run, counted."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
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


@pytest.fixture
def scratch() -> Iterator[str]:
    """In memory, if there is such a place: nothing has to last, and syncs cost nothing there."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield folder
