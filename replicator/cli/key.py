"""``key``: the operator's key, and the ring it opens: made, listed, rotated, and everything sealed anew."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

import click

from replicator import key_change, rekey
from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.key_kit import kit_text
from replicator.cli.screen import Screen, columns, confirm, count_text, screen_of
from replicator.cli.signals import STOPPING, Asked, handled
from replicator.core.errors import DestinationRefused, KeyRefused, UsageError
from replicator.core.key_ring import KeyRing
from replicator.core.operator_key import KEY_SIZE, OperatorKey
from replicator.core.times import format_time
from replicator.core.variables import NEW_KEY_PREFIX
from replicator.files import FILE_MODE, lock_holder, write_all
from replicator.keys import FixedKeys, KeySource
from replicator.status import read_status
from replicator.store.sealed import SealedStore

# An agent looks for another ring every five seconds.
AGENT_SECONDS = 30.0
_MICROS_A_DAY = 86_400_000_000


class _KeyVerbs(click.Group):
    command_class = Verb


@click.group(cls=_KeyVerbs, context_settings={"help_option_names": ["-h", "--help"]})
def key() -> None:
    """Keys of an encrypted repository.

    The operator's key comes from BACKUP_ENCRYPTION_KEY, BACKUP_ENCRYPTION_KEY_FILE or BACKUP_ENCRYPTION_KEY_COMMAND,
    a passphrase likewise from BACKUP_ENCRYPTION_PASSPHRASE; never from an argument.
    """


_source = click.argument("source")
_config = click.option(
    "--config", metavar="FILE", help="Configuration; replicator.yml of the working folder."
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@key.command("generate")
@click.option(
    "-o", "--output", metavar="FILE", help="Write it there, readable by nobody else, and not to the screen."
)
@click.pass_context
def generate(ctx: click.Context, output: str | None) -> None:
    """Make a new key for BACKUP_ENCRYPTION_KEY: 32 random bytes in hexadecimal.

    Without it nothing that is encrypted with it can be restored: keep it where the backups are not.
    """
    screen = screen_of(ctx)
    made = secrets.token_hex(KEY_SIZE)
    if output is None:
        screen.result(made)
    else:
        _write_secret(output, made + "\n")
        screen.say(f"wrote key {OperatorKey(bytes.fromhex(made)).fingerprint} to {os.path.abspath(output)}")


@key.command("list")
@_source
@_config
@click.option(
    "--usage", is_flag=True, help="Count the objects sealed with each key: a small read for each object."
)
@click.pass_context
def list_keys(ctx: click.Context, source: str, config: str | None, usage: bool) -> None:
    """List the keys in the ring of SOURCE, a store or a database.

    JSON: `replicator-keys` {repository, ring, keys [{key_id, created, age_days, active, objects}]}; `objects` is
    {store: count}, or null without --usage.
    """
    screen = screen_of(ctx)
    holders = asked.key_holders(source, config)
    ring = holders.ring()
    used: dict[str, dict[str, int]] = {}
    if usage:
        used = {store.url: rekey.keys_in_use(SealedStore(store, FixedKeys(ring))) for store in holders.stores}
    now = asked.wall_now()
    found: list[dict[str, Any]] = [
        {
            "key_id": root.key_id,
            "created": format_time(root.created),
            "age_days": (now - root.created) // _MICROS_A_DAY,
            "active": root is ring.active,
            "objects": {url: counts.get(root.key_id, 0) for url, counts in used.items()} if usage else None,
        }
        for root in ring.roots
    ]
    if screen.json:
        screen.document(
            {"kind": "replicator-keys", "repository": ring.repository, "ring": ring.number, "keys": found}
        )
        return
    rows = [("KEY", "MADE", "AGE", "", *used)]
    for each in found:
        counts = [f"{count:,}" for count in (each["objects"] or {}).values()]
        active = "seals what is new" if each["active"] else "opens what is old"
        rows.append((each["key_id"], each["created"], f"{each['age_days']} days", active, *counts))
    for line in columns(rows):
        screen.result(line)


@key.command("rotate")
@_source
@_config
@click.pass_context
def rotate(ctx: click.Context, source: str, config: str | None) -> None:
    """Add a key to the ring of SOURCE that seals what is new; what is old stays as it is, and readable.

    An agent of this machine takes it up within seconds, any other at its next start.
    """
    screen = screen_of(ctx)
    holders = asked.key_holders(source, config)
    ring = key_change.rotate(holders, asked.wall_now())
    screen.result(f"key {ring.active.key_id} seals what is new from now on; the ring has {len(ring.roots)}")
    _say_who_knows(screen, holders)


@key.command("passwd")
@_source
@_config
@click.pass_context
def passwd(ctx: click.Context, source: str, config: str | None) -> None:
    """Have the ring of SOURCE opened by another key or passphrase of yours; no object is touched.

    The new one comes from BACKUP_ENCRYPTION_NEW_KEY or BACKUP_ENCRYPTION_NEW_PASSPHRASE, or with _FILE or _COMMAND
    behind; on a terminal a passphrase is asked for. The agent has to be started again with it. If the old key got
    into wrong hands, `key rekey` as well: whoever had it may have opened the ring.
    """
    screen = screen_of(ctx)
    holders = asked.key_holders(source, config)
    new = KeySource(prefix=NEW_KEY_PREFIX)
    if not new.configured:
        if not os.isatty(0):
            raise UsageError(
                "no new key is given", hint=f"set {NEW_KEY_PREFIX}KEY_FILE or {NEW_KEY_PREFIX}PASSPHRASE_FILE"
            )
        typed = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
        new = KeySource({f"{NEW_KEY_PREFIX}PASSPHRASE": typed}, NEW_KEY_PREFIX)
    ring, kept = key_change.change_operator_key(holders, new)
    screen.result(f"the ring of {ring.repository} is opened by the new one from now on (slot {ring.number})")
    for each in kept:
        screen.note(f"{each} could not be deleted: the old key still opens it")
    _say_who_knows(screen, holders)


@key.command("rekey")
@_source
@_config
@_yes
@click.pass_context
def rekey_verb(ctx: click.Context, source: str, config: str | None, yes: bool) -> int:
    """Seal everything of SOURCE anew under a new key, and destroy the old ones.

    Each object is read, put again and deleted: that many bytes and requests. It can be stopped, and goes on where it
    ended; until then everything stays readable. The next full backup stores all chunks again. Exit code 3 where
    something old could not be deleted or old keys are still needed.
    """
    screen = screen_of(ctx)
    holders = asked.key_holders(source, config)
    ring = holders.ring()
    used = [rekey.keys_in_use(SealedStore(store, FixedKeys(ring))) for store in holders.stores]
    left = any(key_id != ring.active.key_id for counts in used for key_id in counts)
    objects = sum(sum(counts.values()) for counts in used)
    confirm(screen, f"{count_text(objects, 'object')} will be read, put again and deleted.", yes=yes)
    if not (left and key_change.is_rekeying(ring)):
        ring = key_change.begin_rekey(holders, asked.wall_now())
    else:
        holders.publish(ring)  # to the stores that an earlier run did not come to
    known = _agent_has_it(screen, holders, ring)
    kept = 0
    signals = Asked()
    with handled(STOPPING, signals):
        for store in holders.stores:
            done = rekey.rekey(
                SealedStore(store, FixedKeys(ring)), ring.active.key_id,
                report=lambda done: screen.say(f"  {done.looked_at:,} looked at, {done.sealed_anew:,} sealed anew"),
                cancelled=lambda: signals.stop,
            )  # fmt: skip
            kept += done.kept
            screen.result(f"{store.url}: {count_text(done.sealed_anew, 'object')} sealed anew")
    if kept:
        screen.note(f"{count_text(kept, 'old object')} could not be deleted, and old keys still open them")
        return 3
    if not known:
        screen.note("old keys are kept: an agent elsewhere may seal with them; run this where it runs")
        return 3
    ended = key_change.end_rekey(holders, ring)
    screen.result(f"key {ended.active.key_id} alone opens it from now on")
    return 0


@key.command("kit")
@_source
@_config
@click.option("-o", "--output", metavar="FILE", help="Write it there, readable by nobody else.")
@click.pass_context
def kit(ctx: click.Context, source: str, config: str | None, output: str | None) -> None:
    """Print a recovery kit: all that a person needs to restore SOURCE on another machine, THE KEY INCLUDED.

    To be printed and locked away.
    """
    screen = screen_of(ctx)
    holders = asked.key_holders(source, config)
    ring = holders.ring()
    text = kit_text(ring, [store.url for store in holders.stores], holders.openers()[0], asked.wall_now())
    if output is None:
        screen.text(text)
    else:
        _write_secret(output, text)
        screen.say(f"wrote {os.path.abspath(output)}")


def _write_secret(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError as exc:
        raise DestinationRefused(f"{path} exists", hint="name another file") from exc
    except OSError as exc:
        raise DestinationRefused(f"cannot write {path}: {exc.strerror}") from exc
    try:
        write_all(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def _say_who_knows(screen: Screen, holders: key_change.KeyHolders) -> None:
    if holders.path is None:
        screen.note("an agent elsewhere takes it up at its next start; its other stores get it then")


def _agent_has_it(screen: Screen, holders: key_change.KeyHolders, ring: KeyRing) -> bool:
    """Wait until the agent seals with the new key; False where nobody here can say."""
    if holders.path is None:
        return False
    folder = os.path.dirname(holders.path)
    deadline = time.monotonic() + AGENT_SECONDS
    while lock_holder(os.path.join(folder, "lock")) is not None:
        source = (read_status(folder) or {}).get("source") or {}
        if source.get("key_ring", 0) >= ring.number:
            break
        if time.monotonic() > deadline:
            raise KeyRefused(
                "the agent that runs here does not take up the new key",
                hint="see its log; everything is readable as before, and another `key rekey` goes on",
            )
        screen.say("waiting for the agent to take up the new key")
        time.sleep(1.0)
    return True
