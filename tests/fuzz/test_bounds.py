"""What hostile inputs may cost: a little memory and a little time, whatever they claim to be.

Memory is what Python allocates (tracemalloc), and where libraries allocate for themselves, the address space of a
process of its own.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from replicator.config import load_config
from replicator.core import key_ring, zstd
from replicator.core.checksum import short_hash
from replicator.core.codec import CODEC_DEFLATE, CODEC_ZSTD, expand
from replicator.core.errors import ConfigError, KeyRefused, ObjectCorrupt, ReplicatorError
from replicator.core.full import decode_manifest, decode_table
from replicator.core.incremental import decode_incremental, read_page_frames
from replicator.core.log import decode_log
from replicator.core.names import LogName, parse_name
from replicator.core.operator_key import OperatorKey
from replicator.core.pack import Frame, decode_frame
from replicator.core.records import decode_event, decode_generation, decode_lease, decode_repository
from replicator.core.unit import decode_unit
from replicator.core.unit_apply import expand_unit
from replicator.core.varint import put
from tests.fuzz.objects import (
    full_manifest,
    incremental_manifest,
    mend_named,
    mend_units,
    named,
    of_table,
    operator_key,
    saying,
    split,
)

ROOT = Path(__file__).resolve().parents[2]
BOMB_BYTES = 64 << 20
CLAIMED_BYTES = 4 << 10


def cost_of(call: Callable[[], object]) -> int:
    """Bytes that were allocated at most while *call* refused what it was given, in an error of ours."""
    tracemalloc.start()
    try:
        with pytest.raises(ReplicatorError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- bombs ---------------------------------------------------------------------------------------------


def zstd_bomb(*, declared: bool, window_log: int = 0, checksum: bool = False) -> bytes:
    parameter = zstd.zstd.CompressionParameter
    options = {parameter.content_size_flag: int(declared), parameter.checksum_flag: int(checksum)}
    if window_log:
        options[parameter.window_log] = window_log
    packer = zstd.zstd.ZstdCompressor(options=options)
    if declared:
        packer.set_pledged_input_size(BOMB_BYTES)
    piece = bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def deflate_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(BOMB_BYTES)) + packer.flush()


BOMBS = {
    "zstd that declares its size": (CODEC_ZSTD, zstd_bomb(declared=True)),
    "zstd that does not": (CODEC_ZSTD, zstd_bomb(declared=False)),
    "zstd in many frames": (CODEC_ZSTD, zstd.compress(bytes(CLAIMED_BYTES)) * 2000),
    "zstd that declares what is claimed, and goes on": (
        CODEC_ZSTD,
        zstd.compress(bytes(CLAIMED_BYTES)) + zstd_bomb(declared=True),
    ),
    "zstd behind a frame to be skipped": (
        CODEC_ZSTD,
        struct.pack("<II", 0x184D2A50, 8) + bytes(8) + zstd_bomb(declared=False),
    ),
    "deflate": (CODEC_DEFLATE, deflate_bomb()),
    "deflate, one behind the other": (CODEC_DEFLATE, deflate_bomb() * 2),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_what_it_claims(bomb: str) -> None:
    """64 MiB in some kilobytes that claim to be 4 KiB are refused with no more than a mebibyte expanded."""
    codec, stored = BOMBS[bomb]

    assert len(stored) < 500_000
    assert cost_of(lambda: expand(codec, stored, CLAIMED_BYTES)) < (1 << 20) + len(stored)
    frame = Frame(0, 8, len(stored) + 1, CLAIMED_BYTES)
    assert cost_of(lambda: decode_frame(frame, bytes([codec]) + stored, "pack")) < (1 << 20) + 2 * len(stored)


def test_a_window_is_not_larger_than_ours() -> None:
    """A frame that wants a window of 2 GiB for its 4 KiB is refused before the library makes one: it has no room."""
    body = """
    import resource
    from replicator.core.codec import expand, CODEC_ZSTD
    from replicator.core.errors import ObjectCorrupt

    expand(CODEC_ZSTD, SMALL, 4096)
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (40 << 20),) * 2)
    for stored in WIDE:
        try:
            expand(CODEC_ZSTD, stored, 4096)
        except ObjectCorrupt as exc:
            print(exc)
    """
    # Header by hand: no size, a window descriptor of 2**(10 + exponent), one raw block of 4 KiB.
    wide = [
        b"\x28\xb5\x2f\xfd\x00"
        + bytes([(log - 10) << 3])
        + (4096 << 3 | 1).to_bytes(3, "little")
        + bytes(4096)
        for log in (25, 27, 30, 31)
    ]
    script = f"SMALL = {zstd.compress(bytes(4096))!r}\nWIDE = {wide!r}\n" + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert 0 == done.returncode, done.stderr
    assert 4 == len(done.stdout.splitlines()), done.stdout


# --- units ---------------------------------------------------------------------------------------------


def unit_of(entries: bytes, payload: bytes, *, page_log2: int, codec: int) -> bytes:
    """A proper header and digest around any entries and blocks of one transaction."""
    head = bytearray(88)
    head[:12] = b"RPLUNIT" + bytes([1, 0, codec, page_log2, 0])
    struct.pack_into(">I8sIIQI", head, 12, 0, bytes(8), 1, 1, 1, 0)
    struct.pack_into(">qI", head, 60, 1_738_044_000_000_000, 0)
    struct.pack_into(">II", head, 80, len(entries), len(payload))
    return mend_units(bytes(head) + entries + payload + bytes(16))


def entry_of(pages: int) -> bytes:
    out = bytearray()
    for value in (1, 0, 0, pages, pages):
        put(out, value)
    return bytes(out) + b"\x01" * pages + bytes(4 * pages + 8)


def block_of(pages: int, stored: bytes) -> bytes:
    out = bytearray()
    put(out, pages)
    put(out, 0)
    out += short_hash(xxhash.xxh3_64_intdigest(b"")).to_bytes(4, "big")  # of no prefix
    put(out, len(stored))
    return bytes(out) + stored


@pytest.mark.parametrize("declared", [True, False])
def test_a_unit_does_not_hold_more_pages_than_units_have(declared: bool) -> None:
    """A thousand pages of 64 KiB in one block of some kilobytes: refused by their number, before any is expanded."""
    pages = BOMB_BYTES >> 16
    stored = zstd_bomb(declared=declared)
    unit = unit_of(entry_of(pages), block_of(pages, stored), page_log2=16, codec=CODEC_ZSTD)

    def apply() -> None:
        for _ in expand_unit(decode_unit(unit), pages_before=0, version=lambda _: bytes(1 << 16)):
            pass

    assert len(unit) < 100_000
    assert cost_of(apply) < 4 << 20


def test_many_blocks_do_not_add_up_to_more_than_units_have() -> None:
    """Each block is of a proper size, and together they would be gigabytes."""
    blocks, pages = 4096, 16
    stored = zstd.compress(bytes(pages << 16))
    payload = block_of(pages, stored) * blocks
    unit = unit_of(entry_of(pages * blocks), payload, page_log2=16, codec=CODEC_ZSTD)

    assert len(unit) < 1_000_000
    assert cost_of(lambda: decode_unit(unit)) < 40 << 20


def test_a_list_of_pages_costs_a_little_more_than_its_bytes() -> None:
    """Sixteen million page numbers are 64 MiB of entries, and a gigabyte of Python: more than any unit has."""
    unit = unit_of(entry_of(2_000_000), b"", page_log2=9, codec=CODEC_ZSTD)

    assert cost_of(lambda: decode_unit(unit)) < 60 << 20


# --- counts that nothing stands behind -----------------------------------------------------------------


def test_claims_of_a_log_are_measured_by_what_is_there() -> None:
    """An index that says it has millions of units, or that it is longer than the object, costs nothing."""
    (data,) = named("plain", "log/**/*.log")
    name, content = split(data)
    log_name = parse_name(name)
    assert isinstance(log_name, LogName)
    for forged in (
        content[:8] + b"\xff\xff\xff\xff" + content[12:],
        content[:12] + b"\xff\xff\xff\x1f" + content[16:],
    ):
        mended = split(mend_named(name.encode() + b"\n" + forged))[1]
        assert cost_of(lambda mended=mended: decode_log(mended, log_name)) < 1 << 20


def test_claims_of_tables_are_measured_by_what_is_there() -> None:
    """Runs of billions of chunks, frames of terabytes, pages without end."""
    full, incremental = full_manifest(), incremental_manifest()
    number = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    for at in range(6):
        locators = b"\x01" * at + number + b"\x01" * (5 - at)
        table = struct.pack(">I", len(locators)) + locators + bytes(32 * full.chunks)
        assert cost_of(lambda table=table: decode_table(table, full, 0)) < 1 << 20
    for at in range(6):
        table = b"\x00\x08\x01\x80\x04\x01"[:at] + number + bytes(20)
        assert (
            cost_of(
                lambda table=table: list(
                    read_page_frames(of_table(incremental, table), lambda *_: b"\0" + table)
                )
            )
            < 1 << 20
        )


@pytest.mark.parametrize("magic", [b"RPLFULL", b"RPLINCR"])
def test_a_manifest_of_a_huge_database_costs_what_it_is(magic: bytes) -> None:
    """The largest database there can be is a number in it; nothing is made in that size."""
    pattern = "full/**/*.full" if magic == b"RPLFULL" else "incremental/**/*.incremental"
    decode = decode_manifest if magic == b"RPLFULL" else decode_incremental
    (data,) = named("plain", pattern)
    name, content = split(data)
    said = json.loads(content[12:-32])
    said |= {"pages": 0xFFFFFFFE, "page_size": 65_536, "chunk_bytes": 65_536, "chunks_new": 1 << 60}
    if magic == b"RPLINCR":
        del said["chunk_bytes"], said["chunks_new"]
        said["tables"] = [[0, 8, 2**62, 2**62, "00" * 32]]
    forged = split(saying(magic, name.encode() + b"\n" + json.dumps(said).encode()))[1]

    assert cost_of(lambda: decode(forged, name)) < 1 << 20


# --- JSON and YAML -------------------------------------------------------------------------------------

DEEP = {
    "lists": b"[" * 60_000,
    "closed lists": b"[" * 30_000 + b"]" * 30_000,
    "objects": b'{"kind":' * 7_000,
    "digits": b"9" * 60_000,
    "exponent": b"1" + b"0" * 300 + b"e999999999",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_deep_json_is_refused(text: bytes) -> None:
    """Neither the stack nor the number of digits is ours to give: every reader of JSON says that it is none."""
    (full,) = named("plain", "full/**/*.full")
    name = split(full)[0]
    readers: tuple[Callable[[], object], ...] = (
        lambda: decode_repository(text, "repository.json"),
        lambda: decode_generation(text, "generations/00112233445566ff.json"),
        lambda: decode_lease(text, "leases/00000001.json"),
        lambda: decode_event(text, "records/a/b.json"),
        lambda: key_ring.read_slot(text, "keys/00000001.json"),
        lambda: decode_manifest(split(saying(b"RPLFULL", name.encode() + b"\n" + text))[1], name),
    )
    for reader in readers:
        assert cost_of(reader) < 8 << 20


def laughs(setting: bytes) -> bytes:
    """Lists of lists of lists, eleven deep, of which the last stands for thirty billion words."""
    lines = [b"  - &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [b"  - &a%d [%s]" % (n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)]
    return b"key_max_age:\n" + b"\n".join(lines) + b"\n" + setting


def merges() -> bytes:
    lines = [b"  - &a0 {path: x, name: y}"]
    lines += [b"  - &a%d {<<: [%s]}" % (n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)]
    return b"databases:\n" + b"\n".join(lines)


ENTRY = b"databases: [{path: a, stores: [b], key_max_age: 1d, "
EXPLODING = {
    "the list itself": laughs(b"databases: [{path: a, stores: [b]}]"),
    "databases": laughs(b"databases: *a11"),
    "a database": laughs(b"databases: [*a11]"),
    "path": laughs(b"databases: [{path: *a11, stores: [b], key_max_age: 1d}]"),
    "stores": laughs(b"databases: [{path: a, stores: *a11, key_max_age: 1d}]"),
    "a store": laughs(b"databases: [{path: a, stores: [*a11], key_max_age: 1d}]"),
    **{
        name: laughs(ENTRY + name.encode() + b": *a11}]")
        for name in ("name", "state", "ship_interval", "spool_limit", "bandwidth", "compression", "verification")
    },
    "barrier": laughs(ENTRY + b"barrier: *a11}]"),
    "encryption": laughs(ENTRY + b"encryption: *a11}]"),
    "a key's file": laughs(ENTRY + b"encryption: {key_file: *a11}}]"),
    "a key of the mapping": laughs(ENTRY + b"? *a11 : 1}]"),
    "merges": merges(),
    "brackets": b"databases: " + b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("text", EXPLODING.values(), ids=EXPLODING)
def test_a_configuration_does_not_explode(text: bytes, tmp_path: Path) -> None:
    """Aliases of aliases, and merges of merges, stand for more than fits into memory: nobody writes them out."""
    path = tmp_path / "replicator.yml"
    path.write_bytes(text + b"\n")
    began = time.process_time()

    assert cost_of(lambda: load_config(str(path))) < 40 << 20
    assert time.process_time() - began < 5


# --- key slots -----------------------------------------------------------------------------------------


def test_a_slot_does_not_choose_how_long_it_takes() -> None:
    """Many wraps, each as dear as one may be, are refused: guessing at one passphrase is bounded as a whole."""
    (data, *_) = named("sealed", "keys/*")
    slot = json.loads(split(data)[1])
    dear = {"by": "passphrase", "salt": "00" * 32, "n": 1 << 20, "r": 8, "p": 16, "sealed": "00" * 40}
    for wraps in ([dear], [{**dear, "p": 1}] * 100, [{**dear, "n": 1 << 14, "p": 16}] * 100):
        forged = json.dumps({**slot, "wraps": wraps}).encode()
        began = time.process_time()
        with pytest.raises(ObjectCorrupt):
            key_ring.unwrap(forged, "keys/00000001.json", [OperatorKey(b"a passphrase", passphrase=True)])
        assert time.process_time() - began < 1


def test_the_bounds_of_a_slot_are_far_from_what_is_written() -> None:
    """What we write ourselves is well within them."""
    slots = [key_ring.read_slot(split(each)[1], split(each)[0]) for each in named("sealed", "keys/*")]

    assert slots
    assert all(
        key_ring.unwrap(split(each)[1], split(each)[0], [operator_key()])
        for each in named("sealed", "keys/*")
    )


def test_a_passphrase_opens_what_it_wrapped() -> None:
    """With the parameters that are written, which have to fit into what the library may take."""
    key = OperatorKey(b"correct horse battery staple", passphrase=True)
    made = key_ring.new_ring(
        "0" * 32, 1, secrets=[bytes([n]) * size for n, size in enumerate((32, 32, 8, 8))]
    )
    slot = key_ring.wrap(made, [key], [bytes(range(32))])

    assert made == key_ring.unwrap(slot, "keys/00000001.json", [key])
    with pytest.raises(KeyRefused):
        key_ring.unwrap(slot, "keys/00000001.json", [OperatorKey(b"another", passphrase=True)])


# --- the measure ---------------------------------------------------------------------------------------


def test_tracemalloc_would_have_seen_it() -> None:
    """The measure itself: what expands a bomb is seen to."""

    def careless() -> None:
        assert len(zstd.zstd.decompress(BOMBS["zstd that does not"][1])) == BOMB_BYTES
        raise ConfigError("only now")

    assert BOMB_BYTES < cost_of(careless)
