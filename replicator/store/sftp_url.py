"""``sftp://[user@]host[:port]/folder``, taken apart and put together. Nothing is touched."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, unquote, urlsplit

from replicator.core.errors import UsageError

DEFAULT_PORT = 22
_EXAMPLE = "give a URL such as sftp://backup@nas.example/backups/app"
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and bytes that are no text
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOME = "/~/"


@dataclass(frozen=True, slots=True)
class SftpPlace:
    """*folder* is absolute, or relative to the home of the login."""

    user: str | None
    host: str
    port: int
    folder: str

    @property
    def url(self) -> str:
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port != DEFAULT_PORT else ""
        path = self.folder if self.folder.startswith("/") else _HOME + self.folder.removeprefix(".")
        return f"sftp://{user}{host}{port}{quote(path, safe='/~ :@!$&()*+,;=')}"


def parse_sftp_url(url: str) -> SftpPlace:
    """Raises UsageError, in which no password is repeated."""
    if _CONTROL.search(url) or "\\" in url:
        _refuse(url, "it has a character that no such URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        _refuse(url, "its host or port is none")
    if parts.scheme != "sftp":
        _refuse(url, "it does not begin with sftp://")
    if parts.password is not None:
        _refuse(
            url, "it has a password in it", "put it into BACKUP_SFTP_PASSWORD or BACKUP_SFTP_PASSWORD_FILE"
        )
    if "?" in url or "#" in url:
        _refuse(url, "nothing may follow the folder", "write a question mark as %3F and a # as %23")
    user = None
    if parts.username is not None:
        user = _unescaped(url, parts.username)
        if not user:
            _refuse(url, "its user name is empty")
    if port == 0:
        _refuse(url, "port 0 is none")
    return SftpPlace(user, _host(url, parts.hostname or ""), port or DEFAULT_PORT, _folder(url, parts.path))


def shown(url: str) -> str:
    """For a message: without user and password, if it has them."""
    return repr(url.rsplit("@", maxsplit=1)[-1])


def _host(url: str, host: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            _refuse(url, f"{host} is no IPv6 address")
    if not _HOST.fullmatch(host):
        hint = "write an international name in its xn-- form" if not host.isascii() else None
        _refuse(url, "its host name is none" if host else "it has no host", hint)
    return host


def _folder(url: str, path: str) -> str:
    path = _unescaped(url, path)
    if not path:
        _refuse(url, "it has no folder", f"{_EXAMPLE}; / alone is the root the server shows")
    if ".." in path.split("/"):
        _refuse(url, "its folder has a .. in it", "where that leads only the server knows: write it out")
    if path == _HOME[:-1]:
        path = _HOME
    # normpath keeps two slashes at the beginning, which mean nothing here.
    return posixpath.normpath(path.removeprefix(_HOME) if path.startswith(_HOME) else "/" + path.lstrip("/"))


def _unescaped(url: str, text: str) -> str:
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        plain = "\0"
    if _BAD_ESCAPE.search(text) or _CONTROL.search(plain):
        _refuse(url, "it has an escape that stands for no character", "write a percent sign as %25")
    return plain


def _refuse(url: str, why: str, hint: str | None = None) -> NoReturn:
    raise UsageError(f"not a proper SFTP URL: {shown(url)}: {why}", hint=hint or _EXAMPLE)
