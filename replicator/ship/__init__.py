"""Ship: put captured units into one store, in order, each once."""

from replicator.ship.queue import Ship

__all__ = ["Ship"]
