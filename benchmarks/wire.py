"""What goes over the wire to an S3 server: python -m benchmarks.wire UPSTREAM PREFIX FOLDER LOG DELAY.

A proxy between an agent and the server. It adds DELAY seconds to each request, as a network would, writes down
each request that was answered, and mirrors each object below PREFIX into FOLDER the moment the server says it has
it; so whoever watches that folder sees the store from outside. The first line of LOG is the proxy's port, each
after it `<kind> <status> <bytes> <path>`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.servers.wire import Message, Seen, Wire


def kind_of(request: Message) -> str:
    """As a bill counts it: PUT, LIST, GET, HEAD, DELETE or POST."""
    asked = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
    if request.method == "GET" and "list-type" in asked:
        return "LIST"
    return "DELETE" if request.method == "POST" and "delete" in asked else request.method


def object_of(request: Message) -> bytes:
    """The body without the lengths and checksums of its pieces, which some clients put in between."""
    if not request.get("x-amz-content-sha256").startswith("STREAMING-"):
        return request.body
    pieces: list[bytes] = []
    at = 0
    while True:
        end = request.body.index(b"\r\n", at)
        size = int(request.body[at:end].split(b";")[0], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(request.body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def main() -> None:
    upstream, prefix, folder, log, delay = sys.argv[1:]
    with open(log, "w", encoding="utf-8") as file:

        def answered(seen: Seen) -> None:
            path = urlsplit(seen.request.path)
            key, kind, status = unquote(path.path), kind_of(seen.request), seen.answer.status
            if kind == "PUT" and status == 200 and "uploadId" not in path.query:
                mirror(Path(folder), key.partition(f"/{prefix}/")[2], object_of(seen.request))
            file.write(f"{kind} {status} {len(seen.request.body)} {key}\n")
            file.flush()

        with Wire(upstream, delay=float(delay), answered=answered) as wire:
            file.write(f"{wire.port}\n")
            file.flush()
            asked = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: asked.set())
            asked.wait()


def mirror(folder: Path, name: str, content: bytes) -> None:
    if not name:
        return
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    os.rename(unfinished, path)


if __name__ == "__main__":
    main()
