"""Toy tokenizers of the kinds that masks must be exact for."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.templates import CHATML

LLAMA3 = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""Writes BOS itself and strips contents, as Llama 3's."""
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""A blank between the opening and the answer, and roles that must alternate, as Llama 2's."""
NO_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Ends no turn."""
LAST_LINE = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
"""Cuts reasoning out of contents: what was said isn't what is rendered."""


def llama_like(
    template: str | None, *, adds_bos: bool = True, spaced: bool = False
) -> PreTrainedTokenizerFast:
    """Bytes as tokens, with BOS put before every text; ``spaced``: a space is put before every text too."""
    core = Tokenizer(models.BPE(vocab=dict(byte_tokenizer().get_vocab()), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False)
    core.decoder = decoders.ByteLevel()
    extra = ["<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=extra[2:], chat_template=template, clean_up_tokenization_spaces=False,
    )  # fmt: skip
