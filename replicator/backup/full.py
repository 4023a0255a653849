"""Backup: a full backup of a database that goes on being written, without a long read mark or a local copy.

Chunks of the main file are read at leisure. Whatever a checkpoint may have written meanwhile had a frame in
the log, so its page is in the set of touched pages; chunks with such pages are read again, and the last of
them exactly, at one captured commit. What was read before is then the database at that commit, byte by byte,
and the sum of its page hashes has to agree with what capture followed.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from replicator.backup.earlier import missing_packs, newest_of_month
from replicator.clock import Clock
from replicator.core.checksum import pages_checksum
from replicator.core.chunk_table import ChunkTable, Earlier
from replicator.core.errors import (
    Interrupted,
    ObjectExists,
    ObjectNotFound,
    OwnershipLost,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.core.full import (
    FRAME_CHUNKS,
    PACK_BYTES,
    Frame,
    Manifest,
    ManifestHead,
    PackBuilder,
    chunk_bytes_for,
    chunk_hash,
    compress_chunks,
    decode_manifest,
    encode_manifest,
)
from replicator.core.names import PackName
from replicator.core.neighbours import neighbours
from replicator.core.position import Position
from replicator.core.times import month_of
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
# Between two attempts to put a pack, beyond those that the store's own retries make.
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 30.0


class ContentDiffers(Exception):
    """The file is not what capture followed: the generation cannot go on."""


@dataclass(frozen=True, slots=True)
class FullResult:
    position: Position
    database_bytes: int
    stored_bytes: int
    chunks: int
    chunks_new: int
    seconds: float


@dataclass(slots=True)
class _Work:
    """One full backup in the making."""

    followed: Followed
    table: ChunkTable
    earlier: Earlier
    builder: PackBuilder
    packs: list[str]
    page_size: int
    chunk_bytes: int
    stem: Callable[[], PackName]
    stored_bytes: int = 0
    chunks_new: int = 0

    @property
    def pages_per_chunk(self) -> int:
        return self.chunk_bytes // self.page_size

    def chunks_of(self, pgnos: Iterable[int]) -> set[int]:
        return {(pgno - 1) // self.pages_per_chunk for pgno in pgnos}


@dataclass(frozen=True, slots=True)
class _Described:
    """A chunk, and where an earlier full has it."""

    index: int
    digest: bytes
    checksum: int
    earlier: tuple[Frame, int] | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Neighbouring chunks; those that no earlier full has are in ``stored``, compressed together."""

    chunks: list[_Described]
    stored: bytes
    plain_bytes: int


class FullBackup:
    """Makes fulls for one store. Not to be run twice at a time.

    *reserve* is called with the database held still, before the manifest is put: what is captured from then
    on has to reach the store too. *confirm* raises OwnershipLost if another agent writes there by now. *trouble* is
    told what keeps a pack from being put, and None when it is put.
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
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._state = state
        self._clock = clock
        self._reserve = reserve
        self._confirm = confirm
        self._trouble = trouble
        self._stop = stop

    def run(self, followed: Followed) -> FullResult:
        """Make one. Raises StoreError (try again), ContentDiffers, SourceError, or Interrupted."""
        began = self._clock.now()
        with followed.collecting_touched() as touched:
            with followed.hold_still() as moment:
                tip, lineage = moment.tip, moment.lineage
            chunk_bytes = chunk_bytes_for(lineage.page_size)
            earlier = Earlier(newest_of_month(self._store, tip.observed, chunk_bytes, lineage.page_size))
            time = tip.observed // 1_000_000 * 1_000_000
            work = _Work(
                followed, ChunkTable(-(-tip.pages * lineage.page_size // chunk_bytes)), earlier,
                PackBuilder(len(earlier.packs)), list(earlier.packs), lineage.page_size, chunk_bytes,
                lambda: PackName(time, lineage.generation, tip.txid, secrets.token_hex(8)),
            )  # fmt: skip
            self._read_at_leisure(work, tip.pages, touched)
            moment = self._read_the_rest(work, touched)
        if month_of(moment.tip.observed) != month_of(tip.observed) and earlier.packs:
            return self.run(
                followed
            )  # the month turned: what was found in last month's packs has to be stored
        self._put_pack(work)
        head = self._commit(work, moment)
        seconds = self._clock.now() - began
        log.info(
            "full.stored",
            extra={
                "store": self._store.url,
                "txid": f"{head.txid:016x}",
                "bytes_in": head.database_bytes,
                "bytes_out": work.stored_bytes,
                "duration_ms": round(seconds * 1000),
            },
        )
        return FullResult(
            head.position, head.database_bytes, work.stored_bytes, head.chunks, work.chunks_new, seconds
        )

    # --- reading ---------------------------------------------------------------------------------------

    def _read_at_leisure(self, work: _Work, pages: int, touched: set[int]) -> None:
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

    def _read_main(self, work: _Work, indexes: list[int]) -> None:
        """Chunks of the main file as they are just now, in runs of neighbours."""
        ahead: deque[Future[_Prepared]] = deque()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="full") as pool:
            for run in neighbours(indexes, FRAME_CHUNKS):
                if self._stop.is_set():
                    raise Interrupted("the full backup was stopped")
                size = work.chunk_bytes
                content = work.followed.database.main_bytes(run[0] * size, len(run) * size)
                chunks = [content[i * size : (i + 1) * size] for i in range(len(run))]
                ahead.append(pool.submit(_prepare, work, run, chunks))
                if len(ahead) > 2 * WORKERS:
                    self._keep(work, ahead.popleft().result())
            while ahead:
                self._keep(work, ahead.popleft().result())

    def _read_the_rest(self, work: _Work, touched: set[int]) -> Moment:
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
                _take(work, _prepare(work, run, [self._exact(work, moment, index) for index in run]))
            self._prove_the_first(work, moment)
            self._reserve(moment)
        return moment

    def _prove_the_first(self, work: _Work, moment: Moment) -> None:
        """Every later full is compared with the first of its generation; that one with the database itself,
        read through once more (0.3 s a GiB), since all that follows is built upon it."""
        running = self._state.generation
        if running is not None and running.base_checksum is None:
            whole = moment.pages.database_checksum(moment.tip.pages)
            if whole is not None and whole != work.table.checksum:
                raise ContentDiffers("the full backup that was made is not the database at its commit")

    def _exact(self, work: _Work, moment: Moment, index: int) -> bytes:
        first = index * work.pages_per_chunk + 1
        parts: list[bytes] = []
        for pgno in range(first, min(first + work.pages_per_chunk, moment.tip.pages + 1)):
            page = moment.pages.before(pgno)
            if page is None:
                raise ContentDiffers(f"page {pgno} of the last captured commit is not at hand any more")
            parts.append(page)
        return b"".join(parts)

    def _keep(self, work: _Work, prepared: _Prepared) -> None:
        _take(work, prepared)
        if work.builder.size >= PACK_BYTES:
            self._put_pack(work)

    # --- storing ---------------------------------------------------------------------------------------

    def _put_pack(self, work: _Work) -> None:
        pack = work.builder.take()
        if pack is None:
            return
        name = str(work.stem())
        self._put_patiently(work.followed, name, pack)
        work.packs.append(name)
        work.stored_bytes += len(pack)

    def _put_patiently(self, followed: Followed, name: str, pack: bytes) -> None:
        """A store that is away for a while, or full, does not cost what was read and stored so far."""
        for attempt in itertools.count(1):
            followed.require_followed()
            try:
                self._store.put(name, pack)
            except StoreUnavailable as exc:
                level = logging.ERROR if attempt in (1, 2) or attempt % 10 == 0 else logging.DEBUG
                log.log(
                    level, "full.waits", extra={"store": self._store.url, "error": str(exc), "hint": exc.hint}
                )
                self._trouble(exc)
                if self._stop.wait(min(PAUSE_SECONDS * 2 ** (attempt - 1), PAUSE_SECONDS_MAX)):
                    raise Interrupted("the full backup was stopped") from exc
                continue
            except ObjectExists:
                if attempt == 1:
                    raise
                # The name is random: an attempt that failed put it all the same.
            if attempt > 1:
                self._trouble(None)
            return

    def _commit(self, work: _Work, moment: Moment) -> ManifestHead:
        """Compare the sums, confirm the packs, put the manifest: only now the backup exists."""
        tip, lineage = moment.tip, moment.lineage
        running = self._state.generation
        if tip.rolling is None or running is None or running.record.generation != lineage.generation:
            raise ContentDiffers("the generation ended while its full backup was made")
        base = work.table.checksum ^ tip.rolling
        if running.base_checksum not in (None, base):
            raise ContentDiffers("the database file does not hold what was captured from its log")
        used = sorted(work.table.packs_used())
        packs = tuple(work.packs[number] for number in used)
        renumbered = {old: new for new, old in enumerate(used)}
        runs = tuple(
            replace(run, frame=replace(run.frame, pack=renumbered[run.frame.pack]))
            for run in work.table.runs()
        )
        head = ManifestHead(
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
            rolling=f"{tip.rolling:016x}",
            packs=packs,
            stored_bytes=work.stored_bytes,
        )
        manifest = Manifest(head, work.table.hashes, runs)
        if missing := missing_packs(self._store, manifest):
            raise ObjectNotFound(
                missing[0], hint="a pack of this full backup was deleted or cut off meanwhile"
            )
        encoded = encode_manifest(manifest)
        self._confirm()
        try:
            self._store.put(str(head.name), encoded)
        except ObjectExists:
            # A full of the same position is there already: one of ours holds the same database.
            theirs = decode_manifest(self._store.get(str(head.name)), str(head.name)).head
            if (theirs.chain, theirs.checksum) != (head.chain, head.checksum):
                raise OwnershipLost(
                    f"another agent wrote {head.name} to {self._store.url}, of another database",
                    hint="stop one of the two",
                ) from None
        work.stored_bytes += len(encoded)
        if running.base_checksum is None and not self._state.remember_base(lineage.generation, base):
            raise ContentDiffers("the generation ended while its full backup was put")
        return head


def _prepare(work: _Work, indexes: list[int], chunks: list[bytes]) -> _Prepared:
    """The part of it that takes time: hash chunks, and compress those that an earlier full does not hold."""
    found: list[_Described] = []
    new: list[bytes] = []
    for index, content in zip(indexes, chunks, strict=True):
        digest = chunk_hash(content)
        checksum = pages_checksum(content, index * work.pages_per_chunk + 1, work.page_size)
        earlier = work.earlier.find(index, digest)
        found.append(_Described(index, digest, checksum, earlier))
        if earlier is None:
            new.append(content)
    return _Prepared(found, *(compress_chunks(new) if new else (b"", 0)))


def _take(work: _Work, prepared: _Prepared) -> None:
    """Into the table, and what is new into the pack; in the order of the file."""
    new: list[int] = []
    for each in prepared.chunks:
        work.table.describe(each.index, each.digest, each.checksum)
        if each.earlier is not None:
            work.table.locate([each.index], *each.earlier)
        else:
            new.append(each.index)
    if new:
        work.table.locate(new, work.builder.add(prepared.stored, prepared.plain_bytes))
        work.chunks_new += len(new)
