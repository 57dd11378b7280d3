"""Oracles 1 to 6 and 10: which tokens are trained, and what the loss makes of them, on a real tiny Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import llmfw
from llmfw.core.data import Encoder, canonical, collate
from llmfw.core.defaults import causal_lm
from llmfw.core.models import LocalPolicy, byte_tokenizer
from llmfw.plugins.agentrefine import functional, reference
from llmfw.plugins.agentrefine.dialogue import kinds_of, masked, to_chat
from llmfw.plugins.agentrefine.records import Errors, TrajectoryError, Turn
from llmfw.plugins.agentrefine.rows import Options, ScriptedWorld
from llmfw.plugins.agentrefine.sampler import labelled
from llmfw.testing.models import tiny_model
from llmfw.testing.observed import difference, seen, trainings

FLAGS = [False, True, False, True, False, False]
"""Of six player turns: ok, error, refine, error, refine, finish."""
KINDS = ["ok", "error", "refine", "error", "refine", "finish"]
TOKENIZER = byte_tokenizer()


def turns(flags: list[bool], *, field: str = "place", plain: bool = True) -> list[Turn]:
    found: list[Turn] = []
    for at, wrong in enumerate(flags):
        number, repairs = 2 * at + 1, at > 0 and flags[at - 1]
        found.append(Turn(number=number, thought=f"t{at}" + (" again" if repairs else ""), text=f"do {at}",
                          plain=f"t{at}" if repairs and plain else ""))  # fmt: skip
        found.append(
            Turn(number=number + 1, thought="hidden", text=f"No: {at}" if wrong else f"yes {at}",
                 errors=Errors(**{field: wrong}), completed=at == len(flags) - 1)
        )  # fmt: skip
    return found


def row(flags: list[bool] = FLAGS, name: str = "one", **how: Any) -> dict[str, Any]:
    return to_chat(name, "Goal: g", turns(flags, **how), source="rules")


def example(given: dict[str, Any], max_length: int = 10_000, too_long: Any = "error") -> Any:
    form, checked = canonical({key: value for key, value in given.items() if key != "meta"})
    return Encoder(TOKENIZER, max_length=max_length, too_long=too_long).encode(form, checked)


def labels(given: dict[str, Any], **how: Any) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    sequence = example(given, **how).sequences[0]
    return sequence.ids, sequence.trained


def loss(rows: list[dict[str, Any]], policy: Any) -> torch.Tensor:
    batch = collate([example(one) for one in rows], pad_id=256)
    return causal_lm(policy, batch, None).total


def policy(dtype: torch.dtype = torch.float64) -> Any:
    return LocalPolicy(tiny_model(dtype=dtype, initializer_range=0.2))


def arm(name: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    made = masked(given or row(), name)
    assert made is not None
    return made


@pytest.mark.parametrize("name", functional.ARMS)
def test_oracle_1_labels_are_the_arms_turns_with_their_ends_and_nothing_else(name: str) -> None:
    """By hand, flags 0 1 0 1 0 0. full: turns 1, 3, 5, 6; no_refinement_loss: 1, 6; erroneous_loss: all."""
    made = arm(name)
    ids, trained = labels(made)
    wanted: list[bool] = []
    for message in made["messages"]:
        head = TOKENIZER.encode(f"<|im_start|>{message['role']}\n", add_special_tokens=False)
        body = TOKENIZER.encode(f"{message['content']}<|im_end|>", add_special_tokens=False)
        wanted += [False] * len(head) + [bool(message["loss"])] * len(body) + [False]  # the last: a newline
    assert list(trained) == wanted[: len(trained)] and len(wanted) - len(trained) in (0, 1)
    said = [message["content"] for message in made["messages"] if message["loss"]]
    by_hand = {
        "full": ["t0", "t2 again", "t4 again", "t5"],
        "no_refinement_loss": ["t0", "t5"],
        "no_refinement_data": ["t0", "t2", "t4", "t5"],
        "erroneous_loss": ["t0", "t1", "t2 again", "t3", "t4 again", "t5"],
    }
    assert [text.split("\n")[0].removeprefix("Thought: ") for text in said] == by_hand[name]
    assert TOKENIZER.decode([i for i, t in zip(ids, trained) if t]) == "".join(f"{t}<|im_end|>" for t in said)


def test_oracle_1_ids_are_equal_in_all_arms_but_the_one_without_errors() -> None:
    ids = {name: labels(arm(name))[0] for name in functional.ARMS}
    assert ids["full"] == ids["no_refinement_loss"] == ids["erroneous_loss"] != ids["no_refinement_data"]
    text = TOKENIZER.decode(ids["no_refinement_data"])
    assert "No:" not in text and "again" not in text and "do 1\n" not in text
    assert text.count("<|im_start|>assistant") == 4


def test_the_game_masters_thoughts_and_flags_never_enter_the_text() -> None:
    text = TOKENIZER.decode(labels(arm("full"))[0])
    assert "hidden" not in text and "error" not in text


def test_oracle_2_a_masked_turn_is_read_and_its_logits_get_no_gradient() -> None:
    model = tiny_model(dtype=torch.float64, initializer_range=0.2)
    ids, trained = labels(arm("full"))
    given = torch.tensor([ids])
    start = bytes(i if i < 256 else 0 for i in ids).index(b"Thought: t1")  # a token is a byte
    changed = given.clone()
    changed[0, start + 9] = ord("z")
    assert not trained[start + 9]
    before, after = model(given).logits, model(changed).logits
    assert torch.equal(before[:, : start + 9], after[:, : start + 9])
    assert not torch.allclose(before[0, -1], after[0, -1])
    logits = before.detach().requires_grad_()
    targets = torch.where(torch.tensor([trained]), given, -100)
    torch.nn.functional.cross_entropy(logits[0, :-1], targets[0, 1:], reduction="sum").backward()
    predicts = torch.tensor([[*trained[1:], False]])
    assert bool((logits.grad[~predicts] == 0).all()) and bool((logits.grad[predicts] != 0).any())


def test_oracle_2_the_cores_loss_is_that_of_the_labels() -> None:
    one = policy()
    ids, trained = labels(arm("full"))
    targets = torch.where(torch.tensor(trained), torch.tensor(ids), -100)
    logits = one.module(torch.tensor([ids])).logits[0, :-1]
    want = torch.nn.functional.cross_entropy(logits, targets[1:], reduction="sum")
    torch.testing.assert_close(loss([arm("full")], one).double(), want, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", functional.ARMS)
def test_oracle_3_without_errors_every_arm_is_plain_fine_tuning_bit_for_bit(name: str) -> None:
    clean = row([False] * 4)
    plain = {
        "id": "one",
        "messages": [{"role": m["role"], "content": m["content"]} for m in clean["messages"]],
    }
    one = policy(torch.float32)
    ours, theirs = loss([arm(name, clean)], one), loss([plain], one)
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad(total, list(one.module.parameters())) for total in (ours, theirs)]
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("name", ["full", "no_refinement_loss"])
def test_oracle_3_a_dialogue_of_errors_alone_is_left_out_and_counted(name: str) -> None:
    bad = row([True, True, True], name="bad")
    assert masked(bad, name) is None
    assert [one["id"] for one in labelled([bad, row()], name)] == ["one"]
    with pytest.raises(TrajectoryError, match=r"error\[NOTHING-TRAINED\].*of 1 dialogues none"):
        labelled([bad], name)


def test_oracle_4_the_arms_losses_add_up_turn_by_turn() -> None:
    one = policy()
    each = [loss([only(at)], one).item() for at in range(6)]
    sums = {name: loss([arm(name)], one).item() for name in functional.ARMS}
    assert sums["full"] == pytest.approx(each[0] + each[2] + each[4] + each[5], abs=1e-5 * sum(each))
    assert sums["erroneous_loss"] - sums["full"] == pytest.approx(each[1] + each[3], abs=1e-5 * sum(each))
    assert sums["full"] - sums["no_refinement_loss"] == pytest.approx(each[2] + each[4], abs=1e-5 * sum(each))


def only(turn: int) -> dict[str, Any]:
    """The dialogue with the labels of one player's turn."""
    made, at = arm("erroneous_loss"), -1
    for message in made["messages"]:
        at += message["role"] == "assistant"
        message["loss"] = message["role"] == "assistant" and at == turn
    return made


def test_oracle_4_the_core_agrees_with_the_formula_of_the_reference() -> None:
    one = policy()
    batch = collate([example(arm("erroneous_loss"))], pad_id=256)
    logps = one.logps(batch).double()
    lengths = [len(f"Thought: {t}\nAction: do {i}") + 1
               for i, t in enumerate(["t0", "t1", "t2 again", "t3", "t4 again", "t5"])]  # fmt: skip
    parts = torch.split(logps, lengths)
    errors = [(False, wrong, False) for wrong in FLAGS]
    for name in ("full", "no_refinement_loss", "erroneous_loss"):
        want = reference.loss(parts, errors, name).item()
        assert loss([arm(name)], one).item() == pytest.approx(want, rel=1e-5)


def test_oracle_5_micro_batches_change_nothing() -> None:
    """The core divides the sums of all micro-batches by all their trained tokens."""
    one = policy()
    rows = [arm("full", row(flags, name=str(at))) for at, flags in
            enumerate([FLAGS, [True, False], [False, False, False], [False, True, True, False]])]  # fmt: skip
    counts = [sum(labels(given)[1]) for given in rows]
    whole = loss(rows, one) / sum(counts)
    parts = sum((loss([given], one) for given in rows), torch.zeros(())) / sum(counts)
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-6)
    means = [loss([given], one) / count for given, count in zip(rows, counts)]
    assert not torch.isclose(sum(means) / 4, whole, rtol=1e-4), "a mean of means would be another number"


def test_oracle_5_the_trainer_counts_the_unmasked_tokens_of_a_whole_step(tmp_path: Path) -> None:
    """Real steps of four dialogues, at once or one by one: the loss of the first is the sum over the turns
    that the arm trains, by the weights that the run begins with, divided by their tokens; errors are in none.
    """
    records = {one["id"]: one for one in labelled(ScriptedWorld(WORLD).rows("train"), "full")}
    whole = {one["id"]: one for one in labelled(ScriptedWorld(WORLD).rows("train"), "erroneous_loss")}
    start = AutoModelForCausalLM.from_pretrained(trained(tmp_path / "start", 4, 1, steps=0).final)
    one, found = LocalPolicy(start), {}
    for micro, accumulate in ((4, 1), (1, 4)):
        result = trained(tmp_path / f"micro-{micro}", micro, accumulate)
        found[micro] = seen(trainings(result.dir)[-1])
        first = found[micro].ids[0]
        assert len(first) == 4
        told = found[micro].series["loss"][0][1]
        assert told == pytest.approx(mean([records[name] for name in first], one), rel=1e-5)
        assert told != pytest.approx(mean([whole[name] for name in first], one), rel=1e-4)
    assert [set(ids) for ids in found[4].ids] == [set(ids) for ids in found[1].ids]
    assert difference(found[4], found[1], tolerance=1e-5, names=("loss", "grad_norm")) is None


WORLD = Options(train=8, validation=2, names="fixed", rooms=2, boxes=2, items=1, treats=0.0)


def trained(folder: Path, micro: int, accumulate: int, steps: int = 2) -> Any:
    """A run on a tiny Llama, on the rows of ``WORLD``."""
    return llmfw.fit(
        "model=tiny-llama", "trainer.epochs=null", f"trainer.max_steps={steps}", f"run.dir={folder}",
        f"trainer.micro_batch={micro}", f"trainer.accumulate={accumulate}", "trainer.progress=false",
        "trainer.threads=1", "tracking.mlflow=false", "checkpoint.every=0", 'agentrefine.environments=""',
        *(f"data.options.{key}={value}" for key, value in vars(WORLD).items()), plugins=["agentrefine"],
    )  # fmt: skip


def mean(rows: list[dict[str, Any]], policy: Any) -> float:
    """Loss per trained token of some dialogues together."""
    count = sum(sum(labels(given)[1]) for given in rows)
    return sum(loss([given], policy).item() for given in rows) / count


@pytest.mark.parametrize("k", range(5))
@pytest.mark.parametrize("field", ["parameter", "place", "logic"])
def test_oracle_6_the_flag_of_turn_2k_plus_2_masks_turn_2k_plus_1_alone(k: int, field: str) -> None:
    flags = [at == k for at in range(5)]
    made = arm("full", row(flags, field=field))
    told = [message["loss"] for message in made["messages"] if message["role"] == "assistant"]
    assert told == [at != k for at in range(5)]


@pytest.mark.parametrize("name", functional.ARMS)
def test_oracle_10_a_cut_dialogue_has_the_labels_of_the_uncut_ones_beginning(name: str) -> None:
    ids, trained = labels(arm(name))
    for cut in (60, 111, len(ids) - 1):
        short = labels(arm(name), max_length=cut, too_long="cut_end")
        assert short == (ids[:cut], trained[:cut])


def test_kinds_and_label_rules_agree_with_the_reference_for_all_flags_of_six_turns() -> None:
    for code in range(2**6):
        flags = [bool(code >> at & 1) for at in range(6)]
        told = functional.kinds(flags, finished=not flags[-1])
        errors = [(flag, False, False) for flag in flags]
        for name in ("full", "no_refinement_loss", "erroneous_loss"):
            assert [int(functional.trained(kind, name)) for kind in told] == reference.weights(errors, name)
    assert functional.kinds(FLAGS, finished=True) == KINDS == kinds_of(row())


@pytest.mark.parametrize(
    ("message", "said"),
    [({"role": "assistant", "content": "a"}, "no kind"),
     ({"role": "assistant", "content": "a", "kind": "wrong"}, "kind 'wrong'")],
)  # fmt: skip
def test_a_turn_without_a_known_kind_is_one_clear_line(message: dict[str, Any], said: str) -> None:
    with pytest.raises(
        TrajectoryError, match=rf"error\[TURN-KIND\].*messages\[1\] of the assistant has {said}"
    ):
        labelled([{"id": "x", "messages": [{"role": "user", "content": "u"}, message]}], "full")
