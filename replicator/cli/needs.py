"""What a restore point needs: objects, bytes, transactions. For ``show`` and for ``restore --plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from replicator.cli.screen import count_text, size_text, time_text
from replicator.core.full import Manifest, decode_manifest, read_tables
from replicator.core.names import CarrierName, FullName, IncrementalName, LogName, SegmentName
from replicator.core.times import format_time
from replicator.repository import Repository, RestorePoint
from replicator.restore import Chosen


@dataclass(frozen=True, slots=True)
class Needs:
    """``full_bytes`` are those of the chunks, their tables and the manifest; ``sizes`` of all objects, by name."""

    point: RestorePoint
    full: FullName
    manifest: Manifest
    full_bytes: int
    incrementals: tuple[IncrementalName, ...]
    incremental_bytes: int
    carriers: tuple[CarrierName, ...]
    sizes: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def transactions(self) -> int:
        return self.point.position.txid - (
            self.incrementals[-1].txid if self.incrementals else self.full.txid
        )

    def document(self) -> dict[str, Any]:
        """{position, committed, not_before, full {id, bytes, database_bytes}, incrementals {ids[], bytes}, logs and
        segments {count, first, last, bytes}, transactions, bytes, notes[]}; first and last are names of objects, null
        without any."""
        return {
            "position": str(self.point.position),
            "committed": format_time(self.point.observed),
            "not_before": format_time(self.point.not_before),
            "full": {
                "id": self.full.backup_id,
                "bytes": self.full_bytes,
                "database_bytes": self.manifest.database_bytes,
            },
            "incrementals": {
                "ids": [each.backup_id for each in self.incrementals],
                "bytes": self.incremental_bytes,
            },
            "logs": self._carrier_document(LogName),
            "segments": self._carrier_document(SegmentName),
            "transactions": self.transactions,
            "bytes": self.full_bytes
            + self.incremental_bytes
            + sum(self.sizes[str(each)] for each in self.carriers),
            "notes": list(self.notes),
        }

    def _carrier_document(self, kind: type[CarrierName]) -> dict[str, Any]:
        found = [each for each in self.carriers if isinstance(each, kind)]
        return {
            "count": len(found),
            "first": str(found[0]) if found else None,
            "last": str(found[-1]) if found else None,
            "bytes": sum(self.sizes[str(each)] for each in found),
        }

    def rows(self, now: int) -> list[tuple[str, str]]:
        """Lines for the eye."""
        rows = [
            ("committed", time_text(self.point.observed, now)),
            (
                "full",
                f"{self.full.backup_id}: {size_text(self.full_bytes)} of a database of "
                f"{size_text(self.manifest.database_bytes)}",
            ),
        ]
        if self.incrementals:
            count = count_text(len(self.incrementals), "object")
            rows.append(("incrementals", f"{count}, {size_text(self.incremental_bytes)}"))
            rows += [("", each.backup_id) for each in self.incrementals]
        for word, kind in (("logs", LogName), ("segments", SegmentName)):
            found = self._carrier_document(kind)
            if found["count"]:
                rows += [
                    (word, f"{count_text(found['count'], 'object')}, {size_text(found['bytes'])}"),
                    ("  first", found["first"]),
                    ("  last", found["last"]),
                ]
        rows.append(("apply", count_text(self.transactions, "transaction")))
        rows += [("note", note) for note in self.notes]
        return rows


def needs_of(repository: Repository, chosen: Chosen) -> Needs:
    """Reads the manifests of the backups, and the tables of the full."""
    name = str(chosen.plan.full)
    manifest = decode_manifest(repository.store.get(name), name)
    frames = {each.frame for each in manifest.tables}
    for table in read_tables(manifest, repository.store.get_range):
        frames.update(run.frame for run in table.runs)
    sizes = repository.catalogue.sizes
    return Needs(
        point=chosen.point,
        full=chosen.plan.full,
        manifest=manifest,
        full_bytes=sum(frame.stored_bytes for frame in frames) + sizes[name],
        incrementals=chosen.plan.incrementals,
        incremental_bytes=sum(
            sizes[str(each)] + repository.incremental(each).stored_bytes for each in chosen.plan.incrementals
        ),
        carriers=chosen.plan.carriers,
        sizes=sizes,
        notes=chosen.notes,
    )
