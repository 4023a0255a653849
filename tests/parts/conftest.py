"""What several of these tests stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clinic import SOURCES, Clinic, Made


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """One that is plain or sealed."""
    clinics: list[Clinic] = []

    def make(kind: str) -> Clinic:
        clinics.append(Clinic(tmp_path, SOURCES[kind]))
        return clinics[-1]

    yield make
    for each in clinics:
        each.close()


@pytest.fixture(params=list(SOURCES))
def clinic(request: pytest.FixtureRequest, made: Made) -> Clinic:
    return made(request.param)
