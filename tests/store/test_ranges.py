"""Large objects in pieces: what they cost, what a line that breaks costs, and how much memory it takes."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import ObjectCorrupt, ObjectNotFound, StoreDenied, StoreUnavailable
from replicator.core.names import METADATA
from replicator.store import connect, ranges
from replicator.store.contract import START_BYTES
from replicator.store.ranges import RANGES_AT_A_TIME, RangedStore
from replicator.store.retry import RetryingStore
from tests.support.memory_store import FaultyStore, MemoryStore
from tests.support.servers import azure, gcs, s3, sftp
from tests.support.servers.wire import Fault, Message, Wire

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 1 << 20
BIG = random.Random(1).randbytes(45 * MEBIBYTE + 7)
# The start, and what is left of BIG in pieces.
PIECES = 1 + -(-(len(BIG) - START_BYTES) // ranges.RANGE_BYTES)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start of 100 bytes and pieces of 40."""
    monkeypatch.setattr(ranges, "START_BYTES", 100)
    monkeypatch.setattr(ranges, "RANGE_BYTES", 40)


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def faulty(inner: MemoryStore) -> FaultyStore:
    return FaultyStore(inner)


class Impatient(threading.Event):
    """No pause is waited for."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


# --- what is asked for ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("size", "pieces"), [(0, 0), (1, 0), (99, 0), (100, 0), (101, 1), (140, 1), (141, 2), (1_000, 23)]
)
def test_an_object_costs_as_many_requests_as_it_is_large(
    inner: MemoryStore, faulty: FaultyStore, size: int, pieces: int
) -> None:
    """One, unless it is larger than the first one asks for; and it is the object."""
    data = random.Random(size).randbytes(size)
    inner.put("object", data)

    assert data == RangedStore(faulty).get("object")
    assert {"get_start": 1, "get_range": pieces} == {**faulty.calls, "get_range": faulty.calls["get_range"]}


@given(size=st.integers(0, 200), start=st.integers(1, 50), piece=st.integers(1, 50))
def test_pieces_are_the_object(size: int, start: int, piece: int) -> None:
    """Whatever their lengths are, to the byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "START_BYTES", start)
        patch.setattr(ranges, "RANGE_BYTES", piece)
        inner = MemoryStore()
        data = random.Random(size).randbytes(size)
        inner.put("object", data)

        assert data == RangedStore(inner).get("object")


@pytest.mark.usefixtures("small")
def test_so_many_pieces_are_under_way_at_once() -> None:
    """Threads: four, neither more nor fewer."""
    gate = threading.Barrier(RANGES_AT_A_TIME)
    running, most = 0, 0
    lock = threading.Lock()

    class Slow(MemoryStore):
        def get_range(self, name: str, offset: int, length: int) -> bytes:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            gate.wait(10)  # as many have to be in here, or none comes out
            with lock:
                running -= 1
            return super().get_range(name, offset, length)

    slow = Slow()
    slow.put("object", bytes(100 + 12 * 40))
    RangedStore(slow).get("object")

    assert RANGES_AT_A_TIME == most


@pytest.mark.usefixtures("small")
def test_what_may_be_replaced_is_read_at_once(inner: MemoryStore, faulty: FaultyStore) -> None:
    """Pieces of it could be of the old one and of the new."""
    inner.put(METADATA, bytes(1_000))

    assert bytes(1_000) == RangedStore(faulty).get(METADATA)
    assert {"get": 1} == dict(faulty.calls)


# --- what goes wrong -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_a_piece_that_fails_is_asked_for_again_by_itself(inner: MemoryStore, faulty: FaultyStore) -> None:
    """What came before it, and what comes after, is asked for once."""
    inner.put("object", data := secrets.token_bytes(1_000))
    faulty.fail("get_start")
    for skip in (0, 5, 6, 20):
        faulty.fail("get_range", skip=skip)

    assert data == RangedStore(RetryingStore(faulty, Impatient())).get("object")
    assert {"get_start": 2, "get_range": 23 + 4} == dict(faulty.calls)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreDenied("no"), ObjectNotFound("object")])
@pytest.mark.parametrize("number", [0, 6, 247])
def test_a_piece_that_goes_on_failing_is_the_error(
    inner: MemoryStore, faulty: FaultyStore, error: Any, number: int
) -> None:
    """As it is, and soon: what is under way ends, and nothing further is asked for. The last piece is no exception."""
    inner.put("object", bytes(100 + 248 * 40))
    faulty.fail("get_range", skip=number, error=error)
    with pytest.raises(type(error)) as caught:
        RangedStore(faulty).get("object")

    assert error is caught.value
    assert faulty.calls["get_range"] <= number + 2 * RANGES_AT_A_TIME
    assert not [each for each in threading.enumerate() if each.name.startswith("range")]


@pytest.mark.usefixtures("small")
def test_an_object_that_is_cut_off_meanwhile_is_corrupt(inner: MemoryStore) -> None:
    """It is shorter than was told with its start."""

    class Cut(MemoryStore):
        def get_start(self, name: str, length: int) -> tuple[bytes, int]:
            found = super().get_start(name, length)
            self.damage(name, lambda data: data[:300])
            return found

    store = Cut()
    store.put("object", bytes(1_000))
    with pytest.raises(ObjectCorrupt, match="object ends at byte 300"):
        RangedStore(store).get("object")


def test_a_size_that_is_made_up_takes_no_memory() -> None:
    """What a store says is no reason to reserve a petabyte."""

    class Boasting(MemoryStore):
        def get_start(self, name: str, length: int) -> tuple[bytes, int]:
            return super().get_start(name, length)[0], 1 << 50

    store = Boasting()
    store.put("object", bytes(1_000))
    tracemalloc.start()
    try:
        with pytest.raises(ObjectCorrupt):
            RangedStore(store).get("object")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < MEBIBYTE


# --- over the wire -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """How a kind is started, where a store of it is, and with which environment it opens, through a proxy or not."""

    start: Callable[[Path], AbstractContextManager[Any]]
    url: Callable[[Any], str]
    environ: Callable[[Any, str], dict[str, str]]


SERVED = {
    "s3": Served(
        lambda _: s3.seaweed(),
        lambda _: f"s3://{s3.BUCKET}",
        lambda server, endpoint: server.environ(BACKUP_S3_ENDPOINT=endpoint or server.endpoint),
    ),
    "gs": Served(
        lambda _: gcs.gcs_server(),
        lambda _: f"gs://{gcs.BUCKET}",
        lambda server, endpoint: {"STORAGE_EMULATOR_HOST": endpoint or server.endpoint},
    ),
    "azure": Served(
        lambda _: azure.azurite_server(),
        lambda _: f"azure://{azure.ACCOUNT}/{azure.CONTAINER}",
        lambda server, endpoint: (
            server.environ | ({"BACKUP_AZURE_ENDPOINT": f"{endpoint}/{azure.ACCOUNT}"} if endpoint else {})
        ),
    ),
    "sftp": Served(
        sftp.asyncssh_server, lambda server: server.url("/ranges"), lambda server, _: server.environ
    ),
}
HTTP = ("s3", "gs", "azure")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    running: dict[str, Any] = {}
    with ExitStack() as stack:

        def get(kind: str) -> Any:
            if kind not in running:
                running[kind] = stack.enter_context(SERVED[kind].start(tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield get


@dataclass
class Line:
    """A store behind a proxy; ``asked``: the first byte of what was asked for, of each answer to a get."""

    store: RangedStore
    wire: Wire

    @property
    def asked(self) -> list[int]:
        return [first_byte(each.request) for each in self.wire.seen if each.request.method == "GET"]


def first_byte(request: Message) -> int:
    """Of its range; -1 where it has none."""
    told = request.get("range") or request.get("x-ms-range")
    return int(told.removeprefix("bytes=").partition("-")[0]) if told else -1


@pytest.fixture(params=HTTP)
def line(
    request: pytest.FixtureRequest, servers: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Line]:
    served, server = SERVED[request.param], servers(request.param)
    upstream = "/".join(server.endpoint.split("/")[:3])
    with Wire(upstream) as wire:
        for name, value in served.environ(server, wire.endpoint).items():
            monkeypatch.setenv(name, value)
        yield Line(connect(f"{served.url(server)}/{secrets.token_hex(8)}"), wire)


def test_a_small_object_is_one_request(line: Line) -> None:
    """Also one of the size of a pack, and one as large as the first request asks for; an empty one everywhere."""
    for size in (0, 1_000, 8 * MEBIBYTE, START_BYTES):
        line.store.put(f"object/{size}", BIG[:size])
        line.wire.seen.clear()

        assert BIG[:size] == line.store.get(f"object/{size}")
        assert ["GET"] == [each.request.method for each in line.wire.seen]


@pytest.mark.parametrize("harm", ["truncated", "before", "after"])
def test_a_download_that_breaks_goes_on_where_it_broke(line: Line, harm: str) -> None:
    """What had come is not fetched again: of all pieces one is asked for twice."""
    line.store.put("big", BIG)
    line.wire.seen.clear()
    broken = START_BYTES + 2 * ranges.RANGE_BYTES
    left = [Fault(harm)]

    def fault(request: Message) -> Fault | None:
        return left.pop() if left and first_byte(request) == broken else None

    line.wire.fault = fault
    found = line.store.get("big")

    assert not left
    assert found == BIG
    answered = line.asked
    starts = [0, *range(START_BYTES, len(BIG), ranges.RANGE_BYTES)]
    assert PIECES == len(starts)
    assert sorted([*starts, *([broken] if harm != "before" else [])]) == sorted(answered)


def test_a_line_on_which_everything_breaks_once_brings_it_all(line: Line) -> None:
    """The whole object in one would need luck to come over it."""
    line.store.put("big", BIG)
    line.wire.seen.clear()
    broken: set[int] = set()

    def fault(request: Message) -> Fault | None:
        if request.method != "GET" or first_byte(request) in broken:
            return None
        broken.add(first_byte(request))
        return Fault("truncated")

    line.wire.fault = fault

    assert line.store.get("big") == BIG
    assert 2 * PIECES == len(line.asked)


@pytest.mark.parametrize("kind", [*SERVED, "folder"])
def test_every_kind_brings_large_objects(
    servers: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As they were put, and so that what is not there is still not found."""
    url = str(tmp_path)
    if kind != "folder":
        url = SERVED[kind].url(servers(kind))
        for name, value in SERVED[kind].environ(servers(kind), "").items():
            monkeypatch.setenv(name, value)
    store = connect(f"{url}/{secrets.token_hex(8)}")
    store.put("big", BIG)

    assert store.get("big") == BIG
    with pytest.raises(ObjectNotFound):
        store.get("bigger")


BESIDE = """
import sys
from replicator.store import connect
from tests.support.peak import peak

store = connect(sys.argv[1])
store.get("small")  # the SDK is loaded
begun = peak()
size = len(store.get("big"))
print(peak() - begun - size, size)
"""


@pytest.mark.parametrize("kind", [*SERVED, "folder"])
def test_memory_stays_beside_the_object(servers: Callable[[str], Any], tmp_path: Path, kind: str) -> None:
    """Another process: to get 192 MiB takes them once, and less than 64 MB beside."""
    environ, url = dict(os.environ), str(tmp_path)
    if kind != "folder":
        environ |= SERVED[kind].environ(servers(kind), "")
        url = SERVED[kind].url(servers(kind))
    url = f"{url}/{secrets.token_hex(8)}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        store = connect(url)
        store.put("small", b"x")
        store.put("big", bytes(192 * MEBIBYTE))
    command = [sys.executable, "-c", BESIDE, url]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False
    )

    assert 0 == done.returncode, done.stderr
    beside, size = map(int, done.stdout.split())
    assert 192 * MEBIBYTE == size
    assert beside < 64_000_000
