"""A server that gives the answer a test has chosen, for what the real ones never do on request."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answers:
    """What is answered from now on to everything; *requests* are method, path and headers of what came."""

    endpoint: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int = 0  # bytes that are promised and not sent
    slowness: float = 0.0  # seconds before each 128 KiB of a body are taken
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextlib.contextmanager
def answering_server() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            answers.requests.append((self.command, self.path, dict(self.headers)))
            left = int(self.headers.get("content-length") or 0)
            while left:
                time.sleep(answers.slowness)
                left -= len(self.rfile.read(min(left, 1 << 17)))
            self.send_response(answers.status)
            for header, value in answers.headers.items():
                self.send_header(header, value)
            if answers.status not in (204, 304):
                self.send_header("content-length", str(len(answers.body) + answers.cut))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answers.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815 (names of the base class)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    answers.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
