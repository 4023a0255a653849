"""``prune``: delete what the policy no longer promises; the plan first, with a reason for every object."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import click

from replicator import prune as pruning
from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.screen import Screen, confirm, count_text, screen_of, size_text
from replicator.cli.through import agent_runs, tell_failure
from replicator.clock import Clock
from replicator.config import DatabaseConfig
from replicator.control import ask_agent
from replicator.core.errors import OwnershipLost, ReplicatorError, UsageError
from replicator.core.times import format_time, parse_time
from replicator.enlist import enlist, lease_text, newest_lease
from replicator.key_change import KeyHolders
from replicator.keys import HeldKeys
from replicator.repository import Manifests
from replicator.scheduler import kept_schedules
from replicator.state import StateFolder
from replicator.store import connect
from replicator.store.sealed import SealedStore
from replicator.unused_keys import destroy_unused


@click.command("prune", cls=Verb)
@click.argument("source")
@click.option(
    "-n", "--dry-run", is_flag=True, help="Only say what would be deleted, and why the rest is kept."
)
@click.option("--before", metavar="T", help="Delete, too, whatever lets a state before T be restored.")
@click.option("--take-over", is_flag=True, help="SOURCE's agent is gone for good: take its place.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.option("--state", metavar="DIR", help="State folder of the agent; beside the database.")
@click.pass_context
def prune(
    ctx: click.Context, source: str, dry_run: bool, before: str | None, take_over: bool, yes: bool,
    config: str | None, state: str | None,
) -> int:  # fmt: skip
    """Delete from every store of SOURCE, a database or the URL of one store, what its retention no longer promises.

    The agent does this after each scheduled backup. Only who writes to a store deletes there: an agent that runs is
    asked, for the plan as well; where none does, its place is taken for the while. A store alone is pruned by the
    retention of the database of the configuration that it belongs to; of none, by that of the environment. Nothing is
    deleted while the clocks differ by more than ten minutes. What a store does not let go of, such as an object lock,
    is told of and is no failure. With --before also what is still promised or pinned goes, but never the newest chain,
    and packs that kept fulls share with earlier ones stay, and are named: `backup full --anew` makes one that needs
    none. Deleted from an object store that keeps versions, or from an SSD, bytes may be there for longer: only with
    encryption is what was under a key that nothing needs any more gone for certain. Exit code 3 if some store failed.
    JSON: `replicator-prune` {source, stores {url: {dry_run, kept [{name, reason}], deleted [{name, reason}], refused
    [{name, reason}], bytes_kept, bytes_deleted, bytes_over, windows_before, windows_after, note} or {error, hint,
    exit_code}}}.
    """
    screen = screen_of(ctx)
    wanted = _wanted(screen, source, config, state)
    until = _time(screen, before)
    plans = _plans(screen, wanted, until, dry_run=dry_run)
    if dry_run:
        return _tell(screen, source, plans, verbose=True)
    wanted.database.require_enabled()
    confirm(screen, "\n".join(_summary(plans)), yes=yes)
    done = (
        wanted.ask(screen, "prune", until) if wanted.has_agent else _alone(screen, wanted, until, take_over)
    )
    return _tell(screen, source, done, verbose=False)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is pruned: the stores of ``database``, by its policy. ``is_ours``: its state is here, so it is as its agent
    that we delete. ``only``: the one store that was named, as its agent calls it."""

    database: DatabaseConfig
    is_ours: bool = True
    only: str | None = None

    @property
    def has_agent(self) -> bool:
        return self.is_ours and agent_runs(self.database)

    def ask(self, screen: Screen, verb: str, before: int | None) -> dict[str, Any]:
        arguments = {"before": before, **({"store": self.only} if self.only is not None else {})}
        database = self.database
        answer = ask_agent(database.state_folder, database.path, verb, arguments, tell=screen.say)
        return dict(answer["stores"])


def _wanted(screen: Screen, source: str, config: str | None, state: str | None) -> _Wanted:
    known = asked.find_database(source, config, state)
    if known is not None:
        return _Wanted(known)
    owner = asked.database_of_store(source, config)
    if owner is not None:
        owner = replace(owner, state=state) if state else owner
        screen.say(f"{source} is a store of {owner.path}: its retention counts")
        return _Wanted(owner, os.path.isdir(owner.state_folder), connect(source).url)
    screen.say(f"no configuration here says how long {source} is kept: by the environment, or as usual")
    return _Wanted(asked.database_at(source, (source,), state), is_ours=False)


def _plans(screen: Screen, wanted: _Wanted, before: int | None, *, dry_run: bool) -> dict[str, Any]:
    """Of the agent that runs, since it is the one that deletes: by its policy, which may be another one than here."""
    if wanted.has_agent:
        try:
            return wanted.ask(screen, "prune-plan", before)
        except ReplicatorError as exc:
            if not dry_run:
                raise
            screen.note(
                f"the agent that runs was asked, and does not plan: {exc}; planned by the settings here"
            )
    return {url: _plan(screen, url, wanted.database, before) for url in wanted.database.stores}


def _time(screen: Screen, text: str | None) -> int | None:
    if text is None:
        return None
    parsed = parse_time(text, asked.wall_now())
    if parsed.micros > asked.wall_now():
        raise UsageError(f"{format_time(parsed.micros)} has not come yet", hint="give a time in the past")
    screen.say(f"before {format_time(parsed.micros)}" + (" (UTC assumed)" if parsed.zone_assumed else ""))
    return parsed.micros


def _pruner(screen: Screen, store: SealedStore, database: DatabaseConfig) -> pruning.Prune:
    clock = Clock()
    path = StateFolder(database.state_folder).schedules_path
    kept = kept_schedules(path, database.schedules, clock)
    if kept.unreadable:
        screen.note(f"{path} cannot be used, {kept.unreadable}: schedules by hand do not count")
    return pruning.Prune(store, clock, Manifests(), policy=lambda: database.policy(kept.schedules))


def _plan(screen: Screen, url: str, database: DatabaseConfig, before: int | None) -> dict[str, Any]:
    try:
        store = asked.own_store(url, database)
        return pruning.document(_pruner(screen, store, database).run(before=before, dry=True))
    except ReplicatorError as exc:
        return exc.document()


def _alone(screen: Screen, wanted: _Wanted, before: int | None, take_over: bool) -> dict[str, Any]:
    """As the agent of that database, which does not run; or where its state is not here, in its place."""
    database, known = wanted.database, wanted.is_ours
    done: dict[str, Any] = {}
    stores: list[SealedStore] = []
    with tempfile.TemporaryDirectory(prefix="replicator-prune-") as scratch:
        state = StateFolder(database.state_folder if known else scratch)
        state.open()
        try:
            keys = HeldKeys(database.encryption, state.keys_path)
            keys.open()
            for url in database.stores:
                try:
                    if not known and not take_over:
                        _require_nobody(asked.opened(url, database))
                    store = SealedStore(connect(url), keys)
                    enlist(store, state, keys, Clock(), take_over=take_over)
                    done[url] = pruning.document(_pruner(screen, store, database).run(before=before))
                    stores.append(store)
                except ReplicatorError as exc:
                    done[url] = exc.document()
            # Of one store among several nobody knows here what the others still need.
            ring = keys.ring() if stores and wanted.only is None else None
            if ring is not None and len(ring.roots) > 1 and len(stores) == len(database.stores):
                plain = [each.plain for each in stores]
                destroy_unused(
                    stores, KeyHolders(plain, database.encryption, state.keys_path), asked.wall_now()
                )
        finally:
            state.close()
    return done


def _require_nobody(store: SealedStore) -> None:
    lease = newest_lease(store)
    if lease is not None:
        raise OwnershipLost(
            f"an agent writes to {store.url}: {lease_text(lease)}",
            hint="give the database instead of the URL, on the agent's machine; if that agent is gone for good, "
            "--take-over takes its place",
        )


# --- what is told --------------------------------------------------------------------------------------


def _summary(plans: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for url, plan in plans.items():
        if "error" in plan:
            yield f"{url}: {plan['error']}"
        else:
            count = count_text(len(plan["deleted"]), "object")
            yield f"{url}: deletes {count} ({size_text(plan['bytes_deleted'])}), keeps {len(plan['kept']):,}"


def _tell(screen: Screen, source: str, found: Mapping[str, Mapping[str, Any]], *, verbose: bool) -> int:
    if screen.json:
        screen.document({"kind": "replicator-prune", "source": source, "stores": dict(found)})
    failed = [url for url, outcome in found.items() if tell_failure(screen, url, outcome)]
    for url, outcome in found.items():
        if url in failed:
            continue
        if not screen.json:
            for line in _lines(url, outcome, verbose=verbose):
                screen.result(line)
        if outcome.get("note"):
            screen.note(outcome["note"])
    if len(failed) == len(found) and failed:
        return int(found[failed[0]]["exit_code"])
    return 3 if failed else 0


def _lines(url: str, outcome: Mapping[str, Any], *, verbose: bool) -> Iterator[str]:
    would = "would delete" if outcome["dry_run"] else "deleted"
    deleted = count_text(len(outcome["deleted"]), "object")
    yield (
        f"{url}: {would} {deleted} ({size_text(outcome['bytes_deleted'])}), "
        f"kept {len(outcome['kept']):,} ({size_text(outcome['bytes_kept'])})"
    )
    for each in outcome["refused"]:
        yield f"  the store keeps {each['name']}: {each['reason']}"
    if outcome["bytes_over"]:
        yield f"  {size_text(outcome['bytes_over'])} more than it may hold, with all gone that may go"
    if not verbose:
        return
    yield from _grouped("delete", outcome["deleted"])
    yield from _grouped("keep", outcome["kept"])
    for word, key in (("before", "windows_before"), ("after", "windows_after")):
        for window in outcome[key]:
            for each in window["stretches"]:
                yield f"  restorable {word}: {window['generation']} {each['from']} to {each['until']}"


def _grouped(word: str, entries: list[dict[str, str]]) -> Iterator[str]:
    """One line for neighbours with the same reason: a tail has hundreds of segments."""
    for reason, group in itertools.groupby(entries, lambda each: each["reason"]):
        names = [each["name"] for each in group]
        what = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names):,} objects)"
        yield f"  {word} {what}: {reason}"
