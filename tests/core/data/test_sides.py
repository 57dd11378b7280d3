"""Rows of an encoder-decoder: what the encoder reads, what the decoder writes, cuts, caches, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.cli import run
from llmfw.core.config import load_config
from llmfw.core.data import (
    Encoder,
    Example,
    RowError,
    TextTokenizer,
    TokenSequence,
    audit,
    collate,
    pack,
    prepare,
)
from llmfw.core.data.encode import row_limit
from llmfw.core.data.sides import encoder_ids
from llmfw.core.data.token_cache import cache_key, cached
from llmfw.core.models import Sides
from llmfw.core.models.byte_level import byte_tokenizer
from tests.toys.encoder_decoder import T5, bart_tokenizer, t5_tokenizer, written

ROW = {"id": "a", "prompt": "say 3", "completion": "it is 3"}


def _encoder(tokenizer: Any, start: int = 0, limit: int = 64, too_long: Any = "drop") -> Encoder:
    return Encoder(tokenizer, limit, too_long, Sides(start=start))


def _only(encoder: Encoder, row: dict[str, Any] | None = None, form: Any = "completion") -> Any:
    example = encoder.encode(form, dict(row or ROW))
    assert example is not None
    return example.sequences[0]


@pytest.fixture
def plain() -> Any:
    """Bytes without a chat template."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    return tokenizer


# --- the two rows ----------------------------------------------------------------------------------------


def test_t5s_end_of_text_stands_after_both_sides_and_the_start_token_before_the_answer():
    """<pad> 0, </s> 1; the words from 3 on: say 3, it 4, is 5, and "3" is the tenth word: 12."""
    found = _only(_encoder(t5_tokenizer()))
    assert found.encoder == (3, 12, 1)
    assert found.ids == (0, 4, 5, 12, 1) and found.trained == (False, True, True, True, True)


def test_barts_marks_stand_around_both_sides_and_those_of_the_answer_are_trained():
    """<s> 261, </s> 262 (the start token); transformers' labels hold <s>, too."""
    found = _only(_encoder(bart_tokenizer(), start=262))
    assert found.encoder == (261, *b"say 3", 262)
    assert found.ids == (262, 261, *b"it is 3", 262) and found.trained == (False, *[True] * 9)


def test_bytes_without_marks_end_the_answer_with_the_end_of_text(plain: Any):
    found = _only(_encoder(plain, start=256))
    assert found.encoder == tuple(b"say 3")
    assert found.ids == (256, *b"it is 3", 258) and found.trained == (False, *[True] * 8)


def test_a_chat_template_writes_what_is_read_and_ends_the_answer():
    found = _only(_encoder(byte_tokenizer(), start=256))
    text = TextTokenizer(byte_tokenizer())
    assert text.decode(found.encoder) == "<|im_start|>user\nsay 3<|im_end|>\n<|im_start|>assistant\n"
    assert found.ids == (256, *b"it is 3", 260) and all(found.trained[1:])


def test_spans_train_a_part_of_the_answer(plain: Any):
    """Character 6 of "it is 3" is the figure: it alone is trained, and no end."""
    found = _only(_encoder(plain, start=256), {**ROW, "spans": [[6, 7]]})
    assert found.ids == (256, *b"it is 3") and found.trained_ids == tuple(b"3")


def test_sentinels_and_masks_may_be_spelt_but_not_ends():
    tokenizer = t5_tokenizer()
    row = {"id": "a", "prompt": "say <extra_id_0> is", "completion": "<extra_id_0> it <extra_id_1>"}
    example = _encoder(tokenizer).encode("completion", row)
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert sentinel in example.sequences[0].encoder and sentinel in example.sequences[0].ids
    assert not audit([example], tokenizer, [row], "completion")
    with pytest.raises(RowError, match="control token </s>"):
        _encoder(tokenizer).encode("completion", {**ROW, "completion": "it</s> is"})


def test_only_the_last_message_is_an_answer():
    talk = [{"role": role, "content": "hm"} for role in ("user", "assistant", "user", "assistant")]
    encoder = _encoder(byte_tokenizer(), start=256, limit=512)
    with pytest.raises(RowError, match="one answer, the last message; 2 are to be trained"):
        encoder.encode("messages", {"id": "a", "messages": talk})
    talk[1]["loss"] = False  # type: ignore[assignment]
    found = _only(encoder, {"id": "a", "messages": talk}, "messages")
    assert TextTokenizer(byte_tokenizer()).decode(found.encoder).count("hm") == 3
    assert found.trained_ids == (*b"hm", 260)
    with pytest.raises(RowError, match="the last message"):
        encoder.encode("messages", {"id": "a", "messages": [*talk, {"role": "user", "content": "so"}]})


def test_a_document_and_an_empty_prompt_are_refused(plain: Any):
    with pytest.raises(RowError, match="has no prompt"):
        _encoder(plain).encode("text", {"id": "a", "text": "it is"})
    with pytest.raises(RowError, match="holds no token"):
        _encoder(plain).encode("completion", {**ROW, "prompt": ""})


# --- lengths ---------------------------------------------------------------------------------------------


def test_each_side_is_held_to_the_longest_length_by_itself(plain: Any):
    """Read: 5 bytes; written: the start, 7 bytes and the end, 9."""
    assert _encoder(plain, limit=9).encode("completion", dict(ROW)) is not None
    assert _encoder(plain, limit=8).encode("completion", dict(ROW)) is None
    with pytest.raises(RowError, match=r"9 tokens on the decoder's side, 1 more"):
        _encoder(plain, limit=8, too_long="error").encode("completion", dict(ROW))
    with pytest.raises(RowError, match=r"12 tokens on the encoder's side, 2 more"):
        _encoder(plain, limit=10, too_long="error").encode("completion", {**ROW, "prompt": "say 3 or so."})


def test_cuts_leave_the_start_and_the_marks():
    """BART at 6: reads <s>, 4 bytes, </s>; writes </s> and 5 more of <s>, 7 bytes, </s>."""
    tokenizer = bart_tokenizer()
    end = _only(_encoder(tokenizer, 262, 6, "cut_end"))
    assert end.encoder == (261, *b"say ", 262) and end.ids == (262, 261, *b"it i")
    start = _only(_encoder(tokenizer, 262, 6, "cut_start"))
    assert start.encoder == (261, *b"ay 3", 262) and start.ids == (262, *b"is 3", 262)
    with pytest.raises(RowError, match="nothing of the prompt is left"):
        _encoder(tokenizer, 262, 2, "cut_end").encode("completion", dict(ROW))


def test_a_pair_loses_as_much_from_one_answer_as_from_the_other(plain: Any):
    """9 and 12 written tokens at 10: both lose 2 from the front, and keep the start token."""
    pair = {"id": "p", "prompt": "say 3", "chosen": "it is 3", "rejected": "it is not 3"[:10]}
    example = _encoder(plain, 256, 10, "cut_start").encode("preference", pair)
    chosen, rejected = example.sequences
    assert (len(chosen), len(rejected)) == (7, 10)
    assert chosen.ids[:2] == (256, ord(" ")) and chosen.encoder == rejected.encoder == tuple(b"say 3")


def test_the_models_positions_are_the_longest_length(plain: Any):
    """512 tokens are 2048 bytes; a BART of 64 positions has 64."""
    assert row_limit(plain, 512, Sides(start=1)) == (2048, None)
    limit, note = row_limit(plain, 512, Sides(start=1, positions=64))
    assert limit == 64 and note is not None and "64 tokens, not 2048" in note


# --- audit, caches, batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [t5_tokenizer, bart_tokenizer, byte_tokenizer])
def test_the_audit_finds_nothing_in_what_is_encoded(make: Any):
    tokenizer = make()
    example = _encoder(tokenizer, start=1).encode("completion", dict(ROW))
    assert audit([example], tokenizer, [ROW], "completion") == []


def test_the_cache_gives_both_sides_back_and_tells_starts_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path))
    rows = [ROW, {**ROW, "id": "b", "prompt": "say it is 4"}]
    encoder = _encoder(t5_tokenizer())
    made = cached(encoder, "completion", rows, lambda: [encoder.encode("completion", row) for row in rows])
    again = cached(encoder, "completion", rows, lambda: pytest.fail("it isn't tokenised twice"))
    assert again == made and again[1].sequences[0].encoder == (3, 4, 5, 13, 1)
    keys = {cache_key(_encoder(t5_tokenizer(), start), "completion", rows) for start in (0, 1)}
    assert len({*keys, cache_key(Encoder(t5_tokenizer(), 64), "completion", rows)}) == 3


def test_prepared_data_differ_where_only_the_prompts_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    found = []
    for word in ("say", "is"):
        path = tmp_path / f"{word}.jsonl"
        rows = [{"id": str(i), "prompt": f"{word} {i}", "completion": "it"} for i in range(6)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        root = load_config(overrides=[f"data={path}"]).root
        found.append(prepare(root, t5_tokenizer(), sides=Sides(start=0)).fingerprint)
    assert found[0] != found[1]


def test_batches_pad_both_sides_and_read_a_prompt_once():
    """Prompts of 3, 4 and 3 tokens, two of them the same: two encoder rows of 4."""
    encoder = _encoder(t5_tokenizer())
    prompts = ("say 3", "say it 4", "say 3")
    rows = [
        {"id": str(i), "prompt": prompt, "completion": " ".join(["it"] * (i + 1))}
        for i, prompt in enumerate(prompts)
    ]
    batch = collate([encoder.encode("completion", row) for row in rows], 0)
    assert batch.encoder_ids.tolist() == [[3, 12, 1, 0], [3, 4, 13, 1]]
    assert batch.encoder_mask.tolist() == [[True] * 3 + [False], [True] * 4]
    assert batch.encoder_row.tolist() == [0, 1, 0] and batch.length.tolist() == [2, 3, 4]
    assert batch.to("cpu").encoder_row.tolist() == [0, 1, 0]
    bare = TokenSequence((0, 4, 1), (False, True, True))
    mixed = Example(id="x", kind="text", sequences=(bare,), extra={"prompt_length": (1,)})
    with pytest.raises(ValueError, match="some rows"):
        collate([encoder.encode("completion", rows[0]), mixed], 0)
    with pytest.raises(ValueError, match="can't be packed"):
        pack([encoder.encode("completion", rows[0])], 64)


# --- what a user sees ------------------------------------------------------------------------------------


def test_data_inspect_shows_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    Path("rows.jsonl").write_text("".join(json.dumps({**ROW, "id": str(i)}) + "\n" for i in range(4)))
    words = ["data", "inspect", f"model.config={written(T5)}", "data=rows.jsonl", "-n", "1"]
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert "encoder 24 tokens, decoder 9 tokens, 8 trained" in shown
    assert "say 3<|im_end|>" in shown and "⟦it is 3<|im_end|>⟧" in shown
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"][0]["encoder"][0].startswith("<|im_start|>user\nsay 3")


def test_what_an_encoder_reads_has_each_mark_once():
    text = TextTokenizer(bart_tokenizer())
    assert encoder_ids(text, "hi") == [261, *b"hi", 262]
    assert encoder_ids(text, "<s>hi") == [261, *b"hi", 262]
