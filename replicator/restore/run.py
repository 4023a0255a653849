"""Restore: plan, fetch, prove, and only then one rename."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from replicator.core.errors import Interrupted, ProofFailed
from replicator.core.full import Manifest
from replicator.core.incremental import Incremental
from replicator.core.manifest import Backup
from replicator.core.position import Position
from replicator.core.times import format_time
from replicator.repository import Repository, nearest_points_named
from replicator.restore.chunks import restore_chunks
from replicator.restore.destination import check_destination, check_room, clear_leftovers, publish
from replicator.restore.image import Image
from replicator.restore.pages import require_chain, restore_pages
from replicator.restore.replay import Replayed, replay
from replicator.restore.target import Chosen
from replicator.source.proof import Proof
from replicator.store import Store
from replicator.store.patience import PatientStore

JOBS = 4
"""Reads under way at once: enough to hide a store's latency, each holds some mebibytes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``stage`` is chunks (bytes), transactions, checksum or check; ``total`` 0 where it is not known."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """``verify``: none (page and chunk checksums only, as they are read), quick, or full."""

    verify: str = "quick"
    overwrite: bool = False
    jobs: int = JOBS


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored. ``proved`` names the proofs it passed; ``remarks`` what the operator should know."""

    path: str
    position: Position
    committed: int
    pages: int
    page_size: int
    transactions_applied: int
    seconds: float
    proved: tuple[str, ...]
    remarks: tuple[str, ...]


def restore_chosen(
    repository: Repository,
    chosen: Chosen,
    output: str,
    options: RestoreOptions,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> RestoreResult:
    """Restore to *output*; until the very last step nothing but a temporary file beside it is touched.

    Raises Interrupted when *cancelled* answers True, ProofFailed, ObjectCorrupt, TargetUnreachable,
    DestinationRefused, StoreError; in every case no file is left behind.
    """
    began = time.monotonic()
    path = os.path.abspath(output)
    check_destination(path, overwrite=options.overwrite)
    with nearest_points_named(repository):
        manifest = repository.manifest(chosen.plan.full)
        incrementals = [repository.incremental(each) for each in chosen.plan.incrementals]
        require_chain(manifest, (chosen.plan.full, *chosen.plan.incrementals), incrementals)
    base = incrementals[-1] if incrementals else manifest
    clear_leftovers(path)
    check_room(path, max(manifest.pages, base.pages, chosen.point.pages) * manifest.page_size)

    def check() -> None:
        if cancelled():
            raise Interrupted("the restore was stopped; nothing was written", hint=None)

    remarks: list[str] = list(chosen.notes)
    image = Image(path, manifest.page_size)
    try:
        image.resize(base.pages)
        fetch = _Fetch(PatientStore(repository.store, cancelled), chosen, options, on_progress, check)
        with nearest_points_named(repository):
            fetch.lay_down(manifest, incrementals, image)
            replayed = fetch.replay(base, image)
        image.finish()
        with ThreadPoolExecutor(1, thread_name_prefix="sync") as pool:
            synced = pool.submit(image.sync)  # the disk has its time while the processor proves
            proved = _prove(image, replayed, options, on_progress, check, remarks)
            synced.result()
        check()
        publish(
            image.path, path, overwrite=options.overwrite,
            aside=lambda kept: remarks.append(f"what was at {path} could not be opened and lies at {kept}"),
        )  # fmt: skip
    except BaseException:
        image.discard()
        raise
    image.close()
    return RestoreResult(
        path, Position(manifest.generation, replayed.txid), replayed.observed, image.pages,
        image.page_size, replayed.transactions, time.monotonic() - began, proved, tuple(remarks),
    )  # fmt: skip


@dataclass(slots=True)
class _Fetch:
    store: Store
    chosen: Chosen
    options: RestoreOptions
    on_progress: Callable[[Progress], None]
    check: Callable[[], None]

    def lay_down(self, manifest: Manifest, incrementals: Sequence[Incremental], image: Image) -> None:
        """The backups: of each page what the newest of them has."""
        options, done = self.options, 0
        total = manifest.database_bytes + sum(each.pages_stored for each in incrementals) * manifest.page_size

        def chunks(size: int) -> None:
            nonlocal done
            self.check()
            done += size
            self.on_progress(Progress("chunks", done, total))

        covered = None
        if incrementals:
            covered = restore_pages(self.store, incrementals, image, jobs=options.jobs, report=chunks)
        restore_chunks(self.store, manifest, image, covered=covered, jobs=options.jobs, report=chunks)

    def replay(self, base: Backup, image: Image) -> Replayed:
        target = self.chosen.point.position.txid
        total = target - base.txid
        done = 0

        def transactions(count: int) -> None:
            nonlocal done
            self.check()
            done += count
            self.on_progress(Progress("transactions", done, total))

        return replay(self.store, self.chosen.plan, base, image, jobs=self.options.jobs, report=transactions)


def _prove(
    image: Image,
    replayed: Replayed,
    options: RestoreOptions,
    on_progress: Callable[[Progress], None],
    check: Callable[[], None],
    remarks: list[str],
) -> tuple[str, ...]:
    """Compare the file with what the agent recorded of the source, then ask SQLite."""
    proved = ["page hashes"]
    if options.verify == "none":
        return tuple(proved)
    on_progress(Progress("checksum", 0, 0))
    with Proof(image.path, full=options.verify == "full") as sqlite:
        _compare(image, replayed, check, proved, remarks)
        on_progress(Progress("check", 0, 0))
        opinion = sqlite.wait(check)
    if opinion.problems:
        raise ProofFailed(
            f"SQLite finds the restored database damaged: {opinion.problems[0]}",
            hint="it equals the source at that commit, so the source was damaged already; "
            "choose an earlier moment, or take it as it is with --verify none",
        )
    proved.append("integrity_check" if options.verify == "full" else "quick_check")
    remarks.extend(opinion.remarks)
    return tuple(proved)


def _compare(
    image: Image, replayed: Replayed, check: Callable[[], None], proved: list[str], remarks: list[str]
) -> None:
    """The whole file against the checksum that was recorded with the commit."""
    if replayed.checksum is None:
        remarks.append(
            f"the agent could not follow the checksum of the whole database at {format_time(replayed.observed)}; "
            "every page was compared by itself"
        )
    elif image.checksum(check) != replayed.checksum:
        raise ProofFailed(
            f"the restored database does not have the checksum that was recorded at txid {replayed.txid:016x}",
            hint="nothing was written; try an earlier restore point, and report this",
        )
    else:
        proved.append("database checksum")
