"""What an S3 server or the way to it answered, as errors of ours.

The SDK hands over one text. Status and code of S3 are picked out of it and nothing else is passed on: the rest
may quote the request, signature and session token included.
"""

from __future__ import annotations

import re

from replicator.core.errors import ObjectExists, ObjectNotFound, StoreDenied, StoreError, StoreUnavailable

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_ADDRESS = re.compile(r"Error performing [A-Z]+ (\S+) in ")
_CREDENTIALS = re.compile("External AWS credential provider|Failed to read token file")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")

_KEYS = "are the S3 access key and secret key right, and still valid?"
_HINTS = {
    "RequestTimeTooSkewed": "set the clock of this machine",
    "ExpiredToken": "the session token has expired: renew it",
    "InvalidToken": "the session token does not belong to these keys",
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "AuthorizationHeaderMalformed": "the bucket is in another region: set BACKUP_S3_REGION",
    "EntityTooLarge": "one put takes at most 5 GiB",
}
# An answer to HEAD has no code, so that keys and permissions cannot be told apart there.
_PERMISSION = (
    "allow these keys s3:GetObject, s3:PutObject and s3:ListBucket there; s3:DeleteObject to tidy up"
)

# Code and status that come from load, from the way, or from somebody who writes at the same time.
_LATER = frozenset(
    {"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "InternalError"}
    # What we sent was damaged, or cut off, on the way.
    | {"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}
)
_LATER_STATUS = frozenset({408, 409, 425, 429})


class PreconditionUnsupported(StoreDenied):
    """The server says that it knows nothing of If-None-Match."""


class RangeBeyondEnd(StoreError):
    """The range begins behind the last byte."""


class RangeIgnored(StoreDenied):
    """The server gave the whole object where a part of it was asked for."""


def translated(
    exc: Exception, *, what: str, name: str, bucket: str, endpoint: str, has_worked: bool
) -> StoreError:
    """*what*: an imperative such as "put"; *name*: of the object, or empty; *endpoint*: where S3 itself is.

    *has_worked*: there were credentials before, so that having none now is an outage of who gives them.
    """
    text = str(exc)
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    found = _CODE.search(text)
    code = found[1] if found else ""
    place = f"{name} in bucket {bucket}" if name else f"bucket {bucket}"
    problem = f"cannot {what} {place}: "
    found = _ADDRESS.search(text)
    if (found and not found[1].startswith(endpoint)) or _CREDENTIALS.search(text):
        return _no_credentials(problem, has_worked)
    if code == "NoSuchBucket":
        return StoreDenied(
            f"{problem}there is no such bucket", hint="create it, or correct the URL or the endpoint"
        )
    if code in _LATER or status in _LATER_STATUS or (status >= 500 and status != 501):
        return StoreUnavailable(f"{problem}{_answer(status, code)}")
    if status in (304, 412) and what == "put":
        return ObjectExists(name)
    if status == 404 and what in ("get", "look for", "delete"):
        return ObjectNotFound(name)
    if status == 416:
        return RangeBeyondEnd(f"{problem}{_answer(status, code)}")
    if status == 501:
        return PreconditionUnsupported(
            f"{problem}{_answer(status, code)}", hint="does the endpoint speak S3?"
        )
    if status:
        hint = _HINTS.get(code) or (
            _PERMISSION if status in (401, 403) else "is this the right endpoint and bucket?"
        )
        return StoreDenied(f"{problem}{_answer(status, code)}", hint=hint)
    return _without_answer(problem, text)


def _answer(status: int, code: str) -> str:
    return f"the server answered {status} {code}".rstrip()


def _no_credentials(problem: str, has_worked: bool) -> StoreError:
    if has_worked:
        return StoreUnavailable(
            f"{problem}no credentials for now", hint="are their file and service still there?"
        )
    return StoreDenied(
        f"{problem}no credentials were found",
        hint="set BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY, or give the machine a role",
    )


def _without_answer(problem: str, text: str) -> StoreError:
    if found := _CERTIFICATE.search(text):
        return StoreDenied(
            f"{problem}the certificate of the server is not trusted ({found[1]})",
            hint="name the certificate of its CA in BACKUP_S3_CA_FILE",
        )
    if "redirect without LOCATION" in text:
        return StoreDenied(f"{problem}the bucket is in another region", hint="set BACKUP_S3_REGION")
    if "invalid list response" in text:  # damaged on the way, or not one at all
        return StoreUnavailable(f"{problem}the answer is not one of S3", hint="does the endpoint speak S3?")
    if "Received non-partial response" in text:
        return RangeIgnored(f"{problem}the answer is not one of S3", hint="does the endpoint speak S3?")
    if "kind: Timeout" in text or "TimedOut" in text:
        return StoreUnavailable(f"{problem}no answer in time")
    if "kind: Connect" in text:
        return StoreUnavailable(
            f"{problem}cannot connect", hint="is the endpoint right and the network there?"
        )
    return StoreUnavailable(f"{problem}the connection broke")
