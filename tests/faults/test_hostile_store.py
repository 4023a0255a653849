"""A store that somebody else can write to: whatever lies in it, nothing outside of it is read or written, nobody waits,
and nothing is shown that takes hold of a terminal. And a database that was made to harm whoever restores it.

The store is the corpus of the fuzzing, a real repository with a full backup, an incremental, a log and segments.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from replicator.cli import replicate
from replicator.cli.entry import run
from replicator.cli.ls import Filter, describe
from replicator.core.errors import (
    DestinationRefused,
    ObjectCorrupt,
    ObjectNotFound,
    ProofFailed,
    ReplicatorError,
    StoreDenied,
)
from replicator.keys import unlocked
from replicator.repository import Repository, read_repository
from replicator.restore import RestoreOptions, Target, choose, image, restore_chosen
from replicator.source import proof
from replicator.store import Store, connect
from replicator.store.folder import FolderStore
from replicator.store.gcs import open_gcs
from replicator.store.s3 import open_s3
from replicator.verify.run import LEVELS, Limits, Report, verify
from tests.e2e.command import ENVIRONMENT, Done, command, replicator, sql
from tests.fuzz.objects import CORPUS, KEY
from tests.support.memory_store import MemoryStore
from tests.support.servers.s3 import Answering

PROMPT_SECONDS = 60.0  # many times what it takes; a machine may be busy
SECRET = b"root:x:0:0:this is of another user\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A repository of one's own, to do anything to."""
    return Path(shutil.copytree(CORPUS / "plain", tmp_path / "store"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """What no store may lead to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/passwd").write_bytes(SECRET)
    return tmp_path / "elsewhere"


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """The command line within this process."""
    monkeypatch.chdir(tmp_path)

    def run_inside(*arguments: object) -> Done:
        capsys.readouterr()
        code = run([str(each) for each in arguments])
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return run_inside


# --- everything that reads -----------------------------------------------------------------------------


def restored(repository: Repository, output: Path) -> bytes:
    restore_chosen(
        repository, choose(repository, Target()), str(output), RestoreOptions("none", overwrite=True)
    )
    return output.read_bytes()


def verified(store: Store) -> Report:
    return verify(unlocked(store), LEVELS[2], Limits(), restore=lambda *_: None)


def readings(folder: Path) -> dict[str, Callable[[], object]]:
    """Every way to read a store, each from its beginning."""

    def opened() -> Store:
        return unlocked(connect(str(folder)))

    return {
        "ls": lambda: describe(read_repository(opened()), Filter(None, None, None)),
        "ls segments": lambda: describe(read_repository(opened()), Filter("segment", None, None)),
        "verify": lambda: verified(connect(str(folder))),
        "restore": lambda: restored(read_repository(opened()), folder.parent / "restored.db"),
    }


def outcome(call: Callable[[], object]) -> object:
    """What it gives, or the error of ours; nothing else comes out, and that soon, or the test fails here."""
    found: list[object] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as exc:
            found.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PROMPT_SECONDS)
    assert found, "it waits for somebody"
    if isinstance(found[0], BaseException) and not isinstance(found[0], ReplicatorError):
        raise found[0]
    return found[0]


def test_the_store_of_these_tests_is_a_good_one(store: Path, tmp_path: Path) -> None:
    """Without harm everything is read, so that a refusal below is one of the harm."""
    found = {name: outcome(call) for name, call in readings(store).items()}

    assert not [each for each in found.values() if isinstance(each, ReplicatorError)]
    assert b"SQLite format 3" == found["restore"][:15]  # type: ignore[index]
    assert [] == found["verify"].found  # type: ignore[attr-defined]


# --- names ---------------------------------------------------------------------------------------------

ODD = (
    b"full/2025/01/28/\n20250128T020000Z",
    b"tail/\x1b[2J\x1b[31mred.segment",
    b"\xc2\x9b31m",
    "generations/00112233445566ff\u202enosj.".encode(),
    "generations/\uff100112233445566ff.json".encode(),
    "records/\uff12\uff10\uff12\uff150128T020000Z-00112233445566ff-0000000000000000/restored.json".encode(),
    "fu\u0456l/2025".encode(),
    b"\xff\xfe\xfd.json",
    b"-rf",
    b"$(touch owned)",
    b"%00%2e%2e%2f",
    b"a" * 255,
    b"tail/0011223344556677/" + b"0" * 230 + b".segment",
)


def plant(store: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(store), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"{}")


def test_odd_names_are_strays_and_are_shown_tamely(store: Path, inside: Callable[..., Done]) -> None:
    """Line ends, escape sequences, letters that look like ours, bytes that are no text: reported, never used."""
    for name in ODD:
        plant(store, name)
    shown = [
        inside("ls", store),
        inside("ls", store, "--json"),
        inside("verify", store, "--level", "content"),
        inside("check", "--store", store),
        inside("restore", store, "-o", store.parent / "out.db"),
    ]
    listing = shown[1].json

    assert [0, 0, 0, 0] == [shown[each].code for each in (0, 1, 3, 4)], shown
    assert len(ODD) == len(listing["strays"])
    for each in shown:
        lines = (each.out + each.err).split("\n")
        assert all(line.isprintable() for line in lines), lines
    assert not (store.parent / "owned").exists()


def test_an_error_that_names_an_object_shows_it_tamely(store: Path, inside: Callable[..., Done]) -> None:
    """What a record says, a person sees: no escape sequence of it reaches the terminal."""
    (path,) = (store / "generations").iterdir()
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps(record | {"reason": "first run\x1b]0;owned\x07\n\x9b2Jand \u202e \ud800"}))
    (lease,) = (store / "leases").iterdir()
    lease.write_text(
        json.dumps(json.loads(lease.read_bytes()) | {"host": "\x1b[2Jhost", "claimed": "\x1b[1m"})
    )
    shown = [inside("ls", store), inside("check", "--store", store), inside("ls", store, "--json")]

    assert [0, 0, 0] == [each.code for each in shown], shown
    assert "owned" in shown[0].out
    for each in shown:
        assert all(line.isprintable() for line in (each.out + each.err).split("\n")), each


def test_a_path_of_five_thousand_letters_hides_nothing(store: Path) -> None:
    """Deeper than any path can be said, and than a stack is: it is passed over, and all else is listed."""
    before = [each.name for each in connect(str(store)).list("")]
    folder = os.open(store / "tail", os.O_RDONLY)
    for _ in range(1_100):
        os.mkdir("deep", dir_fd=folder)
        below = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("deep.segment", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder))
    os.close(folder)
    try:
        found = {name: outcome(call) for name, call in readings(store).items()}
        after = [each.name for each in connect(str(store)).list("")]
    finally:
        subprocess.run(["rm", "-rf", store / "tail/deep"], check=True)

    assert not [each for each in found.values() if isinstance(each, ReplicatorError)]
    assert before == after


CLOUD_NAMES = (
    "../../etc/passwd",
    "/etc/passwd",
    ".",
    "..",
    "full/../../../etc/passwd",
    "tail//00000000000000ff.segment",
    "generations/../leases/00000001.json",
    "generations/00112233445566ff.json\0",
    "leases/00000001.json\n",
    "\ud800.json",
    "a" * 5_000,
    "a/" * 2_500 + "x.json",
    "full/0000/00/00/00000000T000000Z-0011223344556677-0000000000000000.full",
    "keys/99999999.json/",
)


class Bucket(MemoryStore):
    """An object store, where a name may be anything."""

    def __init__(self, folder: Path, more: tuple[str, ...]) -> None:
        super().__init__("s3://bucket")
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(path.relative_to(folder).as_posix(), path.read_bytes())
        self._objects |= dict.fromkeys(more, b"{}")


def test_names_that_no_folder_has_lead_nowhere(store: Path, tmp_path: Path) -> None:
    """In a bucket a name may climb, be absolute or empty: it is a stray, and the rest is as good as before."""
    bucket = Bucket(store, CLOUD_NAMES)
    repository = read_repository(unlocked(bucket))
    listing = describe(repository, Filter(None, None, None))
    report = verified(bucket)

    assert set(CLOUD_NAMES) == set(listing["strays"])
    assert restored(repository, tmp_path / "out.db")
    assert not [each for each in report.found if each.name not in CLOUD_NAMES]


# --- links ---------------------------------------------------------------------------------------------


def one(store: Path, pattern: str) -> Path:
    return sorted(store.glob(pattern))[0]


FILES = (
    "repository.json",
    "generations/*.json",
    "leases/*.json",
    "full/**/*.full",
    "full/**/*.pack",
    "incremental/**/*.incremental",
    "log/**/*.log",
    "tail/*/*.segment",
    "records/*/*.json",
)
FOLDERS = (
    "generations",
    "leases",
    "full",
    "full/*",
    "full/*/*",
    "incremental",
    "log",
    "tail",
    "tail/*",
    "records",
)


@pytest.mark.parametrize("pattern", FILES)
def test_a_link_in_the_place_of_an_object_is_not_followed(store: Path, elsewhere: Path, pattern: str) -> None:
    """Not even to the very object: whoever reads gets what is in the store, or is told that this is none."""
    path = one(store, pattern)
    moved = elsewhere / path.name
    path.rename(moved)
    for target in (moved, elsewhere / "passwd", elsewhere / "nothing"):
        path.symlink_to(target)
        found = {name: outcome(call) for name, call in readings(store).items()}
        path.unlink()
        assert "root:x:0" not in repr(found)
        path.symlink_to(target)
        with pytest.raises((ObjectCorrupt, ObjectNotFound)):
            connect(str(store)).get(path.relative_to(store).as_posix())
        path.unlink()

    assert not (elsewhere / "nothing").exists()


@pytest.mark.parametrize("pattern", FOLDERS)
def test_a_link_in_the_place_of_a_folder_is_not_followed(store: Path, elsewhere: Path, pattern: str) -> None:
    """What lies behind it is neither listed, read, written nor deleted, though it be the very folder."""
    path = one(store, pattern)
    path.rename(elsewhere / "moved")
    path.symlink_to(elsewhere / "moved")
    inner = next(each for each in sorted((elsewhere / "moved").rglob("*")) if each.is_file())
    name = (path / inner.relative_to(elsewhere / "moved")).relative_to(store).as_posix()
    before = sorted((elsewhere / "moved").rglob("*"))
    found = {each: outcome(call) for each, call in readings(store).items()}
    opened = FolderStore(str(store))

    if pattern.startswith("full"):
        assert isinstance(found["restore"], ReplicatorError)
    assert [] == [each for each in opened.list("") if each.name == name]
    with pytest.raises(ObjectCorrupt, match="symbolic link"):
        opened.get(name)
    with pytest.raises(ObjectCorrupt, match="symbolic link"):
        opened.get_range(name, 0, 1)
    with pytest.raises(StoreDenied, match="symbolic link"):
        opened.put(name.rpartition("/")[0] + "/new.json", b"{}")
    with pytest.raises(StoreDenied, match="symbolic link"):
        opened.delete(name)
    assert before == sorted((elsewhere / "moved").rglob("*"))


def test_a_link_that_comes_while_the_agent_writes_is_not_followed(tmp_path: Path, elsewhere: Path) -> None:
    """Folders that were there at the first put are looked at again at every other."""
    opened = FolderStore(str(tmp_path / "store"))
    opened.put("tail/a", b"x")
    (tmp_path / "store/tail").rename(tmp_path / "store/before")
    (tmp_path / "store/tail").symlink_to(elsewhere)

    with pytest.raises(StoreDenied, match="symbolic link"):
        opened.put("tail/b", b"x")
    assert ["passwd"] == os.listdir(elsewhere)


def test_the_store_itself_may_be_a_link(store: Path, tmp_path: Path) -> None:
    """Who names a store names it: a link to a disk with room is a way to run."""
    (tmp_path / "link").symlink_to(store)

    assert outcome(readings(tmp_path / "link")["restore"])
    FolderStore(str(tmp_path / "link")).put("tail/b", b"x")
    assert (store / "tail/b").exists()


def test_the_agent_does_not_write_through_a_link(
    tmp_path: Path, elsewhere: Path, inside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is wrong with its store, and nothing of the database lands elsewhere."""
    monkeypatch.setattr(replicate, "ONCE_STORE_SECONDS", 0.2)
    sql(tmp_path / "app.db", "PRAGMA journal_mode = WAL", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/generations").symlink_to(elsewhere)
    done = inside("replicate", tmp_path / "app.db", tmp_path / "store", "--once")

    assert 16 == done.code, done.err
    assert "symbolic link" in done.err
    assert ["passwd"] == os.listdir(elsewhere)


# --- what is no file -----------------------------------------------------------------------------------


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    # Said by the number of its folder: the path of a socket has at most 107 letters.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _folder(path: Path) -> None:
    path.mkdir()


SPECIAL = {"pipe": _pipe, "socket": _socket, "folder": _folder}


@pytest.mark.parametrize("special", SPECIAL)
def test_nobody_waits_for_what_is_no_file(store: Path, special: str) -> None:
    """A pipe, a socket or a folder in the place of any object: refused at once, never opened to wait."""
    for pattern in FILES:
        path = one(store, pattern)
        content = path.read_bytes()
        path.unlink()
        SPECIAL[special](path)
        name = path.relative_to(store).as_posix()
        opened = FolderStore(str(store))
        for call in (partial(opened.get, name), partial(opened.get_range, name, 0, 1)):
            assert isinstance(outcome(call), ObjectNotFound if special == "folder" else ObjectCorrupt)
        for call in readings(store).values():
            outcome(call)
        path.rmdir() if special == "folder" else path.unlink()
        path.write_bytes(content)

    assert [] == verified(connect(str(store))).found


def test_the_agent_does_not_wait_for_a_pipe(
    tmp_path: Path, inside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in the place of the record, and one in the place of the next segment."""
    monkeypatch.setattr(replicate, "ONCE_STORE_SECONDS", 0.2)
    sql(tmp_path / "app.db", "PRAGMA journal_mode = WAL", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    (tmp_path / "store").mkdir()
    os.mkfifo(tmp_path / "store/repository.json")
    began = time.monotonic()
    done = inside("replicate", tmp_path / "app.db", tmp_path / "store", "--once")

    assert done.code != 0
    assert "not a regular file" in done.err
    assert time.monotonic() - began < PROMPT_SECONDS


# --- sizes ---------------------------------------------------------------------------------------------

TERABYTE = 1 << 40


@pytest.mark.parametrize("pattern", [*FILES, "keys"])
def test_a_terabyte_that_claims_to_be_a_record_is_not_read(store: Path, pattern: str) -> None:
    """A file with nothing in it may be of any size: what no object of that name can be is refused by its size."""
    if pattern == "keys":
        (store / "keys").mkdir()
        (store / "keys/00000001.json").touch()
        (store / "repository.json").unlink()  # so that slots are looked for
    path = store / "keys/00000001.json" if pattern == "keys" else one(store, pattern)
    os.truncate(path, TERABYTE)
    name = path.relative_to(store).as_posix()
    tracemalloc.start()
    try:
        found = {each: outcome(call) for each, call in readings(store).items()}
        with pytest.raises(ObjectCorrupt, match="larger"):
            FolderStore(str(store)).get(name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64 << 20
    assert pattern not in ("repository.json", "full/**/*.full") or found


def test_objects_of_their_largest_size_are_read(tmp_path: Path) -> None:
    """The bounds are far above what is written: a pack, a log and a segment of some mebibytes are no trouble."""
    opened = FolderStore(str(tmp_path))
    stem = "20250128T020000Z-00112233445566ff-0000000000000000"
    for name, size in (
        (f"full/2025/01/28/{stem}-00000000000000aa.pack", 40 << 20),
        (f"log/2025/01/28/{stem}-00000000000000ff.log", 40 << 20),
        ("tail/00112233445566ff/0000000000000001.segment", 40 << 20),
        ("leases/00000001.json", 60 << 10),
        ("people/notes.txt", 1 << 20),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size)
        assert size == len(opened.get(name))
        path.unlink()


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_server_that_promises_a_terabyte_is_not_waited_for(kind: str) -> None:
    """Told by the header of its answer, before the first byte of what would not fit anywhere."""
    with Answering() as server:
        server.answer = lambda method, path: (200, "{}")
        server.missing_bytes = TERABYTE
        bucket = (
            open_s3("s3://bucket", server.environ())
            if kind == "s3"
            else open_gcs("gs://bucket", {"STORAGE_EMULATOR_HOST": server.endpoint})
        )
        found = outcome(lambda: bucket.get("repository.json"))

    assert isinstance(found, ObjectCorrupt)
    assert "larger" in str(found)


# --- modes ---------------------------------------------------------------------------------------------

WATCH = """
import json, os, stat, sys

real = os.open
log = real(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
unnamed = getattr(os, "O_TMPFILE", -1)


def note(*what):
    os.write(log, json.dumps(what).encode() + b"\\n")


def watched(path, flags, mode=0o777, *, dir_fd=None):
    fd = real(path, flags, mode, dir_fd=dir_fd)
    if flags & os.O_CREAT or flags & unnamed == unnamed:
        note("made", os.fsdecode(path), stat.S_IMODE(os.fstat(fd).st_mode))
    return fd


def hook(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and isinstance(arguments[0], (str, bytes)):
        if arguments[2] & os.O_CREAT or arguments[2] & unnamed == unnamed:
            note("asked", os.fsdecode(arguments[0]))
    elif event in ("os.mkdir", "os.chmod"):
        note(event, str(arguments[0]), arguments[1])


os.open = watched
sys.addaudithook(hook)
"""


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_s69_nobody_else_may_read_what_is_made_from_its_first_moment_on(tmp_path: Path, umask: int) -> None:
    """Every file is 0600 and every folder 0700 when it is made, seen by the process that makes them: looked at through
    the descriptor before a byte is in them, and nothing is made narrower afterwards."""
    watch = tmp_path / "watch"
    watch.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH)
    sql(tmp_path / "app.db", "PRAGMA journal_mode = WAL", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    environ = {
        **ENVIRONMENT,
        "PYTHONPATH": f"{watch}:{ENVIRONMENT['PYTHONPATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "WATCH_LOG": str(tmp_path / "watch.log"),
        "BACKUP_ENCRYPTION_KEY": KEY,
    }
    verbs = [
        ("replicate", "app.db", "store", "--once"),
        ("restore", "store", "-o", "out.db"),
        ("key", "kit", "store", "-o", "kit"),
    ]
    if umask == 0:
        verbs += [
            ("verify", "store", "--level", "restore"),
            ("key", "rotate", "app.db"),
            ("key", "generate", "-o", "key"),
        ]
    for arguments in verbs:
        done = subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environ,
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
    events = [json.loads(line) for line in (tmp_path / "watch.log").read_text().splitlines()]
    asked = [path for kind, path, *_ in events if kind == "asked" and not path.startswith(str(watch))]
    made = [
        (path, mode) for kind, path, mode in (each for each in events if len(each) == 3) if kind == "made"
    ]

    assert len(made) > 20
    assert sorted(asked) == sorted(path for path, _ in made), (
        "something is made in a way that is not looked at"
    )
    assert {0o600} == {mode for path, mode in made if not path.startswith("/dev")}, made
    folders = [
        (path, mode) for kind, path, mode in (each for each in events if len(each) == 3) if kind == "os.mkdir"
    ]
    assert {0o700} == {mode for _, mode in folders}
    # A descriptor is of what has no name yet.
    narrowed = {path for kind, path, *_ in events if kind == "os.chmod" and not path.isdigit()}
    assert narrowed <= {path for path, _ in folders}
    left = [
        path for name in ("store", ".app.db-replicator", "out.db", "kit") for path in below(tmp_path / name)
    ]
    assert len(left) > 15
    assert [] == [
        path for path in left if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
    ]


def below(path: Path) -> Iterator[Path]:
    yield path
    yield from path.rglob("*")


def test_a_store_that_everybody_may_write_to_is_told_of(
    store: Path, tmp_path: Path, inside: Callable[..., Done]
) -> None:
    """It works, what is made in it is nobody else's, and ``check`` says what is wrong with it."""
    store.chmod(0o777)
    FolderStore(str(store)).put("new/folder/a", b"x")
    done = inside("check", "--store", store)
    store.chmod(0o700)
    better = inside("check", "--store", store)

    assert "others may write" in done.out
    assert 0 == done.code
    assert "others may write" not in better.out
    assert [0o700, 0o700, 0o600] == [
        stat.S_IMODE((store / each).stat().st_mode) for each in ("new", "new/folder", "new/folder/a")
    ]


# --- databases made to harm ----------------------------------------------------------------------------

# What CREATE refuses is written into the schema itself.
EVIL = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
run = database.execute
plant = "INSERT INTO sqlite_schema VALUES (?, ?, ?, 0, ?)"
run("PRAGMA journal_mode = WAL")
run("CREATE TABLE t (a, b)")
run("INSERT INTO t VALUES (1, 2)")
run("CREATE VIEW called AS SELECT load_extension('/tmp/evil.so'), writefile('owned', 'x'), readfile('/etc/passwd')")
run("CREATE TRIGGER fired AFTER INSERT ON t BEGIN SELECT load_extension('/tmp/evil.so'); END")
run("CREATE VIEW pointer AS SELECT fts3_tokenizer('simple', x'4141414141414141')")
run("CREATE TABLE evil_target (a)")
run("PRAGMA writable_schema = ON")
run(plant, ("view", "sqlite_stat1", "sqlite_stat1", "CREATE VIEW sqlite_stat1 AS SELECT load_extension(1)"))
run(plant, ("trigger", "evil", "evil_target", "CREATE TRIGGER evil BEFORE DELETE ON evil_target BEGIN "
            "SELECT writefile('owned', 1); END"))
run("PRAGMA writable_schema = RESET")
for statement in sys.argv[2:]:
    run(statement)
sys.stdout.flush()
os._exit(0)
"""


def evil_store(folder: Path, *statements: str) -> Path:
    """A repository of a database with that schema, replicated by the program as any other."""
    subprocess.run([sys.executable, "-c", EVIL, str(folder / "evil.db"), *statements], check=True)
    done = replicator("replicate", "evil.db", "evil-store", "--once", cwd=folder)
    assert 0 == done.code, done.err
    return folder / "evil-store"


def lowered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, cpu: int, memory: int) -> None:
    """The child's own program, with other numbers."""
    text = Path(proof._CHILD).read_text("utf-8")
    changed = text.replace(
        "CPU_SECONDS, CPU_SECONDS_PER_GIB = 300, 300", f"CPU_SECONDS, CPU_SECONDS_PER_GIB = {cpu}, 1"
    )
    changed = changed.replace("MEMORY_BYTES = 1 << 30", f"MEMORY_BYTES = {memory}")
    assert changed.count(str(memory)) == 1
    assert changed != text
    (tmp_path / "child.py").write_text(changed)
    monkeypatch.setattr(proof, "_CHILD", str(tmp_path / "child.py"))


def attempt(store: Path, output: Path) -> None:
    repository = read_repository(unlocked(connect(str(store))))
    restore_chosen(repository, choose(repository, Target()), str(output), RestoreOptions("full"))


def test_what_a_schema_calls_is_not_called(tmp_path: Path) -> None:
    """Views and triggers that load code, write files or take pointers lie there, and nothing of them runs."""
    store = evil_store(tmp_path)
    attempt(store, tmp_path / "out.db")

    assert not (tmp_path / "owned").exists()
    assert not Path("owned").exists()
    assert (tmp_path / "out.db").exists()


# A column is computed whenever it is looked at, from a rule that was a harmless one when the row was written.
_LATER = (
    "PRAGMA writable_schema = ON",
    "UPDATE sqlite_schema SET sql = replace(replace(sql, '0 +', '{0}'), '1 +', '{1}')",
)
HARMS = {
    "time": (
        "CREATE TABLE slow (x, y AS (instr(hex(zeroblob(0 + x)), hex(zeroblob(1 + x)) || 'x')) NOT NULL)",
        "INSERT INTO slow VALUES (1)",
        *(each.format("500000 +", "250000 +") for each in _LATER),
    ),
    "memory": (
        "CREATE TABLE large (x, y AS (length(hex(zeroblob(0 + x)))) NOT NULL)",
        "INSERT INTO large VALUES (1)",
        *(each.format("400000000 +", "1 +") for each in _LATER),
    ),
    # A search index that takes its content from a view without an end.
    "endless view": (
        "CREATE VIEW endless AS SELECT 1 AS rowid, 'x' AS a",
        "CREATE VIRTUAL TABLE search USING fts5(a, content='endless', content_rowid='rowid')",
        "INSERT INTO search(rowid, a) VALUES (1, 'x')",
        "DROP VIEW endless",
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS rowid, i AS a FROM n WHERE i < 0",
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_check_that_does_not_end_is_ended(
    tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lowered bounds: the child that asks SQLite ends, the restore says so, and leaves nothing behind."""
    store = evil_store(tmp_path, *HARMS[harm])
    lowered(monkeypatch, tmp_path, cpu=1, memory=200_000_000)
    began = time.monotonic()
    with pytest.raises(ProofFailed) as caught:
        attempt(store, tmp_path / "out.db")

    assert time.monotonic() - began < PROMPT_SECONDS
    assert ("memory" if harm == "memory" else "did not come to an end") in str(caught.value)
    assert [] == [each for each in os.listdir(tmp_path) if each.startswith((".out", "out"))]


def test_a_file_does_not_choose_how_much_is_said_of_it(tmp_path: Path) -> None:
    """Thousands of tables of modules that nobody has, with names of a kilobyte: a few are told of, and that there are
    more."""
    row = "'table', printf('v%d%.1000c', n, 'x'), printf('v%d%.1000c', n, 'x'), 0, "
    sql_of_it = "printf('CREATE VIRTUAL TABLE v%d%.1000c USING nosuch()', n, 'x')"
    store = evil_store(
        tmp_path,
        "PRAGMA writable_schema = ON",
        f"INSERT INTO sqlite_schema WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3000) "
        f"SELECT {row}{sql_of_it} FROM r",
    )
    repository = read_repository(unlocked(connect(str(store))))
    result = restore_chosen(
        repository, choose(repository, Target()), str(tmp_path / "out.db"), RestoreOptions("quick")
    )

    assert 10 < len(result.remarks) < 30
    assert sum(map(len, result.remarks)) < 30_000
    assert "more" in result.remarks[-1]


def test_the_child_that_reads_the_file_has_no_secrets(tmp_path: Path) -> None:
    """Whatever a file makes of the child, keys of the environment are not there to be taken."""
    store = evil_store(tmp_path)
    text = Path(proof._CHILD).read_text("utf-8")
    (tmp_path / "child.py").write_text(
        text.replace(
            "    bound(path)\n", "    remarks.append(json.dumps(dict(os.environ)))\n    bound(path)\n"
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "_CHILD", str(tmp_path / "child.py"))
        for name in (
            "BACKUP_S3_SECRET_KEY",
            "BACKUP_ENCRYPTION_NEW_PASSPHRASE",
            "AWS_SECRET_ACCESS_KEY",
            "S3_SECRET_KEY",
        ):
            patch.setenv(name, "")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-cloud")
        patch.setenv("AZURE_STORAGE_KEY", "canary-of-the-cloud")
        repository = read_repository(unlocked(connect(str(store))))
        result = restore_chosen(
            repository, choose(repository, Target()), str(tmp_path / "out.db"), RestoreOptions("quick")
        )
    (environ,) = (json.loads(each) for each in result.remarks if each.startswith("{"))

    assert "PATH" in environ
    assert not [name for name in environ if name.startswith(("BACKUP_", "AWS_", "AZURE_", "S3_", "GOOGLE_"))]


# --- where it is restored to ---------------------------------------------------------------------------


def test_a_planted_temporary_name_is_not_written_through(
    store: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could guess the temporary name of a restore gains nothing by a link there: it is refused."""
    monkeypatch.setattr(image.secrets, "token_hex", lambda _: "01234567")
    (tmp_path / "out").mkdir()
    link = tmp_path / "out/.out.db.restoring-01234567"
    link.symlink_to(elsewhere / "passwd")
    repository = read_repository(unlocked(connect(str(store))))
    with pytest.raises(DestinationRefused):
        restored(repository, tmp_path / "out/out.db")

    assert SECRET == (elsewhere / "passwd").read_bytes()
    assert not (tmp_path / "out/out.db").exists()
    assert link.is_symlink()


def test_leftovers_that_are_links_and_pipes_are_left_alone(
    store: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """Only files of ours are cleared away before a restore; nothing is followed, and nobody waits."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.out.db.restoring-00000001").symlink_to(elsewhere / "passwd")
    os.mkfifo(tmp_path / "out/.out.db.restoring-00000002")
    (tmp_path / "out/.out.db.restoring-00000003").write_bytes(b"of a restore that was killed")
    repository = read_repository(unlocked(connect(str(store))))
    assert outcome(lambda: restored(repository, tmp_path / "out/out.db"))

    assert SECRET == (elsewhere / "passwd").read_bytes()
    assert not (tmp_path / "out/.out.db.restoring-00000003").exists()
