"""Durations and sizes as an operator writes them: ``15m``, ``250ms``, ``4MiB``, ``100GB``.

Pure. What a ``format_`` function writes, its ``parse_`` function reads back as the same value. A unit is
never guessed: only zero seconds and plain bytes may stand without one.
"""

import re
from fractions import Fraction

from replicator.core.errors import UsageError

# A century. Waiting on a lock overflows at 292 years, long after the configuration was accepted.
DURATION_SECONDS_MAX = 36_500 * 86_400

SIZE_BYTES_MAX = 2**63 - 1  # a file offset is signed and has 64 bits

# From small to large; ``format_duration`` relies on it.
_MICROS_OF_UNIT = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}

# The units to write; binary ones first, so that they win where a decimal one would do as well.
_BYTES_OF_UNIT = {
    **{"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
    **{"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
}
# The units to read: also a bare number, and the capital K that many people write.
_BYTES_OF_UNIT_READ = _BYTES_OF_UNIT | {"": 1, "KB": 10**3}

# The bound on the digits keeps a hostile text from becoming a hostile number.
_QUANTITY = re.compile(r"(?P<count>[0-9]{1,19}(?:\.[0-9]{1,19})?) *(?P<unit>[A-Za-z]*)")

_DURATION_HINT = "write a number and a unit, such as 250ms, 1.5s, 15m, 48h or 7d; or 0"
_SIZE_HINT = "write bytes, or a number and a unit, such as 512, 10 KiB, 4MiB or 100GB"


def parse_duration(text: str) -> float:
    """Return the seconds that *text* names; its unit is ``ms``, ``s``, ``m``, ``h`` or ``d``.

    Zero needs no unit. Every duration is a whole number of microseconds, so that a tiny one cannot turn
    into zero, which often means *never* or *at once*.

    Raises ``UsageError`` for any other text and above ``DURATION_SECONDS_MAX``.
    """
    count, unit = _count_and_unit(text, "duration", _DURATION_HINT)
    if count == 0 and unit == "":
        return 0.0
    if unit not in _MICROS_OF_UNIT:
        fault = f"{unit!r} is no unit of it" if unit else "its unit is missing"
        raise UsageError(f"{text!r} is not a duration: {fault}", hint=_DURATION_HINT)
    micros = count * _MICROS_OF_UNIT[unit]
    if micros.denominator != 1:
        raise UsageError(f"{text!r} is finer than a microsecond", hint=_DURATION_HINT)
    if micros > DURATION_SECONDS_MAX * 1_000_000:
        raise UsageError(f"{text!r} is more than a hundred years", hint=_DURATION_HINT)
    return int(micros) / 1_000_000


def format_duration(seconds: float) -> str:
    """Write *seconds*, to the microsecond, in the largest unit that needs no fraction: ``15m``, ``90s``.

    A time under a second that is no whole number of milliseconds is written with a fraction of them, a
    longer one with a fraction of seconds. Raises ``ValueError`` outside 0 to ``DURATION_SECONDS_MAX``.
    """
    if not 0 <= seconds <= DURATION_SECONDS_MAX:
        raise ValueError(f"{seconds} s is no duration")
    micros = round(seconds * 1_000_000)
    if micros == 0:
        return "0"
    for unit, size in reversed(_MICROS_OF_UNIT.items()):
        if micros % size == 0 and not (unit == "ms" and micros > 1_000_000):
            return f"{micros // size}{unit}"
    unit = "ms" if micros < 1_000_000 else "s"
    whole, rest = divmod(micros, _MICROS_OF_UNIT[unit])
    digits = len(str(_MICROS_OF_UNIT[unit])) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0") + unit


def parse_size(text: str) -> int:
    """Return the bytes that *text* names: ``KiB``, ``MiB`` … count in 1024, ``kB``, ``MB`` … in 1000.

    A bare number is bytes. The case of a unit is kept to, since ``Mb`` would be bits.

    Raises ``UsageError`` for any other text, for a part of a byte and above ``SIZE_BYTES_MAX``.
    """
    count, unit = _count_and_unit(text, "size", _SIZE_HINT)
    if unit not in _BYTES_OF_UNIT_READ:
        raise UsageError(f"{text!r} is not a size: {unit!r} is no unit of it", hint=_SIZE_HINT)
    size_bytes = count * _BYTES_OF_UNIT_READ[unit]
    if size_bytes.denominator != 1:
        raise UsageError(f"{text!r} is not a whole number of bytes", hint=_SIZE_HINT)
    if size_bytes > SIZE_BYTES_MAX:
        raise UsageError(f"{text!r} is more than any file can hold", hint=_SIZE_HINT)
    return int(size_bytes)


def format_size(size_bytes: int) -> str:
    """Write *size_bytes* in the unit that gives the smallest whole number: ``4MiB``, ``100GB``, ``1023B``.

    Exact, for configuration and for messages about a limit. Raises ``ValueError`` outside 0 to
    ``SIZE_BYTES_MAX``.
    """
    if not 0 <= size_bytes <= SIZE_BYTES_MAX:
        raise ValueError(f"{size_bytes} bytes is no size")
    if size_bytes == 0:
        return "0B"
    fitting = [(size_bytes // size, unit) for unit, size in _BYTES_OF_UNIT.items() if size_bytes % size == 0]
    count, unit = min(fitting, key=lambda pair: pair[0])
    return f"{count}{unit}"


def _count_and_unit(text: str, noun: str, hint: str) -> tuple[Fraction, str]:
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a {noun}", hint=hint)
    # Fraction, since 0.1 has no float and a limit has to be what was written.
    return Fraction(found["count"]), found["unit"]


def parse_share(text: str) -> float:
    """``5%``, or ``0.05``: a share above 0 and up to 1."""
    stripped = text.strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", stripped)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share <= 1:
        raise UsageError(f"not a share: {text!r}", hint="give 5%, or 0.05")
    return share
