"""The part that gives a database back: choose a restore point, fetch, apply, prove, rename."""

from replicator.restore.run import JOBS, Progress, RestoreOptions, RestoreResult, restore_chosen
from replicator.restore.target import (
    Chosen,
    Repository,
    RestorePoint,
    Target,
    choose,
    last_segment,
    newest_point,
    oldest_point,
    read_repository,
    window,
)

__all__ = [
    "JOBS",
    "Chosen",
    "Progress",
    "Repository",
    "RestoreOptions",
    "RestorePoint",
    "RestoreResult",
    "Target",
    "choose",
    "last_segment",
    "newest_point",
    "oldest_point",
    "read_repository",
    "restore_chosen",
    "window",
]
