"""What the commands share: sub-commands imported when used, common options, errors in one place."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noriba.client.errors import ApiError, ClientError
from noriba.client.target import Place, Target, find_target
from noriba.home import HomeError
from noriba.settings import SettingsError

if TYPE_CHECKING:
    from noriba.cli.output import Columns
    from noriba.client.session import Session

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported only when one is used.

    ``lazy`` maps a command to (``module:attribute``, one line of help).
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", SETTINGS)
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *(name for name in self.commands if name not in self._lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._lazy and cmd_name not in self.commands:
            module, _, attribute = self._lazy[cmd_name][0].partition(":")
            self.commands[cmd_name] = getattr(importlib.import_module(module), attribute)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1) if args else []
            if near:
                raise click.UsageError(f"{error.message} Did you mean '{near[0]}'?", ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self._lazy:
                rows.append((name, self._lazy[name][1]))
            elif (command := self.commands[name]) and not command.hidden:
                rows.append((name, command.get_short_help_str(90)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Command(click.Command):
    """A command whose errors are shown as one line, and whose repeatable options take several values at once.

    ``--set a=1 b=2`` means ``--set a=1 --set b=2``, as in ``az``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", SETTINGS)
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, help="Show the details of errors.", expose_value=False)
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        ctx.meta["noriba.debug"] = "--debug" in (args[: args.index("--")] if "--" in args else args)
        return super().parse_args(ctx, _spread(args, repeatable))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            ctx.exit(130)
        except (ClientError, HomeError, SettingsError) as error:
            if ctx.meta["noriba.debug"]:
                raise
            show_error(error)
        except Exception as error:
            if ctx.meta["noriba.debug"]:
                raise
            click.echo(
                f"noriba: {type(error).__name__}: {error} (Run the command with --debug for the details.)",
                err=True,
            )
        ctx.exit(1)


def show_error(error: Exception) -> None:
    """An error on standard error: what happened, its code, further details."""
    click.echo(f"noriba: {error}", err=True)
    if isinstance(error, ApiError):
        target = f", target: {error.target}" if error.target else ""
        click.echo(f"  code: {error.code}{target}", err=True)
        for code, message in error.details:
            click.echo(f"  - {message} ({code})" if code else f"  - {message}", err=True)


def _spread(args: list[str], repeatable: set[str]) -> list[str]:
    spread: list[str] = []
    current = ""
    taken = 0
    for index, arg in enumerate(args):
        if arg == "--":
            return spread + args[index:]
        if arg in repeatable:
            current, taken = arg, 0
        elif arg.startswith("-"):
            current = ""
        elif current:
            taken += 1
            if taken > 1:
                spread.append(current)
        spread.append(arg)
    return spread


class Cli:
    """One run of a command: which server and workspace it is for, and how its results are shown."""

    def __init__(
        self, *, home: Path | None, place: Place, output: str | None, query: str | None, debug: bool
    ) -> None:
        self.home = home
        self.place = place
        self.output = output
        self.query = query
        self.debug = debug
        self._target: Target | None = None
        self._session: Session | None = None

    @property
    def target(self) -> Target:
        """Server, user and workspace. Raises NotFoundHere."""
        if self._target is None:
            self._target = find_target(home=self.home, named=self.place)
        return self._target

    @property
    def session(self) -> Session:
        """A connection signed in to the target."""
        if self._session is None:
            from noriba.client.session import Session

            self._session = Session(self.target)
        return self._session

    def show(self, data: Any, columns: Columns | None = None) -> None:
        """Print a result in the format asked for; ``columns`` say what a table of it shows."""
        from noriba.cli.output import show

        show(data, self.output, self.query, columns)


class ApiCommand(Command):
    """A command that talks to a server. Its function gets a ``Cli`` first, then its own options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(["--workspace-name", "-w"], help="Workspace, if not the default one."),
            click.Option(["--resource-group", "-g"], help="Resource group of the workspace."),
            click.Option(["--subscription"], help="Subscription of the workspace."),
            home_option(),
            click.Option(
                ["--output", "-o"],
                type=click.Choice(["table", "json", "jsonc", "yaml", "tsv", "none"]),
                help="Format of the result; by default made for reading on a terminal and JSON otherwise.",
            ),
            click.Option(["--query"], help="JMESPath query on the result, as in az."),
            click.Option(["--verbose", "--only-show-errors"], is_flag=True, hidden=True, expose_value=False),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        if self.callback is None or "cli" in ctx.params:
            return super().invoke(ctx)
        given = ctx.params
        ctx.params = {
            "cli": Cli(
                home=given.pop("home"),
                place=Place(
                    given.pop("subscription") or "",
                    given.pop("resource_group") or "",
                    given.pop("workspace_name") or "",
                ),
                output=given.pop("output"),
                query=given.pop("query"),
                debug=ctx.meta["noriba.debug"],
            ),
            **given,
        }
        return super().invoke(ctx)


def home_option() -> click.Option:
    """``--home``."""
    return click.Option(
        ["--home"],
        type=click.Path(path_type=Path, file_okay=True),
        help="Home of the server. [NORIBA_HOME, ~/.noriba]",
    )


class HomeCommand(Command):
    """A command about the server of a home."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.insert(0, home_option())


def note(message: str) -> None:
    """Tell the user something beside the result (on standard error)."""
    click.echo(message, err=True)


def fail(message: str, code: int = 1) -> None:
    """End with a message."""
    click.echo(f"noriba: {message}", err=True)
    sys.exit(code)
