"""``catalogue``: metadata.json of a store, made anew from its objects; and its sums, to check a copy by."""

from __future__ import annotations

import click

from replicator.catalogue import CatalogueFile
from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import count_text, screen_of
from replicator.core.metadata import decode_metadata, stored_in, sums
from replicator.core.names import METADATA
from replicator.repository import Manifests


class _CatalogueVerbs(click.Group):
    command_class = Verb


@click.group(cls=_CatalogueVerbs, context_settings={"help_option_names": ["-h", "--help"]})
def catalogue() -> None:
    """metadata.json: what lies in a store, for people and their tools. A restore needs nothing of it."""


_config = click.option(
    "--config", metavar="FILE", help="Configuration; replicator.yml of the working folder."
)


@catalogue.command("rebuild")
@click.argument("source")
@_config
@click.pass_context
def rebuild(ctx: click.Context, source: str, config: str | None) -> None:
    """Make it anew from the objects alone, each of which is read and hashed.

    JSON: `replicator-catalogue` {store, backups, objects, bytes}.
    """
    screen = screen_of(ctx)
    store = asked.find_store(source, config)
    made = CatalogueFile(store, Manifests()).rebuild(lambda name: screen.say(f"reading {name}"))
    said = decode_metadata(made)
    stored = list(stored_in(said))
    if screen.json:
        screen.document(
            {
                "kind": "replicator-catalogue",
                "store": store.url,
                "backups": len(said["backups"]),
                "objects": len(stored),
                "bytes": sum(each.size_bytes for each in stored),
            }
        )
    else:
        backups = count_text(len(said["backups"]), "backup")
        screen.result(f"{store.url}: {METADATA} lists {backups} in {count_text(len(stored), 'object')}")


@catalogue.command("sums")
@click.argument("source")
@_config
@click.pass_context
def print_sums(ctx: click.Context, source: str, config: str | None) -> None:
    """Print the SHA-256 of each object that a backup needs, as `sha256sum -c` takes it in a copy of the store.

    JSON: `replicator-sums` {store, objects [{name, size, sha256}]}.
    """
    screen = screen_of(ctx)
    store = asked.find_store(source, config)
    said = decode_metadata(store.get(METADATA))
    if screen.json:
        found = [
            {"name": each.name, "size": each.size_bytes, "sha256": each.sha256} for each in stored_in(said)
        ]
        screen.document({"kind": "replicator-sums", "store": store.url, "objects": found})
        return
    for line in sums(said):
        screen.result(line)
