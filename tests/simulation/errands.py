"""What an application does beside its agent, one errand after the other, several at a time; and what it knows of its
commits when it comes back after a crash."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import apsw

from tests.simulation.application import Application, History
from tests.simulation.fibers import InTurns
from tests.simulation.kernel import APPLICATION, Killed
from tests.simulation.world import World

ERRANDS_MAX = 3


class Errands:
    """Of one life. ``sync_fails``: how likely its disk fails it at a sync."""

    def __init__(
        self,
        rng: random.Random,
        turns: InTurns,
        history: History,
        happens: Callable[[str], None],
        *,
        seed: int,
    ) -> None:
        self._rng = rng
        self._turns = turns
        self._history = history
        self._happens = happens
        self._seed = seed
        self._world: World
        self.app: Application
        self.sync_fails = 0.0
        self._writing = False
        # Whether a commit frame may lie in the file that nobody was told of: found after a crash, it is a commit.
        self._in_flight = False
        self._autocheckpoint = self._commits_to_checkpoint = 0

    def begin_one(self) -> None:
        if self._turns.under_way(APPLICATION) < ERRANDS_MAX:
            name, errand = self._rng.choice(self._errands())
            self._turns.spawn(name, lambda: self._do(name, errand))

    def synced(self) -> None:
        """Before each sync."""
        if self._rng.random() < self.sync_fails:
            self._happens("a sync of the application fails")
            self._in_flight = True
            raise apsw.IOError("its disk is bad")

    # --- it comes and goes -----------------------------------------------------------------------------

    def open(self, world: World) -> None:
        """As after a crash, of it or of the machine: a commit that was under way may have become one."""
        self._world = world
        self._writing = False
        self.app = Application(world.database, world.kernel, self._history, seed=self._seed)
        if self._history.newest < 0:
            self.app.create(self._rng.choice((5, 40)))
            return
        found = self.app.look()
        number = self._history.number_of(found.digest)
        assert number is not None or self._in_flight, "the database itself is as it never was"
        if number is None:
            self._in_flight = False
        if number != self._history.newest:
            self._history.add(found)

    def about_to_end(self) -> None:
        """Whoever is just writing may have written a commit."""
        self._in_flight = self._in_flight or self._writing

    def crash(self) -> None:
        """Its process is killed, in the midst of whatever it does."""
        kernel, newest = self._world.kernel, self._history.newest
        self.about_to_end()
        kernel.crashed = True
        self._turns.kill(APPLICATION)
        kernel.crashed = False
        self.sync_fails = 0.0
        self.app.close(clean=False)
        self._happens("a crash of the application")
        self.open(self._world)
        assert self._history.newest <= newest + 1, "the database lost commits without a power cut"

    def end(self) -> None:
        """What was begun is done."""
        self.sync_fails = 0.0
        self._turns.wait_until(lambda: not self._turns.under_way(APPLICATION), 600)

    # --- errands ---------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        self.sync_fails = 0.0
        self.app.close(clean=self._rng.random() < 0.7)
        while True:
            with contextlib.suppress(apsw.BusyError):
                self.app.main = self.app.connect()
                return
            self._turns.sleep(0.01)

    def _do(self, name: str, errand: Callable[[], object]) -> None:
        try:
            errand()
            self._happens(name)
        except (apsw.BusyError, apsw.LockedError):
            self._happens("an errand met a lock")
        except apsw.IOError:
            pass

    def _errands(self) -> list[tuple[str, Callable[[], object]]]:
        app = self.app
        return [
            ("a commit", self._writer(app.write)),
            ("an update", self._writer(app.update)),
            ("some commits", self._writer(lambda: app.write(3))),
            ("large commits", self._writer(lambda: app.write(2, size=700))),
            ("a bulk load", self._writer(lambda: app.write_much(self._rng.choice((4, 20))))),
            ("a deletion", self._writer(self._delete)),
            ("a rollback", self._writer(self._rollback)),
            ("a VACUUM", self._writer(lambda: app.change("VACUUM"))),
            ("other settings", self._writer(self._settings)),
            ("a restart of the application", self._writer(self._reopen)),
            *((f"a {mode} checkpoint", lambda mode=mode: self._checkpoint(mode)) for mode in
              ("PASSIVE", "FULL", "RESTART", "TRUNCATE")),
            ("a reader", self._read),
        ]  # fmt: skip

    def _writer(self, work: Callable[[], object]) -> Callable[[], None]:
        """One at a time, so that it is known which commit is which."""

        def write() -> None:
            if self._writing:
                return
            self._writing = True
            known = self._history.newest
            try:
                work()
                if self._history.newest > known:
                    self._in_flight = False  # it was written over
                self._commits_to_checkpoint -= 1
                if self._autocheckpoint and self._commits_to_checkpoint <= 0:
                    # SQLite would do it within the commit, before anybody could say which commit it was.
                    self._commits_to_checkpoint = self._autocheckpoint
                    self.app.checkpoint("PASSIVE")
            except BaseException:
                with contextlib.suppress(apsw.Error, Killed):
                    if self.app.main.in_transaction:
                        self.app.execute("ROLLBACK")
                raise
            finally:
                self._writing = False

        return write

    def _delete(self) -> None:
        self.app.commit(lambda: self.app.execute("DELETE FROM t WHERE id > 30 AND id % 2"))

    def _rollback(self) -> None:
        app = self.app
        app.execute("BEGIN IMMEDIATE")
        for _ in range(self._rng.choice((1, 40))):
            app.insert(600)
        app.execute("ROLLBACK")

    def _settings(self) -> None:
        app, rng = self.app, self._rng
        self.sync_fails = rng.choice((0.0, 0.0, 0.05))
        app.execute(f"PRAGMA synchronous={rng.choice(('FULL', 'NORMAL'))}")
        app.execute(f"PRAGMA cache_size={rng.choice((2, 2000))}")
        app.execute(f"PRAGMA journal_size_limit={rng.choice((-1, 0, 20_000))}")
        self._autocheckpoint = rng.choice((0, 0, 1, 4))

    def _checkpoint(self, mode: str) -> None:
        with self._connection() as connection:
            if not self.app.checkpoint(mode, connection):
                self._happens("a checkpoint met a lock")

    def _read(self) -> None:
        with self._connection() as connection:
            connection.execute("BEGIN").fetchall()
            connection.execute("SELECT count(*) FROM t").fetchall()
            self._turns.sleep(self._rng.choice((0.0, 0.1, 5.0)))
            connection.execute("ROLLBACK").fetchall()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        """One more, which leaves the log alone when it closes."""
        connection = apsw.Connection(self._world.database)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.wal_autocheckpoint(0)
            yield connection
        finally:
            with contextlib.suppress(apsw.Error, Killed):
                connection.close(True)
