"""What a restore point needs: objects, bytes, transactions. For ``show`` and for ``restore --plan``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replicator.cli.screen import count_text, size_text, time_text
from replicator.core.full import Manifest, decode_manifest, read_tables
from replicator.core.names import FullName, SegmentName
from replicator.core.times import format_time
from replicator.restore import Chosen, Repository, RestorePoint


@dataclass(frozen=True, slots=True)
class Needs:
    """``full_bytes`` are those of the chunks and the manifest, ``segments`` those that names promise."""

    point: RestorePoint
    full: FullName
    manifest: Manifest
    full_bytes: int
    segments: tuple[SegmentName, ...]
    segment_bytes: int
    notes: tuple[str, ...]

    @property
    def transactions(self) -> int:
        return self.point.position.txid - self.full.txid

    def document(self) -> dict[str, Any]:
        """{position, committed, not_before, full {id, bytes, database_bytes}, segments {count, first, last,
        bytes}, transactions, bytes, notes[]}; first and last are names of objects, null without any."""
        return {
            "position": str(self.point.position),
            "committed": format_time(self.point.observed),
            "not_before": format_time(self.point.not_before),
            "full": {
                "id": self.full.backup_id,
                "bytes": self.full_bytes,
                "database_bytes": self.manifest.database_bytes,
            },
            "segments": {
                "count": len(self.segments),
                "first": str(self.segments[0]) if self.segments else None,
                "last": str(self.segments[-1]) if self.segments else None,
                "bytes": self.segment_bytes,
            },
            "transactions": self.transactions,
            "bytes": self.full_bytes + self.segment_bytes,
            "notes": list(self.notes),
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
        if self.segments:
            rows += [
                ("segments", f"{count_text(len(self.segments), 'object')}, {size_text(self.segment_bytes)}"),
                ("  first", str(self.segments[0])),
                ("  last", str(self.segments[-1])),
            ]
        rows.append(("apply", count_text(self.transactions, "transaction")))
        rows += [("note", note) for note in self.notes]
        return rows


def needs_of(repository: Repository, chosen: Chosen) -> Needs:
    """Reads the manifest of the full and its tables."""
    name = str(chosen.plan.full)
    manifest = decode_manifest(repository.store.get(name), name)
    frames = {run.frame for table in read_tables(manifest, repository.store.get_range) for run in table.runs}
    sizes = repository.catalogue.sizes
    return Needs(
        point=chosen.point,
        full=chosen.plan.full,
        manifest=manifest,
        full_bytes=sum(frame.stored_bytes for frame in frames) + sizes[name],
        segments=chosen.plan.segments,
        segment_bytes=sum(sizes[str(each)] for each in chosen.plan.segments),
        notes=chosen.notes,
    )
