"""Keys: where the operator's comes from, and the ring of a database, made once, kept, shared, rotated and refused."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from replicator import keys as keys_module
from replicator.config import load_config
from replicator.core.errors import ConfigError, KeyRefused, ObjectCorrupt, StoreDenied, StoreUnavailable
from replicator.core.key_ring import KeyRing, new_ring, rotated, wrap
from replicator.core.operator_key import OperatorKey
from replicator.core.records import RepositoryRecord, decode_repository, encode_record
from replicator.enlist import enlist
from replicator.key_change import KeyHolders, begin_rekey, change_operator_key, rotate
from replicator.keys import KEY, PASSPHRASE, HeldKeys, KeySource, keep_slot, kept_slot
from replicator.rekey import Rekeyed, keys_in_use, rekey
from replicator.slots import ring_in
from replicator.state import StateFolder
from replicator.store import Store
from replicator.store.sealed import SealedStore
from tests.support.memory_store import FakeClock, FaultyStore, MemoryStore

ONE, TWO, THREE = (hashlib.sha256(word).hexdigest() for word in (b"one", b"two", b"three"))
WORDS = "quartz harbour nineteen lanterns"


def secrets_of(source: KeySource) -> list[str]:
    return [key.secret.decode() if key.passphrase else key.secret.hex() for key in source.read()]


# --- where the operator's key is read from -------------------------------------------------------------


def printing(text: str) -> str:
    """A command that prints *text*."""
    return shlex.join([sys.executable, "-c", f"print({text!r})"])


@pytest.mark.parametrize("setting", [KEY, PASSPHRASE])
def test_s24_a_key_is_a_setting_or_in_a_file_or_what_a_command_prints(tmp_path: Path, setting: str) -> None:
    """The same key, wherever it comes from; a line end behind it is not part of it."""
    text = ONE if setting == KEY else WORDS
    path = tmp_path / "the key"
    path.write_text(text + "\n")
    environments: list[dict[str, str]] = [
        {setting: text},
        {f"{setting}_FILE": str(path)},
        {f"{setting}_COMMAND": printing(text)},
    ]
    for environ in environments:
        source = KeySource(environ)
        assert source.configured
        assert [text] == secrets_of(source)
        assert [setting == PASSPHRASE] == [key.passphrase for key in source.read()]


def test_s24_several_keys_stand_in_a_list() -> None:
    """While one replaces the other: the first wraps, all open. Commas, blanks or line ends between them."""
    for between in (",", ", ", "\n", " ", ",\n"):
        assert [ONE, TWO, THREE] == secrets_of(KeySource({KEY: between.join([ONE, TWO, THREE])}))
    assert [ONE, TWO, WORDS] == secrets_of(KeySource({KEY: f"{ONE},{TWO}", PASSPHRASE: WORDS}))
    assert [WORDS + ", more"] == secrets_of(KeySource({PASSPHRASE: WORDS + ", more"}))


@pytest.mark.parametrize("first", ["", "_FILE", "_COMMAND"])
@pytest.mark.parametrize("second", ["", "_FILE", "_COMMAND"])
@pytest.mark.parametrize("setting", [KEY, PASSPHRASE])
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, setting: str, first: str, second: str) -> None:
    """Nobody can say which one was meant; the error names the three settings, and no value."""
    if first == second:
        return
    values = {"": ONE, "_FILE": str(tmp_path / "key"), "_COMMAND": "echo"}
    (tmp_path / "key").write_text(ONE)
    environ = {setting + each: values[each] for each in (first, second)}
    with pytest.raises(ConfigError, match=f"{setting} is given twice") as caught:
        KeySource(environ).read()

    assert ONE not in str(caught.value) + str(caught.value.hint)


def test_without_a_key_nothing_is_configured() -> None:
    """Nor by what is about keys, and gives none."""
    assert not KeySource({}).configured
    assert not KeySource(
        {"BACKUP_ENCRYPT": "true", "BACKUP_KEY_MAX_AGE_DAYS": "90", "ENCRYPTION_KEY": ""}
    ).configured


@pytest.mark.parametrize("end", ["", "_FILE", "_COMMAND"])
@pytest.mark.parametrize("setting", [KEY, PASSPHRASE])
def test_a_setting_that_is_there_and_empty_is_refused(setting: str, end: str) -> None:
    """A variable that was never filled in gives it so, and somebody wants encryption: it is not gone on without; unless
    another setting gives a key."""
    with pytest.raises(ConfigError, match=f"{setting}{end} is set and empty") as caught:
        assert KeySource({setting + end: ""}).configured
    assert 2 == caught.value.exit_code

    other = PASSPHRASE if setting == KEY else KEY
    assert KeySource({setting + end: "", f"{other}_FILE": "words"}).configured
    assert KeySource({setting + end: ""}, key_file="key").configured


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("BACKUP_ENCRYPTION_KEYFILE", "BACKUP_ENCRYPTION_KEY_FILE"),
        ("BACKUP_ENCRYPTON_KEY", "BACKUP_ENCRYPTION_KEY"),
        ("BACKUP_ENCYRPTION_KEY", "BACKUP_ENCRYPTION_KEY"),
        ("BACKUP_ENCRYPTION_PASSPHRASEFILE", "BACKUP_ENCRYPTION_PASSPHRASE_FILE"),
        ("BACKUP_ENCRYPTION", "BACKUP_ENCRYPTION_KEY"),
        ("BACKUP_ENCRYPTION_ENABLED", "BACKUP_ENCRYPTION_KEY"),
        ("backup_encryption_key", "BACKUP_ENCRYPTION_KEY"),
        ("BACKUPS_ENCRYPTION_KEY", "BACKUP_ENCRYPTION_KEY"),
    ],
)
def test_a_misspelt_setting_is_refused(name: str, near: str) -> None:
    """With the one that was meant, as far as anybody can tell; a key beside it makes it no better."""
    for environ in ({name: ONE}, {name: ""}, {name: "true", KEY: ONE}):
        with pytest.raises(ConfigError, match=f"{name} is no setting") as caught:
            assert KeySource(environ).configured
        assert near in str(caught.value.hint)
        assert ONE not in str(caught.value) + str(caught.value.hint)


@pytest.mark.parametrize("text", [" ", ",", "\n", ", ,"])
def test_a_setting_that_holds_no_key_is_refused(text: str) -> None:
    """It is set, so somebody wants encryption: it is not gone on without."""
    source = KeySource({KEY: text})
    assert source.configured
    with pytest.raises(ConfigError, match=f"{KEY} holds no key"):
        source.read()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({KEY: "your-256-bit-encryption-key"}, f"{KEY} is not a key"),
        ({KEY: f"{ONE},{TWO[:-1]}"}, f"{KEY} is not a key"),
        ({KEY: "ab" * 32}, f"{KEY} is a placeholder"),
        ({PASSPHRASE: "few words"}, f"{PASSPHRASE} is too short"),
    ],
)
def test_what_is_no_key_is_refused_with_its_setting(environ: dict[str, str], message: str) -> None:
    """And never with its value."""
    with pytest.raises(ConfigError, match=message) as caught:
        KeySource(environ).read()

    assert all(value not in str(caught.value) + str(caught.value.hint) for value in environ.values())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, no text: its path is told, and what is in it is not; of one that is missing only the folder,
    for a key in the place of a path is missing, too."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe" + b"secret")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    malformed = tmp_path / "malformed"
    malformed.write_text(ONE[:-1])
    for path, message in (
        (tmp_path / "missing", "cannot read the key file .*/…: No such file"),
        (tmp_path, "cannot read the key file .*: Is a directory"),
        (binary, "cannot read the key file .*binary: it is not text"),
        (empty, f"{KEY} holds no key"),
        (malformed, f"{KEY} in .*malformed is not a key"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            KeySource({f"{KEY}_FILE": str(path)}).read()
        assert "secret" not in str(caught.value)
        assert ONE[:-1] not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nonexistent/command", "FileNotFoundError"),
        (shlex.join([sys.executable, "-c", f"print({ONE!r}); raise SystemExit(1)"]), "CalledProcessError"),
        (
            shlex.join([sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'\\xff')"]),
            "UnicodeDecodeError",
        ),
        ("'unbalanced", "ValueError"),
    ],
)
def test_a_command_that_fails_says_so_and_shows_nothing(command: str, reason: str) -> None:
    """Whatever it printed may be a key: neither the error nor what it came from holds it."""
    with pytest.raises(ConfigError, match=f"the command of {KEY} failed: {reason}") as caught:
        KeySource({f"{KEY}_COMMAND": command}).read()

    assert ONE not in f"{caught.value} {caught.value.hint} {caught.value.__cause__!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_command_has_nothing_to_read() -> None:
    """What is typed, or piped, into the agent is not for it: one that asks for a password fails at once."""
    asks = shlex.join([sys.executable, "-c", f"input(); print({ONE!r})"])
    reading, writing = os.pipe()
    kept = os.dup(0)
    os.write(writing, b"a line\nanother\n")
    os.dup2(reading, 0)
    try:
        with pytest.raises(ConfigError, match="CalledProcessError"):
            KeySource({f"{KEY}_COMMAND": asks}).read()
    finally:
        os.dup2(kept, 0)
        for fd in (reading, writing, kept):
            os.close(fd)


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vault that does not answer must not keep an agent from saying so."""
    monkeypatch.setattr(keys_module, "COMMAND_SECONDS", 0.2)
    with pytest.raises(ConfigError, match="failed: TimeoutExpired"):
        KeySource(
            {f"{KEY}_COMMAND": shlex.join([sys.executable, "-c", "import time; time.sleep(30)"])}
        ).read()


def test_a_command_is_no_shell(tmp_path: Path) -> None:
    """Its words are taken as they stand: what a shell would make of them is not wanted here."""
    target = tmp_path / "made"
    with pytest.raises(ConfigError):
        KeySource({f"{KEY}_COMMAND": f"echo {ONE} ; touch {target}"}).read()

    assert not target.exists()


def test_nothing_that_is_printed_of_a_source_shows_the_key() -> None:
    """Neither environment nor what was read of it."""
    source = KeySource({KEY: ONE, PASSPHRASE: WORDS})
    shown = f"{source!r} {source} {source.read()!r}"

    assert ONE not in shown
    assert WORDS not in shown


# --- in a configuration --------------------------------------------------------------------------------


def configured(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, **environ: str) -> list[KeySource]:
    for name in (KEY, PASSPHRASE):
        for ending in ("", "_FILE", "_COMMAND"):
            monkeypatch.delenv(name + ending, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "replicator.yml"
    path.write_text(text)
    return [each.encryption for each in load_config(str(path)).databases]


def test_a_configuration_names_where_the_key_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all databases or for one; a path is relative to the configuration; the environment wins over it."""
    (tmp_path / "a.key").write_text(ONE)
    text = (
        f"encryption: {{key_file: a.key}}\n"
        f"databases:\n"
        f"- {{path: a.db, stores: [a]}}\n"
        f"- {{path: b.db, stores: [b], encryption: {{key_command: {json.dumps(printing(TWO))}}}}}\n"
        f"- {{path: c.db, stores: [c], encryption: {{passphrase_command: {json.dumps(printing(WORDS))}}}}}\n"
        f"- {{path: d.db, stores: [d], encryption: {{}}}}\n"
    )
    found = configured(tmp_path, text, monkeypatch)

    assert [[ONE], [TWO], [WORDS]] == [secrets_of(each) for each in found[:3]]
    assert [True, True, True, False] == [each.configured for each in found]
    found = configured(tmp_path, text, monkeypatch, **{KEY: THREE})
    assert [[THREE], [THREE], [THREE, WORDS], [THREE]] == [secrets_of(each) for each in found]


@pytest.mark.parametrize(
    ("encryption", "message"),
    [
        (f"{{key: {ONE}}}", r"unknown (setting|key) 'key'"),
        (ONE, "`encryption` is no mapping"),
        (f"[{ONE}]", "`encryption` is no mapping"),
        ("true", "`encryption` is no mapping"),
        ("{key_file: 5}", "`encryption` is no mapping"),
        ("{key_file: ''}", "`encryption` is no mapping"),
        ("{key_file: [a]}", "`encryption` is no mapping"),
        ("{key_file: a, key_command: b}", "`key_file` and `key_command` are both given"),
        (
            "{passphrase_file: a, passphrase_command: b}",
            "`passphrase_file` and `passphrase_command` are both given",
        ),
        ("{keyfile: a}", r"unknown (setting|key) 'keyfile'"),
    ],
)
def test_a_key_in_a_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encryption: str, message: str
) -> None:
    """Only where it lies may stand there; the error shows no value."""
    text = f"encryption: {encryption}\ndatabases:\n- {{path: a.db, stores: [a]}}\n"
    with pytest.raises(ConfigError, match=message) as caught:
        configured(tmp_path, text, monkeypatch)

    assert ONE not in str(caught.value) + str(caught.value.hint)


# --- the ring of a database ----------------------------------------------------------------------------

SEALED = RepositoryRecord("ab" * 16, "2025-01-28T06:00:00Z", ("sealed",))
PLAIN = RepositoryRecord("ab" * 16, "2025-01-28T06:00:00Z")
LEASE = "leases/00000001.json"


def source(*keys: str) -> KeySource:
    return KeySource({KEY: ",".join(keys)} if keys else {})


def held(folder: Path, *keys: str, name: str = "keys.json") -> HeldKeys:
    return HeldKeys(source(*keys), str(folder / name))


def wall() -> int:
    return 1_738_044_000_000_000


def agreed(folder: Path, store: Store, *keys: str, name: str = "keys.json") -> HeldKeys:
    """As an agent at its start: what it kept, then what the store has, then its first sealed object."""
    found = held(folder, *keys, name=name)
    found.open()
    found.agree(store, SEALED, wall)
    return found


def ring_of(keys: HeldKeys) -> KeyRing:
    ring = keys.ring()
    assert ring is not None
    return ring


def put(store: Store, keys: HeldKeys, name: str = LEASE, data: bytes = b"content") -> None:
    SealedStore(store, keys).put(name, data)


def test_the_first_ring_is_made_once_and_kept(tmp_path: Path) -> None:
    """Drawn at random for this repository, kept before anything is sealed, and the same at every start."""
    store = MemoryStore()
    first = agreed(tmp_path, store, ONE)
    ring = ring_of(first)
    kept = (tmp_path / "keys.json").read_bytes()
    put(store, first)
    again = agreed(tmp_path, store, ONE)

    assert (SEALED.repository, 1, 1) == (ring.repository, ring.number, len(ring.roots))
    assert wall() == ring.active.created == ring.dedup.created
    assert ring.active.secret != ring.dedup.secret
    assert ring == ring_of(again)
    assert kept == (tmp_path / "keys.json").read_bytes() == store.get("keys/00000001.json")
    assert ring.dedup == again.dedup()
    assert ring != ring_of(agreed(tmp_path, MemoryStore(), ONE, name="another.json"))


def test_the_kept_slot_is_for_nobody_else(tmp_path: Path) -> None:
    """It holds no secret in clear, and others have no business in it all the same."""
    agreed(tmp_path, MemoryStore(), ONE)

    assert 0 == stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) & 0o077


def test_many_threads_make_one_ring(tmp_path: Path) -> None:
    """Threads: each store is agreed with in its own, all at once, and all come to have the same slot."""
    for turn in range(5):
        keys = held(tmp_path, ONE, name=f"{turn}.json")
        keys.open()
        stores = [MemoryStore(f"memory://{number}") for number in range(4)]
        ready = threading.Barrier(4)

        def begin(store: MemoryStore, keys: HeldKeys = keys, ready: threading.Barrier = ready) -> None:
            ready.wait()
            keys.agree(store, SEALED, wall)
            put(store, keys)

        threads = [threading.Thread(target=begin, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert {(tmp_path / f"{turn}.json").read_bytes()} == {
            store.get("keys/00000001.json") for store in stores
        }


def test_a_lost_state_folder_takes_the_ring_from_a_store(tmp_path: Path) -> None:
    """What is sealed from then on has the same key as before, and chunks the same hashes."""
    store = MemoryStore()
    first = agreed(tmp_path, store, ONE)
    put(store, first)
    again = agreed(tmp_path, store, ONE, name="another.json")

    assert ring_of(first) == ring_of(again)
    assert (tmp_path / "keys.json").read_bytes() == (tmp_path / "another.json").read_bytes()
    assert b"content" == SealedStore(store, again).get(LEASE)


def test_a_lost_state_folder_beside_lost_slots_makes_no_new_ring(tmp_path: Path) -> None:
    """What lies there could not be opened any more, and an agent that writes under another ring would hide that."""
    store = MemoryStore()
    put(store, agreed(tmp_path, store, ONE))
    store.delete("keys/00000001.json")
    with pytest.raises(KeyRefused, match="its key slots are gone, and the state folder knows no ring"):
        agreed(tmp_path, store, ONE, name="another.json")

    assert not (tmp_path / "another.json").exists()


def test_lost_slots_are_put_back_by_who_has_the_ring(tmp_path: Path) -> None:
    """Before the next object is."""
    store = MemoryStore()
    put(store, agreed(tmp_path, store, ONE))
    store.delete("keys/00000001.json")
    put(store, agreed(tmp_path, store, ONE), "leases/00000002.json")

    assert [LEASE, "leases/00000002.json"] == [each.name for each in store.list("leases/")]
    assert (tmp_path / "keys.json").read_bytes() == store.get("keys/00000001.json")


def test_a_ring_is_not_known_before_a_store_answered(tmp_path: Path) -> None:
    """Nothing is sealed with a guess, and nothing goes out plain."""
    keys = held(tmp_path, ONE)
    keys.open()
    store = MemoryStore()
    for ask in (keys.ring, keys.dedup, lambda: put(store, keys)):
        with pytest.raises(StoreUnavailable, match="not known yet"):
            ask()

    assert [] == store.names
    assert keys.newest() is None


def test_without_a_key_there_is_no_ring(tmp_path: Path) -> None:
    """A plain repository is agreed with by saying nothing."""
    keys = held(tmp_path)
    keys.open()
    store = MemoryStore()
    keys.agree(store, PLAIN, wall)

    assert (False, None, None, None) == (keys.configured, keys.ring(), keys.slot(), keys.dedup())
    assert [] == list(tmp_path.iterdir())
    assert [] == store.names


# --- rotation beside a running agent -------------------------------------------------------------------


def test_a_rotation_beside_a_running_agent_is_noticed(tmp_path: Path) -> None:
    """It looks now and then: what is new is sealed with the new root, behind its slot."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    put(store, keys)
    before = ring_of(keys)
    keys.look()
    assert before == ring_of(keys)
    after = rotate(KeyHolders([store], source(ONE), str(tmp_path / "keys.json")), wall() + 1)
    assert before == ring_of(keys)
    keys.look()
    put(store, keys, "leases/00000002.json")

    assert (1, 2) == (before.number, after.number)
    assert after == ring_of(keys)
    assert (2, wall() + 1) == keys.newest()
    assert before.dedup == keys.dedup()
    sealed = SealedStore(store, keys)
    assert [before.active.key_id, after.active.key_id] == [
        sealed.key_of(f"leases/0000000{number}.json") for number in (1, 2)
    ]
    assert ["keys/00000001.json", LEASE, "keys/00000002.json", "leases/00000002.json"] == store.puts


def test_who_meets_an_unknown_key_looks_at_once(tmp_path: Path) -> None:
    """Another agent of the same folder, or a person, rotated and sealed something: it is not taken for damage."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    put(store, keys)
    sealed = SealedStore(store, keys)
    rotate(KeyHolders([store], source(ONE), str(tmp_path / "keys.json")), wall())
    put(store, agreed(tmp_path, store, ONE), "leases/00000002.json", b"later")

    assert b"later" == sealed.get("leases/00000002.json")


def test_a_rotation_elsewhere_is_taken_up_at_the_next_start(tmp_path: Path) -> None:
    """The store's ring has ours in it, and a higher number: it is kept here from then on."""
    store = MemoryStore()
    put(store, agreed(tmp_path, store, ONE))
    after = rotate(KeyHolders([store], source(ONE)), wall())
    keys = held(tmp_path, ONE)
    keys.open()
    assert 1 == ring_of(keys).number
    keys.agree(store, SEALED, wall)

    assert after == ring_of(keys)
    assert store.get("keys/00000002.json") == (tmp_path / "keys.json").read_bytes()


def test_a_store_that_missed_a_rotation_gets_its_slot(tmp_path: Path) -> None:
    """It was away: its ring is older than ours, and the new slot is there before anything that needs it."""
    one, two = MemoryStore("memory://one"), MemoryStore("memory://two")
    keys = agreed(tmp_path, one, ONE)
    keys.agree(two, SEALED, wall)
    for store in (one, two):
        put(store, keys)
    rotate(KeyHolders([one], source(ONE), str(tmp_path / "keys.json")), wall())
    again = agreed(tmp_path, one, ONE)
    again.agree(two, SEALED, wall)
    put(two, again, "leases/00000002.json")

    assert one.get("keys/00000002.json") == two.get("keys/00000002.json")
    assert two.puts.index("keys/00000002.json") < two.puts.index("leases/00000002.json")


def test_what_cannot_be_read_beside_changes_nothing(tmp_path: Path) -> None:
    """A slot for another key, or half a file: told once, and the agent goes on with the ring it has."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    before = ring_of(keys)
    path = tmp_path / "keys.json"
    for content, error in (
        (b"{", ObjectCorrupt),
        (wrap(before, [OperatorKey(bytes.fromhex(TWO))], [bytes(32)]), KeyRefused),
    ):
        keep_slot(str(path), content)
        with pytest.raises(error):
            keys.look()
        keys.look()
        assert before == ring_of(keys)
    path.unlink()
    keys.look()
    put(store, keys)

    assert before == ring_of(keys)


def test_an_older_ring_beside_is_not_taken_up(tmp_path: Path) -> None:
    """A state folder that was put back from a copy does not take roots away from a running agent."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    put(store, keys)
    old = (tmp_path / "keys.json").read_bytes()
    rotate(KeyHolders([store], source(ONE), str(tmp_path / "keys.json")), wall())
    keys.look()
    keep_slot(str(tmp_path / "keys.json"), old)
    keys.look()

    assert 2 == ring_of(keys).number


def test_another_key_of_the_operators_opens_the_same_ring(tmp_path: Path) -> None:
    """Afterwards the old one opens nothing, and with both in a list an agent runs before and after."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    put(store, keys)
    holders = KeyHolders([store], source(ONE), str(tmp_path / "keys.json"))
    both = agreed(tmp_path, store, ONE, TWO)
    ring, kept = change_operator_key(holders, source(TWO))

    assert replace(ring_of(keys), number=2) == ring
    assert [] == kept
    both.look()
    assert ring == ring_of(both)
    assert ring == ring_of(agreed(tmp_path, store, TWO))
    with pytest.raises(KeyRefused) as caught:
        agreed(tmp_path, store, ONE)
    assert 12 == caught.value.exit_code
    with pytest.raises(KeyRefused):
        agreed(tmp_path, store, ONE, name="another.json")
    assert ["keys/00000002.json"] == [each.name for each in store.list("keys/")]


@pytest.mark.parametrize("change", [rotate, begin_rekey])
def test_a_key_that_was_replaced_is_not_let_in_again(
    tmp_path: Path, change: Callable[[KeyHolders, int], KeyRing]
) -> None:
    """Both stand in the setting while one replaces the other, in any order: the next ring is for the new one alone."""
    store = MemoryStore()
    put(store, agreed(tmp_path, store, ONE))
    path = str(tmp_path / "keys.json")
    change_operator_key(KeyHolders([store], source(ONE), path), source(TWO))
    ring = change(KeyHolders([store], source(ONE, TWO), path), wall())

    assert ring == ring_of(agreed(tmp_path, store, TWO))
    with pytest.raises(KeyRefused):
        agreed(tmp_path, store, ONE)


def test_a_repository_of_a_passphrase_stays_so_beside_a_key(tmp_path: Path) -> None:
    """A key that opens nothing there is set for something else: the passphrase opens the next ring, and it does not."""
    store = MemoryStore()
    words, both = KeySource({PASSPHRASE: WORDS}), KeySource({KEY: ONE, PASSPHRASE: WORDS})
    keys = HeldKeys(words, str(tmp_path / "keys.json"))
    keys.agree(store, SEALED, wall)
    put(store, keys)
    ring = rotate(KeyHolders([store], both), wall())

    found = ring_in(store, words.read())
    assert found is not None
    assert ring == found[0]
    assert ["passphrase"] == [each["by"] for each in json.loads(found[1])["wraps"]]
    assert WORDS == KeyHolders([store], both).openers()[0].secret.decode()


def test_a_ring_that_two_keys_open_is_opened_by_both_after_a_rotation(tmp_path: Path) -> None:
    """Whoever has either goes on."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    both = source(ONE, TWO).read()
    store.put("keys/00000002.json", keys_module.wrapped(replace(ring_of(keys), number=2), both))
    ring = rotate(KeyHolders([store], source(THREE, TWO, ONE, ONE)), wall())

    assert [ring] * 2 == [ring_of(agreed(tmp_path, store, key, name=f"{key}.json")) for key in (ONE, TWO)]
    with pytest.raises(KeyRefused):
        agreed(tmp_path, store, THREE, name="three.json")


# --- stores that were mixed up -------------------------------------------------------------------------

OTHER = RepositoryRecord("cd" * 16, "2025-01-28T06:00:00Z", ("sealed",))


def stored(folder: Path, record: RepositoryRecord, name: str) -> MemoryStore:
    """A store of an encrypted repository, whose ring is kept in *name*.json."""
    store = MemoryStore(f"memory://{name}")
    store.put("repository.json", encode_record(record))
    keys = held(folder, ONE, name=f"{name}.json")
    keys.agree(store, record, wall)
    put(store, keys)
    return store


@pytest.mark.parametrize(
    "change",
    [
        lambda holders: rotate(holders, wall()),
        lambda holders: begin_rekey(holders, wall()),
        lambda holders: change_operator_key(holders, source(TWO)),
    ],
    ids=["rotate", "rekey", "passwd"],
)
@pytest.mark.parametrize("mixed", ["store", "state", "slot", "record"])
def test_a_ring_is_not_put_among_those_of_another_repository(
    tmp_path: Path, mixed: str, change: Callable[[KeyHolders], object]
) -> None:
    """The folders of two databases were exchanged, or what lies in them: refused by name, and nothing is touched."""
    ours, theirs = stored(tmp_path, SEALED, "ours"), stored(tmp_path, OTHER, "theirs")
    rotate(KeyHolders([theirs], source(ONE)), wall())
    stores, path = [ours], "ours.json"
    if mixed == "store":
        stores = [ours, theirs]
    elif mixed == "state":
        path = "theirs.json"
    elif mixed == "slot":
        ours.put("keys/00000002.json", theirs.get("keys/00000002.json"))
    else:
        ours.damage("repository.json", lambda _: encode_record(OTHER))
    before = [{name: store.get(name) for name in store.names} for store in (ours, theirs)]
    kept = (tmp_path / path).read_bytes()
    with pytest.raises(KeyRefused, match="of different repositories") as caught:
        change(KeyHolders(stores, source(ONE), str(tmp_path / path)))

    assert SEALED.repository in str(caught.value)
    assert OTHER.repository in str(caught.value)
    assert before == [{name: store.get(name) for name in store.names} for store in (ours, theirs)]
    assert kept == (tmp_path / path).read_bytes()


# --- broken off between two stores ---------------------------------------------------------------------


@pytest.fixture
def two_stores(tmp_path: Path) -> tuple[MemoryStore, MemoryStore]:
    """Of one database, whose ring is kept in keys.json; an object in each."""
    one, two = MemoryStore("memory://one"), MemoryStore("memory://two")
    keys = agreed(tmp_path, one, ONE)
    keys.agree(two, SEALED, wall)
    for store in (one, two):
        put(store, keys)
    return one, two


def half_changed(folder: Path, one: MemoryStore, two: MemoryStore) -> KeyHolders:
    """The operator's key is TWO in the first store, and ONE in the second and in the state folder."""
    away = FaultyStore(two)
    away.fail("put")
    path = str(folder / "keys.json")
    with pytest.raises(StoreUnavailable):
        change_operator_key(KeyHolders([one, away], source(ONE), path), source(TWO))
    return KeyHolders([one, two], source(ONE), path)


def test_another_key_that_came_to_one_store_only_comes_to_all(
    tmp_path: Path, two_stores: tuple[MemoryStore, MemoryStore]
) -> None:
    """The same is asked for again: what is there already is taken for what it is."""
    holders = half_changed(tmp_path, *two_stores)
    ring, kept = change_operator_key(holders, source(TWO))
    agent = agreed(tmp_path, two_stores[0], TWO)
    agent.agree(two_stores[1], SEALED, wall)
    for store in two_stores:
        put(store, agent, "leases/00000002.json")

    assert (2, []) == (ring.number, kept)
    assert ring == ring_of(agent)
    assert [["keys/00000002.json"]] * 2 == [
        [each.name for each in store.list("keys/")] for store in two_stores
    ]
    with pytest.raises(KeyRefused):
        agreed(tmp_path, two_stores[1], ONE, name="another.json")


def test_what_else_is_asked_for_then_is_refused_with_the_way_out(
    tmp_path: Path, two_stores: tuple[MemoryStore, MemoryStore]
) -> None:
    """Before anything is put, in whatever order the stores come; with both keys a rotation brings all together."""
    holders = half_changed(tmp_path, *two_stores)
    before = [store.names for store in two_stores]
    for stores in (two_stores, two_stores[::-1]):
        for change in (
            lambda holders: rotate(holders, wall()),
            lambda holders: change_operator_key(holders, source(THREE)),
        ):
            with pytest.raises(KeyRefused, match="memory://one holds another key ring") as caught:
                change(replace(holders, stores=stores))
            assert OperatorKey(bytes.fromhex(TWO)).fingerprint in str(caught.value.hint)
            assert "=NEW,OLD" in str(caught.value.hint)
    assert before == [store.names for store in two_stores]
    ring = rotate(replace(holders, source=source(TWO, ONE)), wall())

    assert [ring] * 2 == [ring_of(agreed(tmp_path, store, TWO)) for store in two_stores]


def test_a_slot_in_the_way_that_is_damaged_is_named(
    tmp_path: Path, two_stores: tuple[MemoryStore, MemoryStore]
) -> None:
    """Nobody can say whose it is: nothing is put."""
    one, two = two_stores
    two.put("keys/00000002.json", b"{")
    with pytest.raises(KeyRefused, match=r"memory://two holds another .*keys/00000002\.json") as caught:
        rotate(KeyHolders([one, two], source(ONE)), wall())

    assert "is no key slot" in str(caught.value.hint)
    assert "keys/00000002.json" not in one.names


def test_stores_that_were_rotated_one_by_one_get_one_ring(
    tmp_path: Path, two_stores: tuple[MemoryStore, MemoryStore]
) -> None:
    """The agent refuses the two and says how to go on; then it does, and reads what was sealed under either."""
    one, two = two_stores
    path = str(tmp_path / "keys.json")
    for number, store in enumerate(two_stores):
        rotate(KeyHolders([store], source(ONE)), wall())
        put(store, agreed(tmp_path, store, ONE, name=f"{number}.json"), "leases/00000002.json", b"between")
    agent = agreed(tmp_path, one, ONE)
    with pytest.raises(KeyRefused, match="another key ring of the number 2") as caught:
        agent.agree(two, SEALED, wall)
    assert "key rotate DATABASE" in str(caught.value.hint)
    ring = rotate(KeyHolders(two_stores, source(ONE), path), wall())
    agent = agreed(tmp_path, one, ONE)
    agent.agree(two, SEALED, wall)

    assert (3, 4) == (ring.number, len(ring.roots))
    assert [b"between"] * 2 == [SealedStore(store, agent).get("leases/00000002.json") for store in two_stores]
    for store in two_stores:
        put(store, agent, "leases/00000003.json")


def test_another_key_given_store_by_store_is_told_with_the_way_out(
    tmp_path: Path, two_stores: tuple[MemoryStore, MemoryStore]
) -> None:
    """The same ring in two slots: the agent would not know its own in the second store."""
    for store in two_stores:
        change_operator_key(KeyHolders([store], source(ONE)), source(TWO))
    agent = agreed(tmp_path, two_stores[0], ONE, TWO)
    with pytest.raises(KeyRefused, match="another key ring of the number 2"):
        agent.agree(two_stores[1], SEALED, wall)
    ring = rotate(KeyHolders(two_stores, source(ONE, TWO), str(tmp_path / "keys.json")), wall())
    agent = agreed(tmp_path, two_stores[0], TWO)
    agent.agree(two_stores[1], SEALED, wall)
    for store in two_stores:
        put(store, agent, "leases/00000002.json")

    assert ring == ring_of(agent)


# --- refused -------------------------------------------------------------------------------------------


def test_a_state_folder_of_an_encrypted_database_wants_its_key(tmp_path: Path) -> None:
    """None, or another: refused with exit code 12 before any store is asked, and nothing is changed."""
    agreed(tmp_path, MemoryStore(), ONE)
    before = (tmp_path / "keys.json").read_bytes()
    for keys, message in (((), "is encrypted, and no key is given"), ((TWO,), "is not opened by key")):
        with pytest.raises(KeyRefused, match=message) as caught:
            held(tmp_path, *keys).open()
        assert 12 == caught.value.exit_code

    assert before == (tmp_path / "keys.json").read_bytes()


def test_a_kept_slot_that_is_damaged_is_told_of(tmp_path: Path) -> None:
    """ObjectCorrupt with its path: it can be had from a store again."""
    (tmp_path / "keys.json").write_bytes(b"half of a slo")
    with pytest.raises(ObjectCorrupt, match=r"keys\.json"):
        held(tmp_path, ONE).open()


@pytest.mark.parametrize(
    ("record", "keys", "message"),
    [
        (PLAIN, (ONE,), "a key is given, and memory://store is not encrypted"),
        (SEALED, (), "memory://store is encrypted, and no key is given"),
        (SEALED, (TWO,), "is not opened by key"),
    ],
    ids=["plain", "none", "wrong"],
)
def test_a_store_that_does_not_fit_is_refused(
    tmp_path: Path, record: RepositoryRecord, keys: tuple[str, ...], message: str
) -> None:
    """Encrypted or not, it is what its record says, and never changes over: exit code 12, and nothing is put."""
    store = MemoryStore()
    if record.sealed:
        put(store, agreed(tmp_path, store, ONE))
    before = store.names
    found = held(tmp_path, *keys, name="another.json")
    found.open()
    with pytest.raises(KeyRefused, match=message) as caught:
        found.agree(store, record, wall)

    assert 12 == caught.value.exit_code
    assert before == store.names
    assert not (tmp_path / "another.json").exists()


def test_two_rings_that_have_no_root_in_common_are_not_brought_together(tmp_path: Path) -> None:
    """The store was begun by another agent with the same operator's key: it says how to go on."""
    mine, theirs = MemoryStore("memory://mine"), MemoryStore("memory://theirs")
    put(theirs, agreed(tmp_path, theirs, ONE, name="theirs.json"))
    ours = agreed(tmp_path, mine, ONE)
    before = ring_of(ours)
    for _ in range(2):
        with pytest.raises(
            KeyRefused, match=r"memory://theirs holds a key ring that is not this database's"
        ) as caught:
            ours.agree(theirs, SEALED, wall)
        rotate(KeyHolders([theirs], source(ONE)), wall())  # a higher number does not make it ours

    assert str(tmp_path / "keys.json") in str(caught.value.hint)
    assert before == ring_of(ours)


def test_of_two_rotations_at_once_one_is_refused(tmp_path: Path) -> None:
    """Two rings with the same number and different roots: neither is taken for the other."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    put(store, keys)
    path = str(tmp_path / "keys.json")
    mine = rotated(ring_of(keys), wall(), bytes(range(32)), bytes(range(8)))
    rotate(KeyHolders([store], source(ONE)), wall())
    keep_slot(path, wrap(mine, [OperatorKey(bytes.fromhex(ONE))], [bytes(32)]))
    with pytest.raises(KeyRefused, match="another key ring of the number 2"):
        agreed(tmp_path, store, ONE)
    with pytest.raises(KeyRefused, match=r"holds another key ring as keys/00000002\.json already") as caught:
        KeyHolders([store], source(ONE)).publish(mine)
    assert "key rotate DATABASE" in str(caught.value.hint)


def test_the_first_of_two_agents_on_an_empty_store_makes_the_ring(tmp_path: Path) -> None:
    """Both found no slot: the second one's first object is refused, since nobody else could open it."""
    store = MemoryStore()
    one, two = agreed(tmp_path, store, ONE, name="one.json"), agreed(tmp_path, store, ONE, name="two.json")
    put(store, one)
    with pytest.raises(KeyRefused, match="holds another key ring"):
        put(store, two, "leases/00000002.json")

    assert [LEASE] == [each.name for each in store.list("leases/")]


# --- with a database that is known to stores -----------------------------------------------------------


def test_stores_share_one_ring_and_are_known_as_encrypted(tmp_path: Path) -> None:
    """Enlisting at two: both say so, both have the slot before the lease, and the leases are sealed."""
    stores = [MemoryStore("memory://a"), MemoryStore("memory://b")]
    state = StateFolder(str(tmp_path / "state"))
    state.open()
    keys = HeldKeys(source(ONE), state.keys_path)
    for store in stores:
        enlist(SealedStore(store, keys), state, keys, FakeClock(), take_over=False)
    rings = [ring_in(store, source(ONE).read()) for store in stores]
    state.close()

    assert [["repository.json", "keys/00000001.json", LEASE]] * 2 == [store.puts for store in stores]
    assert rings[0] == rings[1] == (ring_of(keys), kept_slot(state.keys_path))
    for store in stores:
        assert decode_repository(store.get("repository.json"), "it").sealed
        assert store.get(LEASE).startswith(b"RPLSEAL")
        assert b"writer" in SealedStore(store, keys).get(LEASE)


@pytest.mark.parametrize("operation", ["put", "get", "list"])
@pytest.mark.parametrize("after", [False, True])
def test_enlisting_can_be_broken_off_anywhere(tmp_path: Path, operation: str, after: bool) -> None:
    """At each call, before or after its effect: the next attempt has the same ring, and ends with the same objects."""
    for skip in range(3):
        inner = MemoryStore(f"memory://{skip}")
        store = FaultyStore(inner)
        state = StateFolder(str(tmp_path / str(skip)))
        state.open()
        store.fail(operation, after=after, skip=skip)
        for _ in range(3):
            keys = HeldKeys(source(ONE), state.keys_path)
            keys.open()
            try:
                enlist(SealedStore(store, keys), state, keys, FakeClock(), take_over=False)
                break
            except StoreUnavailable:
                continue
        state.close()

        assert ["keys/00000001.json", LEASE, "repository.json"] == inner.names
        assert b"writer" in SealedStore(inner, keys).get(LEASE)


# --- everything sealed anew ----------------------------------------------------------------------------


def rekeyed(store: Store, ring: KeyRing) -> Rekeyed:
    sealed = SealedStore(store, keys_module.FixedKeys(ring))
    return rekey(sealed, ring.active.key_id, report=lambda _: None, cancelled=lambda: False)


@pytest.fixture
def two_roots(tmp_path: Path) -> tuple[MemoryStore, KeyRing]:
    """Three objects under the first root of a ring, and a second root, which is active."""
    store = MemoryStore()
    keys = agreed(tmp_path, store, ONE)
    for number in (1, 2, 3):
        put(store, keys, f"tail/{number}.segment", bytes([number]))
    ring = rotate(KeyHolders([store], source(ONE), str(tmp_path / "keys.json")), wall())
    return store, ring


def test_after_a_rekeying_nothing_needs_the_old_key(two_roots: tuple[MemoryStore, KeyRing]) -> None:
    """All of it is under the active one, and readable with that alone; a second run finds nothing to do."""
    store, ring = two_roots
    done = rekeyed(store, ring)
    alone = SealedStore(store, keys_module.FixedKeys(replace(ring, roots=ring.roots[-1:])))

    assert (3, 0) == (done.sealed_anew, done.kept)
    assert {ring.active.key_id: 3} == keys_in_use(alone)
    assert [bytes([n]) for n in (1, 2, 3)] == [alone.get(f"tail/{n}.segment") for n in (1, 2, 3)]
    assert 0 == rekeyed(store, ring).sealed_anew
    assert [
        "keys/00000001.json",
        "keys/00000002.json",
        *(f"tail/{n}.r2.segment" for n in (1, 2, 3)),
    ] == store.names


def test_a_rekeying_that_ended_between_put_and_delete_is_ended_by_the_next(
    two_roots: tuple[MemoryStore, KeyRing],
) -> None:
    """The old revision, which the new one hides, does not stay for ever under a key that is thought destroyed."""
    store, ring = two_roots
    faulty = FaultyStore(store)
    faulty.fail("delete")
    with pytest.raises(StoreUnavailable):
        SealedStore(faulty, keys_module.FixedKeys(ring)).seal_anew("tail/1.segment")
    assert {"tail/1.segment", "tail/1.r2.segment"} <= set(store.names)
    rekeyed(store, ring)

    assert [f"tail/{n}.r2.segment" for n in (1, 2, 3)] == [each.name for each in store.list("tail/")]


def test_what_a_store_does_not_let_go_of_is_counted_once(two_roots: tuple[MemoryStore, KeyRing]) -> None:
    """Under a lock every object is there twice, in the first run and in every later one: each counts as kept."""

    class Locked(FaultyStore):
        def delete(self, name: str) -> None:
            raise StoreDenied(f"{name} is locked")

    store, ring = two_roots
    done = [rekeyed(Locked(store), ring) for _ in range(2)]

    assert [(3, 3), (0, 3)] == [(each.sealed_anew, each.kept) for each in done]


def test_a_ring_of_another_repository_is_nobodys(tmp_path: Path) -> None:
    """What opens with our key and says another repository is no ring of ours."""
    store = MemoryStore()
    put(store, agreed(tmp_path, store, ONE))
    other = new_ring("cd" * 16, 1, secrets=[os.urandom(32), os.urandom(32), os.urandom(8), os.urandom(8)])
    store.damage("keys/00000001.json", lambda _: wrap(other, [OperatorKey(bytes.fromhex(ONE))], [bytes(32)]))
    for name in ("keys.json", "another.json"):
        with pytest.raises(ObjectCorrupt, match="of another repository"):
            agreed(tmp_path, store, ONE, name=name)

    assert not (tmp_path / "another.json").exists()
