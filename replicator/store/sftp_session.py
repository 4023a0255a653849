"""SFTP version 3 as a client speaks it over one channel: requests out, replies in, many under way at once.

Own code, because paramiko's client forgets which extensions a server announced, turns the codes of refusals into
text, and cannot ask for the extensions that put-once and durability need. Source: draft-ietf-secsh-filexfer-02;
section 4 of OpenSSH's PROTOCOL. One thread at a time uses a session.
"""

from __future__ import annotations

import io
import stat
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

_T = TypeVar("_T")

# Packet types of the draft.
_INIT, _VERSION = 1, 2
_OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT = 3, 4, 5, 6, 7, 8
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _STAT, _RENAME = 11, 12, 13, 14, 17, 18
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED = 101, 102, 103, 104, 105, 200

READ, WRITE, CREATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, UNSUPPORTED = 0, 1, 2, 3, 4, 8
_WORDS = {
    NO_SUCH_FILE: "no such file",
    PERMISSION_DENIED: "permission denied",
    FAILURE: "failure",
    UNSUPPORTED: "operation unsupported",
}

FSYNC = "fsync@openssh.com"
HARDLINK = "hardlink@openssh.com"
POSIX_RENAME = "posix-rename@openssh.com"

# The draft guarantees packets of 34,000 bytes; servers differ in what they take beyond.
PIECE_BYTES = 32_768
# Pieces under way: 2 MiB, the window of an SSH channel, so a round trip of 40 ms still allows 50 MB/s.
_PIECES = 64
# A folder comes in about a hundred names a reply; so a large one does not cost a round trip for each.
_FOLDER_READS = 8
# No reply of any request here is larger; a length beyond is no SFTP, such as text that a login script prints.
_PACKET_BYTES_MAX = 1 << 20
_RESERVED_BYTES_MAX = 16 << 20  # for what a server has only told of
_TEXT_MAX = 200  # of what a server says, in an error


class Refused(Exception):
    """The server says no: ``code`` is one of the draft's, which has none for "exists" and none for "disk full"."""

    def __init__(self, code: int, text: str) -> None:
        shown = "".join(c if c.isprintable() else "?" for c in text[:_TEXT_MAX])
        word = _WORDS.get(code, f"code {code}")
        super().__init__(word if shown.lower() in ("", word) else f"{word} ({shown})")
        self.code = code


class Dropped(Exception):
    """The session is of no use any more: closed, silent for too long, or what came is no SFTP."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class Wire(Protocol):
    """What is needed of a paramiko channel."""

    def sendall(self, data: bytes) -> None: ...

    def recv(self, nbytes: int) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Attributes:
    """None where the server does not say."""

    size: int | None
    mode: int | None
    mtime: int | None

    @property
    def is_file(self) -> bool:
        return self.mode is not None and stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return self.mode is not None and stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return self.mode is not None and stat.S_ISLNK(self.mode)


class _Reader:
    """Takes a packet apart."""

    def __init__(self, packet: bytes) -> None:
        self._packet = packet
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._packet)

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.u32())

    def attributes(self) -> Attributes:
        flags = self.u32()
        size = self.u64() if flags & 0x01 else None
        if flags & 0x02:
            self._take(8)  # user and group
        mode = self.u32() if flags & 0x04 else None
        mtime = None
        if flags & 0x08:
            self._take(4)  # access time
            mtime = self.u32()
        if flags & 0x8000_0000:
            for _ in range(self.u32()):
                self.string(), self.string()
        return Attributes(size, mode, mtime)

    def _take(self, count: int) -> bytes:
        taken = self._packet[self._at : self._at + count]
        if len(taken) != count:
            raise Dropped("the server sent a reply that is cut short")
        self._at += count
        return taken


class Session:
    """``ask_…`` sends a request and gives its number; the reply to a number is taken with what it should be.

    A number whose reply nobody takes is given to ``forget``, or forgotten by ``settle``, which also closes what was
    left open. ``replies`` counts what was taken; ``used`` belongs to the pool. Everything raises Dropped.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._buffer = bytearray()
        self._number = 0
        self._early: dict[int, tuple[int, _Reader]] = {}
        self._pending: set[int] = set()
        self._forgotten: set[int] = set()
        self._handles: set[bytes] = set()
        self.replies = 0
        self.used = False
        self._send(_INIT, struct.pack(">I", 3))
        kind, reader = self._packet()
        if kind != _VERSION:
            raise Dropped("the server does not speak SFTP")
        reader.u32()  # its version: a later one speaks 3 to a client that says 3
        found = set()
        while reader:
            found.add(reader.string().decode(errors="replace"))
            reader.string()
        self.extensions = frozenset(found)

    def close(self) -> None:
        self._wire.close()

    # --- requests --------------------------------------------------------------------------------------

    def ask_open(self, path: str, flags: int, mode: int | None = None) -> int:
        attributes = struct.pack(">I", 0) if mode is None else struct.pack(">II", 0x04, mode)
        return self._ask(_OPEN, _name(path), struct.pack(">I", flags), attributes)

    def ask_close(self, handle: bytes) -> int:
        self._handles.discard(handle)
        return self._ask(_CLOSE, _string(handle))

    def ask_lstat(self, path: str) -> int:
        return self._ask(_LSTAT, _name(path))

    def ask_stat(self, path: str) -> int:
        """Unlike lstat, of what a link points to."""
        return self._ask(_STAT, _name(path))

    def ask_fstat(self, handle: bytes) -> int:
        return self._ask(_FSTAT, _string(handle))

    def ask_remove(self, path: str) -> int:
        return self._ask(_REMOVE, _name(path))

    def ask_mkdir(self, path: str, mode: int) -> int:
        return self._ask(_MKDIR, _name(path), struct.pack(">II", 0x04, mode))

    def ask_rename(self, old: str, new: str) -> int:
        return self._ask(_RENAME, _name(old), _name(new))

    def ask_fsync(self, handle: bytes) -> int:
        return self._ask(_EXTENDED, _name(FSYNC), _string(handle))

    def ask_hardlink(self, old: str, new: str) -> int:
        return self._ask(_EXTENDED, _name(HARDLINK), _name(old), _name(new))

    def ask_posix_rename(self, old: str, new: str) -> int:
        """Replaces what is there, at once."""
        return self._ask(_EXTENDED, _name(POSIX_RENAME), _name(old), _name(new))

    # --- replies ---------------------------------------------------------------------------------------

    def done(self, number: int) -> None:
        """The request succeeded, or Refused."""
        self._reply(number, _STATUS)

    def handle(self, number: int) -> bytes:
        handle = self._reply(number, _HANDLE).string()
        self._handles.add(handle)
        return handle

    def attributes(self, number: int) -> Attributes:
        return self._reply(number, _ATTRS).attributes()

    def forget(self, number: int) -> None:
        """Nobody asks for this reply. A handle in it is closed."""
        if number in self._pending:
            self._pending.discard(number)
            if number in self._early:
                self._pass_over(*self._early.pop(number))
            else:
                self._forgotten.add(number)

    def settle(self) -> None:
        """Leave nothing under way and nothing open, whatever became of the work; waits for no reply."""
        for number in list(self._pending):
            self.forget(number)
        for handle in list(self._handles):
            self.forget(self.ask_close(handle))

    # --- whole files and folders -----------------------------------------------------------------------

    def write(self, handle: bytes, data: bytes) -> deque[int]:
        """Give *data* to an open file; the numbers are of the last pieces, which are still under way."""
        under_way: deque[int] = deque()
        view = memoryview(data)
        for offset in range(0, len(view), PIECE_BYTES):
            if len(under_way) == _PIECES:
                self.done(under_way.popleft())
            piece = view[offset : offset + PIECE_BYTES]
            under_way.append(
                self._ask(_WRITE, _string(handle), struct.pack(">QI", offset, len(piece)), bytes(piece))
            )
        return under_way

    def read(self, handle: bytes, offset: int, length: int) -> bytes:
        """Up to *length* bytes from *offset* on, fewer only where the file ends."""
        # Its value comes out without being copied, so a large object lies in memory once.
        found = io.BytesIO()
        # As large at once as it will be: what grows is moved, and several that do take twice the memory.
        found.seek(max(0, min(length, _RESERVED_BYTES_MAX) - 1))
        found.write(b"\0")
        found.seek(0)
        under_way: deque[tuple[int, int, int]] = deque()
        end = offset + length
        asked = offset
        while asked < end or under_way:
            while asked < end and len(under_way) < _PIECES:
                size = min(PIECE_BYTES, end - asked)
                under_way.append((self._ask_read(handle, asked, size), asked, size))
                asked += size
            number, start, size = under_way.popleft()
            try:
                piece = self._reply(number, _DATA).string()
            except Refused as exc:
                if exc.code != EOF:
                    raise
                break
            if not piece or len(piece) > size:
                raise Dropped("the server sent a piece of another size than asked for")
            found.write(piece)
            if len(piece) < size:  # which a server may do anywhere
                start, size = start + len(piece), size - len(piece)
                under_way.appendleft((self._ask_read(handle, start, size), start, size))
        for number, _, _ in under_way:
            self.forget(number)
        found.truncate()
        return found.getvalue()

    def list(self, path: str) -> list[tuple[str, Attributes]]:
        """What lies in a folder, in no order."""
        handle = self.handle(self._ask(_OPENDIR, _name(path)))
        entries: list[tuple[str, Attributes]] = []
        under_way: deque[int] = deque()
        try:
            while True:
                while len(under_way) < _FOLDER_READS:
                    under_way.append(self._ask(_READDIR, _string(handle)))
                reader = self._reply(under_way.popleft(), _NAME)
                for _ in range(reader.u32()):
                    name = reader.string().decode(errors="surrogateescape")
                    reader.string()  # the line of an ls -l
                    entries.append((name, reader.attributes()))
        except Refused as exc:
            if exc.code != EOF:
                raise
        for number in under_way:
            self.forget(number)
        self.forget(self.ask_close(handle))
        # A name with a slash is no name: nobody but a hostile server sends one.
        return [each for each in entries if each[0] not in (".", "..") and "/" not in each[0]]

    # --- packets ---------------------------------------------------------------------------------------

    def _ask_read(self, handle: bytes, offset: int, size: int) -> int:
        return self._ask(_READ, _string(handle), struct.pack(">QI", offset, size))

    def _ask(self, kind: int, *parts: bytes) -> int:
        self._number = (self._number + 1) & 0xFFFF_FFFF
        self._send(kind, struct.pack(">I", self._number), *parts)
        self._pending.add(self._number)
        return self._number

    def _reply(self, number: int, wanted: int) -> _Reader:
        while number not in self._early:
            kind, reader = self._packet()
            came = reader.u32()
            if came in self._forgotten:
                self._forgotten.discard(came)
                self._pass_over(kind, reader)
            elif came in self._pending:
                self._early[came] = kind, reader
            else:
                raise Dropped("the server answered what it was not asked")
        kind, reader = self._early.pop(number)
        self._pending.discard(number)
        self.replies += 1
        if kind == _STATUS:
            code = reader.u32()
            if code != OK:
                raise Refused(code, reader.string().decode(errors="replace") if reader else "")
        if kind != wanted:
            raise Dropped("the server answered something else than it was asked")
        return reader

    def _pass_over(self, kind: int, reader: _Reader) -> None:
        if kind == _HANDLE:
            self.forget(self._ask(_CLOSE, _string(reader.string())))

    def _send(self, kind: int, *parts: bytes) -> None:
        length = 1 + sum(map(len, parts))
        packet = b"".join((struct.pack(">IB", length, kind), *parts))
        self._on_wire(lambda: self._wire.sendall(packet))

    def _packet(self) -> tuple[int, _Reader]:
        length = int.from_bytes(self._receive(4), "big")
        if not 0 < length <= _PACKET_BYTES_MAX:
            raise Dropped("the server sent something that is no SFTP: does its login print anything?")
        packet = self._receive(length)
        return packet[0], _Reader(packet[1:])

    def _receive(self, count: int) -> bytes:
        while len(self._buffer) < count:
            piece = self._on_wire(lambda: self._wire.recv(1 << 16))
            if not piece:
                raise Dropped("the server closed the connection")
            self._buffer += piece
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    @staticmethod
    def _on_wire(call: Callable[[], _T]) -> _T:
        """Whatever the wire raises, and its library raises much, the session is over."""
        try:
            return call()
        except TimeoutError as exc:
            raise Dropped("the server does not answer", silent=True) from exc
        except Exception as exc:
            raise Dropped(f"the connection is gone ({exc or type(exc).__name__})") from exc


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _name(path: str) -> bytes:
    return _string(path.encode(errors="surrogateescape"))
