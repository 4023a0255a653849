"""``status``: how far the agent is, from what it writes of itself and from what its first store holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import click

from replicator.cli import asked
from replicator.cli.frame import Verb
from replicator.cli.ls import window_of
from replicator.cli.screen import (
    Screen,
    columns,
    count_text,
    screen_of,
    seconds_text,
    size_text,
)
from replicator.config import SECONDS_PER_DAY, DatabaseConfig
from replicator.core.errors import ReplicatorError, SourceGone
from replicator.core.position import Position, parse_position
from replicator.core.retention_policy import Policy
from replicator.core.times import MICROS_MAX, format_time
from replicator.deadline import ask_all
from replicator.enlist import is_of, newest_lease
from replicator.files import lock_holder, read_json
from replicator.repository import read_repository
from replicator.status import read_status

# Whoever asks wants to know about the agent first; a store that is away shall not keep that back.
ASK_SECONDS = 10.0
_TIMES_OF_SOURCE = ("captured_observed", "pending_since")
_TIMES_OF_STORE = (
    "shipped_observed",
    "oldest_unshipped",
    "unprotected_since",
    "last_full",
    "last_incremental",
    "last_log",
    "last_prune",
)


@click.command(cls=Verb)
@click.argument("database", required=False, metavar="[DB]")
@click.option("--config", metavar="FILE", help="Configuration; replicator.yml of the working folder.")
@click.option("--state", metavar="DIR", help="State folder of the agent; beside the database.")
@click.pass_context
def status(ctx: click.Context, database: str | None, config: str | None, state: str | None) -> int:
    """Show how far the agent is: running or not, lag, marks, what can be restored, the last error.

    DB is a database by path or by its name in the configuration; without it, all of the configuration.
    The exit code is 0 whenever the question could be answered, whatever the answer; 15 if no agent ever ran.
    JSON: one `replicator-status` a line for each database.
    """
    screen = screen_of(ctx)
    for number, each in enumerate(asked.find_databases(database, state, config)):
        document = describe(each, asked.wall_now())
        if screen.json:
            screen.document(document)
            continue
        if number:
            screen.result()
        _print(screen, document)
    return 0


def describe(database: DatabaseConfig, now: int) -> dict[str, Any]:
    """``replicator-status``: what ``replicator.status`` writes, its times as RFC 3339 or null, and

    running, pid; ``enabled``: whether anything is backed up; ``verification``: whether it is read back;
    ``changed_since``: whether the database changed after an agent that is not running wrote last; ``committed``:
    captured and how many frames are pending; for each store ``lag`` {seconds, transactions, bytes}, where seconds
    are since the oldest commit that is not shipped and 0 means there is none, ``unprotected_since``, null while a
    full backup of the running generation is complete, and ``writer`` {host, process, since, epoch, this_agent} by
    its newest lease, null where there is none or it did not say; ``key`` {ring, created, age_days, old}, null where
    nothing is encrypted; ``lag_seconds``: the worst of the stores; and of the first store ``window`` as in ``ls``
    or ``window_problem``.
    """
    found = read_status(database.state_folder)
    if found is None:
        raise SourceGone(
            f"no agent ever ran on {database.path} with the state folder {database.state_folder}",
            hint="name the folder with --state if it has another, or the configuration with --config",
        )
    source = found["source"]
    if found["running"] and lock_holder(os.path.join(database.state_folder, "lock")) != found["pid"]:
        source["phase"] = "starting"  # an agent that has not written anything yet; this is of the one before
    generation = _generation_began(database.state_folder)
    for store in found["stores"]:
        store["lag"] = asdict(_lag(source, store, now))
        captured, protected = _position(source["captured"]), _position(store["protected"])
        covered = captured is None or (protected is not None and protected.generation == captured.generation)
        since = 0 if covered else store["unprotected_since"] or generation
        store["unprotected_since"] = since
        _write_times(store, _TIMES_OF_STORE)
        if store.get("error"):
            _write_times(store["error"], ("at",))
    idle = found["running"] and source["phase"] == "disabled"
    found["enabled"] = database.enabled and not idle
    found["verification"] = database.verification
    found["key"] = _key(source, now, database.key_max_age)
    found["lag_seconds"] = max((each["lag"]["seconds"] for each in found["stores"]), default=0.0)
    found["changed_since"] = not found["running"] and _changed_after(database.path, found["written"])
    _write_times(source, _TIMES_OF_SOURCE)
    _write_times(found, ("written",))
    if found["error"]:
        _write_times(found["error"], ("at",))
    return found | _ask_the_stores(found["stores"], database)


def _key(source: dict[str, Any], now: int, max_age: float) -> dict[str, Any] | None:
    """{ring, created, age_days, old} of an encrypted repository."""
    ring, created = source.pop("key_ring", 0), source.pop("key_created", 0)
    if not ring:
        return None
    age = (now - created) / 1e6
    return {
        "ring": ring,
        "created": format_time(created),
        "age_days": int(age // SECONDS_PER_DAY),
        "old": age > max_age,
    }


def _write_times(content: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        content[name] = format_time(content[name]) if content[name] else None


def _position(text: str | None) -> Position | None:
    return parse_position(text) if text else None


def _generation_began(state_folder: str) -> int:
    """0 where nobody says, or says it in another way than an agent does."""
    state = read_json(os.path.join(state_folder, "state.json")) or {}
    try:
        began = state["generation"]["record"]["began"]
    except (KeyError, TypeError):
        return 0
    return began if type(began) is int and 0 < began <= MICROS_MAX else 0


@dataclass(frozen=True, slots=True)
class Lag:
    """What one store has not got yet. ``bytes`` are as they will be shipped, but for what is not captured."""

    seconds: float
    transactions: int
    bytes: int


def _lag(source: dict[str, Any], store: dict[str, Any], now: int) -> Lag:
    captured = _position(source["captured"])
    shipped = _position(store["shipped"])
    protected = _position(store["protected"])
    behind = 0
    if captured is not None:
        reached = [
            each.txid for each in (shipped, protected) if each and each.generation == captured.generation
        ]
        behind = captured.txid - max(reached, default=0)
    waiting = behind > 0 or store["spool_bytes"] > 0 or source["pending_frames"] > 0
    pending_bytes = source["pending_frames"] * source["page_size"]
    if not waiting:
        return Lag(0.0, 0, 0)
    # What was never offered to the store has no time of its own yet: the newest that it has is the bound.
    since = [store["oldest_unshipped"], source["pending_since"]]
    known = [each for each in since if each] or [store["shipped_observed"] or source["captured_observed"]]
    return Lag(max(0, now - min(known)) / 1e6, max(behind, 0), store["spool_bytes"] + pending_bytes)


def _changed_after(database: str, micros: int) -> bool:
    """By the files' times alone: opening them is not needed for a hint. A second of grace, for what the agent
    itself still had to let go of."""
    for path in (database, database + "-wal"):
        try:
            if os.stat(path).st_mtime_ns // 1000 > micros + 1_000_000:
                return True
        except OSError:
            continue
    return False


def _ask_the_stores(stores: list[dict[str, Any]], database: DatabaseConfig) -> dict[str, Any]:
    """``window`` and ``window_problem``, of the first; ``writer`` into each of *stores*."""
    urls = [each["url"] for each in stores] or list(database.stores[:1])
    calls: list[Callable[[], Any]] = [partial(_writer, url, database) for url in urls]
    calls += [partial(_window, url, database) for url in urls[:1]]
    answers = ask_all(calls, ASK_SECONDS, stopped=lambda: False)
    for store, answer in zip(stores, answers, strict=False):
        store["writer"] = answer.result() if answer.done() and not answer.exception() else None
    found: dict[str, Any] = {"window": None, "window_problem": None}
    if not urls:
        found["window_problem"] = "no store is known"
    elif not answers[-1].done():
        found["window_problem"] = f"{urls[0]} did not answer within {ASK_SECONDS:.0f} s"
    elif problem := answers[-1].exception():
        if not isinstance(problem, ReplicatorError):
            raise problem
        found["window_problem"] = str(problem)
    else:
        found["window"] = answers[-1].result()
        found["window_problem"] = None if found["window"] else "nothing can be restored yet"
    return found


def _window(url: str, database: DatabaseConfig) -> dict[str, Any] | None:
    return window_of(read_repository(asked.own_store(url, database)))


def _writer(url: str, database: DatabaseConfig) -> dict[str, Any] | None:
    lease = newest_lease(asked.own_store(url, database))
    if lease is None:
        return None
    return {
        "host": lease.host,
        "process": lease.pid,
        "since": lease.claimed,
        "epoch": lease.epoch,
        "this_agent": is_of(lease, database.state_folder),
    }


# --- for the eye ---------------------------------------------------------------------------------------


def _print(screen: Screen, found: dict[str, Any]) -> None:
    source = found["source"]
    rows = [("agent", _agent_line(found))]
    if found["enabled"]:
        rows += _rows_of_source(source)
        for store in found["stores"]:
            rows += _store_rows(store)
    else:
        rows += [("store", store["url"]) for store in found["stores"]]
    window = found["window"]
    if window:
        rows.append(("window", f"{window['oldest']['committed']} to {window['newest']['committed']}"))
    else:
        rows.append(("window", f"none: {found['window_problem']}"))
    if found["key"]:
        rows.append(("key", _key_line(found["key"])))
    if found["enabled"]:
        rows += _rows_of_log(source)
        if not found["verification"]:
            rows.append(("verification", "OFF: backups are not read back before they count"))
    if found["error"]:  # what keeps it from working just now, the newest
        rows.append(
            ("last error", f"{found['error']['at']} {found['error']['where']}: {found['error']['message']}")
        )
        if found["error"]["hint"]:
            rows.append(("hint", found["error"]["hint"]))
    screen.result(f"{found['name']}  {found['database']}")
    for line in columns([(f"  {name}", text) for name, text in rows]):
        screen.result(line)


def _rows_of_source(source: dict[str, Any]) -> list[tuple[str, str]]:
    pending = (
        f" + {count_text(source['pending_frames'], 'frame')} not captured" if source["pending_frames"] else ""
    )
    at = f", {source['captured_observed']}" if source["captured_observed"] else ""
    return [
        ("committed", f"{source['captured'] or 'nothing'}{pending}"),
        ("captured", f"{source['captured'] or 'nothing'}{at}"),
    ]


def _rows_of_log(source: dict[str, Any]) -> list[tuple[str, str]]:
    size = size_text(source["pages"] * source["page_size"])
    longest = seconds_text(source["barrier_longest_ms"] / 1000)
    rows = [
        ("log", f"{size_text(source['wal_bytes'])}, database {size}"),
        ("barriers", f"{source['barriers']} held, the longest for {longest}"),
    ]
    if source["overloaded"] or source["coalesced"]:
        now_word = "now: restore points are thinned out" if source["overloaded"] else "over"
        rows.append(("overload", f"{now_word}; {count_text(source['coalesced'], 'commit')} coalesced so far"))
    return rows


def _agent_line(found: dict[str, Any]) -> str:
    source = found["source"]
    if not found["running"]:
        changed = "; the database CHANGED since then" if found["changed_since"] else ""
        disabled = "" if found["enabled"] else "; backups are disabled"
        return f"NOT RUNNING, last heard of {found['written']}{changed}{disabled}"
    reason = f": {source['reason']}" if source["reason"] else ""
    return f"running (process {found['pid']}), {source['phase']}{reason}"


def _key_line(key: dict[str, Any]) -> str:
    old = "  OLD: rotate it with `replicator key rotate`" if key["old"] else ""
    return (
        f"ring {key['ring']}, its newest key of {key['created']} ({count_text(key['age_days'], 'day')}){old}"
    )


def _store_rows(store: dict[str, Any]) -> list[tuple[str, str]]:
    lag = store["lag"]
    clear = "  IN CLEAR: its endpoint is http://, without TLS" if store.get("in_clear") else ""
    rows = [("store", f"{store['url']}{clear}")]
    if lag["seconds"] or lag["transactions"] or lag["bytes"]:
        rows.append(
            (
                "  lag",
                f"{seconds_text(lag['seconds'])}: {count_text(lag['transactions'], 'transaction')}, "
                f"{size_text(lag['bytes'])}",
            )
        )
    else:
        rows.append(("  lag", "none: all that is captured is shipped"))
    at = f", {store['shipped_observed']}" if store["shipped_observed"] else ""
    rows.append(("  shipped", f"{store['shipped'] or store['protected'] or 'nothing'}{at}"))
    if store["unprotected_since"]:
        rows.append(
            ("  full", f"UNPROTECTED since {store['unprotected_since']}: no full backup of this generation")
        )
    else:
        rows.append(("  full", f"protected from {store['protected'] or 'the first commit on'}"))
    if writer := store["writer"]:
        other = "" if writer["this_agent"] else "ANOTHER AGENT: "
        since = f"since {writer['since']} (epoch {writer['epoch']})"
        rows.append(("  writer", f"{other}process {writer['process']} on {writer['host']}, {since}"))
    if store.get("rolled_back"):
        rows.append(("  ROLLED BACK", store["rolled_back"]))
    if store.get("error"):
        rows.append(("  error", f"{store['error']['at']}: {store['error']['message']}"))
    used, limit = store["used"], store["limit"]
    if limit and Policy(max_bytes=limit).is_nearly_full(used):
        word = "FULL" if used >= limit else "NEARLY FULL"
        over = f"; {size_text(store['over'])} of it cannot go" if store["over"] else ""
        rows.append(
            ("  room", f"{word}: it held {size_text(used)} of {size_text(limit)} when it was pruned{over}")
        )
    lapsed = "; LAPSED: what was queued is dropped, a full backup has to follow" if store["lapsed"] else ""
    rows.append(("  spool", f"{size_text(store['spool_bytes'])}{lapsed}"))
    return rows
