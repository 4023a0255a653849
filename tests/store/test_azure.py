"""Azure Blob Storage: what only this kind can break. What every kind promises is in test_contract.py."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from azure.storage.blob import BlobBlock, BlobClient

from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from replicator.store import Store, azure, cloud_wire
from replicator.store.azure import open_azure
from replicator.store.contract import Kind
from tests.support.servers.answers import Answers, answering_server
from tests.support.servers.azure import (
    ACCOUNT,
    CONTAINER,
    KEY,
    AzuriteServer,
    azurite_server,
    forgetful_proxy,
    store_on,
)

ROOT = Path(__file__).resolve().parents[2]
# On a machine that is busy; every time-out that is not shortened is longer.
SOON_SECONDS = 4.0
RESOURCE = "https://storage.azure.com"
WITH_KEY = {"BACKUP_AZURE_ACCOUNT_KEY": KEY}
SAS = "sv=2026-02-06&sp=rwdl&sig=hunter2%3D"
WHOLE = (
    f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={KEY};EndpointSuffix=core.windows.net"
)

OPERATIONS: dict[str, Callable[[Kind], object]] = {
    "put": lambda store: store.put("object", b"bytes"),
    "get": lambda store: store.get("object"),
    "get_start": lambda store: store.get_start("object", 5),
    "get_range": lambda store: store.get_range("object", 0, 5),
    "list": lambda store: list(store.list("")),
    "replace": lambda store: store.replace("object", b"others"),
    "modified": lambda store: store.modified("object"),
    "delete": lambda store: store.delete("object"),
}


@pytest.fixture(scope="session")
def server() -> Iterator[AzuriteServer]:
    with azurite_server() as running:
        yield running


@pytest.fixture
def answers() -> Iterator[Answers]:
    with answering_server() as running:
        yield running


def store_at(endpoint: str) -> Store:
    environ = {"BACKUP_AZURE_ENDPOINT": endpoint, "BACKUP_AZURE_SAS_TOKEN": SAS}
    return open_azure(f"azure://{ACCOUNT}/{CONTAINER}/prefix", environ)


def all_told(exc: BaseException) -> str:
    """What a log would show of it."""
    return "".join(traceback.format_exception(exc)) + repr(exc) + str(getattr(exc, "hint", ""))


# --- URLs and settings


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("azure://account1/container", "azure://account1/container"),
        ("azure://account1/container/", "azure://account1/container"),
        ("AZURE://account1/con-tainer/a", "azure://account1/con-tainer/a"),
        ("azure://123/456/a/b.c/", "azure://123/456/a/b.c"),
        ("azure://account1/container/Über uns/x@y", "azure://account1/container/Über uns/x@y"),
    ],
)
def test_a_url_has_one_form(url: str, canonical: str) -> None:
    """However it is written, and opening that form gives it again."""
    assert canonical == open_azure(url, WITH_KEY).url
    assert canonical == open_azure(canonical, WITH_KEY).url


@pytest.mark.parametrize(
    "url",
    [
        "azure://",
        "azure:///container",
        "azure://account1",
        "azure://account1/",
        "azure://ab/container",
        "azure://Account/container",
        "azure://account1.blob.core.windows.net/container",
        "azure://" + "a" * 25 + "/container",
        "azure://account1/co",
        "azure://account1/Container",
        "azure://account1/con--tainer",
        "azure://account1/-container",
        "azure://account1/$root",
        "azure://account1/container//a",
        "azure://account1/container/../a",
        "azure://account1/container/a?comp=list",
        "azure://account1/container/a#b",
        "azure://account1/container/a%20b",
        "azure://account1/container/" + "p" * 801,
        "s3://account1/container",
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url: str) -> None:
    """With a hint, before anything is asked of anybody."""
    with pytest.raises(UsageError) as caught:
        open_azure(url, WITH_KEY)

    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    ["azure://account1:hunter2@account1/container", "azure://account1/container?sv=2026&sig=hunter2"],
)
def test_credentials_in_a_url_are_refused(url: str) -> None:
    """The hint says where they belong, and the message does not repeat them."""
    with pytest.raises(UsageError, match="credentials") as caught:
        open_azure(url, WITH_KEY)

    assert "BACKUP_AZURE_SAS_TOKEN" in (caught.value.hint or "")
    assert "hunter2" not in all_told(caught.value)


@pytest.mark.parametrize(
    ("environ", "endpoint", "key", "sas"),
    [
        ({"BACKUP_AZURE_ACCOUNT_KEY": KEY}, "default", KEY, None),
        ({"AZURE_STORAGE_KEY": KEY}, "default", KEY, None),
        ({"BACKUP_AZURE_SAS_TOKEN": "?" + SAS}, "default", None, SAS),
        ({"AZURE_STORAGE_SAS_TOKEN": SAS}, "default", None, SAS),
        ({"AZURE_STORAGE_CONNECTION_STRING": WHOLE}, "default", KEY, None),
        ({"BACKUP_AZURE_CONNECTION_STRING": WHOLE + ";"}, "default", KEY, None),
        (
            {"BACKUP_AZURE_CONNECTION_STRING": f"BlobEndpoint=https://x.y/;SharedAccessSignature={SAS}"},
            "https://x.y/",
            None,
            SAS,
        ),
        (
            {"BACKUP_AZURE_CONNECTION_STRING": WHOLE.replace("core.windows.net", "core.chinacloudapi.cn")},
            f"https://{ACCOUNT}.blob.core.chinacloudapi.cn",
            KEY,
            None,
        ),
        (
            {"BACKUP_AZURE_CONNECTION_STRING": "UseDevelopmentStorage=true"},
            f"http://127.0.0.1:10000/{ACCOUNT}",
            KEY,
            None,
        ),
        ({**WITH_KEY, "BACKUP_AZURE_ENDPOINT": "http://127.0.0.1:1/x"}, "http://127.0.0.1:1/x", KEY, None),
        # Our own names win over Azure's, and nothing that is empty counts.
        (
            {"AZURE_STORAGE_CONNECTION_STRING": "nonsense", "BACKUP_AZURE_SAS_TOKEN": SAS},
            "default",
            None,
            SAS,
        ),
        ({"BACKUP_AZURE_SAS_TOKEN": "", "AZURE_STORAGE_KEY": KEY}, "default", KEY, None),
    ],
)
def test_credentials_come_from_the_environment(
    environ: dict[str, str], endpoint: str, key: str | None, sas: str | None
) -> None:
    """Each way of giving them, in this order, and the place they are for."""
    access = open_azure(f"azure://{ACCOUNT}/{CONTAINER}", environ)._access
    wanted = f"https://{ACCOUNT}.blob.core.windows.net" if endpoint == "default" else endpoint

    assert (wanted, key, sas) == (access.endpoint, access.key, access.sas)
    assert KEY not in repr(access)
    assert "hunter2" not in repr(access)


@pytest.mark.parametrize("setting", ["BACKUP_AZURE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"])
def test_a_secret_may_lie_in_a_file(tmp_path: Path, setting: str) -> None:
    """Under the name with _FILE, its last newline no part of it; a missing file is refused by that name."""
    path = tmp_path / "key"
    path.write_text(KEY + "\n")

    assert KEY == open_azure(f"azure://{ACCOUNT}/{CONTAINER}", {f"{setting}_FILE": str(path)})._access.key
    with pytest.raises(UsageError, match=f"{setting}_FILE"):
        open_azure(f"azure://{ACCOUNT}/{CONTAINER}", {f"{setting}_FILE": f"{path}-missing"})


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"BACKUP_AZURE_ACCOUNT_KEY": "hunter2!"}, "BACKUP_AZURE_ACCOUNT_KEY"),
        ({"AZURE_STORAGE_KEY": "hunter2!"}, "AZURE_STORAGE_KEY"),
        ({"BACKUP_AZURE_SAS_TOKEN": "hunter2"}, "BACKUP_AZURE_SAS_TOKEN"),
        ({"BACKUP_AZURE_CONNECTION_STRING": "hunter2"}, "BACKUP_AZURE_CONNECTION_STRING"),
        ({"BACKUP_AZURE_CONNECTION_STRING": f"AccountName=other;AccountKey={KEY}"}, "other"),
        ({"BACKUP_AZURE_CONNECTION_STRING": f"AccountName={ACCOUNT};AccountKey=hunter2!"}, "no account key"),
        ({**WITH_KEY, "BACKUP_AZURE_ENDPOINT": "account.blob.core.windows.net"}, "plain address"),
        ({**WITH_KEY, "BACKUP_AZURE_ENDPOINT": "https://host/?sig=hunter2"}, "plain address"),
        ({"BACKUP_AZURE_ENDPOINT": "http://127.0.0.1:1/x"}, "BACKUP_AZURE_ENDPOINT"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused(environ: dict[str, str], named: str) -> None:
    """By its name, with a hint and without its value."""
    with pytest.raises(UsageError, match=named) as caught:
        open_azure(f"azure://{ACCOUNT}/{CONTAINER}", environ)

    assert caught.value.hint
    assert "hunter2" not in all_told(caught.value)
    assert KEY not in all_told(caught.value)


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a store is opened, not when it is first used."""
    missing = {"azure-storage-blob"}
    monkeypatch.setattr(importlib.metadata, "version", without(missing))
    with pytest.raises(UsageError, match="azure-storage-blob") as caught:
        open_azure(f"azure://{ACCOUNT}/{CONTAINER}", WITH_KEY)

    assert "pip install azure-storage-blob" == caught.value.hint
    missing.clear()
    missing.add("azure-identity")
    with pytest.raises(UsageError, match="azure-identity"):
        open_azure(f"azure://{ACCOUNT}/{CONTAINER}", {})


def without(missing: set[str]) -> Callable[[str], str]:
    """What tells the version of a package, with some that are not there."""
    version = importlib.metadata.version

    def told(package: str) -> str:
        if package in missing:
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    return told


def test_opening_loads_no_sdk() -> None:
    """Neither the module nor opening a store imports what weighs 50 MB."""
    script = (
        "import sys; from replicator.store.azure import open_azure;"
        f"open_azure('azure://{ACCOUNT}/{CONTAINER}', {WITH_KEY!r});"
        "print(sorted({m for m in sys.modules} & {'azure.core', 'azure.storage.blob', 'requests', 'urllib3'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()


# --- credentials


def test_without_any_it_is_denied_within_seconds(tmp_path: Path) -> None:
    """No identity, no tool that somebody is logged in with: denied, with what to do."""
    script = (
        "import time; from replicator.store.azure import open_azure; began = time.monotonic()\n"
        f"try: open_azure('azure://{ACCOUNT}/{CONTAINER}', {{}}).get('object')\n"
        "except Exception as exc: print(type(exc).__name__, '|', exc, '|', exc.hint)\n"
        "print(time.monotonic() - began)"
    )
    environ = {"HOME": str(tmp_path), "PATH": str(tmp_path), "LANG": os.environ.get("LANG", "C")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    told, seconds = done.stdout.splitlines()

    assert told.startswith("StoreDenied")
    assert "BACKUP_AZURE_CONNECTION_STRING" in told
    assert 20 > float(seconds)


def test_a_managed_identity_is_let_in(
    tmp_path: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own service hands out the token; the server's certificate is of a private authority."""
    token = unsigned_token()
    answers.headers = {"content-type": "application/json"}
    answers.body = json.dumps(
        {
            "access_token": token,
            "expires_on": str(int(time.time()) + 3600),
            "token_type": "Bearer",
            "resource": RESOURCE,
        }
    ).encode()
    with azurite_server(tls=tmp_path) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{answers.endpoint}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "a secret of the machine")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        store = open_azure(
            f"azure://{ACCOUNT}/{CONTAINER}/by-identity", {"BACKUP_AZURE_ENDPOINT": server.endpoint}
        )
        store.put("object", b"bytes")
        found = store.get("object")

    assert b"bytes" == found
    ((_, path, headers),) = answers.requests
    assert "storage.azure.com" in path
    assert "a secret of the machine" in headers.values()


def unsigned_token() -> str:
    """As the service would sign it; who checks its fields alone takes it."""
    now = int(time.time())
    claims = {
        "aud": RESOURCE,
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "ver": "1.0",
    }
    claims |= {"iat": now - 60, "nbf": now - 60, "exp": now + 3600}  # type: ignore[dict-item]
    parts = [json.dumps(each).encode() for each in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in [*parts, b"signature"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_wrong_key_is_denied(server: AzuriteServer, operation: str) -> None:
    """With a hint, and without the key or what it signed."""
    wrong = "aHVudGVyMg=="
    environ = {**server.environ, "BACKUP_AZURE_ACCOUNT_KEY": wrong}
    with pytest.raises(StoreDenied) as caught:
        OPERATIONS[operation](open_azure(f"azure://{ACCOUNT}/{CONTAINER}/p", environ))

    assert caught.value.hint
    assert wrong not in all_told(caught.value)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_expired_token_is_denied(server: AzuriteServer, operation: str) -> None:
    """With a hint, and without the token."""
    token = server.sas(hours=-1)
    environ = {"BACKUP_AZURE_ENDPOINT": server.endpoint, "BACKUP_AZURE_SAS_TOKEN": token}
    with pytest.raises(StoreDenied) as caught:
        OPERATIONS[operation](open_azure(f"azure://{ACCOUNT}/{CONTAINER}/p", environ))

    assert caught.value.hint
    assert token.rpartition("sig=")[2][:12] not in all_told(caught.value)


def test_a_token_that_was_renewed_in_its_file_is_read(server: AzuriteServer, tmp_path: Path) -> None:
    """Without a new start: after a refusal the file is read again."""
    file = tmp_path / "token"
    file.write_text(server.sas(hours=-1))
    environ = {"BACKUP_AZURE_ENDPOINT": server.endpoint, "BACKUP_AZURE_SAS_TOKEN_FILE": str(file)}
    store = open_azure(f"azure://{ACCOUNT}/{CONTAINER}/renewed", environ)
    with pytest.raises(StoreDenied):
        store.put("object", b"bytes")
    file.write_text(server.sas())
    store.put("object", b"bytes")

    assert b"bytes" == store.get("object")


def test_a_token_is_enough(server: AzuriteServer, caplog: pytest.LogCaptureFixture) -> None:
    """All operations with a SAS for the container alone; nothing of ours logs it."""
    token = server.sas()
    environ = {"BACKUP_AZURE_ENDPOINT": server.endpoint, "BACKUP_AZURE_SAS_TOKEN": token}
    store = open_azure(f"azure://{ACCOUNT}/{CONTAINER}/by-token", environ)
    with caplog.at_level(logging.DEBUG, logger="replicator"):
        for operation in OPERATIONS.values():
            operation(store)

    assert [] == list(store.list(""))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("replicator")]
    assert token.rpartition("sig=")[2] not in f"{ours} {store!r} {store.url}"


def test_credentials_that_may_not_delete_still_put(server: AzuriteServer) -> None:
    """A normal way to run: the probe stays, unlisted, and a delete is denied."""
    environ = {
        "BACKUP_AZURE_ENDPOINT": server.endpoint,
        "BACKUP_AZURE_SAS_TOKEN": server.sas(permissions="rcl"),
    }
    store = open_azure(f"azure://{ACCOUNT}/{CONTAINER}/append-only", environ)
    store.put("object", b"bytes")

    with pytest.raises(StoreDenied):
        store.delete("object")
    with pytest.raises(ObjectExists):  # the service says 403 for this, too
        store.put("object", b"other")
    assert b"bytes" == store.get("object")
    assert ["object"] == [listed.name for listed in store.list("")]
    assert 1 == len(probes_in(server, store))


def test_credentials_that_may_only_create_replace_once(server: AzuriteServer) -> None:
    """What is not there yet may be created; from then on it is denied, and stays as it is."""
    environ = {
        "BACKUP_AZURE_ENDPOINT": server.endpoint,
        "BACKUP_AZURE_SAS_TOKEN": server.sas(permissions="rcl"),
    }
    store = open_azure(f"azure://{ACCOUNT}/{CONTAINER}/create-only", environ)
    store.replace("metadata.json", b"first")
    with pytest.raises(StoreDenied) as caught:
        store.replace("metadata.json", b"second")

    assert caught.value.hint
    assert b"first" == store.get("metadata.json")


# --- what the service answers


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_unavailable(answers: Answers, status: int, operation: str) -> None:
    """Asked once, not again by the SDK, and with the time the server asked for."""
    answers.status, answers.headers = status, {"Retry-After": "7", "x-ms-error-code": "ServerBusy"}

    with pytest.raises(StoreUnavailable) as caught:
        OPERATIONS[operation](store_at(answers.endpoint))
    assert 7.0 == caught.value.retry_after
    assert 1 == len(answers.requests)
    assert "hunter2" not in all_told(caught.value)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_container_is_denied(server: AzuriteServer, operation: str) -> None:
    """It is no missing object, and its name is in the message."""
    with pytest.raises(StoreDenied, match="no container never-made"):
        OPERATIONS[operation](open_azure(f"azure://{ACCOUNT}/never-made/prefix", server.environ))


def test_a_body_that_ends_early_is_unavailable(answers: Answers) -> None:
    """Bytes that were promised and did not come; asked for once."""
    answers.status, answers.body, answers.cut = 206, b"half", 4
    answers.headers = {"Content-Range": "bytes 0-7/8", "ETag": '"1"'}

    for read in (lambda store: store.get("object"), lambda store: store.get_range("object", 0, 8)):
        with pytest.raises(StoreUnavailable):
            read(store_at(answers.endpoint))
    assert 2 == len(answers.requests)


# --- put-once


def test_a_server_that_ignores_preconditions_is_found(
    server: AzuriteServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, names are looked at before they are put, and no probe stays behind."""
    with forgetful_proxy(server) as environ:
        store = open_azure(f"azure://{ACCOUNT}/{CONTAINER}/forgotten", environ)
        for name in ("a", "b", "c"):
            store.put(name, b"first")
        with pytest.raises(ObjectExists):
            store.put("b", b"second")

        assert b"first" == store.get("b")
    said = [r.message for r in caplog.records if r.name.startswith("replicator.store.")]
    assert ["store.put-once-unsure"] == said
    assert [] == probes_in(server, store)


def test_a_server_that_keeps_preconditions_is_probed_once(
    server: AzuriteServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word, and without anything left behind."""
    store = store_on(server)
    for name in ("a", "b"):
        store.put(name, b"first")

    assert [] == [r for r in caplog.records if r.name.startswith("replicator")]
    assert [] == probes_in(server, store)


def probes_in(server: AzuriteServer, store: Store) -> list[str]:
    """What lies there, asked of the server past the store."""
    prefix = store.url.removeprefix(f"azure://{ACCOUNT}/{CONTAINER}/") + "/.probe-"
    with server.container() as container:
        return [blob.name for blob in container.list_blobs(name_starts_with=prefix)]


def test_of_sixteen_puts_in_blocks_one_wins(server: AzuriteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads: blocks of one attempt never get into another's commit, and the losers learn that they lost."""
    monkeypatch.setattr(azure, "BLOCK_BYTES", 100_000)
    store = store_on(server)
    ready = threading.Barrier(16)
    for turn in range(3):
        name = f"big/{turn}"
        ended: list[str] = []
        threads = [threading.Thread(target=race, args=(store, name, n, ready, ended)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [int(end) for end in ended if end.isdecimal()]

        assert (1, 15) == (len(won), ended.count("ObjectExists")), ended
        assert bytes(won) * 350_000 == store.get(name)


def race(store: Store, name: str, number: int, ready: threading.Barrier, ended: list[str]) -> None:
    """One of those who put *name*: asks again while its blocks get lost, and notes how it ended."""
    ready.wait()
    while True:
        try:
            store.put(name, bytes([number]) * 350_000)
        except StoreUnavailable:
            continue
        except Exception as exc:
            ended.append(type(exc).__name__)
        else:
            ended.append(str(number))
        return


@pytest.mark.parametrize(("deleted", "error"), [(True, StoreUnavailable), (False, ObjectExists)])
def test_blocks_that_were_dropped_are_put_again(
    server: AzuriteServer, monkeypatch: pytest.MonkeyPatch, deleted: bool, error: type[Exception]
) -> None:
    """A stranger's blob comes between our blocks and our commit, which never is half of each."""
    monkeypatch.setattr(azure, "BLOCK_BYTES", 10)
    store = store_on(server)
    store.put("other", b"")  # the probe is over
    commit = BlobClient.commit_block_list

    def commit_late(self: BlobClient, *args: object, **kwargs: object) -> object:
        with server.container() as container:
            stranger = container.get_blob_client(self.blob_name)
            block = "s" * 23  # as long as ours: the service wants that
            stranger.stage_block(block, b"a stranger's")
            commit(stranger, [BlobBlock(block)])
            if deleted:
                stranger.delete_blob()
        monkeypatch.setattr(BlobClient, "commit_block_list", commit)
        return commit(self, *args, **kwargs)

    monkeypatch.setattr(BlobClient, "commit_block_list", commit_late)
    with pytest.raises(error):
        store.put("object", b"more than ten bytes")
    if deleted:
        store.put("object", b"more than ten bytes")

    assert (b"more than ten bytes" if deleted else b"a stranger's") == store.get("object")


# --- replacing


def test_what_is_replaced_in_blocks_is_whole(server: AzuriteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads: of several at a time one stays; blocks that another's commit dropped are for later."""
    monkeypatch.setattr(azure, "BLOCK_BYTES", 100_000)
    store = store_on(server)
    contents = [bytes([number]) * (350_000 - number) for number in range(6)]
    ready = threading.Barrier(6)
    failed: list[Exception] = []

    def replace(content: bytes) -> None:
        ready.wait()
        try:
            for _ in range(4):
                store.replace("metadata.json", content)
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=replace, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {StoreUnavailable} >= {type(exc) for exc in failed}, failed
    assert store.get("metadata.json") in contents
    for content in (contents[1], b"small", contents[2]):
        store.replace("metadata.json", content)
        assert content == store.get("metadata.json")


def test_replacing_is_one_request_without_a_precondition(answers: Answers) -> None:
    """No probe and no look come before it."""
    answers.status = 201
    store_at(answers.endpoint).replace("metadata.json", b"x")

    ((method, _, headers),) = answers.requests
    assert "PUT" == method
    assert not [name for name in headers if name.lower() == "if-none-match"]


@pytest.mark.parametrize("code", ["BlobImmutableDueToPolicy", "LeaseIdMissing"])
def test_a_replacing_that_is_refused_is_denied(answers: Answers, code: str) -> None:
    """A policy or somebody's lease keeps what is there: that is no name that is taken."""
    answers.status = 409 if code == "BlobImmutableDueToPolicy" else 412
    answers.headers = {"x-ms-error-code": code}
    with pytest.raises(StoreDenied) as caught:
        store_at(answers.endpoint).replace("metadata.json", b"x")

    assert caught.value.hint


def test_the_time_of_an_object_is_what_the_service_says(answers: Answers) -> None:
    """In its head; where it says none, that is denied, with a hint."""
    answers.headers = {"Last-Modified": "Mon, 23 Nov 2026 05:00:00 GMT", "ETag": '"1"'}
    store = store_at(answers.endpoint)
    found = store.modified("a")
    del answers.headers["Last-Modified"]
    with pytest.raises(StoreDenied, match="does not say when a was written") as caught:
        store.modified("a")

    assert datetime(2026, 11, 23, 5, tzinfo=UTC).timestamp() * 1_000_000 == found
    assert caught.value.hint


# --- big and many


def test_a_big_object_comes_back_in_ranges(server: AzuriteServer) -> None:
    """Twenty mebibytes, whole and from the middle; its end is known."""
    data = random.Random(3).randbytes(20 * 1024 * 1024)
    store = store_on(server)
    store.put("big", data)

    assert data == store.get("big")
    assert data[1_999_999:19_999_999] == store.get_range("big", 1_999_999, 18_000_000)
    with pytest.raises(ObjectCorrupt, match=f"big ends at byte {len(data)}, wanted {len(data) + 1}"):
        store.get_range("big", len(data) - 9, 10)
    with pytest.raises(ObjectExists):
        store.put("big", data)


BESIDE = """
import sys
from replicator.store.azure import open_azure
from tests.support.peak import peak

url, endpoint, key, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
store = open_azure(url, {"BACKUP_AZURE_ENDPOINT": endpoint, "BACKUP_AZURE_ACCOUNT_KEY": key})
list(store.list(""))  # the SDK is loaded
begun = peak()
if sys.argv[5] == "put":
    store.put("big", bytes(size))
else:
    assert len(store.get("big")) == size
print(peak() - begun - size)
"""


def test_memory_stays_beside_the_object(server: AzuriteServer) -> None:
    """Putting and getting 100 MB needs less than 64 MB beyond the bytes themselves."""
    store = store_on(server)
    for what in ("put", "get"):
        command = [sys.executable, "-c", BESIDE, store.url, server.endpoint, KEY, "100000000", what]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr

        assert int(done.stdout) < 64_000_000


def test_a_listing_goes_on_over_pages(server: AzuriteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More names than the service gives at once come in order, also from the middle of a page."""
    monkeypatch.setattr(azure, "PAGE_NAMES", 4)
    store = store_on(server)
    names = [f"n/{number:02d}" for number in range(18)]
    for name in reversed(names):
        store.put(name, b"")

    assert names == [listed.name for listed in store.list("")]
    assert names[6:] == [listed.name for listed in store.list("n/", names[5])]


def test_a_slow_line_is_no_time_out(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body may take longer than a connection: as long as bytes move, nobody gives up."""
    monkeypatch.setattr(azure, "CONNECT_SECONDS", 0.5)
    answers.slowness, answers.status = 0.05, 201
    store = store_at(answers.endpoint)
    store._once_only._known = True  # type: ignore[attr-defined]  # what it finds is not the question here
    began = time.monotonic()
    store.put("big", bytes(8 * 1024 * 1024))

    assert 2 < time.monotonic() - began


# --- a server that comes and goes


@pytest.fixture
def mortal() -> Iterator[AzuriteServer]:
    """A server that a test may freeze and kill."""
    with azurite_server() as running:
        yield running


def test_a_server_that_hangs_is_unavailable(mortal: AzuriteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the idle time, shortened here, and not a multiple of it; and it works again afterwards."""
    monkeypatch.setattr(azure, "IDLE_SECONDS", 0.7)
    store = store_on(mortal)
    store.put("object", b"before")
    for operation in OPERATIONS.values():
        with mortal.frozen():
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                operation(store)
            assert time.monotonic() - began < SOON_SECONDS
    monkeypatch.setattr(azure, "IDLE_SECONDS", cloud_wire.IDLE_SECONDS)
    patient = open_azure(store.url, mortal.environ)
    patient.put("after", b"")

    assert b"" == patient.get("after")


def test_a_server_that_was_away_is_there_again(mortal: AzuriteServer) -> None:
    """Killed: unavailable at once, on every operation. Started again: the same store goes on."""
    store = store_on(mortal)
    store.put("object", b"before")
    mortal.kill()
    began = time.monotonic()
    for operation in OPERATIONS.values():
        with pytest.raises(StoreUnavailable, match=r"refused|reset|closed connection"):
            operation(store)
    took = time.monotonic() - began
    mortal.start()

    assert took < SOON_SECONDS
    with pytest.raises(ObjectNotFound):
        store.get("object")
    store.put("object", b"after")
    with pytest.raises(ObjectExists):
        store.put("object", b"again")


def test_secrets_are_cut_out_of_messages() -> None:
    """What SDKs quote: signed addresses and fields of connection strings; one line is enough."""
    told = "Max retries with url: /c/b?sv=1&sig=hunter2 (Caused by AccountKey=hunter2;x)\nSig=hunter2"

    assert "Max retries with url: /c/b?… (Caused by AccountKey=…;x)" == cloud_wire.without_secrets(told)
    assert "" == cloud_wire.without_secrets(" \n")
    assert 300 == len(cloud_wire.without_secrets("a" * 1000))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed Oct 21 07:28:00 2015", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str, seconds: float | None) -> None:
    """Seconds or a date; a date that is over is now."""
    assert seconds == cloud_wire.retry_after({"Retry-After": value})


def test_an_account_that_has_no_address_is_unavailable() -> None:
    """It says which, for it may be spelled wrongly."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        store = store_at(f"http://127.0.0.1:{closed.getsockname()[1]}/{ACCOUNT}")
        with pytest.raises(StoreUnavailable, match=ACCOUNT) as caught:
            store.get("object")

    assert "hunter2" not in all_told(caught.value)
