"""No secret gets out: into arguments, logs, errors, status, manifests, stored objects, or what a value shows of itself.

Every secret that the program is ever given is a canary here, all of them at once in the environment and in files. The
real program then does what it does, succeeds, fails, is refused and misconfigured, as talkative as it can be; and all
that it left anywhere is searched for pieces of every canary in every spelling. The one place where a key may stand is
what ``key generate`` and ``key kit`` give out. That the search finds what gets out is tried with planted leaks.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from replicator import keys as replicator_keys
from replicator.cli.entry import run
from replicator.config import DatabaseConfig
from replicator.core.key_ring import unwrap
from replicator.core.operator_key import parse_key, parse_passphrase
from replicator.keys import HeldKeys, KeySource
from replicator.store import azure, gcs, retry, s3, s3_settings, sftp
from tests.e2e.command import ENVIRONMENT, PATIENCE_SECONDS, Done, command, sql, until
from tests.support.servers import s3 as servers

PIECE = 8  # letters of a secret that are one too many


# --- the search ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Canary:
    """``piece``: so many letters of it do not come up by chance. Hexadecimal digits are everywhere: 14 of them."""

    name: str
    secret: bytes
    piece: int = PIECE

    @cached_property
    def pieces(self) -> frozenset[bytes]:
        """Of every spelling, forwards and backwards, all pieces that stand for so many letters."""
        found: set[bytes] = set()
        for text in (self.secret, self.secret[::-1]):
            found |= windows(text, self.piece)
            found |= windows(quote(text, safe="").encode(), self.piece)
            found |= windows(json.dumps(text.decode("latin-1")).strip('"').encode(), self.piece)
            for spelt in (text.hex(), text.hex().upper()):
                found |= windows(spelt.encode(), max(2 * self.piece, 16))
            for offset in range(3):  # base64 of a longer text has it in one of three ways
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    spelt = encode(bytes(offset) + text).rstrip(b"=")
                    inner = spelt[-(-offset * 8 // 6) : len(spelt) - 1]
                    found |= windows(inner, -(-self.piece * 8 // 6))
        return frozenset(found)


def windows(text: bytes, size: int) -> set[bytes]:
    return {text[at : at + size] for at in range(len(text) - size + 1)}


def leaks(canaries: Mapping[str, Canary], text: bytes) -> set[str]:
    """Names of the canaries of which a piece is in *text*."""
    found: set[str] = set()
    lengths = {len(piece) for canary in canaries.values() for piece in canary.pieces}
    seen = {length: windows(text, length) for length in lengths}
    for name, canary in canaries.items():
        by_length: dict[int, set[bytes]] = {}
        for piece in canary.pieces:
            by_length.setdefault(len(piece), set()).add(piece)
        if any(pieces & seen[length] for length, pieces in by_length.items()):
            found.add(name)
    return found


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda s: s,
    "hexadecimal": lambda s: s.hex().encode(),
    "capitals": lambda s: s.hex().upper().encode(),
    "base64": base64.b64encode,
    "in a longer base64": lambda s: base64.b64encode(b"user:" + s + b":more"),
    "for a URL": lambda s: quote(s, safe="").encode(),
    "in JSON": lambda s: json.dumps(s.decode()).encode(),
    "backwards": lambda s: s[::-1],
    "a piece": lambda s: s[5 : 5 + PIECE],
    "a piece backwards": lambda s: s[5 : 5 + PIECE][::-1],
    "its end": lambda s: s[-PIECE:],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_search_finds_every_spelling(spelling: str) -> None:
    """And nothing where there is nothing: neither in noise nor in what the program usually says."""
    canary = Canary("it", b'Kx7"Qz/9+Lm%3\\Wp~Rt5Vb2')
    text = SPELLINGS[spelling](canary.secret)

    assert {"it"} == leaks({"it": canary}, b"time=2025 event=x text=" + text + b" and more")
    assert set() == leaks({"it": canary}, secrets.token_bytes(50_000) + b"replicator-status " * 100)


# --- the canaries --------------------------------------------------------------------------------------


def _letters(count: int, alphabet: str = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789") -> str:
    return "".join(secrets.choice(alphabet) for _ in range(count))


@dataclass
class Cage:
    """A folder with a database in it, canaries in its environment and files, and all that was ever said in it."""

    folder: Path
    canaries: dict[str, Canary] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    said: list[bytes] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)

    def keep(self, name: str, secret: str | bytes, piece: int = PIECE) -> str:
        raw = secret.encode() if isinstance(secret, str) else secret
        self.canaries[name] = Canary(name, raw, piece)
        return raw.decode("latin-1")

    def file(self, name: str, content: str) -> str:
        path = self.folder / "secrets" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        path.chmod(0o600)
        return str(path)

    def run(self, *arguments: object, code: int | None = 0, **environment: str) -> Done:
        """The real program; what it and all that it starts were called with is seen."""
        process = subprocess.Popen(
            command(*arguments), cwd=self.folder, env=ENVIRONMENT | self.environ | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(process.pid, ended))
        watcher.start()
        try:
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
            ended.set()
            watcher.join()
        self.said += [out.encode(errors="surrogateescape"), err.encode(errors="surrogateescape")]
        assert code is None or code == process.returncode, err
        return Done(process.returncode, out, err)

    def _watch(self, pid: int, ended: threading.Event) -> None:
        while not ended.wait(0.002):
            for each in family(pid):
                with contextlib.suppress(OSError):
                    said = Path(f"/proc/{each}/cmdline").read_bytes()
                    if said not in self.commands:
                        self.commands.append(said)

    def everything(self) -> dict[str, bytes]:
        """All that was said, and every file but those that the secrets were put into; names of files are said, too."""
        found = {f"output {number}": text for number, text in enumerate(self.said)}
        found |= {f"command {number}": text for number, text in enumerate(self.commands)}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if name.startswith("secrets"):
                continue
            found[name] = os.fsencode(name) + (path.read_bytes() if path.is_file() else b"")
        return found

    def leaked(self) -> dict[str, tuple[set[str], bytes]]:
        """Where, which, and the end of what stands there: all of them are secrets of this test alone."""
        found = {}
        for where, text in self.everything().items():
            if out := leaks(self.canaries, text):
                found[where] = out, text[-1000:]
        return found


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text()
            for child in children.split():
                yield from family(int(child))


@pytest.fixture
def cage(tmp_path: Path) -> Cage:
    folder = tmp_path / "cage"
    (folder / "tmp").mkdir(parents=True)
    cage = Cage(folder)
    raw = secrets.token_bytes(32)
    key = cage.keep("key in digits", raw.hex(), 14)
    cage.keep("key", raw)
    cage.keep("key in base64", base64.b64encode(raw))
    secret = cage.keep("S3 secret key", _letters(12) + "/+" + _letters(26))
    token = cage.keep("S3 session token", "IQo" + _letters(90) + "%==")
    access = "AKIA" + cage.keep("S3 access key", _letters(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
    azure_key = base64.b64encode(secrets.token_bytes(64)).decode()
    cage.keep("Azure key", azure_key)
    signature = cage.keep("SAS signature", base64.b64encode(secrets.token_bytes(32)))
    password = cage.keep("SFTP password", _letters(20) + '"$x\\' + _letters(4))
    passphrase = cage.keep("SFTP key's passphrase", _letters(24))
    google, pem = google_credentials()
    for number, line in enumerate(pem):
        cage.keep(f"Google key, line {number}", line)
    sql(
        folder / "app.db",
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE t (a)",
        "INSERT INTO t VALUES ('public')",
    )
    cage.environ = {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "BACKUP_ENCRYPTION_KEY": key,
        "BACKUP_S3_ACCESS_KEY": access,
        "BACKUP_S3_SECRET_KEY": secret,
        "BACKUP_S3_SESSION_TOKEN": token,
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": token,
        "BACKUP_AZURE_ACCOUNT_KEY_FILE": cage.file("azure", azure_key + "\n"),
        "BACKUP_SFTP_PASSWORD_FILE": cage.file("sftp", password + "\n"),
        "BACKUP_SFTP_KEY_PASSPHRASE": passphrase,
        "BACKUP_GCS_CREDENTIALS_FILE": cage.file("google.json", google),
        # Nothing listens on port 1.
        "BACKUP_S3_ENDPOINT": "http://127.0.0.1:1",
        "BACKUP_S3_REGION": "eu-central-1",
        "BACKUP_AZURE_ENDPOINT": "http://127.0.0.1:1/account1",
        "AZURE_SAS": f"sv=2024-01-01&se=2030-01-01&sig={quote(signature, safe='')}",
        "AZURE_CONNECTION": f"AccountName=account1;AccountKey={azure_key};BlobEndpoint=http://127.0.0.1:1/account1",
    }
    (folder / "home").mkdir()
    return cage


def google_credentials() -> tuple[str, list[str]]:
    """A service account of nobody's, and the lines of its key that no other key has."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    said = {
        "type": "service_account",
        "project_id": "canaries",
        "private_key_id": "0" * 40,
        "private_key": pem,
        "client_email": "agent@canaries.example",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:1/token",
    }
    return json.dumps(said), pem.splitlines()[3:-3]


def keep_ring(cage: Cage, slot: Path) -> None:
    """What the key opens is as secret as the key."""
    ring = unwrap(slot.read_bytes(), slot.name, [parse_key(cage.environ["BACKUP_ENCRYPTION_KEY"], "key")])
    for each in (*ring.roots, ring.dedup):
        cage.keep(f"root {each.key_id}", each.secret)
        cage.keep(f"root {each.key_id} in digits", each.secret.hex(), 14)


# --- a repository of one's own, all verbs --------------------------------------------------------------


def test_s70_nothing_gets_out_of_an_encrypted_repository(cage: Cage) -> None:
    """Made, looked at in every way, rotated, restored, with the key, without it, and with wrong ones."""
    folder = cage.folder
    cage.run("replicate", "-vv", "app.db", "store", "--once")
    sql(folder / "app.db", "INSERT INTO t VALUES ('more')")
    cage.run("replicate", "-vv", "--json", "app.db", "store", "--once")
    (slot,) = (folder / "store/keys").iterdir()
    keep_ring(cage, slot)
    cage.run("check", "-vv", "app.db", "store")
    cage.run("status", "-vv", "--json", "app.db")
    cage.run("ls", "-vv", "app.db", "--json")
    cage.run("restore", "-vv", "store", "-o", "out.db", "--verify", "full")
    cage.run("key", "rotate", "-vv", "app.db")
    cage.run("key", "list", "-vv", "app.db", "--usage")
    keep_ring(cage, max((folder / "store/keys").iterdir()))
    cage.run("key", "kit", "-vv", "store", "-o", "secrets/kit")
    cage.run("key", "generate", "-vv", "-o", "secrets/generated")
    made = (folder / "secrets/generated").read_text().strip()
    cage.keep("generated", made, 14)
    cage.run("key", "passwd", "-vv", "app.db", BACKUP_ENCRYPTION_NEW_KEY_FILE="secrets/generated")
    cage.run("verify", "-vv", "store", "--level", "restore", BACKUP_ENCRYPTION_KEY=made)
    cage.run("ls", "-vv", "store", code=12)  # with the old key
    cage.run("ls", "-vv", "store", code=2, BACKUP_ENCRYPTION_KEY="")
    cage.run("replicate", "-vv", "app.db", "store", "--once", code=12)

    assert "proof_child.py" in b" ".join(cage.commands).decode(), "children are not looked at"
    digits = re.sub(r"\s", "", (folder / "secrets/kit").read_text())
    assert cage.environ["BACKUP_ENCRYPTION_KEY"] in digits
    assert {} == cage.leaked()


def test_nothing_gets_out_of_a_passphrase(cage: Cage) -> None:
    """One that is given by a command, and then a wrong one."""
    passphrase = cage.keep("passphrase", _letters(10) + " " + _letters(12) + '"é')
    cage.file("passphrase", passphrase + "\n")
    command_line = f"cat {cage.folder}/secrets/passphrase"
    environ = {"BACKUP_ENCRYPTION_KEY": "", "BACKUP_ENCRYPTION_PASSPHRASE_COMMAND": command_line}
    cage.run("replicate", "-vv", "app.db", "store", "--once", **environ)
    cage.run("key", "kit", "-vv", "store", **environ)  # it does not print a passphrase
    wrong = cage.keep("wrong passphrase", _letters(20))
    cage.run("ls", "-vv", "store", code=12, BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_PASSPHRASE=wrong)

    assert {} == cage.leaked()


def test_nothing_gets_out_where_s3_works(cage: Cage) -> None:
    """Encrypted, put there, read back, and refused with wrong keys, by a server of this machine."""
    with servers.seaweed() as server:
        cage.keep("S3 secret key of the server", servers.SECRET_KEY)
        environ = server.environ(BACKUP_S3_SESSION_TOKEN="", AWS_SESSION_TOKEN="")
        url = f"s3://{servers.BUCKET}/app"
        cage.run("replicate", "-vv", "app.db", url, "--once", **environ)
        cage.run("check", "-vv", "--store", url, **environ)
        cage.run("restore", "-vv", url, "-o", "out.db", **environ)
        wrong = {"BACKUP_S3_SECRET_KEY": cage.environ["AWS_SECRET_ACCESS_KEY"]}
        cage.run("ls", "-vv", url, code=16, **environ | wrong)
        store = s3.open_s3(url, server.environ())
        objects = {each.name: store.get(each.name) for each in store.list("")}
        cage.said += [name.encode() + content for name, content in objects.items()]

    assert len(objects) > 5
    assert {} == cage.leaked()


# --- mistakes with keys, in one process: there are many ------------------------------------------------


@pytest.fixture
def mistaken(
    cage: Cage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """The command line within this process, as talkative as it can be, with the canaries around it. It has to fail."""
    monkeypatch.chdir(cage.folder)
    for name, value in cage.environ.items():
        monkeypatch.setenv(name, value)

    def run_mistaken(*arguments: object, **environment: str) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = run(["-vv", *map(str, arguments)])
            shown = capsys.readouterr()
        cage.said += [shown.out.encode(errors="surrogateescape"), shown.err.encode(errors="surrogateescape")]
        assert code not in (0, 1), shown.err  # 1 would be a fault of the program
        return Done(code, shown.out, shown.err)

    return run_mistaken


def test_a_key_that_is_none_is_not_repeated(cage: Cage, mistaken: Callable[..., Done]) -> None:
    """Cut off, doubled, misspelt, a placeholder, in the wrong setting, in a file or a command that is not there."""
    (cage.folder / "store").mkdir()
    (cage.folder / "store/repository.json").write_text(
        '{"kind": "replicator-repository", "format": 1, "repository": "00112233445566778899aabbccddeeff",'
        ' "created": "2025", "features": ["sealed"]}'
    )
    shutil.copytree(cage.folder / "store", cage.folder / "keyed")
    key = cage.environ["BACKUP_ENCRYPTION_KEY"]
    for wrong in (
        key[:-1],
        key + key,
        key[:-1] + "g",
        key + ",",
        f"{key},{key[:40]}",
        key[:16] * 4,
        f'"{key}"',
    ):
        mistaken("ls", "store", BACKUP_ENCRYPTION_KEY=wrong)
    mistaken("ls", "store", BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_KEY_FILE=key)
    mistaken("ls", "store", BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_KEY_COMMAND=key)
    mistaken(
        "ls", "store", BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_KEY_COMMAND=f"sh -c 'echo {key}; exit 1'"
    )
    mistaken("ls", "store", BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_KEY_COMMAND=f"echo '{key}")
    mistaken("ls", "store", BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_PASSPHRASE=key[:11])
    mistaken("ls", "store", BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_PASSPHRASE=key + "\udcff")
    mistaken("ls", "store", BACKUP_ENCRYPTION_PASSPHRASE_FILE=key, BACKUP_ENCRYPTION_PASSPHRASE=key)
    mistaken("ls", "store", BACKUP_ENCRYPTION_KEY_FILE=cage.file("key", key))
    (cage.folder / "secrets/noise").write_bytes(key.encode() + b"\xff")
    mistaken(
        "ls", "store", BACKUP_ENCRYPTION_KEY="", BACKUP_ENCRYPTION_KEY_FILE=str(cage.folder / "secrets/noise")
    )
    for text in (
        f"encryption: {{key: {key}}}",
        f"encryption: {key}",
        f"encryption: [{key}]",
        f"encryption: {{key_file: {key}}}",
        f"encryption: {{key_file: [{key}]}}",
        f"encryption: {{key_command: {key}}}",
        f"encryption: {{passphrase: '{key}'}}",
        f"encryption:\n  key_file: x\n  key_command: 'echo {key}'",
        f"barrier: {key}",
        f"verification: {key}",
        f"encryption: {{key: '{key}",
        f"encryption: !!int {key}z",
        f"encryption: !!timestamp {key}",
    ):
        (cage.folder / "wrong.yml").write_text(f"databases: [{{path: app.db, stores: [store]}}]\n{text}\n")
        mistaken("ls", "app.db", "--config", "wrong.yml", BACKUP_ENCRYPTION_KEY="")
        (cage.folder / "wrong.yml").unlink()

    assert {} == cage.leaked()


def test_a_key_in_a_setting_of_something_else_is_not_repeated(
    cage: Cage, mistaken: Callable[..., Done]
) -> None:
    """One line slipped in a file of variables: no provider is called so, and no bucket, account or style."""
    key = cage.environ["BACKUP_ENCRYPTION_KEY"]
    spelt = base64.b64encode(bytes.fromhex(key)).decode()
    cage.keep("key in base64", spelt)
    (cage.folder / "replicator.yml").unlink(missing_ok=True)
    for text in (key, spelt):
        mistaken("check", BACKUP_STORAGE_PROVIDER=text)
        mistaken("check", BACKUP_STORAGE_PROVIDER="s3", BACKUP_S3_BUCKET=text)
        mistaken(
            "check", BACKUP_STORAGE_PROVIDER="s3", BACKUP_S3_BUCKET="bucket", BACKUP_S3_ADDRESSING_STYLE=text
        )
    mistaken("check", BACKUP_STORAGE_PROVIDER="gcs", BACKUP_GCS_BUCKET=key)
    mistaken("check", BACKUP_STORAGE_PROVIDER="azure", BACKUP_AZURE_ACCOUNT=key, BACKUP_AZURE_CONTAINER="c")
    mistaken("check", BACKUP_STORAGE_PROVIDER="azure", BACKUP_AZURE_ACCOUNT="acc", BACKUP_AZURE_CONTAINER=key)

    assert {} == cage.leaked()


def test_a_secret_in_a_url_is_not_repeated(cage: Cage, mistaken: Callable[..., Done]) -> None:
    """Where people put it, having seen it done elsewhere: before an at sign, behind a question mark, in an endpoint."""
    access, secret = cage.environ["BACKUP_S3_ACCESS_KEY"], cage.environ["BACKUP_S3_SECRET_KEY"]
    quoted, sas = quote(secret, safe=""), cage.environ["AZURE_SAS"]
    password = cage.canaries["SFTP password"].secret.decode()
    urls = [
        f"s3://{access}:{quoted}@bucket/app",
        f"s3://{access}:{secret}@bucket/app",
        f"s3://{access}:{quoted}",
        f"s3://{access}:{secret}/bucket",
        f"s3://bucket/app?X-Amz-Signature={quoted}",
        f"s3://bucket/app#{quoted}",
        f"s3://@{quoted}@bucket",
        f"gs://{quoted}@bucket/app",
        f"gs://bucket/app?X-Goog-Signature={quoted}",
        f"azure://account1/container?{sas}",
        f"azure://account1:{quoted}@account1/container",
        f"https://account1.blob.core.windows.net/container?{sas}",
        f"https://user:{quoted}@host.example/",
        f"http://user:{quoted}@[::1/x",
        f"sftp://user:{quote(password, safe='')}@host.example/folder",
        f"sftp://user:{password}@host.example/folder",
        f"sftp://user:{quote(password, safe='')}@host.example/folder?x",
        f"sftp:user:{quote(password, safe='')}@host.example",
        f"ftp://user:{quoted}@host.example/folder",
        f"file://user:{quoted}@host.example/folder",
        f"file:///folder?{quoted}",
        f"s3:{access}:{quoted}@bucket",
    ]
    for number, url in enumerate(urls):
        for text in (
            f"databases: [{{path: app.db, stores: [{json.dumps(url)}]}}]",
            f"databases: [{{path: app.db, stores: [{json.dumps(url)}, {json.dumps(url)}]}}]",
            f"databases: [{{path: app.db, stores: {json.dumps(url)}}}]",
            f"databases: [{{stores: [{json.dumps(url)}]}}]",
            f"databases: [{json.dumps(url)}]",
            f"databases: {json.dumps(url)}",
        ):
            (cage.folder / "secrets/wrong.yml").write_text(text)
            mistaken("config", "show", "--config", "secrets/wrong.yml")
        mistaken("replicate", "app.db", url, "--once")
        mistaken("ls", url)
        assert {} == cage.leaked(), (number, url)
        cage.said.clear()
    for endpoint in (
        f"http://{access}:{quoted}@127.0.0.1:1",
        f"http://127.0.0.1:1/?{quoted}",
        f"{access}:{quoted}",
    ):
        mistaken("ls", "s3://bucket/app", BACKUP_S3_ENDPOINT=endpoint)
        mistaken("ls", "azure://account1/container", BACKUP_AZURE_ENDPOINT=endpoint)
        mistaken("ls", "gs://bucket/app", STORAGE_EMULATOR_HOST=endpoint)

    assert {} == cage.leaked()


def test_a_secret_in_the_wrong_setting_is_not_repeated(cage: Cage, mistaken: Callable[..., Done]) -> None:
    """A value where the name of a file is wanted, half a key, a key where another is wanted, a profile that is torn."""
    secret = cage.environ["BACKUP_S3_SECRET_KEY"]
    google = (cage.folder / "secrets/google.json").read_text()
    azure_key = cage.canaries["Azure key"].secret.decode()
    password = cage.canaries["SFTP password"].secret.decode()
    (cage.folder / "secrets/profile").write_text(
        f"aws_secret_access_key = {secret}\n[default]\nnonsense {secret}\n"
    )
    (cage.folder / "secrets/google-torn.json").write_text(google[:-40])
    (cage.folder / "secrets/google-other.json").write_text(
        json.dumps({"private_key": json.loads(google)["private_key"]})
    )
    (cage.folder / "secrets/google-bad.json").write_text(google.replace("PRIVATE KEY", "KEY"))
    nothing_of_s3 = dict.fromkeys((name for name in cage.environ if "S3" in name or "AWS" in name), "")
    for environ in (
        {"BACKUP_S3_SECRET_KEY": "", "AWS_SECRET_ACCESS_KEY": "", "BACKUP_S3_SECRET_KEY_FILE": secret},
        {"BACKUP_S3_SECRET_KEY_FILE": "/" + secret},
        {"BACKUP_S3_SECRET_KEY": ""},
        {"S3_SECRET_KEY": secret[::-1]},
        {"BACKUP_S3_SECRET_KEY": secret + "\n"},
        {"BACKUP_S3_SECRET_KEY": secret + "é"},
        {"BACKUP_S3_REGION": secret},
        nothing_of_s3 | {"AWS_SHARED_CREDENTIALS_FILE": str(cage.folder / "secrets/profile")},
    ):
        mistaken("ls", "s3://bucket/app", **environ)
    for environ in (
        {"BACKUP_AZURE_ACCOUNT_KEY_FILE": azure_key},
        {"BACKUP_AZURE_ACCOUNT_KEY": azure_key[:-3]},
        {"BACKUP_AZURE_CONNECTION_STRING": azure_key},
        {"BACKUP_AZURE_CONNECTION_STRING": f"AccountName=other;AccountKey={azure_key}"},
        {"BACKUP_AZURE_ACCOUNT_KEY_FILE": "", "BACKUP_AZURE_SAS_TOKEN": azure_key},
        {"BACKUP_AZURE_CONNECTION_STRING_FILE": cage.environ["AZURE_CONNECTION"]},
    ):
        mistaken("ls", "azure://account1/container", **environ)
    for path in ("secrets/google-torn.json", "secrets/google-other.json", "secrets/google-bad.json", google):
        mistaken("ls", "gs://bucket/app", BACKUP_GCS_CREDENTIALS_FILE=path)
    (cage.folder / "home/.ssh").mkdir()
    for environ in (
        {"BACKUP_SFTP_PASSWORD_FILE": password},
        {"BACKUP_SFTP_PASSWORD": password},
        {"BACKUP_SFTP_KEY_FILE": password},
        {"BACKUP_SFTP_KEY_FILE": str(cage.folder / "secrets/google.json")},
        {"BACKUP_SFTP_KNOWN_HOSTS": password},
    ):
        mistaken("ls", "sftp://user@127.0.0.1:1/folder", **environ)

    assert {} == cage.leaked()


# --- stores elsewhere ----------------------------------------------------------------------------------

ELSEWHERE = (
    "s3://bucket/app",
    "gs://bucket/app",
    "azure://account1/container/app",
    "sftp://user@127.0.0.1:1/folder",
)


def test_a_store_that_is_away_is_told_of_without_its_secrets(cage: Cage) -> None:
    """Nobody listens there: the agent says so as loudly as it can, and in its status."""
    stores = ", ".join(json.dumps(each) for each in ELSEWHERE)
    (cage.folder / "replicator.yml").write_text(f"databases: [{{path: app.db, stores: [{stores}, store]}}]\n")
    (cage.folder / "secrets/sitecustomize.py").write_text(
        "from replicator.store import retry\nretry.ATTEMPTS, retry.FIRST_SECONDS = 2, 0.01"
    )
    environ = ENVIRONMENT | cage.environ
    environ["PYTHONPATH"] += f":{cage.folder}/secrets"  # where it is less patient
    process = subprocess.Popen(
        command("replicate", "-vv"), cwd=cage.folder, env=environ, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: len(errors_in(cage.folder / ".app.db-replicator/status.json")) == len(ELSEWHERE))
        (cage.folder / "told.json").write_bytes((cage.folder / ".app.db-replicator/status.json").read_bytes())
    finally:
        process.kill()
        cage.said += process.communicate()

    assert all(url.encode() in cage.said[-1] for url in ELSEWHERE)
    assert {} == cage.leaked()


def errors_in(status: Path) -> list[str]:
    try:
        return [each["url"] for each in json.loads(status.read_bytes())["stores"] if each["error"]]
    except (FileNotFoundError, ValueError):
        return []


def test_whoever_asks_a_store_that_is_away_gets_no_secrets(
    cage: Cage, mistaken: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every kind, with each kind of credentials."""
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.01)
    for url in ELSEWHERE:
        mistaken("ls", url)
        mistaken("check", "--json", "--store", url)
    no_key = {"BACKUP_AZURE_ACCOUNT_KEY_FILE": ""}
    mistaken("ls", ELSEWHERE[2], **no_key, BACKUP_AZURE_SAS_TOKEN=cage.environ["AZURE_SAS"])
    mistaken("ls", ELSEWHERE[2], **no_key, BACKUP_AZURE_CONNECTION_STRING=cage.environ["AZURE_CONNECTION"])

    assert {} == cage.leaked()


def test_a_server_that_repeats_what_it_was_sent_is_not_quoted(cage: Cage) -> None:
    """Its error holds the whole request, authorization, signature and token included, as proxies print it."""
    with servers.Answering() as server:
        handler = server._server.RequestHandlerClass
        inner = handler.parse_request

        def remember(self) -> bool:  # type: ignore[no-untyped-def]
            parsed = inner(self)
            told = "".join(f"{name}: {value}\n" for name, value in (self.headers or {}).items())
            told = f"<Error><Code>AccessDenied</Code><Message>{self.path}\n{told}</Message></Error>"
            server.answer = lambda _method, _path: (403, told)
            return parsed

        handler.parse_request = remember  # type: ignore[method-assign]
        google = json.loads((cage.folder / "secrets/google.json").read_text()) | {
            "token_uri": server.endpoint + "/token"
        }
        (cage.folder / "secrets/google.json").write_text(json.dumps(google))
        blob = f"{server.endpoint}/account1"
        environ = {"BACKUP_S3_ENDPOINT": server.endpoint, "BACKUP_AZURE_ENDPOINT": blob}
        cage.run("check", "-vv", "--store", "s3://bucket/app", code=16, **environ)
        cage.run("ls", "-vv", "gs://bucket/app", code=16, **environ)
        cage.run("ls", "-vv", "azure://account1/container", code=16, **environ)
        environ |= {"BACKUP_AZURE_ACCOUNT_KEY_FILE": "", "BACKUP_AZURE_SAS_TOKEN": cage.environ["AZURE_SAS"]}
        cage.run("ls", "-vv", "azure://account1/container", code=16, **environ)
        seen = len(server.seen)

    assert seen >= 4
    # What is signed with a secret is not the secret, but nobody needs it in a log either.
    assert not re.search(rb"(?i)authorization|x-amz-security-token|assertion=", b"".join(cage.said))
    assert {} == cage.leaked()


# --- values that print themselves ----------------------------------------------------------------------


def test_no_value_prints_a_secret(cage: Cage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, rings, logins, settings, stores and configurations, as a debugger or an assertion shows them."""
    for name, value in cage.environ.items():
        monkeypatch.setenv(name, value)
    source = KeySource(prefix="BACKUP_ENCRYPTION_")
    made = replicator_keys.new_ring("0" * 32, 1, secrets=[secrets.token_bytes(n) for n in (32, 32, 8, 8)])
    for each in (made.roots[0], made.dedup):
        cage.keep(f"root {each.key_id}", each.secret)
    slot = replicator_keys.wrapped(made, source.read())
    (cage.folder / "keys.json").write_bytes(slot)
    held = HeldKeys(source, str(cage.folder / "keys.json"))
    held.open()
    environ = {**cage.environ, "BACKUP_SFTP_PASSWORD": "", "BACKUP_S3_ENDPOINT": "http://127.0.0.1:1"}
    azure_store = azure.open_azure("azure://account1/container", environ)
    sas = environ | {"BACKUP_AZURE_ACCOUNT_KEY_FILE": "", "BACKUP_AZURE_SAS_TOKEN": environ["AZURE_SAS"]}
    values: list[object] = [
        source,
        *source.read(),
        parse_passphrase(cage.canaries["S3 secret key"].secret.decode(), "x"),
        made,
        held,
        held.ring(),
        replicator_keys.FixedKeys(made),
        s3_settings.read_settings("s3://bucket", environ),
        s3_settings.read_keys(environ),
        s3.open_s3("s3://bucket", environ),
        azure_store,
        azure_store._access,
        azure.open_azure("azure://account1/container", sas)._access,
        gcs.open_gcs("gs://bucket", environ),
        sftp.open_sftp("sftp://user@127.0.0.1/folder", environ),
        DatabaseConfig("app.db", ("store",), encryption=source),
    ]
    for each in values:
        shown = (
            f"{each!r} {each!s} {getattr(each, '__dict__', '')!r}"
            if "Settings" in type(each).__name__
            else f"{each!r} {each}"
        )
        cage.said.append(shown.encode())

    assert {} == cage.leaked()


# --- leaks that are planted ----------------------------------------------------------------------------

PLANTED = {
    "a log": "import sys, os; print(os.environ['BACKUP_ENCRYPTION_KEY'][:20][::-1], file=sys.stderr)",
    "a file": "import os; open(os.environ['TMPDIR'] + '/left', 'w').write(os.environ['BACKUP_S3_SECRET_KEY'][3:13])",
    "an argument": "import os, subprocess, sys\n"
    "if len(sys.orig_argv) > 2 and sys.orig_argv[1] != '-c':\n"
    "    subprocess.run([sys.executable, '-c', 'import time; time.sleep(0.3)', os.environ['BACKUP_S3_SESSION_TOKEN']])",
    "a name": "import os\n"
    "open(os.environ['TMPDIR'] + '/' + os.environ['BACKUP_SFTP_KEY_PASSPHRASE'].encode().hex(), 'w').close()",
}


@pytest.mark.parametrize("leak", PLANTED)
def test_a_planted_leak_is_found(cage: Cage, leak: str) -> None:
    """The same program with one line more that gives a secret away, each in a way of its own: it does not pass."""
    planted = cage.folder / "secrets/planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(PLANTED[leak])
    cage.run("ls", "-vv", "store", code=10, PYTHONPATH=f"{planted}:{ENVIRONMENT['PYTHONPATH']}")
    found = cage.leaked()

    assert 1 == len(set().union(*(out for out, _ in found.values())) - {"key", "key in base64"}), found


def test_the_search_reaches_every_kind_of_place(cage: Cage) -> None:
    """State folder, store, temporary folder and arguments are really in what is searched."""
    cage.run("replicate", "app.db", "store", "--once")
    places = cage.everything()

    assert {"store/repository.json", ".app.db-replicator/state.json", ".app.db-replicator/keys.json"} <= set(
        places
    )
    assert any(name.startswith("command") and b"replicate" in text for name, text in places.items())
    assert sys.executable.encode() in b"".join(cage.commands)
