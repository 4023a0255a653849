"""Turns model histories into units, as capture does: what tests of the spool, the ship and restore are fed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from replicator.core import unit_build
from replicator.core.codec import DEFAULT, Compression
from replicator.core.cursor import WalCursor
from replicator.core.full import (
    FRAME_CHUNKS,
    SHA256,
    Manifest,
    Table,
    build_runs,
    chunk_bytes_for,
    chunk_hash,
    encode_manifest,
    encode_table,
)
from replicator.core.manifest import TableUse, table_digest
from replicator.core.names import PackName
from replicator.core.pack import PackBuilder, PackUse, encode_frame
from replicator.core.page_delta import PageImage
from replicator.core.position import GenerationId
from replicator.core.unit import first_chain
from replicator.core.unit_build import Built, Captured, Lineage, Sighting, Tip, build_parts, build_unit, merge
from replicator.core.wal import LoggedTransaction, Salt, WalChecksum
from tests.core.histories import GENERATION, REPOSITORY, START, Commit, Model, commits_of


@dataclass
class Writer:
    """Turns commits of a model into units, as capture does, and remembers the model after every entry."""

    lineage: Lineage
    tip: Tip
    model: Model
    rng: random.Random
    units: list[bytes]
    states: dict[int, Model]
    forgotten: frozenset[int] = frozenset()
    look: Sighting | None = None

    def before(self, pgno: int) -> bytes | None:
        # Also asked for pages that the unit itself has added; the answer is then of no consequence.
        return None if pgno in self.forgotten else self.model.pages.get(pgno)

    def seen(self, commits: int) -> Sighting:
        if self.look is not None:
            return self.look
        return Sighting(START + self.tip.txid + commits, START + self.tip.txid - 1)

    def cursor(self) -> WalCursor:
        return WalCursor(Salt(1, 2), self.tip.cursor.frames + 1, WalChecksum(3, self.rng.getrandbits(32)))

    def commits(self, count: int = 1) -> list[bytes]:
        """So many small commits, each a unit of its own; returns the units."""
        for _ in range(count):
            self.whole([[each] for each in commits_of(self.rng, self.model, 1, pages_max=12)])
        return self.units[-count:]

    def large(self, parts: int) -> list[bytes]:
        """One commit of every page in so many parts or one more; returns their units."""
        first = len(self.units)
        size = max(self.model.count, 2 * parts)
        pages = {pgno: self.rng.randbytes(self.model.page_size) for pgno in range(1, size + 1)}
        with pytest.MonkeyPatch.context() as patch:
            share = max(1, len(pages) // parts)
            patch.setattr(unit_build, "UNIT_BYTES_MAX", share * self.model.page_size)
            self.parts(Commit(pages, size))
        assert len(self.units) - first >= 2
        return self.units[first:]

    def whole(self, groups: list[list[Commit]]) -> None:
        """One unit with an entry for each group; a group of several commits is merged into one entry."""
        captured: list[Captured] = []
        ahead = self.model.copy()
        txid = self.tip.txid
        for group in groups:
            logged, contents = log_of(group)
            merged = merge(logged)
            for commit in group:
                ahead.apply(commit)
            txid += len(group)
            self.states[txid] = ahead.copy()
            images = [
                PageImage(p, contents[i])
                for p, i in sorted(merged.frames.items())
                if p <= merged.commit_pages
            ]
            seen = self.seen(txid - self.tip.txid)
            captured.append(Captured(images, merged.commit_pages, len(group), seen))
        self.keep(build_unit(self.lineage, self.tip, captured, self.cursor(), self.before))
        self.model = ahead

    def parts(self, commit: Commit) -> None:
        """One commit carried by as many units as the limit makes of it."""
        logged, contents = log_of([commit])
        tip = self.tip
        for built in build_parts(
            self.lineage, tip, logged[0], 1, self.seen(1), self.cursor(), contents.__getitem__, self.before
        ):
            self.keep(built)
        self.model.apply(commit)
        self.states[self.tip.txid] = self.model.copy()

    def keep(self, built: Built) -> None:
        self.units.append(built.unit)
        self.tip = built.tip


def full_of(writer: Writer) -> dict[str, bytes]:
    """The objects of a full backup at the writer's tip: its pack, then its manifest, by name."""
    tip, model, lineage = writer.tip, writer.model, writer.lineage
    content = b"".join(model.pages[pgno] for pgno in sorted(model.pages))
    size = chunk_bytes_for(model.page_size)
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    builder = PackBuilder(0)
    located = []
    for first in range(0, len(chunks), FRAME_CHUNKS):
        group = chunks[first : first + FRAME_CHUNKS]
        plain = b"".join(group)
        frame = builder.add(encode_frame(plain, lineage.compression), len(plain))
        located += [(frame, slot) for slot in range(len(group))]
    table = encode_table(Table(b"".join(map(chunk_hash, chunks)), build_runs(located)))
    placed = builder.add(encode_frame(table, lineage.compression), len(table))
    second = tip.observed - tip.observed % 1_000_000
    name = str(PackName(second, lineage.generation, tip.txid, f"{tip.txid:016x}"))
    pack = builder.take(name)
    assert pack is not None
    assert tip.rolling is not None
    manifest = Manifest(
        repository=lineage.repository.hex(), generation=lineage.generation, txid=tip.txid, epoch=lineage.epoch,
        page_size=model.page_size, pages=model.count, chunk_bytes=size, observed=tip.observed,
        created=tip.observed + 5, chain=tip.chain.hex(), checksum=f"{model.checksum:016x}",
        rolling=f"{tip.rolling:016x}", hashes=SHA256, chunks_new=len(chunks), plain_bytes=len(content),
        stored_bytes=len(pack), packs=(PackUse(name, len(pack)),), tables=(TableUse(placed, table_digest(table)),),
    )  # fmt: skip
    return {name: pack, str(manifest.name): encode_manifest(manifest)}


def log_of(commits: list[Commit]) -> tuple[list[LoggedTransaction], list[bytes]]:
    """The commits as they would lie in the log, one frame a page, and the content of each frame."""
    logged: list[LoggedTransaction] = []
    contents: list[bytes] = []
    for commit in commits:
        frames = {}
        for pgno, content in commit.pages.items():
            frames[pgno] = len(contents)
            contents.append(content)
        logged.append(LoggedTransaction(len(contents), commit.size, frames))
    return logged, contents


def writer_on(
    base: Model,
    rng: random.Random,
    compression: Compression = DEFAULT,
    generation: str = GENERATION,
    epoch: int = 3,
) -> Writer:
    """A generation that begins with *base*."""
    lineage = Lineage(REPOSITORY, GenerationId(generation), epoch, base.page_size, compression)
    cursor = WalCursor(Salt(1, 2), 0, WalChecksum(0, 0))
    tip = Tip(0, first_chain(REPOSITORY, lineage.generation), 0, base.count, START, cursor)
    return Writer(lineage, tip, base.copy(), rng, [], {0: base.copy()})


def write_history(writer: Writer, commits: Iterator[Commit]) -> None:
    """Cut the commits into units at random: several a unit, merged ones, ones in parts."""
    rng = writer.rng
    waiting = list(commits)
    while waiting:
        if rng.random() < 0.25:
            writer.parts(waiting.pop(0))
            continue
        groups: list[list[Commit]] = []
        for _ in range(rng.randint(1, 6)):
            count = rng.randint(2, 4) if rng.random() < 0.2 else 1
            group, waiting = waiting[:count], waiting[count:]
            if group:
                groups.append(group)
        writer.whole(groups)
