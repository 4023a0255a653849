"""Listing what lies in folders as a store lists it: by whole names, from any name on, reading no folder in vain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from replicator.core.catalogue import Listed
from replicator.store.contract import is_probe

Entry = TypeVar("Entry")

# Names of ours have six parts at most, below a prefix of some more. What lies deeper is passed over: a path may be
# longer than can be said, and deeper than a stack.
DEPTH_MAX = 64


def walk(
    read: Callable[[str], Iterable[tuple[str, Entry]]],
    size: Callable[[Entry], int | None],
    prefix: str,
    after: str,
    *,
    folder: str | None = None,
) -> Iterator[Listed]:
    """*read* gives the entries of a folder by its name from the root on, folders with a slash behind their own
    names; *size* that of a file, None for what is none of ours. Names that begin with a dot are passed over, but for
    probes that are asked for; and what lies deeper than anything of ours.

    In the order of whole names: a folder sorts as its name with the slash behind it. Begins in *folder*, without
    one in the nearest that holds all of *prefix*.
    """
    if folder is None:
        folder = prefix.rpartition("/")[0]
    for key, entry in sorted(read(folder), key=lambda found: found[0]):
        name = f"{folder}/{key}" if folder else key
        if key.endswith("/"):
            reachable = name.startswith(prefix) or prefix.startswith(name)
            if (
                reachable
                and name.count("/") <= DEPTH_MAX
                and not (name < after and not after.startswith(name))
            ):
                yield from walk(read, size, prefix, after, folder=name[:-1])
        elif name.startswith(prefix) and name > after and (not key.startswith(".") or is_probe(prefix)):
            found_size = size(entry)
            if found_size is not None:
                yield Listed(name, found_size)
