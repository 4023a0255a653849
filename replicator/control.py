"""Control: how a command on this machine asks the running agent for something, through a socket in a state folder.

One socket for all databases of an agent; the state folder of each says where it lies. A request is a line of JSON, and
so is each answer: any number that tell of progress, then one with the result or the error.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from replicator.core.errors import ReplicatorError, SourceGone, UsageError
from replicator.files import replace_file

log = logging.getLogger(__name__)

SOCKET = "control"
POINTER = "control.json"
# The longest there is are a hundred schedules with all that they may say, and a repair of thousands of objects.
REQUEST_BYTES_MAX = 8 << 20
# A client says what it wants at once.
REQUEST_SECONDS = 10.0
# Asked by people and by their scripts, one or a few at a time.
CLIENTS_MAX = 8
# Nobody can be let in while there are no descriptors or no memory left; that passes.
PAUSE_SECONDS = 1.0

Tell = Callable[[str], None]
Handler = Callable[[str, Mapping[str, Any], Tell], dict[str, Any]]
"""Given the path of a database, the arguments, and whom to tell of progress; returns the result."""


class ControlServer:
    """Answers in threads of its own. *handlers* by verb. An agent that cannot be asked works all the same."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)
        self._socket: socket.socket | None = None
        self._places = threading.Semaphore(CLIENTS_MAX)
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        self._path = ""

    def announce(self, folder: str) -> None:
        """Say in a state folder where the socket lies; in the first one that there is."""
        with self._starting:
            if self._socket is None and not self._stopped.is_set():
                try:
                    self._socket = _listening(folder)
                except OSError as exc:
                    log.warning("control.unavailable", extra={"path": folder, "error": str(exc)})
                    return
                self._path = os.path.join(folder, SOCKET)
                threading.Thread(target=self._serve, name="control", daemon=True).start()
        content = json.dumps({"socket": self._path, "pid": os.getpid()}).encode()
        with contextlib.suppress(OSError):
            replace_file(os.path.join(folder, POINTER), content, durable=False)

    def stop(self) -> None:
        self._stopped.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            # Closing alone does not wake a thread that waits in accept(2).
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None

    def _serve(self) -> None:
        while (listening := self._socket) is not None:
            try:
                client, _ = listening.accept()
            except OSError as exc:
                if self._stopped.is_set():
                    return
                log.warning("control.unavailable", extra={"path": self._path, "error": str(exc)})
                self._stopped.wait(PAUSE_SECONDS)
                continue
            if not _is_ours(client):
                client.close()
            elif not self._places.acquire(blocking=False):
                _refuse(client)
            else:
                threading.Thread(
                    target=self._answer, args=(client,), name="control-client", daemon=True
                ).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            try:
                _send(client, {"result": self._handle(client)})
            except ReplicatorError as exc:
                _send(client, exc.document())
            except OSError:
                pass  # the client has gone
            except Exception as exc:
                log.error("internal.error", extra={"error": type(exc).__name__})
                _send(
                    client, {"error": f"internal error: {type(exc).__name__}", "hint": None, "exit_code": 1}
                )
            finally:
                self._places.release()

    def _handle(self, client: socket.socket) -> dict[str, Any]:
        line = _first_line(client)
        try:
            request = json.loads(line)
            verb, database, arguments = request["verb"], request["database"], request["arguments"]
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise UsageError("this is no request that an agent knows") from exc
        handler = self._handlers.get(str(verb))
        if handler is None or not isinstance(arguments, dict):
            raise UsageError(f"the agent that runs does not know {verb!r}", hint="is it of an older version?")
        client.settimeout(None)
        return handler(str(database), arguments, lambda text: _send(client, {"progress": text}))


def ask_agent(
    state_folder: str, database: str, verb: str, arguments: Mapping[str, Any], *, tell: Tell = lambda _: None
) -> dict[str, Any]:
    """The answer of the agent that has *state_folder*. Raises what it answers, or SourceGone where none is there."""
    with _connected(state_folder) as server:
        _send(server, {"verb": verb, "database": os.path.realpath(database), "arguments": dict(arguments)})
        for answer in _answers(server):
            if "progress" in answer:
                tell(str(answer["progress"]))
            elif "result" in answer:
                return dict(answer["result"])
            else:
                error = ReplicatorError(str(answer.get("error")), hint=answer.get("hint"))
                error.exit_code = int(answer.get("exit_code") or 1)
                raise error
    raise SourceGone("the agent ended before it answered", hint="see its log")


# --- the socket ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """A socket's path may have 107 bytes only; through an open folder any path is short."""
    folder, name = os.path.split(path)
    if len(os.fsencode(path)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def _listening(folder: str) -> socket.socket:
    """In a folder of mode 0700 that we hold the lock of, so what lies there is left over."""
    path = os.path.join(folder, SOCKET)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":  # elsewhere only the folder keeps others out
            os.fchmod(found.fileno(), 0o600)
        with _short(path) as short:
            found.bind(short)
        found.listen(CLIENTS_MAX)
    except OSError:
        found.close()
        raise
    return found


def _is_ours(client: socket.socket) -> bool:
    """Whether it is of this user, or of root; where the system does not say, the mode of the socket has to do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (os.geteuid(), 0)


@contextlib.contextmanager
def _connected(state_folder: str) -> Iterator[socket.socket]:
    try:
        with open(os.path.join(state_folder, POINTER), "rb") as file:
            path = str(json.load(file)["socket"])
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with server:
            with _short(path) as short:
                server.connect(short)
            yield server
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as exc:
        raise SourceGone(
            f"the agent of {state_folder} cannot be asked: {type(exc).__name__}",
            hint="does it run? see `status`",
        ) from exc


def _send(peer: socket.socket, content: Mapping[str, Any]) -> None:
    peer.sendall(json.dumps(content).encode() + b"\n")


def _refuse(client: socket.socket) -> None:
    """So little fits into the buffer of any socket, so nobody is waited for."""
    with client, contextlib.suppress(OSError):
        client.setblocking(False)
        _send(
            client, {"error": "the agent answers others just now", "hint": "try again later", "exit_code": 1}
        )


def _first_line(client: socket.socket) -> bytes:
    data, piece = bytearray(), b""
    deadline = time.monotonic() + REQUEST_SECONDS
    while b"\n" not in piece:
        client.settimeout(max(0.001, deadline - time.monotonic()))
        piece = client.recv(1 << 16)
        data += piece
        if not piece or len(data) > REQUEST_BYTES_MAX:
            break
    return bytes(data.partition(b"\n")[0])


def _answers(server: socket.socket) -> Iterator[dict[str, Any]]:
    with server.makefile("rb") as file:
        for line in file:
            answer = json.loads(line)
            if isinstance(answer, dict):
                yield answer
