"""The database held still at one captured commit: what a full backup ends with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from replicator.core.changed_pages import ChangedPages
from replicator.core.unit_build import Lineage, Tip
from replicator.source.database import Database
from replicator.source.pages import CapturedPages
from replicator.spool import Place


@dataclass(frozen=True, slots=True)
class Moment:
    """``pages`` answers for the commit of ``tip``; units behind it in the spool begin at ``spooled``. ``changed``
    goes on with the capturing: it is copied, or read while the database is held still.

    ``unsettled`` are the pages whose newest captured version may not be in the main file; a checkpoint may
    write them there at any time.
    """

    tip: Tip
    lineage: Lineage
    pages: CapturedPages
    changed: ChangedPages
    spooled: Place
    unsettled: set[int]


class Followed(Protocol):
    """A database that is being followed, as others may use it beside the capturing."""

    @property
    def database(self) -> Database: ...

    def require_followed(self) -> None:
        """Raises where it is not followed any more, by whoever this is."""
        ...

    def hold_still(self) -> AbstractContextManager[Moment]:
        """Keep the last captured commit where it is for as long as the context lasts: milliseconds."""
        ...

    def collecting_touched(self) -> AbstractContextManager[set[int]]:
        """A set of every page whose version in the main file may change from now on; it grows as commits
        are captured. Read and change it under ``hold_still`` only."""
        ...
