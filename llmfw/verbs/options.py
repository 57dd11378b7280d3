"""Options that every verb with settings shares: which plugins, which files, which single values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

FOLDER_FILE = "llmfw.yaml"
"""Used where it lies in the current folder and no ``--config`` is given."""
_F = TypeVar("_F", bound=Callable[..., Any])


def run_options(function: _F) -> _F:
    """Give a click command the settings' options; it receives the keyword arguments of ``load_config``.

    These are ``plugins``, ``no_plugins``, ``files``, ``defaults_from`` and ``overrides`` (a list).
    """

    @functools.wraps(function)
    def called(**arguments: Any) -> Any:
        arguments["files"] = files_of(arguments["files"])
        arguments["overrides"] = list(arguments["overrides"])
        return function(**arguments)

    for decorate in reversed(_OPTIONS):
        called = decorate(called)
    return called  # type: ignore[return-value]  # the signature is click's business


def files_of(given: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files of settings: those given, else the folder's ``llmfw.yaml``, and it's said."""
    if given or not Path(FOLDER_FILE).is_file():
        return given
    click.echo(f"note: settings are read from {FOLDER_FILE} (--config names other files)", err=True)
    return (Path(FOLDER_FILE),)


def words_of(
    *,
    plugins: Any = (),
    no_plugins: Any = (),
    files: Any = (),
    defaults_from: str | None = None,
    overrides: Any = (),
) -> list[str]:
    """The options of ``run_options`` as words of a command line again."""
    words = [word for name in plugins for word in ("--plugin", name)]
    words += [word for name in no_plugins for word in ("--no-plugin", name)]
    words += [word for file in files for word in ("--config", str(file))]
    words += ["--defaults-from", defaults_from] if defaults_from else []
    return [*words, *overrides]


def complete_plugins(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Names of installed plugins, with their summaries."""
    from click.shell_completion import CompletionItem

    from llmfw.core.discovery import cards

    return [
        CompletionItem(name, help=card.summary)
        for name, card in cards().items()
        if name.startswith(incomplete)
    ]


def complete_settings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Keys of the core and of the plugins on this command line, and the words behind ``KEY=``."""
    from click.shell_completion import CompletionItem

    from llmfw.core.config import preset_names
    from llmfw.core.settings.keys import Leaf

    key, equals, begun = incomplete.partition("=")
    known = completable(context.params.get("plugins") or ())
    if equals:
        leaf = known.get(key)
        words = leaf.words if isinstance(leaf, Leaf) else ()
        if isinstance(leaf, Leaf) and leaf.type is bool:
            words = ("true", "false")
        if key in _PRESETS:
            words = preset_names(_PRESETS[key])
        return [CompletionItem(f"{key}={word}") for word in words if word.startswith(begun)]
    return [
        CompletionItem(f"{name}=", help=node.help) for name, node in known.items() if name.startswith(key)
    ]


_PRESETS = {"model": "models", "model.name": "models", "data": "data", "data.name": "data"}


def completable(plugins: tuple[str, ...]) -> dict[str, Any]:
    """Every key with its node; plugins that can't be imported have none."""
    from llmfw.core.discovery import cards, load_class
    from llmfw.core.errors import LlmfwError
    from llmfw.core.settings.keys import leaves, root_section

    classes = {}
    for name in plugins:
        if name in cards():
            try:
                classes[name] = load_class(cards()[name]).Config
            except LlmfwError:
                continue
    root = root_section(classes)
    return dict(leaves(root)) | {name: root.keys[name] for name in ("model", "data")}


_OPTIONS = (
    click.argument(
        "overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete_settings
    ),
    click.option(
        "--plugin", "plugins", multiple=True, metavar="NAME", shell_complete=complete_plugins,
        help="Switch a plugin on; repeatable, in the order in which they speak.",
    ),
    click.option(
        "--no-plugin", "no_plugins", multiple=True, metavar="NAME", shell_complete=complete_plugins,
        help="Leave out a plugin that a file or a saved model switches on; repeatable.",
    ),
    click.option(
        "--config", "files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
        help=f"Settings in YAML; repeatable, later ones win. Default: {FOLDER_FILE} in this folder, if any.",
    ),
    click.option(
        "--defaults-from", metavar="NAME", shell_complete=complete_plugins,
        help="Whose defaults hold where two plugins' defaults differ.",
    ),
)  # fmt: skip
