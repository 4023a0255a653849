"""S3, of Amazon or any other: put-once is If-None-Match, or a look before where the server ignores that.

The SDK is obstore. One request a put, whatever its size: the SDK knows no precondition for uploads in parts, and where
both are asked for it makes one request. S3 takes 5 GiB in one, and no object of ours has a hundredth of that.
"""

from __future__ import annotations

import io
import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ConfigError,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from replicator.core.sizes import require_proper_size
from replicator.core.times import micros_of
from replicator.store.contract import PROBES, is_probe
from replicator.store.s3_errors import PreconditionUnsupported, RangeBeyondEnd, RangeIgnored, translated
from replicator.store.s3_settings import S3Settings, read_keys, read_settings

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ClientConfig, S3Config, S3Credential
    from obstore.store import S3Store as Client

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0  # a server that is there accepts within one, even from the other side of the world
IDLE_SECONDS = 30.0  # between two bytes of an answer; S3 may think for ten seconds under load
# The SDK counts a put as idle until it is answered, so that the time grows with what must go up. A line
# slower than this cannot keep a store.
_UPLOAD_BYTES_PER_SECOND = 128 << 10
_SMALL_PUT_BYTES = 256 << 10  # takes no time worth counting
_WHOLE_SECONDS = 6 * 3600.0  # of one answer that never stops coming, however slowly
_PIECE_BYTES = 256 << 10  # what is read at once, and is in memory twice meanwhile
_PAGE = 1000  # names in an answer to a list, fixed by S3
_KEYS_MINUTES = 15  # after which keys are read from their file again

# Of the environment, what only the SDK's own search for credentials uses.
_CHAIN = {
    "AWS_WEB_IDENTITY_TOKEN_FILE": "web_identity_token_file",
    "AWS_ROLE_ARN": "role_arn",
    "AWS_ROLE_SESSION_NAME": "role_session_name",
    "AWS_STS_ENDPOINT": "sts_endpoint",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "container_credentials_relative_uri",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "container_credentials_full_uri",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "container_authorization_token_file",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "metadata_endpoint",
    "AWS_METADATA_ENDPOINT": "metadata_endpoint",
}


def open_s3(url: str, environ: Mapping[str, str]) -> S3Store:
    """The store at ``s3://bucket[/prefix]``. Files with keys and certificates are read, no request is made."""
    settings = read_settings(url, environ)
    keys = read_keys(environ)
    config: S3Config = {
        # This one wins over all that the SDK finds in the environment of the process by itself.
        "aws_endpoint_url_s3": settings.endpoint,
        "region": settings.region,
        "virtual_hosted_style_request": settings.virtual,
        # The server checks what arrived; a bucket with object lock takes no put without.
        "checksum_algorithm": "SHA256",
        "disable_bulk_delete": True,  # we delete one at a time, and not every server knows the other way
    }
    if keys is None:
        config.update({key: environ[name] for name, key in _CHAIN.items() if environ.get(name)})  # type: ignore[typeddict-item]

    def current() -> S3Credential:
        found = read_keys(environ) if keys and keys.from_file else keys
        assert found is not None
        until = datetime.now(UTC) + timedelta(minutes=_KEYS_MINUTES) if found.from_file else None
        return {
            "access_key_id": found.access,
            "secret_access_key": found.secret,
            "token": found.token,
            "expires_at": until,
        }

    return S3Store(settings, config, current if keys else None)


class S3Store:
    """Objects below a prefix of a bucket. ``url`` does not name the endpoint, which is a setting."""

    def __init__(
        self, settings: S3Settings, config: S3Config, credentials: Callable[[], S3Credential] | None
    ) -> None:
        self._settings = settings
        self._config = config
        self._credentials = credentials
        self._clients: dict[float, Client] = {}
        self._deciding = threading.Lock()
        self._keeps_preconditions: bool | None = None  # until the first put
        self._lists_by_folder: bool | None = None  # until a listing of several pages
        self._has_worked = False
        self._client()  # what the SDK refuses is refused now

    @property
    def url(self) -> str:
        return self._settings.url

    @property
    def in_clear(self) -> bool:
        return self._settings.endpoint.startswith("http://")

    def put(self, name: str, data: bytes) -> None:
        if self._keeps_preconditions is None:
            self._probe()
        if self._keeps_preconditions:
            self._create(name, data)
            return
        # Weaker: two who put the same name within one round trip both succeed, and the later one's bytes stay.
        try:
            self._look(name)
        except ObjectNotFound:
            with self._errors("put", name):
                self._write(name, data, "overwrite")
        else:
            raise ObjectExists(name)

    def get(self, name: str) -> bytes:
        import obstore

        with self._errors("get", name):
            answer = obstore.get(self._client(), name)
            require_proper_size(name, answer.meta["size"])
            return _collected(answer, answer.meta["size"])

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        import obstore

        try:
            with self._errors("get", name):
                answer = obstore.get(self._client(), name, options={"range": (0, length)})
                size = answer.meta["size"]
                return _collected(answer, min(size, length)), size
        except RangeBeyondEnd:
            return b"", 0
        except RangeIgnored:  # which a server may do, and some do where the object is empty
            data = self.get(name)
            return data[:length], len(data)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        import obstore

        if length == 0:
            self._look(name)
            return b""
        try:
            with self._errors("get", name):
                answer = obstore.get(self._client(), name, options={"range": (offset, offset + length)})
                start, stop = answer.range
                size = answer.meta["size"]
                if (start, stop) == (offset, offset + length):
                    return _collected(answer, length)
        except RangeBeyondEnd:
            size = self._look(name)["size"]
        except RangeIgnored:
            data = self.get(name)
            if len(data) >= offset + length:
                return data[offset : offset + length]
            size = len(data)
        raise ObjectCorrupt(f"{name} ends at byte {size}, wanted {offset + length}", name=name)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Page by page. Only where a server lists by folders a long listing is first read as a whole."""
        folder = prefix[: prefix.rfind("/") + 1]
        if after > prefix and not after.startswith(prefix):
            return  # everything with the prefix sorts before it
        for listed in self._ordered(folder, _start(folder, max(prefix, after))):
            if listed.name.startswith(prefix) and listed.name > after:
                if is_probe(prefix) or not is_probe(listed.name):
                    yield listed
            elif listed.name > prefix and listed.name > after:
                return

    def delete(self, name: str) -> None:
        import obstore

        with suppress(ObjectNotFound), self._errors("delete", name):
            obstore.delete(self._client(), name)

    def replace(self, name: str, data: bytes) -> None:
        with self._errors("replace", name):
            self._write(name, data, "overwrite")

    def modified(self, name: str) -> int:
        """In whole seconds."""
        return micros_of(self._look(name)["last_modified"])

    # --- put-once --------------------------------------------------------------------------------------

    def _create(self, name: str, data: bytes) -> None:
        with self._errors("put", name):
            self._write(name, data, "create")

    def _write(self, name: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        import obstore

        body = data if isinstance(data, bytes) else bytes(data)
        obstore.put(self._client(len(body)), name, body, mode=mode, use_multipart=False)

    def _probe(self) -> None:
        """Find out whether the server keeps preconditions. Threads that come together each find it out."""
        name = f"{PROBES}{secrets.token_hex(8)}"
        keeps = False
        try:
            for _ in range(2):
                self._create(name, b"put twice to see whether put-once is kept; may be deleted\n")
        except ObjectExists:
            keeps = True
        except PreconditionUnsupported:
            pass
        with self._deciding:
            first, self._keeps_preconditions = self._keeps_preconditions is None, keeps
        if first and not keeps:
            log.warning(
                "store.put-once-unsure",
                extra={"store": self.url, "reason": "the server ignores If-None-Match"},
            )
        try:
            self.delete(name)
        except StoreError as exc:  # keys that may only add are a way to run
            log.debug("store.probe-left", extra={"store": self.url, "key": name, "error": str(exc)})

    def _look(self, name: str) -> ObjectMeta:
        import obstore

        with self._errors("look for", name):
            return obstore.head(self._client(), name)

    # --- listing ---------------------------------------------------------------------------------------

    def _ordered(self, folder: str, start: str) -> Iterator[Listed]:
        """Everything in *folder* behind *start* by whole names.

        SeaweedFS lists "a/b" before "a-b", being a tree. That shows only where there are folders, and costs
        laziness only where there is more than one page.
        """
        pages = self._pages(folder, start)
        head = next(pages, ())
        if len(head) < _PAGE:
            yield from sorted(head, key=_by_name)
            return
        found = itertools.chain(head, itertools.chain.from_iterable(pages))
        for listed in found:
            inner, slash, _ = listed.name[len(folder) :].partition("/")
            if slash and self._is_tree(folder, inner):
                yield from sorted(itertools.chain([listed], found), key=_by_name)
                return
            yield listed

    def _is_tree(self, folder: str, inner: str) -> bool:
        """Whether the server passes over a folder that is behind the start by its name, but not as a tree."""
        if self._lists_by_folder is None:
            page = next(self._pages(folder, f"{folder}{inner}.~"), ())
            self._lists_by_folder = not any(each.name.startswith(f"{folder}{inner}/") for each in page)
        return self._lists_by_folder

    def _pages(self, folder: str, start: str) -> Iterator[Sequence[Listed]]:
        import obstore

        with self._errors("list", folder):
            stream = iter(
                obstore.list(self._client(), folder or None, offset=start or None, chunk_size=_PAGE)
            )
        while True:
            with self._errors("list", folder):
                page = next(stream, None)
            if page is None:
                return
            yield [Listed(meta["path"], meta["size"]) for meta in page]

    # --- the SDK ---------------------------------------------------------------------------------------

    def _client(self, upload_bytes: int = 0) -> Client:
        """One for each class of time-outs, which the SDK fixes per client; each has its connections."""
        allowed = _SMALL_PUT_BYTES
        while allowed < upload_bytes:
            allowed *= 8
        idle = IDLE_SECONDS + (allowed / _UPLOAD_BYTES_PER_SECOND if upload_bytes > _SMALL_PUT_BYTES else 0)
        clients = self._clients
        if idle not in clients:
            clients[idle] = self._new_client(idle)
        return clients[idle]

    def _new_client(self, idle_seconds: float) -> Client:
        from obstore.store import S3Store as Client

        at = self._settings
        options: ClientConfig = {
            "allow_http": at.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=idle_seconds),
            "timeout": timedelta(seconds=_WHOLE_SECONDS),
        }
        if at.ca:
            options["root_certificate"] = at.ca
        try:
            return Client(
                at.bucket,
                prefix=at.prefix or None,
                config=self._config,
                client_options=options,
                retry_config={"max_retries": 0},  # there is one layer of retries, and it is ours
                credential_provider=self._credentials,
            )
        except Exception as exc:
            raise ConfigError(
                f"the settings of {at.url} are not usable",
                hint="look at BACKUP_S3_CA_FILE and AWS_* variables",
            ) from exc

    @contextmanager
    def _errors(self, what: str, name: str) -> Iterator[None]:
        """Not chained: the SDK's text may quote a request with its session token."""
        from obstore.exceptions import BaseError

        at = self._settings
        try:
            yield
        except (BaseError, OSError, ValueError) as exc:
            worked = self._has_worked
            error = translated(
                exc, what=what, name=name, bucket=at.bucket, endpoint=at.endpoint, has_worked=worked
            )
            if isinstance(error, StoreDenied) and self._credentials is not None:
                self._clients = {}  # made anew, they read the files with the keys anew
            raise error from None
        self._has_worked = True


def _by_name(listed: Listed) -> str:
    return listed.name


def _start(folder: str, lowest: str) -> str:
    """A name to list after that leaves out neither *lowest* nor what follows it, in names' order or a tree's.

    A tree has "/" before all other characters, and SeaweedFS leaves out a folder whose very name it starts
    after. So nothing below "/" is in what we give, and it ends just before.
    """
    kept = ""
    for letter in lowest[len(folder) :] if lowest.startswith(folder) else "":
        if letter < "/":
            break
        kept += letter
    kept = kept.rstrip("/")
    if not kept:
        return ""
    before = chr(ord(kept[-1]) - 1) if kept[-1] > "0" else "."
    return f"{folder}{kept[:-1]}{before}~"


def _collected(answer: GetResult, size: int) -> bytes:
    """The *size* bytes of an answer, of which no more than a piece is in memory twice."""
    if size <= _PIECE_BYTES:
        data = bytes(answer.bytes())
    else:
        buffer = io.BytesIO()
        buffer.seek(size - 1)
        buffer.write(b"\0")  # so that it is made once, and getvalue() need not copy it
        buffer.seek(0)
        for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
            buffer.write(piece)
        if buffer.tell() != size:
            raise StoreUnavailable(f"an answer has {buffer.tell()} bytes instead of {size}")
        data = buffer.getvalue()
    if len(data) != size:
        raise StoreUnavailable(f"an answer has {len(data)} bytes instead of {size}")
    return data
