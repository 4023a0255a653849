"""Packs: frames that read back by themselves, the digest that covers the pack's name, and what is refused."""

import hashlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.codec import CODEC_DEFLATE, CODEC_NONE, CODEC_ZSTD, DEFAULT, Compression, compress
from replicator.core.errors import ObjectCorrupt
from replicator.core.named_digest import digest_of, has_digest
from replicator.core.pack import (
    HEAD,
    Frame,
    PackBuilder,
    PackUse,
    check_pack,
    decode_frame,
    encode_frame,
    read_frame,
)

NOISE = random.Random(4)
COMPRESSIONS = [DEFAULT, Compression(CODEC_NONE, 0), Compression(CODEC_DEFLATE, 6)]
EACH = pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
NAME = "full/the-pack.pack"


def pack_of(*contents: bytes, compression: Compression = DEFAULT) -> tuple[bytes, list[Frame]]:
    builder = PackBuilder(0)
    frames = [builder.add(encode_frame(each, compression), len(each)) for each in contents]
    pack = builder.take(NAME)
    assert pack is not None
    return pack, frames


# --- written and read ----------------------------------------------------------------------------------


@EACH
def test_packs_hold_the_frames_that_were_added(compression: Compression) -> None:
    """Each frame lies where it says, in the pack it says, and expands to what was put in."""
    builder = PackBuilder(first_pack=4)
    contents = [NOISE.randbytes(16384) + bytes(16384), b"last", NOISE.randbytes(100)]
    frames = [builder.add(encode_frame(each, compression), len(each)) for each in contents[:2]]
    packs = {4: builder.take("the fourth")}
    frames.append(builder.add(encode_frame(contents[2], compression), len(contents[2])))
    packs[5] = builder.take("the fifth")

    assert [4, 4, 5] == [frame.pack for frame in frames]
    assert [8, 8 + frames[0].stored_bytes, 8] == [frame.offset for frame in frames]
    for frame, content in zip(frames, contents, strict=True):
        pack = packs[frame.pack]
        assert pack is not None
        stored = pack[frame.offset : frame.offset + frame.stored_bytes]
        assert content == decode_frame(frame, stored, "the pack")


@EACH
def test_a_pack_is_laid_out_as_the_format_says(compression: Compression) -> None:
    """Magic, version, frames that begin with their codec, SHA-256 of the name, a zero byte and all before."""
    pack, _ = pack_of(b"one" * 50, b"two", compression=compression)
    frames = [
        bytes([compression.codec]) + compress(content, compression) for content in (b"one" * 50, b"two")
    ]
    body = b"RPLPACK\x01" + b"".join(frames)

    assert body + hashlib.sha256(NAME.encode() + b"\0" + body).digest() == pack


def test_an_empty_pack_is_none() -> None:
    """A builder that was given nothing has nothing to put, and no number is used up."""
    builder = PackBuilder(0)

    assert builder.take("a") is None
    assert builder.take("b") is None
    assert len(HEAD) == builder.size
    assert 0 == builder.add(b"x", 1).pack
    assert len(HEAD) + 1 == builder.size


def test_a_frame_is_fetched_by_itself() -> None:
    """Its pack by number, its place in it, and nothing else."""
    pack, frames = pack_of(b"one" * 50, b"two" * 60)
    uses = (PackUse("another", 5), PackUse(NAME, len(pack)))
    asked: list[tuple[str, int, int]] = []

    def get_range(name: str, offset: int, length: int) -> bytes:
        asked.append((name, offset, length))
        return pack[offset : offset + length]

    assert b"two" * 60 == read_frame(replace(frames[1], pack=1), uses, get_range)
    assert [(NAME, frames[1].offset, frames[1].stored_bytes)] == asked


# --- damage --------------------------------------------------------------------------------------------


@EACH
def test_a_damaged_frame_names_its_pack_and_place(compression: Compression) -> None:
    """Bytes that do not expand, or to another length, are ObjectCorrupt with the pack's name and the offset."""
    pack, (frame,) = pack_of(b"content" * 50, compression=compression)
    stored = pack[frame.offset : frame.offset + frame.stored_bytes]
    changes: list[tuple[Frame, bytes]] = [
        (frame, b""),
        (frame, stored[:1]),
        (frame, stored[:-1]),
        (frame, stored + b"\0"),
        (frame, b"\3" + stored[1:]),
        (frame, b"\xff" + stored[1:]),
        (replace(frame, plain_bytes=frame.plain_bytes + 1), stored),
        (replace(frame, plain_bytes=frame.plain_bytes - 1), stored),
    ]
    if compression.codec != CODEC_NONE:
        changes.append((frame, stored[:1] + b"\xff" * (len(stored) - 1)))

    for each, data in changes:
        with pytest.raises(ObjectCorrupt, match=f"{NAME} is damaged at byte 8") as caught:
            decode_frame(each, data, NAME)
        assert NAME == caught.value.name


@pytest.mark.parametrize("codec", [CODEC_NONE, CODEC_ZSTD, CODEC_DEFLATE])
def test_a_frame_says_its_codec_itself(codec: int) -> None:
    """Frames of one pack may differ in it, and another codec's byte before the same bytes does not expand."""
    right = next(each for each in COMPRESSIONS if each.codec == codec)
    content = NOISE.randbytes(300)
    stored = encode_frame(content, right)

    assert content == decode_frame(Frame(0, 8, len(stored), 300), stored, NAME)
    for other in {CODEC_NONE, CODEC_ZSTD, CODEC_DEFLATE} - {codec}:
        with pytest.raises(ObjectCorrupt):
            decode_frame(Frame(0, 8, len(stored), 300), bytes([other]) + stored[1:], NAME)


def test_every_flipped_bit_of_a_pack_is_noticed() -> None:
    """By whoever reads it as a whole: each bit of it, and each cut."""
    pack, _ = pack_of(b"one" * 50, b"two")
    check_pack(pack, NAME)
    for offset in range(len(pack)):
        for bit in range(8):
            changed = pack[:offset] + bytes([pack[offset] ^ 1 << bit]) + pack[offset + 1 :]
            with pytest.raises(ObjectCorrupt, match=NAME):
                check_pack(changed, NAME)
        with pytest.raises(ObjectCorrupt, match=NAME):
            check_pack(pack[:offset], NAME)
    with pytest.raises(ObjectCorrupt, match=NAME):
        check_pack(pack + b"\0", NAME)


def test_a_pack_under_another_name_is_noticed() -> None:
    """Two packs that were swapped are each whole, and neither is what its name says."""
    pack, _ = pack_of(b"one" * 50)

    with pytest.raises(ObjectCorrupt, match=r"other\.pack does not have the digest"):
        check_pack(pack, "full/other.pack")


# --- the digest at the end -----------------------------------------------------------------------------


@given(st.binary(max_size=200), st.text(max_size=30))
def test_a_digest_is_of_name_and_content(content: bytes, name: str) -> None:
    """SHA-256 of the name, a zero byte and what is before it; of bytes in whatever form."""
    digest = hashlib.sha256(name.encode() + b"\0" + content).digest()

    assert digest == digest_of(content, name) == digest_of(memoryview(content), name)
    assert has_digest(content + digest, name)
    assert has_digest(memoryview(content + digest), name)
    assert not has_digest(content + digest, name + "x")
    assert not has_digest(content + b"x" + digest, name)
    assert not has_digest(content + digest + b"x", name)


def test_what_is_shorter_than_a_digest_has_none() -> None:
    """Nothing but the digest of nothing is the shortest that has one."""
    empty = hashlib.sha256(b"name\0").digest()

    assert has_digest(empty, "name")
    assert [False] * 32 == [has_digest(empty[:length], "name") for length in range(32)]
