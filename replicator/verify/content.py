"""What objects say to each other: packs that manifests need, chunks and pages behind their hashes, units that chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from replicator.core.catalogue import GenerationListing
from replicator.core.checksum import pages_checksum
from replicator.core.coverage import Base, Span
from replicator.core.errors import ObjectCorrupt, ObjectNotFound
from replicator.core.full import HASH_SIZE, SHA256, TABLE_CHUNKS, Manifest, Table, chunk_hash, read_tables
from replicator.core.incremental import Incremental, is_on, pages_in, read_page_frames
from replicator.core.key_ring import Root
from replicator.core.names import BackupName, CarrierName, LogName
from replicator.core.pack import decode_frame, read_frame
from replicator.core.pieces import Piece, pieces_of
from replicator.core.restore_plan import chain_of
from replicator.core.unit import follows
from replicator.repository import Carried, Repository

Tell = Callable[[str, str], None]
"""An object's name and what is wrong with it."""


@dataclass(slots=True)
class Read:
    """What was learnt of one generation: backups and carriers by name, and which of them are hurt."""

    listing: GenerationListing
    manifests: dict[BackupName, Manifest | Incremental] = field(default_factory=dict)
    spans: dict[CarrierName, Span] = field(default_factory=dict)
    hurt: set[str] = field(default_factory=set)


def read_backups(repository: Repository, read: Read, tell: Tell) -> None:
    """Every manifest, and whether the packs are there that it needs, as long as it says."""
    sizes = repository.catalogue.sizes
    for name in read.listing.backups:
        try:
            manifest = repository.backup(name)
        except (ObjectCorrupt, ObjectNotFound) as exc:
            tell(str(name), str(exc))
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


def read_carriers(repository: Repository, read: Read, tell: Tell, look: Callable[[], None]) -> None:
    """Every log and segment: its units, one behind the other, each chained to the one before. What lies after a hole
    has to begin where a backup stands, or nothing leads there."""
    stands = {backup.txid for backup in read.listing.backups}
    before: tuple[int, bytes, int] | None = None  # txid, digest, part
    time = 0
    carriers = read.listing.carriers
    for number, name in enumerate(carriers):
        look()
        try:
            carried = repository.carried(name)
            before = _check_chain(carried, before, stands, tell)
        except (ObjectCorrupt, ObjectNotFound) as exc:
            tell(str(name), str(exc))
            read.hurt.add(str(name))
            following = carriers[number + 1] if number + 1 < len(carriers) else None
            read.spans[name] = _unread_span(name, following, time)
            before = None
            continue
        first, last = carried.headers[0], carried.headers[-1]
        read.spans[name] = Span(
            first.txid_first, last.txid_last if last.commits else last.txid_first - 1,
            first.observed_first, last.observed_last,
        )  # fmt: skip
        time = last.observed_last


def _unread_span(name: CarrierName, following: CarrierName | None, time: int) -> Span:
    """As far as names tell: up to what follows."""
    if isinstance(name, LogName):
        return Span(name.txid_first, name.txid_last, time or name.time, name.time, whole=False)
    last = following.txid_first - 1 if following is not None else name.txid_first
    return Span(name.txid_first, max(last, name.txid_first), time, time, whole=False)


def _check_chain(
    carried: Carried, before: tuple[int, bytes, int] | None, stands: set[int], tell: Tell
) -> tuple[int, bytes, int]:
    name = str(carried.name)
    if not carried.holds_what_it_says:
        raise ObjectCorrupt("it lies under a name not its own")
    for unit in carried.units():
        header = unit.header
        if before is not None:
            txid, digest, part = before
            expected_part = part + 1 if part else (1 if header.part else 0)
            goes_on = header.txid_first == txid + 1 and header.part == expected_part
            if goes_on and not follows(header, digest):
                raise ObjectCorrupt(f"it does not chain to what is before it (txid {header.txid_first:016x})")
            if not goes_on and header.txid_first - 1 not in stands:
                tell(
                    name,
                    f"transactions {txid + 1:016x} to {header.txid_first - 1:016x} before it are missing",
                )
        ends = header.commits
        before = (
            header.txid_last if ends else header.txid_first - 1,
            unit.digest,
            0 if ends else header.part,
        )
    assert before is not None
    return before


def spans_by_name(read: Read) -> None:
    """Without reading any: where they begin, and up to what follows."""
    carriers = read.listing.carriers
    for number, name in enumerate(carriers):
        following = carriers[number + 1] if number + 1 < len(carriers) else None
        span = _unread_span(name, following, 0)
        read.spans[name] = replace(span, whole=str(name) not in read.hurt)


def bases_of(read: Read) -> list[Base]:
    """The backups, and whether all that each rests on is whole."""
    found: list[Base] = []
    for name in read.listing.backups:
        chain = chain_of(read.listing, name)
        needed: list[BackupName] = [chain[0], *chain[1]] if chain is not None else []
        manifest = read.manifests.get(name)
        time = manifest.observed if manifest is not None else name.time
        whole = bool(needed) and not any(str(each) in read.hurt for each in needed)
        found.append(Base(name.txid, time, whole))
    return found


def spans_of(read: Read) -> list[Span]:
    return list(read.spans.values())


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
