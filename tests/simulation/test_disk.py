"""The disk's model: what a crash leaves of a few operations, in each reading; and that the kernel drives it right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replicator import files
from tests.simulation.disk import Disk, Reading
from tests.simulation.kernel import AGENT, Kernel
from tests.support.memory_store import FakeClock


def written(*operations: tuple[object, ...]) -> Disk:
    """One with the folder ``f`` and the file ``f/old``, durable, and then *operations*; ``f/old`` has number 1."""
    disk = Disk()
    for each in (
        ("make_folder", "f"), ("sync_folder", ""), ("create", 1, "f/old"), ("write", 1, 0, b"12345678"),
        ("sync", 1), ("sync_folder", "f"), *operations,
    ):  # fmt: skip
        disk.apply(each)
    return disk


def left(disk: Disk) -> dict[str, dict[str, bytes | None]]:
    """By reading, without the folder itself."""
    return {
        each.value: {name: content for name, content in disk.view(each).items() if name != "f"}
        for each in Reading
        if each is not Reading.ELSEWHERE
    }


OLD = {"f/old": b"12345678"}


def test_a_new_file_is_there_once_it_and_its_folder_are_synced() -> None:
    """One sync alone leaves its name or its content."""
    new = [("create", 2, "f/new"), ("write", 2, 0, b"abcd")]
    neither, both = written(*new), written(*new, ("sync", 2), ("sync_folder", "f"))
    content, name = written(*new, ("sync", 2)), written(*new, ("sync_folder", "f"))

    assert OLD == left(neither)["strict"] == left(content)["strict"]
    assert {**OLD, "f/new": b""} == left(neither)["names"] == left(name)["strict"]
    assert {**OLD, "f/new": b"abc"} == left(neither)["torn"]
    assert OLD == left(neither)["content"]
    assert {**OLD, "f/new": b"abcd"} == left(neither)["killed"] == left(content)["names"]
    assert all({**OLD, "f/new": b"abcd"} == each for each in left(both).values())


def test_what_is_appended_and_written_over_is_there_once_it_is_synced() -> None:
    """Until then the old content is, or half of the new."""
    appended = written(("write", 1, 8, b"abcdef"))
    over = written(("write", 1, 0, b"abcdefgh"))
    synced = written(("write", 1, 8, b"abcdef"), ("sync", 1), ("truncate", 1, 4))

    assert OLD == left(appended)["strict"] == left(over)["strict"]
    assert {"f/old": b"12345678abc"} == left(appended)["torn"]
    assert {"f/old": b"12345678abc\0\0\0"} == left(appended)["zeroed"]
    assert OLD == left(over)["zeroed"]
    assert {"f/old": b"abcd5678"} == left(over)["torn"]
    assert {"f/old": b"12345678abcdef"} == left(synced)["strict"]
    assert {"f/old": b"1234"} == left(synced)["killed"]


def test_a_rename_is_there_once_its_folder_is_synced() -> None:
    """Until then the old name stands for the old content; without a sync of the file the new one for none."""
    new = [("create", 2, "f/tmp"), ("write", 2, 0, b"new")]
    renamed = written(*new, ("rename", "f/tmp", "f/old"))
    ended = written(*new, ("sync", 2), ("rename", "f/tmp", "f/old"), ("sync_folder", "f"))

    assert OLD == left(renamed)["strict"]
    assert {"f/old": b""} == left(renamed)["names"]
    assert {"f/old": b"new"} == left(renamed)["killed"]
    assert all({"f/old": b"new"} == each for each in left(ended).values())


def test_a_file_that_was_deleted_is_gone_once_its_folder_is_synced() -> None:
    """Until then it comes back."""
    deleted = written(("unlink", "f/old"))

    assert OLD == left(deleted)["strict"]
    assert {} == left(deleted)["names"]
    assert {} == left(written(("unlink", "f/old"), ("sync_folder", "f")))["strict"]


def test_what_lies_in_a_folder_goes_with_it() -> None:
    """Everything in a new folder is synced, but not the folder's own name: all of it is lost."""
    inside = [
        ("make_folder", "g"),
        ("create", 2, "g/in"),
        ("write", 2, 0, b"x"),
        ("sync", 2),
        ("sync_folder", "g"),
    ]

    assert OLD == left(written(*inside))["strict"]
    assert b"x" == written(*inside, ("sync_folder", "")).view(Reading.STRICT)["g/in"]


def test_a_store_elsewhere_keeps_what_it_has() -> None:
    """Names and content, while the rest is as it was synced."""
    disk = written(("create", 2, "f/new"), ("write", 2, 0, b"x"), ("write", 1, 0, b"y"))

    assert {"f": None, "f/old": b"y2345678", "f/new": b"x"} == disk.view(Reading.ELSEWHERE, store="f")
    assert {"f": None, **OLD} == disk.view(Reading.ELSEWHERE)


def test_a_copy_and_a_view_are_disks_again() -> None:
    """A copy goes on by itself, durable things included; what a view is made of is all durable."""
    disk = written(("write", 1, 0, b"y"))
    copy = disk.copy()
    copy.apply(("unlink", "f/old"))

    assert {"f": None, **OLD} == copy.view(Reading.STRICT)
    assert {"f": None, "f/old": b"y2345678"} == disk.view(Reading.KILLED)
    assert disk.view(Reading.KILLED) == Disk.of(disk.view(Reading.KILLED)).view(Reading.STRICT)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    made = Kernel(str(tmp_path), Disk(), FakeClock().wall)
    made.actor = AGENT
    return made


def test_the_kernel_follows_what_is_done_to_real_files(kernel: Kernel) -> None:
    """Folders, objects that are put and replaced, deletions and truncations: the model and the files agree."""
    root = kernel.root
    with kernel.in_use():
        files.make_folder(f"{root}/a/b")
        files.publish_once(f"{root}/a/b/once", b"first")
        with pytest.raises(FileExistsError):
            files.publish_once(f"{root}/a/b/once", b"second")
        files._publish_named(f"{root}/a", f"{root}/a/named", b"third")
        files.replace_file(f"{root}/a/replaced", b"fourth")
        files.replace_file(f"{root}/a/replaced", b"fifth")
        fd = os.open(f"{root}/a/cut", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"sixth")
        os.ftruncate(fd, 2)
        os.close(fd)
        os.unlink(f"{root}/a/named")
        assert not kernel.differences()

    view = kernel.disk.view(Reading.STRICT)
    assert {
        "a": None, "a/b": None, "a/b/once": b"first", "a/replaced": b"fifth",
        "a/named": b"third",  # since nobody synced the folder after it was deleted
    } == view  # fmt: skip
    assert b"si" == kernel.disk.view(Reading.KILLED)["a/cut"]


def test_an_operation_that_slips_by_is_noticed(kernel: Kernel) -> None:
    """What the model does not know of is refused where it is called, and found in the end."""
    with kernel.in_use():
        with pytest.raises(AssertionError, match=r"nobody follows os\.symlink"):
            os.symlink("x", f"{kernel.root}/link")
        with pytest.raises(AssertionError, match="in a way that nobody follows"):
            Path(f"{kernel.root}/file").write_bytes(b"x")
        os.close(os.open(f"{kernel.root}/here", os.O_RDWR | os.O_CREAT))
        kernel.disk.apply(("unlink", "here"))

        assert ["here is only there"] == kernel.differences()


def test_every_durability_point_is_counted(kernel: Kernel) -> None:
    """A file that is put: its content, its name, its folder."""
    seen: list[tuple[str, bool]] = []
    kernel.on_point = lambda number, label, happened: seen.append((label, happened))
    with kernel.in_use():
        files.publish_once(f"{kernel.root}/once", b"x")

    assert [
        ("agent: fsync #1", False), ("agent: fsync #1", True),
        ("agent: link once", False), ("agent: link once", True),
        ("agent: fsync .", False), ("agent: fsync .", True),
    ] == seen  # fmt: skip
    assert 3 == kernel.points
