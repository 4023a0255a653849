"""`ls`, `show`, `status`, `check` and `config` as processes: for the eye and as JSON."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.command import (
    ENVIRONMENT,
    ROOT,
    Running,
    command,
    following,
    leftovers,
    replicator,
    sql,
    until,
)
from tests.e2e.conftest import History, Inside


def new_database(path: Path) -> Path:
    sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)")
    return path


# --- ls and show ---------------------------------------------------------------------------------------


def test_ls_tells_what_lies_in_the_store(history: History) -> None:
    """The listing counts what the folder holds, for the eye and as JSON, and reports what is not ours."""
    (history.store / "holiday.jpg").write_text("not ours")
    listing = history.listing
    text = replicator("ls", history.store, cwd=history.folder).out
    (generation,) = listing["generations"]
    (full,) = generation["fulls"]

    assert listing["kind"] == "replicator-listing"
    assert listing["strays"] == ["holiday.jpg"]
    assert generation["reason"] == "first run"
    assert generation["tail"]["count"] == len(history.segments)
    assert generation["tail"]["bytes"] == sum(each.stat().st_size for each in history.segments)
    assert generation["tail"]["txid_first"] == history.segments[0].stem
    assert listing["window"]["newest"]["position"].endswith(generation["tail"]["txid_last"])
    for words in (generation["generation"], full["id"], generation["tail"]["txid_last"], "holiday.jpg"):
        assert words in text


def test_ls_filters_by_kind_and_time(made: History, inside: Inside) -> None:
    """--kind segment lists each one; --since and --until keep what was committed between them."""
    arguments = ("ls", made.store, "--kind", "segment", "--json")
    (everything,) = inside(*arguments).json["generations"]
    times = [each["committed"] for each in everything["segments"]]
    (some,) = inside(*arguments, "--since", times[1], "--until", times[3]).json["generations"]

    assert [each["name"] for each in everything["segments"]] == [
        str(path.relative_to(made.store)) for path in made.segments
    ]
    assert times[1:4] == [each["committed"] for each in some["segments"]]
    assert [] == everything["fulls"]
    (late,) = inside("ls", made.store, "--kind", "full", "--since", times[-1], "--json").json["generations"]
    assert ([], None) == (late["fulls"], late["tail"])


def test_ls_without_a_source_lists_the_configuration(made: History, tmp_path: Path) -> None:
    """Each store of each database has a line with its window, or the reason why it has none."""
    (tmp_path / "replicator.yml").write_text(
        f"databases:\n- {{path: a.db, stores: ['{made.store}', empty]}}\n"
    )
    lines = replicator("ls", "--json", cwd=tmp_path).out.splitlines()
    full, empty = (json.loads(line) for line in lines)

    assert full["window"] == made.listing["window"]
    assert (None, f"no repository at file://{tmp_path}/empty") == (empty["window"], empty["problem"])
    assert full["window"]["newest"]["committed"] in replicator("ls", cwd=tmp_path).out


def test_ls_survives_damage(history: History) -> None:
    """A damaged segment is named, and everything else is listed all the same."""
    history.segments[-1].write_bytes(b"RPLUNIT and then nothing")
    done = replicator("ls", history.store, cwd=history.folder)

    assert done.code == 0, done.err
    assert "DAMAGED" in done.out
    assert "first run" in done.out


def test_show_names_a_point_in_every_way(made: History, inside: Inside) -> None:
    """latest, a position, a txid, a backup id, a generation and a time all lead to their restore point."""
    window = made.listing["window"]
    newest, oldest = window["newest"]["position"], window["oldest"]["position"]
    generation, _, txid = newest.partition("/")
    expected = {
        "latest": newest,
        newest: newest,
        txid: newest,
        str(int(txid, 16)): newest,
        generation: newest,
        window["newest"]["committed"]: newest,
        made.listing["generations"][0]["fulls"][0]["id"]: oldest,
    }
    for wanted, position in expected.items():
        done = inside("show", made.store, wanted, "--json")
        assert position == done.json["position"], wanted

    assert 14 == inside("show", made.store, "999999").code
    assert 2 == inside("show", made.store, "nonsense").code


def test_show_names_every_backup_by_its_id(tmp_path: Path) -> None:
    """A full's and an incremental's, as `ls` prints them."""
    database = tmp_path / "app.db"
    sql(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)")
    assert 0 == replicator("replicate", database, "store", "--once", cwd=tmp_path).code
    sql(database, "INSERT INTO t VALUES (1)")
    assert 0 == replicator("backup", "incremental", "app.db", cwd=tmp_path).code
    (generation,) = replicator("--json", "ls", "store", cwd=tmp_path).json["generations"]
    for backup in (*generation["fulls"], *generation["incrementals"]):
        done = replicator("--json", "show", "store", backup["id"], cwd=tmp_path)
        assert 0 == done.code, done.err
        assert backup["id"].split("-")[-1] == done.json["position"].split("/")[1]
    assert 1 == len(generation["incrementals"])


def test_show_knows_the_neighbours(made: History, inside: Inside) -> None:
    """Before and after are the points beside it, across the edges of segments, and nothing beyond the ends."""

    def shown(txid: int) -> dict[str, Any]:
        found: dict[str, Any] = inside("show", made.store, str(txid), "--json").json
        return found

    first, edge = int(made.segments[0].stem, 16), int(made.segments[2].stem, 16)
    generation = made.segments[0].parent.name
    assert [f"{generation}/{edge + step:016x}" for step in (-1, 1)] == [
        shown(edge)["before"]["position"],
        shown(edge)["after"]["position"],
    ]
    assert f"{generation}/{first - 1:016x}" == shown(first)["before"]["position"]
    newest = made.listing["generations"][0]["tail"]["txid_last"]
    assert shown(int(newest, 16))["after"] is None
    assert "after      none" in inside("show", made.store, "latest").out


# --- status --------------------------------------------------------------------------------------------


def test_status_without_an_agent_is_15(tmp_path: Path) -> None:
    """A database that no agent ever ran on is named, with the folder where one would have left word."""
    done = replicator("status", new_database(tmp_path / "app.db"), cwd=tmp_path)

    assert (15, "") == (done.code, done.out)
    assert ".app.db-replicator" in done.err


def test_a_folder_without_permission_is_called_that(tmp_path: Path) -> None:
    """To `status`, `check` and `replicate`: nobody can say whether a database is there, so none says it is not."""
    locked = tmp_path / "locked"
    locked.mkdir()
    new_database(locked / "app.db")
    script = (
        "import os, sys\n"
        "import replicator.cli.check, replicator.cli.replicate, replicator.cli.status\n"
        "from replicator.cli.entry import run\n"
        "if os.getuid() == 0:\n"
        "    os.setuid(65534)\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    locked.chmod(0)
    try:
        for arguments in (
            ("status",),
            ("check",),
            ("replicate", "--no-wait"),
            ("replicate", "--wait"),
        ):
            verb, *options = arguments
            store = [] if verb == "status" else [str(tmp_path / "store")]
            done = subprocess.run(
                [sys.executable, "-c", script, verb, str(locked / "app.db"), *store, *options],
                cwd="/", env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            text = done.stdout + done.stderr
            assert done.returncode in (1, 16), text
            assert "permission" in text.lower()
            assert "there is no database" not in text
            assert "internal error" not in text
    finally:
        locked.chmod(0o700)


def test_status_and_check_name_another_writer(tmp_path: Path, inside: Inside) -> None:
    """After a take-over the first agent's state is told whose the store is now; the second one's is content."""
    database, other = new_database(tmp_path / "app.db"), tmp_path / "other"
    replicator("replicate", database, "store", "--once", cwd=tmp_path)
    replicator("replicate", database, "store", "--once", "--take-over", "--state", other, cwd=tmp_path)
    first, text = inside("status", database, "--json").json, inside("status", database).out
    second = inside("status", database, "--state", other, "--json").json
    checked = inside("check", database, "store")

    assert (False, 2) == (first["stores"][0]["writer"]["this_agent"], first["stores"][0]["writer"]["epoch"])
    assert "ANOTHER AGENT: process" in text
    assert second["stores"][0]["writer"]["this_agent"]
    assert 16 == checked.code
    assert "another agent writes to it" in checked.out


def test_s44_status_follows_the_agent(tmp_path: Path, inside: Inside) -> None:
    """Running and caught up; behind and unwell while the store is away; well again; killed."""

    def status_of(database: Path) -> dict[str, Any]:
        found: dict[str, Any] = inside("status", database, "--json").json
        return found

    database, store = new_database(tmp_path / "app.db"), tmp_path / "store"
    with Running("replicate", database, "store", cwd=tmp_path) as agent:
        until(lambda: following(database) and any((store / "full").rglob("*.full")))
        until(lambda: status_of(database)["stores"][0]["protected"] is not None)
        sql(database, "INSERT INTO t VALUES (1)")
        until(lambda: status_of(database)["stores"][0]["shipped"] is not None, every=0.05)
        well = status_of(database)
        store.rename(tmp_path / "away")
        store.touch()
        sql(database, "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)")
        until(lambda: status_of(database)["error"] is not None, every=0.05)
        unwell, text = status_of(database), inside("status", database).out
        store.unlink()
        (tmp_path / "away").rename(store)
        until(lambda: status_of(database)["lag_seconds"] == 0, every=0.05)
        agent.signal(signal.SIGKILL)
        agent.end()

    assert (True, "following", 0, None) == (
        well["running"], well["source"]["phase"], well["lag_seconds"], well["error"],
    )  # fmt: skip
    assert well["source"]["captured"] == well["stores"][0]["shipped"] == well["window"]["newest"]["position"]
    assert well["stores"][0]["unprotected_since"] is None
    assert (True, 1) == (well["stores"][0]["writer"]["this_agent"], well["stores"][0]["writer"]["epoch"])
    assert unwell["lag_seconds"] > 0
    assert unwell["stores"][0]["lag"]["transactions"] == 2
    assert unwell["stores"][0]["lag"]["bytes"] > 0
    assert unwell["window"] is None
    assert "2 transactions" in text
    assert "last error" in text
    killed = replicator("status", database, cwd=tmp_path)
    assert (0, True) == (killed.code, "NOT RUNNING" in killed.out)
    sql(database, "INSERT INTO t VALUES (4)")
    assert status_of(database)["running"] is False


# --- check ---------------------------------------------------------------------------------------------


def levels(*arguments: object, cwd: Path) -> tuple[int, list[tuple[str, str]]]:
    done = replicator("check", *arguments, "--json", cwd=cwd)
    assert done.json["kind"] == "replicator-check", done.err
    return done.code, [(each["level"], each["message"]) for each in done.json["findings"]]


def test_check_finds_nothing_to_fail(history: History) -> None:
    """A database with its store passes, with and without its agent, and nothing stays behind in the store."""
    before = sorted(history.store.rglob("*"))
    code, findings = levels(history.database, history.store, cwd=history.folder)

    assert code == 0, findings
    assert "fail" not in [level for level, _ in findings]
    assert ("ok", "put once, read, list and delete work") in findings
    assert any("is in WAL mode, page size 4096" in message for _, message in findings)
    assert before == sorted(history.store.rglob("*"))
    with Running("replicate", history.database, history.store, cwd=history.folder) as agent:
        until(lambda: following(history.database))
        code, findings = levels(history.database, history.store, cwd=history.folder)
        assert (0, True) == (
            code,
            ("ok", f"process {agent.process.pid} follows {history.database}; see `status`") in findings,
        )


def test_check_believes_an_agent_that_says_it_failed(tmp_path: Path) -> None:
    """One of two databases cannot be followed: its agent lives, and check says FAIL with the reason."""
    new_database(tmp_path / "app.db")
    sql(tmp_path / "rollback.db", "CREATE TABLE t(x)")
    (tmp_path / "replicator.yml").write_text(
        "databases:\n- {path: app.db, stores: [one]}\n- {path: rollback.db, stores: [two]}\n"
    )
    with Running("replicate", cwd=tmp_path):
        until(lambda: following(tmp_path / "app.db"))
        until(lambda: any("cannot follow" in each for _, each in levels(cwd=tmp_path)[1]))
        code, findings = levels(cwd=tmp_path)

    assert 1 == code
    assert ["fail"] == [level for level, message in findings if "is not in WAL mode" in message]


def test_check_fails_for_what_is_wrong(history: History, tmp_path: Path) -> None:
    """A wrong database is 1, a store of somebody else alone is 16, a wrong configuration is 2."""
    sql(tmp_path / "rollback.db", "CREATE TABLE t(x)")
    new_database(tmp_path / "app.db")
    (tmp_path / "replicator.yml").write_text("databases: nonsense\n")

    code, findings = levels("rollback.db", "store", cwd=history.folder.parent)
    assert (1, True) == (
        code,
        any("is not in WAL mode" in message for level, message in findings if level == "fail"),
    )
    code, findings = levels("app.db", history.store, cwd=tmp_path)
    assert (16, True) == (
        code,
        any("another agent writes to it" in each for level, each in findings if level == "fail"),
    )
    code, findings = levels("app.db", "store", "--state", "store/state", cwd=tmp_path)
    assert (1, True) == (
        code,
        any("lie in each other" in each for level, each in findings if level == "fail"),
    )
    assert 2 == replicator("check", cwd=tmp_path).code
    assert not (tmp_path / "store").exists()


def test_check_of_a_store_alone(made: History, tmp_path: Path) -> None:
    """--store needs no database, and names the writer of the repository."""
    done = replicator("check", "--store", made.store, cwd=tmp_path)

    assert done.code == 0
    assert "its writer is process" in done.out


# --- config --------------------------------------------------------------------------------------------


def test_config_init_writes_what_show_understands(tmp_path: Path) -> None:
    """The first configuration is the one in etc, is valid as it is, and is never written over another."""
    written = replicator("config", "init", cwd=tmp_path)
    shown = replicator("config", "show", "--json", cwd=tmp_path).json
    again = replicator("config", "init", cwd=tmp_path)

    assert (0, 1) == (written.code, again.code)
    assert (ROOT / "etc" / "replicator.yml").read_text() == (tmp_path / "replicator.yml").read_text()
    assert shown["databases"] == [
        {
            "name": "app.db",
            "path": f"{tmp_path}/app.db",
            "stores": [f"file://{tmp_path}/backups/app"],
            "state": f"{tmp_path}/.app.db-replicator",
            "ship_interval": "50ms",
            "spool_limit": "1GiB",
            "bandwidth": None,
            "barrier": "auto",
            "enabled": True,
            "compression": "zstd",
            "verification": True,
            "log_interval": "15m",
            "encrypted": False,
            "key_max_age": "90d",
            "schedules": [
                {
                    "name": "daily-full-backup",
                    "cronExpression": "0 2 * * *",
                    "backupType": "full",
                    "enabled": True,
                },
                {
                    "name": "incremental-backup",
                    "cronExpression": "0 6,10,14,18,22 * * *",
                    "backupType": "incremental",
                    "enabled": True,
                },
            ],
            "retention": {"log": "2d", "incremental": "7d", "full": "30d", "monthly": 12, "max_age": None},
            "max_size": None,
        }
    ]
    assert ["replicator.yml"] == leftovers(tmp_path)


def test_config_show_prints_what_the_environment_comes_to(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute paths, retention as it comes out, no secret; notices beside it; the same as YAML and as JSON."""
    secret = "5c" * 16 + "a7" * 8 + "0b" * 8
    for name, value in {
        "BACKUP_DIR": "./backups",
        "BACKUP_MAX_SIZE_GB": "0.01",
        "BACKUP_SCHEDULES": '[{"cron": "@daily", "type": "full", "retention": 5, "jitter": "5m", "name": "nightly"}]',
        "BACKUP_ENCRYPTION_KEY": secret,
    }.items():
        monkeypatch.setenv(name, value)
    done = inside("config", "show", "--json")
    text = inside("config", "show")
    (shown,) = done.json["databases"]

    assert "note: BACKUP_DIR is taken for BACKUP_DIRECTORY" in done.err
    assert (f"{tmp_path}/data/kanban.db", [f"file://{tmp_path}/backups"]) == (shown["path"], shown["stores"])
    assert ("10MB", "5d", True) == (shown["max_size"], shown["retention"]["full"], shown["encrypted"])
    assert ["nightly"] == [each["name"] for each in shown["schedules"]]
    assert secret not in done.out + done.err + text.out + text.err
    assert shown == yaml.safe_load(text.out)["databases"][0]


def test_x27_check_warns_of_a_store_in_the_folder_of_the_database(tmp_path: Path, inside: Inside) -> None:
    """On the same disk it goes with that folder; elsewhere on the disk it still goes with the disk."""
    (tmp_path / "data").mkdir()
    within = inside("check", "data/app.db", "data/backups", "--json").json["findings"]
    beside = inside("check", "data/app.db", "backups", "--json").json["findings"]

    assert ["it lies in the folder of the database"] == [
        each["message"] for each in within if "of the database" in each["message"] and each["level"] == "warn"
    ]
    assert ["it lies on the disk of the database"] == [
        each["message"] for each in beside if "of the database" in each["message"] and each["level"] == "warn"
    ]


def test_x26_check_tells_for_what_names_are_taken(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And which have no effect."""
    monkeypatch.setenv("BACKUP_PATH", "backups")
    monkeypatch.setenv("BACKUP_ALERT_EMAIL", "me@example.org")
    told = [each["message"] for each in inside("check", "--json").json["findings"]]

    assert "BACKUP_PATH is taken for BACKUP_DIRECTORY" in told
    assert any(each.startswith("BACKUP_ALERT_EMAIL: without effect") for each in told)


# --- what all verbs have -------------------------------------------------------------------------------


def test_nobody_reads_the_end(made: History) -> None:
    """A reader that leaves, as head does, is no error to talk about."""
    process = subprocess.Popen(
        command("ls", made.store, "--kind", "segment"),
        cwd=made.folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    assert "" == process.stderr.read()
    process.stderr.close()
    process.wait(30)


def test_completion_knows_the_verbs(tmp_path: Path) -> None:
    """The shell is offered verbs and options."""
    asked = {"COMP_CWORD": "1", "_REPLICATOR_COMPLETE": "bash_complete"}
    verbs = replicator(cwd=tmp_path, COMP_WORDS="replicator re", **asked).out
    options = replicator(
        cwd=tmp_path, COMP_WORDS="replicator restore --if-r", **{**asked, "COMP_CWORD": "2"}
    ).out

    assert ["plain,replicate", "plain,restore"] == verbs.split()
    assert ["plain,--if-replica-exists"] == options.split()
