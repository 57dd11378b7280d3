"""Commands that load an export."""

from __future__ import annotations

import ast
import shlex

from llmfw.core.models.usage import Usage, next_lines, python_lines, serving_lines, vllm_refuses


def test_each_format_is_loaded_by_python_that_parses_and_names_no_llmfw():
    for usage in (
        Usage(format="hf", folder="out", dtype="float32"),
        Usage(format="hf", folder="out", dtype="float32", encoder_decoder=True, chat=False),
        Usage(format="adapter", folder="out", dtype="bfloat16", base="owner/base", adapter={"r": 8}),
        Usage(format="gguf", folder="out", dtype="f16", file="out-f16.gguf"),
    ):
        code = "\n".join(python_lines(usage))
        ast.parse(code)
        assert "llmfw" not in code and "from_pretrained" in code


def test_vllm_is_told_of_a_large_rank_and_serves_no_dora():
    """vLLM's list of ranks is 8, 16, 32 ...: 24 needs 32."""
    plain = {"format": "adapter", "folder": "runs/out", "dtype": "float32", "base": "owner/base"}
    (line,) = serving_lines(Usage(**plain, adapter={"r": 24}))
    assert line == ("vllm serve owner/base --enable-lora --lora-modules out=runs/out --max-lora-rank 32")
    assert "--max-lora-rank" not in serving_lines(Usage(**plain, adapter={"r": 16}))[0]
    dora = Usage(**plain, adapter={"r": 8, "use_dora": True})
    assert serving_lines(dora) == [] and "--merge" in vllm_refuses(dora)
    saved = Usage(**plain, adapter={"r": 8, "modules_to_save": ["lm_head"]})
    assert serving_lines(saved) == [] and vllm_refuses(saved)


def test_a_base_on_the_hub_is_loaded_at_its_commit():
    usage = Usage(
        format="adapter", folder="out", dtype="float32", base="owner/base", revision="abc1", adapter={"r": 8}
    )
    assert 'from_pretrained("owner/base", revision="abc1", dtype="float32")' in "\n".join(python_lines(usage))
    assert "--revision abc1" in serving_lines(usage)[0]


def test_a_folder_with_blanks_and_quotes_stays_one_word():
    for usage in (
        Usage(format="hf", folder="my 'own' model", dtype="float32"),
        Usage(format="adapter", folder="my 'own' model", dtype="float32", base="a b", adapter={"r": 4}),
    ):
        for line in next_lines(usage):
            words = shlex.split(line)
            assert any("my 'own' model" in word for word in words), words


def test_an_encoder_decoder_has_no_server_and_no_chat():
    lines = next_lines(Usage(format="hf", folder="out", dtype="float32", encoder_decoder=True, chat=False))
    assert len(lines) == 1 and "Seq2SeqLM" in lines[0]


def test_gguf_is_for_llama_cpp():
    lines = next_lines(Usage(format="gguf", folder="out", dtype="f16", file="out-f16.gguf"))
    assert [line.split()[0] for line in lines] == ["llama-cli", "llama-server"]
    assert all("out/out-f16.gguf" in line for line in lines)
