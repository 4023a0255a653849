"""A folder as a store: what file systems do to it, and what it must not do to them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.core.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreUnavailable,
    UsageError,
)
from replicator.store import folder as folder_module
from replicator.store import open_store
from replicator.store.folder import FolderStore
from tests.support.mounts import UNSHARE, needs_mount

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def run_child(body: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    """Run *body* in a process of its own, which may limit, mount or give up what it likes."""
    script = "import os, sys\n" + textwrap.dedent(body)
    command = [*prefix, sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store"


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore(str(root))


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- on disk -------------------------------------------------------------------------------------------


def test_nothing_is_made_before_the_first_put(store: FolderStore, root: Path) -> None:
    """Looking for something in a store that is not there does not make it."""
    with pytest.raises(ObjectNotFound):
        store.get("a")
    store.delete("a")

    assert [] == list(store.list(""))
    assert not root.parent.exists()


def test_an_object_is_a_file_and_nothing_else_is_left(store: FolderStore, root: Path) -> None:
    """The name is the path, the bytes are the file, and no temporary name survives, also not after a refusal."""
    store.put("a/b/c", b"bytes")
    with pytest.raises(ObjectExists):
        store.put("a/b/c", b"other")

    assert ["a/b/c"] == files_below(root)
    assert b"bytes" == (root / "a/b/c").read_bytes()
    assert 1 == (root / "a/b/c").stat().st_nlink


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_s17_s69_nobody_else_may_read_it_whatever_the_umask(
    store: FolderStore, root: Path, umask: int
) -> None:
    """Files are 0600 or less and all folders that were made are 0700; what was there before keeps its mode."""
    root.parent.mkdir(mode=0o755)
    before = root.parent.stat().st_mode
    old = os.umask(umask)
    try:
        store.put("a/b", b"x")
    finally:
        os.umask(old)

    assert 0o600 & ~umask == stat.S_IMODE((root / "a/b").stat().st_mode)
    assert [0o700, 0o700] == [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "a")]
    assert before == root.parent.stat().st_mode


def test_foreign_and_temporary_files_do_not_disturb(store: FolderStore, root: Path) -> None:
    """What a crash or a person left there is listed if it has a name of its own, and hidden files never are."""
    store.put("a/b", b"x")
    (root / "a/.0123456789abcdef.tmp").write_bytes(b"torn")
    (root / ".hidden").write_bytes(b"")
    (root / "README").write_bytes(b"people")
    (root / "empty folder").mkdir()

    assert ["README", "a/b"] == [listed.name for listed in store.list("")]


def test_links_are_never_followed(store: FolderStore, root: Path, tmp_path: Path) -> None:
    """A link in a store could point anywhere: reading one is ObjectCorrupt, and none is listed."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"key")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner").write_bytes(b"key")
    store.put("a/b", b"x")
    (root / "a/link").symlink_to(secret)
    (root / "a/dangling").symlink_to(tmp_path / "nothing")
    (root / "linked").symlink_to(folder)
    for name in ("a/link", "a/dangling"):
        with pytest.raises(ObjectCorrupt, match="symbolic link"):
            store.get(name)
        with pytest.raises(ObjectCorrupt, match="symbolic link"):
            store.get_range(name, 0, 1)
        with pytest.raises(ObjectCorrupt, match="symbolic link"):
            store.get_start(name, 1)
        with pytest.raises(ObjectCorrupt, match="symbolic link"):
            store.modified(name)
        with pytest.raises(ObjectExists):
            store.put(name, b"through it")
    store.delete("a/link")
    store.replace("a/dangling", b"instead of it")

    assert ["a/b", "a/dangling"] == [listed.name for listed in store.list("")]
    assert not (root / "a/dangling").is_symlink()
    assert b"key" == secret.read_bytes()
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["", "/", "/etc/passwd", "a//b", "a/", "../a", "a/../../b", "./a", "a/."])
def test_a_name_that_leaves_the_store_is_a_fault_of_the_program(store: FolderStore, name: str) -> None:
    """Names come from core/names.py; any other is not looked up at all."""
    for call in (
        lambda: store.put(name, b""),
        lambda: store.get(name),
        lambda: store.delete(name),
        lambda: store.replace(name, b""),
        lambda: store.modified(name),
    ):
        with pytest.raises(AssertionError):
            call()


# --- trouble -------------------------------------------------------------------------------------------


def test_a_root_that_vanished_is_unavailable_and_not_made_again(store: FolderStore, root: Path) -> None:
    """A mount that went away must not be replaced by the disk beneath it, however often one tries."""
    store.put("a/b", b"x")
    away = root.parent / "away"
    root.rename(away)
    for name in ("a/c", "a/c", "d/e", "a/c"):
        with pytest.raises(StoreUnavailable):
            store.put(name, b"y")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.replace("metadata.json", b"y")

    assert not root.exists()
    away.rename(root)
    store.put("a/c", b"y")
    assert ["a/b", "a/c"] == files_below(root)


def test_a_folder_that_somebody_removed_is_made_again(store: FolderStore, root: Path) -> None:
    """As long as the root is there, an emptied store is written to as ever."""
    store.put("a/b", b"x")
    shutil.rmtree(root / "a")
    store.put("a/c", b"y")

    assert ["a/c"] == files_below(root)


@needs_mount
def test_an_unmounted_root_is_unavailable(tmp_path: Path) -> None:
    """Where the root itself is the mount point, the empty folder beneath is not written to, twice over."""
    root = tmp_path / "mounted"
    root.mkdir()
    body = """
        import subprocess
        from replicator.core.errors import StoreUnavailable
        from replicator.store.folder import FolderStore
        root = sys.argv[1]
        subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
        store = FolderStore(root)
        store.put("a/b", b"x")
        store.replace("metadata.json", b"x")
        subprocess.run(["umount", root], check=True)
        calls = [lambda name=name: store.put(name, b"y") for name in ("a/c", "a/c", "d/e", "repository.json")]
        for call in (*calls, lambda: store.replace("metadata.json", b"y")):
            try:
                call()
            except StoreUnavailable:
                print("unavailable", os.listdir(root))
    """
    printed = run_child(body, root, prefix=UNSHARE)

    assert "unavailable []\n" * 5 == printed


FULL_DISK = """
    from replicator.core.errors import StoreUnavailable
    from replicator.store.folder import FolderStore
    store = FolderStore(root)
    store.put("small", b"x")
    store.replace("metadata.json", b"old")
    try:
        store.put("a/large", os.urandom(600_000))
    except StoreUnavailable as exc:
        print(exc.hint)
    try:
        store.replace("metadata.json", os.urandom(600_000))
    except StoreUnavailable as exc:
        print(exc.hint, store.get("metadata.json"))
    store.delete("metadata.json")
    left = [os.path.join(folder, each) for folder, _, names in os.walk(root) for each in names]
    print([each.name for each in store.list("")], [os.path.relpath(each, root) for each in left])
"""


@needs_mount
def test_a_full_disk_leaves_no_part_of_an_object(tmp_path: Path) -> None:
    """No space left is StoreUnavailable with what to do about it; neither object nor temporary file is there."""
    body = """
    import subprocess
    root = sys.argv[1]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", root], check=True)
    """
    after = """
    os.unlink(root + "/small")
    subprocess.run(["mount", "-o", "remount,size=2m", root], check=True)
    store.put("a/large", os.urandom(600_000))
    print(len(store.get("a/large")))
    """
    (tmp_path / "disk").mkdir()
    script = textwrap.dedent(body) + textwrap.dedent(FULL_DISK) + textwrap.dedent(after)
    hint, old, left, again = run_child(script, tmp_path / "disk", prefix=UNSHARE).splitlines()

    assert "free some space" in hint
    assert old == f"{hint} b'old'"
    assert "['small'] ['small']" == left
    assert "600000" == again


def test_a_write_that_fails_half_way_leaves_no_part_of_an_object(tmp_path: Path) -> None:
    """A limit on file size fails a write after some bytes, as a full disk does."""
    body = """
    import resource
    root = sys.argv[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    """
    script = textwrap.dedent(body) + textwrap.dedent(FULL_DISK)

    said = run_child(script, tmp_path / "store").splitlines()

    assert "b'old'" in said[1]
    assert "['small'] ['small']" == said[-1]


@pytest.fixture
def others() -> Iterator[Path]:
    """A folder that another user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="replicator-test-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", ["000", "500"])
def test_without_permission_it_is_denied(others: Path, mode: str) -> None:
    """A folder that may not be read or written is StoreDenied, which nobody asks again at once."""
    body = """
        from replicator.core.errors import StoreDenied
        from replicator.store.folder import FolderStore
        root, mode = sys.argv[1], int(sys.argv[2], 8)
        store = FolderStore(root)
        store.put("a/b", b"x")
        os.chmod(root + "/a", mode)
        if os.getuid() == 0:
            for folder in (root, root + "/a", root + "/a/b"):
                os.chown(folder, 65534, 65534)
            os.setuid(65534)
        calls = {
            "put": lambda: store.put("a/c", b"y"),
            "get": lambda: store.get("a/b"),
            "get_start": lambda: store.get_start("a/b", 1),
            "get_range": lambda: store.get_range("a/b", 0, 1),
            "list": lambda: list(store.list("a/")),
            "replace": lambda: store.replace("a/b", b"y"),
            "modified": lambda: store.modified("a/b"),
            "delete": lambda: store.delete("a/b"),
        }
        for name, call in calls.items():
            try:
                call()
            except StoreDenied as exc:
                assert exc.hint and not exc.retryable
                print(name)
    """
    denied = run_child(body, others / "store", mode).split()

    everything = ["put", "get", "get_start", "get_range", "list", "replace", "modified", "delete"]
    assert {"000": everything, "500": ["put", "replace", "delete"]}[mode] == denied


# --- URLs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/var/backups", "/var/backups"),
        ("file:///var/backups", "/var/backups"),
        ("file:///var/backups/", "/var/backups"),
        ("file://localhost/var/backups", "/var/backups"),
        ("file:///var/my%20backups/%C3%A9", "/var/my backups/é"),
        ("FILE:///var/backups", "/var/backups"),
        ("/var/a:b", "/var/a:b"),
        ("/var/s3:b", "/var/s3:b"),
        ("/var/file://b", "/var/file:/b"),
        ("/var/../etc", "/etc"),
    ],
)
def test_a_url_or_a_path_opens_a_folder(url: str, path: str) -> None:
    """A file URL and a plain path stand for the same folder; nothing is touched yet."""
    assert f"file://{path}" == open_store(url).url


def test_s98_x27_a_relative_path_is_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made absolute at once, so that a later change of folder moves no store."""
    monkeypatch.chdir(tmp_path)
    store = open_store("backups")
    monkeypatch.chdir("/")

    assert f"file://{tmp_path}/backups" == store.url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a\0b",
        "http://host/path",
        "file://host/path",
        "file://relative",
        "file://",
        "file:///a?b=c",
        "file:///a#b",
        "ftp://user:secret@host/path",
        "ftp://user:secret@[host/path",
        "s3:user:secret@bucket",
        "file:relative",
        "file:/var/backups",
        "a\nb",
        "a\x7fb",
        "file:///a\tb",
        "file:///a%0Ab",
        "file:///100%",
        "file:///a%zz",
        "file:///a%FF",
    ],
)
def test_any_other_url_is_a_usage_error_without_its_secret(url: str) -> None:
    """What no kind of store is for is refused before anything is done, and no password is repeated."""
    with pytest.raises(UsageError) as caught:
        open_store(url)

    assert "secret" not in str(caught.value)
    assert caught.value.hint


def test_a_file_is_no_store(tmp_path: Path) -> None:
    """A path that is a file is refused at once."""
    (tmp_path / "file").write_bytes(b"")

    for path in ("file", "file/store", "file/deep/store"):
        with pytest.raises(UsageError, match="is a file, not a folder"):
            open_store(str(tmp_path / path))


@pytest.mark.parametrize("name", ["100%", "100%25", "a?b", "a#b", "a b", "é", "Note: this", "-", "a:b"])
def test_the_url_of_a_store_opens_it_again(tmp_path: Path, name: str) -> None:
    """Whatever its folder is called: the agent writes the URL down, and `restore` reads it there."""
    store = open_store(str(tmp_path / name))
    store.put("it", b"x")

    assert b"x" == (tmp_path / name / "it").read_bytes()
    assert b"x" == open_store(store.url).get("it")
    assert store.url == open_store(store.url).url


@pytest.mark.parametrize("way", ["unnamed", "named", "renamed"])
def test_put_once_leaves_nothing_but_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """With and without files that have no name yet, and without links, which not every file system knows."""

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if way == "named":
        monkeypatch.setattr("replicator.files._UNNAMED", 0)
    if way == "renamed":
        monkeypatch.setattr("replicator.files.os.link", no_links)
    store = FolderStore(str(tmp_path / "root"))
    store.put("a/b", b"first")
    with pytest.raises(ObjectExists):
        store.put("a/b", b"second")

    assert b"first" == store.get("a/b")
    assert ["b"] == os.listdir(tmp_path / "root" / "a")
    assert 0o600 == os.stat(tmp_path / "root" / "a" / "b").st_mode & 0o777


def test_what_is_replaced_is_synced_before_it_has_its_name(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the name stands for all of the old or all of the new; nobody else may read it, and nothing
    but the object is left."""
    store.put("metadata.json", b"old")
    done: list[str] = []
    for call in ("fsync", "replace"):
        real = getattr(os, call)

        def noting(*args: object, real: Callable[..., object] = real, call: str = call) -> object:
            done.append(call)
            return real(*args)

        monkeypatch.setattr(f"replicator.files.os.{call}", noting)
    store.replace("metadata.json", b"new")

    assert ["fsync", "replace", "fsync"] == done
    assert b"new" == store.get("metadata.json")
    assert ["metadata.json"] == os.listdir(root)
    assert 0o600 == stat.S_IMODE((root / "metadata.json").stat().st_mode)


def test_what_a_kill_leaves_of_a_replacing_is_not_listed(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is there, whole."""
    store.put("metadata.json", b"old")

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        monkeypatch.setattr("replicator.files.os.unlink", lambda _: None)
        raise Killed

    monkeypatch.setattr("replicator.files.os.replace", kill)
    with pytest.raises(Killed):
        store.replace("metadata.json", b"new")

    assert 2 == len(os.listdir(root))
    assert ["metadata.json"] == [listed.name for listed in store.list("")]
    assert b"old" == store.get("metadata.json")


def test_the_time_of_an_object_is_that_of_its_file(store: FolderStore, root: Path) -> None:
    """To the microsecond; a folder has none, being no object."""
    store.put("a/b", b"x")
    os.utime(root / "a/b", ns=(0, 1_700_000_000_123_456_789))

    assert 1_700_000_000_123_456 == store.modified("a/b")
    for name in ("a", "c", "a/b/c"):
        with pytest.raises((ObjectNotFound, StoreUnavailable)):
            store.modified(name)


# --- folders that are empty ----------------------------------------------------------------------------


def test_s78_no_empty_folder_is_left_but_the_root(store: FolderStore, root: Path) -> None:
    """Up to the nearest that holds something; the root stays, for it may be a mount."""
    store.put("full/2025/01/28/a.full", b"a")
    store.put("full/2025/02/01/b.full", b"b")
    store.put("tail/x", b"x")
    store.delete("full/2025/01/28/a.full")

    assert ["full", "full/2025", "full/2025/02", "full/2025/02/01", "tail"] == folders_in(root)
    store.delete("full/2025/02/01/b.full")
    store.delete("tail/x")
    assert [] == list(root.iterdir())
    store.put("full/2025/01/28/a.full", b"a")
    assert b"a" == store.get("full/2025/01/28/a.full")


def folders_in(root: Path) -> list[str]:
    return sorted(str(each.relative_to(root)) for each in root.rglob("*") if each.is_dir())


@pytest.mark.parametrize(
    ("way", "call"),
    [
        ("put", "make_folder"),
        ("put", "publish_once"),
        ("replace", "make_folder"),
        ("replace", "replace_file"),
    ],
)
def test_a_put_copes_with_a_folder_that_somebody_takes_away_just_then(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch, way: str, call: str
) -> None:
    """Another process deleted the last object in it: before it is written to, or while it is made."""
    store.put("full/2025/a.full", b"a")
    real = getattr(folder_module, call)
    times = iter(range(3))

    def in_between(*arguments: Any) -> Any:
        if next(times, None) is None:
            return real(*arguments)
        if call == "make_folder":
            real(*arguments)
        FolderStore(str(root)).delete("full/2025/a.full")
        return None if call == "make_folder" else real(*arguments)

    if call == "make_folder":
        store = FolderStore(str(root))
    monkeypatch.setattr(folder_module, call, in_between)
    getattr(store, way)("full/2025/b.full", b"b")

    assert b"b" == store.get("full/2025/b.full")


def test_puts_and_deletes_at_once_lose_nothing(root: Path) -> None:
    """Of two processes in one folder, each of which empties it again and again. Threads are what it is about."""
    one, other = FolderStore(str(root)), FolderStore(str(root))
    failed: list[BaseException] = []

    def work(store: FolderStore, name: str) -> None:
        try:
            for _ in range(300):
                store.put(name, name.encode())
                assert name.encode() == store.get(name)
                store.delete(name)
        except BaseException as exc:
            failed.append(exc)

    threads = [
        threading.Thread(target=work, args=(store, f"full/2025/01/{number}.full"))
        for number, store in enumerate((one, one, other))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert [] == failed
    assert [] == list(root.iterdir())


def test_a_folder_that_was_made_anew_meanwhile_is_made_durable(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it may be killed before it is; what we put into it has to stay."""
    store.put("full/a", b"a")
    made: list[str] = []
    real = folder_module.make_folder
    publish = folder_module.publish_once

    def moved(path: str, data: bytes) -> None:
        store.delete("full/a")
        (root / "full").mkdir()
        publish(path, data)

    monkeypatch.setattr(folder_module, "publish_once", moved)
    monkeypatch.setattr(folder_module, "make_folder", lambda path: [made.append(path), real(path)])
    store.put("full/b", b"b")

    assert [str(root / "full")] == made
