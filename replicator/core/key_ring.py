"""The key ring of a repository, and the slots it is stored in, wrapped by what the operator keeps.

A root is 32 random bytes from which the keys of objects are derived. The ring holds every root that some object
may still be sealed under; one of them is active, and seals what is new. A slot is the ring, encrypted under the
operator's key or passphrase; slots are numbered, put once, and the highest that opens counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from replicator.core.errors import FormatTooNew, KeyRefused, ObjectCorrupt
from replicator.core.operator_key import KEY_SIZE, OperatorKey
from replicator.core.seal import derive_cipher
from replicator.core.times import MICROS_MAX, MICROS_MIN

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SLOT_BYTES_MAX = 64 << 10
_FORMAT = 1
_KIND = "replicator-keys"
_INFO = b"replicator key slot 1"
_NONCE = bytes(12)  # the key is derived from a random salt, and used for this one message
_ID = re.compile("[0-9a-f]{16}")
_REPOSITORY = re.compile("[0-9a-f]{32}")
_FINGERPRINT = re.compile("[0-9a-f]{8}")
_SALT = re.compile("[0-9a-f]{64}")
_SEALED = re.compile("([0-9a-f]{2})+")
# 64 MiB and some 0.3 s for a guess. The memory is what makes guessing dear, and what a small sidecar has to spare.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 16, 8, 1
# What a slot of somebody else's making may ask of us: a gigabyte; and all of its wraps together some five seconds.
_SCRYPT_N_MAX, _SCRYPT_R_MAX, _SCRYPT_P_MAX = 1 << 20, 8, 16
_SCRYPT_WORK_MAX = _SCRYPT_N_MAX * _SCRYPT_R_MAX
WRAPS_MAX = 8  # as many keys as anybody would have at once, and each passphrase costs work
_NUMBER_MAX = 99_999_999  # its name has eight digits
# OpenSSL wants to be told, and takes less than 2 GiB: 128·r bytes for each of N, p and a few more.
_SCRYPT_BYTES_MAX = 128 * _SCRYPT_R_MAX * (_SCRYPT_N_MAX + _SCRYPT_P_MAX) + (1 << 20)

# --- the ring ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Root:
    """``key_id``: 16 hexadecimal digits, stored with every object; times in microseconds."""

    key_id: str
    created: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """``number``: of the slot it is stored in. The last of ``roots`` is active. ``dedup`` keys the hashes of chunks;
    it stays when roots are added, since chunks would not be found again under another."""

    repository: str
    number: int
    roots: tuple[Root, ...]
    dedup: Root

    @property
    def active(self) -> Root:
        return self.roots[-1]

    def root(self, key_id: str) -> Root | None:
        return next((each for each in self.roots if each.key_id == key_id), None)

    def holds(self, other: KeyRing) -> bool:
        """Whether every root of *other* is in this one: nothing sealed under it would be lost."""
        mine = {(each.key_id, each.secret) for each in self.roots}
        return all((each.key_id, each.secret) in mine for each in other.roots)


def new_ring(repository: str, created: int, *, secrets: Sequence[bytes]) -> KeyRing:
    """*secrets*: two times 32 and two times 8 random bytes, for roots and their ids."""
    root, dedup, root_id, dedup_id = secrets
    return KeyRing(repository, 1, (Root(root_id.hex(), created, root),), Root(dedup_id.hex(), created, dedup))


def rotated(ring: KeyRing, created: int, secret: bytes, key_id: bytes) -> KeyRing:
    """With one more root, which is active from now on."""
    return replace(ring, number=ring.number + 1, roots=(*ring.roots, Root(key_id.hex(), created, secret)))


def joined(ring: KeyRing, other: KeyRing) -> KeyRing:
    """*ring*, with the roots of *other* as well, before its own active one."""
    more = tuple(each for each in other.roots if ring.root(each.key_id) is None)
    return replace(ring, roots=(*ring.roots[:-1], *more, ring.active))


def without_roots(ring: KeyRing, unwanted: set[str]) -> KeyRing:
    """The next ring, without roots that nothing is sealed under any more; the active one stays."""
    kept = tuple(each for each in ring.roots if each.key_id not in unwanted or each is ring.active)
    return replace(ring, number=ring.number + 1, roots=kept)


# --- slots ---------------------------------------------------------------------------------------------


def wrap(ring: KeyRing, keys: Sequence[OperatorKey], salts: Sequence[bytes]) -> bytes:
    """The slot of *ring*, to be opened by any of *keys*; *salts*: 32 random bytes for each."""
    public = {
        "kind": _KIND,
        "format": _FORMAT,
        "number": ring.number,
        "repository": ring.repository,
        "roots": [{"key_id": each.key_id, "created": each.created} for each in ring.roots],
    }
    inner = json.dumps(
        {
            "roots": [[each.key_id, each.created, each.secret.hex()] for each in ring.roots],
            "dedup": [ring.dedup.key_id, ring.dedup.created, ring.dedup.secret.hex()],
        }
    ).encode()
    wraps = [_wrap_one(key, salt, inner, _bound(public)) for key, salt in zip(keys, salts, strict=True)]
    return (json.dumps({**public, "wraps": wraps}, indent=2) + "\n").encode()


def _wrap_one(key: OperatorKey, salt: bytes, inner: bytes, bound: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"by": "passphrase" if key.passphrase else "key", "salt": salt.hex()}
    if key.passphrase:
        found |= {"n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P}
    else:
        found["fingerprint"] = key.fingerprint
    found["sealed"] = _cipher(key, found).encrypt(_NONCE, inner, bound).hex()
    return found


def _cipher(key: OperatorKey, found: dict[str, Any]) -> AESGCM:
    salt = bytes.fromhex(found["salt"])
    secret = key.secret
    if key.passphrase:
        secret = hashlib.scrypt(
            key.secret, salt=salt, n=found["n"], r=found["r"], p=found["p"], maxmem=_SCRYPT_BYTES_MAX,
            dklen=KEY_SIZE,
        )  # fmt: skip
    return derive_cipher(secret, salt, _INFO)


def _bound(public: dict[str, Any]) -> bytes:
    return json.dumps(public, sort_keys=True).encode()


def unwrap(data: bytes, name: str, keys: Sequence[OperatorKey]) -> KeyRing:
    """The ring in a slot. Raises KeyRefused where none of *keys* opens it, ObjectCorrupt where it is none."""
    from cryptography.exceptions import InvalidTag

    slot = read_slot(data, name)
    public = {key: slot[key] for key in ("kind", "format", "number", "repository", "roots")}
    for key in keys:
        for found in slot["wraps"]:
            if (found["by"] == "passphrase") != key.passphrase:
                continue
            if found["by"] == "key" and found["fingerprint"] != key.fingerprint:
                continue
            try:
                inner = _cipher(key, found).decrypt(_NONCE, bytes.fromhex(found["sealed"]), _bound(public))
            except InvalidTag:
                continue
            return _ring(inner, slot, name)
    named = {each.get("fingerprint") for each in slot["wraps"]}
    if any(not key.passphrase and key.fingerprint in named for key in keys):
        raise KeyRefused(
            f"{name} names {_said(keys)}, and is not opened by it: the slot is damaged",
            hint="put it back from another store, or from keys.json in the state folder of the agent",
        )
    raise KeyRefused(
        f"{name} of repository {slot['repository']} is not opened by {_said(keys)}; it wants {wanted(data, name)}",
        hint="give the key it was encrypted with in BACKUP_ENCRYPTION_KEY, or its passphrase in "
        "BACKUP_ENCRYPTION_PASSPHRASE",
    )


def openers(data: bytes, name: str, keys: Sequence[OperatorKey]) -> tuple[OperatorKey, ...]:
    """Those of *keys* that open the slot, each by itself; at most as many as one slot can be wrapped with. Raises
    ObjectCorrupt."""
    found: list[OperatorKey] = []
    for key in dict.fromkeys(keys):
        with contextlib.suppress(KeyRefused):
            unwrap(data, name, [key])
            found.append(key)
    return tuple(found[:WRAPS_MAX])


def _said(keys: Sequence[OperatorKey]) -> str:
    return " or ".join("the passphrase" if each.passphrase else f"key {each.fingerprint}" for each in keys)


def wanted(data: bytes, name: str) -> str:
    """What opens the slot, as it says without a key. Raises ObjectCorrupt."""
    slot = read_slot(data, name)
    return " or ".join(
        "a passphrase" if each["by"] == "passphrase" else f"key {each['fingerprint']}"
        for each in slot["wraps"]
    )


def _ring(inner: bytes, slot: dict[str, Any], name: str) -> KeyRing:
    try:
        loaded = json.loads(inner)
        roots = tuple(_root(*each) for each in loaded["roots"])
        dedup = _root(*loaded["dedup"])
    except (ValueError, TypeError, KeyError, RecursionError):
        # Whoever sealed it knew the operator's key, so this is a fault of a program, not an attack. Not chained: what
        # is quoted may be a root.
        raise ObjectCorrupt(f"{name} holds a key ring that is never written", name=name) from None
    if [each.key_id for each in roots] != [each["key_id"] for each in slot["roots"]]:
        raise ObjectCorrupt(f"{name} holds other keys than it says", name=name)
    return KeyRing(slot["repository"], slot["number"], roots, dedup)


def _root(key_id: Any, created: Any, secret: Any) -> Root:
    """Raises ValueError or TypeError for values that no root has."""
    made = Root(key_id, created, bytes.fromhex(secret))
    if not (_ID.fullmatch(key_id) and len(made.secret) == KEY_SIZE and _is_time(created)):
        raise ValueError("not a root")
    return made


def _is_time(value: Any) -> bool:
    return type(value) is int and MICROS_MIN <= value <= MICROS_MAX


def read_slot(data: bytes, name: str) -> dict[str, Any]:
    """What a slot says without a key, every value of its kind and bounded. Raises ObjectCorrupt, FormatTooNew."""
    try:
        slot = json.loads(data) if len(data) <= SLOT_BYTES_MAX else None
    except (ValueError, RecursionError):
        slot = None
    if not isinstance(slot, dict) or slot.get("kind") != _KIND:
        raise ObjectCorrupt(f"{name} is no key slot", name=name)
    if slot.get("format") != _FORMAT:
        raise FormatTooNew(
            f"{name} is of format {slot.get('format')!r}, this program reads format {_FORMAT}",
            hint="use a newer version of replicator",
        )
    if not (_proper_public(slot) and all(_proper_wrap(each) for each in slot["wraps"])):
        raise ObjectCorrupt(f"{name} holds values that are never written", name=name)
    dear = (each for each in slot["wraps"] if each["by"] == "passphrase")
    if sum(each["n"] * each["r"] * each["p"] for each in dear) > _SCRYPT_WORK_MAX:
        raise ObjectCorrupt(f"{name} asks for more work than any passphrase is worth", name=name)
    return slot


def _proper_public(slot: dict[str, Any]) -> bool:
    roots, wraps = slot.get("roots"), slot.get("wraps")
    return (
        type(slot.get("number")) is int
        and 0 < slot["number"] <= _NUMBER_MAX
        and _is_like(slot.get("repository"), _REPOSITORY)
        and isinstance(roots, list)
        and bool(roots)
        and all(isinstance(each, dict) and _is_like(each.get("key_id"), _ID) for each in roots)
        and all(_is_time(each.get("created")) for each in roots)
        and isinstance(wraps, list)
        and 0 < len(wraps) <= WRAPS_MAX
    )


def _is_like(value: Any, pattern: re.Pattern[str]) -> bool:
    """A number of so many digits would look the same."""
    return isinstance(value, str) and bool(pattern.fullmatch(value))


def _proper_wrap(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    if not _is_like(found.get("salt"), _SALT) or not _is_like(found.get("sealed"), _SEALED):
        return False
    if found.get("by") == "key":
        return _is_like(found.get("fingerprint"), _FINGERPRINT)
    limits = (("n", _SCRYPT_N_MAX), ("r", _SCRYPT_R_MAX), ("p", _SCRYPT_P_MAX))
    return (
        found.get("by") == "passphrase"
        and all(type(found.get(key)) is int and 0 < found[key] <= limit for key, limit in limits)
        and 1 < found["n"] < 1 << 16 * found["r"]  # as scrypt itself wants it
        and found["n"] & (found["n"] - 1) == 0
    )
