"""Keys: where the operator's key is read from, and the key ring it opens, in a store or in a state folder.

The operator's key is asked for when a ring is to be opened, and not kept. Nothing of it, nor of the ring, is ever in
an argument, a log line, an error or a stored object.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.core.errors import ConfigError, KeyRefused, ObjectCorrupt, StoreUnavailable
from replicator.core.key_ring import KeyRing, Root, new_ring, unwrap, wrap
from replicator.core.names import FULL, LEASES, REPOSITORY
from replicator.core.operator_key import KEY_SIZE, OperatorKey, parse_key, parse_passphrase
from replicator.core.records import RepositoryRecord
from replicator.core.seal import KEY_ID_SIZE, SALT_SIZE
from replicator.core.variables import KEY_PREFIX, require_encryption_settings, require_no_empty_key
from replicator.files import mapped_errors, replace_file, shown_path
from replicator.slots import is_sealed, readable_record_in, ring_in
from replicator.store import Store
from replicator.store.sealed import SealedStore

KEY = "BACKUP_ENCRYPTION_KEY"
PASSPHRASE = "BACKUP_ENCRYPTION_PASSPHRASE"
_KEY, _PASSPHRASE = "KEY", "PASSPHRASE"
# A command that asks a vault over the network; one that hangs must not keep an agent from saying so.
COMMAND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the operator's key comes from: the environment, or what a configuration names; never the key itself.
    *prefix*: how the settings in the environment begin."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    prefix: str = KEY_PREFIX
    key_file: str | None = None
    key_command: str | None = None
    passphrase_file: str | None = None
    passphrase_command: str | None = None

    @property
    def configured(self) -> bool:
        """Raises ConfigError where that is not what whoever wrote the settings can have meant."""
        require_encryption_settings(self.environ)
        found = any(self._texts_of(_KEY)) or any(self._texts_of(_PASSPHRASE))
        if not found:
            require_no_empty_key(self.environ, self.prefix)
        return found

    @property
    def files(self) -> tuple[str, ...]:
        """Those that a key or a passphrase is read from."""
        return tuple(path for setting in (_KEY, _PASSPHRASE) if (path := self._texts_of(setting)[1]))

    def read(self) -> tuple[OperatorKey, ...]:
        """All are tried to open a ring; the first wraps the first ring, and later ones are wrapped with those that
        opened the one before. A setting may hold several keys, with commas or line ends between them, while one
        replaces the other. Raises ConfigError."""
        texts = self._read_setting(_KEY)
        keys = [parse_key(each, where) for where, text in texts for each in text.replace(",", "\n").split()]
        keys += [parse_passphrase(text, where) for where, text in self._read_setting(_PASSPHRASE)]
        if not keys:
            raise ConfigError(
                f"{self.prefix}{_KEY} holds no key",
                hint="make one with `replicator key generate`, or take the setting away",
            )
        return tuple(keys)

    def _texts_of(self, setting: str) -> tuple[str | None, str | None, str | None]:
        """Value, file and command, of which at most one counts: the environment wins over the configuration."""
        environ, name = self.environ, self.prefix + setting
        found = environ.get(name), environ.get(f"{name}_FILE"), environ.get(f"{name}_COMMAND")
        if any(found):
            return found
        if setting == _KEY:
            return None, self.key_file, self.key_command
        return None, self.passphrase_file, self.passphrase_command

    def _read_setting(self, setting: str) -> list[tuple[str, str]]:
        """What it comes down to, with the place to name in an error."""
        value, path, command = self._texts_of(setting)
        setting = self.prefix + setting
        if sum(each is not None and each != "" for each in (value, path, command)) > 1:
            raise ConfigError(
                f"{setting} is given twice: as a value, as {setting}_FILE or as {setting}_COMMAND",
                hint="leave one of them",
            )
        if value:
            return [(setting, value)]
        if path:
            return [(f"{setting} in {shown_path(path)}", _read_file(path))]
        return [(f"what the command of {setting} prints", _run(command, setting))] if command else []


def _read_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 16)
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise ConfigError(
            f"cannot read the key file {shown_path(path)}: {reason}", hint="correct its path"
        ) from None


def _run(command: str, setting: str) -> str:
    """Its standard error goes to ours, so that it can say what is missing."""
    try:
        done = subprocess.run(
            shlex.split(command), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS,
            check=True, text=True,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        # Not chained: what it printed so far may be a key.
        raise ConfigError(
            f"the command of {setting} failed: {type(exc).__name__}", hint="run it by hand to see why"
        ) from None
    return done.stdout


# --- the ring of who reads ----------------------------------------------------------------------------


def missing_key(url: str) -> KeyRefused:
    return KeyRefused(
        f"{url} is encrypted, and no key is given",
        hint=f"set {KEY}, {KEY}_FILE or {KEY}_COMMAND, or {PASSPHRASE} likewise",
    )


def _unexpected_plain(url: str) -> KeyRefused:
    return KeyRefused(
        f"a key is given, and {url} is not encrypted",
        hint=f"encrypt into a new store; to go on with this one as it is, or to read it, unset {KEY}",
    )


def _require_of(ring: KeyRing, record: RepositoryRecord, url: str) -> None:
    if ring.repository != record.repository:
        raise ObjectCorrupt(
            f"{url} holds the key ring of another repository ({ring.repository}) than {REPOSITORY} says "
            f"({record.repository})",
            name=REPOSITORY,
            hint=f"one of the two does not belong there; if it is {REPOSITORY}, take it away: without it what is there "
            "is read as the ring's",
        )


class StoredKeys:
    """For who reads a store: its ring, opened when it is first needed."""

    def __init__(self, store: Store, source: KeySource) -> None:
        self._store = store
        self._source = source
        self._lock = threading.Lock()
        self._known = False
        self._ring: KeyRing | None = None

    def ring(self) -> KeyRing | None:
        with self._lock:
            if not self._known:
                self._ring = self._find()
                self._known = True
            return self._ring

    def again(self) -> KeyRing | None:
        with self._lock:
            self._ring = self._find()
            return self._ring

    def slot(self) -> None:
        return None

    def _find(self) -> KeyRing | None:
        """Whether it is encrypted the record says; where that is lost or damaged, that there are slots. Who took both
        away shall not have put something plain in their place."""
        record = readable_record_in(self._store)
        if not is_sealed(self._store, record):
            plain = record is not None or next(iter(self._store.list(FULL)), None) is not None
            if plain and self._source.configured:
                raise _unexpected_plain(self._store.url)
            return None
        if not self._source.configured:
            raise missing_key(self._store.url)
        found = ring_in(self._store, self._source.read())
        if found is None:
            raise KeyRefused(
                f"{self._store.url} is encrypted, and its key slots are gone", hint="see keys/ there"
            )
        if record is not None:
            _require_of(found[0], record, self._store.url)
        return found[0]


class FixedKeys:
    """A ring that is at hand."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def ring(self) -> KeyRing:
        return self._ring

    def again(self) -> KeyRing:
        return self._ring

    def slot(self) -> None:
        return None


def unlocked(store: Store, source: KeySource | None = None) -> SealedStore:
    """*store* as those read it who may: sealed objects come out plain."""
    return SealedStore(store, StoredKeys(store, source or KeySource()))


# --- the ring of an agent ------------------------------------------------------------------------------


class HeldKeys:
    """The ring of one database, kept in its state folder and put into each of its stores. From any thread."""

    def __init__(self, source: KeySource, path: str) -> None:
        self.configured = source.configured
        self._source = source
        self._path = path
        self._lock = threading.RLock()
        self._ring: KeyRing | None = None
        self._slot: bytes | None = None
        self._seen: tuple[int, int] | None = None

    def open(self) -> None:
        """Load what an earlier run kept. Raises KeyRefused, ConfigError."""
        with self._lock:
            slot = self._read_slot()
            if slot is None:
                self.require()
                return
            if not self.configured:
                raise missing_key(f"the state folder's {self._path}")
            self._take(unwrap(slot, self._path, self._source.read()), slot)

    def require(self) -> None:
        """Raises ConfigError where a key is set and is none: before a repository says that it is encrypted."""
        if self.configured:
            self._source.read()

    def ring(self) -> KeyRing | None:
        """Raises StoreUnavailable while no store could say which one it is."""
        with self._lock:
            if self.configured and self._ring is None:
                raise StoreUnavailable(
                    "the key ring is not known yet", hint="it is made when the first store answers"
                )
            return self._ring

    def again(self) -> KeyRing | None:
        self.look()
        return self._ring

    def slot(self) -> bytes | None:
        return self._slot

    def newest(self) -> tuple[int, int] | None:
        """Number of the ring, and when its active root was made; None without one."""
        with self._lock:
            return (self._ring.number, self._ring.active.created) if self._ring is not None else None

    def dedup(self) -> Root | None:
        """What chunks are hashed with; None where nothing is encrypted."""
        ring = self.ring()
        return ring.dedup if ring is not None else None

    def look(self) -> None:
        """Whether somebody rotated the keys beside us: then what is new is sealed with the new root."""
        with self._lock:
            if self._ring is None or self._change() == self._seen:
                return
            self._seen = self._change()
            slot = self._read_slot()
            if slot is None:
                return
            ring = unwrap(slot, self._path, self._source.read())
            if ring.number > self._ring.number:
                self._take(ring, slot)

    def agree(self, store: Store, record: RepositoryRecord, wall: Callable[[], int]) -> None:
        """Have the ring of the repository at *store*, or make its first one. Raises KeyRefused where the two cannot
        be brought together."""
        if record.sealed != self.configured:
            raise missing_key(store.url) if record.sealed else _unexpected_plain(store.url)
        if not record.sealed:
            return
        if isinstance(store, SealedStore):
            store = store.plain  # which opens what it holds only once we have the ring
        with self._lock:
            found = ring_in(store, self._source.read())
            if found is not None:
                _require_of(found[0], record, store.url)
            if found is None:
                self._begin(store, record, wall())
            elif self._ring is None:
                self._keep(*found)
            else:
                self._compare(self._ring, *found, store.url)

    def _begin(self, store: Store, record: RepositoryRecord, wall: int) -> None:
        if self._ring is not None:
            return  # put there before the first object is
        if next(iter(store.list(LEASES)), None) is not None:
            raise KeyRefused(
                f"{store.url} is encrypted, its key slots are gone, and the state folder knows no ring",
                hint="put keys/ back, or replicate to a new store",
            )
        drawn = [secrets.token_bytes(size) for size in (KEY_SIZE, KEY_SIZE, KEY_ID_SIZE, KEY_ID_SIZE)]
        ring = new_ring(record.repository, wall, secrets=drawn)
        self._keep(ring, wrapped(ring, self._source.read()[:1]))

    def _compare(self, ours: KeyRing, theirs: KeyRing, slot: bytes, url: str) -> None:
        related = any(theirs.root(each.key_id) == each for each in ours.roots)
        if not related:
            raise KeyRefused(
                f"{url} holds a key ring that is not this database's",
                hint=f"if it is the right one, delete {self._path}, and it is taken from there",
            )
        if theirs.number == ours.number and (theirs != ours or slot != self._slot):
            raise KeyRefused(
                f"{url} holds another key ring of the number {ours.number} than this database's other stores",
                hint="its keys were changed store by store: `replicator key rotate DATABASE` (with --config, where the "
                "agent has one) brings them together, and all stores get one ring",
            )
        if theirs.number > ours.number:
            self._keep(theirs, slot)

    def _keep(self, ring: KeyRing, slot: bytes) -> None:
        keep_slot(self._path, slot)
        self._take(ring, slot)

    def _take(self, ring: KeyRing, slot: bytes) -> None:
        self._ring, self._slot, self._seen = ring, slot, self._change()

    def _read_slot(self) -> bytes | None:
        return kept_slot(self._path)

    def _change(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


def wrapped(ring: KeyRing, keys: Sequence[OperatorKey]) -> bytes:
    """Its slot, opened by any of *keys*."""
    return wrap(ring, keys, [secrets.token_bytes(SALT_SIZE) for _ in keys])


def kept_slot(path: str) -> bytes | None:
    """The slot that a state folder holds; None without one."""
    with mapped_errors(f"cannot read {path}"):
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def keep_slot(path: str, slot: bytes) -> None:
    with mapped_errors(f"cannot write {path}"):
        replace_file(path, slot)
