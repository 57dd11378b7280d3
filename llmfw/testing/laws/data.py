"""Laws of transforms, datamodules and samplers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from llmfw.core.determinism import seed_all
from llmfw.core.models.rng import private_rng
from llmfw.testing.data_path import Applied, applied, orders, prepared_of, ready
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.laws.runs import inside
from llmfw.testing.observed import difference, rounds, seen, trainings
from llmfw.testing.rounds import MOST, asked

if TYPE_CHECKING:
    from pathlib import Path

    from llmfw.core.data import DataModule
    from llmfw.core.records import DatasetTransform, Row
    from llmfw.testing.subject import Subject

EPOCHS = (0, 1, 2, 7)


# --- transforms ---------------------------------------------------------------------------------------------


def calls(subject: Subject) -> list[Applied]:
    """The plugin's transforms of items at work; NotApplicable where it brings an order alone."""
    found = applied(subject)
    if not found:
        raise NotApplicable("it transforms neither rows nor examples")
    return found


def same_again(what: str, answers: Sequence[Callable[[], Any]], *, mend: str) -> None:
    """Raise Violation where calls that should answer alike don't, each under another state of the global
    random generators.
    """
    first: Any = None
    for number, ask in enumerate(answers):
        with private_rng(number):
            seed_all(number)
            answer = ask()
        if number == 0:
            first = answer
        elif answer != first:
            raise broken(f"{what} gives {_parted(first, answer)}", mend=mend)


def _parted(one: Any, other: Any) -> str:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        at = next(index for index, (a, b) in enumerate(zip(one, other)) if a != b)
        return f"{_short(one[at])} at place {at} once and {_short(other[at])} another time"
    sizes = [len(each) if isinstance(each, list) else each for each in (one, other)]
    return f"{sizes[0]} items once and {sizes[1]} another time"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@law("transform-deterministic", "transform")
def transform_deterministic(subject: Subject) -> None:
    """Given the same items (and epoch) a transform gives the same answer, whenever it's asked, and in any
    state of the global random generators.
    """
    mend = "draw from a generator that is made anew in each call, from run.seed (and the epoch)"
    fresh = {each.name: each for _, each in ready(subject.assembled(), subject.folder / "again").transforms}
    for call in applied(subject):
        name = call.transform.name
        asks = [partial(_items, each, call.given) for each in (call.transform, call.transform, fresh[name])]
        same_again(f"transform {name!r}", [partial(list, call.items), *asks], mend=mend)
    found, examples = orders(subject)
    for order in found:
        for epoch in EPOCHS:
            asks = [partial(_indices, each, examples, epoch) for each in (order, order, fresh[order.name])]
            same_again(f"the order {order.name!r} of epoch {epoch}", asks, mend=mend)


def _items(transform: DatasetTransform, given: list[Any]) -> list[Any]:
    answer = transform.apply(deepcopy(given))
    return list(getattr(answer, "items", answer))


def _indices(order: DatasetTransform, examples: list[Any], epoch: int) -> list[int]:
    return list(order.apply(list(examples), epoch))


def _id(item: Any) -> str:
    return str(item.get("id")) if isinstance(item, dict) else str(item.id)


def _content(item: Any) -> Hashable:
    """What an item trains and asks, whatever its id."""
    from llmfw.core.data.formats import said_hash

    return said_hash(item) if isinstance(item, dict) else (item.kind, item.sequences)


@law("ids-stable", "transform")
def ids_stable(subject: Subject) -> None:
    """An item that a transform hands on keeps its id; new ids are of new items, whose number it tells as the
    metric ``added``.
    """
    for call in calls(subject):
        given, name = {_id(item) for item in call.given}, call.transform.name
        lost = Counter(_content(item) for item in call.given)
        for item in call.items:
            if _id(item) in given:
                lost[_content(item)] -= 1
        new = [item for item in call.items if _id(item) not in given]
        renamed = [item for item in new if lost[_content(item)] > 0]
        if renamed:
            raise broken(
                f"transform {name!r} gives an item that went in the new id {_id(renamed[0])!r}",
                mend="hand rows on with the id that they have",
            )
        made = [item for item in new if _content(item) not in lost]
        if made and not call.told[0].get("added"):
            raise broken(
                f"transform {name!r} gives {len(made)} items ids that didn't go in, e.g. {_id(made[0])!r}",
                mend="keep the id of what is changed; of what is new tell the number: "
                "Transformed(items=..., metrics={'added': NUMBER})",
            )


@law("exactly-once", "transform")
def exactly_once(subject: Subject) -> None:
    """An order has each index once in every epoch; a transform of items hands none on twice unless it tells
    of it as the metric ``added``.
    """
    found, examples = orders(subject)
    for order in found:
        for epoch in EPOCHS:
            indices = _indices(order, examples, epoch)
            if sorted(indices) != list(range(len(examples))):
                times = Counter(indices)
                twice = [index for index, count in times.items() if count > 1]
                missing = [index for index in range(len(examples)) if index not in times]
                raise broken(
                    f"the order {order.name!r} of epoch {epoch} has {len(indices)} indices for "
                    f"{len(examples)} samples (twice: {twice[:3]}, missing: {missing[:3]})",
                    mend="return a permutation of range(len(examples))",
                )
    for call in applied(subject):
        given, came = (Counter(map(_content, items)) for items in (call.given, call.items))
        more = [what for what, count in came.items() if count > max(1, given[what])]
        if more and not call.told[0].get("added"):
            item = next(item for item in call.items if _content(item) == more[0])
            raise broken(
                f"transform {call.transform.name!r} hands the item {_id(item)!r} on {came[more[0]]} times",
                mend="hand each on once, or tell how many you add: "
                "Transformed(items=..., metrics={'added': NUMBER})",
            )


@law("transform-pure", "transform")
def transform_pure(subject: Subject) -> None:
    """A transform leaves what it's given as it was: neither the list nor a row in it changes."""
    for call in calls(subject):
        if call.left == call.given:
            continue
        at = next((i for i, (a, b) in enumerate(zip(call.given, call.left)) if a != b), len(call.left))
        raise broken(
            f"transform {call.transform.name!r} changes its input in place, from item {at} on",
            mend="return new rows ({**row, 'key': value}) in a new list",
        )


@law("changes-are-told", "transform")
def changes_are_told(subject: Subject) -> None:
    """A transform that drops items says how many: as a metric (dropped, kept, or the share of either) or in a
    table with a row for each.
    """
    for call in calls(subject):
        before, after = len(call.given), len(call.items)
        if after >= before:
            continue
        values, tables = call.told
        counts = (before - after, after, (before - after) / before, after / before)
        if any(abs(value - count) < 1e-9 for value in values.values() for count in counts):
            continue
        if any(len(rows) in (before, before - after, after) for rows in tables.values()):
            continue
        raise broken(
            f"transform {call.transform.name!r} drops {before - after} of {before} items, and "
            f"{'tells other things: ' + ', '.join(values) if values else 'tells nothing'}",
            mend=f"return Transformed(items=..., metrics={{'dropped': {before - after}}})",
        )


# --- datamodules --------------------------------------------------------------------------------------------


def source(subject: Subject, name: str = "rows") -> DataModule:
    """The plugin's source of rows; ``name`` tells several of them apart."""
    from llmfw.core.data import DataModule

    def make() -> Any:
        return ready(subject.assembled(), subject.folder / name).plan.one("llmfw_datamodule")

    found = subject.once(f"source/{name}", make)
    if not isinstance(found, DataModule):
        raise NotApplicable("it's a bare LightningDataModule, which yields batches, not rows")
    return found


def rows_of(module: DataModule, split: str) -> list[Row]:
    """The rows of a split as the source gives them; [] where it leaves the split to the core."""
    return [dict(row) for row in module.rows(split) or ()]


@law("rows-deterministic", "datamodule")
def rows_deterministic(subject: Subject) -> None:
    """The rows of a split are the same, in the same order, whenever they're asked for and whatever the state
    of the global random generators.
    """
    for split in ("train", "validation"):
        modules = [source(subject), source(subject), source(subject, "rows again")]
        same_again(
            f"rows({split!r})",
            [partial(rows_of, module, split) for module in modules],
            mend="make generators and iterators inside rows(), from run.seed",
        )


@law("splits-disjoint", "datamodule")
def splits_disjoint(subject: Subject) -> None:
    """No held-out row's content, and no value of the split's key (None: its prompt), is trained on."""
    from llmfw.core.data import prompt_of

    module = source(subject)
    rows = prepared_of(ready(subject.assembled(), subject.folder / "rows")).rows
    if not rows["validation"]:
        raise NotApplicable("nothing is held out")

    def key(row: Row) -> str:
        return str(row.get(module.split_key) if module.split_key else prompt_of(row))

    trained = {_content(row) for row in rows["train"]}
    keys = {key(row) for row in rows["train"]} - {""}
    shared = [row for row in rows["validation"] if _content(row) in trained or key(row) in keys]
    if shared:
        raise broken(
            f"{len(shared)} of {len(rows['validation'])} held-out rows are trained on too, e.g. "
            f"{_id(shared[0])!r}",
            mend="keep the two apart, or return None from rows('validation') and set split_key",
        )


@law("ids-unique", "datamodule")
def ids_unique(subject: Subject) -> None:
    """No two rows have one id, over all splits."""
    module = source(subject)
    ids = [
        str(row["id"]) for split in ("train", "validation") for row in rows_of(module, split) if "id" in row
    ]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise broken(
            f"{len(twice)} ids occur more than once, e.g. {twice[0]!r}",
            mend="make ids of the source and the place in it, or give none: the core then hashes the content",
        )


@law("form-declared", "datamodule")
def form_declared(subject: Subject) -> None:
    """Every row is of the form that ``kind`` declares, by its keys."""
    from llmfw.core.data import RowError, form_of

    module = source(subject)
    if module.kind is None:
        raise NotApplicable("it declares no form (kind is None)")
    for row in rows_of(module, "train") + rows_of(module, "validation"):
        try:
            found: str = form_of(row)
        except RowError as error:
            found = error.what
        if found != module.kind:
            raise broken(
                f"a row with the keys {', '.join(row)} is {found}, declared is {module.kind}",
                mend="set kind to the form of the rows (docs/data.md), or mend the rows",
            )


# --- samplers -----------------------------------------------------------------------------------------------


def _rounds_apart(one: Path, other: Path) -> str | None:
    """Where the rounds of two runs part: what was sampled, then what was trained."""
    for number, (left, right) in enumerate(zip(rounds(one), rounds(other))):
        for what in ("records", "start", "keep_as", "notes"):
            if left[what] != right[what]:
                return f"the {what} of round {number} aren't the same"
    if len(rounds(one)) != len(rounds(other)):
        return f"{len(rounds(one))} rounds here, {len(rounds(other))} there"
    for number, (left, right) in enumerate(zip(trainings(one), trainings(other))):
        found = difference(seen(left), seen(right))
        if found:
            return f"round {number}: {found}"
    return None


@law("rounds-deterministic", "sampler")
def rounds_deterministic(subject: Subject) -> None:
    """Two runs of equal settings have the same rounds: records, notes, numbers and weights, bit for bit."""
    found = _rounds_apart(subject.fit().dir, inside(subject, {}).folder)
    if found:
        raise broken(
            f"two runs of equal settings part: {found}",
            mend="give policy.generate a seed that is made of run.seed and the round, and draw nothing else",
        )


@law("rounds-resume", "sampler")
def rounds_resume(subject: Subject) -> None:
    """A run that crashes at the end of its first round and is resumed ends as the run that never stopped."""
    whole = subject.fit().dir
    if _rounds_apart(whole, inside(subject, {}).folder):
        raise NotApplicable("two runs of equal settings differ (law `rounds-deterministic`)")
    found = _rounds_apart(subject.fit(stopped_at="ckpt.after_rename:1").dir, whole)
    if found:
        raise broken(
            f"a run that was stopped and resumed (here) isn't the whole one (there): {found}",
            mend="make a round of (index, rows, policy) alone; what earlier rounds told is read from "
            "run.policy(keep_as) or made again",
        )


@law("ledger-counts", "sampler")
def ledger_counts(subject: Subject) -> None:
    """Every answer that the policy generates is counted in the ledger: samples and tokens."""
    found = asked(subject)
    if not found.samples:
        raise NotApplicable("the policy generates nothing at the kit's settings")
    for what, made in (("samples", found.samples), ("tokens", found.tokens)):
        if found.told[what] < made:
            raise broken(
                f"the policy generated {made} {what}, the ledger has {found.told[what]:g}",
                mend="ask by ledger.generate(policy, prompts, purpose=...)",
            )


@law("ends", "sampler")
def ends(subject: Subject) -> None:
    """The sampler ends a run: within 16 rounds ``next`` returns None."""
    if not asked(subject).ended:
        raise broken(
            f"after {MOST} rounds the sampler still gives another",
            mend="return None after the last round; if the paper has more, set fewer rounds under "
            "[conformance.settings] of the card",
        )
