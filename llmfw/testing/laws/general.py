"""Laws of every plugin: its card, its settings, its hooks, its plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from llmfw.core.errors import LlmfwError, PluginError, UsageError
from llmfw.core.hookspecs import API_VERSION, CARDINALITY
from llmfw.core.settings.keys import NEEDED, Leaf, Table, leaves, section
from llmfw.testing.laws import broken, law
from llmfw.testing.subject import Subject, kinds_of_hooks

MOST_HOOKS = 6
_PAPER = frozenset("title authors arxiv venue year doi url".split())
_ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?|[a-z-]+(\.[A-Z]{2})?/\d{7}")
_METADATA = frozenset({"help", "choices", "minimum", "maximum"})


@law("card")
def card(subject: Subject) -> None:
    """The card says in one line what the plugin does, names the kinds that its hooks have, fits this
    version of the hooks, names its paper in full, and its neutral settings are settings of its own.
    """
    found = subject.card
    if not found.summary.strip() or "\n" in found.summary.strip():
        raise broken("the summary isn't one line", mend="set summary in card.toml: what the method does")
    if not found.api[0] <= API_VERSION <= found.api[1]:
        raise broken(
            f"the card's api is {list(found.api)}, the hooks are of version {API_VERSION}",
            mend="read what changed in docs/hooks.md, then widen api in card.toml",
        )
    hooked = kinds_of_hooks(subject.plugin_class)
    if found.kinds and set(found.kinds) != set(hooked):
        raise broken(
            f"the card says {', '.join(found.kinds)}, the hooks say {', '.join(hooked) or 'no kind'}",
            mend=f"set kinds = {list(hooked)} in card.toml".replace("'", '"'),
        )
    for what, mend in _paper(found.paper):
        raise broken(what, mend=mend)
    _check_neutral(subject)
    _check_offers(subject)


def _paper(paper: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with the paper, and how it's mended."""
    for key in sorted(set(paper) - _PAPER):
        yield f"[paper] has the unknown key {key!r}", f"use {', '.join(sorted(_PAPER))}"
    if paper and not str(paper.get("title", "")).strip():
        yield "[paper] has no title", "write the paper's title, or leave [paper] out where there is none"
    authors = paper.get("authors", [])
    if not isinstance(authors, list) or not all(isinstance(author, str) and author for author in authors):
        yield "the paper's authors are no list of names", 'write authors = ["First Author", "Second Author"]'
    arxiv = paper.get("arxiv")
    if arxiv is not None and not _ARXIV.fullmatch(str(arxiv)):
        yield f"{arxiv!r} is no arXiv number", 'write it as arxiv = "2409.06411"'


def _check_neutral(subject: Subject) -> None:
    from llmfw.core.config import load_config

    if not subject.neutral:
        return
    words = [f"{key}={value}" for key, value in subject.neutral.items()]
    try:
        load_config(plugins=[subject.name], overrides=words)
    except UsageError as error:
        raise broken(
            f"the neutral settings can't be set: {error.key}: {error.what}",
            mend="let [neutral.settings] in card.toml name settings of its own, within their range",
        ) from error


def _check_offers(subject: Subject) -> None:
    offered = {service.protocol for service in subject.plan().many("llmfw_services")} - _others(subject)
    if set(subject.card.offers) != offered:
        raise broken(
            f"the card offers {', '.join(subject.card.offers) or 'nothing'}, "
            f"the hooks {', '.join(sorted(offered)) or 'nothing'}",
            mend="let offers in card.toml name the protocols of the services",
        )


def _others(subject: Subject) -> set[str]:
    """Protocols of plugins that were switched on for its needs."""
    answers = subject.plan().answers.get("llmfw_services", ())
    return {answer.value.protocol for answer in answers if answer.plugin != subject.name}


@law("config-round-trip")
def config_round_trip(subject: Subject) -> None:
    """Every setting has a default that it may take and a text of help; settings survive being written to
    YAML and read back; values out of range, words that aren't choices and unknown keys are refused.
    """
    cls, name = subject.plugin_class.Config, subject.name
    if not is_dataclass(cls):
        raise broken("Config is no dataclass", mend="put @dataclass above it")
    for item in fields(cls):
        unknown = sorted(set(item.metadata) - _METADATA)
        if unknown:
            raise broken(
                f"the metadata of {name}.{item.name} has {unknown[0]!r}, which nobody reads",
                mend=f"use {', '.join(sorted(_METADATA))}",
            )
    known = dict(leaves(section(cls, name), name))
    for key, leaf in known.items():
        if not leaf.help.strip():
            raise broken(
                f"{key} has no help", mend='write field(default=..., metadata={"help": "what it does"})'
            )
    _check_defaults(subject, known)
    _check_writing(subject)
    for key, leaf in known.items():
        for word in _wrong(leaf) if isinstance(leaf, Leaf) else ():
            _refused(subject, f"{key}={word}", "declare its minimum, maximum or choices in the metadata")
    _refused(subject, f"{name}.no_such_setting=1", "let Config be a plain dataclass")


def _check_defaults(subject: Subject, known: Mapping[str, Leaf | Table]) -> None:
    """The plugin can be built with nothing set, and each default is a value that may be set."""
    from llmfw.core.config import load_config

    given = {key: leaf.default for key, leaf in known.items() if isinstance(leaf, Leaf)}
    words = [f"{key}={json.dumps(value)}" for key, value in given.items() if value != NEEDED]
    try:
        load_config(plugins=[subject.name])
        load_config(plugins=[subject.name], overrides=words)
    except LlmfwError as error:
        raise broken(
            f"its defaults can't be taken: {error.key or subject.name}: {error.what}",
            mend="give every setting a default within its range",
        ) from error


def _check_writing(subject: Subject) -> None:
    from llmfw.core.config import load_config

    own = [word for word in subject.words() if word.startswith(f"{subject.name}.")]
    first = load_config(plugins=[subject.name], overrides=own)
    file = subject.folder / "written.yaml"
    subject.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(first.to_yaml(), encoding="utf-8")
    again = load_config(files=[file])
    ours, theirs = first.plugin_settings[subject.name], again.plugin_settings[subject.name]
    changed = [item.name for item in fields(ours) if getattr(ours, item.name) != getattr(theirs, item.name)]
    values = first.to_dict()[subject.name]
    changed += [
        item.name
        for item in fields(ours)
        if item.init and item.name in values and not _same(getattr(ours, item.name), values[item.name])
    ]
    if changed:
        raise broken(
            f"{subject.name}.{changed[0]} isn't what was set once it's written to YAML and read back",
            mend="let Config hold what the user set; compute from it elsewhere than in __post_init__",
        )


def _same(held: Any, written: Any) -> bool:
    from llmfw.core.settings.keys import plain_value

    return bool(plain_value(held) == written)


def _wrong(leaf: Leaf) -> Iterator[str]:
    """Values that the setting must not take."""
    if leaf.words and not leaf.optional:
        yield "no-such-choice"
    low, high = leaf.metadata.get("minimum"), leaf.metadata.get("maximum")
    if isinstance(low, (int, float)):
        yield str(low - 1)
    if isinstance(high, (int, float)):
        yield str(high + 1)


def _refused(subject: Subject, word: str, mend: str) -> None:
    from llmfw.core.config import load_config

    try:
        load_config(plugins=[subject.name], overrides=[word])
    except UsageError:
        return
    except PluginError as error:
        raise broken(
            f"{word} is refused as a fault of the plugin: {error.what}",
            mend="raise ValueError in __post_init__, or declare the range in the metadata",
        ) from error
    raise broken(f"{word} is taken", mend=mend)


@law("known-hooks")
def known_hooks(subject: Subject) -> None:
    """The plugin answers hooks that exist, at least one and at most six, each marked with @llmfw.hookimpl,
    with records of the right type; its verbs are those of its card.
    """
    cls = subject.plugin_class
    named = [name for name in dir(cls) if name.startswith("llmfw_")]
    unmarked = [name for name in named if not hasattr(getattr(cls, name), "llmfw_impl")]
    if unmarked:
        raise broken(f"{unmarked[0]} isn't marked, so it's never asked", mend="put @hookimpl above it")
    unknown = [name for name in named if name not in CARDINALITY]
    if unknown:
        raise broken(f"{unknown[0]} is no hook", mend="docs/hooks.md lists them")
    if not named:
        raise broken("it answers no hook", mend="mark a method with @hookimpl")
    if len(named) > MOST_HOOKS:
        raise broken(
            f"it answers {len(named)} hooks: {', '.join(named)}",
            mend=f"keep to {MOST_HOOKS}; what does more is two plugins",
        )
    subject.plan()  # makes the core check each record's type
    _check_commands(subject)


def _check_commands(subject: Subject) -> None:
    from llmfw.core.records import Command

    plugin = subject.plugin_class(subject.plugin_class.Config()) if _buildable(subject) else None
    answer: Sequence[Any] = (getattr(plugin, "llmfw_commands", lambda: None)() or ()) if plugin else ()
    wrong = [record for record in answer if not isinstance(record, Command)]
    if wrong:
        raise broken(
            f"llmfw_commands returns {type(wrong[0]).__name__}", mend="return a list of llmfw.Command"
        )
    brought = {record.name for record in answer}
    if plugin is not None and brought != set(subject.card.commands):
        raise broken(
            f"the card's verbs are {', '.join(subject.card.commands) or 'none'}, "
            f"the hook brings {', '.join(sorted(brought)) or 'none'}",
            mend="let [commands] in card.toml and llmfw_commands name the same verb",
        )


def _buildable(subject: Subject) -> bool:
    nodes = leaves(section(subject.plugin_class.Config, subject.name))
    return all(not isinstance(node, Leaf) or node.default != NEEDED for _, node in nodes)


@law("plan-is-pure")
def plan_is_pure(subject: Subject) -> None:
    """Asking the plugin's hooks twice gives the same plan: hooks draw nothing, count nothing."""
    first, second = subject.plan(), subject.plan()
    if first.hash != second.hash:
        raise broken(
            "two plans of the same settings differ",
            mend="let hooks return the same records whenever they are asked",
        )
