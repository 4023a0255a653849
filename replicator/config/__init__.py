"""Configuration: what to replicate, where to, how. Flags over the environment over a `replicator.yml`."""

from replicator.config.environment import environment_config, read_environment
from replicator.config.file import load_config
from replicator.config.values import DISABLED, SECONDS_PER_DAY, AgentConfig, DatabaseConfig, require_distinct

__all__ = [
    "DISABLED",
    "SECONDS_PER_DAY",
    "AgentConfig",
    "DatabaseConfig",
    "environment_config",
    "load_config",
    "read_environment",
    "require_distinct",
]
