"""Which restore points of one generation have a way to them, and which have lost it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Base:
    """A backup that units can be applied to. ``whole``: nothing that it needs is missing or damaged."""

    txid: int
    time: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive transactions that lie in one object, with the times of the first and the last of them."""

    txid_first: int
    txid_last: int
    time_first: int
    time_last: int
    whole: bool = True


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Restore points from one to another, both included, with their times in microseconds."""

    txid_first: int
    txid_last: int
    time_first: int
    time_last: int


def known(bases: Iterable[Base], spans: Sequence[Span]) -> list[Stretch]:
    """All restore points there ever were, damage or not: what is reached if everything were whole."""
    return restorable(
        [Base(each.txid, each.time) for each in bases],
        [Span(each.txid_first, each.txid_last, each.time_first, each.time_last) for each in spans],
    )


def restorable(bases: Iterable[Base], spans: Sequence[Span]) -> list[Stretch]:
    """What can be reached: from each whole base as far as whole spans follow each other. Joined, ascending."""
    found: list[Stretch] = []
    ordered = sorted(
        (each for each in spans if each.whole), key=lambda each: (each.txid_first, each.txid_last)
    )
    for base in sorted((each for each in bases if each.whole), key=lambda each: each.txid):
        if found and base.txid <= found[-1].txid_last:
            continue  # the way from an earlier base leads through here
        end, time = base.txid, base.time
        for span in ordered:
            if span.txid_first > end + 1:
                break
            if span.txid_last > end:
                end, time = span.txid_last, span.time_last
        found.append(Stretch(base.txid, end, base.time, time))
    return found


def lost(bases: Sequence[Base], spans: Sequence[Span]) -> list[Stretch]:
    """Restore points that were there and cannot be reached any more. Their times are those of the objects around."""
    left = restorable(bases, spans)
    missing: list[Stretch] = []
    for whole in known(bases, spans):
        first, time = whole.txid_first, whole.time_first
        for part in left:
            if part.txid_last < first or part.txid_first > whole.txid_last:
                continue
            if part.txid_first > first:
                missing.append(Stretch(first, part.txid_first - 1, time, part.time_first))
            first, time = part.txid_last + 1, part.time_last
        if first <= whole.txid_last:
            missing.append(Stretch(first, whole.txid_last, time, whole.time_last))
    return missing
