"""An ssh agent with one key: as much of its protocol as a login needs (draft-miller-ssh-agent)."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko

_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14


@contextlib.contextmanager
def ssh_agent(key: paramiko.PKey, path: Path) -> Iterator[None]:
    """Listens on the socket at *path*, which SSH_AUTH_SOCK has to name."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        def serve(client: socket.socket) -> None:
            with client, client.makefile("rwb") as stream, contextlib.suppress(OSError):
                while head := stream.read(4):
                    answer = answered(stream.read(struct.unpack(">I", head)[0]))
                    stream.write(_string(answer))
                    stream.flush()

        def answered(request: bytes) -> bytes:
            if request[0] == _REQUEST_IDENTITIES:
                return struct.pack(">BI", _IDENTITIES_ANSWER, 1) + _string(key.asbytes()) + _string(b"a key")
            assert request[0] == _SIGN_REQUEST
            _, rest = _parted(request[1:])
            data, _ = _parted(rest)
            signature = key.sign_ssh_data(data)
            return bytes([_SIGN_RESPONSE]) + _string(signature.asbytes())

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _parted(data: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack_from(">I", data)
    return data[4 : 4 + size], data[4 + size :]
