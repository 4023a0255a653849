"""What every verb has in common: the options that work everywhere, and verbs that are imported when typed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

_Value = TypeVar("_Value")


@dataclass(slots=True)
class Settings:
    """The options that work with every verb, before its name or behind it.

    ``color``: None lets click decide (a terminal has it, a file has not), False is without.
    """

    verbosity: int = 0
    quiet: bool = False
    json: bool = False
    color: bool | None = None


def settings_of(ctx: click.Context) -> Settings:
    return ctx.ensure_object(Settings)


def _keep(
    take: Callable[[Settings, _Value], None],
) -> Callable[[click.Context, click.Parameter, _Value], None]:
    """A callback that keeps a value that was given; the one that was not given must not undo it."""

    def callback(ctx: click.Context, _: click.Parameter, value: _Value) -> None:
        if value:
            take(settings_of(ctx), value)

    return callback


def _more_verbose(settings: Settings, count: int) -> None:
    settings.verbosity = max(settings.verbosity, count)


def everywhere() -> list[click.Parameter]:
    """Eager, so that an error in another option is already told the way that was asked for."""
    common: dict[str, Any] = {"expose_value": False, "is_eager": True}
    return [
        click.Option(
            ["-q", "--quiet"], is_flag=True, help="Errors only.",
            callback=_keep(lambda settings, _: setattr(settings, "quiet", True)), **common,
        ),
        click.Option(
            ["-v", "--verbose"], count=True, help="Say more; twice: with tracebacks.",
            callback=_keep(_more_verbose), **common,
        ),
        click.Option(
            ["--json"], is_flag=True, help="Print the result as JSON.",
            callback=_keep(lambda settings, _: setattr(settings, "json", True)), **common,
        ),
        click.Option(
            ["--no-color"], is_flag=True, help="No colours; the variable NO_COLOR does the same.",
            callback=_keep(lambda settings, _: setattr(settings, "color", False)), **common,
        ),
    ]  # fmt: skip


class Verb(click.Command):
    """A command with the options that work everywhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += everywhere()
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])

    def invoke(self, ctx: click.Context) -> Any:
        from replicator.cli.logs import warn_on_stderr  # which knows us

        warn_on_stderr(settings_of(ctx))
        return super().invoke(ctx)


class CommandVerb(Verb):
    """A verb behind whose arguments another command may stand: ``verb … -- CMD ARG…``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = args[at + 1 :]
            args = args[:at]
            if not ctx.meta[COMMAND]:
                raise click.UsageError("a command has to follow --", ctx)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- CMD ARG...]"]


COMMAND = "replicator.cli.command"
"""Where in ``ctx.meta`` the command behind ``--`` is, if there is one."""


class Verbs(click.Group):
    """A group whose verbs are modules: ``module:object`` and a line of help by name.

    Imports take longer than most verbs do, so help and completion know the names without any.
    """

    def __init__(self, *args: Any, verbs: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = verbs
        self.params += everywhere()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        module, _, name = self._verbs[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in self._verbs.items()])
