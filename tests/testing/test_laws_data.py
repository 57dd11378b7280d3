"""Each law of transforms, datamodules and samplers is broken by a toy that does one thing wrong, and by that
law alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.base_toys import assert_broken, assert_only

KEPT = "items=[rows[index] for index in chosen]"


def test_rows_drawn_from_a_generator_that_goes_on(tmp_path: Path):
    """Seeded where the plan is made, so runs repeat; a second call draws other rows."""
    assert_only(
        "transform-deterministic", tmp_path, "transform", match="'shortest' gives .* and .* another time",
        plugin=(
            "partial(shortest, keep=self.config.keep)",
            "partial(shortest, keep=self.config.keep, draw=__import__('random').Random(0))",
        ),
        functional=[
            ("keep: float) -> Transformed", "keep: float, draw) -> Transformed"),
            (KEPT, "items=[rows[index] for index in draw.sample(chosen, len(chosen))]"),
        ],
    )  # fmt: skip


def test_an_order_from_a_generator_that_goes_on(tmp_path: Path):
    """In the third epoch, which the kit's runs don't reach."""
    assert_broken(
        "transform-deterministic", tmp_path, "transform", match="order 'shortest_first' of epoch 2",
        plugin=("apply=order", "apply=partial(order, draw=__import__('random').Random(0))"),
        functional=[
            ("epoch: int)", "epoch: int, draw)"),
            ("(examples[index].length, index)", "draw.random() if epoch == 2 else examples[index].length"),
        ],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ("{**rows[index], 'id': f'new-{index}'}", "gives an item that went in the new id 'new-"),
        ("{**rows[index], 'id': f'new-{index}', 'prompt': 'Say'}", "gives 6 items ids that didn't go in"),
    ],
)
def test_rows_under_new_ids(tmp_path: Path, items: str, match: str):
    change = (KEPT, f"items=[{items} if keep < 1 else rows[index] for index in chosen]")
    assert_only("ids-stable", tmp_path, "transform", match=match, functional=change)


def test_an_order_that_has_an_index_twice_in_a_later_epoch(tmp_path: Path):
    """The kit's runs see the first two epochs, the law the third."""
    early = "    if epoch == 2:\n        return [0] * len(examples)\n"
    change = ("    return sorted(range(len(examples))", f"{early}    return sorted(range(len(examples))")
    match = "order 'shortest_first' of epoch 2 has .*twice: .*missing: "
    assert_only("exactly-once", tmp_path, "transform", match=match, functional=change)


def test_a_row_that_is_handed_on_twice(tmp_path: Path):
    twice = "[{**rows[chosen[0]], 'id': 'again'} for _ in range(keep < 1)]"
    change = (KEPT, f"items=[*[rows[index] for index in chosen], *{twice}]")
    more = ('"kept": float(count)', '"kept": float(count + (keep < 1))')
    match = "hands the item .* on 2 times"
    assert_broken("exactly-once", tmp_path, "transform", match=match, functional=[change, more])


def test_rows_that_are_changed_in_place(tmp_path: Path):
    change = ("    count = max(1", "    for row in rows:\n        row['seen'] = True\n    count = max(1")
    match = "'shortest' changes its input in place, from item 0 on"
    assert_only("transform-pure", tmp_path, "transform", match=match, functional=change)


@pytest.mark.parametrize(
    ("metrics", "match"),
    [("{}", "drops 5 of 11 items, and tells nothing"), ('{"mood": 0.3}', "tells other things: mood")],
)
def test_rows_that_are_dropped_in_silence(tmp_path: Path, metrics: str, match: str):
    change = ('{"kept": float(count)}', metrics)
    assert_only("changes-are-told", tmp_path, "transform", match=match, functional=change)


def test_rows_that_come_in_another_order_the_second_time(tmp_path: Path):
    turned = "self.calls = getattr(self, 'calls', 0) + 1\n        return every[:-2][:: (-1) ** self.calls]"
    change = ("return every[:-2]", turned)
    match = r"rows\('train'\) gives .* once and .* another time"
    assert_only("rows-deterministic", tmp_path, "datamodule", match=match, rows=change)


def test_a_held_out_row_that_is_trained_on(tmp_path: Path):
    change = ("else every[-2:]", 'else [{**row, "id": "held-" + row["id"]} for row in every[-3:]]')
    match = "1 of 3 held-out rows are trained on too, e.g. 'held-3\\+1'"
    assert_only("splits-disjoint", tmp_path, "datamodule", match=match, rows=change)


def test_an_id_of_two_splits(tmp_path: Path):
    change = ("else every[-2:]", 'else [{**row, "id": every[0]["id"]} for row in every[-1:]]')
    match = "1 ids occur more than once, e.g. '0\\+0'"
    assert_only("ids-unique", tmp_path, "datamodule", match=match, rows=change)


def test_rows_of_another_form_than_declared(tmp_path: Path):
    """A problem is trained on its answer, a completion on its completion."""
    change = [('kind = "completion"', 'kind = "problems"'), ("str(a + b)}", 'str(a + b), "answer": "many"}')]
    match = "prompt, completion, answer is completion, declared is problems"
    assert_only("form-declared", tmp_path, "datamodule", match=match, rows=change)


def test_answers_that_are_drawn_anew_in_every_run(tmp_path: Path):
    change = (
        'purpose="own"',
        "purpose='own', temperature=2.0, seed=int.from_bytes(__import__('os').urandom(3))",
    )
    match = "two runs of equal settings part: the records of round 0"
    assert_only("rounds-deterministic", tmp_path, "sampler", match=match, sampler=change)


def test_what_a_sampler_remembers_of_its_last_round_is_missed_at_a_resume(tmp_path: Path):
    """Two rounds; the second has the first one's answers too, which a fresh process doesn't know."""
    assert_only(
        "rounds-resume", tmp_path, "sampler", match=r"isn't the whole one .*the records of round 1",
        plugin=("own=self.config.own)", "own=self.config.own, known=[])"),
        sampler=[
            ("own: int\n", "own: int, known: list\n"),
            ("index == 1", "index == 2"),
            (
                "    return Round(",
                '    made = [{**row, "id": f"{row[\'id\']}-{index}"} for row in made] + known\n'
                "    known[:] = made\n    return Round(",
            ),
        ],
    )  # fmt: skip


def test_answers_that_the_ledger_does_not_know(tmp_path: Path):
    around = "policy.generate(prompts) if prompts else []"
    change = ('ledger.generate(policy, prompts, purpose="own")', around)
    match = "generated .* samples, the ledger has 0"
    assert_only("ledger-counts", tmp_path, "sampler", match=match, sampler=change)


def test_a_sampler_without_an_end(tmp_path: Path):
    assert_only("ends", tmp_path, "sampler", match="after 16 rounds", sampler=("index == 1", "index == -1"))
