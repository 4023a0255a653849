"""What lies at a store, understood: for whoever restores, lists, verifies or prunes."""

from replicator.repository.manifests import Manifests
from replicator.repository.nearest import backups_on, nearest_points_named
from replicator.repository.points import newest_carried, newest_point, oldest_point, window
from replicator.repository.reading import Carried, Repository, RestorePoint, damage_named, read_repository

__all__ = [
    "Carried",
    "Manifests",
    "Repository",
    "RestorePoint",
    "backups_on",
    "damage_named",
    "nearest_points_named",
    "newest_carried",
    "newest_point",
    "oldest_point",
    "read_repository",
    "window",
]
