"""The engine: seeded mutations of real inputs, one after the other given to a target.

A target takes bytes. What may come out of it are the errors of the program and nothing else, after a bounded time.
Inputs that come to an end in a place where none did before join those that are mutated: so what lies behind many
conditions is reached, one condition at a time. Everything follows from the seed.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import json
import random
import signal
import struct
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

from replicator.core.errors import ReplicatorError

HERE = Path(__file__).resolve().parent
CRASHERS = HERE / "crashers"
# Of processor time, for one input: a hundred times what any of them needs.
CPU_SECONDS = 5.0
INPUT_BYTES_MAX = 256 << 10
POOL_MAX = 400  # inputs that are mutated beside the corpus
_STACKED_MAX = 4  # mutations of one input


class Form(Enum):
    """What the mutations may know of an input. Of ``NAMED`` the first line is the name of an object."""

    BINARY = "binary"
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class Target:
    """``check`` raises a ReplicatorError, or returns whatever tells one good input from another; an assertion in it is
    as much a failure as any other error. ``mend`` makes digests right again that a mutation broke, so that what lies
    behind them is reached. ``weight``: how many inputs it gets of those that a usual one gets."""

    name: str
    check: Callable[[bytes], Hashable]
    corpus: tuple[bytes, ...]
    form: Form = Form.BINARY
    named: bool = False
    mend: Callable[[bytes], bytes] | None = None
    words: tuple[bytes, ...] = ()
    weight: float = 1.0

    def __str__(self) -> str:
        return self.name


class TooLong(BaseException):
    """An input took more processor time than any may. No Exception, so that nothing on the way takes it for its own."""


class Failure(Exception):
    """``data`` made *target* fail; the cause is what came out of it."""

    def __init__(self, target: Target, data: bytes, cause: BaseException) -> None:
        shown = repr(data[:200]) + (f" … {len(data)} bytes" if len(data) > 200 else "")
        super().__init__(f"{target.name} fails with {type(cause).__name__}: {cause}\ninput: {shown}")
        self.target = target
        self.data = data
        self.cause = cause

    @property
    def place(self) -> Hashable:
        return _place(self.cause)


Signal = Hashable


def feed(target: Target, data: bytes) -> Signal:
    """What came of it: where it ended. Raises Failure."""
    try:
        with _limited(CPU_SECONDS):
            return "read", target.check(data)
    except ReplicatorError as exc:
        return _place(exc)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        raise Failure(target, data, exc) from exc


def _place(exc: BaseException) -> Hashable:
    """Type, and the innermost line of the program (or of a target) that it went through."""
    ours = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(exc.__traceback__)
        if "replicator" in frame.filename or frame.filename.startswith(str(HERE))
    ]
    return type(exc).__name__, ours[-1] if ours else None


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Processor time, so that neighbours do not count, and no other timer of the tests is disturbed."""

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise TooLong(f"more than {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# --- running -------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One target and one seed: an endless row of inputs, each fed when it is asked for."""

    target: Target
    seed: int
    tried: int = 0
    seen: set[Signal] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.seed}/{self.target.name}")
        self._pool = list(self.target.corpus)
        self._kept = 0

    def step(self) -> None:
        """One more input. Raises Failure."""
        target = self.target
        data = mutated(self._random, target, self._random.choice(self._pool), self._pool)
        self.tried += 1
        found = feed(target, data)
        if found not in self.seen:
            self.seen.add(found)
            if self.tried > 1 and len(data) <= INPUT_BYTES_MAX:
                self._keep(data)

    def _keep(self, data: bytes) -> None:
        if self._kept < POOL_MAX:
            self._pool.append(data)
            self._kept += 1
        else:
            self._pool[len(self.target.corpus) + self._random.randrange(POOL_MAX)] = data

    def inputs(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def seconds(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.inputs(16)


def smallest(failure: Failure, *, attempts: int = 400) -> Failure:
    """The same failure by fewer bytes: pieces are left out as long as it stays."""
    best, step = failure, max(1, len(failure.data) // 2)
    for _ in range(attempts):
        for start in range(0, len(best.data), step):
            fewer = best.data[:start] + best.data[start + step :]
            try:
                feed(failure.target, fewer)
            except Failure as found:
                if found.place == failure.place:
                    best = found
                    break
        else:
            if step == 1:
                break
            step = max(1, step // 2)
    return best


def save(failure: Failure, folder: Path = CRASHERS) -> Path:
    """Where every later test run finds it."""
    path = folder / failure.target.name / hashlib.sha256(failure.data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(failure.data)
    return path


def saved(target: Target, folder: Path = CRASHERS) -> list[Path]:
    return sorted((folder / target.name).glob("*"))


# --- mutations -----------------------------------------------------------------------------------------

_EDGES = sorted(
    {edge + off for bits in (0, 7, 8, 15, 16, 31, 32, 62, 63, 64) for edge in (1 << bits,) for off in (-1, 0, 1)}
)  # fmt: skip
_FORMS = [f"{order}{size}" for order in "<>" for size in "BHIQ"]
_TEXT_WORDS = (
    b"\xff", b"\xc3", b"\xed\xa0\x80",
    *(each.encode("utf-8", "surrogatepass") for each in (
        "\0", "\n", "\r\n", "\t", " ", "\x7f", "\x1b[2J", "\x9b", "\u202e", "\u00a0", "é", "\u017f", "\u0130",
        "\uff19", "\u0663", "²", "½", "Ⅷ",
        "/", "//", ".", "..", "../", "-", "+", "~", "%", "%00", "%2e%2e", "@", ":", "?", "#", "\\", "'", '"',
        "0", "1", "9" * 20, "9" * 400, "9" * 5000, "1e400", "nan", "inf", "-1", "0x10", "1_0", "a" * 300,
        "x" * 5000, "\ud800",
    )),
)  # fmt: skip
_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 255, 1 << 31, 1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 10**30,
    10**4000, 0.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"), "", "0", "x", "\0", "\n", "\ud800",
    "\x1b[2J", "\u202e", "\u0663", "²", "../../etc/passwd", "/etc/passwd", "a" * 5000, [], {}, [[]], [None],
    {"": 0}, [0] * 100,
)  # fmt: skip

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def mutated(rng: random.Random, target: Target, data: bytes, pool: Sequence[bytes]) -> bytes:
    """A few mutations of *data*, and now and then none but the mending."""
    name, rest = b"", data
    if target.named and rng.random() < 0.9:
        name, line_end, rest = data.partition(b"\n")
        name += line_end
        pool = [each.partition(b"\n")[2] for each in rng.sample(pool, min(len(pool), 4))]
    for _ in range(rng.randint(1, _STACKED_MAX) if rng.random() < 0.97 else 0):
        rest = _once(rng, target, rest, pool)
    found = (name + rest)[:INPUT_BYTES_MAX]
    if target.mend is not None and rng.random() < 0.9:
        found = target.mend(found)
    return found


def _once(rng: random.Random, target: Target, data: bytes, pool: Sequence[bytes]) -> bytes:
    if target.words and rng.random() < 0.2:
        return _insert_or_replace(rng, data, rng.choice(target.words))
    if (target.form is Form.JSON or data[:1] == b"{") and rng.random() < 0.7:
        with contextlib.suppress(RecursionError):  # it is as deep as that already
            return _json_changed(rng, data)
    if target.form is not Form.BINARY and rng.random() < 0.4:
        return _insert_or_replace(rng, data, rng.choice(_TEXT_WORDS))
    return rng.choice(_MUTATIONS)(rng, data, pool)


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + 1 + int(rng.expovariate(1 / 12)))


def _insert_or_replace(rng: random.Random, data: bytes, word: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + word + data[start if rng.random() < 0.5 else end :]


def _flip(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * (end - start) + data[end:]


def _cut(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _insert(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 1, 2, 4, 8, 40))) + data[start:]


def _repeat(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 16, 1000)) + data[end:]


def _move(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    rest = data[:start] + data[end:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + data[start:end] + rest[to:]


def _splice(rng: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """The beginning of one and the end of another."""
    other = rng.choice(pool)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _graft(rng: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """A run of another in the midst of one."""
    other = rng.choice(pool)
    start, end = _span(rng, other)
    return _insert_or_replace(rng, data, other[start:end])


def _edge(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    """A number at the edge of some width, in the place of a field of that width."""
    form = rng.choice(_FORMS)
    size = struct.calcsize(form)
    value = rng.choice([each for each in _EDGES if each < 1 << 8 * size])
    start = rng.randrange(max(1, len(data) - size + 1))
    return data[:start] + struct.pack(form, value) + data[start + size :]


def _varint(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    value, word = rng.choice(_EDGES), bytearray()
    while value > 0x7F:
        word.append(value & 0x7F | 0x80)
        value >>= 7
    word.append(value)
    if rng.random() < 0.1:  # the same number, longer than it need be
        word[-1] |= 0x80
        word.append(0)
    return _insert_or_replace(rng, data, bytes(word))


_MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip, _set, _cut, _drop, _insert, _repeat, _move, _splice, _graft, _edge, _edge, _varint,
)  # fmt: skip


# --- JSON ----------------------------------------------------------------------------------------------


def _json_changed(rng: random.Random, data: bytes) -> bytes:
    """One place of the tree replaced, left out, given twice or nested; of what is no JSON, the text."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return _insert_or_replace(
            rng, data, rng.choice((b"[", b"]", b"{", b"}", b",", b'"', b":", b"0", b"null"))
        )
    places = list(itertools.islice(_places(tree), 5000))
    if not places:
        return json.dumps(rng.choice(_ODD_VALUES)).encode()
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0 | 1 | 2:
            holder[key] = copy.deepcopy(rng.choice(_ODD_VALUES))
        case 3:
            del holder[key]
        case 4:
            other, its_key = rng.choice(places)
            holder[key] = copy.deepcopy(other[its_key])
        case _:
            holder[key] = "\0here\0"
            deep = rng.choice(
                (b"[" * 100_000, b"[" * 900 + b"]" * 900, b'{"a":' * 5000, b"9" * 6000, b"1e9999")
            )
            return json.dumps(tree).encode().replace(b'"\\u0000here\\u0000"', deep)
    return json.dumps(tree, indent=rng.choice((None, 1, 2))).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key, from the root on."""
    keys: Any = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
