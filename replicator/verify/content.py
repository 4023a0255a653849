"""What backups and their packs say to each other: packs that manifests need, chunks and pages behind their hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from replicator.core.catalogue import GenerationListing
from replicator.core.checksum import pages_checksum
from replicator.core.coverage import Base, Span
from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.full import HASH_SIZE, SHA256, TABLE_CHUNKS, Manifest, Table, chunk_hash, read_tables
from replicator.core.incremental import Incremental, is_on, pages_in, read_page_frames
from replicator.core.key_ring import Root
from replicator.core.names import BackupName, CarrierName
from replicator.core.pack import decode_frame, read_frame
from replicator.core.pieces import Piece, pieces_of
from replicator.core.restore_plan import chain_of
from replicator.repository import Repository

Tell = Callable[[str, str], None]
"""An object's name and what is wrong with it."""


@dataclass(slots=True)
class Read:
    """What was learnt of one generation: backups and carriers by name, holes between these that no backup ends, which
    objects are hurt, and where backups stood that are gone."""

    listing: GenerationListing
    manifests: dict[BackupName, Manifest | Incremental] = field(default_factory=dict)
    spans: dict[CarrierName, Span] = field(default_factory=dict)
    holes: list[Span] = field(default_factory=list)
    hurt: set[str] = field(default_factory=set)
    gone: list[Base] = field(default_factory=list)


def read_backups(repository: Repository, read: Read, tell: Tell) -> None:
    """Every manifest, and whether the packs are there that it needs, as long as it says."""
    sizes = repository.catalogue.sizes
    for name in read.listing.backups:
        try:
            manifest = repository.backup(name)
        except (ObjectCorrupt, ObjectNotFound) as exc:
            tell(exc.name or str(name), str(exc))
            read.hurt.add(str(name))
            continue
        read.manifests[name] = manifest
        for pack in manifest.packs:
            if sizes.get(pack.name, -1) < pack.size_bytes:
                tell(pack.name, f"it is missing or short, and {name.backup_id} needs it")
                read.hurt |= {str(name), pack.name}
    for name, manifest in read.manifests.items():
        if isinstance(manifest, Incremental):
            _check_parent(read, name, manifest, tell)


def _check_parent(read: Read, name: BackupName, manifest: Incremental, tell: Tell) -> None:
    chain = chain_of(read.listing, name)
    if chain is None:
        tell(str(name), f"the backup it lies on, {manifest.parent}, is gone")
        read.hurt.add(str(name))
        return
    parents: list[BackupName] = [chain[0], *chain[1]]
    parent = parents[-2]
    below = read.manifests.get(parent)
    if below is not None and not is_on(manifest, parent, below.chain):
        tell(str(name), f"it was not made on {parent.backup_id}, which stands at its beginning")
        read.hurt.add(str(name))


def bases_of(read: Read) -> list[Base]:
    """The backups, and whether all that each rests on is whole; with those that are gone."""
    found: list[Base] = list(read.gone)
    for name in read.listing.backups:
        chain = chain_of(read.listing, name)
        needed: list[BackupName] = [chain[0], *chain[1]] if chain is not None else []
        manifest = read.manifests.get(name)
        time = manifest.observed if manifest is not None else name.time
        whole = bool(needed) and not any(str(each) in read.hurt for each in needed)
        found.append(Base(name.txid, time, whole))
    return found


def spans_of(read: Read) -> list[Span]:
    return [*read.spans.values(), *read.holes]


# --- what lies in packs --------------------------------------------------------------------------------


def check_full(
    repository: Repository, manifest: Manifest, dedup: Root | None, look: Callable[[], None]
) -> Iterator[str]:
    """Every chunk against its hash, and all of them against the checksum of the database. Yields what is wrong, as
    `pack: fault`; each pack once."""
    told: set[str] = set()
    total = 0
    try:
        for number, table in enumerate(read_tables(manifest, repository.store.get_range)):
            for piece in pieces_of(table, 0):
                look()
                pack = manifest.packs[piece.pack].name
                try:
                    total ^= _check_piece(repository, manifest, table, piece, number * TABLE_CHUNKS, dedup)
                except (ObjectCorrupt, ObjectNotFound) as exc:
                    if pack not in told:
                        told.add(pack)
                        yield f"{pack}: {exc}"
    except (ObjectCorrupt, ObjectNotFound) as exc:
        yield f"{exc.name or manifest.name}: {exc}"
        return
    if not told and total != int(manifest.checksum, 16):
        yield f"{manifest.name}: its chunks do not add up to the checksum of its database"


def _check_piece(
    repository: Repository, manifest: Manifest, table: Table, piece: Piece, first: int, dedup: Root | None
) -> int:
    """The XOR of the hashes of the pages in it. *first*: number of the table's first chunk in the database."""
    pack = manifest.packs[piece.pack].name
    stored = memoryview(repository.store.get_range(pack, piece.offset, piece.length))
    plainly = manifest.hashes == SHA256
    keyed = dedup is not None and manifest.hashes.endswith(f":{dedup.key_id}")
    key = dedup.secret if dedup is not None and keyed else None
    size, checksum = manifest.chunk_bytes, 0
    for frame, slots in piece.frames:
        start = frame.offset - piece.offset
        plain = decode_frame(frame, stored[start : start + frame.stored_bytes], pack)
        for index, slot in ((i + n, s + n) for i, s, count in slots for n in range(count)):
            chunk = plain[slot * size :][: manifest.chunks_length(first + index)]
            known = table.hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE]
            if (plainly or keyed) and chunk_hash(chunk, key) != known:
                raise ObjectCorrupt(f"chunk {first + index} has another hash", name=pack)
            pgno = (first + index) * size // manifest.page_size + 1
            checksum ^= pages_checksum(chunk, pgno, manifest.page_size)
    return checksum


def check_incremental(
    repository: Repository, manifest: Incremental, look: Callable[[], None]
) -> Iterator[str]:
    """Every page against its hash."""
    told: set[str] = set()
    try:
        for each in read_page_frames(manifest, repository.store.get_range):
            look()
            pack = manifest.packs[each.frame.pack].name
            try:
                plain = read_frame(each.frame, manifest.packs, repository.store.get_range)
                for _ in pages_in(plain, each, manifest.page_size, pack):
                    pass
            except (ObjectCorrupt, ObjectNotFound) as exc:
                if pack not in told:
                    told.add(pack)
                    yield f"{pack}: {exc}"
    except (ObjectCorrupt, ObjectNotFound) as exc:
        yield f"{exc.name or manifest.name}: {exc}"
