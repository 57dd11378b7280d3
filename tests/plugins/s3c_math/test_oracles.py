"""The mix's own records, encoded by tokenizers of unlike habits: what of a model they train."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmfw.core.data import Encoder, Example, answer_of, canonical, collate
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.models import LocalPolicy
from llmfw.losses.causal_lm import cross_entropy
from llmfw.plugins.s3c_math.plugin import S3cMath
from llmfw.plugins.s3c_math.pool import Found, Wrong
from llmfw.plugins.s3c_math.reference import masked_mean
from llmfw.plugins.s3c_math.sampler import mixed
from llmfw.testing.pairs import tiny_llama as llama_of

ROWS: list[dict[str, Any]] = [
    {
        "id": f"p{n}", "prompt": f"{n} +2 +3", "answer": str(n + 5),
        "solution": [f"{n}+2={n + 2}", f"{n + 2}+3={n + 5}"],
    }
    for n in (1, 2, 30)
]  # fmt: skip
SHORT, LONG = "3+1=10", "it is 99, I think, or 100 then"


def bpe(across: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on such solutions. ``across``: words aren't split, so that tokens reach over
    newlines and from one segment into the next.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not across)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, show_progress=False, special_tokens=["<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    core.train_from_iterator([answer_of(row) for row in ROWS] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def records(tokenizer: Any, wrong: str, at: int, **settings: Any) -> list[dict[str, Any]]:
    """The corrected records of the plugin's mix in which step ``at`` is first written as ``wrong``, with a
    teacher's words that are always the same.
    """

    def explain(prompts: Sequence[str]) -> list[str]:
        rights = [text.split("The right step:\n")[1].split("\n")[0] for text in prompts]
        return [f"Reflection: Wait, no.\nStep: {right}" for right in rights]

    config = S3cMath.Config(share_corrected=1.0, annotator="teacher", **settings)
    run = SimpleNamespace(seed=7, policy=lambda name: ScriptedPolicy(explain))  # type: ignore[arg-type]
    ledger = SimpleNamespace(generate=lambda policy, prompts, **told: policy.generate(prompts))
    found = Found(pool={(row["id"], at): [Wrong(text=wrong)] for row in ROWS})
    made, notes = mixed(config, run, ROWS, found, tokenizer, ledger)
    assert notes["mix/corrected"] == len(made) == len(ROWS)
    return sorted(made, key=lambda record: str(record["id"]))


def encode(tokenizer: Any, record: dict[str, Any]) -> Example:
    example = Encoder(tokenizer, 2000).encode(*canonical(record))
    assert example is not None
    return example


def kinds(tokenizer: Any, record: dict[str, Any], example: Example) -> list[str]:
    """Of each token the kind of segment that its last character is in; told by the tokens' own texts."""
    of_character = [one["type"] for one in record["segments"] for _ in one["text"]]
    (sequence,) = example.sequences
    found, left = ["eos"], len(of_character)
    for token in reversed(sequence.ids[:-1]):
        found.append(of_character[left - 1] if left > 0 else "prompt")
        left -= len(tokenizer.decode([token]))
    return found[::-1]


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("wrong", [SHORT, LONG])
def test_oracle_3_no_position_whose_label_is_wrong_has_a_gradient_and_the_last_wrong_token_has_one(
    across: bool, at: int, wrong: str
) -> None:
    """The gradient of the state at t is that of its logits, whose label is token t + 1."""
    tokenizer = bpe(across)
    model = llama_of(vocabulary=len(tokenizer), dtype=torch.float64)
    states: list[torch.Tensor] = []

    def keep(module: Any, given: Any, output: torch.Tensor) -> None:
        if output.requires_grad:  # the model is also looked at without
            output.retain_grad()
            states.append(output)

    for record in records(tokenizer, wrong, at):
        example = encode(tokenizer, record)
        hook = model.model.norm.register_forward_hook(keep)
        cross_entropy(LocalPolicy(model, {}, tokenizer).logps(collate([example], 0))).backward()
        hook.remove()
        grad = next(state.grad for state in reversed(states) if state.grad is not None)[0]
        told = kinds(tokenizer, record, example)
        labels = told[1:]
        moved = [bool((row != 0).any()) for row in grad[: len(labels)]]
        assert moved == [label not in ("wrong", "prompt") for label in labels]
        last = max(place for place, kind in enumerate(told) if kind == "wrong")
        assert told[last + 1] == "reflect" and moved[last]


def test_one_of_the_tokenizers_has_tokens_that_reach_from_segment_to_segment() -> None:
    for across in (False, True):
        tokenizer = bpe(across)
        pieces = [tokenizer.decode([token]) for token in range(len(tokenizer))]
        assert any("\n" in piece[:-1] for piece in pieces) is across
        # the newline behind 1+2=3 is one token with the 3 that the wrong step begins with
        record = records(tokenizer, SHORT, 1)[0]
        (first, *_) = record["spans"]
        assert (first[1] < len(record["segments"][0]["text"])) is across


@pytest.mark.parametrize("across", [False, True])
def test_the_loss_of_a_record_is_that_of_the_slow_oracle(across: bool) -> None:
    """The tokens' own texts say which are wrong; the oracle knows no spans."""
    tokenizer = bpe(across)
    model = llama_of(vocabulary=len(tokenizer), dtype=torch.float64)
    for record in records(tokenizer, SHORT, 1):
        example = encode(tokenizer, record)
        ids = torch.tensor(example.sequences[0].ids)
        with torch.no_grad():
            nll = torch.nn.functional.cross_entropy(
                model(ids[None]).logits[0, :-1], ids[1:], reduction="none"
            )
        mask = [kind not in ("wrong", "prompt") for kind in kinds(tokenizer, record, example)[1:]]
        logps = LocalPolicy(model, {}, tokenizer).logps(collate([example], 0))
        assert len(logps) == sum(mask)
        expected = masked_mean(nll.tolist(), [int(one) for one in mask])
        assert cross_entropy(logps).item() / len(logps) == pytest.approx(expected, abs=1e-9)
    assert masked_mean([3.0, 1.0, 5.0], [0, 1, 1]) == 3.0 and masked_mean([3.0], [0]) == 0.0


def losses(model: Any, tokenizer: Any, wrong: str, **settings: Any) -> list[float]:
    """Each record's loss as a mean over its trained tokens."""
    policy = LocalPolicy(model, {}, tokenizer)
    found = []
    for record in records(tokenizer, wrong, 0, **settings):
        logps = policy.logps(collate([encode(tokenizer, record)], 0))
        found.append(cross_entropy(logps).item() / len(logps))
    return found


def test_oracle_4_another_wrong_text_changes_the_loss_by_its_context_alone() -> None:
    """With one embedding for all tokens the model sees no context, and is a unigram model: the masked loss
    stays as it is. With its own embeddings it changes, and so does the loss that trains wrong steps.
    """
    tokenizer = bpe(False)
    seeing = llama_of(vocabulary=len(tokenizer), dtype=torch.float64)
    blind = llama_of(vocabulary=len(tokenizer), dtype=torch.float64, tie_word_embeddings=False)
    with torch.no_grad():
        blind.model.embed_tokens.weight[:] = blind.model.embed_tokens.weight[5].clone()
    short, long = (losses(blind, tokenizer, wrong) for wrong in (SHORT, LONG))
    assert short == pytest.approx(long, abs=1e-10)
    others = [
        [losses(model, tokenizer, wrong, mask_wrong=masked) for wrong in (SHORT, LONG)]
        for model, masked in ((seeing, True), (blind, False))
    ]
    assert all(abs(a - b) > 1e-3 for one, other in others for a, b in zip(one, other, strict=True))
