"""Which transactions of the log come together in one unit."""

from pathlib import Path

import pytest

from replicator.capture.place import base_tip, begin_generation, lineage_of
from replicator.capture.units import Sightings, UnitWriter
from replicator.core.changed_pages import ChangedPages
from replicator.core.unit import decode_unit
from replicator.source.database import Database
from replicator.spool import Spool
from replicator.state import StateFolder
from tests.support.app import App

START = 1_738_044_000_000_000
HOUR = 3_600_000_000


@pytest.mark.parametrize(
    ("looks", "units"),
    [
        ([0, HOUR], [[0, HOUR]]),
        ([0, HOUR + 1], [[0], [HOUR + 1]]),
        ([0, 5, HOUR + 1, 3 * HOUR, 3 * HOUR + 5], [[0, 5], [HOUR + 1], [3 * HOUR, 3 * HOUR + 5]]),
        ([0, 2**32, 2**33], [[0], [2**32], [2**33]]),
    ],
)
def test_commits_seen_more_than_an_hour_apart_are_in_different_units(
    looks: list[int], units: list[list[int]], tmp_path: Path
) -> None:
    """A commit at each look, and only then captured, as after hours with a full disk: a header has no room for more."""
    app = App(str(tmp_path / "app.db"))
    database = Database(str(tmp_path / "app.db"))
    database.open()
    held = database.begin_next()
    state = StateFolder(str(tmp_path / "state"))
    state.open()
    state.repository, state.epoch = "ab" * 16, 1
    spool = Spool(state.spool_folder)
    spool.open()
    try:
        generation, pages = begin_generation(database, state, *held, reason="first run", wall=START)
        writer = UnitWriter(
            database, spool, pages, lineage_of(state, generation), base_tip(generation),
            ChangedPages(generation.record.generation, 0),
        )  # fmt: skip
        sightings = Sightings(writer.tip.cursor.frames, START)
        for later in looks:
            app.insert()
            sightings.look(database.look().frames, START + later, not_earlier=START)
        seen = database.look()
        while writer.tip.cursor.frames < seen.frames:
            cursor = writer.write(seen, writer.tip.cursor.frames, sightings, [], coalesce=False)
            sightings.forget(cursor.frames)
        spooled = [decode_unit(unit) for _, unit in spool.read(spool.beginning, 1 << 30)[0]]
    finally:
        spool.close()
        state.close()
        database.close()
        app.close()

    assert units == [[entry.observed - START for entry in unit.entries] for unit in spooled]
    assert [(each[0], each[-1]) for each in units] == [
        (unit.header.observed_first - START, unit.header.observed_last - START) for unit in spooled
    ]
