"""The part that follows a database: it finds its place, captures in rounds, and waits where it must.

``follow`` is the part; ``place`` says where to go on from; ``rounds`` does the following itself.
"""

from replicator.capture.follow import SAFETY_POLL_SECONDS, WAITING_POLL_SECONDS, Follow, FollowSettings
from replicator.capture.rounds import Capture
from replicator.capture.units import ContinuityLost

__all__ = [
    "SAFETY_POLL_SECONDS",
    "WAITING_POLL_SECONDS",
    "Capture",
    "ContinuityLost",
    "Follow",
    "FollowSettings",
]
