"""Events: what became of a backup, put beside it once. Nothing depends on them but what people are told, and that one
that was found hurt is not relied upon."""

from __future__ import annotations

import logging

from replicator.core.errors import ObjectExists, StoreError
from replicator.core.names import RECORDS, EventName, parse_name
from replicator.core.records import DAMAGED, EventRecord, encode_record
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


def damaged_backups(store: Store, backup_id: str = "") -> frozenset[str]:
    """The ids of backups that were found hurt, or whether that one was; one LIST."""
    prefix = f"{RECORDS}{backup_id}/" if backup_id else RECORDS
    found = (parse_name(each.name) for each in store.list(prefix))
    return frozenset(
        each.backup_id for each in found if isinstance(each, EventName) and each.event == DAMAGED
    )
