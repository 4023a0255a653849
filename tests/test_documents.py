"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = {path: path.read_text() for path in [*ROOT.glob("replicator/**/*.py"), *ROOT.glob("tests/**/*.py")]}
PROMISES = (ROOT / "docs" / "PROMISES.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_and_files_that_are_named_are_there(document: Path) -> None:
    text = document.read_text()
    tests = {name for source in SOURCES.values() for name in re.findall(r"def (test_\w+)", source)}
    files = {
        name for name in re.findall(r"`((?:tests|docs|etc|benchmarks)/[\w./-]*)`", text) if "YYYY" not in name
    }

    assert set() == set(re.findall(r"`(test_\w+)`", text)) - tests
    assert set() == {name for name in files if not (ROOT / name).exists()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_settings_that_are_named_are_read(document: Path) -> None:
    """Whole names of variables; some are put together of parts in the source, and each part has to be there."""
    code = "\n".join(source for path, source in SOURCES.items() if "tests" not in path.parts)
    for name in set(re.findall(r"`(BACKUP_[A-Z0-9_]+[A-Z0-9])`", document.read_text())):
        whole = name in code or name.removesuffix("_FILE") in code
        assert whole or name.removeprefix("BACKUP_").split("_", 1)[1].removesuffix("_FILE") in code, name


def test_each_promise_that_has_a_test_is_told_of() -> None:
    """And the other way round: a row that names tests names such as are called after one of its promises."""
    told = set(re.findall(r"\b[SX]\d+\b", PROMISES))
    for first, last in re.findall(r"\b([SX]\d+)–([SX]\d+)\b", PROMISES):
        told |= {f"{first[0]}{number}" for number in range(int(first[1:]), int(last[1:]) + 1)}
    proved = {
        found.upper()
        for source in SOURCES.values()
        for ids in re.findall(r"def test_((?:[sx]\d+_(?:to_)?)+)", source)
        for found in re.findall(r"[sx]\d+", ids)
    }

    assert proved
    assert set() == proved - told
