"""From arguments to an exit code: the group of all verbs, and what becomes of every error.

Exit codes: 0 ok · 1 failure · 2 usage · 10 no repository · 11 another agent owns it · 13 corruption ·
14 target not reachable · 15 not found · 16 store unreachable · 128 + n: ended by signal n.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence

import click

from replicator import __version__
from replicator.cli.frame import Settings, Verbs
from replicator.cli.screen import tame
from replicator.core.errors import ReplicatorError

VERBS = {
    "replicate": ("replicator.cli.replicate:replicate", "Follow databases, ship every commit to their stores."),
    "restore": ("replicator.cli.restore:restore", "Put a database back as it was after any commit."),
    "ls": ("replicator.cli.ls:ls", "What lies in a store, and what can be restored from it."),
    "show": ("replicator.cli.show:show", "One restore point: what it needs, sizes, neighbours."),
    "backup": ("replicator.cli.backup:backup", "Make a full or an incremental backup now."),
    "prune": ("replicator.cli.prune:prune", "Delete what the retention no longer promises."),
    "schedule": ("replicator.cli.schedule:schedule", "What is backed up when."),
    "pin": ("replicator.cli.pin:pin", "Keep a backup for ever."),
    "unpin": ("replicator.cli.pin:unpin", "Let a pinned backup go again."),
    "catalogue": ("replicator.cli.catalogue:catalogue", "Make metadata.json anew; print its sums."),
    "verify": ("replicator.cli.verify:verify_verb", "Look for damage, and say what it takes away."),
    "status": ("replicator.cli.status:status", "How far the agent is, and what it says of itself."),
    "check": ("replicator.cli.check:check", "Configuration, database, state, stores, clock, versions."),
    "key": ("replicator.cli.key:key", "Keys of an encrypted repository: made, listed, rotated, changed."),
    "config": ("replicator.cli.config:config", "Show the configuration, or write a first one."),
    "demo": ("replicator.cli.demo:demo", "The whole story in half a minute, on local files."),
}  # fmt: skip

EPILOG = (
    "SOURCE is the URL of a store, or a database by its path or by its name in replicator.yml. "
    'Completion for bash: eval "$(_REPLICATOR_COMPLETE=bash_source replicator)"; likewise zsh and fish.'
)


@click.group(cls=Verbs, verbs=VERBS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def verbs() -> None:
    """Continuous replication and point-in-time restore of SQLite databases."""


class _Nobody(click.ClickException):
    """Raised by no one."""


# Its message is the whole help. Releases before 8.2 print that themselves and end with 0.
_NoArguments: type[click.ClickException] = getattr(click.exceptions, "NoArgsIsHelpError", _Nobody)


def run(arguments: Sequence[str]) -> int:
    """Do what *arguments* say and return the exit code. The result goes to standard output, all else to
    standard error: an error is one line that names the thing, then one that begins with ``hint:``. A reader
    that has gone, as ``head`` does, ends it silently with 1: click sees to that."""
    settings = Settings()
    if os.environ.get("NO_COLOR"):
        settings.color = False
    try:
        answer = verbs.main(list(arguments), prog_name="replicator", standalone_mode=False, obj=settings)
        return answer if isinstance(answer, int) else 0
    except ReplicatorError as exc:
        _tell(settings, "error", str(exc), exc.hint)
        return exc.exit_code
    except _NoArguments as exc:
        click.echo(exc.format_message(), err=True, color=settings.color)
        return exc.exit_code
    except click.ClickException as exc:
        context = exc.ctx if isinstance(exc, click.UsageError) else None
        hint = f"see `{context.command_path} --help`" if context is not None else None
        _tell(settings, "error", _one_line(exc.format_message()), hint)
        return exc.exit_code
    except click.Abort as exc:
        if isinstance(exc.__cause__, KeyboardInterrupt):
            return 130
        _tell(settings, "error", "not done: it was not confirmed", None)
        return 1
    except Exception as exc:
        _tell(
            settings, "internal error", f"{type(exc).__name__}: {_one_line(str(exc))}",
            "run it again with -vv for the traceback, and report it",
        )  # fmt: skip
        return 1


def _tell(settings: Settings, what: str, message: str, hint: str | None) -> None:
    if settings.verbosity >= 2:
        for line in traceback.format_exc().splitlines():
            click.echo(tame(line), err=True)
    click.echo(f"{click.style(f'{what}:', fg='red')} {tame(message)}", err=True, color=settings.color)
    if hint is not None:
        click.echo(f"hint: {tame(hint)}", err=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
