"""The agent as `replicator/capture` and `replicator/source/database` have it, beside the log of wal_model.py.

One step is one operation that others can come between, and whatever the agent computes from it. When it does what is
due is left open: what it may do at some speed of the machine is a step. The verdicts on its place in the log are
those of `replicator.core.cursor` itself.

Two things are one step though they are many reads. A look: the code takes care that its header and counts are of one
moment. And a unit: every frame and page that is read for it is held as it is, which is itself checked in every state
before and after; where it is not held (`is_behind`) reading, building and counting are steps of their own.

``Rules`` are what the protocol rests on; a mutation takes one away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from replicator.core.cursor import (
    Continue,
    Elsewhere,
    Lost,
    Observation,
    Restarted,
    Verdict,
    WalCursor,
    judge,
    recognise,
)
from replicator.core.wal import FrameHeader, Salt, WalChecksum, WalHeader
from tests.model.wal_model import (
    Frame,
    State,
    Step,
    begin,
    but,
    can_be_killed,
    checkpoint_steps,
    content,
    ended,
    goes_on_when_asked,
    let_go,
    newest,
    page_in,
    put,
    start_checkpoint,
)


class Look(NamedTuple):
    """The salt in the file's header, 0 without any, and SQLite's two counts."""

    head: int
    frames: int
    backfilled: int

    @property
    def fully_backfilled(self) -> bool:
        return self.backfilled >= self.frames


class Mark(NamedTuple):
    frames: int
    zero: bool


class Cursor(NamedTuple):
    """``version``: of the last frame taken; it stands for SQLite's checksum, which no two logs share."""

    salt: int
    frames: int
    version: int


NONE = Look(0, 0, 0)
EMPTY = Cursor(0, 0, 0)
NO_MARK = Mark(0, False)


class Agent(NamedTuple):
    """``at``: what is done next; ``then``, ``stage``: what the look and the hand-over are part of.

    Known to the agent: ``mark``, ``newer`` (of the transaction just begun), ``cursor``, ``restartable``, ``latest``
    (by page, the index of its newest captured frame, or -1), ``unsure``, ``rolling`` (whether the checksum of the
    database is known), ``before`` and ``seen``, ``anew`` (it let go of a slot to begin again), ``unit`` and ``read``
    (not captured yet, and the place behind it), ``doubtful``, ``touched`` (by a full backup that reads the main
    file). On disk: ``saved``, and ``taken``, the number of commits captured.

    Known to nobody: ``held``, ``next`` and ``barrier``, the slots of its transactions; ``sees`` and ``will_see``,
    the number of commits in the first two; ``caught_up``: all that was there when it came is captured.
    """

    at: str
    then: str = ""
    stage: str = ""
    held: int = -1
    next: int = -1
    barrier: int = -1
    sees: int = 0
    will_see: int = 0
    mark: Mark = NO_MARK
    newer: Mark = NO_MARK
    cursor: Cursor = EMPTY
    saved: Cursor | None = None
    taken: int = 0
    restartable: bool = False
    latest: tuple[int, ...] = ()
    unsure: tuple[int, ...] = ()
    rolling: bool = True
    caught_up: bool = False
    before: Look = NONE
    anew: bool = False
    seen: Look = NONE
    unit: tuple[Frame, ...] = ()
    read: Cursor = EMPTY
    doubtful: int = -1
    touched: tuple[int, ...] | None = None
    reason: str = ""

    but = but


@dataclass(frozen=True)
class Rules:
    """What is so as the agent is coded; test_mutations.py says what it does without."""

    newer_begins_first: bool = True
    captured_before_the_older_ends: bool = True
    looked_at_again_with_the_newer: bool = True
    locks_are_kept: bool = True
    counts_are_of_one_moment: bool = True
    slot_is_told_by_two_looks: bool = True
    only_what_sqlite_counts: bool = True
    salts_are_compared: bool = True
    shorter_logs_are_lost: bool = True
    restarted_from_the_end_only: bool = True
    restarted_once_only: bool = True
    frames_are_forgotten_under_zero: bool = True
    main_is_read_under_zero: bool = True
    zero_is_left_after_a_commit: bool = True
    hands_change_at_the_end: bool = True
    hands_rest_while_in_doubt: bool = True
    in_doubt_under_zero_too: bool = True
    in_doubt_before_it_is_begun_anew: bool = True
    captured_under_the_barrier: bool = True
    writers_are_kept_out: bool = True
    truncated_under_zero_only: bool = True
    unit_and_cursor_are_one: bool = True
    confirmed_before_it_counts: bool = True
    pages_from_before_are_unsure: bool = True
    saved_place_is_compared: bool = True
    content_is_compared: bool = True
    passed_over_pages_are_unsettled: bool = True


@dataclass(frozen=True)
class AgentModel:
    """``barrier``, ``truncates``, ``full``: whether it comes to that. ``doubts``: whether anybody waits for it."""

    rules: Rules = Rules()
    barrier: bool = False
    truncates: bool = False
    full: bool = False
    doubts: bool = False

    def steps(self, state: State) -> Iterator[Step]:
        """All that happens without anybody else."""
        it: Agent = state.agent
        yield from DOES[it.at](self, state, it)
        if state.checkpoint is not None and state.checkpoint.ours:
            yield from checkpoint_steps(state, state.checkpoint)

    def killed(self, state: State) -> Iterator[Step]:
        check = state.checkpoint
        in_between = check is not None and check.ours and not can_be_killed(check)
        if state.left.crashes and state.agent.at != "down" and not in_between:
            left = state.left.but(crashes=state.left.crashes - 1)
            yield "the agent is killed", closed(state.but(left=left))

    def opens(self, state: State, it: Agent) -> Iterator[Step]:
        yield "the agent opens", _with(state, it.but(at="look", then="before"))

    # --- looking

    def look(self, state: State, it: Agent) -> Iterator[Step]:
        if it.anew and self.rules.in_doubt_before_it_is_begun_anew and goes_on_when_asked(state):
            return  # who waits asks first
        frames = state.frames
        if not self.rules.only_what_sqlite_counts:
            frames = _whole_frames(state)
        seen = Look(state.head, frames, state.backfilled)
        if self.rules.counts_are_of_one_moment:
            yield from self.looked(state, it, seen)
        else:
            yield "reads header and frames", _with(state, it.but(at="counts", seen=seen))

    def counts(self, state: State, it: Agent) -> Iterator[Step]:
        seen = it.seen._replace(backfilled=state.backfilled)
        it = it.but(at="look", seen=NONE)
        if seen.head != state.head:
            yield "finds another header", _with(state, it)
        else:
            yield from self.looked(state, it, seen)

    def looked(self, state: State, it: Agent, seen: Look) -> Iterator[Step]:
        name = f"sees {seen.head}/{seen.frames}/{seen.backfilled}"
        match it.then:
            case "before":
                yield name, _with(state, it.but(at="begin", then="", before=seen, anew=False))
            case "after":
                yield name, self.begun(state, it.but(then=""), seen)
            case "moved":
                yield name, self.followed(state, it.but(then="unsettled", before=seen), seen)
            case "unsettled":
                yield name, self.unsettled(state, it.but(then=""), seen)
            case "end":
                yield name, self.end(state, it.but(then=""), seen)
            case _:
                yield from self.decided(state, it, seen, name)

    def followed(self, state: State, it: Agent, seen: Look) -> State:
        """_follow_log; *it* is what is done next if the log goes on."""
        to_its_end = it.cursor.frames == it.mark.frames or not self.rules.restarted_from_the_end_only
        verdict = self.verdict(it.cursor, seen, it.restartable and to_its_end)
        if isinstance(verdict, Lost):
            return lost(state, verdict.reason)
        if isinstance(verdict, Restarted):
            again = not self.rules.restarted_once_only
            it = it.but(cursor=EMPTY, latest=(-1,) * len(it.latest), restartable=again)
        return _with(state, it)

    def verdict(self, cursor: Cursor, seen: Look, allowed: bool) -> Verdict:
        if not self.rules.salts_are_compared and seen.frames and cursor.frames:
            seen = seen._replace(head=cursor.salt)
        return judged(cursor, seen, allowed)

    def decided(self, state: State, it: Agent, seen: Look, name: str) -> Iterator[Step]:
        """A step of Capture, or the end of it, once *seen* is known."""
        state = self.followed(state, it.but(then=""), seen)
        if state.agent.at in ("lost", "broken"):
            yield name, state
            return
        if it.then == "held":
            doubtful = seen.frames if seen.frames > it.mark.frames else -1
            state = _with(state, state.agent.but(doubtful=doubtful))
        it = state.agent.but(at="look", seen=NONE)
        fresh = _fresh(it, seen) > 0
        if not it.rolling:
            yield name, _with(state, it.but(at="scan", seen=seen) if fresh else it.but(at="settle"))
            return
        if fresh:
            yield f"{name}, captures", _with(state, it.but(at="scan", seen=seen))
        if self.hands_change(state, it, seen):
            yield f"{name}, hands change", _with(state, self.hand_over(it, seen))
        yield f"{name}, rests", _with(state, it)
        if not it.caught_up:
            return
        if self.barrier:
            yield f"{name}, wants the barrier", _with(state, it.but(at="take barrier"))
        zero = it.mark.zero or not self.rules.truncated_under_zero_only
        if self.truncates and zero and seen.fully_backfilled and seen.head and state.checkpoint is None:
            yield from self.truncate(state, it)
        if self.full and it.touched is None:
            yield f"{name}, a full backup begins", _with(state, it.but(then="moved"))
        if it.touched is not None:
            yield f"{name}, the full backup ends", _with(state, it.but(touched=None))

    def hands_change(self, state: State, it: Agent, seen: Look) -> bool:
        """_hand_over_in, of which the times are left open; but that who waits asks before a doubt is over. And
        where the log grows large (Action.APPROACH) hands may change with every look."""
        if not self.doubts:
            return self.rules.hands_change_at_the_end or not seen.fully_backfilled
        if _fresh(it, seen) > 0:
            return False
        if seen.fully_backfilled and seen.frames == it.cursor.frames:
            return self.rules.hands_change_at_the_end
        in_doubt = it.doubtful == seen.frames and self.rules.hands_rest_while_in_doubt
        if it.mark.zero and not self.rules.in_doubt_under_zero_too:
            in_doubt = False
        if it.mark.zero:
            behind = seen.frames > 0 and self.rules.zero_is_left_after_a_commit
        else:
            behind = it.mark.frames < seen.frames
        return behind and not (in_doubt and goes_on_when_asked(state))

    # --- capturing: UnitWriter.write, one transaction a unit

    def is_behind(self, it: Agent) -> bool:
        return it.restartable and it.cursor.frames < it.mark.frames

    def scan(self, state: State, it: Agent) -> Iterator[Step]:
        unit = _next_transaction(state, it)
        if not unit:
            yield "cannot read the log", failed(state)
        elif self.is_behind(it):
            yield "reads the log", _with(state, it.but(at="build", unit=unit))
        else:
            wrong = wrong_before(state, it, unit)
            end = it.cursor.frames + len(unit)
            if wrong:
                yield wrong, broken(state, wrong)
            elif self.rules.unit_and_cursor_are_one:
                yield from self.captured(state, it, unit, Cursor(it.seen.head, end, unit[-1].version))
            elif it.saved is not None and it.saved.frames != end:
                saved = Cursor(it.seen.head, end, unit[-1].version)
                yield "saves its place", _with(state, it.but(saved=saved))
            else:
                yield from self.captured(state, it, unit, Cursor(it.seen.head, end, unit[-1].version))

    def build(self, state: State, it: Agent) -> Iterator[Step]:
        """The previous version of each page, and the checksum of the last frame."""
        end = it.cursor.frames + len(it.unit)
        if end > len(state.file):
            yield "cannot read the log", failed(state)
            return
        wrong = wrong_before(state, it, it.unit) or ""
        read = Cursor(it.seen.head, end, state.file[end - 1].version)
        yield "builds a unit", _with(state, it.but(at="keep", reason=wrong, read=read))

    def keep(self, state: State, it: Agent) -> Iterator[Step]:
        """_require_same_log, and then it counts."""
        if state.head != it.seen.head and self.rules.confirmed_before_it_counts:
            yield "finds another log", lost(state, "the log was restarted before all of it was captured")
        elif it.reason:
            yield it.reason, broken(state, it.reason)
        else:
            yield from self.captured(state, it.but(unit=(), read=EMPTY), it.unit, it.read)

    def captured(self, state: State, it: Agent, unit: tuple[Frame, ...], cursor: Cursor) -> Iterator[Step]:
        """Durable in the spool; then pages are advanced."""
        name = f"captures version {unit[0].version}"
        if it.taken >= len(state.commits) or unit != state.commits[it.taken].frames:
            yield name, broken(state, "what is captured is not the next commit")
            return
        first, latest, touched = it.cursor.frames, it.latest, it.touched
        written = {frame.page for frame in unit}
        for index, frame in enumerate(unit, first):
            latest = put(latest, frame.page - 1, index)
        if touched is not None:
            touched = tuple(sorted({*touched, *written}))
        if self.is_behind(it) and cursor.frames >= it.mark.frames:
            latest = self.moved(latest, it.mark.frames)
        it = it.but(
            cursor=cursor, saved=cursor, taken=it.taken + 1, latest=latest, touched=touched,
            unsure=tuple(page for page in it.unsure if page not in written),
            caught_up=it.caught_up or it.taken + 1 >= it.sees,
        )  # fmt: skip
        if _fresh(it, it.seen) > 0:
            yield name, _with(state, it.but(at="scan"))
        elif it.next >= 0:
            yield name, _with(state, it.but(at="let go", seen=NONE))
        else:
            yield from self.decided(state, it, it.seen, name)

    def moved(self, latest: tuple[int, ...], frames: int) -> tuple[int, ...]:
        if not self.rules.frames_are_forgotten_under_zero:
            return latest
        return tuple(index if index >= frames else -1 for index in latest)

    # --- hand over hand

    def hand_over(self, it: Agent, before: Look | None = None) -> Agent:
        """*before*: of the look that was just made. Another one first would be of the same kind."""
        if self.rules.newer_begins_first and before is not None:
            return it.but(at="begin", before=before)
        if self.rules.newer_begins_first:
            return it.but(at="look", then="before")
        return it.but(at="let go", then="first")

    def begin(self, state: State, it: Agent) -> Iterator[Step]:
        begun = begin(state)
        if begun is not None:
            after, slot = begun
            it = it.but(at="look", then="after", next=slot, will_see=len(state.commits))
            yield f"begins the newer in slot {slot}", _with(after, it)

    def begun(self, state: State, it: Agent, after: Look) -> State:
        """Which kind of mark it got, by the looks before and after; begun anew where they cannot tell."""
        before = it.before
        if before == after or not self.rules.slot_is_told_by_two_looks:
            mark = Mark(before.frames, after.fully_backfilled)
        elif before.head == after.head and before.frames <= after.frames and after.backfilled < before.frames:
            mark = Mark(before.frames, zero=False)
        else:
            again = it.but(then="before", next=-1, will_see=0, before=NONE, anew=True)
            return _with(let_go(state, it.next), again)
        if not (mark.zero or self.doubts):
            mark = NO_MARK  # which frame it is nobody asks
        it = it.but(before=NONE, newer=mark, seen=after)
        if not it.latest:
            return self.opened(state, it)
        if self.rules.looked_at_again_with_the_newer:
            state = self.followed(state, it, after)
            if state.agent.at in ("lost", "broken"):
                return state
            it = state.agent
            captures = self.rules.captured_before_the_older_ends and (
                self.rules.captured_under_the_barrier or not it.stage
            )
            if captures and _fresh(it, after) > 0:
                return _with(state, it.but(at="scan"))
        return _with(state, it.but(at="let go", seen=NONE))

    def let_go(self, state: State, it: Agent) -> Iterator[Step]:
        """The older transaction ends, the newer one is held from now on."""
        state = let_go(state, it.held)
        if it.then == "first":
            yield "ends the older", _with(state, it.but(at="look", then="before", held=-1, sees=0))
            return
        it = self.hold(it, it.newer).but(
            held=it.next, next=-1, sees=it.will_see, will_see=0, newer=NO_MARK,
            at={"": "look", "passive": "passive", "release": "release"}[it.stage],
            then="held" if self.doubts and not it.stage else "",
        )  # fmt: skip
        if not self.rules.locks_are_kept:
            state, it = let_go(state, it.held), it.but(held=-1)
        yield "ends the older", _with(state, it)

    def hold(self, it: Agent, mark: Mark) -> Agent:
        it = it.but(mark=mark, restartable=mark.zero)
        if mark.zero and it.cursor.frames >= mark.frames:
            it = it.but(latest=self.moved(it.latest, mark.frames))
        return it

    # --- the write barrier: Holds.take

    def take_barrier(self, state: State, it: Agent) -> Iterator[Step]:
        """BEGIN IMMEDIATE: a read transaction, and the write lock."""
        begun = None if state.writing else begin(state)
        if begun is None:
            yield "gets no barrier", _with(state, it.but(at="look"))
            return
        state, slot = begun
        if self.rules.writers_are_kept_out:
            state = state.but(writing=True)
        it = it.but(barrier=slot, stage="passive")
        yield f"has the barrier, in slot {slot}", _with(state, self.hand_over(it))

    def passive(self, state: State, it: Agent) -> Iterator[Step]:
        """On the observer. Somebody else's checkpoint is waited for, not for ever."""
        it = it.but(at="moving")
        if state.checkpoint is None:
            yield from start_checkpoint(_with(state, it), "PASSIVE", ours=True)
        else:
            yield "our PASSIVE is busy", _with(state, it)

    def moving(self, state: State, it: Agent) -> Iterator[Step]:
        if state.checkpoint is None or not state.checkpoint.ours:
            yield from self.look(state, it.but(at="look", then="end"))

    def end(self, state: State, it: Agent, seen: Look) -> State:
        it = it.but(stage="release")
        return self.followed(
            state, self.hand_over(it) if seen.fully_backfilled else it.but(at="release"), seen
        )

    def release(self, state: State, it: Agent) -> Iterator[Step]:
        state = let_go(state, it.barrier)
        if self.rules.writers_are_kept_out:
            state = state.but(writing=False)
        then = "held" if self.doubts else ""
        yield "lets go of the barrier", _with(state, it.but(at="look", then=then, stage="", barrier=-1))

    # --- cutting the file

    def truncate(self, state: State, it: Agent) -> Iterator[Step]:
        if not self.rules.truncated_under_zero_only:
            state, it = let_go(state, it.held), it.but(held=-1, sees=0)
        yield from start_checkpoint(_with(state, it.but(at="cutting")), "TRUNCATE", ours=True)

    def cutting(self, state: State, it: Agent) -> Iterator[Step]:
        if state.checkpoint is None or not state.checkpoint.ours:
            then = "before" if it.held < 0 else ""
            yield from self.look(state, it.but(at="look", then=then))

    # --- finding the place again: Follow._open, place.resume

    def opened(self, state: State, it: Agent) -> State:
        it = it.but(
            at="place", held=it.next, next=-1, sees=it.will_see, will_see=0, mark=it.newer, newer=NO_MARK
        )
        return _with(state, it)

    def place(self, state: State, it: Agent) -> Iterator[Step]:
        seen, saved = it.seen, it.saved
        if saved is None:
            yield "begins a generation", _with(state, it.but(at="read all", taken=there(state, it)))
            return
        within = seen.head and 0 < saved.frames <= seen.frames and saved.frames <= len(state.file)
        verdict = recognised(saved, seen, state.file[saved.frames - 1] if within else None)
        if not self.rules.shorter_logs_are_lost and seen.frames < saved.frames and seen.head == saved.salt:
            verdict = Continue(0)
        if not self.rules.saved_place_is_compared and seen.head and saved.frames <= seen.frames:
            verdict = Continue(seen.frames - saved.frames)
        if isinstance(verdict, Continue):
            yield "finds its place", _with(state, it.but(at="read log"))
        elif isinstance(verdict, Elsewhere):
            yield verdict.reason, self.elsewhere(state, it, verdict.reason)
        elif it.mark.zero:
            yield "does not find its place", _with(state, it.but(at="place again", reason=verdict.reason))
        else:
            yield verdict.reason, lost(state, verdict.reason)

    def place_again(self, state: State, it: Agent) -> Iterator[Step]:
        if state.head != it.seen.head:
            yield "finds another log", self.elsewhere(state, it, "the log was restarted")
        else:
            yield it.reason, lost(state, it.reason)

    def elsewhere(self, state: State, it: Agent, reason: str) -> State:
        if not it.rolling:
            return lost(state, f"{reason}, and its checksum was not followed to the end")
        return _with(state, it.but(at="read all", reason=""))

    def read_log(self, state: State, it: Agent) -> Iterator[Step]:
        """_resume_in_log. Nobody's mark was held since: what lies behind may be in the main file or not."""
        seen, saved = it.seen, it.saved
        assert saved is not None
        it = it.but(cursor=saved)
        if seen.frames == saved.frames and it.mark.zero and self.rules.main_is_read_under_zero:
            yield "goes on", self.started(state, it.but(latest=(-1,) * len(state.main)))
        elif not _can_read(state, seen):
            yield "cannot read the log", failed(state)
        else:
            latest = _latest(state, saved.frames)
            behind = {frame.page for frame in state.file[saved.frames : seen.frames]}
            unsure = tuple(sorted(page for page in behind if latest[page - 1] < 0))
            if not self.rules.pages_from_before_are_unsure:
                unsure = ()
            it = it.but(latest=latest, unsure=unsure, rolling=it.rolling and not behind)
            yield "goes on", self.started(state, it)

    def read_all(self, state: State, it: Agent) -> Iterator[Step]:
        """_captured: with read mark 0 the main file holds all pages, else the log has the newer ones."""
        at = "compare" if it.saved is not None else "set cursor"
        if it.mark.zero and self.rules.main_is_read_under_zero:
            yield "reads the main file", _with(state, it.but(at=at, latest=(-1,) * len(state.main)))
        elif not _can_read(state, it.seen):
            yield "cannot read the log", failed(state)
        else:
            yield "reads the log", _with(state, it.but(at=at, latest=_latest(state, it.seen.frames)))

    def compare(self, state: State, it: Agent) -> Iterator[Step]:
        """Every page against the last captured commit."""
        here = content(state.commits[: there(state, it)])
        found = believed_database(state, it, len(here))
        if found != here:
            yield "compares the content", broken(state, "what is compared is not the database")
            return
        same = not state.forked and found == content(state.commits[: it.taken])
        if same or not self.rules.content_is_compared:
            yield "the content is the same", _with(state, it.but(at="set cursor"))
        else:
            yield (
                "the content is another",
                lost(state, "the database is not the one that was captured last"),
            )

    def set_cursor(self, state: State, it: Agent) -> Iterator[Step]:
        seen = it.seen
        frame = state.file[seen.frames - 1] if 0 < seen.frames <= len(state.file) else None
        cursor = EMPTY
        if seen.head and frame is not None and not (it.mark.zero and frame.salt != seen.head):
            cursor = Cursor(seen.head, seen.frames, frame.version)
        it = it.but(cursor=cursor, saved=cursor if it.saved is None else it.saved)
        yield "sets its cursor", self.started(state, it)

    def started(self, state: State, it: Agent) -> State:
        """Capture.begin."""
        it = self.hold(it, it.mark)
        it = it.but(
            at="look", seen=NONE, reason="", caught_up=it.taken >= it.sees,
            restartable=it.restartable and it.cursor.frames > 0,
        )  # fmt: skip
        return _with(state, it)

    def settle(self, state: State, it: Agent) -> Iterator[Step]:
        """What came meanwhile was captured at once; the whole database is read for its checksum."""
        if it.unsure:
            yield "knows no checksum", lost(state, "the database's checksum cannot be followed")
            return
        expected = content(state.commits[: it.taken])
        if believed_database(state, it, len(expected)) != expected:
            yield "takes a checksum", broken(state, "the checksum remembered is not the database's")
        else:
            yield "takes the checksum", _with(state, it.but(at="look", rolling=True))

    # --- the full backup

    def unsettled(self, state: State, it: Agent, seen: Look) -> State:
        """CapturedPages.unsettled, of the frames of this look and the count of moved frames of the one before."""
        moved, captured = it.before.backfilled, it.cursor.frames
        state = self.followed(state, it.but(before=NONE), seen)
        it = state.agent
        if it.at in ("lost", "broken") or moved >= seen.frames:
            return state if it.at in ("lost", "broken") else _with(state, it.but(touched=()))
        behind = state.file[captured : seen.frames] if captured < seen.frames else ()
        if any(frame.salt != seen.head for frame in behind):
            return failed(state)
        newer = {frame.page for frame in behind}
        end = min((frame.size for frame in behind if frame.size), default=len(state.main))
        if not self.rules.passed_over_pages_are_unsettled:
            newer, end = set(), len(state.main)
        return _with(
            state,
            it.but(
                touched=tuple(
                    page
                    for page, index in enumerate(it.latest, 1)
                    if index >= 0 and (index >= moved or page in newer or page > end)
                )
            ),
        )


DOES = {
    "down": AgentModel.opens, "look": AgentModel.look, "counts": AgentModel.counts,
    "begin": AgentModel.begin, "scan": AgentModel.scan, "build": AgentModel.build,
    "keep": AgentModel.keep, "let go": AgentModel.let_go, "take barrier": AgentModel.take_barrier,
    "passive": AgentModel.passive, "moving": AgentModel.moving, "release": AgentModel.release,
    "cutting": AgentModel.cutting, "place": AgentModel.place, "place again": AgentModel.place_again,
    "read log": AgentModel.read_log, "read all": AgentModel.read_all, "compare": AgentModel.compare,
    "set cursor": AgentModel.set_cursor, "settle": AgentModel.settle,
}  # fmt: skip


def _with(state: State, it: Agent) -> State:
    return state.but(agent=it)


def _fresh(it: Agent, seen: Look) -> int:
    return seen.frames - it.cursor.frames if seen.head and seen.frames else 0


def _whole_frames(state: State) -> int:
    """Up to the last commit frame in the file that has the salt of its header."""
    frames = 0
    for index, frame in enumerate(state.file, 1):
        if frame.salt != state.head:
            break
        frames = index if frame.size else frames
    return frames


def _next_transaction(state: State, it: Agent) -> tuple[Frame, ...]:
    """() where a frame is not of this log, or not there."""
    for end, frame in enumerate(state.file[it.cursor.frames : it.seen.frames], it.cursor.frames + 1):
        if frame.salt != it.seen.head:
            break
        if frame.size:
            return state.file[it.cursor.frames : end]
    return ()


def _can_read(state: State, seen: Look) -> bool:
    frames = state.file[: seen.frames]
    return len(frames) == seen.frames and all(frame.salt == seen.head for frame in frames)


def _latest(state: State, frames: int) -> tuple[int, ...]:
    found = newest(state.file, frames)
    return tuple(found.get(page, -1) for page in range(1, len(state.main) + 1))


def there(state: State, it: Agent) -> int:
    """How many commits the agent finds when it opens: with read mark 0 those of its transaction, else those in
    the frames it has seen."""
    if it.mark.zero:
        return it.sees
    place = (it.seen.head, it.seen.frames)
    return next(n for n, commit in enumerate(state.commits, 1) if (commit.salt, commit.end) == place)


ANOTHER = -2
"""What is read is not this page at all."""


def believed(state: State, it: Agent, page: int) -> int | None:
    """CapturedPages.before: the version that is read; None where it is not at hand."""
    index = it.latest[page - 1]
    if index >= 0:
        version = page_in(state.file, index, page)
        return ANOTHER if version is None else version
    return None if page in it.unsure else state.main[page - 1]


def believed_database(state: State, it: Agent, size: int) -> tuple[int | None, ...]:
    return tuple(believed(state, it, page) for page in range(1, size + 1))


def wrong_before(state: State, it: Agent, unit: tuple[Frame, ...]) -> str | None:
    """Of the previous versions of the pages that a transaction writes or cuts off."""
    if it.taken > len(state.commits):
        return None
    before, size = content(state.commits[: it.taken]), unit[-1].size
    asked = {frame.page for frame in unit if frame.page <= size} | set(range(size + 1, len(before) + 1))
    for page in sorted(asked):
        if page <= len(before) and believed(state, it, page) not in (before[page - 1], None):
            return f"the version of page {page} before is not the one captured last"
    return None


def down(*, saved: Cursor | None = None, taken: int = 0, rolling: bool = True) -> Agent:
    """What is left on disk."""
    return Agent("down", saved=saved, taken=taken, rolling=rolling)


def closed(state: State) -> State:
    """Everything that was held is let go of."""
    it: Agent = state.agent
    if state.checkpoint is not None and state.checkpoint.ours:
        state = ended(state)
    for slot in (it.held, it.next, it.barrier):
        state = let_go(state, slot)
    if it.barrier >= 0:
        state = state.but(writing=False)
    return _with(state, down(saved=it.saved, taken=it.taken, rolling=it.rolling))


def failed(state: State) -> State:
    """SourceError: everything is closed and opened again. But what was held without a gap can be read."""
    if state.agent.caught_up:
        return broken(state, "what is held in the log cannot be read")
    return closed(state)


def lost(state: State, reason: str) -> State:
    """A new generation begins, and says why: the end of this story."""
    if state.agent.caught_up:
        return broken(state, f"given up though it was held: {reason}")
    if state.agent.taken == len(state.commits) and state.agent.rolling and not state.forked:
        return broken(state, f"given up though nothing has happened: {reason}")
    return _with(closed(state), Agent("lost", reason=reason))


def broken(state: State, what: str) -> State:
    """The end of the story, as it is just now."""
    return _with(state, state.agent.but(at="broken", reason=what))


@cache
def _observation(seen: Look) -> Observation:
    header = WalHeader(512, 0, Salt(seen.head, 0), WalChecksum(0, 0)) if seen.head else None
    return Observation(header, seen.frames, seen.backfilled)


@cache
def judged(cursor: Cursor, seen: Look, allowed: bool) -> Verdict:
    return judge(_cursor(cursor), _observation(seen), reset_allowed=allowed)


@cache
def recognised(cursor: Cursor, seen: Look, frame: Frame | None) -> Continue | Lost | Elsewhere:
    header = None
    if frame is not None:
        header = FrameHeader(frame.page, frame.size, Salt(frame.salt, 0), WalChecksum(frame.version, 0))
    return recognise(_cursor(cursor), _observation(seen), header)


def _cursor(cursor: Cursor) -> WalCursor:
    return WalCursor(Salt(cursor.salt, 0), cursor.frames, WalChecksum(cursor.version, 0))
