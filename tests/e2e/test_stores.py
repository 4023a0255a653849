"""The whole way over every kind of store, as processes: replicate, look, check, refuse, lose the server, restore."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import Running, following, replicator, sql, until, write_board
from tests.support import oracle
from tests.support.servers import azure, gcs, s3, sftp


@dataclass(frozen=True)
class Place:
    """An empty folder of a server: ``url`` of it, and the environment with which it opens."""

    url: str
    environ: dict[str, str]
    server: Any


STARTS: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {
    "s3": lambda _: s3.seaweed(),
    "gs": lambda _: gcs.gcs_server(),
    "azure": lambda _: azure.azurite_server(),
    "sftp": sftp.asyncssh_server,
}


def place_on(kind: str, server: Any) -> Place:
    folder = secrets.token_hex(8)
    match kind:
        case "s3":
            return Place(f"s3://{s3.BUCKET}/{folder}", server.environ(), server)
        case "gs":
            return Place(f"gs://{gcs.BUCKET}/{folder}", server.environ, server)
        case "azure":
            return Place(f"azure://{azure.ACCOUNT}/{azure.CONTAINER}/{folder}", server.environ, server)
        case _:
            return Place(server.url(f"/{folder}"), server.environ, server)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    running: dict[str, Any] = {}
    with ExitStack() as stack:

        def get(kind: str) -> Any:
            if kind not in running:
                running[kind] = stack.enter_context(STARTS[kind](tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield get


@pytest.fixture(params=STARTS)
def place(request: pytest.FixtureRequest, servers: Callable[[str], Any]) -> Place:
    return place_on(request.param, servers(request.param))


def test_s20_s22_there_and_back(place: Place, tmp_path: Path) -> None:
    """A live database around a command, its store looked at and checked, and given back page by page."""
    database, store = tmp_path / "app.db", f"{place.url}/app"
    ran = replicator(
        "replicate", database, store, "--", *write_board(database, commits=40, rate=40),
        cwd=tmp_path, **place.environ,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    listed = replicator("ls", place.url, cwd=tmp_path, **place.environ)
    checked = replicator("check", "--store", store, cwd=tmp_path, **place.environ)
    restored = replicator("restore", store, "-o", "out.db", cwd=tmp_path, **place.environ)

    assert [store] == listed.out.splitlines(), listed.err
    assert checked.code == 0, checked.out
    assert restored.code == 0, restored.err
    assert oracle.database_digest(database) == oracle.database_digest(tmp_path / "out.db")


def test_s75_what_goes_over_the_network_in_clear_is_said(place: Place, tmp_path: Path) -> None:
    """The servers of these tests are asked for with http, where there is such a thing; ssh never sends in clear."""
    sql(tmp_path / "app.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)")
    done = replicator("replicate", "app.db", place.url, "--once", cwd=tmp_path, **place.environ)
    told = replicator("status", "app.db", cwd=tmp_path, **place.environ)
    as_json = replicator("--json", "status", "app.db", cwd=tmp_path, **place.environ)

    assert 0 == done.code, done.err
    in_clear = not place.url.startswith("sftp:")
    assert in_clear == ("IN CLEAR" in told.out), told.out
    assert [in_clear] == [store["in_clear"] for store in as_json.json["stores"]]


def test_another_agent_is_refused(place: Place, tmp_path: Path) -> None:
    """A second writer, and a repository of another database, are 11; nothing of the first is touched."""
    for name in ("one", "two"):
        sql(tmp_path / f"{name}.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)")
    first = replicator("replicate", "one.db", place.url, "--once", cwd=tmp_path, **place.environ)
    second = replicator("replicate", "two.db", place.url, "--once", cwd=tmp_path, **place.environ)

    assert (0, 11) == (first.code, second.code), first.err + second.err
    assert "another agent writes to" in second.err


def test_a_server_that_dies_delays_nobody_else_and_is_caught_up(tmp_path: Path, servers: Any) -> None:
    """Two stores: the folder has every commit at once while the other is away, and that gets all of it later."""
    with s3.seaweed() as server:
        place = place_on("s3", server)
        database = tmp_path / "app.db"
        sql(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        assert (
            replicator("replicate", database, place.url, "near", "--once", cwd=tmp_path, **place.environ).code
            == 0
        )
        with Running("replicate", database, place.url, "near", cwd=tmp_path, environ=place.environ) as agent:
            until(lambda: following(database))
            server.kill()
            before = len(list((tmp_path / "near").rglob("*.segment")))
            sql(database, *(f"INSERT INTO t VALUES ({n})" for n in range(5)))
            until(lambda: len(list((tmp_path / "near").rglob("*.segment"))) > before)
            near = replicator("restore", "near", "-o", "near.db", cwd=tmp_path)
            assert near.code == 0, near.err
            assert oracle.database_digest(database) == oracle.database_digest(tmp_path / "near.db")
            server.start()
            agent.signal(signal.SIGTERM)
            agent.end()
        again = replicator("replicate", database, place.url, "near", "--once", cwd=tmp_path, **place.environ)
        far = replicator("restore", place.url, "-o", "far.db", cwd=tmp_path, **place.environ)

    assert (0, 0) == (again.code, far.code), again.err + far.err
    assert oracle.database_digest(database) == oracle.database_digest(tmp_path / "far.db")


def test_no_secret_is_told(servers: Any, tmp_path: Path) -> None:
    """A wrong key is a clear refusal with a hint, at most detail, and neither key stands in it."""
    place = place_on("s3", servers("s3"))
    canary = "canary" + secrets.token_hex(12)
    environ = {**place.environ, "BACKUP_S3_SECRET_KEY": canary}
    done = replicator("ls", "-vv", place.url, cwd=tmp_path, **environ)

    assert done.code == 16, done.err
    assert "hint:" in done.err
    assert canary not in done.out + done.err
    assert s3.SECRET_KEY not in done.out + done.err
