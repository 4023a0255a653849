"""Histories of model databases, as a second opinion on units: pages in a dictionary, checksums by definition.

Imports no more of the package under test than the values that capture hands to it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import xxhash

REPOSITORY = bytes(range(16))
GENERATION = "00112233445566ff"
START = 1_738_044_000_000_000


@dataclass
class Model:
    """A database as nothing but its pages."""

    page_size: int
    pages: dict[int, bytes] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.pages)

    @property
    def checksum(self) -> int:
        """By its definition: XOR over the pages of XXH3-64 of the content, seeded with the page number."""
        total = 0
        for pgno, content in self.pages.items():
            total ^= xxhash.xxh3_64_intdigest(content, seed=pgno)
        return total

    def copy(self) -> Model:
        return Model(self.page_size, dict(self.pages))

    def apply(self, commit: Commit) -> None:
        self.pages.update(commit.pages)
        for pgno in [each for each in self.pages if each > commit.size]:
            del self.pages[pgno]
        assert sorted(self.pages) == list(range(1, commit.size + 1))


@dataclass(frozen=True)
class Commit:
    """Pages written (some may lie beyond *size*: written, then cut off), and the size afterwards."""

    pages: dict[int, bytes]
    size: int


def page_of(rng: random.Random, page_size: int, before: bytes | None) -> bytes:
    """A page as databases have them: mostly the one before with a few bytes changed."""
    kind = rng.random()
    if before is not None and kind < 0.7:
        at, change = rng.randrange(page_size), rng.randbytes(rng.randint(1, 24))
        return (before[:at] + change + before[at:])[:page_size]
    if kind < 0.8:
        return bytes(page_size)
    if kind < 0.9:
        return (b"once upon a row %d " % rng.randrange(1000) * page_size)[:page_size]
    return rng.randbytes(page_size)


def database_of(rng: random.Random, page_size: int, pages: int) -> Model:
    return Model(page_size, {pgno: page_of(rng, page_size, None) for pgno in range(1, pages + 1)})


def commit_of(rng: random.Random, model: Model, *, pages_max: int) -> Commit:
    """One commit: updates, and often growth or a shrunken file, with every added page written."""
    size = model.count
    kind = rng.random()
    if kind < 0.35:
        size = min(pages_max, size + rng.randint(1, 6))
    elif kind < 0.55:
        size = rng.randint(1, size)
    lowest = min(size, model.count)
    chosen = {rng.randint(1, lowest) for _ in range(rng.randint(1, 5))} | set(
        range(model.count + 1, size + 1)
    )
    if size < model.count and rng.random() < 0.5:
        chosen.add(rng.randint(size + 1, model.count))  # a page written before the file was cut
    return Commit(
        {pgno: page_of(rng, model.page_size, model.pages.get(pgno)) for pgno in sorted(chosen)}, size
    )


def commits_of(rng: random.Random, base: Model, count: int, *, pages_max: int = 40) -> Iterator[Commit]:
    model = base.copy()
    for _ in range(count):
        commit = commit_of(rng, model, pages_max=pages_max)
        model.apply(commit)
        yield commit
