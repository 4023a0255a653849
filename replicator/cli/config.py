"""``config``: what is configured, with every default; or a first configuration to fill in."""

from __future__ import annotations

import os
from typing import Any

import click
import yaml

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import screen_of
from replicator.core.errors import DestinationRefused
from replicator.core.quantities import format_duration, format_size
from replicator.core.retention_policy import Policy
from replicator.core.schedule import Schedule
from replicator.core.schedule_file import schedule_document
from replicator.store import open_store

TEMPLATE = """\
# What replicator replicates, and where to. Paths are relative to the folder of this file.
# `replicator check` says what is wrong with it, `replicator config show` what it amounts to.

databases:
  - path: app.db            # a SQLite database in WAL mode; it need not exist yet
    stores:                 # one or more: a path, file://, s3://, gs://, azure://, sftp://
      - backups/app
    # name: app.db          # for logs, status and as SOURCE; default: the file's name
    # state: /var/lib/replicator/app   # default: the folder .app.db-replicator beside the database

# For all databases, or with the same keys for one of them:
# enabled: true             # false: idle, and it says so
# ship_interval: 50ms       # a lone commit goes at once; under load, one object at most in this time; elsewhere 1s
# spool_limit: 1GiB         # what may queue for a store that is away, before a full backup replaces it
# bandwidth: 10MiB          # a second, for each store; without it there is no limit
# barrier: auto             # auto | never: may writers be held for milliseconds when the log gets huge?
# compression: zstd         # zstd, zstd:3 to zstd:19, gzip, gzip:1 to gzip:9, none
# verification: true        # read every backup back from the store before it counts
# log_interval: 15m         # how long live segments gather before they become one log object

# encryption:               # the key itself never stands here; see `replicator key --help`
#   key_file: /etc/replicator/key    # or key_command, passphrase_file, passphrase_command
# key_max_age: 90d          # after this a key is called old

# schedules:                # in UTC; these are the default
#   - {name: daily-full-backup, cronExpression: "0 2 * * *", backupType: full}
#   - {name: incremental-backup, cronExpression: "0 6,10,14,18,22 * * *", backupType: incremental}
# retention:                # `retentionDays` of a schedule counts more
#   log: 48h                # any commit of so long
#   incremental: 7d
#   full: 30d
#   monthly: 12             # the first full backup of so many months
#   max_age: 400d           # whatever is older goes, promised or pinned; without it nothing goes for its age alone
# max_size: 100GB           # for each store; the oldest go first, the newest chain never; without it there is no limit
"""


class _Settings(click.Group):
    command_class = Verb


@click.group(cls=_Settings, context_settings={"help_option_names": ["-h", "--help"]})
def config() -> None:
    """Show the configuration, or write a first one."""


@config.command("show")
@click.option("--config", "path", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.pass_context
def show(ctx: click.Context, path: str | None) -> None:
    """Print the configuration as it is understood, with every default. Exit code 2 where a key is set that is none.

    JSON: `replicator-config` {databases [{name, path, stores[], state, ship_interval, spool_limit,
    bandwidth, barrier, enabled, compression, verification, log_interval, encrypted, key_max_age, schedules[], retention
    {log, incremental, full, monthly, max_age}, max_size}]}, durations and sizes as they are written in the file;
    `ship_interval` is that of the first store, `bandwidth` and `max_size` null without a limit.
    """
    screen = screen_of(ctx)
    found = asked.needed_configuration(path)
    databases = [
        {
            "name": each.name,
            "path": os.path.abspath(each.path),
            "stores": [open_store(store).url for store in each.stores],  # absolute, and without secrets
            "state": os.path.abspath(each.state_folder),
            "ship_interval": format_duration(each.interval_of(each.stores[0])),
            "spool_limit": format_size(each.spool_bytes_max),
            "bandwidth": format_size(each.bandwidth) if each.bandwidth else None,
            "barrier": "auto" if each.barrier else "never",
            "enabled": each.enabled,
            "compression": str(each.compression),
            "verification": each.verification,
            "log_interval": format_duration(each.log_interval),
            "encrypted": each.encryption.configured,
            "key_max_age": format_duration(each.key_max_age),
            "schedules": [_schedule(one) for one in each.schedules],
            "retention": _retention(each.policy(each.schedules)),
            "max_size": format_size(each.retention.max_bytes) if each.retention.max_bytes else None,
        }
        for each in found.databases
    ]
    for notice in found.notices:
        screen.note(notice)
    if screen.json:
        screen.document({"kind": "replicator-config", "databases": databases})
    else:
        screen.text(yaml.safe_dump({"databases": databases}, sort_keys=False))
    for each in found.databases:
        if each.encryption.configured:
            each.encryption.read()


def _schedule(schedule: Schedule) -> dict[str, Any]:
    """Without what is as for all."""
    said = schedule_document(schedule)
    return {key: value for key, value in said.items() if value not in (None, "", "0")}


def _retention(policy: Policy) -> dict[str, Any]:
    """As it comes out with the schedules."""
    return {
        "log": format_duration(policy.log_hours * 3600),
        "incremental": f"{policy.incremental_days}d",
        "full": f"{policy.full_days}d",
        "monthly": policy.months,
        "max_age": f"{policy.max_age_days}d" if policy.max_age_days is not None else None,
    }


@config.command("init")
@click.option(
    "-o",
    "--output",
    default=asked.DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The file to write; - is standard output.",
)
@click.pass_context
def init(ctx: click.Context, output: str) -> None:
    """Write a first configuration, with comments. An existing file is never touched."""
    screen = screen_of(ctx)
    if output == "-":
        screen.text(TEMPLATE)
        return
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError as exc:
        raise DestinationRefused(
            f"{output} exists", hint="name another file with -o, or - for standard output"
        ) from exc
    except OSError as exc:
        raise DestinationRefused(f"cannot write {output}: {exc.strerror}") from exc
    screen.say(f"wrote {os.path.abspath(output)}")
