"""Recipes: auxiliary models that a run trains for itself, once; kept in the cache by their plan's hash."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from llmfw.core.auxiliary import kind_of, settle_recipe, within
from llmfw.core.cache import cache_dir, mark_used
from llmfw.core.errors import LlmfwError, ResourceError
from llmfw.core.say import is_main_process, say
from llmfw.core.schema import Root

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled
    from llmfw.core.plan import Plan
    from llmfw.core.session import Session

_DONE = "final"


def recipe_plan(root: Root, name: str) -> Plan:
    """The plan of the run that ``models.NAME.fit`` describes."""
    return _assembled(root, name).plan


def train_recipes(assembled: Assembled, session: Session) -> None:
    """Train every recipe of the run that isn't in the cache yet, each as a run nested in this one."""
    root = assembled.run.config
    for name, settings in root.models.items():
        if kind_of(name, settings) == "recipe":
            trained(assembled, name, parent=session)


def trained(assembled: Assembled, name: str, *, parent: Session | None = None) -> Path:
    """The folder of a recipe's weights, trained first where the cache lacks them.

    A training that was killed goes on from its checkpoint; of several processes one trains, the others wait.

    Raises:
        ResourceError: several processes were started by hand; none of them may train alone.
        LlmfwError: what stopped the training, its key below ``models.NAME.fit``.
    """
    root = assembled.run.config
    identity = str(assembled.plan.facts["models"][name]["identity"])
    folder = cache_dir("recipes") / identity[:32]
    if _is_done(folder):
        mark_used(folder)
        return folder / _DONE
    if not is_main_process() or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ResourceError(
            "RECIPE", f"model {name!r} has to be trained first, in one process",
            mend="run the same command once with trainer.devices=1 trainer.max_steps=0",
            key=f"models.{name}.fit",
        )  # fmt: skip
    with FileLock(f"{folder}.lock"):
        if not _is_done(folder):
            _train(root, name, folder, parent)
    return folder / _DONE


def _train(root: Root, name: str, folder: Path, parent: Session | None) -> None:
    from llmfw.core.fit import fit

    say(f"models.{name}: training its recipe once ({folder})")
    try:
        recipe = _assembled(root, name, run={"dir": str(folder), "name": name})
        fit(recipe, resume="auto" if folder.exists() else "never", parent=parent)
    except LlmfwError as error:
        error.add_note(f"while the recipe of models.{name} was trained")
        raise


def _assembled(root: Root, name: str, **more: Any) -> Assembled:
    from llmfw.core.assemble import assemble

    settled = settle_recipe(root, name, **more)
    try:
        return assemble(settled, "fit")
    except LlmfwError as error:
        raise within(error, f"models.{name}.fit") from error


def _is_done(folder: Path) -> bool:
    from llmfw.core.tracking import read_record

    if not (folder / _DONE).is_dir():
        return False
    return read_record(folder).status == "FINISHED"
