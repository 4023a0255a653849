"""Take one step of the protocol away, and the explorer shows by a shortest way what is lost.

    python -m tests.model.test_mutations [NAME …]

prints those ways. ``ignored`` are properties that would tell sooner, that a transaction is not held or began too late
for instance: without them the trace goes on to the loss itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

import pytest

from tests.model.agent_model import Rules
from tests.model.explorer import Trace, explore
from tests.model.protocol import POSSIBLE, impossible, returning
from tests.model.situations import (
    BARRIER,
    BOTH,
    CUTS,
    DOUBTS,
    FULL,
    ONE,
    OTHER,
    PASSIVE,
    SHRINK,
    WAITING,
    Situation,
)
from tests.model.wal_model import Left

STATES_MAX = 200_000
WAITS = "whoever waits for us can go on"

A_WRITER = Situation("a writer", Left(2))
ROLLED_BACK = Situation("a rollback", Left(1, rollbacks=1))
UNDER_THE_BARRIER = Situation("the barrier", Left(2), modes=(), agent=BARRIER)
CUT = Situation("a file that is cut", Left(2), agent=CUTS)
KILLED = Situation("a kill", Left(2, crashes=1), modes=())
RETURN = Situation("a return", Left(2), begins=returning)
RETURN_TO_OTHERS = Situation("a return", Left(1), begins=returning, first=(ONE,), writes=(OTHER,))
AFTER_A_POWER_CUT = Situation("a power cut", Left(2, power=1), begins=returning, first=(BOTH, ONE))
BACKED_UP = Situation("a full backup", Left(1), writes=(ONE, SHRINK), agent=FULL)
WAITED_FOR = Situation(
    "checkpoints that wait", Left(1), modes=(*PASSIVE, *WAITING), patient=True, agent=DOUBTS
)
WAITED_FOR_LONGER = Situation("checkpoints that wait", Left(2), modes=WAITING, patient=True, agent=DOUBTS)
HELD = frozenset({"held", "mark"})


@dataclass(frozen=True)
class Mutation:
    rule: str
    does: str
    situation: Situation
    finds: str
    ignored: frozenset[str] = frozenset()

    def trace(self) -> Trace | None:
        rules = Rules(**{self.rule: False})
        explored = explore(self.situation.protocol(rules, self.ignored), states_max=STATES_MAX)
        if explored.trace is None and self.finds in POSSIBLE:
            return impossible(explored, self.finds)
        return explored.trace


NOT_HELD = "held: no read transaction is held"
BEHIND = "mark: the transaction held began behind what is captured"
NOT_CAPTURED = "main file: version 2 is in the main file and not captured"
GIVEN_UP = "captured: given up though it was held: the log was emptied under our read transaction"
OTHER_BEFORE = "captured: the version of page 1 before is not the one captured last"
OTHER_FRAMES = "captured: what is captured is not the next commit"
OTHER_CHECKSUM = "captured: the checksum remembered is not the database's"

MUTATIONS = [
    Mutation("newer_begins_first", "ends the older transaction before the newer begins", A_WRITER, NOT_HELD),
    Mutation("newer_begins_first", "likewise, and what comes of it", A_WRITER, NOT_CAPTURED, HELD),
    Mutation("captured_before_the_older_ends", "captures after the older has ended", A_WRITER, BEHIND),
    Mutation(
        "captured_before_the_older_ends", "likewise, and what comes of it", A_WRITER, NOT_CAPTURED, HELD
    ),
    Mutation("looked_at_again_with_the_newer", "hands over without another look", A_WRITER, BEHIND),
    Mutation("locks_are_kept", "opens and closes -shm, which drops the lock", A_WRITER, NOT_CAPTURED, HELD),
    Mutation("counts_are_of_one_moment", "pairs counts of two moments", A_WRITER, GIVEN_UP),
    Mutation("slot_is_told_by_two_looks", "takes the look after for the slot", A_WRITER, GIVEN_UP),
    Mutation("only_what_sqlite_counts", "captures what the file holds", ROLLED_BACK, OTHER_FRAMES),
    Mutation(
        "salts_are_compared",
        "ignores another salt",
        A_WRITER,
        "captured: given up though it was held: the log is shorter than what was captured from it",
    ),
    Mutation("restarted_from_the_end_only", "takes any restart for ours", RETURN, OTHER_CHECKSUM),
    Mutation(
        "restarted_once_only",
        "takes a second restart for ours",
        A_WRITER,
        "pages: version 1 of page 1 is taken for version 3",
    ),
    Mutation(
        "frames_are_forgotten_under_zero",
        "holds slot 0 and reads frames of the old log",
        A_WRITER,
        "pages: version 2 of page 1 is taken for version 1",
    ),
    Mutation(
        "main_is_read_under_zero",
        "compares with frames that are written over",
        RETURN,
        "captured: what is compared is not the database",
    ),
    Mutation("confirmed_before_it_counts", "counts what may be written over", RETURN, OTHER_BEFORE),
    Mutation(
        "pages_from_before_are_unsure",
        "trusts pages that were moved while it was away",
        RETURN_TO_OTHERS,
        "captured: the version of page 2 before is not the one captured last",
    ),
    Mutation("saved_place_is_compared", "goes on by the number of frames", RETURN, OTHER_BEFORE),
    Mutation("content_is_compared", "goes on without comparing the content", RETURN, OTHER_BEFORE),
    Mutation(
        "shorter_logs_are_lost",
        "goes on in a shorter log",
        AFTER_A_POWER_CUT,
        "losses: a commit was captured that the database has no more",
    ),
    Mutation("unit_and_cursor_are_one", "saves its place before the unit", KILLED, OTHER_BEFORE),
    Mutation(
        "captured_under_the_barrier",
        "takes slot 0 under the barrier and captures later",
        UNDER_THE_BARRIER,
        NOT_CAPTURED,
        HELD,
    ),
    Mutation(
        "writers_are_kept_out",
        "takes no write lock",
        UNDER_THE_BARRIER,
        "barrier: the log has new frames though the barrier is held",
    ),
    Mutation("truncated_under_zero_only", "lets go to cut the file", CUT, NOT_HELD),
    Mutation(
        "truncated_under_zero_only",
        "likewise, and what comes of it",
        CUT,
        "pages: version 2 of page 1 is taken for version 1",
        HELD,
    ),
    Mutation(
        "passed_over_pages_are_unsettled",
        "trusts the count of a PASSIVE that passed over pages",
        BACKED_UP,
        "pages: a full backup reads version 0 of page 1 and not 1",
    ),
    Mutation("zero_is_left_after_a_commit", "stays in slot 0 after a commit", WAITED_FOR, WAITS),
    Mutation("hands_change_at_the_end", "stays where the log is all moved", WAITED_FOR, WAITS),
    Mutation("hands_rest_while_in_doubt", "takes a slot that is waited for again", WAITED_FOR_LONGER, WAITS),
    Mutation("in_doubt_under_zero_too", "likewise, coming from slot 0", WAITED_FOR, WAITS),
    Mutation("in_doubt_before_it_is_begun_anew", "likewise, beginning anew", WAITED_FOR_LONGER, WAITS),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.rule}: {mutation.does}")
def test_a_mutation_is_found(mutation: Mutation) -> None:
    """By the property that it breaks, and by no other before."""
    trace = mutation.trace()

    assert trace is not None
    assert trace.violation in (mutation.finds, f"not so: {mutation.finds}")
    assert "at first" in str(trace)


def test_every_rule_has_a_mutation() -> None:
    """A rule that nothing breaks without would be no rule."""
    assert {rule.name for rule in fields(Rules)} == {mutation.rule for mutation in MUTATIONS}


if __name__ == "__main__":
    for each in MUTATIONS:
        if each.rule in sys.argv[1:] or not sys.argv[1:]:
            print(f"\n# {each.does}\n{each.trace()}")
