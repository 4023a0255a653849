"""The part that looks for damage in a repository, and says what it costs.

``stored`` looks at objects as they lie in a store, with no key; ``content`` understands them; ``run`` puts it together.
"""

from replicator.verify.run import LEVELS, Found, Limits, Lost, Progress, Report, verify

__all__ = ["LEVELS", "Found", "Limits", "Lost", "Progress", "Report", "verify"]
