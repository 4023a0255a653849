"""Which pages changed since when, from one run of the agent to the next."""

from __future__ import annotations

import logging

from replicator.capture.rounds import Capture
from replicator.core.changed_pages import ChangedPages
from replicator.core.errors import StoreError
from replicator.core.position import GenerationId
from replicator.core.unit import decode_unit
from replicator.core.unit_build import Tip
from replicator.spool import Spool
from replicator.state import StateFolder

log = logging.getLogger(__name__)


def changed_since(state: StateFolder, spool: Spool, tip: Tip, generation: GenerationId) -> ChangedPages:
    """What is known of the pages changed up to *tip*: kept by an earlier run, and the units in the spool behind that.
    Where the two do not meet, it begins now, and backups from before cannot be built upon."""
    if tip.txid == 0:
        return ChangedPages(generation, 0)
    kept = state.load_changed()
    if kept is not None and kept.generation == generation and kept.txid <= tip.txid:
        written = kept.txid
        for header, data in spool.all_units():
            if header.generation != generation or header.txid_last <= written:
                continue
            if header.txid_first > kept.txid + 1:
                break
            for entry in decode_unit(data).entries:  # of parts each has the txid of the whole transaction
                kept.note(entry.txid, entry.pgnos, entry.hashes)
        if kept.txid == tip.txid:
            return kept
    return ChangedPages(generation, tip.txid)


def keep_changed(state: StateFolder, capture: Capture) -> None:
    """Write down which pages changed, so that the next run can make an incremental backup."""
    with capture.hold_still() as moment:
        changed = moment.changed.copy()
    try:
        state.save_changed(changed)
    except StoreError as exc:
        log.warning("state.unwritten", extra={"error": str(exc)})
