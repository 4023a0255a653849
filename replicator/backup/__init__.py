"""The part that makes full and incremental backups of a database that goes on being written."""

from replicator.backup.full import ContentDiffers, FullBackup, FullResult
from replicator.backup.incremental import IncrementalBackup, IncrementalResult, NoParent
from replicator.backup.making import AS_USUAL, Making

__all__ = [
    "AS_USUAL",
    "ContentDiffers",
    "FullBackup",
    "FullResult",
    "IncrementalBackup",
    "IncrementalResult",
    "Making",
    "NoParent",
]
