"""The verbs that ask a model, as programs: real processes, pipes and signals, over the random tiny model."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmfw.cli import run

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
TINY = ["model=tiny-llama", "seed=3"]
CODE = "import sys; from llmfw.cli import main; sys.exit(main())"


def start(folder: Path, *arguments: str, **streams: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        cwd=folder,
        env=environment,
        **{
            "text": True,
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **streams,
        },
    )


def llmfw(folder: Path, *arguments: str, said: str = "") -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    process = start(folder, *arguments)
    out, err = process.communicate(said, timeout=240)
    return process.returncode, out, err


def test_chat_through_a_pipe_answers_line_by_line_and_ends_with_the_input(tmp_path: Path):
    said = "Hi\n/save talk.jsonl\nHow are you?\n/reset\n"
    code, out, err = llmfw(tmp_path, "chat", *TINY, "generation.max_new_tokens=5", said=said)
    assert code == 0, err
    saved = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert saved[0] == {"role": "user", "content": "Hi"}
    assert out.startswith(saved[1]["content"] + "\n")
    assert "cut at the limit" in err and "is forgotten" in err
    assert "you>" not in out + err  # no prompt where nobody types


def test_ctrl_c_ends_an_answer_and_not_the_conversation(tmp_path: Path):
    process = start(tmp_path, "chat", *TINY, "generation.max_new_tokens=8000")
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write("Hi\n")
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 1)  # the answer has begun
    process.send_signal(signal.SIGINT)
    assert "(stopped)" in process.stderr.readline()
    _, err = process.communicate("/save talk.jsonl\n/quit\n", timeout=240)
    assert process.returncode == 0 and "saved to talk.jsonl" in err
    messages = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert 0 < len(messages[1]["content"]) < 8000


def test_generate_streams_one_answer_and_reads_a_prompt_from_standard_input(tmp_path: Path):
    words = ("generate", "-", *TINY, "generation.max_new_tokens=6")
    code, streamed, err = llmfw(tmp_path, *words, said="What is 2+2?\n")
    assert code == 0, err
    assert err.count("\n") == 1 and "6 tokens" in err and "generation.max_new_tokens" in err
    code, line, err = llmfw(tmp_path, *words, "--json", said="What is 2+2?\n")
    assert code == 0, err
    assert json.loads(line)["answer"] + "\n" == streamed and json.loads(line)["prompt"] == "What is 2+2?"


def test_in_a_terminal_control_characters_of_an_answer_are_made_visible(tmp_path: Path):
    """At temperature 3 a random byte model writes control bytes in ten answers; none reaches the terminal."""
    words = ("generate", "Hi", "-n", "10", *TINY, "generation.temperature=3.0")
    piped, _ = start(tmp_path, *words, text=False).communicate(timeout=240)
    raw = piped.decode()
    assert CONTROL.search(raw)
    ours, theirs = pty.openpty()
    process = start(tmp_path, *words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the other end was closed
        pass
    process.communicate(timeout=240)
    os.close(ours)
    text = shown.decode().replace("\r\n", "\n")  # the terminal's own line ends
    assert process.returncode == 0 and text == CONTROL.sub("\N{REPLACEMENT CHARACTER}", raw)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate", *TINY], 2, "error[NO-PROMPT]"),
        (["generate", "Hi", "--out", "none/a.jsonl", *TINY], 2, "mkdir -p none"),
        (["generate", "Hi", "model=nonsense"], 2, "no model named 'nonsense'"),
        (["generate", "Hi", *TINY, "generation.top_p=7"], 2, "generation.top_p"),
        (["predict", "--data", "none.jsonl", "--out", "a.jsonl", *TINY], 3, "none.jsonl"),
        (["predict", "--data", "bad.jsonl", "--out", "a.jsonl", *TINY], 3, "bad.jsonl:2"),
        (["validate", *TINY, "data=in.jsonl", "data.validation=null"], 3, "no rows are held out"),
    ],
)
def test_what_can_not_be_done_is_one_line_with_its_exit_code(
    arguments, code, words, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{half\n')
    got = run(arguments)
    out, err = capsys.readouterr()
    assert (got, out) == (code, ""), err
    assert words in err and err.count("\n") == 1 and err.startswith("error[")
    assert not (tmp_path / "a.jsonl").exists()
