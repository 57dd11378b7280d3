"""A plugin's reproduce.py: its claims and their arms, read and checked before anything runs."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from llmfw.core import discovery
from llmfw.core.claims import Arm, Claim, Kind, Size
from llmfw.core.discovery import Card, owner_of
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.guard import IMPORTING, watch

MODULE = "reproduce"
SIZES: tuple[Size, ...] = get_args(Size)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a plugin claims. ``folder`` is its package's, where evidence.json belongs."""

    card: Card
    file: Path
    claims: tuple[Claim, ...]
    make_arms: Callable[[Claim, int, Size], Mapping[str, Arm]]

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.card.name

    @property
    def folder(self) -> Path:
        """The folder of reproduce.py."""
        return self.file.parent

    def chosen(self, ids: Sequence[str]) -> tuple[Claim, ...]:
        """The claims of these ids (or their numbers alone), in the plugin's order; of none all of them.

        Raises:
            UsageError: there is no such claim.
        """
        wanted = {one if "." in one else f"{self.name}.{one}" for one in ids}
        known = [claim.id for claim in self.claims]
        for one in sorted(wanted - set(known)):
            raise UsageError(
                "EVIDENCE-CLAIM", f"plugin {self.name!r} states no claim {one!r}",
                mend=f"choose of: {', '.join(known)}", key="--claim",
            )  # fmt: skip
        return tuple(claim for claim in self.claims if not wanted or claim.id in wanted)

    def arms(self, claim: Claim, seed: int, size: Size) -> dict[str, Arm]:
        """The arms of a claim for one seed, each after the one from whose weights it starts.

        Raises:
            PluginError: ``arms`` failed, or what it gave lacks an arm or breaks a rule.
        """
        with watch(owner_of(self.card), f"arms() for claim {claim.id}", self.make_arms):
            given = self.make_arms(claim, seed, size)
        if not isinstance(given, Mapping) or not all(isinstance(arm, Arm) for arm in given.values()):
            raise self.broken("arms() has to give a mapping of names to llmfw.Arm", key=claim.id)
        found: dict[str, Arm] = {}
        for name in (*claim.arms, *claim.controls):
            self._take(name, given, found, claim, ())
        return found

    def _take(
        self, name: str, given: Mapping[str, Arm], found: dict[str, Arm], claim: Claim, path: tuple[str, ...]
    ) -> None:
        if name in found:
            return
        if name in path:
            raise self.broken(f"arm {name!r} starts from itself", key=f"{claim.id}.{name}")
        if name not in given:
            known = ", ".join(given) or "none"
            raise self.broken(f"arms() gave no arm {name!r} (it gave {known})", key=claim.id)
        arm = given[name]
        self._check_arm(name, arm, claim)
        if arm.after is not None:
            self._take(arm.after, given, found, claim, (*path, name))
            if found[arm.after].run is not None:
                raise self.broken(
                    f"arm {name!r} starts from {arm.after!r}, which trains nothing", key=f"{claim.id}.{name}"
                )
        found[name] = arm

    def _check_arm(self, name: str, arm: Arm, claim: Claim) -> None:
        key = f"{claim.id}.{name}"
        if not re.fullmatch(r"[\w.+-]+", name):
            raise self.broken(f"{name!r} can't be an arm's name: it names a folder", key=key)
        if arm.run is not None and (arm.plugins or arm.settings or arm.values):
            raise self.broken(
                "an arm with run takes no plugins, settings or values: it trains nothing", key=key
            )
        for setting in arm.settings:
            if setting == "seed" or setting.startswith(("run.", "tracking.")):
                raise self.broken(f"{setting} is set by the command", key=key)

    def broken(self, what: str, *, key: str | None = None) -> PluginError:
        """The error of a rule that reproduce.py breaks."""
        return PluginError("EVIDENCE-CLAIM", what, mend="mend reproduce.py", file=self.file, key=key)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plugin's code."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".py", ".toml", ".yaml") and path.is_file():
                digest.update(f"{path.relative_to(self.folder)}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def states_claims(card: Card) -> bool:
    """Whether the plugin has a reproduce.py; nothing of it is imported but its package."""
    package = _package(card)
    return bool(package) and importlib.util.find_spec(f"{package}.{MODULE}") is not None


def read_claims(name: str) -> Stated:
    """The claims of an installed plugin, checked.

    Raises:
        UsageError: it isn't installed, or states none.
        PluginError: its reproduce.py can't be imported or breaks a rule; with file and key.
    """
    card = discovery.card(name)
    if not states_claims(card):
        why = "has no reproduce.py" if _package(card) else "is one file, so it has no reproduce.py"
        raise UsageError(
            "EVIDENCE-NONE", f"plugin {name!r} ({card.origin}) states no claims: it {why}",
            mend="see llmfw reproduce --all for those that do",
        )  # fmt: skip
    module = _import(card, f"{_package(card)}.{MODULE}")
    file = Path(str(module.__file__))
    claims, arms = getattr(module, "CLAIMS", None), getattr(module, "arms", _no_arms)
    stated = Stated(card=card, file=file, claims=(), make_arms=arms)
    if not isinstance(claims, (tuple, list)) or not all(isinstance(claim, Claim) for claim in claims):
        raise stated.broken("CLAIMS has to be a tuple of llmfw.Claim", key="CLAIMS")
    if not claims:
        raise stated.broken("CLAIMS is empty", key="CLAIMS")
    if (arms is _no_arms or not callable(arms)) and not all(claim.not_tested for claim in claims):
        raise stated.broken("there is no function arms(claim, seed, size)", key="arms")
    for claim in claims:
        for key, what in _faults(claim, name):
            raise stated.broken(what, key=f"{claim.id}.{key}")
    twice = [claim.id for n, claim in enumerate(claims) if claim.id in {one.id for one in claims[:n]}]
    if twice:
        raise stated.broken("two claims have this id", key=twice[0])
    return Stated(card=card, file=file, claims=tuple(claims), make_arms=arms)


def _no_arms(claim: Claim, seed: int, size: Size) -> Mapping[str, Arm]:
    return {}


def _faults(claim: Claim, plugin: str) -> Iterable[tuple[str, str]]:
    """(key, what is wrong) of a claim."""
    if not re.fullmatch(rf"{re.escape(plugin)}\.[1-9]\d*", claim.id):
        yield "id", f"an id is {plugin}.NUMBER, not {claim.id!r}"
    for key in ("statement", "paper"):
        if not getattr(claim, key).strip():
            yield key, "this is empty"
    if claim.kind not in get_args(Kind):
        yield "kind", f"{claim.kind!r} is none of {', '.join(get_args(Kind))}"
    if claim.direction not in ("higher", "lower"):
        yield "direction", f"{claim.direction!r} is neither higher nor lower"
    if claim.not_tested:
        if claim.arms or claim.controls or claim.seeds:
            yield "arms", "a claim that isn't tested has neither arms nor seeds"
        return
    if not claim.metric:
        yield "metric", "this is empty"
    if claim.kind != "level" and not claim.effect > 0:
        yield "effect", "the smallest effect that counts (or the margin) has to be above 0"
    wanted = 1 if claim.kind == "level" else 2
    if len(claim.arms) != wanted:
        names = "(method,)" if wanted == 1 else "(baseline, method)"
        yield "arms", f"a claim of kind {claim.kind} has the arms {names}, not {len(claim.arms)}"
    names_of_all = (*claim.arms, *claim.controls)
    if len(set(names_of_all)) != len(names_of_all):
        yield "arms", "an arm stands there twice"
    if not claim.seeds:
        yield "seeds", "no size has seeds, so nothing would ever run"
    for size, seeds in claim.seeds.items():
        if size not in SIZES:
            yield "seeds", f"{size!r} is none of {', '.join(SIZES)}"
        if not seeds or len(set(seeds)) != len(seeds) or any(not 0 <= seed < 2**31 for seed in seeds):
            yield "seeds", f"size {size} needs different seeds from 0 to 2**31 - 1"


def told(claim: Claim) -> dict[str, Any]:
    """A claim as json holds it, without its seeds."""
    plain = asdict(claim)
    del plain["seeds"]
    return json.loads(json.dumps(plain))  # type: ignore[no-any-return]


def _package(card: Card) -> str:
    return card.value.partition(":")[0].rpartition(".")[0]


def _import(card: Card, module: str) -> ModuleType:
    with watch(owner_of(card), "the import of its reproduce.py", code="PLUGIN-IMPORT", times=IMPORTING):
        return importlib.import_module(module)
