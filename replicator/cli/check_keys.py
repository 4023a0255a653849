"""What ``check`` says of keys: whether a store is encrypted, what opens it, how old that is, and who may read a key."""

from __future__ import annotations

import os
from collections.abc import Iterator

from replicator.cli.checks import Finding, Level
from replicator.cli.screen import count_text
from replicator.core.errors import ReplicatorError
from replicator.core.key_ring import KeyRing, openers
from replicator.core.names import KeyName
from replicator.core.operator_key import OperatorKey
from replicator.files import shown_path
from replicator.keys import KeySource
from replicator.slots import is_sealed, record_in, ring_in
from replicator.store import Store

_MICROS_A_DAY = 86_400_000_000


def check_key_files(subject: str, source: KeySource) -> Iterator[Finding]:
    for path in source.files:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # whoever needs the key says so
        if mode & 0o077:
            yield Finding(
                Level.WARN,
                f"{subject} key",
                f"others may read the key file {shown_path(path)} (mode {mode & 0o777:04o})",
                "chmod go= it: who has it and sees the store can read every backup",
            )


def check_encryption(
    store: Store, source: KeySource, now: int, max_age: float = float("inf")
) -> Iterator[Finding]:
    """Of *store*, as it is. *max_age*: seconds after which a key is old. What keeps anybody from reading the store is
    told by who tried."""
    try:
        record = record_in(store)
        sealed = is_sealed(store, record)
        if record is None and not sealed:
            yield _to_be(store.url, source)
            return
        if not sealed:
            yield Finding(Level.OK, store.url, "plain: whoever can read the store can read the database")
            return
        keys = source.read()
        found = ring_in(store, keys)
        if found is not None:
            ring, slot = found
            yield _opened(store.url, ring, openers(slot, str(KeyName(ring.number)), keys), now, max_age)
    except ReplicatorError:
        return


def _to_be(url: str, source: KeySource) -> Finding:
    if not source.configured:
        return Finding(Level.OK, url, "plain, once it begins: no key is given")
    return Finding(Level.OK, url, f"encrypted, once it begins: opened by {_said(source.read()[:1])}")


def _opened(url: str, ring: KeyRing, keys: tuple[OperatorKey, ...], now: int, max_age: float) -> Finding:
    age = max(now - ring.active.created, 0)
    message = (
        f"encrypted: opened by {_said(keys)}; key {ring.active.key_id} seals what is new, "
        f"{count_text(age // _MICROS_A_DAY, 'day')} old"
    )
    if age > max_age * 1e6:
        return Finding(Level.WARN, url, message, "rotate it: `replicator key rotate`")
    return Finding(Level.OK, url, message)


def _said(keys: tuple[OperatorKey, ...]) -> str:
    return " or ".join("a passphrase" if each.passphrase else f"key {each.fingerprint}" for each in keys)
