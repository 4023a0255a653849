"""The operator's key: what is one, what is a placeholder, and that no message ever shows it."""

import base64
import hashlib
import hmac
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import ConfigError
from replicator.core.operator_key import KEY_SIZE, OperatorKey, parse_key, parse_passphrase

SECRET = hashlib.sha256(b"the operator's").digest()
SOURCE = "BACKUP_ENCRYPTION_KEY"


# --- keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        SECRET.hex().upper(),
        SECRET.hex() + "\n",
        "  " + SECRET.hex() + "\r\n",
        base64.b64encode(SECRET).decode(),
        base64.b64encode(SECRET).decode() + "\n",
    ],
    ids=range(6),
)
def test_s24_x6_a_key_is_32_bytes_in_hexadecimal_or_base64(text: str) -> None:
    """As `key generate`, openssl or a file with a line end have it: the same key."""
    assert OperatorKey(SECRET) == parse_key(text, SOURCE)
    assert not parse_key(text, SOURCE).passphrase


@given(st.integers(0, 2**32))
def test_any_key_by_chance_is_one(seed: int) -> None:
    """What is drawn at random is never taken for a placeholder, in either spelling."""
    rng = random.Random(seed)
    for _ in range(20):
        secret = rng.randbytes(KEY_SIZE)
        assert secret == parse_key(secret.hex(), SOURCE).secret
        assert secret == parse_key(base64.b64encode(secret).decode(), SOURCE).secret


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"your-256-bit-encryption-key-here".hex(), "is text, not a key"),
        (base64.b64encode(b"correct horse battery staple 42!").decode(), "is text, not a key"),
        ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "is a key that is published"),
        (hashlib.sha256(b"").hexdigest().upper(), "is a key that is published"),
        (base64.b64encode(hashlib.sha256(b"password").digest()).decode(), "is a key that is published"),
    ],
)
def test_what_others_know_is_no_key(text: str, message: str) -> None:
    """Text that somebody typed, and what stands in everybody's examples; the message does not show it."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse_key(text, SOURCE)

    assert text not in str(caught.value) + str(caught.value.hint)


PLACEHOLDERS = [
    "ab" * 32,
    "00" * 32,
    "ff" * 32,
    "0123456789abcdef" * 4,
    "0123456789ABCDEF" * 4,
    "deadbeef" * 8,
    "cafebabedeadbeef" * 4,
    "1234567890" * 6 + "1234",
    SECRET[:16].hex() * 2,
    SECRET[:16].hex() + SECRET[:16].hex().upper(),
    "0" * 63 + "1",
    bytes(range(32)).hex(),
    bytes(range(32, 0, -1)).hex(),
    bytes(range(0, 64, 2)).hex(),
    "a" * 43 + "=",
    base64.b64encode(bytes(32)).decode(),
    base64.b64encode(bytes(range(32))).decode(),
    base64.b64encode(b"0123456789abcdef0123456789abcdef").decode(),
    base64.b64encode(b"abcdefghijklmnopqrstuvwxyzabcdef").decode(),
    base64.b64encode(b"change-me-change-me-change-me-ch").decode(),
]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_s99_x6_a_placeholder_is_no_key(text: str) -> None:
    """One byte again and again, one piece again and again, counting up or down: whoever reads the manual has it."""
    with pytest.raises(ConfigError, match=f"{SOURCE} is a placeholder") as caught:
        parse_key(text, SOURCE)

    assert text not in str(caught.value) + str(caught.value.hint)
    assert "key generate" in str(caught.value.hint)
    assert 2 == caught.value.exit_code


MALFORMED = [
    "your-256-bit-encryption-key",
    "your-256-bit-encryption-key-here",
    "changeme",
    "correct horse battery staple",
    SECRET.hex()[:-1],
    SECRET.hex()[:-2],
    SECRET.hex() + "0",
    SECRET.hex() + "00",
    "0x" + SECRET.hex(),
    SECRET.hex()[:32],
    SECRET.hex()[:20] + " " + SECRET.hex()[20:],
    SECRET.hex()[:-1] + "g",
    SECRET.hex()[:-1] + "\u0663",  # a digit, but not one of ours
    base64.b64encode(SECRET[:31]).decode(),
    base64.b64encode(SECRET[:16]).decode(),
    base64.b64encode(SECRET + b"x").decode(),
    base64.b64encode(SECRET).decode()[:-1],
    base64.b64encode(SECRET).decode().replace("=", "!="),
    base64.urlsafe_b64encode(bytes([0xFB, 0xFF]) + SECRET[2:]).decode(),
    '"' + SECRET.hex() + '"',
    "x" * 100_000,
    "\0" * 64,
    "\ud800" * 10,
    "",
    " ",
]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_key_is_refused(text: str) -> None:
    """Too short, too long, of other letters, in quotes: ConfigError that names the setting and never the value."""
    with pytest.raises(ConfigError, match=f"{SOURCE} is not a key") as caught:
        parse_key(text, SOURCE)
    shown = str(caught.value) + str(caught.value.hint) + repr(caught.value)

    assert not text.strip() or text.strip() not in shown
    assert len(shown) < 500
    assert f"{len(text.strip())} characters" in shown
    assert "BACKUP_ENCRYPTION_PASSPHRASE" in shown


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    """Whatever is given, it is 32 bytes or a ConfigError that does not quote it."""
    shown = ""
    try:
        key = parse_key(text, SOURCE)
    except ConfigError as exc:
        shown = str(exc) + str(exc.hint)
    else:
        assert KEY_SIZE == len(key.secret)

    assert len(text.strip()) < 6 or text.strip() not in shown


# --- passphrases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["quartz harbour nineteen", "quartz harbour nineteen\n", "quartz harbour nineteen\r\n"]
)
def test_x6_a_passphrase_is_what_was_typed(text: str) -> None:
    """But for the line end of a file; blanks before and behind are part of it."""
    assert OperatorKey(b"quartz harbour nineteen", passphrase=True) == parse_passphrase(text, "SOURCE")
    assert b"  quartz harbour " == parse_passphrase("  quartz harbour \n", "SOURCE").secret
    assert "quärtz harbour".encode() == parse_passphrase("quärtz harbour", "SOURCE").secret


@pytest.mark.parametrize(
    "text", ["", "\n", "tiny", "eleven-char", "aaaaaaaaaaaaaaaaaaaa", "abcdabcdabcdabcd"]
)
def test_a_passphrase_that_is_soon_guessed_is_refused(text: str) -> None:
    """Below twelve letters, or of few different ones; the message does not quote it."""
    with pytest.raises(ConfigError, match="SETTING is too short") as caught:
        parse_passphrase(text, "SETTING")

    assert not text.strip() or text not in str(caught.value) + str(caught.value.hint)


# --- what is shown of them -----------------------------------------------------------------------------


def test_a_fingerprint_tells_keys_apart_and_gives_nothing_away() -> None:
    """Eight digits of an HMAC under the key; none of a passphrase, since it could be guessed from that."""
    key = OperatorKey(SECRET)

    assert hmac.digest(SECRET, b"replicator key fingerprint", "sha256").hex()[:8] == key.fingerprint
    assert key.fingerprint != OperatorKey(SECRET[::-1]).fingerprint
    assert key.fingerprint not in SECRET.hex()
    assert "" == OperatorKey(b"quartz harbour nineteen", passphrase=True).fingerprint


@pytest.mark.parametrize(
    "key", [OperatorKey(SECRET), OperatorKey(b"quartz harbour", passphrase=True)], ids=[0, 1]
)
def test_nothing_that_is_printed_of_a_key_shows_it(key: OperatorKey) -> None:
    """Neither repr nor str nor what a formatter makes of it."""
    shown = f"{key!r} {key} {[key]} { ({'key': key}) }"

    assert key.secret.hex() not in shown
    assert repr(key.secret)[2:-1] not in shown
