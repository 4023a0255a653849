"""The second half of a restore: the units after the full backup, applied in order, each proved to follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from replicator.core.errors import ObjectCorrupt, TargetUnreachable
from replicator.core.log import decode_log
from replicator.core.manifest import Backup
from replicator.core.names import CarrierName, LogName, SegmentName
from replicator.core.position import TXID_MAX
from replicator.core.restore_plan import RestorePlan
from replicator.core.unit import (
    Unit,
    UnitHeader,
    decode_unit,
    follows,
    lies_before,
    parse_unit_header,
    split_units,
)
from replicator.core.unit_apply import expand_unit
from replicator.repository import damage_named
from replicator.restore.image import Image
from replicator.store import Store


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where the replay ended, and what the checksum of the whole database has to be there.

    ``checksum`` is None where the agent could not follow it at that commit (it says so in the unit).
    """

    txid: int
    observed: int
    checksum: int | None
    transactions: int


def replay(
    store: Store,
    plan: RestorePlan,
    base: Backup,
    image: Image,
    *,
    jobs: int,
    report: Callable[[int], None],
) -> Replayed:
    """Apply everything after *base*, which the image holds, up to ``plan.txid``; None is the end of the chain.

    Raises TargetUnreachable where the chain has a hole before the target, ObjectCorrupt where an object is
    not what was written. *report* is called with transactions applied, and may raise to stop.
    """
    absolute = int(base.checksum, 16) ^ int(base.rolling, 16)
    state = Replayed(base.txid, base.observed, int(base.checksum, 16), 0)
    chain, part = bytes.fromhex(base.chain), 0
    target = plan.txid if plan.txid is not None else _end(store, plan)
    for name, unit in _units(store, plan.carriers, jobs):
        header = unit.header
        if lies_before(header, state.txid, part):
            continue  # before the backup, or a unit that lies in two objects
        if state.txid >= target or (header.part and header.txid_last > target):
            break
        if state.txid == base.txid and not part:
            _check_begins(name, unit, base)
        _check_follows(name, unit, base, state.txid, chain, part)
        for entry, images in expand_unit(unit, pages_before=image.pages, version=image.page):
            if entry.txid > target:
                break
            for pgno, content in zip(entry.pgnos, images, strict=True):
                image.set(pgno, content)
            if not header.commits:
                continue
            image.resize(entry.pages_after)
            known = header.rolling_known
            state = Replayed(
                entry.txid, entry.observed, absolute ^ entry.rolling if known else None,
                state.transactions + entry.span,
            )  # fmt: skip
            report(entry.span)
        chain, part = unit.digest, 0 if header.commits else header.part
    if plan.txid is not None and state.txid != plan.txid:
        raise TargetUnreachable(
            f"the chain of segments ends at txid {state.txid:016x}, before {plan.txid:016x}",
            hint=f"restore --txid {state.txid:016x} --generation {plan.generation} is the nearest restore point",
        )
    return state


def _end(store: Store, plan: RestorePlan) -> int:
    """The txid up to which segments are whole: a transaction in parts may have been on its way just now."""
    if plan.carriers and isinstance(plan.carriers[-1], SegmentName):
        header: UnitHeader | None = None
        for view in split_units(store.get(str(plan.carriers[-1]))):
            header = parse_unit_header(view)
        if header is not None and not header.commits:
            return header.txid_first - 1
    return TXID_MAX


def _check_begins(name: CarrierName, unit: Unit, base: Backup) -> None:
    """Behind a backup either of the two may be of another history; the backup is what can be gone round."""
    header = unit.header
    is_next = header.generation == base.generation and header.txid_first == base.txid + 1
    if is_next and not follows(header, bytes.fromhex(base.chain)):
        raise ObjectCorrupt(
            f"{name} does not chain to {base.name}, behind which it begins", name=str(base.name)
        )


def _check_follows(name: CarrierName, unit: Unit, base: Backup, txid: int, chain: bytes, part: int) -> None:
    header = unit.header
    if header.generation != base.generation:
        raise ObjectCorrupt(f"{name} holds a unit of another generation", name=str(name))
    expected_part = part + 1 if header.part else 0
    if header.txid_first != txid + 1 or header.part != expected_part:
        raise TargetUnreachable(
            f"transactions {txid + 1:016x} to {header.txid_first - 1:016x} of generation {header.generation} "
            f"are missing: {name} does not follow what is before it",
            hint=f"restore --txid {txid:016x} --generation {header.generation} is the nearest restore point before it",
        )
    if not follows(header, chain) or header.page_size != base.page_size:
        raise ObjectCorrupt(
            f"{name} does not chain to what is before it (txid {header.txid_first:016x})", name=str(name)
        )


def _units(store: Store, names: tuple[CarrierName, ...], jobs: int) -> Iterator[tuple[CarrierName, Unit]]:
    """Logs and segments are fetched ahead, decoded in order."""
    ahead: deque[tuple[CarrierName, Future[bytes]]] = deque()
    waiting = iter(names)
    with ThreadPoolExecutor(jobs, thread_name_prefix="fetch") as pool:
        try:
            while True:
                while len(ahead) < jobs * 2 and (name := next(waiting, None)) is not None:
                    ahead.append((name, pool.submit(store.get, str(name))))
                if not ahead:
                    return
                name, fetched = ahead.popleft()
                content = fetched.result()
                with damage_named(name):
                    units = decode_log(content, name).units if isinstance(name, LogName) else content
                    for view in split_units(units):
                        yield name, decode_unit(view)
        finally:
            for _, fetched in ahead:
                fetched.cancel()
