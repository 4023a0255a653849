"""`restore` as a process: what it gives back, what it refuses, and that it leaves nothing behind."""

import os
import pty
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.command import ENVIRONMENT, Running, command, leftovers, replicator, sql, until
from tests.e2e.conftest import History, Inside
from tests.support import oracle


def points(history: History, inside: Inside) -> list[tuple[str, str]]:
    """Position and commit time of some restore points: each first transaction of a segment."""
    names = [(path.parent.name, int(path.stem, 16)) for path in history.segments]
    found = [
        inside("show", history.store, f"{generation}/{txid:016x}", "--json").json
        for generation, txid in names[1::3]
    ]
    return [(each["position"], each["committed"]) for each in found]


# --- what it gives back --------------------------------------------------------------------------------


def test_latest_equals_the_source(made: History, tmp_path: Path) -> None:
    """Without a target the newest commit comes back, page by page, and the echo says which it is."""
    done = replicator("restore", made.store, "-o", "out.db", cwd=tmp_path)

    assert done.code == 0, done.err
    assert made.digest == oracle.database_digest(tmp_path / "out.db")
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    newest = made.listing["window"]["newest"]
    assert rows["position"] == newest["position"]
    assert rows["committed"].startswith(newest["committed"])
    assert rows["proved"] == "page hashes, database checksum, quick_check"
    assert "later ones, if there were any, had not arrived" in done.err
    assert ["out.db"] == leftovers(tmp_path)


def test_s50_s51_every_way_to_name_a_point_gives_the_same(
    made: History, inside: Inside, tmp_path: Path
) -> None:
    """A txid, its commit time, and a position in show are one restore point; the ledger stands where it did."""
    counters = []
    for number, (position, committed) in enumerate(points(made, inside)):
        generation, _, txid = position.partition("/")
        by_txid = tmp_path / f"{number}-txid.db"
        by_time = tmp_path / f"{number}-time.db"
        done = replicator(
            "restore",
            made.store,
            "-o",
            by_txid,
            "--txid",
            txid,
            "--generation",
            generation,
            "--json",
            cwd=tmp_path,
        )
        assert (0, position) == (done.code, done.json["position"])
        done = replicator(
            "restore", made.store, "-o", by_time, "--timestamp", committed, "--json", cwd=tmp_path
        )
        assert (0, committed) == (done.code, done.json["committed"])
        counters.append(oracle.ledger(by_txid)[1])
        assert counters[-1] <= oracle.ledger(by_time)[1]

    assert counters == sorted(set(counters))
    assert len(counters) >= 2


def test_the_result_as_json(made: History, tmp_path: Path) -> None:
    """The object names the file, its position, its proofs, and what it took."""
    done = replicator("restore", made.store, "-o", "out.db", "--verify", "full", "--json", cwd=tmp_path)

    assert done.json["kind"] == "replicator-restore"
    assert done.json["path"] == str(tmp_path / "out.db")
    assert done.json["database_bytes"] == (tmp_path / "out.db").stat().st_size
    assert done.json["proved"] == ["page hashes", "database checksum", "integrity_check"]
    assert done.json["transactions"] > 0


@pytest.mark.parametrize("jobs", ["1", "16"])
def test_any_number_of_reads_gives_the_same(made: History, tmp_path: Path, jobs: str) -> None:
    """One read at a time or many: the order in which they come back changes nothing."""
    done = replicator("restore", made.store, "-o", "out.db", "-j", jobs, cwd=tmp_path)

    assert done.code == 0, done.err
    assert made.digest == oracle.database_digest(tmp_path / "out.db")


def test_a_plan_writes_nothing(made: History, tmp_path: Path) -> None:
    """--plan names the full, the segments and the target, needs no output, and touches nothing."""
    before = leftovers(tmp_path)
    text = replicator("restore", made.store, "--plan", "-o", "out.db", cwd=tmp_path)
    plan = replicator("restore", made.store, "--plan", "--json", cwd=tmp_path).json

    assert (before, 0) == (leftovers(tmp_path), text.code)
    assert plan["kind"] == "replicator-restore-plan"
    assert plan["position"] in text.out
    assert plan["segments"]["count"] == len(made.segments)
    assert plan["segments"]["bytes"] == sum(each.stat().st_size for each in made.segments)
    assert plan["bytes"] == plan["segments"]["bytes"] + plan["full"]["bytes"]
    (full,) = made.store.glob("full/*/*/*/*.full")
    packs = [
        each.stat().st_size - 8 - 32 for each in made.store.glob("full/*/*/*/*.pack")
    ]  # all but their ends
    assert plan["full"]["bytes"] == full.stat().st_size + sum(packs)


def test_a_full_backup_by_the_beginning_of_its_id(made: History, tmp_path: Path) -> None:
    """--backup gives the database as it was at that full backup, without any segment."""
    wanted = made.listing["generations"][0]["fulls"][0]
    done = replicator(
        "restore", made.store, "-o", "out.db", "--backup", wanted["id"][:16], "--json", cwd=tmp_path
    )

    assert (wanted["position"], 0) == (done.json["position"], done.json["transactions"])


def test_a_source_by_its_database(history: History, tmp_path: Path) -> None:
    """SOURCE may be the database, by path or by its name in the configuration, even if the file is gone."""
    (tmp_path / "replicator.yml").write_text(
        f"databases:\n- {{path: {tmp_path}/gone.db, name: kanban, stores: ['file://{history.store}']}}\n"
    )
    history.database.unlink()
    for number, source in enumerate((history.database, "kanban", tmp_path / "gone.db")):
        done = replicator("restore", source, "-o", f"{number}.db", cwd=tmp_path)
        assert done.code == 0, done.err


def test_s50_a_time_without_a_zone_is_said_to_be_utc(made: History, tmp_path: Path) -> None:
    """A time without an offset is taken as UTC, and both the guess and what it resolves to are said."""
    newest = made.listing["window"]["newest"]["committed"]
    done = replicator("restore", made.store, "-o", "o.db", "--timestamp", newest.rstrip("Z"), cwd=tmp_path)

    assert done.code == 0
    assert f"names no zone, UTC is assumed: {newest}" in done.err
    assert f"resolves to the commit of {newest}" in done.err


# --- what it refuses -----------------------------------------------------------------------------------


def test_targets_out_of_reach_are_refused_with_the_window(
    made: History, inside: Inside, tmp_path: Path
) -> None:
    """What was never, not yet, or not here any more ends with 14, names the window, and writes nothing."""
    listing = made.listing
    oldest, newest = listing["window"]["oldest"], listing["window"]["newest"]
    generation, _, txid = newest["position"].partition("/")
    beyond = f"{int(txid, 16) + 1:016x}"
    refused = {
        ("--txid", beyond): "there is no txid",
        ("--timestamp", "2020-01-01T00:00:00Z"): "lies before the oldest restore point",
        ("--timestamp", "2199-01-01T00:00:00Z"): "has not come yet",
        ("--at-least", f"{generation}/{beyond}"): "reaches",
        ("--at-least", f"{'0' * 16}/{txid}"): "holds nothing of generation",
        ("--backup", "19990101T"): "there is no backup",
    }
    for options, words in refused.items():
        done = inside("restore", made.store, "-o", "out.db", *options)
        assert done.code == 14, done.err
        assert words in done.err
        if options[0] in ("--txid", "--timestamp"):
            assert oldest["position"] in done.err
            assert newest["position"] in done.err
    assert [] == leftovers(tmp_path)
    reached = replicator(
        "restore", made.store, "-o", "out.db", "--at-least", newest["position"], cwd=tmp_path
    )
    assert reached.code == 0


def test_usage_is_refused_with_2(made: History, inside: Inside, tmp_path: Path) -> None:
    """Wrong options are named before anything is read."""
    refused = {
        ("gopher://hole", "-o", "x"): "no store of kind 'gopher'",
        (made.store,): "no output is given",
        (made.store, "-o", "x", "--txid", "1", "--timestamp", "latest"): "different targets",
        (made.store, "-o", "x", "--txid", "many"): "not a txid",
        (made.store, "-o", "x", "--timestamp", "yesteryear"): "is not a time",
        (made.store, "-o", "x", "--generation", "abc"): "not a generation",
        (made.store, "-o", "x", "--verify", "much"): "'none', 'quick', 'full'",
        (made.store, "-o", "folder/x"): "does not exist",
        (tmp_path / "plain.txt", "-o", "x"): "is a file",
        (tmp_path / "plain.txt" / "store", "-o", "x"): "is a file",
        ("", "-o", "x"): "not a store URL",
        ("s3:foo", "-o", "x"): "no // behind its scheme",
    }
    (tmp_path / "plain.txt").write_text("nothing of ours")
    for arguments, words in refused.items():
        done = inside("restore", *arguments)
        assert (done.code, done.out) == (2, ""), (arguments, done.err)
        assert words in done.err, arguments
    assert ["plain.txt"] == leftovers(tmp_path)


def test_no_repository_is_10(tmp_path: Path) -> None:
    """A place without a repository is an error of its own, or with --if-replica-exists nothing to do."""
    missing = replicator("restore", "nowhere", "-o", "out.db", cwd=tmp_path)
    permitted = replicator("restore", "nowhere", "-o", "out.db", "--if-replica-exists", cwd=tmp_path)

    assert (10, 0) == (missing.code, permitted.code)
    assert f"error: no repository at file://{tmp_path}/nowhere" in missing.err
    assert [] == leftovers(tmp_path)


def test_s51_an_existing_file_is_not_touched(made: History, tmp_path: Path) -> None:
    """It is refused; with --overwrite nobody is asked without a terminal, so it takes --yes as well."""
    out = tmp_path / "out.db"
    sql(out, "CREATE TABLE precious(x)")
    before = out.read_bytes()
    plain = replicator("restore", made.store, "-o", out, cwd=tmp_path)
    unasked = replicator("restore", made.store, "-o", out, "--overwrite", cwd=tmp_path)
    skipped = replicator("restore", "nowhere", "-o", out, "--if-db-not-exists", cwd=tmp_path)

    assert (1, 2, 0) == (plain.code, unasked.code, skipped.code)
    assert f"replaces  {out}" in unasked.err
    assert before == out.read_bytes()
    replaced = replicator("restore", made.store, "-o", out, "--overwrite", "--yes", cwd=tmp_path)
    assert replaced.code == 0, replaced.err
    assert made.digest == oracle.database_digest(out)
    assert ["out.db"] == leftovers(tmp_path)


def test_a_long_name_is_restored_to(made: History, tmp_path: Path) -> None:
    """The longest one that SQLite can open: beside it `-journal` just fits."""
    name = "n" * 244 + ".db"
    done = replicator("restore", made.store, "-o", name, cwd=tmp_path)

    assert done.code == 0, done.err
    assert made.digest == oracle.database_digest(tmp_path / name)
    assert [name] == leftovers(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(made: History, tmp_path: Path) -> None:
    """Nobody reads it: writing there, or only looking inside, would never end."""
    os.mkfifo(tmp_path / "out.db")
    for options in ((), ("--overwrite", "--yes")):
        done = replicator("restore", made.store, "-o", "out.db", *options, cwd=tmp_path)
        assert (1, "") == (done.code, done.out)
        assert f"error: {tmp_path}/out.db is not a regular file" in done.err.splitlines()

    assert ["out.db"] == leftovers(tmp_path)
    assert (tmp_path / "out.db").is_fifo()


# --- damage --------------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x40
    path.chmod(0o600)
    path.write_bytes(content)


def damage(history: History, what: str) -> Path:
    """Flip a bit in the middle of one object; returns it."""
    pattern = {"segment": "tail/*/*.segment", "pack": "full/**/*.pack", "manifest": "full/**/*.full"}[what]
    found = sorted(history.store.glob(pattern))
    path = found[len(found) // 2]
    flip(path, path.stat().st_size // 2)
    return path


@pytest.mark.parametrize("what", ["segment", "pack", "manifest"])
def test_damage_is_found_and_named(what: str, history: History, tmp_path: Path) -> None:
    """One flipped bit in any kind of object ends with 13, names the object, and leaves nothing behind."""
    path = damage(history, what)
    (tmp_path / "here").mkdir()
    done = replicator("restore", history.store, "-o", "out.db", cwd=tmp_path / "here")

    assert done.code == 13, done.err
    assert path.name in done.err
    assert [] == leftovers(tmp_path / "here")


def test_a_hole_ends_with_14_and_names_what_is_before_it(history: History, tmp_path: Path) -> None:
    """A segment that is missing in the middle is never jumped over; the point before it can be had."""
    middle = history.segments[len(history.segments) // 2]
    before = int(middle.stem, 16) - 1
    middle.unlink()
    (tmp_path / "here").mkdir()
    done = replicator("restore", history.store, "-o", "out.db", cwd=tmp_path / "here")

    assert done.code == 14, done.err
    assert f"--txid {before:016x} --generation {middle.parent.name}" in done.err
    assert [] == leftovers(tmp_path / "here")
    hint = done.err.partition("hint: restore ")[2].split()[:4]
    assert 0 == replicator("restore", history.store, "-o", "out.db", *hint, cwd=tmp_path / "here").code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """Stopped in the middle, a restore is gone within a second, with 128 + the signal and without a trace."""
    database, folder = tmp_path / "big.db", tmp_path / "here"
    many = (
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 16000) SELECT randomblob(3000) FROM n"
    )
    sql(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)", f"INSERT INTO t {many}")
    assert 0 == replicator("replicate", database, "store", "--once", cwd=tmp_path).code
    folder.mkdir()
    with Running("restore", tmp_path / "store", "-o", folder / "out.db", cwd=tmp_path) as restore:
        until(lambda: bool(leftovers(folder)), every=0.0005)
        restore.signal(signal.SIGSTOP)  # whatever it is about, it is not at its end yet
        assert not (folder / "out.db").exists()
        restore.signal(number)
        restore.signal(signal.SIGCONT)
        began = time.monotonic()
        done = restore.end()

    assert (128 + number, "") == (done.code, done.out)
    assert time.monotonic() - began < 1.5
    assert "nothing was written" in done.err
    assert [] == leftovers(folder)


# --- on a terminal -------------------------------------------------------------------------------------


def on_terminal(*arguments: object, cwd: Path, types: str = "") -> tuple[int, str]:
    """Run with input and errors on a terminal; returns the exit code and what appeared there."""
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm"}
    process = subprocess.Popen(
        command(*arguments), cwd=cwd, env=environment, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    os.write(ours, types.encode())
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how a terminal says that nobody is at its other end any more
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(30), shown.decode()


def test_a_terminal_is_asked_before_a_file_is_replaced(made: History, tmp_path: Path) -> None:
    """On a terminal the answer decides: no leaves the file and 1, yes replaces it."""
    out = tmp_path / "out.db"
    sql(out, "CREATE TABLE precious(x)")
    before = out.read_bytes()
    code, shown = on_terminal("restore", made.store, "-o", out, "--overwrite", cwd=tmp_path, types="n\n")

    assert code == 1
    assert "Replace it?" in shown
    assert before == out.read_bytes()
    assert 0 == on_terminal("restore", made.store, "-o", out, "--overwrite", cwd=tmp_path, types="y\n")[0]
    assert made.digest == oracle.database_digest(out)


def test_bars_and_colours_are_for_terminals(made: History, tmp_path: Path) -> None:
    """A bar is drawn on a terminal unless told otherwise, and nothing of it gets into a file."""
    _, shown = on_terminal("restore", made.store, "-o", "1.db", cwd=tmp_path)
    _, quiet = on_terminal("-q", "restore", made.store, "-o", "2.db", cwd=tmp_path)
    _, error = on_terminal("restore", "nowhere", "-o", "3.db", cwd=tmp_path)
    _, plain = on_terminal("restore", "nowhere", "-o", "3.db", "--no-color", cwd=tmp_path)
    piped = replicator("restore", made.store, "-o", "4.db", cwd=tmp_path)

    assert "full backup" in shown
    assert "\x1b[" not in quiet + plain + piped.err + piped.out
    assert "\x1b[31merror:\x1b[0m" in error
    assert "error: no repository" in plain


def test_a_copied_store_restores_anywhere(made: History, tmp_path: Path) -> None:
    """A repository is only its files: copied elsewhere, it restores there."""
    shutil.copytree(made.store, tmp_path / "copy")
    assert 0 == replicator("restore", f"file://{tmp_path}/copy", "-o", "out.db", cwd=tmp_path).code
    assert made.digest == oracle.database_digest(tmp_path / "out.db")


def test_a_destination_that_is_full_is_refused_and_left_as_it_was(made: History, tmp_path: Path) -> None:
    """The disk fills up while the restore writes (here: a limit on the size of files): one line, no file."""
    limit = 64 << 10
    done = subprocess.run(
        command("restore", made.store, "-o", "out.db"),
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )

    assert 1 == done.returncode
    assert "cannot write" in done.stderr
    assert "or restore to another folder" in done.stderr
    assert [] == leftovers(tmp_path)
