"""Where a bucket of Google's is and how to be let in: from a URL and the environment. Nothing is asked of anybody."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from replicator.core.errors import UsageError
from replicator.files import shown_path
from replicator.store.cloud_wire import shown, split_url

FORM = "gs://bucket/prefix"
WHERE_CREDENTIALS_GO = (
    "name a service account's JSON file in BACKUP_GCS_CREDENTIALS_FILE, "
    "or use Google's Application Default Credentials"
)
# Letters, digits and three signs; a name with dots is a domain name of up to 222 characters.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]|(?=.{3,222}$)[a-z0-9]([a-z0-9_.-]*[a-z0-9])?")


def read_place(url: str) -> tuple[str, str]:
    """Bucket and prefix of ``gs://bucket[/prefix]``."""
    bucket, parts = split_url(url, "gs", form=FORM, credentials=WHERE_CREDENTIALS_GO)
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or ("." not in bucket and len(bucket) > 63):
        raise UsageError(
            f"not the name of a bucket: {shown(url)}",
            hint="3 to 63 lower-case letters, digits, - _ and . between letters or digits",
        )
    return bucket, "/".join(parts)


def read_endpoint(environ: Mapping[str, str]) -> str | None:
    """An emulator's; the SDK takes host:port only with a scheme before it."""
    emulator = environ.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        return None
    endpoint = emulator if "://" in emulator else f"http://{emulator}"
    try:
        parts = urlsplit(endpoint)
        plain = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        plain = None
    if not plain or "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            "STORAGE_EMULATOR_HOST is not an address", hint="give it as http://127.0.0.1:4443, or unset it"
        )
    return endpoint.rstrip("/")


def read_credentials_file(environ: Mapping[str, str]) -> str | None:
    """The credentials file that a setting names, once it is known to be one."""
    for setting in ("BACKUP_GCS_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        if path := environ.get(setting):
            try:
                with open(path, encoding="utf-8") as file:
                    found = json.load(file)
            except (OSError, ValueError, RecursionError):
                raise UsageError(
                    f"{setting} names no readable JSON file: {shown_path(path, path)}",
                    hint=f"correct {setting}, or unset it",
                ) from None
            if not isinstance(found, dict) or "type" not in found:
                raise UsageError(
                    f"{setting} names a file that holds no Google credentials: {shown_path(path, path)}",
                    hint="it is the JSON file that Google Cloud gives out for a service account",
                )
            return os.path.abspath(path)
    return None
