"""A store with a history of model databases in it, as ships and backups leave one; nothing is mocked but the past.

What is in there is made by `Writer`, which remembers the database after every transaction, so that each restore point
can be compared with what it has to be.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from replicator.core.log import decode_log
from replicator.core.names import LogName, SegmentName, parse_name
from replicator.core.position import GenerationId
from replicator.core.records import GenerationRecord, LeaseRecord, RepositoryRecord, encode_record
from replicator.core.unit import UnitHeader, decode_unit, follows, parse_unit_header, split_units
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store import Store
from tests.core.histories import GENERATION, REPOSITORY, START, Model, commits_of, database_of
from tests.core.unit_writer import Writer, full_of, write_history, writer_on
from tests.support.memory_store import MemoryStore

G = GenerationId(GENERATION)
LATER = GenerationId("ffeeddccbbaa9988")


class Yard:
    """One generation in a ``store``; ``begin`` is another one after it."""

    def __init__(self, folder: Path, seed: int = 0, *, store: Store | None = None, pages: int = 8) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.store: Store = store or MemoryStore()
        self.store.put("repository.json", encode_record(RepositoryRecord(REPOSITORY.hex(), "2025-01-28")))
        self.store.put("leases/00000001.json", lease_of(1))
        self.states: dict[tuple[GenerationId, int], Model] = {}
        self.bases: dict[GenerationId, int] = {}
        self.begin(G, pages=pages)

    def begin(self, generation: GenerationId, *, pages: int = 8) -> None:
        """A history that begins with a full backup."""
        record = GenerationRecord(
            generation, REPOSITORY.hex(), 1, START + len(self.bases), "a test", 512, None
        )
        self.store.put(f"generations/{generation}.json", encode_record(record))
        self.writer: Writer = writer_on(
            database_of(self.rng, 512, pages), self.rng, generation=generation, epoch=1
        )
        self.waiting: list[bytes] = []
        self.back_up()
        self.bases[generation] = 0

    @property
    def generation(self) -> GenerationId:
        return self.writer.lineage.generation

    # --- what is written -------------------------------------------------------------------------------

    def commit(self, count: int) -> None:
        """Captured, and not shipped yet: units of several transactions, merged ones and ones in parts; at last one of a
        single transaction."""
        first = len(self.writer.units)
        write_history(self.writer, commits_of(self.rng, self.writer.model, count - 1, pages_max=24))
        self.writer.commits(1)
        self.waiting += self.writer.units[first:]

    def commit_large(self, parts: int) -> None:
        self.waiting += self.writer.large(parts)

    def ship(self, count: int | None = None) -> str:
        """So many units, or all, as one segment; returns its name."""
        units = self.waiting[:count] if count is not None else self.waiting
        self.waiting = self.waiting[len(units) :]
        header = parse_unit_header(units[0])
        name = str(SegmentName(header.generation, header.txid_first, header.part))
        self.store.put(name, b"".join(units))
        last = parse_unit_header(units[-1])
        shipped = last.txid_last if last.commits else last.txid_first - 1
        known = self.writer.states.items()
        self.states |= {(self.generation, txid): state for txid, state in known if txid <= shipped}
        return name

    def ship_at_random(self, count_max: int = 3) -> None:
        """All of it, in segments of so many units at most."""
        last = self.waiting.pop()
        while self.waiting:
            self.ship(self.rng.randint(1, count_max))
        self.waiting.append(last)
        self.ship()

    def lose(self) -> list[int]:
        """What waits never comes: the queue of this store was dropped. Returns the transactions that nothing leads to
        any more."""
        self.waiting.clear()
        shipped = {txid for generation, txid in self.states if generation == self.generation}
        lost = [txid for txid in self.writer.states if txid not in shipped]
        for txid in lost:
            del self.writer.states[txid]
        return lost

    def back_up(self) -> int:
        """A full of what was captured; returns where it stands."""
        for name, data in full_of(self.writer).items():
            self.store.put(name, data)
        tip = self.writer.tip.txid
        self.writer.states[tip] = self.states[self.generation, tip] = self.writer.model.copy()
        return tip

    # --- what is there ---------------------------------------------------------------------------------

    @property
    def segments(self) -> list[str]:
        return [each.name for each in self.store.list("tail/")]

    @property
    def logs(self) -> list[LogName]:
        names = [parse_name(each.name) for each in self.store.list("log/")]
        return sorted(
            (name for name in names if isinstance(name, LogName)),
            key=lambda name: (name.generation, name.txid_first, name.txid_last),
        )

    def logged(self, generation: GenerationId = G) -> list[bytes]:
        """The units in all logs, one log after the other."""
        return [
            bytes(view)
            for name in self.logs
            if name.generation == generation
            for view in split_units(decode_log(self.store.get(str(name)), name).units)
        ]

    def restored(
        self, txid: int, generation: GenerationId = G, store: Store | None = None
    ) -> tuple[bytes, int]:
        """The database, and how many transactions were applied to the backup before it."""
        output = self.folder / "restored.db"
        repository = read_repository(store or self.store)
        chosen = choose(repository, Target(txid=txid, generation=generation))
        result = restore_chosen(repository, chosen, str(output), RestoreOptions(verify="none"))
        content = output.read_bytes()
        output.unlink()
        return content, result.transactions_applied

    def require_all(self, store: Store | None = None) -> None:
        """Every restore point there ever was is there, with its content, and nothing was applied twice."""
        repository = read_repository(store or self.store)
        for (generation, txid), state in self.states.items():
            listing = repository.catalogue.generation(generation)
            assert listing is not None
            base = max(each.txid for each in listing.backups if each.txid <= txid)
            content, applied = self.restored(txid, generation, store)
            assert joined(state) == content, (generation, txid)
            assert txid - base == applied, (generation, txid)


def joined(state: Model) -> bytes:
    return b"".join(state.pages[pgno] for pgno in sorted(state.pages))


def lease_of(epoch: int) -> bytes:
    return encode_record(
        LeaseRecord(epoch, f"{epoch:016x}", "host", 1, "2025-01-28T06:00:00Z", took_over=epoch > 1)
    )


def headers_of(units: Sequence[bytes]) -> list[UnitHeader]:
    return [parse_unit_header(unit) for unit in units]


def is_chained(units: Sequence[bytes]) -> bool:
    """Whether each unit was built on the one before."""
    digests: Iterator[bytes] = (decode_unit(unit).digest for unit in units)
    return all(
        follows(header, digest) for header, digest in zip(headers_of(units)[1:], digests, strict=False)
    )
