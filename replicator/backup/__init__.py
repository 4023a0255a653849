"""The part that makes full backups of a database that goes on being written."""

from replicator.backup.full import ContentDiffers, FullBackup, FullResult

__all__ = ["ContentDiffers", "FullBackup", "FullResult"]
