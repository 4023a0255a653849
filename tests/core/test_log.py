"""Logs as bytes: what is put is what comes back, the index tells the truth, and what nobody wrote is refused."""

from __future__ import annotations

import hashlib
import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import log as log_module
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.log import BEGINNING_BYTES, HEAD_SIZE, decode_log, encode_log, observed_first
from replicator.core.names import LogName, parse_name
from replicator.core.position import GenerationId
from replicator.core.unit import UnitHeader, parse_unit_header
from tests.core.histories import GENERATION, START, commits_of, database_of
from tests.core.unit_writer import write_history, writer_on

G = GenerationId(GENERATION)
Units = list[tuple[UnitHeader, bytes]]


def units_of(seed: int, commits: int) -> Units:
    """A history cut at random: several transactions a unit, merged ones, ones in parts."""
    rng = random.Random(seed)
    base = database_of(rng, 512, 8)
    writer = writer_on(base, rng)
    write_history(writer, commits_of(rng, base, commits))
    return [(parse_unit_header(unit), unit) for unit in writer.units]


def name_of(units: Units) -> LogName:
    last = units[-1][0]
    return LogName(last.observed_last // 1_000_000 * 1_000_000, G, units[0][0].txid_first, last.txid_last)


UNITS = units_of(7, 12)
NAME = name_of(UNITS)
BYTES = encode_log(NAME, UNITS)
(INDEX_BYTES,) = struct.unpack_from(">I", BYTES, 8)


def digested(body: bytes, name: LogName = NAME) -> bytes:
    """*body* as whoever knows the format could put it: with the digest that belongs to it."""
    return body + hashlib.sha256(str(name).encode() + b"\0" + body).digest()


def with_index(index: bytes, units: bytes | None = None, name: LogName = NAME) -> bytes:
    units = b"".join(unit for _, unit in UNITS) if units is None else units
    return digested(struct.pack(">7sBI", b"RPLLOGS", 1, len(index)) + index + units, name)


def varints(*numbers: int) -> bytes:
    out = bytearray()
    for number in numbers:
        rest = number
        while rest > 127:
            out.append(rest % 128 + 128)
            rest //= 128
        out.append(rest)
    return bytes(out)


def index_of(units: Units, **wrong: int) -> bytes:
    """The index by its definition, with some value of the second unit that is *wrong* by so much."""
    txid, time = units[0][0].txid_first, units[0][0].observed_first
    found = varints(len(units) + wrong.get("count", 0), time)
    for number, (header, unit) in enumerate(units):
        off = wrong if number == 1 else {}
        found += varints(
            len(unit) + off.get("size", 0),
            header.txid_last - txid + off.get("txid", 0),
            header.observed_last - time + off.get("time", 0),
        )
        txid, time = header.txid_last, header.observed_last
    return found


# --- what is written -----------------------------------------------------------------------------------


@given(st.integers(0, 1 << 32), st.integers(1, 30))
def test_a_log_reads_back(seed: int, commits: int) -> None:
    """The units lie there verbatim, and the index says of each where it lies and when it ends."""
    units = units_of(seed, commits)
    name = name_of(units)
    log = decode_log(encode_log(name, units), name)
    begin = log.index[0].offset

    assert b"".join(unit for _, unit in units) == log.units
    assert [(unit, header.txid_last, header.observed_last) for header, unit in units] == [
        (
            log.units[each.offset - begin :][: each.size_bytes],
            each.txid_last,
            each.observed_last,
        )
        for each in log.index
    ]


def test_a_log_is_laid_out_as_the_format_says() -> None:
    """Magic, version, length of the index, index, units, and the SHA-256 of its name, a zero byte and all before it."""
    assert with_index(index_of(UNITS)) == BYTES
    assert len(index_of(UNITS)) == INDEX_BYTES
    assert NAME == parse_name(str(NAME))


def test_the_beginning_tells_when_the_first_commit_was_observed() -> None:
    """From the first bytes alone, as many as are fetched for it; also of the longest numbers."""
    units = [(replace(UNITS[0][0], observed_first=(1 << 62) - 1, observed_last=(1 << 62) - 1), UNITS[0][1])]

    assert UNITS[0][0].observed_first == observed_first(BYTES[:BEGINNING_BYTES], NAME)
    assert (1 << 62) - 1 == observed_first(encode_log(NAME, units)[:BEGINNING_BYTES], NAME)
    with pytest.raises(ObjectCorrupt, match="not a log"):
        observed_first(b"RPLFULL" + BYTES[7:BEGINNING_BYTES], NAME)
    for short in range(HEAD_SIZE + 2):
        with pytest.raises(ObjectCorrupt):
            observed_first(BYTES[:short], NAME)


# --- what is refused -----------------------------------------------------------------------------------


def test_every_byte_counts() -> None:
    """One bit flipped anywhere is found, and so is every length but the right one."""
    rng = random.Random(3)
    places = {*range(HEAD_SIZE + INDEX_BYTES), *rng.sample(range(len(BYTES)), 200), len(BYTES) - 1}
    for place in places:
        damaged = bytearray(BYTES)
        damaged[place] ^= 1 << rng.randrange(8)
        with pytest.raises(ObjectCorrupt):
            decode_log(bytes(damaged), NAME)
    for cut in (*range(0, len(BYTES), 97), len(BYTES) - 1):
        with pytest.raises(ObjectCorrupt):
            decode_log(BYTES[:cut], NAME)
    with pytest.raises(ObjectCorrupt):
        decode_log(BYTES + b"\0", NAME)


def test_a_log_of_another_name_is_refused() -> None:
    """The digest binds it to the name it was put under, so that two that were swapped are found."""
    with pytest.raises(ObjectCorrupt, match="digest"):
        decode_log(BYTES, replace(NAME, time=NAME.time + 1_000_000))


def test_a_later_format_is_refused_by_name() -> None:
    """Never guessed at."""
    later = digested(BYTES[:7] + b"\2" + BYTES[8:-32])
    with pytest.raises(FormatTooNew, match=r"\.log is of format 2"):
        decode_log(later, NAME)


@pytest.mark.parametrize(
    "data",
    [
        with_index(index_of(UNITS, count=1)),
        with_index(index_of(UNITS, count=-1)),
        with_index(index_of(UNITS, size=1)),
        with_index(index_of(UNITS, txid=1)),
        with_index(index_of(UNITS) + b"\0"),
        with_index(index_of(UNITS)[:-1]),
        with_index(index_of(UNITS), b"".join(unit for _, unit in UNITS[:-1])),
        with_index(index_of(UNITS), b"".join(unit for _, unit in UNITS) + b"\0"),
        with_index(varints(0, START), b""),
        with_index(varints(1 << 40, START)),
        with_index(b"\xff" * 11),
        with_index(b""),
        digested(struct.pack(">7sBI", b"RPLLOGS", 1, len(BYTES))),
        digested(struct.pack(">7sBI", b"RPLLOGS", 1, 0xFFFFFFFF) + BYTES[12:-32]),
        digested(b"RPLFULL" + BYTES[7:-32]),
    ],
)
def test_an_index_that_lies_is_refused(data: bytes) -> None:
    """Whoever wrote it knew the digest: more or less units, other lengths, another end, a length beyond its own."""
    with pytest.raises(ObjectCorrupt):
        decode_log(data, NAME)


def test_a_name_that_says_more_than_the_log_holds_is_refused() -> None:
    """The last transaction of the index is that of the name."""
    longer = replace(NAME, txid_last=NAME.txid_last + 1)
    with pytest.raises(ObjectCorrupt, match="does not fit"):
        decode_log(with_index(index_of(UNITS), name=longer), longer)


def test_what_no_log_has_is_refused_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object larger than any that is written is not hashed, and an index larger than any is not read."""
    monkeypatch.setattr(log_module, "READ_BYTES_MAX", len(BYTES) - 1)
    with pytest.raises(ObjectCorrupt, match="which no log has"):
        decode_log(BYTES, NAME)
    monkeypatch.setattr(log_module, "READ_BYTES_MAX", len(BYTES))
    monkeypatch.setattr(log_module, "_INDEX_BYTES_MAX", INDEX_BYTES - 1)
    with pytest.raises(ObjectCorrupt, match="claims an index"):
        decode_log(BYTES, NAME)
