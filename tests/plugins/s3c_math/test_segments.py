"""Segments, masks and borders: what of a corrected solution is trained, to the token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmfw import LlmfwError
from llmfw.core.data import Encoder, Example, TextTokenizer, answer_of, canonical, collate
from llmfw.core.generation import score_examples
from llmfw.losses.causal_lm import cross_entropy
from llmfw.plugins.s3c_math.borders import on_tokens
from llmfw.plugins.s3c_math.reference import character_mask
from llmfw.plugins.s3c_math.segments import (
    Segment,
    from_record,
    gold,
    repaired,
    text_of,
    to_record,
    trained_spans,
    with_repair,
    with_retry,
)
from llmfw.plugins.s3c_math.solution import lines_of, steps_of

ROW = {"id": "p", "prompt": "7 +5 *3", "answer": "36", "solution": ["7+5=12", "12*3=36"]}
LINES, STEPS = lines_of(ROW), steps_of(ROW)
FIXED = with_repair(LINES, {0: ("7+5=13", "Wait, 7+5 isn't 13.", "7+5=12")})
COMPLETION = text_of(FIXED)


def encode(tokenizer: Any, completion: str, spans: Any = None) -> Example:
    row: dict[str, Any] = {"prompt": ROW["prompt"], "completion": completion}
    form, checked = canonical(row if spans is None else {**row, "spans": spans})
    example = Encoder(tokenizer, 2000).encode(form, checked)
    assert example is not None
    return example


def trained_text(tokenizer: Any, example: Example) -> str:
    return str(tokenizer.decode(list(example.sequences[0].trained_ids)))


def small_bpe(merges: Sequence[tuple[str, str]] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on corrected solutions, words split at newlines as most do; with ``merges``
    one that has these alone, across newlines too (\u010a stands for a newline).
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = [one + other for one, other in merges]
    vocab = {token: at for at, token in enumerate(["<pad>", "</s>", *alphabet, *joined])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)) if merges else models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    core.decoder = decoders.ByteLevel()
    if not merges:
        trainer = trainers.BpeTrainer(
            vocab_size=330, show_progress=False, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet
        )
        core.train_from_iterator([COMPLETION, answer_of(ROW)] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def test_the_delimiter_of_a_wrong_step_is_masked_and_the_first_character_of_the_reflection_is_trained() -> (
    None
):
    """7+5=13 and its newline are 7 characters: trained is [7, length + 1), the turn's end too."""
    assert COMPLETION == "7+5=13\nWait, 7+5 isn't 13.\n7+5=12\n12*3=36\nAnswer: 36"
    assert trained_spans(FIXED) == [[7, len(COMPLETION) + 1]]
    later = with_repair(LINES, {1: ("12*3=39", "Wait, no.", "12*3=36")})
    assert trained_spans(later) == [[0, 7], [15, len(text_of(later)) + 1]]


def test_oracle_1_without_wrong_segments_the_row_is_that_of_plain_training(byte_tokenizer: Any) -> None:
    plain = gold(LINES)
    assert text_of(plain) == answer_of(ROW)
    assert trained_spans(plain) == [[0, len(answer_of(ROW)) + 1]]
    masked = encode(byte_tokenizer, text_of(plain), trained_spans(plain)).sequences
    assert masked == encode(byte_tokenizer, answer_of(ROW)).sequences


def test_oracle_1_and_the_loss_is_equal_bit_for_bit(tiny_llama: Any, byte_tokenizer: Any) -> None:
    from llmfw.core.models import LocalPolicy

    policy = LocalPolicy(tiny_llama.eval(), {}, byte_tokenizer)
    plain = gold(LINES)
    losses = [
        cross_entropy(policy.logps(collate([encode(byte_tokenizer, text_of(plain), spans)], 0)))
        for spans in (None, trained_spans(plain))
    ]
    assert losses[0].item().hex() == losses[1].item().hex()


def policy_of(model: Any, tokenizer: Any) -> Any:
    from llmfw.core.models import LocalPolicy

    return LocalPolicy(model.eval(), {}, tokenizer)


def test_oracle_2_the_full_loss_is_the_masked_one_and_that_of_the_wrong_tokens(
    tiny_llama: Any, byte_tokenizer: Any
) -> None:
    """L_full * n_full = L_masked * n_masked + NLL(wrong): 7 wrong bytes."""
    policy = policy_of(tiny_llama.double(), byte_tokenizer)
    spans = (None, trained_spans(FIXED), [[0, 7]])
    full, masked, wrong = (
        score_examples(policy, [encode(byte_tokenizer, COMPLETION, one)])[0][0] for one in spans
    )
    assert (full.tokens, masked.tokens, wrong.tokens) == (len(COMPLETION) + 1, len(COMPLETION) - 6, 7)
    assert full.mean * full.tokens == pytest.approx(masked.mean * masked.tokens + wrong.logp, abs=1e-4)


def test_oracle_3_the_model_predicts_nothing_inside_the_wrong_step(byte_tokenizer: Any) -> None:
    example = encode(byte_tokenizer, COMPLETION, trained_spans(FIXED))
    (sequence,) = example.sequences
    start = len(sequence) - 2 - len(COMPLETION)  # behind the answer stand the end of the turn and a newline
    batch = collate([example], 0)
    positions = batch.source.tolist()  # a trained token's state is the one before it
    assert min(positions) == start + 6
    assert chr(sequence.ids[start + 6]) == "\n" and chr(int(batch.target[0])) == "W"


def test_oracle_5_segments_cover_the_text_and_the_mask_counts_what_is_trained(byte_tokenizer: Any) -> None:
    """Bytes: step 8 + 10, reflect 20, improve 7, end 1; wrong 7."""
    sizes = {
        kind: sum(len(s.text) for s in FIXED if s.type == kind) for kind in ("step", "reflect", "improve")
    }
    assert sizes == {"step": 18, "reflect": 20, "improve": 7}
    example = encode(byte_tokenizer, COMPLETION, trained_spans(FIXED))
    assert sum(example.sequences[0].trained) == 18 + 20 + 7 + 1
    assert trained_text(byte_tokenizer, example) == COMPLETION[7:] + "<|im_end|>"
    spans = trained_spans(FIXED)
    outside = COMPLETION[: spans[0][0]]
    assert outside == FIXED[0].text and outside + COMPLETION[spans[0][0] :] == COMPLETION


@pytest.mark.parametrize("at", [0, 1])
def test_oracle_5_spans_say_what_the_slow_mask_says(at: int) -> None:
    segments = with_repair(LINES, {at: ("bad step", "Wait, no.", STEPS[at])})
    spans = trained_spans(segments)
    flags = [any(a <= n < b for a, b in spans) for n in range(len(text_of(segments)) + 1)]
    assert flags == character_mask([(one.type, one.text) for one in segments])


def test_oracle_9_without_what_was_taken_back_the_gold_solution_is_left() -> None:
    assert repaired(FIXED) == answer_of(ROW)
    twice = with_repair(LINES, {n: ("x", "Wait, no.", STEPS[n]) for n in (0, 1)})
    retry = with_retry(LINES, ["7+5=13", "13*3=39", "Answer: 39"], 0, "Wait, no.")
    bare = with_repair(LINES, {0: ("x", "Wait, no.", STEPS[0])}, reflections=False)
    assert [repaired(one) for one in (twice, retry, bare)] == [answer_of(ROW)] * 3
    assert "Wait" not in text_of(bare) and text_of(retry).endswith(answer_of(ROW))
    assert trained_spans(retry)[0][0] == len("7+5=13\n13*3=39\nAnswer: 39\n")


def test_oracle_11_a_record_of_wrong_steps_alone_adds_nothing_and_no_nan(
    tiny_llama: Any, byte_tokenizer: Any
) -> None:
    from dataclasses import replace

    assert trained_spans([Segment("wrong", "7+5=13\n", 0)]) == []
    usual = encode(byte_tokenizer, COMPLETION, trained_spans(FIXED))
    (sequence,) = usual.sequences
    nothing = replace(usual, id="n", sequences=(replace(sequence, trained=(False,) * len(sequence)),))
    policy = policy_of(tiny_llama, byte_tokenizer)
    alone = cross_entropy(policy.logps(collate([nothing], 0)))
    both, one = (cross_entropy(policy.logps(collate(those, 0))) for those in ([usual, nothing], [usual]))
    assert alone.item() == 0.0 and both.item() == pytest.approx(one.item(), abs=1e-4)


def test_a_trained_bpe_keeps_the_border_where_words_are_split_at_newlines() -> None:
    tokenizer = small_bpe()
    spans = trained_spans(FIXED)
    assert on_tokens(TextTokenizer(tokenizer), COMPLETION, spans) == spans
    assert trained_text(tokenizer, encode(tokenizer, COMPLETION, spans)) == COMPLETION[7:] + "</s>"


def test_a_token_across_the_border_trains_the_reflection_and_never_the_wrong_step() -> None:
    """This tokenizer has the tokens newline + 1 and newline + W. ``7+5=12\\n`` is 7 characters, the wrong
    step ``13*3=36\\n`` 8 more. The token newline + 1 crosses from 6 to 8: the first span ends at 6 instead of
    7. The token newline + W crosses from 14 to 16, and is trained: it holds the reflection's first letter.
    """
    tokenizer = small_bpe([("\u010a", "1"), ("\u010a", "W")])
    segments = with_repair(LINES, {1: ("13*3=36", "Wait, no.", "12*3=36")})
    text, spans = text_of(segments), trained_spans(segments)
    assert spans == [[0, 7], [15, len(text) + 1]]
    exact = on_tokens(TextTokenizer(tokenizer), text, spans)
    assert exact == [[0, 6], [15, len(text) + 1]]
    said = trained_text(tokenizer, encode(tokenizer, text, exact))
    assert said == "7+5=12" + "\nWait, no.\n12*3=36\nAnswer: 36</s>"
    careless = trained_text(tokenizer, encode(tokenizer, text, spans))
    assert careless == "7+5=12\n1" + "\nWait, no.\n12*3=36\nAnswer: 36</s>"  # the 1 is the wrong step's


def test_segments_come_back_from_their_record_and_bad_ones_are_refused() -> None:
    assert from_record(to_record(FIXED)) == FIXED
    empty = {"type": "step", "text": " \n", "step_idx": 0}
    unknown = {"type": "guess", "text": "x", "step_idx": 0}
    for bad in ([empty], [unknown], [{"type": "step", "text": "x"}]):
        with pytest.raises(LlmfwError, match="error\\[SEGMENT\\] segments:.*; give"):
            from_record(bad)
