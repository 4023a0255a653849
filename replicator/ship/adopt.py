"""Adopt: a segment that lies where ours was to go is ours, or another agent's."""

from __future__ import annotations

import logging

from replicator.core.errors import OwnershipLost
from replicator.core.names import SegmentName
from replicator.core.records import lease_in_segment
from replicator.core.unit import UnitHeader, decode_unit, parse_unit_header, split_units
from replicator.spool import Place, Spool
from replicator.store import Store

log = logging.getLogger(__name__)


def adopt(
    store: Store, spool: Spool, name: SegmentName, place: Place, epoch: int
) -> tuple[UnitHeader, Place, bytes]:
    """An earlier attempt of ours put it, perhaps cut elsewhere, if it holds exactly the units that come next in the
    spool; anything else is somebody else's, and OwnershipLost. Returns the last of them, the place behind it, and
    what lies there."""
    content = store.get(str(name))
    lease = lease_in_segment(content, str(name))
    if lease is not None:
        raise OwnershipLost(
            f"process {lease.pid} on {lease.host} took {store.url} over from us at {lease.claimed} "
            f"(its epoch {lease.epoch}, ours {epoch})",
            hint="stop this agent, or start it with --take-over to have the store back",
        )
    header: UnitHeader | None = None
    for theirs in split_units(content):
        decode_unit(theirs)  # what was damaged is nobody's
        ours, behind = spool.read(place, 1)
        if not ours or ours[0][1] != bytes(theirs):
            raise OwnershipLost(
                f"another agent wrote {name} to {store.url} "
                f"(its epoch {parse_unit_header(theirs).epoch}, ours {epoch})",
                hint="stop one of the two; if this state folder is an old copy, delete it and start again",
            )
        header, place = ours[0][0], behind
    if header is None:
        raise OwnershipLost(f"an empty {name} lies in {store.url}", hint="we never write such a thing")
    log.info("segment.adopted", extra={"store": store.url, "key": str(name)})
    return header, place, content
