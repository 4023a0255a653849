"""The part that gives a database back: choose a restore point, fetch, apply, prove, rename."""

from replicator.restore.detour import around_damage
from replicator.restore.run import JOBS, Progress, RestoreOptions, RestoreResult, restore_chosen
from replicator.restore.target import Chosen, Target, choose

__all__ = [
    "JOBS",
    "Chosen",
    "Progress",
    "RestoreOptions",
    "RestoreResult",
    "Target",
    "around_damage",
    "choose",
    "restore_chosen",
]
