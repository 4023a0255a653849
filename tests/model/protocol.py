"""The whole: an application and an agent on one log, and what has to hold in every state and to stay possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.model.agent_model import (
    EMPTY,
    NONE,
    Agent,
    AgentModel,
    Look,
    Mark,
    believed,
    closed,
    down,
)
from tests.model.explorer import Explored, Trace, without_a_way
from tests.model.wal_model import (
    IDLE,
    NOT_USED,
    Application,
    State,
    Step,
    closed_by_the_last,
    content,
    newest,
    nobody_uses_the_log,
    powerless,
    put,
    recovered,
    waits_for,
)


@dataclass(frozen=True)
class Protocol:
    """``first``: the state to begin with; ``ignored``: properties that are not asked for."""

    first: State
    application: Application
    agent: AgentModel
    ignored: frozenset[str] = field(default_factory=frozenset)

    def initial(self) -> State:
        return self.first

    def steps(self, state: State) -> Iterator[Step]:
        if state.agent.at in ENDED:
            return
        yield from self.agent.steps(state)
        yield from self.agent.killed(state)
        yield from self.application.steps(state)
        if state.agent.at == "down" and state.checkpoint is None:
            yield from self.without_agent(state)

    def without_agent(self, state: State) -> Iterator[Step]:
        left, last = state.left, state.commits[-1]
        if left.departures and all(each == IDLE for each in state.connections):
            after = state.but(left=left.but(departures=left.departures - 1))
            yield "the last one closes", closed_by_the_last(after)
        if left.kills:
            yield "all are killed", recovered(state.but(left=left.but(kills=left.kills - 1)))
        in_log_only = (last.salt, last.end) == (state.salt, state.frames) and last.version not in state.main
        if left.power and len(state.commits) > 1 and in_log_only:  # the log is synced before pages are moved
            after = state.but(left=left.but(power=left.power - 1))
            forked = state.agent.taken >= len(state.commits)
            yield "the power fails", powerless(after).but(forked=state.forked or forked)

    def violation(self, state: State) -> str | None:
        for name, check in PROPERTIES.items():
            if name not in self.ignored:
                found = check(state, state.agent)
                if found is not None:
                    return f"{name}: {found}"
        return None

    # --- states that nobody can tell apart from now on

    def canonical(self, state: State) -> State:
        """Connections have no names; and what was read of a header that has changed since is only good for being
        found to be another one."""
        if state.head != state.salt and not state.frames:
            state = _with_next_salt(state)
        state = self._with_connections(state)
        it = self._canonical_agent(state, state.agent)
        if it is not state.agent:
            state = state.but(agent=it)
        if not self.agent.doubts:
            # Only who waits for a slot minds what a free one was last used for.
            marks = tuple(
                NOT_USED if not lock and mark < state.frames else mark
                for lock, mark in zip(state.locks[1:], state.marks[1:], strict=True)
            )
            if marks != state.marks[1:]:
                state = state.but(marks=(0, *marks))
        return state

    def _with_connections(self, state: State) -> State:
        header, connections = (state.salt, state.frames), state.connections
        for number, each in enumerate(connections):
            if each.header is not None and each.header != header:
                connections = put(connections, number, each.but(header=None))
        if len(connections) > 1:
            readers = self.application.readers
            connections = (
                *sorted(connections[:readers], key=hash), *sorted(connections[readers:], key=hash)
            )  # fmt: skip
        return state if connections == state.connections else state.but(connections=connections)

    def _canonical_agent(self, state: State, it: Agent) -> Agent:
        if it.saved not in (None, EMPTY) and it.latest and not state.left.crashes:
            it = it.but(saved=EMPTY)
        if it.before != NONE and self.agent.rules.counts_are_of_one_moment:
            before = _still_of_use(it.before, state)
            it = it if before == it.before else it.but(before=before)
        if self.agent.doubts:
            return it.but(doubtful=-1) if it.doubtful not in (-1, state.frames) else it
        if it.anew:
            it = it.but(anew=False)
        if it.caught_up and it.mark.frames and not it.restartable:
            it = it.but(mark=Mark(0, it.mark.zero and self.agent.truncates))
        return it

    # --- for who reads a trace

    def describe(self, state: State) -> str:
        it, marks = state.agent, ("-" if mark == NOT_USED else str(mark) for mark in state.marks[1:])
        file = " ".join(
            f"{frame.salt}:{frame.page}v{frame.version}{'.' if frame.size else ''}" for frame in state.file
        )
        return (
            f"log {state.head} [{file}] index {state.salt}: {state.frames} frames, {state.backfilled} moved, "
            f"marks {' '.join(marks)}, locks {' '.join(map(str, state.locks))}"
            f"{', writing' if state.writing else ''}; main {' '.join(map(str, state.main))}; "
            f"captured {it.taken} of {len(state.commits)}, to {it.cursor.salt}/{it.cursor.frames}, "
            f"holds {'no slot' if it.held < 0 else f'slot {it.held}'}, {it.at} {it.then}{it.reason}".rstrip()
        )


STALE = Look(-1, -1, -1)
ENDED = ("lost", "broken")


def _with_next_salt(state: State) -> State:
    """A salt that is in no file yet is as good as another: an empty log that is emptied again has the next."""
    salt = 1 + max(state.head, state.commits[-1].salt, *(frame.salt for frame in state.file))
    if salt == state.salt:
        return state
    header = (state.salt, state.frames)
    connections = tuple(
        each.but(header=(salt, 0)) if each.header == header else each for each in state.connections
    )
    return state.but(salt=salt, salts=salt, connections=connections)


def _still_of_use(before: Look, state: State) -> Look:
    """Of a look before a transaction began: what the look after it can still agree with."""
    if before == STALE or before.head != state.head or before.frames > state.frames:
        return STALE
    if (before.frames, before.backfilled) == (state.frames, state.backfilled):
        return before
    return STALE if state.backfilled >= before.frames else before._replace(backfilled=-1)


# --- where to begin


def following(state: State, agent: AgentModel) -> State:
    """The agent has come and follows, with everything captured."""
    state = state.but(agent=down())
    while not (_following(state.agent) and state.agent.at == "look"):
        _, state = next(iter(agent.steps(state)))
    return state


def returning(state: State, agent: AgentModel) -> State:
    """It has followed and was killed."""
    return closed(following(state, agent))


def coming(state: State, _agent: AgentModel) -> State:
    """It was never there."""
    return state.but(agent=down())


# --- what holds in every state

# Where the agent is about to read what is held for it, or may be held still at any moment (`hold_still`).
READS = (
    "look",
    "counts",
    "begin",
    "scan",
    "let go",
    "take barrier",
    "passive",
    "moving",
    "release",
    "cutting",
)


def _following(it: Agent) -> bool:
    return it.caught_up and it.at != "down" and it.at not in ENDED


def _is_captured(_state: State, it: Agent) -> str | None:
    """What is captured is the next commit, byte for byte; previous versions and checksums are right; nothing is
    given up that was held, or that is as it was. All of it is judged where it happens."""
    return it.reason if it.at == "broken" else None


def _is_held(state: State, it: Agent) -> str | None:
    """A read transaction is held at every moment."""
    if _following(it) and (it.held < 0 or state.locks[it.held] <= 0):
        return "no read transaction is held"
    return None


def _mark_is_captured(_state: State, it: Agent) -> str | None:
    """It began no later than what is captured."""
    if _following(it) and it.sees > it.taken:
        return "the transaction held began behind what is captured"
    return None


def _frames_are_there(state: State, it: Agent) -> str | None:
    """What is not captured yet is in the log, frame for frame."""
    if not _following(it):
        return None
    for commit in state.commits[it.taken :]:
        frames = commit.frames
        there = state.file[commit.end - len(frames) : commit.end] == frames
        if commit.salt != state.salt or state.head != state.salt or not there:
            return f"version {commit.version} is gone from the log and was not captured"
    return None


def _main_is_captured(state: State, it: Agent) -> str | None:
    """No checkpoint passes what is captured, ours or another."""
    if not _following(it):
        return None
    for commit in state.commits[it.taken :]:
        if commit.version in state.main:
            return f"version {commit.version} is in the main file and not captured"
    return None


def _pages_are_believed(state: State, it: Agent) -> str | None:
    """Every page as it was at the last captured commit can be read where the agent would read it."""
    if not _following(it) or it.at not in READS or state.forked:
        return None
    for page, version in enumerate(content(state.commits[: it.taken]), 1):
        found = believed(state, it, page)
        if found not in (version, None):
            return f"version {found} of page {page} is taken for version {version}"
        if it.touched is not None and page not in it.touched and state.main[page - 1] != version:
            return f"a full backup reads version {state.main[page - 1]} of page {page} and not {version}"
    return None


def _losses_are_told(state: State, it: Agent) -> str | None:
    """A commit that was captured and then lost by the application ends the generation."""
    if state.forked and _following(it):
        return "a commit was captured that the database has no more"
    return None


def _barrier_reaches_the_end(state: State, it: Agent) -> str | None:
    """Once slot 0 is taken under the barrier, the next commit restarts the log."""
    if it.at == "release" and it.mark.zero and state.backfilled < state.frames:
        return "the log has new frames though the barrier is held"
    return None


def _readers_see_their_commit(state: State, _it: Agent) -> str | None:
    """SQLite's own promise to the application, whatever we do."""
    for each in state.connections:
        if each.at != "reads" or not each.sees:
            continue
        latest = newest(state.file, each.log[1]) if each.slot else {}
        for page, version in enumerate(content(state.commits[: each.sees]), 1):
            index = latest.get(page)
            found = state.main[page - 1] if index is None else state.file[index].version
            if found != version:
                return f"a reader sees version {found} of page {page} and not {version}"
    return None


PROPERTIES = {
    "captured": _is_captured,
    "held": _is_held,
    "mark": _mark_is_captured,
    "frames": _frames_are_there,
    "main file": _main_is_captured,
    "pages": _pages_are_believed,
    "losses": _losses_are_told,
    "barrier": _barrier_reaches_the_end,
    "readers": _readers_see_their_commit,
}


# --- what stays possible, by steps of the agent alone


@dataclass(frozen=True)
class Possible:
    """From every state in which it ``begins``, the agent can go on to one where it has ``arrived``."""

    begins: Callable[[State], bool]
    arrived: Callable[[State], bool]


def _is_in_the_way(state: State) -> bool:
    """A checkpoint waits for a slot of ours, or for writers that we keep out. Not asked of one that has read the mark
    of a slot which was free, or a reader of the application's: if a transaction of ours begins in that slot before
    it is asked for, the checkpoint waits until its time is up (docs/ARCHITECTURE.md, "Following a log")."""
    it, check = state.agent, state.checkpoint
    if check is None or not check.patient or check.ours:
        return False
    if check.at == "lock":
        return state.writing and it.barrier >= 0
    wanted = waits_for(state)
    return not check.excused and any(slot in wanted for slot in (it.held, it.next, it.barrier))


def _alone(state: State) -> bool:
    return state.checkpoint is None and all(each.at == "idle" for each in state.connections)


POSSIBLE = {
    "whoever waits for us can go on": Possible(_is_in_the_way, lambda state: not _is_in_the_way(state)),
    "everything can be captured": Possible(
        lambda state: _following(state.agent) and not waits_for(state),
        lambda state: state.agent.taken == len(state.commits),
    ),
    "a place is found or a loss is told": Possible(
        lambda state: state.agent.at == "down" and _alone(state),
        lambda state: state.agent.at == "lost" or _following(state.agent),
    ),
    "the log can be made to restart": Possible(
        lambda state: _following(state.agent) and _alone(state),
        lambda state: state.backfilled == state.frames and nobody_uses_the_log(state),
    ),
}
BARRIER_ONLY = "the log can be made to restart"


def impossible(explored: Explored[State], name: str) -> Trace | None:
    """The way to a state from which it is not possible, if there is one."""
    asked, model = POSSIBLE[name], explored.model
    assert isinstance(model, Protocol)
    for number in without_a_way(explored, asked.begins, asked.arrived, model.agent.steps):
        return explored.trace_to(number, f"not so: {name}")
    return None
