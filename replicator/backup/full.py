"""Backup: a full backup of a database that goes on being written, without a long read mark or a local copy.

Chunks of the main file are read at leisure. Whatever a checkpoint may have written meanwhile had a frame in
the log, so its page is in the set of touched pages; chunks with such pages are read again, and the last of
them exactly, at one captured commit. What was read before is then the database at that commit, byte by byte,
and the sum of its page hashes has to agree with what capture followed.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from replicator.backup.chunks import FullWork, Prepared, prepare, take
from replicator.backup.earlier import Earlier, forget_damaged, missing_packs, newest_of_month, standing_at
from replicator.backup.making import AS_USUAL, Making
from replicator.backup.packs import PackWriter, put_once
from replicator.clock import Clock
from replicator.core.chunk_table import ChunkTable
from replicator.core.errors import (
    Interrupted,
    ObjectExists,
    ObjectNotFound,
    OwnershipLost,
    ReplicatorError,
)
from replicator.core.full import (
    FRAME_CHUNKS,
    SHA256,
    Manifest,
    chunk_bytes_for,
    decode_manifest,
    encode_manifest,
    encode_table,
)
from replicator.core.key_ring import Root
from replicator.core.manifest import TableUse, table_digest
from replicator.core.names import FullName, PackName
from replicator.core.neighbours import neighbours
from replicator.core.pack import encode_frame
from replicator.core.position import Position
from replicator.core.records import CHECKSUMMED, EventRecord
from replicator.core.times import month_of
from replicator.events import note_event
from replicator.moment import Followed, Moment
from replicator.state import StateFolder
from replicator.store import Store

log = logging.getLogger(__name__)

# Passes over what was touched meanwhile end when they no longer halve it, or when this little is left, which
# is read in some milliseconds with the capture held still.
LEFT_FOR_THE_END = 256
# Hashing and compressing take ten seconds of a core for a GiB, and need none of Python's lock. Two, since more
# cores would be missed by the application, which has work to do meanwhile.
WORKERS = 2
PASSES_MAX = 6


class ContentDiffers(Exception):
    """The file is not what capture followed: the generation cannot go on."""


@dataclass(frozen=True, slots=True)
class FullResult:
    backup_id: str
    position: Position
    database_bytes: int
    stored_bytes: int
    chunks: int
    chunks_new: int
    seconds: float


class FullBackup:
    """Makes fulls for one store. Not to be run twice at a time.

    *reserve* is called with the database held still, before the manifest is put: what is captured from then
    on has to reach the store too. *confirm* raises OwnershipLost if another agent writes there by now. *trouble* is
    told what keeps a pack from being put, and None when it is put. *dedup* is the key that chunks are hashed with, if
    the repository is encrypted. With *verification* all that was put is read back and compared before it counts.
    """

    def __init__(
        self,
        store: Store,
        state: StateFolder,
        clock: Clock,
        *,
        reserve: Callable[[Moment], None],
        confirm: Callable[[], None],
        trouble: Callable[[ReplicatorError | None], None],
        dedup: Callable[[], Root | None],
        verification: bool,
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._dedup = dedup
        self._verification = verification
        self._state = state
        self._clock = clock
        self._reserve = reserve
        self._confirm = confirm
        self._trouble = trouble
        self._stop = stop

    def run(self, followed: Followed, making: Making = AS_USUAL) -> FullResult:
        """Make one. Raises StoreError (try again), ContentDiffers, SourceError, or Interrupted."""
        began = self._clock.now()
        with followed.collecting_touched() as touched:
            with followed.hold_still() as moment:
                tip = moment.tip
            work = self._begin(followed, moment, making)
            self._read_at_leisure(work, tip.pages, touched)
            moment = self._read_the_rest(work, touched)
        if month_of(moment.tip.observed) != month_of(tip.observed) and work.earlier.packs:
            # The month turned: what lies in last month's packs has to be stored.
            return self.run(followed, making)
        manifest = self._commit(work, moment)
        seconds = self._clock.now() - began
        log.info(
            "full.stored",
            extra={
                "store": self._store.url,
                "txid": f"{manifest.txid:016x}",
                "bytes_in": manifest.database_bytes,
                "bytes_out": manifest.stored_bytes,
                "duration_ms": round(seconds * 1000),
            },
        )
        return FullResult(
            manifest.name.backup_id,
            manifest.position, manifest.database_bytes, manifest.stored_bytes, manifest.chunks, work.chunks_new,
            seconds,
        )  # fmt: skip

    def standing(self, followed: Followed) -> Manifest | None:
        """The full of the newest commit, if there is one already, and it is whole."""
        with followed.hold_still() as moment:
            tip, generation = moment.tip, moment.lineage.generation
        return standing_at(self._store, FullName(tip.observed // 1_000_000 * 1_000_000, generation, tip.txid))

    def _begin(self, followed: Followed, moment: Moment, making: Making) -> FullWork:
        tip, lineage = moment.tip, moment.lineage
        chunk_bytes = chunk_bytes_for(lineage.page_size)
        dedup = self._dedup()
        hashes = SHA256 if dedup is None else f"hmac-sha256:{dedup.key_id}"
        before = (
            None
            if making.anew
            else newest_of_month(self._store, tip.observed, chunk_bytes, lineage.page_size, hashes)
        )
        earlier = Earlier(self._store, before)
        time = tip.observed // 1_000_000 * 1_000_000
        writer = PackWriter(
            self._store, earlier.packs,
            lambda: str(PackName(time, lineage.generation, tip.txid, secrets.token_hex(8))),
            require=followed.require_followed, trouble=self._trouble, stop=self._stop,
        )  # fmt: skip
        table = ChunkTable(-(-tip.pages * lineage.page_size // chunk_bytes))
        return FullWork(
            followed, table, earlier, writer, lineage.page_size, chunk_bytes,
            making.compression(lineage.compression), making.verification(self._verification), hashes,
            None if dedup is None else dedup.secret,
        )  # fmt: skip

    # --- reading ---------------------------------------------------------------------------------------

    def _read_at_leisure(self, work: FullWork, pages: int, touched: set[int]) -> None:
        """All chunks that no checkpoint can have touched; passes repeat while they get markedly fewer."""
        todo: set[int] | range = range(-(-pages * work.page_size // work.chunk_bytes))
        for _ in range(PASSES_MAX):
            with work.followed.hold_still() as moment:
                # Pages with frames in the log may be written to the main file at any time: not now.
                logged = work.chunks_of(moment.unsettled)
                last = (moment.tip.pages - 1) // work.pages_per_chunk
            now = [index for index in todo if index not in logged and index < last]
            self._read_main(work, now)
            with work.followed.hold_still() as moment:
                again = work.chunks_of(touched)
                touched.clear()
                touched.update(moment.unsettled)
            again = {index for index in again if index < len(work.table)}  # new ones are read at the end
            left = (set(todo) - set(now)) | again
            for index in again:
                work.table.forget(index)
            if len(left) <= LEFT_FOR_THE_END or len(left) * 2 > len(todo):
                return
            todo = left

    def _read_main(self, work: FullWork, indexes: list[int]) -> None:
        """Chunks of the main file as they are just now, in runs of neighbours."""
        ahead: deque[Future[Prepared]] = deque()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="full") as pool:
            for run in neighbours(indexes, FRAME_CHUNKS):
                if self._stop.is_set():
                    raise Interrupted("the full backup was stopped")
                size = work.chunk_bytes
                content = work.followed.database.main_bytes(run[0] * size, len(run) * size)
                chunks = [content[i * size : (i + 1) * size] for i in range(len(run))]
                ahead.append(pool.submit(prepare, work, run, chunks))
                if len(ahead) > 2 * WORKERS:
                    self._keep(work, ahead.popleft().result())
            while ahead:
                self._keep(work, ahead.popleft().result())

    def _read_the_rest(self, work: FullWork, touched: set[int]) -> Moment:
        """What is left, exactly, at one commit, with capture held still and nothing sent meanwhile."""
        with work.followed.hold_still() as moment:
            pages = moment.tip.pages
            before = len(work.table)
            work.table.resize(-(-pages * work.page_size // work.chunk_bytes))
            for index in work.chunks_of(touched):
                if index < len(work.table):
                    work.table.forget(index)
            if before:
                # The last chunk may have been whole before and be short now, or the other way round.
                for index in {min(before, len(work.table)) - 1, len(work.table) - 1}:
                    work.table.forget(index)
            for run in neighbours(work.table.missing(), FRAME_CHUNKS):
                take(work, prepare(work, run, [self._exact(work, moment, index) for index in run]))
            self._prove_the_first(work, moment)
            self._reserve(moment)
        return moment

    def _prove_the_first(self, work: FullWork, moment: Moment) -> None:
        """Every later full is compared with the first of its generation; that one with the database itself,
        read through once more (0.3 s a GiB), since all that follows is built upon it."""
        running = self._state.generation
        if running is not None and running.base_checksum is None:
            whole = moment.pages.database_checksum(moment.tip.pages)
            if whole is not None and whole != work.table.checksum:
                raise ContentDiffers("the full backup that was made is not the database at its commit")

    def _exact(self, work: FullWork, moment: Moment, index: int) -> bytes:
        first = index * work.pages_per_chunk + 1
        parts: list[bytes] = []
        for pgno in range(first, min(first + work.pages_per_chunk, moment.tip.pages + 1)):
            page = moment.pages.before(pgno)
            if page is None:
                raise ContentDiffers(f"page {pgno} of the last captured commit is not at hand any more")
            parts.append(page)
        return b"".join(parts)

    def _keep(self, work: FullWork, prepared: Prepared) -> None:
        take(work, prepared)
        work.writer.relieve()

    # --- storing ---------------------------------------------------------------------------------------

    def _commit(self, work: FullWork, moment: Moment) -> Manifest:
        """Compare the sums, confirm the packs, put the manifest: only now the backup exists."""
        tip, generation = moment.tip, moment.lineage.generation
        running = self._state.generation
        if tip.rolling is None or running is None or running.record.generation != generation:
            raise ContentDiffers("the generation ended while its full backup was made")
        base = work.table.checksum ^ tip.rolling
        if running.base_checksum not in (None, base):
            raise ContentDiffers("the database file does not hold what was captured from its log")
        manifest = self._manifest(work, moment, tip.rolling)
        if missing := missing_packs(self._store, manifest.packs):
            raise ObjectNotFound(
                missing[0], hint="a pack of this full backup was deleted or cut off meanwhile"
            )
        if work.verification:
            work.writer.read_back()
        self._confirm()
        self._put_manifest(manifest, verification=work.verification)
        if work.verification:
            note_event(self._store, EventRecord(manifest.name.backup_id, CHECKSUMMED, self._clock.wall()))
        if running.base_checksum is None and not self._state.remember_base(generation, base):
            raise ContentDiffers("the generation ended while its full backup was put")
        return manifest

    def _manifest(self, work: FullWork, moment: Moment, rolling: int) -> Manifest:
        """With its tables, which lie in the last pack."""
        tip, lineage, writer = moment.tip, moment.lineage, work.writer
        # Packs that hold nothing of the final state are left out; the tables go behind the last chunks.
        first = writer.number
        kept = [number for number in sorted(work.table.packs_used()) if number < first]
        work.table.renumber({old: new for new, old in enumerate([*kept, first])})
        placed: list[TableUse] = []
        for table in map(encode_table, work.table.tables()):
            frame = writer.add(encode_frame(table, work.compression), len(table))
            # Frames number all earlier packs first; of those the manifest names some.
            placed.append(TableUse(replace(frame, pack=frame.pack - first + len(kept)), table_digest(table)))
            writer.relieve()
        writer.flush()
        packs = [*(writer.packs[number] for number in kept), *writer.packs[first:]]
        return Manifest(
            repository=lineage.repository.hex(),
            generation=lineage.generation,
            txid=tip.txid,
            epoch=lineage.epoch,
            page_size=lineage.page_size,
            pages=tip.pages,
            chunk_bytes=work.chunk_bytes,
            observed=tip.observed,
            created=self._clock.wall(),
            chain=tip.chain.hex(),
            checksum=f"{work.table.checksum:016x}",
            rolling=f"{rolling:016x}",
            hashes=work.hashes,
            chunks_new=work.chunks_new,
            plain_bytes=work.plain_bytes,
            stored_bytes=writer.stored_bytes,
            packs=tuple(packs),
            tables=tuple(placed),
        )

    def _put_manifest(self, manifest: Manifest, *, verification: bool) -> None:
        name = str(manifest.name)
        encoded = encode_manifest(manifest)
        if forget_damaged(self._store, manifest.name):
            log.info("full.replaced", extra={"store": self._store.url, "key": name})
        try:
            put_once(self._store, name, encoded, verification=verification)
        except ObjectExists:
            # A full of the same position is there already: one of ours holds the same database.
            theirs = decode_manifest(self._store.get(name), name)
            if (theirs.chain, theirs.checksum) != (manifest.chain, manifest.checksum):
                raise OwnershipLost(
                    f"another agent wrote {name} to {self._store.url}, of another database",
                    hint="stop one of the two",
                ) from None
