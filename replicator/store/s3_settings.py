"""Where an S3 store is and who we are there: from its URL and the environment, with no request made.

Names of our own (BACKUP_S3_X, or its alias S3_X) win over those that all tools know (AWS_X). No message shows
a value that may be a secret.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from replicator.core.errors import ConfigError, UsageError
from replicator.core.variables import said
from replicator.files import shown_path

# What AWS lets a bucket be called; other servers of the protocol keep to it.
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
# They mean something in a URL, or AWS advises against them since tools spell them in several ways.
_UNFIT = re.compile(r"[\x00-\x1f\x7f?#%\\{}^`\[\]\"<>|]")
_PREFIX_BYTES_MAX = 800  # a key has 1024; our own names are below 200
_DEFAULT_REGION = "us-east-1"  # what servers that are not Amazon's expect, and where Amazon redirects from

# Names begin with one of the first, and end as access key, secret key and token do.
_FAMILIES: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (("BACKUP_S3_", "S3_"), "ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN"),
    (("AWS_",), "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"),
)

_URL_HINT = "give s3://bucket or s3://bucket/prefix"
_KEYS_HINT = (
    "put keys into BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY, or into a profile of ~/.aws/credentials"
)


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """``from_file``: they lie in a file, which somebody may renew while we run."""

    access: str
    secret: str
    token: str | None
    from_file: bool


@dataclass(frozen=True, slots=True)
class S3Settings:
    """``endpoint`` has the bucket in its host name where ``virtual``. ``ca``: PEM of a private CA."""

    bucket: str
    prefix: str
    endpoint: str
    region: str
    virtual: bool
    ca: bytes | None

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def read_settings(url: str, environ: Mapping[str, str]) -> S3Settings:
    bucket, prefix = _place(url)
    region = (
        _ours(environ, "REGION")
        or environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or _profile(environ).get("region")
        or _DEFAULT_REGION
    )
    if not _REGION.fullmatch(region):
        raise ConfigError(
            "not the name of a region is set", hint="set BACKUP_S3_REGION, such as eu-central-1"
        )
    given = (
        _ours(environ, "ENDPOINT")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or ""
    )
    virtual = _is_virtual(environ.get("BACKUP_S3_ADDRESSING_STYLE") or "auto", bucket, given)
    amazon = f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
    return S3Settings(
        bucket, prefix, _endpoint(given or amazon, bucket if virtual else ""), region, virtual, _ca(environ)
    )


def read_keys(environ: Mapping[str, str]) -> Keys | None:
    """Keys that stand somewhere in writing; None where only the chain of the machine can know them."""
    for families, *parts in _FAMILIES:
        access, secret, token = (_setting(environ, *(f + part for f in families)) for part in parts)
        names = [f + part + end for part in parts for f in families for end in ("", "_FILE")]
        given = [name for name in names if environ.get(name)]
        if access and secret:
            return _usable(Keys(access, secret, token, any(name.endswith("_FILE") for name in given)))
        if access or secret:
            missing = families[0] + (parts[1] if access else parts[0])
            raise ConfigError(
                f"{given[0]} is set and {missing} is not", hint="a key has two halves, given in the same way"
            )
    if environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and not environ.get("AWS_PROFILE"):
        return None  # a role of the cluster comes before the files of a user, as in every SDK
    return _keys_of_profile(environ)


def _place(url: str) -> tuple[str, str]:
    """Bucket and prefix."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme.lower() != "s3" or not rest:
        raise UsageError(f"not an S3 URL: {_shown(rest)}", hint=_URL_HINT)
    if "@" in bucket or (":" in bucket and "@" in rest):
        raise UsageError(f"credentials do not belong into the URL of {_shown(rest)}", hint=_KEYS_HINT)
    if ":" in bucket:
        raise UsageError(
            "a bucket has no colon in its name, and an S3 URL no port and no password",
            hint=f"{_URL_HINT}; host and port go into BACKUP_S3_ENDPOINT",
        )
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"an S3 URL has no query and no fragment: {_shown(rest)}",
            hint="endpoint and region go into BACKUP_S3_ENDPOINT and BACKUP_S3_REGION",
        )
    if not _BUCKET.fullmatch(bucket) or _is_address(bucket):
        raise UsageError(
            f"not a bucket: {said(bucket)}",
            hint=f"{_URL_HINT}; 3 to 63 of a-z, 0-9, dot and hyphen, in small letters",
        )
    if bucket.endswith("--x-s3"):
        raise UsageError(
            f"{bucket!r} is a directory bucket, which lists in no order",
            hint="give a general purpose bucket",
        )
    prefix = prefix.removesuffix("/")
    bad = _UNFIT.search(prefix)
    if bad or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        what = f"{bad[0]!r} in it" if bad else "a part that is empty or made of dots"
        raise UsageError(
            f"not a prefix: {prefix!r} has {what}", hint="use letters, digits, and -_.= between slashes"
        )
    if len(prefix.encode("utf-8", "surrogateescape")) > _PREFIX_BYTES_MAX or not prefix.isprintable():
        raise UsageError(
            f"not a prefix: {prefix[:40]!r}", hint=f"give at most {_PREFIX_BYTES_MAX} printable bytes"
        )
    return bucket, prefix


def _shown(rest: str) -> str:
    """For a message: without what may be a key before an at sign, or a signature behind a question mark."""
    return repr(re.split("[?#]", rest.rpartition("@")[2])[0])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_virtual(style: str, bucket: str, endpoint: str) -> bool:
    """Whether the bucket goes into the name of the host."""
    if style not in ("auto", "path", "virtual"):
        raise ConfigError(f"BACKUP_S3_ADDRESSING_STYLE is {said(style)}", hint="one of auto, path, virtual")
    if style == "auto":
        # A certificate for *.host does not cover a bucket with a dot.
        return not endpoint and "." not in bucket
    return style == "virtual"


def _endpoint(given: str, bucket: str) -> str:
    """Checked, and with *bucket* in front of its host if there is one."""
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or re.search(r"\s", given):
        raise ConfigError(
            "the S3 endpoint is not a URL of a server",
            hint="set BACKUP_S3_ENDPOINT to https://host or https://host:port; http:// only if it must be",
        )
    if "@" in parts.netloc:
        raise ConfigError(f"the S3 endpoint of {host} has credentials in it", hint=_KEYS_HINT)
    if parts.query or parts.fragment:
        raise ConfigError(
            f"the S3 endpoint of {host} has a query", hint="set BACKUP_S3_ENDPOINT to https://host"
        )
    if bucket and _is_address(host):
        raise ConfigError(
            f"no bucket can stand in front of the address {host}", hint="set BACKUP_S3_ADDRESSING_STYLE=path"
        )
    netloc = f"{bucket}.{parts.netloc}" if bucket else parts.netloc
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def _ca(environ: Mapping[str, str]) -> bytes | None:
    for name in ("BACKUP_S3_CA_FILE", "AWS_CA_BUNDLE"):
        if path := environ.get(name):
            pem = _read(name, path, shown=path)
            if "-----BEGIN CERTIFICATE-----" not in pem:
                raise ConfigError(
                    f"{name}: {path} holds no certificate", hint="it takes a file in PEM format"
                )
            return pem.encode()
    return None


def _ours(environ: Mapping[str, str], part: str) -> str | None:
    return _setting(environ, f"BACKUP_S3_{part}", f"S3_{part}")


def _setting(environ: Mapping[str, str], *names: str) -> str | None:
    """What *names* say, or the files that their ..._FILE point to. They must not contradict each other."""
    found: dict[str, str] = {}
    for name in names:
        if value := environ.get(name):
            found[name] = value
        if path := environ.get(f"{name}_FILE"):
            found[f"{name}_FILE"] = _read(f"{name}_FILE", path).rstrip("\r\n")
    first = next(iter(found), None)
    for name, value in found.items():
        if first and value != found[first]:
            raise ConfigError(f"{first} and {name} have different values", hint="unset one of them")
    return found[first] if first else None


def _read(name: str, path: str, *, shown: str | None = None) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not text"
        raise ConfigError(
            f"{name}: cannot read {shown or shown_path(path, path)}: {why}",
            hint="name a file that this user may read",
        ) from None


def _usable(keys: Keys) -> Keys:
    """They travel in a header, where a line break or a letter beyond ASCII cannot stand."""
    for what, value in (
        ("access key", keys.access),
        ("secret key", keys.secret),
        ("token", keys.token or "x"),
    ):
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ConfigError(
                f"the S3 {what} has a character that none can have", hint="was it copied whole?"
            )
    return keys


def _keys_of_profile(environ: Mapping[str, str]) -> Keys | None:
    profile = _profile(environ)
    access, secret = profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")
    if access and secret:
        return _usable(Keys(access, secret, profile.get("aws_session_token"), from_file=True))
    if name := environ.get("AWS_PROFILE"):
        raise ConfigError(
            f"the profile {name!r} of AWS_PROFILE has no keys in it",
            hint="only aws_access_key_id and aws_secret_access_key are read; see `aws configure export-credentials`",
        )
    return None


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """The profile in the files of the AWS tools; what the credentials file says wins."""
    name = environ.get("AWS_PROFILE") or "default"
    home = environ.get("HOME", "")
    found: dict[str, str] = {}
    for variable, default, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        path = environ.get(variable) or (os.path.join(home, ".aws", default) if home else "")
        path = os.path.join(home, path[2:]) if path.startswith("~/") else path
        # No interpolation: a secret may have a percent sign. The section DEFAULT of configparser is none here.
        parser = configparser.RawConfigParser(default_section="", strict=False)
        try:
            parser.read(path, encoding="utf-8") if path else None
        except (configparser.Error, OSError, ValueError):
            # Not chained: its own message quotes the line, which may be a key.
            raise ConfigError(
                f"cannot read the profiles in {shown_path(path)}", hint="[name] and lines of key = value"
            ) from None
        if parser.has_section(section):
            found |= parser.items(section)
    return found
