"""What ``check --store`` tries: what a store may lack is told of, and one that breaks a promise is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from replicator.cli.checks import check_store
from replicator.core.errors import StoreDenied
from replicator.store.trial import Broken, Trial, try_store
from tests.support.memory_store import MemoryStore

DENIED = StoreDenied("these keys may only add", hint="let them")


class Restricted(MemoryStore):
    """Denies what is in ``denied``."""

    def __init__(self, *denied: str) -> None:
        super().__init__()
        self.denied = denied

    def _allow(self, operation: str) -> None:
        if operation in self.denied:
            raise DENIED

    def delete(self, name: str) -> None:
        self._allow("delete")
        super().delete(name)

    def replace(self, name: str, data: bytes) -> None:
        self._allow("replace")
        if name in self.names:
            self._allow("replace again")
        super().replace(name, data)

    def modified(self, name: str) -> int:
        self._allow("modified")
        return super().modified(name)


@pytest.mark.parametrize(
    ("denied", "found", "says"),
    [
        ((), Trial(), []),
        (("delete",), Trial(kept=DENIED), ["it may not delete"]),
        (("replace",), Trial(fixed=DENIED), ["it may not replace"]),
        (("replace again",), Trial(fixed=DENIED), ["it may not replace"]),
        (("modified",), Trial(untimed=DENIED), ["compare its clock"]),
        (
            ("delete", "replace"),
            Trial(kept=DENIED, fixed=DENIED),
            ["it may not delete", "it may not replace"],
        ),
    ],
)
def test_what_a_store_may_lack_is_a_warning(denied: tuple[str, ...], found: Trial, says: list[str]) -> None:
    """Each with why and what to do, and no failure; what works is said where nothing is lacking."""
    assert found == try_store(Restricted(*denied))

    findings = list(check_store(Restricted(*denied), None))
    warned = [each for each in findings if each.level.name == "WARN"]

    assert len(says) == len(warned)
    assert all(text in each.message for text, each in zip(says, warned, strict=True))
    assert all(each.hint and str(DENIED) in each.message for each in warned)
    assert not [each for each in findings if each.level.name == "FAIL"]


def test_nothing_of_a_trial_is_left() -> None:
    """Whatever was found, but for what may not be deleted, and that is hidden from listings."""
    for denied in ((), ("replace",), ("replace again",), ("modified",)):
        store = Restricted(*denied)
        try_store(store)
        assert [] == store.names

    kept = Restricted("delete")
    try_store(kept)
    assert all(each.startswith(".probe-") for each in kept.names)


Breaking = Callable[[MemoryStore, str, bytes], None]


@pytest.mark.parametrize(
    "replace",
    [
        lambda store, name, data: None if name in store.names else store.put(name, data),
        lambda store, name, data: MemoryStore.replace(store, name, data[:5]),
    ],
    ids=["keeps the old", "keeps a part"],
)
def test_a_store_that_replaces_wrongly_is_refused(replace: Breaking, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it did, and gives back something else."""
    store = MemoryStore()
    monkeypatch.setattr(store, "replace", lambda name, data: replace(store, name, data))

    with pytest.raises(Broken, match="replaced with"):
        try_store(store)
    assert [] == store.names
