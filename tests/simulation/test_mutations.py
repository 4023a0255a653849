"""A checker that cannot fail proves nothing: the program is spoiled in one place, and some life has to show it.

The seed beside each mutation is the first one that did when it was written. Where a life goes elsewhere since, as it
does when what is simulated changes, the next ones are tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from replicator import files, spool
from replicator.backup import full
from replicator.capture import place, rounds, units
from replicator.core.cursor import Continue, Restarted
from replicator.core.unit import UnitHeader
from replicator.prune import Prune
from replicator.ship.queue import Ship
from replicator.source.database import Database
from replicator.source.pages import CapturedPages
from replicator.spool import Place
from tests.simulation.simulate import live
from tests.simulation.system_calls import SystemCalls

SEEDS_MAX = 40

Patch = pytest.MonkeyPatch


def spool_unsynced(patch: Patch) -> None:
    """A unit counts as captured before it is on the disk."""
    patch.setattr(SystemCalls, "_fdatasync", lambda *_: None)


def object_unsynced(patch: Patch) -> None:
    """A put returns before the folder's names are on the disk."""
    patch.setattr(files, "sync_folder", lambda _: None)


def name_before_content(patch: Patch) -> None:
    """What is put is not synced before it gets its name."""
    whole = SystemCalls._fsync

    def fsync(self: SystemCalls, fd: int, what: str = "fsync") -> None:
        if isinstance(self._fds.get(fd), str):
            whole(self, fd, what)

    patch.setattr(SystemCalls, "_fsync", fsync)


def shipped_before_put(patch: Patch) -> None:
    """The queue goes on when a put fails."""
    put = Ship._put

    def careless(
        self: Ship, several: list[tuple[UnitHeader, bytes]], at: Place, behind: Place
    ) -> tuple[UnitHeader, Place, int]:
        try:
            return put(self, several, at, behind)
        except Exception:
            return several[-1][0], behind, 0

    patch.setattr(Ship, "_put", careless)


def unpublished_counts(patch: Patch) -> None:
    """What lies in the file counts, whether it is committed or not."""
    look = Database.look

    def further(self: Database) -> Any:
        seen = look(self)
        while self.holds_more_than(seen):
            seen = dataclasses.replace(seen, frames=seen.frames + 1)
        end = seen.frames
        while end and not self.frame_header(end - 1).commit_pages:
            end -= 1
        return dataclasses.replace(seen, frames=end)

    patch.setattr(Database, "look", further)


def nothing_held(patch: Patch) -> None:
    """The newer read transaction ends with the older one."""
    end = Database.end_previous

    def both(self: Database) -> None:
        end(self)
        for each in self._readers:
            if each is not None and each.in_transaction:
                each.execute("ROLLBACK").fetchall()

    patch.setattr(Database, "end_previous", both)


def older_let_go_first(patch: Patch) -> None:
    """Hands change with something left to capture in between."""
    begin = Database.begin_next

    def first(self: Database) -> Any:
        reader = self._readers[self._current]
        if reader is not None and reader.in_transaction:
            reader.execute("ROLLBACK").fetchall()
        return begin(self)

    patch.setattr(Database, "begin_next", first)


def always_continues(patch: Patch) -> None:
    """A log that was restarted is taken for one that goes on."""
    patch.setattr(
        rounds, "judge", lambda cursor, seen, *, reset_allowed: Restarted() if cursor.frames else Continue(seen.frames)
    )  # fmt: skip


def place_is_not_checked(patch: Patch) -> None:
    """A saved place in a log with the same number of frames is good enough."""
    patch.setattr(
        place, "recognise", lambda cursor, seen, frame: Continue(max(0, seen.frames - cursor.frames))
    )


def torn_chunks(patch: Patch) -> None:
    """A full backup does not read again what was written meanwhile."""
    patch.setattr(full.FullWork, "chunks_of", lambda *_: set())


def old_versions_from_main(patch: Patch) -> None:
    """The version before is taken from the main file, though frames are newer."""
    patch.setattr(CapturedPages, "before", lambda self, pgno: self._database.main_page(pgno))


def data_before_manifest(patch: Patch) -> None:
    """Prune deletes in the other direction."""
    delete = Prune._delete

    def reversed_(self: Prune, plan: Any, holdings: Any) -> Any:
        return delete(self, dataclasses.replace(plan, delete=tuple(reversed(plan.delete))), holdings)

    patch.setattr(Prune, "_delete", reversed_)


def half_a_transaction(patch: Patch) -> None:
    """Parts are shipped as they come."""
    append = spool.Spool.append

    def append_all(self: spool.Spool, unit: bytes, header: UnitHeader) -> None:
        append(self, unit, header)
        self._end, self._last = self._written, Place(self._written.number, self._written.offset - len(unit))

    patch.setattr(spool.Spool, "append", append_all)


def parts_are_not_rewound(patch: Patch) -> None:
    """A transaction that could not be captured to its end leaves its first parts."""
    patch.setattr(spool.Spool, "rewind", lambda _: None)


def main_trusted_at_once(patch: Patch) -> None:
    """Frames count as moved before a mark in slot 0 is held."""
    hold = rounds.Capture._hold

    def hold_zero(self: rounds.Capture, mark: Any) -> None:
        hold(self, mark)
        self._units.pages.moved(mark.frames)

    patch.setattr(rounds.Capture, "_hold", hold_zero)


def tip_before_spool(patch: Patch) -> None:
    """The chain goes on from a unit that could not be kept."""
    keep = units.UnitWriter._keep

    def eager(self: units.UnitWriter, built: Any, changed: Any) -> None:
        before = self.tip
        keep(self, built, changed)
        self.tip = dataclasses.replace(built.tip, chain=before.chain)

    patch.setattr(units.UnitWriter, "_keep", eager)


MUTATIONS: dict[Callable[[Patch], None], int] = {
    spool_unsynced: 1, object_unsynced: 1, name_before_content: 1, shipped_before_put: 3, unpublished_counts: 3,
    nothing_held: 1, older_let_go_first: 2, always_continues: 1, place_is_not_checked: 1, torn_chunks: 2,
    old_versions_from_main: 1, data_before_manifest: 10, half_a_transaction: 6, parts_are_not_rewound: 2,
    main_trusted_at_once: 2, tip_before_spool: 3,
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.__name__)
def test_a_mutation_is_found(scratch: str, monkeypatch: Patch, mutation: Callable[[Patch], None]) -> None:
    """By an invariant, by what is restored, or since nothing comes to rest any more."""
    mutation(monkeypatch)

    assert any(fails(seed, scratch) for seed in range(MUTATIONS[mutation], MUTATIONS[mutation] + SEEDS_MAX))


def fails(seed: int, folder: str) -> bool:
    try:
        live(seed, folder)
    except Exception:
        return True
    return False
