"""What the operator keeps: a key, or a passphrase, that opens the key ring of a repository."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import re
from dataclasses import dataclass, field

from replicator.core.errors import ConfigError

KEY_SIZE = 32
_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_PASSPHRASE_LETTERS_MIN = 12
# Those that stand in everybody's examples: of NIST SP 800-38A, and the SHA-256 of nothing and of `password`.
_PUBLISHED = frozenset(
    {
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
    }
)


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """``secret``: 32 bytes of a key, or a passphrase; never shown."""

    secret: bytes = field(repr=False)
    passphrase: bool = False

    @property
    def fingerprint(self) -> str:
        """To tell keys apart without showing them; a passphrase has none, since one could be guessed from it."""
        if self.passphrase:
            return ""
        return hmac.new(self.secret, b"replicator key fingerprint", hashlib.sha256).hexdigest()[:8]


def parse_key(text: str, source: str) -> OperatorKey:
    """32 bytes in 64 hexadecimal digits or in base64. *source*: the setting, for the message; never the value."""
    hint = "make one with `replicator key generate`; for a passphrase there is BACKUP_ENCRYPTION_PASSPHRASE"
    stripped = text.strip()
    if _HEX_KEY.fullmatch(stripped):
        secret = bytes.fromhex(stripped)
    else:
        try:
            secret = base64.b64decode(stripped, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
    if len(secret) != KEY_SIZE:
        raise ConfigError(
            f"{source} is not a key: 64 hexadecimal digits or base64 of 32 bytes are wanted, not "
            f"{len(stripped)} characters of something else",
            hint=hint,
        )
    # Placeholders: one byte again and again, 0123…, abc…. Chance gives so few values, or so even steps, never.
    steps = {(after - before) % 256 for before, after in itertools.pairwise(secret)}
    if len(set(secret)) < 12 or len(steps) < 4 or _repeats(stripped.lower()):
        raise ConfigError(f"{source} is a placeholder, not a key", hint=hint)
    if all(0x20 <= each < 0x7F for each in secret):  # by chance one in ten billion million
        raise ConfigError(
            f"{source} is text, not a key: its 32 bytes are letters that can be typed", hint=hint
        )
    if secret.hex() in _PUBLISHED:
        raise ConfigError(f"{source} is a key that is published", hint=hint)
    return OperatorKey(secret)


def _repeats(text: str) -> bool:
    """Whether it is one piece again and again, as `0123456789abcdef` four times."""
    return text in (text + text)[1:-1]


def parse_passphrase(text: str, source: str) -> OperatorKey:
    """Refuses one that would be guessed sooner than it is typed."""
    stripped = text.strip("\r\n")
    if len(stripped) < _PASSPHRASE_LETTERS_MIN or len(set(stripped)) < 5:
        raise ConfigError(
            f"{source} is too short: a passphrase has {_PASSPHRASE_LETTERS_MIN} characters or more",
            hint="several words that nobody else would put together; or a key, by `replicator key generate`",
        )
    # The environment may hold bytes that are no text; as good a passphrase as any.
    return OperatorKey(stripped.encode(errors="surrogateescape"), passphrase=True)
