"""What incrementals lay over a full backup: the newest version of each page, written once, before the chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from replicator.core.errors import ObjectCorrupt
from replicator.core.incremental import Incremental, PageFrame, is_on, pages_in, read_page_frames
from replicator.core.manifest import Backup
from replicator.core.names import BackupName
from replicator.core.neighbours import neighbours
from replicator.core.pack import read_frame
from replicator.restore.image import Image
from replicator.store import Store


class Covered:
    """Pages that are written already, and those beyond the end of the database: a bit each."""

    def __init__(self, pages: int) -> None:
        self._pages = pages
        self._bits = bytearray(-(-pages // 8))
        self.count = 0

    def __contains__(self, pgno: int) -> bool:
        return pgno > self._pages or bool(self._bits[(pgno - 1) >> 3] >> ((pgno - 1) & 7) & 1)

    def add(self, pgno: int) -> None:
        self._bits[(pgno - 1) >> 3] |= 1 << ((pgno - 1) & 7)
        self.count += 1


def require_chain(full: Backup, names: Sequence[BackupName], incrementals: Sequence[Incremental]) -> None:
    """Raise ObjectCorrupt where an incremental was made on something else than lies below it."""
    chain = full.chain
    for parent, each in zip(names, incrementals, strict=False):
        if not is_on(each, parent, chain) or each.page_size != full.page_size:
            raise ObjectCorrupt(f"{each.name} was not made on {parent.backup_id}", name=str(each.name))
        chain = each.chain


def restore_pages(
    store: Store,
    incrementals: Sequence[Incremental],
    image: Image,
    *,
    jobs: int,
    report: Callable[[int], None],
) -> Covered:
    """Write the pages of *incrementals*, the newest first, each once; returns what is written."""
    covered = Covered(incrementals[-1].pages)
    with ThreadPoolExecutor(jobs, thread_name_prefix="restore") as pool:
        for manifest in reversed(incrementals):
            # The last frame of a backup is the newest: a page that changed while it was made is in two.
            newest_first = reversed(list(read_page_frames(manifest, store.get_range)))
            wanted = (each for each in newest_first if any(pgno not in covered for pgno in each.pgnos))
            for pages in _fetched(pool, store, manifest, wanted, jobs):
                new = {pgno: content for pgno, content in pages if pgno not in covered}
                for run in neighbours(sorted(new), len(new)):
                    image.write_at((run[0] - 1) * image.page_size, b"".join([new[pgno] for pgno in run]))
                for pgno in new:
                    covered.add(pgno)
                report(len(new) * image.page_size)
    return covered


def _fetched(
    pool: ThreadPoolExecutor, store: Store, manifest: Incremental, wanted: Iterator[PageFrame], jobs: int
) -> Iterator[list[tuple[int, bytes]]]:
    """Frames are fetched and expanded ahead; so many at a time, in order."""

    def fetch(each: PageFrame) -> list[tuple[int, bytes]]:
        pack = manifest.packs[each.frame.pack].name
        plain = read_frame(each.frame, manifest.packs, store.get_range)
        return list(pages_in(plain, each, manifest.page_size, pack))

    while batch := list(islice(wanted, jobs * 4)):
        yield from pool.map(fetch, batch)
