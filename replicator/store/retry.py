"""Retry: ask again after what may pass by itself, for a short while; whoever calls decides about longer ones."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from replicator.core.catalogue import Listed
from replicator.core.errors import Interrupted, ObjectExists, ReplicatorError, StoreUnavailable
from replicator.store.contract import Kind

T = TypeVar("T")

# Four attempts within some four seconds: longer than a connection that was reset or a server that is restarted
# behind a balancer, shorter than a person waits. The agent's own pauses between steps begin where this ends.
ATTEMPTS = 4
FIRST_SECONDS = 0.2
JITTER_SECONDS = 0.2
LONGEST_SECONDS = 3.0
# First a page as servers give them, for whoever wants the first names only; then more, since beginning again
# behind the last name costs a folder another look at all its names.
PAGE_NAMES = 1_000
PAGE_NAMES_MAX = 64_000
# What a server asks for is honoured up to this; one that asks for more has said that it is not there now.
RETRY_AFTER_SECONDS_MAX = 30.0


class RetryingStore:
    """*stop*, once set, ends a pause at once: the call raises Interrupted."""

    def __init__(self, store: Kind, stop: threading.Event | None = None) -> None:
        self._store = store
        self._stop = stop or threading.Event()
        # The first pause is made before tenacity comes in, so its first is the second.
        self._backoff = wait_exponential_jitter(
            multiplier=2 * FIRST_SECONDS, max=LONGEST_SECONDS, jitter=JITTER_SECONDS
        )

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, name: str, data: bytes) -> None:
        """An attempt that failed may have had its effect all the same: what lies there then is compared."""
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            try:
                self._store.put(name, data)
            except ObjectExists:
                if attempts == 1 or self._store.get(name) != data:
                    raise

        self._call(attempt)

    def get(self, name: str) -> bytes:
        return self._call(lambda: self._store.get(name))

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        return self._call(lambda: self._store.get_start(name, length))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._call(lambda: self._store.get_range(name, offset, length))

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """In pages of our own, each tried again by itself: a long listing is not begun anew."""
        size = PAGE_NAMES
        while True:
            page = self._call(partial(self._page, prefix, after, size))
            yield from page
            if len(page) < size:
                return
            after, size = page[-1].name, min(2 * size, PAGE_NAMES_MAX)

    def _page(self, prefix: str, after: str, size: int) -> tuple[Listed, ...]:
        return tuple(itertools.islice(self._store.list(prefix, after), size))

    def delete(self, name: str) -> None:
        self._call(lambda: self._store.delete(name))

    def replace(self, name: str, data: bytes) -> None:
        self._call(lambda: self._store.replace(name, data))

    def modified(self, name: str) -> int:
        return self._call(lambda: self._store.modified(name))

    def _call(self, call: Callable[[], T]) -> T:
        def attempt() -> T:
            self._require_running()
            answer = call()
            self._require_running()  # who was to be stopped meanwhile may have let go of everything already
            return answer

        try:
            return attempt()  # as nearly always, and then at no cost
        except ReplicatorError as exc:
            if not exc.retryable:
                raise
            self._sleep(_asked_for(exc) or FIRST_SECONDS + random.random() * JITTER_SECONDS)
        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS - 1),
            wait=self._wait,
            retry=retry_if_exception(lambda exc: isinstance(exc, ReplicatorError) and exc.retryable),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        return _asked_for(failure) or self._backoff(state)

    def _require_running(self) -> None:
        if self._stop.is_set():
            raise Interrupted(f"stopped while {self.url} was asked")

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Interrupted(f"stopped while {self.url} was to be asked again")


def _asked_for(failure: BaseException | None) -> float | None:
    """The pause that the server named, if it did."""
    if isinstance(failure, StoreUnavailable) and failure.retry_after is not None:
        return min(failure.retry_after, RETRY_AFTER_SECONDS_MAX)
    return None
