"""Harm done on the wire between an agent and a server, with a writer that goes on.

After each: nothing lost, nothing doubled, what is restored is what was committed, ``status`` is clear again, and it
took no second full backup. The proxy breaks connections and answers; neither agent nor server knows of it.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

import replicator
from replicator.agent import Agent
from replicator.cli.checks import Level, check_store
from replicator.config import DatabaseConfig
from replicator.core.errors import ReplicatorError
from replicator.core.names import FullName, SegmentName, parse_name
from replicator.repository import read_repository
from replicator.ship import retries
from replicator.store import connect
from tests.support import oracle
from tests.support.app import App
from tests.support.servers import azure, gcs, s3
from tests.support.servers.wire import Fault, Message, Seen, Wire, first

SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class Kind:
    """How its server starts and where that listens; and, of a way there, the URL of a store and its settings."""

    start: Callable[[], AbstractContextManager[Any]]
    upstream: Callable[[Any], str]
    url: str
    environ: Callable[[Any, str], dict[str, str]]


KINDS = {
    "s3": Kind(
        s3.seaweed,
        lambda server: server.endpoint,
        f"s3://{s3.BUCKET}",
        lambda server, endpoint: server.environ(BACKUP_S3_ENDPOINT=endpoint),
    ),
    "gs": Kind(
        gcs.gcs_server,
        lambda server: server.endpoint,
        f"gs://{gcs.BUCKET}",
        lambda _, endpoint: {"STORAGE_EMULATOR_HOST": endpoint},
    ),
    "azure": Kind(
        azure.azurite_server,
        lambda server: server.endpoint.rpartition("/")[0],
        f"azure://{azure.ACCOUNT}/{azure.CONTAINER}",
        lambda server, endpoint: {
            **server.environ,
            "BACKUP_AZURE_ENDPOINT": f"{endpoint}/{azure.ACCOUNT}",
        },
    ),
}


@dataclass(frozen=True)
class Server:
    """One that runs, of that kind."""

    kind: Kind
    running: Any


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[[str], Server]]:
    """Each kind's server starts with the first test that asks for it."""
    servers: dict[str, Server] = {}
    with ExitStack() as stack:

        def get(name: str) -> Server:
            if name not in servers:
                kind = KINDS[name]
                servers[name] = Server(kind, stack.enter_context(kind.start()))
            return servers[name]

        yield get


@pytest.fixture
def server(started: Callable[[str], Server]) -> Server:
    """S3, where nothing else is said."""
    return started("s3")


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

    def break_down(self, fault: Fault, hint: str) -> bool:
        """Every request meets *fault* from now on; whether ``status`` told of it, with that *hint*."""
        self.wire.fault = lambda _: fault
        for _ in range(50):
            self.app.insert(4)
            (snapshot,) = self.agent.status().values()
            if snapshot.error is not None and hint in (snapshot.error.hint or ""):
                return True
            time.sleep(0.2)
        return False


def agent_of(database: Path, url: str) -> Agent:
    agent = Agent([DatabaseConfig(str(database), (url,), ship_interval=0.02)])
    agent.start()
    return agent


@contextmanager
def scene_on(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    kind = server.kind
    url, database = f"{kind.url}/{secrets.token_hex(8)}", folder / "app.db"
    with Wire(kind.upstream(server.running)) as wire, App(str(database)) as app:
        for name, value in kind.environ(server.running, wire.endpoint).items():
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
    """A put of one. Google's names the object in its body."""
    said = unquote(request.path) + request.body[:1000].decode("latin-1")
    return request.method in ("PUT", "POST") and "/tail/" in said


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


HARM = [("s3", fault, times) for fault in (*RESETS, *ANSWERS) for times in (1, 6)]
HARM += [(kind, fault, 6) for kind in ("gs", "azure") for fault in (*RESETS, *ANSWERS)]


@pytest.mark.parametrize(("kind", "fault", "times"), HARM)
def test_a_put_that_fails(
    started: Callable[[str], Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    fault: str,
    times: int,
) -> None:
    """Once, which a retry hides; and so often that the agent itself has to come back to it."""
    with scene_on(started(kind), tmp_path, monkeypatch) as scene:
        scene.wire.fault = first(times, (RESETS | ANSWERS)[fault], is_segment)
        for _ in range(times):
            scene.app.insert(2)
        scene.rest()


def test_a_server_that_hangs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_slow_server_delays_nobody(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 200 ms on each request the application writes as before."""
    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.wire.delay = 0.2
        scene.app.insert(100)
        scene.rest()
        scene.wire.delay = 0.0


def refused(status: int, code: str) -> Fault:
    """In the words of S3; ``x-ms-error-code`` is where Azure looks."""
    body = f"<Error><Code>{code}</Code></Error>".encode()
    return Fault("answer", status, (("x-ms-error-code", code),), body)


# What `status` has to say then.
OUTAGES: dict[tuple[str, str], tuple[Fault, str]] = {
    ("s3", "expired token"): (refused(403, "ExpiredToken"), "session token has expired"),
    ("s3", "skewed clock"): (refused(403, "RequestTimeTooSkewed"), "set the clock"),
    ("s3", "bucket gone"): (refused(404, "NoSuchBucket"), "create it"),
    ("s3", "network gone"): (Fault("before"), ""),
    ("gs", "expired token"): (refused(401, "authError"), "service account"),
    ("gs", "bucket gone"): (refused(404, "notFound"), "create it"),
    ("gs", "network gone"): (Fault("before"), ""),
    ("azure", "expired token"): (refused(403, "AuthenticationFailed"), "clock right? The credentials"),
    ("azure", "bucket gone"): (refused(404, "ContainerNotFound"), "create it"),
    ("azure", "network gone"): (Fault("before"), ""),
}


@pytest.mark.parametrize(("kind", "outage"), OUTAGES)
def test_an_outage_with_the_writer_going_on(
    started: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, outage: str
) -> None:
    """Every request fails for a while; ``status`` says why and what to do, and afterwards all is caught up."""
    monkeypatch.setattr(retries, "DENIED_SECONDS", 0.5)
    fault, hint = OUTAGES[kind, outage]
    with scene_on(started(kind), tmp_path, monkeypatch) as scene:
        told = scene.break_down(fault, hint)
        scene.app.insert(20)
        scene.wire.fault = lambda _: None
        scene.rest()

    assert told


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_of_minutes(
    started: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The queue grows and waits its longest between two attempts; then the lag is gone within one of these."""
    with scene_on(started(kind), tmp_path, monkeypatch) as scene:
        until = time.monotonic() + 180
        scene.break_down(Fault("before"), "")
        while time.monotonic() < until:
            scene.app.insert(10)
            time.sleep(0.5)
        scene.wire.fault = lambda _: None
        scene.rest()


@pytest.mark.parametrize("when", ["truncated", "flipped"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_was_damaged_on_the_way_is_no_restore(
    started: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    """Each object in turn: the restore is right, by asking again, or it is refused."""
    with scene_on(started(kind), tmp_path, monkeypatch) as scene:
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


def test_a_listing_that_lags_behind(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        findings = list(check_store(connect(scene.url), None))

        assert scene.error is None
        assert {Level.OK, Level.WARN} == {each.level for each in findings}
        assert 1 == sum("may not delete" in each.message for each in findings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_says_nothing_holds_nobody_up(
    started: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It takes every request and answers none: an agent that starts then follows at once, captures, and stops in
    time; once the store speaks, the same generation goes on."""
    with scene_on(started(kind), tmp_path, monkeypatch) as scene:
        scene.app.insert(3)
        scene.rest()
        scene.agent.stop()
        scene.app.insert(3)
        scene.wire.fault = lambda _: Fault("mute")
        began = time.monotonic()
        scene.agent = agent_of(scene.database, scene.url)
        took = time.monotonic() - began
        scene.app.insert(20)
        began = time.monotonic()
        scene.agent.stop(ship_seconds=1.0)
        stopped = time.monotonic() - began
        scene.wire.fault = lambda _: None
        scene.wire.release()
        scene.agent = agent_of(scene.database, scene.url)
        scene.rest()

    assert took < 6
    assert stopped < 6


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_damaged_on_the_way_accuses_nobody(
    started: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Everything that an agent reads when it starts, once flipped: it takes nobody for another agent, drops nothing,
    and makes no second full."""
    with scene_on(started(kind), tmp_path, monkeypatch) as scene:
        scene.app.insert(5)
        scene.rest()
        scene.wire.seen.clear()
        restart(scene)
        paths = {seen.request.path for seen in scene.wire.seen if seen.request.method == "GET"}
        for path in sorted(paths):
            scene.agent.stop()
            scene.wire.fault = first(1, Fault("flipped"), lambda request, path=path: request.path == path)  # type: ignore[misc]
            scene.agent = agent_of(scene.database, scene.url)
            scene.app.insert(1)
            scene.rest()

    assert len(paths) >= 3


def test_a_restore_goes_on_where_the_store_was_away(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More requests in a row fail than one call asks again: what was fetched before is not fetched again."""
    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.app.insert(30)
        scene.rest()
        gets = [0]
        scene.wire.seen.clear()

        def fault(request: Message) -> Fault | None:
            begun = any(".pack" in each.request.path for each in scene.wire.seen)
            if not begun or request.method != "GET" or "/tail/" not in request.path:
                return None
            gets[0] += 1
            return Fault("before") if gets[0] <= 24 else None

        scene.wire.fault = fault
        replicator.restore(scene.url, str(tmp_path / "patient.db"))

        assert gets[0] > 24
        assert oracle.database_digest(scene.database) == oracle.database_digest(tmp_path / "patient.db")


def test_what_is_put_says_its_checksum(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 takes no put without one where objects are locked."""
    with scene_on(server, tmp_path, monkeypatch) as scene:
        scene.wire.seen.clear()
        scene.app.insert(1)
        scene.rest()
        puts = [seen.request for seen in scene.wire.seen if is_segment(seen.request)]

    assert puts
    assert all(
        base64.b64encode(sha256(each.body).digest()).decode() == each.get("x-amz-checksum-sha256")
        for each in puts
    )
