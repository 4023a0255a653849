"""A folder as a store, its user killed at every point: what another one then sees of it is durable."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.clock import Clock
from replicator.core.errors import ObjectExists, StoreUnavailable
from replicator.store.folder import FolderStore
from tests.simulation.campaign import lay_out
from tests.simulation.disk import Disk, Reading, View
from tests.simulation.kernel import AGENT, Kernel


def kernel_on(root: Path, disk: Disk) -> Kernel:
    root.mkdir(exist_ok=True)
    kernel = Kernel(str(root), disk, Clock().wall)
    kernel.actor = AGENT
    return kernel


def use(store: FolderStore) -> None:
    store.put("one", b"1")
    store.put("a/b/two", b"2")
    store.put("a/b/three", b"3")
    with pytest.raises(ObjectExists):
        store.put("a/b/two", b"other")
    store.replace("metadata.json", b"old")
    store.replace("metadata.json", b"new")
    store.delete("a/b/two")
    store.delete("a/b/two")
    store.put("a/c/four", b"4")


def crashes(root: Path) -> Iterator[tuple[str, Disk]]:
    """The disk as it is before and after every point, and what the point is."""
    kernel = kernel_on(root, Disk())
    found: list[tuple[str, Disk]] = []
    kernel.on_point = lambda number, label, happened: found.append(
        (f"{number} {label} {happened}", kernel.disk.copy())
    )
    with kernel.in_use():
        use(FolderStore(f"{kernel.root}/store"))
        assert not kernel.differences()
    shutil.rmtree(root)
    yield from found


def objects(view: View) -> dict[str, bytes]:
    return {
        name.removeprefix("store/"): content for name, content in view.items()
        if content is not None and not name.endswith(".tmp")
    }  # fmt: skip


def test_what_is_listed_survives_a_power_cut(tmp_path: Path) -> None:
    """Killed anywhere: whatever the next process sees is there after a power cut, and nothing that it does not see."""
    count = 0
    for label, disk in crashes(tmp_path / "first"):
        root = tmp_path / "next"
        lay_out(disk.view(Reading.KILLED), str(root), Clock().wall())
        kernel = kernel_on(root, disk)
        with kernel.in_use():
            store = FolderStore(f"{kernel.root}/store")
            seen = {each.name: store.get(each.name) for each in store.list("")}

        assert seen == objects(disk.view(Reading.STRICT)), label
        count += 1
    assert count >= 60


def test_a_put_that_returned_survives_a_power_cut(tmp_path: Path) -> None:
    """Killed anywhere, one process after the other: what the second one put is there, in whatever folder the first
    one was just making."""
    for label, disk in crashes(tmp_path / "first"):
        root = tmp_path / "next"
        lay_out(disk.view(Reading.KILLED), str(root), Clock().wall())
        kernel = kernel_on(root, disk)
        with kernel.in_use():
            store = FolderStore(f"{kernel.root}/store")
            store.put("a/b/five", b"5")
            store.put("a/c/six", b"6")

        left = objects(disk.view(Reading.STRICT))
        assert (b"5", b"6") == (left.get("a/b/five"), left.get("a/c/six")), label


@pytest.mark.parametrize("operation", ["put", "delete"])
def test_what_failed_at_its_last_sync_is_durable_when_it_is_tried_again(
    tmp_path: Path, operation: str
) -> None:
    """The name is there, or gone, and nobody would sync it any more."""
    kernel = kernel_on(tmp_path, Disk())
    with kernel.in_use():
        store = FolderStore(f"{kernel.root}/store")
        store.put("a/first", b"1")
        fails = ["a/second"] if operation == "put" else ["a/first"]

        def on_point(_: int, label: str, happened: bool) -> None:
            if fails and not happened and label == "agent: fsync store/a":
                fails.clear()
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        kernel.on_point = on_point
        with pytest.raises(StoreUnavailable):
            store.put("a/second", b"2") if operation == "put" else store.delete("a/first")
        if operation == "put":
            with pytest.raises(ObjectExists):
                store.put("a/second", b"2")
        else:
            store.delete("a/first")

    left = objects(kernel.disk.view(Reading.STRICT))
    assert ({"a/first": b"1", "a/second": b"2"} if operation == "put" else {}) == left
