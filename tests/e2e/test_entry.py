"""From arguments to an exit code, in this process: help of all verbs, and what becomes of errors."""

import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import replicator
from replicator.cli import asked
from replicator.cli.entry import VERBS, run
from replicator.cli.signals import Asked
from tests.e2e.command import ENVIRONMENT, ROOT
from tests.e2e.conftest import History
from tests.support import oracle


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb can be imported, explains itself, and takes the options that work everywhere."""
    assert 0 == run([verb, "--help"])
    text = capsys.readouterr().out
    assert f"Usage: replicator {verb}" in text
    below = re.findall(r"^  (\w+) +[A-Z]", text.partition("Commands:")[2], re.MULTILINE)
    assert below or "--no-color" in text
    for each in below:
        assert 0 == run([verb, each, "--help"])
        text = capsys.readouterr().out
        assert f"Usage: replicator {verb} {each}" in text
        assert "--no-color" in text


def test_the_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of verbs is complete, each with a line of its own."""
    assert 0 == run(["-h"])
    text = capsys.readouterr().out
    assert list(VERBS) == re.findall(r"^  (\w+) +[A-Z]", text.partition("Verbs:")[2], re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_without_a_verb_the_help_is_shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Line by line as --help has it, and with 2: nothing was done."""
    assert 0 == run([*arguments, "--help"])
    text = capsys.readouterr().out
    assert 2 == run(arguments)
    shown = capsys.readouterr()

    assert ("", text) == (shown.out, shown.err)
    assert len(text.splitlines()) > 5


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    """The version stands in two files, and they agree."""
    assert 0 == run(["--version"])
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"replicator {version}\n" == capsys.readouterr().out


def test_an_unexpected_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody foresaw names itself in a line and ends with 1; -vv adds the traceback."""

    def fail(_: object) -> None:
        raise RuntimeError("the sky\nfell down")

    monkeypatch.setattr(asked, "needed_configuration", fail)

    assert 1 == run(["config", "show"])
    error = capsys.readouterr().err
    assert [
        "internal error: RuntimeError: the sky fell down",
        "hint: run it again with -vv for the traceback, and report it",
    ] == error.splitlines()
    assert 1 == run(["config", "show", "-vv"])
    assert "Traceback" in capsys.readouterr().err


def test_options_work_on_both_sides_of_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json before the verb is --json behind it."""
    monkeypatch.chdir(tmp_path)
    assert 0 == run(["-q", "config", "init"])
    assert 0 == run(["--json", "config", "show"])
    before = capsys.readouterr()
    assert 0 == run(["config", "show", "--json"])

    assert before.out == capsys.readouterr().out
    assert before.out.startswith('{"kind": "replicator-config"')
    assert "" == before.err


def test_a_second_signal_insists_unless_it_is_the_first_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal sent twice at once, as timeout sends it, asks once; one that comes later ends the process."""
    left: list[int] = []
    clock = [100.0]
    monkeypatch.setattr("replicator.cli.signals.os._exit", left.append)
    monkeypatch.setattr("replicator.cli.signals.time.monotonic", lambda: clock[0])
    stop = Asked()
    stop(signal.SIGINT)
    stop(signal.SIGINT)
    assert ([], True, 130) == (left, stop.stop, stop.exit_code)
    clock[0] += 1
    stop(signal.SIGTERM)
    assert [143] == left


class TestPythonInterface:
    def test_importing_is_cheap(self) -> None:
        """The package imports neither SQLite nor the watcher before they are needed."""
        script = (
            "import replicator, sys; print(sorted({'apsw', 'watchdog', 'click', 'rich'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        assert "[]\n" == done.stdout

    def test_every_public_name_is_there(self) -> None:
        """All of __all__ can be had, and restore is the function although a package has that name."""
        import replicator.restore.run

        for name in replicator.__all__:
            assert getattr(replicator, name) is not None
        assert not isinstance(replicator.restore, type(sys))
        with pytest.raises(AttributeError):
            _ = replicator.nonsense  # type: ignore[attr-defined]

    def test_restore_gives_the_database_back(self, made: History, tmp_path: Path) -> None:
        """A datetime without a zone is UTC, progress is told, and the result is the source."""
        seen: list[replicator.Progress] = []
        newest = made.listing["window"]["newest"]
        moment = datetime.fromisoformat(newest["committed"].rstrip("Z")) + timedelta(microseconds=1)
        result = replicator.restore(
            str(made.store), str(tmp_path / "out.db"), timestamp=moment, on_progress=seen.append
        )

        assert newest["position"] == str(result.position)
        assert made.digest == oracle.database_digest(tmp_path / "out.db")
        assert {"chunks", "transactions", "check"} <= {each.stage for each in seen}

    def test_restore_can_be_cancelled(self, made: History, tmp_path: Path) -> None:
        """Cancelled, it raises and leaves nothing; so do wrong arguments."""
        with pytest.raises(replicator.Interrupted):
            replicator.restore(str(made.store), str(tmp_path / "out.db"), cancelled=lambda: True)
        with pytest.raises(replicator.UsageError, match="two targets"):
            replicator.restore(str(made.store), str(tmp_path / "out.db"), txid=1, timestamp=1)
        with pytest.raises(replicator.UsageError, match="verify"):
            replicator.restore(str(made.store), str(tmp_path / "out.db"), verify="some")

        assert [] == list(tmp_path.iterdir())

    def test_restore_takes_path_objects(self, made: History, tmp_path: Path) -> None:
        """For both ends; the result names its file as text."""
        result = replicator.restore(made.store, tmp_path / "out.db")

        assert str(tmp_path / "out.db") == result.path
        assert made.digest == oracle.database_digest(tmp_path / "out.db")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"timestamp": 1.5},
            {"timestamp": True},
            {"timestamp": timedelta(hours=1)},
            {"jobs": 0},
            {"jobs": 2.0},
            {"txid": -1},
            {"txid": 1 << 64},
            {"txid": 1.0},
            {"generation": 7},
            {"output": ""},
            {"output": "out\0.db"},
            {"output": None},
            {"source": "store\0"},
            {"source": b"store"},
        ],
        ids=str,
    )
    def test_restore_refuses_what_it_cannot_mean(
        self, wrong: dict[str, Any], made: History, tmp_path: Path
    ) -> None:
        """Each as a usage error that shows the value, and nothing is written."""
        given: dict[str, Any] = {"source": made.store, "output": tmp_path / "out.db", **wrong}
        (value,) = wrong.values()
        with pytest.raises(replicator.UsageError, match=re.escape(repr(value))):
            replicator.restore(**given)

        assert [] == list(tmp_path.iterdir())
