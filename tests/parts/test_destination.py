"""What is at a destination is refused or replaced, and at every moment the old or the new one is whole.

The crash tests run a driver in a process of its own, which forks a child for every step and lets it die there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from replicator.core.errors import DestinationRefused, UsageError
from replicator.restore.destination import (
    check_destination,
    check_room,
    clear_leftovers,
    publish,
    temporary_of,
)
from tests.support.app import App

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("-wal", "-shm", "-journal")


def make_database(path: Path, value: str, *, mode: str = "DELETE", rows: int = 50) -> None:
    """A database with one value in it, closed."""
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    connection.execute("CREATE TABLE it (value); CREATE TABLE bulk (body)").fetchall()
    connection.execute("INSERT INTO it VALUES (?)", (value,)).fetchall()
    connection.execute("BEGIN").fetchall()
    for _ in range(rows):
        connection.execute("INSERT INTO bulk VALUES (randomblob(3000))").fetchall()
    connection.execute("COMMIT").fetchall()
    connection.close()


def value_of(path: Path) -> Any:
    """What SQLite finds there, side files and all; the file is checked to its end."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        return connection.execute("SELECT value FROM it").fetchall()[0][0]
    finally:
        connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a finished file to publish."""
    here = tmp_path / "here"
    here.mkdir()
    make_database(here / ".new.restoring-1", "new")
    return here


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_child(line: str, *arguments: object) -> str:
    """Run a line over the functions of this module in a process of its own."""
    script = f"import sys\nfrom pathlib import Path\nfrom tests.parts.test_destination import *\n{line}"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- every crash point ---------------------------------------------------------------------------------


def in_child(deed: Callable[[], None]) -> int:
    """Fork, do it, and die without any clean-up; only for a process that has no SQLite open."""
    pid = os.fork()
    if pid == 0:
        try:
            deed()
            os._exit(0)
        except BaseException as exc:
            os.write(2, f"{exc!r}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def old_wal(path: Path) -> None:
    """Its newest commits are in the log only, as an application leaves it that was killed."""

    def deed() -> None:
        make_database(path, "older", mode="WAL")
        connection = apsw.Connection(str(path))
        connection.wal_autocheckpoint(0)
        connection.execute("UPDATE it SET value = 'old'").fetchall()
        os._exit(0)

    in_child(deed)
    assert (path.parent / f"{path.name}-wal").stat().st_size > 0


def old_closed(path: Path) -> None:
    """In WAL mode, closed as it should be."""
    in_child(lambda: make_database(path, "old", mode="WAL"))


def old_rollback(path: Path) -> None:
    """Not in WAL mode at all."""
    in_child(lambda: make_database(path, "old"))


def old_hot_journal(path: Path) -> None:
    """A transaction was half written to the file when its process died: only the journal makes it whole."""

    def deed() -> None:
        make_database(path, "old")
        connection = apsw.Connection(str(path))
        connection.execute("PRAGMA cache_size = 5; BEGIN").fetchall()
        connection.execute("UPDATE it SET value = 'never'").fetchall()
        connection.execute("UPDATE bulk SET body = randomblob(3000)").fetchall()
        os._exit(0)

    in_child(deed)
    assert (path.parent / f"{path.name}-journal").stat().st_size > 0


def old_strange(path: Path) -> None:
    """What SQLite cannot open, with all three side files."""
    for suffix in ("", *SIDES):
        Path(f"{path}{suffix}").write_bytes(f"strange {suffix}".encode() * 500)


def old_stray(path: Path) -> None:
    """No database, but the log of one, which SQLite would play onto a new file."""
    old_wal(path)
    path.unlink()


def old_nothing(path: Path) -> None:
    """Nothing is there."""


OLD: dict[str, Callable[[Path], None]] = {
    "wal": old_wal,
    "closed": old_closed,
    "rollback": old_rollback,
    "hot journal": old_hot_journal,
    "strange": old_strange,
    "stray": old_stray,
    "nothing": old_nothing,
    "nothing, not to be overwritten": old_nothing,
}
STEPS = ("rename", "link", "unlink", "open", "fsync")


def die_at(step: int) -> None:
    """This process ends, without a word to anybody, instead of making its call number *step*."""
    count = 0

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def step_or_die(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)
            return call(*arguments, **more)

        return step_or_die

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))


def drive(kind: str, scratch: Path) -> None:
    """Publish again and again, each time dying one step later, and look at what is left; print what was seen."""
    make_database(scratch / "new.db", "new")
    new = (scratch / "new.db").read_bytes()
    seen: list[str] = []
    step = 0
    while True:
        step += 1
        folder = scratch / str(step)
        folder.mkdir()
        path, temporary = folder / "app.db", folder / ".app.db.restoring-1"
        OLD[kind](path)
        before = {each: (folder / each).read_bytes() for each in listing(folder)}
        temporary.write_bytes(new)
        overwrite = kind != "nothing, not to be overwritten"

        def deed(
            step: int = step, path: Path = path, temporary: Path = temporary, overwrite: bool = overwrite
        ) -> None:
            die_at(step)
            publish(str(temporary), str(path), overwrite=overwrite, aside=lambda _: None)

        code = in_child(deed)
        assert code in (0, 9), code
        seen.append(judge(kind, path, before, new))
        if code == 0:
            assert seen[-1] == "new"
            break
    print(json.dumps(seen))


def judge(kind: str, path: Path, before: dict[str, bytes], new: bytes) -> str:
    """What is there after a crash: the new one, or the old one, whole."""
    folder = path.parent
    if path.exists() and path.read_bytes() == new:
        if kind in ("strange", "stray"):
            assert before == kept_of(folder), "what could not be opened is not whole aside"
        assert "new" == value_of(path)
        return "new"
    if kind.startswith("nothing"):
        assert not path.exists()
        return "nothing"
    if kind in ("strange", "stray"):
        here = {name: (folder / name).read_bytes() for name in before if (folder / name).exists()}
        assert before in (here, kept_of(folder)), "the old one is whole neither here nor aside"
        return "old"
    assert "old" == value_of(path)
    return "old"


def kept_of(folder: Path) -> dict[str, bytes]:
    """What was moved aside, by the names it had before."""
    found = {}
    for path in folder.iterdir():
        name, mark, rest = path.name.partition(".before-restore-")
        if mark:
            suffix = next((each for each in SIDES if rest.endswith(each)), "")
            found[name + suffix] = path.read_bytes()
    return found


@pytest.mark.parametrize("kind", OLD)
def test_a_crash_at_any_step_leaves_the_old_or_the_new_one_whole(kind: str, tmp_path: Path) -> None:
    """Dying before each link, unlink, rename and fsync in turn, until none is left to die at."""
    seen = json.loads(run_child("drive(sys.argv[1], Path(sys.argv[2]))", kind, tmp_path))

    assert len(seen) >= 4
    assert sorted(set(seen), key=seen.index) == (
        ["nothing", "new"] if kind.startswith("nothing") else ["old", "new"]
    )
    assert seen == sorted(seen, key=["old", "nothing", "new"].index)  # never back again


# --- replaced ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wal", "closed", "rollback", "hot journal"])
def test_an_old_database_is_replaced_with_nothing_left_beside(kind: str, folder: Path) -> None:
    """Its log and journals are gone too: SQLite would play them onto the new file."""
    run_child("OLD[sys.argv[1]](Path(sys.argv[2]))", kind, folder / "app.db")
    publish(str(folder / ".new.restoring-1"), str(folder / "app.db"), overwrite=True, aside=pytest.fail)

    assert ["app.db"] == listing(folder)
    assert "new" == value_of(folder / "app.db")


def test_what_cannot_be_opened_is_moved_aside_whole(folder: Path) -> None:
    """The old file and its side files get names of their own, each time others, and somebody is told them."""
    told: list[str] = []
    for turn in range(3):
        old_strange(folder / "app.db")
        shutil.copy(folder / ".new.restoring-1", folder / f".new.{turn}")
        publish(str(folder / f".new.{turn}"), str(folder / "app.db"), overwrite=True, aside=told.append)
        assert "new" == value_of(folder / "app.db")

    assert 3 == len(set(told))
    for kept in told:
        assert kept.startswith(f"{folder}/app.db.before-restore-20")
        for suffix in ("", *SIDES):
            assert f"strange {suffix}".encode() * 500 == Path(kept + suffix).read_bytes()
    assert not any((folder / f"app.db{suffix}").exists() for suffix in SIDES)


def test_a_link_at_the_destination_is_replaced_and_not_what_it_points_to(
    folder: Path, tmp_path: Path
) -> None:
    """The file elsewhere stays as it was, brought to rest."""
    real = tmp_path / "real.db"
    make_database(real, "old", mode="WAL")
    (folder / "app.db").symlink_to(real)
    publish(str(folder / ".new.restoring-1"), str(folder / "app.db"), overwrite=True, aside=pytest.fail)

    assert "new" == value_of(folder / "app.db")
    assert not (folder / "app.db").is_symlink()
    assert "old" == value_of(real)


def test_a_file_that_came_to_exist_meanwhile_is_not_replaced(folder: Path) -> None:
    """Without --overwrite the last step refuses too: link(2) takes no existing name."""
    (folder / "app.db").write_bytes(b"somebody's")
    with pytest.raises(DestinationRefused, match="come to exist"):
        publish(str(folder / ".new.restoring-1"), str(folder / "app.db"), overwrite=False, aside=pytest.fail)

    assert b"somebody's" == (folder / "app.db").read_bytes()
    assert (folder / ".new.restoring-1").exists()


# --- refused -------------------------------------------------------------------------------------------


@pytest.fixture(params=["wal, idle", "wal, reading", "wal, writing", "rollback, idle", "rollback, writing"])
def in_use(request: pytest.FixtureRequest, folder: Path) -> Iterator[Path]:
    """A database that a live process has open."""
    mode, _, doing = request.param.partition(", ")
    app = App(str(folder / "app.db"), wal=mode == "wal")
    app.insert(3)
    if doing == "reading":
        app.execute("BEGIN")
        app.execute("SELECT count(*) FROM t")
    elif doing == "writing":
        app.execute("BEGIN IMMEDIATE")
        app.execute("INSERT INTO t(body) VALUES('mine')")
    yield folder / "app.db"
    if doing != "idle":
        app.execute("COMMIT")
    app.insert(1)
    assert (5 if doing == "writing" else 4) == app.execute("SELECT count(*) FROM t")[0][0]
    app.close()


def test_x30_a_database_in_use_is_not_replaced(in_use: Path) -> None:
    """Whatever its mode and whatever the process does with it, even nothing: what it writes afterwards would be lost.
    Refusing disturbs nobody."""
    before = listing(in_use.parent)
    with pytest.raises(DestinationRefused, match=r"(is open in|is locked by) another process") as caught:
        publish(str(in_use.parent / ".new.restoring-1"), str(in_use), overwrite=True, aside=pytest.fail)

    assert caught.value.hint
    assert before == listing(in_use.parent)


@pytest.mark.parametrize(
    ("there", "overwrite", "error"),
    [
        ([], False, None),
        ([], True, None),
        (["app.db"], False, DestinationRefused),
        (["app.db"], True, None),
        (["app.db-wal"], False, DestinationRefused),
        (["app.db-shm"], False, DestinationRefused),
        (["app.db-journal"], False, DestinationRefused),
        (["app.db-wal"], True, None),
        (["app.db-other"], False, None),
    ],
)
def test_what_would_be_refused_at_the_end_is_refused_at_once(
    tmp_path: Path, there: list[str], overwrite: bool, error: type[Exception] | None
) -> None:
    """An existing file, and side files without one, need --overwrite; nothing is touched by asking."""
    for name in there:
        (tmp_path / name).write_bytes(b"x")
    if error is None:
        check_destination(str(tmp_path / "app.db"), overwrite=overwrite)
    else:
        with pytest.raises(error):
            check_destination(str(tmp_path / "app.db"), overwrite=overwrite)

    assert sorted(there) == listing(tmp_path)


@pytest.mark.parametrize("name", ["a" * 227, "a" * 228, "a" * 247, "a" * 255, "é" * 123, "a" + "é" * 123])
def test_a_long_name_has_a_temporary_one_that_fits(tmp_path: Path, name: str) -> None:
    """SQLite can open it, only its own leftovers are cleared away, and those of a name like it stay."""
    path, other = str(tmp_path / name), str(tmp_path / (name[:-1] + "x"))
    temporaries = [temporary_of(path, "01234567"), temporary_of(other, "01234567")]
    for each in temporaries:
        make_database(Path(each), "left")
        assert "left" == value_of(Path(each))
    clear_leftovers(path)

    assert [os.path.basename(temporaries[1])] == listing(tmp_path)


def test_a_dangling_link_is_something_that_exists(tmp_path: Path) -> None:
    """It would be replaced, so it needs --overwrite too."""
    (tmp_path / "app.db").symlink_to(tmp_path / "nothing")
    with pytest.raises(DestinationRefused):
        check_destination(str(tmp_path / "app.db"), overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_output(tmp_path: Path, overwrite: bool) -> None:
    """Neither is a file in a folder that does not exist: both are mistakes in the command."""
    for path in (tmp_path, tmp_path / "missing" / "app.db"):
        with pytest.raises(UsageError):
            check_destination(str(path), overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_regular_file_is_no_output(tmp_path: Path, overwrite: bool) -> None:
    """A pipe, a link to one, a socket and a device are refused, and stay what they are."""
    pipe, link, plug = tmp_path / "pipe", tmp_path / "link", tmp_path / "plug"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(plug))
        for path in (str(pipe), str(link), str(plug), os.devnull):
            with pytest.raises(DestinationRefused, match="is not a regular file"):
                check_destination(path, overwrite=overwrite)

    assert ["link", "pipe", "plug"] == listing(tmp_path)


def test_too_little_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """The message names what is free and what is needed."""
    check_room(str(tmp_path / "app.db"), 1)
    with pytest.raises(DestinationRefused, match="free, the database needs 1048576TiB"):
        check_room(str(tmp_path / "app.db"), 1 << 60)


def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    """The folder has to be writable, whoever owns the file."""
    script = """
        import os, sys, tempfile
        from replicator.core.errors import DestinationRefused
        from replicator.restore.destination import check_destination
        folder = tempfile.mkdtemp(prefix="replicator-test-")
        os.chmod(folder, 0o555)
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            check_destination(folder + "/app.db", overwrite=True)
        except DestinationRefused as exc:
            print("refused" if exc.hint else exc)
        print(folder)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said, folder = done.stdout.splitlines()
    Path(folder).rmdir()

    assert "refused" == said
