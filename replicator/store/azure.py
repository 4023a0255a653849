"""Azure Blob Storage as a store.

Put-once is ``If-None-Match: *``, kept on a blob of one request and on the commit of one that came in blocks.
Blocks of a blob that is not there yet are shared by all who write that name, so theirs carry a number of the
attempt: nobody's commit holds another's bytes. Blocks of an attempt that failed are dropped by the service
after a week. An object is durable when the request is answered.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    ReplicatorError,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from replicator.core.sizes import require_proper_size
from replicator.store.cloud_wire import (
    CONNECT_SECONDS,
    IDLE_SECONDS,
    PutOnce,
    first_setting,
    http_error,
    network_error,
    new_session,
    require_sdk,
    shown,
    split_url,
    without_secrets,
)
from replicator.store.contract import is_probe

if TYPE_CHECKING:
    import requests
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import ContainerClient

FORM = "azure://account/container/prefix"
WHERE_CREDENTIALS_GO = (
    "set BACKUP_AZURE_CONNECTION_STRING, BACKUP_AZURE_ACCOUNT_KEY or BACKUP_AZURE_SAS_TOKEN "
    "(or the same with _FILE), or give this machine a managed identity"
)
# Beyond this a blob goes in blocks: a request that breaks costs this much again and no more. The service takes
# 50,000 of them, so objects may have 390 GiB.
BLOCK_BYTES = 8 << 20
# The service's own limit is 5,000; a page of it is a megabyte of XML.
PAGE_NAMES = 1000
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
# What Azurite and the SDK understand by UseDevelopmentStorage=true; published by Microsoft, no secret.
_DEVELOPMENT = (
    "AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/"
    "KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1"
)


@dataclass(frozen=True)
class Access:
    """Where an account is and how to be let in: by key, by SAS, or, with neither, by the machine's identity."""

    account: str
    endpoint: str
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)


def open_azure(url: str, environ: Mapping[str, str]) -> AzureStore:
    """The store at ``azure://account/container[/prefix]``. Reads settings; touches neither network nor SDK."""
    account, parts = split_url(url, "azure", form=FORM, credentials=WHERE_CREDENTIALS_GO)
    if not _ACCOUNT.fullmatch(account):
        raise UsageError(
            f"not the name of a storage account: {shown(url)}",
            hint=f"3 to 24 lower-case letters and digits; the form is {FORM}, the address goes into "
            "BACKUP_AZURE_ENDPOINT",
        )
    if not parts or not _CONTAINER.fullmatch(parts[0]):
        raise UsageError(
            f"not the name of a container: {shown(url)}",
            hint=f"3 to 63 lower-case letters, digits and single hyphens; the form is {FORM}",
        )
    require_sdk("azure-storage-blob")
    return AzureStore(lambda: _access(account, environ), parts[0], "/".join(parts[1:]))


def _access(account: str, environ: Mapping[str, str]) -> Access:
    """Our own names before Azure's; of each, connection string, key, SAS."""
    endpoint = environ.get("BACKUP_AZURE_ENDPOINT") or None
    for family, key_name in (("BACKUP_AZURE", "ACCOUNT_KEY"), ("AZURE_STORAGE", "KEY")):
        if whole := first_setting(environ, name := f"{family}_CONNECTION_STRING"):
            return _from_connection_string(account, endpoint, whole, name)
        if key := first_setting(environ, name := f"{family}_{key_name}"):
            return _checked(Access(account, endpoint or _default_endpoint(account), key=key), name)
        if sas := first_setting(environ, name := f"{family}_SAS_TOKEN"):
            return _checked(
                Access(account, endpoint or _default_endpoint(account), sas=sas.lstrip("?")), name
            )
    access = _checked(Access(account, endpoint or _default_endpoint(account)), "BACKUP_AZURE_ENDPOINT")
    if access.endpoint.startswith("http://"):
        raise UsageError(
            "BACKUP_AZURE_ENDPOINT is not https, and a managed identity is given to no other",
            hint=WHERE_CREDENTIALS_GO,
        )
    try:
        require_sdk("azure-identity")
    except UsageError as exc:
        raise UsageError(
            f"no credentials for the storage account {account}, and azure-identity is not installed",
            hint=f"{WHERE_CREDENTIALS_GO} and install azure-identity",
        ) from exc
    return access


def _from_connection_string(account: str, endpoint: str | None, whole: str, name: str) -> Access:
    """Its fields, names in any case, as the SDK reads them."""
    found = {k.strip().upper(): v for k, _, v in (each.partition("=") for each in whole.strip().split(";"))}
    if found.get("USEDEVELOPMENTSTORAGE", "").lower() == "true":
        return _from_connection_string(account, endpoint, _DEVELOPMENT, name)
    key, sas = found.get("ACCOUNTKEY"), found.get("SHAREDACCESSSIGNATURE")
    if not key and not sas:
        raise UsageError(
            f"{name} has neither AccountKey nor SharedAccessSignature",
            hint="copy it whole, from the storage account's page of access keys",
        )
    if found.get("ACCOUNTNAME", account) != account:
        raise UsageError(
            f"{name} is for the storage account {found['ACCOUNTNAME']}, the store's URL for {account}",
            hint="correct one of them",
        )
    suffix = found.get("ENDPOINTSUFFIX", "core.windows.net")
    protocol = found.get("DEFAULTENDPOINTSPROTOCOL", "https")
    at = endpoint or found.get("BLOBENDPOINT") or f"{protocol}://{account}.blob.{suffix}"
    return _checked(Access(account, at, key=key or None, sas=None if key else sas and sas.lstrip("?")), name)


def _checked(access: Access, name: str) -> Access:
    """What the SDK would choke on later. Says *name*, of the setting, and never its value."""
    try:
        parts = urlsplit(access.endpoint)
        plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and (parts.port or 1)
    except ValueError:
        plain = None
    if not plain or "@" in parts.netloc:
        raise UsageError(
            f"the blob endpoint of the storage account {access.account} is no plain address",
            hint="BACKUP_AZURE_ENDPOINT is like https://account.blob.core.windows.net",
        )
    try:
        if access.key is not None and not base64.b64decode(access.key, validate=True):
            raise ValueError
    except (ValueError, binascii.Error) as exc:
        raise UsageError(
            f"{name} holds no account key", hint="an account key is base64; copy it whole"
        ) from exc
    if access.sas is not None and not re.search(r"(^|&)sig=[^&\s]+", access.sas):
        raise UsageError(
            f"{name} holds no SAS token",
            hint="a token is like sv=…&se=…&sig=…, without the address before it",
        )
    return access


def _default_endpoint(account: str) -> str:
    return f"https://{account}.blob.core.windows.net"


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

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._part(name, offset, length) if length else b""
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

    def _put(self, name: str, data: bytes) -> None:
        from azure.core import MatchConditions
        from azure.storage.blob import BlobBlock

        with self._errors("write", name):
            blob = self._opened().get_blob_client(self._prefix + name)
            if len(data) <= BLOCK_BYTES:
                blob.upload_blob(data, length=len(data), overwrite=False)
                return
            # All of one length, as the service wants them, also beside those of another attempt.
            attempt = secrets.token_hex(8)
            blocks = [f"{attempt}-{number:06d}" for number in range(-(-len(data) // BLOCK_BYTES))]
            for number, block in enumerate(blocks):
                blob.stage_block(block, data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
            blob.commit_block_list(
                [BlobBlock(block) for block in blocks], match_condition=MatchConditions.IfMissing
            )

    def _part(self, name: str, offset: int, length: int) -> bytes:
        """What there is of the span, which may be nothing."""
        from azure.core.exceptions import HttpResponseError

        with self._errors("read", name):
            try:
                return self._opened().download_blob(self._prefix + name, offset, length).readall()
            except HttpResponseError as exc:
                if exc.status_code == 416:
                    return b""
                raise

    def _size(self, name: str) -> int | None:
        """None where there is no such object."""
        with contextlib.suppress(ObjectNotFound), self._errors("look at", name):
            return int(self._opened().get_blob_client(self._prefix + name).get_blob_properties().size)
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
            session=session, connection_timeout=CONNECT_SECONDS, read_timeout=IDLE_SECONDS
        )
        return ContainerClient(
            self._access.endpoint,
            self._container,
            credential=self._credential(),
            transport=transport,
            retry_total=0,
            max_single_put_size=BLOCK_BYTES,
            max_single_get_size=BLOCK_BYTES,
            max_chunk_get_size=BLOCK_BYTES,
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
        except (AzureError, RequestException, OSError) as exc:
            error = network_error(what, exc)
        raise error from None

    def _refused(self, what: str, doing: str, name: str, exc: HttpResponseError) -> StoreError:
        # The SDK's own name for what it knows is an enumeration, whose str() is not the service's word.
        code = getattr(exc, "error_code", None) or ""
        status, code = exc.status_code or 0, str(getattr(code, "value", code))
        told = without_secrets(exc.message)
        if status == 404:
            if "container" in code.lower() or doing in ("write", "list"):
                return StoreDenied(
                    f"{what}: there is no container {self._container}", hint="create it, or correct the URL"
                )
            return ObjectNotFound(name)
        if doing == "write":
            # Immutable, or leased: it is there.
            if status == 412 or code in ("BlobAlreadyExists", "BlobImmutableDueToPolicy"):
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
    """Read a body where a request is made. The SDK would read it later, and ask again by itself if that fails."""
    answer.content  # noqa: B018 (it reads)
