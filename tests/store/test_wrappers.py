"""What each wrapper of a store adds: attempts, limits, counters; pauses are the test's own."""

from __future__ import annotations

import itertools
import logging
import threading

import pytest

from replicator.core.errors import Interrupted, ObjectExists, ObjectNotFound, StoreDenied, StoreUnavailable
from replicator.store import retry as retry_module
from replicator.store.limits import Bandwidth, FewAtATime
from replicator.store.observe import ObservedStore
from replicator.store.retry import RetryingStore
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore


class Pauses(threading.Event):
    """Nobody waits: what was to be waited is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def faulty(inner: MemoryStore) -> FaultyStore:
    return FaultyStore(inner)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def store(faulty: FaultyStore, pauses: Pauses) -> RetryingStore:
    return RetryingStore(faulty, pauses)


# --- retry ---------------------------------------------------------------------------------------------


def test_what_passes_is_asked_again_with_growing_pauses(
    store: RetryingStore, faulty: FaultyStore, pauses: Pauses
) -> None:
    """Three failures and a success are a success; each pause is longer, and never beyond its bound."""
    for skip in range(3):
        faulty.fail("put", skip=skip)
    store.put("a", b"1")

    assert b"1" == store.get("a")
    assert 3 == len(pauses.asked)
    low = [retry_module.FIRST_SECONDS * 2**n for n in range(3)]
    assert all(
        floor <= asked <= floor + retry_module.JITTER_SECONDS
        for floor, asked in zip(low, pauses.asked, strict=True)
    )


def test_it_is_given_up_after_some_attempts(store: RetryingStore, faulty: FaultyStore) -> None:
    """The last failure comes through as it is."""
    faulty.away = True

    with pytest.raises(StoreUnavailable):
        store.get("a")
    assert retry_module.ATTEMPTS == faulty.calls["get"]


def test_what_does_not_pass_is_not_asked_again(store: RetryingStore, faulty: FaultyStore) -> None:
    """Whether it may pass is the error's to say."""
    faulty.fail("get", error=StoreDenied("no"))
    with pytest.raises(StoreDenied):
        store.get("a")
    with pytest.raises(ObjectNotFound):
        store.get("a")

    assert 2 == faulty.calls["get"]


def test_a_put_that_had_its_effect_is_not_taken_for_somebody_elses(
    store: RetryingStore, faulty: FaultyStore, inner: MemoryStore
) -> None:
    """The second attempt meets our own bytes, and is content; other bytes there are ObjectExists."""
    faulty.fail("put", after=True)
    store.put("ours", b"1")
    inner.put("theirs", b"2")
    faulty.fail("put")

    with pytest.raises(ObjectExists):
        store.put("theirs", b"1")
    with pytest.raises(ObjectExists):
        store.put("ours", b"1")  # the first attempt is nobody's repetition
    assert (b"1", b"2") == (store.get("ours"), store.get("theirs"))


def test_a_replacing_that_had_its_effect_is_made_again(
    store: RetryingStore, faulty: FaultyStore, inner: MemoryStore
) -> None:
    """With the same bytes, and nothing is compared; what is denied is asked once."""
    faulty.fail("replace", after=True)
    faulty.fail("modified")
    store.replace("metadata.json", b"new")
    told = store.modified("metadata.json")
    faulty.fail("replace", error=StoreDenied("it may only add"))
    with pytest.raises(StoreDenied, match="it may only add"):
        store.replace("metadata.json", b"newer")

    assert b"new" == store.get("metadata.json")
    assert inner.modified("metadata.json") == told
    assert (3, 2) == (faulty.calls["replace"], faulty.calls["modified"])


def test_a_server_that_names_a_pause_gets_it(
    store: RetryingStore, faulty: FaultyStore, pauses: Pauses
) -> None:
    """Retry-After is honoured up to a bound."""
    faulty.fail("get", error=StoreUnavailable("slow down", retry_after=7.5))
    faulty.fail("get", skip=1, error=StoreUnavailable("slow down", retry_after=9_000.0))
    with pytest.raises(ObjectNotFound):
        store.get("a")

    assert [7.5, retry_module.RETRY_AFTER_SECONDS_MAX] == pauses.asked


def test_a_stop_ends_the_pause(inner: MemoryStore) -> None:
    """Interrupted comes at once, and the store is not asked again."""
    stop = threading.Event()

    class Stopping(FaultyStore):
        def get(self, name: str) -> bytes:
            stop.set()
            return super().get(name)

    faulty = Stopping(inner)
    faulty.away = True
    for _ in range(2):
        with pytest.raises(Interrupted):
            RetryingStore(faulty, stop).get("a")
    assert 1 == faulty.calls["get"]


def test_what_comes_after_a_stop_is_dropped(inner: MemoryStore) -> None:
    """Whoever called may have let go of everything by then; what was put is found at the next start."""
    stop = threading.Event()

    class Stopping(MemoryStore):
        def put(self, name: str, data: bytes) -> None:
            inner.put(name, data)
            stop.set()

    with pytest.raises(Interrupted):
        RetryingStore(Stopping(), stop).put("a", b"it")
    assert b"it" == inner.get("a")


def test_a_long_listing_goes_on_where_it_broke_off(
    store: RetryingStore, faulty: FaultyStore, inner: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name comes once, in order, whichever page fails."""
    monkeypatch.setattr(retry_module, "PAGE_NAMES", 10)
    monkeypatch.setattr(retry_module, "PAGE_NAMES_MAX", 10)
    names = [f"{number:03}" for number in range(35)]
    for name in names:
        inner.put(name, b"")
    for skip in (0, 2, 3, 6):
        faulty.fail("list", skip=skip)

    assert names == [each.name for each in store.list("")]
    assert 4 + 4 == faulty.calls["list"]


# --- limits --------------------------------------------------------------------------------------------


def test_no_more_than_so_many_calls_at_a_time() -> None:
    """Ten threads, two slots: never three at once; a listing holds none while nobody asks for more."""
    running, most = 0, 0
    lock, gate = threading.Lock(), threading.Barrier(2)

    class Slow(MemoryStore):
        def get(self, name: str) -> bytes:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            gate.wait(10)  # two have to be in here, or nobody comes out
            with lock:
                running -= 1
            return super().get(name)

    slow = Slow()
    store = FewAtATime(slow, 2)
    for name in "ab":
        store.put(name, b"")
    open_listing = iter(store.list(""))
    next(open_listing)
    threads = [threading.Thread(target=store.get, args=("a",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert 2 == most
    assert "b" == next(open_listing).name


def test_bytes_are_spread_over_time(inner: MemoryStore) -> None:
    """At 1,000 bytes a second ten objects of 500 take five seconds, whoever puts or gets them."""
    clock = FakeClock()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    store = Bandwidth(inner, 1_000, clock, sleep)
    began = clock.now()
    for number in range(4):
        store.put(str(number), bytes(500))
        store.get(str(number))
    store.replace("0", bytes(500))
    store.get_start("0", 500)
    store.get_range("0", 0, 100)

    assert clock.now() - began == pytest.approx(5.0)
    assert max(slept) == pytest.approx(0.5)


def test_a_quiet_time_is_no_credit(inner: MemoryStore) -> None:
    """After an hour without any call the rate is what it was."""
    clock = FakeClock()
    store = Bandwidth(inner, 1_000, clock, clock.advance)
    clock.advance(3600)
    began = clock.now()
    for number in range(4):
        store.put(str(number), bytes(1_000))

    assert clock.now() - began == pytest.approx(3.0)


# --- observe -------------------------------------------------------------------------------------------


def test_calls_and_bytes_are_counted(faulty: FaultyStore) -> None:
    """By operation; an answer that is no is an answer, a failure is counted as one."""
    store = ObservedStore(faulty)
    store.put("a", bytes(10))
    store.get("a")
    store.get_range("a", 0, 3)
    store.get_start("a", 4)
    list(store.list(""))
    store.replace("a", bytes(5))
    store.modified("a")
    store.delete("a")
    with pytest.raises(ObjectNotFound):
        store.get("a")
    with pytest.raises(ObjectNotFound):
        store.modified("a")
    faulty.away = True
    with pytest.raises(StoreUnavailable):
        list(store.list(""))

    assert {
        "put": 1, "get": 4, "list": 2, "delete": 1, "replace": 1, "modified": 2, "failed": 1,
        "bytes_put": 15, "bytes_got": 17,
    } == store.counters  # fmt: skip


def test_each_call_is_a_line(inner: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    """With the key, the bytes, and what went wrong; never an object's content."""
    caplog.set_level(logging.DEBUG, logger="replicator")
    store = ObservedStore(inner)
    store.put("a", b"secret")
    with pytest.raises(ObjectNotFound):
        store.get("b")

    assert ["store.put", "store.get"] == [record.getMessage() for record in caplog.records]
    assert ["a", "b"] == [record.__dict__["key"] for record in caplog.records]
    assert "object not found: b" == caplog.records[1].__dict__["error"]
    assert "secret" not in "".join(str(record.__dict__) for record in caplog.records)


def test_wrappers_go_around_each_other(inner: MemoryStore) -> None:
    """In any order, and each still says where the store is."""
    for order in itertools.permutations((RetryingStore, ObservedStore, lambda each: FewAtATime(each, 3))):
        store = inner
        for wrap in order:
            store = wrap(store)
        assert inner.url == store.url
        assert [] == list(store.list("none/"))
