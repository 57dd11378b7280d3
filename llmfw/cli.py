"""The command line: parses, and imports a verb's module only when that verb is called."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from llmfw.core import guard
from llmfw.core.errors import ConflictError, LlmfwError, PluginError, ResourceError, UsageError
from llmfw.core.records import Command
from llmfw.verbs import ALIASES, CORE, VERBS

if TYPE_CHECKING:
    from llmfw.core.discovery import Card

_debug = False


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    global _debug
    _debug = _debug or value


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        hidden=True,
        help="Show tracebacks.",
    )


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from llmfw import __version__

        click.echo(f"llmfw {__version__}")
        context.exit()


class Verbs(click.Group):
    """The core's verbs and those of installed plugins, by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*CORE, *_plugin_verbs()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name in CORE:
            command = _core_command(name)
        elif name in _plugin_verbs():
            command = _plugin_command(name)
        else:
            return None
        _add_debug(command)
        if command.epilog is None and any(parameter.name == "overrides" for parameter in command.params):
            command.epilog = "llmfw config --keys lists every KEY with its meaning, default and choices."
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from difflib import get_close_matches

            near = get_close_matches(name, [*self.list_commands(ctx), *ALIASES], n=3, cutoff=0.5)
            near = [word for word in near if ALIASES.get(word) not in near]
            hint = f"did you mean {' or '.join(near)}?" if near else "see llmfw --help"
            if "=" in name:
                hint = f"settings stand behind a verb: llmfw fit {name}"
            raise UsageError("USAGE", f"there is no verb {name!r}", mend=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))
        if plugin_verbs := _plugin_verbs():
            with formatter.section("Of plugins"):
                formatter.write_dl([(name, help) for name, (help, _) in plugin_verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        verbs = CORE | {name: help for name, (help, _) in _plugin_verbs().items()}
        found = [
            CompletionItem(name, help=text) for name, text in verbs.items() if name.startswith(incomplete)
        ]
        if incomplete.startswith("-"):
            found += click.Command.shell_complete(self, ctx, incomplete)
        return found


def _core_command(name: str) -> click.Command:
    import importlib

    command = importlib.import_module(f"llmfw.verbs.{name}").command
    assert isinstance(command, click.Command), name
    return command


def _plugin_verbs() -> dict[str, tuple[str, list[str]]]:
    """Verb -> (help, names of the plugins whose cards claim it); the core's own can't be taken."""
    from llmfw.core import discovery

    found: dict[str, tuple[str, list[str]]] = {}
    for card in discovery.cards().values():
        for verb, text in card.commands.items():
            if verb not in CORE and verb not in ALIASES:
                found.setdefault(verb, (text, []))[1].append(card.name)
    return found


def _plugin_command(verb: str) -> click.Command:
    """Import the one plugin whose card claims the verb, and ask it for the command."""
    from llmfw.core import discovery
    from llmfw.core.guard.answers import fault

    _, owners = _plugin_verbs()[verb]
    cards = [discovery.card(name) for name in owners]
    if len(cards) > 1:
        names = " and ".join(f"plugin {card.name!r} ({card.origin})" for card in cards)
        raise ConflictError(
            "TWO-VERBS", f"{names} both bring the verb {verb!r}", mend="uninstall one of them"
        )
    card = cards[0]
    plugin_class = discovery.load_class(card)
    owner = guard.owner_named(card.name)
    with guard.watch(owner, "its __init__", plugin_class.__init__):
        plugin = plugin_class(plugin_class.Config())
    hook = getattr(plugin, "llmfw_commands", lambda: None)
    with guard.watch(owner, "llmfw_commands", hook):
        answer = hook()
        found = [record for record in answer or () if record.name == verb]
    if len(found) != 1 or not isinstance(found[0], Command) or fault(found[0]):
        raise _no_command(card, verb, hook)
    with guard.watch(owner, f"the factory of the verb {verb!r} (llmfw_commands)", found[0].factory):
        command = found[0].factory()
    if not isinstance(command, click.Command):
        raise _no_command(card, verb, found[0].factory)
    _blame(command, card)
    return command


def _no_command(card: Card, verb: str, function: Any) -> PluginError:
    file, line = guard.place_of_function(function)
    return PluginError(
        "PLUGIN-COMMAND", f"the card of plugin {card.name!r} ({card.origin}) claims the verb {verb!r}, "
        "but its llmfw_commands doesn't answer with it", mend="make the card and the hook agree",
        file=file, line=line,
    )  # fmt: skip


def _blame(command: click.Command, card: Card) -> None:
    """Let what a plugin's verb raises be the plugin's error, not ours; the verb may end with a code."""
    original = command.invoke

    def invoke(context: click.Context) -> Any:
        try:
            return original(context)
        except (LlmfwError, click.ClickException, click.Abort, click.exceptions.Exit, OSError, MemoryError):
            raise
        except SystemExit as error:
            code = error.code
            raise click.exceptions.Exit(code if isinstance(code, int) else int(bool(code))) from None
        except Exception as error:
            owner, what = guard.owner_named(card.name), f"llmfw {command.name}"
            raise guard.failure(
                error, owner, what, code="PLUGIN-RAISED", function=command.callback
            ) from error

    command.invoke = invoke  # type: ignore[method-assign, assignment]


def _add_debug(command: click.Command) -> None:
    if not any("--debug" in parameter.opts for parameter in command.params):
        command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_debug(inner)


cli = Verbs(
    name="llmfw",
    help=(
        "A workbench for methods that train and run language models.\n\n"
        "\b\n"
        "llmfw plugins                      published methods that are installed\n"
        "llmfw fit --plugin NAME            train with one of them\n"
        "llmfw fit --plugin NAME KEY=VALUE  the same with another setting\n"
        "llmfw compare                      the runs side by side\n"
        "llmfw init --data FILE             begin with your own data"
    ),
    epilog="llmfw VERB --help explains a verb; llmfw config --keys lists every setting.",
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
            help="Print the version.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_set_debug,
            help="Show tracebacks of errors.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)  # fmt: skip


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code; errors are printed as one line on standard error."""
    global _debug
    _debug = bool(os.environ.get("LLMFW_DEBUG"))
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        try:
            return shell_complete(cli, {}, "llmfw", _COMPLETE, instruction)
        except Exception as error:
            _trace(error)  # a half-typed line must not be littered with messages
            return 1
    try:
        verb = next((word for word in arguments if not word.startswith("-")), "")
        core = ALIASES.get(verb, verb) in CORE  # a plugin's own verb may end as it likes
        with (
            cli.make_context("llmfw", list(arguments) or ["--help"]) as context,
            guard.blaming() if core else nullcontext(),
        ):
            cli.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        _trace(error)
        print("error[INTERRUPTED] stopped by Ctrl-C; run it again when you like", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            return 141
        known = translate(error)
        if known is None:
            return _bug(error)
        _trace(error)
        if _is_news(known, getattr(error, "launch", None)):
            print(known, file=sys.stderr)
        return known.exit_code
    return 0


def _is_news(error: LlmfwError, launch: str | None) -> bool:
    """Whether no other process of the run has said it already: what all find wrong, or the true cause of what
    this one merely noticed. ``launch`` names the run's processes once the run is closed.
    """
    from llmfw.core.say import first_to_say, others_said

    if error.code == "RANK-LOST" and others_said(launch=launch):
        return False
    return first_to_say(str(error), launch)


_COMPLETE = "_LLMFW_COMPLETE"
"""Set by the shell's completion script."""


def _reader_gone() -> bool:
    """Whether nobody reads standard output any more (``llmfw config | head``); it's shut then."""
    import select

    poll = select.poll()
    poll.register(1, select.POLLOUT)
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True


def translate(error: Exception) -> LlmfwError | None:
    """The user's error behind an exception; None where it's a bug."""
    if isinstance(error, LlmfwError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "llmfw"
        what = error.format_message().strip().rstrip(".?!")
        return UsageError("USAGE", what, mend=f"see {path} --help")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ResourceError(
            "MEMORY", f"memory ran out: {error}" if str(error) else "memory ran out",
            mend="lower trainer.micro_batch or data.max_length, or set trainer.recompute=layers",
        )  # fmt: skip
    if isinstance(error, OSError) and error.errno in _FULL:
        return ResourceError(
            "DISK-FULL", error.strerror or "the disk is full", file=error.filename,
            mend="free space, or set run.dir to another disk",
        )  # fmt: skip
    if isinstance(error, OSError) and error.errno in _DENIED and error.filename:
        return UsageError(
            "PERMISSION", error.strerror or "not permitted", file=str(error.filename),
            mend="change its permissions, or name another place",
        )  # fmt: skip
    return None


_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EPERM, errno.EACCES, errno.EROFS)


def _trace(error: BaseException) -> None:
    if _debug:
        import traceback

        traceback.print_exception(error)


def _bug(error: Exception) -> int:
    import traceback

    from llmfw.core.say import first_to_say

    _trace(error)
    if not first_to_say(f"{type(error).__name__}: {error}", getattr(error, "launch", None)):
        return 1
    text = "".join(traceback.format_exception(error))
    run_dir = getattr(error, "run_dir", None)
    kept = None
    for file in ([Path(run_dir) / "crash.txt"] if run_dir else []) + [Path("llmfw-crash.txt")]:
        try:
            file.write_text(text, encoding="utf-8")
            kept = file
            break
        except OSError:
            continue
    what = " ".join(f"{type(error).__name__}: {error}".split())
    where = f"the traceback is in {kept}" if kept else "run it again with --debug to see the traceback"
    print(f"error[BUG] {what}; this is llmfw's fault, please report it: {where}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
