"""Log-probabilities of given answers."""

from __future__ import annotations

import pytest
import torch

from llmfw.core.data import Encoder
from llmfw.core.errors import NumericsError
from llmfw.core.generation import AnswerScore, score_examples
from llmfw.core.models.policy import LocalPolicy

ROWS = [
    {"id": "a", "prompt": "Name a river.", "completion": "Rhine"},
    {"id": "b", "prompt": "2+2=", "completion": "4, as everyone knows who has ever counted"},
    {"id": "c", "prompt": "Hi", "completion": "Ho"},
]


def by_hand(model, sequence) -> float:
    with torch.no_grad():
        logps = model(torch.tensor([sequence.ids])).logits[0].double().log_softmax(-1)
    return sum(
        float(logps[at - 1, token])
        for at, (token, trained) in enumerate(zip(sequence.ids, sequence.trained, strict=True))
        if trained
    )


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_score_is_the_sum_over_the_answers_tokens_with_its_end_of_turn(batch_size, model, tokenizer):
    encoder = Encoder(tokenizer, 500)
    examples = [encoder.encode("completion", row) for row in ROWS]
    model.train()
    scores = score_examples(LocalPolicy(model), examples, batch_size=batch_size)
    assert model.training
    model.eval()
    for (score,), example, row in zip(scores, examples, ROWS, strict=True):
        assert score.tokens == len(row["completion"].encode()) + 1
        assert score.logp == pytest.approx(by_hand(model, example.sequences[0]), abs=1e-3)
        assert score.mean == score.logp / score.tokens


def test_of_pairs_chosen_comes_before_rejected_and_kinds_may_be_mixed(model, tokenizer):
    encoder = Encoder(tokenizer, 500)
    pairs = [
        {"id": "p", "prompt": "Hi", "chosen": "Good day", "rejected": "No"},
        {"id": "q", "prompt": "2+2=", "chosen": "4", "rejected": "It might be five"},
    ]
    examples = [
        encoder.encode("preference", pairs[0]),
        encoder.encode("completion", ROWS[2]),
        encoder.encode("preference", pairs[1]),
    ]
    scores = score_examples(LocalPolicy(model), examples)
    assert [len(score) for score in scores] == [2, 1, 2]
    for score, example in zip(scores, examples, strict=True):
        for one, sequence in zip(score, example.sequences, strict=True):
            assert one.logp == pytest.approx(by_hand(model, sequence), abs=1e-3)


def test_an_answer_of_no_tokens_has_mean_zero():
    assert AnswerScore(logp=0.0, tokens=0).mean == 0.0


def test_a_log_probability_that_is_not_finite_is_refused_with_its_sample(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    examples = [Encoder(tokenizer, 500).encode("completion", ROWS[0])]
    with pytest.raises(NumericsError, match=r"samples a\)"):
        score_examples(LocalPolicy(model), examples)
