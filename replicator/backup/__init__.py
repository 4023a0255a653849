"""The part that makes full backups of a database that goes on being written."""

from replicator.backup.full import ContentDiffers, FullBackup, FullResult
from replicator.backup.incremental import IncrementalBackup, IncrementalResult, NoParent

__all__ = [
    "ContentDiffers",
    "FullBackup",
    "FullResult",
    "IncrementalBackup",
    "IncrementalResult",
    "NoParent",
]
