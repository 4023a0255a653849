"""A proxy as companies have it: it is asked to CONNECT, ends TLS itself, and passes on to a server of ours."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers.certificates import write_certificate


@dataclass
class Interception:
    """``connected`` are the hosts that were asked for, ``sent`` all that clients said behind their TLS."""

    url: str
    ca_file: Path
    connected: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def intercepting(host: str, upstream: tuple[str, int], folder: Path) -> Iterator[Interception]:
    """Everything that goes to *host* goes to *upstream* instead, in the clear."""
    ca_file = write_certificate(folder, host)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Interception(f"http://127.0.0.1:{listener.getsockname()[1]}", ca_file)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        def serve(client: socket.socket) -> None:
            with contextlib.suppress(OSError), client:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += client.recv(4096)
                found.connected.append(asked.split(b" ")[1].decode())
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                with (
                    context.wrap_socket(client, server_side=True) as inner,
                    socket.create_connection(upstream) as up,
                ):
                    back = threading.Thread(target=pump, args=(up, inner, None), daemon=True)
                    back.start()
                    pump(inner, up, found.sent)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def pump(source: socket.socket, target: socket.socket, kept: list[bytes] | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if kept is not None:
                kept.append(data)
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
