"""The loop with actors and critics whose answers are known."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.core.data import Encoder, answer_of, canonical
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.generation.sampling import request_seed
from llmfw.core.models import byte_tokenizer
from llmfw.core.rounds import Ledger
from llmfw.plugins.critique_loop.functional import generations, passes_barrier
from llmfw.plugins.critique_loop.sampler import critique_loop
from llmfw.plugins.critique_loop.stages import before, for_critic
from llmfw.plugins.rft.plugin import Rft
from llmfw.plugins.rft.sampler import rejection_sampling


def rft_round(roles: Any, folder: Path, actor: Any, **settings: Any) -> tuple[Any, Ledger]:
    make = rejection_sampling(
        Rft.Config(**{"gold": False, "rounds": 1, "samples": 4, **settings}), roles.run_of(folder)
    )
    with (ledger := Ledger(folder)).sampling(0):
        found = make(0, roles.ROWS, actor, roles.service, ledger)
    return found, ledger


def test_oracle_1_a_perfect_critic_and_an_actor_that_follows_it_rescue_every_problem(
    roles: Any, tmp_path: Path
) -> None:
    """All 6 * 4 answers are wrong; all refinements are right; one of each critique's is kept, and the four
    equal answers of a problem have equal critiques: 6 records.
    """
    found, _ = roles.sampled(tmp_path, roles.follower(), refine_turn=False)
    assert found.notes["right"] == 0.0 and found.notes["refine/right"] == 1.0
    assert found.notes["critique/first_error_hit"] == 1.0 and found.notes["critique/found_wrong"] == 1.0
    assert {one["problem"] for one in found.records} == {row["id"] for row in roles.ROWS}
    assert len(found.records) == 6 and found.notes["refine/rescued"] == 6.0


def test_oracle_2_a_silent_critic_and_an_actor_that_copies_train_what_a_run_without_critic_does(
    roles: Any, tmp_path: Path
) -> None:
    def copying(seed: int) -> Any:
        first = roles.drawn(0.5, seed)

        def answer(prompt: Any, prefix: str) -> str:
            return str(prompt[-2]["content"]) if roles.is_refinement(prompt) else first.answer(prompt, prefix)

        return roles.Actor(answer)

    silent, ledger = roles.sampled(tmp_path / "null", copying(3), critic="silent")
    alone, _ = roles.sampled(tmp_path / "none", copying(3), critic="none")
    assert silent.records == alone.records and silent.notes["refine/right"] == 0.0
    assert ledger.of("refine")["samples"] == ledger.of("critique")["samples"] * 4 > 0


@pytest.mark.parametrize("settings", [{}, {"unique": True}, {"keep_gold": True}])
def test_oracle_4_without_a_critic_it_is_rejection_sampling(
    roles: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    mine, ledger = roles.sampled(tmp_path / "loop", roles.drawn(0.5), critic="none", **settings)
    theirs, other = rft_round(roles, tmp_path / "rft", roles.drawn(0.5), **settings)
    assert mine.records == theirs.records and mine.notes == theirs.notes and len(mine.records) >= 5
    assert set(ledger.by_purpose()) == {"sample"} == set(other.by_purpose())
    assert not (tmp_path / "loop" / "critique_loop").exists()


@pytest.mark.parametrize(("n", "again"), [(1, None), (4, None), (4, 2)])
def test_oracle_5_the_ledger_counts_n_and_k_times_one_and_n_for_each_problem(
    roles: Any, tmp_path: Path, n: int, again: int | None
) -> None:
    actor = roles.drawn(0.5, 1)
    found, ledger = roles.sampled(tmp_path, actor, samples=n, refinements=again)
    lines = [json.loads(line) for line in (tmp_path / "critique_loop" / "traces-0.jsonl").open()]
    wrong = [sum(line["id"].startswith(f"{row['id']}.") for line in lines) for row in roles.ROWS]
    assert 0 < sum(wrong) < 6 * n
    assert ledger.total()["samples"] == sum(generations(n, k, again) for k in wrong)
    assert ledger.of("critique")["samples"] == sum(wrong) == found.notes["critique/asked"]
    assert len(actor.asked) == ledger.of("sample")["samples"] + ledger.of("refine")["samples"]


def test_oracle_9_what_is_trained_shows_neither_the_wrong_answer_nor_the_critique(
    roles: Any, tmp_path: Path
) -> None:
    found, _ = roles.sampled(tmp_path, roles.drawn(0.3, 1, refined=0.8), refine_turn=False)
    rows = {row["id"]: row for row in roles.ROWS}
    refined = [one for one in found.records if int(one["id"].rsplit(".", 1)[1]) >= 4]
    assert refined
    tokenizer = byte_tokenizer()
    encoder = Encoder(tokenizer, max_length=1 << 20)
    for one in found.records:
        row = rows[one["problem"]]
        assert one["prompt"] == row["prompt"] and one["completion"] == answer_of(row)
        example = encoder.encode(*canonical(one))
        assert example is not None
        sequence = example.sequences[0]
        text = tokenizer.decode(list(sequence.trained_ids))
        assert text.startswith(one["completion"]) and one["prompt"] not in text


def test_oracle_9_as_an_answer_to_its_critique_the_refinement_alone_is_trained(
    roles: Any, tmp_path: Path
) -> None:
    found, _ = roles.sampled(tmp_path, roles.drawn(0.3, 1, refined=0.8), refine_turn=True)
    turns = [one for one in found.records if one["id"].endswith(".turn")]
    assert turns
    tokenizer = byte_tokenizer()
    encoder = Encoder(tokenizer, max_length=1 << 20)
    for one in turns:
        assert [message["role"] for message in one["prompt"]] == ["user", "assistant", "user"]
        example = encoder.encode(*canonical(one))
        assert example is not None
        trained = tokenizer.decode(list(example.sequences[0].trained_ids))
        assert trained.startswith(one["completion"]) and len(trained) <= len(one["completion"]) + 12


def test_oracle_10_a_refinement_that_only_restates_the_answer_is_barred(roles: Any, tmp_path: Path) -> None:
    """Gold has 3 * 3 + 1 = 10 runs of digits and the wrong answer too: the bar is 8, `Answer: 8` has one."""

    def answer(prompt: Any, prefix: str) -> str:
        row = roles.row_of(prompt)
        return f"Answer: {row['answer']}" if roles.is_refinement(prompt) else roles.slipped(row)

    with pytest.raises(LlmfwError, match=r"error\[NOTHING-RIGHT\]"):
        roles.sampled(tmp_path / "barred", roles.Actor(answer))
    free, _ = roles.sampled(tmp_path / "free", roles.Actor(answer), barrier=False)
    assert len(free.records) == 2 * 6 and free.notes["refine/barred"] == 0.0
    assert not passes_barrier("Answer: 8", roles.slipped(roles.ROWS[0]), answer_of(roles.ROWS[0]))


def test_oracle_11_everything_that_is_kept_is_right_when_it_is_judged_again(
    roles: Any, tmp_path: Path
) -> None:
    found, _ = roles.sampled(tmp_path, roles.drawn(0.4, 9, refined=0.6), self_talk=True, reserved=0)
    rows = {row["id"]: row for row in roles.ROWS}
    verdicts = roles.service("Verifier").verify(
        [rows[one["problem"]] for one in found.records], [one["completion"] for one in found.records]
    )
    assert len(found.records) > 30 and all(verdict.right for verdict in verdicts)
    assert {one["id"].rsplit(".", 1)[-1] for one in found.records} >= {"turn", "talk"}
    assert len({one["id"] for one in found.records}) == len(found.records)


def test_the_cap_counts_refinements_of_a_critique_not_of_its_neighbour(roles: Any, tmp_path: Path) -> None:
    """Answers take turns between two mistakes, so that equal critiques never stand side by side: two
    critiques a problem, each with 2 * 4 right refinements, and two of each kept: 6 * 2 * 2.
    """
    turn = {"n": 0}

    def answer(prompt: Any, prefix: str) -> str:
        if roles.is_refinement(prompt):
            return str(roles.gold(prompt))
        turn["n"] += 1
        row = roles.row_of(prompt)
        return roles.slipped(row) if turn["n"] % 2 else "1+1=3\nAnswer: 3"

    found, _ = roles.sampled(tmp_path, roles.Actor(answer), reserved=2, refine_turn=False)
    assert found.notes["refine/right"] == 1.0 and found.notes["refine/kept"] == 24.0 == len(found.records)
    everything, _ = roles.sampled(tmp_path / "all", roles.Actor(answer), reserved=0, refine_turn=False)
    assert len(everything.records) == 6 * 4 * 4


def test_nothing_wrong_asks_for_no_critique_and_refines_nothing(roles: Any, tmp_path: Path) -> None:
    found, ledger = roles.sampled(tmp_path, roles.drawn(1.0))
    assert ledger.total()["samples"] == 24 == len(found.records)
    assert set(ledger.by_purpose()) == {"sample"} and found.notes["refine/kept"] == 0.0


def test_everything_wrong_is_told_in_one_line(roles: Any, tmp_path: Path) -> None:
    with pytest.raises(LlmfwError, match=r"error\[NOTHING-RIGHT\].*0% right.*give easier problems"):
        roles.sampled(tmp_path, roles.drawn(0.0))


def test_a_critic_that_never_parses_is_told_or_used_as_it_is(roles: Any, tmp_path: Path) -> None:
    mumbling = ScriptedPolicy(lambda prompts: ["Hm. |no| perhaps"] * len(prompts))
    settings = {"critic": "mumbler", "policies": {"mumbler": mumbling}}
    with pytest.raises(LlmfwError, match=r"error\[CRITIC-UNPARSED\].*none of 24 .*unparsed=use"):
        roles.sampled(tmp_path / "skip", roles.follower(), **settings)
    found, _ = roles.sampled(tmp_path / "use", roles.follower(), unparsed="use", **settings)
    assert found.notes["critique/unparsed"] == 1.0 and found.notes["refine/right"] == 1.0


def test_some_unread_critiques_bring_no_refinement(roles: Any, tmp_path: Path) -> None:
    half = ScriptedPolicy(
        lambda prompts: [
            "?" if one[0]["content"].startswith("1 ") else "x |no|\nanswer |no|" for one in prompts
        ]
    )
    found, ledger = roles.sampled(tmp_path, roles.follower(), critic="half", policies={"half": half})
    assert found.notes["critique/unparsed"] == 4 / 24 and ledger.of("refine")["samples"] == 20 * 4


def test_a_critique_without_a_word_can_not_be_read_and_is_not_taken_for_all_is_right(
    roles: Any, tmp_path: Path
) -> None:
    """The critic says nothing of one problem's four answers: they aren't refined; a silent critic's are."""
    mute = ScriptedPolicy(
        lambda prompts: [
            "" if one[0]["content"].startswith("1 ") else "x |no|\nanswer |no|" for one in prompts
        ]
    )
    found, ledger = roles.sampled(tmp_path / "mute", roles.follower(), critic="mute", policies={"mute": mute})
    assert found.notes["critique/unparsed"] == 4 / 24 and ledger.of("refine")["samples"] == 20 * 4
    assert found.notes["critique/found_wrong"] == 1.0
    assert found.notes["texts/spent"] == 24 + 24 + 20 * 4 == ledger.total()["samples"]
    assert found.notes["texts/full"] == 6 * (4 + 4 * 5)
    _, ledger = roles.sampled(tmp_path / "silent", roles.drawn(0.5), critic="silent")
    assert ledger.of("refine")["samples"] == 4 * ledger.of("critique")["samples"] > 0


@pytest.mark.parametrize(("wrong", "told"), [(7, False), (8, True)])
def test_eight_critiques_of_which_none_can_be_read_are_told_and_seven_are_not(
    roles: Any, tmp_path: Path, wrong: int, told: bool
) -> None:
    """24 answers, the first 7 or 8 of them wrong."""
    mumbling = ScriptedPolicy(lambda prompts: ["Hm."] * len(prompts))
    turn = {"n": 0}

    def answer(prompt: Any, prefix: str) -> str:
        turn["n"] += 1
        return str(roles.slipped(roles.row_of(prompt)) if turn["n"] <= wrong else roles.gold(prompt))

    settings = {"critic": "mumbler", "policies": {"mumbler": mumbling}}
    if told:
        with pytest.raises(LlmfwError, match=r"error\[CRITIC-UNPARSED\].*none of 8 "):
            roles.sampled(tmp_path, roles.Actor(answer), **settings)
        return
    found, _ = roles.sampled(tmp_path, roles.Actor(answer), **settings)
    assert found.notes["critique/unparsed"] == 1.0 and len(found.records) == 24 - wrong


def test_a_model_that_is_not_there_is_told_before_anything_is_sampled(roles: Any, tmp_path: Path) -> None:
    actor = roles.follower()
    for settings in ({"critic": "sage"}, {"feedback": True, "annotator": "sage"}):
        with pytest.raises(LlmfwError, match="no auxiliary model 'sage'"):
            roles.sampled(tmp_path, actor, **settings)
    assert not actor.asked


def test_self_talk_goes_on_from_the_error_with_the_correction(roles: Any, tmp_path: Path) -> None:
    found, _ = roles.sampled(tmp_path, roles.follower(), self_talk=True, refine_turn=False)
    talk = next(one for one in found.records if one["id"].endswith(".talk") and one["problem"] == "1+2*3-1")
    assert talk["completion"] == ("1+2=3\n3*3=10\nWait, that step is wrong: 3*3=9.\n3*3=9\n9-1=8\nAnswer: 8")


def test_earlier_rounds_are_trained_again_where_that_is_wanted(roles: Any, tmp_path: Path) -> None:
    run = roles.run_of(tmp_path)
    settings = {**roles.LOOP, "rounds": 2, "previous": True, "refine_turn": False}
    make, ledger = critique_loop(roles.Config(**settings), run), Ledger(tmp_path)
    counts, ids = [], []
    for index in range(2):
        with ledger.sampling(index):
            found = make(index, roles.ROWS, roles.follower(), roles.service, ledger)
        counts.append(len(found.records))
        ids += [one["id"] for one in found.records]
    assert counts == [6, 12] and len(set(ids)) == 12
    (tmp_path / "critique_loop" / "kept-0.jsonl").unlink()
    with ledger.sampling(1), pytest.raises(LlmfwError, match=r"error\[KEPT-ROWS\].*begin the run anew"):
        make(1, roles.ROWS, roles.follower(), roles.service, ledger)


# --- the rounds before the loop -----------------------------------------------------------------------------


def all_rounds(roles: Any, folder: Path, actor: Any, rows: Any = None, **settings: Any) -> list[Any]:
    """Every round of a sampler; what it keeps are the same scripted actor and the oracle."""
    rows = roles.ROWS if rows is None else rows
    config = roles.Config(
        **{"form": "compact", "rounds": 1, "samples": 2, "filter_samples": 4, "filter_keep": 2, **settings}
    )
    from llmfw.plugins.critique_loop.critics import scripted
    from llmfw.plugins.critique_loop.steps import true_critique

    oracle = scripted(true_critique, roles.ROWS, "compact")
    run = roles.run_of(folder, gold=actor, critic=oracle)
    make, ledger = critique_loop(config, run), Ledger(folder)
    found: list[Any] = []
    while True:
        with ledger.sampling(len(found)):
            # the round's own policy is the critic behind its round: nobody may answer problems with it
            policy = oracle if found and found[-1].keep_as == "critic" else actor
            given = make(len(found), rows, policy, roles.service, ledger)
        if given is None:
            return found
        found.append(given)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["gold", "actor", "critic"]),
        ({"critic": "none"}, ["gold"]),
        ({"critic": "oracle"}, ["gold", "actor"]),
        ({"critic": "oracle", "feedback": False}, ["gold"]),
        ({"feedback": False}, ["gold", "critic"]),
        ({"gold": False}, ["actor", "critic"]),
    ],
)
def test_the_rounds_before_the_loop(roles: Any, settings: dict[str, Any], expected: list[str]) -> None:
    assert before(roles.Config(**settings)) == expected


def test_the_rounds_are_solutions_refinements_critic_and_loop(roles: Any, tmp_path: Path) -> None:
    gold, actor, critic, loop = all_rounds(roles, tmp_path, roles.drawn(0.5, 2, refined=0.8))
    assert [one.keep_as for one in (gold, actor, critic, loop)] == ["gold", "gold", "critic", None]
    assert [one.start for one in (gold, actor, critic, loop)] == ["base"] * 4
    assert actor.records[:6] == gold.records and len(actor.records) > 6
    assert all(one["completion"].splitlines()[-1].startswith("answer |") for one in critic.records)
    assert any(".1." in one["id"] for one in loop.records)  # numbered as rft numbers it


def test_every_round_of_the_loop_starts_from_the_same_weights(roles: Any, tmp_path: Path) -> None:
    """start=base: M_t = SFT(base again), the name of the base weights each time; start=gold: those with which
    the loop began. start=last goes on behind the actor, not behind the critic.
    """
    for start, expected in (
        ("base", ["base", "base", "base", "base", "base", "base"]),
        ("gold", ["base", "gold", "base", "gold", "gold", "gold"]),
        ("last", ["base", "gold", "base", "gold", "last", "last"]),
    ):
        found = all_rounds(roles, tmp_path / start, roles.drawn(0.5, 2, refined=0.8), rounds=3, start=start)
        assert [one.start for one in found] == expected


def test_the_annotated_critiques_are_kept_as_the_papers_records(roles: Any, tmp_path: Path) -> None:
    all_rounds(roles, tmp_path, roles.drawn(0.5, 2, refined=0.8))
    lines = [json.loads(line) for line in (tmp_path / "critique_loop" / "critic-records.jsonl").open()]
    keys = "id problem question answer response steps critique step_labels first_error final_label origin"
    assert all(set(keys.split()) | {"error_type", "mc"} == set(line) for line in lines)
    assert {"RG1", "RG3", "right"} <= {line["origin"] for line in lines}
    assert all(line["mc"]["n"] == 4 and line["mc"]["n_correct"] >= 2 for line in lines)
    for line in lines:
        assert line["final_label"] == (line["origin"] == "right")
        assert line["error_type"] is None or line["origin"] == "RG3"


def test_critic_and_loop_can_have_problems_of_their_own(roles: Any, tmp_path: Path) -> None:
    settings = {"critic_share": 0.5}
    theirs = {row["id"] for row in roles.ROWS if for_critic(roles.Config(**settings), row)}
    assert 0 < len(theirs) < 6
    found = all_rounds(roles, tmp_path, roles.drawn(0.5, 2, refined=0.8), **settings)
    assert {one["problem"] for one in found[2].records} <= theirs
    assert not {one["problem"] for one in found[3].records} & theirs


def test_the_loop_can_keep_the_annotated_refinements(roles: Any, tmp_path: Path) -> None:
    found = all_rounds(roles, tmp_path, roles.drawn(0.5, 2, refined=0.8), keep_feedback=True)
    ids = [one["id"] for one in found[3].records]
    assert sum(".fb." in one for one in ids) == sum(one["id"].endswith(".fb") for one in found[1].records) > 0
    # they were written, not sampled: no problem is solved by them
    assert all(("problem" in one) == (".fb." not in one["id"]) for one in found[3].records)
    assert len(set(ids)) == len(ids)


# --- random numbers and kills -------------------------------------------------------------------------------


class Seeded:
    """Answers as a function of the seed, the request's name and the sample's number, as the engine's are."""

    tokenizer = None

    def __init__(self, roles: Any) -> None:
        self.roles, self.answered = roles, 0

    @property
    def module(self) -> Any:
        raise NotImplementedError

    def generate(self, prompts: Any, *, ids: Any, seed: int, samples: int = 1, **more: Any) -> Any:
        texts = iter(
            self._text(prompt, opening, random.Random(request_seed(seed, name, sample)))
            for prompt, opening, name in zip(prompts, more["prefix"], ids, strict=True)
            for sample in range(samples)
        )
        policy = ScriptedPolicy(lambda asked: [next(texts) for _ in asked])
        found = policy.generate(prompts, samples=samples, done=more.get("done"))
        self.answered += len(found)
        return found

    def _text(self, prompt: Any, opening: str, draw: random.Random) -> str:
        gold, row = self.roles.gold(prompt), self.roles.row_of(prompt)
        whole = draw.choice([gold, self.roles.slipped(row), f"{row['solution'][0]}\nAnswer: {draw.random()}"])
        return str(whole.removeprefix(opening)) if whole.startswith(opening) else "Answer: 0"


SMALL = {"samples": 3, "rounds": 2, "filter_keep": 1, "filter_samples": 2, "right_share": 0.9, "reserved": 0}


def test_what_is_drawn_does_not_depend_on_the_order_of_the_problems(roles: Any, tmp_path: Path) -> None:
    """Every round's records, by name; the share of right answers takes all there are."""

    def by_name(rows: Any, folder: str) -> list[dict[str, Any]]:
        made = all_rounds(roles, tmp_path / folder, Seeded(roles), rows, **SMALL)
        return [{one["id"]: one for one in found.records} for found in made]

    forth, back = by_name(roles.ROWS, "forth"), by_name(roles.ROWS[::-1], "back")
    assert len(forth) == 5 and len(forth[0]) == 6 and min(map(len, forth)) >= 6
    assert forth == back


def test_a_round_that_is_sampled_again_asks_for_nothing_twice_and_gives_the_same(
    roles: Any, tmp_path: Path
) -> None:
    """As after a kill just before its records were written: solutions, actor, critic, two rounds."""
    first, again = Seeded(roles), Seeded(roles)
    made = all_rounds(roles, tmp_path, first, **SMALL)
    files = {file: file.read_bytes() for file in (tmp_path / "critique_loop").iterdir()}
    assert all_rounds(roles, tmp_path, again, **SMALL) == made
    assert first.answered > 50 and again.answered == 0
    assert {file: file.read_bytes() for file in (tmp_path / "critique_loop").iterdir()} == files
