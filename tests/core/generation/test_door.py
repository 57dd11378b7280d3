"""The door: every public name opens, and asking for light things loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmfw.core import generation


@pytest.mark.parametrize("name", generation.__all__)
def test_every_public_name_opens_and_says_what_it_is(name: str):
    value = getattr(generation, name)
    assert value.__doc__
    assert name in dir(generation)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'genarate'"):
        generation.genarate  # noqa: B018


def test_settings_prompts_and_ends_come_without_torch():
    code = (
        "import sys; from llmfw.core.generation import Sampling, encode_prompt, finish, prompt_of; "
        "print([name for name in ('torch', 'transformers', 'lightning') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
