"""SFTP servers in processes of their own, which a test can freeze, kill and start again on the same port.

``python -m tests.support.servers.sftp …`` is asyncssh's own server in one of these modes, and `rclone serve sftp`
is a server that is no relative of it and replaces at a rename.

- ``whole``: as it is; hard links and fsync, which its log tells of, but no fsync of folders.
- ``plain``: no hard links, no fsync, no rename that replaces, short reads, as appliances have it; ``lying``: and rename
  replaces all the same.
- ``narrow``: two sessions at once on a connection. ``full``: no file beyond a megabyte. ``denying``: opens nothing.
  ``timeless``: tells no times.
- ``chatty``: its login prints text. ``mute``: starts SFTP and never says a word. ``deaf``: never starts it.
  ``none``: has no SFTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from replicator.store import Store

ROOT = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
# For a start on a machine with two cores that runs other tests at the same time.
START_SECONDS = 30.0
PASSWORD = "correct-horse"


@dataclass
class SftpServer:
    """``root`` is what its clients see as /; ``environ`` has what it takes to log in."""

    root: Path
    port: int
    environ: dict[str, str]
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def known_hosts(self) -> Path:
        return Path(self.environ["BACKUP_SFTP_KNOWN_HOSTS"])

    @property
    def key(self) -> Path:
        return Path(self.environ["BACKUP_SFTP_KEY_FILE"])

    def url(self, folder: str = "/store") -> str:
        return f"sftp://tester@{HOST}:{self.port}{folder}"

    def start(self) -> None:
        assert self.process is None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log)
        ends = time.monotonic() + START_SECONDS
        while not self._greets():
            if self.process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise AssertionError(f"{self.command} does not start: {self.log.read_text(errors='replace')}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """It keeps its connections and takes new ones, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _greets(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as wire:
                return wire.recv(4) == b"SSH-"
        except OSError:
            # A refused connection takes no time, and a busy loop would slow the start it waits for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self.process is not None
                self.process.wait(0.05)
            return False


@contextlib.contextmanager
def asyncssh_server(folder: Path, mode: str = "whole") -> Iterator[SftpServer]:
    def command(port: int, root: Path) -> list[str]:
        arguments = [mode, str(port), root, folder / "host_key", folder / "authorized_keys"]
        return [sys.executable, "-m", __name__, *map(str, arguments)]

    with _running(folder, command) as server:
        yield server


@contextlib.contextmanager
def rclone_server(folder: Path) -> Iterator[SftpServer]:
    def command(port: int, root: Path) -> list[str]:
        program = Path(sys.executable).with_name("rclone")
        options = {"--addr": f"{HOST}:{port}", "--key": folder / "host_key"}
        options |= {"--authorized-keys": folder / "authorized_keys", "--config": folder / "rclone.conf"}
        flat = [str(each) for pair in options.items() for each in pair]
        return [str(program), "serve", "sftp", str(root), *flat, "--dir-cache-time", "1ms"]

    with _running(folder, command) as server:
        yield server


def store_on(server: SftpServer) -> Store:
    """A store in a folder of its own, which does not exist yet."""
    from replicator.store.sftp import open_sftp

    return open_sftp(server.url(f"/{secrets.token_hex(8)}/store"), server.environ)


@contextlib.contextmanager
def _running(folder: Path, command: Callable[[int, Path], list[str]]) -> Iterator[SftpServer]:
    root = folder / "root"
    root.mkdir(parents=True)
    host_key = write_key(folder / "host_key")
    (folder / "authorized_keys").write_text(write_key(folder / "id_ed25519") + "\n")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[{HOST}]:{port} {host_key}\n")
    environ = {
        "HOME": str(folder),
        "BACKUP_SFTP_KNOWN_HOSTS": str(folder / "known_hosts"),
        "BACKUP_SFTP_KEY_FILE": str(folder / "id_ed25519"),
    }
    server = SftpServer(root, port, environ, command(port, root), folder / "server.log")
    server.start()
    try:
        yield server
    finally:
        server.kill()


def write_key(path: Path, passphrase: str = "") -> str:
    """A new private key at *path*; gives the public one as authorized_keys and known_hosts have it."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    encryption = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
    path.touch(0o600)
    path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, encryption))
    return key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()


# --- in the process of the server ----------------------------------------------------------------------


def _serve(mode: str, port: int, root: Path, host_key: Path, authorized_keys: Path) -> None:
    import asyncssh

    class Login(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return password == PASSWORD

    async def listen() -> None:
        await asyncssh.listen(
            HOST,
            port,
            server_factory=Login,
            server_host_keys=[str(host_key)],
            authorized_client_keys=str(authorized_keys),
            sftp_factory=None if mode == "none" else _files(mode, root),
        )
        await asyncio.Event().wait()

    _change_asyncssh(mode)
    asyncio.run(listen())


def _files(mode: str, root: Path) -> Callable[[object], object]:
    import asyncssh

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: object) -> None:
            super().__init__(channel, chroot=os.fsencode(root))

        def open(self, path: bytes, pflags: int, attrs: object) -> object:
            if mode == "denying":
                raise asyncssh.SFTPPermissionDenied("not for you")
            return super().open(path, pflags, attrs)

        def read(self, file: object, offset: int, size: int) -> bytes:
            return super().read(file, offset, min(size, 20_000) if mode == "plain" else size)

        def fsync(self, file: object) -> None:
            print("fsync", flush=True)
            super().fsync(file)

        def link(self, oldpath: bytes, newpath: bytes) -> None:
            print("link", flush=True)
            super().link(oldpath, newpath)

        def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
            print("posix-rename", flush=True)
            super().posix_rename(oldpath, newpath)

        def rename(self, oldpath: bytes, newpath: bytes) -> None:
            if mode == "lying":
                self.posix_rename(oldpath, newpath)
            else:
                super().rename(oldpath, newpath)

    return Files


def _change_asyncssh(mode: str) -> None:
    from asyncssh import ChannelOpenError, channel, connection, sftp

    if mode in ("plain", "lying"):
        gone = (b"hardlink@openssh.com", b"fsync@openssh.com", b"posix-rename@openssh.com")
        handler = sftp.SFTPServerHandler
        handler._extensions = [each for each in handler._extensions if each[0] not in gone]
        handler._packet_handlers = {k: v for k, v in handler._packet_handlers.items() if k not in gone}
    elif mode == "narrow":
        real = connection.SSHServerConnection._process_session_open

        def open_session(self: connection.SSHServerConnection, packet: object) -> object:
            if len(self._channels) >= 2:
                raise ChannelOpenError(4, "too many sessions")
            return real(self, packet)

        connection.SSHServerConnection._process_session_open = open_session
    elif mode in ("mute", "chatty"):

        async def run(self: sftp.SFTPServerHandler) -> None:
            if mode == "chatty":
                self._writer.write(b"Welcome to this machine!\n")
            await asyncio.Event().wait()

        sftp.SFTPServerHandler.run = run
    elif mode == "deaf":
        channel.SSHServerChannel._process_subsystem_request = lambda *_: time.sleep(3600)
    elif mode == "timeless":
        encode = sftp.SFTPAttrs.encode

        def without_times(self: sftp.SFTPAttrs, version: int) -> bytes:
            self.atime = self.mtime = None
            return encode(self, version)

        sftp.SFTPAttrs.encode = without_times
    elif mode == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:]))
