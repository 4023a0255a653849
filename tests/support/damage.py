"""Damage done to a repository, kind by kind, and what becomes of it: does verify name it, and what does restore give?

Every object of a `Specimen` (specimen.py) that stands for its kind is lost, cut short, changed by one bit, exchanged
with another, and replaced by what lay under its name in another history. What was done is undone again.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from replicator.core.errors import ReplicatorError
from replicator.keys import unlocked
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, around_damage, choose, restore_chosen
from replicator.store import open_store
from replicator.store.sealed import SealedStore
from replicator.verify import LEVELS, Limits, Report, verify
from tests.support.specimen import Specimen

HEX = b"0123456789abcdef"


@dataclass(frozen=True)
class Victim:
    """An object that stands for its kind. ``partner``: another of the kind. It tells of *first* to *last* transaction;
    without, it is of no single ones. ``value``: where in a record the bit is turned."""

    kind: str
    name: Path
    partner: Path
    first: int = 1
    last: int = 34
    value: bytes = b""


def victims(specimen: Specimen) -> list[Victim]:
    store = specimen.store

    def one(pattern: str) -> Path:
        (found,) = store.glob(pattern)
        return found

    (running,) = {each.parent.name for each in store.glob("tail/*/*23.segment")}
    (before,) = {each.stem for each in store.glob("generations/*.json")} - {running}
    full = [one(f"full/*/*/*/*-{running}-{txid:016x}.full") for txid in (0, 12, 24)]
    pack = [one(f"full/*/*/*/*-{running}-{txid:016x}-*.pack") for txid in (0, 12, 24)]
    base = one(f"full/*/*/*/*-{before}-*.pack")
    incremental = {txid: one(f"incremental/*/*/*/*-{running}-*-{txid:016x}.incremental") for txid in (16, 20)}
    page_pack = {txid: one(f"incremental/*/*/*/*-{running}-{txid:016x}-*.pack") for txid in (16, 20)}
    log = {txid: one(f"log/*/*/*/*-{running}-*-{txid:016x}.log") for txid in (16, 20, 29)}
    tail = {txid: one(f"tail/{running}/{txid:016x}.segment") for txid in (30, 32, 33, 35)}
    event = sorted(store.glob(f"records/*-{running}-*/*.json"))
    stranger = specimen.stranger
    lease = sorted(store.glob("leases/*.json"))
    slots = sorted(store.glob("keys/*.json"))
    found = [
        Victim("repository.json", store / "repository.json", stranger / "repository.json", value=b'"repository": "'),
        Victim("generation record", store / f"generations/{running}.json", store / f"generations/{before}.json",
               value=b'"repository": "'),
        Victim("lease", lease[1], lease[0], value=b'"epoch": '),
        Victim("event record", event[-1], event[0], value=b'"backup": "'),
        Victim("full, newest", full[2], full[1], 24, 24),
        Victim("full, older", full[1], full[2], 12, 12),
        Victim("pack of a full", pack[2], pack[1], 24, 24),
        Victim("pack shared by fulls", base, pack[1]),
        Victim("incremental, newest", incremental[20], incremental[16], 20, 20),
        Victim("incremental, below another", incremental[16], incremental[20], 16, 16),
        Victim("pack of an incremental", page_pack[20], page_pack[16], 20, 20),
        Victim("log, newest", log[29], log[20], 25, 29),
        Victim("log, older", log[20], log[16], 17, 20),
        Victim("segment, oldest", tail[30], tail[32], 30, 30),
        Victim("segment, middle", tail[32], tail[33], 32, 32),
        Victim("segment, newest", tail[35], tail[32], 35, 35),
        Victim("fence", one(f"tail/{before}/*-p0001.segment"), tail[30], value=b'"epoch": '),
        Victim("metadata.json", store / "metadata.json", stranger / "metadata.json", value=b'"txid": "'),
    ]  # fmt: skip
    if slots:
        found.insert(3, Victim("key slot, newest", slots[1], slots[0], value=b'"sealed": "'))
        found.insert(4, Victim("key slot, older", slots[0], slots[1], value=b'"sealed": "'))
    return found


# --- damages -------------------------------------------------------------------------------------------


def lose(_: Specimen, victim: Victim) -> None:
    victim.name.unlink()


def cut(_: Specimen, victim: Victim) -> None:
    content = victim.name.read_bytes()
    victim.name.write_bytes(content[: len(content) // 2])


def turn(_: Specimen, victim: Victim) -> None:
    """One bit, and where that can be, such a one that a record stays a record."""
    content = bytearray(victim.name.read_bytes())
    at = content.find(victim.value) + len(victim.value) if victim.value in content and victim.value else 0
    if at:
        content[at] ^= next(bit for bit in (1, 2, 4) if content[at] ^ bit in HEX)
    else:
        content[len(content) // 2] ^= 1
    victim.name.write_bytes(content)


def exchange(specimen: Specimen, victim: Victim) -> None:
    ours, theirs = victim.name.read_bytes(), victim.partner.read_bytes()
    victim.name.write_bytes(theirs)
    if specimen.store in victim.partner.parents:
        victim.partner.write_bytes(ours)


def replay(specimen: Specimen, victim: Victim) -> None:
    """What lay there in another history; where nothing did, what another repository has of that kind."""
    if victim.name.name == "metadata.json":
        victim.name.write_bytes(specimen.old_metadata)
        return
    inside = victim.name.relative_to(specimen.store)
    there = specimen.other / inside
    if not there.exists() or there.read_bytes() == victim.name.read_bytes():
        kind = f"{inside.parts[0]}/**/*{inside.suffix}" if len(inside.parts) > 1 else inside.name
        there = sorted(specimen.stranger.glob(kind))[-1]
    victim.name.write_bytes(there.read_bytes())
    if victim.name.suffix in (".full", ".incremental"):
        for pack in specimen.other.rglob("*.pack"):  # of no use without what it needs
            here = specimen.store / pack.relative_to(specimen.other)
            if not here.exists():
                shutil.copy(pack, here)


DAMAGES: dict[str, Callable[[Specimen, Victim], None]] = {
    "missing": lose,
    "cut short": cut,
    "one bit": turn,
    "exchanged": exchange,
    "replayed": replay,
}


@contextlib.contextmanager
def damaged(specimen: Specimen, victim: Victim, damage: str) -> Iterator[None]:
    before = {path: path.read_bytes() for path in (victim.name, victim.partner)}
    names = set(specimen.store.rglob("*.pack"))
    DAMAGES[damage](specimen, victim)
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)
        for path in set(specimen.store.rglob("*.pack")) - names:
            path.unlink()


# --- what comes of it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """As the table says it, and ``wrong``: what was restored and is no commit that was asked for."""

    verify: str
    latest: str
    before: str
    after: str
    wrong: tuple[str, ...]
    given: int
    asked: int


def judge(specimen: Specimen, victim: Victim, output: Path, *, thorough: bool) -> Outcome:
    """With the damage done. *thorough*: every commit is restored, not only those around the damage."""
    wrong: list[str] = []

    def give(target: Target, wanted: int) -> str:
        said = restored(specimen, target, output)
        if said.digest == specimen.digests[wanted]:
            return "the same, another way" if said.told("gone round") else "the same"
        known = {digest: txid for txid, digest in specimen.digests.items()}
        if said.digest in known and known[said.digest] < wanted:
            return "older, and says so" if said.told("is rounded to") else "older"
        if said.digest is not None:
            wrong.append(
                f"{target} gave {'what never was' if said.digest not in specimen.strange else 'the other history'}"
            )
        return said.fault

    def at(txid: int) -> str:
        if txid not in specimen.walls:
            return "–"
        return give(Target(timestamp=specimen.walls[txid] + 1_000_000), txid)

    newest = max(specimen.digests)
    around = {0, victim.first - 1, victim.first, victim.last, victim.last + 1, newest}
    asked = [txid for txid in specimen.digests if thorough or txid in around]
    given = [give(Target(txid=txid), txid) for txid in asked]
    return Outcome(
        _seen(specimen, victim), give(Target(), newest), at(victim.first - 1), at(victim.last + 1), tuple(wrong),
        sum(each.startswith("the same") for each in given), len(asked),
    )  # fmt: skip


def _seen(specimen: Specimen, victim: Victim) -> str:
    """At the lowest level that sees it."""
    name = victim.name.relative_to(specimen.store).as_posix()
    noted = ""
    for level in LEVELS[:3]:
        found = looked_at(specimen, level)
        if isinstance(found, ReplicatorError):
            return f"{level}: refused, {type(found).__name__}"
        if any(each.name == name for each in found.found):
            return f"{level}: named"
        if found.found:
            return f"{level}: named by what needs it"
        if not noted and set(found.notes) - specimen.notes:
            noted = f"{level}: a note"
    return noted or "not seen"


def looked_at(specimen: Specimen, level: str) -> Report | ReplicatorError:
    try:
        return verify(opened(specimen), level, Limits(), restore=lambda *_: None)
    except ReplicatorError as exc:
        return exc


def opened(specimen: Specimen) -> SealedStore:
    return unlocked(open_store(str(specimen.store)), specimen.keys)


@dataclass(frozen=True)
class Restored:
    """``fault``: how the error looks in the table."""

    digest: str | None = None
    remarks: tuple[str, ...] = ()
    error: ReplicatorError | None = None

    def told(self, words: str) -> bool:
        return any(words in each for each in self.remarks)

    @property
    def fault(self) -> str:
        return "refused, with what is left" if self.error is not None and self.error.hint else "refused"


def restored(specimen: Specimen, target: Target, output: Path, *, verify: str = "none") -> Restored:
    """As `restore` does it, but without the last proofs: what is read has to be proved as it is read."""
    store = opened(specimen)
    output.unlink(missing_ok=True)
    try:
        result = around_damage(
            lambda: read_repository(store),
            lambda repository: choose(repository, target),
            lambda repository, chosen: restore_chosen(
                repository, chosen, str(output), RestoreOptions(verify)
            ),
            target=target,
        )
    except ReplicatorError as exc:
        assert not output.exists()
        return Restored(error=exc)
    return Restored(hashlib.sha256(output.read_bytes()).hexdigest(), result.remarks)


def examine(specimen: Specimen, victim: Victim, damage: str, output: Path, *, thorough: bool) -> Outcome:
    with damaged(specimen, victim, damage):
        return judge(specimen, victim, output, thorough=thorough)
