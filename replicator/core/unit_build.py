"""From committed transactions to a final unit: deltas, hashes, the rolling checksum, the chain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from replicator.core.checksum import lock_page, page_hash, short_hash
from replicator.core.codec import Compression
from replicator.core.cursor import WalCursor
from replicator.core.page_delta import PageImage, Step, encode_blocks
from replicator.core.position import GenerationId
from replicator.core.times import MICROS_PER_SECOND
from replicator.core.unit import CHAIN_SIZE, Entry, UnitHeader, encode_body, encode_unit
from replicator.core.wal import LoggedTransaction

# What is held in memory at once: page images of a unit and their previous versions. A larger transaction
# is carried in parts of this size.
UNIT_BYTES_MAX = 4 << 20
# The header has 32 bits for the microseconds from the first to the last time in a unit: 71 minutes. What lies
# in the log is further apart where it could not be captured for as long, or the wall clock was put forward.
UNIT_MICROS_MAX = 3_600 * MICROS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Lineage:
    """What all units of one agent in one generation share."""

    repository: bytes
    generation: GenerationId
    epoch: int
    page_size: int
    compression: Compression


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the chain of units ends: what the next unit is built on.

    ``rolling`` is None while the change of the database's checksum is unknown; ``pages`` is the size of the
    database; ``part`` counts the parts of a transaction that is not complete yet.
    """

    txid: int
    chain: bytes
    rolling: int | None
    pages: int
    observed: int
    cursor: WalCursor
    part: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """When a commit was seen, and the look before it, when it was not there yet.

    Times never go back within a generation; ``stepped`` says the wall clock did, and was held.
    """

    observed: int
    not_before: int
    stepped: bool = False


@dataclass(frozen=True, slots=True)
class Captured:
    """A transaction with its page images, ascending by page number and within ``pages_after``.

    ``span`` > 1 stands for that many commits, merged under overload.
    """

    images: Sequence[PageImage]
    pages_after: int
    span: int
    seen: Sighting


@dataclass(frozen=True, slots=True)
class Built:
    """A unit's final bytes, its header, what it holds, and the tip behind it."""

    unit: bytes
    header: UnitHeader
    entries: Sequence[Entry]
    tip: Tip


Before = Callable[[int], bytes | None]
"""The version of a page at the tip; None where it is not at hand any more."""


class Hole(Exception):
    """The database grew by a page that no frame holds; its content cannot be known from the log."""


def check_growth(transaction: LoggedTransaction, pages_before: int, page_size: int) -> None:
    """Raise Hole where *transaction* adds pages to the database without writing them.

    SQLite writes every page it adds (all runs against it confirm that); if it ever does not, we refuse.
    """
    if transaction.commit_pages <= pages_before:
        return
    locked = lock_page(page_size)
    for pgno in range(pages_before + 1, transaction.commit_pages + 1):
        if pgno not in transaction.frames and pgno != locked:
            raise Hole(
                f"the database grew to {transaction.commit_pages} pages and page {pgno} was not written"
            )


def merge(transactions: Iterable[LoggedTransaction]) -> LoggedTransaction:
    """The newest version of each page over *transactions*, as if they had been one."""
    merged = LoggedTransaction()
    for each in transactions:
        if each.commit_pages < merged.commit_pages:
            merged.frames = {p: i for p, i in merged.frames.items() if p <= each.commit_pages}
        merged.frames.update(each.frames)
        merged.end, merged.commit_pages = each.end, each.commit_pages
    return merged


def build_unit(
    lineage: Lineage, tip: Tip, transactions: Sequence[Captured], cursor: WalCursor, before: Before
) -> Built:
    """One unit of whole transactions, seen within ``UNIT_MICROS_MAX`` of each other."""
    versions = _Versions(before)
    rolling, pages, txid = tip.rolling, tip.pages, tip.txid
    entries: list[Entry] = []
    steps: list[Step] = []
    for each in transactions:
        hashes = tuple(page_hash(image.pgno, image.content) for image in each.images)
        rolling = _roll(rolling, versions, each.images, hashes, pages, each.pages_after, lineage.page_size)
        txid += each.span
        pgnos = tuple(image.pgno for image in each.images)
        seen = each.seen
        times = (seen.observed, seen.not_before)
        short = tuple(map(short_hash, hashes))
        entries.append(Entry(txid, each.span, *times, each.pages_after, pgnos, short, rolling or 0))
        steps.append(Step(each.images, pages, each.pages_after))
        pages = each.pages_after
    blocks = encode_blocks(
        steps, versions.before, page_size=lineage.page_size, compression=lineage.compression
    )
    body = encode_body(entries, blocks)
    header = UnitHeader(
        **_lineage_fields(lineage),
        txid_first=tip.txid + 1,
        txid_last=txid,
        part=0,
        last_part=False,
        rolling_known=rolling is not None,
        clock_stepped=any(each.seen.stepped for each in transactions),
        cursor=cursor,
        observed_first=entries[0].observed,
        observed_last=entries[-1].observed,
        chain_before=tip.chain[:CHAIN_SIZE],
        entries_bytes=body.entries_bytes,
        payload_bytes=body.payload_bytes,
    )
    unit, digest = encode_unit(header, body)
    return Built(unit, header, entries, Tip(txid, digest, rolling, pages, entries[-1].observed, cursor))


def build_parts(
    lineage: Lineage,
    tip: Tip,
    transaction: LoggedTransaction,
    span: int,
    seen: Sighting,
    cursor: WalCursor,
    page: Callable[[int], bytes],
    before: Before,
) -> Iterator[Built]:
    """The units of one transaction too large for one: a part at a time, the last carries the commit.

    *page* gives the content of a frame by its index. Only one part is in memory at once.
    """
    pgnos = sorted(pgno for pgno in transaction.frames if pgno <= transaction.commit_pages)
    share = max(1, UNIT_BYTES_MAX // lineage.page_size)
    rolling, chain = tip.rolling, tip.chain
    starts = range(0, len(pgnos), share)
    for number, start in enumerate(starts, 1):
        last = number == len(starts)
        images = [PageImage(p, page(transaction.frames[p])) for p in pgnos[start : start + share]]
        versions = _Versions(before)
        hashes = tuple(page_hash(image.pgno, image.content) for image in images)
        pages_after = transaction.commit_pages if last else tip.pages
        rolling = _roll(rolling, versions, images, hashes, tip.pages, pages_after, lineage.page_size)
        entry = Entry(
            tip.txid + span, span, seen.observed, seen.not_before, transaction.commit_pages,
            tuple(image.pgno for image in images), tuple(map(short_hash, hashes)),
            (rolling or 0) if last else 0,
        )  # fmt: skip
        step = Step(images, tip.pages, transaction.commit_pages)
        blocks = encode_blocks(
            [step], versions.before, page_size=lineage.page_size, compression=lineage.compression
        )
        body = encode_body([entry], blocks)
        header = UnitHeader(
            **_lineage_fields(lineage),
            txid_first=tip.txid + 1,
            txid_last=tip.txid + span,
            part=number,
            last_part=last,
            rolling_known=last and rolling is not None,
            clock_stepped=seen.stepped,
            cursor=cursor,
            observed_first=seen.observed,
            observed_last=seen.observed,
            chain_before=chain[:CHAIN_SIZE],
            entries_bytes=body.entries_bytes,
            payload_bytes=body.payload_bytes,
        )
        unit, chain = encode_unit(header, body)
        if last:
            yield Built(unit, header, [entry], Tip(
                tip.txid + span, chain, rolling, transaction.commit_pages, seen.observed, cursor
            ))  # fmt: skip
        else:
            yield Built(unit, header, [entry], replace(tip, chain=chain, rolling=rolling, part=number))


def _lineage_fields(lineage: Lineage) -> dict[str, Any]:
    return {
        "generation": lineage.generation,
        "epoch": lineage.epoch,
        "page_size": lineage.page_size,
        "codec": lineage.compression.codec,
    }


class _Versions:
    """Versions of pages while a unit is built: at the tip (read once each), and their hashes as they change."""

    def __init__(self, before: Before) -> None:
        self._ask = before
        self._read: dict[int, bytes | None] = {}
        self.hashes: dict[int, int] = {}

    def before(self, pgno: int) -> bytes | None:
        if pgno not in self._read:
            self._read[pgno] = self._ask(pgno)
        return self._read[pgno]

    def hash_now(self, pgno: int) -> int | None:
        """The hash of the newest version so far; a page that is only cut off is read and not kept."""
        if pgno in self.hashes:
            return self.hashes[pgno]
        page = self._read[pgno] if pgno in self._read else self._ask(pgno)
        return None if page is None else page_hash(pgno, page)


def _roll(
    rolling: int | None,
    versions: _Versions,
    images: Sequence[PageImage],
    hashes: Sequence[int],
    pages_before: int,
    pages_after: int,
    page_size: int,
) -> int | None:
    """The rolling checksum after the old versions went and *images* came; None once it cannot be known."""
    locked = lock_page(page_size)
    for image, new in zip(images, hashes, strict=True):
        if rolling is not None and image.pgno <= pages_before:
            versions.before(image.pgno)
            old = versions.hash_now(image.pgno)
            rolling = None if old is None else rolling ^ old
        if rolling is not None:
            rolling ^= new
        versions.hashes[image.pgno] = new
    for pgno in range(pages_after + 1, pages_before + 1):
        if rolling is None:
            break
        if pgno != locked:
            old = versions.hash_now(pgno)
            rolling = None if old is None else rolling ^ old
    return rolling
