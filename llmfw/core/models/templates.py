"""Chat templates that have a name."""

from __future__ import annotations

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Every turn between <|im_start|> and <|im_end|>, its role on the first line; no default system message."""

NAMED = {"chatml": CHATML}
"""Values that ``tokenizer.template`` takes beside a file."""
