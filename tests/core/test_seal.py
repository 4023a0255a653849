"""Sealed objects: every change is noticed, every part can be opened by itself, and hostile headers cost nothing."""

import hashlib
import hmac
import random
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core import seal as seal_module
from replicator.core.errors import FormatTooNew, KeyRefused, ObjectCorrupt
from replicator.core.named_digest import DIGEST_SIZE, has_digest
from replicator.core.seal import (
    FRAME_BYTES,
    HEADER_SIZE,
    PLAIN_BYTES_MAX,
    TAG_SIZE,
    SealHeader,
    open_frames,
    parse_header,
    seal,
    unseal,
)

NAME = "tail/0123456789abcdef/0000000000000001.segment"
KIND = 4
KEY_ID = b"\x01\x23\x45\x67\x89\xab\xcd\xef"
ROOT = hashlib.sha256(b"a root").digest()
SALT = hashlib.sha256(b"a salt").digest()
NOISE = random.Random(2)


def root_of(key_id: bytes) -> bytes:
    assert key_id == KEY_ID
    return ROOT


def another_root(_: bytes) -> bytes:
    return hashlib.sha256(b"another root").digest()


def sealed(plain: bytes, name: str = NAME, kind: int = KIND, salt: bytes = SALT) -> bytes:
    return seal(plain, name, kind=kind, key_id=KEY_ID, root=ROOT, salt=salt)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> int:
    """Objects of many frames that are still small: what a frame is, each object says itself."""
    monkeypatch.setattr(seal_module, "FRAME_LOG2", 6)
    monkeypatch.setattr(seal_module, "FRAME_BYTES", 64)
    return 64


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869): one block of the expansion."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\1", "sha256")


def independent(
    plain: bytes, frame_log2: int, name: str = NAME, *, kind: int = KIND, length: int = -1
) -> bytes:
    """The object by the layout alone; *length* is what its header says, if that is a lie."""
    head = b"RPLSEAL" + bytes([1, kind, 0, frame_log2, 0])
    head += (len(plain) if length < 0 else length).to_bytes(8, "big") + KEY_ID + bytes(4) + SALT
    cipher = AESGCM(hkdf(ROOT, SALT, b"replicator object 1"))
    size = 1 << frame_log2
    frames = [plain[i : i + size] for i in range(0, len(plain), size)] or [b""]
    for number, frame in enumerate(frames):
        nonce = bytes(3) + bytes([number == len(frames) - 1]) + number.to_bytes(8, "big")
        head_and_name = b"RPLSEAL" + bytes([1, kind, 0, frame_log2, 0]) + head[12:64] + name.encode()
        head += cipher.encrypt(nonce, frame, head_and_name)
    return head + hashlib.sha256(name.encode() + b"\0" + head).digest()


def redigested(data: bytes, name: str = NAME) -> bytes:
    """With the digest that fits what it became: what somebody without a key can do."""
    body = data[:-DIGEST_SIZE]
    return body + hashlib.sha256(name.encode() + b"\0" + body).digest()


# --- written and read ----------------------------------------------------------------------------------

SIZES = [0, 1, 100, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, 3 * FRAME_BYTES + 7]


@pytest.mark.parametrize("size", SIZES)
def test_s23_what_is_sealed_is_opened(size: int) -> None:
    """Nothing, exactly one frame, one byte more or less: what went in comes out, and its length is known before."""
    plain = NOISE.randbytes(size)
    data = sealed(plain)
    header = parse_header(data, NAME)
    frames = max(1, -(-size // 65536))

    assert plain == unseal(data, NAME, KIND, root_of)
    assert has_digest(data, NAME)
    assert SealHeader(KIND, size, 65536, KEY_ID, SALT, data[:64]) == header
    assert (frames, len(data)) == (header.frames, header.sealed_bytes)
    assert 64 + size + 16 * frames + 32 == len(data)
    assert len(data) - size <= 112 or size > FRAME_BYTES  # what it costs


@pytest.mark.parametrize("size", SIZES)
def test_a_sealed_object_is_laid_out_as_the_format_says(size: int) -> None:
    """Byte by byte what primitives make of the layout, written here a second time."""
    plain = NOISE.randbytes(size)

    assert independent(plain, 16) == sealed(plain)


@pytest.mark.parametrize("frame_log2", [1, 4, 6, 16, 20])
def test_a_reader_takes_frames_of_other_sizes(frame_log2: int) -> None:
    """The size of frames is the object's to say, within bounds."""
    plain = NOISE.randbytes(300)

    assert plain == unseal(independent(plain, frame_log2), NAME, KIND, root_of)


def test_the_header_has_its_fields_in_their_places() -> None:
    """Magic, version, kind, codec, frame size, zero, length, key id, zeros, salt: 64 bytes."""
    data = sealed(b"x" * 1000)

    assert (b"RPLSEAL", 1, KIND, 0, 16, 0, 1000, KEY_ID, bytes(4), SALT) == struct.unpack_from(
        ">7sBBBBBQ8s4s32s", data
    )
    assert (64, 16, 32) == (HEADER_SIZE, TAG_SIZE, DIGEST_SIZE)


def test_s23_the_same_under_another_salt_has_nothing_in_common() -> None:
    """Each object has a key of its own: no two ciphertexts can be compared, equal as their contents may be."""
    one, two = sealed(bytes(64), salt=bytes(32)), sealed(bytes(64), salt=bytes(31) + b"\1")

    assert one[64:-32] != two[64:-32]
    assert sum(a == b for a, b in zip(one[64:-32], two[64:-32], strict=True)) < 10
    assert bytes(64) not in one


@settings(max_examples=50)
@given(plain=st.binary(max_size=400), frame_log2=st.integers(1, 7), data=st.data())
def test_a_middle_range_of_frames_is_opened_by_itself(
    plain: bytes, frame_log2: int, data: st.DataObject
) -> None:
    """Any run of frames, from the bytes that its extent names and no others."""
    whole = independent(plain, frame_log2)
    header = parse_header(whole[:HEADER_SIZE], NAME)
    first = data.draw(st.integers(0, header.frames - 1))
    count = data.draw(st.integers(1, header.frames - first))
    offset, length = header.extent(first, count)
    part = whole[offset : offset + length]
    size = 1 << frame_log2
    opened = open_frames(part, header, NAME, KIND, root_of, first=first, count=count)

    assert length == len(part)
    assert [plain[i * size : (i + 1) * size] for i in range(first, first + count)] == opened
    assert (64, len(whole) - 64 - 32) == header.extent(0, header.frames)


# --- every change is noticed ---------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed_with_and_without_a_key(small_frames: int) -> None:
    """Each bit of an object of three frames: refused by who opens it, and by who can only compare its digest."""
    plain = NOISE.randbytes(2 * small_frames + 9)
    data = sealed(plain)
    assert plain == unseal(data, NAME, KIND, root_of)
    for place in range(len(data)):
        for bit in range(8):
            changed = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            assert not has_digest(changed, NAME)
            with pytest.raises(ObjectCorrupt):
                unseal(changed, NAME, KIND, root_of)


def test_every_flipped_bit_is_noticed_where_the_digest_was_made_to_fit(small_frames: int) -> None:
    """Who knows the layout and not the key can change the digest, too: the tags notice all of it."""
    data = sealed(NOISE.randbytes(2 * small_frames + 9))
    for place in range(len(data) - DIGEST_SIZE):
        for bit in range(8):
            changed = redigested(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with pytest.raises((ObjectCorrupt, FormatTooNew)):
                unseal(changed, NAME, KIND, lambda _: ROOT)


def test_the_bytes_that_mean_nothing_yet_are_authenticated(small_frames: int) -> None:
    """Reserved ones as well: nobody can hide anything in them."""
    data = sealed(b"content")
    for place in (11, 28, 29, 30, 31):
        changed = redigested(data[:place] + b"\1" + data[place + 1 :])
        with pytest.raises(ObjectCorrupt, match=r"not what was sealed|never written"):
            unseal(changed, NAME, KIND, root_of)


def test_every_cut_is_noticed(small_frames: int) -> None:
    """Cut off after any number of bytes, with a digest that fits or without; and so is a byte more."""
    data = sealed(NOISE.randbytes(2 * small_frames + 9))
    for length in range(len(data)):
        with pytest.raises(ObjectCorrupt):
            unseal(data[:length], NAME, KIND, root_of)
        if length < len(data) - DIGEST_SIZE:
            with pytest.raises(ObjectCorrupt):
                unseal(redigested(data[:length] + bytes(DIGEST_SIZE)), NAME, KIND, root_of)
    with pytest.raises(ObjectCorrupt):
        unseal(data + b"\0", NAME, KIND, root_of)


def test_an_object_without_its_last_frames_is_noticed(small_frames: int) -> None:
    """Cut at a frame, under a header and a digest that say so: what is then the last frame was not sealed as that."""
    plain = NOISE.randbytes(3 * small_frames)
    data = independent(plain, 6)
    for frames in (1, 2):
        length = frames * small_frames
        cut = data[:12] + length.to_bytes(8, "big") + data[20 : 64 + frames * (small_frames + 16)] + bytes(32)
        with pytest.raises(ObjectCorrupt, match="not what was sealed"):
            unseal(redigested(cut), NAME, KIND, root_of)


def test_frames_that_were_swapped_are_noticed(small_frames: int) -> None:
    """Each frame is authentic in its own place alone, in the whole object and in a part of it."""
    plain = NOISE.randbytes(3 * small_frames)
    data = sealed(plain)
    size = small_frames + 16
    frames = [data[64 + i * size : 64 + (i + 1) * size] for i in range(3)]
    header = parse_header(data, NAME)
    for order in ((1, 0, 2), (0, 2, 1), (0, 0, 2), (0, 1, 1), (2, 1, 0)):
        changed = redigested(data[:64] + b"".join(frames[i] for i in order) + bytes(32))
        with pytest.raises(ObjectCorrupt, match="not what was sealed"):
            unseal(changed, NAME, KIND, root_of)
    with pytest.raises(ObjectCorrupt, match=r"frame 1\)"):
        open_frames(frames[0], header, NAME, KIND, root_of, first=1, count=1)


def test_frames_of_another_object_are_noticed(small_frames: int) -> None:
    """Under the same name, of the same length: they have another key."""
    one = sealed(bytes(3 * small_frames))
    two = sealed(bytes(3 * small_frames), salt=hashlib.sha256(b"another salt").digest())
    at = 64 + small_frames + 16
    mixed = one[:at] + two[at:]

    with pytest.raises(ObjectCorrupt, match="not what was sealed"):
        unseal(redigested(mixed), NAME, KIND, root_of)


def test_an_object_under_another_name_is_noticed() -> None:
    """Renamed it is not what its name says, for who has the key and who has not, however its digest is."""
    data, other = sealed(b"content"), NAME.replace("1.segment", "2.segment")

    assert not has_digest(data, other)
    with pytest.raises(ObjectCorrupt, match="digest"):
        unseal(data, other, KIND, root_of)
    with pytest.raises(ObjectCorrupt, match="not what was sealed under this name"):
        unseal(redigested(data, other), other, KIND, root_of)


def test_an_object_of_another_kind_is_noticed() -> None:
    """A manifest is never taken for a segment, even where the names would agree."""
    data = sealed(b"content", kind=2)

    assert b"content" == unseal(data, NAME, 2, root_of)
    with pytest.raises(ObjectCorrupt, match="another kind"):
        unseal(data, NAME, KIND, root_of)
    with pytest.raises(ObjectCorrupt, match="not what was sealed"):
        unseal(redigested(data[:8] + bytes([KIND]) + data[9:]), NAME, KIND, root_of)


def test_another_root_opens_nothing() -> None:
    """The id names it; that what it names is the right one, the tag says."""
    data = sealed(b"content")

    with pytest.raises(ObjectCorrupt, match="not what was sealed"):
        unseal(data, NAME, KIND, another_root)


def test_a_key_that_is_not_there_is_told_by_whoever_looks_for_it() -> None:
    """What is raised for an unknown id comes through as it is."""

    def unknown(key_id: bytes) -> bytes:
        raise KeyRefused(key_id.hex())

    with pytest.raises(KeyRefused, match=KEY_ID.hex()):
        unseal(sealed(b"content"), NAME, KIND, unknown)


def test_nothing_is_given_out_before_all_of_it_is_authentic(small_frames: int) -> None:
    """The last frame of many is damaged: no plain byte of those before it comes out either."""
    data = sealed(NOISE.randbytes(3 * small_frames))
    header = parse_header(data, NAME)
    body = bytearray(data[64:-32])
    body[-1] ^= 1

    with pytest.raises(ObjectCorrupt, match=r"frame 2\)"):
        open_frames(bytes(body), header, NAME, KIND, root_of, first=0, count=3)
    with pytest.raises(ObjectCorrupt):
        open_frames(b"", header, NAME, KIND, root_of, first=0, count=1)


# --- hostile headers -----------------------------------------------------------------------------------


def put(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda head: struct.pack_into(form, head, offset, value)


@pytest.mark.parametrize(
    ("change", "error", "fault"),
    [
        (put(7, "B", 0), ObjectCorrupt, "not encrypted"),
        (put(0, "B", 0x7B), ObjectCorrupt, "not encrypted"),
        (put(7, "B", 2), FormatTooNew, "format 2"),
        (put(7, "B", 255), FormatTooNew, "format 255"),
        (put(9, "B", 1), FormatTooNew, "codec 1"),
        (put(10, "B", 0), ObjectCorrupt, "never written"),
        (put(10, "B", 21), ObjectCorrupt, "never written"),
        (put(10, "B", 63), ObjectCorrupt, "never written"),
        (put(10, "B", 255), ObjectCorrupt, "never written"),
        (put(12, ">Q", PLAIN_BYTES_MAX + 1), ObjectCorrupt, "never written"),
        (put(12, ">Q", 1 << 63), ObjectCorrupt, "never written"),
        (put(12, ">Q", (1 << 64) - 1), ObjectCorrupt, "never written"),
    ],
)
def test_headers_that_are_never_written_are_refused(
    change: Callable[[bytearray], None], error: type[Exception], fault: str
) -> None:
    """Before anything behind them is looked at, and with the name of the object."""
    head = bytearray(sealed(b"content")[:HEADER_SIZE])
    change(head)

    with pytest.raises(error, match=f"{NAME}.*{fault}"):
        parse_header(bytes(head), NAME)


@pytest.mark.parametrize("claimed", [0, 6, 8, 65_536, 1 << 30, PLAIN_BYTES_MAX])
def test_a_length_that_is_a_lie_costs_nothing(claimed: int) -> None:
    """Whatever an object says of its length, it is compared with what is there, and no key is asked for."""
    data = independent(b"content", 16, length=claimed)

    def nobody(_: bytes) -> bytes:
        raise AssertionError

    with pytest.raises(ObjectCorrupt, match=f"has {len(data)} bytes instead of"):
        unseal(data, NAME, KIND, nobody)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Whatever is no sealed object is ObjectCorrupt; a plain one is told of as that."""
    with pytest.raises(ObjectCorrupt, match=r"cut off|not encrypted"):
        unseal(data, NAME, KIND, root_of)


@given(st.binary(min_size=56, max_size=56))
def test_any_header_is_bounded(rest: bytes) -> None:
    """Random bytes behind the right magic are refused, or claim what a reader can hold."""
    try:
        header = parse_header(b"RPLSEAL\x01" + rest, NAME)
    except (ObjectCorrupt, FormatTooNew):
        return

    assert 2 <= header.frame_bytes <= 1 << 20
    assert header.plain_bytes <= PLAIN_BYTES_MAX
    offset, length = header.extent(header.frames - 1, 1)
    assert offset + length + DIGEST_SIZE == header.sealed_bytes


def test_nothing_shows_a_secret() -> None:
    """Neither a header nor an error has the root in it, or anything derived from it."""
    data = sealed(b"content")
    shown = repr(parse_header(data, NAME))
    with pytest.raises(ObjectCorrupt) as caught:
        unseal(data, NAME, KIND, another_root)
    shown += str(caught.value) + repr(caught.value) + str(caught.value.hint)

    for secret in (ROOT, another_root(b""), hkdf(ROOT, SALT, b"replicator object 1")):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
