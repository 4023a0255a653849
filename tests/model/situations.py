"""Small worlds that are explored to their ends: who is there, what they may do, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.model.agent_model import AgentModel, Rules
from tests.model.protocol import Protocol, coming, following, returning
from tests.model.wal_model import Application, Left, State, Write, at_first

PAGES = 2
ONE = Write((1,), PAGES)
OTHER = Write((2,), PAGES)
BOTH = Write((1, 2), PAGES)
SHRINK = Write((1,), 1)
PASSIVE = ("PASSIVE",)
WAITING = ("FULL", "RESTART", "TRUNCATE")


@dataclass(frozen=True)
class Situation:
    """``first``: what is in the log when it begins; ``left``: how many transactions there are to come, and how
    often the worst may happen."""

    name: str
    left: Left
    begins: Callable[[State, AgentModel], State] = following
    writes: tuple[Write, ...] = (ONE,)
    first: tuple[Write, ...] = (BOTH,)
    modes: tuple[str, ...] = PASSIVE
    patient: bool = False
    connections: int = 1
    readers: int = 0
    slots: int = 2
    agent: AgentModel = field(default_factory=AgentModel)

    def protocol(self, rules: Rules | None = None, ignored: frozenset[str] = frozenset()) -> Protocol:
        agent = replace(self.agent, rules=rules or Rules())
        state = at_first(PAGES, self.slots, self.first, self.connections, self.left)
        application = Application(self.writes, self.modes, self.readers, self.patient)
        return Protocol(self.begins(state, agent), application, agent, ignored)


BARRIER = AgentModel(barrier=True)
CUTS = AgentModel(truncates=True)
FULL = AgentModel(full=True)
DOUBTS = AgentModel(doubts=True)

SITUATIONS = (
    Situation("a writer", Left(2), writes=(ONE, BOTH)),
    Situation("a writer and a reader", Left(1), writes=(ONE, BOTH), connections=2, readers=1),
    Situation("two writers", Left(2), connections=2),
    Situation("a writer that rolls back or dies", Left(2, rollbacks=1)),
    Situation("checkpoints of every mode", Left(1, kills=1), modes=(*PASSIVE, *WAITING)),
    Situation("checkpoints that wait", Left(2), modes=WAITING, patient=True, agent=DOUBTS),
    Situation("the write barrier", Left(3), modes=(), agent=BARRIER),
    Situation("the write barrier beside a checkpoint", Left(2), agent=BARRIER),
    Situation(
        "the write barrier beside a reader",
        Left(2),
        modes=(),
        connections=2,
        readers=1,
        slots=3,
        agent=BARRIER,
    ),
    Situation("a file that is cut", Left(2), agent=CUTS),
    Situation("a full backup", Left(1), writes=(ONE, SHRINK, BOTH), agent=FULL),
    Situation("the first run", Left(1), begins=coming),
    Situation("a kill at any step", Left(1, crashes=1), agent=replace(BARRIER, truncates=True)),
    Situation("a return", Left(2, departures=1, kills=1, power=1), begins=returning),
    Situation("a return to other pages", Left(2), begins=returning, writes=(ONE, OTHER), first=(ONE,)),
)

LARGER = (
    Situation("a writer", Left(3), writes=(ONE, OTHER)),
    Situation("a writer of everything", Left(3), writes=(ONE, BOTH), first=(BOTH, ONE)),
    Situation("a writer that commits often", Left(4)),
    Situation("a writer and a reader", Left(2), writes=(ONE, BOTH), connections=2, readers=1, slots=3),
    Situation("two writers", Left(2, rollbacks=1), writes=(ONE, BOTH), connections=2),
    Situation("sizes that change", Left(3), writes=(ONE, SHRINK, BOTH)),
    Situation("checkpoints of every mode", Left(2, kills=1), modes=(*PASSIVE, *WAITING)),
    Situation("checkpoints that wait", Left(3), modes=WAITING, patient=True, slots=3, agent=DOUBTS),
    Situation(
        "checkpoints that wait beside a reader",
        Left(2),
        modes=WAITING,
        patient=True,
        connections=2,
        readers=1,
        slots=3,
        agent=DOUBTS,
    ),
    Situation("the write barrier", Left(5), modes=(), writes=(ONE, BOTH), agent=BARRIER),
    Situation(
        "the write barrier beside all others",
        Left(2),
        modes=(*PASSIVE, *WAITING),
        connections=2,
        readers=1,
        slots=3,
        agent=BARRIER,
    ),
    Situation("a file that is cut", Left(3), modes=(*PASSIVE, "TRUNCATE"), agent=CUTS),
    Situation("a full backup", Left(2), writes=(ONE, SHRINK, BOTH), agent=FULL),
    Situation("the first run", Left(3), begins=coming, writes=(ONE, BOTH)),
    Situation("a kill at any step", Left(2, crashes=1), agent=replace(BARRIER, truncates=True)),
    Situation(
        "a kill among everything", Left(2, crashes=1, kills=1, departures=1, power=1), writes=(ONE, BOTH)
    ),
    Situation(
        "a return",
        Left(3, departures=1, kills=1, power=1),
        begins=returning,
        writes=(ONE, OTHER),
        first=(ONE,),
    ),
)
