"""The part that looks for damage in a repository, and says what it costs.

``stored`` looks at objects as they lie in a store, with no key; ``content`` understands them; ``run`` puts it together;
``repair`` puts back what can be, ``records`` what is said about the rest.
"""

from replicator.verify.records import Repaired
from replicator.verify.repair import Repair, is_carrier
from replicator.verify.report import LEVELS, Found, Limits, Lost, Progress, Report
from replicator.verify.run import verify

__all__ = [
    "LEVELS",
    "Found",
    "Limits",
    "Lost",
    "Progress",
    "Repair",
    "Repaired",
    "Report",
    "is_carrier",
    "verify",
]
