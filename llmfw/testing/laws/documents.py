"""Laws of what stands beside the code: the README, the overlay, the claims."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.errors import ConflictError, LlmfwError
from llmfw.core.settings.keys import find, leaves, root_section, section
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.subject import Subject

HEADINGS = (
    "Idea",
    "Equation",
    "Use",
    "Settings",
    "Neutral setting",
    "Measured here",
    "Deviations from the paper",
)
"""Headings of a README, in order; what has no equation says "What it does" in its place."""
_TRAINS = {"loss", "sampler", "datamodule", "transform", "surgery"}
_PLANNED = ("fit", "train", "plan", "validate", "evaluate")
_MODEL = ("model", "model.name")
_DATA = ("data", "data.name")


@law("documents")
def documents(subject: Subject) -> None:
    """The README has the headings that every method's has, none of them empty, each setting of the plugin in
    its table and no other, and only command lines that work.
    """
    folder = subject.card.folder
    if folder is None:
        raise NotApplicable("it's one file without a folder; its distribution documents it")
    file = folder / "README.md"
    if not file.is_file():
        raise broken("there is no README.md beside card.toml", mend=f"write one, with {', '.join(HEADINGS)}")
    text = file.read_text(encoding="utf-8")
    parts = _sections(text)
    for heading in HEADINGS:
        names = (heading, "What it does") if heading == "Equation" else (heading,)
        body = next((parts[name] for name in names if name in parts), None)
        if body is None:
            raise broken(f"README.md has no heading '## {' or '.join(names)}'", mend="write it")
        if not body.strip():
            raise broken(f"README.md says nothing under '## {heading}'", mend="say it in a sentence")
    _check_table(subject, parts["Settings"])
    for words in command_lines(text):
        _check_command(subject, words)


def _sections(text: str) -> dict[str, str]:
    """Heading of level two -> what stands below it; none is looked for inside code."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            lines = found.setdefault(line[3:].strip(), [])
        else:
            lines.append(line)
    return {heading: "\n".join(body) for heading, body in found.items()}


def _check_table(subject: Subject, body: str) -> None:
    known = {key for key, _ in leaves(section(subject.plugin_class.Config, subject.name), subject.name)}
    told = set(re.findall(rf"^\| *`({re.escape(subject.name)}\.[\w.]+)` *\|", body, re.MULTILINE))
    for key in sorted(known - told):
        raise broken(
            f"{key} isn't in the table of settings", mend=f"add | `{key}` | default | meaning | to README.md"
        )
    for key in sorted(told - known):
        raise broken(f"README.md tells of {key}, which isn't a setting", mend="take the row out")


def command_lines(text: str) -> list[list[str]]:
    """The words of every llmfw command line in the code of a page; a line may go on behind a backslash."""
    found: list[str] = []
    fenced = False
    for line in re.sub(r" *\\\n\s*", " ", text).splitlines():
        fenced ^= line.startswith("```")
        # outside a fence a sentence may begin with the word
        if told := re.fullmatch(r"( {4}|\$ )?(llmfw .*?)(?:\s{2,}#.*)?", line):
            found += [told[2]] if fenced or told[1] else []
    return [shlex.split(line) for line in found]


def _check_command(subject: Subject, words: Sequence[str]) -> None:
    """The verb, its options and its keys exist; where it would make a plan, the plan can be made."""
    import click

    from llmfw.cli import cli
    from llmfw.core import discovery

    line = " ".join(words)
    if len(words) < 2:
        return
    command = cli.get_command(click.Context(cli), words[1])
    if command is None:
        raise broken(f"README.md: `{line}`: there is no verb {words[1]}", mend="see llmfw --help")
    rest = list(words[2:])
    if isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in options:
            raise broken(
                f"README.md: `{line}`: there is no option {word}", mend=f"see llmfw {words[1]} --help"
            )
    plugins = [rest[at + 1] for at, word in enumerate(rest[:-1]) if word == "--plugin"]
    absent = [name for name in plugins if name not in discovery.cards()]
    if absent:
        return  # a plugin that isn't installed here may be named as company
    root = root_section({name: discovery.load_class(discovery.card(name)).Config for name in plugins})
    settings = [word for word in rest if re.match(r"[a-z_][\w.]*=", word)]
    for word in settings:
        if (
            any(p.name == "overrides" for p in command.params)
            and find(root, word.split("=")[0].split(".")) is None
        ):
            raise broken(
                f"README.md: `{line}`: there is no key {word.split('=')[0]}", mend="see llmfw config --keys"
            )
    if words[1] in _PLANNED and plugins:
        _check_plan(subject, line, plugins, settings)


def _check_plan(subject: Subject, line: str, plugins: list[str], settings: list[str]) -> None:
    """The line's plan over the tiny model, and over the kit's rows where it names no data set."""
    import llmfw

    own = [word for word in settings if word.partition("=")[0] not in (*_MODEL, *_DATA)]
    kit = [word for word in subject.words(plugins=plugins) if word.partition("=")[0] in _DATA]
    named = [word for word in settings if word.partition("=")[0] in _DATA]
    keep = named if named and not Path(named[-1].partition("=")[2]).suffix else kit
    try:
        llmfw.plan("model=tiny-llama", *keep, *own, plugins=plugins)
    except LlmfwError as error:
        raise broken(f"README.md: `{line}` can't be planned: {error.what}", mend=error.mend) from error


@law("overlay")
def overlay(subject: Subject) -> None:
    """config.yaml holds keys that exist, in range, and none that only the user may set; with it alone (and
    the tiny model in place of its own) the plugin makes a plan of the first verb of its card.
    """
    import llmfw
    from llmfw.core.assemble import assemble, settle
    from llmfw.core.config import load_config
    from llmfw.core.discovery import overlay_path

    path = overlay_path(subject.card)
    trains = bool(_TRAINS & set(subject.kinds)) and "fit" in subject.card.verbs
    if path is None and not trains:
        raise NotApplicable("it has no config.yaml, and trains nothing")
    name = "config.yaml" if path else "the plugin without a config.yaml"
    try:
        load_config(plugins=[subject.name])
        if trains:
            llmfw.plan("model=tiny-llama", plugins=[subject.name])
        else:
            assemble(settle(plugins=(subject.name,), overrides=("model=tiny-llama",)), "generate")
    except ConflictError as error:
        raise broken(
            f"{name} alone makes no plan: {error.what}",
            mend=f"name data in config.yaml that the method can take ({error.mend})",
        ) from error
    except LlmfwError as error:
        place = f"{error.key}: " if error.key else ""
        raise broken(f"{name}: {place}{error.what}", mend=error.mend) from error


@law("claims")
def claims(subject: Subject) -> None:
    """What reproduce.py claims is whole: ids of the plugin's own, statement, the paper's figure, metric, an
    effect that counts, arms that ``arms()`` makes for every seed, seeds; or why it can't be tested.
    """
    from llmfw.core.evidence.stated import read_claims, states_claims

    if not states_claims(subject.card):
        raise NotApplicable("it has no reproduce.py: nothing is claimed")
    try:
        stated = read_claims(subject.name)
        for claim, size, seed in _occasions(stated.claims):
            stated.arms(claim, seed, size)
    except LlmfwError as error:
        raise broken(f"{error.key or 'reproduce.py'}: {error.what}", mend=error.mend) from error


def _occasions(claims: Sequence[Any]) -> Iterator[tuple[Any, Any, int]]:
    """Each claim with one seed of each of its sizes."""
    for claim in claims:
        for size, seeds in claim.seeds.items():
            yield claim, size, seeds[0]
