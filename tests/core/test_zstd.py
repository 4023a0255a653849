"""Expansion is bounded by what is expected, not by what a frame claims."""

import contextlib
import random
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import zstd

NOISE = random.Random(1).randbytes(4096)


def undeclared(content: bytes) -> bytes:
    """A frame that does not say how long its content is: legal, and what a hostile one would do."""
    options = {zstd.zstd.CompressionParameter.content_size_flag: 0}
    frame = zstd.zstd.compress(content, options=options)
    assert zstd.zstd.get_frame_info(frame).decompressed_size is None
    return frame


# A prefix is whole pages, or nothing; zstd itself takes none of fewer than eight bytes.
@given(content=st.binary(max_size=2000), prefix=st.one_of(st.just(b""), st.binary(min_size=8, max_size=2000)))
def test_what_is_compressed_expands(content: bytes, prefix: bytes) -> None:
    """With any prefix, and without one, the content comes back."""
    assert content == zstd.expand(zstd.compress(content, prefix), len(content), prefix)


def test_a_prefix_makes_its_content_cheap() -> None:
    """Noise that lies in the prefix costs next to nothing."""
    assert len(zstd.compress(NOISE, NOISE)) < 40
    assert len(zstd.compress(NOISE)) > 4096


@pytest.mark.parametrize("wanted", [0, 1, 4095, 4097, 1 << 30])
def test_another_length_than_declared_is_refused(wanted: int) -> None:
    """The frame's own claim is looked at before anything is expanded."""
    with pytest.raises(zstd.ZstdError, match="declares 4096 bytes"):
        zstd.expand(zstd.compress(NOISE), wanted)


@pytest.mark.parametrize("wanted", [0, 1, 4095, 4097])
def test_another_length_without_a_declaration_is_refused(wanted: int) -> None:
    """A frame that declares nothing has to end exactly where it is expected to."""
    assert NOISE == zstd.expand(undeclared(NOISE), 4096)
    with pytest.raises(zstd.ZstdError, match="exactly"):
        zstd.expand(undeclared(NOISE), wanted)


def test_a_bomb_is_not_expanded() -> None:
    """512 MiB of zeros behind a few kilobytes, with or without a declared size, cost no memory to refuse."""
    compressor = zstd.zstd.ZstdCompressor(level=1)
    parts = [compressor.compress(bytes(1 << 20)) for _ in range(512)]
    silent = b"".join(parts) + compressor.flush()
    liar = bytearray(zstd.compress(bytes(16_384)))
    claim = liar.index((16_384 - 256).to_bytes(2, "little"))
    liar[claim : claim + 2] = (4096 - 256).to_bytes(2, "little")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in (silent, bytes(liar)):
        with pytest.raises(zstd.ZstdError):
            zstd.expand(bomb, 4096)
    with pytest.raises(zstd.ZstdError, match="declares"):
        zstd.expand(zstd.compress(bytes(64 << 20)), 4096)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert zstd.zstd.get_frame_info(silent).decompressed_size is None
    assert len(silent) < 100_000
    assert grown_kib < 100_000  # compressing the 64 MiB cost them, expanding nothing


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda frame: frame[:-1], "cut off"),
        (lambda frame: frame[:5], "cut off in its header"),
        (lambda frame: b"", "empty"),
        (lambda frame: b"\0" * 20, "no frame"),
        (lambda frame: frame + b"x", "something behind it"),
        (lambda frame: frame + frame, "two frames"),
        (lambda frame: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + frame, "a skippable frame before it"),
        (lambda frame: b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "nothing but a skippable frame"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_but_one_whole_frame_is_refused(change: object, fault: str) -> None:
    """One frame, whole, and nothing around it."""
    for frame in (zstd.compress(NOISE), undeclared(NOISE)):
        with pytest.raises(zstd.ZstdError):
            zstd.expand(change(frame), 4096)  # type: ignore[operator]


def test_a_frame_without_its_end_is_refused() -> None:
    """All content is there, but nobody said that it was all."""
    compressor = zstd.zstd.ZstdCompressor()
    frame = compressor.compress(NOISE) + compressor.flush(compressor.FLUSH_BLOCK)
    end = compressor.flush()

    assert NOISE == zstd.expand(frame + end, 4096)
    with pytest.raises(zstd.ZstdError, match="exactly"):
        zstd.expand(frame, 4096)


@given(frame=st.binary(max_size=200), length=st.integers(0, 5000), prefix=st.sampled_from([b"", NOISE]))
def test_any_bytes_expand_or_are_refused(frame: bytes, length: int, prefix: bytes) -> None:
    """Foreign bytes end in ZstdError or in exactly the length asked for."""
    for data in (frame, b"\x28\xb5\x2f\xfd" + frame):
        with contextlib.suppress(zstd.ZstdError):
            assert length == len(zstd.expand(data, length, prefix))


def test_without_its_prefix_a_frame_is_wrong_or_refused() -> None:
    """zstd does not notice a wrong prefix by itself: that is why each block carries the hash of its own."""
    frame = zstd.compress(NOISE, NOISE)
    try:
        found = zstd.expand(frame, 4096, bytes(4096))
    except zstd.ZstdError:
        return

    assert NOISE != found
