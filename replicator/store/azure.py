"""Azure Blob Storage as a store.

Put-once is ``If-None-Match: *``, kept on a blob of one request and on the commit of one that came in blocks.
Blocks of a blob that is not there yet are shared by all who write that name, so theirs carry a number of the
attempt: nobody's commit holds another's bytes. Blocks of an attempt that failed are dropped by the service
after a week. An object is durable when the request is answered.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    ReplicatorError,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from replicator.core.sizes import require_proper_size
from replicator.core.times import micros_of
from replicator.store.azure_settings import WHERE_CREDENTIALS_GO, Access, read_access, read_place
from replicator.store.cloud_wire import (
    CONNECT_SECONDS,
    IDLE_SECONDS,
    PutOnce,
    http_error,
    network_error,
    new_session,
    no_time,
    require_sdk,
    without_secrets,
)
from replicator.store.contract import START_BYTES, is_probe

if TYPE_CHECKING:
    import requests
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobProperties, ContainerClient

# Beyond this a blob goes in blocks: a request that breaks costs this much again and no more. The service takes
# 50,000 of them, so objects may have 390 GiB.
BLOCK_BYTES = 8 << 20
# The service's own limit is 5,000; a page of it is a megabyte of XML.
PAGE_NAMES = 1000


def open_azure(url: str, environ: Mapping[str, str]) -> AzureStore:
    """The store at ``azure://account/container[/prefix]``. Reads settings; touches neither network nor SDK."""
    account, container, prefix = read_place(url)
    require_sdk("azure-storage-blob")
    return AzureStore(lambda: read_access(account, environ), container, prefix)


class AzureStore:
    """Objects are block blobs below *prefix* in *container*. *access* reads the settings, and again after a refusal:
    what a file holds may have been renewed."""

    def __init__(self, access: Callable[[], Access], container: str, prefix: str = "") -> None:
        self._read_access = access
        self._access = access()
        self._container = container
        self._prefix = f"{prefix}/" if prefix else ""
        self._made = threading.Lock()  # of the client, for an assignment only
        self._client: ContainerClient | None = None
        self._refused_once = False
        self._once_only = PutOnce(self.url, self._put, self._size, self.delete)

    @property
    def in_clear(self) -> bool:
        return self._access.endpoint.startswith("http://")

    @property
    def url(self) -> str:
        return f"azure://{self._access.account}/{self._container}/{self._prefix}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        self._once_only.put(name, data)

    def get(self, name: str) -> bytes:
        with self._errors("read", name):
            found = self._opened().download_blob(self._prefix + name)  # its first block, and how long it is
            require_proper_size(name, found.size)
            data: bytes = found.readall()
            return data

    def get_start(self, name: str, length: int) -> tuple[bytes, int]:
        return self._part(name, 0, length)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._part(name, offset, length)[0] if length else b""
        if len(data) == length and length:
            return data
        size = self._size(name)
        if size is None:
            raise ObjectNotFound(name)
        if length == 0:
            return b""
        raise ObjectCorrupt(f"{name} ends at byte {size}, wanted {offset + length}", name=name)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        wanted = self._prefix + prefix
        start = self._prefix + after
        with self._errors("list"):
            found = self._opened().list_blobs(
                name_starts_with=wanted or None,
                start_from=start if after and start > wanted else None,
                results_per_page=PAGE_NAMES,
            )
            for blob in found:
                name = blob.name[len(self._prefix) :]
                if name > after and (is_probe(prefix) or not is_probe(name)):
                    yield Listed(name, int(blob.size))

    def delete(self, name: str) -> None:
        with contextlib.suppress(ObjectNotFound), self._errors("delete", name):
            self._opened().delete_blob(self._prefix + name)

    def replace(self, name: str, data: bytes) -> None:
        with self._errors("replace", name):
            self._upload(name, data, once=False)

    def modified(self, name: str) -> int:
        """In whole seconds."""
        blob = self._look(name)
        if blob is None:
            raise ObjectNotFound(name)
        if blob.last_modified is None:
            raise no_time(self.url, name)
        return micros_of(blob.last_modified)

    def _put(self, name: str, data: bytes) -> None:
        with self._errors("write", name):
            self._upload(name, data, once=True)

    def _upload(self, name: str, data: bytes, *, once: bool) -> None:
        from azure.core import MatchConditions
        from azure.storage.blob import BlobBlock

        blob = self._opened().get_blob_client(self._prefix + name)
        if len(data) <= BLOCK_BYTES:
            blob.upload_blob(data, length=len(data), overwrite=not once)
            return
        # All of one length, as the service wants them, also beside those of another attempt.
        attempt = secrets.token_hex(8)
        blocks = [f"{attempt}-{number:06d}" for number in range(-(-len(data) // BLOCK_BYTES))]
        for number, block in enumerate(blocks):
            blob.stage_block(block, data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
        blob.commit_block_list(
            [BlobBlock(block) for block in blocks],
            match_condition=MatchConditions.IfMissing if once else None,
        )

    def _part(self, name: str, offset: int, length: int) -> tuple[bytes, int]:
        """What there is of the span, and the size of the whole object; nothing and 0 where that ends before."""
        from azure.core.exceptions import HttpResponseError

        with self._errors("read", name):
            try:
                found = self._opened().download_blob(self._prefix + name, offset, length)
                told = (found.properties.content_range or "").rpartition("/")[2]
                return b"".join(found.chunks()), int(told)  # one chunk, which is not copied
            except HttpResponseError as exc:
                if exc.status_code == 416:
                    return b"", 0
                raise

    def _size(self, name: str) -> int | None:
        """None where there is no such object."""
        blob = self._look(name)
        return None if blob is None else int(blob.size)

    def _look(self, name: str) -> BlobProperties | None:
        """What the service says of an object; None where there is no such object."""
        with contextlib.suppress(ObjectNotFound), self._errors("look at", name):
            return self._opened().get_blob_client(self._prefix + name).get_blob_properties()
        return None

    # --- the client

    def _opened(self) -> ContainerClient:
        if self._refused_once:
            self._renew()
        client = self._client  # another thread may drop it, see _renew
        if client is None:
            opened = self._open()
            with self._made:
                client = self._client = self._client or opened
        return client

    def _open(self) -> ContainerClient:
        from azure.core.pipeline.transport import RequestsTransport
        from azure.storage.blob import ContainerClient

        session = new_session()
        session.hooks["response"].append(_take_all)
        transport = RequestsTransport(
            session=session,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=IDLE_SECONDS,
            connection_data_block_size=START_BYTES,  # a body is handed on as it is, instead of in slices of 4 KiB
        )
        return ContainerClient(
            self._access.endpoint,
            self._container,
            credential=self._credential(),
            transport=transport,
            retry_total=0,
            max_single_put_size=BLOCK_BYTES,
            max_single_get_size=START_BYTES,  # in one request, as it is promised
            max_chunk_get_size=START_BYTES,
        )

    def _credential(self) -> Any:
        from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

        if self._access.key is not None:
            return AzureNamedKeyCredential(self._access.account, self._access.key)
        if self._access.sas is not None:
            return AzureSasCredential(self._access.sas)
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential(
            connection_timeout=CONNECT_SECONDS, read_timeout=IDLE_SECONDS, retry_total=0
        )

    def _renew(self) -> None:
        """Before the first call after a refusal, which somebody may have answered meanwhile."""
        self._refused_once = False
        with contextlib.suppress(ReplicatorError):
            if (renewed := self._read_access()) != self._access:
                self._access, self._client = renewed, None

    # --- errors

    @contextlib.contextmanager
    def _errors(self, doing: str, name: str = "") -> Iterator[None]:
        """Translate once. Errors of ours pass; the SDK's own stay behind, since a signed address is in them."""
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        what = f"cannot {doing} {name} at {self.url}" if name else f"cannot {doing} {self.url}"
        try:
            yield
            return
        except HttpResponseError as exc:
            if exc.status_code is not None and exc.status_code < 300:
                # The SDK could not make sense of it.
                error: StoreError = StoreUnavailable(f"{what}: the answer was damaged on the way")
            elif exc.status_code is not None:
                error = self._refused(what, doing, name, exc)
                if exc.status_code in (401, 403):
                    self._refused_once = True
            elif isinstance(exc, ClientAuthenticationError):
                error = StoreDenied(
                    f"{what}: no usable Azure credentials: {without_secrets(exc.message)}",
                    hint=WHERE_CREDENTIALS_GO,
                )
            else:
                error = network_error(what, exc)
        except (AzureError, RequestException, HTTPError, OSError, ValueError) as exc:
            error = network_error(what, exc)
        raise error from None

    def _refused(self, what: str, doing: str, name: str, exc: HttpResponseError) -> StoreError:
        # The SDK's own name for what it knows is an enumeration, whose str() is not the service's word.
        code = getattr(exc, "error_code", None) or ""
        status, code = exc.status_code or 0, str(getattr(code, "value", code))
        told = without_secrets(exc.message)
        if status == 404:
            if "container" in code.lower() or doing in ("write", "replace", "list"):
                return StoreDenied(
                    f"{what}: there is no container {self._container}", hint="create it, or correct the URL"
                )
            return ObjectNotFound(name)
        # Immutable, or leased: it is there.
        taken = status == 412 or code in ("BlobAlreadyExists", "BlobImmutableDueToPolicy")
        if doing == "write" and taken:
            return ObjectExists(name)
        # Whoever commits a blob drops everybody's blocks of it.
        if code == "InvalidBlockList":
            return StoreUnavailable(f"{what}: another put of this name came first")
        if code == "BlobImmutableDueToPolicy":
            return StoreDenied(f"{what}: a policy keeps it", hint="it can go when its retention is over")
        if status in (401, 403):
            return StoreDenied(
                f"{what}: {told or 'denied'} ({code or f'HTTP {status}'})",
                hint=f"is this machine's clock right? The credentials need the role Storage Blob Data "
                f"Contributor on the container {self._container}; {WHERE_CREDENTIALS_GO}",
            )
        return http_error(what, status, told or code, getattr(exc.response, "headers", None) or {})


def _take_all(answer: requests.Response, **_: object) -> None:
    """Read a body where a request is made. The SDK would read it later, and ask again by itself if that fails.

    At once: what the library itself reads is in memory twice before it is one.
    """
    answer._content = answer.raw.read(decode_content=True)
    answer.content  # noqa: B018 (it takes note that all is read)
