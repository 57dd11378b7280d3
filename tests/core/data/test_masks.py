"""Exactly the answer and its end of turn are trained, whatever the template does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.core.data import (
    Encoder,
    Example,
    TextTokenizer,
    canonical,
    length_limit,
    trained_text,
)
from llmfw.core.data.formats import RowError
from llmfw.core.data.text import Response, contiguous
from llmfw.core.errors import DataError
from llmfw.core.generation import encode_prompt
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import Row
from tests.core.data.support import LAST_LINE, LLAMA2, LLAMA3, NO_END, llama_like

Make = Callable[..., Any]
CHAT = {"prompt": "2+2?", "completion": "4"}
BYTE = byte_tokenizer()


def _encode(tokenizer: Any, row: dict[str, Any], max_length: int = 2000, too_long: Any = "drop") -> Example:
    form, checked = canonical(row)
    example = Encoder(tokenizer, max_length, too_long).encode(form, checked)
    assert example is not None
    return example


def _trained(tokenizer: Any, example: Example) -> list[str]:
    return [trained_text(tokenizer, sequence) for sequence in example.sequences]


def _whole(tokenizer: Any, example: Example) -> str:
    return TextTokenizer(tokenizer).decode(example.sequences[0].ids)


def test_under_chatml_the_answer_and_its_end_of_turn_are_trained_and_nothing_after(byte: Any) -> None:
    example = _encode(byte, CHAT)
    whole = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    assert _whole(byte, example) == whole
    assert _trained(byte, example) == ["4<|im_end|>"]
    assert example.sequences[0].trained[-3:] == (True, True, False)  # 4, end of turn, newline
    assert example.extra["prompt_length"] == (len(example.sequences[0].ids) - 3,)


def test_the_ids_before_the_answer_are_those_that_generation_starts_from(make_tokenizer: Make) -> None:
    for tokenizer in (BYTE, make_tokenizer(LLAMA3), make_tokenizer(LLAMA2), make_tokenizer(None)):
        example = _encode(tokenizer, CHAT)
        prompt = encode_prompt(tokenizer, "2+2?")
        assert list(example.sequences[0].ids[: len(prompt)]) == prompt
        assert example.extra["prompt_length"] == (len(prompt),)


def test_a_template_that_writes_bos_gets_no_second_one_and_its_end_of_turn_is_trained(
    make_tokenizer: Make,
) -> None:
    tokenizer = make_tokenizer(LLAMA3)
    example = _encode(tokenizer, {"prompt": " hi ", "completion": "\n yes "})
    assert _whole(tokenizer, example).count("<s>") == 1
    assert _trained(tokenizer, example) == ["yes<|eot_id|>"]
    assert example.sequences[0].trained[-1]


def test_the_blank_between_opening_and_answer_is_what_the_model_has_to_say(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(LLAMA2)
    example = _encode(tokenizer, CHAT)
    assert _whole(tokenizer, example) == "<s>[INST] 2+2? [/INST] 4 </s>"
    assert _trained(tokenizer, example) == [" 4 </s>"]


def test_several_turns_train_every_answer_with_its_end(make_tokenizer: Make) -> None:
    messages = [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"},
    ]  # fmt: skip
    for template, wanted in (
        (None, "b<|im_end|>d<|im_end|>"),
        (LLAMA3, "b<|eot_id|>d<|eot_id|>"),
        (LLAMA2, " b </s> d </s>"),
    ):
        tokenizer = BYTE if template is None else make_tokenizer(template)
        assert _trained(tokenizer, _encode(tokenizer, {"messages": messages})) == [wanted]


def test_a_loss_flag_chooses_the_trained_messages(byte: Any) -> None:
    messages = [
        {"role": "user", "content": "a", "loss": True}, {"role": "assistant", "content": "b", "loss": False},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"},
    ]  # fmt: skip
    assert _trained(byte, _encode(byte, {"messages": messages})) == ["a<|im_end|>d<|im_end|>"]


def test_character_spans_train_these_characters_only(byte: Any, make_tokenizer: Make) -> None:
    turn = [{"role": "user", "content": "q"}]
    answer = {"role": "assistant", "content": "  keep drop keep", "spans": [[2, 6], [12, 16]]}
    assert _trained(byte, _encode(byte, {"messages": [*turn, answer]})) == ["keepkeep"]
    stripping = make_tokenizer(LLAMA3)  # the template takes the two blanks away: the spans move with the text
    assert _trained(stripping, _encode(stripping, {"messages": [*turn, answer]})) == ["keepkeep"]
    completion = {"prompt": "q", "completion": "abcdef", "spans": [[0, 1], [4, 6]]}
    assert _trained(byte, _encode(byte, completion)) == ["aef"]
    plain = make_tokenizer(None)
    assert _trained(plain, _encode(plain, completion)) == ["aef"]
    text = {"text": "abcdef", "spans": [[0, 2], [5, 6]]}
    assert _trained(plain, _encode(plain, text)) == ["abf"]
    assert _trained(byte, _encode(byte, text)) == ["bf"]  # without BOS nothing precedes the first character


def test_a_span_that_ends_behind_the_last_character_trains_the_end_too(
    byte: Any, make_tokenizer: Make
) -> None:
    """``ab`` and ``ef`` of six characters; a stop at 7 adds the end of the turn, or of the text."""
    completion = {"prompt": "q", "completion": "abcdef", "spans": [[0, 2], [4, 7]]}
    assert _trained(byte, _encode(byte, completion)) == ["abef<|im_end|>"]
    plain = make_tokenizer(None)
    assert _trained(plain, _encode(plain, completion)) == ["abef</s>"]
    message = {"role": "assistant", "content": "abcdef", "spans": [[0, 2], [4, 7]]}
    row = {"messages": [{"role": "user", "content": "q"}, message]}
    assert _trained(byte, _encode(byte, row)) == ["abef<|im_end|>"]
    stripping = make_tokenizer(LLAMA3)
    message = message | {"content": " abcdef", "spans": [[1, 3], [5, 8]]}
    assert _trained(stripping, _encode(stripping, {"messages": [row["messages"][0], message]})) == [
        "abef<|eot_id|>"
    ]
    text = {"text": "abcdef", "spans": [[4, 7]]}
    assert _trained(plain, _encode(plain, text)) == ["ef</s>"]


def test_a_span_of_the_whole_answer_and_its_end_is_no_span_at_all(byte: Any) -> None:
    row = {"prompt": "q", "completion": "abc"}
    whole, spanned = _encode(byte, row), _encode(byte, row | {"spans": [[0, 4]]})
    assert whole.sequences == spanned.sequences


@pytest.mark.parametrize("span", [[0, 5], [3, 4]])
def test_a_span_of_nothing_or_too_far_behind_is_refused(span: list[int]) -> None:
    with pytest.raises(RowError, match="doesn't lie in order within the 3 characters"):
        canonical({"prompt": "q", "completion": "abc", "spans": [span]})


def test_an_emoji_of_several_tokens_is_trained_whole(byte: Any) -> None:
    row = {"prompt": "q", "completion": "a🙂b", "spans": [[1, 2]]}
    assert _trained(byte, _encode(byte, row)) == ["🙂"]
    assert _encode(byte, row).trained_lengths == (4,)


def test_without_a_template_prompt_and_answer_are_joined_and_closed_once(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    example = _encode(tokenizer, {"prompt": "2+2=", "completion": " 4"})
    assert _whole(tokenizer, example) == "<s>2+2= 4</s>"
    assert _trained(tokenizer, example) == [" 4</s>"]
    encoder = Encoder(tokenizer, 100)
    encoder.encode(*canonical(CHAT))
    assert any("joined as they are" in note for note in encoder.counts.notes)
    with pytest.raises(DataError, match="NO-TEMPLATE"):
        _encode(
            tokenizer, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
        )


def test_a_tokenizer_that_spaces_every_piece_gets_its_mask_from_offsets(make_tokenizer: Make) -> None:
    core = make_tokenizer(None)
    core.backend_tokenizer.pre_tokenizer.add_prefix_space = True
    text = TextTokenizer(core)
    assert not text.joins and TextTokenizer(BYTE).joins
    ids, flags = text.masked("ab cd", [Response(3, 5, ((3, 5),))])
    assert text.decode([token for token, flag in zip(ids, flags, strict=True) if flag]) == "cd"


def test_a_template_that_ends_no_turn_is_closed_with_the_end_of_text(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(NO_END, adds_bos=False)
    example = _encode(tokenizer, CHAT)
    assert _whole(tokenizer, example) == "user: 2+2?\nassistant: 4</s>"
    assert _trained(tokenizer, example) == ["4</s>"]
    encoder = Encoder(tokenizer, 100)
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    encoder.encode(*canonical({"messages": [*turn, *turn]}))
    assert encoder.counts.open_ends == 1  # the first answer's end can't be learnt


def test_a_template_that_rewrites_a_content_is_refused_by_key(make_tokenizer: Make) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = LAST_LINE
    assert _trained(tokenizer, _encode(tokenizer, CHAT)) == ["4<|im_end|>"]
    with pytest.raises(RowError, match="changes the content") as caught:
        _encode(tokenizer, {"prompt": "q", "completion": "<think>x</think>4"})
    assert caught.value.key == "completion[1].content"
    alternating = make_tokenizer(LLAMA2)
    with pytest.raises(RowError, match="roles must alternate"):
        _encode(alternating, {"messages": [{"role": "assistant", "content": "a"}]})


def test_a_control_token_spelt_out_in_the_data_is_refused(byte: Any) -> None:
    for row in (
        {"prompt": "a<|im_end|>", "completion": "b"},
        {"prompt": "a", "completion": "b<bos>"},
        {"text": "x<eos>y"},
    ):
        with pytest.raises(RowError, match="spells the control token"):
            _encode(byte, row)


def test_a_text_trains_all_but_what_nothing_precedes(byte: Any, make_tokenizer: Make) -> None:
    assert _trained(byte, _encode(byte, {"text": "abc"})) == ["bc<eos>"]
    tokenizer = make_tokenizer(None)
    assert _trained(tokenizer, _encode(tokenizer, {"text": "abc"})) == ["abc</s>"]


def test_a_problem_trains_its_steps_and_its_answer(byte: Any) -> None:
    row = {"prompt": "2+2?", "answer": 4, "solution": ["Count.", "Again."], "level": 1}
    assert _trained(byte, _encode(byte, row)) == ["Count.\nAgain.\nAnswer: 4<|im_end|>"]
    assert _trained(byte, _encode(byte, {"prompt": "2+2?", "answer": "4"})) == ["4<|im_end|>"]


def test_a_reward_makes_a_scored_sample(byte: Any) -> None:
    example = _encode(byte, {**CHAT, "reward": 1, "extra": {"weight": 2}})
    assert example.kind == "scored" and example.extra["reward"] == 1.0 and example.extra["weight"] == 2.0


def test_a_scored_sample_carries_a_number_per_trained_token(byte: Any) -> None:
    """``ab`` and the end of the turn: three trained tokens."""
    row = {"prompt": "p", "completion": "ab", "reward": 1, "old_logps": [-1, -2.5, -0.5]}
    example = _encode(byte, row)
    assert example.extra["old_logps"] == ((-1.0, -2.5, -0.5),)
    with pytest.raises(RowError, match="2 numbers for 3 trained tokens"):
        _encode(byte, {**row, "old_logps": [-1, -2]})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"old_logps": [-1]}, "only a row with a reward"),
        ({"reward": 1, "old_logps": -1}, "expected a list of numbers"),
        ({"reward": 1, "old_logps": ["much"]}, "expected a number"),
    ],
)
def test_numbers_per_token_that_mean_nothing_are_refused(row: Row, said: str) -> None:
    with pytest.raises(RowError, match=said):
        canonical({"prompt": "p", "completion": "c", **row})


def test_too_long_rows_are_dropped_cut_or_refused(make_tokenizer: Make) -> None:
    """``<s>abcdefgh`` + ``1234</s>`` is 14 tokens, 5 of them trained; a cut to 10 takes 4."""
    tokenizer = make_tokenizer(None)
    row = {"prompt": "abcdefgh", "completion": "1234"}
    form, checked = canonical(row)
    encoder = Encoder(tokenizer, 10, "drop")
    assert encoder.encode(form, checked) is None and encoder.counts.too_long == 1
    with pytest.raises(RowError, match="14 tokens, 4 more than allowed"):
        _encode(tokenizer, row, 10, "error")
    start = _encode(tokenizer, row, 10, "cut_start")
    assert _whole(tokenizer, start) == "<s>efgh1234</s>" and _trained(tokenizer, start) == ["1234</s>"]
    end = _encode(tokenizer, row, 10, "cut_end")
    assert _whole(tokenizer, end) == "<s>abcdefgh1" and _trained(tokenizer, end) == ["1"]
    with pytest.raises(RowError, match="nothing of it is trained after the cut to 9 tokens"):
        _encode(tokenizer, row, 9, "cut_end")


def test_a_pair_cut_to_equal_length_is_counted(make_tokenizer: Make) -> None:
    """Prompt 4 tokens with BOS; answers of 8 and 12 tokens with their ends; a cut to 10 leaves 6 of each."""
    tokenizer = make_tokenizer(None)
    row = {"prompt": "abc", "chosen": "1234567", "rejected": "12345678901"}
    encoder = Encoder(tokenizer, 10, "cut_end")
    example = encoder.encode(*canonical(row))
    assert example is not None and example.trained_lengths == (6, 6)
    assert encoder.counts.pairs_cut_equal == 1
    start = Encoder(tokenizer, 14, "cut_start").encode(*canonical(row))
    assert start is not None
    prompts = [
        sequence.ids[:length]
        for sequence, length in zip(start.sequences, start.extra["prompt_length"], strict=True)
    ]
    assert (
        prompts[0] == prompts[1] and len(prompts[0]) == 2
    )  # <s>c: both prompts lose what the longer side needs


def test_length_limits_scale_with_bytes_per_token(byte: Any) -> None:
    assert length_limit(byte, 256) == 1024
    assert length_limit(llama_like(None), 256) == 1024


def test_offsets_without_gaps_give_blanks_to_the_token_that_holds_them() -> None:
    """``a  bc`` as a | two blanks (trimmed away) | blank-trimmed ``bc``."""
    assert contiguous([(0, 1), (2, 2), (3, 5)]) == [(0, 1), (1, 3), (3, 5)]
    assert contiguous([(0, 1), (2, 4)]) == [(0, 1), (1, 4)]
    assert contiguous([(0, 1), (0, 1), (1, 1)]) == [(0, 1), (0, 1), (1, 1)]


WORDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="<"), min_size=1, max_size=20
).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), st.sampled_from(["chatml", "llama3", "llama2"])
)
def test_what_is_trained_decodes_to_the_answers(turns: list[tuple[str, str]], name: str) -> None:
    tokenizer = BYTE if name == "chatml" else llama_like({"llama3": LLAMA3, "llama2": LLAMA2}[name])
    end = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "llama2": " </s>"}[name]
    messages = [
        message for asked, said in turns
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
    ]  # fmt: skip
    shown = {"chatml": str, "llama3": str.strip, "llama2": lambda said: " " + said.strip()}[name]
    wanted = "".join(shown(said) + end for _, said in turns)
    assert _trained(tokenizer, _encode(tokenizer, {"messages": messages}, 10_000)) == [wanted]
