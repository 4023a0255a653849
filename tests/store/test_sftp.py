"""The SFTP store: what only this kind can break. What every store keeps stands in test_contract.py."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import logging
import os
import secrets
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from replicator.clock import Clock
from replicator.core.catalogue import Listed
from replicator.core.errors import (
    ConfigError,
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from replicator.store import sftp_connection, sftp_session
from replicator.store.sftp import SftpStore, open_sftp
from replicator.store.store_clock import clock_difference
from tests.support.servers.sftp import (
    PASSWORD,
    SftpServer,
    asyncssh_server,
    rclone_server,
    store_on,
    write_key,
)
from tests.support.servers.ssh_agent import ssh_agent

Servers = Callable[[str], SftpServer]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The server of a mode, started when it is first asked for. Nobody stops or freezes these."""
    running: dict[str, SftpServer] = {}
    with contextlib.ExitStack() as stack:

        def server(mode: str) -> SftpServer:
            if mode not in running:
                folder = tmp_path_factory.mktemp(mode) / "server"
                started = rclone_server(folder) if mode == "rclone" else asyncssh_server(folder, mode)
                running[mode] = stack.enter_context(started)
            return running[mode]

        yield server


@pytest.fixture
def whole(servers: Servers) -> SftpServer:
    return servers("whole")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SftpServer]:
    """A server for one test, which may do to it what it likes."""
    with asyncssh_server(tmp_path / "server") as server:
        yield server


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs that a test can wait for."""
    monkeypatch.setattr(sftp_connection, "IO_SECONDS", 1.0)


def folder_of(store: SftpStore, server: SftpServer) -> Path:
    """Where the objects of a store lie on this machine."""
    return server.root / store.url.partition(f":{server.port}/")[2]


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- URLs and settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("sftp://host/var/backups", "sftp://host/var/backups"),
        ("SFTP://Host:22/var//backups/", "sftp://host/var/backups"),
        ("sftp://host:2222/", "sftp://host:2222/"),
        ("sftp://me@host//a", "sftp://me@host/a"),
        ("sftp://me@host/~/a/b", "sftp://me@host/~/a/b"),
        ("sftp://host/~/", "sftp://host/~/"),
        ("sftp://host/~", "sftp://host/~/"),
        ("sftp://host/~other/a", "sftp://host/~other/a"),
        ("sftp://[::1]:2222/a", "sftp://[::1]:2222/a"),
        ("sftp://[0:0::1]/a", "sftp://[::1]/a"),
        ("sftp://d%40me@host/a%20b/%C3%A9/100%25/%3F%23", "sftp://d%40me@host/a b/%C3%A9/100%25/%3F%23"),
        ("sftp://host/a@b:c", "sftp://host/a@b:c"),
        ("sftp://my_nas.local./a", "sftp://my_nas.local./a"),
    ],
)
def test_a_url_has_one_form(url: str, canonical: str) -> None:
    """Other spellings become it, it opens the same place again, and nothing is touched yet."""
    store = open_sftp(url, {})

    assert canonical == store.url
    assert canonical == open_sftp(store.url, {}).url
    assert canonical in repr(store)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sftp://me:secret@host/a", "BACKUP_SFTP_PASSWORD"),
        ("sftp://me:@host/a", "BACKUP_SFTP_PASSWORD"),
        ("sftp://:secret@host/a", "BACKUP_SFTP_PASSWORD"),
        ("sftp://me:secret@[host/a", "sftp://"),
        ("sftp://me:secret@ho st/a", "BACKUP_SFTP_PASSWORD"),
        ("sftp://me:sec@ret@host/a", "BACKUP_SFTP_PASSWORD"),
        ("sftp://host", "sftp://"),
        ("sftp://host?a", "%3F"),
        ("sftp:///a", "sftp://"),
        ("sftp://@host/a", "sftp://"),
        ("sftp://host:0/a", "sftp://"),
        ("sftp://host:70000/a", "sftp://"),
        ("sftp://host:ssh/a", "sftp://"),
        ("sftp://-host/a", "sftp://"),
        ("sftp://ho st/a", "sftp://"),
        ("sftp://hö.st/a", "xn--"),
        ("sftp://[::g]/a", "sftp://"),
        ("sftp://host/a/../b", "write it out"),
        ("sftp://host/a/%2E%2E/b", "write it out"),
        ("sftp://host/a?b", "%3F"),
        ("sftp://host/a#b", "%23"),
        ("sftp://host/100%", "%25"),
        ("sftp://host/%FF", "%25"),
        ("sftp://host/a%0Ab", "%25"),
        ("sftp://host/a\nb", "sftp://"),
        ("sftp://host/a\\b", "sftp://"),
        ("s3://host/a", "sftp://"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, hint: str) -> None:
    """Before anything is done, with the value but without its password, and with what to write instead."""
    with pytest.raises(UsageError) as caught:
        open_sftp(url, {})

    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert "sec" not in str(caught.value)
    assert repr(url.rsplit("@", maxsplit=1)[-1]) in str(caught.value)


def test_two_values_of_one_setting_are_refused() -> None:
    """Nobody can say which of a password and a file of it was meant."""
    for name in ("BACKUP_SFTP_PASSWORD", "BACKUP_SFTP_KEY_PASSPHRASE"):
        with pytest.raises(ConfigError, match=name):
            open_sftp("sftp://host/a", {name: "secret", f"{name}_FILE": "/nowhere"})


def test_the_library_is_loaded_when_a_store_is_opened() -> None:
    """And not by importing the module: half a second and thirty megabytes that most do not need."""
    code = """if True:
        import sys
        import replicator.store.sftp
        before = "paramiko" in sys.modules
        replicator.store.sftp.open_sftp("sftp://host/a", {})
        print(before, "paramiko" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False True" == done.stdout.strip()


# --- who the server is ---------------------------------------------------------------------------------


def known(server: SftpServer) -> tuple[str, str]:
    """The first field and the rest of the only line of its known_hosts."""
    place, _, key = server.known_hosts.read_text().strip().partition(" ")
    return place, key


def opened_with(server: SftpServer, tmp_path: Path, known_hosts: str) -> SftpStore:
    file = tmp_path / "some known_hosts"
    file.write_text(known_hosts)
    environ = server.environ | {"BACKUP_SFTP_KNOWN_HOSTS": str(file)}
    return open_sftp(server.url(f"/{secrets.token_hex(4)}"), environ)


def hashed(place: str) -> str:
    import paramiko

    return paramiko.HostKeys.hash_host(place)


KNOWN: dict[str, Callable[[str, str], str]] = {
    "plain": lambda place, key: f"{place} {key}\n",
    "comment": lambda place, key: f"# here\n\nother ssh-rsa AAAA\n{place} {key} nas at home\n",
    "one of several": lambda place, key: f"nas.local,{place},nas {key}\n",
    "hashed": lambda place, key: f"{hashed(place)} {key}\n",
    "pattern": lambda place, key: f"[127.0.*]:{place.rpartition(':')[2]} {key}\n",
    "second key of a type": lambda place, key: f"{place} {OTHER_KEY}\n{place} {key}\n",
    "another's is revoked": lambda place, key: f"@revoked * {OTHER_KEY}\n{place} {key}\n",
}
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"
UNKNOWN: dict[str, Callable[[str, str], str]] = {
    "empty": lambda place, key: "",
    "another port": lambda place, key: f"127.0.0.1 {key}\n",
    "another host": lambda place, key: f"other {key}\n{hashed('other')} {key}\n|1|cut {key}\n",
    "not this one": lambda place, key: f"*,!{place} {key}\n",
    "an authority": lambda place, key: f"@cert-authority {place} {key}\n",
}


@pytest.mark.parametrize("lines", KNOWN.values(), ids=KNOWN)
def test_a_known_host_is_taken(whole: SftpServer, tmp_path: Path, lines: Callable[[str, str], str]) -> None:
    """In every form in which known_hosts may name it."""
    store = opened_with(whole, tmp_path, lines(*known(whole)))
    store.put("it", b"x")

    assert b"x" == store.get("it")


@pytest.mark.parametrize("lines", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_host_is_denied(
    whole: SftpServer, tmp_path: Path, lines: Callable[[str, str], str]
) -> None:
    """With the fingerprint to compare, the command that adds the key, and the file it goes to."""
    store = opened_with(whole, tmp_path, lines(*known(whole)))
    with pytest.raises(StoreDenied, match="is not in") as caught:
        store.put("it", b"x")
    blob = base64.b64decode(known(whole)[1].split()[1])
    fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    assert caught.value.hint is not None
    assert f"ssh-keyscan -p {whole.port} 127.0.0.1 >> '{tmp_path}/some known_hosts'" in caught.value.hint
    assert f"SHA256:{fingerprint}" in caught.value.hint


def test_a_missing_known_hosts_knows_nobody(whole: SftpServer, tmp_path: Path) -> None:
    """It is the file of a new machine, and ~/.ssh/known_hosts unless told otherwise."""
    environ = {**whole.environ, "HOME": str(tmp_path)}
    del environ["BACKUP_SFTP_KNOWN_HOSTS"]
    with pytest.raises(StoreDenied, match="is not in") as caught:
        open_sftp(whole.url(), environ).get("it")

    assert f"{tmp_path}/.ssh/known_hosts" in str(caught.value)


def test_a_changed_host_is_denied(whole: SftpServer, tmp_path: Path) -> None:
    """The hint says how to replace the key, after comparing it."""
    place, _ = known(whole)
    with pytest.raises(StoreDenied, match="has changed") as caught:
        opened_with(whole, tmp_path, f"{place} {OTHER_KEY}\n").get("it")

    assert caught.value.hint is not None
    assert "ssh-keygen -R" in caught.value.hint
    assert "compare" in caught.value.hint


def test_a_revoked_host_is_denied(whole: SftpServer, tmp_path: Path) -> None:
    """Also where another line still has its key."""
    place, key = known(whole)

    with pytest.raises(StoreDenied, match="revoked"):
        opened_with(whole, tmp_path, f"{place} {key}\n@revoked * {key}\n").get("it")


# --- who we are ----------------------------------------------------------------------------------------


@pytest.fixture
def nobody(whole: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings without credentials, on a machine that has none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return {"HOME": str(tmp_path), "BACKUP_SFTP_KNOWN_HOSTS": str(whole.known_hosts)}


def test_a_password_logs_in(whole: SftpServer, nobody: dict[str, str], tmp_path: Path) -> None:
    """From a setting or from a file."""
    (tmp_path / "password").write_text(PASSWORD + "\n")
    for setting in (
        {"BACKUP_SFTP_PASSWORD": PASSWORD},
        {"BACKUP_SFTP_PASSWORD_FILE": str(tmp_path / "password")},
        {"BACKUP_SFTP_PASSWORD_FILE": "~/password"},
    ):
        open_sftp(whole.url("/password"), nobody | setting).put(secrets.token_hex(8), b"")


def test_an_encrypted_key_logs_in_with_its_passphrase(
    whole: SftpServer, nobody: dict[str, str], tmp_path: Path
) -> None:
    """Without it, or with another, StoreDenied says so and repeats none."""
    added = write_key(tmp_path / "key", "open sesame")
    with (whole.key.parent / "authorized_keys").open("a") as file:
        file.write(added + "\n")
    settings = nobody | {"BACKUP_SFTP_KEY_FILE": str(tmp_path / "key")}
    for passphrase in ({}, {"BACKUP_SFTP_KEY_PASSPHRASE": "open barley"}):
        with pytest.raises(StoreDenied, match="passphrase is missing or wrong") as caught:
            open_sftp(whole.url(), settings | passphrase).get("it")
        assert "barley" not in f"{caught.value} {caught.value.hint}"

    settings |= {"BACKUP_SFTP_KEY_PASSPHRASE": "open sesame"}
    open_sftp(whole.url("/passphrase"), settings).put("it", b"")


def test_a_key_of_the_home_logs_in(whole: SftpServer, nobody: dict[str, str], tmp_path: Path) -> None:
    """~/.ssh/id_ed25519 is tried where nothing is set."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(whole.key.read_bytes())

    open_sftp(whole.url("/home-key"), nobody).put(secrets.token_hex(8), b"")


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ({}, "there are no credentials"),
        ({"BACKUP_SFTP_PASSWORD": "wrong-horse"}, "the server refuses these credentials"),
        ({"BACKUP_SFTP_PASSWORD_FILE": "~/nowhere"}, "cannot read ~/nowhere"),
        ({"BACKUP_SFTP_KEY_FILE": "~/nowhere"}, "cannot read the SSH key"),
        ({"BACKUP_SFTP_KEY_FILE": "~/no-key"}, "cannot load the SSH key"),
        ({"BACKUP_SFTP_KEY_FILE": "~/stranger"}, "the server refuses these credentials"),
        ({"BACKUP_SFTP_KNOWN_HOSTS": "/"}, "cannot read /"),
    ],
)
def test_wrong_credentials_are_denied(
    whole: SftpServer,
    nobody: dict[str, str],
    tmp_path: Path,
    setting: dict[str, str],
    what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody tries again what cannot succeed; the hint names a setting, and no secret is told or logged."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "no-key").write_text("wrong-horse")
    write_key(tmp_path / "stranger")
    store = open_sftp(whole.url(), nobody | setting)
    with pytest.raises(StoreDenied, match=what) as caught:
        store.put("it", b"x")

    assert "BACKUP_SFTP_" in (caught.value.hint or "")
    assert not caught.value.retryable
    assert "horse" not in f"{caught.value} {caught.value.hint} {store!r} {caplog.text}"


# --- put-once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["whole", "plain"])
def test_a_put_leaves_nothing_but_the_object(servers: Servers, mode: str) -> None:
    """For nobody else to read, with hard links and without; a second put neither."""
    server = servers(mode)
    store = store_on(server)
    assert isinstance(store, SftpStore)
    store.put("a/b", b"first")
    with pytest.raises(ObjectExists):
        store.put("a/b", b"second")
    folder = folder_of(store, server)

    assert b"first" == store.get("a/b")
    assert ["a/b"] == everything_in(folder)
    assert 0o600 == stat.S_IMODE((folder / "a/b").stat().st_mode)
    assert 0o700 == stat.S_IMODE((folder / "a").stat().st_mode)
    assert 1 == (folder / "a/b").stat().st_nlink


def test_an_object_is_synced_before_it_has_its_name(own: SftpServer) -> None:
    """A name that is there after a power cut stands for the whole object."""
    store = store_on(own)
    store.put("a", b"x")
    with pytest.raises(ObjectExists):
        store.put("a", b"y")

    assert ["fsync", "link"] * 2 == [
        line for line in own.log.read_text().split() if line in ("fsync", "link")
    ]


def test_what_is_replaced_is_synced_before_it_has_its_name(own: SftpServer) -> None:
    """One rename that replaces, and nothing but the object is left, for nobody else to read."""
    store = store_on(own)
    assert isinstance(store, SftpStore)
    for content in (b"first", b"second"):
        store.replace("metadata.json", content)
    said = [line for line in own.log.read_text().split() if line in ("fsync", "link", "posix-rename")]

    assert ["fsync", "posix-rename"] * 2 == said
    assert ["metadata.json"] == everything_in(folder_of(store, own))
    assert 0o600 == stat.S_IMODE((folder_of(store, own) / "metadata.json").stat().st_mode)


def test_a_server_of_another_make_replaces(servers: Servers) -> None:
    """One that is denied every put, too: that nothing refuses a name does not matter here."""
    store = store_on(servers("rclone"))
    assert isinstance(store, SftpStore)
    for content in (b"first", b"second and longer", b"third"):
        store.replace("metadata.json", content)
        assert content == store.get("metadata.json")

    assert ["metadata.json"] == everything_in(folder_of(store, servers("rclone")))


@pytest.mark.parametrize("mode", ["plain", "lying"])
def test_without_a_rename_that_replaces_nothing_is_replaced(servers: Servers, mode: str) -> None:
    """Denied, with what to do, before anything is written: to remove the old one first leaves a moment with none."""
    server = servers(mode)
    store = store_on(server)
    assert isinstance(store, SftpStore)
    folder_of(store, server).mkdir(parents=True)
    (folder_of(store, server) / "metadata.json").write_bytes(b"old")
    with pytest.raises(StoreDenied, match="can replace nothing") as caught:
        store.replace("metadata.json", b"new")

    assert "OpenSSH" in (caught.value.hint or "")
    assert b"old" == store.get("metadata.json")
    assert ["metadata.json"] == everything_in(folder_of(store, server))


def test_a_link_is_replaced_and_not_followed(whole: SftpServer) -> None:
    """It could point at any file of that machine."""
    store = store_on(whole)
    assert isinstance(store, SftpStore)
    folder = folder_of(store, whole)
    folder.mkdir(parents=True)
    (folder / "secret").write_bytes(b"key")
    (folder / "metadata.json").symlink_to("secret")
    with pytest.raises(ObjectCorrupt, match="symbolic link"):
        store.modified("metadata.json")
    store.replace("metadata.json", b"new")

    assert b"key" == (folder / "secret").read_bytes()
    assert not (folder / "metadata.json").is_symlink()


def test_the_time_of_an_object_is_that_of_its_file(servers: Servers) -> None:
    """In whole seconds; a server that tells none is denied, with a hint, and everything else works there."""
    for mode in ("whole", "timeless"):
        server = servers(mode)
        store = store_on(server)
        assert isinstance(store, SftpStore)
        store.put("a/b", b"x")
        os.utime(folder_of(store, server) / "a/b", (0, 1_700_000_000.75))
        if mode == "whole":
            assert 1_700_000_000_000_000 == store.modified("a/b")
            with pytest.raises(ObjectNotFound):
                store.modified("a")
        else:
            with pytest.raises(StoreDenied, match="does not say when a/b was written") as caught:
                store.modified("a/b")
            assert caught.value.hint
            assert clock_difference(store, Clock().wall) is None


@pytest.mark.parametrize("mode", ["whole", "plain"])
def test_of_several_stores_one_puts(servers: Servers, mode: str) -> None:
    """Threads: each of sixteen agents has a connection of its own."""
    server = servers(mode)
    url = store_on(server).url
    stores = [open_sftp(url, server.environ) for _ in range(16)]
    for store in stores:
        list(store.list(""))
    for turn in range(3):
        ready = threading.Barrier(16)
        outcomes: list[tuple[int, type[Exception] | None]] = []

        def put(
            number: int, turn: int, ready: threading.Barrier, told: list[tuple[int, type[Exception] | None]]
        ) -> None:
            ready.wait()
            try:
                stores[number].put(f"{turn}/object", bytes([number]) * 100_000)
                told.append((number, None))
            except Exception as exc:
                told.append((number, type(exc)))

        threads = [threading.Thread(target=put, args=(n, turn, ready, outcomes)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [number for number, error in outcomes if error is None]

        assert [ObjectExists] * 15 == [error for _, error in outcomes if error is not None]
        assert bytes(won) * 100_000 == stores[0].get(f"{turn}/object")
    assert ["0/object", "1/object", "2/object"] == [listed.name for listed in stores[0].list("")]


@pytest.mark.parametrize("mode", ["lying", "rclone"])
def test_a_server_that_replaces_is_denied(servers: Servers, mode: str) -> None:
    """Where nothing refuses a name that is taken, nothing is put, and nothing is left of trying."""
    server = servers(mode)
    store = store_on(server)
    assert isinstance(store, SftpStore)
    with pytest.raises(StoreDenied, match="its rename replaces") as caught:
        store.put("a/b", b"x")
    with contextlib.suppress(StoreDenied):
        store.put("a/c", b"x")

    assert caught.value.hint
    assert [] == list(store.list(""))
    assert [] == everything_in(folder_of(store, server))


def test_a_server_that_replaces_can_be_read(servers: Servers) -> None:
    """What was brought there by other means can be restored and deleted. The server is no relative of the others."""
    server = servers("rclone")
    store = store_on(server)
    assert isinstance(store, SftpStore)
    objects = {"a/b": b"x" * 3_000_000, "a-b": b"", "a/c/d": b"y"}
    for name, data in objects.items():
        path = folder_of(store, server) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    assert [Listed(name, len(objects[name])) for name in sorted(objects)] == list(store.list(""))
    assert objects == {name: store.get(name) for name in objects}
    assert b"xx" == store.get_range("a/b", 2_999_998, 2)
    with pytest.raises(ObjectNotFound):
        store.get("a/z")
    store.delete("a/b")
    store.delete("a/b")
    assert ["a-b", "a/c/d"] == [listed.name for listed in store.list("")]


def test_what_a_killed_put_left_is_cleared(whole: SftpServer) -> None:
    """By a later put into that folder, if it is older than an hour; nobody else's file is touched."""
    store = store_on(whole)
    assert isinstance(store, SftpStore)
    folder = folder_of(store, whole) / "a"
    folder.mkdir(parents=True)
    old, young, foreign = (f".{'0' * 16}.tmp", f".{'1' * 16}.tmp", ".keep")
    for name in (old, young, foreign):
        (folder / name).write_bytes(b"")
    for name in (old, foreign):
        os.utime(folder / name, (time.time() - 3700,) * 2)
    before = list(store.list(""))
    store.put("a/b", b"x")

    assert [] == before
    assert {foreign, young, "b"} == set(os.listdir(folder))


# --- reading -------------------------------------------------------------------------------------------


def test_links_and_folders_are_no_objects(whole: SftpServer, tmp_path: Path) -> None:
    """A link is passed over by a listing and refused by a get; a folder is not found."""
    store = store_on(whole)
    assert isinstance(store, SftpStore)
    store.put("a/b", b"x")
    folder = folder_of(store, whole)
    (folder / "a" / "link").symlink_to("b")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "elsewhere").symlink_to(folder / "a")

    assert [Listed("a/b", 1)] == list(store.list(""))
    with pytest.raises(ObjectCorrupt, match="symbolic link"):
        store.get("a/link")
    with pytest.raises(ObjectCorrupt, match="symbolic link"):
        store.get_start("a/link", 1)
    with pytest.raises(ObjectNotFound):
        store.get("a")
    with pytest.raises(ObjectNotFound):
        store.get_range("a", 0, 1)
    with pytest.raises(ObjectNotFound):
        store.get("a/b/c")
    assert [] == list(store.list("a/b/"))


def test_a_large_folder_is_listed_whole(whole: SftpServer) -> None:
    """More names than several replies hold, each once and in order."""
    store = store_on(whole)
    assert isinstance(store, SftpStore)
    folder = folder_of(store, whole)
    folder.mkdir(parents=True)
    names = [f"{number:05}" for number in range(3_000)]
    for name in reversed(names):
        (folder / name).touch()

    assert names == [listed.name for listed in store.list("")]


def test_a_listing_reads_a_folder_when_it_is_reached(whole: SftpServer) -> None:
    """Who stops early asks for little, and no session is held between two names."""
    store = store_on(whole)
    for number in range(6):
        store.put(f"{number}/object", b"")
    half_read = [store.list("") for _ in range(6)]

    assert ["0/object"] * 6 == [next(each).name for each in half_read]
    store.put("5/late", b"")
    assert "5/late" in [listed.name for listed in half_read[0]]


def test_the_home_of_the_login_can_be_meant(own: SftpServer) -> None:
    """/~/ in a URL, alone or before a folder."""
    for url, where in (("/~/deep/er", "deep/er/a/b"), ("/~/", "a/b")):
        store = open_sftp(own.url(url), own.environ)
        store.put("a/b", b"x")

        assert b"x" == (own.root / where).read_bytes()
        assert b"x" == store.get("a/b")
        assert ["a/b"] == [listed.name for listed in store.list("a")]


@pytest.mark.parametrize("mode", ["whole", "plain"])
def test_a_large_object_lies_in_memory_once(servers: Servers, mode: str) -> None:
    """It comes and goes in pieces, also where a server gives less at once than it is asked for."""
    import tracemalloc

    store = store_on(servers(mode))
    data = secrets.token_bytes(20 << 20)
    tracemalloc.start()
    try:
        store.put("big", data)
        put_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        found = store.get("big")
        get_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert data == found
    assert put_peak < 16 << 20
    assert get_peak < (20 << 20) + (16 << 20)


# --- faults --------------------------------------------------------------------------------------------


def test_a_server_that_is_down_is_unavailable(own: SftpServer) -> None:
    """And of use again once it is up, for the same store."""
    store = store_on(own)
    own.kill()
    for call in (
        lambda: store.put("a", b"x"),
        lambda: store.replace("a", b"x"),
        lambda: store.modified("a"),
    ):
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            call()
    own.start()
    store.put("a", b"x")

    assert b"x" == store.get("a")


def test_a_session_that_died_at_rest_is_replaced(own: SftpServer) -> None:
    """Nobody hears of it, whichever call comes first."""
    store = store_on(own)
    store.put("a", b"x")
    for call in (
        lambda: store.put("b", b"y"),
        lambda: store.get("a"),
        lambda: store.get_start("a", 1),
        lambda: store.get_range("a", 0, 1),
        lambda: list(store.list("")),
        lambda: store.replace("b", b"z"),
        lambda: store.modified("b"),
        lambda: store.delete("b"),
    ):
        own.kill()
        own.start()
        call()

    assert ["a"] == [listed.name for listed in store.list("")]


def test_a_session_that_died_alone_is_replaced(whole: SftpServer) -> None:
    """Its connection lives on, so nothing tells before the first request; nobody hears of it either."""
    store = store_on(whole)
    assert isinstance(store, SftpStore)
    store.put("a", b"x")
    for _, session in store._pool._idle:
        session.close()

    assert b"x" == store.get("a")


@pytest.mark.usefixtures("hurried")
def test_a_frozen_server_is_unavailable(own: SftpServer) -> None:
    """In an open session and at a new connection, after the time-out; once it goes on, so does the store."""
    store = store_on(own)
    store.put("a", b"x")
    own.freeze()
    for call in (
        lambda: store.put("b", b"y"),
        lambda: store.put("b", b"y"),
        lambda: store.replace("a", b"x"),
        lambda: store.modified("a"),
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - began < 5
    own.thaw()

    with contextlib.suppress(ObjectExists):  # the first one may have come through after all
        store.put("b", b"y")
    assert b"y" == store.get("b")


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("mode", "what"),
    [
        ("mute", "does not answer"),
        ("deaf", "starts no SFTP"),
        ("chatty", "is no SFTP"),
        ("none", "allows no session"),
    ],
)
def test_a_server_without_sftp_is_unavailable(servers: Servers, mode: str, what: str) -> None:
    """It lets us in and then says nothing, speaks something else, never starts it, or has none."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=what):
        store_on(servers(mode)).get("it")

    assert time.monotonic() - began < 5


def test_a_server_killed_in_between_is_unavailable(own: SftpServer) -> None:
    """Threads: what was under way fails as retryable, and may be repeated until it is there, whole."""
    store = store_on(own)
    data = secrets.token_bytes(30 << 20)
    failed: list[Exception] = []

    def put() -> None:
        try:
            store.put("big", data)
        except Exception as exc:
            failed.append(exc)

    thread = threading.Thread(target=put)
    thread.start()
    assert isinstance(store, SftpStore)
    while not list(folder_of(store, own).glob(".*.tmp")):
        thread.join(0.01)
    own.kill()
    thread.join()
    own.start()
    before = list(store.list(""))
    store.put("big", data)

    assert [StoreUnavailable] == [type(exc) for exc in failed]
    assert [] == before
    assert data == store.get("big")


def test_a_full_disk_is_unavailable(servers: Servers) -> None:
    """SFTP has no word for it: the hint has, and nothing half written is left."""
    store = store_on(servers("full"))
    assert isinstance(store, SftpStore)
    store.put("a/c", b"x")
    for call in (lambda: store.put("a/b", bytes(3_000_000)), lambda: store.replace("a/c", bytes(3_000_000))):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert "full disk" in (caught.value.hint or "")

    assert b"x" == store.get("a/c")
    assert ["a/c"] == everything_in(folder_of(store, servers("full")))


def test_without_permission_it_is_denied(servers: Servers) -> None:
    """Nobody asks again at once; the server's own words are in the error."""
    store = store_on(servers("denying"))
    for call in (lambda: store.put("a", b"x"), lambda: store.get("a"), lambda: store.get_start("a", 1)):
        with pytest.raises((StoreDenied, ObjectNotFound)) as caught:
            call()
    assert isinstance(store, SftpStore)
    folder_of(store, servers("denying")).mkdir(parents=True, exist_ok=True)
    (folder_of(store, servers("denying")) / "a").touch()
    for call in (
        lambda: store.put("b", b"x"),
        lambda: store.replace("a", b"x"),
        lambda: store.get("a"),
        lambda: store.get_start("a", 1),
        lambda: store.get_range("a", 0, 0),
    ):
        with pytest.raises(StoreDenied, match="not for you") as caught:
            call()
        assert caught.value.hint


def test_a_folder_that_vanished_is_not_made_again(whole: SftpServer) -> None:
    """A volume that is not mounted looks like that, and objects below it would be lost at the next mount."""
    store = store_on(whole)
    assert isinstance(store, SftpStore)
    store.put("a/b", b"x")
    folder = folder_of(store, whole)
    folder.rename(folder.with_name("away"))
    with pytest.raises(StoreUnavailable, match="is gone"):
        store.put("a/c", b"y")
    folder.with_name("away").rename(folder)
    store.put("a/c", b"y")

    assert ["a/b", "a/c"] == [listed.name for listed in store.list("")]


# --- sessions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["whole", "narrow"])
def test_many_threads_share_few_sessions(
    servers: Servers, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads: one connection, four sessions, fewer where the server allows fewer; nobody fails for that."""
    dialled: list[object] = []
    opened: list[object] = []
    dial, begin = sftp_connection.dial, sftp_session.Session.__init__

    def counting_dial(login: sftp_connection.Login) -> sftp_connection.Connection:
        dialled.append(login)
        return dial(login)

    def counting_begin(self: sftp_session.Session, channel: sftp_session.Wire) -> None:
        begin(self, channel)
        opened.append(self)

    monkeypatch.setattr(sftp_connection, "dial", counting_dial)
    monkeypatch.setattr(sftp_session.Session, "__init__", counting_begin)
    store = store_on(servers(mode))
    failed: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                store.put(f"{number}/{turn}", secrets.token_bytes(100_000))
                store.get(f"{number}/{turn}")
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failed
    assert 60 == len(list(store.list("")))
    assert 1 == len(dialled)
    assert {"whole": 4, "narrow": 2}[mode] == len(opened)


def test_nothing_stays_open_on_the_server(own: SftpServer) -> None:
    """Handles are closed whatever became of a call; a server has only so many."""
    store = store_on(own)
    store.put("a", bytes(100_000))
    for _ in range(20):
        with pytest.raises(ObjectExists):
            store.put("a", b"")
        with pytest.raises(ObjectCorrupt):
            store.get_range("a", 99_999, 2)
        store.get("a")
        list(store.list(""))
    assert isinstance(store, SftpStore)
    path = store.url.partition(f":{own.port}")[2] + "/a"
    store._pool.run(lambda session: session.forget(session.ask_open(path, sftp_session.READ)))
    for _ in range(2):
        list(store.list(""))  # its replies come behind those nobody waited for
    assert own.process is not None
    held = [os.readlink(each) for each in Path(f"/proc/{own.process.pid}/fd").iterdir()]

    assert [] == [path for path in held if path.startswith(str(own.root))]


def test_a_store_that_is_let_go_closes_its_connection(whole: SftpServer) -> None:
    """Threads: no connection and no thread of it stays behind."""
    before = set(threading.enumerate())
    store = store_on(whole)
    store.put("a", b"x")
    mine = set(threading.enumerate()) - before
    del store
    gc.collect()
    for thread in mine:
        thread.join(10)

    assert mine
    assert not [thread for thread in mine if thread.is_alive()]


def test_a_key_of_the_ssh_agent_is_enough(
    whole: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file and no password are set: the agent signs, and the key never leaves it."""
    key = paramiko.PKey.from_path(whole.key)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"BACKUP_SFTP_KNOWN_HOSTS": str(whole.known_hosts)}
    with ssh_agent(key, tmp_path / "agent"):
        store = open_sftp(whole.url("/by-agent"), environ)
        store.put("object", b"bytes")

    assert b"bytes" == store.get("object")
