"""The unit's bytes: everything reads back, and whatever was changed in them is noticed."""

import hashlib
import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.codec import CODECS
from replicator.core.cursor import WalCursor
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.page_delta import Block
from replicator.core.position import TXID_MAX, GenerationId, Position
from replicator.core.times import MICROS_MAX, MICROS_MIN
from replicator.core.unit import (
    CHAIN_SIZE,
    ENTRIES_BYTES_MAX,
    HEADER_SIZE,
    PAYLOAD_BYTES_MAX,
    TRAILER_SIZE,
    Entry,
    UnitHeader,
    decode_unit,
    encode_body,
    encode_unit,
    first_chain,
    follows,
    parse_unit_header,
    split_units,
)
from replicator.core.wal import Salt, WalChecksum
from tests.core.histories import GENERATION, REPOSITORY, START, commits_of, database_of
from tests.core.unit_writer import writer_on

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
MICROS = st.integers(0, 1 << 52)
LATER = st.integers(0, 2**32 // 4 - 1)  # four entries of a unit lie within 32 bits of microseconds


@st.composite
def headers(draw: st.DrawFn) -> UnitHeader:
    part = draw(st.one_of(st.just(0), st.integers(1, 2**32 - 1)))
    return UnitHeader(
        generation=GenerationId(draw(st.binary(min_size=8, max_size=8)).hex()),
        epoch=draw(U32),
        page_size=draw(st.sampled_from([512 << n for n in range(8)])),
        codec=draw(st.sampled_from(CODECS)),
        txid_first=1,
        txid_last=1,
        part=part,
        last_part=bool(part) and draw(st.booleans()),
        rolling_known=draw(st.booleans()),
        clock_stepped=draw(st.booleans()),
        cursor=WalCursor(Salt(draw(U32), draw(U32)), draw(U32), WalChecksum(draw(U32), draw(U32))),
        observed_first=0,
        observed_last=0,
        chain_before=draw(st.binary(min_size=CHAIN_SIZE, max_size=CHAIN_SIZE)),
        entries_bytes=0,
        payload_bytes=0,
    )


@st.composite
def entries(draw: st.DrawFn, txid_first: int, observed: int) -> list[Entry]:
    found: list[Entry] = []
    txid = txid_first - 1
    for _ in range(draw(st.integers(1, 4))):
        span = draw(st.integers(1, 1000))
        txid += span
        observed += draw(LATER)
        pgnos = sorted(draw(st.sets(st.integers(1, 2**32 - 1), max_size=6)))
        found.append(
            Entry(
                txid,
                span,
                observed,
                max(0, observed - draw(MICROS)),
                draw(st.integers(1, 2**32 - 1)),
                tuple(pgnos),
                tuple(draw(U32) for _ in pgnos),
                draw(U64),
            )
        )
    return found


@st.composite
def blocks(draw: st.DrawFn, pages: int) -> list[Block]:
    found: list[Block] = []
    while pages:
        count = draw(st.integers(1, pages))
        pages -= count
        fresh = draw(st.sets(st.integers(1, 2**32 - 1), max_size=min(count, 3)))
        found.append(Block(count, frozenset(fresh), draw(U32), draw(st.binary(max_size=40))))
    return found


@given(header=headers(), txid_first=st.integers(1, 2**63), observed=MICROS, data=st.data())
def test_a_unit_reads_back(header: UnitHeader, txid_first: int, observed: int, data: st.DataObject) -> None:
    """Header, entries and blocks come out as they went in, and the digest is known."""
    held = data.draw(entries(txid_first, observed))
    stored = data.draw(blocks(sum(len(entry.pgnos) for entry in held)))
    body = encode_body(held, stored)
    wanted = replace(
        header,
        txid_first=txid_first,
        txid_last=held[-1].txid,
        observed_first=held[0].observed,
        observed_last=held[-1].observed,
        entries_bytes=body.entries_bytes,
        payload_bytes=body.payload_bytes,
    )
    written, digest = encode_unit(wanted, body)
    unit = decode_unit(written)

    assert wanted == unit.header == parse_unit_header(written)
    assert (tuple(held), tuple(stored)) == (unit.entries, unit.blocks)
    assert len(written) == unit.header.size
    assert sealed(written[:-16]) == written
    assert written[-16:] == digest == unit.digest


def sealed(whole: bytes) -> bytes:
    """*whole* with the digest behind it that a unit has."""
    return whole + hashlib.sha256(whole).digest()[:16]


# --- bytes that are not what was written ---------------------------------------------------------------


def some_unit(seed: int = 1, page_size: int = 512, commits: int = 3) -> bytes:
    rng = random.Random(seed)
    base = database_of(rng, page_size, 6)
    writer = writer_on(base, rng)
    writer.whole([[each] for each in commits_of(rng, base, commits, pages_max=9)])
    return writer.units[0]


UNIT = some_unit()


def test_every_flipped_bit_is_noticed() -> None:
    """Each bit of a unit, inverted, makes it ObjectCorrupt, or FormatTooNew where it is one of the version."""
    too_new = []
    for offset in range(len(UNIT)):
        for bit in range(8):
            changed = UNIT[:offset] + bytes([UNIT[offset] ^ 1 << bit]) + UNIT[offset + 1 :]
            with pytest.raises((ObjectCorrupt, FormatTooNew)) as caught:
                decode_unit(changed)
            if caught.type is FormatTooNew:
                too_new.append(offset)

    assert {7, 8} == set(too_new)  # the version and the flags


def test_every_cut_is_noticed() -> None:
    """A unit cut off after any number of bytes is ObjectCorrupt."""
    for length in range(len(UNIT)):
        with pytest.raises(ObjectCorrupt):
            decode_unit(UNIT[:length])


def test_zeros_after_any_byte_are_noticed() -> None:
    """A disk that lost the end of a write leaves zeros: ObjectCorrupt, never a unit of a later format."""
    for length in range(len(UNIT.rstrip(b"\0"))):
        with pytest.raises(ObjectCorrupt):
            decode_unit(UNIT[:length] + bytes(len(UNIT) - length))


@given(st.binary(max_size=600))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Whatever is no unit is ObjectCorrupt."""
    with pytest.raises(ObjectCorrupt):
        decode_unit(data)


@given(offset=st.integers(0, len(UNIT) - TRAILER_SIZE - 1), junk=st.binary(min_size=1, max_size=12))
def test_a_forged_unit_is_read_or_refused(offset: int, junk: bytes) -> None:
    """Bytes changed under a digest that fits them give a unit within its bounds, or one of our two errors."""
    changed = UNIT[:offset] + junk + UNIT[offset + len(junk) :]
    try:
        unit = decode_unit(sealed(changed[: len(UNIT) - TRAILER_SIZE]))
    except (ObjectCorrupt, FormatTooNew):
        return

    listed = [entry.pgnos for entry in unit.entries]
    assert all(list(pgnos) == sorted(set(pgnos)) for pgnos in listed)
    assert sum(map(len, listed)) == sum(block.pages for block in unit.blocks)
    assert unit.header.txid_last - unit.header.txid_first + 1 == sum(entry.span for entry in unit.entries)


@given(head=st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE))
def test_any_header_is_bounded(head: bytes) -> None:
    """A header of random bytes behind the right magic is refused, or claims no more than its bounds."""
    head = b"RPLUNIT\x01\x00" + head[9:]
    try:
        header = parse_unit_header(head)
    except (ObjectCorrupt, FormatTooNew):
        return

    assert header.entries_bytes <= ENTRIES_BYTES_MAX
    assert header.payload_bytes <= PAYLOAD_BYTES_MAX
    assert header.page_size in [512 << n for n in range(8)]
    assert 1 <= header.txid_first <= header.txid_last <= TXID_MAX
    assert MICROS_MIN <= header.observed_first <= header.observed_last <= MICROS_MAX


@pytest.mark.parametrize(
    ("offset", "form", "value", "error"),
    [
        (7, "B", 2, FormatTooNew),
        (7, "B", 255, FormatTooNew),
        (7, "B", 0, ObjectCorrupt),
        (8, "B", 16, FormatTooNew),
        (8, "B", 1 << 7, FormatTooNew),
        (8, "B", 1, ObjectCorrupt),  # a part without a number
        (9, "B", 3, ObjectCorrupt),  # codec
        (10, "B", 8, ObjectCorrupt),  # pages of 256 bytes
        (10, "B", 17, ObjectCorrupt),
        (12, ">I", 1, ObjectCorrupt),  # a number without being a part
        (32, ">Q", 0, ObjectCorrupt),  # txid 0
        (32, ">Q", TXID_MAX - 1, ObjectCorrupt),  # the last, two further on, is none
        (60, ">q", 1 << 62, ObjectCorrupt),
        (60, ">q", -1, ObjectCorrupt),
        (60, ">q", MICROS_MAX, ObjectCorrupt),  # the last time lies behind it
        (80, ">I", ENTRIES_BYTES_MAX + 1, ObjectCorrupt),
        (84, ">I", PAYLOAD_BYTES_MAX + 1, ObjectCorrupt),
    ],
)
def test_values_that_are_never_written_are_refused(
    offset: int, form: str, value: int, error: type[Exception]
) -> None:
    """Each field of the header has its bounds, looked at before anything behind it is read."""
    changed = bytearray(UNIT[:HEADER_SIZE])
    struct.pack_into(form, changed, offset, value)

    with pytest.raises(error):
        parse_unit_header(bytes(changed))


def forge(body: bytes, *, payload: bytes = b"", txid_last: int = 1) -> bytes:
    """A unit with a proper header and digest around a body that encode_unit would not write."""
    head = bytearray(UNIT[:HEADER_SIZE])
    struct.pack_into(">QI", head, 32, 1, txid_last - 1)
    struct.pack_into(">qI", head, 60, START, 0)
    struct.pack_into(">II", head, 80, len(body), len(payload))
    return sealed(bytes(head) + body + payload)


HASH = bytes(4)
ENTRY = bytes([1, 0, 0, 5, 1, 3]) + HASH + bytes(8)  # span 1, times, 5 pages, one page: number 3
BLOCK = bytes([1, 0]) + HASH + bytes([2]) + b"xx"


@pytest.mark.parametrize(
    ("body", "payload", "txid_last", "fault"),
    [
        (ENTRY, BLOCK, 1, None),
        (b"", b"", 1, "ends at txid 0000000000000000"),
        (ENTRY, b"", 1, "lists 1 pages that no block holds"),
        (ENTRY, BLOCK + BLOCK, 1, "above its bound 0"),
        (ENTRY, BLOCK + b"\0", 1, "holds no page"),
        (ENTRY + ENTRY, BLOCK * 2, 1, "above its bound 0"),
        (ENTRY, BLOCK, 2, "ends at txid 0000000000000001"),
        (b"\0" + ENTRY[1:], BLOCK, 1, "empty entry"),
        (ENTRY[:3] + b"\0" + ENTRY[4:], BLOCK, 1, "empty entry"),
        (ENTRY[:5] + b"\0" + ENTRY[6:], BLOCK, 1, "out of order"),
        (ENTRY[:4] + bytes([2, 3, 0]) + HASH * 2 + bytes(8), BLOCK * 2, 1, "out of order"),
        (ENTRY[:4] + bytes([200, 1]) + ENTRY[5:], BLOCK, 1, "above its bound"),
        (ENTRY[:4] + b"\x02\xff\xff\xff\xff\x0f\x01" + HASH * 2 + bytes(8), BLOCK * 2, 1, "out of order"),
        (ENTRY[:-1], BLOCK, 1, "bytes wanted"),
        (ENTRY, BLOCK[:-1], 1, "bytes wanted"),
        (ENTRY, b"\1\2" + BLOCK[2:], 1, "above its bound 1"),
    ],
)
def test_a_body_that_is_never_written_is_refused(
    body: bytes, payload: bytes, txid_last: int, fault: str | None
) -> None:
    """Counts, order and lengths inside a unit are held to each other, though its digest is right."""
    unit = forge(body, payload=payload, txid_last=txid_last)
    if fault is None:
        assert (3,) == decode_unit(unit).entries[0].pgnos
    else:
        with pytest.raises(ObjectCorrupt, match=fault):
            decode_unit(unit)


# --- several units in one object -----------------------------------------------------------------------


def test_a_segment_is_units_one_behind_the_other() -> None:
    """The units of a segment come out one by one, verbatim."""
    units = [some_unit(seed) for seed in (1, 2, 3)]

    assert units == [bytes(view) for view in split_units(b"".join(units))]
    assert [] == list(split_units(b""))


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 200, HEADER_SIZE])
def test_a_segment_that_is_cut_off_is_noticed(cut: int) -> None:
    """Units before the cut come out; then it is ObjectCorrupt."""
    whole = UNIT + some_unit(2)
    found = []
    with pytest.raises(ObjectCorrupt, match="cut off"):
        found.extend(split_units(whole[:-cut]))

    assert len(found) <= 1


def test_the_first_chain_is_of_its_repository_and_generation() -> None:
    """The first unit chains to who it belongs to: SHA-256 of a tag, the repository and the generation."""
    generation = GenerationId(GENERATION)
    expected = hashlib.sha256(b"RPLCHAIN" + REPOSITORY + bytes.fromhex(GENERATION)).digest()[:16]

    assert expected == first_chain(REPOSITORY, generation)
    assert expected != first_chain(REPOSITORY[::-1], generation)
    assert follows(parse_unit_header(UNIT), expected)


@pytest.mark.parametrize("bit", range(8 * TRAILER_SIZE))
def test_a_unit_follows_the_digest_whose_beginning_it_repeats(bit: int) -> None:
    """The first 8 bytes of the digest before it are in its header; no other unit follows that one."""
    digest = bytes(range(100, 100 + TRAILER_SIZE))
    other = (int.from_bytes(digest, "big") ^ 1 << (8 * TRAILER_SIZE - 1 - bit)).to_bytes(TRAILER_SIZE, "big")
    header = replace(parse_unit_header(UNIT), chain_before=digest[:8])

    assert follows(header, digest)
    assert (bit >= 64) == follows(header, other)


@pytest.mark.parametrize(
    ("part", "last_part", "commits"), [(0, False, True), (1, False, False), (1, True, True), (7, True, True)]
)
def test_a_unit_commits_unless_parts_follow(part: int, last_part: bool, commits: bool) -> None:
    """After a unit the database stands at a commit, but for a part that is not the last."""
    header = replace(parse_unit_header(UNIT), part=part, last_part=last_part)

    assert commits == header.commits
    assert Position(GenerationId(GENERATION), 3) == header.position
