"""``llmfw completion``: the script that makes a shell complete verbs, plugins, keys and words."""

from __future__ import annotations

import click

INSTALL = {
    "bash": "echo 'eval \"$(llmfw completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(llmfw completion zsh)\"' >> ~/.zshrc",
    "fish": "llmfw completion fish > ~/.config/fish/completions/llmfw.fish",
}


@click.command(
    "completion",
    epilog="\b\nTo have it in every new shell:\n" + "\n".join(f"  {line}" for line in INSTALL.values()),
)
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
def command(shell: str) -> None:
    """Print the script that completes llmfw's words in your shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, shell
    program = click.get_current_context().find_root().command
    click.echo(found(program, {}, "llmfw", "_LLMFW_COMPLETE").source())
