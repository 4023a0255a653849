"""What is fed to the parsers of what people, servers and other programs write: times, sizes, URLs, settings, answers.

Text of all kinds arrives as bytes: what is not UTF-8 is what Python makes of it in arguments and in the environment.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from replicator.cli.asked import asked_time, target_of
from replicator.config import load_config
from replicator.core.codec import parse_compression
from replicator.core.errors import ReplicatorError
from replicator.core.operator_key import parse_key, parse_passphrase
from replicator.core.position import parse_generation, parse_position, parse_txid
from replicator.core.quantities import (
    format_duration,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)
from replicator.core.times import (
    ago,
    compact_time,
    day_folder,
    format_time,
    month_of,
    parse_compact,
    parse_time,
)
from replicator.keys import KeySource
from replicator.store import azure, cloud_wire, gcs, s3_errors, s3_settings, sftp
from replicator.store.opening import folder_of, is_folder, is_plain_path, open_store
from replicator.store.sftp_known_hosts import KnownHosts
from replicator.store.sftp_session import READ, Dropped, Refused, Session
from replicator.store.sftp_url import parse_sftp_url
from tests.fuzz.engine import Form, Target

NOW = 1_738_044_000_000_000
# In memory, where there is such a place: the state folder is synced after each change.
SCRATCH = tempfile.TemporaryDirectory(
    prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)
"""One folder for all inputs that have to be files."""


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def parsed_by(*parsers: Callable[[str], Hashable]) -> Callable[[bytes], Hashable]:
    """Every parser gets the text; each may refuse it for itself."""

    def check(data: bytes) -> Hashable:
        found: list[Hashable] = []
        for parser in parsers:
            try:
                found.append(parser(text_of(data)) is not None)
            except ReplicatorError as exc:
                found.append(type(exc).__name__)
        return tuple(found)

    return check


# --- times and quantities ------------------------------------------------------------------------------


def time_in(text: str) -> Hashable:
    micros = parse_time(text, NOW).micros
    assert micros == parse_time(format_time(micros), NOW).micros
    assert parse_compact(compact_time(micros)) == micros - micros % 1_000_000
    assert day_folder(micros).replace("/", "-").startswith(month_of(micros))
    assert ago(micros, NOW)
    asked_time(text, NOW)
    return micros


def compact_in(text: str) -> Hashable:
    try:
        micros = parse_compact(text)
    except ValueError:  # as it says; its caller knows more
        return None
    assert compact_time(micros) == text
    return micros


def duration_in(text: str) -> Hashable:
    seconds = parse_duration(text)
    assert parse_duration(format_duration(seconds)) == seconds
    return seconds


def size_in(text: str) -> Hashable:
    size = parse_size(text)
    assert parse_size(format_size(size)) == size
    return size


def share_in(text: str) -> Hashable:
    share = parse_share(text)
    assert 0 < share <= 1
    return share


def compression_in(text: str) -> Hashable:
    found = parse_compression(text)
    assert parse_compression(str(found)) == found
    return found


def position_in(text: str) -> Hashable:
    position = parse_position(text)
    assert parse_position(str(position)) == position
    return position


def txid_in(text: str) -> Hashable:
    txid = parse_txid(text)
    assert parse_txid(f"{txid:016x}") == txid
    assert target_of(txid=text).txid == txid
    return txid


# --- keys ----------------------------------------------------------------------------------------------


def check_keys(data: bytes) -> Hashable:
    """No error repeats what it was given."""
    text = text_of(data)
    told: list[Hashable] = []
    environ = {"BACKUP_ENCRYPTION_KEY": text}
    calls: tuple[Callable[[], object], ...] = (
        lambda: parse_key(text, "setting"),
        lambda: parse_passphrase(text, "setting"),
        lambda: KeySource(environ).read(),
        lambda: KeySource({"BACKUP_ENCRYPTION_PASSPHRASE": text}).read(),
        lambda: (
            KeySource({"BACKUP_ENCRYPTION_KEY_COMMAND": text.replace("/", "").replace("\0", "")}).configured
        ),
    )
    for call in calls:
        try:
            made = call()
            told.append(True)
            assert len(text.strip()) < 12 or text.strip() not in repr(made)
        except ReplicatorError as exc:
            told.append(type(exc).__name__)
            _is_not_in(text.strip(), exc)
    return tuple(told)


def _is_not_in(secret: str, error: ReplicatorError) -> None:
    assert len(secret) < 12 or secret not in f"{error} {error.hint}"


# --- URLs and settings of stores -----------------------------------------------------------------------


def check_url(data: bytes) -> Hashable:
    """Lines behind the first are settings in the environment."""
    url, environ = _with_settings(data)
    found: list[Hashable] = [is_plain_path(url), is_folder(url)]
    for parser in (_sftp_place, _s3_place, _azure_place, _gs_place, _folder_place):
        try:
            found.append(parser(url, environ))
        except ReplicatorError as exc:
            found.append(type(exc).__name__)
            _shows_no_password(url, environ, f"{exc} {exc.hint}")
    return tuple(found)


def _with_settings(data: bytes) -> tuple[str, dict[str, str]]:
    url, *lines = text_of(data).split("\n")
    settings = (line.partition("=") for line in lines if "=" in line and "\0" not in line)
    return url, {"HOME": SCRATCH.name, **{name: value for name, _, value in settings}}


def _shows_no_password(url: str, environ: dict[str, str], told: str) -> None:
    """A password is one while an at sign is behind it, and a secret while it stands nowhere else: mutations make of
    them what they like."""
    scheme, _, rest = url.partition("://")
    password, _, host = rest.partition("/")[0].rpartition("@")
    host += rest.partition("/")[2]
    if "hunter2-in-the-url" in password and "hunter2-in-the-url" not in scheme + host:
        assert "hunter2-in-the-url" not in told, (url, told)
    everything = "\n".join((url, *environ.values()))
    for name in ("BACKUP_S3_SECRET_KEY", "BACKUP_SFTP_PASSWORD", "BACKUP_AZURE_ACCOUNT_KEY"):
        value = environ.get(name, "")
        assert len(value) < 8 or everything.count(value) > 1 or value not in told, (name, told)


def _sftp_place(url: str, environ: dict[str, str]) -> Hashable:
    place = parse_sftp_url(url)
    assert parse_sftp_url(place.url) == place
    assert ".." not in place.folder.split("/")
    return sftp.open_sftp(url, environ).url == place.url


def _s3_place(url: str, environ: dict[str, str]) -> Hashable:
    settings = s3_settings.read_settings(url, environ)
    assert s3_settings.read_settings(settings.url, environ) == settings
    keys = s3_settings.read_keys(environ)
    assert keys is None or len(keys.secret) < 8 or keys.secret not in repr(keys)
    return settings.virtual, keys is None


def _azure_place(url: str, environ: dict[str, str]) -> Hashable:
    store = azure.open_azure(url, environ)
    assert azure.open_azure(store.url, environ).url == store.url
    return store.in_clear


def _gs_place(url: str, environ: dict[str, str]) -> Hashable:
    store = gcs.open_gcs(url, environ)
    assert gcs.open_gcs(store.url, environ).url == store.url
    return store.in_clear


def _folder_place(url: str, _environ: dict[str, str]) -> Hashable:
    """Of the kinds that read the environment of the process itself, the URL alone; nothing is touched."""
    if not (is_folder(url) or "://" not in url):
        return None
    store = open_store(url)
    assert open_store(store.url).url == store.url
    return folder_of(store.url) is not None


# --- answers of servers --------------------------------------------------------------------------------


def check_answer(data: bytes) -> Hashable:
    """What an HTTP server says in a header or in an error."""
    text = text_of(data)
    seconds = cloud_wire.retry_after({"Retry-After": text})
    assert seconds is None or seconds >= 0
    assert "\n" not in cloud_wire.without_secrets(text)
    error = s3_errors.translated(
        Exception(text),
        what="put",
        name="name",
        bucket="bucket",
        endpoint="https://s3.example",
        has_worked=True,
    )
    return seconds is None, type(error).__name__


class _Said:
    """A wire on which a server said all that it will ever say."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def sendall(self, data: bytes) -> None:
        pass

    def recv(self, nbytes: int) -> bytes:
        piece, self._data = self._data[:nbytes], self._data[nbytes:]
        return piece

    def close(self) -> None:
        pass


def check_sftp(data: bytes) -> Hashable:
    """A session with a server that says anything."""
    done = 0
    try:
        session = Session(_Said(data))
        done = 1
        session.attributes(session.ask_lstat("/a"))
        done = 2
        handle = session.handle(session.ask_open("/a", READ))
        done = 3
        assert len(session.read(handle, 0, 70_000)) <= 70_000
        done = 4
        assert all("/" not in name for name, _ in session.list("/"))
        done = 5
        session.settle()
    except (Dropped, Refused):
        pass
    return done


def _sftp_corpus() -> bytes:
    """What a server says to `check_sftp` when all goes well."""

    def packet(kind: int, body: bytes) -> bytes:
        return (1 + len(body)).to_bytes(4, "big") + bytes([kind]) + body

    def string(text: bytes) -> bytes:
        return len(text).to_bytes(4, "big") + text

    def number(value: int) -> bytes:
        return value.to_bytes(4, "big")

    attributes = number(0x0D) + (3).to_bytes(8, "big") + number(0o100600) + number(7) + number(8)
    names = number(1) + string(b"name") + string(b"-rw------- name") + attributes
    end = number(1) + string(b"end") + string(b"en")
    replies = [
        packet(2, number(3) + string(b"fsync@openssh.com") + string(b"1")),
        packet(105, number(1) + attributes),
        packet(102, number(2) + string(b"handle")),
        packet(103, number(3) + string(b"x" * 32_768)),
        packet(103, number(4) + string(b"y" * 10)),
        packet(101, number(5) + end),
        packet(101, number(6) + end),
        packet(102, number(7) + string(b"folder")),
        packet(104, number(8) + names),
        *(packet(101, number(each) + end) for each in range(9, 18)),
    ]
    return b"".join(replies)


# --- files that people write ---------------------------------------------------------------------------


def check_config(data: bytes) -> Hashable:
    path = Path(SCRATCH.name, "replicator.yml")
    path.write_bytes(data)
    config = load_config(str(path))
    for each in config.databases:
        assert each.name
        assert each.interval_of(each.stores[0]) >= 0
        assert each.state_folder
        assert config.find(each.name) is not None
        assert len(repr(each)) < 20_000 + len(data) * 4
    return len(config.databases)


def check_profile(data: bytes) -> Hashable:
    """The files of the AWS tools, whose lines may be secrets."""
    path = Path(SCRATCH.name, "credentials")
    path.write_bytes(data)
    environ = {"AWS_SHARED_CREDENTIALS_FILE": str(path), "AWS_CONFIG_FILE": str(path), "AWS_PROFILE": "work"}
    try:
        return s3_settings.read_keys(environ) is None
    except ReplicatorError as exc:
        _is_not_in("wJalrXUtnFEMI", exc)
        raise


def check_known_hosts(data: bytes) -> Hashable:
    path = Path(SCRATCH.name, "known_hosts")
    path.write_bytes(data)
    known = KnownHosts(str(path), "nas.example", 2222)
    return min(len(known._keys), 2), min(len(known._revoked), 2)


def check_google_credentials(data: bytes) -> Hashable:
    path = Path(SCRATCH.name, "google.json")
    path.write_bytes(data)
    return gcs.open_gcs("gs://bucket", {"BACKUP_GCS_CREDENTIALS_FILE": str(path)}).url


# --- the table -----------------------------------------------------------------------------------------


def _lines(text: str) -> tuple[bytes, ...]:
    return tuple(line.strip().encode() for line in text.strip().splitlines())


_TIMES = _lines("""
    2025-01-28T14:30:00Z
    2025-01-28 14:30:00.123456+02:00
    1970-01-01
    9999-12-31T23:59:59.999999-00:01
    2024-02-29t00:00:00z
    now
    2 hours ago
    1.5 weeks ago
    999999999999.999999999 seconds ago
    20250128T020000Z
    latest
""")
_QUANTITIES = _lines("""
    15m
    250ms
    0
    1.000001s
    36500d
    4MiB
    100 GB
    9223372036854775807
    1.5KiB
    5%
    0.05
    100 %
    zstd:19
    gzip
    none
    5eed00c0ffee0001/00000000000000ff
    00000000000000FF
    123456789012345
""")
_KEYS = _lines("""
    7f3a91c4e85d026bb1f46e9c03d8a75210bd64f9e7325c8ea16f04d97b58c3e2
    fzqRxOhdAmux9G6cA9inUhC9ZPnnMlyOoW8E2XtYw+I=
    correct horse battery staple
    echo 7f3a91c4
""")
_URLS = tuple(
    each.replace(" ; ", "\n").encode()
    for each in (
        "/var/backups/app",
        "file:///var/backups/an%20app",
        "backups/app",
        "s3://bucket/app ; BACKUP_S3_ENDPOINT=http://127.0.0.1:9000",
        "s3://bucket/app ; BACKUP_S3_ACCESS_KEY=AKID ; BACKUP_S3_SECRET_KEY=0123456789",
        "s3://bucket.with.dots ; AWS_REGION=eu-central-1 ; BACKUP_S3_ADDRESSING_STYLE=virtual",
        "s3://access:hunter2-in-the-url@bucket/app",
        "gs://bucket_of.dots/app ; STORAGE_EMULATOR_HOST=127.0.0.1:4443",
        "azure://account1/container/app ; BACKUP_AZURE_ACCOUNT_KEY=QUJDREVGRw==",
        "azure://account1/container ; BACKUP_AZURE_CONNECTION_STRING=AccountName=account1;AccountKey=QUJDREVGRw==",
        "azure://account1/container ; AZURE_STORAGE_CONNECTION_STRING=AccountKey=QUJDREVGRw==;EndpointSuffix=x.example",
        "azure://account1/container ; BACKUP_AZURE_SAS_TOKEN=?sv=2024&sig=abc%3D",
        "sftp://user@nas.example:2222/backups/app",
        "sftp://user:hunter2-in-the-url@[::1]/~/backups ; BACKUP_SFTP_PASSWORD=correct-horse",
    )
)
_ANSWERS = _lines("""
    120
    Wed, 21 Oct 2026 07:28:00 GMT
    Wed, 21 Oct 99999999999 07:28:00 GMT
    Server returned non-2xx status code: 503: <Error><Code>SlowDown</Code></Error>
    Error performing GET https://s3.example/bucket/a in 1s - Generic: kind: Timeout
    https://x.example/?sv=2024&sig=abc AccountKey=secret; token=abc
""")
_CONFIG = b"""\
# All that may stand in one.
ship_interval: 50ms
spool_limit: 1GiB
bandwidth: 10MiB
barrier: auto
compression: zstd:9
verification: true
key_max_age: 90d
encryption: {key_file: key, passphrase_command: "pass show it"}
databases:
  - &first
    path: app.db
    name: app
    state: /var/lib/replicator/app
    stores: [backups/app, "file:///var/backups/app"]
  - <<: *first
    path: other.db
    name: other
    state: elsewhere
    stores:
      - backups/other
    barrier: never
"""
_YAML_WORDS = (
    b"!!timestamp x", b"2024-99-99", b"!!int x", b"!!float x", b"!!bool x", b"!!binary x", b"!!python/none",
    b"0x", b"0b_", b"1:99:99", b"190:20:30.15", b"&a", b"*a", b"*first", b"<<: *first\n", b"<<: [*first, *first]\n",
    b"? ", b"[", b"{", b"- ", b"|\n", b">-\n", b"!!set {a}", b"!!omap [a: 1]", b"!!pairs [a: 1]", b"%YAML 9.9\n---\n",
    b"\n---\n", b"\xef\xbb\xbf", b"\xff\xfe", b'"\\ud800"', b'"\\0"', b"path: ", b"databases:\n", b"[" * 2000,
    b"{a: " * 500, b"[*first,*first,*first,*first,*first,*first,*first]", b"null", b"~", b".nan", b"-.inf",
)  # fmt: skip
_PROFILE = b"""\
[default]
region = eu-central-1
[work]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
aws_session_token = IQoJb3JpZ2luX2V%jE
[profile work]
region = eu-west-1
"""
_KNOWN_HOSTS = b"""\
# people write into it
[nas.example]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1
*.example,!other.example ssh-rsa AAAAB3NzaC1yc2E
|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa AAAAB3
@revoked [nas.example]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2
@cert-authority *.example ssh-rsa AAAAB3
"""
_GOOGLE = b'{"type": "service_account", "private_key": "-----BEGIN", "client_email": "a@b.example"}'


def text_targets() -> Iterator[Target]:
    times = parsed_by(time_in, compact_in)
    quantities = parsed_by(
        duration_in, size_in, share_in, compression_in, position_in, txid_in, parse_generation
    )
    yield Target("times", times, _TIMES, Form.TEXT, words=_TIMES)
    yield Target("quantities", quantities, _QUANTITIES, Form.TEXT, words=_QUANTITIES)
    yield Target("keys", check_keys, _KEYS, Form.TEXT)
    yield Target("url", check_url, _URLS, Form.TEXT, words=_URLS, weight=0.5)
    yield Target("answer", check_answer, _ANSWERS, Form.TEXT, words=_ANSWERS)
    yield Target("sftp", check_sftp, (_sftp_corpus(),))
    yield Target("config", check_config, (_CONFIG,), Form.TEXT, words=_YAML_WORDS, weight=0.3)
    yield Target("aws-profile", check_profile, (_PROFILE,), Form.TEXT, words=(b"[", b"]", b"=", b"DEFAULT"))
    yield Target("known-hosts", check_known_hosts, (_KNOWN_HOSTS,), Form.TEXT)
    yield Target("google-credentials", check_google_credentials, (_GOOGLE,), Form.JSON)
