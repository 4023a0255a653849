"""What is fed to the parsers of stored objects: bytes that anybody may have put into a store.

Where an encoder exists, what was decoded has to become the same bytes again: two spellings of one value would be a
place to hide something in. Where the bytes are JSON, which has many spellings, the same value has to come back.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import xxhash

from replicator.core import key_ring, names, page_delta
from replicator.core.catalogue import Listed, read_listing
from replicator.core.checksum import short_hash
from replicator.core.codec import CODECS, Compression, compress, expand
from replicator.core.errors import KeyRefused, ObjectCorrupt, ReplicatorError
from replicator.core.full import Manifest, Table, decode_manifest, decode_table, encode_manifest, encode_table
from replicator.core.incremental import (
    Incremental,
    decode_incremental,
    encode_incremental,
    page_tables,
    pages_in,
    read_page_frames,
)
from replicator.core.log import BEGINNING_BYTES, decode_log, encode_log, observed_first
from replicator.core.manifest import TableUse, table_digest
from replicator.core.named_digest import DIGEST_SIZE, digest_of
from replicator.core.names import LogName, parse_name, sealed_kind, split_revision, with_revision
from replicator.core.operator_key import OperatorKey, parse_key
from replicator.core.pack import Frame, check_pack, decode_frame
from replicator.core.pieces import pieces_of
from replicator.core.records import (
    decode_event,
    decode_generation,
    decode_lease,
    decode_repository,
    encode_record,
    lease_in_segment,
)
from replicator.core.restore_plan import RestorePlan, plan_restore
from replicator.core.seal import HEADER_SIZE as SEAL_HEADER_SIZE
from replicator.core.seal import SealHeader, derive_cipher, parse_header, seal, unseal
from replicator.core.times import MICROS_MAX, MICROS_MIN, format_time
from replicator.core.unit import (
    HEADER_SIZE,
    IMAGES_BYTES_MAX,
    MAGIC,
    TRAILER_SIZE,
    Unit,
    decode_unit,
    encode_body,
    encode_unit,
    parse_unit_header,
    split_units,
)
from replicator.core.unit_apply import expand_unit
from replicator.core.varint import Reader, put
from replicator.core.wal import FRAME_HEADER_SIZE, TransactionScan, parse_frame_header
from replicator.core.wal import HEADER_SIZE as WAL_HEADER_SIZE
from replicator.core.wal import parse_header as parse_wal_header
from replicator.keys import FixedKeys
from replicator.store.sealed import SealedStore
from replicator.verify.stored import check_stored
from tests.fuzz.engine import Form, Target
from tests.support.memory_store import MemoryStore

CORPUS = Path(__file__).resolve().parent / "corpus"
KEY = "7f3a91c4e85d026bb1f46e9c03d8a75210bd64f9e7325c8ea16f04d97b58c3e2"
"""The operator's key of the sealed repository in the corpus; it protects nothing."""
PASSPHRASE = "correct horse battery staple of the corpus"


# --- the corpus ----------------------------------------------------------------------------------------


def named(store: str, *patterns: str) -> tuple[bytes, ...]:
    """Objects of a repository in the corpus: the name on a line, then the bytes."""
    root = CORPUS / store
    paths = sorted(path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    assert paths, f"nothing of {patterns} in {root}"
    return tuple(path.relative_to(root).as_posix().encode() + b"\n" + path.read_bytes() for path in paths)


def contents(store: str, *patterns: str) -> tuple[bytes, ...]:
    """The same without names."""
    return tuple(split(each)[1] for each in named(store, *patterns))


def split(data: bytes) -> tuple[str, bytes]:
    """A name as a store may give it, which need not be UTF-8, and the bytes behind its line."""
    name, _, rest = data.partition(b"\n")
    return name.decode("utf-8", "surrogateescape"), rest


def _proper_time(micros: int) -> None:
    assert MICROS_MIN <= micros <= MICROS_MAX, micros
    format_time(micros)


# --- the log of SQLite ---------------------------------------------------------------------------------


def check_wal(data: bytes) -> Hashable:
    """However the frames are dealt out, the same transactions come of them."""
    header = parse_wal_header(data)
    if header is None:
        return None
    stride = FRAME_HEADER_SIZE + header.page_size
    whole_frames = (len(data) - WAL_HEADER_SIZE) // stride * stride
    frames = data[WAL_HEADER_SIZE : WAL_HEADER_SIZE + whole_frames]
    one = TransactionScan(page_size=header.page_size, salt=header.salt, first_frame=0)
    one.feed(frames)
    many = TransactionScan(page_size=header.page_size, salt=header.salt, first_frame=0)
    for start in range(0, len(frames), stride):
        assert parse_frame_header(frames[start : start + stride]).pgno
        many.feed(frames[start : start + stride])
    assert (one.done, one.complete) == (many.done, many.complete)
    ends = [each.end for each in one.done]
    assert ends == sorted(set(ends))
    assert all(each.frames and each.commit_pages for each in one.done)
    return min(len(ends), 3), one.complete


def mend_wal(data: bytes) -> bytes:
    """Every frame gets the header's salts."""
    header = parse_wal_header(data)
    mended = bytearray(data)
    stride = FRAME_HEADER_SIZE + header.page_size if header else len(data) + 1
    for start in range(WAL_HEADER_SIZE, len(data) - stride + 1, stride):
        mended[start + 8 : start + 16] = data[16:24]
    return bytes(mended)


# --- numbers and names ---------------------------------------------------------------------------------


def check_varints(data: bytes) -> Hashable:
    """One number has one spelling."""
    reader, out, count = Reader(data), bytearray(), 0
    while reader:
        put(out, reader.varint())
        count += 1
        assert bytes(out) == data[: reader.offset]
    return min(count, 4)


def check_names(data: bytes) -> Hashable:
    """What is ours has one spelling, and is made of nothing but what we write."""
    text = data.decode("utf-8", "surrogateescape")
    name = parse_name(text)
    stem, revision = split_revision(text)
    assert with_revision(stem, revision) == text
    assert sealed_kind(text) in (None, 1, 2, 3, 4, 5, 6)
    if name is None:
        return None
    assert str(name) == text
    assert text.isascii()
    assert text.isprintable()
    assert all(part not in ("", ".", "..") for part in text.split("/"))
    return type(name).__name__


def check_listing(data: bytes) -> Hashable:
    """Any listing at all becomes a catalogue, and every question about restore points has an answer."""
    listed = [
        Listed(each, len(each))
        for each in sorted(set(data.decode("utf-8", "surrogateescape").split("\n")))
        if each
    ]
    catalogue = read_listing(listed, {}, known=(names.REPOSITORY, names.METADATA))
    plans = 0
    for listing in catalogue.generations:
        ends = (
            {each.txid for each in listing.backups}
            | {each.txid_first for each in listing.carriers}
            | {0, 1 << 64}
        )
        for txid in (None, *ends):
            plans += isinstance(plan_restore(listing, txid), RestorePlan)
    return len(catalogue.generations), min(plans, 3), bool(catalogue.strays)


# --- units ---------------------------------------------------------------------------------------------


def check_unit(data: bytes) -> Hashable:
    unit = decode_unit(data)
    _encoded_again(unit, data)
    return unit.header.codec, min(len(unit.entries), 3), unit.header.part > 0, min(len(unit.blocks), 3)


def _encoded_again(unit: Unit, data: bytes | memoryview) -> None:
    header = unit.header
    written, digest = encode_unit(header, encode_body(unit.entries, unit.blocks))
    assert written == data[: header.size]
    assert digest == unit.digest
    assert unit.entries[-1].txid == header.txid_last
    for each in unit.entries:
        _proper_time(each.observed)
        _proper_time(each.not_before)
        assert header.observed_first <= each.observed <= header.observed_last
        assert each.not_before <= each.observed


def mend_units(data: bytes) -> bytes:
    """Every unit, one behind the other, gets its digest, as far as headers are any good."""
    mended, offset = bytearray(data), 0
    while offset < len(mended):
        try:
            size = parse_unit_header(bytes(mended[offset : offset + HEADER_SIZE])).size
        except ReplicatorError:
            break
        end = min(offset + size, len(mended))
        if end - offset < size:  # the lengths it says are those of what is there
            spare = len(mended) - offset - HEADER_SIZE - TRAILER_SIZE
            entries = int.from_bytes(mended[offset + 80 : offset + 84], "big")
            if not 0 <= spare - entries <= 0xFFFFFFFF:
                break
            struct.pack_into(">I", mended, offset + 84, spare - entries)
        body_end = end - TRAILER_SIZE
        mended[body_end:end] = hashlib.sha256(mended[offset:body_end]).digest()[:TRAILER_SIZE]
        offset = end
    return bytes(mended)


@cache
def base_pages() -> dict[int, bytes]:
    """The database of the corpus at its full backup, which the first unit of each segment stream is built on."""
    content = (CORPUS / "base.db").read_bytes()
    return {start // 512 + 1: content[start : start + 512] for start in range(0, len(content), 512)}


def check_replay(data: bytes) -> Hashable:
    """Units applied one behind the other to the database below them, as a restore does."""
    pages, size, applied = dict(base_pages()), len(base_pages()), 0
    for view in split_units(data):
        unit = decode_unit(view)
        page_size, held = unit.header.page_size, 0
        version = _padded(pages, page_size)
        for entry, images in expand_unit(unit, pages_before=size, version=version):
            assert len(images) == len(entry.pgnos)
            assert all(len(each) == page_size for each in images)
            held += len(images) * page_size
            assert held <= IMAGES_BYTES_MAX
            pages.update(zip(entry.pgnos, images, strict=True))
            size = entry.pages_after if unit.header.commits else size
            applied += 1
    return min(applied, 4)


def _padded(pages: dict[int, bytes], page_size: int):
    return lambda pgno: pages.get(pgno, b"").ljust(page_size, b"\0")[:page_size]


def check_block(data: bytes) -> Hashable:
    reader = Reader(data)
    block = page_delta.read_block(reader, pages_left=64)
    out = bytearray()
    page_delta.write_block(out, block)
    assert bytes(out) == data[: reader.offset]
    return min(block.pages, 3), min(len(block.fresh), 2)


def check_codec(data: bytes) -> Hashable:
    """The first byte says how it is packed, the next two how long it shall be; all pages in it are fresh."""
    codec, length, stored = data[:1], int.from_bytes(data[1:3], "big"), data[3:]
    plain = expand(codec[0] % len(CODECS) if codec else 0, stored, length)
    assert len(plain) == length
    return codec


def check_codec_of_block(data: bytes) -> Hashable:
    codec, stored = (data[0] % len(CODECS) if data else 0), data[1:]
    block = page_delta.Block(3, frozenset({1, 2, 3}), short_hash(xxhash.xxh3_64_intdigest(b"")), stored)
    images = page_delta.expand_block(
        block, [1, 2, 3], pages_before=3, version=lambda _: None, page_size=512, codec=codec
    )
    assert [512] * 3 == [len(each) for each in images]
    return codec


# --- logs ----------------------------------------------------------------------------------------------


def check_log(data: bytes) -> Hashable:
    name, content = _named_as(data, LogName)
    if name is None:
        return None
    _first = observed_first(content[:BEGINNING_BYTES], name)
    log = decode_log(content, name)
    begin = log.index[0].offset
    units = [bytes(log.units[each.offset - begin :][: each.size_bytes]) for each in log.index]
    assert b"".join(units) == log.units
    for each in log.index:
        _proper_time(each.observed_last)
    headers = [parse_unit_header(each) for each in units]
    if _first == headers[0].observed_first and all(
        (header.size, header.txid_last, header.observed_last)
        == (each.size_bytes, each.txid_last, each.observed_last)
        for header, each in zip(headers, log.index, strict=True)
    ):
        assert encode_log(name, list(zip(headers, units, strict=True))) == content
    return min(len(units), 3)


def _named_as(data: bytes, kind: type) -> tuple:  # type: ignore[type-arg]
    text, content = split(data)
    name = parse_name(text)
    return (name if isinstance(name, kind) else None), content


def mend_named(data: bytes) -> bytes:
    """The digest at the end of an object, which covers its name."""
    name, content = split(data)
    if len(content) < DIGEST_SIZE:
        return data
    body = content[:-DIGEST_SIZE]
    try:
        return data[: len(data) - DIGEST_SIZE] + digest_of(body, name)
    except UnicodeEncodeError:
        return data


def mend_log(data: bytes) -> bytes:
    """Also the units in it, and the length of the index where that leads beyond the object."""
    name, content = split(data)
    at = content.find(MAGIC)
    if at > 12 and len(content) > at + DIGEST_SIZE:
        units = mend_units(content[at:-DIGEST_SIZE])
        content = content[:8] + struct.pack(">I", at - 12) + content[12:at] + units + content[-DIGEST_SIZE:]
    return mend_named(name.encode("utf-8", "surrogateescape") + b"\n" + content)


# --- backups -------------------------------------------------------------------------------------------


def check_full(data: bytes) -> Hashable:
    name, content = split(data)
    manifest = decode_manifest(content, name)
    _proper_manifest(manifest)
    assert decode_manifest(encode_manifest(manifest), name) == manifest
    assert manifest.chunks > 0
    assert len(manifest.tables) == sum(1 for n in range(len(manifest.tables)) if manifest.chunks_of(n) > 0)
    return len(manifest.packs), len(manifest.tables)


def check_incremental(data: bytes) -> Hashable:
    name, content = split(data)
    manifest = decode_incremental(content, name)
    _proper_manifest(manifest)
    assert decode_incremental(encode_incremental(manifest), name) == manifest
    return len(manifest.packs), len(manifest.tables)


def _proper_manifest(manifest: Manifest | Incremental) -> None:
    """What is shown, summed up or asked for of it is of some sense."""
    _proper_time(manifest.observed)
    _proper_time(manifest.created)
    assert bytes.fromhex(manifest.chain)
    assert int(manifest.checksum, 16) < 1 << 64
    assert manifest.plain_bytes >= 0
    assert manifest.stored_bytes >= 0
    assert manifest.epoch >= 0
    assert all(each.size_bytes >= 0 for each in manifest.packs)
    assert str(manifest.position)


def mend_manifest(data: bytes) -> bytes:
    """Length of the JSON, and digest."""
    name, content = split(data)
    if len(content) > 12 + DIGEST_SIZE:
        content = content[:8] + struct.pack(">I", len(content) - 12 - DIGEST_SIZE) + content[12:]
    return mend_named(name.encode("utf-8", "surrogateescape") + b"\n" + content)


def said_of(manifests: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The JSON in manifests, with their names in front."""
    return tuple(name.encode() + b"\n" + content[12:-DIGEST_SIZE] for name, content in map(split, manifests))


def saying(magic: bytes, data: bytes) -> bytes:
    """A manifest around JSON."""
    name, text = split(data)
    body = magic + struct.pack(">BI", 1, len(text)) + text
    with suppress(UnicodeEncodeError):
        body += digest_of(body, name)
    return name.encode("utf-8", "surrogateescape") + b"\n" + body


@cache
def full_manifest() -> Manifest:
    (data,) = named("plain", "full/**/*.full")
    return decode_manifest(split(data)[1], split(data)[0])


@cache
def incremental_manifest() -> Incremental:
    (data,) = named("plain", "incremental/**/*.incremental")
    return decode_incremental(split(data)[1], split(data)[0])


def tables_of(manifest: Manifest | Incremental) -> tuple[bytes, ...]:
    found = []
    for frame in (each.frame for each in manifest.tables):
        pack = (CORPUS / "plain" / manifest.packs[frame.pack].name).read_bytes()
        stored = pack[frame.offset : frame.offset + frame.stored_bytes]
        found.append(decode_frame(frame, stored, "pack"))
    return tuple(found)


def check_full_table(data: bytes) -> Hashable:
    manifest = full_manifest()
    table = decode_table(data, manifest, 0)
    assert encode_table(table) == data
    _cover(table, manifest)
    return min(len(table.runs), 4)


def _cover(table: Table, manifest: Manifest) -> None:
    covered: list[int] = []
    for piece in pieces_of(table, 0):
        assert piece.pack < len(manifest.packs)
        for _, slots in piece.frames:
            covered += [first + number for first, _, count in slots for number in range(count)]
    assert sorted(covered) == list(range(manifest.chunks))


def mend_table(data: bytes) -> bytes:
    """The length of the locators is what the hashes leave."""
    locators = len(data) - 4 - 32 * full_manifest().chunks
    return struct.pack(">I", locators) + data[4:] if locators >= 0 else data


def of_table(manifest: Incremental, table: bytes) -> Incremental:
    """With that table alone."""
    return replace(manifest, tables=(TableUse(Frame(0, 8, len(table) + 1, len(table)), table_digest(table)),))


def check_incremental_table(data: bytes) -> Hashable:
    manifest = of_table(incremental_manifest(), data)
    frames = []
    with suppress(ObjectCorrupt):
        for each in read_page_frames(manifest, lambda _name, _offset, _length: b"\0" + data):
            frames.append(each)
    assert data.startswith(b"".join(page_tables(frames)))
    for each in frames:
        assert list(each.pgnos) == sorted(set(each.pgnos))
        assert 1 <= each.pgnos[0] <= each.pgnos[-1]
        with suppress(ObjectCorrupt):
            for _ in pages_in(bytes(each.frame.plain_bytes), each, manifest.page_size, "pack"):
                pass
    return min(len(frames), 3)


def check_packs(data: bytes) -> Hashable:
    """A pack as a whole, and what lies at any frame of it."""
    name, content = split(data)
    plain = int.from_bytes(content[-2:], "big")
    for offset in range(8, min(len(content), 12)):
        with suppress(ObjectCorrupt):
            frame = Frame(0, offset, len(content) - offset, plain)
            assert plain == len(decode_frame(frame, content[offset:], name))
    check_pack(content, name)
    return True


# --- sealed objects ------------------------------------------------------------------------------------


@cache
def operator_key() -> OperatorKey:
    return parse_key(KEY, "the key of the corpus")


@cache
def ring() -> key_ring.KeyRing:
    found = [
        key_ring.unwrap(split(each)[1], split(each)[0], [operator_key()])
        for each in named("sealed", "keys/*")
    ]
    return found[-1]


def _root_of(key_id: bytes) -> bytes:
    root = ring().root(key_id.hex())
    if root is None:
        raise KeyRefused(f"no key {key_id.hex()}")
    return root.secret


def check_sealed(data: bytes) -> Hashable:
    """Opened as a whole, frame by frame through a store, and sealed again."""
    stored, content = split(data)
    name = split_revision(stored)[0]
    kind = sealed_kind(name)
    if kind is None or stored != name or not _storable(name):
        return None
    plain = unseal(content, stored, kind, _root_of)
    header = parse_header(content, stored)
    _parts_agree(name, content, plain, header)
    if header.frame_bytes == 1 << 16:
        root = _root_of(header.key_id)
        again = seal(plain, stored, kind=kind, key_id=header.key_id, root=root, salt=header.salt)
        assert again == content
    return kind, header.frame_bytes, min(header.frames, 3)


def _storable(name: str) -> bool:
    return all(part not in ("", ".", "..") for part in name.split("/"))


def _parts_agree(name: str, content: bytes, plain: bytes, header: SealHeader) -> None:
    store = MemoryStore()
    store.put(name, content)
    sealed = SealedStore(store, FixedKeys(ring()))
    size = len(plain)
    for offset, length in (
        (0, size),
        (size // 2, size - size // 2),
        (max(size - 1, 0), min(size, 1)),
        (0, 0),
    ):
        assert plain[offset : offset + length] == sealed.get_range(name, offset, length)
    assert header.sealed_bytes == len(content)


def mend_sealed(data: bytes) -> bytes:
    """Sealed anew, by whoever has the key, with whatever its header says by now."""
    name, content = split(data)
    kind = sealed_kind(name)
    try:
        header = parse_header(content, name)
        bound = header.raw + name.encode()
        cipher = derive_cipher(_root_of(header.key_id), header.salt, b"replicator object 1")
    except (ReplicatorError, UnicodeEncodeError):
        return mend_named(data)
    if kind is None or header.frames > 2000 or header.plain_bytes > 1 << 16:
        return mend_named(data)
    plain = (content[SEAL_HEADER_SIZE:] * (1 + header.plain_bytes // max(1, len(content))))[
        : header.plain_bytes
    ]
    plain = plain.ljust(header.plain_bytes, b"\0")
    body = header.raw
    for number in range(header.frames):
        start = number * header.frame_bytes
        nonce = struct.pack(">3xBQ", number == header.frames - 1, number)
        body += cipher.encrypt(nonce, plain[start : start + header.frame_bytes], bound)
    return name.encode() + b"\n" + body + digest_of(body, name)


def check_key_slot(data: bytes) -> Hashable:
    name, content = split(data)
    slot = key_ring.read_slot(content, name)
    found = key_ring.unwrap(content, name, [operator_key()])
    assert found.number == slot["number"]
    again = key_ring.unwrap(key_ring.wrap(found, [operator_key()], [bytes(32)]), name, [operator_key()])
    assert again == found
    return len(found.roots)


def check_ring(data: bytes) -> Hashable:
    """What lies in a slot, sealed by somebody who has the key."""
    public = {
        "kind": "replicator-keys",
        "format": 1,
        "number": 1,
        "repository": "0" * 32,
        "roots": [{"key_id": each.key_id, "created": each.created} for each in ring().roots],
    }
    salt = bytes(range(32))
    bound = json.dumps(public, sort_keys=True).encode()
    cipher = derive_cipher(operator_key().secret, salt, b"replicator key slot 1")
    wrapped = {
        "by": "key",
        "salt": salt.hex(),
        "fingerprint": operator_key().fingerprint,
        "sealed": cipher.encrypt(bytes(12), data, bound).hex(),
    }
    slot = json.dumps({**public, "wraps": [wrapped]}).encode()
    found = key_ring.unwrap(slot, "keys/00000001.json", [operator_key()])
    assert found.active.key_id
    assert all(
        len(each.secret) == 32 and len(bytes.fromhex(each.key_id)) == 8
        for each in (*found.roots, found.dedup)
    )
    for each in found.roots:
        _proper_time(each.created)
    assert key_ring.wrap(found, [operator_key()], [salt])
    return len(found.roots)


def inner_rings() -> tuple[bytes, ...]:
    made = ring()
    return (
        json.dumps(
            {
                "roots": [[each.key_id, each.created, each.secret.hex()] for each in made.roots],
                "dedup": [made.dedup.key_id, made.dedup.created, made.dedup.secret.hex()],
            }
        ).encode(),
    )


# --- records -------------------------------------------------------------------------------------------


def check_record(data: bytes) -> Hashable:
    """Every kind of record under whatever name; what is read can be written, shown and read again."""
    name, content = split(data)
    found: list[Hashable] = []
    refused: ReplicatorError | None = None
    for decode in (decode_repository, decode_generation, decode_lease, decode_event):
        try:
            record = decode(content, name)
        except ReplicatorError as exc:
            refused = refused or exc
            continue
        written = encode_record(record)
        assert encode_record(decode(written, name)) == written
        found.append(type(record).__name__)
        for each in ("began", "at"):
            if hasattr(record, each):
                _proper_time(getattr(record, each))
    with suppress(ReplicatorError):
        lease_in_segment(content, name)
    if not found and refused is not None:
        raise refused
    return tuple(found)


def check_object(data: bytes) -> Hashable:
    """What `verify` asks of each object by itself, whether its repository is sealed or not."""
    name, content = split(data)
    found: list[str] = []
    for sealed in (False, True):
        try:
            check_stored(content, name, sealed=sealed)
            found.append("whole")
        except ReplicatorError as exc:
            found.append(type(exc).__name__)
    return tuple(found)


def mend_object(data: bytes) -> bytes:
    name, _ = split(data)
    if name.endswith(".segment"):
        line, _, units = data.partition(b"\n")
        return line + b"\n" + mend_units(units)
    if name.endswith(".log"):
        return mend_log(data)
    if name.endswith((".full", ".incremental")):
        return mend_manifest(data)
    return mend_named(data)


# --- the table -----------------------------------------------------------------------------------------

_STREAMS = ("plain", "gzip", "none")


def _streams() -> tuple[bytes, ...]:
    """All units of a repository one behind the other."""
    return tuple(b"".join(contents(store, "tail/*/*.segment")) for store in _STREAMS)


def _units() -> tuple[bytes, ...]:
    return tuple(bytes(view) for stream in _streams() for view in split_units(stream))


def _blocks() -> Iterator[bytes]:
    for data in _units():
        for block in decode_unit(data).blocks:
            out = bytearray()
            page_delta.write_block(out, block)
            yield bytes(out)


def _packed() -> Iterator[bytes]:
    plain = bytes(range(256)) * 6
    for codec in CODECS:
        level = {0: 0, 1: 3, 2: 6}[codec]
        yield bytes([codec]) + len(plain).to_bytes(2, "big") + compress(plain, Compression(codec, level))


_MAGICS = (b"RPLUNIT", b"RPLLOGS", b"RPLFULL", b"RPLINCR", b"RPLPACK", b"RPLSEAL", b"{", b"\x28\xb5\x2f\xfd")
_JSON_WORDS = (
    b"NaN",
    b"-Infinity",
    b"1e9999",
    b'"\\ud800"',
    b"\xef\xbb\xbf",
    b"[" * 5000,
    b"9" * 5000,
    b'"kind":',
)


def object_targets() -> Iterator[Target]:
    everything = (*named("plain", "**/*"), *named("sealed", "**/*"))
    all_names = tuple(each.partition(b"\n")[0] for each in everything)
    yield Target("wal", check_wal, contents("wal", "*"), mend=mend_wal)
    yield Target("varints", check_varints, (b"\x00\x7f\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",))
    yield Target("names", check_names, all_names, Form.TEXT)
    yield Target("listing", check_listing, (b"\n".join(all_names),), Form.TEXT, words=all_names, weight=0.5)
    yield Target("unit", check_unit, _units(), mend=mend_units, words=_MAGICS)
    yield Target("replay", check_replay, _streams(), mend=mend_units, weight=0.5)
    yield Target("block", check_block, tuple(_blocks()))
    yield Target("codec", check_codec, tuple(_packed()))
    yield Target("codec-of-block", check_codec_of_block, tuple(each[:1] + each[3:] for each in _packed()))
    yield Target("log", check_log, named("plain", "log/**/*.log"), named=True, mend=mend_log)
    fulls, incrementals = named("plain", "full/**/*.full"), named("plain", "incremental/**/*.incremental")
    yield Target("full", check_full, fulls, named=True, mend=mend_manifest)
    yield Target("incremental", check_incremental, incrementals, named=True, mend=mend_manifest)
    yield Target(
        "full-said", lambda data: check_full(saying(b"RPLFULL", data)), said_of(fulls), Form.JSON, named=True
    )
    yield Target(
        "incremental-said",
        lambda data: check_incremental(saying(b"RPLINCR", data)),
        said_of(incrementals),
        Form.JSON,
        named=True,
    )
    yield Target("full-table", check_full_table, tables_of(full_manifest()), mend=mend_table)
    yield Target("incremental-table", check_incremental_table, tables_of(incremental_manifest()))
    yield Target("pack", check_packs, named("plain", "*/**/*.pack"), named=True, mend=mend_named, weight=0.5)
    yield Target(
        "sealed",
        check_sealed,
        named("sealed", "leases/*", "tail/*/*", "full/**/*.full"),
        named=True,
        mend=mend_sealed,
        weight=0.5,
    )
    yield Target("key-slot", check_key_slot, named("sealed", "keys/*"), Form.JSON, named=True, weight=0.5)
    yield Target("key-ring", check_ring, inner_rings(), Form.JSON, weight=0.5)
    yield Target(
        "record",
        check_record,
        named("plain", "repository.json", "generations/*", "leases/*", "records/*/*"),
        Form.JSON,
        named=True,
        words=_JSON_WORDS,
    )
    yield Target("object", check_object, everything, named=True, mend=mend_object, words=_MAGICS)
    # metadata.json, the catalogue that is derived, is not written yet: its reader comes here.
