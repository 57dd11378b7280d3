"""Which arms are run for which seeds: all of the first seed before any of the second, each once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmfw.core.claims import Arm, Claim, Size
from llmfw.core.errors import UsageError
from llmfw.core.evidence.definition import define
from llmfw.core.evidence.stated import Stated


@dataclass(frozen=True, kw_only=True)
class Task:
    """One arm for one seed."""

    seed: int
    name: str
    arm: Arm
    definition: str

    @property
    def place(self) -> str:
        """Its folder below the run's."""
        return f"seed-{self.seed}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Everything that a run of claims does, in its order."""

    stated: Stated
    claims: tuple[Claim, ...]
    size: Size
    seeds: Mapping[str, tuple[int, ...]]
    """Claim's id -> its seeds; claims without any have no entry."""
    tasks: tuple[Task, ...]
    words: tuple[str, ...]
    """Settings of the command line for every training arm."""

    @property
    def told(self) -> str:
        """What decides the run, as json."""
        claims = [[vars(claim) | {"seeds": self.seeds.get(claim.id)}] for claim in self.claims]
        tasks = [[task.place, task.definition] for task in self.tasks]
        told = [self.stated.name, self.size, claims, tasks, self.words, self.stated.fingerprint]
        return json.dumps(told, sort_keys=True, default=str)

    @property
    def command(self) -> str:
        """What to type to get these values again."""
        words = ["llmfw", "reproduce", self.stated.name, "--size", self.size]
        if len(self.claims) < len(self.stated.claims):
            words += [word for claim in self.claims for word in ("--claim", claim.id)]
        own = {claim.id: claim.seeds.get(self.size, ()) for claim in self.claims}
        asked = {seeds for id, seeds in self.seeds.items() if seeds != own[id]}
        if len(asked) == 1:
            words += ["--seeds", ",".join(map(str, asked.pop()))]
        return shlex.join([*words, *self.words])

    @property
    def at_once(self) -> list[tuple[int, list[Task]]]:
        """(seed, its tasks) in order."""
        seeds = dict.fromkeys(task.seed for task in self.tasks)
        return [(seed, [task for task in self.tasks if task.seed == seed]) for seed in seeds]


def make_schedule(
    stated: Stated,
    size: Size,
    *,
    ids: Sequence[str] = (),
    seeds: Sequence[int] = (),
    further: int = 0,
    filed: Mapping[str, Sequence[int]] | None = None,
    words: Sequence[str] = (),
) -> Schedule:
    """The arms of the chosen claims for all their seeds, asked for and checked before any runs.

    Args:
        seeds: in place of those that the claims state for this size.
        further: as many seeds more than the largest that is stated or filed, and those alone.
        filed: claim's id -> seeds that evidence.json has at this size.

    Raises:
        UsageError: nothing is to be run at this size.
        PluginError: arms that break a rule, or two of one name that differ.
    """
    claims = stated.chosen(ids)
    chosen: dict[str, tuple[int, ...]] = {}
    for claim in claims:
        own = claim.seeds.get(size, ())
        if not own:
            continue
        if further:
            last = max((*own, *(filed or {}).get(claim.id, ())))
            chosen[claim.id] = tuple(range(last + 1, last + 1 + further))
        else:
            chosen[claim.id] = tuple(seeds) or own
    if not chosen and not all(claim.not_tested for claim in claims):
        sizes = sorted({name for claim in claims for name in claim.seeds})
        raise UsageError(
            "EVIDENCE-CLAIM", f"no chosen claim of plugin {stated.name!r} has seeds for size {size}",
            mend=f"add --size {sizes[0]}" if sizes else "choose other claims", key="--size",
        )  # fmt: skip
    found: dict[tuple[int, str], Task] = {}
    for seed in dict.fromkeys(seed for own in chosen.values() for seed in own):
        for claim in claims:
            if seed not in chosen.get(claim.id, ()):
                continue
            for name, arm in stated.arms(claim, seed, size).items():
                definition = define(arm, size, counted(words) if arm.run is None else (), stated.folder)
                task = Task(seed=seed, name=name, arm=arm, definition=definition)
                if found.setdefault((seed, name), task).definition != definition:
                    raise stated.broken(
                        f"arm {name!r} isn't the same as in another claim (seed {seed})",
                        key=f"{claim.id}.{name}",
                    )
    return Schedule(
        stated=stated, claims=claims, size=size, seeds=chosen, tasks=tuple(found.values()), words=tuple(words)
    )  # fmt: skip


def counted(words: Sequence[str]) -> tuple[str, ...]:
    """Settings of the command line that may change what a training arm brings."""
    return tuple(word for word in words if not word.startswith(_BESIDE))


_BESIDE = ("run.", "tracking.", "trainer.progress", "trainer.log_every")
