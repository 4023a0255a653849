"""The contract, tried on a store that somebody means to use: what ``check --store`` does, and the tests of every kind.

Objects of a trial begin like probes, so that one which could not be deleted again is in nobody's way.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from replicator.core.errors import ObjectCorrupt, ObjectExists, ObjectNotFound, StoreDenied
from replicator.store.contract import PROBES, Store

RACERS = 4


class Broken(Exception):
    """A promise of the contract that the store does not keep, as a sentence."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a store may lack and be used all the same: why nothing can be deleted there (``kept``), why nothing can be
    replaced (``fixed``), why it does not say when an object was written (``untimed``). ``raced``: of several puts of a
    name at the same moment exactly one succeeded."""

    kept: StoreDenied | None = None
    fixed: StoreDenied | None = None
    untimed: StoreDenied | None = None
    raced: bool = True


def try_store(store: Store) -> Trial:
    """Raises Broken, or StoreError where the store cannot be used."""
    stem = f"{PROBES}{secrets.token_hex(8)}"
    names = [f"{stem}-{each}" for each in ("a", "b", "empty", "race", "replaced")]
    try:
        for promise in (_put_once, _reads, _is_listed):
            promise(store, stem)
        raced = _one_wins(store, f"{stem}-race")
        fixed = _replaced(store, f"{stem}-replaced")
        untimed = _timed(store, names[0])
    finally:
        kept = _deleted(store, names)
    if kept is None:
        _is_gone(store, names[0])
    return Trial(kept, fixed, untimed, raced)


def _put_once(store: Store, stem: str) -> None:
    for name, content in ((f"{stem}-a", b"0123456789"), (f"{stem}-empty", b"")):
        store.put(name, content)
        if not _is_refused(store, name):
            raise Broken("it overwrote an object that was there, so that an agent cannot notice a second one")
        if store.get(name) != content:
            raise Broken("it gave back other bytes than were put")


def _is_refused(store: Store, name: str) -> bool:
    try:
        store.put(name, b"another")
    except ObjectExists:
        return True
    return False


def _reads(store: Store, stem: str) -> None:
    if store.get_range(f"{stem}-a", 3, 4) != b"3456":
        raise Broken("it gave back other bytes of an object than were asked for")
    try:
        store.get_range(f"{stem}-a", 8, 4)
    except ObjectCorrupt:
        pass
    else:
        raise Broken("it gave bytes from behind the end of an object")
    _is_gone(store, f"{stem}-missing")


def _is_gone(store: Store, name: str) -> None:
    try:
        store.get(name)
    except ObjectNotFound:
        return
    raise Broken("it gave an object that is not there")


def _is_listed(store: Store, stem: str) -> None:
    store.put(f"{stem}-b", b"later")
    found = [(each.name, each.size) for each in store.list(stem)]
    if found != [(f"{stem}-a", 10), (f"{stem}-b", 5), (f"{stem}-empty", 0)]:
        raise Broken("a listing does not show what was just put, in the order of names")
    if [each.name for each in store.list(stem, f"{stem}-a")] != [f"{stem}-b", f"{stem}-empty"]:
        raise Broken("a listing does not begin behind the name it was asked to begin behind")


def _one_wins(store: Store, name: str) -> bool:
    won: list[int] = []
    failed: list[Exception] = []
    ready = threading.Barrier(RACERS)

    def race(number: int) -> None:
        ready.wait()
        try:
            store.put(name, bytes([number]))
            won.append(number)
        except ObjectExists:
            pass
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return len(won) == 1 and store.get(name) == bytes(won)


def _replaced(store: Store, name: str) -> StoreDenied | None:
    try:
        for content in (b"first", b"second and longer", b"third"):
            store.replace(name, content)
            if store.get(name) != content:
                raise Broken("it gave back other bytes than an object was replaced with")
    except StoreDenied as exc:
        return exc
    return None


def _timed(store: Store, name: str) -> StoreDenied | None:
    try:
        store.modified(name)
    except StoreDenied as exc:
        return exc
    return None


def _deleted(store: Store, names: list[str]) -> StoreDenied | None:
    for name in names:
        try:
            store.delete(name)
        except StoreDenied as exc:
            return exc
    return None
