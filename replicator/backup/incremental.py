"""Incremental: the newest version of each page changed since the backup before, at one position, with no download.

Capture keeps the short hash of every changed page. So a page of the main file is simply read at leisure: if it has the
hash that it has at the end, it is the right one, and if not it is read again, the last of them exactly, from the log or
the main file, with capture held still.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from replicator.backup.earlier import missing_packs
from replicator.backup.full import ContentDiffers
from replicator.backup.making import AS_USUAL, Making
from replicator.backup.packs import PackWriter, put_once
from replicator.clock import Clock
from replicator.core.changed_pages import ChangedPages
from replicator.core.checksum import page_hash, short_hash
from replicator.core.codec import Compression
from replicator.core.errors import Interrupted, ObjectNotFound, ReplicatorError
from replicator.core.full import Manifest
from replicator.core.incremental import FRAME_BYTES, Incremental, PageFrame, encode_incremental, page_tables
from replicator.core.manifest import TableUse, table_digest
from replicator.core.names import INCREMENTAL, PackName
from replicator.core.neighbours import neighbours
from replicator.core.pack import encode_frame
from replicator.core.records import CHECKSUMMED, EventRecord
from replicator.core.unit_build import Lineage
from replicator.events import note_event
from replicator.moment import Followed, Moment
from replicator.state import StateFolder
from replicator.store import Store

log = logging.getLogger(__name__)

# What is left for the end is read and compressed with capture held still: some milliseconds.
LEFT_FOR_THE_END = 512
PASSES_MAX = 6
# Beyond so many changed pages (half a gibibyte of 4 KiB) a full backup, which shares its chunks, costs little more; and
# each is a hundred bytes of memory here.
PAGES_MAX = 1 << 17


class NoParent(Exception):
    """There is nothing in the store that an incremental could lie on; the reason goes to whoever asked."""


@dataclass(frozen=True, slots=True)
class IncrementalResult:
    """``manifest`` None: nothing changed, and nothing was stored."""

    manifest: Incremental | None
    seconds: float


@dataclass(slots=True)
class _Work:
    followed: Followed
    parent: Manifest | Incremental
    lineage: Lineage
    writer: PackWriter
    compression: Compression
    verification: bool
    frames: list[PageFrame]
    plain_bytes: int = 0

    @property
    def pages_per_frame(self) -> int:
        return max(1, FRAME_BYTES // self.lineage.page_size)


class IncrementalBackup:
    """Makes incrementals for one store. Not to be run twice at a time. The rest is as for fulls."""

    def __init__(
        self,
        store: Store,
        state: StateFolder,
        clock: Clock,
        *,
        confirm: Callable[[], None],
        trouble: Callable[[ReplicatorError | None], None],
        verification: bool,
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._state = state
        self._clock = clock
        self._confirm = confirm
        self._trouble = trouble
        self._verification = verification
        self._stop = stop

    def run(
        self, followed: Followed, parent: Manifest | Incremental, making: Making = AS_USUAL
    ) -> IncrementalResult:
        """Make one that lies on *parent*. Raises NoParent where what changed since is not known, ContentDiffers,
        StoreError, SourceError, or Interrupted."""
        began = self._clock.now()
        with followed.hold_still() as moment:
            tip, lineage, changed = moment.tip, moment.lineage, moment.changed.copy()
        if parent.generation != lineage.generation or parent.txid < changed.since or parent.txid > tip.txid:
            raise NoParent(f"which pages changed since {parent.position} is not known any more")
        if parent.txid == tip.txid:
            return IncrementalResult(None, 0.0)
        time = tip.observed // 1_000_000 * 1_000_000
        writer = PackWriter(
            self._store, (),
            lambda: str(PackName(time, lineage.generation, tip.txid, secrets.token_hex(8), INCREMENTAL)),
            require=followed.require_followed, trouble=self._trouble, stop=self._stop,
        )  # fmt: skip
        work = _Work(
            followed, parent, lineage, writer,
            making.compression(lineage.compression), making.verification(self._verification), [],
        )  # fmt: skip
        moment = self._read(work, changed, tip.pages)
        manifest = self._manifest(work, moment)
        if work.verification:
            writer.read_back()
        self._put(manifest, verification=work.verification)
        seconds = self._clock.now() - began
        log.info(
            "incremental.stored",
            extra={
                "store": self._store.url,
                "txid": f"{manifest.txid:016x}",
                "pages": manifest.pages_stored,
                "bytes_out": manifest.stored_bytes,
                "duration_ms": round(seconds * 1000),
            },
        )
        return IncrementalResult(manifest, seconds)

    # --- reading ---------------------------------------------------------------------------------------

    def _read(self, work: _Work, changed: ChangedPages, pages: int) -> Moment:
        """Passes over what is not right yet, until little is left."""
        since, wanted = work.parent.txid, dict[int, int]()
        for number in range(1, PASSES_MAX + 1):
            wanted.update(islice(changed.newer_than(since, pages), PAGES_MAX + 1))
            if len(wanted) > PAGES_MAX:
                raise NoParent(f"more than {PAGES_MAX} pages changed since {work.parent.position}")
            since = changed.txid
            wanted = self._read_main(work, wanted) if len(wanted) > LEFT_FOR_THE_END else wanted
            with work.followed.hold_still() as moment:
                new = dict(moment.changed.newer_than(since, moment.tip.pages))
                if len(wanted) + len(new) <= LEFT_FOR_THE_END or number == PASSES_MAX:
                    left = {
                        pgno: value for pgno, value in {**wanted, **new}.items() if pgno <= moment.tip.pages
                    }
                    self._read_exactly(work, moment, left)
                    return moment
                changed, pages = moment.changed.copy(), moment.tip.pages
        raise AssertionError("the last pass returns")

    def _read_main(self, work: _Work, wanted: dict[int, int]) -> dict[int, int]:
        """Pages of the main file as they are just now; returns those that do not have their hash (yet)."""
        size, left = work.lineage.page_size, dict[int, int]()
        for run in neighbours(sorted(wanted), work.pages_per_frame):
            if self._stop.is_set():
                raise Interrupted("the incremental backup was stopped")
            content = work.followed.database.main_bytes((run[0] - 1) * size, len(run) * size)
            good: list[tuple[int, bytes]] = []
            for number, pgno in enumerate(run):
                page = content[number * size : (number + 1) * size]
                if short_hash(page_hash(pgno, page)) == wanted[pgno]:
                    good.append((pgno, page))
                else:
                    left[pgno] = wanted[pgno]
            _keep(work, good)
            work.writer.relieve()
        return left

    def _read_exactly(self, work: _Work, moment: Moment, wanted: dict[int, int]) -> None:
        """With capture held still; nothing is sent."""
        pgnos = sorted(wanted)
        for first in range(0, len(pgnos), work.pages_per_frame):
            good: list[tuple[int, bytes]] = []
            for pgno in pgnos[first : first + work.pages_per_frame]:
                page = moment.pages.before(pgno)
                if page is None or short_hash(page_hash(pgno, page)) != wanted[pgno]:
                    raise ContentDiffers(f"page {pgno} is not the one that was captured last")
                good.append((pgno, page))
            _keep(work, good)

    # --- storing ---------------------------------------------------------------------------------------

    def _manifest(self, work: _Work, moment: Moment) -> Incremental:
        tip, lineage, writer, parent = moment.tip, moment.lineage, work.writer, work.parent
        running = self._state.generation
        base = running.base_checksum if running is not None else None
        if tip.rolling is None or base is None or running is None:
            raise NoParent("the checksum of the database is not known")
        if running.record.generation != lineage.generation:
            raise ContentDiffers("the generation ended while its incremental backup was made")
        tables: list[TableUse] = []
        for table in page_tables(work.frames):
            frame = writer.add(encode_frame(table, work.compression), len(table))
            tables.append(TableUse(frame, table_digest(table)))
            writer.relieve()
        writer.flush()
        return Incremental(
            repository=lineage.repository.hex(),
            generation=lineage.generation,
            txid=tip.txid,
            epoch=lineage.epoch,
            page_size=lineage.page_size,
            pages=tip.pages,
            observed=tip.observed,
            created=self._clock.wall(),
            chain=tip.chain.hex(),
            checksum=f"{base ^ tip.rolling:016x}",
            rolling=f"{tip.rolling:016x}",
            parent=parent.name.backup_id,
            parent_txid=parent.txid,
            parent_chain=parent.chain,
            pages_stored=sum(len(each.pgnos) for each in work.frames),
            plain_bytes=work.plain_bytes,
            stored_bytes=writer.stored_bytes,
            packs=tuple(writer.packs),
            tables=tuple(tables),
        )

    def _put(self, manifest: Incremental, *, verification: bool) -> None:
        """Confirm the packs, put the manifest: only now the backup exists."""
        if missing := missing_packs(self._store, manifest.packs):
            raise ObjectNotFound(missing[0], hint="a pack of this backup was deleted or cut off meanwhile")
        self._confirm()
        name, encoded = str(manifest.name), encode_incremental(manifest)
        put_once(self._store, name, encoded, verification=verification)
        if verification:
            note_event(self._store, EventRecord(manifest.name.backup_id, CHECKSUMMED, self._clock.wall()))


def _keep(work: _Work, pages: list[tuple[int, bytes]]) -> None:
    """As one more frame. A page that is there already, since it changed meanwhile, is superseded by the later one."""
    if not pages:
        return
    plain = b"".join([page for _, page in pages])
    frame = work.writer.add(encode_frame(plain, work.compression), len(plain))
    hashes = tuple(short_hash(page_hash(pgno, page)) for pgno, page in pages)
    work.frames.append(PageFrame(frame, tuple(pgno for pgno, _ in pages), hashes))
    work.plain_bytes += len(plain)
