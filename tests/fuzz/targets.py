"""The table: every parser of the program, what it is fed, and what has to hold of whatever it makes of that."""

from __future__ import annotations

from functools import cache

from tests.fuzz.engine import Target
from tests.fuzz.objects import object_targets
from tests.fuzz.state import state_targets
from tests.fuzz.texts import text_targets
from tests.fuzz.whole import whole_targets


@cache
def targets() -> tuple[Target, ...]:
    """In the order of what they read: stored objects, whole repositories, texts, the state folder."""
    found = (*object_targets(), *whole_targets(), *text_targets(), *state_targets())
    assert len({each.name for each in found}) == len(found)
    return found
