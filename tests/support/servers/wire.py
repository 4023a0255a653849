"""A proxy on the wire between a client and a server that speak HTTP: it counts, delays, and does harm as told.

Requests and answers are taken whole and passed on unchanged, the signed ``Host`` among them, so both ends believe
that they talk to each other. Faults happen here, where networks have them, and not inside the code under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

# Large enough for any head a cloud sends; bodies are read by their length.
_HEAD_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer: the first line's words, header fields, and the body; ``get`` takes a lower-case name."""

    first: tuple[str, str, str]
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def method(self) -> str:
        return self.first[0]

    @property
    def path(self) -> str:
        return self.first[1]

    @property
    def status(self) -> int:
        return int(self.first[1])

    def get(self, name: str) -> str:
        return next((value for key, value in self.fields if key.lower() == name), "")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request. ``when``: reset ``before`` the server has it, ``during`` (it gets half), or
    ``after`` it has acted; ``hang`` after that, or stay ``mute`` before it; ``truncated`` and ``flipped`` bodies of
    its answer; or ``answer``, without asking the server."""

    when: str
    status: int = 503
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(slots=True)
class Seen:
    """One request that was answered."""

    request: Message
    answer: Message


Chosen = Callable[[Message], Fault | None]
Answered = Callable[[Seen], None]


@dataclass
class Wire:
    """``fault`` decides for each request, ``delay`` seconds are added to each, ``answered`` is told of each."""

    upstream: str
    delay: float = 0.0
    fault: Chosen = lambda _: None
    answered: Answered = lambda _: None
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Wire:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._released = asyncio.Event()
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)
        self._thread.join(10)

    def release(self) -> None:
        """What hangs goes on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._stopped = self._loop.create_future()
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", self.port, limit=_HEAD_BYTES_MAX)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.upstream.removeprefix("http://").partition(":")
        up: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while (request := await _read(reader, continued=writer)) is not None:
                if up is None or up[0].at_eof():
                    if up is not None:
                        up[1].close()
                    up = await asyncio.open_connection(host, int(port), limit=_HEAD_BYTES_MAX)
                if not await self._exchange(request, writer, *up):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, up[1] if up else None):
                if each is not None:
                    each.close()
                    with contextlib.suppress(OSError):
                        await each.wait_closed()

    async def _exchange(
        self,
        request: Message,
        client: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection goes on."""
        if self.delay:
            await asyncio.sleep(self.delay)
        fault = self.fault(request)
        when = fault.when if fault else ""
        if fault and when == "answer":
            answer = Message(("HTTP/1.1", str(fault.status), "Told"), fault.fields, fault.body)
            self._tell(request, answer)
            client.write(_encoded(answer))
            await client.drain()
            return True
        if when == "mute":
            await self._released.wait()
            return _reset(client)
        if when == "before":
            return _reset(client)
        if when == "during":
            writer.write(_encoded(request)[: -max(1, len(request.body) // 2)])
            await writer.drain()
            _reset(writer)
            return _reset(client)
        writer.write(_encoded(request))
        await writer.drain()
        answer_read = await _read(reader, bodiless=request.method == "HEAD")
        if answer_read is None:
            return _reset(client)
        self._tell(request, answer_read)
        if when == "after":
            return _reset(client)
        if when == "hang":
            await self._released.wait()
        whole = _encoded(answer_read, kept_length=request.method == "HEAD")
        if when == "truncated" and answer_read.body:
            client.write(whole[: -max(1, len(answer_read.body) // 2)])
            await client.drain()
            return False
        if when == "flipped" and answer_read.body:
            at = len(whole) - len(answer_read.body) // 2 - 1
            whole = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        client.write(whole)
        await client.drain()
        return True

    def _tell(self, request: Message, answer: Message) -> None:
        seen = Seen(request, answer)
        self.seen.append(seen)
        self.answered(seen)


def _reset(writer: asyncio.StreamWriter) -> bool:
    """RST instead of FIN: what a machine does that forgot the connection."""
    found: socket.socket = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _read(
    reader: asyncio.StreamReader, *, continued: asyncio.StreamWriter | None = None, bodiless: bool = False
) -> Message | None:
    """One whole message; None where the other end has gone between two."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    parts = [line.partition(":") for line in lines]
    fields = tuple((name, value.strip()) for name, _, value in parts)
    message = Message((words[0], words[1], words[2] if len(words) > 2 else ""), fields, b"")
    if continued is not None and message.get("expect"):
        continued.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if words[0].startswith("HTTP/") and int(words[1]) == 100:
        return await _read(reader, bodiless=bodiless)
    bodiless = bodiless or (words[0].startswith("HTTP/") and words[1] in ("204", "304"))
    body = b"" if bodiless else await _body(reader, message)
    return Message(message.first, fields, body)


async def _body(reader: asyncio.StreamReader, message: Message) -> bytes:
    if "chunked" in message.get("transfer-encoding"):
        pieces: list[bytes] = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while (await reader.readuntil(b"\r\n")) != b"\r\n":
            pass
        return b"".join(pieces)
    return await reader.readexactly(int(message.get("content-length") or 0))


_HOP = ("transfer-encoding", "expect", "connection", "keep-alive")


def _encoded(message: Message, *, kept_length: bool = False) -> bytes:
    """With its length said; an answer to HEAD keeps the one it had."""
    dropped = _HOP if kept_length else (*_HOP, "content-length")
    lines = [" ".join(message.first).rstrip()]
    lines += [f"{name}: {value}" for name, value in message.fields if name.lower() not in dropped]
    if not kept_length:
        lines.append(f"Content-Length: {len(message.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + message.body


def first(count: int, fault: Fault, wanted: Callable[[Message], bool] = lambda _: True) -> Chosen:
    """That *fault* for the first *count* requests that are *wanted*, and none after them."""
    left = [fault] * count

    def choose(request: Message) -> Fault | None:
        return left.pop() if left and wanted(request) else None

    return choose
