"""Settings and fixtures that all tests share."""

from hypothesis import settings

# The time one example takes says more about the neighbours of this machine than about the code.
settings.register_profile("replicator", deadline=None, print_blob=True)
settings.load_profile("replicator")
