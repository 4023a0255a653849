"""The local queue: what is durable, who may read it, and what a crash at any byte leaves of it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator import spool as spool_module
from replicator.core.errors import FormatTooNew, StoreError, StoreUnavailable
from replicator.core.unit import HEADER_SIZE, decode_unit, follows, parse_unit_header
from replicator.spool import Place, Spool
from tests.core.histories import database_of
from tests.core.unit_writer import Writer, writer_on

ROOT = Path(__file__).resolve().parents[2]
OTHER = "ffeeddccbbaa9988"


def new_writer(seed: int = 1, generation: str = "00112233445566ff", pages: int = 8) -> Writer:
    rng = random.Random(seed)
    return writer_on(database_of(rng, 512, pages), rng, generation=generation)


def opened(folder: Path) -> Spool:
    spool = Spool(str(folder))
    spool.open()
    return spool


def append_all(spool: Spool, units: list[bytes]) -> None:
    for unit in units:
        spool.append(unit, parse_unit_header(unit))


def everything(spool: Spool, place: Place | None = None) -> list[bytes]:
    """What a reader gets, read in small bites across generations."""
    found: list[bytes] = []
    place = place or spool.beginning
    while True:
        units, place = spool.read(place, 1)
        if not units:
            return found
        found += [unit for _, unit in units]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file after every two or three units."""
    monkeypatch.setattr(spool_module, "FILE_BYTES", 1_500)


# --- appending and reading -----------------------------------------------------------------------------


def test_units_come_out_as_they_went_in(folder: Path) -> None:
    """Verbatim and in order, with their headers, and the end moves behind each."""
    spool, units = opened(folder), new_writer().commits(5)
    ends = [spool.end]
    for unit in units:
        spool.append(unit, parse_unit_header(unit))
        ends.append(spool.end)
    read, behind = spool.read(spool.beginning, 1 << 30)
    spool.close()

    assert units == [unit for _, unit in read]
    assert [parse_unit_header(unit) for unit in units] == [header for header, _ in read]
    assert sorted(set(ends)) == ends
    assert ends[-1] == behind
    assert ends[0] == Place(0, 0) == spool.beginning


def test_an_empty_spool_has_nothing(folder: Path) -> None:
    """Nothing to read, no last unit, no generations, no bytes."""
    spool = opened(folder)

    assert ([], spool.end) == spool.read(spool.beginning, 100)
    assert spool.last_unit() is None
    assert [] == spool.generations()
    assert 0 == spool.bytes_from(spool.beginning)
    spool.close()


def test_a_reader_takes_what_fits_and_at_least_one(folder: Path) -> None:
    """A limit is kept to, but for a single unit that is larger; the place says where to go on."""
    spool, units = opened(folder), new_writer().commits(4)
    append_all(spool, units)
    two = len(units[0]) + len(units[1])
    first, place = spool.read(spool.beginning, 1)
    second, _ = spool.read(spool.beginning, two)
    third, _ = spool.read(spool.beginning, two - 1)
    rest, end = spool.read(place, 1 << 30)
    nothing, still = spool.read(end, 1 << 30)
    spool.close()

    assert [1, 2, 1, 3, 0] == [len(each) for each in (first, second, third, rest, nothing)]
    assert end == still == spool.end


def test_what_is_read_at_once_is_of_one_generation(folder: Path) -> None:
    """A segment holds one generation, so a bite ends where the next one begins."""
    spool = opened(folder)
    old, new = new_writer().commits(2), new_writer(2, OTHER).commits(3)
    append_all(spool, old + new)
    first, place = spool.read(spool.beginning, 1 << 30)
    second, _ = spool.read(place, 1 << 30)
    spool.close()

    assert (old, new) == ([unit for _, unit in first], [unit for _, unit in second])


def test_half_a_transaction_is_not_there(folder: Path) -> None:
    """Parts become readable together, once the last of them is durable."""
    spool, writer = opened(folder), new_writer()
    append_all(spool, writer.commits(1))
    end, last = spool.end, spool.last_unit()
    parts = writer.large(4)
    for part in parts[:-1]:
        append_all(spool, [part])
        assert (end, last, 0) == (spool.end, spool.last_unit(), spool.bytes_from(end))
        assert [] == spool.read(end, 1 << 30)[0]
    append_all(spool, parts[-1:])

    assert parts == everything(spool, end)
    assert parts[-1] == spool.last_unit()
    assert sum(map(len, parts)) == spool.bytes_from(end)
    spool.close()


@pytest.mark.usefixtures("small_files")
def test_parts_that_lead_nowhere_are_rewound(folder: Path) -> None:
    """A transaction that could not be captured to its end leaves nothing, in no file, and others follow."""
    spool, writer = opened(folder), new_writer()
    append_all(spool, writer.commits(1))
    files, end = sorted(folder.iterdir()), spool.end
    checkpoint = (writer.tip, writer.model.copy())
    append_all(spool, writer.large(6)[:-1])
    longer = sorted(folder.iterdir())
    spool.rewind()
    writer.tip, writer.model = checkpoint
    again = writer.commits(3)
    append_all(spool, again)

    assert len(longer) > len(files)
    assert again == everything(spool, end)
    spool.close()
    assert again == everything(opened(folder), end)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("call", ["ftruncate", "fsync"])
def test_a_rewind_that_could_not_end_ends_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The parts lay in files of their own, which are gone: what comes next goes to the end, not to where they were."""
    spool, writer = opened(folder), new_writer()
    kept = writer.commits(1)
    append_all(spool, kept)
    checkpoint = (writer.tip, writer.model.copy())
    append_all(spool, writer.large(6)[:-1])
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(StoreUnavailable):
            spool.rewind()
    writer.tip, writer.model = checkpoint
    again = writer.commits(3)
    append_all(spool, again)

    assert kept + again == everything(spool)
    spool.close()
    assert kept + again == everything(opened(folder))


def test_what_could_not_be_cut_off_is_written_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that was not synced counts as not there, also for who opens the spool with a shorter one in its place."""
    spool, writer = opened(folder), new_writer()
    kept = writer.commits(2)
    append_all(spool, kept)
    checkpoint = (writer.tip, writer.model.copy())
    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "_sync_content", failing)
        patch.setattr(os, "ftruncate", failing)
        with pytest.raises(StoreUnavailable):
            append_all(spool, writer.large(2)[:1])
    writer.tip, writer.model = checkpoint
    shorter = writer.commits(1)
    append_all(spool, shorter)

    assert kept + shorter == everything(spool)
    spool.close()
    assert sum(map(len, kept + shorter)) == sum(path.stat().st_size for path in folder.iterdir())
    assert kept + shorter == everything(opened(folder))


def failing(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_two_threads_read_while_one_appends(folder: Path) -> None:
    """Threads: whatever a reader is given is whole, in order, and in the end complete."""
    spool, units = opened(folder), new_writer().commits(60)
    done = threading.Event()
    found: list[list[bytes]] = [[], []]

    def read(into: list[bytes]) -> None:
        place = spool.beginning
        while len(into) < len(units):
            finished = done.is_set()
            got, place = spool.read(place, 2_000)
            into.extend(unit for _, unit in got)
            if finished and not got:
                return

    threads = [threading.Thread(target=read, args=(each,)) for each in found]
    for thread in threads:
        thread.start()
    append_all(spool, units)
    done.set()
    for thread in threads:
        thread.join()
    spool.close()

    assert [units, units] == found


# --- looking units up ----------------------------------------------------------------------------------


def test_units_are_found_by_what_they_cover(folder: Path) -> None:
    """The place behind a unit, and its bytes; None for one that is not there, or of another generation."""
    spool, writer = opened(folder), new_writer()
    units = writer.commits(2) + writer.large(3) + writer.commits(1)
    append_all(spool, units)
    place, expected = spool.beginning, []
    for unit in units:
        place = Place(place.number, place.offset + len(unit))
        expected.append((place, unit))
    absent = new_writer(1, OTHER).commits(1)[0]
    beyond = writer.commits(1)[0]

    assert expected == [spool.place_after(parse_unit_header(unit)) for unit in units]
    assert spool.place_after(parse_unit_header(absent)) is None
    assert spool.place_after(parse_unit_header(beyond)) is None
    spool.close()


@pytest.mark.usefixtures("small_files")
def test_generations_are_found_in_the_order_they_were_spooled(folder: Path) -> None:
    """Each once, oldest first, with the place of its first unit."""
    spool = opened(folder)
    old, new = new_writer().commits(7), new_writer(2, OTHER).commits(3)
    append_all(spool, old)
    between = spool.end
    append_all(spool, new)
    first = spool.first_of(parse_unit_header(new[0]).generation)
    assert first is not None
    second = spool.first_of(parse_unit_header(old[0]).generation)
    assert second is not None

    assert [parse_unit_header(old[0]).generation, OTHER] == spool.generations()
    assert new == everything(spool, first[0])
    assert parse_unit_header(new[0]) == first[1]
    assert (spool.beginning, parse_unit_header(old[0])) == second
    assert 0 < spool.bytes_from(between) <= sum(map(len, new))
    spool.close()


# --- files ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_files")
def test_a_new_file_begins_when_one_is_full(folder: Path) -> None:
    """Files are numbered, each a little above its size, and nothing is lost at their borders."""
    spool, units = opened(folder), new_writer().commits(20)
    append_all(spool, units)
    files = sorted(folder.iterdir())
    sizes = [path.stat().st_size for path in files]
    spool.close()

    assert [f"{number:08d}.units" for number in range(len(files))] == [path.name for path in files]
    assert len(files) >= 4
    assert all(1_500 <= size < 1_500 + max(map(len, units)) for size in sizes[:-1])
    assert b"".join(units) == b"".join(path.read_bytes() for path in files)
    assert units == everything(opened(folder))


def test_nobody_else_may_read_the_spool(folder: Path) -> None:
    """Files are 0600, the folder 0700."""
    spool = opened(folder)
    append_all(spool, new_writer().commits(1))
    spool.close()

    assert {0o600} == {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert 0o700 == folder.stat().st_mode & 0o777


@pytest.mark.usefixtures("small_files")
def test_files_that_every_reader_is_past_are_deleted(folder: Path) -> None:
    """The slowest reader decides; one that gave up does not count; the newest file always stays."""
    spool, units = opened(folder), new_writer().commits(20)
    append_all(spool, units)
    count = len(list(folder.iterdir()))
    _, middle = spool.read(spool.beginning, 5_000)
    left: list[list[int]] = []

    def note() -> None:
        left.append(sorted(int(path.name[:8]) for path in folder.iterdir()))

    spool.retain("slow", spool.beginning)
    spool.retain("fast", spool.end)
    note()
    spool.retain("slow", middle)
    note()
    after_middle = everything(spool, middle)
    spool.retain("slow", None)
    note()
    spool.retain("fast", None)
    note()
    rest = everything(spool)
    last = spool.last_unit()
    spool.close()

    assert list(range(count)) == left[0]
    assert list(range(middle.number, count)) == left[1]
    assert 0 < middle.number < count - 1
    assert [count - 1] == left[2] == left[3]
    assert units[-len(after_middle) :] == after_middle
    assert units[-len(rest) :] == rest
    assert units[-1] == last


@pytest.mark.usefixtures("small_files")
def test_a_spool_without_its_first_files_is_opened(folder: Path) -> None:
    """Numbers go on where they were, and the beginning is the oldest file there is."""
    spool, writer = opened(folder), new_writer()
    units = writer.commits(20)
    append_all(spool, units)
    spool.retain("reader", spool.end)
    end, kept = spool.end, everything(spool)
    spool.close()
    spool = opened(folder)
    more = writer.commits(8)
    append_all(spool, more)

    assert Place(end.number, 0) == spool.beginning
    assert kept + more == everything(spool)
    assert max(int(path.name[:8]) for path in folder.iterdir()) > end.number
    spool.close()


def test_foreign_files_in_the_folder_do_not_disturb(folder: Path) -> None:
    """What is no file of ours is neither read nor deleted."""
    folder.mkdir(parents=True)
    for name in ("README", "00000001.units.tmp", "1.units", ".hidden"):
        (folder / name).write_bytes(b"people")
    spool, units = opened(folder), new_writer().commits(2)
    append_all(spool, units)
    spool.retain("reader", spool.end)
    spool.close()

    assert units == everything(opened(folder))
    assert {"README", "00000001.units.tmp", "1.units", ".hidden", "00000000.units"} == {
        path.name for path in folder.iterdir()
    }


# --- crashes -------------------------------------------------------------------------------------------

Tear = Callable[[bytes, int], bytes]
TEARS: dict[str, Tear] = {
    "cut off": lambda unit, at: unit[:at],
    "zeros behind": lambda unit, at: unit[:at] + bytes(len(unit) - at),
    "older bytes behind": lambda unit, at: unit[:at] + (unit * 2)[at + 7 : at + 7 + len(unit) - at],
    "one bit wrong": lambda unit, at: unit[:at] + bytes([unit[at] ^ 16]) + unit[at + 1 :],
}


@pytest.mark.parametrize("tear", TEARS)
def test_a_unit_torn_at_any_byte_is_cut_off(folder: Path, tear: str) -> None:
    """What a power cut leaves of the last unit goes, all before it stays, and the same unit can be appended."""
    spool, writer = opened(folder), new_writer(3, pages=4)
    units = writer.commits(3)
    append_all(spool, units)
    spool.close()
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    before = whole[: -len(units[-1])]
    for at in range(len(units[-1])):
        torn = before + TEARS[tear](units[-1], at)
        if torn == whole:
            continue
        path.write_bytes(torn)
        if tear == "one bit wrong" and at in (7, 8):
            with pytest.raises(FormatTooNew):  # version and flags: no torn write leaves that
                opened(folder)
            continue
        spool = opened(folder)
        assert units[:-1] == everything(spool), at
        assert units[-2] == spool.last_unit()
        assert len(before) == path.stat().st_size
        append_all(spool, units[-1:])
        spool.close()
        assert whole == path.read_bytes()


@pytest.mark.usefixtures("small_files")
def test_parts_without_their_last_are_dropped_when_opened(folder: Path, tmp_path: Path) -> None:
    """After a crash within a transaction in parts, at any of them and over several files, none is left."""
    writer = new_writer()
    first = writer.commits(2)
    tip = (writer.tip, writer.model.copy())
    parts = writer.large(5)
    writer.tip, writer.model = tip
    instead = writer.commits(2)
    for count in range(len(parts)):
        here = tmp_path / str(count)
        spool = opened(here)
        append_all(spool, first + parts[:count])
        spool.close()
        spool = opened(here)
        assert first == everything(spool)
        assert first[-1] == spool.last_unit()
        append_all(spool, instead)
        assert first + instead == everything(spool)
        spool.close()


@pytest.mark.usefixtures("small_files")
def test_a_file_that_was_just_begun_is_no_loss(folder: Path) -> None:
    """A crash between making a new file and its first unit: the one before goes on to be the last."""
    spool, writer = opened(folder), new_writer()
    units = writer.commits(6)
    append_all(spool, units)
    end = spool.end
    spool.close()
    (folder / f"{end.number + 1:08d}.units").write_bytes(b"")
    (folder / f"{end.number + 2:08d}.units").write_bytes(b"torn"[:3])
    spool = opened(folder)
    more = writer.commits(6)
    append_all(spool, more)

    assert units + more == everything(spool)
    assert units + more == [unit for path in sorted(folder.iterdir()) for unit in split(path.read_bytes())]
    spool.close()


def split(content: bytes) -> list[bytes]:
    units: list[bytes] = []
    while content:
        size = parse_unit_header(content[:HEADER_SIZE]).size
        units.append(content[:size])
        content = content[size:]
    return units


def test_a_spool_killed_at_any_moment_has_all_it_acknowledged(folder: Path, tmp_path: Path) -> None:
    """kill -9 while appending: every unit that append returned from is there, whole and chained."""
    script = tmp_path / "append.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from pathlib import Path
            from replicator import spool as spool_module
            from replicator.core.unit import parse_unit_header
            from tests.parts import test_spool
            spool_module.FILE_BYTES = 3_000
            spool = test_spool.opened(Path(sys.argv[1]))
            writer = test_spool.new_writer(int(sys.argv[2]))
            print("ready", flush=True)
            while True:
                for unit in writer.large(3) if writer.rng.random() < 0.3 else writer.commits(1):
                    spool.append(unit, parse_unit_header(unit))
                print(writer.tip.txid, flush=True)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for seed in range(4):
        here = folder / str(seed)
        command = [sys.executable, str(script), str(here), str(seed)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(random.Random(seed).randint(2, 60)):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            acknowledged = [line for line in child.stdout.read().split() if line.isdigit()]
        spool = opened(here)
        units = [decode_unit(unit) for unit in everything(spool)]
        spool.close()

        assert units[-1].header.commits
        assert units[-1].header.txid_last >= int((acknowledged or ["0"])[-1])
        for before, after in itertools.pairwise(units):
            assert follows(after.header, before.digest)


# --- trouble -------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_spool_as_it_was(folder: Path, tmp_path: Path) -> None:
    """Where a write fails half way, append raises, nothing is added, and the same unit can be tried again."""
    script = """
        import resource, sys
        from pathlib import Path
        from replicator.core.errors import StoreUnavailable
        from tests.parts.test_spool import append_all, everything, new_writer, opened
        spool, writer = opened(Path(sys.argv[1])), new_writer()
        units = writer.commits(6)
        append_all(spool, units[:4])
        size = sum(map(len, units[:4]))
        before = (spool.end, spool.last_unit(), everything(spool))
        for more in range(0, len(units[4]), 97):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))
            try:
                append_all(spool, units[4:5])
                print("it was not full")
            except StoreUnavailable:
                pass
            assert before == (spool.end, spool.last_unit(), everything(spool)), more
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        append_all(spool, units[4:])
        assert units == everything(spool)
        spool.close()
        assert units == everything(opened(Path(sys.argv[1])))
        print("ok")
    """
    assert "ok\n" == run_child(script, folder)


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0,
    reason="mounting a file system of its own is not permitted",
)
def test_a_disk_without_room_for_a_new_file_stops_nothing_for_good(folder: Path) -> None:
    """No space, or no inode for the next file: append raises, and works again once there is room."""
    script = """
        import os, subprocess, sys
        from pathlib import Path
        from replicator import spool as spool_module
        from replicator.core.errors import StoreUnavailable
        from tests.parts.test_spool import append_all, everything, new_writer, opened
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "none", folder], check=True)
        spool_module.FILE_BYTES = 1_500
        spool, writer = opened(folder), new_writer()
        done, failed = [], 0
        for turn in range(400):
            (unit,) = writer.commits(1)
            try:
                append_all(spool, [unit])
            except StoreUnavailable as exc:
                assert "space" in str(exc), exc
                assert done == everything(spool)
                failed += 1
                subprocess.run(["mount", "-o", f"remount,size={64 << failed}k,nr_inodes={8 << failed}", folder])
                append_all(spool, [unit])
            done.append(unit)
            if failed >= 5:
                break
        assert done == everything(spool)
        spool.close()
        assert done == everything(opened(folder))
        print("ok", failed > 2)
    """
    assert "ok True\n" == run_child(script, folder, prefix=("unshare", "--mount"))


def run_child(body: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    command = [*prefix, sys.executable, "-c", textwrap.dedent(body), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_damaged_spool_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that were durable and are not what was written are an error with a hint, and never shipped."""
    monkeypatch.setattr("replicator.spool.RECENT_BYTES", 0)
    spool, units = opened(folder), new_writer().commits(3)
    append_all(spool, units)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(units[0])] + b"X" + content[len(units[0]) + 1 :])
    with pytest.raises(StoreError, match="the spool is damaged") as caught:
        everything(spool)
    spool.close()

    assert caught.value.hint
    assert not isinstance(caught.value, StoreUnavailable)
