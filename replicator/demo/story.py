"""The whole story on local files: live work, a crash, a restore, a mistake, the moment before it.

Every claim is proved as it is told, and a proof that fails ends the story with ``StoryFailed``. The
application, the agent, every restore and every look into a database are processes of their own; this one
opens no database.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from replicator.core.times import format_time
from replicator.core.wal import FRAME_HEADER_SIZE
from replicator.repository import Repository, read_repository
from replicator.store import connect

LIVE_SECONDS = 4.0
AFTER_SECONDS = 1.5
RATE = 100
# A commit that was acknowledged this long before the crash has to be in the store: twenty times what the
# agent takes when it has the machine for itself.
LOSS_SECONDS = 1.0
START_SECONDS = 20.0

Tell = Callable[[str], None]


class StoryFailed(Exception):
    """A proof failed, or a process did what it should not; says which."""


@dataclass(frozen=True, slots=True)
class Ack:
    """A commit as the application was promised it: its number in the ledger, and when (microseconds)."""

    counter: int
    at: int


class Application:
    """The writer as a process; ``acks`` grows while it works."""

    def __init__(self, database: Path) -> None:
        arguments = ["-m", "replicator.demo.writer", str(database), "--rate", str(RATE)]
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, env=_environment(), text=True
        )
        self.acks: list[Ack] = []
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            words = line.split()
            if line.endswith("\n") and len(words) == 2:  # a killed writer may leave half a line
                self.acks.append(Ack(int(words[0]), int(words[1])))

    def end(self, number: signal.Signals) -> list[Ack]:
        """Send a signal, wait for the end, and return every commit that was acknowledged."""
        self.process.send_signal(number)
        self.process.wait(START_SECONDS)
        self._reader.join(START_SECONDS)
        return self.acks


class Story:
    """One telling in one folder. ``tell`` gets each line."""

    def __init__(self, folder: Path, tell: Tell) -> None:
        self.folder = folder
        self.tell = tell
        self.database = folder / "board.db"
        self.store = folder / "backups"
        self._restores: list[float] = []

    def run(self) -> None:
        """About fifteen seconds. Raises StoryFailed."""
        self._crash()
        generation = self._continuity()
        self._mistake(generation)
        self._sum()

    # --- the chapters ----------------------------------------------------------------------------------

    def _crash(self) -> None:
        """Work, both killed in the middle, restore."""
        self.tell("1. An application works on a board, and an agent replicates it.")
        application = Application(self.database)
        try:
            self._until(lambda: bool(application.acks), "the application commits")
            with self._agent() as agent:
                self._until(lambda: bool(self._fulls()), "the first full backup is complete")
                self.tell(f"   first full backup: {_size(sum(_sizes(self.store / 'full')))}")
                time.sleep(LIVE_SECONDS)
                self.tell(f"   {len(application.acks)} commits, {len(self._segments())} live segments so far")
                self.tell("2. Both processes are killed in the middle of it (SIGKILL).")
                agent.send_signal(signal.SIGKILL)
                acks = application.end(signal.SIGKILL)
        finally:
            application.process.kill()
        if len(acks) < LIVE_SECONDS * RATE / 4:
            raise StoryFailed(f"the application made only {len(acks)} commits beside the agent")
        self.tell("3. The database is restored from the store alone, to a new file.")
        restored = self._restore("after-crash.db")
        found = _ask("look", Path(restored["path"]))
        self._prove(found["integrity"] == "ok", "SQLite finds the restored database sound")
        counter = int(found["counter"])
        self._prove_loss(acks, counter)
        # Only this application commits, so a commit's txid and its number differ by what was there before.
        self._tell_lag(acks, int(restored["position"].partition("/")[2], 16) - counter)
        source = _ask("look", self.database)
        # One more may be there: killed between the commit and the word of it, and before it was captured.
        if source["counter"] == counter:
            same = source["digest"] == found["digest"]
            self._prove(same, "nothing was lost, and every page equals the source")

    def _prove_loss(self, acks: list[Ack], counter: int) -> None:
        """Lost may be what was acknowledged in the last moment, and nothing else; said is how much it was."""
        lost = [ack for ack in acks if ack.counter > counter]
        span = (acks[-1].at - lost[0].at) / 1e6 if lost else 0.0
        claim = f"{acks[-1].counter} commits were acknowledged, {counter} are restored"
        if lost:
            claim += (
                f": lost are {len(lost)} of the last {max(span * 1000, 1):.0f} ms; the restart brings them"
            )
        # One more may be there than was acknowledged: killed between the commit and the word of it.
        self._prove(span < LOSS_SECONDS and counter <= acks[-1].counter + 1, claim)

    def _continuity(self) -> str:
        """A new agent goes on where the killed one was; the rest arrives."""
        self.tell("4. The agent is started again: it goes on where it was.")
        generations, fulls = self._generations(), self._fulls()
        _replicator("replicate", self.database, self.store, "--once")
        self._prove(
            self._generations() == generations and self._fulls() == fulls,
            "same generation, no new full backup: nothing was in doubt",
        )
        restored = self._restore("after-restart.db")
        same = _ask("look", Path(restored["path"]))["digest"] == _ask("look", self.database)["digest"]
        self._prove(same, "restored again, every page equals the source, to its last commit")
        return str(restored["position"].partition("/")[0])

    def _mistake(self, generation: str) -> None:
        """Work goes on, somebody deletes what they should not, and work goes on again."""
        self.tell("5. Work goes on, until somebody deletes half of the tasks by mistake.")
        with self._agent():
            # The application waits for its agent: what nobody saw may begin a new generation.
            self._until(self._following, "the agent follows")
            self._work()
            before = _ask("look", self.database)
            time.sleep(0.05)
            moment = format_time(time.time_ns() // 1000)
            time.sleep(0.05)
            deleted = _ask("mistake", self.database)["deleted"]
            self._work()
            after = _ask("look", self.database)
            self._until(self._caught_up, "all of it is shipped")
        self.tell(f"   tasks before the mistake {before['tasks']}, deleted {deleted}, later {after['tasks']}")
        self._prove(deleted > 0 and after["tasks"] < before["tasks"], "the mistake is in the source")
        self.tell(f"6. The database is restored to the moment before it, {moment}.")
        restored = self._restore("before-mistake.db", "--timestamp", moment)
        found = _ask("look", Path(restored["path"]))
        self._prove(found["tasks"] == before["tasks"], f"{found['tasks']} tasks are there again")
        self._prove(found["digest"] == before["digest"], "every page equals the source of that moment")
        self._prove(self._generations() == [generation], "and all of it is one generation")

    def _work(self) -> None:
        application = Application(self.database)
        try:
            self._until(lambda: len(application.acks) > 0, "the application commits")
            time.sleep(AFTER_SECONDS)
            application.end(signal.SIGTERM)
        finally:
            application.process.kill()

    def _sum(self) -> None:
        repository = self._repository()
        written = shipped = commits = 0
        for listing in repository.catalogue.generations:
            for name in listing.carriers:
                shipped += repository.catalogue.sizes[str(name)]
                for unit in repository.carried(name).units():
                    frame = unit.header.page_size + FRAME_HEADER_SIZE
                    written += sum(len(entry.pgnos) for entry in unit.entries) * frame
                    commits += sum(entry.span for entry in unit.entries)
        self.tell("In sum:")
        self.tell(
            f"   {commits} commits wrote {_size(written)} to the log; {_size(shipped)} were shipped, "
            f"{written / max(shipped, 1):.0f} times less"
        )
        took = ", ".join(f"{seconds:.2f}" for seconds in self._restores)
        self.tell(f"   {len(self._restores)} restores of {_size(self.database.stat().st_size)}: {took} s")

    # --- means -----------------------------------------------------------------------------------------

    def _prove(self, holds: bool, claim: str) -> None:
        if not holds:
            raise StoryFailed(f"NOT proved: {claim}")
        self.tell(f"   proved: {claim}")

    @contextmanager
    def _agent(self) -> Iterator[subprocess.Popen[bytes]]:
        """An agent as a process, stopped at the end if it still runs; it must not have failed."""
        with (self.folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                _command("replicate", self.database, self.store), stderr=log, env=_environment()
            )
        try:
            yield process
        finally:
            process.terminate()
            code = process.wait(START_SECONDS)
        if code not in (0, -signal.SIGKILL):
            raise StoryFailed(f"the agent ended with {code}; see {self.folder / 'agent.log'}")

    def _restore(self, name: str, *options: str) -> dict[str, Any]:
        answer = _replicator("restore", self.store, "-o", self.folder / name, "--json", *options)
        restored: dict[str, Any] = json.loads(answer)
        self._restores.append(restored["seconds"])
        self.tell(
            f"   {name}: {restored['position']}, committed {restored['committed']}, "
            f"{restored['transactions']} transactions applied in {restored['seconds']:.2f} s"
        )
        return restored

    def _following(self) -> bool:
        found = json.loads(_replicator("status", self.database, "--json"))
        return bool(found["running"] and found["source"]["phase"] == "following")

    def _caught_up(self) -> bool:
        found = json.loads(_replicator("status", self.database, "--json"))
        return bool(found["lag_seconds"] == 0.0 and found["source"]["pending_frames"] == 0)

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise StoryFailed(f"waited {START_SECONDS:.0f} s in vain until {what}")
            time.sleep(0.02)

    def _tell_lag(self, acks: list[Ack], offset: int) -> None:
        """From the acknowledgement of a commit to the moment its segment was whole in the store."""
        acknowledged = {ack.counter + offset: ack.at for ack in acks}
        repository = self._repository()
        lags: list[float] = []
        for name in repository.catalogue.generations[-1].segments:
            # The last change to the file is the loss of its temporary name, after it was synced.
            stored = (self.store / str(name)).stat().st_ctime_ns // 1000
            for unit in repository.carried(name).units():
                for txid in range(unit.header.txid_first, unit.header.txid_last + 1):
                    if txid in acknowledged:
                        lags.append(max(0, stored - acknowledged[txid]) / 1000)
        lags.sort()
        if lags:
            self.tell(
                f"   lag from acknowledged to stored: median {lags[len(lags) // 2]:.0f} ms, "
                f"99 of 100 within {lags[len(lags) * 99 // 100]:.0f} ms"
            )

    def _repository(self) -> Repository:
        return read_repository(connect(str(self.store)))

    def _generations(self) -> list[str]:
        return [str(each.generation) for each in self._repository().catalogue.generations]

    def _fulls(self) -> list[Path]:
        return sorted((self.store / "full").rglob("*.full"))

    def _segments(self) -> list[Path]:
        return sorted((self.store / "tail").rglob("*.segment"))


def _environment() -> dict[str, str]:
    """For a child that has to find this package, also where it runs from a checkout."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "replicator", *map(str, arguments)]


def _replicator(*arguments: object) -> str:
    """Run the command line to its end and return what it printed."""
    done = subprocess.run(
        _command(*arguments), env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        words = " ".join(map(str, arguments))
        raise StoryFailed(f"`replicator {words}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _ask(question: str, database: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "replicator.demo.ask", question, str(database)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StoryFailed(f"{question} {database.name}: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1024:,.0f} KiB"
