"""Finding repositories below a place: each once, few requests, and nothing of what lies in them."""

from __future__ import annotations

from replicator.browse import repositories_in
from tests.support.memory_store import FaultyStore, MemoryStore


def store_with(*names: str) -> MemoryStore:
    store = MemoryStore()
    for name in names:
        store.put(name, b"")
    return store


def test_repositories_are_found_at_any_depth_but_too_deep() -> None:
    """In order; a repository inside another one is its own affair, and so is one that is very deep."""
    store = store_with(
        "a/repository.json", "a/tail/1/1.segment", "a/inner/repository.json",
        "b/c/d/repository.json", "b/c/note.txt", "b.txt", "b-/repository.json", "é/repository.json",
        "1/2/3/4/5/repository.json", "z/repository.json.bak",
    )  # fmt: skip

    deep: list[str] = []

    assert ["a", "b-", "b/c/d", "é"] == list(repositories_in(store, too_deep=deep.append))
    assert ["1/2/3/4/"] == deep
    assert ["1/2/3/4/5"] == [each for each in repositories_in(store, depth=5) if each.startswith("1")]
    assert [] == list(repositories_in(MemoryStore()))


def test_what_lies_in_a_folder_is_not_listed() -> None:
    """Two requests a folder, however much is in it."""
    inner = store_with(
        "a/repository.json", *(f"a/tail/1/{n:04}.segment" for n in range(500)), "b/repository.json"
    )
    store = FaultyStore(inner)

    assert ["a", "b"] == list(repositories_in(store))
    assert 2 * 2 + 1 == store.calls["list"]
