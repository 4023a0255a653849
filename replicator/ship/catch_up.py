"""Catch up: where in the spool the queue of a store begins, seen from what the store has already."""

from __future__ import annotations

from collections.abc import Callable

from replicator.core.errors import OwnershipLost
from replicator.core.position import GenerationId
from replicator.core.unit import TRAILER_SIZE, follows, parse_unit_header
from replicator.spool import Place, Spool
from replicator.state import Newest


def place_behind(
    spool: Spool,
    unit: bytes | None,
    running: GenerationId,
    newest: Callable[[GenerationId], Newest],
    url: str,
    acknowledged: int,
) -> Place | None:
    """Behind *unit*, the newest one of the running generation that the store at *url* has; None where units
    between it and the spool are missing. *newest* tells the same of another generation. Up to *acknowledged* it had
    all of this one: what it lost of that the spool has no more."""
    if unit is None:
        return _place_without(spool, running, newest)
    theirs = parse_unit_header(unit)
    found = spool.place_after(theirs)
    if found is not None and found[1] == unit:
        return found[0]
    first = spool.first_of(running)
    if found is None and first is None and theirs.txid_last < acknowledged:
        return None
    if found is None and (first is None or follows(first[1], unit[-TRAILER_SIZE:])):
        return first[0] if first else spool.end
    last = spool.last_unit()
    ours = parse_unit_header(last) if last is not None else None
    if found is not None or (ours and ours.generation == running and ours.txid_last < theirs.txid_last):
        raise OwnershipLost(
            f"{url} holds transaction {theirs.position}, which this agent never captured",
            hint="this state folder is an old copy, or another agent wrote there; "
            "delete the state folder, and start with --take-over to begin a new generation",
        )
    return None


def _place_without(
    spool: Spool, running: GenerationId, newest: Callable[[GenerationId], Newest]
) -> Place | None:
    """Nothing of the running generation is there: all of it has to be in the spool still. Generations
    before it end where the store has them; what the store has not got of them follows."""
    place = spool.beginning
    for generation in spool.generations():
        if generation != running:
            unit = newest(generation).unit
            found = spool.place_after(parse_unit_header(unit)) if unit is not None else None
            place = found[0] if found is not None else place
    first = spool.first_of(running)
    if first is not None and (first[1].txid_first != 1 or first[1].part > 1):
        return None
    return place
