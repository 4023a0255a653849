"""The key ring and its slots: opened by whoever should, refused in every other case, and never shown."""

import copy
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import key_ring
from replicator.core.errors import FormatTooNew, KeyRefused, ObjectCorrupt
from replicator.core.key_ring import (
    SLOT_BYTES_MAX,
    KeyRing,
    Root,
    new_ring,
    read_slot,
    rotated,
    unwrap,
    without_roots,
    wrap,
)
from replicator.core.operator_key import OperatorKey
from replicator.core.times import MICROS_MAX

REPOSITORY = "ab" * 16
NAME = "keys/00000001.json"
KEY = OperatorKey(hashlib.sha256(b"the operator's").digest())
OTHER = OperatorKey(hashlib.sha256(b"somebody else's").digest())
WORDS = OperatorKey(b"quartz harbour nineteen lanterns", passphrase=True)
OTHER_WORDS = OperatorKey(b"quartz harbour nineteen lantern", passphrase=True)
SALTS = [bytes([number]) * 32 for number in range(1, 5)]
SECRETS = [hashlib.sha256(bytes([number])).digest() for number in range(4)]
RING = new_ring(REPOSITORY, 1_000, secrets=[SECRETS[0], SECRETS[1], b"rootroot", b"deduplic"])
SLOT = wrap(RING, [KEY], SALTS[:1])


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases that cost a millisecond instead of 0.3 s."""
    monkeypatch.setattr(key_ring, "SCRYPT_N", 1 << 10)


# --- the ring ------------------------------------------------------------------------------------------


def test_a_new_ring_has_one_root_and_a_key_for_chunks() -> None:
    """Made of the random bytes that it is given, and of nothing else."""
    root = Root(b"rootroot".hex(), 1_000, SECRETS[0])
    dedup = Root(b"deduplic".hex(), 1_000, SECRETS[1])

    assert KeyRing(REPOSITORY, 1, (root,), dedup) == RING
    assert root == RING.active == RING.root(root.key_id)
    assert RING.root(dedup.key_id) is None
    assert RING.root("") is None


def test_a_rotation_adds_a_root_that_is_active() -> None:
    """What the old one sealed is still opened; chunks keep their hashes; the slot is another."""
    second = rotated(RING, 2_000, SECRETS[2], b"secondid")
    third = rotated(second, 3_000, SECRETS[3], b"third-id")

    assert (1, 2, 3) == (RING.number, second.number, third.number)
    assert Root(b"third-id".hex(), 3_000, SECRETS[3]) == third.active
    assert [RING.active, second.active, third.active] == list(third.roots)
    assert RING.dedup == third.dedup
    assert RING.repository == third.repository
    assert [RING.active] == [third.root(RING.active.key_id)]


def test_roots_that_nothing_needs_are_left_out_but_never_the_active_one() -> None:
    """Whatever is asked for, the ring can go on sealing; and it is another ring."""
    ring = rotated(rotated(RING, 2_000, SECRETS[2], b"secondid"), 3_000, SECRETS[3], b"third-id")
    first, second, active = (each.key_id for each in ring.roots)

    assert [second, active] == [each.key_id for each in without_roots(ring, {first}).roots]
    assert [active] == [each.key_id for each in without_roots(ring, {first, second, active}).roots]
    assert ring.roots == without_roots(ring, {"unknown"}).roots
    assert 4 == without_roots(ring, {first}).number
    assert ring.active == without_roots(ring, {first, second, active}).active


def test_a_ring_holds_another_if_it_has_all_its_roots() -> None:
    """By id and by secret: the same id with another secret is not the same root."""
    second = rotated(RING, 2_000, SECRETS[2], b"secondid")
    forged = replace(RING, roots=(replace(RING.active, secret=SECRETS[3]),))

    assert RING.holds(RING)
    assert second.holds(RING)
    assert not RING.holds(second)
    assert not without_roots(second, {RING.active.key_id}).holds(RING)
    assert not second.holds(forged)
    assert not forged.holds(RING)


# --- wrapped and unwrapped -----------------------------------------------------------------------------


def test_a_slot_is_opened_by_the_key_it_was_wrapped_with() -> None:
    """The very same ring comes out; among several keys the right one is found."""
    assert RING == unwrap(SLOT, NAME, [KEY])
    assert RING == unwrap(SLOT, NAME, [OTHER, WORDS, KEY])
    big = rotated(rotated(RING, 2_000, SECRETS[2], b"secondid"), 3_000, SECRETS[3], b"third-id")
    assert big == unwrap(wrap(big, [KEY], SALTS[:1]), NAME, [KEY])


def test_a_slot_is_opened_by_the_passphrase_it_was_wrapped_with() -> None:
    """With the work that scrypt really costs."""
    slot = wrap(RING, [WORDS], SALTS[:1])
    (found,) = json.loads(slot)["wraps"]

    assert RING == unwrap(slot, NAME, [OTHER, WORDS])
    assert ("passphrase", 1 << 16, 8, 1) == (found["by"], found["n"], found["r"], found["p"])
    assert "fingerprint" not in found


@pytest.mark.usefixtures("cheap")
def test_the_most_that_a_slot_may_ask_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value up to its bound is one that OpenSSL takes: here blocks and lanes, the memory being a matter of n."""
    for r, p in ((8, 16), (1, 1), (3, 16)):
        monkeypatch.setattr(key_ring, "SCRYPT_R", r)
        monkeypatch.setattr(key_ring, "SCRYPT_P", p)
        assert RING == unwrap(wrap(RING, [WORDS], SALTS[:1]), NAME, [WORDS])


@pytest.mark.usefixtures("cheap")
def test_a_slot_may_be_wrapped_for_several() -> None:
    """Any one of them opens it, and nobody else does."""
    slot = wrap(RING, [KEY, OTHER, WORDS], SALTS[:3])

    for each in (KEY, OTHER, WORDS):
        assert RING == unwrap(slot, NAME, [each])
    with pytest.raises(KeyRefused):
        unwrap(slot, NAME, [OTHER_WORDS, OperatorKey(bytes(32))])


def test_a_slot_is_laid_out_as_the_format_says() -> None:
    """JSON for people, and under HKDF-SHA256 and AES-256-GCM the secrets, bound to all that is said in public."""
    slot = json.loads(SLOT)
    (found,) = slot.pop("wraps")
    extracted = hmac.digest(bytes.fromhex(found["salt"]), KEY.secret, "sha256")
    under = hmac.digest(extracted, b"replicator key slot 1\1", "sha256")
    bound = (
        '{"format": 1, "kind": "replicator-keys", "number": 1, "repository": "' + REPOSITORY + '", '
        '"roots": [{"created": 1000, "key_id": "' + b"rootroot".hex() + '"}]}'
    )
    inner = AESGCM(under).decrypt(bytes(12), bytes.fromhex(found["sealed"]), bound.encode())

    assert {
        "kind": "replicator-keys",
        "format": 1,
        "number": 1,
        "repository": REPOSITORY,
        "roots": [{"key_id": b"rootroot".hex(), "created": 1_000}],
    } == slot
    assert {"by": "key", "salt": SALTS[0].hex(), "fingerprint": KEY.fingerprint} == {
        key: value for key, value in found.items() if key != "sealed"
    }
    assert {
        "roots": [[b"rootroot".hex(), 1_000, SECRETS[0].hex()]],
        "dedup": [b"deduplic".hex(), 1_000, SECRETS[1].hex()],
    } == json.loads(inner)


@given(
    secrets=st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=5),
    number=st.integers(1, 10**8 - 1),
    created=st.integers(0, MICROS_MAX - 100),
    salt=st.binary(min_size=32, max_size=32),
)
def test_any_ring_reads_back(secrets: list[bytes], number: int, created: int, salt: bytes) -> None:
    """Any number of roots, any time, any slot."""
    ring = new_ring(REPOSITORY, created, secrets=[secrets[0], secrets[1], b"rootroot", b"deduplic"])
    for index, secret in enumerate(secrets[2:]):
        ring = rotated(ring, created + index, secret, bytes([index]) * 8)
    ring = replace(ring, number=number)

    assert ring == unwrap(wrap(ring, [KEY], [salt]), NAME, [KEY])


# --- refused -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap")
def test_a_wrong_key_is_refused_by_name() -> None:
    """Exit code 12; the error says which key was given and which is wanted, by fingerprints, and shows none."""
    both = wrap(RING, [KEY, WORDS], SALTS[:2])
    for keys in ([OTHER], [OTHER_WORDS], [OTHER, OTHER_WORDS]):
        with pytest.raises(KeyRefused) as caught:
            unwrap(both, NAME, keys)
        text = f"{caught.value} {caught.value.hint}"

        assert 12 == caught.value.exit_code
        assert f"it wants key {KEY.fingerprint} or a passphrase" in text
        assert (f"key {OTHER.fingerprint}" in text) == (OTHER in keys)
        assert ("opened by the passphrase" in text) == (keys == [OTHER_WORDS])
        assert REPOSITORY in text
        assert NAME in text
        for key in (KEY, OTHER, WORDS, OTHER_WORDS):
            assert key.secret.hex() not in text
            assert key.secret.decode("latin-1") not in text


def test_a_key_with_the_right_fingerprint_is_still_not_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """What opens a slot is the tag, not what it says of itself."""
    slot = json.loads(SLOT)
    slot["wraps"][0]["fingerprint"] = OTHER.fingerprint

    with pytest.raises(KeyRefused):
        unwrap(json.dumps(slot).encode(), NAME, [OTHER])
    with pytest.raises(KeyRefused):
        unwrap(json.dumps(slot).encode(), NAME, [KEY])


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    slot = copy.deepcopy(json.loads(SLOT))
    change(slot)
    return json.dumps(slot).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda slot: slot.update(number=2),
        lambda slot: slot.update(repository="cd" * 16),
        lambda slot: slot["roots"][0].update(key_id="00" * 8),
        lambda slot: slot["roots"][0].update(created=1_001),
        lambda slot: slot["roots"][0].update(more=1),
        lambda slot: slot["roots"].append({"key_id": "00" * 8, "created": 1}),
        lambda slot: slot["wraps"][0].update(salt="00" * 32),
        lambda slot: slot["wraps"][0].update(sealed=slot["wraps"][0]["sealed"][:-2]),
        lambda slot: slot["wraps"][0].update(sealed="00" + slot["wraps"][0]["sealed"]),
        lambda slot: slot["wraps"][0].update(sealed="00"),
    ],
    ids=range(10),
)
def test_what_a_slot_says_in_public_cannot_be_changed(change: Callable[[dict[str, Any]], object]) -> None:
    """Number, repository, ids and times are bound to the secrets: a slot that was tampered with is not opened."""
    with pytest.raises(KeyRefused):
        unwrap(changed(change), NAME, [KEY])


def test_every_flipped_bit_of_what_is_sealed_is_noticed() -> None:
    """Of salt and ciphertext, each bit."""
    for field in ("salt", "sealed"):
        whole = bytes.fromhex(json.loads(SLOT)["wraps"][0][field])
        for place in range(len(whole)):
            for bit in range(8):
                other = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
                with pytest.raises(KeyRefused):
                    unwrap(
                        changed(
                            lambda slot, other=other, field=field: slot["wraps"][0].update(
                                {field: other.hex()}
                            )
                        ),
                        NAME,
                        [KEY],
                    )


def test_a_slot_of_another_ring_cannot_be_passed_off() -> None:
    """Wraps of one slot in the public part of another are not opened, though the key is right."""
    second = json.loads(wrap(rotated(RING, 2_000, SECRETS[2], b"secondid"), [KEY], SALTS[1:2]))

    with pytest.raises(KeyRefused):
        unwrap(changed(lambda slot: slot.update(wraps=second["wraps"])), NAME, [KEY])


@pytest.mark.parametrize(
    "change",
    [
        lambda slot: slot.update(kind="replicator-lease"),
        lambda slot: slot.pop("kind"),
        lambda slot: slot.update(number=0),
        lambda slot: slot.update(number=-1),
        lambda slot: slot.update(number="1"),
        lambda slot: slot.update(number=True),
        lambda slot: slot.update(number=1.0),
        lambda slot: slot.pop("number"),
        lambda slot: slot.update(repository="AB" * 16),
        lambda slot: slot.update(repository="ab" * 15),
        lambda slot: slot.update(repository=REPOSITORY + "\n"),
        lambda slot: slot.update(repository=None),
        lambda slot: slot.pop("repository"),
        lambda slot: slot.update(roots=[]),
        lambda slot: slot.update(roots={}),
        lambda slot: slot.update(roots=None),
        lambda slot: slot.update(roots=[5]),
        lambda slot: slot.update(roots=[{}]),
        lambda slot: slot["roots"][0].update(key_id="00"),
        lambda slot: slot["roots"][0].update(key_id=5),
        lambda slot: slot["roots"][0].update(created="1000"),
        lambda slot: slot["roots"][0].update(created=True),
        lambda slot: slot["roots"][0].pop("created"),
        lambda slot: slot.update(wraps=[]),
        lambda slot: slot.update(wraps=None),
        lambda slot: slot.update(wraps=[5]),
        lambda slot: slot.update(wraps=["by"]),
        lambda slot: slot["wraps"].append({}),
        lambda slot: slot["wraps"][0].update(by="guess"),
        lambda slot: slot["wraps"][0].update(by=None),
        lambda slot: slot["wraps"][0].update(salt="00"),
        lambda slot: slot["wraps"][0].update(salt=5),
        lambda slot: slot["wraps"][0].pop("salt"),
        lambda slot: slot["wraps"][0].update(sealed=""),
        lambda slot: slot["wraps"][0].update(sealed="0"),
        lambda slot: slot["wraps"][0].update(sealed="zz"),
        lambda slot: slot["wraps"][0].pop("sealed"),
        lambda slot: slot["wraps"][0].update(fingerprint=""),
        lambda slot: slot["wraps"][0].update(fingerprint=5),
        lambda slot: slot["wraps"][0].pop("fingerprint"),
        lambda slot: slot.update(wraps=slot["wraps"] * 9),
        lambda slot: slot.update(repository=int("1" * 32)),
        lambda slot: slot["roots"][0].update(key_id=int("1" * 16)),
        lambda slot: slot["wraps"][0].update(salt=int("1" * 64)),
        lambda slot: slot["wraps"][0].update(sealed=int("1" * 64)),
        lambda slot: slot["wraps"][0].update(fingerprint=int("1" * 8)),
    ],
    ids=range(46),
)
def test_a_slot_that_is_never_written_is_corrupt(change: Callable[[dict[str, Any]], object]) -> None:
    """Every value has its kind and its bounds: ObjectCorrupt with the name, whoever asks."""
    slot = changed(change)
    for keys in ([KEY], [WORDS], []):
        with pytest.raises(ObjectCorrupt, match=NAME):
            unwrap(slot, NAME, keys)
    with pytest.raises(ObjectCorrupt, match=NAME):
        read_slot(slot, NAME)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"kind": ' + b"9" * 5_000 + b"}",
        SLOT + b" " * SLOT_BYTES_MAX,
    ],
    ids=range(9),
)
def test_what_is_no_slot_is_corrupt(data: bytes) -> None:
    """Other JSON, none at all, absurd nesting or size."""
    with pytest.raises(ObjectCorrupt, match=NAME):
        unwrap(data, NAME, [KEY])


@pytest.mark.parametrize("found", [0, 2, "1", None, 1.5])
def test_a_slot_of_another_format_is_too_new(found: object) -> None:
    """It is refused by its number, before anything else in it is looked at."""
    with pytest.raises(FormatTooNew, match=f"format {found!r}"):
        unwrap(
            changed(lambda slot: slot.update(format=found, wraps="later ones look different")), NAME, [KEY]
        )


@pytest.mark.parametrize(
    "values",
    [
        {"n": 1 << 21},
        {"n": 1 << 62},
        {"n": 3},
        {"n": 65_535},
        {"n": 1},
        {"n": 0},
        {"n": -2},
        {"n": "65536"},
        {"n": 65_536.0},
        {"n": True},
        {"n": None},
        {"r": 9},
        {"r": 0},
        {"r": 1 << 30},
        {"p": 17},
        {"p": 0},
        {"p": -1},
        {"p": 1 << 30},
    ],
    ids=str,
)
def test_hostile_costs_of_a_passphrase_are_refused_before_any_work(values: dict[str, Any]) -> None:
    """Memory and time that a slot asks for are bounded: it is refused at once, and scrypt is not begun."""
    slot = json.loads(SLOT)
    slot["wraps"] = [
        {"by": "passphrase", "salt": "00" * 32, "n": 1 << 16, "r": 8, "p": 1, "sealed": "00" * 40} | values
    ]
    began = time.process_time()
    with pytest.raises(ObjectCorrupt, match="never written"):
        unwrap(json.dumps(slot).encode(), NAME, [WORDS])

    assert time.process_time() - began < 0.1


ROOT = b'"' + b"rootroot".hex().encode() + b'", 1, "' + b"00" * 32 + b'"'


@pytest.mark.parametrize(
    "inner",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"roots": [], "dedup": []}',
        b'{"roots": [["00", 1]], "dedup": [' + ROOT + b"]}",
        b'{"roots": 5, "dedup": [' + ROOT + b"]}",
        b'{"roots": [], "dedup": [' + ROOT + b"]}",
        b'{"roots": [[' + ROOT.replace(b'"72', b'"73') + b']], "dedup": [' + ROOT + b"]}",
        b'{"roots": [[' + ROOT + b"], [" + ROOT + b']], "dedup": [' + ROOT + b"]}",
        b'{"roots": [[' + ROOT + b', 5]], "dedup": [' + ROOT + b"]}",
        b'{"roots": [[' + ROOT[:-3] + b'"]], "dedup": [' + ROOT + b"]}",
        b'{"roots": [[' + ROOT.replace(b'"72', b'"7') + b']], "dedup": [' + ROOT + b"]}",
        b'{"roots": [[' + ROOT.replace(b" 1,", b" true,") + b']], "dedup": [' + ROOT + b"]}",
        b'{"roots": [[' + ROOT + b']], "dedup": [' + ROOT[:-3] + b'"]}',
        b'{"roots": [[' + ROOT + b']], "dedup": ["zz", 1, "' + b"00" * 32 + b'"]}',
        b'{"roots": [[' + ROOT + b']], "dedup": ["7200000000000000", 1, "zz"]}',
    ],
    ids=range(17),
)
def test_a_ring_that_is_never_written_is_corrupt(inner: bytes) -> None:
    """Whoever sealed it had the key; it is ObjectCorrupt all the same, and never half a ring."""
    slot = json.loads(SLOT)
    found = slot["wraps"][0]
    under = key_ring.derive_cipher(KEY.secret, bytes.fromhex(found["salt"]), b"replicator key slot 1")
    public = {key: slot[key] for key in ("kind", "format", "number", "repository", "roots")}
    found["sealed"] = under.encrypt(bytes(12), inner, json.dumps(public, sort_keys=True).encode()).hex()

    with pytest.raises(ObjectCorrupt, match=r"never written|other keys than it says"):
        unwrap(json.dumps(slot).encode(), NAME, [KEY])


# --- never shown ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap")
def test_nothing_shows_a_secret() -> None:
    """Neither what is printed of keys, roots and rings, nor a slot, in hexadecimal or as it is."""
    ring = rotated(RING, 2_000, SECRETS[2], b"secondid")
    shown = [repr(each) for each in (KEY, WORDS, ring.active, ring.dedup, ring)]
    shown += [str(each) for each in (KEY, WORDS, ring)]
    shown.append(wrap(ring, [KEY, WORDS], SALTS[:2]).decode())

    for secret in (*SECRETS[:3], KEY.secret, WORDS.secret):
        for text in shown:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
    assert KEY.fingerprint
    assert "" == WORDS.fingerprint
