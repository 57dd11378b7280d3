"""Where weights come from: the chain of models below them, and under which licence the first was given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmfw.core.errors import LlmfwError
from llmfw.core.models.source import ModelSource, as_model, resolve_model

UNKNOWN = "unknown"
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_LARGEST = 1 << 20  # bytes of a README that is looked at
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_KNOWN = frozenset(
    """afl-3.0 agpl-3.0 apache-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-2.0 creativeml-openrail-m epl-2.0 eupl-1.2 gemma gpl-2.0
    gpl-3.0 isc lgpl-2.1 lgpl-3.0 llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 mit mpl-2.0 odbl openrail
    openrail++ osl-3.0 pddl unlicense wtfpl zlib other unknown""".split()
)
"""Words that the hub's ``license`` field takes."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One model below exported weights. Names are public: ids, presets, a folder's own name, never a path."""

    name: str
    words: str
    """What it is, for a reader."""
    hub: str | None = None
    """Its id on the hub, where it has one."""
    revision: str | None = None
    licence: str | None = None
    licence_from: str = ""
    """Where the licence was read."""


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Under which licence weights go out, and how that's known."""

    id: str
    """A word of the hub's list; ``other`` and ``unknown`` are among them."""
    name: str
    """As it was written."""
    why: str

    @property
    def known(self) -> bool:
        """Whether anybody stated one."""
        return self.id != UNKNOWN


def origins(source: ModelSource) -> tuple[Origin, ...]:
    """The models below saved weights, nearest first; of a model that wasn't trained here, itself."""
    found = []
    seen = 0
    while source.kind in ("adapter", "full") and seen < 32:
        seen += 1
        assert source.manifest is not None
        below = as_model(source.manifest["model"])
        try:
            source = resolve_model(below)
        except LlmfwError:
            found.append(_lost(below.name))
            return tuple(found)
        if source.kind in ("adapter", "full"):
            found.append(_of_run(source))
    found.append(_root(source))
    return tuple(found)


def licence_of(chain: Sequence[Origin], stated: str | None = None) -> Licence:
    """The licence that the user states, else that of the model at the chain's end; never a guess."""
    if stated is not None:
        return Licence(id=_hub_word(stated), name=stated, why="stated at export (--license)")
    for origin in chain:
        if origin.licence:
            why = f"that of {origin.name}, {origin.licence_from}"
            return Licence(id=_hub_word(origin.licence), name=origin.licence, why=why)
    return Licence(id=UNKNOWN, name=UNKNOWN, why="not stated by the base model")


def public_name(name: str) -> str:
    """A model's or file's name without the folders of this machine: ids and presets as they are."""
    path = Path(name).expanduser()
    if path.is_absolute() or name.startswith((".", "~")):
        return path.name or name
    return name


def read_licence(folder: Path) -> str | None:
    """The ``license`` in the front matter of a folder's README.md; None where none is stated."""
    found = _front_matter(folder / "README.md")
    stated = found.get("license")
    if isinstance(stated, list):
        stated = stated[0] if stated else None
    if isinstance(stated, str) and stated.lower() == "other" and isinstance(found.get("license_name"), str):
        stated = found["license_name"]
    return stated if isinstance(stated, str) and stated.strip() and stated.lower() != UNKNOWN else None


def _front_matter(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        match = _FRONT.match(path.read_text(encoding="utf-8", errors="replace"))
        found = yaml.safe_load(match[1]) if match else None
    except (OSError, yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _root(source: ModelSource) -> Origin:
    settings = source.model
    if source.kind == "scratch":
        kind = settings.config.get("model_type", "model")
        return Origin(
            name=public_name(settings.name),
            words=f"random weights of a {kind}, made from its config and the seed",
        )
    if source.kind == "package":
        package = settings.package
        return Origin(
            name=settings.name,
            words=f"the preset {settings.name}: {package.get('file')} of the Python package "
            f"{package.get('distribution')} {package.get('version')}, dequantised",
            hub=package.get("hub"),
            licence=package.get("licence"),
            licence_from="as the preset states",
        )
    if source.kind == "hub":
        return _of_hub(source)
    place = source.folder or Path(settings.name)
    return Origin(
        name=place.name,
        words=f"the local {'file' if place.is_file() else 'folder'} {place.name}",
        licence=read_licence(place.parent if place.is_file() else place),
        licence_from="as its README.md states",
    )


def _of_hub(source: ModelSource) -> Origin:
    from llmfw.core.models.fetch import local_folder

    try:
        folder = local_folder(source, weights=False)
    except LlmfwError:
        folder = None
    revision = source.model.revision if folder is None else folder.name
    return Origin(
        name=source.model.name,
        words=f"{source.model.name} of the Hugging Face hub" + (f", commit {revision}" if revision else ""),
        hub=source.model.name,
        revision=revision,
        licence=read_licence(folder) if folder else None,
        licence_from="as its README.md states",
    )


def _of_run(source: ModelSource) -> Origin:
    assert source.folder is not None
    place = source.folder
    if place.name == "final":
        name, which = place.parent.name, "its final weights"
    else:
        name, which = place.parents[1].name if place.name.startswith("step-") else place.name, place.name
    return Origin(
        name=name,
        words=f"the run {name}, {which}",
        licence=read_licence(place),
        licence_from="as its README.md states",
    )


def _lost(name: str) -> Origin:
    if _HUB_ID.fullmatch(name) and not name.startswith(("/", ".", "~")):
        return Origin(name=name, words=f"{name} of the Hugging Face hub", hub=name)
    plain = public_name(name)
    return Origin(name=plain, words=f"{plain}, which is no longer where it was")


def _hub_word(licence: str) -> str:
    word = re.sub(r"[\s_]+", "-", licence.strip().lower())
    return word if word in _KNOWN else "other"
