"""``config``: what is configured, with every default; or a first configuration to fill in."""

from __future__ import annotations

import os

import click
import yaml

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import screen_of
from replicator.core.errors import DestinationRefused
from replicator.core.quantities import format_duration, format_size
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
# ship_interval: 50ms       # a lone commit goes at once; under load, one object at most in this time; elsewhere 1s
# spool_limit: 1GiB         # what may queue for a store that is away, before a full backup replaces it
# bandwidth: 10MiB          # a second, for each store; without it there is no limit
# barrier: auto             # auto | never: may writers be held for milliseconds when the log gets huge?
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
    """Print the configuration as it is understood, with every default.

    JSON: `replicator-config` {databases [{name, path, stores[], state, ship_interval, spool_limit,
    bandwidth, barrier}]}, durations and sizes as they are written in the file; `ship_interval` is that of the
    first store, `bandwidth` null without a limit.
    """
    screen = screen_of(ctx)
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
        }
        for each in asked.needed_configuration(path).databases
    ]
    if screen.json:
        screen.document({"kind": "replicator-config", "databases": databases})
    else:
        screen.text(yaml.safe_dump({"databases": databases}, sort_keys=False))


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
