"""Google Cloud Storage: what only this kind can break. What every kind promises is in test_contract.py."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import RefreshError
from requests.exceptions import ConnectionError

from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from replicator.store import Store, cloud_wire, gcs
from replicator.store.contract import Kind
from replicator.store.gcs import open_gcs
from tests.support.servers.answers import Answers, answering_server
from tests.support.servers.gcs import BUCKET, GcsServer, gcs_server, lying_gcs_server, store_on
from tests.support.servers.interception import intercepting

ROOT = Path(__file__).resolve().parents[2]
# On a machine that is busy; every time-out that is not shortened is longer.
SOON_SECONDS = 4.0

OPERATIONS: dict[str, Callable[[Kind], object]] = {
    "put": lambda store: store.put("object", b"bytes"),
    "get": lambda store: store.get("object"),
    "get_start": lambda store: store.get_start("object", 5),
    "get_range": lambda store: store.get_range("object", 0, 5),
    "list": lambda store: list(store.list("")),
    "delete": lambda store: store.delete("object"),
    "replace": lambda store: store.replace("object", b"others"),
    "modified": lambda store: store.modified("object"),
}


@pytest.fixture(scope="session")
def server() -> Iterator[GcsServer]:
    with gcs_server() as running:
        yield running


@pytest.fixture(scope="session")
def lying() -> Iterator[GcsServer]:
    with lying_gcs_server() as running:
        yield running


@pytest.fixture
def answers() -> Iterator[Answers]:
    with answering_server() as running:
        yield running


def store_at(endpoint: str, name: str = BUCKET) -> Store:
    return open_gcs(f"gs://{name}/prefix", {"STORAGE_EMULATOR_HOST": endpoint})


def service_account(folder: Path, token_uri: str) -> Path:
    """A service account's file with a key of its own, as Google Cloud gives out."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    about = {"type": "service_account", "client_email": "agent@test", "token_uri": token_uri}
    path = folder / "account.json"
    path.write_text(
        json.dumps({**about, "private_key": key.decode(), "private_key_id": "k", "project_id": "p"})
    )
    return path


# --- URLs and settings


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("gs://bucket", "gs://bucket"),
        ("gs://bucket/", "gs://bucket"),
        ("GS://bucket/a", "gs://bucket/a"),
        ("gs://bucket/a/b.c/", "gs://bucket/a/b.c"),
        ("gs://my_bucket-1/Über uns/x@y", "gs://my_bucket-1/Über uns/x@y"),
        ("gs://backups.example.com/app", "gs://backups.example.com/app"),
        ("gs://b0b/p", "gs://b0b/p"),
    ],
)
def test_a_url_has_one_form(url: str, canonical: str) -> None:
    """However it is written, and opening that form gives it again."""
    assert canonical == open_gcs(url, {}).url
    assert canonical == open_gcs(canonical, {}).url


@pytest.mark.parametrize(
    "url",
    [
        "gs://",
        "gs:///prefix",
        "gs://ab",
        "gs://Bucket/prefix",
        "gs://-bucket",
        "gs://bucket-",
        "gs://" + "b" * 64,
        "gs://a..b",
        "gs://bucket:443/prefix",
        "gs://bucket//prefix",
        "gs://bucket/a//b",
        "gs://bucket/../b",
        "gs://bucket/./b",
        "gs://bucket/a?versions=true",
        "gs://bucket/a#1",
        "gs://bucket/a%20b",
        "gs://bucket/a\nb",
        "gs://bucket/*",
        "gs://bucket/" + "p" * 801,
        "s3://bucket/prefix",
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url: str) -> None:
    """With a hint, before anything is asked of anybody."""
    with pytest.raises(UsageError) as caught:
        open_gcs(url, {})

    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    ["gs://user:hunter2@bucket/prefix", "gs://bucket/prefix?X-Goog-Signature=hunter2", "gs://hunter2@bucket"],
)
def test_credentials_in_a_url_are_refused(url: str) -> None:
    """The hint says where they belong, and the message does not repeat them."""
    with pytest.raises(UsageError, match="credentials") as caught:
        open_gcs(url, {})

    assert "BACKUP_GCS_CREDENTIALS_FILE" in (caught.value.hint or "")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("setting", ["BACKUP_GCS_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS"])
@pytest.mark.parametrize("content", [None, "not JSON", "[]", "{}"])
def test_a_credentials_file_that_is_none_is_refused(
    tmp_path: Path, setting: str, content: str | None
) -> None:
    """Missing, no JSON, or another JSON: the setting and the file are named."""
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(UsageError, match=setting) as caught:
        open_gcs("gs://bucket", {setting: str(path)})
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", ["http://", "ftp://127.0.0.1:1", "http://user:pw@127.0.0.1:1"])
def test_an_emulator_that_has_no_address_is_refused(value: str) -> None:
    """The setting is named."""
    with pytest.raises(UsageError, match="STORAGE_EMULATOR_HOST"):
        open_gcs("gs://bucket", {"STORAGE_EMULATOR_HOST": value})


def test_an_emulator_may_be_given_without_a_scheme(server: GcsServer) -> None:
    """As Google's own tools take it."""
    store = open_gcs(
        f"gs://{BUCKET}/bare", {"STORAGE_EMULATOR_HOST": server.endpoint.removeprefix("http://")}
    )

    assert [] == list(store.list(""))


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a store is opened, not when it is first used."""
    missing = {"google-cloud-storage"}
    monkeypatch.setattr(importlib.metadata, "version", without(missing))
    with pytest.raises(UsageError, match="google-cloud-storage") as caught:
        open_gcs("gs://bucket", {})

    assert "pip install google-cloud-storage" == caught.value.hint


def without(missing: set[str]) -> Callable[[str], str]:
    """What tells the version of a package, with some that are not there."""
    version = importlib.metadata.version

    def told(package: str) -> str:
        if package in missing:
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    return told


def test_opening_loads_no_sdk() -> None:
    """Neither the module nor opening a store imports what weighs 45 MB."""
    script = (
        "import sys; from replicator.store.gcs import open_gcs; open_gcs('gs://bucket', {});"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'google', 'requests', 'urllib3'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()


# --- credentials


def child(body: str, environ: dict[str, str]) -> str:
    """Run *body* where Google's library sees nothing but *environ*."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=ROOT, env={**kept, **environ}, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_without_credentials_it_is_denied_within_seconds(tmp_path: Path) -> None:
    """Also where a metadata server takes connections and never answers: denied, with what to do."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        body = (
            "import time; from replicator.store.gcs import open_gcs; began = time.monotonic()\n"
            "try: open_gcs('gs://bucket', {}).get('object')\n"
            "except Exception as exc: print(type(exc).__name__, '|', exc, '|', exc.hint)\n"
            "print(time.monotonic() - began)"
        )
        environ = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "GCE_METADATA_IP": address}
        environ["GCE_METADATA_TIMEOUT"] = "1"  # of each of Google's three attempts; 3 s otherwise
        told, seconds = child(body, environ).splitlines()

    assert told.startswith("StoreDenied")
    assert "BACKUP_GCS_CREDENTIALS_FILE" in told
    assert 15 > float(seconds)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, StoreDenied),
        (401, {"error": "invalid_client"}, StoreDenied),
    ],
)
def test_a_key_that_is_no_longer_good_is_denied(
    tmp_path: Path, answers: Answers, status: int, body: dict[str, str], error: type[Exception]
) -> None:
    """What the token server refuses is denied, and neither key nor assertion is in the message."""
    answers.status, answers.body = status, json.dumps(body).encode()
    path = service_account(tmp_path, f"{answers.endpoint}/token")
    store = open_gcs("gs://bucket", {"BACKUP_GCS_CREDENTIALS_FILE": str(path)})

    with pytest.raises(error) as caught:
        store.get("object")
    told = f"{caught.value} {caught.value.hint} {store!r} {store.url}"  # type: ignore[attr-defined]
    assert "PRIVATE KEY" not in told
    assert "assertion" not in told


def test_a_service_account_is_let_in_through_a_proxy(
    tmp_path: Path, server: GcsServer, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As companies have it: its token is fetched, Google's own address is reached by way of HTTPS_PROXY, and that ends
    TLS with a certificate of its own authority."""
    answers.body = json.dumps(
        {"access_token": "hunter2", "expires_in": 3600, "token_type": "Bearer"}
    ).encode()
    answers.headers = {"content-type": "application/json"}
    path = service_account(tmp_path, f"{answers.endpoint}/token")
    host, _, port = server.endpoint.removeprefix("http://").partition(":")
    with intercepting("storage.googleapis.com", (host, int(port)), tmp_path) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(proxy.ca_file))
        store = open_gcs(f"gs://{BUCKET}/by-proxy", {"BACKUP_GCS_CREDENTIALS_FILE": str(path)})
        store.put("object", b"bytes")
        found = store.get("object")

    assert b"bytes" == found
    assert "storage.googleapis.com:443" in proxy.connected
    assert b"Bearer hunter2" in b"".join(proxy.sent)
    assert 1 == len(answers.requests)


# Google's library warns of files by strangers; this one is the operator's.
@pytest.mark.filterwarnings("ignore:The load_credentials_from_dict method:DeprecationWarning")
def test_the_credentials_of_a_person_are_taken_too(tmp_path: Path) -> None:
    """What `gcloud auth application-default login` leaves behind."""
    path = tmp_path / "own.json"
    secret = {"client_id": "i", "client_secret": "s", "refresh_token": "hunter2"}
    path.write_text(json.dumps({"type": "authorized_user", **secret}))
    store = open_gcs("gs://bucket", {"GOOGLE_APPLICATION_CREDENTIALS": str(path)})

    assert "hunter2" == store._opened()._credentials.refresh_token
    assert "hunter2" not in f"{store!r} {store.url}"


def test_a_token_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    """It may come back, so it is to be asked again."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        path = service_account(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}/token")
        store = open_gcs("gs://bucket", {"GOOGLE_APPLICATION_CREDENTIALS": str(path)})

        with pytest.raises(StoreUnavailable):
            store.get("object")


def test_a_token_that_the_network_kept_back_is_unavailable() -> None:
    """On Google's machines the library says «refresh failed», and why only in the cause."""
    store = open_gcs("gs://bucket", {})

    with pytest.raises(StoreUnavailable), store._errors("cannot read"):
        raise RefreshError("no token") from ConnectionError("reset by peer")
    with pytest.raises(StoreDenied), store._errors("cannot read"):
        raise RefreshError("account disabled")


def test_a_key_that_is_damaged_is_denied(tmp_path: Path) -> None:
    """Found when it is first used, without its content in the message."""
    path = service_account(tmp_path, "http://127.0.0.1:9/token")
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "private_key": "-----BEGIN hunter2"}))
    store = open_gcs("gs://bucket", {"BACKUP_GCS_CREDENTIALS_FILE": str(path)})

    with pytest.raises(StoreDenied, match=r"account\.json") as caught:
        store.get("object")
    assert "hunter2" not in str(caught.value)


# --- what the service answers


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_what_may_pass_is_unavailable(answers: Answers, status: int, operation: str) -> None:
    """Asked once, not again by the SDK, and with the time the server asked for."""
    answers.status, answers.headers = status, {"Retry-After": "7"}
    answers.body = b'{"error": {"code": 503, "message": "try later"}}'

    with pytest.raises(StoreUnavailable) as caught:
        OPERATIONS[operation](store_at(answers.endpoint))
    assert 7.0 == caught.value.retry_after
    assert 1 == len(answers.requests)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", [400, 401, 403])
def test_what_needs_a_person_is_denied(answers: Answers, status: int, operation: str) -> None:
    """With a hint."""
    answers.status, answers.body = status, b'{"error": {"code": 403, "message": "no storage.objects.create"}}'

    with pytest.raises(StoreDenied) as caught:
        OPERATIONS[operation](store_at(answers.endpoint))
    assert caught.value.hint


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_bucket_is_denied(server: GcsServer, operation: str) -> None:
    """It is no missing object, and its name is in the message."""
    with pytest.raises(StoreDenied, match="no bucket never-made"):
        OPERATIONS[operation](open_gcs("gs://never-made/prefix", server.environ))


def test_a_body_that_ends_early_is_unavailable(answers: Answers) -> None:
    """Bytes that were promised and did not come."""
    answers.body, answers.cut = b"half", 4

    with pytest.raises(StoreUnavailable):
        store_at(answers.endpoint).get("object")


def test_a_body_that_does_not_match_its_checksum_is_unavailable(answers: Answers) -> None:
    """Damage on the way may be gone the next time."""
    answers.body, answers.headers = b"flipped", {"X-Goog-Hash": "crc32c=AAAAAA=="}

    with pytest.raises(StoreUnavailable, match="damaged on the way"):
        store_at(answers.endpoint).get("object")


def test_a_server_that_ignores_ranges_does_no_harm(answers: Answers) -> None:
    """The bytes asked for are cut out of all it sends."""
    answers.body = b"0123456789"

    assert b"234" == store_at(answers.endpoint).get_range("object", 2, 3)
    assert (b"012", 10) == store_at(answers.endpoint).get_start("object", 3)


def test_a_part_whose_size_is_not_told_is_unavailable(answers: Answers) -> None:
    """Nobody could say whether it is all."""
    answers.status, answers.body = 206, b"0123456789"

    with pytest.raises(StoreUnavailable, match="damaged on the way"):
        store_at(answers.endpoint).get_start("object", 10)


def test_a_part_that_is_the_whole_is_checked_as_such(answers: Answers) -> None:
    """With a checksum that is of the whole, also where only a part comes."""
    answers.status, answers.body = 206, b"flipped"
    answers.headers = {"X-Goog-Hash": "crc32c=AAAAAA==", "Content-Range": "bytes 0-6/7"}
    with pytest.raises(StoreUnavailable, match="damaged on the way"):
        store_at(answers.endpoint).get_start("object", 100)
    answers.headers["Content-Range"] = "bytes 0-6/70"

    assert (b"flipped", 70) == store_at(answers.endpoint).get_start("object", 7)


# --- put-once


def test_a_server_that_ignores_preconditions_is_found(
    lying: GcsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, names are looked at before they are put, and no probe stays behind."""
    store = store_on(lying)
    with caplog.at_level(logging.DEBUG):
        for name in ("a", "b", "c"):
            store.put(name, b"first")
    with pytest.raises(ObjectExists):
        store.put("b", b"second")

    assert b"first" == store.get("b")
    assert ["store.put-once-unsure"] == [r.message for r in caplog.records if r.name.startswith("replicator")]
    assert [] == probes_in(store)


def test_a_server_that_keeps_preconditions_is_probed_once(
    server: GcsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word, and without anything left behind."""
    store = store_on(server)
    for name in ("a", "b"):
        store.put(name, b"first")

    assert [] == [r for r in caplog.records if r.name.startswith("replicator")]
    assert [] == probes_in(store)
    assert ["a", "b"] == [listed.name for listed in store.list("")]


def test_a_probe_that_stayed_is_not_listed(server: GcsServer) -> None:
    """Credentials that may not delete leave them; they are nobody's objects."""
    store = store_on(server)
    store.put(".probe-left", b"")
    store.put("a", b"")

    assert ["a"] == [listed.name for listed in store.list("")]
    assert [".probe-left"] == probes_in(store)


def test_credentials_that_may_not_replace_meet_what_exists(
    server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the service denies before it looks at the precondition, a name that is taken is still that."""
    store = store_on(server)
    store.put("taken", b"first")

    def denied(name: str, data: bytes) -> None:
        raise StoreDenied(f"no storage.objects.delete on {name}")

    monkeypatch.setattr(store._once_only, "_put", denied)  # type: ignore[attr-defined]
    with pytest.raises(ObjectExists):
        store.put("taken", b"second")
    with pytest.raises(StoreDenied):
        store.put("free", b"first")


def probes_in(store: Store) -> list[str]:
    """What lies there, asked of the server past the store."""
    found = store._opened().list_blobs(BUCKET, prefix=store.url.removeprefix(f"gs://{BUCKET}/"))  # type: ignore[attr-defined]
    return [".probe-" + blob.name.partition("/.probe-")[2] for blob in found if "/.probe-" in blob.name]


def test_of_sixteen_big_puts_one_wins(server: GcsServer) -> None:
    """Threads: above 8 MiB, where the SDK's own upload would lose the precondition."""
    store = store_on(server)
    ready = threading.Barrier(16)
    won: list[int] = []
    other: list[Exception] = []

    def put(number: int) -> None:
        data = bytes([number]) * (8 * 1024 * 1024 + 1)
        ready.wait()
        try:
            store.put("big", data)
            won.append(number)
        except Exception as exc:
            other.append(exc)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(won)
    assert [ObjectExists] * 15 == [type(exc) for exc in other]
    assert bytes(won) * (8 * 1024 * 1024 + 1) == store.get("big")


# --- replacing


def test_replacing_is_one_request_without_a_precondition(answers: Answers) -> None:
    """No probe and no look come before it."""
    answers.body = b"{}"
    store_at(answers.endpoint).replace("metadata.json", b"x")

    ((method, path, _),) = answers.requests
    assert "POST" == method
    assert "ifGenerationMatch" not in path


def test_more_than_one_replacing_a_second_is_for_later(answers: Answers) -> None:
    """The service takes one of a name, and says so."""
    answers.status = 403
    reason = {"reason": "rateLimitExceeded", "message": "slow down"}
    answers.body = json.dumps({"error": {"code": 403, "message": "slow down", "errors": [reason]}}).encode()
    answers.headers = {"content-type": "application/json"}

    with pytest.raises(StoreUnavailable):
        store_at(answers.endpoint).replace("metadata.json", b"x")


def test_the_time_of_an_object_is_what_the_service_says(answers: Answers) -> None:
    """With its fraction; where it says none, that is denied, with a hint."""
    answers.headers = {"content-type": "application/json"}
    answers.body = b'{"name": "prefix/a", "size": "1", "updated": "2026-11-23T05:00:00.123Z"}'
    store = store_at(answers.endpoint)
    found = store.modified("a")
    answers.body = b'{"name": "prefix/a", "size": "1"}'
    with pytest.raises(StoreDenied, match="does not say when a was written") as caught:
        store.modified("a")

    assert datetime(2026, 11, 23, 5, 0, 0, 123_000, tzinfo=UTC).timestamp() * 1_000_000 == found
    assert caught.value.hint


# --- big and many


def test_a_big_object_comes_back_in_ranges(server: GcsServer) -> None:
    """Twenty mebibytes, whole and from the middle; its end is known."""
    data = random.Random(3).randbytes(20 * 1024 * 1024)
    store = store_on(server)
    store.put("big", data)

    assert data == store.get("big")
    assert data[9_999_999:19_999_999] == store.get_range("big", 9_999_999, 10_000_000)
    with pytest.raises(ObjectCorrupt, match=f"big ends at byte {len(data)}, wanted {len(data) + 1}"):
        store.get_range("big", len(data) - 9, 10)


BESIDE = """
import sys
from replicator.store.gcs import open_gcs
from tests.support.peak import peak

url, endpoint, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_gcs(url, {"STORAGE_EMULATOR_HOST": endpoint})
list(store.list(""))  # the SDK is loaded
begun = peak()
if sys.argv[4] == "put":
    store.put("big", bytes(size))
else:
    assert len(store.get("big")) == size
print(peak() - begun - size)
"""


def test_memory_stays_beside_the_object(server: GcsServer) -> None:
    """Putting and getting 100 MB needs less than 64 MB beyond the bytes themselves."""
    store = store_on(server)
    for what in ("put", "get"):
        command = [sys.executable, "-c", BESIDE, store.url, server.endpoint, "100000000", what]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr

        assert int(done.stdout) < 64_000_000


def test_a_listing_goes_on_over_pages(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More names than the service gives at once come in order, also from the middle of a page."""
    monkeypatch.setattr(gcs, "PAGE_NAMES", 4)
    store = store_on(server)
    names = [f"n/{number:02d}" for number in range(18)]
    for name in reversed(names):
        store.put(name, b"")

    assert names == [listed.name for listed in store.list("")]
    assert names[6:] == [listed.name for listed in store.list("n/", names[5])]


def test_a_slow_line_is_no_time_out(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body may take longer than a connection: as long as bytes move, nobody gives up."""
    monkeypatch.setattr(gcs, "CONNECT_SECONDS", 0.5)
    answers.slowness = 0.05
    store = store_at(answers.endpoint)
    store._once_only._known = True  # type: ignore[attr-defined]  # what it finds is not the question here
    began = time.monotonic()
    store.put("big", bytes(8 * 1024 * 1024))

    assert 2 < time.monotonic() - began


# --- a server that comes and goes


@pytest.fixture
def mortal() -> Iterator[GcsServer]:
    """A server that a test may freeze and kill."""
    with gcs_server() as running:
        yield running


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_hangs_is_unavailable(
    mortal: GcsServer, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """After the idle time, shortened here, and not a multiple of it; and it works again afterwards."""
    monkeypatch.setattr(gcs, "IDLE_SECONDS", 0.5)
    store = store_on(mortal)
    store.put("object", b"before")
    with mortal.frozen():
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            OPERATIONS[operation](store)
        took = time.monotonic() - began

    assert took < SOON_SECONDS
    monkeypatch.setattr(gcs, "IDLE_SECONDS", cloud_wire.IDLE_SECONDS)
    store.put("after", b"")
    assert b"" == store.get("after")


def test_a_server_that_was_away_is_there_again(mortal: GcsServer) -> None:
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
    assert b"before" == store.get("object")
    with pytest.raises(ObjectExists):
        store.put("object", b"after")
    with pytest.raises(ObjectNotFound):
        store.get("other")
