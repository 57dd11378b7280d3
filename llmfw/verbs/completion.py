"""``llmfw completion``: the script that makes a shell complete verbs, plugins, keys and words."""

from __future__ import annotations

import click

INSTALL = {
    "bash": "echo 'eval \"$(llmfw completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(llmfw completion zsh)\"' >> ~/.zshrc",
    "fish": "llmfw completion fish > ~/.config/fish/completions/llmfw.fish",
}
_BASH = """\
_llmfw_completion() {
    # the line itself is cut into words, because bash would also cut at the equals sign of KEY=VALUE
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$' \\t\\n' words word cword answer kind value
    read -ra words <<< "$line"
    cword=${#words[@]}
    [[ "$line" == *[[:space:]] ]] || cword=$((cword - 1))
    word="${words[cword]}"
    answer=$(env COMP_WORDS="$line" COMP_CWORD=$cword _LLMFW_COMPLETE=bash_complete "$1")
    COMPREPLY=()
    while IFS=',' read -r kind value; do
        case "$kind" in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                # bash replaces only what stands behind the equals sign; a key is continued, not ended
                [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]] && value="${value#"${word%%=*}="}"
                [[ "$value" == *= ]] || value="$value "
                COMPREPLY+=("$value")
                ;;
        esac
    done <<< "$answer"
}
complete -o nosort -o nospace -F _llmfw_completion llmfw
"""


@click.command(
    "completion",
    epilog="\b\nTo have it in every new shell:\n" + "\n".join(f"  {line}" for line in INSTALL.values()),
)
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
def command(shell: str) -> None:
    """Print the script that completes llmfw's words in your shell."""
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The completion script: click's own, but for bash, where words with an equals sign need care."""
    if shell == "bash":
        return _BASH
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, shell
    return found(click.Command("llmfw"), {}, "llmfw", "_LLMFW_COMPLETE").source() + "\n"
