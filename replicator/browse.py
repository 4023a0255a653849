"""Browse: which repositories lie below a place that is none itself, a bucket or a folder of many databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from replicator.core.names import REPOSITORY
from replicator.store import Store

# Deeper ones are found by naming a place further down. Each folder on the way costs two requests.
DEPTH_MAX = 4
# Behind every name in a folder.
_LAST = "\U0010ffff"


def repositories_in(
    store: Store, *, depth: int = DEPTH_MAX, too_deep: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Prefixes, without the slash at the end, in order of their names. What lies in a repository is its own. *too_deep*
    is called with each folder that was not looked into any more."""
    yield from _below(store, "", depth, too_deep)


def _below(store: Store, prefix: str, depth: int, too_deep: Callable[[str], None]) -> Iterator[str]:
    after = ""
    while (folder := _next_folder(store, prefix, after)) is not None:
        below = f"{prefix}{folder}/"
        if any(each.name == below + REPOSITORY for each in store.list(below + REPOSITORY)):
            yield below[:-1]
        elif depth > 1:
            yield from _below(store, below, depth - 1, too_deep)
        else:
            too_deep(below)
        after = below + _LAST


def _next_folder(store: Store, prefix: str, after: str) -> str | None:
    """The first folder right below *prefix* with a name behind *after*."""
    for each in store.list(prefix, after):
        folder, slash, _ = each.name[len(prefix) :].partition("/")
        if slash:
            return folder
    return None
