"""Harm done on the wire between an agent and an S3 server, with a writer that goes on.

After each: nothing lost, nothing doubled, what is restored is what was committed, ``status`` is clear again, and it
took no second full backup. The proxy breaks connections and answers; neither agent nor server knows of it.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import replicator
from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.core.errors import ReplicatorError
from replicator.core.names import FullName, SegmentName, parse_name
from replicator.restore import read_repository
from replicator.ship import queue
from replicator.store import connect
from tests.support import oracle
from tests.support.app import App
from tests.support.servers import s3
from tests.support.servers.wire import Fault, Message, Seen, Wire, first

SETTLED_SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[s3.S3Server]:
    with s3.seaweed() as server:
        yield server


@dataclass
class Scene:
    """An application and an agent that follows it over the wire; ``rest`` waits until all is shipped."""

    wire: Wire
    app: App
    agent: Agent
    url: str
    database: Path

    def rest(self) -> None:
        self.agent.wait_captured_and_shipped(SETTLED_SECONDS)

    @property
    def error(self) -> str | None:
        (snapshot,) = self.agent.status().values()
        return snapshot.error.message if snapshot.error else None


def agent_of(database: Path, url: str) -> Agent:
    agent = Agent([DatabaseConfig(str(database), (url,), ship_interval=0.02)])
    agent.start()
    return agent


@contextmanager
def scene_on(server: s3.S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    url, database = f"s3://{s3.BUCKET}/{secrets.token_hex(8)}", folder / "app.db"
    with Wire(server.endpoint) as wire, App(str(database)) as app:
        for name, value in server.environ(BACKUP_S3_ENDPOINT=wire.endpoint).items():
            monkeypatch.setenv(name, value)
        app.insert(5)
        scene = Scene(wire, app, agent_of(database, url), url, database)
        try:
            scene.rest()
            yield scene
            wire.fault = lambda _: None
            app.insert(3)
            scene.rest()
            assert scene.error is None
        finally:
            scene.agent.stop()
        require_whole(scene, folder / "out.db")


def require_whole(scene: Scene, out: Path) -> None:
    """The repository restores to what the database is, by one full backup, and no transaction lies in it twice."""
    repository = read_repository(connect(scene.url))
    (generation,) = repository.catalogue.generations
    names = [parse_name(each.name) for each in connect(scene.url).list("")]
    segments = [each for each in names if isinstance(each, SegmentName)]
    replicator.restore(scene.url, str(out))

    assert 1 == sum(isinstance(each, FullName) for each in names), names
    assert len(segments) == len({(each.generation, each.txid_first, each.part) for each in segments})
    assert generation.generation == segments[0].generation
    assert [] == list(repository.catalogue.strays)
    assert oracle.database_digest(scene.database) == oracle.database_digest(out)


def is_segment(request: Message) -> bool:
    return request.method == "PUT" and "/tail/" in request.path


ANSWERS = {
    "503": Fault("answer", 503, (), b"<Error><Code>SlowDown</Code></Error>"),
    "503, Retry-After": Fault(
        "answer", 503, (("Retry-After", "1"),), b"<Error><Code>SlowDown</Code></Error>"
    ),
    "429": Fault("answer", 429),
    "408": Fault("answer", 408, (), b"<Error><Code>RequestTimeout</Code></Error>"),
    "500": Fault("answer", 500),
}
RESETS = {when: Fault(when) for when in ("before", "during", "after")}


@pytest.mark.parametrize("times", [1, 6])
@pytest.mark.parametrize("fault", [*RESETS, *ANSWERS])
def test_a_put_that_fails(
    server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, times: int
) -> None:
    """Once, which a retry hides; and so often that the agent itself has to come back to it."""
    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.wire.fault = first(times, (RESETS | ANSWERS)[fault], is_segment)
        for _ in range(times):
            scene.app.insert(2)
        scene.rest()


def test_a_server_that_hangs(server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the bytes and says nothing: commits go on being captured, and all is well once it answers."""
    with scene_on(server, tmp_path, monkeypatch) as scene:
        hangs = threading.Event()

        def fault(request: Message) -> Fault | None:
            if is_segment(request) and not hangs.is_set():
                hangs.set()
                return Fault("hang")
            return None

        scene.wire.fault = fault
        scene.app.insert(1)
        assert hangs.wait(30)
        scene.app.insert(20)
        before = scene.agent.status()
        scene.wire.release()
        scene.rest()

    (snapshot,) = before.values()
    assert snapshot.source.phase == "following"


def test_a_slow_server_delays_nobody(
    server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 200 ms on each request the application writes as before."""
    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.wire.delay = 0.2
        scene.app.insert(100)
        scene.rest()
        scene.wire.delay = 0.0


OUTAGES: dict[str, tuple[Fault, str]] = {
    "expired token": (
        Fault("answer", 403, (), b"<Error><Code>ExpiredToken</Code></Error>"),
        "session token has expired",
    ),
    "skewed clock": (
        Fault("answer", 403, (), b"<Error><Code>RequestTimeTooSkewed</Code></Error>"),
        "set the clock",
    ),
    "bucket gone": (Fault("answer", 404, (), b"<Error><Code>NoSuchBucket</Code></Error>"), "create it"),
    "network gone": (Fault("before"), ""),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_with_the_writer_going_on(
    server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    """Every request fails for a while; ``status`` says why and what to do, and afterwards all is caught up."""
    monkeypatch.setattr(queue, "DENIED_SECONDS", 0.5)
    fault, hint = OUTAGES[outage]
    with scene_on(server, tmp_path, monkeypatch) as scene:
        told = threading.Event()
        scene.wire.fault = lambda _: fault
        for _ in range(50):
            scene.app.insert(4)
            (snapshot,) = scene.agent.status().values()
            if snapshot.error is not None and hint in (snapshot.error.hint or ""):
                told.set()
                break
            told.wait(0.2)
        scene.app.insert(20)
        scene.wire.fault = lambda _: None
        scene.rest()

    assert told.is_set()


@pytest.mark.parametrize("when", ["truncated", "flipped"])
def test_an_answer_that_was_damaged_on_the_way_is_no_restore(
    server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Each object in turn: the restore is right, by asking again, or it is refused."""
    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.app.insert(30)
        scene.rest()
        scene.wire.seen.clear()
        replicator.restore(scene.url, str(tmp_path / "first.db"))
        paths = sorted({each.request.path for each in scene.wire.seen if each.request.method == "GET"})
        right = oracle.database_digest(tmp_path / "first.db")
        outcomes = [_restored(scene, tmp_path, path, when, right) for path in paths]

    assert "right" in outcomes or "refused" in outcomes
    assert set(outcomes) <= {"right", "refused"}, dict(zip(paths, outcomes, strict=True))


def _restored(scene: Scene, folder: Path, path: str, when: str, right: object) -> str:
    scene.wire.fault = first(1, Fault(when), lambda request: request.method == "GET" and request.path == path)
    out = folder / f"{secrets.token_hex(4)}.db"
    try:
        replicator.restore(scene.url, str(out))
    except ReplicatorError:
        return "refused" if not out.exists() else "left behind"
    finally:
        scene.wire.fault = lambda _: None
    return "right" if oracle.database_digest(out) == right else "WRONG"


def test_a_listing_that_lags_behind(
    server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that starts again is shown the tail as it was some segments ago: it finds its own and goes on."""
    old: dict[str, Message] = {}

    def remember(seen: Seen) -> None:
        if is_list(seen.request):
            old[seen.request.path] = seen.answer

    def stale(request: Message) -> Fault | None:
        answer = old.get(request.path) if is_list(request) else None
        return Fault("answer", answer.status, answer.fields, answer.body) if answer else None

    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.wire.answered = remember
        restart(scene)
        scene.wire.answered = lambda _: None
        for _ in range(4):
            scene.app.insert(2)
            scene.rest()
        scene.wire.fault = stale
        restart(scene)
        scene.app.insert(2)
        scene.rest()

    assert any("/tail/" in path or "tail%2F" in path for path in old), list(old)


def is_list(request: Message) -> bool:
    return request.method == "GET" and "list-type" in request.path


def restart(scene: Scene) -> None:
    """The agent of *scene* ends; another one with the same state follows, ships, and ends."""
    scene.agent.stop()
    scene.agent = agent_of(scene.database, scene.url)
    scene.rest()


def test_credentials_that_may_not_delete(
    server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Append-only keys are a documented way to run: nothing of it is an error."""
    denied = Fault("answer", 403, (), b"<Error><Code>AccessDenied</Code></Error>")

    def refused(request: Message) -> Fault | None:
        return denied if request.method == "DELETE" or "?delete" in request.path else None

    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.wire.fault = refused
        scene.app.insert(5)
        scene.rest()
        restart(scene)
        scene.app.insert(5)
        scene.rest()

        assert scene.error is None
