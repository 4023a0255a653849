"""Asking a running agent: through its socket, by friends, by strangers, and by those who go away."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from replicator import control
from replicator.agent import Agent
from replicator.config import DatabaseConfig
from replicator.control import CLIENTS_MAX, POINTER, SOCKET, ControlServer, ask_agent
from replicator.core.errors import OwnershipLost, ReplicatorError, SourceGone, UsageError
from replicator.files import lock_holder
from tests.parts.rig import SECONDS, Rig
from tests.support.app import App


class Site(Rig):
    """With an application, and whoever asks the agent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.app = App(self.database)
        self.app.insert()

    @property
    def state(self) -> str:
        return self.config().state_folder

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return ask_agent(self.state, self.database, verb, arguments)

    def send(self, content: bytes) -> dict[str, Any]:
        """What is answered last to whatever was sent; empty where nothing is."""
        with connected(self.state) as client:
            client.sendall(content)
            lines = client.makefile("rb").readlines()
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return found

    def assert_answers(self) -> None:
        assert ["daily-full-backup", "incremental-backup"] == [
            each["name"] for each in self.ask("schedule", do="list")["schedules"]
        ]


@contextmanager
def connected(state: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(os.path.join(state, SOCKET))
        yield client


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.app.kill()


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One whose agent runs, and outlives all that is hostile."""
    site = Site(tmp_path_factory.mktemp("hardened"))
    try:
        with site.agent() as agent:
            agent.wait_captured_and_shipped(SECONDS)
            yield site
            site.app.insert()
        site.assert_equal()
    finally:
        site.app.kill()


@pytest.fixture
def asked(site: Site) -> Iterator[Site]:
    """A site whose agent runs."""
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        yield site


# --- friends -------------------------------------------------------------------------------------------


def test_the_agent_does_what_it_is_asked(asked: Site) -> None:
    """A backup is in the store when the answer comes; errors come with their hint and exit code."""
    asked.app.insert(3)
    (outcome,) = asked.ask("backup", type="incremental")["stores"].values()
    with pytest.raises(ReplicatorError, match="no schedule 'nightly'") as caught:
        asked.ask("schedule", do="run", name="nightly")

    assert [outcome["backup"]] == [path.stem for path in Path(asked.store).rglob("*.incremental")]
    assert (15, "see `schedule list`") == (caught.value.exit_code, caught.value.hint)


def test_what_takes_long_tells_that_it_goes_on(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks hears of each store that it is under way."""
    monkeypatch.setattr("replicator.requests.TELL_SECONDS", 0.0005)
    told: list[str] = []
    asked.app.insert(1000)
    ask_agent(asked.state, asked.database, "backup", {"type": "full"}, tell=told.append)

    assert f"file://{asked.store}: under way" in told


def test_two_databases_share_a_socket(tmp_path: Path) -> None:
    """Each is found by its own state folder, and gets what is its own; one of another agent is told to be none."""
    sites = [Site(tmp_path / name) for name in ("one", "two") if not (tmp_path / name).mkdir()]
    try:
        with Agent([each.config() for each in sites]) as agent:
            agent.wait_captured_and_shipped(SECONDS)
            sockets = [path for path in tmp_path.rglob(SOCKET) if path.is_socket()]
            assert 1 == len(sockets)
            for each in sites:
                each.ask("schedule", do="delete", name="incremental-backup")
                each.ask(
                    "schedule",
                    do="create",
                    schedule=[{"name": each.folder.name, "cron": "@daily", "type": "log"}],
                )
            names = [[one["name"] for one in each.ask("schedule", do="list")["schedules"]] for each in sites]
            assert [["daily-full-backup", "one"], ["daily-full-backup", "two"]] == names
            (outcome,) = sites[1].ask("backup", type="log")["stores"]
            assert f"file://{sites[1].store}" == outcome
            with pytest.raises(ReplicatorError, match=r"the agent does not replicate .*three\.db") as caught:
                ask_agent(sites[0].state, str(tmp_path / "three.db"), "schedule", {"do": "list"})
            assert 15 == caught.value.exit_code
    finally:
        for each in sites:
            each.app.kill()


def test_a_state_folder_may_lie_very_deep(tmp_path: Path) -> None:
    """The path of a socket has 107 bytes; that of a folder has four thousand."""
    deep = tmp_path.joinpath(*["d" * 60] * 6)
    deep.mkdir(parents=True)
    site = Site(deep)
    try:
        with site.agent():
            assert len(os.path.join(site.state, SOCKET)) > 300
            site.assert_answers()
    finally:
        site.app.kill()


def test_a_long_request_is_taken(asked: Site) -> None:
    """A hundred schedules with all that they may say."""
    entries = [
        {"name": f"{number:03}" + "é" * 97, "cron": "@yearly", "type": "log", "description": "é" * 1_000}
        for number in range(98)
    ]
    found = asked.ask("schedule", do="create", schedule=entries)

    assert 100 == len(found["schedules"])


def test_only_this_user_can_reach_it(asked: Site) -> None:
    """The socket has mode 0600, in a folder of 0700; so has the file that says where it is."""
    modes = [os.stat(os.path.join(asked.state, name)).st_mode & 0o777 for name in ("", SOCKET, POINTER)]

    assert [0o700, 0o600, 0o600] == modes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_not_answered() -> None:
    """Even where the modes let them in, since somebody changed those."""
    folder = tempfile.mkdtemp(prefix="replicator-control-")
    server = ControlServer({"hello": lambda *_: {"said": "hello"}})
    try:
        server.announce(folder)
        os.chmod(folder, 0o711)
        os.chmod(os.path.join(folder, SOCKET), 0o666)
        script = (
            "import os, socket, sys\n"
            "os.setgid(65534); os.setuid(int(sys.argv[2]))\n"
            "client = socket.socket(socket.AF_UNIX)\n"
            "client.connect(sys.argv[1])\n"
            "try:\n"
            '    client.sendall(b\'{"verb": "hello", "database": "", "arguments": {}}\\n\')\n'
            "    print(client.recv(1000).decode())\n"
            "except OSError:\n"
            "    print()\n"
        )
        heard = [
            subprocess.run(
                [sys.executable, "-I", "-c", script, os.path.join(folder, SOCKET), str(uid)],
                capture_output=True, text=True, timeout=SECONDS, check=True,
            ).stdout.strip()
            for uid in (0, 65534)
        ]  # fmt: skip
        assert ['{"result": {"said": "hello"}}', ""] == heard
    finally:
        server.stop()
        shutil.rmtree(folder)


# --- hostile -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b'"backup"\n',
        b"\xff\xfe\x00\n",
        b"{" * 1_000 + b"\n",
        b"[" * 200_000 + b"\n",
        b'{"verb": "backup"}\n',
        b'{"verb": "backup", "database": 1, "arguments": []}\n',
        b'{"verb": "backup", "database": 1, "arguments": "type"}\n',
        b'{"verb": ["backup"], "database": "", "arguments": {}}\n',
        b'{"verb": "__class__", "database": "", "arguments": {}}\n',
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b'{"verb": "backup", "database": "' + b"a" * (9 << 20) + b'"}\n',
    ],
    ids=lambda content: content[:24].decode(errors="replace"),
)
def test_what_is_no_request_is_refused(hardened: Site, content: bytes) -> None:
    """In one line, with the code of a usage error; whoever comes next is answered."""
    try:
        answer = hardened.send(content)
    except (ConnectionError, BrokenPipeError):
        answer = {"exit_code": 2, "error": "nobody listened to the end"}

    assert 2 == answer["exit_code"]
    assert "\n" not in answer["error"]
    hardened.assert_answers()


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("backup", {}),
        ("backup", {"type": "prune"}),
        ("backup", {"type": ["full"]}),
        ("backup", {"type": {"full": 1}}),
        ("prune", {"before": "2025-01-01"}),
        ("prune", {"before": True}),
        ("prune", {"before": -1}),
        ("prune", {"before": 10**30}),
        ("prune", {"before": 1.5}),
        ("repair", {}),
        ("repair", {"store": 1, "names": []}),
        ("repair", {"store": "s3://other", "names": []}),
        ("repair", {"names": "repository.json"}),
        ("schedule", {}),
        ("schedule", {"do": ["list"]}),
        ("schedule", {"do": "create", "schedule": None}),
        ("schedule", {"do": "update", "name": "daily-full-backup", "schedule": [1]}),
        ("schedule", {"do": "update", "name": "daily-full-backup"}),
        ("explode", {}),
    ],
    ids=str,
)
def test_hostile_arguments_are_refused(hardened: Site, verb: str, arguments: dict[str, Any]) -> None:
    """As what they are, and the agent goes on; nothing of it is a fault of the program."""
    with pytest.raises(ReplicatorError) as caught:
        hardened.ask(verb, **arguments)

    assert 2 == caught.value.exit_code
    assert "internal" not in str(caught.value)
    hardened.assert_answers()


def test_a_repair_touches_nothing_that_is_not_ours(asked: Site) -> None:
    """Names that lead out of the store, or are none, are left as they are, and keep nobody waiting."""
    outside = asked.folder / "outside.txt"
    outside.write_text("precious")
    names = ["../outside.txt", str(outside), "", ".", "full", "a\0b", "x" * 5_000, "tail/..", ".probe-1"]
    (done,) = asked.ask("repair", store=f"file://{asked.store}", names=names)["stores"].values()

    assert dict.fromkeys(names, "it is none of ours") == done["left"]
    assert "precious" == outside.read_text()
    with pytest.raises(ReplicatorError, match="objects in `names`"):
        asked.ask("repair", store=f"file://{asked.store}", names=[1])
    asked.assert_answers()


def test_a_client_that_says_nothing_is_left_alone(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has so many seconds for its request, in however small pieces; then its place is free again."""
    monkeypatch.setattr(control, "REQUEST_SECONDS", 0.05)
    with connected(asked.state) as client:
        client.sendall(b'{"verb": ')
        assert b"" == client.recv(100)
    asked.assert_answers()


def test_a_client_that_goes_away_takes_nothing_with_it(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asked for is done all the same; its place is free again."""
    monkeypatch.setattr("replicator.requests.TELL_SECONDS", 0.001)
    request = {"verb": "backup", "database": asked.database, "arguments": {"type": "full"}}
    for number in range(CLIENTS_MAX + 2):
        asked.app.insert()
        with connected(asked.state) as client:
            client.sendall(json.dumps({**request, "number": number}).encode() + b"\n")
    asked.ask("backup", type="log")  # behind all of those

    assert len(list(Path(asked.store).rglob("*.full"))) > 1
    asked.assert_answers()


def test_those_who_are_too_many_are_told_so(asked: Site) -> None:
    """The ninth at a time; once one of the others has gone, there is a place again."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS_MAX)]
    for client in clients:
        client.connect(os.path.join(asked.state, SOCKET))
    with pytest.raises(ReplicatorError, match="answers others just now"):
        asked.ask("schedule", do="list")
    threads = threading.active_count()
    for client in clients:
        client.close()
    while threading.active_count() > threads - CLIENTS_MAX:  # until their threads have seen it
        threading.Event().wait(0.005)

    asked.assert_answers()


def test_without_descriptors_it_waits(
    asked: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can be let in for a while; afterwards whoever stood there is. The first one has a descriptor waiting."""
    monkeypatch.setattr(control, "PAUSE_SECONDS", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        filling = [os.open("/", os.O_RDONLY)]
        while filling[-1] <= highest:
            filling.append(os.open("/", os.O_RDONLY))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + 1, limits[1]))
            first.connect(os.path.join(asked.state, SOCKET))
            client.connect(os.path.join(asked.state, SOCKET))
            while "control.unavailable" not in [record.message for record in caplog.records]:
                threading.Event().wait(0.005)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in filling:
                os.close(fd)
        request = {"verb": "schedule", "database": asked.database, "arguments": {"do": "list"}}
        client.sendall(json.dumps(request).encode() + b"\n")
        assert "result" in json.loads(client.makefile("rb").readline())


# --- agents that come and go ---------------------------------------------------------------------------


def test_an_agent_that_ended_cannot_be_asked(site: Site) -> None:
    """Its socket is gone; what says where it was is not believed."""
    site.once()

    assert not os.path.lexists(os.path.join(site.state, SOCKET))
    assert os.path.exists(os.path.join(site.state, POINTER))
    with pytest.raises(SourceGone, match="cannot be asked"):
        site.ask("schedule", do="list")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"socket": 7}',
        b'{"socket": "a\\u0000b"}',
        b'{"socket": "/"}',
        b"[" * 100_000,
    ],
    ids=repr,
)
def test_a_pointer_that_is_none_is_not_followed(site: Site, content: bytes) -> None:
    """Torn, or somebody else's: as if nobody was there."""
    os.makedirs(site.state)
    Path(site.state, POINTER).write_bytes(content)
    with pytest.raises(SourceGone, match="cannot be asked"):
        site.ask("schedule", do="list")


@pytest.mark.parametrize(
    "answer",
    [b"", b"\n", b"[]\n", b"nonsense\n", b'{"progress": 1}\n', b'{"result": 7}\n', b'{"error": "x"}'],
)
def test_an_answer_that_is_none_is_not_taken_for_one(site: Site, answer: bytes) -> None:
    """Of an agent that ended in the middle of it, or of something else that listens there."""
    os.makedirs(site.state)
    listening = control._listening(site.state)
    Path(site.state, POINTER).write_text(json.dumps({"socket": os.path.join(site.state, SOCKET)}))

    def serve() -> None:
        client, _ = listening.accept()
        with client:
            client.recv(1_000)
            client.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    with listening, pytest.raises(ReplicatorError):
        site.ask("schedule", do="list")
    server.join(SECONDS)


def test_a_socket_that_was_left_over_is_replaced(site: Site) -> None:
    """Of an agent that was killed; whatever else lies under its name goes, too."""
    os.makedirs(site.state)
    control._listening(site.state).close()
    assert Path(site.state, SOCKET).is_socket()
    with site.agent():
        site.assert_answers()
    Path(site.state, SOCKET).write_text("not a socket")
    with site.agent():
        site.assert_answers()


def test_a_second_agent_takes_nobody_away(asked: Site) -> None:
    """It is refused, and the first one is asked as before."""
    with pytest.raises(OwnershipLost), asked.agent():
        pass

    asked.assert_answers()
    assert os.getpid() == lock_holder(os.path.join(asked.state, "lock"))


def test_without_a_socket_the_agent_works(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A folder in its place: warned of, and everything is replicated."""
    os.makedirs(os.path.join(site.state, SOCKET, "full"))
    with site.agent() as agent:
        agent.wait_captured_and_shipped(SECONDS)
        site.app.insert()
        agent.wait_captured_and_shipped(SECONDS)
        (outcome,) = agent.ask(site.database, "backup", {"type": "full"})["stores"].values()

    assert "control.unavailable" in [record.message for record in caplog.records]
    assert outcome["backup"]
    site.assert_equal()


@pytest.mark.parametrize("away", ["before", "after"])
def test_whoever_waits_at_a_stop_is_told(site: Site, monkeypatch: pytest.MonkeyPatch, away: str) -> None:
    """Of a store that is away, from the beginning or since; what is in the queue behind it as well."""
    if away == "before":
        monkeypatch.setenv("BACKUP_S3_ENDPOINT", "http://127.0.0.1:1")  # where nobody listens
        monkeypatch.setenv("BACKUP_S3_ACCESS_KEY", "access")
        monkeypatch.setenv("BACKUP_S3_SECRET_KEY", "s3cret-value")
        monkeypatch.setattr("replicator.introduction.STORES_SECONDS", 0.1)
        monkeypatch.setattr("replicator.agent.ASKED_SECONDS", 0.1)
        site.store = "s3://bucket/app"
    agent = Agent([site.config()])
    agent.start()
    if away == "after":
        agent.wait_captured_and_shipped(SECONDS)
        Path(site.store).rename(site.folder / "elsewhere")
        Path(site.store).write_text("not a folder")
    (follower,) = agent._followers
    asked = [*follower.ask("full", {}).values(), *follower.ask("log", {}).values()]
    agent.stop(ship_seconds=0.0)
    errors = [each.exception(SECONDS) for each in asked]

    assert [True, True] == [isinstance(each, ReplicatorError) for each in errors]
    with pytest.raises(SourceGone):
        agent.ask(site.database, "backup", {"type": "full"})


def test_python_asks_as_the_socket_does(asked: Site) -> None:
    """`Agent.ask` knows the same verbs, and names the databases it has."""
    config = DatabaseConfig(asked.database, (asked.store,))
    agent = Agent([config])
    with pytest.raises(SourceGone, match="not followed just now"):
        agent.ask(asked.database, "backup", {"type": "full"})
    with pytest.raises(UsageError):
        agent.ask(asked.database, "backup", {"type": "half"})
    agent.stop()
