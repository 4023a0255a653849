"""The command line over an encrypted repository: with the key as over any other, without it exit code 12."""

import hashlib
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.core.operator_key import OperatorKey
from tests.e2e.command import Done, leftovers, replicator, sql, write_board
from tests.support import oracle

KEY, PASSPHRASE = "BACKUP_ENCRYPTION_KEY", "BACKUP_ENCRYPTION_PASSPHRASE"
ONE, TWO = (hashlib.sha256(word).hexdigest() for word in (b"one", b"two"))
WORDS = "quartz harbour nineteen lanterns"


@dataclass(frozen=True)
class Vault:
    """A board and its encrypted store."""

    folder: Path
    digest: str

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def run(self, *arguments: object, key: str | None = ONE, **environ: str) -> Done:
        given = {} if key is None else {KEY: key}
        return replicator(*arguments, cwd=self.folder, **{**given, **environ})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    folder = tmp_path_factory.mktemp("vault")
    board = folder / "board.db"
    vault = Vault(folder, "")
    done = vault.run("replicate", board, "store", "--", *write_board(board, commits=20, rate=200))
    assert done.code == 0, done.err
    return Vault(folder, oracle.database_digest(board))


@pytest.fixture
def vault(made: Vault, tmp_path: Path) -> Vault:
    """A copy, to do anything to."""
    shutil.copytree(made.folder, tmp_path / "vault")
    return Vault(tmp_path / "vault", made.digest)


def test_with_the_key_all_is_as_without_encryption(vault: Vault) -> None:
    """Listed, shown, proved, and restored byte by byte; by a key in a file, a list of keys, or a command."""
    (vault.folder / "key").write_text(f"{TWO}\n{ONE}\n")
    environments = [{KEY: ONE}, {KEY: f"{TWO},{ONE}"}, {f"{KEY}_FILE": str(vault.folder / "key")}]
    for number, environ in enumerate([*environments, {f"{KEY}_COMMAND": f"echo {ONE}"}]):
        done = vault.run("restore", "store", "-o", f"{number}.db", key=None, **environ)
        assert done.code == 0, done.err
        assert vault.digest == oracle.database_digest(vault.folder / f"{number}.db")
    listing = vault.run("ls", "store", "--json")
    position = listing.json["window"]["newest"]["position"]

    assert 0 == listing.code
    assert 0 == vault.run("show", "store", position).code
    assert 0 == vault.run("verify", "store").code
    assert b"RPLSEAL" == next((vault.store / "tail").rglob("*.segment")).read_bytes()[:7]


READING = [
    ("ls", "store"),
    ("show", "store", "latest"),
    ("restore", "store", "-o", "out.db"),
    ("restore", "store", "--plan"),
    ("check", "--store", "store"),
    ("key", "list", "store"),
    ("key", "rotate", "store"),
    ("key", "rekey", "store", "-y"),
    ("key", "kit", "store"),
    ("replicate", "board.db", "store", "--once"),
]


@pytest.mark.parametrize("verb", READING, ids=" ".join)
@pytest.mark.parametrize("key", [TWO, None], ids=["wrong", "none"])
def test_without_the_key_it_is_12_everywhere(vault: Vault, verb: tuple[str, ...], key: str | None) -> None:
    """No verb reads, writes or leaves anything; the error says what is wanted, and shows nothing secret."""
    before = {path: path.read_bytes() for path in vault.store.rglob("*") if path.is_file()}
    files = leftovers(vault.folder)
    done = vault.run(*verb, key=key)

    assert 12 == done.code, done.err
    assert ONE not in done.out + done.err
    assert TWO not in done.out + done.err
    if verb[0] == "check":
        assert "FAIL" in done.out
    else:
        assert "error: " in done.err
        assert "" == done.out
    if verb[0] != "replicate":
        assert files == leftovers(vault.folder)
    assert before == {path: path.read_bytes() for path in vault.store.rglob("*") if path.is_file()}


def test_what_is_no_key_is_told_before_anything_is_done(vault: Vault) -> None:
    """A placeholder or half a key: exit code 2, with the setting and without the value."""
    for value in ("your-256-bit-encryption-key", "ab" * 32, ONE[:-1]):
        done = vault.run("ls", "store", key=value)
        assert 2 == done.code
        assert KEY in done.err
        assert value not in done.err


def checked(done: Done) -> list[tuple[str, str]]:
    return [(each["level"], each["message"]) for each in done.json["findings"]]


def test_check_says_whether_it_is_encrypted_and_by_what(vault: Vault) -> None:
    """A row for each store: the key that opens it and how old the ring's is, or that anybody can read it."""
    fingerprint = OperatorKey(bytes.fromhex(ONE)).fingerprint
    sealed = checked(vault.run("check", "--store", "store", "--json", key=f"{TWO},{ONE}"))
    (row,) = [message for _, message in sealed if message.startswith("encrypted: ")]
    assert re.fullmatch(
        rf"encrypted: opened by key {fingerprint}; key [0-9a-f]{{16}} seals what is new, 0 days old", row
    )
    new = checked(vault.run("check", "board.db", "new", "--json"))
    assert ("ok", f"encrypted, once it begins: opened by key {fingerprint}") in new
    sql(vault.folder / "app.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)")
    assert ("ok", "plain, once it begins: no key is given") in checked(
        vault.run("check", "app.db", "plain", "--json", key=None)
    )
    assert 0 == vault.run("replicate", "app.db", "plain", "--once", key=None).code
    plain = checked(vault.run("check", "app.db", "plain", "--json", key=None))
    assert ("ok", "plain: whoever can read the store can read the database") in plain


def test_check_warns_of_a_key_file_that_others_may_read(vault: Vault) -> None:
    """By its path and mode; not of one that is its owner's alone."""
    path = vault.folder / "the.key"
    path.write_text(ONE)
    found = {}
    for mode in (0o640, 0o600):
        path.chmod(mode)
        done = vault.run(
            "check", "--store", "store", "--json", key=None, BACKUP_ENCRYPTION_KEY_FILE=str(path)
        )
        found[mode] = [each for each in checked(done) if "key file" in each[1]]

    ((level, message),) = found[0o640]
    assert ("warn", True, True) == (level, str(path) in message, "(mode 0640)" in message)
    assert [] == found[0o600]


def test_the_kit_says_where_the_program_comes_from(vault: Vault) -> None:
    """From its source: no registry has it under that name. And with the key that opens the ring, not another one."""
    kit = vault.run("key", "kit", "store", key=f"{TWO},{ONE}").out

    assert "replicator[" not in kit
    assert "pip install '.[all]'" in kit
    assert OperatorKey(bytes.fromhex(ONE)).fingerprint in kit


def test_a_damaged_object_is_not_taken_for_a_wrong_key(vault: Vault) -> None:
    """One bit of the newest segment: 13, or the point before it; never other content."""
    newest = max((vault.store / "tail").rglob("*.segment"))
    content = bytearray(newest.read_bytes())
    content[80] ^= 1
    newest.write_bytes(content)
    done = vault.run("restore", "store", "-o", "out.db")

    assert 13 == done.code
    assert newest.name in done.err
    assert "out.db" not in leftovers(vault.folder)


def test_without_a_key_digests_are_still_looked_at(vault: Vault) -> None:
    """`verify` of a mirror finds damage with the digest of what is stored; it says that it saw no more."""
    arguments = ("verify", "store", "--level", "checksums")
    whole = vault.run(*arguments, key=None)
    segment = next((vault.store / "tail").rglob("*.segment"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    hurt = vault.run(*arguments, key=None)

    assert (0, 13) == (whole.code, hurt.code), whole.err
    assert "without the key" in whole.err
    assert segment.name in hurt.out
    assert 12 == vault.run("verify", "store", key=None).code


def test_a_passphrase_is_as_good_as_a_key(tmp_path: Path) -> None:
    """It encrypts, opens, and is refused where it is another."""
    vault = Vault(tmp_path, "")
    sql(tmp_path / "app.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)")
    done = vault.run("replicate", "app.db", "store", "--once", key=None, **{PASSPHRASE: WORDS})
    right = vault.run("restore", "store", "-o", "out.db", key=None, **{PASSPHRASE: WORDS})
    wrong = vault.run("restore", "store", "-o", "no.db", key=None, **{PASSPHRASE: WORDS + "!"})

    assert (0, 0, 12) == (done.code, right.code, wrong.code), right.err
    assert oracle.database_digest(tmp_path / "app.db") == oracle.database_digest(tmp_path / "out.db")
    assert WORDS not in done.err + right.err + wrong.err


def test_a_key_is_generated_for_the_setting(tmp_path: Path) -> None:
    """64 hexadecimal digits, another each time; into a file that nobody else can read, and none that is there."""
    vault = Vault(tmp_path, "")
    one, two = (vault.run("key", "generate", key=None) for _ in range(2))
    into = vault.run("key", "generate", "-o", "the.key", key=None)
    written = (tmp_path / "the.key").read_text()
    again = vault.run("key", "generate", "-o", "the.key", key=None)

    assert (0, 0, 0) == (one.code, two.code, into.code)
    assert re.fullmatch(r"[0-9a-f]{64}\n", one.out)
    assert one.out != two.out
    assert re.fullmatch(r"[0-9a-f]{64}\n", written)
    assert written.strip() not in into.out + into.err
    assert 0o600 == stat.S_IMODE((tmp_path / "the.key").stat().st_mode)
    assert 0 != again.code
    assert written == (tmp_path / "the.key").read_text()


def test_rotated_rekeyed_and_given_another_key_it_is_the_same_database(vault: Vault) -> None:
    """One after the other; in the end the old operator's key opens nothing, and the new one everything."""
    rotated = vault.run("key", "rotate", "store")
    listed = vault.run("key", "list", "store", "--usage", "--json")
    assert (0, 2) == (rotated.code, len(listed.json["keys"])), rotated.err
    changed = vault.run("key", "passwd", "store", BACKUP_ENCRYPTION_NEW_KEY=TWO)
    assert 0 == changed.code, changed.err
    assert 12 == vault.run("ls", "store").code
    rekeyed = vault.run("key", "rekey", "store", "-y", key=TWO)
    assert rekeyed.code in (0, 3), rekeyed.err
    usage = vault.run("key", "list", "store", "--usage", "--json", key=TWO).json
    (active,) = [each for each in usage["keys"] if each["active"]]
    others = [each for each in usage["keys"] if not each["active"]]
    done = vault.run("restore", "store", "-o", "out.db", key=TWO)

    assert 0 == done.code, done.err
    assert vault.digest == oracle.database_digest(vault.folder / "out.db")
    assert all(count > 0 for count in active["objects"].values())
    assert all(count == 0 for each in others for count in each["objects"].values())
    assert not [path for path in (vault.store / "tail").rglob("*.segment") if ".r2." not in path.name]


def test_s99_a_key_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    """The printed placeholder: nothing says afterwards that the repository is encrypted, or that there is one."""
    vault = Vault(tmp_path, "")
    sql(tmp_path / "app.db", "PRAGMA journal_mode = wal", "CREATE TABLE t (x)")
    placeholder = "your-256-bit-encryption-key"
    before = leftovers(tmp_path)
    refused = vault.run("replicate", "app.db", "store", "--once", key=placeholder)
    left = leftovers(tmp_path)
    plain = vault.run("replicate", "app.db", "store", "--once", key=None)

    assert 2 == refused.code, refused.err
    assert "BACKUP_ENCRYPTION_KEY is not a key" in refused.err
    assert before == left
    assert 0 == plain.code, plain.err


@pytest.mark.parametrize(
    "verb", [("check", "app.db", "store"), ("check", "--store", "store"), ("config", "show")]
)
def test_s99_a_key_that_is_refused_is_told_by_whoever_checks(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """Before it matters; with 2, as where it matters."""
    vault = Vault(tmp_path, "")
    sql(tmp_path / "app.db", "PRAGMA journal_mode = wal", "CREATE TABLE t (x)")
    (tmp_path / "replicator.yml").write_text("databases:\n  - {path: app.db, stores: [store]}\n")
    done = vault.run(*verb, key="your-256-bit-encryption-key")
    good = vault.run(*verb)

    assert 2 == done.code, done.out + done.err
    assert "BACKUP_ENCRYPTION_KEY is not a key" in done.out + done.err
    assert 0 == good.code, good.out + good.err
