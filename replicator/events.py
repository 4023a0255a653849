"""Events: what became of a backup, put beside it once; nothing depends on them but what people are told."""

from __future__ import annotations

import logging

from replicator.core.errors import ObjectExists, StoreError
from replicator.core.names import EventName
from replicator.core.records import EventRecord, encode_record
from replicator.store import Store

log = logging.getLogger(__name__)


def note_event(store: Store, record: EventRecord) -> None:
    """Put it, if it can be: a backup is not given up because nobody could be told that it is well."""
    try:
        store.put(str(EventName(record.backup, record.event)), encode_record(record))
    except ObjectExists:
        return
    except StoreError as exc:
        log.warning("event.unwritten", extra={"store": store.url, "key": record.backup, "error": str(exc)})
