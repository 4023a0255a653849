"""Where an Azure account is and how to be let in: from a URL and the environment. Nothing is asked of anybody."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from replicator.core.errors import UsageError
from replicator.store.cloud_wire import first_setting, require_sdk, shown, split_url

FORM = "azure://account/container/prefix"
WHERE_CREDENTIALS_GO = (
    "set BACKUP_AZURE_CONNECTION_STRING, BACKUP_AZURE_ACCOUNT_KEY or BACKUP_AZURE_SAS_TOKEN "
    "(or the same with _FILE), or give this machine a managed identity"
)
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


def read_place(url: str) -> tuple[str, str, str]:
    """Account, container and prefix of ``azure://account/container[/prefix]``."""
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
    return account, parts[0], "/".join(parts[1:])


def read_access(account: str, environ: Mapping[str, str]) -> Access:
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
