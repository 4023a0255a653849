"""S3 as a store: what the servers, the way to them, and the settings can do to it."""

from __future__ import annotations

import logging
import random
import secrets
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import obstore
import pytest

from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ConfigError,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    ReplicatorError,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from replicator.store import s3
from replicator.store.s3 import S3Store, open_s3
from tests.support.servers.s3 import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    Answering,
    S3Server,
    liar,
    seaweed,
    store_on,
)
from tests.support.servers.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"BACKUP_S3_ACCESS_KEY": ACCESS_KEY, "BACKUP_S3_SECRET_KEY": SECRET_KEY}

CALLS: dict[str, Callable[[S3Store], object]] = {
    "put": lambda store: store.put("a/b", b"x"),
    "get": lambda store: store.get("a/b"),
    "get_start": lambda store: store.get_start("a/b", 1),
    "get_range": lambda store: store.get_range("a/b", 0, 1),
    "get_range of nothing": lambda store: store.get_range("a/b", 0, 0),
    "list": lambda store: list(store.list("a/")),
    "delete": lambda store: store.delete("a/b"),
    "replace": lambda store: store.replace("a/b", b"x"),
    "modified": lambda store: store.modified("a/b"),
}
# An answer to HEAD has none, and S3 puts its codes there.
WITH_BODY = {name: call for name, call in CALLS.items() if name not in ("get_range of nothing", "modified")}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person or the machine that runs the tests: neither keys nor its metadata service."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    with seaweed() as server:
        yield server


@pytest.fixture(scope="session")
def lying() -> Iterator[S3Server]:
    with liar() as server:
        yield server


@pytest.fixture
def answering() -> Iterator[Answering]:
    with Answering() as server:
        yield server


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs of a second instead of half a minute."""
    monkeypatch.setattr(s3, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(s3, "IDLE_SECONDS", 1.0)


# --- where it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/app", "s3://bucket/app"),
        ("s3://bucket/app/", "s3://bucket/app"),
        ("s3://my.bucket-1/a/b/c", "s3://my.bucket-1/a/b/c"),
        ("s3://bucket/day=1/a b+c,d@e:f", "s3://bucket/day=1/a b+c,d@e:f"),
        ("s3://bucket/büro/köln", "s3://bucket/büro/köln"),
    ],
)
def test_a_url_names_bucket_and_prefix(given: str, canonical: str) -> None:
    """The url of a store opens the same place again."""
    store = open_s3(given, KEYS)

    assert canonical == store.url == open_s3(store.url, KEYS).url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://", "not an S3 URL"),
        ("gs://bucket", "not an S3 URL"),
        ("s3:///prefix", "not a bucket"),
        ("s3://ab", "not a bucket"),
        ("s3://Bucket", "not a bucket: 'Bucket'"),
        ("s3://under_score", "not a bucket"),
        ("s3://a..b", "not a bucket"),
        ("s3://-ab", "not a bucket"),
        ("s3://ab-", "not a bucket"),
        ("s3://" + "a" * 64, "not a bucket"),
        ("s3://192.168.0.1/a", "not a bucket: '192.168.0.1'"),
        ("s3://zone--use1-az4--x-s3", "directory bucket"),
        ("s3://bucket:9000/a", "colon"),
        ("s3://arn:aws:s3:::bucket/a", "colon"),
        ("s3://key:HUSH@bucket/a", "credentials do not belong"),
        ("s3://key:HU/SH@bucket/a", "credentials do not belong"),
        ("s3://HUSH@bucket/a", "credentials do not belong"),
        ("s3://bucket/a?region=eu", "no query"),
        ("s3://bucket?token=HUSH", "no query"),
        ("s3://bucket/a#b", "no fragment"),
        ("s3://bucket//a", "not a prefix"),
        ("s3://bucket/a//b", "not a prefix"),
        ("s3://bucket/a/../b", "not a prefix"),
        ("s3://bucket/.", "not a prefix"),
        ("s3://bucket/a%2Fb", "not a prefix"),
        ("s3://bucket/a\\b", "not a prefix"),
        ("s3://bucket/a\x85b", "not a prefix"),
        ("s3://bucket/" + "é" * 401, "not a prefix"),
    ],
)
def test_a_url_that_cannot_be_a_store_is_refused(url: str, says: str) -> None:
    """Before anything is asked of a server; with a hint, and without what may be a password."""
    with pytest.raises(UsageError, match=says) as caught:
        open_s3(url, KEYS)

    assert caught.value.hint
    assert "HUSH" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "environ", "endpoint"),
    [
        ("s3://bucket", {}, "https://bucket.s3.us-east-1.amazonaws.com"),
        (
            "s3://bucket",
            {"AWS_DEFAULT_REGION": "eu-central-1"},
            "https://bucket.s3.eu-central-1.amazonaws.com",
        ),
        (
            "s3://bucket",
            {"AWS_REGION": "a-b-1", "AWS_DEFAULT_REGION": "c"},
            "https://bucket.s3.a-b-1.amazonaws.com",
        ),
        ("s3://bucket", {"S3_REGION": "a-1", "AWS_REGION": "b-1"}, "https://bucket.s3.a-1.amazonaws.com"),
        ("s3://bucket", {"BACKUP_S3_REGION": "cn-north-1"}, "https://bucket.s3.cn-north-1.amazonaws.com.cn"),
        ("s3://my.bucket", {}, "https://s3.us-east-1.amazonaws.com"),
        ("s3://bucket", {"BACKUP_S3_ADDRESSING_STYLE": "path"}, "https://s3.us-east-1.amazonaws.com"),
        ("s3://bucket", {"BACKUP_S3_ENDPOINT": "https://h:9000/"}, "https://h:9000"),
        ("s3://bucket", {"S3_ENDPOINT": "https://h/s3", "AWS_ENDPOINT_URL": "https://no"}, "https://h/s3"),
        ("s3://bucket", {"AWS_ENDPOINT_URL_S3": "https://a", "AWS_ENDPOINT_URL": "https://b"}, "https://a"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "http://b"}, "http://b"),
        (
            "s3://bucket",
            {"BACKUP_S3_ENDPOINT": "https://h:9000", "BACKUP_S3_ADDRESSING_STYLE": "virtual"},
            "https://bucket.h:9000",
        ),
    ],
)
def test_the_endpoint_is_the_nearest_setting(url: str, environ: dict[str, str], endpoint: str) -> None:
    """Ours, then Amazon's for S3, then Amazon's for all; the bucket in front where that is the style."""
    assert endpoint == s3.read_settings(url, environ).endpoint


@pytest.mark.parametrize(
    ("style", "asked"),
    [("virtual", "http://bucket.s3.test:81/app/a"), ("path", "http://s3.test:81/bucket/app/a")],
)
def test_the_bucket_is_asked_for_in_its_style(
    answering: Answering, monkeypatch: pytest.MonkeyPatch, style: str, asked: str
) -> None:
    """In the name of the host or in the path, and once. A proxy sees it, and no name is looked up."""
    monkeypatch.setenv("http_proxy", answering.endpoint)
    environ = answering.environ(BACKUP_S3_ENDPOINT="http://s3.test:81", BACKUP_S3_ADDRESSING_STYLE=style)
    open_s3("s3://bucket/app", environ).get("a")

    assert [f"GET {asked}"] == answering.seen


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"BACKUP_S3_ENDPOINT": "minio:9000"}, "endpoint is not a URL"),
        ({"BACKUP_S3_ENDPOINT": "ftp://host"}, "endpoint is not a URL"),
        ({"BACKUP_S3_ENDPOINT": "https://host:port"}, "endpoint is not a URL"),
        ({"BACKUP_S3_ENDPOINT": "https://ho st"}, "endpoint is not a URL"),
        ({"BACKUP_S3_ENDPOINT": "https://key:HUSH@host"}, "host has credentials"),
        ({"BACKUP_S3_ENDPOINT": "https://host?token=HUSH"}, "host has a query"),
        (
            {"BACKUP_S3_ENDPOINT": "https://a", "S3_ENDPOINT": "https://b"},
            "BACKUP_S3_ENDPOINT and S3_ENDPOINT",
        ),
        ({"BACKUP_S3_REGION": "a", "S3_REGION": "b"}, "BACKUP_S3_REGION and S3_REGION"),
        ({"BACKUP_S3_REGION": "eu central"}, "not the name of a region"),
        ({"BACKUP_S3_ADDRESSING_STYLE": "host"}, "BACKUP_S3_ADDRESSING_STYLE is 'host'"),
        (
            {"BACKUP_S3_ADDRESSING_STYLE": "virtual", "BACKUP_S3_ENDPOINT": "http://127.0.0.1:9"},
            "address 127.0.0.1",
        ),
        ({"BACKUP_S3_CA_FILE": "/nowhere/ca.pem"}, "BACKUP_S3_CA_FILE: cannot read /nowhere/ca.pem"),
        ({"BACKUP_S3_CA_FILE": str(ROOT / "LICENSE")}, "BACKUP_S3_CA_FILE: .* holds no certificate"),
        ({"BACKUP_S3_ACCESS_KEY": "HUSH"}, "BACKUP_S3_ACCESS_KEY is set and BACKUP_S3_SECRET_KEY is not"),
        ({"S3_SECRET_KEY_FILE": __file__}, "S3_SECRET_KEY_FILE is set and BACKUP_S3_ACCESS_KEY is not"),
        ({"AWS_SECRET_ACCESS_KEY": "HUSH"}, "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"),
        (
            {"BACKUP_S3_ACCESS_KEY": "HUSH", "S3_ACCESS_KEY": "HUSH2"},
            "BACKUP_S3_ACCESS_KEY and S3_ACCESS_KEY",
        ),
        ({**KEYS, "BACKUP_S3_SESSION_TOKEN": "HUSH\nHUSH"}, "token has a character"),
        ({"BACKUP_S3_SECRET_KEY_FILE": "/nowhere/key"}, "BACKUP_S3_SECRET_KEY_FILE: cannot read"),
        ({"AWS_PROFILE": "missing", "HOME": "/nowhere"}, "'missing' of AWS_PROFILE"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(environ: dict[str, str], says: str) -> None:
    """The key is named; its value only where that is no secret."""
    with pytest.raises(ConfigError, match=says) as caught:
        open_s3("s3://bucket", environ)

    assert caught.value.hint
    assert "HUSH" not in f"{caught.value} {caught.value.hint}"


def test_a_certificate_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    """It looks like one to us, and not to the SDK."""
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError) as caught:
        open_s3("s3://bucket", {**KEYS, "BACKUP_S3_CA_FILE": str(tmp_path / "ca.pem")})

    assert "BACKUP_S3_CA_FILE" in (caught.value.hint or "")


def test_keys_come_from_the_nearest_place(tmp_path: Path) -> None:
    """Ours before Amazon's before a profile; a file's line break is not part of a key."""
    (tmp_path / "secret").write_text("s-file\n")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = d%d\n"
        "[other]\naws_access_key_id=o\naws_secret_access_key=o\naws_session_token=t\n"
    )
    (tmp_path / ".aws" / "config").write_text("[profile other]\nregion = eu-west-3\n")
    home = {"HOME": str(tmp_path)}
    amazon = {**home, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a", "AWS_SESSION_TOKEN": "at"}
    ours = {**amazon, "S3_ACCESS_KEY": "s", "BACKUP_S3_SECRET_KEY_FILE": str(tmp_path / "secret")}
    found = [s3.read_keys(each) for each in (ours, amazon, home, {**home, "AWS_PROFILE": "other"}, {})]

    assert [("s", "s-file", None), ("a", "a", "at"), ("d", "d%d", None), ("o", "o", "t")] == [
        (keys.access, keys.secret, keys.token) for keys in found if keys
    ]
    assert found[-1] is None
    assert "eu-west-3" == s3.read_settings("s3://bucket", {**home, "AWS_PROFILE": "other"}).region


def test_keys_that_are_renewed_in_their_file_are_read_again(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session token ends; whoever writes the next one into the file need not restart anything."""
    monkeypatch.setattr(s3, "_KEYS_MINUTES", 0)
    secret = tmp_path / "secret"
    secret.write_text("expired")
    environ = server.environ(BACKUP_S3_SECRET_KEY_FILE=str(secret))
    del environ["BACKUP_S3_SECRET_KEY"]
    store = open_s3(f"s3://{BUCKET}/renewed", environ)
    with pytest.raises(StoreDenied):
        store.put("a", b"x")
    secret.write_text(SECRET_KEY + "\n")
    store.put("a", b"x")

    assert b"x" == store.get("a")


# --- what goes wrong -----------------------------------------------------------------------------------


@every_call
@pytest.mark.parametrize("key", ["BACKUP_S3_ACCESS_KEY", "BACKUP_S3_SECRET_KEY"])
def test_a_wrong_key_is_denied(server: S3Server, call: Callable[[S3Store], object], key: str) -> None:
    """Not retryable, and says which settings to look at."""
    with pytest.raises(StoreDenied, match=f"bucket {BUCKET}") as caught:
        call(open_s3(f"s3://{BUCKET}/denied", server.environ(**{key: "wrong"})))

    assert not caught.value.retryable
    assert "key" in (caught.value.hint or "")


@pytest.mark.parametrize("call", ["get", "get_range", "put", "replace"])
def test_a_missing_bucket_is_not_a_missing_object(lying: S3Server, server: S3Server, call: str) -> None:
    """The bucket is named. (SeaweedFS makes a bucket that is put to; the other server does not.)"""
    on = lying if call in ("put", "replace") else server
    with pytest.raises(StoreDenied, match="no-such-bucket: there is no such bucket"):
        CALLS[call](open_s3("s3://no-such-bucket", on.environ()))


def error(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>HUSH</Message></Error>"


@pytest.mark.parametrize("call", WITH_BODY.values(), ids=WITH_BODY)
@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (400, "RequestTimeout", StoreUnavailable, ""),
        (400, "IncompleteBody", StoreUnavailable, ""),
        (400, "BadDigest", StoreUnavailable, ""),
        (408, "", StoreUnavailable, ""),
        (409, "ConditionalRequestConflict", StoreUnavailable, ""),
        (429, "", StoreUnavailable, ""),
        (500, "InternalError", StoreUnavailable, ""),
        (503, "SlowDown", StoreUnavailable, ""),
        (504, "", StoreUnavailable, ""),
        (301, "PermanentRedirect", StoreDenied, "BACKUP_S3_REGION"),
        (400, "AuthorizationHeaderMalformed", StoreDenied, "BACKUP_S3_REGION"),
        (400, "ExpiredToken", StoreDenied, "renew"),
        (401, "", StoreDenied, "allow"),
        (403, "AccessDenied", StoreDenied, "allow"),
        (403, "RequestTimeTooSkewed", StoreDenied, "clock"),
        (404, "NoSuchBucket", StoreDenied, "create it"),
        (405, "", StoreDenied, "endpoint"),
    ],
)
def test_each_answer_becomes_an_error_of_ours(
    answering: Answering,
    call: Callable[[S3Store], object],
    status: int,
    code: str,
    kind: type[ReplicatorError],
    says: str,
) -> None:
    """Retryable or not, asked once, with a hint where somebody must act, and nothing else of what was said."""
    answering.answer = lambda method, path: (status, error(code) if code else "")
    with pytest.raises(kind) as caught:
        call(open_s3("s3://bucket/app", answering.environ()))

    assert says in (caught.value.hint or "")
    assert "HUSH" not in str(caught.value)
    assert 1 == len(answering.seen)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, StoreDenied),
        (403, StoreDenied),
        (404, ObjectNotFound),
        (408, StoreUnavailable),
        (429, StoreUnavailable),
        (500, StoreUnavailable),
        (503, StoreUnavailable),
    ],
)
def test_an_answer_without_a_body_is_understood(
    answering: Answering, status: int, kind: type[ReplicatorError]
) -> None:
    """HEAD gives a status and nothing else."""
    answering.answer = lambda method, path: (status, "")
    with pytest.raises(kind):
        open_s3("s3://bucket", answering.environ()).get_range("a", 0, 0)

    assert ["HEAD /bucket/a"] == answering.seen


def test_to_delete_what_is_missing_is_no_error_anywhere(answering: Answering) -> None:
    """Some servers answer 404 where S3 answers 204."""
    answering.answer = lambda method, path: (404, error("NoSuchKey"))
    open_s3("s3://bucket", answering.environ()).delete("a")

    assert ["DELETE /bucket/a"] == answering.seen


@pytest.mark.usefixtures("short")
def test_a_large_put_may_take_its_time(answering: Answering) -> None:
    """The time-out of a put grows with its size; that of a small one does not."""

    def answer(method: str, path: str) -> tuple[int, str]:
        if "probe" not in path:
            time.sleep(2)
        return (412, "") if answering.seen.count(f"{method} {path}") == 2 else (200, "")

    answering.answer = answer
    store = open_s3("s3://bucket", answering.environ())
    store.put("large", bytes(300_000))
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        store.put("small", b"x")


def test_a_put_in_conflict_with_another_is_asked_again(answering: Answering) -> None:
    """409 says that somebody writes at this moment; whether the name is taken is not known yet."""
    answering.answer = lambda method, path: (409, error("ConditionalRequestConflict"))
    store = open_s3("s3://bucket", answering.environ())
    with pytest.raises(StoreUnavailable) as caught:
        store.put("a", b"x")

    assert caught.value.retryable


@pytest.mark.parametrize("size", [100, 10_000_000])
def test_an_answer_that_breaks_off_is_no_object(answering: Answering, size: int) -> None:
    """A connection lost in the middle gives an error that may be tried again, and not a part."""
    answering.answer = lambda method, path: (200, "x" * size)
    answering.missing_bytes = 50
    with pytest.raises(StoreUnavailable):
        open_s3("s3://bucket", answering.environ()).get("a")


@every_call
def test_a_server_that_is_down_is_unavailable(call: Callable[[S3Store], object]) -> None:
    """At once, whatever is asked."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        call(open_s3("s3://bucket", {**KEYS, "BACKUP_S3_ENDPOINT": "http://127.0.0.1:1"}))

    assert time.monotonic() - began < 2


@every_call
@pytest.mark.usefixtures("short")
def test_a_server_that_hangs_is_unavailable(server: S3Server, call: Callable[[S3Store], object]) -> None:
    """Connected or not, each call comes back after its time-out; a little later the server is there again."""
    store = store_on(server)
    store.put("before", b"x")
    with server.frozen():
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            call(store)
        took = time.monotonic() - began

    assert took < 4
    assert b"x" == store.get("before")


def test_a_server_that_was_killed_and_came_back_has_everything() -> None:
    """The store object of before goes on, without having been told."""
    with seaweed() as server:
        store = store_on(server)
        store.put("a", b"first")
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.put("b", b"second")
        server.start()
        store.put("b", b"second")

        assert [b"first", b"second"] == [store.get("a"), store.get("b")]
        with pytest.raises(ObjectExists):
            store.put("a", b"third")


@pytest.mark.usefixtures("short")
def test_a_machine_without_credentials_is_denied_within_seconds(server: S3Server) -> None:
    """Where the metadata service of a cloud is not there, or accepts and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (1, silent.getsockname()[1]):
            environ = {
                "BACKUP_S3_ENDPOINT": server.endpoint,
                "AWS_METADATA_ENDPOINT": f"http://127.0.0.1:{port}",
            }
            began = time.monotonic()
            with pytest.raises(StoreDenied, match="no credentials were found") as caught:
                open_s3(f"s3://{BUCKET}", environ).get("a")

            assert time.monotonic() - began < 4
            assert "BACKUP_S3_ACCESS_KEY" in (caught.value.hint or "")


def test_credentials_of_a_role_are_used_and_their_outage_passes(tmp_path: Path) -> None:
    """A container's service gives them, which end at once here; when it is away, the store is, too."""
    (tmp_path / "token").write_text("pass")
    given = (
        '"AccessKeyId": "ROLE", "SecretAccessKey": "s", "Token": "t", "Expiration": "2026-01-01T00:00:00Z"'
    )
    with Answering() as role, Answering() as server:
        role.answer = lambda method, path: (200, "{" + given + "}")
        server.answer = lambda method, path: (200, "x")
        environ = {
            "BACKUP_S3_ENDPOINT": server.endpoint,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{role.endpoint}/role",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        }
        store = open_s3("s3://bucket", environ)
        store.get("a")
        role.answer = lambda method, path: (503, "")
        with pytest.raises(StoreUnavailable, match="no credentials for now"):
            store.get("a")

        assert ["GET /role"] * 2 == role.seen


def test_no_secret_is_in_anything_people_read(server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in an error with its whole trace, nor in a repr, a url or the log."""
    caplog.set_level(logging.DEBUG)
    environ = server.environ(BACKUP_S3_SECRET_KEY="HUSH-secret", BACKUP_S3_SESSION_TOKEN="HUSH-token")
    store = open_s3(f"s3://{BUCKET}/hush", environ)
    said = [repr(store), str(store.__dict__), store.url]
    for call in CALLS.values():
        with pytest.raises(ReplicatorError) as caught:
            call(store)
        said += traceback.format_exception(caught.value)

    assert "HUSH" not in "".join(said) + caplog.text


def test_what_a_server_quotes_of_a_request_stays_out_of_the_error(answering: Answering) -> None:
    """S3 answers a wrong signature with the request it saw, session token included."""
    token = secrets.token_hex()
    quoted = (
        f"<CanonicalRequest>x-amz-security-token:{token}</CanonicalRequest><Code>SignatureDoesNotMatch</Code>"
    )
    answering.answer = lambda method, path: (403, f"<Error>{quoted}</Error>")
    with pytest.raises(StoreDenied) as caught:
        open_s3("s3://bucket", answering.environ(BACKUP_S3_SESSION_TOKEN=token)).get("a")

    assert token not in "".join(traceback.format_exception(caught.value))
    assert "SignatureDoesNotMatch" in str(caught.value)


# --- TLS -----------------------------------------------------------------------------------------------


def test_a_private_ca_is_trusted_where_it_is_named() -> None:
    """With BACKUP_S3_CA_FILE it works; without, the error names that setting."""
    with seaweed(tls=True) as server:
        store = store_on(server)
        store.put("a", b"x")
        environ = server.environ()
        del environ["BACKUP_S3_CA_FILE"]
        with pytest.raises(StoreDenied, match="certificate of the server is not trusted") as caught:
            open_s3(f"s3://{BUCKET}", environ).get("a")

        assert b"x" == store.get("a")
        assert "BACKUP_S3_CA_FILE" in (caught.value.hint or "")


# --- put-once ------------------------------------------------------------------------------------------


def test_a_server_that_keeps_preconditions_is_not_suspected(
    server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is warned of, and the probe is gone."""
    store = store_on(server)
    store.put("a", b"x")

    assert [] == caplog.records
    assert ["a"] == [listed.name for listed in store.list("")]


def test_a_server_that_ignores_preconditions_is_found(
    lying: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It is looked before each put, with one warning; nothing that exists is overwritten, and the probe is gone."""
    store = store_on(lying)
    store.put("a", b"first")
    for name in ("a", "b"):
        if name == "b":
            store.put(name, b"first")
        with pytest.raises(ObjectExists):
            store.put(name, b"second")

    assert ["store.put-once-unsure"] == [record.message for record in caplog.records]
    assert b"first" == store.get("a")
    assert ["a", "b"] == [listed.name for listed in store.list("")]


def test_reading_needs_no_probe(answering: Answering) -> None:
    """Keys that may only read are a way to run, and a look costs one request."""
    answering.answer = lambda method, path: (404, error("NoSuchKey"))
    with pytest.raises(ObjectNotFound):
        open_s3("s3://bucket", answering.environ()).get("a")

    assert ["GET /bucket/a"] == answering.seen


def test_a_server_that_knows_no_preconditions_is_looked_at_before(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    """501 to the header is not the end: there is the weaker way."""
    replies = {"PUT": [501, 200], "HEAD": [404, 200], "DELETE": [204]}
    answering.answer = lambda method, path: (replies[method].pop(0), "")
    store = open_s3("s3://bucket", answering.environ())
    store.put("a", b"x")
    with pytest.raises(ObjectExists):
        store.put("a", b"x")

    assert ["PUT", "DELETE", "HEAD", "PUT", "HEAD"] == [each.split()[0] for each in answering.seen]
    assert ["store.put-once-unsure"] == [record.message for record in caplog.records]


def test_keys_that_may_not_delete_can_put(answering: Answering, caplog: pytest.LogCaptureFixture) -> None:
    """The probe stays behind, and that is all; it is made once, whatever is put after."""
    replies = [
        (200, ""),
        (412, error("PreconditionFailed")),
        (403, error("AccessDenied")),
        (200, ""),
        (200, ""),
    ]
    answering.answer = lambda method, path: replies.pop(0)
    store = open_s3("s3://bucket", answering.environ())
    store.put("a", b"x")
    store.put("b", b"x")

    assert ["PUT /bucket/a", "PUT /bucket/b"] == answering.seen[3:]
    assert [] == replies
    assert [] == caplog.records


def test_of_sixteen_stores_that_put_a_name_one_wins(server: S3Server) -> None:
    """Threads: each with a store of its own, as processes would have, all at their first put."""
    url = store_on(server).url
    ready = threading.Barrier(16)
    outcome: list[str] = []

    def put(number: int) -> None:
        store = open_s3(url, server.environ())
        ready.wait()
        try:
            store.put("race", bytes([number]) * 10_000)
            outcome.append("won")
        except ObjectExists:
            outcome.append("lost")

    threads = [threading.Thread(target=put, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["lost"] * 15 + ["won"] == sorted(outcome)
    assert ["race"] == [listed.name for listed in open_s3(url, server.environ()).list("")]


# --- replacing -----------------------------------------------------------------------------------------


def test_replacing_needs_no_probe_and_no_look(answering: Answering) -> None:
    """One request, whatever the server makes of preconditions."""
    open_s3("s3://bucket", answering.environ()).replace("metadata.json", b"x")

    assert ["PUT /bucket/metadata.json"] == answering.seen


@pytest.mark.parametrize("status", [304, 404, 412, 501])
def test_a_replacing_that_is_refused_is_denied(answering: Answering, status: int) -> None:
    """No answer to it says that a name is taken, or that there is none."""
    answering.answer = lambda method, path: (status, "")
    with pytest.raises(StoreDenied) as caught:
        open_s3("s3://bucket", answering.environ()).replace("metadata.json", b"x")

    assert caught.value.hint


def test_a_server_that_ignores_preconditions_replaces(lying: S3Server) -> None:
    """It is no relative of the other one."""
    store = store_on(lying)
    for content in (b"first", b"second and longer", b"third"):
        store.replace("metadata.json", content)

        assert content == store.get("metadata.json")


def test_the_time_of_an_object_is_what_the_server_says(answering: Answering) -> None:
    """In its head, for which one request is made."""
    found = open_s3("s3://bucket", answering.environ()).modified("a")

    assert datetime(2026, 11, 23, 5, tzinfo=UTC).timestamp() * 1_000_000 == found
    assert ["HEAD /bucket/a"] == answering.seen


# --- listing -------------------------------------------------------------------------------------------


def test_a_long_listing_is_in_the_order_of_names(server: S3Server) -> None:
    """More than two pages, from a server that puts a folder before what sorts before its slash."""
    store = store_on(server)
    names = [
        f"{head}{number:03}" for head in ("a-", "a.", "a/", "a/b-", "a/b/", "a0") for number in range(400)
    ]
    threads = [
        threading.Thread(target=lambda part: [store.put(n, b"") for n in part], args=(names[k::8],))
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names.sort()

    assert [Listed(name, 0) for name in names] == list(store.list(""))
    for after in ("a-100", "a.", "a/b-399", "a/", "a0"):
        assert [name for name in names if name > after] == [listed.name for listed in store.list("", after)]
    assert [n for n in names if n.startswith("a/b")] == [listed.name for listed in store.list("a/b")]


def test_a_listing_asks_for_a_page_when_it_is_wanted(answering: Answering) -> None:
    """Who stops early has cost one request, where names are in order; order is asked for where folders begin."""
    pages: dict[str, list[str]] = {"": [f"{n:04}" for n in range(1000)], "next": ["2000"]}

    def answer(method: str, path: str) -> tuple[int, str]:
        part = "next" if "continuation-token" in path else ""
        keys = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-11-23T05:00:00.000Z</LastModified>"
            f"<ETag>e</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for name in pages[part]
        )
        more = "" if part else "<NextContinuationToken>t</NextContinuationToken>"
        return (
            200,
            f"<ListBucketResult><IsTruncated>{str(not part).lower()}</IsTruncated>{keys}{more}</ListBucketResult>",
        )

    answering.answer = answer
    found = open_s3("s3://bucket", answering.environ()).list("")
    first = next(found)
    asked = len(answering.seen)

    assert ("0000", 1) == (first.name, asked)
    assert 1000 == len(list(found))
    assert 2 == len(answering.seen)


# --- large objects -------------------------------------------------------------------------------------


def test_a_large_object_is_put_once(server: S3Server) -> None:
    """Twenty mebibytes, whole and in part; the second put is refused like that of a small one."""
    store = store_on(server)
    data = random.Random(3).randbytes(20 << 20)
    store.put("big", data)
    with pytest.raises(ObjectExists):
        store.put("big", bytes(20 << 20))

    assert data == store.get("big")
    assert data[1 << 20 : 19 << 20] == store.get_range("big", 1 << 20, 18 << 20)
    with pytest.raises(ObjectCorrupt, match=f"big ends at byte {20 << 20}, wanted {30 << 20}"):
        store.get_range("big", 10 << 20, 20 << 20)


def test_of_four_puts_of_large_objects_one_wins(server: S3Server) -> None:
    """Threads: 65 MiB each, which other clients would send in parts."""
    store = store_on(server)
    size = 65 << 20
    ready = threading.Barrier(4)
    won: list[int] = []
    other: list[Exception] = []

    def put(number: int) -> None:
        data = bytes([number]) * size
        ready.wait()
        try:
            store.put("big", data)
            won.append(number)
        except Exception as exc:
            other.append(exc)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [ObjectExists] * 3 == [type(exc) for exc in other]
    assert bytes(won) * size == store.get("big")


def test_the_sdk_makes_one_request_of_a_put_once(server: S3Server) -> None:
    """Also where it is told to use parts: it has no precondition for them, and one of two would overwrite the other.
    Once it has, large objects can go in parts."""
    store = store_on(server)
    store.put("before", b"the probe is over")
    with Wire(server.endpoint) as wire:
        environ = server.environ(BACKUP_S3_ENDPOINT=wire.endpoint)
        client = open_s3(store.url, environ)._client(20 << 20)
        for mode in ("overwrite", "create"):
            obstore.put(client, mode, bytes(20 << 20), mode=mode, use_multipart=True)  # type: ignore[arg-type]
        asked = [(each.request.method, each.request.get("if-none-match")) for each in wire.seen]

    parts, once = asked[:-1], asked[-1]
    assert [("POST", ""), ("PUT", ""), ("POST", "")] == [parts[0], parts[1], parts[-1]]
    assert ("PUT", "*") == once


@pytest.mark.parametrize("body", ["", "0123456789"])
def test_a_server_that_ignores_ranges_gives_a_start_all_the_same(answering: Answering, body: str) -> None:
    """Some do where the object is empty. What is asked for is cut out of all that there is."""
    answering.answer = lambda method, path: (200, body)
    store = open_s3("s3://bucket", answering.environ())

    assert (body[:4].encode(), len(body)) == store.get_start("a", 4)
    assert 2 == len(answering.seen)


def test_another_server_gives_the_start_of_an_object(lying: S3Server) -> None:
    """With its size; it is no relative of the one that all else is tried on."""
    store = store_on(lying)
    for size in (0, 1, 100, 101):
        store.put(f"{size}", bytes(size))

        assert (bytes(min(size, 100)), size) == store.get_start(f"{size}", 100)


def test_another_server_gives_a_part_of_an_object(lying: S3Server) -> None:
    """It may answer with all of it: the part is cut out, so that what was stored there can be restored."""
    store = store_on(lying)
    content = bytes(range(200))
    store.put("some", content)

    assert content[50:60] == store.get_range("some", 50, 10)
    assert content[150:] == store.get_range("some", 150, 50)
    with pytest.raises(ObjectCorrupt, match="some ends at byte 200"):
        store.get_range("some", 150, 51)


def test_the_memory_of_a_large_object_is_its_own(server: S3Server) -> None:
    """Another process: to put and to get 192 MiB takes them once, and less than 64 MB beside."""
    script = """
        import sys
        from replicator.store.s3 import open_s3
        from tests.support.peak import peak
        url, size, environ = sys.argv[1], int(sys.argv[2]), dict(each.split("=", 1) for each in sys.argv[3:])
        store = open_s3(url, environ)
        store.put("small", b"x")
        data, before = b"x" * size, peak()
        store.put("big", data)
        put, data = peak() - before, b""
        assert len(store.get("big")) == size
        print(put, peak() - before)
    """
    url, size = f"s3://{BUCKET}/{secrets.token_hex(8)}", 192 << 20
    environ = [f"{key}={value}" for key, value in server.environ().items()]
    command = [sys.executable, "-c", textwrap.dedent(script), url, str(size), *environ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    assert 0 == done.returncode, done.stderr
    put, both = map(int, done.stdout.split())
    assert max(put, both) < 64_000_000
