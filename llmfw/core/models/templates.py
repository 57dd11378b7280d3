"""Chat templates that have a name (``configs/templates/NAME.jinja``) and the control tokens they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from llmfw.core.errors import UsageError
from llmfw.core.say import say

_FOLDER: Final = Path(__file__).parents[2] / "configs" / "templates"
NAMED: Final[dict[str, str]] = {
    file.stem: file.read_text(encoding="utf-8") for file in sorted(_FOLDER.glob("*.jinja"))
}
"""Values that ``tokenizer.template`` takes beside a file."""
CHATML: Final = NAMED["chatml"]
"""Every turn between <|im_start|> and <|im_end|>, its role on the first line; no default system message."""

_CONTROL: Final = re.compile(r"<\|[a-zA-Z_]+\|>|<(?:start|end)_of_turn>")
_WRITTEN: Final = {"phi3": ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")}
"""Control tokens that a template puts together from parts."""
_PLAIN: Final = {"zephyr": ("<|assistant|>",), "tulu": ("<|assistant|>",)}
"""What looks like a control token, but is plain text to the models of this template."""


def control_tokens(template: str, name: str | None = None) -> tuple[str, ...]:
    """The control tokens that a template writes, as far as its text shows them."""
    found = [*_CONTROL.findall(template), *_WRITTEN.get(name or "", ())]
    return tuple(token for token in dict.fromkeys(found) if token not in _PLAIN.get(name or "", ()))


def missing_tokens(tokenizer: Any, template: str, name: str | None = None) -> list[str]:
    """The control tokens of a template that the tokenizer would take apart."""
    known = tokenizer.get_vocab()
    missing = [token for token in control_tokens(template, name) if token not in known]
    if "eos_token" in template and tokenizer.eos_token is None:
        missing.append("end-of-text")
    return missing


def find_template(name: str, tokenizer: Any) -> str:
    """The chat template of this name, or of the file.

    A named template whose control tokens the tokenizer lacks is refused: no token would end a turn. Of a
    file's it is said.

    Raises:
        UsageError: no such template, or one that doesn't fit the tokenizer.
    """
    if name in NAMED:
        missing = missing_tokens(tokenizer, NAMED[name], name)
        if missing:
            fitting = [other for other in NAMED if not missing_tokens(tokenizer, NAMED[other], other)]
            raise UsageError(
                "TEMPLATE-TOKENS",
                f"the template {name} writes {', '.join(missing)}: the tokenizer has no such token",
                mend=f"choose one that fits it ({', '.join(fitting) or 'none does'}), or another tokenizer",
                key="tokenizer.template",
            )
        return NAMED[name]
    template = read_template(name)
    missing = missing_tokens(tokenizer, template)
    if missing:
        say(
            f"warning: {name} writes {', '.join(missing)}: the tokenizer has no such token, so it is "
            "spelt out in pieces and can't end a turn"
        )
    return template


def read_template(name: str) -> str:
    """The text of a named template, or of a file.

    Raises:
        UsageError: there is none.
    """
    if name in NAMED:
        return NAMED[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path.read_text(encoding="utf-8")
    raise UsageError(
        "TEMPLATE",
        f"no chat template named {name!r}",
        mend=f"name a file, or one of: {', '.join(NAMED)}",
        key="tokenizer.template",
    )
