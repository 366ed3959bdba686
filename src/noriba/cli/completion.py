"""``noriba completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from noriba.cli.framework import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(noriba completion bash)"      # in ~/.bashrc
    zsh:   eval "$(noriba completion zsh)"       # in ~/.zshrc
    fish:  noriba completion fish | source       # in ~/.config/fish/config.fish
    """
    source = get_completion_class(shell)
    assert source is not None, shell
    root = ctx.find_root().command
    click.echo(source(root, {}, "noriba", "_NORIBA_COMPLETE").source())
