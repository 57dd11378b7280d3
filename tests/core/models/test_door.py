from __future__ import annotations

import subprocess
import sys

import llmfw.core.models as door


def test_every_public_name_is_there() -> None:
    for name in door.__all__:
        assert getattr(door, name) is not None
    assert dir(door) == sorted(door.__all__)


def test_names_can_be_resolved_without_torch() -> None:
    code = (
        "import sys; from llmfw.core.models import resolve_model, preset_names;"
        "resolve_model('smollm2-135m'); preset_names();"
        "print(sorted({'torch', 'transformers', 'peft', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
