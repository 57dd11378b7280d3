"""Where answers end, and text shown while it is written."""

from __future__ import annotations

import pytest

from llmfw.core.generation import Sampling, TextStream, finish

END = 259


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_text_and_ids_end_at_the_end_of_turn(tokenizer):
    ids = [*ids_of(tokenizer, "ab"), END, *ids_of(tokenizer, "cd")]
    assert finish(tokenizer, ids, Sampling(stop_ids=(END,))) == ("ab", tuple(ids[:3]), "stop")


def test_without_an_end_the_reason_is_the_length(tokenizer):
    ids = ids_of(tokenizer, "ab")
    assert finish(tokenizer, ids, Sampling(stop_ids=(END,))) == ("ab", tuple(ids), "length")


def test_the_first_of_several_stop_strings_counts(tokenizer):
    ids = ids_of(tokenizer, "one##two==three")
    assert finish(tokenizer, ids, Sampling(stop=("==", "##"))) == (
        "one",
        tuple(ids_of(tokenizer, "one##")),
        "stop",
    )


def test_a_stop_string_before_the_end_of_turn_wins_and_one_after_it_is_never_seen(tokenizer):
    before = [*ids_of(tokenizer, "a#b"), END]
    assert finish(tokenizer, before, Sampling(stop=("#",), stop_ids=(END,)))[0] == "a"
    after = [*ids_of(tokenizer, "ab"), END, *ids_of(tokenizer, "#")]
    assert finish(tokenizer, after, Sampling(stop=("#",), stop_ids=(END,)))[:2] == ("ab", tuple(after[:3]))


def stream(tokenizer, text: str, sampling: Sampling, end: bool = True) -> list[str]:
    listener = TextStream(tokenizer, sampling)
    return [
        *(listener.push(token) for token in [*ids_of(tokenizer, text), *([END] if end else [])]),
        listener.close(),
    ]


@pytest.mark.parametrize("text", ["plain", "naïve", "日本語 and 🎉!", "x" * 50])
def test_the_pieces_join_to_the_text(text: str, tokenizer):
    pieces = stream(tokenizer, text, Sampling(stop_ids=(END,)))
    assert "".join(pieces) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_ascii_text_is_shown_token_by_token(tokenizer):
    assert stream(tokenizer, "abc", Sampling(stop_ids=(END,))) == ["a", "b", "c", "", ""]


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none(tokenizer):
    # "#" and "##" may become "##!"; the "x" shows that they don't
    assert stream(tokenizer, "a##x", Sampling(stop=("##!",)), end=False) == ["a", "", "", "##x", ""]


def test_a_stop_string_and_what_follows_are_never_shown(tokenizer):
    assert "".join(stream(tokenizer, "a##!b", Sampling(stop=("##!",)), end=False)) == "a"


def test_half_a_stop_string_at_the_very_end_is_text(tokenizer):
    assert stream(tokenizer, "a##", Sampling(stop=("##!",)), end=False) == ["a", "", "", "##"]
