"""Incremental backups as bytes: manifests and tables that read back, and what is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import incremental as incremental_module
from replicator.core.checksum import page_hash, short_hash
from replicator.core.codec import Compression
from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.incremental import (
    Incremental,
    PageFrame,
    decode_incremental,
    encode_incremental,
    page_tables,
    pages_in,
    parent_of,
    read_page_frames,
)
from replicator.core.manifest import TableUse, table_digest
from replicator.core.names import INCREMENTAL, FullName, PackName
from replicator.core.pack import Frame, PackUse, encode_frame
from replicator.core.position import GenerationId, Position
from tests.core.histories import GENERATION, REPOSITORY, START

G = GenerationId(GENERATION)
PARENT = FullName(START - 5_000_000, G, 3)


def manifest_of(**fields: Any) -> Incremental:
    names = [str(PackName(START, G, 9, f"{number:016x}", INCREMENTAL)) for number in range(2)]
    manifest = Incremental(
        repository=REPOSITORY.hex(), generation=G, txid=9, epoch=3, page_size=512, pages=400,
        observed=START + 123_456, created=START + 2_000_000, chain="ab" * 16, checksum="0123456789abcdef",
        rolling="fedcba9876543210", parent=PARENT.backup_id, parent_txid=3, parent_chain="cd" * 16,
        pages_stored=7, plain_bytes=7 * 512, stored_bytes=99,
        packs=tuple(PackUse(name, 9_000 + number) for number, name in enumerate(names)),
        tables=(TableUse(Frame(0, 8, 200, 60), "ef" * 32), TableUse(Frame(1, 8, 300, 90), "ef" * 32)),
    )  # fmt: skip
    return replace(manifest, **fields)


MANIFEST = manifest_of()
NAME = str(MANIFEST.name)
BYTES = encode_incremental(MANIFEST)


# --- the manifest --------------------------------------------------------------------------------------


def test_a_manifest_is_laid_out_as_the_format_says() -> None:
    """Magic, version, length, JSON, and the SHA-256 of its name, a zero byte and all before it."""
    magic, version, length = struct.unpack_from(">7sBI", BYTES)
    text = json.loads(BYTES[12:-32])

    assert (b"RPLINCR", 1, len(BYTES) - 12 - 32) == (magic, version, length)
    assert hashlib.sha256(NAME.encode() + b"\0" + BYTES[:-32]).digest() == BYTES[-32:]
    assert {
        "repository": REPOSITORY.hex(), "generation": GENERATION, "txid": 9, "epoch": 3, "page_size": 512,
        "pages": 400, "observed": START + 123_456, "created": START + 2_000_000, "chain": "ab" * 16,
        "checksum": "0123456789abcdef", "rolling": "fedcba9876543210", "parent": PARENT.backup_id,
        "parent_txid": 3, "parent_chain": "cd" * 16, "pages_stored": 7, "plain_bytes": 3584, "stored_bytes": 99,
        "packs": [[pack.name, pack.size_bytes] for pack in MANIFEST.packs],
        "tables": [[0, 8, 200, 60, "ef" * 32], [1, 8, 300, 90, "ef" * 32]], "kind": "replicator-incremental",
    } == text  # fmt: skip


def test_a_manifest_reads_back() -> None:
    """Every value comes out as it went in; position, size and name follow from them."""
    assert MANIFEST == decode_incremental(BYTES, NAME)
    assert Position(G, 9) == MANIFEST.position
    assert 400 * 512 == MANIFEST.database_bytes
    assert f"incremental/2025/01/28/20250128T060000Z-{G}-{3:016x}-{9:016x}.incremental" == NAME
    assert 3 == parent_of(MANIFEST.name)
    assert parent_of(PARENT) is None


def test_every_flipped_bit_of_a_manifest_is_noticed() -> None:
    """Also one of the version: a later format has a digest, too."""
    for offset, bit in ((offset, bit) for offset in range(0, len(BYTES)) for bit in (0, 6)):
        changed = BYTES[:offset] + bytes([BYTES[offset] ^ 1 << bit]) + BYTES[offset + 1 :]
        with pytest.raises(ObjectCorrupt):
            decode_incremental(changed, NAME)
    for length in range(len(BYTES)):
        with pytest.raises(ObjectCorrupt):
            decode_incremental(BYTES[:length], NAME)


def saying(**changes: Any) -> bytes:
    """A manifest of whoever knows the format: its digest fits."""
    said = {**json.loads(BYTES[12:-32]), **changes}
    text = json.dumps({key: value for key, value in said.items() if value is not ...}, indent=1).encode()
    body = struct.pack(">7sBI", b"RPLINCR", 1, len(text)) + text
    return body + hashlib.sha256(NAME.encode() + b"\0" + body).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "replicator-full"},
        {"pages_stored": -1},
        {"pages_stored": "7"},
        {"pages_stored": True},
        {"parent_txid": 9},
        {"parent_txid": -1},
        {"parent_txid": 4},
        {"parent": 5},
        {"parent_chain": "cd" * 15},
        {"parent_chain": None},
        {"txid": 8},
        {"pages": 0},
        {"page_size": 1000},
        {"tables": [[0, 8, 200, incremental_module._TABLE_BYTES_MAX + 1, "ef" * 32]]},
        {"tables": [[2, 8, 200, 60, "ef" * 32]]},
        {"tables": [[0, 8, 200, 60, "ef" * 31]]},
        {"packs": [["full/nothing", 7]]},
        {"parent": ...},
        {"more": 1},
    ],
)
def test_a_manifest_that_is_never_written_is_refused(changes: dict[str, Any]) -> None:
    """Whatever its digest says: another kind, values that do not fit each other or their name, keys too many or few."""
    assert MANIFEST == decode_incremental(saying(), NAME)
    with pytest.raises(ObjectCorrupt, match="never written"):
        decode_incremental(saying(**changes), NAME)


def test_a_manifest_of_a_later_format_is_refused_by_name() -> None:
    """Never guessed at."""
    body = BYTES[:7] + b"\2" + BYTES[8:-32]
    with pytest.raises(FormatTooNew, match=r"\.incremental is of format 2"):
        decode_incremental(body + hashlib.sha256(NAME.encode() + b"\0" + body).digest(), NAME)


# --- tables --------------------------------------------------------------------------------------------


def frames_of(groups: Sequence[Sequence[int]], page_size: int = 512) -> list[PageFrame]:
    return [
        PageFrame(
            Frame(number % 2, 8 + 1_000 * number, 300 + number, page_size * len(pgnos)),
            tuple(pgnos),
            tuple(pgno * 2_654_435_761 & 0xFFFFFFFF for pgno in pgnos),
        )
        for number, pgnos in enumerate(groups)
    ]


class Packs:
    """Two packs as far as tables lie in them; ``manifest`` names these."""

    def __init__(self, tables: Sequence[bytes], **fields: Any) -> None:
        self._content = bytearray(8)
        self._tables = tables
        places = []
        for table in tables:
            stored = encode_frame(table, Compression(0, 0))
            places.append(
                TableUse(Frame(1, len(self._content), len(stored), len(table)), table_digest(table))
            )
            self._content += stored
        self.manifest = manifest_of(tables=tuple(places), **fields)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        assert name == self.manifest.packs[1].name
        return bytes(self._content[offset : offset + length])

    def frames_unchecked(self) -> list[PageFrame]:
        """Whatever the manifest says of how many pages there are."""
        return [
            each for table in self._tables for each in incremental_module._decode_table(table, self.manifest)
        ]

    def frames(self) -> list[PageFrame]:
        return list(read_page_frames(self.manifest, self.get_range))


groups = st.lists(st.sets(st.integers(1, 0xFFFFFFFE), min_size=1, max_size=9).map(sorted), max_size=20)


@given(groups, st.integers(1, 30))
def test_tables_read_back(given_groups: list[list[int]], table_pages: int) -> None:
    """However many it takes: frame by frame what was written, in the order that says what is newer."""
    frames = frames_of(given_groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental_module, "TABLE_PAGES", table_pages)
        tables = list(page_tables(frames))
    packs = Packs(tables, pages_stored=sum(map(len, given_groups)))

    assert frames == packs.frames()
    assert all(tables)
    longest = max(map(len, given_groups), default=0)
    assert all(
        sum(len(each.pgnos) for each in Packs([table], pages_stored=0).frames_unchecked())
        <= max(table_pages, longest)
        for table in tables
    )


def test_a_table_is_laid_out_as_the_format_says() -> None:
    """Five numbers, the pages as differences, four bytes of each hash."""
    frame = PageFrame(Frame(1, 300, 200, 3 * 512), (5, 6, 1000), (1, 2, 0xFFFFFFFF))
    (table,) = page_tables([frame])

    assert bytes.fromhex("01 ac02 c801 800c 03  05 01 e207  00000001 00000002 ffffffff") == table


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("02 ac02 c801 8004 01  05  00000001", "above its bound"),  # no such pack
        ("01 ac02 c801 8004 02  05 00  00000001 00000002", "above its bound"),  # more pages than bytes
        ("01 ac02 c801 8008 02  05 00  00000001 00000002", "out of order"),
        ("01 ac02 c801 8008 01  05  00000001", "never written"),
        ("01 ac02 c801 00 00", "never written"),
        ("01 ac02 c801 8004 01  00  00000001", "out of order"),
        ("01 ac02 c801 8004 01  ffffffff0f  00000001", "above its bound"),  # beyond the last page there is
        ("01 ac02 ffffffff0f 8004 01  05  00000001", "above its bound"),
        ("01 ac02 c801 ffffffff0f 01  05  00000001", "above its bound"),
        ("01 ffffffffffffff7f c801 8004 01  05  00000001", "above its bound"),
        ("01 ac02 c801 8004 01  05  000000", "wanted"),
        ("01 ac02 c801 8004 01", "runs past"),
        ("01", "runs past"),
    ],
)
def test_a_table_that_is_never_written_is_refused(table: str, fault: str) -> None:
    """Whoever wrote it knew its hash; what it claims is bounded before anything is made of it."""
    with pytest.raises(ObjectCorrupt, match=fault):
        Packs([bytes.fromhex(table)], pages_stored=1).frames()


def test_pages_that_are_missing_are_noticed() -> None:
    """The manifest says how many there are: more or fewer than its tables list are damage."""
    for stored in (2, 4):
        packs = Packs(list(page_tables(frames_of([[1, 2], [3]]))), pages_stored=stored)
        with pytest.raises(ObjectCorrupt, match=f"lists 3 pages instead of {stored}"):
            packs.frames()


def test_a_table_that_was_changed_is_noticed() -> None:
    """By its hash in the manifest, whatever else fits."""
    packs = Packs(list(page_tables(frames_of([[1, 2]]))), pages_stored=2)
    packs._content[-1] ^= 1
    with pytest.raises(ObjectCorrupt, match="has another hash") as caught:
        packs.frames()

    assert packs.manifest.packs[1].name == caught.value.name


def test_each_page_is_proved() -> None:
    """By its hash, which its number seeds: a page in the place of another is damage as well."""
    pages = {3: b"a" * 512, 7: b"b" * 512}
    hashes = tuple(short_hash(page_hash(pgno, content)) for pgno, content in pages.items())
    frame = PageFrame(Frame(0, 8, 99, 1024), (3, 7), hashes)
    plain = b"".join(pages.values())

    assert pages == dict(pages_in(plain, frame, 512, "pack"))
    for wrong in (plain[512:] + plain[:512], plain[:-1] + b"c", plain[:1000]):
        with pytest.raises(ObjectCorrupt, match=r"pack is damaged: page [37] has another hash"):
            dict(pages_in(wrong, frame, 512, "pack"))
