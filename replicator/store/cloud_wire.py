"""What the stores of Google and Azure share: both SDKs speak HTTP through ``requests``.

Time-outs, bodies in pieces, what went wrong in a few words without secrets, the reading of URLs, and the probe
that finds a server which ignores preconditions. Nothing here imports an SDK before it is called.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from replicator.core.errors import ObjectExists, StoreDenied, StoreError, StoreUnavailable, UsageError
from replicator.files import shown_path
from replicator.store.contract import PROBES

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

# A machine that is there answers a connection attempt within a round trip; 5 s leave room for two lost packets.
CONNECT_SECONDS = 5.0
# Between two bytes of an answer. Both services answer within seconds also when busy, or say 503.
IDLE_SECONDS = 30.0
# The time-out of a socket is for a whole sendall: a body handed over at once would have to be sent within it,
# so it goes in pieces. 64 KiB in 5 s is 13 kB/s, slower than a line that anyone replicates over.
PIECE_BYTES = 1 << 16
# Enough for the sentence that matters; a service's own message goes on for a page.
MESSAGE_CHARACTERS_MAX = 300
# Both services bound a name at 1,024 bytes; ours take up to some 120 of them.
PREFIX_BYTES_MAX = 800

_QUERY = re.compile(r"\?[^\s'\"<>)]+")
_SECRET = re.compile(r"(?i)\b(sig|signature|accountkey|sharedaccesskey|token|password)=[^\s;&'\"]+")
# Characters that mean something in a URL, in the services' tools, or nowhere.
_BAD_IN_PREFIX = re.compile(r"[\x00-\x1f\x7f?#*%\\\[\]\ud800-\udfff]")


# --- URLs and settings


def shown(url: str) -> str:
    """A URL for a message: without user, password, query and fragment, nor what is too long for a name in it: that may
    be a secret that went to the wrong place."""
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    place = re.sub("[^/]{64,}", "…", re.split("[?#]", rest.rsplit("@", maxsplit=1)[-1])[0])
    return repr(f"{scheme}{slashes}{place}")


def split_url(url: str, scheme: str, *, form: str, credentials: str) -> tuple[str, list[str]]:
    """The part behind the scheme and the parts of the path, checked; *form* and *credentials* are for hints."""
    kind, _, rest = url.partition("://")
    if kind.lower() != scheme or not rest:
        raise UsageError(f"not a store URL: {shown(url)}", hint=f"the form is {form}")
    head, _, path = rest.partition("/")
    # A token pasted behind a question mark is as much a credential as a password.
    if "@" in head or re.search(r"[?&](sig|se|sv|X-Goog-Signature)=", rest):
        raise UsageError(f"credentials do not belong into a store URL: {shown(url)}", hint=credentials)
    parts = path.rstrip("/").split("/") if path.rstrip("/") else []
    if bad := _BAD_IN_PREFIX.search(rest):
        raise UsageError(
            f"not a store URL: {shown(url)} has the character {bad[0]!r}",
            hint="give a plain prefix, unescaped",
        )
    if any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"not a store URL: {shown(url)} has an empty part, . or .. in its path",
            hint=f"the form is {form}",
        )
    if len(path.encode()) > PREFIX_BYTES_MAX:
        raise UsageError(
            f"not a store URL: the prefix has more than {PREFIX_BYTES_MAX} bytes",
            hint="give a shorter prefix",
        )
    return head, parts


def first_setting(environ: Mapping[str, str], *names: str) -> str | None:
    """The first of these that is set and not empty, itself or in the file that ``<name>_FILE`` names."""
    for name in names:
        if environ.get(name):
            return environ[name]
        if path := environ.get(f"{name}_FILE"):
            try:
                with open(path, encoding="utf-8") as file:
                    return file.read().strip()
            except (OSError, ValueError):
                raise UsageError(
                    f"cannot read the file that {name}_FILE names: {shown_path(path, path)}",
                    hint=f"correct {name}_FILE",
                ) from None
    return None


def require_sdk(package: str) -> None:
    """Told by the records of what is installed: nothing is imported."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as exc:
        raise UsageError(
            f"this kind of store needs the package {package}", hint=f"pip install {package}"
        ) from exc


# --- sending


class Pieces:
    """A body of several parts, sent in pieces and any number of times. Copies no more than a piece."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            view = memoryview(part)
            for at in range(0, len(view), PIECE_BYTES):
                yield bytes(view[at : at + PIECE_BYTES])


def new_session() -> requests.Session:
    """A session that neither asks again by itself nor hands a big body to the socket at once."""
    import requests
    from requests.adapters import HTTPAdapter

    class PiecewiseAdapter(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            if isinstance(request.body, bytes) and len(request.body) > PIECE_BYTES:
                request.body = Pieces(request.body)  # type: ignore[assignment]
            return super().send(request, *args, **kwargs)

    session = requests.Session()
    for scheme in ("http://", "https://"):
        # More than the threads that may work on one store: what does not fit is closed after use.
        session.mount(scheme, PiecewiseAdapter(max_retries=0, pool_maxsize=32))
    return session


# --- errors


def without_secrets(text: str) -> str:
    """The first line of a message, with signed queries and anything that names itself a secret cut out."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return _SECRET.sub(r"\1=…", _QUERY.sub("?…", line))[:MESSAGE_CHARACTERS_MAX]


def network_error(what: str, exc: BaseException) -> StoreError:
    """What a failure below HTTP is for us: passing, but for a certificate that nobody will make good by waiting."""
    causes = list(causes_of(exc))
    if any("CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in causes):
        return StoreDenied(
            f"{what}: the server's certificate is not trusted",
            hint="for a private authority, name its file in REQUESTS_CA_BUNDLE",
        )
    kinds = " ".join(type(cause).__name__ for cause in causes)
    if "Timeout" in kinds or "timed out" in str(exc):
        reason = "no connection in time" if "ConnectTimeout" in kinds else "no answer in time"
    else:
        told = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
        reason = str(told[-1]).lower() if told else without_secrets(str(causes[-1])) or type(exc).__name__
    return StoreUnavailable(f"{what}: {reason}")


def http_error(what: str, status: int, told: str, headers: Mapping[str, str]) -> StoreError:
    """What an answer is for us that means the same whatever was asked."""
    message = f"{what}: {without_secrets(told) or 'refused'} (HTTP {status})"
    if status in (408, 409, 425, 429) or status >= 500:
        return StoreUnavailable(message, retry_after=retry_after(headers))
    return StoreDenied(message, hint=f"the server will say so again until something is changed: {status}")


def no_time(url: str, name: str) -> StoreDenied:
    return StoreDenied(f"{url} does not say when {name} was written", hint="use another kind of store")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server wants to be left alone, from either form of the header."""
    value = headers.get("Retry-After") or headers.get("retry-after") or ""
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, OverflowError):  # also a year with too many digits
        until = parsedate_to_datetime(value)
        # Old forms of a date name no zone; all are meant in UTC.
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return None


def causes_of(exc: BaseException) -> Iterator[BaseException]:
    """The innermost last. Azure's errors keep theirs in an attribute."""
    seen: set[int] = set()
    at: BaseException | None = exc
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        inner = getattr(at, "inner_exception", None)
        at = inner if isinstance(inner, BaseException) else at.__cause__ or at.__context__


# --- put-once


class PutOnce:
    """Finds out once, before the first put, whether the server keeps the precondition it is sent.

    Threads that come at the same time each probe for themselves: nobody waits for another's network. *size*
    is None of a name that is free.
    """

    def __init__(
        self,
        url: str,
        put: Callable[[str, bytes], None],
        size: Callable[[str], int | None],
        delete: Callable[[str], None],
    ) -> None:
        self._url, self._put, self._size, self._delete = url, put, size, delete
        self._known: bool | None = None

    def put(self, name: str, data: bytes) -> None:
        data = bytes(data)
        if not self._kept() and self._size(name) is not None:
            raise ObjectExists(name)
        try:
            self._put(name, data)
        except StoreDenied:
            # Who may create and not replace is denied a name that is taken, and has to learn that it is.
            if self._is_seen(name):
                raise ObjectExists(name) from None
            raise

    def _is_seen(self, name: str) -> bool:
        try:
            return self._size(name) is not None
        except StoreError:
            return False

    def _kept(self) -> bool:
        """Whether put-once is the server's doing. Raises what the first put would have raised."""
        if self._known is None:
            kept = self._probe()
            if not kept and self._known is None:
                log.warning(
                    "store.put-once-unsure",
                    extra={"store": self._url, "reason": "the server ignores preconditions"},
                )
            self._known = kept
        return self._known

    def _probe(self) -> bool:
        name = PROBES + secrets.token_hex(8)
        self._put(name, b"first")
        try:
            self._put(name, b"again")
        except (ObjectExists, StoreDenied):
            # Denied: these credentials may create and not replace, which keeps the promise as well.
            return True
        finally:
            with contextlib.suppress(StoreError):
                self._delete(name)
        return False
