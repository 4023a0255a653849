"""Who an SSH server is: its keys in a known_hosts file, and nothing learnt by itself."""

from __future__ import annotations

import base64
import fnmatch
import shlex
import socket

import paramiko

from replicator.core.errors import StoreDenied
from replicator.files import shown_path


def known_as(host: str, port: int) -> str:
    """As known_hosts writes it, and errors."""
    return host if port == 22 else f"[{host}]:{port}"


class KnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """The keys that known_hosts has for one server, read as sshd(8) says: patterns, hashed names, markers.

    paramiko is given none and asks here about every key, because its own reading of the file knows no pattern, no
    @revoked, and one key of a type. Certificates (@cert-authority) it cannot check, so those lines are nothing.
    """

    def __init__(self, file: str, host: str, port: int) -> None:
        self._file, self._host, self._port = file, host, port
        self._place = known_as(host, port)
        self._keys: dict[str, str] = {}  # base64 to type
        self._revoked: set[str] = set()
        try:
            with open(file, encoding="utf-8", errors="replace") as opened:
                lines = opened.read().splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as exc:
            raise StoreDenied(
                f"cannot read {shown_path(file)}: {exc.strerror or type(exc).__name__}",
                hint="BACKUP_SFTP_KNOWN_HOSTS names the file with the server's key",
            ) from None
        for line in lines:
            self._learn(line.split())

    def _learn(self, fields: list[str]) -> None:
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or not _is_of(self._place, fields[0]):
            return
        if marker == "@revoked":
            self._revoked.add(fields[2])
        elif not marker:
            self._keys[fields[2]] = fields[1]

    def transport(self, wire: socket.socket, **options: object) -> paramiko.Transport:
        """Prefers keys of the types that are known, so that a server with several shows one of them."""
        transport = paramiko.Transport(wire, **options)
        security = transport.get_security_options()
        wanted = {"rsa-sha2-" if kind == "ssh-rsa" else kind for kind in self._keys.values()}
        first = [each for each in security.key_types if each.startswith(tuple(wanted))]
        security.key_types = first + [each for each in security.key_types if each not in first]
        return transport

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Raises StoreDenied unless *key* is known; its fingerprint is as `ssh-keygen -l` prints it."""
        shown = base64.b64encode(key.asbytes()).decode()
        place, file = self._place, self._file
        if shown in self._revoked:
            raise StoreDenied(
                f"the host key of {place} is marked @revoked in {file}", hint="ask whoever runs the server"
            )
        if shown in self._keys:
            return
        add = f"ssh-keyscan -p {self._port} {shlex.quote(self._host)} >> {shlex.quote(file)}"
        compare = f"compare it with what `ssh-keygen -l` shows on the server itself: {key.fingerprint}"
        if not self._keys:
            raise StoreDenied(f"the host key of {place} is not in {file}", hint=f"{compare}; then run: {add}")
        remove = f"ssh-keygen -R {shlex.quote(place)} -f {shlex.quote(file)}"
        raise StoreDenied(
            f"the host key of {place} has changed: somebody may be in between, or the server was set up again",
            hint=f"{compare}; only if it is the same run: {remove}; {add}",
        )


def _is_of(place: str, patterns: str) -> bool:
    """Whether a first field of known_hosts speaks of *place*."""
    if patterns.startswith("|1|"):
        try:
            return bool(paramiko.HostKeys.hash_host(place, patterns) == patterns)
        except Exception:  # a line that somebody cut
            return False
    found = False
    for pattern in patterns.lower().split(","):
        # fnmatch knows sets in brackets, which are nothing but a port here.
        if fnmatch.fnmatchcase(place.lower(), pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found
