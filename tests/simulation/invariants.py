"""The invariants of docs/ARCHITECTURE.md that can be seen from outside between any two steps of an agent.

Read are the marks, the spool, the disk's model and the database; of the parts only what they hold. What a store is
given is looked at in weather.py, what comes out of it in judge.py.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import apsw

from replicator.capture.place import FIRST_RUN
from replicator.core.position import GenerationId
from replicator.core.unit import parse_unit_header
from replicator.core.wal import HEADER_SIZE, parse_header
from replicator.follower import Follower
from replicator.marks import Snapshot
from replicator.spool import Place
from tests.simulation.disk import File
from tests.simulation.kernel import JUDGE
from tests.simulation.world import World


@dataclass(slots=True)
class Watch:
    """Over one life, whatever agents there are in it. ``excuse``: why a new generation may begin; the log was restarted
    while nobody held it, say."""

    excuse: str = FIRST_RUN
    checks: int = 0
    generations: int = 0
    follows: bool = False
    _captured: dict[GenerationId, int] = field(default_factory=dict)
    _shipped: dict[tuple[str, GenerationId], int] = field(default_factory=dict)
    _generation: GenerationId | None = None
    _end: Place | None = None
    _let_go: bool = False
    _restarted: bool = False
    _conn: apsw.Connection | None = None

    def lost_sight(self) -> None:
        """The agent is gone; what is durable is looked up anew."""
        self._end, self.follows, self._let_go = None, False, False
        if self._restarted:
            self._restarted = False
            self.excuse = "the log was restarted just before"
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def allow(self, why: str) -> None:
        """A new generation, if nobody of ours holds the log just now."""
        if not self.follows and not self._let_go:
            self.excuse = why

    def ends(self, world: World) -> None:
        """The agent is about to go. A log that was just restarted under its mark in slot 0 cannot be told from one that
        was restarted later, until something of it is captured."""
        follow = world.follower._follow if world.follower is not None else None
        if follow is None or follow.capture is None or self._conn is None:
            return
        with world.kernel.acting(JUDGE):
            seen = self._observe(world.database)
        cursor = follow.capture._cursor
        self._restarted = seen is not None and (not cursor.frames or seen[0] != cursor.salt)

    def power_cut(self) -> None:
        """What was not synced is gone: of the database, and with it what was captured of it."""
        self.lost_sight()
        self.excuse = "the power was cut"

    def look(self, world: World) -> None:
        """After any step. Raises AssertionError."""
        follower = world.follower
        if follower is None or world.kernel.dead:
            return
        self.checks += 1
        marks = follower.marks.snapshot()
        self._marks(world, marks)
        self._spooled(world, follower)
        self._generations(follower)
        self._held(world, follower)

    # --- 1 ---------------------------------------------------------------------------------------------

    def _marks(self, world: World, marks: Snapshot) -> None:
        """Shipped is not ahead of captured, and neither goes back within a generation."""
        captured = marks.source.captured
        if captured is not None:
            before = self._captured.get(captured.generation, 0)
            assert captured.txid >= before, f"captured went back from {before} to {captured}"
            self._captured[captured.generation] = captured.txid
        for each in marks.stores.values():
            if each.shipped is None:
                continue
            key = each.url, each.shipped.generation
            before = self._shipped.get(key, 0)
            assert each.shipped.txid >= before, f"shipped went back from {before} to {each.shipped}"
            self._shipped[key] = each.shipped.txid
            same = captured is not None and captured.generation == each.shipped.generation
            assert not same or each.shipped <= captured, f"{each.shipped} was shipped, {captured} captured"
        surprises = [each.message for each in marks.errors if each.message.startswith("internal error")]
        assert not surprises, surprises

    def _spooled(self, world: World, follower: Follower) -> None:
        """Captured is not ahead of committed, and durable."""
        end = follower._spool.end
        if end == self._end or follower._spool._lock.locked():
            return
        self._end = end
        unit = follower._spool.last_unit()
        if unit is None:
            return
        header = parse_unit_header(unit)
        world.history.number_of_end(tuple(header.cursor.checksum))  # no commit of the application otherwise
        file = world.kernel.disk.find(f"state/spool/{end.number:08d}.units")
        assert isinstance(file, File)
        durable = file.synced()[: end.offset] == file.content()[: end.offset]
        assert durable, "what is captured is not synced"
        folder = world.kernel.disk.folder("state/spool")
        assert any(each is file for each in folder.durable.values()), "the spool's name is not synced"

    # --- 2 ---------------------------------------------------------------------------------------------

    def _held(self, world: World, follower: Follower) -> None:
        """While following, a read transaction is held, and nothing that was not captured is moved or written over."""
        follow = follower._follow
        capture = follow.capture if follow is not None else None
        if follow is None or capture is None or capture._closed or follow.database._observer is None:
            # It let go by itself: what happens now is no excuse.
            self._let_go = self._let_go or (self.follows and not follower._finished)
            self.follows = False
            return
        if not self.follows:
            self.follows, self._let_go = True, False
            self.excuse = ""
        with contextlib.suppress(apsw.ThreadingViolationError):  # one is in the midst of something
            readers = [each for each in follow.database._readers if each is not None]
            assert any(each.in_transaction for each in readers), "no read transaction is held"
        with world.kernel.acting(JUDGE):
            seen = self._observe(world.database)
        if seen is None:
            return
        salt, frames, backfilled = seen
        cursor, mark = capture._cursor, capture._mark
        if frames and cursor.frames and salt == cursor.salt:
            bound = max(cursor.frames, mark.frames if mark.zero else 0)
            assert backfilled <= bound, f"{backfilled} frames were moved, {cursor.frames} are captured"

    def _observe(self, path: str) -> tuple[object, int, int] | None:
        if self._conn is None:
            self._conn = apsw.Connection(path, vfs="unix")
            self._conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._conn.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        try:
            frames, backfilled = self._conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        except apsw.BusyError:
            return None
        whole, data = self._conn.read("main", 1, 0, HEADER_SIZE)
        header = parse_header(data) if whole else None
        return (header.salt, frames, backfilled) if header is not None and frames > 0 else None

    # --- 5 ---------------------------------------------------------------------------------------------

    def _generations(self, follower: Follower) -> None:
        """A new generation has a reason, and it is not ours."""
        running = follower.state.generation
        found = running.record.generation if running is not None else None
        if found is None or found == self._generation:
            return
        assert running is not None
        self._generation = found
        self.generations += 1
        assert self.excuse, f"a generation began without need: {running.record.reason}"
