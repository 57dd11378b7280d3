"""``llmfw cache`` at the command line: what it prints, refuses and removes."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
import torch

from llmfw.cli import run
from llmfw.core.cache import cache_dir, locked_build
from llmfw.core.models import ReferenceCache
from llmfw.core.models.reference_cache.parts import write_part

KEY = {
    "format": 2, "base_hash": "ab" * 32, "architecture": "0123456789abcdef", "dtype": "float32",
    "quantization": "none", "precision": "32-true", "attention": "sdpa", "surgeries": [], "batch_keys": [],
    "torch": "2.13.0", "transformers": "5.23.0",
}  # fmt: skip
PAIRS = [
    {"id": f"p{i}", "prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, {i + 1}"}
    for i in range(12)
]
RUN = (
    "--plugin", "dpo", "model=tiny-llama", "data=pairs.jsonl", "trainer.max_steps=2", "data.validation=0",
    "trainer.micro_batch=2", "trainer.accumulate=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return tmp_path


@pytest.fixture
def cache() -> ReferenceCache:
    """Two samples of 3 + 2 and 1 + 1 trained tokens in two files, last used 40 days ago; a model beside."""
    found = ReferenceCache(KEY, about={"model": "tiny-llama"})
    write_part(found.folder, [(b"1" * 32, [torch.ones(3), torch.ones(2)])])
    write_part(found.folder, [(b"2" * 32, [torch.ones(1), torch.ones(1)])])
    os.utime(found.folder, (time.time() - 40 * 86400,) * 2)
    place = cache_dir("models") / "tiny-abc-2"
    locked_build(place, lambda folder: (folder / "x").write_bytes(bytes(2048)) and None)
    return found


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    """(standard output, standard error) of ``llmfw cache WORDS``, which ends with ``code``."""
    capsys.readouterr()
    assert run(["cache", *words]) == code
    found = capsys.readouterr()
    return found.out, found.err


def test_an_empty_cache_says_so(capsys, here) -> None:
    assert told(capsys, "ls")[0] == f"Nothing is cached in {here / 'cache'}.\n"
    assert told(capsys, "ls", "--json")[0] == "[]\n"
    assert told(capsys, "rm", "--all", "--yes")[0] == "Nothing to remove.\n"


def test_ls_says_what_each_thing_belongs_to(capsys, cache) -> None:
    lines = told(capsys, "ls")[0].splitlines()
    assert lines[0].split() == ["kind", "name", "size", "last", "used", "what"]
    assert re.search(r"^models +tiny-abc-2 +2 KiB +just now", lines[1])
    assert lines[2].endswith("tiny-llama (float32, 32-true): 2 samples, 7 trained tokens")
    assert "40 days ago" in lines[2] and cache.folder.name in lines[2]
    assert told(capsys)[0].splitlines() == lines
    assert len(told(capsys, "ls", "--kind", "models")[0].splitlines()) == 4


def test_ls_json_has_the_same_figures(capsys, cache) -> None:
    rows = json.loads(told(capsys, "ls", "--json")[0])
    assert [row["kind"] for row in rows] == ["models", "reference"]
    assert rows[1]["entries"] == 2 and rows[1]["paths"] == [str(cache.folder)]
    assert rows[1]["size"] == sum(path.stat().st_size for path in cache.folder.iterdir())


def test_explain_puts_the_key_into_words(capsys, cache) -> None:
    out, _ = told(capsys, "explain", cache.folder.name[:6])
    for line in (
        "model         tiny-llama", "weights       sha256 abababababababab", "precision     32-true",
        "numbers       2 samples, 7 trained tokens, in 2 files", f"place         {cache.folder}",
        "surgeries     none", "last used     40 days ago",
    ):  # fmt: skip
        assert line in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("explain", "models/tiny-abd-2"), r"CACHE-NAME.*did you mean models/tiny-abc-2"),
        (("explain",), r"USAGE.*nothing to explain"),
        (("explain", "models", "seed=1"), r"USAGE.*don't go with a run's settings"),
        (("ls", "--kind", "model"), r"CACHE-KIND.*did you mean models"),
        (("rm",), r"USAGE.*say what to remove"),
        (("rm", "models", "--all"), r"USAGE.*don't go together"),
        (("rm", "--all", "--kind", "models"), r"USAGE.*don't go together"),
        (("rm", "../../etc"), r"CACHE-NAME"),
        (("rm", "--unused-for", "-1"), r"USAGE"),
        (("rm", "models/tiny"), r"CACHE-CONFIRM.*models/tiny-abc-2.*2 KiB.*add --yes"),
    ],
)
def test_wrong_words_are_one_line_with_code_2_and_remove_nothing(capsys, cache, words, says) -> None:
    _, err = told(capsys, *words, code=2)
    assert re.search(says, err) and err.count("\n") == 1
    assert len(json.loads(told(capsys, "ls", "--json")[0])) == 2


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("tiny-abc-2",), ["reference"]),
        (("--kind", "reference"), ["models"]),
        (("--unused-for", "30"), ["models"]),
        (("--unused-for", "50"), ["models", "reference"]),
        (("--unused-for", "30", "--kind", "models"), ["models", "reference"]),
        (("--all",), []),
    ],
)
def test_rm_takes_what_is_named_and_says_how_much_was_freed(capsys, cache, words, left) -> None:
    before = {row["kind"]: row["size"] for row in json.loads(told(capsys, "ls", "--json")[0])}
    out, _ = told(capsys, "rm", *words, "--yes")
    now = [row["kind"] for row in json.loads(told(capsys, "ls", "--json")[0])]
    assert now == left
    gone = [kind for kind in before if kind not in left]
    if not gone:
        assert out == "Nothing to remove.\n"
    elif gone == ["models"]:
        assert out == "Removed 1 cached thing: 2 KiB freed.\n"
    else:
        assert out.startswith(f"Removed {len(gone)} cached thing")


def test_rm_asks_and_no_means_no(capsys, cache, monkeypatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    out, _ = told(capsys, "rm", "models/tiny", code=130)
    assert "Remove models/tiny-abc-2" in out and (cache_dir("models") / "tiny-abc-2").is_dir()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    told(capsys, "rm", "models/tiny")
    assert not (cache_dir("models") / "tiny-abc-2").exists()


def test_rm_removes_the_others_and_names_the_one_that_is_in_use(capsys, cache) -> None:
    from llmfw.core.models.reference_cache.claims import Claims

    claim = Claims(cache.folder).claim([b"3" * 32])
    out, err = told(capsys, "rm", "--all", "--yes", code=9)
    assert out.startswith("Removed 1 cached thing") and "CACHE-BUSY" in err and str(cache.folder) in err
    claim.give_back()
    told(capsys, "rm", "--all", "--yes")
    assert not cache.folder.exists()


def test_explain_tells_what_a_run_would_find_and_what_differs_from_the_nearest(capsys) -> None:
    """Two steps of one micro-batch of two pairs need 4 of the 12 pairs; dpo and ld_dpo need the same."""
    import llmfw

    before, _ = told(capsys, "explain", *RUN)
    assert "doesn't exist yet" in before and "4 of 4 would be computed" in before
    assert not list(cache_dir("reference").iterdir())
    more = ("trainer.reference=cache", "tracking.mlflow=false", "dpo.answers=0")
    llmfw.fit(*RUN[2:], *more, plugins=["dpo"])
    hit, _ = told(capsys, "explain", *RUN, "dpo.beta=0.7", "trainer.layout=padded")
    assert "(exists)" in hit and "all 4 are there: nothing would be computed" in hit
    miss, _ = told(capsys, "explain", *RUN, "trainer.precision=bf16-mixed")
    assert "(doesn't exist yet)" in miss and "nearest: reference/" in miss
    assert "precision: bf16-mixed here, 32-true there" in miss


def test_a_run_that_compares_with_no_reference_has_nothing_to_explain(capsys, here) -> None:
    (here / "texts.jsonl").write_text("".join(f'{{"text": "a line of text {i}"}}\n' for i in range(8)))
    _, err = told(capsys, "explain", "model=tiny-llama", "data=texts.jsonl", code=2)
    assert err.startswith("error[NO-REFERENCE] ") and "'causal_lm' asks for no reference" in err


@pytest.mark.parametrize("words", [("ls",), ("explain", "reference/"), ("rm", "--kind", "models", "--yes")])
def test_it_loads_nothing_heavy(cache, here, words) -> None:
    import subprocess
    import sys

    heavy = ("torch", "numpy", "safetensors", "transformers", "lightning", "omegaconf")
    code = (
        f"import sys; from llmfw.cli import run; code = run(['cache', *{list(words)!r}]); "
        f"print('LOADED:', code, *sorted(set({heavy!r}) & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "LOADED: 0"
