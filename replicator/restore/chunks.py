"""The first half of a restore: the chunks of a full backup, fetched in parallel, into the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from replicator.core.checksum import pages_checksum
from replicator.core.errors import ObjectCorrupt
from replicator.core.full import HASH_SIZE, SHA256, TABLE_CHUNKS, Manifest, Table, chunk_hash, read_tables
from replicator.core.neighbours import neighbours
from replicator.core.pack import decode_frame
from replicator.core.pieces import Piece, pieces_of
from replicator.restore.image import Image
from replicator.restore.pages import Covered
from replicator.store import Store


def restore_chunks(
    store: Store,
    manifest: Manifest,
    image: Image,
    *,
    covered: Covered | None = None,
    jobs: int,
    report: Callable[[int], None],
) -> None:
    """Write every chunk, but for pages that are *covered*. Raises ObjectCorrupt, naming the pack, if what was read is
    not what was stored.

    *report* is called with bytes of the database written, in the caller's thread, and may raise to stop.
    """
    total = 0
    pieces = _pieces(store, manifest)
    with ThreadPoolExecutor(jobs, thread_name_prefix="restore") as pool:
        running: set[Future[tuple[int, int]]] = set()
        try:
            exhausted = False
            while running or not exhausted:
                while not exhausted and len(running) < jobs * 2:
                    piece = next(pieces, None)
                    if piece is None:
                        exhausted = True
                    else:
                        running.add(pool.submit(_restore_piece, store, manifest, image, covered, piece))
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                written = 0
                for each in done:
                    size, checksum = each.result()
                    written, total = written + size, total ^ checksum
                report(written)
        except BaseException:
            for each in running:
                each.cancel()
            raise
    if total != int(manifest.checksum, 16):
        _name_the_damage(store, manifest)


def _pieces(store: Store, manifest: Manifest) -> Iterator[Piece]:
    """Table by table, so that only one is in memory."""
    for number, table in enumerate(read_tables(manifest, store.get_range)):
        yield from pieces_of(table, number * TABLE_CHUNKS)


def _restore_piece(
    store: Store, manifest: Manifest, image: Image, covered: Covered | None, piece: Piece
) -> tuple[int, int]:
    try:
        return _expand_piece(store, manifest, image, covered, piece)
    except ObjectCorrupt as exc:
        exc.name = manifest.packs[piece.pack].name
        raise


def _expand_piece(
    store: Store, manifest: Manifest, image: Image, covered: Covered | None, piece: Piece
) -> tuple[int, int]:
    pack = manifest.packs[piece.pack].name
    stored = memoryview(store.get_range(pack, piece.offset, piece.length))
    size = checksum = 0
    for frame, slots in piece.frames:
        start = frame.offset - piece.offset
        plain = memoryview(decode_frame(frame, stored[start : start + frame.stored_bytes], pack))
        for index, slot, count in slots:
            begin, length = slot * manifest.chunk_bytes, manifest.chunks_length(index, count)
            content = plain[begin : begin + length]
            if len(content) != length:
                raise ObjectCorrupt(f"{pack} is damaged: chunk {index + count - 1} is cut off")
            first = index * manifest.chunk_bytes // manifest.page_size + 1
            checksum ^= pages_checksum(content, first, manifest.page_size)
            if covered is None:
                image.write_at(index * manifest.chunk_bytes, content)
            else:
                _write_uncovered(image, covered, first, content)
            size += length
    return size, checksum


def _write_uncovered(image: Image, covered: Covered, first: int, content: memoryview) -> None:
    size = image.page_size
    left = [pgno for pgno in range(first, first + len(content) // size) if pgno not in covered]
    for run in neighbours(left, len(left)) if left else ():
        begin = (run[0] - first) * size
        image.write_at((run[0] - 1) * size, content[begin : begin + len(run) * size])


def _name_the_damage(store: Store, manifest: Manifest) -> None:
    """The sum is wrong: find the chunk that is, by its SHA-256, for the error to name. Keyed hashes tell it to
    whoever holds the ring (verify); but what was sealed was authenticated when it was read."""
    for number, table in enumerate(read_tables(manifest, store.get_range)):
        for piece in pieces_of(table, 0) if manifest.hashes == SHA256 else ():
            _check_piece(store, manifest, table, piece, number * TABLE_CHUNKS)
    raise ObjectCorrupt(
        f"the chunks of {manifest.name} do not add up to the checksum of its database",
        name=str(manifest.name),
    )


def _check_piece(store: Store, manifest: Manifest, table: Table, piece: Piece, first: int) -> None:
    pack = manifest.packs[piece.pack].name
    stored = store.get_range(pack, piece.offset, piece.length)
    for frame, slots in piece.frames:
        start = frame.offset - piece.offset
        plain = decode_frame(frame, stored[start : start + frame.stored_bytes], pack)
        for index, slot in ((i + n, s + n) for i, s, count in slots for n in range(count)):
            chunk = plain[slot * manifest.chunk_bytes :][: manifest.chunks_length(first + index)]
            if chunk_hash(chunk) != table.hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE]:
                raise ObjectCorrupt(
                    f"{pack} is damaged: chunk {first + index} at byte {frame.offset} has another hash",
                    name=pack,
                )
