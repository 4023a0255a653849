"""What is fed to those who read a whole repository: one object of it is somebody else's, all the others are good.

What a parser lets pass is used: listed, summed up, shown, written to the places it names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path

from replicator.cli.ls import Filter, describe
from replicator.cli.needs import needs_of
from replicator.cli.show import neighbours
from replicator.core.errors import ReplicatorError
from replicator.core.names import parse_name, split_revision
from replicator.keys import KeySource, unlocked
from replicator.repository import Repository, read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.verify.run import Limits, verify
from tests.fuzz.engine import Form
from tests.fuzz.engine import Target as Fuzzed
from tests.fuzz.objects import KEY, mend_object, mend_sealed, named, said_of, saying, split
from tests.fuzz.texts import NOW, SCRATCH
from tests.support.memory_store import MemoryStore

# A target in the middle, so that logs are read and searched, too.
_TARGETS = (Target(), Target(txid=2), Target(timestamp=NOW), Target(txid=4))
_OUTPUT = Path(SCRATCH.name, "restored.db")


@cache
def good(kind: str) -> dict[str, bytes]:
    return dict(map(split, named(kind, "**/*")))


def check_repository(data: bytes, kind: str = "plain") -> Hashable:
    name, content = split(data)
    if name not in good(kind) and parse_name(split_revision(name)[0]) is None:
        return None
    memory = MemoryStore()
    for each, good_content in (good(kind) | {name: content}).items():
        memory.put(each, good_content)
    store = unlocked(memory, KeySource({"BACKUP_ENCRYPTION_KEY": KEY} if kind == "sealed" else {}))
    found: list[Hashable] = []
    repository = None
    with _told(found):
        repository = read_repository(store)
    if repository is not None:
        for listed in (None, "segment"):
            with _told(found):
                describe(repository, Filter(listed, None, None))
        for target in _TARGETS:
            with _told(found):
                _restore(repository, target)
    with _told(found):
        report = verify(store, "content", Limits(), restore=lambda *_: None)
        found.append(min(len(report.found), 2))
    return tuple(found)


def check_said(data: bytes) -> Hashable:
    """The same, and it is what a manifest says."""
    magic = b"RPLINCR" if data.startswith(b"incremental/") else b"RPLFULL"
    return check_repository(saying(magic, data))


@contextlib.contextmanager
def _told(found: list[Hashable]) -> Iterator[None]:
    try:
        yield
    except ReplicatorError as exc:
        found.append(type(exc).__name__)


def _restore(repository: Repository, target: Target) -> None:
    chosen = choose(repository, target)
    assert needs_of(repository, chosen).document()
    assert needs_of(repository, chosen).rows(NOW)
    listing = repository.catalogue.generation(chosen.plan.generation)
    assert listing is not None
    neighbours(repository, listing, chosen.point.position.txid)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_OUTPUT)
    restore_chosen(repository, chosen, str(_OUTPUT), RestoreOptions("none", jobs=1))
    assert os.path.getsize(_OUTPUT) % 512 == 0


def whole_targets() -> Iterator[Fuzzed]:
    objects = named("plain", "**/*")
    yield Fuzzed("repository", check_repository, objects, named=True, mend=mend_object, weight=0.3)
    yield Fuzzed(
        "repository-sealed",
        lambda data: check_repository(data, "sealed"),
        named("sealed", "**/*"),
        named=True,
        mend=mend_sealed,
        weight=0.2,
    )
    manifests = said_of(named("plain", "full/**/*.full", "incremental/**/*.incremental"))
    yield Fuzzed("repository-said", check_said, manifests, Form.JSON, named=True, weight=0.3)
