"""Who we are to the stores, asked of those that answer, and waited for no longer than the application can."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator import introduction
from replicator.core.errors import Interrupted, OwnershipLost, StoreUnavailable
from replicator.core.records import decode_repository
from replicator.deadline import ask_all
from replicator.introduction import Introduction
from replicator.keys import HeldKeys, KeySource
from replicator.state import StateFolder
from replicator.store import Store
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore


class SilentStore(FaultyStore):
    """Takes every call and answers none, until it is told to."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.speaks = threading.Event()

    def get(self, name: str) -> bytes:
        self.speaks.wait()
        return super().get(name)


def introduced(folder: Path, *stores: Store, take_over: bool = False) -> tuple[Introduction, StateFolder]:
    state = StateFolder(str(folder))
    state.open()
    found = Introduction(
        state,
        HeldKeys(KeySource({}), state.keys_path),
        FakeClock(),
        take_over=take_over,
        stopped=lambda: False,
    )
    for store in stores:
        found.enlisting(store)
    return found, state


@contextmanager
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentStore]:
    monkeypatch.setattr(introduction, "STORES_SECONDS", 0.05)
    store = SilentStore(MemoryStore("memory://silent"))
    yield store
    store.speaks.set()


def test_a_store_that_answers_says_who_we_are(tmp_path: Path) -> None:
    """An empty one before it is not told another identity."""
    known, empty = MemoryStore("memory://known"), MemoryStore("memory://empty")
    introduced(tmp_path / "a", known)[0].prepare()
    again, state = introduced(tmp_path / "a2", empty, known, take_over=True)
    again.prepare()

    assert state.repository == decode_repository(empty.get("repository.json"), "it").repository
    assert state.repository == decode_repository(known.get("repository.json"), "it").repository


def test_a_store_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one gets its identity and lease; the silent one when it speaks."""
    with silent(monkeypatch) as store:
        other = MemoryStore("memory://other")
        found, state = introduced(tmp_path, store, other)
        found.prepare()

        assert state.repository
        assert ["leases/00000001.json", "repository.json"] == other.names
        assert 0 == store.calls["put"]


def test_a_database_that_was_followed_asks_nobody(tmp_path: Path) -> None:
    """Without a read mark of ours its log may begin anew: no request comes before that."""
    store = FaultyStore(MemoryStore())
    found, state = introduced(tmp_path, store)
    found.prepare()
    before = dict(store.calls)
    state.close()
    introduced(tmp_path, store)[0].prepare()

    assert before == dict(store.calls)


def test_a_stop_is_waited_for_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted, at once."""
    with silent(monkeypatch) as store:
        monkeypatch.setattr(introduction, "STORES_SECONDS", 60.0)
        state = StateFolder(str(tmp_path))
        state.open()
        stopped = threading.Event()
        found = Introduction(
            state,
            HeldKeys(KeySource({}), state.keys_path),
            FakeClock(),
            take_over=False,
            stopped=stopped.is_set,
        )
        found.enlisting(store)
        stopped.set()
        with pytest.raises(Interrupted):
            found.prepare()


def test_who_takes_over_does_so_once(tmp_path: Path) -> None:
    """An agent that was started with --take-over and is taken over from later finds that out like any other."""
    store = MemoryStore()
    introduced(tmp_path / "first", store)[0].prepare()
    found, _ = introduced(tmp_path / "second", store, take_over=True)
    found.prepare()
    introduced(tmp_path / "third", store, take_over=True)[0].prepare()

    with pytest.raises(OwnershipLost):
        found.enlisting(store)()


def test_what_is_not_a_stores_trouble_is_raised(tmp_path: Path) -> None:
    """A store that belongs to others is found at once; one that is away is left to its ship."""
    store = MemoryStore()
    introduced(tmp_path / "first", store)[0].prepare()
    away = FaultyStore(MemoryStore("memory://away"))
    away.away = True
    with pytest.raises(OwnershipLost):
        introduced(tmp_path / "second", away, store)[0].prepare()

    assert introduced(tmp_path / "third", away)[0].recover() is None


def test_all_are_asked_at_once_and_none_for_long() -> None:
    """Each has the whole time; what is late goes on unheard, and what failed says so."""
    gate = threading.Event()

    def fail() -> None:
        raise StoreUnavailable("away")

    began = time.monotonic()
    late, failed, done = ask_all([gate.wait, fail, lambda: None], 0.1, stopped=lambda: False)
    took = time.monotonic() - began
    gate.set()

    assert took < 5
    assert isinstance(failed.exception(0), StoreUnavailable)
    assert (True, None) == (done.done(), done.exception(0))
    assert late.result(10)
