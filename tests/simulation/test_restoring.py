"""A restore that ends anywhere: at its destination is the old file or the new one, whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from replicator.clock import Clock
from replicator.keys import KeySource, unlocked
from replicator.repository import read_repository
from replicator.restore import RestoreOptions, Target, choose, restore_chosen
from replicator.store.folder import FolderStore
from tests.simulation.disk import Disk, Reading
from tests.simulation.kernel import AGENT, HERE, Kernel
from tests.simulation.workload import Workload, new_world
from tests.simulation.world import STORE

OLD = b"what was there"


def a_store(root: Path) -> str:
    """With a full and some commits in it; returns the digest of the newest."""
    world = new_world(str(root), sealed=False)
    with world.entered():
        for stage in Workload(world).stages():
            if stage == "an incremental, and one when nothing has changed":
                break
        return world.history.commits[-1].digest


def test_a_destination_has_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """Before and after each point, killed or with the power cut; and once it has returned it is the new one."""
    newest = a_store(tmp_path / "first")
    root = tmp_path / "second"
    root.mkdir()
    shutil.copytree(tmp_path / "first" / STORE, root / STORE)
    kernel = Kernel(str(root), Disk(), Clock().wall)
    kernel.actor = AGENT
    left: list[tuple[str, Reading, bytes | None]] = []

    def look(label: str) -> None:
        left.extend((label, each, kernel.disk.view(each).get("out/app.db")) for each in Reading)

    with kernel.in_use():
        os.mkdir(f"{HERE}/out")
        fd = os.open(f"{HERE}/out/app.db", os.O_WRONLY | os.O_CREAT)
        os.write(fd, OLD)
        os.fsync(fd)
        os.close(fd)
        for each in ("", "out"):
            kernel.apply("sync_folder", each)
        kernel.on_point = lambda number, label, happened: look(f"{number} {label} {happened}")
        repository = read_repository(unlocked(FolderStore(f"{kernel.root}/{STORE}"), KeySource({})))
        options = RestoreOptions(verify="full", overwrite=True)
        restore_chosen(repository, choose(repository, Target()), f"{HERE}/out/app.db", options)
        kernel.on_point = lambda *_: None
    found = [(label, each, hashlib.sha256(content or b"").hexdigest()) for label, each, content in left]

    old = hashlib.sha256(OLD).hexdigest()
    assert {old, newest} == {digest for _, _, digest in found}, found
    assert newest == hashlib.sha256(kernel.disk.view(Reading.STRICT)["out/app.db"] or b"").hexdigest()
    assert len({label for label, _, _ in left}) >= 10
