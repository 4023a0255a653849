"""Google Cloud Storage as a store.

Put-once is ``ifGenerationMatch=0``, on uploads of one request whatever their size: the emulators keep the
precondition only there, and an upload in one request leaves nothing behind that somebody would have to clean up.
The service checks the CRC32C that goes with it. An object is durable when the request is answered.

A server that ignores the precondition (some emulators do) is found before the first put; then we look before
we put, which two agents at the same moment can both do.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
)
from replicator.core.sizes import require_proper_size
from replicator.core.times import micros_of
from replicator.store.cloud_wire import (
    CONNECT_SECONDS,
    IDLE_SECONDS,
    Pieces,
    PutOnce,
    causes_of,
    http_error,
    network_error,
    new_session,
    no_time,
    require_sdk,
    without_secrets,
)
from replicator.store.contract import is_probe
from replicator.store.gcs_settings import (
    WHERE_CREDENTIALS_GO,
    read_credentials_file,
    read_endpoint,
    read_place,
)

GOOGLE = "https://storage.googleapis.com"
# The service's own limit.
PAGE_NAMES = 1000
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_CRC32C = re.compile(r"crc32c=([A-Za-z0-9+/]{6}==)")


def open_gcs(url: str, environ: Mapping[str, str]) -> GcsStore:
    """The store at ``gs://bucket[/prefix]``. Reads settings; touches neither the network nor the SDK."""
    bucket, prefix = read_place(url)
    require_sdk("google-cloud-storage")
    return GcsStore(
        bucket,
        prefix,
        endpoint=read_endpoint(environ),
        project=environ.get("BACKUP_GCS_PROJECT") or None,
        credentials_file=read_credentials_file(environ),
    )


def _take_refusal(answer: Any, **_: object) -> None:
    if answer.status_code == 401:
        _ = answer.content


class GcsStore:
    """Objects are blobs below *prefix* in *bucket*. With *endpoint*, an emulator's, there are no credentials."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        project: str | None = None,
        credentials_file: str | None = None,
    ) -> None:
        self._bucket_name = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint
        self._project = project
        self._credentials_file = credentials_file
        self._made = threading.Lock()  # of the client, for an assignment only
        self._client: Any = None
        self._session: Any = None
        self._once_only = PutOnce(self.url, self._put, self._size, self.delete)

    @property
    def in_clear(self) -> bool:
        return (self._endpoint or "").startswith("http://")

    @property
    def url(self) -> str:
        return f"gs://{self._bucket_name}/{self._prefix}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        self._once_only.put(name, data)

    def get(self, name: str) -> bytes:
        data, _ = self._download(name)
        return data

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        data, size = self._download(name, (0, length))
        if len(data) != min(size, length):
            raise StoreUnavailable(f"cannot read {name} at {self.url}: the answer was damaged on the way")
        return data, size

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        if length == 0:
            if self._size(name) is None:
                raise ObjectNotFound(name)
            return b""
        data, _ = self._download(name, (offset, length))
        if len(data) == length:
            return data
        size = self._size(name)
        raise ObjectCorrupt(f"{name} ends at byte {size}, wanted {offset + length}", name=name)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        wanted = self._prefix + prefix
        start = self._prefix + after
        with self._errors(f"cannot list {self.url}"):
            found = self._opened().list_blobs(
                self._bucket_name,
                prefix=wanted or None,
                start_offset=start if after and start > wanted else None,
                page_size=PAGE_NAMES,
                fields="items(name,size),nextPageToken",
                **self._once(),
            )
            for blob in found:
                name = blob.name[len(self._prefix) :]
                if name > after and (is_probe(prefix) or not is_probe(name)):
                    yield Listed(name, int(blob.size))

    def delete(self, name: str) -> None:
        with contextlib.suppress(ObjectNotFound), self._errors(f"cannot delete {name}", name):
            self._bucket().delete_blob(self._prefix + name, **self._once())

    def replace(self, name: str, data: bytes) -> None:
        """The service takes about one a second of a name."""
        self._put(name, data, once=False)

    def modified(self, name: str) -> int:
        blob = self._look(name)
        if blob is None:
            raise ObjectNotFound(name)
        if blob.updated is None:
            raise no_time(self.url, name)
        return micros_of(blob.updated)

    def _put(self, name: str, data: bytes, *, once: bool = True) -> None:
        """One request, metadata and bytes. The SDK's own upload changes to another protocol above 8 MiB."""
        import google_crc32c
        from google.api_core.exceptions import from_http_response

        key = self._prefix + name
        checksum = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
        about = json.dumps({"name": key, "crc32c": checksum, "contentType": "application/octet-stream"})
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{about}\r\n"
            f"--{boundary}\r\ncontent-type: application/octet-stream\r\n\r\n"
        )
        with self._errors(f"cannot write {name}", name, putting=True):
            client = self._opened()
            answer = self._session.post(
                f"{client.api_endpoint}/upload/storage/v1/b/{quote(self._bucket_name, safe='')}/o",
                params={"uploadType": "multipart", "fields": "name"}
                | ({"ifGenerationMatch": "0"} if once else {}),
                headers={"content-type": f'multipart/related; boundary="{boundary}"'},
                data=Pieces(head.encode(), data, f"\r\n--{boundary}--".encode()),
                timeout=(CONNECT_SECONDS, IDLE_SECONDS),
            )
            if answer.status_code != 200:
                raise from_http_response(answer)

    def _download(self, name: str, span: tuple[int, int] | None = None) -> tuple[bytes, int]:
        """What there is of *span*, an offset and a length, or all there is; and the size of the whole object, 0 where
        that ends before the span begins.

        The SDK's own download keeps the connection of every refused request, and copies in 8 KiB.
        """
        import google_crc32c
        from google.api_core.exceptions import from_http_response

        with self._errors(f"cannot read {name}", name):
            client = self._opened()
            wanted = {"range": f"bytes={span[0]}-{sum(span) - 1}"} if span else {}
            path = f"b/{quote(self._bucket_name, safe='')}/o/{quote(self._prefix + name, safe='')}"
            with self._session.get(
                f"{client.api_endpoint}/download/storage/v1/{path}",
                params={"alt": "media"},
                headers={**wanted, "accept-encoding": "identity"},  # nobody on the way packs it
                timeout=(CONNECT_SECONDS, IDLE_SECONDS),
                stream=True,
            ) as answer:
                if answer.status_code == 416:
                    return b"", 0
                if answer.status_code not in (200, 206):
                    raise from_http_response(answer)
                if answer.status_code == 200:
                    require_proper_size(name, int(answer.headers.get("content-length") or 0))
                data: bytes = answer.raw.read(decode_content=False)
            told = answer.headers.get("content-range", "").rpartition("/")[2]
            size = len(data) if answer.status_code == 200 else int(told) if told.isdecimal() else 0
            # Of the whole object, also beside a part of it.
            expected = _CRC32C.search(answer.headers.get("x-goog-hash", ""))
            actual = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
            if size == len(data) and expected and expected[1] != actual:
                raise StoreUnavailable(f"cannot read {name} at {self.url}: it was damaged on the way")
            if span and answer.status_code == 200:  # a server that does not know ranges sends all there is
                data = data[span[0] : sum(span)]
            return data, size

    def _size(self, name: str) -> int | None:
        """None where there is no such object."""
        blob = self._look(name)
        return None if blob is None else int(blob.size)

    def _look(self, name: str) -> Any:
        """What the service says of an object; None where there is no such object."""
        with self._errors(f"cannot look at {name}", name):
            blob = self._bucket().get_blob(self._prefix + name, **self._once())
            if blob is None:
                self._require_bucket()
            return blob

    def _require_bucket(self) -> None:
        """Not found may mean the bucket, and not every server says which. Listing needs no right beyond ours."""
        next(iter(self._opened().list_blobs(self._bucket_name, max_results=1, **self._once())), None)

    @staticmethod
    def _once() -> dict[str, Any]:
        """One retry layer lies above this one."""
        return {"timeout": (CONNECT_SECONDS, IDLE_SECONDS), "retry": None}

    # --- the client

    def _bucket(self) -> Any:
        return self._opened().bucket(self._bucket_name)

    def _opened(self) -> Any:
        client = self._client  # another thread may drop it, see _errors
        if client is None:
            opened, session = self._open()
            with self._made:
                if self._client is None:
                    self._session, self._client = session, opened
                client = self._client
        return client

    def _open(self) -> tuple[Any, Any]:
        from google.auth.credentials import AnonymousCredentials
        from google.auth.transport.requests import AuthorizedSession, Request
        from google.cloud import storage

        asking = Request(new_session())
        credentials = AnonymousCredentials() if self._endpoint else self._credentials(asking)
        session = AuthorizedSession(credentials, auth_request=asking)
        for scheme, adapter in new_session().adapters.items():
            session.mount(scheme, adapter)
        # It fetches a new token at a 401, and would forget the connection that the refusal lies on.
        session.hooks["response"].append(_take_refusal)
        client = storage.Client(
            project=self._project,
            credentials=credentials,
            client_options={"api_endpoint": self._endpoint or GOOGLE},
            _http=session,
        )
        # It would ask for the bucket itself, in threads of its own and with a right that we do not need.
        client._bucket_metadata_cache = None
        return client, session

    def _credentials(self, asking: Any) -> Any:
        import google.auth
        from google.oauth2 import service_account

        path = self._credentials_file
        if path is None:
            return google.auth.default(scopes=[SCOPE], request=asking)[0]
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            if found["type"] == "service_account":
                return service_account.Credentials.from_service_account_info(found, scopes=[SCOPE])
            return google.auth.load_credentials_from_dict(found, scopes=[SCOPE], request=asking)[0]
        except (ValueError, KeyError) as exc:
            raise StoreDenied(
                f"no usable Google credentials in {path}", hint="have Google Cloud give out a new key"
            ) from exc

    # --- errors

    @contextlib.contextmanager
    def _errors(self, what: str, name: str = "", *, putting: bool = False) -> Iterator[None]:
        """Translate once. Errors of ours pass."""
        from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed
        from google.auth.exceptions import GoogleAuthError, TransportError
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        what = f"{what} at {self.url}" if name else what
        try:
            yield
        except PreconditionFailed as exc:
            raise ObjectExists(name) from exc
        except NotFound as exc:
            if name and not putting:
                with self._errors(what):
                    self._require_bucket()
                raise ObjectNotFound(name) from exc
            raise StoreDenied(
                f"{what}: there is no bucket {self._bucket_name}", hint="create it, or correct the URL"
            ) from exc
        except GoogleAPICallError as exc:
            raise self._refused(what, exc) from exc
        except TransportError as exc:
            raise network_error(what, exc) from exc
        except GoogleAuthError as exc:
            # A token that could not be fetched because the network was away says so only in its cause.
            if exc.retryable or any(isinstance(cause, RequestException) for cause in causes_of(exc)):
                raise network_error(what, exc) from exc
            self._client = None  # made anew, it reads the file with the key anew
            raise StoreDenied(
                f"{what}: no usable Google credentials: {without_secrets(str(exc))}",
                hint=WHERE_CREDENTIALS_GO,
            ) from exc
        except (RequestException, HTTPError, OSError) as exc:
            raise network_error(what, exc) from exc

    def _refused(self, what: str, exc: Any) -> Exception:
        status = int(exc.code or 0)
        headers = getattr(exc.response, "headers", None) or {}
        reasons = {each.get("reason") for each in exc.errors if isinstance(each, dict)}
        if reasons & {"rateLimitExceeded", "userRateLimitExceeded"}:
            return http_error(what, 429, exc.message, headers)
        if status in (401, 403):
            told = without_secrets(exc.message)
            return StoreDenied(
                f"{what}: {told or 'denied'} (HTTP {status})",
                hint=f"the credentials need the role Storage Object User on the bucket {self._bucket_name}; "
                + WHERE_CREDENTIALS_GO,
            )
        return http_error(what, status, exc.message, headers)
