"""What verify was asked for, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.core.coverage import Stretch
from replicator.core.names import with_revision
from replicator.core.position import GenerationId

LEVELS = ("names", "checksums", "content", "restore")
"""Each looks at all that the one before it does. The first two need no key."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object that is hurt, by its name, and how."""

    name: str
    fault: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Restore points that can no longer be reached."""

    generation: GenerationId
    stretch: Stretch


@dataclass(frozen=True, slots=True)
class Limits:
    """``sample``: the share that is looked at, 0 to 1: of objects by themselves, of backups chunk by chunk, of
    generations that are restored. The last of each is always among them. What all lie on is read as a whole: manifests,
    and from ``content`` on logs and segments."""

    sample: float = 1.0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """``stage`` is one of LEVELS; ``total`` 0 where it is not known."""

    stage: str
    done: int
    total: int


@dataclass(slots=True)
class Sampled:
    """How many of all were chosen; None where that depth was not asked for."""

    objects: tuple[int, int] | None = None
    backups: tuple[int, int] | None = None
    generations: tuple[int, int] | None = None


@dataclass(slots=True)
class Report:
    """``bytes_read``: whatever the store gave, at whatever level. ``sampled``: None where all was looked at. ``notes``:
    what is no damage and should be known. ``ended_early``: time ran out, and not all was looked at."""

    level: str
    objects: int = 0
    bytes_read: int = 0
    restored: int = 0
    found: list[Found] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended_early: bool = False
    sampled: Sampled | None = None

    def tell(self, name: str, fault: str) -> None:
        for spelt in (name, *(with_revision(name, number) for number in range(2, 10))):
            fault = fault.removeprefix(f"{spelt} ")
        fault = fault.removeprefix("is damaged: ")
        if not any(each.name == name for each in self.found):  # the first thing seen of an object is enough
            self.found.append(Found(name, fault))
