"""SQLite's write-ahead log as other processes can see it: the file, the wal-index, the read marks, the locks.

One step is one operation on shared memory, on a lock or on a file that somebody else can come between. Operations
are one step together where nothing that comes between them could be told from something before or after:

- A read transaction begins (`walTryBeginRead`): it is taken back if header or mark have changed since they were read,
  so it is as if all of it happened at the end; or, where the last frames were moved meanwhile, at the beginning.
- A lock is taken and then what it guards is done; marks that are not below the last safe frame are passed by at once,
  since they never fall in the same log; a slot is let go of and another taken by a writer that nobody can disturb.

A page is its number and a version: the number of the attempt that wrote it. Version 0 is what was there at first.
Sources: `src/wal.c`, walformat.html; the model is held against real SQLite by test_conformance.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar

NOT_USED = 99
"""A read mark that no reader takes: greater than every frame number."""
CUT_OFF = -1
"""The version of a page that the main file does not reach to."""


Of = TypeVar("Of", bound=tuple[Any, ...])


@cache
def _places(kind: type[Any]) -> dict[str, int]:
    return {name: place for place, name in enumerate(kind._fields)}


def but(it: Of, **changes: Any) -> Of:
    """As ``NamedTuple._replace``, in a third of the time: that is where an exploration spends most of it."""
    values, places = list(it), _places(type(it))
    for name, value in changes.items():
        values[places[name]] = value
    return tuple.__new__(type(it), values)


class Frame(NamedTuple):
    """``part``: which of its attempt; ``size``: of the database in pages where this is a commit frame, else 0."""

    salt: int
    page: int
    version: int
    part: int
    size: int


class Commit(NamedTuple):
    """``end``: the number of frames of its log once it was committed."""

    version: int
    pages: tuple[int, ...]
    size: int
    salt: int
    end: int

    @property
    def frames(self) -> tuple[Frame, ...]:
        return frames_of(Write(self.pages, self.size), self.salt, self.version)


class Write(NamedTuple):
    """A transaction: the pages it writes and the size of the database after it."""

    pages: tuple[int, ...]
    size: int


@cache
def frames_of(write: Write, salt: int, version: int) -> tuple[Frame, ...]:
    last = len(write.pages) - 1
    return tuple(
        Frame(salt, page, version, part, write.size if part == last else 0)
        for part, page in enumerate(write.pages)
    )


class Connection(NamedTuple):
    """One of the application's. ``header``: salt and frames as its read transaction began, while they are still the
    same; ``sees``: the number of commits then, of one that only reads, and ``log`` the frames it reads."""

    at: str = "idle"
    slot: int = -1
    header: tuple[int, int] | None = None
    sees: int = 0
    log: tuple[int, int] = (0, 0)
    wrote: Write | None = None

    but = but


IDLE = Connection()


class Checkpoint(NamedTuple):
    """The one that holds the checkpoint lock. ``frames``, ``salt``, ``size``: the header as it has read it;
    ``patient``: it waits for locks; ``writing``: it keeps writers out; ``place``: the slot or page it is at;
    ``asking``: it has read the slot's ``mark`` and goes for its lock; ``excused``: it may wait until its time is up,
    for the slot was free when its mark was read, or a reader of the application's is or was in it."""

    at: str
    mode: str
    ours: bool = False
    patient: bool = False
    writing: bool = False
    frames: int = 0
    salt: int = 0
    size: int = 0
    safe: int = 0
    place: int = 0
    asking: bool = False
    mark: int = 0
    excused: bool = False

    but = but


class Left(NamedTuple):
    """How often it may still happen, so that there is an end."""

    attempts: int
    rollbacks: int = 0
    kills: int = 0
    crashes: int = 0
    departures: int = 0
    power: int = 0

    but = but


class State(NamedTuple):
    """``head``: the salt in the header of the file, 0 without any; ``salt``, ``frames``, ``size``,
    ``backfilled``, ``marks``: the wal-index; ``locks``: of each slot the number of readers, or -1 where one
    keeps all others out. ``forked``: a power failure took a commit away after it was captured."""

    head: int
    file: tuple[Frame, ...]
    salt: int
    frames: int
    size: int
    backfilled: int
    marks: tuple[int, ...]
    locks: tuple[int, ...]
    writing: bool
    main: tuple[int, ...]
    commits: tuple[Commit, ...]
    salts: int
    attempts: int
    connections: tuple[Connection, ...]
    checkpoint: Checkpoint | None
    left: Left
    agent: Any
    forked: bool = False

    but = but


Step = tuple[str, State]


def at_first(pages: int, slots: int, writes: Sequence[Write], connections: int, left: Left) -> State:
    """A database with *writes* committed to its log, none of them in the main file, which is all version 0."""
    state = State(
        head=0, file=(), salt=1, frames=0, size=pages, backfilled=0,
        marks=(0, *(NOT_USED for _ in range(slots))), locks=(0,) * (slots + 1),
        writing=False, main=(0,) * pages, commits=(), salts=1, attempts=0,
        connections=(IDLE,) * connections, checkpoint=None, left=left, agent=None,
    )  # fmt: skip
    for write in writes:
        state = publish(append(state, write), write)
    return state


# --- content: what a reader of a commit sees


@cache
def content(commits: tuple[Commit, ...]) -> tuple[int, ...]:
    """The version of each page after *commits*; its length is the size of the database."""
    if not commits:
        raise ValueError("the first commit is there at first")
    versions: dict[int, int] = {}
    for commit in commits:
        versions.update(dict.fromkeys(commit.pages, commit.version))
    return tuple(versions.get(page, 0) for page in range(1, commits[-1].size + 1))


@cache
def newest(file: tuple[Frame, ...], frames: int) -> dict[int, int]:
    """By page, the index of its last frame among the first *frames*."""
    return {frame.page: index for index, frame in enumerate(file[:frames])}


def page_in(file: Sequence[Frame], index: int, page: int) -> int | None:
    """The version that frame *index* holds, None where it is another page's or there is no such frame."""
    return file[index].version if index < len(file) and file[index].page == page else None


# --- locks


def put(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])


def let_go(state: State, slot: int) -> State:
    return state.but(locks=put(state.locks, slot, state.locks[slot] - 1)) if slot >= 0 else state


def nobody_uses_the_log(state: State) -> bool:
    return not any(state.locks[1:])


def keep_readers_out(locks: tuple[int, ...]) -> tuple[int, ...]:
    return (locks[0], *(-1 for _ in locks[1:]))


def let_readers_in(locks: tuple[int, ...]) -> tuple[int, ...]:
    return (locks[0], *(0 for _ in locks[1:]))


# --- reading: walTryBeginRead


def begin(state: State, *, log: bool = False) -> tuple[State, int] | None:
    """A slot for a read transaction; None while there is none. *log*: a writer's, which never does without the
    log."""
    locks, marks = state.locks, state.marks
    if state.backfilled == state.frames and not log and locks[0] >= 0:
        return state.but(locks=put(locks, 0, locks[0] + 1)), 0
    chosen, mark = 0, 0
    for slot in range(1, len(marks)):
        if mark <= marks[slot] <= state.frames:
            chosen, mark = slot, marks[slot]
    if mark < state.frames or not chosen:
        for slot in range(1, len(marks)):
            if locks[slot] == 0:
                chosen, marks = slot, put(marks, slot, state.frames)
                break
    if not chosen or locks[chosen] < 0:
        return None
    return state.but(marks=marks, locks=put(locks, chosen, locks[chosen] + 1)), chosen


# --- writing: sqlite3WalFrames, walRestartLog


def append(state: State, write: Write, *, fresh: bool = False) -> State:
    """All frames of one attempt, behind what is committed; with the header first in a log that has none yet.
    *fresh*: by a connection that has never restarted a log, and draws new salts for its header. That is as good as
    the other where neither is in the file, and none of them will be left there."""
    attempt = state.attempts + 1
    salt = state.salts + 1 if fresh else state.salt
    frames = frames_of(write, salt, attempt)
    file = state.file[: state.frames] + frames + state.file[state.frames + len(frames) :]
    head = state.head if state.frames else salt
    return state.but(file=file, head=head, salts=max(salt, state.salts), attempts=attempt)


def publish(state: State, write: Write) -> State:
    end, salt = state.frames + len(write.pages), state.file[state.frames].salt
    commit = Commit(state.attempts, write.pages, write.size, salt, end)
    return state.but(salt=salt, frames=end, size=write.size, commits=(*state.commits, commit))


def new_header(state: State) -> State:
    """The first half of walRestartHdr: the header says that no frame is valid, and has the next salt."""
    return state.but(salt=state.salts + 1, salts=state.salts + 1, frames=0)


def new_marks(state: State) -> State:
    """The second half."""
    unused = (NOT_USED,) * (len(state.marks) - 2)
    return state.but(backfilled=0, marks=(0, 0, *unused), locks=let_readers_in(state.locks))


def recovered(state: State) -> State:
    """walIndexRecover, by the first to come after all have died: every whole transaction in the file that follows
    its predecessor is committed, and none of it counts as moved."""
    commits, known = state.commits, {commit.version for commit in state.commits}
    frames, size = 0, state.size
    for index, frame in enumerate(state.file):
        if frame.salt != state.head or frame.part != (
            state.file[index - 1].part + 1 if index > frames else 0
        ):
            break
        if frame.size:
            if frame.version not in known:
                pages = tuple(each.page for each in state.file[frames : index + 1])
                commits = (*commits, Commit(frame.version, pages, frame.size, frame.salt, index + 1))
            frames, size = index + 1, frame.size
    unused = (NOT_USED,) * (len(state.marks) - 2)
    return state.but(
        salt=state.head or state.salt, frames=frames, size=size, commits=commits, backfilled=0,
        marks=(0, frames or NOT_USED, *unused), locks=(0,) * len(state.locks), writing=False,
        checkpoint=None, connections=(IDLE,) * len(state.connections),
    )  # fmt: skip


def powerless(state: State) -> State:
    """The last commit had not reached the disk."""
    last = state.commits[-1]
    kept = state.frames - len(last.pages)
    return recovered(state.but(file=state.file[:kept], frames=kept, commits=state.commits[:-1]))


def closed_by_the_last(state: State) -> State:
    """Nobody has the database open any more: all of the log is moved, and the log deleted."""
    main = content(state.commits) + (CUT_OFF,) * (len(state.main) - state.size)
    unused = (NOT_USED,) * (len(state.marks) - 1)
    return state.but(
        head=0, file=(), salt=state.salts + 1, salts=state.salts + 1, frames=0, backfilled=0, main=main,
        marks=(0, *unused),
    )  # fmt: skip


@dataclass(frozen=True)
class Application:
    """What others than the agent may do. ``writes``: the transactions there are; ``modes``: the checkpoints;
    ``readers``: how many of the connections only read."""

    writes: tuple[Write, ...]
    modes: tuple[str, ...] = ("PASSIVE",)
    readers: int = 0
    patient: bool = True

    def steps(self, state: State) -> Iterator[Step]:
        for number, connection in enumerate(state.connections):
            for name, after, changed in self.of_connection(state, connection, number < self.readers):
                connections = (
                    *state.connections[:number], changed, *state.connections[number + 1 :]
                )  # fmt: skip
                who = "reader" if number < self.readers else "writer"
                yield f"{who} {name}", after.but(connections=connections)
        if state.checkpoint is None:
            for mode in self.modes:
                yield from start_checkpoint(state, mode, patient=self.patient and mode != "PASSIVE")
        elif not state.checkpoint.ours:
            yield from checkpoint_steps(state, state.checkpoint)
            if state.left.kills and can_be_killed(state.checkpoint):
                left = state.left.but(kills=state.left.kills - 1)
                yield "checkpoint: killed", ended(state.but(left=left))

    # --- connections

    def of_connection(
        self, state: State, it: Connection, reads_only: bool
    ) -> Iterator[tuple[str, State, Connection]]:
        if it.at == "idle":
            begun = begin(state) if reads_only or state.left.attempts else None
            if begun is not None:
                after, slot = taken_anew(begun[0], begun[1]), begun[1]
                header = (state.salt, state.frames)
                if reads_only:
                    yield (
                        f"holds slot {slot}", after,
                        it.but(at="reads", slot=slot, sees=len(state.commits), log=header),
                    )  # fmt: skip
                else:
                    yield f"holds slot {slot}", after, it.but(at="reads", slot=slot, header=header)
        elif it.at == "reads":
            yield "ends", let_go(state, it.slot), IDLE
            unchanged = it.header == (state.salt, state.frames)
            if not reads_only and unchanged and not state.writing and state.left.attempts:
                yield from self.of_writer(state.but(writing=True), it.but(at="writes", header=None))
        else:
            yield from self.of_writer(state, it)

    def of_writer(self, state: State, it: Connection) -> Iterator[tuple[str, State, Connection]]:
        if it.at == "writes":
            if state.left.rollbacks and it.slot:
                left = state.left.but(rollbacks=state.left.rollbacks - 1)
                yield "writes nothing", let_go(state.but(writing=False, left=left), it.slot), IDLE
            if it.slot:
                yield from self.appends(state, it)
            elif state.backfilled and nobody_uses_the_log(state):
                after = new_header(state.but(locks=keep_readers_out(state.locks)))
                yield "restarts the log: header", after, it.but(at="restarts")
            else:
                begun = begin(let_go(state, 0), log=True)
                if begun is not None:
                    yield from self.appends(begun[0], it.but(slot=begun[1]))
        elif it.at == "restarts":
            begun = begin(let_go(new_marks(state), 0), log=True)
            assert begun is not None
            yield "restarts the log: counts", begun[0], it.but(at="writes", slot=begun[1])
        elif it.at == "written":
            assert it.wrote is not None
            over = let_go(state.but(writing=False), it.slot)
            yield "commits", publish(over, it.wrote), IDLE
            if state.left.rollbacks:
                left = state.left.but(rollbacks=state.left.rollbacks - 1)
                yield "rolls back, or is killed", over.but(left=left), IDLE

    def appends(self, state: State, it: Connection) -> Iterator[tuple[str, State, Connection]]:
        left = state.left.but(attempts=state.left.attempts - 1)
        for write in self.writes:
            grown = range(state.size + 1, write.size + 1)
            if all(page in write.pages for page in grown) and write.pages[-1] <= max(write.size, state.size):
                pages = "+".join(map(str, write.pages))
                name = f"appends {pages}" + (f", size {write.size}" if write.size != state.size else "")
                written, name = it.but(at="written", wrote=write), f"{name} in slot {it.slot}"
                yield name, append(state.but(left=left), write), written
                if not state.frames and (state.left.rollbacks or state.head == state.salt):
                    yield f"{name}, new salts", append(state.but(left=left), write, fresh=True), written


def taken_anew(state: State, slot: int) -> State:
    """If a checkpoint waits for this very slot, it is no longer the agent alone that it waits for."""
    it = state.checkpoint
    if it is None or not it.asking or it.place != slot:
        return state
    return state.but(checkpoint=it.but(excused=True))


def start_checkpoint(state: State, mode: str, *, patient: bool = False, ours: bool = False) -> Iterator[Step]:
    """Takes the checkpoint lock; whoever else wants it is told that it is busy, and nothing changes."""
    it = Checkpoint("lock", mode, ours=ours, patient=patient)
    if mode == "PASSIVE":
        yield from checkpoint_steps(state, it.but(at="header"))
    else:
        yield f"{'our ' if ours else ''}{mode} begins", state.but(checkpoint=it)


def can_be_killed(it: Checkpoint) -> bool:
    """Not between the two stores of walRestartHdr, some nanoseconds apart: that leaves every application with a
    count of moved frames that is not of this log (SQLite's affair, and no different without us)."""
    return it.at != "cut"


def ended(state: State) -> State:
    """Whatever it holds is let go of."""
    it = state.checkpoint
    assert it is not None
    locks = let_readers_in(state.locks) if it.at == "file" else state.locks
    locks = put(locks, 0, max(locks[0], 0))
    return state.but(locks=locks, writing=state.writing and not it.writing, checkpoint=None)


def checkpoint_steps(state: State, it: Checkpoint) -> Iterator[Step]:
    """sqlite3WalCheckpoint and walCheckpoint, from the checkpoint lock on."""
    for name, after in CHECKPOINT[it.at](state, it):
        yield f"{'our ' if it.ours else ''}{it.mode}: {name}", after


def _lock(state: State, it: Checkpoint) -> Iterator[Step]:
    if not state.writing:
        after = state.but(writing=True)
        yield "keeps writers out", after.but(checkpoint=it.but(at="header", writing=True))
    else:
        name = "waits no longer for writers" if it.patient else "finds a writer"
        after = it.but(at="header", mode="PASSIVE", patient=False)
        yield f"{name}, goes on as PASSIVE", state.but(checkpoint=after)


def _header(state: State, it: Checkpoint) -> Iterator[Step]:
    it = it.but(frames=state.frames, safe=state.frames, salt=state.salt, size=state.size)
    moves = state.backfilled < state.frames
    after = _to_slot(state, it.but(at="slot"), 1) if moves else _through(state, it)
    yield f"reads the header, {state.frames} frames", after


def _through(state: State, it: Checkpoint) -> State:
    """There is nothing to move, or no more: a PASSIVE is done then."""
    it = it.but(at="moved", place=0, asking=False, excused=False)
    state = state.but(checkpoint=it)
    return ended(state) if it.mode == "PASSIVE" else state


def _to_slot(state: State, it: Checkpoint, first: int) -> State:
    """To the next slot whose mark is in the way."""
    for slot in range(first, len(state.marks)):
        if state.marks[slot] < it.safe:
            return state.but(checkpoint=it.but(place=slot, asking=False, excused=False))
    if state.backfilled >= it.safe:
        return _through(state, it)
    return state.but(checkpoint=it.but(at="zero", place=0, asking=False, excused=False))


def _slot(state: State, it: Checkpoint) -> Iterator[Step]:
    """The mark of a slot is read, and where it is in the way the slot locked: two steps for who may wait."""
    slot, mark = it.place, state.marks[it.place]
    if it.patient and not it.asking:
        if mark < it.safe:
            theirs = any(each.slot == slot for each in state.connections)
            asking = it.but(asking=True, excused=theirs or state.locks[slot] == 0, mark=mark)
            yield f"slot {slot} has mark {mark}", state.but(checkpoint=asking)
        else:
            yield f"slot {slot} is not in the way", _to_slot(state, it, slot + 1)
    elif state.locks[slot] == 0:
        marks = put(state.marks, slot, it.safe if slot == 1 else NOT_USED)
        yield f"slot {slot} is free", _to_slot(state.but(marks=marks), it, slot + 1)
    else:
        mark = it.mark if it.asking else mark
        name = f"waits no longer for slot {slot}" if it.patient else f"stops at mark {mark}"
        safe = min(it.safe, mark)
        yield name, _to_slot(state, it.but(safe=safe, patient=False, mark=0), slot + 1)


def _zero(state: State, it: Checkpoint) -> Iterator[Step]:
    if state.locks[0] == 0:
        if state.salt != it.salt:
            yield "the log was restarted meanwhile", _through(state, it)
        else:
            locks = put(state.locks, 0, -1)
            after = state.but(locks=locks, checkpoint=it.but(at="copy"))
            yield "keeps slot 0", _to_page(after)
    else:
        name = "waits no longer for slot 0" if it.patient else "slot 0 is held"
        yield name, _through(state, it.but(patient=False))


def _to_page(state: State) -> State:
    """To the next page of which there is something to copy: the iterator goes over the newest frame of each
    page in the whole log, and passes over those behind the last safe frame."""
    it = state.checkpoint
    assert it is not None
    latest = newest(state.file, it.frames)
    for page in range(it.place + 1, len(state.main) + 1):
        if page <= it.size and state.backfilled <= latest.get(page, -1) < it.safe:
            return state.but(checkpoint=it.but(place=page))
    too_long = any(version != CUT_OFF for version in state.main[it.size :])
    return state.but(checkpoint=it.but(at="copied" if too_long else "count", place=0))


def _copy(state: State, it: Checkpoint) -> Iterator[Step]:
    page = it.place
    version = state.file[newest(state.file, it.frames)[page]].version
    main = put(state.main, page - 1, version)
    yield f"moves page {page}, version {version}", _to_page(state.but(main=main))


def _copied(state: State, it: Checkpoint) -> Iterator[Step]:
    if it.safe == state.frames:
        yield "is at the end of the log", state.but(checkpoint=it.but(at="cut main"))
    else:
        yield "is not at the end of the log", state.but(checkpoint=it.but(at="count"))


def _cut_main(state: State, it: Checkpoint) -> Iterator[Step]:
    """Even if there has been another commit since."""
    main = state.main[: it.size] + (CUT_OFF,) * (len(state.main) - it.size)
    yield f"cuts the main file to {it.size}", state.but(main=main, checkpoint=it.but(at="count"))


def _count(state: State, it: Checkpoint) -> Iterator[Step]:
    yield f"counts {it.safe} as moved", state.but(backfilled=it.safe, checkpoint=it.but(at="unlock"))


def _unlock(state: State, it: Checkpoint) -> Iterator[Step]:
    """Only now a reader can have slot 0."""
    after = state.but(locks=put(state.locks, 0, 0), checkpoint=it.but(at="moved"))
    if it.mode in ("RESTART", "TRUNCATE") and state.backfilled >= it.frames:
        yield "lets go of slot 0", after
    else:
        yield from _moved(after, it)


def _moved(state: State, it: Checkpoint) -> Iterator[Step]:
    if it.mode == "PASSIVE":
        yield "done", ended(state)
    elif state.backfilled < it.frames:
        yield "busy", ended(state)
    elif it.mode == "FULL":
        yield "done", ended(state)
    elif nobody_uses_the_log(state):
        if it.mode == "RESTART":
            yield "done", ended(state)
        else:
            after = new_header(state.but(locks=keep_readers_out(state.locks)))
            yield "empties the log: header", after.but(checkpoint=it.but(at="cut"))
    else:
        yield "waits no longer for readers, busy" if it.patient else "busy", ended(state)


def _cut(state: State, it: Checkpoint) -> Iterator[Step]:
    after = new_marks(state).but(locks=state.locks, checkpoint=it.but(at="file"))
    yield "empties the log: counts", after


def _file(state: State, it: Checkpoint) -> Iterator[Step]:
    yield "empties the log: file, done", ended(state.but(head=0, file=()))


CHECKPOINT = {
    "lock": _lock, "header": _header, "slot": _slot, "zero": _zero, "copy": _copy, "copied": _copied,
    "cut main": _cut_main, "count": _count, "unlock": _unlock, "moved": _moved, "cut": _cut, "file": _file,
}  # fmt: skip


def waits_for(state: State) -> tuple[int, ...]:
    """The slots that the application's checkpoint waits for just now."""
    it = state.checkpoint
    if it is None or it.ours or not it.patient:
        return ()
    if it.at == "slot" and it.asking:
        return (it.place,)
    if it.at == "zero":
        return (0,)
    if it.at == "moved" and it.mode in ("RESTART", "TRUNCATE") and state.backfilled >= it.frames:
        return tuple(range(1, len(state.locks)))
    return ()


def goes_on_when_asked(state: State) -> bool:
    """Whether somebody waits for what is free by now."""
    wanted = waits_for(state)
    return bool(wanted) and not any(state.locks[slot] for slot in wanted)
