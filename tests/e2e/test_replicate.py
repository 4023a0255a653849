"""`replicate` as a process: alone, once, around an application; its signals and exit codes."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.command import (
    Done,
    Running,
    following,
    leftovers,
    replicator,
    sql,
    until,
    write_board,
)
from tests.e2e.conftest import Inside
from tests.support import oracle


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A small database in WAL mode with its log in place."""
    path = tmp_path / "app.db"
    sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
    return path


def restored_digest(store: Path, folder: Path) -> str:
    done = replicator("restore", store, "-o", folder / "restored.db", cwd=folder)
    assert done.code == 0, done.err
    return oracle.database_digest(folder / "restored.db")


def test_once_ships_all_that_is_committed(database: Path, tmp_path: Path) -> None:
    """--once leaves with 0 when the store has everything, prints no result, and a restore equals the source."""
    done = replicator("replicate", database, "store", "--once", cwd=tmp_path)

    assert (0, "") == (done.code, done.out)
    assert oracle.database_digest(database) == restored_digest(tmp_path / "store", tmp_path)


def test_once_without_a_database_touches_nothing(tmp_path: Path) -> None:
    """--once on a path without a database is an error of its own, and claims no store for it."""
    done = replicator("replicate", "missing.db", "store", "--once", cwd=tmp_path)

    assert done.code == 15
    assert "error: there is no database at" in done.err
    assert [] == leftovers(tmp_path)


def test_a_command_gives_its_exit_code(database: Path, tmp_path: Path) -> None:
    """The exit code of the command is ours, whether it ended, was killed, or could not be started."""
    commands = {"exit 7": 7, "exit 0": 0, "kill -9 $$": 137}
    for script, code in commands.items():
        done = replicator(
            "replicate", database, "store", "--", "sh", "-c", f"echo ran; {script}", cwd=tmp_path
        )
        assert (code, "ran\n") == (done.code, done.out), script

    assert 127 == replicator("replicate", database, "store", "--", "./absent", cwd=tmp_path).code


def test_a_command_runs_beside_the_agent(tmp_path: Path) -> None:
    """An application that makes its own database is started at once, and all of its work is shipped."""
    board = tmp_path / "board.db"
    done = replicator(
        "replicate", board, "store", "--", *write_board(board, commits=40, rate=60), cwd=tmp_path
    )

    assert done.code == 0, done.err
    assert oracle.database_digest(board) == restored_digest(tmp_path / "store", tmp_path)
    assert {1: 40} == oracle.ledger(tmp_path / "restored.db")


def test_signals_reach_the_command_once(database: Path, tmp_path: Path) -> None:
    """What we are sent is passed on, each signal once, and the command decides when it ends."""
    script = (
        "import signal, sys, time\n"
        "def note(number, _):\n"
        "    open('got', 'a').write(f'{signal.Signals(number).name}\\n')\n"
        "    if number == signal.SIGTERM: sys.exit(5)\n"
        "for each in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTERM): signal.signal(each, note)\n"
        "open('ready', 'w').close()\n"
        "while True: time.sleep(0.01)\n"
    )
    got = tmp_path / "got"
    with Running("replicate", database, "store", "--", sys.executable, "-c", script, cwd=tmp_path) as agent:
        until((tmp_path / "ready").exists)
        for number, name in enumerate(("SIGUSR1", "SIGHUP", "SIGINT")):
            agent.signal(getattr(signal, name))
            until(lambda seen=number: got.exists() and len(got.read_text().split()) > seen)
        agent.signal(signal.SIGTERM)
        done = agent.end()

    assert done.code == 5
    assert ["SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM"] == got.read_text().split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals, database: Path, tmp_path: Path) -> None:
    """Stopped by a signal, it ships what was committed just before, leaves with 0, and says that it stopped."""
    with Running("replicate", database, "store", cwd=tmp_path) as agent:
        until(lambda: following(database))
        sql(database, "INSERT INTO t VALUES (2)")
        agent.signal(number)
        done = agent.end()

    assert done.code == 0, done.err
    assert oracle.database_digest(database) == restored_digest(tmp_path / "store", tmp_path)
    assert "NOT RUNNING" in replicator("status", database, cwd=tmp_path).out


def test_it_survives_a_kill_within_its_generation(database: Path, tmp_path: Path) -> None:
    """Killed in the middle, the next run goes on in the same generation without a new full backup."""
    with Running("replicate", database, "store", cwd=tmp_path) as agent:
        until(lambda: following(database) and any((tmp_path / "store" / "full").rglob("*.full")))
        agent.signal(signal.SIGKILL)
        assert agent.end().code == -signal.SIGKILL
    sql(database, "INSERT INTO t VALUES (3)")
    replicator("replicate", database, "store", "--once", cwd=tmp_path)

    listing = replicator("ls", "store", "--json", cwd=tmp_path).json
    assert [1] == [len(each["fulls"]) for each in listing["generations"]]
    assert oracle.database_digest(database) == restored_digest(tmp_path / "store", tmp_path)


def test_a_second_agent_is_refused(database: Path, tmp_path: Path) -> None:
    """Beside a running agent another is refused with 11, in its state folder and in its store."""
    with Running("replicate", database, "store", cwd=tmp_path) as agent:
        until(lambda: following(database))
        same_state = replicator("replicate", database, "elsewhere", cwd=tmp_path)
        same_store = replicator("replicate", database, "store", "--state", "other", cwd=tmp_path)
        assert agent.process.poll() is None

    assert (11, 11) == (same_state.code, same_store.code)
    assert "another agent follows this database already" in same_state.err
    assert "--take-over" in same_store.err


def test_the_application_survives_the_agent(database: Path, tmp_path: Path) -> None:
    """An agent that loses its store says so and leaves the application alone; success becomes its exit code."""
    replicator("replicate", database, "store", "--once", cwd=tmp_path)
    generation = replicator("ls", "store", "--json", cwd=tmp_path).json["generations"][0]["generation"]
    tail = tmp_path / "store" / "tail" / generation
    tail.mkdir(parents=True)
    script = "touch started; while [ ! -e go ]; do sleep 0.02; done; touch ended"
    with Running("replicate", database, "store", "--", "sh", "-c", script, cwd=tmp_path) as agent:
        until((tmp_path / "started").exists)
        (tail / f"{1:016x}.segment").touch()  # as another agent's would lie there
        sql(database, "INSERT INTO t VALUES (4)")
        assert agent.process.stderr is not None
        for line in agent.process.stderr:
            if "agent.failed" in line:
                break
        assert agent.process.poll() is None
        (tmp_path / "go").touch()
        done = agent.end()

    assert (tmp_path / "ended").exists()
    assert done.code == 11


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    """A folder, a file that is no database and one with a rollback journal each say what they are."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.db").write_text("this is not a database\n" * 100)
    sql(tmp_path / "rollback.db", "CREATE TABLE t(x)")
    expected = {
        "folder": "is a folder, not a database file",
        "garbage.db": "is not a",
        "rollback.db": "is not in WAL mode",
    }
    # At once, since a database that is only just being made is given a moment of grace.
    running = {name: Running("replicate", name, f"store-{name}", "--once", cwd=tmp_path) for name in expected}
    found: dict[str, Done] = {name: each.end() for name, each in running.items()}

    for name, words in expected.items():
        assert found[name].code == 1, name
        assert words in found[name].err, name
        assert "Traceback" not in found[name].err


def test_usage_is_refused_with_2(database: Path, inside: Inside, tmp_path: Path) -> None:
    """What the command line or the configuration gets wrong is named, with what is near it."""
    (tmp_path / "bad.yml").write_text("databases: [{path: app.db, stores: [s], ship_intervall: 1s}]\n")
    (tmp_path / "url.yml").write_text("databases: [{path: app.db, stores: ['s3:foo']}]\n")
    refused = {
        ("replicate", "app.db", "gopher://bucket/app"): "no store of kind 'gopher'",
        ("replicate", "app.db"): "no store is given",
        ("replicate", ""): "empty name",
        ("replicate", "", "store"): "empty name",
        ("status", ""): "empty name",
        ("check", "", "store"): "empty name",
        ("replicate", "app.db", "s3:foo"): "no // behind its scheme",
        ("replicate", "app.db", "app.db/store"): "is a file, not a folder",
        ("replicate", "--config", "url.yml"): "no // behind its scheme",
        ("replicate", "app.db", "store", "./store/"): "the same store stands twice",
        ("replicate",): "there is no replicator.yml",
        ("replicate", "app.db", "store", "--"): "a command has to follow --",
        ("replicate", "app.db", "store", "--once", "--wait"): "--once and --wait do not go together",
        ("replicate", "app.db", "store", "--ship-interval", "5"): "not a duration",
        ("replicate", "--config", "bad.yml"): "did you mean `ship_interval`?",
        ("replicte",): "No such command",
    }
    for arguments, words in refused.items():
        done = inside(*arguments)
        assert done.code == 2, arguments
        assert words in done.err, arguments
        assert done.out == ""
    assert not (tmp_path / "store").exists()


def test_the_configuration_is_followed(tmp_path: Path) -> None:
    """Without arguments all databases of replicator.yml are followed, with paths relative to that file."""
    for name in ("one", "two"):
        sql(tmp_path / f"{name}.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)")
    (tmp_path / "replicator.yml").write_text(
        "databases:\n- {path: one.db, stores: [backups/one]}\n- {path: two.db, stores: [backups/two, again]}\n"
    )
    done = replicator("replicate", "--once", cwd=tmp_path)

    assert done.code == 0, done.err
    for store in ("backups/one", "backups/two", "again"):
        assert replicator("restore", store, "-o", "x.db", "--overwrite", "-y", cwd=tmp_path).code == 0


def test_events_are_lines_with_fields(database: Path, tmp_path: Path) -> None:
    """Each event is a line of fields on standard error, as logfmt or as JSON; -q keeps silent."""
    text = replicator("replicate", database, "store", "--once", cwd=tmp_path)
    objects = replicator("replicate", database, "store", "--once", "--json", cwd=tmp_path)
    silent = replicator("-q", "replicate", database, "store", "--once", cwd=tmp_path)

    stored = next(line for line in text.err.splitlines() if "event=full.stored" in line)
    assert f"level=info event=full.stored store=file://{tmp_path}/store" in stored
    events = [json.loads(line) for line in objects.err.splitlines()]
    assert {"replicator-event"} == {each["kind"] for each in events}
    assert "agent.starting" in [each["event"] for each in events]
    assert "" == silent.err


@pytest.mark.parametrize("inside", ["", "objects"])
def test_a_store_in_the_state_folder_is_refused(tmp_path: Path, inside: str) -> None:
    """What is shipped would be cleared away with the state."""
    sql(tmp_path / "app.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(id)")
    store = tmp_path / ".app.db-replicator" / inside
    done = replicator("replicate", "app.db", store, "--once", cwd=tmp_path)

    assert 2 == done.code
    assert "lies in the state folder" in done.err
    assert not store.exists()


def test_a_command_that_ends_at_once_is_shipped_all_the_same(tmp_path: Path) -> None:
    """It makes its database and is gone before anybody could look."""
    script = (
        "import sqlite3; c = sqlite3.connect('quick.db'); c.execute('PRAGMA journal_mode=WAL');"
        "c.execute('CREATE TABLE t(x)'); c.execute('INSERT INTO t VALUES (7)'); c.commit(); c.close()"
    )
    done = replicator("replicate", "quick.db", "store", "--", sys.executable, "-c", script, cwd=tmp_path)

    assert done.code == 0, done.err
    assert oracle.database_digest(tmp_path / "quick.db") == restored_digest(tmp_path / "store", tmp_path)


def test_a_database_whose_folder_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """A mount that comes later: nothing is made in its place, and all begins when it is there."""
    real, mount = tmp_path / "real", tmp_path / "mount"
    real.mkdir()
    sql(real / "app.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
    with Running("replicate", mount / "app.db", "store", cwd=tmp_path) as agent:
        time.sleep(1.5)  # past the first look, of which there is no sign but that nothing was made
        assert not mount.exists()
        assert agent.process.poll() is None
        mount.mkdir()
        for path in real.iterdir():
            path.rename(mount / path.name)
        until(lambda: any((tmp_path / "store").rglob("*.full")))
        agent.signal(signal.SIGTERM)
        assert 0 == agent.end().code


def test_a_spool_that_outgrows_its_limit_is_dropped_loudly_and_a_full_follows(
    database: Path, tmp_path: Path
) -> None:
    """--spool-limit: a store that cannot be reached does not fill the disk; back, it gets all by a full."""
    replicator("replicate", database, "store/of/app", "--once", cwd=tmp_path)
    status = tmp_path / ".app.db-replicator" / "status.json"

    def lapsed() -> bool:
        return bool(json.loads(status.read_text())["stores"][0]["lapsed"])

    with Running("replicate", database, "store/of/app", "--spool-limit", "64KiB", cwd=tmp_path) as agent:
        until(lambda: following(database))
        (tmp_path / "store").rename(tmp_path / "away")
        (tmp_path / "store").touch()  # no folder can be made in it
        for number in range(20):
            sql(database, f"INSERT INTO t VALUES (hex(randomblob({10_000 + number})))")
        until(lapsed)
        (tmp_path / "store").unlink()
        (tmp_path / "away").rename(tmp_path / "store")
        until(lambda: not lapsed())
        agent.signal(signal.SIGTERM)
        said = agent.end().err

    assert "event=store.lapsed" in said
    assert "event=full.stored" in said
    assert restored_digest(tmp_path / "store/of/app", tmp_path) == oracle.database_digest(database)


def test_a_database_that_is_not_there_is_not_waited_for_if_so_asked(tmp_path: Path) -> None:
    """--no-wait ends at once, with 15, and makes nothing."""
    done = replicator("replicate", "none.db", "store", "--no-wait", cwd=tmp_path)

    assert (15, []) == (done.code, leftovers(tmp_path))
    assert "none.db" in done.err
