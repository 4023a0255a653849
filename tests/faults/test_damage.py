"""Every kind of damage to every kind of object: verify sees it, and nothing that never was is restored.

docs/DAMAGE.md says what becomes of each, and is held to it here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.cli.asked import require_at_least
from replicator.core.errors import TargetUnreachable
from replicator.core.position import GenerationId, Position
from replicator.repository import read_repository
from replicator.restore import Target
from replicator.verify import Report
from tests.support.damage import (
    DAMAGES,
    Victim,
    damaged,
    examine,
    looked_at,
    opened,
    restored,
    victims,
)
from tests.support.damage_table import PLAIN, SEALED, TABLE, UNSEEN, Row, read_table, row_of
from tests.support.specimen import Specimen, build

VARIETIES = (PLAIN, SEALED)
KINDS = {kind: "key slot" not in kind for kind, _ in read_table(TABLE.read_text())[SEALED]}
CASES = [
    (variety, kind) for variety in VARIETIES for kind, always in KINDS.items() if always or variety == SEALED
]


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Specimen]:
    """Made when it is first asked for; every damage is undone."""
    made: dict[str, Specimen] = {}

    def get(variety: str) -> Specimen:
        if variety not in made:
            made[variety] = build(tmp_path_factory.mktemp(variety) / "it", sealed=variety == SEALED)
        return made[variety]

    return get


@pytest.fixture(scope="module")
def table() -> dict[str, dict[tuple[str, str], Row]]:
    return read_table(TABLE.read_text())


def victim(specimen: Specimen, kind: str) -> Victim:
    return next(each for each in victims(specimen) if each.kind == kind)


def found_in(specimen: Specimen, level: str) -> Report:
    report = looked_at(specimen, level)
    assert isinstance(report, Report), report
    return report


Get = Callable[[str], Specimen]


@pytest.mark.parametrize(("variety", "kind"), CASES)
def test_what_becomes_of_damage_is_what_the_table_says(
    specimen: Get, table: dict[str, dict[tuple[str, str], Row]], tmp_path: Path, variety: str, kind: str
) -> None:
    """Damage by damage, with the commits around it restored and compared; `make damage` writes the table anew."""
    it = specimen(variety)
    one = victim(it, kind)
    for damage in DAMAGES:
        found = examine(it, one, damage, tmp_path / "out.db", thorough=False)
        assert () == found.wrong, damage
        assert table[variety][kind, damage] == row_of(one, damage, found)


def test_what_verify_does_not_see_has_a_reason(table: dict[str, dict[tuple[str, str], Row]]) -> None:
    """Each cell that says less than that something is hurt has its footnote, and no footnote is without a cell."""
    unseen = {row[:2] for rows in table.values() for row in rows.values() if "named" not in row[2]}
    assert UNSEEN.keys() == unseen


@pytest.mark.slow
@pytest.mark.parametrize("variety", VARIETIES)
def test_every_commit_is_right_or_refused(specimen: Get, tmp_path: Path, variety: str) -> None:
    """All commits by txid, beside every damage."""
    it = specimen(variety)
    for one in victims(it):
        for damage in DAMAGES:
            assert () == examine(it, one, damage, tmp_path / "out.db", thorough=True).wrong, (
                one.kind,
                damage,
            )


@pytest.mark.slow
@pytest.mark.parametrize("variety", VARIETIES)
def test_a_bit_anywhere_is_seen_or_does_not_matter(specimen: Get, tmp_path: Path, variety: str) -> None:
    """Every seventh byte of every object: what comes back is the very commit, or nothing."""
    it = specimen(variety)
    newest = max(it.digests)
    for path in sorted(each for each in it.store.rglob("*") if each.is_file()):
        whole = path.read_bytes()
        for at in range(0, len(whole), max(7, len(whole) // 60)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            for txid, target in (
                (newest, Target()),
                (14, Target(timestamp=it.walls[14])),
                (28, Target(txid=28)),
            ):
                said = restored(it, target, tmp_path / "out.db")
                assert said.digest in (None, it.digests[txid]), (path, at, target)
        path.write_bytes(whole)


# --- found here, and mended ----------------------------------------------------------------------------


@pytest.mark.parametrize("variety", VARIETIES)
def test_without_damage_nothing_is_found(specimen: Get, tmp_path: Path, variety: str) -> None:
    """What the other tests compare with."""
    it = specimen(variety)
    report = found_in(it, "content")

    assert ([], [], []) == (report.found, report.lost, report.notes)
    assert it.digests[35] == restored(it, Target(), tmp_path / "out.db", verify="full").digest


@pytest.mark.parametrize("variety", VARIETIES)
def test_a_damaged_end_of_one_generation_leaves_the_others(
    specimen: Get, tmp_path: Path, variety: str
) -> None:
    """There was a take-over, so the last segments are looked at for fences; one that cannot be read is no reason to
    give nothing at all."""
    it = specimen(variety)
    with damaged(it, victim(it, "segment, newest"), "cut short"):
        before = restored(it, Target(txid=34), tmp_path / "out.db")
        oldest = restored(it, Target(timestamp=1), tmp_path / "out.db")
        report = found_in(it, "content")

    assert it.digests[34] == before.digest
    assert isinstance(oldest.error, TargetUnreachable)
    assert [(35, 35)] == [(each.stretch.txid_first, each.stretch.txid_last) for each in report.lost]


def test_what_lies_behind_a_hole_is_lost(specimen: Get) -> None:
    """Not only the transactions that are missing: nothing leads to those behind them."""
    it = specimen(PLAIN)
    for kind, level, lost in (
        ("segment, oldest", "names", (30, 35)),
        ("segment, middle", "content", (32, 35)),
    ):
        with damaged(it, victim(it, kind), "missing"):
            report = found_in(it, level)
        assert [lost] == [(each.stretch.txid_first, each.stretch.txid_last) for each in report.lost], kind


def test_a_time_behind_a_hole_is_the_commit_before_the_hole(specimen: Get, tmp_path: Path) -> None:
    """Not the backup before it; and --exact refuses."""
    it = specimen(PLAIN)
    with damaged(it, victim(it, "segment, oldest"), "missing"):
        said = restored(it, Target(timestamp=it.walls[32]), tmp_path / "out.db")
        exact = restored(it, Target(timestamp=it.walls[32], exact=True), tmp_path / "out.db")

    assert it.digests[29] == said.digest
    assert said.told("some are missing")
    assert isinstance(exact.error, TargetUnreachable)


def test_no_way_round_leads_to_something_older(specimen: Get, tmp_path: Path) -> None:
    """Where the log that would lead round a damaged full is gone, the damage is told, whatever was asked for."""
    it = specimen(PLAIN)
    log = next(it.store.glob("log/*/*/*/*-0000000000000018.log"))
    content = log.read_bytes()
    log.unlink()
    try:
        with damaged(it, victim(it, "full, newest"), "one bit"):
            for target in (Target(), Target(timestamp=it.walls[26]), Target(txid=24)):
                said = restored(it, target, tmp_path / "out.db")
                assert "does not have the digest" in str(said.error), target
    finally:
        log.write_bytes(content)


def test_an_end_that_was_cut_off_is_refused_by_who_knows_it(specimen: Get) -> None:
    """The one thing that nothing in a store tells: `restore --at-least` does."""
    it = specimen(PLAIN)
    generation = GenerationId(victim(it, "segment, newest").name.parent.name)
    with damaged(it, victim(it, "segment, newest"), "missing"):
        repository = read_repository(opened(it))
        require_at_least(repository, Position(generation, 34))
        with pytest.raises(TargetUnreachable, match="at least"):
            require_at_least(repository, Position(generation, 35))


@pytest.mark.parametrize("level", ["names", "checksums"])
def test_without_the_key_the_same_is_seen(specimen: Get, level: str) -> None:
    """What tells damage of what is stored needs no key."""
    it = specimen(SEALED)
    keys = it.keys
    for kind in ("pack of a full", "segment, middle", "lease", "key slot, newest"):
        for damage in ("cut short", "exchanged"):
            with damaged(it, victim(it, kind), damage):
                with_key = {each.name for each in found_in(it, level).found}
                it.keys = type(keys)({})
                try:
                    without = {each.name for each in found_in(it, level).found}
                finally:
                    it.keys = keys
            assert level == "names" or with_key <= without, (kind, damage)
            assert level == "names" or without, (kind, damage)
