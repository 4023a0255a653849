"""When a store that failed is asked again."""

from __future__ import annotations

from replicator.core.errors import ReplicatorError, StoreError, StoreUnavailable

RETRY_FIRST_SECONDS = 0.5
RETRY_MAX_SECONDS = 30.0
# A refusal by policy or credentials is asked again only now and then: somebody has to act first.
DENIED_SECONDS = 30.0
# While somebody waits for the end, a store that fails is asked at least this often.
RETRY_HURRIED_SECONDS = 5.0


class Retries:
    """Of one store: ``failures`` in a row, and the time until which it is left alone."""

    def __init__(self) -> None:
        self.failures = 0
        self.not_before = float("-inf")
        self._delay = RETRY_FIRST_SECONDS

    def failed(self, exc: ReplicatorError, now: float) -> float:
        """Count one more; returns the seconds until the next attempt."""
        passing = exc.retryable or not isinstance(exc, StoreError)
        delay = self._delay if passing else DENIED_SECONDS
        if isinstance(exc, StoreUnavailable) and exc.retry_after is not None:
            delay = max(delay, min(exc.retry_after, DENIED_SECONDS))
        self._delay = min(self._delay * 2, RETRY_MAX_SECONDS)
        self.not_before = now + delay
        self.failures += 1
        return delay

    def hurry(self, now: float) -> None:
        self.not_before = min(self.not_before, now + RETRY_HURRIED_SECONDS)

    def succeeded(self) -> None:
        self.failures, self._delay = 0, RETRY_FIRST_SECONDS
