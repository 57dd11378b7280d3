"""Laws of a plugin's source files: what they import, what they do when they're imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from llmfw.core import discovery
from llmfw.testing.birth import touched
from llmfw.testing.imports import Import, imports_of
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.subject import Subject

MATHEMATICS = ("functional", "reference")
_APART = frozenset({"lightning", "mlflow", "omegaconf", "peft", "pluggy", "torchmetrics", "transformers"})
DOORS = ("llmfw.core.data", "llmfw.core.models", "llmfw.core.generation")
_SHARED = ("llmfw.losses", "llmfw.callbacks")


@law("quiet-birth")
def quiet_birth(subject: Subject) -> None:
    """Importing the plugin and building it with its defaults touches nothing: no random numbers, file,
    process or network, no environment variable, thread count, dtype, warning filter, signal handler, logger
    or sys.path. Measured in a process of its own.
    """
    try:
        found = touched(subject.card.value, sources_of(subject))
    except TimeoutError as error:
        raise broken(str(error), mend="do at import and in __init__ what takes no time") from None
    if found:
        more = f" (and {len(found) - 1} more: {'; '.join(found[1:4])})" if len(found) > 1 else ""
        raise broken(
            f"importing {subject.card.value} and building it {found[0]}{more}",
            mend="do that inside a record's function, when a run needs it",
        )


@law("mathematics-alone")
def mathematics_alone(subject: Subject) -> None:
    """functional.py and reference.py need torch and nothing of lightning, mlflow, omegaconf, peft, pluggy,
    torchmetrics or transformers, so that the mathematics can be read and used alone; and the two share no
    code.
    """
    files = [file for file in sources_of(subject) if file.stem in MATHEMATICS]
    if not files:
        raise NotApplicable("it has neither functional.py nor reference.py")
    for found in (one for file in files for one in imports_of(file)):
        if found.top in _APART:
            raise broken(
                f"{found.place}: {found}", mend="keep the mathematics to torch; wire it up in plugin.py"
            )
        other = next(name for name in MATHEMATICS if name != found.file.stem)
        if found.relative and other in (found.module.lstrip("."), found.name):
            raise broken(
                f"{found.place}: {found}",
                mend="write reference.py from the paper alone, without a helper of functional.py: an oracle "
                "that shares code shares its mistakes",
            )


@law("doors")
def doors(subject: Subject) -> None:
    """The plugin's modules import of llmfw its public names, llmfw.losses, llmfw.callbacks and what the doors
    llmfw.core.data, llmfw.core.models and llmfw.core.generation offer, never another plugin, and each other
    relatively, so that the folder can move.
    """
    for file in sources_of(subject):
        for found in imports_of(file):
            if (fault := _fault(found, subject)) is not None:
                what, mend = fault
                raise broken(f"{found.place}: {found}: {what}", mend=mend)


def sources_of(subject: Subject) -> list[Path]:
    """The plugin's source files: those of its folder, or the one of a one-file plugin. Tests inside don't
    count.
    """
    folder = subject.card.folder
    if folder is None:
        module = sys.modules[subject.plugin_class.__module__]
        return [Path(str(module.__file__))]
    found = sorted(folder.rglob("*.py"))
    return [file for file in found if "tests" not in file.relative_to(folder).parts]


def _fault(found: Import, subject: Subject) -> tuple[str, str] | None:
    """What is wrong with an import and how it's mended."""
    if found.relative:
        return None
    package = subject.card.value.partition(":")[0].rpartition(".")[0]
    inside = package and (found.module == package or found.module.startswith(f"{package}."))
    if inside:
        dotted = "." + found.module.removeprefix(package).removeprefix(".")
        return "an absolute import of its own package", f"write from {dotted} import ..."
    for name, other in discovery.cards().items():
        home = other.value.partition(":")[0].rpartition(".")[0] or other.value.partition(":")[0]
        if name != subject.name and (found.module == home or found.module.startswith(f"{home}.")):
            return f"that is plugin {name!r}", "ask for a service by protocol, or let each have its own"
    if found.top != "llmfw":
        return None
    return next(iter(_inside_llmfw(found)), None)


def _inside_llmfw(found: Import) -> Iterator[tuple[str, str]]:
    import importlib

    mend = f"use a public name of llmfw, {', '.join(_SHARED)} or the doors {', '.join(DOORS)}"
    whole = f"{found.module}.{found.name}" if found.name else found.module
    if found.module == "llmfw" and found.name is None:
        return
    if found.module in ("llmfw", *DOORS):
        public = importlib.import_module(found.module).__all__
        if found.name is not None and found.name != "*" and found.name not in public and whole not in _SHARED:
            yield f"{found.name!r} is no public name of {found.module}", mend
    elif whole not in DOORS and not any(f"{whole}.".startswith(f"{room}.") for room in _SHARED):
        yield "a module of the core's own", mend
